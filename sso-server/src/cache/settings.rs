//! The settings of what is remembered.

use serde::Deserialize;

/// Megabytes, without the section.
const MEGABYTES: u32 = 512;
/// Bounds of `megabytes`.
const BOUNDS: std::ops::RangeInclusive<u32> = 1..=1_048_576;

/// Section `[cache]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Memory for applications, sealed mappings and sealed configurations together.
    #[serde(default = "megabytes")]
    pub megabytes: u32,
}

fn megabytes() -> u32 {
    MEGABYTES
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { megabytes: MEGABYTES }
    }
}

impl CacheSettings {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The name of the setting and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if BOUNDS.contains(&self.megabytes) {
            return Ok(());
        }
        let why = format!("must be {} to {}", BOUNDS.start(), BOUNDS.end());
        Err(("megabytes", why))
    }

    pub(super) fn bytes(self) -> u64 {
        u64::from(self.megabytes).saturating_mul(1_000_000)
    }
}
