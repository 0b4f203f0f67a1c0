//! Between messages and nouns, where more than one service needs it.

use prost_types::Timestamp;
use sso_core::secret::SecretText;
use sso_proto::{Reason, v1};
use time::OffsetDateTime;

use crate::{
    error::Error,
    model::{
        Account, Application, ApplicationFlag, ApplicationType, Credentials, Field, FieldUpdate,
        GlobalInfo,
    },
    tickets::Issued,
};

pub(super) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or_default(),
    }
}

pub(super) fn time(at: &Timestamp) -> Result<OffsetDateTime, Error> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map_err(|_| Error::new(Reason::InvalidRequest, "a time is outside the years 0 to 9999"))
}

/// The start of a text that nobody checked, as much as a log or an error may repeat.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(255).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// The value of an enumeration; one that a newer client knows is not taken for the default.
pub(super) fn known<E: TryFrom<i32>>(part: &str, number: i32) -> Result<E, Error> {
    E::try_from(number).map_err(|_| {
        let message = format!("`{part}` is {number}, which this version does not know");
        Error::new(Reason::InvalidRequest, message)
    })
}

pub(super) fn missing(part: &str) -> Error {
    Error::new(Reason::InvalidRequest, format!("the request lacks `{part}`"))
}

pub(super) fn kind(kind: i32) -> Result<ApplicationType, Error> {
    match v1::ApplicationType::try_from(kind) {
        Ok(v1::ApplicationType::ConfigStore) => Ok(ApplicationType::ConfigStore),
        Ok(v1::ApplicationType::Individual) => Ok(ApplicationType::Individual),
        Ok(v1::ApplicationType::Group) => Ok(ApplicationType::Group),
        Ok(v1::ApplicationType::HostGroup) => Ok(ApplicationType::HostGroup),
        Ok(v1::ApplicationType::Unspecified) => Err(missing("type")),
        Err(_) => {
            let message = "this version keeps no applications of the type asked for";
            Err(Error::new(Reason::ApplicationTypeUnsupported, message))
        }
    }
}

pub(super) fn field_updates(fields: &[v1::Field]) -> Vec<FieldUpdate> {
    let given = |field: &v1::Field| FieldUpdate {
        ordinal: field.ordinal,
        label: field.label.clone(),
        masked: field.masked,
        synchronized: field.synchronized,
    };
    fields.iter().map(given).collect()
}

pub(super) fn field(field: &Field) -> v1::Field {
    v1::Field {
        ordinal: u32::from(field.ordinal),
        label: field.label.as_str().to_owned(),
        masked: field.masked,
        synchronized: field.synchronized,
    }
}

/// The flags that a message gives; those it does not give are absent.
pub(super) fn flags(given: &v1::Application) -> Vec<(ApplicationFlag, bool)> {
    let given = |flag: &ApplicationFlag| Some((*flag, flag_of(given, *flag)?));
    ApplicationFlag::ALL.iter().filter_map(given).collect()
}

/// What the message says of a flag; `None` where it says nothing.
pub(super) fn flag_of(message: &v1::Application, flag: ApplicationFlag) -> Option<bool> {
    use ApplicationFlag as F;
    match flag {
        F::WindowsInitiated => message.windows_initiated,
        F::HostInitiated => message.host_initiated,
        F::ValidatePassword => message.validate_password,
        F::AllowTickets => message.allow_tickets,
        F::ValidateTickets => message.validate_tickets,
        F::TimeoutTickets => message.timeout_tickets,
        F::OneTimeTickets => message.one_time_tickets,
        F::RequireTicketAudience => message.require_ticket_audience,
        F::DisableCredentialCache => message.disable_credential_cache,
        F::RestrictMappingCreate => message.restrict_mapping_create,
        F::WindowsCredentials => message.windows_credentials,
        F::RestrictedCredentials => message.restricted_credentials,
        F::DirectPasswordSync => message.direct_password_sync,
    }
}

/// The message of an application; to a plain user, without accounts (ESSO.md 2.3, row 21).
pub(super) fn application(application: &Application, for_administrator: bool) -> v1::Application {
    let accounts = |accounts: &crate::model::Accounts| {
        if for_administrator { accounts.to_texts() } else { Vec::new() }
    };
    let flag = |flag| Some(application.has(flag));
    let windows_account = application.windows_account.as_ref().filter(|_| for_administrator);
    v1::Application {
        windows_account: windows_account.map(Account::to_string).unwrap_or_default(),
        ticket_timeout: application.ticket_timeout,
        windows_initiated: flag(ApplicationFlag::WindowsInitiated),
        host_initiated: flag(ApplicationFlag::HostInitiated),
        validate_password: flag(ApplicationFlag::ValidatePassword),
        allow_tickets: flag(ApplicationFlag::AllowTickets),
        validate_tickets: flag(ApplicationFlag::ValidateTickets),
        timeout_tickets: flag(ApplicationFlag::TimeoutTickets),
        one_time_tickets: flag(ApplicationFlag::OneTimeTickets),
        require_ticket_audience: flag(ApplicationFlag::RequireTicketAudience),
        disable_credential_cache: flag(ApplicationFlag::DisableCredentialCache),
        restrict_mapping_create: flag(ApplicationFlag::RestrictMappingCreate),
        windows_credentials: flag(ApplicationFlag::WindowsCredentials),
        restricted_credentials: flag(ApplicationFlag::RestrictedCredentials),
        direct_password_sync: flag(ApplicationFlag::DirectPasswordSync),
        name: application.name.as_str().to_owned(),
        r#type: match application.kind {
            ApplicationType::Individual => v1::ApplicationType::Individual.into(),
            ApplicationType::Group => v1::ApplicationType::Group.into(),
            ApplicationType::ConfigStore => v1::ApplicationType::ConfigStore.into(),
            ApplicationType::HostGroup => v1::ApplicationType::HostGroup.into(),
        },
        description: application.description.clone(),
        contact: application.contact.clone(),
        user_accounts: accounts(&application.users),
        administrator_accounts: accounts(&application.administrators),
        fields: application.fields.iter().map(field).collect(),
        enabled: application.enabled,
        allow_local_accounts: application.allow_local_accounts,
        administrators_same: application.administrators_same,
        id: application.id.to_string(),
        created_at: Some(timestamp(application.created_at)),
        updated_at: Some(timestamp(application.updated_at)),
        sensitive_info_removed: !for_administrator,
    }
}

pub(super) fn global_info(info: &GlobalInfo) -> v1::GlobalInfo {
    v1::GlobalInfo {
        sso_administrators: info.sso_administrators.to_texts(),
        affiliate_administrators: info.affiliate_administrators.to_texts(),
        secret_server: info.secret_server.clone(),
        audit_deleted_applications: info.audit_deleted_applications,
        audit_deleted_mappings: info.audit_deleted_mappings,
        audit_credential_lookups: info.audit_credential_lookups,
        ticket_timeout: info.ticket_timeout,
        credential_cache_timeout: info.credential_cache_timeout,
        enabled: info.enabled,
        tickets_allowed: info.tickets_allowed,
        tickets_validated: info.tickets_validated,
        host_initiated_allowed: info.host_initiated_allowed,
        trusted_hosts: info.trusted_hosts.to_texts(),
        configuration_readers: info.configuration_readers.to_texts(),
        auditors: info.auditors.to_texts(),
    }
}

/// An empty text is none.
pub(super) fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// The values of a message, taken out of it without a copy.
pub(super) fn secrets(mut given: v1::CredentialValues) -> Vec<SecretText> {
    std::mem::take(&mut given.values).into_iter().map(SecretText::new).collect()
}

/// The message that hands credentials out.
pub(super) fn credentials(found: &Credentials) -> v1::Credentials {
    // Expose: into the answer, which wipes itself once it is sent.
    let values = found.values.iter().map(|value| value.expose().to_owned()).collect();
    v1::Credentials {
        application: found.application.as_str().to_owned(),
        external_user: found.external_user.as_str().to_owned(),
        credentials: Some(v1::CredentialValues { values }),
    }
}

/// The message that hands a ticket out.
pub(super) fn ticket(issued: &Issued) -> v1::Ticket {
    // Expose: into the answer, which wipes itself once it is sent.
    v1::Ticket { text: issued.text.expose().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchecked_texts_are_cut_between_characters() {
        assert_eq!(cut("Orders"), "Orders");
        assert_eq!(cut(&"\u{e9}".repeat(70_000)), "\u{e9}".repeat(255));
    }

    #[test]
    fn unknown_values_of_enumerations_are_refused() {
        assert_eq!(known("mode", 1), Ok(v1::SetMode::Add));
        let error = known::<v1::SetMode>("mode", 99).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidRequest);
    }
}
