//! The settings of the whole SSO system, kept in the database (ESSO.md 7.1).

use std::ops::RangeInclusive;

use sso_proto::Reason;

use super::Accounts;
use crate::error::Error;

/// The settings of the whole system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalInfo {
    /// Hold the role of SSO administrator.
    pub sso_administrators: Accounts,
    /// Hold the role of affiliate administrator.
    pub affiliate_administrators: Accounts,
    /// The master secret server last used; empty before the first fetch.
    pub secret_server: String,
    /// At least so many newest records of deleted applications are kept.
    pub audit_deleted_applications: u32,
    /// At least so many newest records of deleted mappings are kept.
    pub audit_deleted_mappings: u32,
    /// At least so many newest records of revealed secrets are kept.
    pub audit_credential_lookups: u32,
    /// Minutes.
    pub ticket_timeout: u32,
    /// Minutes; 0 = no cache.
    pub credential_cache_timeout: u32,
    /// Off: everything but administration of the system is refused.
    pub enabled: bool,
    /// Tickets may be issued, and redeemed where the application allows them.
    pub tickets_allowed: bool,
    /// Tickets are validated against a sender, whatever the application says.
    pub tickets_validated: bool,
    /// External users may log on where the application allows it.
    pub host_initiated_allowed: bool,
    /// Their word is taken for who sent a message.
    pub trusted_hosts: Accounts,
    /// Read every configuration without masked values.
    pub configuration_readers: Accounts,
    /// Read every audit record.
    pub auditors: Accounts,
}

impl GlobalInfo {
    /// The values of a new system (ESSO.md 7.1) with these administrators.
    #[must_use]
    pub fn initial(sso_administrators: Accounts, affiliate_administrators: Accounts) -> Self {
        Self {
            sso_administrators,
            affiliate_administrators,
            secret_server: String::new(),
            audit_deleted_applications: 1000,
            audit_deleted_mappings: 1000,
            audit_credential_lookups: 1000,
            ticket_timeout: 2,
            credential_cache_timeout: 60,
            enabled: true,
            tickets_allowed: false,
            tickets_validated: true,
            host_initiated_allowed: false,
            trusted_hosts: Accounts::default(),
            configuration_readers: Accounts::default(),
            auditors: Accounts::default(),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` naming the setting and its range; `INVALID_REQUEST` for no SSO administrator.
    pub fn check(&self) -> Result<(), Error> {
        const YEAR: u32 = 525_600;
        let within = |name: &str, value: u32, range: RangeInclusive<u32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let message =
                format!("{name} is {value}; it must be {} to {}", range.start(), range.end());
            Err(Error::new(Reason::OutOfRange, message))
        };
        within("ticket_timeout (minutes)", self.ticket_timeout, 1..=YEAR)?;
        within("credential_cache_timeout (minutes)", self.credential_cache_timeout, 0..=YEAR)?;
        if self.sso_administrators.is_empty() {
            return Err(Error::new(
                Reason::InvalidRequest,
                "sso_administrators must name at least one account, or nobody could administer the system",
            ));
        }
        Ok(())
    }
}
