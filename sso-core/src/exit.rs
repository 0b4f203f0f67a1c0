//! The exit codes every program of this product uses.

use std::process::ExitCode;

/// How a program ended, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The service refused, or what was to be done cannot be done.
    Refused = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Settings, key files or certificates are missing or wrong.
    Settings = 64,
    /// Something this program needs cannot be reached.
    Unavailable = 69,
    /// The audit record cannot be written.
    Audit = 74,
    /// The caller may not do this.
    Denied = 77,
}

impl Exit {
    /// The number a shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_ones() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Refused, 1),
            (Exit::Usage, 2),
            (Exit::Settings, 64),
            (Exit::Unavailable, 69),
            (Exit::Audit, 74),
            (Exit::Denied, 77),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
