//! Where a generation is in its life.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Generated, and not handed out before a backup has it.
    Prepared,
    /// Handed out, and not acknowledged by everybody yet; nothing is sealed under it.
    Distributed,
    /// New values are sealed under it.
    Active,
    /// Values sealed under it are being sealed again.
    Draining,
    /// No value is sealed under it.
    Retired,
    /// Its key is gone.
    Destroyed,
}

impl State {
    /// Whether the generation is on its way to become active.
    #[must_use]
    pub fn is_coming(self) -> bool {
        match self {
            Self::Prepared | Self::Distributed => true,
            Self::Active | Self::Draining | Self::Retired | Self::Destroyed => false,
        }
    }

    /// Whether servers get the key.
    #[must_use]
    pub fn is_handed_out(self) -> bool {
        match self {
            Self::Distributed | Self::Active | Self::Draining | Self::Retired => true,
            Self::Prepared | Self::Destroyed => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Distributed => "distributed",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        })
    }
}
