//! Who the user of a local process stands for.

use sso_core::local::LocalPeer;
use sso_proto::Reason;

use super::token::SourceDomain;
use crate::{error::Error, model::Account};

/// The user that Linux shows in place of everybody it cannot name, as seen from another namespace:
/// many people, so it is nobody's name.
const OVERFLOW_UID: u32 = 65_534;

/// Turns the user of a local process into an account. Root is a user like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixRule {
    /// The user of this name is this account.
    User {
        /// As the system's database of users has it.
        name: String,
        /// The account.
        account: Account,
    },
    /// The user of this number is this account.
    Uid {
        /// The number.
        uid: u32,
        /// The account.
        account: Account,
    },
    /// Every user is the account of the same name in this domain.
    Everyone(SourceDomain),
}

impl UnixRule {
    /// The rule for `user` or `uid`.
    ///
    /// # Errors
    /// `INVALID_ACCOUNT` and its kin: the account is not of the form `DOMAIN\name`.
    pub fn single(user: Result<String, u32>, account: &str) -> Result<Self, Error> {
        let account = Account::parse(account)?;
        if account.domain().is_none() {
            let why = format!("account \"{account}\" has no domain: write DOMAIN\\name");
            return Err(Error::new(Reason::InvalidAccount, why));
        }
        Ok(match user {
            Ok(name) => Self::User { name, account },
            Err(uid) => Self::Uid { uid, account },
        })
    }

    /// The canonical domain of the accounts that the rule asserts.
    #[must_use]
    pub fn domain(&self) -> &str {
        match self {
            Self::User { account, .. } | Self::Uid { account, .. } => {
                account.domain().unwrap_or_default()
            }
            Self::Everyone(domain) => domain.key(),
        }
    }

    /// The account; `Some(None)` when the rule decides that the user stands for nobody.
    pub(super) fn account(&self, peer: &LocalPeer) -> Option<Option<Account>> {
        match self {
            Self::User { name, account } => {
                (peer.user.as_deref() == Some(name.as_str())).then(|| Some(account.clone()))
            }
            Self::Uid { uid, account } => (peer.uid == *uid).then(|| Some(account.clone())),
            Self::Everyone(domain) => {
                let user = peer.user.as_deref().filter(|_| peer.uid != OVERFLOW_UID);
                Some(user.and_then(|user| domain.account(user).ok()))
            }
        }
    }
}
