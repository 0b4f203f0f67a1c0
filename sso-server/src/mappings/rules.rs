//! What a mapping must be like, and who controls it. Nothing here reads or writes the database.

use sso_core::secret::SecretText;
use sso_proto::Reason;

use super::{Mappings, NewMapping};
use crate::{
    access::Call,
    error::Error,
    lookup,
    model::{
        Account, Application, ApplicationFlag, ApplicationType, Bag, Caller, ExternalUser, Mapping,
        MappingKey,
    },
};

/// In which capacity a caller changes mappings of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Of all of them.
    Administrator,
    /// Of the mapping of the own account in an individual application.
    Owner,
}

impl Mappings {
    /// In which capacity the caller changes the mapping of this key; `None` = the own one. That of a
    /// key by external user is known when the mapping is: see [`require_owner`].
    ///
    /// # Errors
    /// `GROUP_MAPPING_PROTECTED`, `MAPPING_OF_ANOTHER`, `APPLICATION_TYPE_WRONG`.
    pub(super) fn control(
        &self,
        call: &Call,
        application: &Application,
        key: Option<&MappingKey>,
    ) -> Result<Control, Error> {
        let administers = self.access.is_administrator(&call.caller, application);
        match application.kind {
            ApplicationType::Individual | ApplicationType::ConfigStore if !administers => {
                if let Some(MappingKey::Account(account)) = key {
                    require_own_account(call, application, account)?;
                }
            }
            ApplicationType::Group | ApplicationType::HostGroup if !administers => {
                let message = format!(
                    "{} may not control the mappings of application \"{}\": that takes an administrator of it",
                    call.caller.account, application.name
                );
                return Err(Error::new(Reason::GroupMappingProtected, message));
            }
            ApplicationType::Individual
            | ApplicationType::ConfigStore
            | ApplicationType::Group
            | ApplicationType::HostGroup => {}
        }
        require_mappings(application)?;
        Ok(if administers { Control::Administrator } else { Control::Owner })
    }

    /// The account of a new mapping, checked, and a warning where its membership cannot be known here
    /// (ESSO.md 4.2).
    ///
    /// # Errors
    /// `DOMAIN_ACCOUNT_REQUIRED`, `INDIVIDUAL_ACCOUNT_REQUIRED`, `ACCOUNT_NOT_IN_APPLICATION`,
    /// `GROUP_ACCOUNT_NOT_LISTED`, `WINDOWS_ACCOUNT_INVALID`, `INVALID_REQUEST`.
    pub(super) fn account(
        &self,
        call: &Call,
        application: &Application,
        given: Option<&Account>,
    ) -> Result<(Account, Option<Error>), Error> {
        match application.kind {
            ApplicationType::Individual => {
                let account = given.unwrap_or(&call.caller.account);
                let warning = self.require_individual(call, application, account)?;
                Ok((account.clone(), warning))
            }
            ApplicationType::Group => Ok((listed(application, given)?, None)),
            ApplicationType::HostGroup => Ok((windows_account(application, given)?, None)),
            ApplicationType::ConfigStore => Err(type_wrong(application)),
        }
    }

    fn require_individual(
        &self,
        call: &Call,
        application: &Application,
        account: &Account,
    ) -> Result<Option<Error>, Error> {
        if account.domain().is_none() && !application.allow_local_accounts {
            let message = format!(
                "\"{account}\" is a local account; application \"{}\" maps accounts with a domain, unless it allows local ones with allow_local_accounts",
                application.name
            );
            return Err(Error::new(Reason::DomainAccountRequired, message));
        }
        let known = self.identity.as_known(account).ok_or_else(|| {
            let message = format!(
                "{account} is a group; application \"{}\" maps the accounts of single users",
                application.name
            );
            Error::new(Reason::IndividualAccountRequired, message)
        })?;
        // The groups of a token are those of the one who is here.
        let asked =
            |caller: &Caller| caller.account == *account && caller.is_in(&application.users);
        if known.is_in(&application.users) || asked(&call.caller) {
            return Ok(None);
        }
        if self.identity.knows_groups_of(account) {
            return Err(lookup::not_a_user(application, account.as_str()));
        }
        let message = format!(
            "the groups of {account} come with its token, so whether it is among the users of application \"{}\" shows when it asks",
            application.name
        );
        Ok(Some(Error::new(Reason::MembershipUnknown, message)))
    }
}

/// Refuses a user who would create a mapping in an application that leaves it to administrators.
///
/// # Errors
/// `MAPPING_CREATE_RESTRICTED`.
pub(super) fn require_creation(application: &Application, control: Control) -> Result<(), Error> {
    let restricted = application.has(ApplicationFlag::RestrictMappingCreate);
    if control == Control::Administrator || !restricted {
        return Ok(());
    }
    let message = format!(
        "users of application \"{}\" may not create mappings; ask an administrator of it",
        application.name
    );
    Err(Error::new(Reason::MappingCreateRestricted, message))
}

/// Refuses a user the mapping of somebody else. Whether there is one for an external user that is not
/// the caller's is nobody else's business, so a missing one is refused alike.
///
/// # Errors
/// `MAPPING_OF_ANOTHER`.
pub(super) fn require_owner(
    call: &Call,
    application: &Application,
    key: &MappingKey,
    found: Option<&Mapping>,
) -> Result<(), Error> {
    let own = match (found, key) {
        (Some(mapping), _) => mapping.account == call.caller.account,
        (None, MappingKey::Account(account)) => *account == call.caller.account,
        (None, MappingKey::ExternalUser(_)) => false,
    };
    if own { Ok(()) } else { Err(of_another(call, application)) }
}

/// As [`require_owner`], for an account.
pub(super) fn require_own_account(
    call: &Call,
    application: &Application,
    account: &Account,
) -> Result<(), Error> {
    let own = *account == call.caller.account;
    if own { Ok(()) } else { Err(of_another(call, application)) }
}

/// The key by which a mapping of this application is named; `None` = the caller's own.
///
/// # Errors
/// `INVALID_REQUEST` where the key does not name one mapping, `APPLICATION_TYPE_WRONG`,
/// `ACCOUNT_NOT_IN_APPLICATION`.
pub(super) fn key(
    call: &Call,
    application: &Application,
    given: Option<MappingKey>,
) -> Result<MappingKey, Error> {
    let refuse = |what: &str| {
        let message = format!(
            "application \"{}\" is of type {}: name its mappings by {what}",
            application.name,
            application.kind.as_str()
        );
        Err(Error::new(Reason::InvalidRequest, message))
    };
    match (application.kind, given) {
        (ApplicationType::ConfigStore, _) => Err(type_wrong(application)),
        (ApplicationType::HostGroup, Some(key @ MappingKey::ExternalUser(_))) => Ok(key),
        (ApplicationType::HostGroup, _) => refuse("the external user"),
        (ApplicationType::Group, Some(MappingKey::ExternalUser(_))) => refuse("the account"),
        (ApplicationType::Group, None) => lookup::resolve(application, &call.caller),
        (ApplicationType::Individual, None) => Ok(MappingKey::Account(call.caller.account.clone())),
        (ApplicationType::Individual | ApplicationType::Group, Some(key)) => Ok(key),
    }
}

/// Refuses applications that keep no mappings.
///
/// # Errors
/// `APPLICATION_TYPE_WRONG`.
pub(super) fn require_mappings(application: &Application) -> Result<(), Error> {
    if application.kind.has_mappings() { Ok(()) } else { Err(type_wrong(application)) }
}

/// The bag of these values, one for each field from field 1 on; `None` where the application has no
/// such fields, so that there is nothing to seal.
///
/// # Errors
/// `CREDENTIALS_INCOMPLETE`, `VALUE_TOO_LARGE`, `INVALID_REQUEST` for a value that holds a NUL.
pub(super) fn bag(application: &Application, values: &[SecretText]) -> Result<Option<Bag>, Error> {
    let wanted = application.fields.credential_count();
    if values.len() != wanted {
        let labels: Vec<_> =
            application.fields.iter().skip(1).map(|field| field.label.as_str()).collect();
        let message = format!(
            "{} credentials were given; application \"{}\" takes {wanted}, one for each field from field 1 on: {}",
            values.len(),
            application.name,
            if labels.is_empty() { "there is none".to_owned() } else { labels.join(", ") }
        );
        return Err(Error::new(Reason::CredentialsIncomplete, message));
    }
    let mut bag = Bag::default();
    for (field, value) in application.fields.iter().skip(1).zip(values) {
        let label = field.label.as_str();
        // Expose: looked at, not kept.
        if value.expose().contains('\0') {
            let message = format!("the value of \"{label}\" holds a NUL character");
            return Err(Error::new(Reason::InvalidRequest, message));
        }
        bag.put(field.ordinal, label, value.clone())?;
    }
    Ok((wanted > 0).then_some(bag))
}

/// Why a mapping cannot be written: `account_taken` says that its account has one, else its external
/// user is taken.
pub(super) fn conflict(application: &Application, new: &Mapping, account_taken: bool) -> Error {
    let name = &application.name;
    match (application.kind, account_taken) {
        (ApplicationType::Group, _) => Error::new(
            Reason::GroupMappingExists,
            format!("{} has a mapping in application \"{name}\"; delete it first", new.account),
        ),
        (ApplicationType::Individual | ApplicationType::ConfigStore, true) => Error::new(
            Reason::MappingExists,
            format!("{} has a mapping in application \"{name}\"; delete it first", new.account),
        ),
        (
            ApplicationType::Individual | ApplicationType::ConfigStore | ApplicationType::HostGroup,
            _,
        ) => Error::new(
            Reason::ExternalUserMapped,
            format!(
                "external user {} is mapped in application \"{name}\" already",
                new.external_user
            ),
        ),
    }
}

/// Why credentials cannot be set for an external user that the mapping is not for.
pub(super) fn another_user(
    application: &Application,
    mapping: &Mapping,
    wanted: &ExternalUser,
) -> Error {
    let reason = match application.kind {
        ApplicationType::Group => Reason::GroupMappingExists,
        ApplicationType::HostGroup => Reason::ExternalUserMapped,
        ApplicationType::Individual | ApplicationType::ConfigStore => Reason::MappingExists,
    };
    let message = format!(
        "{} is mapped to {}, not {wanted}, in application \"{}\"; leave the external user out, or delete the mapping first",
        mapping.account, mapping.external_user, application.name
    );
    Error::new(reason, message)
}

/// The key that a new mapping will have, as far as the request tells.
pub(super) fn key_of_new(new: &NewMapping) -> Option<MappingKey> {
    new.account.clone().map(MappingKey::Account)
}

fn listed(application: &Application, given: Option<&Account>) -> Result<Account, Error> {
    let account = given.ok_or_else(|| {
        let message = format!(
            "a mapping of application \"{}\" names one of its user accounts",
            application.name
        );
        Error::new(Reason::InvalidRequest, message)
    })?;
    // As the application writes it.
    application.users.iter().find(|user| *user == account).cloned().ok_or_else(|| {
        let message = format!(
            "{account} is not one of the user accounts of application \"{}\", and only those are mapped there",
            application.name
        );
        Error::new(Reason::GroupAccountNotListed, message)
    })
}

fn windows_account(application: &Application, given: Option<&Account>) -> Result<Account, Error> {
    let own = application.windows_account.as_ref().ok_or_else(|| type_wrong(application))?;
    if given.is_some_and(|given| given != own) {
        let message = format!(
            "every mapping of application \"{}\" is of its windows account; leave the account empty",
            application.name
        );
        return Err(Error::new(Reason::WindowsAccountInvalid, message));
    }
    Ok(own.clone())
}

fn type_wrong(application: &Application) -> Error {
    let message = format!(
        "application \"{}\" is of type {}, which has no mappings",
        application.name,
        application.kind.as_str()
    );
    Error::new(Reason::ApplicationTypeWrong, message)
}

/// What is mapped to another account is not for this caller.
pub(super) fn of_another(call: &Call, application: &Application) -> Error {
    let message = format!(
        "{} may only use the mapping of the own account in application \"{}\"; those of others are for its administrators",
        call.caller.account, application.name
    );
    Error::new(Reason::MappingOfAnother, message)
}
