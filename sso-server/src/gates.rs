//! What stands before an action: the checks that are made, in their order, before it looks at mappings
//! or values. The action goes through them and ends at the first refusal; an explanation of access
//! tells how every one of them ends.

use std::sync::Arc;

use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call, row_of},
    error::Error,
    lookup::{require_gives_credentials, require_own_mappings, require_served},
    model::{Application, ApplicationFlag, ApplicationName},
};

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `REMOTE_LOOKUP_NOT_ALLOWED`: this server answers this machine (ESSO.md 7.2).
    RemoteLookup,
    /// `HOST_INITIATED_OFF`: the system lets external users log on.
    LogonsInSystem,
    /// `SYSTEM_DISABLED`.
    System,
    /// The role that is missing; whether there is such an application.
    Role,
    /// `TICKETS_NOT_ALLOWED`: the system issues tickets.
    TicketsIssued,
    /// `APPLICATION_TYPE_WRONG`: it keeps configurations.
    ConfigStore,
    /// `APPLICATION_TYPE_WRONG`: callers have mappings of their own.
    OwnMappings,
    /// `HOST_INITIATED_OFF_IN_APPLICATION`: external users log on there.
    LogonsInApplication,
    /// `APPLICATION_DISABLED`.
    Served,
    /// `TICKETS_NOT_ALLOWED_BY_SYSTEM`.
    TicketsInSystem,
    /// `TICKETS_NOT_ALLOWED_BY_APPLICATION`.
    TicketsInApplication,
    /// `WINDOWS_INITIATED_OFF`: callers are given the credentials mapped to accounts.
    GivesCredentials,
}

/// The gates of an action, in order.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of every other action the role is all that is known beforehand"
)]
pub fn gates(action: Action) -> &'static [Gate] {
    use Gate as G;
    match action {
        Action::CredentialsReveal => {
            &[G::RemoteLookup, G::System, G::Role, G::OwnMappings, G::Served, G::GivesCredentials]
        }
        Action::CredentialsLogon => &[
            G::RemoteLookup,
            G::LogonsInSystem,
            G::System,
            G::Role,
            G::LogonsInApplication,
            G::Served,
        ],
        // Of a forwarded ticket the role is looked at last: the ticket itself takes none.
        Action::TicketIssue | Action::TicketForward => {
            &[G::RemoteLookup, G::System, G::TicketsIssued, G::Role]
        }
        Action::TicketRedeem => &[
            G::RemoteLookup,
            G::System,
            G::Role,
            G::Served,
            G::TicketsInSystem,
            G::TicketsInApplication,
            G::GivesCredentials,
        ],
        Action::ConfigurationReveal => {
            &[G::RemoteLookup, G::System, G::Role, G::ConfigStore, G::Served]
        }
        Action::ConfigurationSet
        | Action::ConfigurationRead
        | Action::ConfigurationDelete
        | Action::ConfigurationList
        | Action::ConfigurationHistory
        | Action::ConfigurationRollback
        | Action::ConfigurationWatch => &[G::System, G::Role, G::ConfigStore],
        _ => &[G::System, G::Role],
    }
}

/// Somebody who is to go through gates.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who, and from where.
    pub call: &'a Call,
    /// To do what.
    pub action: Action,
    /// Where, as it was asked for.
    pub name: &'a ApplicationName,
}

impl Entry<'_> {
    /// The application, once every gate of the action is passed. One that does not exist (`None`) is
    /// refused as [`Access::require_in`] says.
    ///
    /// # Errors
    /// That of the first gate that does not open, `APPLICATION_NOT_FOUND`.
    pub fn pass(
        self,
        access: &Access,
        found: Option<Arc<Application>>,
    ) -> Result<Arc<Application>, Error> {
        let gates = gates(self.action);
        let (before, behind) =
            gates.split_at(gates.iter().position(|gate| *gate == Gate::Role).unwrap_or_default());
        for gate in before {
            gate.system(access, self.call, self.action)?;
        }
        let application = access.require_in(self.call, self.action, self.name, found)?;
        for gate in behind.iter().skip(1) {
            gate.check(access, self, &application)?;
        }
        Ok(application)
    }
}

/// Goes through the gates of an action that is not one of an application.
///
/// # Errors
/// That of the first gate that does not open.
pub fn pass_system(access: &Access, call: &Call, action: Action) -> Result<(), Error> {
    gates(action).iter().try_for_each(|gate| gate.system(access, call, action))
}

impl Gate {
    /// What is checked, for a person.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::RemoteLookup => "this server answers look-ups",
            Self::LogonsInSystem => "the SSO system lets external users log on",
            Self::System => "the SSO system is enabled",
            Self::Role => "the account holds the role that the action takes",
            Self::TicketsIssued => "the SSO system issues tickets",
            Self::ConfigStore => "the application keeps configurations",
            Self::OwnMappings => "the application maps its users",
            Self::LogonsInApplication => {
                "the application lets external users log on (host_initiated)"
            }
            Self::Served => "the application is enabled",
            Self::TicketsInSystem => "the SSO system allows tickets",
            Self::TicketsInApplication => "the application allows tickets",
            Self::GivesCredentials => {
                "the application gives the credentials mapped to accounts (windows_initiated)"
            }
        }
    }

    /// Refuses what does not pass this gate.
    ///
    /// # Errors
    /// That of the gate.
    pub fn check(
        self,
        access: &Access,
        entry: Entry<'_>,
        application: &Application,
    ) -> Result<(), Error> {
        let Entry { call, action, name } = entry;
        match self {
            Self::RemoteLookup
            | Self::LogonsInSystem
            | Self::System
            | Self::TicketsIssued
            | Self::TicketsInSystem => self.system(access, call, action),
            Self::Role => {
                let role = row_of(action)?.role;
                access.require_role(role, call, action, name, Some(application))
            }
            Self::ConfigStore => application.require_config_store(),
            Self::OwnMappings => require_own_mappings(application),
            Self::LogonsInApplication => require_host_initiated(application),
            Self::Served => require_served(application),
            Self::TicketsInApplication => require_takes_tickets(application),
            Self::GivesCredentials => require_gives_credentials(application),
        }
    }

    /// As [`Self::check`], where no application is meant: the gates of one are open.
    fn system(self, access: &Access, call: &Call, action: Action) -> Result<(), Error> {
        match self {
            Self::RemoteLookup => access.require_lookup(call),
            Self::LogonsInSystem => require_logons(access),
            Self::System => access.require_system(row_of(action)?),
            Self::Role => access.require(call, action),
            Self::TicketsIssued => require_tickets(
                access,
                Reason::TicketsNotAllowed,
                "the SSO system issues no tickets",
            ),
            Self::TicketsInSystem => require_tickets(
                access,
                Reason::TicketsNotAllowedBySystem,
                "the SSO system does not allow tickets",
            ),
            Self::ConfigStore
            | Self::OwnMappings
            | Self::LogonsInApplication
            | Self::Served
            | Self::TicketsInApplication
            | Self::GivesCredentials => Ok(()),
        }
    }
}

fn require_tickets(access: &Access, reason: Reason, what: &str) -> Result<(), Error> {
    if access.global().tickets_allowed {
        return Ok(());
    }
    let message = format!(
        "{what}; an SSO administrator allows them with `sso system update --tickets-allowed yes`"
    );
    Err(Error::new(reason, message))
}

fn require_logons(access: &Access) -> Result<(), Error> {
    if access.global().host_initiated_allowed {
        return Ok(());
    }
    Err(Error::new(
        Reason::HostInitiatedOff,
        "the SSO system does not let external users log on; an SSO administrator allows it with `sso system update --host-initiated-allowed yes`",
    ))
}

fn require_host_initiated(application: &Application) -> Result<(), Error> {
    if application.is_host_initiated() {
        return Ok(());
    }
    let message = format!(
        "application \"{}\" does not let external users log on; that takes an application of type host-group, or of type individual with the flag host_initiated",
        application.name
    );
    Err(Error::new(Reason::HostInitiatedOffInApplication, message))
}

fn require_takes_tickets(application: &Application) -> Result<(), Error> {
    if application.has(ApplicationFlag::AllowTickets) {
        return Ok(());
    }
    let message = format!(
        "application \"{name}\" does not allow tickets; an SSO administrator allows them with `sso app update {name} --allow-tickets yes`",
        name = application.name
    );
    Err(Error::new(Reason::TicketsNotAllowedByApplication, message))
}
