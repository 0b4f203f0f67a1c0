//! The rules of affiliate applications: who may create, read, change and delete them (ESSO.md 3).

mod create;
mod flags;
mod missing_groups;
mod update;

use std::sync::Arc;

use sso_core::clock::Clock;
use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call},
    announce::{self, Individual},
    audit::{Audit, Subject},
    changes::{Change, Changes},
    error::Error,
    identity::Identity,
    model::{
        Accounts, Application, ApplicationFlag, ApplicationId, ApplicationName, ApplicationType,
        Field, Label, Page, PageRequest,
    },
    storage::{ApplicationFilter, Storage, Transaction},
};

pub use update::ApplicationChange;

/// Which applications are wanted.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Part of the name, in any case.
    pub name_contains: String,
    /// Only this type.
    pub kind: Option<ApplicationType>,
    /// Exactly this contact, in any case.
    pub contact: String,
}

/// The rules of applications.
#[derive(Clone, Debug)]
pub struct Applications {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Keeps.
    pub storage: Storage,
    /// Tells the watchers.
    pub changes: Changes,
    /// Knows the groups.
    pub identity: Arc<Identity>,
    /// Tells the time.
    pub clock: Clock,
}

impl Applications {
    /// Reads an application; the flag says whether the caller administers it and may see accounts.
    ///
    /// # Errors
    /// A missing role or `APPLICATION_NOT_FOUND`.
    pub async fn read(
        &self,
        call: &Call,
        name: &ApplicationName,
    ) -> Result<(Application, bool), Error> {
        let found = self.storage.application(name).await?;
        let application = self.access.require_in(call, Action::ApplicationRead, name, found)?;
        let administers = self.access.is_administrator(&call.caller, &application);
        Ok((Arc::unwrap_or_clone(application), administers))
    }

    /// Lists by name the applications that the caller has a role in, each with the flag of
    /// [`Self::read`].
    ///
    /// # Errors
    /// As the storage.
    pub async fn list(
        &self,
        call: &Call,
        filter: ListFilter,
        page: PageRequest,
    ) -> Result<Page<(Application, bool)>, Error> {
        self.access.require(call, Action::ApplicationList)?;
        let all = self.access.is_affiliate_administrator(&call.caller);
        let filter = ApplicationFilter {
            name_contains: filter.name_contains,
            kind: filter.kind,
            contact: filter.contact,
            visible_to: (!all).then(|| call.caller.keys().map(str::to_owned).collect()),
        };
        let page = self.storage.applications(&filter, &page).await?;
        let administers = |application: Application| {
            let administers = self.access.is_administrator(&call.caller, &application);
            (application, administers)
        };
        Ok(Page { entries: page.entries.into_iter().map(administers).collect(), next: page.next })
    }

    /// Switches an application on or off; without effect where it is so already.
    ///
    /// # Errors
    /// A missing role or `APPLICATION_NOT_FOUND`.
    pub async fn set_enabled(
        &self,
        call: &Call,
        name: &ApplicationName,
        enabled: bool,
    ) -> Result<Application, Error> {
        let action = if enabled { Action::ApplicationEnable } else { Action::ApplicationDisable };
        let (mut transaction, mut application) = self.begin(call, action, name).await?;
        if application.enabled == enabled {
            return Ok(application);
        }
        let before = application.clone();
        application.enabled = enabled;
        application.updated_at = self.clock.now();
        transaction.update_application(&application).await?;
        let subject = Subject { application: application.name.as_str(), ..Subject::default() };
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, application.id).await?;
        announce::application(call, Some(&before), &application);
        Ok(application)
    }

    /// Deletes an application with everything under it; `false` where there was none (ESSO.md 3.6).
    ///
    /// # Errors
    /// A missing role.
    pub async fn delete(&self, call: &Call, name: &ApplicationName) -> Result<bool, Error> {
        self.access.require(call, Action::ApplicationDelete)?;
        let mut transaction = self.storage.begin().await?;
        let Some(application) = transaction.lock_application(name).await? else {
            return Ok(false);
        };
        let mappings = transaction.mapping_count(application.id).await?;
        transaction.delete_application(application.id).await?;
        let detail = match mappings {
            0 => String::new(),
            1 => "with 1 mapping".to_owned(),
            some => format!("with {some} mappings"),
        };
        let subject =
            Subject { application: application.name.as_str(), object: "", detail: &detail };
        self.audit.record(&mut transaction, call, Action::ApplicationDelete, subject).await?;
        self.commit(transaction, call, application.id).await?;
        Ok(true)
    }

    /// Adds a field behind the last one; stored values stay as they are (ESSO.md 14.3, row 22).
    ///
    /// # Errors
    /// A missing role, `FIELD_AFTER_DIRECT_SYNC`, `APPLICATION_TYPE_WRONG` for all but config stores,
    /// `FIELD_EXISTS`, `INVALID_FIELDS` for the 257th.
    pub async fn add_field(
        &self,
        call: &Call,
        name: &ApplicationName,
        label: Label,
        masked: bool,
    ) -> Result<(Application, Field), Error> {
        let action = Action::ApplicationAddField;
        let (mut transaction, mut application) = self.begin(call, action, name).await?;
        require_growing(&application)?;
        if application.fields.by_label(&label).is_some() {
            let message = format!("application \"{name}\" has a field \"{label}\" already");
            return Err(Error::new(Reason::FieldExists, message));
        }
        let most = application.kind.max_fields();
        let added = application.fields.add(label, masked, most).ok_or_else(|| {
            let message =
                format!("application \"{name}\" has {most} fields, which is the most there can be");
            Error::new(Reason::InvalidFields, message)
        })?;
        application.updated_at = self.clock.now();
        transaction.insert_field(application.id, &added).await?;
        transaction.update_application(&application).await?;
        let subject = Subject {
            application: application.name.as_str(),
            object: added.label.as_str(),
            detail: if masked { "masked" } else { "" },
        };
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, application.id).await?;
        Ok((application, added))
    }

    /// Makes every server forget what it remembers of an application and its rows: this one at once, the
    /// others when they are told (ESSO.md 4.5).
    ///
    /// # Errors
    /// A missing role or `APPLICATION_NOT_FOUND`.
    pub async fn purge_cache(&self, call: &Call, name: &ApplicationName) -> Result<(), Error> {
        let action = Action::ApplicationPurgeCache;
        let (mut transaction, application) = self.begin(call, action, name).await?;
        let subject = Subject { application: application.name.as_str(), ..Subject::default() };
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, application.id).await
    }

    /// Begins to change an application, which is held against changes by others. Whoever may not is
    /// told so before, and again after the wait: strangers never take the writer.
    async fn begin(
        &self,
        call: &Call,
        action: Action,
        name: &ApplicationName,
    ) -> Result<(Transaction, Application), Error> {
        let found = self.storage.application(name).await?;
        self.access.require_in(call, action, name, found)?;
        let mut transaction = self.storage.begin().await?;
        let found = transaction.lock_application(name).await?.map(Arc::new);
        let application = self.access.require_in(call, action, name, found)?;
        Ok((transaction, Arc::unwrap_or_clone(application)))
    }

    async fn commit(
        &self,
        transaction: Transaction,
        call: &Call,
        application: ApplicationId,
    ) -> Result<(), Error> {
        let change = Change::Application(application);
        self.changes.commit(transaction, Some(call), change, self.clock.now()).await
    }

    /// A warning for each account of a role that is no known group (ESSO.md 2.1).
    fn individuals(
        &self,
        accounts: &Accounts,
        role: Individual,
        name: &ApplicationName,
    ) -> Vec<Error> {
        let warning = |account| {
            announce::individual(role, name, account);
            let message = format!(
                "{account} is an individual account in the {role} role of \"{name}\"; whoever gets this name later inherits the role, a group is easier to keep right"
            );
            Error::new(role.reason(), message)
        };
        accounts.iter().filter(|account| !self.identity.is_group(account)).map(warning).collect()
    }
}

/// The fields of what holds credentials are as many as its credentials, so they stay.
fn require_growing(application: &Application) -> Result<(), Error> {
    let name = &application.name;
    if application.has(ApplicationFlag::DirectPasswordSync) {
        let message = format!(
            "application \"{name}\" stores directory passwords (direct_password_sync): it gets no more fields"
        );
        return Err(Error::new(Reason::FieldAfterDirectSync, message));
    }
    application.require_config_store()
}
