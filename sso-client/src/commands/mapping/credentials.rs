//! `sso mapping set-credentials`.

use serde::Serialize;
use sso_client::{
    Client, MappingKey,
    v1::{Application, ApplicationType},
};

use super::{
    super::{Service, app::report},
    args::SetCredentialsArgs,
    or_hint,
};
use crate::{
    failure::Failure,
    output::Output,
    values::{prompt_fields, read_list},
};

#[derive(Debug, Serialize)]
struct SetDocument {
    application: String,
    account: String,
    external_user: String,
    enabled: bool,
    created: bool,
}

pub(super) async fn set(
    args: SetCredentialsArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let values = args.values.as_deref().map(read_list).transpose()?;
    let client = service.connect()?;
    let (key, external_user, application) = target(&args, &client, values.is_none()).await?;
    // Asked last, so that nobody types a secret for a request that cannot be sent.
    let values = match values {
        Some(values) => values,
        None => prompt_fields(&application.unwrap_or_default().fields)?,
    };
    let set = client.mappings().set_credentials(&key, &values, external_user.as_deref()).await;
    let set = or_hint(set, &client, &key).await?;
    report(&set.warnings, output);
    let document = SetDocument {
        application: set.mapping.application,
        account: set.mapping.account,
        external_user: set.mapping.external_user,
        enabled: set.mapping.enabled,
        created: set.created,
    };
    output.document(&document, |output| {
        let words = match document.created {
            true => "created a mapping with credentials for",
            false => "set the credentials of",
        };
        let text = format!("{words} {} as {}", document.account, document.external_user);
        output.line(&crate::output::escape(&text))
    })
}

/// The mapping that is meant, the external user to create one for, and the application where it was
/// looked up: for its type or for its fields.
async fn target(
    args: &SetCredentialsArgs,
    client: &Client,
    prompting: bool,
) -> Result<(MappingKey, Option<String>, Option<Application>), Failure> {
    let application = match prompting || args.external_user.is_some() {
        true => Some(client.applications().show(&args.application).await?),
        false => None,
    };
    let host_group = application
        .as_ref()
        .is_some_and(|application| application.r#type == i32::from(ApplicationType::HostGroup));
    let name = args.application.as_str();
    let (key, create) = match (&args.account, &args.external_user) {
        // Before anything is asked for.
        (_, None) if host_group => {
            return Err(Failure::refused(
                format!(
                    "'{name}' is a host group application: its mappings are named by the external user"
                ),
                "--external-user NAME",
            ));
        }
        (_, Some(user)) if host_group => (MappingKey::external_user(name, user), None),
        (Some(account), user) => (MappingKey::account(name, account), user.clone()),
        (None, user) => (MappingKey::own(name), user.clone()),
    };
    Ok((key, create, application))
}
