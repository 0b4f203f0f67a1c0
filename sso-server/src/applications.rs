//! The rules of affiliate applications: who may create, read, change and delete them (ESSO.md 3).

use std::sync::Arc;

use sso_core::clock::Clock;
use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    changes::{Change, Changes},
    error::Error,
    identity::Identity,
    model::{
        Accounts, Application, ApplicationId, ApplicationName, ApplicationType, Field, Fields,
        Label, MAX_FIELDS, Page, PageRequest,
    },
    storage::{ApplicationFilter, Storage, Transaction},
};

/// What an administrator gives to create an application.
#[derive(Clone, Debug)]
pub struct NewApplication {
    /// Its name.
    pub name: ApplicationName,
    /// What it keeps.
    pub kind: ApplicationType,
    /// Free text.
    pub description: String,
    /// Free text.
    pub contact: String,
    /// Its users, in order.
    pub users: Accounts,
    /// Its administrators.
    pub administrators: Accounts,
    /// The administrators are the affiliate administrators.
    pub administrators_same: bool,
    /// Accounts without a domain are accepted.
    pub allow_local_accounts: bool,
    /// Serve it at once.
    pub enabled: bool,
    /// Its fields.
    pub fields: Fields,
    /// Field 0 was given masked, which is ignored.
    pub mask_ignored: bool,
}

/// What is to change; `None` keeps.
#[derive(Clone, Debug, Default)]
pub struct ApplicationChange {
    /// Free text.
    pub description: Option<String>,
    /// Free text.
    pub contact: Option<String>,
    /// Its users, in order.
    pub users: Option<Accounts>,
    /// Its administrators; takes an affiliate administrator.
    pub administrators: Option<Accounts>,
    /// Accounts without a domain are accepted.
    pub allow_local_accounts: Option<bool>,
    /// Served at run time.
    pub enabled: Option<bool>,
}

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
    /// Creates an application with its fields, disabled unless asked (ESSO.md 3.6).
    ///
    /// # Errors
    /// A missing role, `APPLICATION_EXISTS`, or what [`Application::check`] refuses.
    pub async fn create(
        &self,
        call: &Call,
        new: NewApplication,
    ) -> Result<(Application, Vec<Error>), Error> {
        self.access.require(call, Action::ApplicationCreate)?;
        let now = self.clock.now();
        let application = Application {
            id: ApplicationId::generate(),
            name: new.name,
            kind: new.kind,
            description: new.description,
            contact: new.contact,
            users: new.users,
            administrators: new.administrators,
            administrators_same: new.administrators_same,
            allow_local_accounts: new.allow_local_accounts,
            enabled: new.enabled,
            fields: new.fields,
            created_at: now,
            updated_at: now,
        };
        application.check()?;
        let mut transaction = self.storage.begin().await?;
        transaction.insert_application(&application).await?;
        let detail = format!(
            "{}, {} fields, {}",
            application.kind.as_str(),
            application.fields.count(),
            if application.enabled { "enabled" } else { "disabled" }
        );
        let subject =
            Subject { application: application.name.as_str(), object: "", detail: &detail };
        self.audit.record(&mut transaction, call, Action::ApplicationCreate, subject).await?;
        self.commit(transaction, application.id).await?;
        let mut warnings = self.individuals(&application.users, "user", &application.name);
        warnings.extend(self.individuals(
            &application.administrators,
            "administrator",
            &application.name,
        ));
        if new.mask_ignored {
            let message = "field 0 is never masked; its mask was ignored";
            warnings.push(Error::new(Reason::MaskIgnored, message));
        }
        Ok((application, warnings))
    }

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
        Ok((application, administers))
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

    /// Changes the mutable parts.
    ///
    /// # Errors
    /// A missing role, `ADMINISTRATOR_ACCOUNTS_PROTECTED`, or what [`Application::check`] refuses.
    pub async fn update(
        &self,
        call: &Call,
        name: &ApplicationName,
        change: ApplicationChange,
    ) -> Result<(Application, Vec<Error>), Error> {
        let mut transaction = self.storage.begin().await?;
        let found = transaction.lock_application(name).await?;
        let before = self.access.require_in(call, Action::ApplicationUpdate, name, found)?;
        let administrators = Action::ApplicationUpdateAdministrators;
        if change.administrators.is_some() && self.access.require(call, administrators).is_err() {
            return Err(Error::new(
                Reason::AdministratorAccountsProtected,
                format!(
                    "who administers application \"{name}\" is for affiliate administrators to say; ask one"
                ),
            ));
        }
        let (after, changed) = changed(&before, change, self.clock.now());
        after.check()?;
        if changed.is_empty() {
            return Ok((before, Vec::new()));
        }
        transaction.update_application(&after).await?;
        let detail = changed.join(", ");
        let subject = Subject { application: before.name.as_str(), object: "", detail: &detail };
        self.audit.record(&mut transaction, call, Action::ApplicationUpdate, subject).await?;
        self.commit(transaction, after.id).await?;
        let mut warnings = Vec::new();
        if after.users != before.users {
            warnings.extend(self.individuals(&after.users, "user", name));
        }
        if after.administrators != before.administrators {
            warnings.extend(self.individuals(&after.administrators, "administrator", name));
        }
        Ok((after, warnings))
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
        let mut transaction = self.storage.begin().await?;
        let found = transaction.lock_application(name).await?;
        let mut application = self.access.require_in(call, action, name, found)?;
        if application.enabled == enabled {
            return Ok(application);
        }
        application.enabled = enabled;
        application.updated_at = self.clock.now();
        transaction.update_application(&application).await?;
        let subject = Subject { application: application.name.as_str(), ..Subject::default() };
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, application.id).await?;
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
        transaction.delete_application(application.id).await?;
        let subject = Subject { application: application.name.as_str(), ..Subject::default() };
        self.audit.record(&mut transaction, call, Action::ApplicationDelete, subject).await?;
        self.commit(transaction, application.id).await?;
        Ok(true)
    }

    /// Adds a field behind the last one; stored values stay as they are (ESSO.md 14.3, row 22).
    ///
    /// # Errors
    /// A missing role, `FIELD_EXISTS`, `INVALID_FIELDS` for the 257th.
    pub async fn add_field(
        &self,
        call: &Call,
        name: &ApplicationName,
        label: Label,
        masked: bool,
    ) -> Result<(Application, Field), Error> {
        let mut transaction = self.storage.begin().await?;
        let found = transaction.lock_application(name).await?;
        let mut application =
            self.access.require_in(call, Action::ApplicationAddField, name, found)?;
        if application.fields.by_label(&label).is_some() {
            let message = format!("application \"{name}\" has a field \"{label}\" already");
            return Err(Error::new(Reason::FieldExists, message));
        }
        let added = application.fields.add(label, masked).ok_or_else(|| {
            let message = format!(
                "application \"{name}\" has {MAX_FIELDS} fields, which is the most there can be"
            );
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
        self.audit.record(&mut transaction, call, Action::ApplicationAddField, subject).await?;
        self.commit(transaction, application.id).await?;
        Ok((application, added))
    }

    async fn commit(
        &self,
        mut transaction: Transaction,
        application: ApplicationId,
    ) -> Result<(), Error> {
        let change = Change::Application(application);
        transaction.insert_change(change, self.clock.now()).await?;
        transaction.commit().await?;
        self.changes.wake();
        Ok(())
    }

    /// A warning for each account of a role that is no known group (ESSO.md 2.1).
    fn individuals(&self, accounts: &Accounts, role: &str, name: &ApplicationName) -> Vec<Error> {
        let warning = |account| {
            let message = format!(
                "{account} is an individual account in the {role} role of \"{name}\"; whoever gets this name later inherits the role, a group is easier to keep right"
            );
            Error::new(Reason::IndividualAccount, message)
        };
        accounts.iter().filter(|account| !self.identity.is_group(account)).map(warning).collect()
    }
}

/// The application after the change, and the names of the parts that differ.
fn changed(
    before: &Application,
    change: ApplicationChange,
    now: time::OffsetDateTime,
) -> (Application, Vec<&'static str>) {
    let mut after = before.clone();
    let mut parts = Vec::new();
    let mut note = |part, differs: bool| {
        if differs {
            parts.push(part);
        }
    };
    after.description = change.description.unwrap_or(after.description);
    note("description", after.description != before.description);
    after.contact = change.contact.unwrap_or(after.contact);
    note("contact", after.contact != before.contact);
    after.users = change.users.unwrap_or(after.users);
    note("user_accounts", after.users.to_texts() != before.users.to_texts());
    after.administrators = change.administrators.unwrap_or(after.administrators);
    note(
        "administrator_accounts",
        after.administrators.to_texts() != before.administrators.to_texts(),
    );
    after.allow_local_accounts = change.allow_local_accounts.unwrap_or(after.allow_local_accounts);
    note("allow_local_accounts", after.allow_local_accounts != before.allow_local_accounts);
    after.enabled = change.enabled.unwrap_or(after.enabled);
    note(if after.enabled { "enabled" } else { "disabled" }, after.enabled != before.enabled);
    if !parts.is_empty() {
        after.updated_at = now;
    }
    (after, parts)
}
