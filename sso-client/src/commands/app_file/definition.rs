//! Applications of the service as definitions of a file.

use sso_client::{
    v1::{Application, ApplicationType},
    xml::{ApplicationDefinition, FieldDefinition, Flag, Flags, Position, write_applications},
};

use super::request::PLACES;
use crate::failure::Failure;

pub(super) fn as_xml(applications: Vec<Application>) -> Result<String, Failure> {
    let definitions =
        applications.into_iter().map(definition).collect::<Result<Vec<_>, Failure>>()?;
    write_applications(&definitions)
        .map_err(|error| Failure::refused(error.to_string(), "change the text, then export again"))
}

fn definition(application: Application) -> Result<ApplicationDefinition, Failure> {
    if application.sensitive_info_removed {
        return Err(Failure::refused(
            format!("application '{}' came without its accounts", application.name),
            "only administrators of an application can export it; name those you administer",
        ));
    }
    let accounts = application.user_accounts.iter().chain(&application.administrator_accounts);
    if let Some(account) = accounts.into_iter().find(|account| account.contains(';')) {
        return Err(Failure::refused(
            format!("account '{account}' of application '{}' has a ';'", application.name),
            "the file separates accounts by it; rename the account",
        ));
    }
    let host_group = application.r#type == i32::from(ApplicationType::HostGroup);
    let flags = flags(&application);
    let mut fields = application.fields;
    fields.sort_by_key(|field| field.ordinal);
    Ok(ApplicationDefinition {
        position: Position::START,
        flags,
        windows_account: host_group.then_some(application.windows_account),
        user_accounts: (!host_group).then_some(application.user_accounts),
        administrator_accounts: (!application.administrators_same)
            .then_some(application.administrator_accounts),
        name: application.name,
        description: Some(application.description),
        contact: Some(application.contact),
        computer: None,
        ticket_timeout: Some(application.ticket_timeout).filter(|&minutes| minutes > 0),
        fields: fields
            .into_iter()
            .map(|field| FieldDefinition {
                label: field.label,
                masked: field.masked,
                synchronized: field.synchronized,
            })
            .collect(),
    })
}

/// The flags that make this type, those it has, and the three that every type has.
pub(crate) fn flags(application: &Application) -> Flags {
    let kind = ApplicationType::try_from(application.r#type).unwrap_or_default();
    let mut flags = Flags::default();
    for place in PLACES {
        if let Some(on) = (place.value)(application)
            && (on || is_written_off(place.flag, kind))
        {
            flags.set(place.flag, on);
        }
    }
    match kind {
        ApplicationType::ConfigStore => flags.set(Flag::ConfigStoreApp, true),
        ApplicationType::Group => flags.set(Flag::GroupApp, true),
        ApplicationType::HostGroup => {
            flags.set(Flag::GroupApp, true);
            flags.set(Flag::HostInitiatedSso, true);
            flags.set(Flag::WindowsInitiatedSso, false);
        }
        ApplicationType::Individual | ApplicationType::Unspecified => {}
    }
    flags.set(Flag::AllowLocalAccounts, application.allow_local_accounts);
    flags.set(Flag::AdminAccountSame, application.administrators_same);
    flags.set(Flag::EnableApp, application.enabled);
    flags
}

/// Whether a flag that is off is written: where the type has it, and the reference product knows it in
/// ordinary files.
fn is_written_off(flag: Flag, kind: ApplicationType) -> bool {
    let has = |kinds: &[ApplicationType]| kinds.contains(&kind);
    match flag {
        Flag::WindowsInitiatedSso
        | Flag::AllowTickets
        | Flag::ValidateTickets
        | Flag::TimeoutTickets => has(&[ApplicationType::Individual, ApplicationType::Group]),
        Flag::HostInitiatedSso | Flag::RestrictMappingCreate => has(&[ApplicationType::Individual]),
        Flag::ValidatePassword => has(&[ApplicationType::Individual, ApplicationType::HostGroup]),
        Flag::DisableCredCache => {
            has(&[ApplicationType::Individual, ApplicationType::Group, ApplicationType::HostGroup])
        }
        Flag::GroupApp
        | Flag::ConfigStoreApp
        | Flag::AllowLocalAccounts
        | Flag::AdminAccountSame
        | Flag::DirectPasswordSync
        | Flag::WindowsCreds
        | Flag::RestrictedCreds
        | Flag::OneTimeTickets
        | Flag::RequireTicketAudience
        | Flag::ShowFilterOnly
        | Flag::GroupAdapter
        | Flag::SyncFromAdapter
        | Flag::VerifyOldPassword
        | Flag::ChangeWindowsPassword
        | Flag::SyncToAdapter
        | Flag::SendOldPassword
        | Flag::AllowMappingConflicts
        | Flag::EnableApp => false,
    }
}
