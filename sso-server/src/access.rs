//! Who may do what: the four nested roles, one row per gRPC method, and the one place that decides.
//!
//! ESSO.md 2.3 is the source of every row. A method without a row is refused, and a failure to
//! learn who is in which role refuses as well.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use sso_proto::Reason;
use uuid::Uuid;

use crate::{
    error::Error,
    model::{Application, ApplicationName, Caller, GlobalInfo},
};

/// What a method asks of its caller. Each role but the last contains the ones behind it; being an
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
    /// Any authenticated caller.
    Anyone,
}

/// What a caller wants to do; one for every gRPC method, and two for reads that come in two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create an application.
    ApplicationCreate,
    /// Read an application.
    ApplicationRead,
    /// List applications.
    ApplicationList,
    /// Change the mutable parts of an application.
    ApplicationUpdate,
    /// Say who administers an application.
    ApplicationUpdateAdministrators,
    /// Switch an application on.
    ApplicationEnable,
    /// Switch an application off.
    ApplicationDisable,
    /// Delete an application.
    ApplicationDelete,
    /// Add a field.
    ApplicationAddField,
    /// Write a configuration.
    ConfigurationSet,
    /// Read a configuration without masked values.
    ConfigurationRead,
    /// Read a configuration with all values.
    ConfigurationReveal,
    /// Delete a configuration.
    ConfigurationDelete,
    /// List identifiers.
    ConfigurationList,
    /// Read the history of a configuration.
    ConfigurationHistory,
    /// Go back to an earlier revision.
    ConfigurationRollback,
    /// Be told of changes.
    ConfigurationWatch,
    /// Read the settings of the system.
    SystemRead,
    /// Change the settings of the system.
    SystemUpdate,
    /// Switch the system on.
    SystemEnable,
    /// Switch the system off.
    SystemDisable,
    /// Read the state of a server.
    ServerStatus,
    /// List the servers.
    ServerList,
    /// Read the audit records of an application.
    AuditList,
    /// Read all audit records.
    AuditListAll,
}

impl Action {
    /// The noun and verb recorded in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApplicationCreate => "application.create",
            Self::ApplicationRead => "application.read",
            Self::ApplicationList => "application.list",
            Self::ApplicationUpdate => "application.update",
            Self::ApplicationUpdateAdministrators => "application.update-administrators",
            Self::ApplicationEnable => "application.enable",
            Self::ApplicationDisable => "application.disable",
            Self::ApplicationDelete => "application.delete",
            Self::ApplicationAddField => "application.add-field",
            Self::ConfigurationSet => "configuration.set",
            Self::ConfigurationRead => "configuration.read",
            Self::ConfigurationReveal => "configuration.reveal",
            Self::ConfigurationDelete => "configuration.delete",
            Self::ConfigurationList => "configuration.list",
            Self::ConfigurationHistory => "configuration.history",
            Self::ConfigurationRollback => "configuration.rollback",
            Self::ConfigurationWatch => "configuration.watch",
            Self::SystemRead => "system.read",
            Self::SystemUpdate => "system.update",
            Self::SystemEnable => "system.enable",
            Self::SystemDisable => "system.disable",
            Self::ServerStatus => "server.status",
            Self::ServerList => "server.list",
            Self::AuditList => "audit.list",
            Self::AuditListAll => "audit.list-all",
        }
    }

    /// The same for a person: "reveal the configuration".
    fn in_words(self) -> String {
        let (noun, verb) = self.as_str().split_once('.').unwrap_or((self.as_str(), "use"));
        match verb {
            "add-field" => format!("add a field to the {noun}"),
            "update-administrators" => format!("change the administrators of the {noun}"),
            "list-all" => format!("list the {noun} records of all applications"),
            "list" if noun == "audit" => "list the audit records".to_owned(),
            "list" => format!("list the {noun}s"),
            "history" => format!("read the history of the {noun}"),
            "rollback" => format!("roll the {noun} back"),
            "set" => format!("write the {noun}"),
            "read" if noun == "system" => "read the settings of the system".to_owned(),
            "update" if noun == "system" => "change the settings of the system".to_owned(),
            verb => format!("{verb} the {noun}"),
        }
    }
}

/// One row of the access table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The gRPC path, `/package.Service/Method`; empty for an action that is part of a method.
    pub path: &'static str,
    /// What it does.
    pub action: Action,
    /// What it asks of the caller.
    pub role: Role,
    /// Served while the system is disabled.
    pub while_disabled: bool,
}

const fn row(path: &'static str, action: Action, role: Role, while_disabled: bool) -> Method {
    Method { path, action, role, while_disabled }
}

/// Every method of this server. A test walks the descriptors and finds each of them here.
#[rustfmt::skip]
pub const METHODS: &[Method] = &[
    row("/sso.v1.Applications/Create", Action::ApplicationCreate, Role::AffiliateAdministrator, false),
    row("/sso.v1.Applications/Get", Action::ApplicationRead, Role::ApplicationMember, true),
    row("/sso.v1.Applications/List", Action::ApplicationList, Role::Anyone, true),
    row("/sso.v1.Applications/Update", Action::ApplicationUpdate, Role::ApplicationAdministrator, false),
    row("", Action::ApplicationUpdateAdministrators, Role::AffiliateAdministrator, false),
    row("/sso.v1.Applications/Enable", Action::ApplicationEnable, Role::ApplicationAdministrator, false),
    row("/sso.v1.Applications/Disable", Action::ApplicationDisable, Role::ApplicationAdministrator, false),
    row("/sso.v1.Applications/Delete", Action::ApplicationDelete, Role::AffiliateAdministrator, false),
    row("/sso.v1.Applications/AddField", Action::ApplicationAddField, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Set", Action::ConfigurationSet, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Get", Action::ConfigurationRead, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/BatchGet", Action::ConfigurationRead, Role::ApplicationAdministrator, false),
    row("", Action::ConfigurationReveal, Role::ApplicationUser, false),
    row("/sso.v1.ConfigStore/Delete", Action::ConfigurationDelete, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/ListIdentifiers", Action::ConfigurationList, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/History", Action::ConfigurationHistory, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Rollback", Action::ConfigurationRollback, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Watch", Action::ConfigurationWatch, Role::ApplicationMember, false),
    row("/sso.v1.System/GetGlobalInfo", Action::SystemRead, Role::SsoAdministrator, true),
    row("/sso.v1.System/UpdateGlobalInfo", Action::SystemUpdate, Role::SsoAdministrator, true),
    row("/sso.v1.System/Enable", Action::SystemEnable, Role::SsoAdministrator, true),
    row("/sso.v1.System/Disable", Action::SystemDisable, Role::SsoAdministrator, true),
    row("/sso.v1.System/GetServerStatus", Action::ServerStatus, Role::Anyone, true),
    row("/sso.v1.System/ListServers", Action::ServerList, Role::Anyone, true),
    // Health, and reflection where the settings serve it: what anybody may know of a server.
    row("/grpc.health.v1.Health/Check", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.health.v1.Health/List", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.health.v1.Health/Watch", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Action::ServerStatus, Role::Anyone, true),
    // An application administrator may list the records of the application named.
    row("", Action::AuditListAll, Role::SsoAdministrator, true),
    row("/sso.v1.Audit/List", Action::AuditList, Role::ApplicationAdministrator, true),
];

/// The row of a gRPC path.
#[must_use]
pub fn method(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| !method.path.is_empty() && method.path == path)
}

/// One request: who asks, and the id it is logged, audited and answered under.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// Given back in refusals.
    pub request_id: Uuid,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.caller.account, self.request_id)
    }
}

/// Decides. Knows the settings of the system as last read from the database.
#[derive(Debug)]
pub struct Access {
    global: ArcSwap<GlobalInfo>,
}

impl Access {
    /// Decides by these settings until others are adopted.
    #[must_use]
    pub fn new(global: GlobalInfo) -> Self {
        Self { global: ArcSwap::from_pointee(global) }
    }

    /// Takes over settings that were read or written just now.
    pub fn adopt(&self, global: GlobalInfo) {
        self.global.store(Arc::new(global));
    }

    /// The settings in force.
    #[must_use]
    pub fn global(&self) -> Arc<GlobalInfo> {
        self.global.load_full()
    }

    /// Whether the caller is an SSO administrator.
    #[must_use]
    pub fn is_sso_administrator(&self, caller: &Caller) -> bool {
        caller.is_in(&self.global.load().sso_administrators)
    }

    /// Whether the caller is an affiliate administrator, as every SSO administrator is.
    #[must_use]
    pub fn is_affiliate_administrator(&self, caller: &Caller) -> bool {
        self.is_sso_administrator(caller)
            || caller.is_in(&self.global.load().affiliate_administrators)
    }

    /// Whether the caller administers the application, as every affiliate administrator does.
    #[must_use]
    pub fn is_administrator(&self, caller: &Caller, application: &Application) -> bool {
        self.is_affiliate_administrator(caller) || caller.is_in(&application.administrators)
    }

    /// Refuses what the caller may not do in the system as a whole.
    ///
    /// # Errors
    /// `SYSTEM_DISABLED`, or the role that is missing.
    pub fn require(&self, call: &Call, action: Action) -> Result<(), Error> {
        let role = self.enter(action)?;
        let caller = &call.caller;
        match role {
            Role::Anyone => Ok(()),
            Role::SsoAdministrator if self.is_sso_administrator(caller) => Ok(()),
            Role::AffiliateAdministrator if self.is_affiliate_administrator(caller) => Ok(()),
            Role::SsoAdministrator => Err(denied(
                Reason::NotSsoAdministrator,
                call,
                action,
                "that takes an SSO administrator",
            )),
            Role::AffiliateAdministrator
            | Role::ApplicationAdministrator
            | Role::ApplicationMember
            | Role::ApplicationUser => Err(denied(
                Reason::NotAffiliateAdministrator,
                call,
                action,
                "that takes an affiliate administrator",
            )),
        }
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
        application: Option<Application>,
    ) -> Result<Application, Error> {
        let role = self.enter(action)?;
        let caller = &call.caller;
        let allowed = match (role, &application) {
            (Role::Anyone, _) => true,
            (Role::SsoAdministrator, _) => self.is_sso_administrator(caller),
            (Role::AffiliateAdministrator, _) => self.is_affiliate_administrator(caller),
            (Role::ApplicationAdministrator, Some(it)) => self.is_administrator(caller, it),
            (Role::ApplicationMember, Some(it)) => {
                self.is_administrator(caller, it) || caller.is_in(&it.users)
            }
            (Role::ApplicationUser, Some(it)) => caller.is_in(&it.users),
            (
                Role::ApplicationAdministrator | Role::ApplicationMember | Role::ApplicationUser,
                None,
            ) => self.is_affiliate_administrator(caller),
        };
        if !allowed {
            return Err(denied_in(role, call, action, name));
        }
        application.ok_or_else(|| {
            let message =
                format!("there is no application \"{name}\"; `sso app list` shows those there are");
            Error::new(Reason::ApplicationNotFound, message)
        })
    }

    /// The role that the action asks for, unless the system is disabled.
    fn enter(&self, action: Action) -> Result<Role, Error> {
        let Some(method) = METHODS.iter().find(|method| method.action == action) else {
            let message = format!("{} stands in no row of the access table", action.as_str());
            return Err(Error::new(Reason::MethodNotListed, message));
        };
        if !method.while_disabled && !self.global.load().enabled {
            return Err(Error::new(
                Reason::SystemDisabled,
                "the SSO system is disabled; an SSO administrator enables it with `sso system enable`",
            ));
        }
        Ok(method.role)
    }
}

fn denied_in(role: Role, call: &Call, action: Action, name: &ApplicationName) -> Error {
    let (reason, who) = match role {
        Role::SsoAdministrator => {
            (Reason::NotSsoAdministrator, "that takes an SSO administrator".to_owned())
        }
        Role::AffiliateAdministrator => {
            (Reason::NotAffiliateAdministrator, "that takes an affiliate administrator".to_owned())
        }
        Role::ApplicationAdministrator => (
            Reason::NotApplicationAdministrator,
            format!("that takes an administrator of application \"{name}\""),
        ),
        Role::ApplicationMember => (
            Reason::NotApplicationUser,
            format!("that takes an administrator or a user of application \"{name}\""),
        ),
        Role::ApplicationUser | Role::Anyone => (
            Reason::NotApplicationUser,
            format!(
                "that takes a user of application \"{name}\"; its administrators read without masked values"
            ),
        ),
    };
    denied(reason, call, action, &who)
}

fn denied(reason: Reason, call: &Call, action: Action, why: &str) -> Error {
    let message = format!("{} may not {}: {why}", call.caller.account, action.in_words());
    Error::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Account, Accounts};

    fn call(account: &str, groups: &[&str]) -> Call {
        Call {
            caller: Caller {
                account: Account::parse(account).unwrap(),
                groups: groups
                    .iter()
                    .map(|g| (Account::parse(g).unwrap().key().to_owned(), (*g).to_owned()))
                    .collect(),
            },
            request_id: Uuid::nil(),
        }
    }

    fn access(enabled: bool) -> Access {
        let accounts = |text| Accounts::parse(&[text]).unwrap();
        let mut global = GlobalInfo::initial(accounts("D\\SA"), accounts("D\\AA"));
        global.enabled = enabled;
        Access::new(global)
    }

    #[test]
    fn every_action_has_a_row_and_every_path_one() {
        // Fieldless and in order, so the last action counts them.
        let actions = Action::AuditListAll as usize + 1;
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
