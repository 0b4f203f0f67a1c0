//! What the flags of an application take of the one who sets them, and what they are warned about
//! (ESSO.md 2.3, rows 16 to 18; 3.3).

use sso_proto::Reason;

use super::Applications;
use crate::{
    access::{Action, Call},
    error::Error,
    model::{Application, ApplicationFlag, ApplicationFlags, ApplicationType},
};

use ApplicationFlag::{
    AllowTickets, HostInitiated, TimeoutTickets, ValidatePassword, WindowsInitiated,
};

/// Whether tickets can be redeemed in applications of this type.
pub(super) fn has_tickets(kind: ApplicationType) -> bool {
    AllowTickets.is_of(kind)
}

impl Applications {
    /// Refuses a new application whose flags the caller may not set otherwise than they are by
    /// default.
    ///
    /// # Errors
    /// `TICKET_FLAGS_PROTECTED`, `TICKET_TIMEOUT_PROTECTED`, `PASSWORD_WAIVER_PROTECTED`,
    /// `HOST_ACCESS_PROTECTED`.
    pub(super) fn require_for_flags(&self, call: &Call, new: &Application) -> Result<(), Error> {
        let default = ApplicationFlags::default_of(new.kind);
        for &flag in ApplicationFlag::ALL {
            if new.has(flag) != default.has(flag) {
                self.require_for_flag(call, flag, new.has(flag))?;
            }
        }
        if new.ticket_timeout != 0 {
            self.require_for_ticket_timeout(call, "ticket_timeout")?;
        }
        Ok(())
    }

    /// Refuses a flag that the caller may not switch to `on`.
    ///
    /// # Errors
    /// `TICKET_FLAGS_PROTECTED`, `TICKET_TIMEOUT_PROTECTED`, `PASSWORD_WAIVER_PROTECTED`,
    /// `HOST_ACCESS_PROTECTED`.
    pub(super) fn require_for_flag(
        &self,
        call: &Call,
        flag: ApplicationFlag,
        on: bool,
    ) -> Result<(), Error> {
        let name = flag.as_str();
        if flag == TimeoutTickets {
            return self.require_for_ticket_timeout(call, name);
        }
        if flag.is_of_tickets() {
            let why = format!("{name} is for SSO administrators to set; ask one");
            return self.require_as(
                call,
                Action::ApplicationUpdateTickets,
                Error::new(Reason::TicketFlagsProtected, why),
            );
        }
        if flag == ValidatePassword && !on {
            let why = format!(
                "{name}=no lets external users in without their credentials; that is for affiliate administrators to say, ask one"
            );
            return self.require_as(
                call,
                Action::ApplicationWaivePassword,
                Error::new(Reason::PasswordWaiverProtected, why),
            );
        }
        if flag == HostInitiated && on {
            return self.require_for_hosts(call, name);
        }
        Ok(())
    }

    /// Refuses whoever may not say that external users log on, and as whom: whoever administers an
    /// application that they log on to can be any of its accounts (ESSO.md 14.4, row 46). `part` is
    /// what was given.
    ///
    /// # Errors
    /// `HOST_ACCESS_PROTECTED`.
    pub(super) fn require_for_hosts(&self, call: &Call, part: &str) -> Result<(), Error> {
        let why = format!(
            "{part} says as whom external users log on to the application; that is for affiliate administrators to say, ask one"
        );
        let refusal = Error::new(Reason::HostAccessProtected, why);
        self.require_as(call, Action::ApplicationOpenToHosts, refusal)
    }

    /// Refuses whoever may not say when tickets end; `part` is what was given.
    ///
    /// # Errors
    /// `TICKET_TIMEOUT_PROTECTED`.
    pub(super) fn require_for_ticket_timeout(&self, call: &Call, part: &str) -> Result<(), Error> {
        let why = format!("{part} is for SSO administrators to set; ask one");
        let refusal = Error::new(Reason::TicketTimeoutProtected, why);
        self.require_as(call, Action::ApplicationUpdateTickets, refusal)
    }

    /// Requires the role of the action, and refuses in the words of `refusal` who has it not.
    fn require_as(&self, call: &Call, action: Action, refusal: Error) -> Result<(), Error> {
        self.access.require(call, action).map_err(|denied| {
            // Nobody has any role in a system that is off.
            if denied.reason == Reason::SystemDisabled {
                denied
            } else {
                refusal.for_administrators(denied.for_administrators)
            }
        })
    }

    /// Checks the application as a whole, with what only the groups in force can tell.
    ///
    /// # Errors
    /// As [`Application::check`]; `WINDOWS_ACCOUNT_INVALID` for a group.
    pub(super) fn check(&self, application: &Application) -> Result<(), Error> {
        application.check()?;
        match &application.windows_account {
            Some(account) if self.identity.is_group(account) => {
                let message = format!(
                    "{account} is a group; the windows_account of \"{}\" is the account of a single user",
                    application.name
                );
                Err(Error::new(Reason::WindowsAccountInvalid, message))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What an administrator should know about the flags of this application.
pub(super) fn warnings(application: &Application) -> Vec<Error> {
    let (name, kind) = (&application.name, application.kind);
    let off = |flag: ApplicationFlag| flag.is_of(kind) && !application.has(flag);
    let mut warnings = Vec::new();
    let mut warn = |reason, message| warnings.push(Error::new(reason, message));
    if off(WindowsInitiated) && !application.has(HostInitiated) {
        let message = format!(
            "application \"{name}\" serves nobody: windows_initiated and host_initiated are off"
        );
        warn(Reason::ApplicationUnusable, message);
    }
    if off(ValidatePassword) {
        let message = format!(
            "application \"{name}\" believes its host about external users, without their credentials"
        );
        warn(Reason::PasswordNotValidated, message);
    }
    if off(TimeoutTickets) {
        warn(Reason::TicketsNeverExpire, format!("tickets of application \"{name}\" never expire"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::model::{
        Account, Accounts, ApplicationId, ApplicationName, FieldUpdate, Fields, Label,
    };

    fn application(kind: ApplicationType, off: &[ApplicationFlag]) -> Application {
        let field =
            FieldUpdate { label: Label::parse("id").unwrap().to_string(), ..Default::default() };
        let mut flags = ApplicationFlags::default_of(kind);
        for &flag in off {
            flags.set(flag, false);
        }
        Application {
            id: ApplicationId::generate(),
            name: ApplicationName::parse("App").unwrap(),
            kind,
            description: String::new(),
            contact: String::new(),
            users: Accounts::default(),
            windows_account: Some(Account::parse("D\\ann").unwrap()),
            administrators: Accounts::default(),
            administrators_same: false,
            allow_local_accounts: false,
            enabled: true,
            flags,
            ticket_timeout: 0,
            fields: Fields::parse(kind, vec![field]).unwrap().0,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_the_flags_that_a_type_has_are_warned_about() {
        for (kind, off, wanted) in [
            (ApplicationType::Individual, &[][..], &[][..]),
            (ApplicationType::ConfigStore, &[], &[]),
            (ApplicationType::HostGroup, &[], &[]),
            (ApplicationType::HostGroup, &[ValidatePassword], &[Reason::PasswordNotValidated]),
            (ApplicationType::Group, &[WindowsInitiated], &[Reason::ApplicationUnusable]),
            (
                ApplicationType::Individual,
                &[WindowsInitiated, ValidatePassword, TimeoutTickets],
                &[
                    Reason::ApplicationUnusable,
                    Reason::PasswordNotValidated,
                    Reason::TicketsNeverExpire,
                ],
            ),
        ] {
            let warned: Vec<_> =
                warnings(&application(kind, off)).into_iter().map(|w| w.reason).collect();
            assert_eq!(warned, wanted, "{kind:?} without {off:?}");
        }
    }
}
