//! Log lines of changes that an operator should see, with their event numbers. The audit holds the
//! same changes; the log is what is watched.

use std::fmt;

use sso_core::tls::TlsNotice;
use sso_proto::{Event, Reason};

use crate::{
    access::Call,
    model::{Account, Application, ApplicationFlag, ApplicationName, GlobalInfo},
};

/// Says what changed of an application that is committed; `before` is `None` for a new one.
pub fn application(call: &Call, before: Option<&Application>, after: &Application) {
    let (by, application) = (&call.caller.account, &after.name);
    if before.is_some_and(|before| before.users != after.users) {
        let accounts = after.users.to_texts();
        tracing::info!(event = Event::ApplicationUsersChanged.number(), %by, %application, ?accounts, "user accounts changed");
    }
    if before.is_some_and(|before| before.administrators != after.administrators) {
        let accounts = after.administrators.to_texts();
        tracing::info!(event = Event::ApplicationAdministratorsChanged.number(), %by, %application, ?accounts, "administrator accounts changed");
    }
    let was_enabled = before.is_some_and(|before| before.enabled);
    if after.enabled && !was_enabled {
        tracing::info!(event = Event::ApplicationEnabled.number(), %by, %application, "application enabled");
    } else if was_enabled && !after.enabled {
        tracing::info!(event = Event::ApplicationDisabled.number(), %by, %application, "application disabled");
    }
    let tickets = |it: &Application| it.has(ApplicationFlag::AllowTickets);
    let had_tickets = before.is_some_and(tickets);
    if tickets(after) && !had_tickets {
        tracing::info!(event = Event::ApplicationTicketsOn.number(), %by, %application, "tickets on");
    } else if had_tickets && !tickets(after) {
        tracing::info!(event = Event::ApplicationTicketsOff.number(), %by, %application, "tickets off");
    }
}

/// Says what changed of the system, after the commit.
pub fn system(call: &Call, before: &GlobalInfo, after: &GlobalInfo) {
    let by = &call.caller.account;
    if before.sso_administrators != after.sso_administrators {
        let (old, new) =
            (before.sso_administrators.to_texts(), after.sso_administrators.to_texts());
        tracing::info!(event = Event::SsoAdministratorsChanged.number(), %by, ?old, ?new, "SSO administrators changed");
    }
    if before.affiliate_administrators != after.affiliate_administrators {
        let old = before.affiliate_administrators.to_texts();
        let new = after.affiliate_administrators.to_texts();
        tracing::info!(event = Event::AffiliateAdministratorsChanged.number(), %by, ?old, ?new, "affiliate administrators changed");
    }
    match (before.enabled, after.enabled) {
        (false, true) => {
            tracing::info!(event = Event::SystemEnabled.number(), %by, "system enabled");
        }
        (true, false) => {
            tracing::info!(event = Event::SystemDisabled.number(), %by, "system disabled");
        }
        _ => {}
    }
    match (before.tickets_allowed, after.tickets_allowed) {
        (false, true) => {
            tracing::info!(event = Event::SystemTicketsOn.number(), %by, "tickets on");
        }
        (true, false) => {
            tracing::info!(event = Event::SystemTicketsOff.number(), %by, "tickets off");
        }
        _ => {}
    }
}

/// Says which of the accounts that administer the system are individual ones.
pub fn individuals(system: &GlobalInfo, is_group: impl Fn(&Account) -> bool) {
    for account in system.sso_administrators.iter().filter(|account| !is_group(account)) {
        tracing::warn!(event = Event::IndividualSsoAdministrator.number(), %account, "an individual SSO administrator");
    }
    for account in system.affiliate_administrators.iter().filter(|account| !is_group(account)) {
        tracing::warn!(event = Event::IndividualAffiliateAdministrator.number(), %account, "an individual affiliate administrator");
    }
}

/// The role of an application that an individual account was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Individual {
    /// One of its users.
    User,
    /// One of its administrators.
    Administrator,
}

impl Individual {
    /// What its administrators are warned with.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::User => Reason::IndividualUser,
            Self::Administrator => Reason::IndividualAdministrator,
        }
    }
}

impl fmt::Display for Individual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Administrator => "administrator",
        })
    }
}

/// Says that an individual account has the role in the application.
pub fn individual(role: Individual, application: &ApplicationName, account: &Account) {
    match role {
        Individual::User => {
            tracing::warn!(event = Event::IndividualApplicationUser.number(), %application, %account, "an individual user");
        }
        Individual::Administrator => {
            tracing::warn!(event = Event::IndividualApplicationAdministrator.number(), %application, %account, "an individual administrator");
        }
    }
}

/// Says what came of certificates and revocation lists.
pub fn tls(notice: &TlsNotice) {
    match notice {
        TlsNotice::Reloaded { generation } => {
            tracing::info!(event = Event::TlsReloaded.number(), generation, "TLS files reloaded");
        }
        TlsNotice::NotReloaded { error } => {
            tracing::error!(
                event = Event::TlsNotReloaded.number(),
                error,
                "TLS files are not usable, those loaded before stay in use"
            );
        }
        TlsNotice::CertificateEndsSoon { certificate, not_after, days_left } => {
            tracing::warn!(event = Event::CertificateEndsSoon.number(), certificate, %not_after, days_left, "a certificate ends soon");
        }
        TlsNotice::CertificateEnded { certificate, not_after } => {
            tracing::error!(event = Event::CertificateEnded.number(), certificate, %not_after, "a certificate has expired");
        }
        TlsNotice::ListUnavailable { source, problem } => {
            tracing::warn!(
                event = Event::RevocationListUnavailable.number(),
                source,
                problem,
                "a revocation list is not to be had"
            );
        }
        TlsNotice::ListExpired { source, next_update } => {
            tracing::error!(event = Event::RevocationListExpired.number(), source, %next_update, "a revocation list has expired");
        }
        TlsNotice::SoftFailed { reason, thumbprint, serial, subject, words } => {
            let reason = reason.as_str();
            tracing::warn!(
                event = Event::RevocationNotChecked.number(),
                reason,
                thumbprint,
                serial,
                subject,
                words,
                "a peer is let through unchecked"
            );
        }
    }
}
