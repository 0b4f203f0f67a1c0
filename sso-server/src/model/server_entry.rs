//! A server of the system, as it reports itself to the database.

use time::OffsetDateTime;

/// One SSO server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEntry {
    /// Its name, unique in the system.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: OffsetDateTime,
    /// When it last reported.
    pub last_seen_at: OffsetDateTime,
    /// The word for the state of its master secret.
    pub master_state: String,
}
