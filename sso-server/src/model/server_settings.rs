//! What an administrator sets for one server, kept in the database (ESSO.md 7.2).

use sso_proto::Reason;

use crate::error::Error;

/// The settings of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What is logged of requests that are done: 0 nothing … 3 everything.
    pub positive_audit_level: u8,
    /// What is logged of requests that are refused: 0 nothing … 3 everything.
    pub negative_audit_level: u8,
    /// Look-ups are served to callers on other machines.
    pub remote_lookup: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { positive_audit_level: 0, negative_audit_level: 1, remote_lookup: true }
    }
}

impl ServerSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        for (name, level) in [
            ("positive_audit_level", self.positive_audit_level),
            ("negative_audit_level", self.negative_audit_level),
        ] {
            if level > 3 {
                let message = format!("{name} is {level}; it must be 0 to 3");
                return Err(Error::new(Reason::OutOfRange, message));
            }
        }
        Ok(())
    }
}
