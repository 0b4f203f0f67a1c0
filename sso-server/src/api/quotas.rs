//! How often one account may ask, so that one that runs wild slows nobody else down.

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use serde::Deserialize;
use sso_proto::{Reason, Refusal};

use crate::model::Account;

/// After so many requests the accounts that did not ask lately are forgotten.
const FORGET_AFTER: u32 = 1 << 16;

/// Section `[quota]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// Requests of one account in a second at this server; without it there is no quota.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests that an account which was silent may send at once; those of a second if absent.
    pub burst: Option<NonZeroU32>,
}

/// Counts what each account asks.
#[derive(Debug)]
pub(super) struct Quotas {
    per_second: NonZeroU32,
    /// By a hash of their names, which nobody can foresee.
    accounts: DefaultKeyedRateLimiter<u64>,
    hashes: RandomState,
    clock: DefaultClock,
    asked: AtomicU32,
}

impl Quotas {
    /// `None` where there is no quota.
    pub(super) fn new(settings: QuotaSettings) -> Option<Self> {
        let per_second = settings.requests_per_second?;
        let quota = Quota::per_second(per_second);
        let quota = settings.burst.map_or(quota, |burst| quota.allow_burst(burst));
        Some(Self {
            per_second,
            accounts: RateLimiter::keyed(quota),
            hashes: RandomState::new(),
            clock: DefaultClock::default(),
            asked: AtomicU32::new(0),
        })
    }

    /// Counts a request of the account.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED` with the time after which it may ask again.
    pub(super) fn count(&self, account: &Account) -> Result<(), Refusal> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            self.accounts.retain_recent();
        }
        let key = self.hashes.hash_one(account.key());
        self.accounts.check_key(&key).map_err(|early| {
            let message = format!(
                "{account} may send {} requests a second to this server (quota.requests_per_second)",
                self.per_second
            );
            let retry_after = Some(early.wait_time_from(self.clock.now()));
            Refusal { retry_after, ..Refusal::new(Reason::QuotaExceeded, message) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Account {
        Account::parse(name).unwrap()
    }

    fn settings(text: &str) -> QuotaSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_account_that_asks_too_often_waits_and_nobody_else_does() {
        let quotas = Quotas::new(settings("requests_per_second = 1\nburst = 3")).unwrap();
        for _ in 0..3 {
            quotas.count(&account("DEV\\one")).unwrap();
        }
        // The same account, however it is written.
        let refused = quotas.count(&account("dev\\ONE")).unwrap_err();
        assert_eq!(refused.reason, Reason::QuotaExceeded);
        assert!(refused.message.contains("may send 1 requests a second"), "{}", refused.message);
        let wait = refused.retry_after.unwrap();
        assert!(wait <= std::time::Duration::from_secs(1) && !wait.is_zero(), "{wait:?}");
        quotas.count(&account("DEV\\other")).unwrap();
    }

    #[test]
    fn accounts_that_are_silent_are_forgotten() {
        let quotas = Quotas::new(settings("requests_per_second = 4000000000")).unwrap();
        for number in 0..FORGET_AFTER {
            quotas.count(&account(&format!("DEV\\u{number}"))).unwrap();
        }
        assert!(quotas.accounts.len() < 1000, "{}", quotas.accounts.len());
    }

    #[test]
    fn without_a_quota_nothing_is_counted() {
        assert!(Quotas::new(settings("")).is_none());
        assert!(Quotas::new(settings("burst = 5")).is_none());
        assert!(toml::from_str::<QuotaSettings>("requests_per_second = 0").is_err());
    }
}
