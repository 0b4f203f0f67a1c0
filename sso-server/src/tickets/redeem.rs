//! Redeeming: every check of ESSO.md 5.4 in its order, then the record, then the credentials.

use std::collections::BTreeMap;

use sso_core::secret::SecretText;
use sso_proto::Reason;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Tickets, validity};
use crate::{
    access::{Action, Call},
    audit::Subject,
    error::Error,
    lookup::require_served,
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
    application: Application,
    ticket: Ticket,
    credentials: Credentials,
    /// It has ended, and the application takes it all the same.
    ended: bool,
    remembered_until: OffsetDateTime,
}

impl Tickets {
    /// Redeems a ticket for the credentials that the application maps to the account it was issued to.
    /// Nothing of them leaves before the record is durable; where tickets are redeemed once, the record
    /// and the mark that it was redeemed are one transaction.
    ///
    /// # Errors
    /// Those of ESSO.md 5.4 in their order: a missing role, `APPLICATION_DISABLED`,
    /// `TICKETS_NOT_ALLOWED_BY_SYSTEM`, `TICKETS_NOT_ALLOWED_BY_APPLICATION`, `TICKET_MALFORMED`,
    /// `TICKET_NOT_AUTHENTIC`, `TICKET_NOT_YET_VALID`, `TICKET_EXPIRED`, `TICKET_OUTDATED`,
    /// `TICKET_AUDIENCE_WRONG`, `TICKET_VALIDATION_REQUIRED_BY_…`, `TICKET_SENDER_MISMATCH`,
    /// `TICKET_USER_NOT_IN_APPLICATION`, what a look-up refuses, `TICKET_REDEEMED`,
    /// `AUDIT_UNAVAILABLE`.
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
        self.access.require_lookup(call)?;
        let found = self.storage.application(&wanted.application).await?;
        let application =
            self.access.require_in(call, Action::TicketRedeem, &wanted.application, found)?;
        let passed = self.check(call, wanted, application).await?;
        self.record(call, &passed).await?;
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
        application: Application,
    ) -> Result<Passed, Error> {
        require_served(&application)?;
        self.require_allowed(&application)?;
        // Expose: it is opened.
        let (ticket, _) = self.vault.open_ticket(wanted.ticket.expose())?;
        let validity = validity::Validity::of(&ticket, &application);
        let ended = validity.require(&ticket, self.clock.now())?;
        validity::require_newer_than_application(&ticket, &application)?;
        validity::require_audience(&ticket, &application)?;
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

    /// Tickets are allowed by the system and by the application.
    pub(crate) fn require_allowed(&self, application: &Application) -> Result<(), Error> {
        if !self.access.global().tickets_allowed {
            return Err(Error::new(
                Reason::TicketsNotAllowedBySystem,
                "the SSO system does not allow tickets; an SSO administrator allows them with `ssomanage -tickets yes yes`",
            ));
        }
        if application.has(ApplicationFlag::AllowTickets) {
            return Ok(());
        }
        let message = format!(
            "application \"{}\" does not allow tickets; an SSO administrator sets its flag allow_tickets",
            application.name
        );
        Err(Error::new(Reason::TicketsNotAllowedByApplication, message))
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
                "; {caller} is no trusted host, so that it names {named} as the sender is not believed; an SSO administrator adds it to the trusted_hosts of the system to change that"
            ));
        }
        Err(Error::new(Reason::TicketSenderMismatch, message))
    }

    /// The one the ticket was issued to, with the groups it is in now and those of its token then.
    async fn user(&self, application: &Application, ticket: &Ticket) -> Result<Caller, Error> {
        self.require_same_principal(ticket).await?;
        let holder = match (&ticket.token_groups, &ticket.subject) {
            (Some(groups), Some(subject)) => {
                let groups = groups.iter().map(|key| (key.clone(), key.clone())).collect();
                // What the token said holds for as long as the ticket.
                let until = self.clock.now().saturating_add(Duration::minutes(1));
                let caller = Caller {
                    account: ticket.account.clone(),
                    groups: BTreeMap::new(),
                    proof: Proof::Token { groups, until, subject: subject.clone() },
                };
                self.identity.again(&caller).ok()
            }
            (None, _) | (_, None) => self.identity.as_known(&ticket.account),
        };
        require_user(application, &ticket.account, holder)
    }

    /// The name of the account still belongs to the one the ticket was issued to.
    async fn require_same_principal(&self, ticket: &Ticket) -> Result<(), Error> {
        let Some(subject) = &ticket.subject else { return Ok(()) };
        let principal = self.storage.principal(&ticket.account).await?;
        if principal.is_some_and(|principal| principal.subject == *subject) {
            return Ok(());
        }
        let message = format!(
            "the ticket was issued to {} when somebody else had that name; ask for a new one",
            ticket.account
        );
        Err(Error::new(Reason::TicketOutdated, message))
    }

    /// Records that the credentials are about to be revealed and, where tickets are redeemed once, that
    /// this one was.
    async fn record(&self, call: &Call, passed: &Passed) -> Result<(), Error> {
        let Passed { application, ticket, credentials, remembered_until, .. } = passed;
        let detail = format!("ticket {} issued to {}", ticket.id, ticket.account);
        let subject = Subject {
            application: application.name.as_str(),
            object: credentials.external_user.as_str(),
            detail: &detail,
        };
        let action = Action::TicketRedeem;
        if !application.has(ApplicationFlag::OneTimeTickets) {
            return self.audit.reveal(call, action, subject).await;
        }
        let now = self.clock.now();
        let mut transaction = self.storage.begin().await?;
        let first =
            transaction.redeem_ticket(ticket.id, application.id, now, *remembered_until).await?;
        if !first {
            transaction.rollback().await?;
            let message = format!(
                "ticket {} was redeemed before, and application \"{}\" takes each ticket once; ask for a new one",
                ticket.id, application.name
            );
            return Err(Error::new(Reason::TicketRedeemed, message));
        }
        self.audit.record(&mut transaction, call, action, subject).await?;
        Ok(transaction.commit().await?)
    }
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
