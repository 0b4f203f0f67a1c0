//! The one error that rules and floors hand up: a stable reason and words for a person.
//!
//! Every floor turns its own errors into this one where they leave it, so that whoever is above
//! needs to know nothing of SQL, keys or TLS.

use sso_proto::Reason;

/// Why a request is refused. The message names what was wrong, which object and what to do; it
/// never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The stable reason to answer with.
    pub reason: Reason,
    /// For a person.
    pub message: String,
    /// What only administrators may know, like the accounts that would have been accepted: written to
    /// the log and the audit, never answered (ESSO.md 2.2). Empty where there is nothing.
    pub for_administrators: String,
}

impl Error {
    /// An error of this reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), for_administrators: String::new() }
    }

    /// The same error with something for the log and the audit only.
    #[must_use]
    pub fn for_administrators(mut self, what: impl Into<String>) -> Self {
        self.for_administrators = what.into();
        self
    }
}
