//! Who asks.

use std::{collections::BTreeMap, fmt};

use time::OffsetDateTime;

use super::{Account, Accounts, RoleMemo};

/// How a caller proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a client certificate.
    Certificate,
    /// By a bearer token.
    Token {
        /// Groups that the token names: canonical key and name as written.
        groups: BTreeMap<String, String>,
        /// The token is good until then.
        until: OffsetDateTime,
        /// What the issuer calls the account for ever: issuer and subject, `https://idp.example|8f1c…`.
        subject: String,
    },
    /// By being a process of this user on the same machine.
    UnixPeer {
        /// The process.
        pid: Option<i32>,
        /// What the system calls the user for ever: `unix|1000`.
        subject: String,
    },
}

impl Proof {
    /// What the identity source calls the account for ever; `None` where it has no such name.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Certificate => None,
            Self::Token { subject, .. } | Self::UnixPeer { subject, .. } => Some(subject),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token { .. } => "token",
            Self::UnixPeer { .. } => "unix",
        }
    }
}

/// An authenticated principal: the account and the groups it is a member of.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub account: Account,
    /// The groups, nested ones included: canonical key and name as written.
    pub groups: BTreeMap<String, String>,
    /// How that is known.
    pub proof: Proof,
    /// The roles that were worked out for the caller.
    pub memo: RoleMemo,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.account.as_str())
    }
}

impl Caller {
    /// The account, in these groups.
    #[must_use]
    pub fn new(account: Account, groups: BTreeMap<String, String>, proof: Proof) -> Self {
        Self { account, groups, proof, memo: RoleMemo::default() }
    }

    /// The first of `accounts` that is the caller or a group the caller is in, and its place
    /// (ESSO.md 4.2: the order is decisive).
    #[must_use]
    pub fn first_in<'a>(&self, accounts: &'a Accounts) -> Option<(usize, &'a Account)> {
        let is = |account: &Account| {
            account.key() == self.account.key() || self.groups.contains_key(account.key())
        };
        accounts.iter().enumerate().find(|(_, account)| is(account))
    }

    /// Whether the caller, or a group it is in, is one of `accounts`.
    #[must_use]
    pub fn is_in(&self, accounts: &Accounts) -> bool {
        self.first_in(accounts).is_some()
    }

    /// The canonical keys of the account and all its groups.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.account.key()).chain(self.groups.keys().map(String::as_str))
    }
}
