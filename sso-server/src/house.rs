//! The nouns of one server, each with the floors below that it stands on.

use std::sync::Arc;

use sso_core::{clock::Clock, tls::TlsReloader};

use crate::{
    access::Access,
    applications::Applications,
    assertion::Assertions,
    audit::Audit,
    audit_trail::AuditTrail,
    cache::{Cache, CacheSettings},
    changes::Changes,
    config_store::ConfigStore,
    explain::Explain,
    host_initiated::HostInitiated,
    identity::Identity,
    lookup::Lookup,
    mappings::Mappings,
    master::MasterSecret,
    principals::Principals,
    sealed_rows::SealedRowsCheck,
    storage::Storage,
    system::{ServerFacts, System},
    tickets::Tickets,
    vault::Vault,
};

/// Everything a request may reach.
#[derive(Debug)]
pub struct House {
    /// Who someone is.
    pub identity: Arc<Identity>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Reads records.
    pub audit_trail: AuditTrail,
    /// Affiliate applications.
    pub applications: Applications,
    /// Configurations.
    pub config_store: ConfigStore,
    /// Why something is allowed or denied.
    pub explain: Explain,
    /// Run-time look-ups.
    pub lookup: Lookup,
    /// Mappings and their credentials.
    pub mappings: Mappings,
    /// Tickets.
    pub tickets: Tickets,
    /// Logons of external users.
    pub host_initiated: HostInitiated,
    /// Signed assertions.
    pub assertions: Assertions,
    /// Who had which account name first.
    pub principals: Principals,
    /// Opens every sealed value with the keys of a backup.
    pub sealed_rows: SealedRowsCheck,
    /// The system as a whole.
    pub system: System,
    /// What was changed, here and on other servers.
    pub changes: Changes,
    /// Tells the time.
    pub clock: Clock,
}

/// What the nouns stand on.
#[derive(Debug)]
pub struct Foundations {
    /// Who someone is.
    pub identity: Arc<Identity>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Keeps.
    pub storage: Storage,
    /// Holds the keys.
    pub master: Arc<MasterSecret>,
    /// Signs.
    pub assertions: Assertions,
    /// Tells of changes.
    pub changes: Changes,
    /// Tells the time.
    pub clock: Clock,
    /// Certificates, and whom to trust.
    pub tls: Arc<TlsReloader>,
    /// This server.
    pub facts: ServerFacts,
    /// How much is remembered.
    pub cache: CacheSettings,
}

impl House {
    /// Builds the nouns on their foundations.
    #[must_use]
    pub fn build(on: Foundations) -> Arc<Self> {
        let Foundations {
            identity,
            access,
            audit,
            storage,
            master,
            assertions,
            changes,
            clock,
            tls,
            facts,
            cache,
        } = on;
        let vault = Vault::new(Arc::clone(&master));
        let cache = Arc::new(Cache::new(
            storage.clone(),
            Arc::clone(&access),
            vault.clone(),
            Arc::clone(changes.ticks()),
            clock.clone(),
            cache,
        ));
        let lookup = Lookup {
            access: Arc::clone(&access),
            audit: audit.clone(),
            vault: vault.clone(),
            storage: storage.clone(),
            cache: Arc::clone(&cache),
        };
        let mappings = Mappings {
            access: Arc::clone(&access),
            audit: audit.clone(),
            vault: vault.clone(),
            storage: storage.clone(),
            cache: Arc::clone(&cache),
            changes: changes.clone(),
            identity: Arc::clone(&identity),
            clock: clock.clone(),
        };
        let principals = Principals::new(
            Arc::clone(&access),
            audit.clone(),
            storage.clone(),
            changes.clone(),
            clock.clone(),
        );
        let tickets = Tickets {
            access: Arc::clone(&access),
            audit: audit.clone(),
            vault: vault.clone(),
            storage: storage.clone(),
            lookup: lookup.clone(),
            identity: Arc::clone(&identity),
            principals: principals.clone(),
            clock: clock.clone(),
            server: facts.name.as_str().into(),
        };
        let host_initiated = HostInitiated {
            access: Arc::clone(&access),
            audit: audit.clone(),
            vault,
            storage: storage.clone(),
            lookup: lookup.clone(),
            identity: Arc::clone(&identity),
            tickets: tickets.clone(),
            assertions: assertions.clone(),
        };
        let explain = Explain {
            access: Arc::clone(&access),
            storage: storage.clone(),
            identity: Arc::clone(&identity),
            lookup: lookup.clone(),
            mappings: mappings.clone(),
            host_initiated: host_initiated.clone(),
        };
        Arc::new(Self {
            audit_trail: AuditTrail {
                access: Arc::clone(&access),
                audit: audit.clone(),
                storage: storage.clone(),
            },
            applications: Applications {
                access: Arc::clone(&access),
                audit: audit.clone(),
                storage: storage.clone(),
                changes: changes.clone(),
                identity: Arc::clone(&identity),
                clock: clock.clone(),
            },
            config_store: ConfigStore {
                access: Arc::clone(&access),
                audit: audit.clone(),
                vault: Vault::new(Arc::clone(&master)),
                storage: storage.clone(),
                cache,
                changes: changes.clone(),
                identity: Arc::clone(&identity),
                clock: clock.clone(),
            },
            explain,
            lookup,
            mappings,
            tickets,
            host_initiated,
            assertions,
            principals,
            sealed_rows: SealedRowsCheck::new(
                Arc::clone(&access),
                audit.clone(),
                storage.clone(),
                clock.clone(),
            ),
            system: System {
                access: Arc::clone(&access),
                audit: audit.clone(),
                storage,
                changes: changes.clone(),
                master,
                identity: Arc::clone(&identity),
                clock: clock.clone(),
                tls,
                facts: Arc::new(facts),
            },
            identity,
            access,
            audit,
            changes,
            clock,
        })
    }
}
