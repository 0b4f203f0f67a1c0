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
    gates::{Entry, Gate, gates},
    host_initiated::HostInitiated,
    identity::Identity,
    lookup::{self, Lookup},
    mappings::Mappings,
    model::{
        Account, Accounts, Application, ApplicationFlag, ApplicationName, ApplicationType, Caller,
        ExternalUser, Mapping, MappingKey, Proof,
    },
    storage::Storage,
    tickets::{require_audience, require_user},
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
    pub accounts_expected: Accounts,
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
    /// Checks of logons.
    pub host_initiated: HostInitiated,
}

/// The one who would ask, and the checks made so far.
struct Inquiry {
    /// Decides, with no more than whoever has it explained may see.
    access: Arc<Access>,
    /// Whoever has it explained sees no accounts of the system.
    limited: bool,
    action: Action,
    call: Call,
    application: Arc<Application>,
    steps: Vec<Step>,
    mapping: Option<Mapping>,
}

impl Explain {
    /// Explains to an administrator of the application. Who holds roles in the system is told to affiliate
    /// administrators alone: for anybody else it is as if nobody did, and of groups only those that the
    /// application names are shown.
    ///
    /// # Errors
    /// A missing role, `APPLICATION_NOT_FOUND`; as the storage. A check that fails is no error.
    pub async fn explain(&self, call: &Call, question: Question) -> Result<Explanation, Error> {
        let found = self.storage.application(&question.application).await?;
        let action = Action::AccessExplain;
        let application = self.access.require_in(call, action, &question.application, found)?;
        let action = question.action.unwrap_or_else(|| purpose(&application));
        let mut inquiry = self.inquiry(call, &question.account, application, action);
        let role = row_of(action)?.role;
        if inquiry.limited && is_of_system(role) {
            inquiry.check(Gate::Role.in_words(), Err(not_shown()));
        } else {
            self.check_all(&mut inquiry, &question).await?;
        }
        let Inquiry { access, limited, call, application, steps, mapping, .. } = inquiry;
        let of_application = |key: &str| {
            let mut named = application.users.iter().chain(application.administrators.iter());
            named.any(|account| account.key() == key)
        };
        let groups = call.caller.groups.iter().filter(|(key, _)| !limited || of_application(key));
        Ok(Explanation {
            groups: groups.map(|(_, name)| name.clone()).collect(),
            groups_unknown: !self.identity.knows_groups_of(&question.account),
            accounts_expected: access.accounts_of(role, Some(&application)),
            account: question.account,
            application: application.name.clone(),
            action,
            steps,
            mapping,
        })
    }

    fn inquiry(
        &self,
        asker: &Call,
        account: &Account,
        application: Arc<Application>,
        action: Action,
    ) -> Inquiry {
        let limited = !self.access.is_affiliate_administrator(&asker.caller);
        let access = if limited {
            Arc::new(self.access.without_system_accounts())
        } else {
            Arc::clone(&self.access)
        };
        let known = self.identity.as_known(account);
        let is_group = known.is_none();
        let caller = known.unwrap_or_else(|| alone(account.clone()));
        // As from the machine of the server: where it is asked from is not known.
        let call = Call {
            caller: Arc::new(caller),
            request_id: asker.request_id,
            local: true,
            change: None,
        };
        let (steps, mapping) = (Vec::new(), None);
        let mut inquiry = Inquiry { access, limited, action, call, application, steps, mapping };
        if is_group {
            inquiry.check("the account is that of a single user", group(account));
        }
        inquiry
    }

    async fn check_all(&self, inquiry: &mut Inquiry, question: &Question) -> Result<(), Error> {
        for gate in gates(inquiry.action) {
            inquiry.check_gate(*gate);
        }
        self.check_deeper(inquiry, question.external_user.clone()).await
    }

    /// The checks of the noun itself.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of every other action the role is all that is known beforehand"
    )]
    async fn check_deeper(
        &self,
        inquiry: &mut Inquiry,
        external_user: Option<ExternalUser>,
    ) -> Result<(), Error> {
        let action = inquiry.action;
        match action {
            Action::CredentialsReveal => {
                let caller = Arc::clone(&inquiry.call.caller);
                self.check_own_mapping(inquiry, &caller).await?;
            }
            Action::TicketRedeem => self.check_redeem(inquiry).await?,
            Action::CredentialsLogon => self.check_logon(inquiry, external_user).await?,
            Action::TicketIssue => {
                let Inquiry { call, application, .. } = &*inquiry;
                let (name, found) = (&application.name, Some(Arc::clone(application)));
                let end = require_audience(&call.caller, name, found).map(|_| "it is".to_owned());
                inquiry.check("the account is a user of the application (audience)", end);
            }
            Action::TicketForward => {
                let detail = "not looked at: it depends on whose token is forwarded".to_owned();
                inquiry.check("the end user is a user of the application (audience)", Ok(detail));
            }
            Action::MappingCreate
            | Action::MappingSetCredentials
            | Action::MappingEnable
            | Action::MappingDisable
            | Action::MappingDelete => {
                let Inquiry { access, call, application, .. } = &*inquiry;
                let mappings = Mappings { access: Arc::clone(access), ..self.mappings.clone() };
                let control = mappings.require_control(call, application, action);
                let check = "the account may do this to its own mapping";
                inquiry.check(check, control.map(|()| "it may".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    async fn check_redeem(&self, inquiry: &mut Inquiry) -> Result<(), Error> {
        let account = inquiry.call.caller.account.clone();
        let holder = self.identity.as_known(&account);
        let holder = require_user(&inquiry.application, &account, holder);
        let end = holder.as_ref().map(|_| "it was".to_owned()).map_err(Clone::clone);
        inquiry.check("the ticket was issued to a user of the application", end);
        match holder {
            Ok(holder) => self.check_own_mapping(inquiry, &holder).await,
            Err(_) => Ok(()),
        }
    }

    async fn check_logon(
        &self,
        inquiry: &mut Inquiry,
        external_user: Option<ExternalUser>,
    ) -> Result<(), Error> {
        let Some(external_user) = external_user else {
            let detail = "not looked at: name the external user".to_owned();
            inquiry.check("the external user is mapped", Ok(detail));
            return Ok(());
        };
        let key = MappingKey::ExternalUser(external_user);
        self.check_mapping(inquiry, &key).await?;
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
            Some(key) => self.check_mapping(inquiry, &key).await,
            None => Ok(()),
        }
    }

    async fn check_mapping(&self, inquiry: &mut Inquiry, key: &MappingKey) -> Result<(), Error> {
        let application = &inquiry.application;
        let logon = inquiry.action == Action::CredentialsLogon;
        let compared = logon && application.has(ApplicationFlag::ValidatePassword);
        let mapping = match self.lookup.mapping_as_stored(application, key).await {
            Ok(mapping) => mapping,
            Err(error) if is_answer(&error) => {
                let error = if compared { mismatch(&error) } else { error };
                inquiry.check("the mapping exists", Err(error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let found = format!("{} to external user {}", mapping.account, mapping.external_user);
        let enabled = lookup::require_enabled(application, &mapping).map(|()| "it is".to_owned());
        let set = lookup::require_credentials(application, &mapping);
        let none = application.fields.credential_count() == 0;
        let detail = if none { "the application has no credentials" } else { "they are" };
        let set = match set {
            Ok(()) if none && compared => Err(Error::new(Reason::CredentialsMismatch, detail)),
            Err(error) if compared => Err(mismatch(&error)),
            set => set.map(|()| detail.to_owned()),
        };
        inquiry.check("the mapping exists", Ok(found));
        let set = ("its credentials are set", set);
        let enabled = ("the mapping is enabled", enabled);
        // Whoever logs on proves first who it is.
        let ends = match (logon, compared) {
            (false, _) => vec![enabled, set],
            (true, true) => vec![set, enabled],
            (true, false) => vec![enabled],
        };
        for (check, end) in ends {
            inquiry.check(check, end);
        }
        inquiry.mapping = Some(mapping);
        Ok(())
    }
}

impl Inquiry {
    fn check(&mut self, check: &'static str, end: Result<String, Error>) {
        self.steps.push(Step { check, end });
    }

    fn check_gate(&mut self, gate: Gate) {
        if gate == Gate::Role && self.action == Action::TicketRedeem {
            let detail = "not looked at: the account is the one the ticket was issued to";
            let check = "whoever redeems the ticket administers the application";
            return self.check(check, Ok(detail.to_owned()));
        }
        let Self { access, limited, action, call, application, .. } = &*self;
        let entry = Entry { call, action: *action, name: &application.name };
        let end = gate.check(access, entry, application);
        let end = match (gate, end) {
            (Gate::Role, Ok(())) => Ok(self.held()),
            (Gate::Role, Err(mut error)) if *limited => {
                error.message.push_str("; roles in the system are not looked at for this caller");
                Err(error)
            }
            (Gate::RemoteLookup, Ok(())) => {
                let everywhere = access.server_settings().remote_lookup;
                let where_to =
                    if everywhere { "to every machine" } else { "only to its own machine" };
                Ok(where_to.to_owned())
            }
            (_, end) => end.map(|()| "it is so".to_owned()),
        };
        self.check(gate.in_words(), end);
    }

    /// By which of the accounts the role is held.
    fn held(&self) -> String {
        let role = row_of(self.action).map_or(Role::Anyone, |row| row.role);
        let accounts = self.access.accounts_of(role, Some(&self.application));
        let caller = &self.call.caller;
        match caller.first_in(&accounts) {
            Some((_, account)) if *account == caller.account => "it is named itself".to_owned(),
            Some((_, group)) => format!("it is in {group}"),
            None => "every authenticated caller holds it".to_owned(),
        }
    }
}

/// Whether the role is one of the system as a whole.
fn is_of_system(role: Role) -> bool {
    match role {
        Role::SsoAdministrator
        | Role::AffiliateAdministrator
        | Role::Auditor
        | Role::TrustedHost => true,
        Role::ApplicationAdministrator
        | Role::ApplicationMember
        | Role::ApplicationUser
        | Role::ConfigurationReader
        | Role::Anyone => false,
    }
}

fn not_shown() -> Error {
    let message = "that takes a system role, which this caller may not see";
    Error::new(Reason::NotAffiliateAdministrator, message)
}

/// A logon tells no more than that the credentials do not match.
fn mismatch(cause: &Error) -> Error {
    match cause.reason == Reason::StoredRowDamaged {
        true => cause.clone(),
        false => Error::new(Reason::CredentialsMismatch, cause.message.clone()),
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
    Caller::new(account, std::collections::BTreeMap::new(), Proof::Certificate)
}

fn group(account: &Account) -> Result<String, Error> {
    let message = format!("{account} is a group: nobody can ask in its name");
    Err(Error::new(Reason::NotAuthenticated, message))
}

/// Whether the error says something about the mapping, rather than that it cannot be read now.
fn is_answer(error: &Error) -> bool {
    matches!(error.reason, Reason::MappingNotFound | Reason::StoredRowDamaged)
}
