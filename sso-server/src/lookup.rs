//! The rules of run-time look-ups: which mapping a caller gets, whether it serves, and what is in it
//! (ESSO.md 2.3 row 31, 4.2 to 4.4).
//!
//! Every check is a function of its own, so that look-ups, tickets, host-initiated logons and the
//! explanation of access go through the same ones.

use std::sync::Arc;

use sso_core::secret::SecretText;
use sso_proto::{Event, Reason};

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    cache::{Cache, FoundMapping},
    error::Error,
    gates::Entry,
    model::{
        Application, ApplicationFlag, ApplicationName, ApplicationType, Caller, Credentials,
        Mapping, MappingKey, MappingState, MappingView, ServingMapping,
    },
    storage::Storage,
    vault::{BagPlace, Vault},
};

/// The rules of look-ups.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Opens.
    pub vault: Vault,
    /// Keeps.
    pub storage: Storage,
    /// Remembers.
    pub cache: Arc<Cache>,
}

/// A mapping that serves, and what is in it.
#[derive(Debug)]
pub struct Found {
    /// The mapping.
    pub mapping: ServingMapping,
    /// External user and values, in clear. Whoever hands them out records the reveal before.
    pub credentials: Credentials,
}

impl Lookup {
    /// The credentials mapped to the caller's own account.
    ///
    /// # Errors
    /// `REMOTE_LOOKUP_NOT_ALLOWED`, a missing role, `APPLICATION_TYPE_WRONG`, `APPLICATION_DISABLED`,
    /// `WINDOWS_INITIATED_OFF` ([`crate::gates::gates`]), what [`Self::credentials_of`] refuses,
    /// `AUDIT_UNAVAILABLE`.
    pub async fn get_credentials(
        &self,
        call: &Call,
        name: &ApplicationName,
        refresh: bool,
    ) -> Result<Credentials, Error> {
        let action = Action::CredentialsReveal;
        let found = self.cache.application(name, refresh).await?;
        let application = Entry { call, action, name }.pass(&self.access, found)?;
        let Found { mapping, credentials } =
            self.credentials_of(&application, &call.caller, refresh).await?;
        let detail = format!("mapping of {}", mapping.account);
        let subject = Subject {
            application: application.name.as_str(),
            object: credentials.external_user.as_str(),
            detail: &detail,
        };
        self.audit.reveal(call, action, subject).await?;
        Ok(credentials)
    }

    /// The mapping that `caller` uses in an individual or group application, and what is in it. The
    /// caller is whoever the credentials are of: with a ticket, the one it was issued to. Roles,
    /// whether the application is served, and the record of the reveal are up to who calls this.
    ///
    /// # Errors
    /// What [`resolve`], [`Self::mapping`], [`require_enabled`] and [`Self::open`] refuse.
    pub async fn credentials_of(
        &self,
        application: &Application,
        caller: &Caller,
        refresh: bool,
    ) -> Result<Found, Error> {
        let key = resolve(application, caller)?;
        let found = self.mapping(application, &key, refresh).await?;
        require_enabled(application, &found.mapping)?;
        let credentials = self.open(application, &found)?;
        Ok(Found { mapping: found.mapping, credentials })
    }

    /// The mapping of this key, from the cache where it may be.
    ///
    /// # Errors
    /// `MAPPING_NOT_FOUND`; `STORED_ROW_DAMAGED` for a row that belongs to another key.
    pub async fn mapping(
        &self,
        application: &Application,
        key: &MappingKey,
        refresh: bool,
    ) -> Result<FoundMapping, Error> {
        let found = self.cache.mapping(application, key, refresh).await?;
        let FoundMapping { mapping, sealed } = found.ok_or_else(|| not_found(application, key))?;
        require_own_key(&mapping, key)?;
        Ok(FoundMapping { mapping: mapping.within(application), sealed })
    }

    /// The mapping of this key as the database has it, whole.
    ///
    /// # Errors
    /// As [`Self::mapping`].
    pub async fn mapping_as_stored(
        &self,
        application: &Application,
        key: &MappingKey,
    ) -> Result<Mapping, Error> {
        let stored = self.storage.mapping(application.id, key).await?;
        let mapping = stored.ok_or_else(|| not_found(application, key))?.mapping;
        require_own_key(&mapping, key)?;
        Ok(mapping.within(application))
    }

    /// Opens the credentials of a mapping. An application with no fields but field 0 has none.
    ///
    /// # Errors
    /// `CREDENTIALS_NOT_SET`, what the vault refuses.
    pub fn open(
        &self,
        application: &Application,
        found: &FoundMapping,
    ) -> Result<Credentials, Error> {
        let mapping = &found.mapping;
        let mut values = Vec::with_capacity(application.fields.credential_count());
        if application.fields.credential_count() > 0 {
            let sealed = found.sealed.as_ref();
            let sealed = sealed.ok_or_else(|| not_set(application, mapping))?;
            let place = BagPlace::credentials(
                mapping.application,
                mapping.id,
                mapping.sealed_account(application.kind),
                &mapping.external_user,
            );
            let bag = self.vault.open(&place, sealed.as_ref())?;
            for field in application.fields.iter().skip(1) {
                let value: &SecretText = bag.value(field.ordinal).ok_or_else(|| {
                    let message = format!(
                        "the credentials of {} in application \"{}\" were set before it had the field \"{}\"; set them again",
                        called(application, mapping),
                        application.name,
                        field.label
                    );
                    Error::new(Reason::CredentialsNotSet, message)
                })?;
                values.push(value.clone());
            }
        }
        let external_user = mapping.external_user.clone();
        Ok(Credentials { application: application.name.clone(), external_user, values })
    }
}

/// Refuses run-time use of an application that is switched off.
///
/// # Errors
/// `APPLICATION_DISABLED`.
pub fn require_served(application: &Application) -> Result<(), Error> {
    if application.enabled {
        return Ok(());
    }
    let message = format!(
        "application \"{}\" is disabled; an administrator of it enables it with `sso app enable`",
        application.name
    );
    Err(Error::new(Reason::ApplicationDisabled, message))
}

/// Refuses applications that do not give callers the credentials mapped to accounts, for a look-up or for
/// a ticket.
///
/// # Errors
/// `WINDOWS_INITIATED_OFF`.
pub fn require_gives_credentials(application: &Application) -> Result<(), Error> {
    if application.has(ApplicationFlag::WindowsInitiated) {
        return Ok(());
    }
    let message = format!(
        "application \"{name}\" does not give credentials to callers; an administrator of it allows it with `sso app update {name} --windows-initiated yes`",
        name = application.name
    );
    Err(Error::new(Reason::WindowsInitiatedOff, message))
}

/// Refuses types in which callers have no mapping of their own.
///
/// # Errors
/// `APPLICATION_TYPE_WRONG`.
pub fn require_own_mappings(application: &Application) -> Result<(), Error> {
    match application.kind {
        ApplicationType::Individual | ApplicationType::Group => Ok(()),
        ApplicationType::ConfigStore | ApplicationType::HostGroup => {
            let message = format!(
                "application \"{}\" is of type {}, in which callers have no mappings",
                application.name,
                application.kind.as_str()
            );
            Err(Error::new(Reason::ApplicationTypeWrong, message))
        }
    }
}

/// Which mapping the caller uses: in an individual application the own one, in a group application
/// that of the first of its accounts that the caller belongs to, whether that one has a mapping or not
/// (ESSO.md 4.2: the order is decisive).
///
/// # Errors
/// `APPLICATION_TYPE_WRONG`; `ACCOUNT_NOT_IN_APPLICATION` for whoever is not, or no longer, among the
/// users.
pub fn resolve(application: &Application, caller: &Caller) -> Result<MappingKey, Error> {
    require_own_mappings(application)?;
    let Some((place, account)) = caller.first_in(&application.users) else {
        return Err(not_a_user(application, &caller.account.to_string()));
    };
    match application.kind {
        ApplicationType::Group => {
            let caller = &caller.account;
            tracing::debug!(event = Event::GroupMappingChosen.number(), %caller, %account, place, "group mapping chosen");
            Ok(MappingKey::Account(account.clone()))
        }
        ApplicationType::Individual | ApplicationType::ConfigStore | ApplicationType::HostGroup => {
            Ok(MappingKey::Account(caller.account.clone()))
        }
    }
}

/// Refuses a mapping that does not serve.
///
/// # Errors
/// `MAPPING_DISABLED`, `MAPPING_DISABLED_BY_ADMINISTRATOR`.
pub fn require_enabled<'a>(
    application: &Application,
    mapping: impl Into<MappingView<'a>>,
) -> Result<(), Error> {
    let mapping = mapping.into();
    let refuse = |reason, remedy: &str| {
        let message = format!(
            "{} in application \"{}\" is disabled{remedy}",
            called(application, mapping),
            application.name
        );
        Err(Error::new(reason, message))
    };
    match mapping.state {
        MappingState::Enabled => Ok(()),
        MappingState::Disabled => {
            refuse(Reason::MappingDisabled, "; enable it with `sso mapping enable`")
        }
        MappingState::DisabledByAdministrator => refuse(
            Reason::MappingDisabledByAdministrator,
            " by an administrator; ask one of the application to enable it",
        ),
    }
}

/// Refuses a mapping without the credentials that its application has.
///
/// # Errors
/// `CREDENTIALS_NOT_SET`.
pub fn require_credentials(application: &Application, mapping: &Mapping) -> Result<(), Error> {
    if application.fields.credential_count() > 0 && mapping.credentials_at.is_none() {
        return Err(not_set(application, mapping));
    }
    Ok(())
}

/// A row that was found under a key it does not belong to was tampered with: what is sealed in it
/// would open, for somebody else.
pub(crate) fn require_own_key<'a>(
    mapping: impl Into<MappingView<'a>>,
    key: &MappingKey,
) -> Result<(), Error> {
    let mapping = mapping.into();
    let own = match key {
        MappingKey::Account(account) => account == mapping.account,
        MappingKey::ExternalUser(user) => user == mapping.external_user,
    };
    if own {
        return Ok(());
    }
    tracing::error!(mapping = %mapping.id, "a mapping was found under a key that is not its own");
    let message = format!(
        "mapping {} was found under a key that is not its own; restore this row from a backup of the database, or delete and create it",
        mapping.id
    );
    Err(Error::new(Reason::StoredRowDamaged, message))
}

/// The account is not among the users of the application.
pub(crate) fn not_a_user(application: &Application, account: &str) -> Error {
    let message =
        format!("{account} is not among the users of application \"{}\"", application.name);
    Error::new(Reason::AccountNotInApplication, message)
}

/// There is no mapping of this key.
pub(crate) fn not_found(application: &Application, key: &MappingKey) -> Error {
    let message = format!("application \"{}\" has no mapping of {key}", application.name);
    Error::new(Reason::MappingNotFound, message)
}

/// A mapping in words, by what it is named by. In a host group that is the external user: the account
/// is the same in all of them, and not for every host to know.
pub(crate) fn called<'a>(application: &Application, mapping: impl Into<MappingView<'a>>) -> String {
    let mapping = mapping.into();
    match application.kind {
        ApplicationType::HostGroup => {
            format!("the mapping of external user \"{}\"", mapping.external_user)
        }
        ApplicationType::Individual | ApplicationType::Group | ApplicationType::ConfigStore => {
            format!("the mapping of {}", mapping.account)
        }
    }
}

fn not_set<'a>(application: &Application, mapping: impl Into<MappingView<'a>>) -> Error {
    let message = format!(
        "{} in application \"{}\" has no credentials; set them with `sso mapping set-credentials`",
        called(application, mapping),
        application.name
    );
    Error::new(Reason::CredentialsNotSet, message)
}
