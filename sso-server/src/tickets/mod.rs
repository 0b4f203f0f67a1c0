//! The rules of tickets: who gets one, and what it says (ESSO.md 5).

mod redeem;
mod validity;

use std::sync::Arc;

use sso_core::{clock::Clock, secret::SecretText};
use sso_proto::Reason;
use time::Duration;
use uuid::Uuid;

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    error::Error,
    gates::pass_system,
    identity::Identity,
    lookup::Lookup,
    model::{Account, Application, ApplicationName, Caller, Proof, Ticket, to_micros},
    principals::Principals,
    storage::Storage,
    vault::Vault,
};

pub(crate) use redeem::require_user;
pub use redeem::{Redeemed, Redemption};

/// How long redeemed one-time tickets are remembered after they have ended.
pub const REMEMBERED: Duration = Duration::days(1).saturating_add(validity::SKEW);

/// The rules of tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Seals and opens.
    pub vault: Vault,
    /// Keeps.
    pub storage: Storage,
    /// Finds credentials.
    pub lookup: Lookup,
    /// Knows the groups.
    pub identity: Arc<Identity>,
    /// Knows whose a name is.
    pub principals: Principals,
    /// Tells the time.
    pub clock: Clock,
    /// The name of this server.
    pub server: Arc<str>,
}

/// What a ticket is wanted for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The only application that is to take it.
    pub application: Option<ApplicationName>,
    /// The token of the end user whom it is for; `None` = for the caller.
    pub user_token: Option<SecretText>,
}

/// A ticket.
#[derive(Debug)]
pub struct Issued {
    /// Whoever holds it may have it redeemed.
    pub text: SecretText,
    /// What it says.
    pub ticket: Ticket,
}

/// What a ticket says, for a person.
#[derive(Debug)]
pub struct Inspected {
    /// The ticket.
    pub ticket: Ticket,
    /// The generation it is sealed under.
    pub generation: u32,
    /// It has ended by the system's timeout when it was issued.
    pub expired: bool,
    /// The application it is for, by its name now.
    pub application: Option<ApplicationName>,
}

impl Tickets {
    /// Issues a ticket for the caller, or for the end user whose token a trusted host forwards. Nothing
    /// is stored but the record, so this goes on while the master is away.
    ///
    /// # Errors
    /// `REMOTE_LOOKUP_NOT_ALLOWED`, `SYSTEM_DISABLED`, `TICKETS_NOT_ALLOWED`,
    /// `NOT_TRUSTED_HOST`, `USER_TOKEN_REFUSED`;
    /// `NOT_APPLICATION_USER` where the one it is for is no user of the application, or there is none;
    /// what the vault refuses, `AUDIT_UNAVAILABLE`.
    pub async fn issue(&self, call: &Call, wanted: &Wanted) -> Result<Issued, Error> {
        pass_system(&self.access, call, Action::TicketIssue)?;
        let holder = self.holder(call, wanted.user_token.as_ref()).await?;
        let audience = match &wanted.application {
            Some(name) => Some(self.audience(&holder, name).await?),
            None => None,
        };
        let issued = self.make(&holder, audience.as_deref())?;
        let forwarded = if wanted.user_token.is_some() { " for an end user" } else { "" };
        let detail = format!("ticket {}{forwarded}", issued.ticket.id);
        let subject = Subject {
            application: audience.as_ref().map_or("", |application| application.name.as_str()),
            object: issued.ticket.account.as_str(),
            detail: &detail,
        };
        self.audit.reveal(call, Action::TicketIssue, subject).await?;
        Ok(issued)
    }

    /// What a ticket says. Redeems nothing.
    ///
    /// # Errors
    /// What the vault refuses; `TICKET_OF_ANOTHER` for one that was issued to somebody else, unless
    /// the caller is an affiliate administrator.
    pub async fn inspect(&self, call: &Call, text: &SecretText) -> Result<Inspected, Error> {
        self.access.require(call, Action::TicketInspect)?;
        // Expose: it is opened.
        let (ticket, generation) = self.vault.open_ticket(text.expose())?;
        let caller = &call.caller;
        if ticket.account != caller.account && !self.access.is_affiliate_administrator(caller) {
            let message = format!(
                "the ticket was not issued to {}; only the one it was issued to and affiliate administrators look into it",
                caller.account
            );
            return Err(Error::new(Reason::TicketOfAnother, message));
        }
        let application = match ticket.audience {
            Some(audience) => self.storage.application_name(audience).await?,
            None => None,
        };
        let expired = validity::has_ended(&ticket, self.clock.now());
        Ok(Inspected { ticket, generation, expired, application })
    }

    /// A ticket for the account of an external user that this host logged on, not recorded yet. It ends
    /// with the one who has the name of the account now.
    ///
    /// # Errors
    /// What the vault refuses; `DATABASE_UNAVAILABLE`.
    pub async fn make_of_logon(&self, holder: &Caller, host: &Account) -> Result<Issued, Error> {
        let mut ticket = self.draft(holder, None);
        ticket.by_logon = Some(host.clone());
        if ticket.subject.is_none() {
            let principal = self.storage.principal(&holder.account).await?;
            ticket.subject = principal.map(|principal| principal.subject);
        }
        let text = self.vault.seal_ticket(&ticket)?;
        Ok(Issued { text, ticket })
    }

    /// A ticket for this account, not recorded yet.
    fn make(&self, holder: &Caller, audience: Option<&Application>) -> Result<Issued, Error> {
        let mut ticket = self.draft(holder, audience);
        let text = match (self.vault.seal_ticket(&ticket), audience, &mut ticket.token_groups) {
            // Too many groups: those that lead to a user of the only application it is for are enough.
            (Err(error), Some(application), Some(groups))
                if error.reason == Reason::InvalidRequest =>
            {
                let file = self.identity.groups();
                groups.retain(|group| {
                    let around = file.of_group(group);
                    let names =
                        |user: &Account| user.key() == group || around.contains_key(user.key());
                    application.users.iter().any(names)
                });
                self.vault.seal_ticket(&ticket)?
            }
            (sealed, _, _) => sealed?,
        };
        Ok(Issued { text, ticket })
    }

    /// What a ticket for this account says.
    fn draft(&self, holder: &Caller, audience: Option<&Application>) -> Ticket {
        let global = self.access.global();
        let issued_at = to_micros(self.clock.now());
        let end = issued_at.saturating_add(Duration::minutes(global.ticket_timeout.into()));
        let (token_groups, expires_at) = match &holder.proof {
            // It does not outlive the token that it rests on.
            Proof::Token { groups, until, .. } => {
                (Some(groups.keys().cloned().collect()), end.min(to_micros(*until)))
            }
            Proof::Certificate | Proof::UnixPeer { .. } => (None, end),
        };
        Ticket {
            id: Uuid::now_v7(),
            account: holder.account.clone(),
            subject: holder.proof.subject().map(str::to_owned),
            by_logon: None,
            token_groups,
            server: self.server.as_ref().to_owned(),
            issued_at,
            expires_at,
            audience: audience.map(|application| application.id),
            validation_required: global.tickets_validated,
        }
    }

    /// Whom the ticket is for.
    async fn holder(
        &self,
        call: &Call,
        user_token: Option<&SecretText>,
    ) -> Result<Arc<Caller>, Error> {
        let Some(token) = user_token else { return Ok(Arc::clone(&call.caller)) };
        pass_system(&self.access, call, Action::TicketForward)?;
        // Expose: it is verified.
        let user = self.identity.user_of_token(token.expose()).await.map_err(|error| {
            let message = format!("the token of the end user is refused: {}", error.message);
            let of_token = [Reason::TokenRefused, Reason::NotAuthenticated].contains(&error.reason);
            let reason = if of_token { Reason::UserTokenRefused } else { error.reason };
            Error::new(reason, message)
        })?;
        self.principals.confirm(&user).await?;
        Ok(user)
    }

    /// The application that the ticket is for. Whether it exists is not told to those who are not its
    /// users.
    async fn audience(
        &self,
        holder: &Caller,
        name: &ApplicationName,
    ) -> Result<Arc<Application>, Error> {
        let application = self.lookup.cache.application(name, false).await?;
        require_audience(holder, name, application)
    }
}

/// The application that a ticket is for, if its holder is a user of it.
///
/// # Errors
/// `NOT_APPLICATION_USER`.
pub(crate) fn require_audience(
    holder: &Caller,
    name: &ApplicationName,
    application: Option<Arc<Application>>,
) -> Result<Arc<Application>, Error> {
    application.filter(|application| application.has_user(holder)).ok_or_else(|| {
        let message = format!(
            "{} may not be issued a ticket for application \"{name}\": that takes a user of it",
            holder.account
        );
        Error::new(Reason::NotApplicationUser, message)
    })
}
