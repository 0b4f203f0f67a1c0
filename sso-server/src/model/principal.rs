//! Who had an account name first.

use time::OffsetDateTime;

use super::Account;

/// An account name, and whom it belongs to by what the identity source calls them for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name.
    pub account: Account,
    /// The source and its name for the one, `https://idp.example|8f1c…` or `unix|1000`.
    pub subject: String,
    /// When the name was first seen.
    pub first_seen_at: OffsetDateTime,
    /// The last other one who came with this name, and when.
    pub refused: Option<(String, OffsetDateTime)>,
}
