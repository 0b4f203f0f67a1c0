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
}

impl Error {
    /// An error of this reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
