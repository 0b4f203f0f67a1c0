//! Accounts: `DOMAIN\name` of a person, a service or a group.

use std::fmt;

use sso_proto::Reason;

use super::name::{Spelling, canonical_text, from_parts, parse_key};
use crate::error::Error;

/// Domains whose accounts exist on every machine and therefore say nothing about who someone is.
const BUILT_IN_DOMAINS: &[&str] =
    &["builtin", "nt authority", "nt service", "nt virtual machine", "window manager"];
const BUILT_IN_NAMES: &[&str] = &[
    "everyone",
    "authenticated users",
    "anonymous logon",
    "interactive",
    "network",
    "creator owner",
    "system",
    "local service",
    "network service",
];

/// An account, `DOMAIN\name`, or `name` alone for a local one. Compares without regard to case.
#[derive(Clone)]
pub struct Account(Spelling);

impl Account {
    /// Parses `text`, keeping its case.
    ///
    /// # Errors
    /// `INVALID_ACCOUNT` for a text that is not of the form; `BUILT_IN_ACCOUNT` for accounts that
    /// stand for everybody (ESSO.md 2.1).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason, what: &str| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
            Err(Error::new(reason, format!("account \"{shown}\" {what}")))
        };
        let Ok(key) = parse_key("account", text, 255) else {
            return refuse(
                Reason::InvalidAccount,
                "is empty, too long or has characters it must not have; write DOMAIN\\name",
            );
        };
        let (domain, name) = match key.split_once('\\') {
            Some((domain, name)) => (Some(domain), name),
            None => (None, key.as_str()),
        };
        let sound = |part: &str| {
            !part.is_empty()
                && part.trim() == part
                && !part
                    .contains(['\\', '/', '"', '\'', ';', ':', '|', '<', '>', '*', '?', '=', ','])
        };
        if !sound(name) || !domain.is_none_or(sound) {
            return refuse(Reason::InvalidAccount, "is not of the form DOMAIN\\name");
        }
        if BUILT_IN_NAMES.contains(&name) || domain.is_some_and(|d| BUILT_IN_DOMAINS.contains(&d)) {
            return refuse(
                Reason::BuiltInAccount,
                "is a built-in account; name a group or account of your own",
            );
        }
        Ok(Self(Spelling::new(text, &key)))
    }

    /// The canonical domain; `None` for a local account.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.key().split_once('\\').map(|(domain, _)| domain)
    }
}

canonical_text!(Account);
from_parts!(Account);

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The accounts of one role, in the order given, without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts(Vec<Account>);

impl Accounts {
    /// At most this many accounts hold one role.
    pub const MOST: usize = 256;

    /// Parses one account per text; a text may itself be a `;`-separated list.
    ///
    /// # Errors
    /// As [`Account::parse`]; `INVALID_REQUEST` for more than [`Self::MOST`].
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, Error> {
        let mut accounts: Vec<Account> = Vec::new();
        for text in texts.iter().flat_map(|text| text.as_ref().split(';')) {
            if text.trim().is_empty() {
                continue;
            }
            let account = Account::parse(text.trim())?;
            if !accounts.contains(&account) {
                accounts.push(account);
            }
            if accounts.len() > Self::MOST {
                return Err(Error::new(
                    Reason::InvalidRequest,
                    format!("a role holds at most {} accounts; use a group", Self::MOST),
                ));
            }
        }
        Ok(Self(accounts))
    }

    /// The accounts in order.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The accounts as they were written.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(|account| account.as_str().to_owned()).collect()
    }
}

impl FromIterator<Account> for Accounts {
    fn from_iter<I: IntoIterator<Item = Account>>(accounts: I) -> Self {
        Self(accounts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accounts_compare_without_case() {
        let account = Account::parse("CONTOSO\\Sso Admins").unwrap();
        assert_eq!(account, Account::parse("contoso\\SSO ADMINS").unwrap());
        assert_eq!(account.domain(), Some("contoso"));
        assert_eq!(Account::parse("operator").unwrap().domain(), None);
    }

    #[test]
    fn lists_keep_order_and_drop_repetitions() {
        let accounts = Accounts::parse(&["C\\b;C\\a; ", "c\\B", "C\\c"]).unwrap();
        assert_eq!(accounts.to_texts(), ["C\\b", "C\\a", "C\\c"]);
    }

    #[test]
    fn bad_accounts_name_their_fault() {
        for bad in ["", "\\x", "D\\", "a\\b\\c", "D\\ x", "D\\x*", "D/x", "u@d\0", "D \\x"] {
            assert_eq!(Account::parse(bad).unwrap_err().reason, Reason::InvalidAccount, "{bad:?}");
        }
        for bad in ["Everyone", "BUILTIN\\Administrators", "NT AUTHORITY\\SYSTEM", "D\\everyone"] {
            assert_eq!(Account::parse(bad).unwrap_err().reason, Reason::BuiltInAccount, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable(text in "[\\PC\\\\]{1,30}") {
            if let Ok(account) = Account::parse(&text) {
                let again = Account::parse(account.key()).unwrap();
                prop_assert_eq!(again.key(), account.key());
            }
        }
    }
}
