//! `sso mapping`: which account stands for which external user, and the credentials of that user.

mod args;
pub(super) mod batch;
mod credentials;
pub(super) mod file;
mod generate;
mod rules;

use clap::Subcommand;
use serde::Serialize;
use sso_client::{
    Client, ClientError, MappingFilter, MappingKey, MappingSide, Mappings, NewMapping,
    v1::{ApplicationType, Mapping},
};

use self::args::{
    CreateArgs, DeleteArgs, ExportArgs, GenerateArgs, KeyArgs, ListArgs, SetCredentialsArgs,
};
use super::{
    Service,
    app::report,
    confirm,
    shown::{or_dash, time, time_cell, yes},
};
use crate::{
    failure::Failure,
    output::Output,
    values::{prompt_fields, read_list},
};

#[derive(Debug, Subcommand)]
pub(crate) enum MappingCommand {
    /// Create a mapping, or all of a file
    Create(CreateArgs),
    /// List mappings: your own, or those of an application
    List(ListArgs),
    /// Show a mapping
    Show(KeyArgs),
    /// Enable a mapping
    Enable(KeyArgs),
    /// Disable a mapping; its credentials are kept
    Disable(KeyArgs),
    /// Delete a mapping with its credentials, or all of a file
    Delete(DeleteArgs),
    /// Store credentials
    SetCredentials(SetCredentialsArgs),
    /// Make mappings for all users of an application, by rules
    Generate(Box<GenerateArgs>),
    /// Write mappings as an XML file that create and delete read
    Export(ExportArgs),
}

pub(crate) async fn run(
    command: MappingCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        MappingCommand::Create(args) => match &args.file {
            Some(path) => file::create(path, &args, service, output).await,
            None => create(args, service, output).await,
        },
        MappingCommand::List(args) => list(&args.filter(), service, output).await,
        MappingCommand::Show(args) => {
            show(service.connect()?.mappings().show(&args.key()).await?, output)
        }
        MappingCommand::Enable(args) => {
            let client = service.connect()?;
            let enabled = client.mappings().enable(&args.key()).await;
            show(or_hint(enabled, &client, &args.key()).await?, output)
        }
        MappingCommand::Disable(args) => {
            let client = service.connect()?;
            let disabled = client.mappings().disable(&args.key()).await;
            show(or_hint(disabled, &client, &args.key()).await?, output)
        }
        MappingCommand::Delete(args) => match &args.file {
            Some(path) => file::delete(path, &args, service, output).await,
            None => delete(&args, service, output).await,
        },
        MappingCommand::SetCredentials(args) => credentials::set(args, service, output).await,
        MappingCommand::Generate(args) => generate::run(*args, service, output).await,
        MappingCommand::Export(args) => file::export(&args, service, output).await,
    }
}

async fn create(args: CreateArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let values = args.values.as_deref().map(read_list).transpose()?;
    let client = service.connect()?;
    let application = args.application.unwrap_or_default();
    let credentials = match args.prompt {
        true => Some(prompt_fields(&client.applications().show(&application).await?.fields)?),
        false => values,
    };
    let mapping = NewMapping {
        application,
        account: args.account.unwrap_or_default(),
        external_user: args.external_user.unwrap_or_default(),
        credentials,
        enable: args.enable,
    };
    let (mapping, warnings) = client.mappings().create(&mapping).await?;
    report(&warnings, output);
    show(mapping, output)
}

/// Every mapping that the filter lets through, with the number read so far on a terminal.
async fn all(
    mappings: &Mappings,
    filter: &MappingFilter,
    output: &Output,
) -> Result<Vec<Mapping>, Failure> {
    let count = output.count("mappings");
    let mut found: Vec<Mapping> = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = mappings.page(filter, page_token).await;
        let (page, next) = page.inspect_err(|_| count.finish_and_clear())?;
        found.extend(page);
        count.set_position(u64::try_from(found.len()).unwrap_or(u64::MAX));
        if next.is_empty() {
            count.finish_and_clear();
            return Ok(found);
        }
        page_token = next;
    }
}

async fn list(
    filter: &MappingFilter,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let mappings = all(&service.connect()?.mappings(), filter, output).await?;
    let rows: Vec<_> = mappings
        .iter()
        .map(|mapping| {
            vec![
                mapping.application.clone(),
                or_dash(&mapping.account),
                mapping.external_user.clone(),
                state(mapping).to_owned(),
                credentials_cell(mapping),
                yes(mapping.orphaned),
            ]
        })
        .collect();
    let mappings = mappings.into_iter().map(MappingDocument::from).collect();
    output.document(&MappingsDocument { mappings }, |output| {
        let header =
            ["APPLICATION", "ACCOUNT", "EXTERNAL USER", "STATE", "CREDENTIALS", "ORPHANED"];
        output.table(&header, rows)
    })
}

#[derive(Debug, Serialize)]
struct DeletedDocument<'a> {
    application: &'a str,
    existed: bool,
}

async fn delete(args: &DeleteArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let key = args.key();
    confirm(&format!("Delete {} with its credentials?", in_words(&key)), args.yes)?;
    let client = service.connect()?;
    let existed = or_hint(client.mappings().delete(&key).await, &client, &key).await?;
    let document = DeletedDocument { application: &key.application, existed };
    output.document(&document, |output| {
        output.line(if existed { "deleted" } else { "there was nothing to delete" })
    })
}

/// What a call for one mapping came to. Where an account was named in a host group application, the
/// failure says how its mappings are named.
async fn or_hint<T>(
    answer: Result<T, ClientError>,
    client: &Client,
    key: &MappingKey,
) -> Result<T, Failure> {
    let error = match (answer, &key.side) {
        (Ok(answer), _) => return Ok(answer),
        (Err(error @ ClientError::Invalid(_)), MappingSide::Account(_)) => error,
        (Err(error), _) => return Err(error.into()),
    };
    match client.applications().show(&key.application).await {
        Ok(application) if application.r#type == i32::from(ApplicationType::HostGroup) => {
            Err(Failure::refused(error.to_string(), "--external-user NAME"))
        }
        Ok(_) | Err(_) => Err(error.into()),
    }
}

fn in_words(key: &MappingKey) -> String {
    use sso_client::MappingSide as Side;
    let application = &key.application;
    match &key.side {
        Side::Own => format!("your own mapping in {application}"),
        Side::Account(account) => format!("the mapping of {account} in {application}"),
        Side::ExternalUser(user) => format!("the mapping of external user {user} in {application}"),
    }
}

#[derive(Debug, Serialize)]
struct MappingsDocument {
    mappings: Vec<MappingDocument>,
}

#[derive(Debug, Serialize)]
struct MappingDocument {
    application: String,
    account: String,
    external_user: String,
    enabled: bool,
    disabled_by_administrator: bool,
    credentials_set: bool,
    credentials_set_at: Option<String>,
    orphaned: bool,
    id: String,
    created_at: Option<String>,
    updated_at: Option<String>,
    updated_by: String,
}

impl From<Mapping> for MappingDocument {
    fn from(mapping: Mapping) -> Self {
        Self {
            credentials_set_at: time(mapping.credentials_set_at.as_ref()),
            created_at: time(mapping.created_at.as_ref()),
            updated_at: time(mapping.updated_at.as_ref()),
            application: mapping.application,
            account: mapping.account,
            external_user: mapping.external_user,
            enabled: mapping.enabled,
            disabled_by_administrator: mapping.disabled_by_administrator,
            credentials_set: mapping.credentials_set,
            orphaned: mapping.orphaned,
            id: mapping.id,
            updated_by: mapping.updated_by,
        }
    }
}

fn state(mapping: &Mapping) -> &'static str {
    match (mapping.enabled, mapping.disabled_by_administrator) {
        (true, _) => "enabled",
        (false, false) => "disabled",
        (false, true) => "disabled by an administrator",
    }
}

fn credentials_cell(mapping: &Mapping) -> String {
    match (mapping.credentials_set, time(mapping.credentials_set_at.as_ref())) {
        (false, _) => "-".to_owned(),
        (true, None) => "set".to_owned(),
        (true, Some(at)) => format!("set {at}"),
    }
}

fn show(mapping: Mapping, output: &Output) -> Result<(), Failure> {
    let pairs = vec![
        ("application", mapping.application.clone()),
        ("account", or_dash(&mapping.account)),
        ("external user", mapping.external_user.clone()),
        ("state", state(&mapping).to_owned()),
        ("credentials", credentials_cell(&mapping)),
        ("orphaned", yes(mapping.orphaned)),
        ("created", time_cell(mapping.created_at.as_ref())),
        ("updated", time_cell(mapping.updated_at.as_ref())),
        ("by", or_dash(&mapping.updated_by)),
        ("id", or_dash(&mapping.id)),
    ];
    output.document(&MappingDocument::from(mapping), |output| output.pairs(pairs))
}

#[cfg(test)]
mod tests;
