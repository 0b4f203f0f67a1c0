//! Who may do what: the four nested roles, one row per gRPC method, and the one place that decides.
//!
//! ESSO.md 2.3 is the source of every row. A method without a row is refused, and a failure to
//! learn who is in which role refuses as well.

mod action;
mod held;
mod methods;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use sso_proto::Reason;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    error::Error,
    model::{Accounts, Application, ApplicationName, Caller, GlobalInfo, ServerSettings},
    storage::Transaction,
};

pub use action::{Action, Effect};
pub(crate) use methods::numbered;
pub use methods::{METHODS, Method, method};

/// What a method asks of its caller. The first three each contain the ones behind them; being an
/// administrator makes nobody a user of an application (ESSO.md 2.3, rows 31 and 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In the SSO administrator accounts of the system.
    SsoAdministrator,
    /// In the affiliate administrator accounts of the system.
    AffiliateAdministrator,
    /// In the administrator accounts of the application.
    ApplicationAdministrator,
    /// Administrates the application or is one of its users.
    ApplicationMember,
    /// In the user accounts of the application, whatever else the caller is.
    ApplicationUser,
    /// Administrates the application, or is in the configuration readers of the system.
    ConfigurationReader,
    /// An SSO administrator, or in the auditors of the system.
    Auditor,
    /// In the trusted hosts of the system, whatever else the caller is.
    TrustedHost,
    /// Any authenticated caller.
    Anyone,
}

/// One request: who asks, and the id it is logged, audited and answered under.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// Given back in refusals.
    pub request_id: Uuid,
    /// The caller is on the machine of this server.
    pub local: bool,
    /// The number of the last change that the request made; `None` where it cannot make one.
    pub change: Option<Arc<AtomicU64>>,
}

impl Call {
    /// The request made the change of this number.
    pub fn note_change(&self, number: u64) {
        if let Some(change) = &self.change {
            change.fetch_max(number, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.caller.account, self.request_id)
    }
}

/// Decides. Knows the settings of the system as last read from the database.
#[derive(Debug)]
pub struct Access {
    global: ArcSwap<InForce>,
    server: ArcSwap<ServerSettings>,
}

/// Settings, and when they were written.
#[derive(Debug)]
struct InForce {
    global: Arc<GlobalInfo>,
    written_at: OffsetDateTime,
}

impl Access {
    /// Decides by these settings until others are adopted.
    #[must_use]
    pub fn new(global: GlobalInfo) -> Self {
        let in_force = InForce { global: Arc::new(global), written_at: OffsetDateTime::UNIX_EPOCH };
        Self { global: ArcSwap::from_pointee(in_force), server: ArcSwap::default() }
    }

    /// Decides by what the database says, with the system held against changes until the end of the
    /// transaction: what a server remembers may be older.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`; `INTERNAL` where the database has lost its system.
    pub async fn held(transaction: &mut Transaction) -> Result<Self, Error> {
        let system = transaction.lock_system().await?.ok_or_else(|| {
            Error::new(Reason::Internal, "the database has lost the row of the system")
        })?;
        Ok(Self::new(system.global))
    }

    /// Takes over settings that were read or written just now, unless newer ones are known: whoever
    /// reads may be slower than whoever writes. Each change carries a later time than the one before.
    pub fn adopt(&self, global: GlobalInfo, written_at: OffsetDateTime) {
        let new = Arc::new(InForce { global: Arc::new(global), written_at });
        self.global
            .rcu(|known| Arc::clone(if known.written_at > written_at { known } else { &new }));
    }

    /// Takes over what an administrator set for this server.
    pub fn adopt_server_settings(&self, settings: ServerSettings) {
        self.server.store(Arc::new(settings));
    }

    /// Decides alike by the accounts of applications, and knows none of the system: for answers to those
    /// who may not see who holds its roles.
    #[must_use]
    pub fn without_system_accounts(&self) -> Self {
        let none = Accounts::default;
        let global = GlobalInfo {
            sso_administrators: none(),
            affiliate_administrators: none(),
            trusted_hosts: none(),
            configuration_readers: none(),
            auditors: none(),
            ..GlobalInfo::clone(&self.global())
        };
        let limited = Self::new(global);
        limited.adopt_server_settings(self.server_settings());
        limited
    }

    /// What an administrator set for this server.
    #[must_use]
    pub fn server_settings(&self) -> ServerSettings {
        **self.server.load()
    }

    /// Refuses look-ups of callers on other machines where this server serves only its own
    /// (ESSO.md 7.2).
    ///
    /// # Errors
    /// `REMOTE_LOOKUP_NOT_ALLOWED`.
    pub fn require_lookup(&self, call: &Call) -> Result<(), Error> {
        if call.local || self.server_settings().remote_lookup {
            return Ok(());
        }
        Err(Error::new(
            Reason::RemoteLookupNotAllowed,
            "this server answers look-ups only on its own machine; ask one there, or have an SSO administrator allow it with `sso server set NAME --remote-lookup yes`",
        ))
    }

    /// The settings in force.
    #[must_use]
    pub fn global(&self) -> Arc<GlobalInfo> {
        Arc::clone(&self.global.load().global)
    }

    /// For how many minutes sealed rows may be remembered; 0 = not at all.
    #[must_use]
    pub fn credential_cache_timeout(&self) -> u32 {
        self.global.load().global.credential_cache_timeout
    }

    /// Whether the caller is an SSO administrator.
    #[must_use]
    pub fn is_sso_administrator(&self, caller: &Caller) -> bool {
        caller.is_in(&self.global.load().global.sso_administrators)
    }

    /// Whether the caller is an affiliate administrator, as every SSO administrator is.
    #[must_use]
    pub fn is_affiliate_administrator(&self, caller: &Caller) -> bool {
        self.is_sso_administrator(caller)
            || caller.is_in(&self.global.load().global.affiliate_administrators)
    }

    /// Whether the caller administers the application, as every affiliate administrator does.
    #[must_use]
    pub fn is_administrator(&self, caller: &Caller, application: &Application) -> bool {
        self.is_affiliate_administrator(caller) || caller.is_in(&application.administrators)
    }

    /// Whether the caller reads every configuration without masked values.
    #[must_use]
    pub fn is_configuration_reader(&self, caller: &Caller) -> bool {
        caller.is_in(&self.global.load().global.configuration_readers)
    }

    /// Whether the caller reads every audit record.
    #[must_use]
    pub fn is_auditor(&self, caller: &Caller) -> bool {
        caller.is_in(&self.global.load().global.auditors)
    }

    /// Whether the caller's word is taken for who sent a message.
    #[must_use]
    pub fn is_trusted_host(&self, caller: &Caller) -> bool {
        caller.is_in(&self.global.load().global.trusted_hosts)
    }

    /// Refuses what the caller may not do in the system as a whole.
    ///
    /// # Errors
    /// `SYSTEM_DISABLED`, or the role that is missing.
    pub fn require(&self, call: &Call, action: Action) -> Result<(), Error> {
        let role = self.enter(action)?;
        if self.holds(&call.caller, role, None) {
            return Ok(());
        }
        // What is asked of the whole system by a role of an application is asked of all of them.
        let role = match role {
            Role::SsoAdministrator | Role::Auditor | Role::TrustedHost => role,
            Role::AffiliateAdministrator
            | Role::ApplicationAdministrator
            | Role::ApplicationMember
            | Role::ApplicationUser
            | Role::ConfigurationReader
            | Role::Anyone => Role::AffiliateAdministrator,
        };
        Err(self.denied(role, call, action, None, None))
    }

    /// Refuses what the caller may not do to `application`. An application that does not exist
    /// (`None`) is refused in the words of one the caller has no role in, unless the caller may see
    /// every application.
    ///
    /// # Errors
    /// `SYSTEM_DISABLED`, `APPLICATION_NOT_FOUND`, or the role that is missing.
    pub fn require_in(
        &self,
        call: &Call,
        action: Action,
        name: &ApplicationName,
        application: Option<Arc<Application>>,
    ) -> Result<Arc<Application>, Error> {
        let role = self.enter(action)?;
        let caller = &call.caller;
        let sees_all = application.is_none() && self.is_affiliate_administrator(caller);
        if !sees_all {
            let held = match &application {
                Some(application) => self.holds_in(caller, role, application),
                None => self.holds(caller, role, None),
            };
            if !held {
                return Err(self.denied(role, call, action, Some(name), application.as_deref()));
            }
        }
        application.ok_or_else(|| {
            let message =
                format!("there is no application \"{name}\"; `sso app list` shows those there are");
            Error::new(Reason::ApplicationNotFound, message)
        })
    }

    /// Refuses whoever does not hold this role in the application.
    ///
    /// # Errors
    /// The role that is missing.
    pub(crate) fn require_role(
        &self,
        role: Role,
        call: &Call,
        action: Action,
        name: &ApplicationName,
        application: Option<&Application>,
    ) -> Result<(), Error> {
        if self.holds(&call.caller, role, application) {
            return Ok(());
        }
        Err(self.denied(role, call, action, Some(name), application))
    }

    /// Whether the caller holds the role: in the application, where it is one of an application.
    #[must_use]
    pub fn holds(&self, caller: &Caller, role: Role, application: Option<&Application>) -> bool {
        let administers = || match application {
            Some(application) => self.is_administrator(caller, application),
            None => self.is_affiliate_administrator(caller),
        };
        let uses = || application.is_some_and(|it| it.has_user(caller));
        match role {
            Role::Anyone => true,
            Role::SsoAdministrator => self.is_sso_administrator(caller),
            Role::AffiliateAdministrator => self.is_affiliate_administrator(caller),
            Role::ApplicationAdministrator => administers(),
            Role::ApplicationMember => administers() || uses(),
            Role::ApplicationUser => uses(),
            Role::ConfigurationReader => administers() || self.is_configuration_reader(caller),
            Role::Auditor => self.is_sso_administrator(caller) || self.is_auditor(caller),
            Role::TrustedHost => self.is_trusted_host(caller),
        }
    }

    /// The accounts that hold the role by being named, for administrators to see (event 11042).
    #[must_use]
    pub fn accounts_of(&self, role: Role, application: Option<&Application>) -> Accounts {
        let global = self.global();
        let affiliates = || vec![&global.sso_administrators, &global.affiliate_administrators];
        let administrators = || {
            let mut lists = affiliates();
            lists.extend(application.map(|it| &it.administrators));
            lists
        };
        let lists: Vec<&Accounts> = match role {
            Role::Anyone => Vec::new(),
            Role::SsoAdministrator => vec![&global.sso_administrators],
            Role::AffiliateAdministrator => affiliates(),
            Role::ApplicationAdministrator => administrators(),
            Role::ApplicationMember => {
                let mut lists = administrators();
                lists.extend(application.map(|it| &it.users));
                lists
            }
            Role::ApplicationUser => application.map(|it| &it.users).into_iter().collect(),
            Role::ConfigurationReader => {
                let mut lists = administrators();
                lists.push(&global.configuration_readers);
                lists
            }
            Role::Auditor => vec![&global.sso_administrators, &global.auditors],
            Role::TrustedHost => vec![&global.trusted_hosts],
        };
        let of_users = matches!(role, Role::ApplicationMember | Role::ApplicationUser);
        let of_host_group = application.filter(|_| of_users);
        let of_host_group = of_host_group.and_then(|it| it.windows_account.as_ref());
        lists.into_iter().flat_map(Accounts::iter).chain(of_host_group).cloned().collect()
    }

    /// The role that the action asks for, unless the system is disabled.
    fn enter(&self, action: Action) -> Result<Role, Error> {
        let method = row_of(action)?;
        self.require_system(method)?;
        Ok(method.role)
    }

    /// Refuses what is not served while the system is disabled.
    ///
    /// # Errors
    /// `SYSTEM_DISABLED`.
    pub(crate) fn require_system(&self, method: &Method) -> Result<(), Error> {
        if method.while_disabled || self.global.load().global.enabled {
            return Ok(());
        }
        Err(Error::new(
            Reason::SystemDisabled,
            "the SSO system is disabled; an SSO administrator enables it with `sso system enable`",
        ))
    }
}

/// The row that says what the action takes.
///
/// # Errors
/// `METHOD_NOT_LISTED`.
pub(crate) fn row_of(action: Action) -> Result<&'static Method, Error> {
    methods::row_of(action).ok_or_else(|| {
        let message = format!("{} stands in no row of the access table", action.as_str());
        Error::new(Reason::MethodNotListed, message)
    })
}

impl Access {
    fn denied(
        &self,
        role: Role,
        call: &Call,
        action: Action,
        name: Option<&ApplicationName>,
        application: Option<&Application>,
    ) -> Error {
        let of = name.map_or_else(String::new, |name| format!(" of application \"{name}\""));
        let (reason, who) = match role {
            Role::SsoAdministrator => {
                (Reason::NotSsoAdministrator, "an SSO administrator".to_owned())
            }
            Role::Auditor => {
                (Reason::NotSsoAdministrator, "an SSO administrator or an auditor".to_owned())
            }
            Role::AffiliateAdministrator => {
                (Reason::NotAffiliateAdministrator, "an affiliate administrator".to_owned())
            }
            Role::ApplicationAdministrator => {
                (Reason::NotApplicationAdministrator, format!("an administrator{of}"))
            }
            Role::ConfigurationReader => (
                Reason::NotApplicationAdministrator,
                format!("an administrator{of} or a configuration reader"),
            ),
            Role::ApplicationMember => {
                (Reason::NotApplicationUser, format!("an administrator or a user{of}"))
            }
            Role::ApplicationUser | Role::Anyone => {
                (Reason::NotApplicationUser, format!("a user{of}; administering it is not enough"))
            }
            Role::TrustedHost => (
                Reason::NotTrustedHost,
                "a trusted host; `sso system update --trusted-hosts` names them".to_owned(),
            ),
        };
        let message =
            format!("{} may not {}: that takes {who}", call.caller.account, action.in_words());
        let expected = self.accounts_of(role, application);
        Error::new(reason, message)
            .for_administrators(format!("accepted accounts: {}", expected.to_texts().join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Account, Accounts};

    fn call(account: &str, groups: &[&str]) -> Call {
        Call {
            caller: Arc::new(Caller::new(
                Account::parse(account).unwrap(),
                groups
                    .iter()
                    .map(|g| (Account::parse(g).unwrap().key().to_owned(), (*g).to_owned()))
                    .collect(),
                crate::model::Proof::Certificate,
            )),
            request_id: Uuid::nil(),
            local: true,
            change: None,
        }
    }

    fn access(enabled: bool) -> Access {
        let accounts = |text| Accounts::parse(&[text]).unwrap();
        let mut global = GlobalInfo::initial(accounts("D\\SA"), accounts("D\\AA"));
        global.enabled = enabled;
        Access::new(global)
    }

    #[test]
    fn older_settings_never_replace_newer_ones() {
        let access = access(true);
        let with = |timeout| GlobalInfo { ticket_timeout: timeout, ..(*access.global()).clone() };
        let at = OffsetDateTime::from_unix_timestamp;
        access.adopt(with(3), at(3).unwrap());
        access.adopt(with(2), at(2).unwrap());
        assert_eq!(access.global().ticket_timeout, 3);
        // What was read again is the same or was mended by hand.
        access.adopt(with(4), at(3).unwrap());
        assert_eq!(access.global().ticket_timeout, 4);
    }

    #[test]
    fn every_action_has_a_row_and_every_path_one() {
        let actions = Action::ALL.len();
        let mut seen: Vec<_> = METHODS.iter().map(|method| method.action as usize).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..actions).collect::<Vec<_>>());
        let mut paths: Vec<_> = METHODS.iter().map(|m| m.path).filter(|p| !p.is_empty()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), METHODS.iter().filter(|m| !m.path.is_empty()).count());
        assert!(method("").is_none());
        assert!(method("/sso.v1.Applications/Nothing").is_none());
    }

    #[test]
    fn look_ups_from_elsewhere_end_when_an_administrator_says_so() {
        let access = access(true);
        let (here, elsewhere) = (call("D\\x", &[]), Call { local: false, ..call("D\\x", &[]) });
        for (remote_lookup, served) in [(true, true), (false, false), (true, true)] {
            let settings = ServerSettings { remote_lookup, ..access.server_settings() };
            access.adopt_server_settings(settings);
            assert!(access.require_lookup(&here).is_ok());
            let refused = access.require_lookup(&elsewhere).err().map(|error| error.reason);
            assert_eq!(refused, (!served).then_some(Reason::RemoteLookupNotAllowed));
        }
    }

    #[test]
    fn a_group_membership_counts_and_roles_nest() {
        let access = access(true);
        assert!(access.require(&call("D\\x", &["d\\sa"]), Action::SystemRead).is_ok());
        assert!(access.require(&call("D\\x", &["d\\sa"]), Action::ApplicationCreate).is_ok());
        let refused = access.require(&call("D\\x", &["d\\aa"]), Action::SystemRead).unwrap_err();
        assert_eq!(refused.reason, Reason::NotSsoAdministrator);
        let refused = access.require(&call("D\\sa2", &[]), Action::ApplicationCreate).unwrap_err();
        assert_eq!(refused.reason, Reason::NotAffiliateAdministrator);
    }

    #[test]
    fn a_missing_application_looks_like_one_without_a_role() {
        let access = access(true);
        let name = ApplicationName::parse("Nowhere").unwrap();
        let stranger = call("D\\x", &[]);
        for action in
            [Action::ApplicationRead, Action::ConfigurationRead, Action::ConfigurationReveal]
        {
            let refused = access.require_in(&stranger, action, &name, None).unwrap_err();
            assert!(
                [Reason::NotApplicationUser, Reason::NotApplicationAdministrator]
                    .contains(&refused.reason)
            );
        }
        let refused = access
            .require_in(&call("D\\aa", &[]), Action::ApplicationRead, &name, None)
            .unwrap_err();
        assert_eq!(refused.reason, Reason::ApplicationNotFound);
    }

    #[test]
    fn a_disabled_system_serves_only_its_administration() {
        let access = access(false);
        let administrator = call("D\\sa", &[]);
        assert!(access.require(&administrator, Action::SystemEnable).is_ok());
        let refused = access.require(&administrator, Action::ApplicationCreate).unwrap_err();
        assert_eq!(refused.reason, Reason::SystemDisabled);
    }
}
