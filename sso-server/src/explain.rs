//! Why something is allowed or denied: goes through the checks of an action one by one, by the same
//! functions as the action itself, and tells how each ends (ESSO.md 14.2 row 18, 14.3 row 31).
//!
//! Nothing is opened, changed or revealed. A check that needs what an earlier one did not find is left
//! out; the others are made all the same, so that everything that is wrong shows at once.

use std::sync::Arc;

use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call, Role, row_of},
    error::Error,
    host_initiated::{HostInitiated, require_host_initiated},
    identity::Identity,
    lookup::{self, Lookup},
    mappings::Mappings,
    model::{
        Account, Accounts, Application, ApplicationFlag, ApplicationName, ApplicationType, Caller,
        ExternalUser, Mapping, MappingKey, Proof,
    },
    storage::Storage,
    tickets::{Tickets, require_user},
};

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who would ask; of a redemption: to whom the ticket was issued.
    pub account: Account,
    /// Where.
    pub application: ApplicationName,
    /// For what; `None` = for what the type of the application is for.
    pub action: Option<Action>,
    /// Who would log on.
    pub external_user: Option<ExternalUser>,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is checked.
    pub check: &'static str,
    /// How it ends: why it passes, or the refusal.
    pub end: Result<String, Error>,
}

/// How the checks end.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Who would ask.
    pub account: Account,
    /// Where, as it is written.
    pub application: ApplicationName,
    /// For what.
    pub action: Action,
    /// The groups of the account that are known here.
    pub groups: Vec<String>,
    /// There may be more, which come with its token.
    pub groups_unknown: bool,
    /// The checks, in order.
    pub steps: Vec<Step>,
    /// The accounts that hold the role asked for.
    pub accounts_expected: Vec<String>,
    /// The mapping that would be used.
    pub mapping: Option<Mapping>,
}

impl Explanation {
    /// Whether every check passes.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.steps.iter().all(|step| step.end.is_ok())
    }
}

/// Explains. Stands on the nouns whose checks it goes through.
#[derive(Clone, Debug)]
pub struct Explain {
    /// Decides.
    pub access: Arc<Access>,
    /// Keeps.
    pub storage: Storage,
    /// Knows the groups.
    pub identity: Arc<Identity>,
    /// Checks of look-ups.
    pub lookup: Lookup,
    /// Checks of mappings.
    pub mappings: Mappings,
    /// Checks of tickets.
    pub tickets: Tickets,
    /// Checks of logons.
    pub host_initiated: HostInitiated,
}

/// The one who would ask, and the checks made so far.
struct Inquiry {
    call: Call,
    application: Application,
    steps: Vec<Step>,
    mapping: Option<Mapping>,
}

impl Explain {
    /// Explains to an administrator of the application.
    ///
    /// # Errors
    /// A missing role, `APPLICATION_NOT_FOUND`; as the storage. A check that fails is no error.
    pub async fn explain(&self, call: &Call, question: Question) -> Result<Explanation, Error> {
        let found = self.storage.application(&question.application).await?;
        let action = Action::AccessExplain;
        let application = self.access.require_in(call, action, &question.application, found)?;
        let action = question.action.unwrap_or_else(|| purpose(&application));
        let known = self.identity.as_known(&question.account);
        let is_group = known.is_none();
        let caller = known.unwrap_or_else(|| alone(question.account.clone()));
        let groups = caller.groups.values().cloned().collect();
        // As from the machine of the server: where it is asked from is not known.
        let call = Call { caller, request_id: call.request_id, local: true };
        let mut inquiry = Inquiry { call, application, steps: Vec::new(), mapping: None };
        if is_group {
            inquiry.check("the account is that of a single user", group(&question.account));
        }
        let row = row_of(action)?;
        let system = self.access.require_system(row).map(|()| "it is".to_owned());
        inquiry.check("the SSO system is enabled", system);
        let role = self.role_of(action, row.role);
        self.check_role(&mut inquiry, action, role);
        self.check_deeper(&mut inquiry, action, question.external_user).await?;
        let Inquiry { application, steps, mapping, .. } = inquiry;
        Ok(Explanation {
            groups_unknown: !self.identity.knows_groups_of(&question.account),
            accounts_expected: self.access.accounts_of(row.role, Some(&application)),
            account: question.account,
            application: application.name,
            action,
            groups,
            steps,
            mapping,
        })
    }

    /// The role that the account must hold; `None` where somebody else asks on its behalf.
    fn role_of(&self, action: Action, role: Role) -> Option<Role> {
        (action != Action::TicketRedeem).then_some(role)
    }

    fn check_role(&self, inquiry: &mut Inquiry, action: Action, role: Option<Role>) {
        let Inquiry { call, application, .. } = &*inquiry;
        let (check, end) = match role {
            None => (
                "whoever redeems the ticket administers the application",
                Ok("not looked at: the account is the one the ticket was issued to".to_owned()),
            ),
            Some(role) => {
                let required = self.access.require_role(
                    role,
                    call,
                    action,
                    &application.name,
                    Some(application),
                );
                let held = || self.held(role, &call.caller, application);
                ("the account holds the role that the action takes", required.map(|()| held()))
            }
        };
        inquiry.check(check, end);
    }

    /// By which of the accounts the role is held.
    fn held(&self, role: Role, caller: &Caller, application: &Application) -> String {
        let accounts = self.access.accounts_of(role, Some(application));
        let accounts = accounts.iter().filter_map(|account| Account::parse(account).ok());
        let accounts: Accounts = accounts.collect();
        match caller.first_in(&accounts) {
            Some((_, account)) if *account == caller.account => "it is named itself".to_owned(),
            Some((_, group)) => format!("it is in {group}"),
            None => "every authenticated caller holds it".to_owned(),
        }
    }

    /// The checks of the noun itself.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of every other action the role is all that is known beforehand"
    )]
    async fn check_deeper(
        &self,
        inquiry: &mut Inquiry,
        action: Action,
        external_user: Option<ExternalUser>,
    ) -> Result<(), Error> {
        match action {
            Action::CredentialsReveal => self.check_reveal(inquiry).await?,
            Action::TicketRedeem => self.check_redeem(inquiry).await?,
            Action::CredentialsLogon => self.check_logon(inquiry, external_user).await?,
            Action::TicketIssue | Action::TicketForward => {
                let end = self.tickets.require_issuing().map(|()| "it does".to_owned());
                inquiry.check("the SSO system issues tickets", end);
            }
            Action::ConfigurationReveal => inquiry.check_served(),
            Action::MappingCreate
            | Action::MappingSetCredentials
            | Action::MappingEnable
            | Action::MappingDisable
            | Action::MappingDelete => {
                let Inquiry { call, application, .. } = &*inquiry;
                let control = self.mappings.require_control(call, application, action);
                let check = "the account may do this to its own mapping";
                inquiry.check(check, control.map(|()| "it may".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    async fn check_reveal(&self, inquiry: &mut Inquiry) -> Result<(), Error> {
        self.check_remote(inquiry);
        let kind = lookup::require_own_mappings(&inquiry.application);
        inquiry.check("the application maps its users", kind.map(|()| "it does".to_owned()));
        inquiry.check_served();
        let gives = lookup::require_gives_credentials(&inquiry.application);
        let check = "the application gives credentials to callers (windows_initiated)";
        inquiry.check(check, gives.map(|()| "it does".to_owned()));
        let caller = inquiry.call.caller.clone();
        self.check_own_mapping(inquiry, &caller).await
    }

    async fn check_redeem(&self, inquiry: &mut Inquiry) -> Result<(), Error> {
        self.check_remote(inquiry);
        inquiry.check_served();
        let allowed = self.tickets.require_allowed(&inquiry.application);
        let check = "the SSO system and the application allow tickets";
        inquiry.check(check, allowed.map(|()| "they do".to_owned()));
        let account = inquiry.call.caller.account.clone();
        let holder = self.identity.as_known(&account);
        match require_user(&inquiry.application, &account, holder) {
            Ok(holder) => self.check_own_mapping(inquiry, &holder).await,
            Err(error) => {
                inquiry.check("the ticket was issued to a user of the application", Err(error));
                Ok(())
            }
        }
    }

    async fn check_logon(
        &self,
        inquiry: &mut Inquiry,
        external_user: Option<ExternalUser>,
    ) -> Result<(), Error> {
        self.check_remote(inquiry);
        let system = self.host_initiated.require_allowed();
        let check = "the SSO system lets external users log on";
        inquiry.check(check, system.map(|()| "it does".to_owned()));
        let application = require_host_initiated(&inquiry.application);
        let check = "the application lets external users log on (host_initiated)";
        inquiry.check(check, application.map(|()| "it does".to_owned()));
        inquiry.check_served();
        let Some(external_user) = external_user else {
            let detail = "not looked at: name the external user".to_owned();
            inquiry.check("the external user is mapped", Ok(detail));
            return Ok(());
        };
        let key = MappingKey::ExternalUser(external_user);
        let compares = inquiry.application.has(ApplicationFlag::ValidatePassword);
        self.check_mapping(inquiry, &key, compares).await?;
        let Some(mapping) = inquiry.mapping.clone() else { return Ok(()) };
        let holder = self.host_initiated.holder(&inquiry.application, &mapping);
        let detail = holder.map(|holder| format!("{} is", holder.account));
        inquiry.check("the account of the mapping is a user of the application", detail);
        Ok(())
    }

    /// Which mapping the account uses, and whether it serves.
    async fn check_own_mapping(&self, inquiry: &mut Inquiry, caller: &Caller) -> Result<(), Error> {
        let resolved = lookup::resolve(&inquiry.application, caller);
        let key = resolved.as_ref().ok().cloned();
        let users = &inquiry.application.users;
        let place = caller.first_in(users).map_or(0, |(place, _)| place + 1);
        let kind = inquiry.application.kind;
        let detail = resolved.map(|key| match kind {
            ApplicationType::Group => {
                format!(
                    "{key} is the first of the users that the account belongs to, number {place}"
                )
            }
            ApplicationType::Individual
            | ApplicationType::HostGroup
            | ApplicationType::ConfigStore => format!("that of {key}"),
        });
        inquiry.check("which mapping is used", detail);
        match key {
            Some(key) => self.check_mapping(inquiry, &key, true).await,
            None => Ok(()),
        }
    }

    async fn check_mapping(
        &self,
        inquiry: &mut Inquiry,
        key: &MappingKey,
        wants_credentials: bool,
    ) -> Result<(), Error> {
        let application = &inquiry.application;
        let stored = match self.lookup.mapping(application, key, true).await {
            Ok(stored) => stored,
            Err(error) if is_answer(&error) => {
                inquiry.check("the mapping exists", Err(error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mapping = stored.mapping.clone();
        let enabled = lookup::require_enabled(application, &mapping);
        let set = lookup::require_credentials(application, &mapping);
        let none = application.fields.credential_count() == 0;
        let found = format!("{} to external user {}", mapping.account, mapping.external_user);
        inquiry.check("the mapping exists", Ok(found));
        inquiry.check("the mapping is enabled", enabled.map(|()| "it is".to_owned()));
        if wants_credentials {
            let detail = if none { "the application has no credentials" } else { "they are" };
            inquiry.check("its credentials are set", set.map(|()| detail.to_owned()));
        }
        inquiry.mapping = Some(mapping);
        Ok(())
    }

    fn check_remote(&self, inquiry: &mut Inquiry) {
        let end = self.access.require_lookup(&inquiry.call).map(|()| {
            let everywhere = self.access.server_settings().remote_lookup;
            if everywhere { "to every machine" } else { "only to its own machine" }.to_owned()
        });
        inquiry.check("this server answers look-ups", end);
    }
}

impl Inquiry {
    fn check(&mut self, check: &'static str, end: Result<String, Error>) {
        self.steps.push(Step { check, end });
    }

    fn check_served(&mut self) {
        let served = lookup::require_served(&self.application);
        self.check("the application is enabled", served.map(|()| "it is".to_owned()));
    }
}

/// What applications of this type are for.
fn purpose(application: &Application) -> Action {
    match application.kind {
        ApplicationType::Individual | ApplicationType::Group => Action::CredentialsReveal,
        ApplicationType::HostGroup => Action::CredentialsLogon,
        ApplicationType::ConfigStore => Action::ConfigurationReveal,
    }
}

/// An account without its groups.
fn alone(account: Account) -> Caller {
    Caller { account, groups: std::collections::BTreeMap::new(), proof: Proof::Certificate }
}

fn group(account: &Account) -> Result<String, Error> {
    let message = format!("{account} is a group: nobody can ask in its name");
    Err(Error::new(Reason::NotAuthenticated, message))
}

/// Whether the error says something about the mapping, rather than that it cannot be read now.
fn is_answer(error: &Error) -> bool {
    matches!(error.reason, Reason::MappingNotFound | Reason::StoredRowDamaged)
}
