//! Redeeming: every check in the order of [`Tickets::redeem`] (ESSO.md 5.4), then the record, then the credentials.

use std::{collections::BTreeMap, sync::Arc};

use sso_core::secret::SecretText;
use sso_proto::Reason;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Tickets, validity};
use crate::{
    access::{Action, Call},
    audit::Subject,
    error::Error,
    gates::Entry,
    model::{
        Account, Application, ApplicationFlag, ApplicationName, Caller, Credentials, Proof, Ticket,
    },
};

/// What is to be redeemed.
#[derive(Debug)]
pub struct Redemption {
    /// Where.
    pub application: ApplicationName,
    /// The ticket.
    pub ticket: SecretText,
    /// Who the message says it comes from; `None` = redeem without validating.
    pub sender: Option<Account>,
    /// Read the database, whatever is cached.
    pub refresh: bool,
}

/// What a ticket was redeemed for.
#[derive(Debug)]
pub struct Redeemed {
    /// The credentials.
    pub credentials: Credentials,
    /// Whom the ticket was issued to.
    pub account: Account,
    /// Its id.
    pub ticket: Uuid,
}

/// A ticket that passed every check.
struct Passed {
    application: Arc<Application>,
    ticket: Ticket,
    credentials: Credentials,
    /// It has ended, and the application takes it all the same.
    ended: bool,
    remembered_until: OffsetDateTime,
}

impl Tickets {
    /// Redeems a ticket for the credentials that the application maps to the account it was issued to.
    /// Nothing of them leaves before the record is taken; where tickets are redeemed once, this one is marked
    /// before that, durably.
    ///
    /// # Errors
    /// In this order: `REMOTE_LOOKUP_NOT_ALLOWED`, `SYSTEM_DISABLED`, a missing role,
    /// `APPLICATION_NOT_FOUND`, `APPLICATION_DISABLED`, `TICKETS_NOT_ALLOWED_BY_SYSTEM`,
    /// `TICKETS_NOT_ALLOWED_BY_APPLICATION`, `WINDOWS_INITIATED_OFF` (all by [`crate::gates::gates`]);
    /// `TICKET_MALFORMED`, `TICKET_NOT_AUTHENTIC`, `TICKET_NOT_YET_VALID`, `TICKET_EXPIRED`,
    /// `TICKET_OUTDATED` for one older than the application, `TICKET_AUDIENCE_WRONG`,
    /// `TICKET_OF_OWN_LOGON`, `TICKET_VALIDATION_REQUIRED_BY_…` or `TICKET_SENDER_MISMATCH`,
    /// `TICKET_OUTDATED` for the ticket of a former holder of the name, `TICKET_USER_NOT_IN_APPLICATION`, `MAPPING_NOT_FOUND`,
    /// `MAPPING_DISABLED` and its kin, `CREDENTIALS_NOT_SET`, `TICKET_OUTDATED` for one older than the
    /// mapping, `TICKET_REDEEMED`, `AUDIT_UNAVAILABLE`.
    pub async fn redeem(&self, call: &Call, wanted: &Redemption) -> Result<Redeemed, Error> {
        let redeemed = self.redeem_if_allowed(call, wanted).await;
        if let Err(error) = &redeemed
            && let Some(event) = error.reason.event()
        {
            let (application, reason) = (wanted.application.as_str(), error.reason.as_str());
            tracing::warn!(event, %call, application, reason, %error, "ticket not redeemed");
        }
        redeemed
    }

    async fn redeem_if_allowed(&self, call: &Call, wanted: &Redemption) -> Result<Redeemed, Error> {
        let name = &wanted.application;
        let found = self.lookup.cache.application(name, wanted.refresh).await?;
        let entry = Entry { call, action: Action::TicketRedeem, name };
        let application = entry.pass(&self.access, found)?;
        if application.has(ApplicationFlag::OneTimeTickets) {
            self.storage.require_room_to_redeem()?;
        }
        // Expose: it is opened.
        let (ticket, _) = self.vault.open_ticket(wanted.ticket.expose())?;
        let of_ticket = issued_to(&ticket);
        let passed = async {
            let passed = self.check(call, wanted, application, ticket).await?;
            self.record(call, &passed).await?;
            Ok(passed)
        };
        let passed = passed.await.map_err(|error: Error| {
            if error.reason.is_denial() { error.for_administrators(of_ticket) } else { error }
        })?;
        let Passed { application, ticket, credentials, ended, .. } = passed;
        if ended {
            let (event, id) = (Reason::TicketsNeverExpire.event(), ticket.id);
            let application = application.name.as_str();
            tracing::warn!(event, %call, application, ticket = %id, "a ticket that has ended was redeemed, as the application lets none end");
        }
        Ok(Redeemed { credentials, account: ticket.account, ticket: ticket.id })
    }

    async fn check(
        &self,
        call: &Call,
        wanted: &Redemption,
        application: Arc<Application>,
        ticket: Ticket,
    ) -> Result<Passed, Error> {
        let validity = validity::Validity::of(&ticket, &application);
        let ended = validity.require(&ticket, self.clock.now())?;
        validity::require_newer_than_application(&ticket, &application)?;
        validity::require_audience(&ticket, &application)?;
        require_logon_of_another(call, &ticket)?;
        match &wanted.sender {
            Some(named) => self.require_sender(call, &ticket, named)?,
            None => self.require_no_validation(&application, &ticket)?,
        }
        let holder = self.user(&application, &ticket).await?;
        let found = self.lookup.credentials_of(&application, &holder, wanted.refresh).await?;
        validity::require_newer_than_mapping(&ticket, &found.mapping, &application)?;
        let remembered_until = validity.remembered_until;
        Ok(Passed { application, ticket, credentials: found.credentials, ended, remembered_until })
    }

    /// Nobody asks for validation: not the system, nor the application, nor the ticket.
    fn require_no_validation(
        &self,
        application: &Application,
        ticket: &Ticket,
    ) -> Result<(), Error> {
        let (reason, who) = if self.access.global().tickets_validated {
            (Reason::TicketValidationRequiredBySystem, "the SSO system requires".to_owned())
        } else if application.has(ApplicationFlag::ValidateTickets) {
            let who = format!("application \"{}\" requires", application.name);
            (Reason::TicketValidationRequiredByApplication, who)
        } else if ticket.validation_required {
            let who = "the ticket was issued so as to require".to_owned();
            (Reason::TicketValidationRequiredByTicket, who)
        } else {
            return Ok(());
        };
        let message = format!("{who} that tickets are validated; say who the sender is");
        Err(Error::new(reason, message))
    }

    /// The sender is the one the ticket was issued to. Only a trusted host says who the sender is; that
    /// of anybody else is the caller (ESSO.md 5.5).
    fn require_sender(&self, call: &Call, ticket: &Ticket, named: &Account) -> Result<(), Error> {
        let caller = &call.caller.account;
        let believed = self.access.is_trusted_host(&call.caller);
        let sender = if believed { named } else { caller };
        if *sender == ticket.account {
            return Ok(());
        }
        let mut message =
            format!("the ticket was issued to {}, and the sender is {sender}", ticket.account);
        if !believed && named != caller {
            message.push_str(&format!(
                "; {caller} is no trusted host, so that it names {named} as the sender is not believed; an SSO administrator names the trusted hosts with `sso system update --trusted-hosts`"
            ));
        }
        Err(Error::new(Reason::TicketSenderMismatch, message))
    }

    /// The one the ticket was issued to, with the groups it is in now and those of its token then.
    async fn user(&self, application: &Application, ticket: &Ticket) -> Result<Caller, Error> {
        self.require_same_principal(ticket).await?;
        let holder = match (&ticket.token_groups, &ticket.subject) {
            // What the token said holds for as long as the ticket by itself, and no longer where an
            // application takes it for longer.
            (Some(groups), Some(subject)) if !validity::has_ended(ticket, self.clock.now()) => {
                let groups = groups.iter().map(|key| (key.clone(), key.clone())).collect();
                let until = self.clock.now().saturating_add(Duration::minutes(1));
                let proof = Proof::Token { groups, until, subject: subject.clone() };
                let caller = Caller::new(ticket.account.clone(), BTreeMap::new(), proof);
                self.identity.again(&caller).ok()
            }
            (Some(_) | None, _) => self.identity.as_known(&ticket.account),
        };
        require_user(application, &ticket.account, holder)
    }

    /// The name of the account still belongs to the one the ticket was issued to.
    async fn require_same_principal(&self, ticket: &Ticket) -> Result<(), Error> {
        let Some(subject) = &ticket.subject else { return Ok(()) };
        if self.principals.is(&ticket.account, subject).await? {
            return Ok(());
        }
        let message = format!(
            "the ticket was issued to {} when somebody else had that name; ask for a new one",
            ticket.account
        );
        Err(Error::new(Reason::TicketOutdated, message))
    }

    /// Where tickets are redeemed once, marks this one; then records that the credentials are about to be
    /// revealed.
    async fn record(&self, call: &Call, passed: &Passed) -> Result<(), Error> {
        let Passed { application, ticket, credentials, remembered_until, .. } = passed;
        if application.has(ApplicationFlag::OneTimeTickets) {
            self.audit.require_reveals()?;
            let times = (self.clock.now(), *remembered_until);
            if !self.storage.redeem_ticket(ticket.id, application.id, times).await? {
                let message = format!(
                    "ticket {} was redeemed before, and application \"{}\" takes each ticket once; ask for a new one",
                    ticket.id, application.name
                );
                return Err(Error::new(Reason::TicketRedeemed, message));
            }
        }
        let detail = issued_to(ticket);
        let subject = Subject {
            application: application.name.as_str(),
            object: credentials.external_user.as_str(),
            detail: &detail,
        };
        let recorded = self.audit.reveal(call, Action::TicketRedeem, subject).await;
        recorded.map_err(|error| match application.has(ApplicationFlag::OneTimeTickets) {
            true => {
                let message = format!(
                    "ticket {} counts as redeemed, and nothing was revealed, as that cannot be recorded; ask for a new one: {}",
                    ticket.id, error.message
                );
                Error::new(Reason::TicketRedeemed, message)
            }
            false => error,
        })
    }
}

/// How log and audit name a ticket.
fn issued_to(ticket: &Ticket) -> String {
    format!("ticket {} issued to {}", ticket.id, ticket.account)
}

/// A host does not take the credentials of those whom it logged on itself: that takes another one.
fn require_logon_of_another(call: &Call, ticket: &Ticket) -> Result<(), Error> {
    let caller = &call.caller.account;
    if ticket.by_logon.as_ref() != Some(caller) {
        return Ok(());
    }
    let message = format!(
        "{caller} logged {} on, and a ticket of a logon is redeemed by another host than the one that logged the user on",
        ticket.account
    );
    Err(Error::new(Reason::TicketOfOwnLogon, message))
}

/// The one the ticket was issued to is among the users of the application.
pub(crate) fn require_user(
    application: &Application,
    account: &Account,
    holder: Option<Caller>,
) -> Result<Caller, Error> {
    holder.filter(|holder| application.has_user(holder)).ok_or_else(|| {
        let message = format!(
            "the ticket was issued to {account}, who is not among the users of application \"{}\"",
            application.name
        );
        Error::new(Reason::TicketUserNotInApplication, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what the function gives back.
    fn size<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The future of a request is copied to the heap as a whole: what waits for the database stands apart.
    #[test]
    fn what_a_redemption_needs_is_small() {
        let redeem =
            |tickets: &'static Tickets, call: &'static Call, wanted: &'static Redemption| {
                tickets.redeem(call, wanted)
            };
        assert!(size(redeem) < 4096, "{}", size(redeem));
    }
}
