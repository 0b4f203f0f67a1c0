//! Why there are no keys to use.

use sso_proto::Reason;

use crate::error::Error;

/// Why there are no keys to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterError {
    /// Keys are held, but no master has confirmed them for the length of the write lease.
    #[error(
        "the master secret server {url} is not reachable, so nothing new is sealed; stored values \
         can be read{}; start the master or repair the way to it, this server recovers by itself",
        because(last_error)
    )]
    Unreachable {
        /// Addresses of the masters.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// The read lease ended and the keys were forgotten.
    #[error(
        "the keys of the master secret server {url} were forgotten, because it was away for longer \
         than read_lease_seconds{}; start the master or repair the way to it, this server recovers \
         by itself",
        because(last_error)
    )]
    Expired {
        /// Addresses of the masters.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// No keys were obtained since this server started.
    #[error(
        "this server has not obtained any key from the master secret server {url} since it \
         started{}; start the master or repair the way to it, this server recovers by itself",
        because(last_error)
    )]
    Missing {
        /// Addresses of the masters.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// The master holds the keys of another system.
    #[error(
        "the master secret server {url} has the keys of another system: {why}; point master.url at \
         the right master, or restore its keystore from the backup"
    )]
    Foreign {
        /// Address of the master.
        url: String,
        /// Which keystore is expected and which was found.
        why: String,
    },
    /// Masters answer, and none of them has what the database needs.
    #[error(
        "the master secret server {url} is outdated, so its keys are not used: {why}; start the \
         primary, or promote a standby that is up to date, this server recovers by itself"
    )]
    Outdated {
        /// Address of the master.
        url: String,
        /// What it lacks.
        why: String,
    },
    /// This server lost its right to the keys.
    #[error(
        "the master secret server {url} revoked the right of this server to the master secret, and \
         its keys are forgotten ({why}); `sso server readmit` gives it back"
    )]
    Revoked {
        /// Address of the master.
        url: String,
        /// Its words.
        why: String,
    },
}

impl From<MasterError> for Error {
    fn from(error: MasterError) -> Self {
        let reason = match &error {
            MasterError::Unreachable { .. } => Reason::MasterUnreachable,
            MasterError::Expired { .. } => Reason::MasterSecretExpired,
            MasterError::Missing { .. } => Reason::MasterSecretMissing,
            MasterError::Foreign { .. } => Reason::MasterSecretForeign,
            MasterError::Outdated { .. } => Reason::MasterOutdated,
            MasterError::Revoked { .. } => Reason::MasterSecretRevoked,
        };
        Self::new(reason, error.to_string())
    }
}

fn because(last_error: &str) -> String {
    if last_error.is_empty() { String::new() } else { format!(" ({last_error})") }
}
