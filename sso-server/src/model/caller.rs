//! Who asks.

use std::collections::BTreeMap;

use super::{Account, Accounts};

/// An authenticated principal: the account and the groups it is a member of.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub account: Account,
    /// The groups, nested ones included: canonical key and name as written.
    pub groups: BTreeMap<String, String>,
}

impl Caller {
    /// Whether the caller, or a group it is in, is one of `accounts`.
    #[must_use]
    pub fn is_in(&self, accounts: &Accounts) -> bool {
        accounts.iter().any(|account| {
            account.key() == self.account.key() || self.groups.contains_key(account.key())
        })
    }

    /// The canonical keys of the account and all its groups.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.account.key()).chain(self.groups.keys().map(String::as_str))
    }
}
