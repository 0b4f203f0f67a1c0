//! Requests as somebody at some server, and answers as messages or as the reason of the refusal.

use prost::Message;
use sqlx::{AnyConnection, Connection as _};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{raw, system::System};
use v1::ApplicationType as Kind;

/// A refusal with its words.
pub(crate) type Refused = (Reason, String);

/// The answer to a message sent to `METHOD` of `sso.v1`. `who` is the name of a certificate; `who@2`
/// asks at the second server.
pub(crate) async fn told<A: Message + Default>(
    system: &System,
    who: &str,
    method: &str,
    message: &impl Message,
) -> Result<A, Refused> {
    let (name, server) = who.split_once('@').unwrap_or((who, "1"));
    let channel = raw::channel(system, server.parse().expect("a number"), name);
    let path = format!("/sso.v1.{method}");
    match raw::call(&channel, &path, message.encode_to_vec()).await {
        Ok(bytes) => Ok(A::decode(&bytes[..]).expect("an answer")),
        Err(status) => {
            let refusal = Refusal::from_status(&status);
            let refusal = refusal.unwrap_or_else(|| panic!("{who} {method}: {status:?}"));
            Err((refusal.reason, refusal.message))
        }
    }
}

/// As [`told`], with the reason alone.
pub(crate) async fn ask<A: Message + Default>(
    system: &System,
    who: &str,
    method: &str,
    message: &impl Message,
) -> Result<A, Reason> {
    told(system, who, method, message).await.map_err(|(reason, _)| reason)
}

/// An enabled application with a field 0 and one field for a password, for the accounts of `sso dev`.
pub(crate) fn application(name: &str, kind: Kind) -> v1::Application {
    let field =
        |ordinal, label: &str| v1::Field { ordinal, label: label.into(), ..Default::default() };
    let host_group = kind == Kind::HostGroup;
    let users = vec!["DEV\\Application Users".to_owned()];
    v1::Application {
        name: name.into(),
        r#type: kind.into(),
        user_accounts: if host_group { Vec::new() } else { users },
        windows_account: if host_group { "DEV\\user".into() } else { String::new() },
        administrator_accounts: vec!["DEV\\Application Administrators".into()],
        fields: vec![field(0, "User"), field(1, "Password")],
        enabled: true,
        ..Default::default()
    }
}

pub(crate) async fn create_application(system: &System, application: v1::Application) {
    let message = v1::CreateApplicationRequest { application: Some(application) };
    let created: Result<v1::CreateApplicationResponse, _> =
        told(system, "admin", "Applications/Create", &message).await;
    created.expect("an application");
}

/// Changes one part of an application.
pub(crate) async fn update(system: &System, application: v1::Application, path: &str) {
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
    let message = v1::UpdateApplicationRequest { application: Some(application), update_mask };
    let updated: Result<v1::UpdateApplicationResponse, _> =
        told(system, "admin", "Applications/Update", &message).await;
    updated.expect("an updated application");
}

/// A request for a mapping: `DOMAIN\name`, external user, perhaps one value.
pub(crate) fn new_mapping(
    application: &str,
    account: &str,
    external_user: &str,
    value: Option<&str>,
) -> v1::CreateMappingRequest {
    let mapping = v1::Mapping {
        application: application.into(),
        account: account.into(),
        external_user: external_user.into(),
        ..Default::default()
    };
    let credentials = value.map(|value| v1::CredentialValues { values: vec![value.into()] });
    v1::CreateMappingRequest { mapping: Some(mapping), credentials, enable: true }
}

pub(crate) async fn map(
    system: &System,
    who: &str,
    new: v1::CreateMappingRequest,
) -> Result<v1::CreateMappingResponse, Reason> {
    ask(system, who, "Mappings/Create", &new).await
}

/// The key of a mapping by its account, or of the own one where that is empty.
pub(crate) fn key(application: &str, account: &str) -> Option<v1::MappingKey> {
    let side = v1::mapping_key::Side::Account(account.into());
    let side = (!account.is_empty()).then_some(side);
    Some(v1::MappingKey { application: application.into(), side })
}

/// The key of a mapping by its external user.
pub(crate) fn external(application: &str, external_user: &str) -> Option<v1::MappingKey> {
    let side = Some(v1::mapping_key::Side::ExternalUser(external_user.into()));
    Some(v1::MappingKey { application: application.into(), side })
}

pub(crate) async fn set(
    system: &System,
    who: &str,
    key: Option<v1::MappingKey>,
    value: &str,
) -> Result<v1::SetCredentialsResponse, Reason> {
    let credentials = Some(v1::CredentialValues { values: vec![value.into()] });
    let message = v1::SetCredentialsRequest { key, credentials, ..Default::default() };
    ask(system, who, "Mappings/SetCredentials", &message).await
}

pub(crate) async fn enable(
    system: &System,
    who: &str,
    key: Option<v1::MappingKey>,
) -> Result<v1::Mapping, Reason> {
    let message = v1::EnableMappingRequest { key };
    let answer: v1::EnableMappingResponse = ask(system, who, "Mappings/Enable", &message).await?;
    Ok(answer.mapping.expect("a mapping"))
}

pub(crate) async fn disable(
    system: &System,
    who: &str,
    key: Option<v1::MappingKey>,
) -> Result<v1::Mapping, Reason> {
    let message = v1::DisableMappingRequest { key };
    let answer: v1::DisableMappingResponse = ask(system, who, "Mappings/Disable", &message).await?;
    Ok(answer.mapping.expect("a mapping"))
}

pub(crate) async fn delete(
    system: &System,
    who: &str,
    key: Option<v1::MappingKey>,
) -> Result<bool, Reason> {
    let message = v1::DeleteMappingRequest { key };
    let answer: v1::DeleteMappingResponse = ask(system, who, "Mappings/Delete", &message).await?;
    Ok(answer.existed)
}

/// External user and values of a look-up.
pub(crate) async fn look_up(
    system: &System,
    who: &str,
    application: &str,
    refresh: bool,
) -> Result<(String, Vec<String>), Reason> {
    let message = v1::GetCredentialsRequest { application: application.into(), refresh };
    let answer: v1::GetCredentialsResponse =
        ask(system, who, "Lookup/GetCredentials", &message).await?;
    let mut found = answer.credentials.expect("credentials");
    let mut values = found.credentials.take().expect("values");
    Ok((std::mem::take(&mut found.external_user), std::mem::take(&mut values.values)))
}

/// What a look-up of one value gives.
pub(crate) fn pair(external_user: &str, value: &str) -> Result<(String, Vec<String>), Reason> {
    Ok((external_user.to_owned(), vec![value.to_owned()]))
}

/// The database of the system, behind the back of its servers.
pub(crate) async fn database(system: &System) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = raw::database_url(system);
    let mut connection = AnyConnection::connect(&url).await.expect("the database");
    if url.starts_with("sqlite") {
        let pragma = sqlx::raw_sql("PRAGMA busy_timeout = 5000");
        pragma.execute(&mut connection).await.expect("a pragma");
    }
    connection
}

/// Lets only these be in the group of application users, and waits for nothing.
pub(crate) fn set_application_users(system: &System, members: &[&str]) {
    let path = system.folder().join("groups.toml");
    let text = std::fs::read_to_string(&path).expect("the groups file");
    let lines = text.lines().map(|line| {
        if line.starts_with("'DEV\\Application Users'") {
            let members: Vec<_> = members.iter().map(|it| format!("'{it}'")).collect();
            format!("'DEV\\Application Users' = [{}]", members.join(", "))
        } else {
            line.to_owned()
        }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains("'DEV\\Application Users' = ["), "{text}");
    std::fs::write(&path, text + "\n").expect("written");
}

/// Adds a group to the file.
pub(crate) fn add_group(system: &System, name: &str, members: &[&str]) {
    let path = system.folder().join("groups.toml");
    let mut text = std::fs::read_to_string(&path).expect("the groups file");
    let members: Vec<_> = members.iter().map(|it| format!("'{it}'")).collect();
    text.push_str(&format!("'{name}' = [{}]\n", members.join(", ")));
    std::fs::write(&path, text).expect("written");
}

/// Asks until the answer is as wanted.
pub(crate) async fn until<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: T,
    mut ask: impl AsyncFnMut() -> T,
) {
    let start = std::time::Instant::now();
    loop {
        let answer = ask().await;
        if answer == wanted {
            return;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{what}: {answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
