//! Who asks.

use std::collections::BTreeSet;

use super::{Account, Accounts};

/// An authenticated principal: the account and the groups it is a member of.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub account: Account,
    /// Canonical keys of the groups, nested ones included.
    pub groups: BTreeSet<String>,
}

impl Caller {
    /// Whether the caller, or a group it is in, is one of `accounts`.
    #[must_use]
    pub fn is_in(&self, accounts: &Accounts) -> bool {
        accounts.iter().any(|account| {
            account.key() == self.account.key() || self.groups.contains(account.key())
        })
    }

    /// The canonical keys of the account and all its groups.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.account.key()).chain(self.groups.iter().map(String::as_str))
    }
}
