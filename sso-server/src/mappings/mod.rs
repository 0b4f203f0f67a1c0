//! The rules of mappings: who may create, read, change and delete them, and the credentials in them
//! (ESSO.md 2.3 rows 23 to 30, 4).
//!
//! Whoever administers an application controls all its mappings. Its users control nothing but the
//! mapping of their own account, and only in individual applications.

mod batch;
mod read;
mod rules;
mod write;

use std::sync::Arc;

use sso_core::{clock::Clock, secret::SecretText};
use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call},
    audit::Audit,
    cache::Cache,
    changes::{Change, Changes},
    error::Error,
    identity::Identity,
    model::{
        Account, Application, ApplicationName, ApplicationType, ExternalUser, Mapping, MappingKey,
    },
    storage::{Storage, Transaction},
    vault::Vault,
};

pub use batch::{BatchOutcome, MappingToDelete};
pub use read::{ListWanted, Listed};

/// What a caller gives to create a mapping.
#[derive(Debug)]
pub struct NewMapping {
    /// The application.
    pub application: ApplicationName,
    /// The account; absent, it is the windows account in a host group application, and the caller's own
    /// in an individual one.
    pub account: Option<Account>,
    /// Who that is in the other system.
    pub external_user: ExternalUser,
    /// Values of the fields from field 1 on; `None` = none yet.
    pub credentials: Option<Vec<SecretText>>,
    /// Let it serve at once.
    pub enable: bool,
}

/// Credentials to store.
#[derive(Debug)]
pub struct NewCredentials {
    /// The application.
    pub application: ApplicationName,
    /// Which mapping; `None` = the caller's own.
    pub key: Option<MappingKey>,
    /// Values of the fields from field 1 on.
    pub values: Vec<SecretText>,
    /// Of the mapping that is to be created and enabled where it is missing; `None` = it must exist.
    pub external_user: Option<ExternalUser>,
}

/// A mapping as it is handed out.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The mapping.
    pub mapping: Mapping,
    /// The application, as it is written.
    pub application: ApplicationName,
    /// It serves nobody: its account is not, or no longer, among the users.
    pub orphaned: bool,
    /// The caller administers the application and may see who changed it.
    pub for_administrator: bool,
}

/// The rules of mappings.
#[derive(Clone, Debug)]
pub struct Mappings {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Seals.
    pub vault: Vault,
    /// Keeps.
    pub storage: Storage,
    /// Remembers.
    pub cache: Arc<Cache>,
    /// Tells of changes.
    pub changes: Changes,
    /// Knows who is in which group.
    pub identity: Arc<Identity>,
    /// Tells the time.
    pub clock: Clock,
}

impl Mappings {
    /// The application, if the caller may do this to it. Whoever reads sees it as the database has it;
    /// whoever writes is looked at again in the transaction.
    async fn enter(
        &self,
        call: &Call,
        action: Action,
        name: &ApplicationName,
    ) -> Result<Arc<Application>, Error> {
        let writes = matches!(
            action,
            Action::MappingCreate
                | Action::MappingSetCredentials
                | Action::MappingEnable
                | Action::MappingDisable
                | Action::MappingDelete
        );
        let found = self.cache.application(name, !writes).await?;
        self.access.require_in(call, action, name, found)
    }

    /// Begins to write, with the application held against changes. A writer may have to wait for
    /// others: what it was allowed before is looked at again.
    async fn begin(
        &self,
        call: &Call,
        action: Action,
        entered: &Application,
    ) -> Result<(Transaction, Arc<Application>), Error> {
        let mut transaction = self.storage.begin().await?;
        let again = self.hold(&mut transaction, call, action, entered).await?;
        Ok((transaction, again))
    }

    /// The application as it is within the transaction, held against changes.
    async fn hold(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        action: Action,
        entered: &Application,
    ) -> Result<Arc<Application>, Error> {
        let found = transaction.lock_application(&entered.name).await?.map(Arc::new);
        let again = self.access.require_in(call, action, &entered.name, found)?;
        if again.id != entered.id {
            let message = format!("application \"{}\" was created anew meanwhile", again.name);
            return Err(Error::new(Reason::ApplicationNotFound, message));
        }
        Ok(again)
    }

    /// Commits a change to mappings. This server forgets at once what it remembers of them, the others
    /// when they are told.
    async fn commit(
        &self,
        transaction: Transaction,
        call: &Call,
        change: Change,
    ) -> Result<(), Error> {
        self.changes.commit(transaction, Some(call), change, self.clock.now()).await
    }

    /// Whether the caller may do this to the own mapping, if there is one: the checks that every change
    /// goes through before it looks at mappings.
    ///
    /// # Errors
    /// `GROUP_MAPPING_PROTECTED`, `APPLICATION_TYPE_WRONG`, `MAPPING_CREATE_RESTRICTED`.
    pub(crate) fn require_control(
        &self,
        call: &Call,
        application: &Application,
        action: Action,
    ) -> Result<(), Error> {
        let control = self.control(call, application, None)?;
        if action == Action::MappingCreate {
            rules::require_creation(application, control)?;
        }
        Ok(())
    }

    fn shown(&self, call: &Call, application: &Application, mapping: Mapping) -> Shown {
        let mapping = mapping.within(application);
        Shown {
            orphaned: self.is_orphaned(application, &mapping),
            application: application.name.clone(),
            for_administrator: self.access.is_administrator(&call.caller, application),
            mapping,
        }
    }

    /// Whether the mapping serves nobody, as far as this server knows (ESSO.md 4.9).
    fn is_orphaned(&self, application: &Application, mapping: &Mapping) -> bool {
        let account = &mapping.account;
        match application.kind {
            ApplicationType::Individual => match self.identity.as_known(account) {
                None => true,
                Some(known) => {
                    !known.is_in(&application.users) && self.identity.knows_groups_of(account)
                }
            },
            ApplicationType::Group => !application.users.iter().any(|user| user == account),
            // Its account is whichever the application has.
            ApplicationType::HostGroup => false,
            ApplicationType::ConfigStore => true,
        }
    }
}

/// How the audit names a mapping: as its callers do.
fn object_of<'a>(application: &Application, mapping: &'a Mapping) -> &'a str {
    match application.kind {
        ApplicationType::HostGroup => mapping.external_user.as_str(),
        ApplicationType::Individual | ApplicationType::Group | ApplicationType::ConfigStore => {
            mapping.account.as_str()
        }
    }
}

/// The other side, for the details of the audit.
fn counterpart_of(application: &Application, mapping: &Mapping) -> String {
    match application.kind {
        ApplicationType::HostGroup => format!("account {}", mapping.account),
        ApplicationType::Individual | ApplicationType::Group | ApplicationType::ConfigStore => {
            format!("external user {}", mapping.external_user)
        }
    }
}
