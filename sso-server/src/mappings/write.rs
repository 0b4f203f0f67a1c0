//! Writing one mapping: create, set credentials, switch, delete.

use sso_proto::Reason;

use super::{
    Mappings, NewCredentials, NewMapping, Shown, counterpart_of, object_of,
    rules::{self, Control},
};
use crate::{
    access::{Action, Call},
    audit::Subject,
    changes::Change,
    error::Error,
    lookup,
    model::{
        Account, Application, ApplicationName, Bag, Mapping, MappingId, MappingKey, MappingState,
    },
    storage::{SealedCredentials, StoredMapping, Transaction},
    vault::BagPlace,
};

/// A mapping that is about to be written.
pub(super) struct Draft {
    pub(super) account: Account,
    pub(super) external_user: crate::model::ExternalUser,
    pub(super) state: MappingState,
    pub(super) bag: Option<Bag>,
}

impl Mappings {
    /// Creates a mapping, with credentials and enabled where asked, all in one step.
    ///
    /// # Errors
    /// A missing role, what `control` and `account` of the rules refuse,
    /// `MAPPING_CREATE_RESTRICTED`, `CREDENTIALS_INCOMPLETE` and its kin, `MAPPING_EXISTS`,
    /// `EXTERNAL_USER_MAPPED`, `GROUP_MAPPING_EXISTS`, `MASTER_UNREACHABLE`. Nothing is changed.
    pub async fn create(&self, call: &Call, new: NewMapping) -> Result<(Shown, Vec<Error>), Error> {
        let action = Action::MappingCreate;
        let entered = self.enter(call, action, &new.application).await?;
        self.draft(call, &entered, &new)?;
        if new.credentials.is_some() {
            self.vault.require_sealing()?;
        }
        let (mut transaction, application) = self.begin(call, action, &entered).await?;
        let (draft, warning) = self.draft(call, &application, &new)?;
        let mapping = self.insert(&mut transaction, call, &application, draft).await?;
        let detail = created_detail(&application, &mapping);
        let subject = subject(&application, &mapping, &detail);
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, Change::Mapping(application.id, mapping.id)).await?;
        Ok((self.shown(call, &application, mapping), warning.into_iter().collect()))
    }

    /// Stores credentials. A mapping that is missing is created and enabled where the external user is
    /// given (ESSO.md 4.3). Returns whether it was.
    ///
    /// # Errors
    /// As [`Self::create`]; `MAPPING_NOT_FOUND`.
    pub async fn set_credentials(
        &self,
        call: &Call,
        new: NewCredentials,
    ) -> Result<(Shown, bool, Vec<Error>), Error> {
        let action = Action::MappingSetCredentials;
        let entered = self.enter(call, action, &new.application).await?;
        self.control(call, &entered, new.key.as_ref())?;
        if rules::bag(&entered, &new.values)?.is_some() {
            self.vault.require_sealing()?;
        }
        let (mut transaction, application) = self.begin(call, action, &entered).await?;
        let control = self.control(call, &application, new.key.as_ref())?;
        let bag = rules::bag(&application, &new.values)?;
        let key = rules::key(call, &application, new.key.clone())?;
        let held = self.lock(&mut transaction, call, &application, control, &key).await?;
        let (mapping, created, warning) = match held {
            Some(mapping) => {
                lookup::require_own_key(&mapping, &key)?;
                require_same_user(&application, &mapping, &new)?;
                let sealed = bag.map(|bag| self.seal(&application, &mapping, &bag)).transpose()?;
                let mapping = self.put(&mut transaction, call, mapping, sealed).await?;
                (mapping, false, None)
            }
            None => {
                rules::require_creation(&application, control)?;
                let (draft, warning) = self.missing(call, &application, &key, &new, bag)?;
                let mapping = self.insert(&mut transaction, call, &application, draft).await?;
                (mapping, true, warning)
            }
        };
        let detail = if created {
            created_detail(&application, &mapping)
        } else {
            counterpart_of(&application, &mapping)
        };
        let subject = subject(&application, &mapping, &detail);
        if created {
            self.audit.record(&mut transaction, call, Action::MappingCreate, subject).await?;
        }
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, Change::Mapping(application.id, mapping.id)).await?;
        Ok((self.shown(call, &application, mapping), created, warning.into_iter().collect()))
    }

    /// Switches a mapping on or off; without effect where it is so already. Needs no key, so it works
    /// while the master is away. One that an administrator switched off is not switched on by its user,
    /// nor does its user switching it off change that (ESSO.md 2.3, row 28).
    ///
    /// # Errors
    /// A missing role, what `control` of the rules refuses, `MAPPING_NOT_FOUND`,
    /// `MAPPING_DISABLED_BY_ADMINISTRATOR`.
    pub async fn set_enabled(
        &self,
        call: &Call,
        name: &ApplicationName,
        key: Option<MappingKey>,
        enabled: bool,
    ) -> Result<Shown, Error> {
        let action = if enabled { Action::MappingEnable } else { Action::MappingDisable };
        let entered = self.enter(call, action, name).await?;
        self.control(call, &entered, key.as_ref())?;
        let (mut transaction, application) = self.begin(call, action, &entered).await?;
        let control = self.control(call, &application, key.as_ref())?;
        let key = rules::key(call, &application, key)?;
        let held = self.lock(&mut transaction, call, &application, control, &key).await?;
        let mut mapping = held.ok_or_else(|| lookup::not_found(&application, &key))?;
        lookup::require_own_key(&mapping, &key)?;
        let own = mapping.account == call.caller.account;
        let state = switched(&application, &mapping, enabled, control, own)?;
        if state == mapping.state {
            return Ok(self.shown(call, &application, mapping));
        }
        mapping.state = state;
        self.sign(call, &mut mapping);
        transaction.update_mapping(&mapping).await?;
        let detail = counterpart_of(&application, &mapping);
        let subject = subject(&application, &mapping, &detail);
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, Change::Mapping(application.id, mapping.id)).await?;
        Ok(self.shown(call, &application, mapping))
    }

    /// Deletes a mapping with its credentials; `false` where there was none. Needs no key, so it works
    /// while the master is away, and with a damaged row. A user does not delete, only to create anew,
    /// what an administrator switched off.
    ///
    /// # Errors
    /// A missing role, what `control` of the rules refuses, `MAPPING_DISABLED_BY_ADMINISTRATOR`.
    pub async fn delete(
        &self,
        call: &Call,
        name: &ApplicationName,
        key: Option<MappingKey>,
    ) -> Result<bool, Error> {
        let action = Action::MappingDelete;
        let entered = self.enter(call, action, name).await?;
        self.control(call, &entered, key.as_ref())?;
        let (mut transaction, application) = self.begin(call, action, &entered).await?;
        let control = self.control(call, &application, key.as_ref())?;
        let key = rules::key(call, &application, key)?;
        let held = self.lock(&mut transaction, call, &application, control, &key).await?;
        let Some(mapping) = held else { return Ok(false) };
        require_deletable(&application, &mapping, control)?;
        transaction.delete_mapping(mapping.id).await?;
        let detail = counterpart_of(&application, &mapping);
        let subject = subject(&application, &mapping, &detail);
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.commit(transaction, call, Change::Mapping(application.id, mapping.id)).await?;
        Ok(true)
    }

    /// The mapping of this key, held against changes; a user is refused that of somebody else.
    pub(super) async fn lock(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        control: Control,
        key: &MappingKey,
    ) -> Result<Option<Mapping>, Error> {
        let stored = transaction.lock_mapping(application.id, key).await?;
        let held = stored.map(|stored| stored.mapping.within(application));
        if control == Control::Owner {
            rules::require_owner(call, application, key, held.as_ref())?;
        }
        Ok(held)
    }

    /// What a request to create a mapping comes to, if this caller may.
    pub(super) fn draft(
        &self,
        call: &Call,
        application: &Application,
        new: &NewMapping,
    ) -> Result<(Draft, Option<Error>), Error> {
        let control = self.control(call, application, rules::key_of_new(new).as_ref())?;
        rules::require_creation(application, control)?;
        let (account, warning) = self.account(call, application, new.account.as_ref())?;
        let bag = match &new.credentials {
            Some(values) => rules::bag(application, values)?,
            None => None,
        };
        let state = if new.enable { MappingState::Enabled } else { MappingState::Disabled };
        let external_user = new.external_user.clone();
        Ok((Draft { account, external_user, state, bag }, warning))
    }

    /// The mapping that takes the place of one that is missing.
    fn missing(
        &self,
        call: &Call,
        application: &Application,
        key: &MappingKey,
        new: &NewCredentials,
        bag: Option<Bag>,
    ) -> Result<(Draft, Option<Error>), Error> {
        let external_user =
            new.external_user.clone().ok_or_else(|| lookup::not_found(application, key))?;
        let given = match key {
            MappingKey::Account(account) => Some(account),
            // Only in a host group application does the external user tell the account.
            MappingKey::ExternalUser(user) if *user == external_user => None,
            MappingKey::ExternalUser(_) => {
                let message = "the key and the mapping to be created name different external users";
                return Err(Error::new(Reason::InvalidRequest, message));
            }
        };
        if given.is_none() && application.windows_account.is_none() {
            return Err(lookup::not_found(application, key));
        }
        let (account, warning) = self.account(call, application, given)?;
        Ok((Draft { account, external_user, state: MappingState::Enabled, bag }, warning))
    }

    /// Writes a new mapping with its credentials.
    pub(super) async fn insert(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        draft: Draft,
    ) -> Result<Mapping, Error> {
        let now = self.clock.now();
        let mapping = Mapping {
            id: MappingId::generate(),
            application: application.id,
            account: draft.account,
            external_user: draft.external_user,
            state: draft.state,
            credentials_at: draft.bag.is_some().then_some(now),
            created_at: now,
            updated_at: now,
            updated_by: call.caller.account.as_str().to_owned(),
        };
        let credentials =
            draft.bag.map(|bag| self.seal(application, &mapping, &bag)).transpose()?;
        let stored = StoredMapping { mapping, credentials };
        if transaction.insert_mapping(application.kind, &stored).await? {
            return Ok(stored.mapping);
        }
        let key = MappingKey::Account(stored.mapping.account.clone());
        let account_taken = transaction.lock_mapping(application.id, &key).await?.is_some();
        Err(rules::conflict(application, &stored.mapping, account_taken))
    }

    /// Writes the credentials of a mapping that is there; none where the application has none.
    async fn put(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        mut mapping: Mapping,
        sealed: Option<SealedCredentials>,
    ) -> Result<Mapping, Error> {
        let Some(sealed) = sealed else { return Ok(mapping) };
        self.sign(call, &mut mapping);
        mapping.credentials_at = Some(mapping.updated_at);
        transaction.set_credentials(&mapping, &sealed).await?;
        Ok(mapping)
    }

    fn seal(
        &self,
        application: &Application,
        mapping: &Mapping,
        bag: &Bag,
    ) -> Result<SealedCredentials, Error> {
        let place = BagPlace::credentials(
            mapping.application,
            mapping.id,
            mapping.sealed_account(application.kind),
            &mapping.external_user,
        );
        let sealed = self.vault.seal(&place, bag)?;
        Ok(SealedCredentials { generation: sealed.generation, sealed: sealed.bytes })
    }

    fn sign(&self, call: &Call, mapping: &mut Mapping) {
        mapping.updated_at = self.clock.now();
        mapping.updated_by = call.caller.account.as_str().to_owned();
    }
}

/// What the audit says of a mapping.
pub(super) fn subject<'a>(
    application: &'a Application,
    mapping: &'a Mapping,
    detail: &'a str,
) -> Subject<'a> {
    let object = object_of(application, mapping);
    Subject { application: application.name.as_str(), object, detail }
}

/// Refuses a user to delete, only to create anew, what an administrator switched off.
///
/// # Errors
/// `MAPPING_DISABLED_BY_ADMINISTRATOR`.
pub(super) fn require_deletable(
    application: &Application,
    mapping: &Mapping,
    control: Control,
) -> Result<(), Error> {
    match (control, mapping.state) {
        (Control::Owner, MappingState::DisabledByAdministrator) => {
            lookup::require_enabled(application, mapping)
        }
        (Control::Owner | Control::Administrator, _) => Ok(()),
    }
}

pub(super) fn created_detail(application: &Application, mapping: &Mapping) -> String {
    format!(
        "{}, {}, {} credentials",
        counterpart_of(application, mapping),
        mapping.state.as_str(),
        if mapping.credentials_at.is_some() { "with" } else { "without" }
    )
}

/// The state of a mapping after it was switched.
fn switched(
    application: &Application,
    mapping: &Mapping,
    enabled: bool,
    control: Control,
    own: bool,
) -> Result<MappingState, Error> {
    match (enabled, control, mapping.state) {
        (true, Control::Owner, MappingState::DisabledByAdministrator) => {
            lookup::require_enabled(application, mapping)?;
            Ok(mapping.state)
        }
        (true, ..) => Ok(MappingState::Enabled),
        (false, Control::Administrator, _) if !own => Ok(MappingState::DisabledByAdministrator),
        // Whoever did it before, it stays with them.
        (false, _, MappingState::DisabledByAdministrator) => Ok(mapping.state),
        (false, ..) => Ok(MappingState::Disabled),
    }
}

/// Credentials meant for one external user are not stored for another.
fn require_same_user(
    application: &Application,
    mapping: &Mapping,
    new: &NewCredentials,
) -> Result<(), Error> {
    match &new.external_user {
        Some(user) if *user != mapping.external_user => {
            Err(rules::another_user(application, mapping, user))
        }
        Some(_) | None => Ok(()),
    }
}
