//! What callers want to do: one action for every gRPC method, and more where a method does several.

/// What an action does to what the system keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes it.
    Change,
    /// Hands out a secret, or something that stands for one.
    Reveal,
    /// Shows what is no secret.
    Read,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $words:literal;)*) => {
        /// What a caller wants to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The noun and verb recorded in the audit.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The same for a person: "Ann may not …".
            #[must_use]
            pub fn in_words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

actions! {
    /// Create an application.
    ApplicationCreate = "application.create", "create the application";
    /// Read an application.
    ApplicationRead = "application.read", "read the application";
    /// List applications.
    ApplicationList = "application.list", "list the applications";
    /// Change the mutable parts of an application.
    ApplicationUpdate = "application.update", "update the application";
    /// Say who administers an application.
    ApplicationUpdateAdministrators = "application.update-administrators", "change the administrators of the application";
    /// Change the ticket flags of an application.
    ApplicationUpdateTickets = "application.update-tickets", "change the ticket flags of the application";
    /// Believe external users without their credentials.
    ApplicationWaivePassword = "application.waive-password", "switch off the comparison of host credentials";
    /// Let external users log on to an application, and say as whom.
    ApplicationOpenToHosts = "application.open-to-hosts", "say that external users log on to the application, and as whom";
    /// Switch an application on.
    ApplicationEnable = "application.enable", "enable the application";
    /// Switch an application off.
    ApplicationDisable = "application.disable", "disable the application";
    /// Delete an application.
    ApplicationDelete = "application.delete", "delete the application";
    /// Add a field.
    ApplicationAddField = "application.add-field", "add a field to the application";
    /// Make every server forget what it cached.
    ApplicationPurgeCache = "application.purge-cache", "purge the cache of the application";
    /// Write a configuration.
    ConfigurationSet = "configuration.set", "write the configuration";
    /// Read a configuration without masked values.
    ConfigurationRead = "configuration.read", "read the configuration";
    /// Read a configuration with all values.
    ConfigurationReveal = "configuration.reveal", "reveal the configuration";
    /// Delete a configuration.
    ConfigurationDelete = "configuration.delete", "delete the configuration";
    /// List identifiers.
    ConfigurationList = "configuration.list", "list the configurations";
    /// Read the history of a configuration.
    ConfigurationHistory = "configuration.history", "read the history of the configuration";
    /// Go back to an earlier revision.
    ConfigurationRollback = "configuration.rollback", "roll the configuration back";
    /// Be told of changes.
    ConfigurationWatch = "configuration.watch", "watch the configuration";
    /// Create mappings.
    MappingCreate = "mapping.create", "create the mapping";
    /// Read one mapping.
    MappingRead = "mapping.read", "read the mapping";
    /// List the mappings of an application.
    MappingList = "mapping.list", "list the mappings";
    /// List the mappings of the caller's own account.
    MappingListOwn = "mapping.list-own", "list the mappings of the own account";
    /// List the mappings of any account.
    MappingListAll = "mapping.list-all", "list the mappings of another account in all applications";
    /// List who is among the users of an application.
    MappingListMembers = "mapping.list-members", "list the members of the application";
    /// Store credentials.
    MappingSetCredentials = "mapping.set-credentials", "set the credentials of the mapping";
    /// Switch a mapping on.
    MappingEnable = "mapping.enable", "enable the mapping";
    /// Switch a mapping off.
    MappingDisable = "mapping.disable", "disable the mapping";
    /// Delete mappings.
    MappingDelete = "mapping.delete", "delete the mapping";
    /// Get the credentials mapped to the own account.
    CredentialsReveal = "credentials.reveal", "get the credentials";
    /// Get the account an external user is mapped to.
    CredentialsLogon = "credentials.logon", "log the external user on";
    /// Get the keys that assertions are verified with.
    AssertionKeys = "credentials.assertion-keys", "get the keys of assertions";
    /// Get a ticket.
    TicketIssue = "ticket.issue", "issue the ticket";
    /// Get a ticket for an end user whose token is forwarded.
    TicketForward = "ticket.forward", "get a ticket for an end user";
    /// Redeem a ticket.
    TicketRedeem = "ticket.redeem", "redeem the ticket";
    /// Look into a ticket.
    TicketInspect = "ticket.inspect", "inspect the ticket";
    /// Have access explained.
    AccessExplain = "access.explain", "have access explained";
    /// Read the settings of the system.
    SystemRead = "system.read", "read the settings of the system";
    /// Change the settings of the system.
    SystemUpdate = "system.update", "change the settings of the system";
    /// Switch the system on.
    SystemEnable = "system.enable", "enable the system";
    /// Switch the system off.
    SystemDisable = "system.disable", "disable the system";
    /// Read the state of a server.
    ServerStatus = "server.status", "read the state of the server";
    /// List the servers.
    ServerList = "server.list", "list the servers";
    /// Read the settings of a server.
    ServerSettingsRead = "server.read-settings", "read the settings of the server";
    /// Change the settings of a server.
    ServerSettingsUpdate = "server.update-settings", "change the settings of the server";
    /// Load certificates and revocation lists again.
    ServerReloadTls = "server.reload-tls", "have the server load its certificates again";
    /// Seal values again under the active generation: what servers do by themselves.
    SecretReseal = "secret.reseal", "have values sealed again";
    /// Open every sealed value with the keys of a backup.
    SecretCheckRows = "secret.check-rows", "check the sealed values with the keys of a backup";
    /// List who had which account name first.
    PrincipalList = "principal.list", "list the principals";
    /// Forget who had an account name.
    PrincipalForget = "principal.forget", "forget the principal";
    /// Read the audit records of an application.
    AuditList = "audit.list", "list the audit records";
    /// Read all audit records.
    AuditListAll = "audit.list-all", "list the audit records of all applications";
}

impl Action {
    /// What it does to what the system keeps.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::ApplicationCreate
            | Self::ApplicationUpdate
            | Self::ApplicationUpdateAdministrators
            | Self::ApplicationUpdateTickets
            | Self::ApplicationWaivePassword
            | Self::ApplicationOpenToHosts
            | Self::ApplicationEnable
            | Self::ApplicationDisable
            | Self::ApplicationDelete
            | Self::ApplicationAddField
            | Self::ApplicationPurgeCache
            | Self::ConfigurationSet
            | Self::ConfigurationDelete
            | Self::ConfigurationRollback
            | Self::MappingCreate
            | Self::MappingSetCredentials
            | Self::MappingEnable
            | Self::MappingDisable
            | Self::MappingDelete
            | Self::SystemUpdate
            | Self::SystemEnable
            | Self::SystemDisable
            | Self::ServerSettingsUpdate
            | Self::ServerReloadTls
            | Self::SecretReseal
            | Self::PrincipalForget => Effect::Change,
            Self::ConfigurationReveal
            | Self::CredentialsReveal
            | Self::CredentialsLogon
            | Self::TicketIssue
            | Self::TicketForward
            | Self::TicketRedeem => Effect::Reveal,
            Self::ApplicationRead
            | Self::ApplicationList
            | Self::ConfigurationRead
            | Self::ConfigurationList
            | Self::ConfigurationHistory
            | Self::ConfigurationWatch
            | Self::MappingRead
            | Self::MappingList
            | Self::MappingListOwn
            | Self::MappingListAll
            | Self::MappingListMembers
            | Self::AssertionKeys
            | Self::TicketInspect
            | Self::AccessExplain
            | Self::SystemRead
            | Self::ServerStatus
            | Self::ServerList
            | Self::ServerSettingsRead
            | Self::SecretCheckRows
            | Self::PrincipalList
            | Self::AuditList
            | Self::AuditListAll => Effect::Read,
        }
    }
}
