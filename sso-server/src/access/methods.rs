//! The access table: one row per gRPC method. ESSO.md 2.3 is the source of every row.

use std::{collections::HashMap, sync::LazyLock};

use super::{Action, Role};

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
    row("", Action::ApplicationUpdateTickets, Role::SsoAdministrator, false),
    row("", Action::ApplicationWaivePassword, Role::AffiliateAdministrator, false),
    row("", Action::ApplicationOpenToHosts, Role::AffiliateAdministrator, false),
    row("/sso.v1.Applications/PurgeCache", Action::ApplicationPurgeCache, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Set", Action::ConfigurationSet, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Get", Action::ConfigurationRead, Role::ConfigurationReader, false),
    row("/sso.v1.ConfigStore/BatchGet", Action::ConfigurationRead, Role::ConfigurationReader, false),
    row("", Action::ConfigurationReveal, Role::ApplicationUser, false),
    row("/sso.v1.ConfigStore/Delete", Action::ConfigurationDelete, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/ListIdentifiers", Action::ConfigurationList, Role::ConfigurationReader, false),
    row("/sso.v1.ConfigStore/History", Action::ConfigurationHistory, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Rollback", Action::ConfigurationRollback, Role::ApplicationAdministrator, false),
    row("/sso.v1.ConfigStore/Watch", Action::ConfigurationWatch, Role::ApplicationMember, false),
    // What users may do to mappings other than by administering them is for `mappings` to decide.
    row("/sso.v1.Mappings/Create", Action::MappingCreate, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/BatchCreate", Action::MappingCreate, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/Get", Action::MappingRead, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/List", Action::MappingList, Role::ApplicationMember, false),
    row("", Action::MappingListOwn, Role::Anyone, false),
    row("", Action::MappingListAll, Role::AffiliateAdministrator, false),
    row("/sso.v1.Mappings/ListMembers", Action::MappingListMembers, Role::ApplicationAdministrator, false),
    row("/sso.v1.Mappings/SetCredentials", Action::MappingSetCredentials, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/Enable", Action::MappingEnable, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/Disable", Action::MappingDisable, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/Delete", Action::MappingDelete, Role::ApplicationMember, false),
    row("/sso.v1.Mappings/BatchDelete", Action::MappingDelete, Role::ApplicationMember, false),
    row("/sso.v1.Lookup/GetCredentials", Action::CredentialsReveal, Role::ApplicationUser, false),
    row("/sso.v1.Lookup/LogonExternalUser", Action::CredentialsLogon, Role::ApplicationAdministrator, false),
    row("/sso.v1.Lookup/GetAssertionKeys", Action::AssertionKeys, Role::Anyone, false),
    row("/sso.v1.Tickets/Issue", Action::TicketIssue, Role::Anyone, false),
    row("", Action::TicketForward, Role::TrustedHost, false),
    row("/sso.v1.Tickets/Redeem", Action::TicketRedeem, Role::ApplicationAdministrator, false),
    // The one it was issued to, or an affiliate administrator: for `tickets` to decide.
    row("/sso.v1.Tickets/Inspect", Action::TicketInspect, Role::Anyone, false),
    row("/sso.v1.Access/Explain", Action::AccessExplain, Role::ApplicationAdministrator, true),
    row("/sso.v1.System/GetGlobalInfo", Action::SystemRead, Role::SsoAdministrator, true),
    row("/sso.v1.System/UpdateGlobalInfo", Action::SystemUpdate, Role::SsoAdministrator, true),
    row("/sso.v1.System/Enable", Action::SystemEnable, Role::SsoAdministrator, true),
    row("/sso.v1.System/Disable", Action::SystemDisable, Role::SsoAdministrator, true),
    row("/sso.v1.System/GetServerStatus", Action::ServerStatus, Role::Anyone, true),
    row("/sso.v1.System/ListServers", Action::ServerList, Role::Anyone, true),
    row("/sso.v1.Principals/List", Action::PrincipalList, Role::SsoAdministrator, true),
    row("/sso.v1.Principals/Forget", Action::PrincipalForget, Role::SsoAdministrator, true),
    row("/sso.v1.System/GetServerSettings", Action::ServerSettingsRead, Role::SsoAdministrator, true),
    row("/sso.v1.System/UpdateServerSettings", Action::ServerSettingsUpdate, Role::SsoAdministrator, true),
    row("/sso.v1.System/BeginSealedRowsCheck", Action::SecretCheckRows, Role::SsoAdministrator, true),
    row("/sso.v1.System/CheckSealedRows", Action::SecretCheckRows, Role::SsoAdministrator, true),
    row("/sso.v1.System/ReloadTls", Action::ServerReloadTls, Role::SsoAdministrator, true),
    // Servers do it by themselves; nobody calls it.
    row("", Action::SecretReseal, Role::SsoAdministrator, true),
    // Health, and reflection where the settings serve it: what anybody may know of a server.
    row("/grpc.health.v1.Health/Check", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.health.v1.Health/List", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.health.v1.Health/Watch", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Action::ServerStatus, Role::Anyone, true),
    row("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Action::ServerStatus, Role::Anyone, true),
    // An application administrator may list the records of the application named.
    row("", Action::AuditListAll, Role::Auditor, true),
    row("/sso.v1.Audit/List", Action::AuditList, Role::ApplicationAdministrator, true),
];

/// The row of a gRPC path.
#[must_use]
pub fn method(path: &str) -> Option<&'static Method> {
    numbered(path).map(|(_, method)| method)
}

/// The row of a gRPC path, and its number in the table.
pub(crate) fn numbered(path: &str) -> Option<(usize, &'static Method)> {
    static BY_PATH: LazyLock<HashMap<&str, (usize, &Method)>> = LazyLock::new(|| {
        let listed = METHODS.iter().enumerate().filter(|(_, method)| !method.path.is_empty());
        listed.map(|row| (row.1.path, row)).collect()
    });
    BY_PATH.get(path).copied()
}

/// The first row of an action.
pub(super) fn row_of(action: Action) -> Option<&'static Method> {
    static BY_ACTION: LazyLock<Vec<Option<&Method>>> = LazyLock::new(|| {
        let row = |action: &Action| METHODS.iter().find(|method| method.action == *action);
        let mut rows = vec![None; Action::ALL.len()];
        for action in Action::ALL {
            if let Some(place) = rows.get_mut(*action as usize) {
                *place = row(action);
            }
        }
        rows
    });
    BY_ACTION.get(action as usize).copied().flatten()
}
