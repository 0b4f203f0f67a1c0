//! The nouns of one server, each with the floors below that it stands on.

use std::sync::Arc;

use sso_core::clock::Clock;

use crate::{
    access::Access,
    applications::Applications,
    audit::Audit,
    audit_trail::AuditTrail,
    changes::Changes,
    config_store::ConfigStore,
    identity::Identity,
    master::MasterSecret,
    storage::Storage,
    system::{ServerFacts, System},
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
    /// The system as a whole.
    pub system: System,
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
    /// Tells of changes.
    pub changes: Changes,
    /// Tells the time.
    pub clock: Clock,
    /// This server.
    pub facts: ServerFacts,
}

impl House {
    /// Builds the nouns on their foundations.
    #[must_use]
    pub fn build(on: Foundations) -> Arc<Self> {
        let Foundations { identity, access, audit, storage, master, changes, clock, facts } = on;
        Arc::new(Self {
            audit_trail: AuditTrail { access: Arc::clone(&access), storage: storage.clone() },
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
                changes: changes.clone(),
                identity: Arc::clone(&identity),
                clock: clock.clone(),
            },
            system: System {
                access: Arc::clone(&access),
                audit: audit.clone(),
                storage,
                changes,
                master,
                clock: clock.clone(),
                facts: Arc::new(facts),
            },
            identity,
            access,
            audit,
            clock,
        })
    }
}
