//! `sso app`: affiliate applications.

mod args;
mod flags;
mod shown;

use clap::Subcommand;
use serde::Serialize;
use sso_client::v1::{Application, ApplicationType, Field, Warning};

use self::{
    args::{CreateArgs, Kind, ListArgs, NewField, UpdateArgs, parse_field},
    shown::{FieldDocument, show},
};
pub(super) use self::{
    args::{ExportArgs, parse_yes},
    shown::{ApplicationDocument, ApplicationsDocument},
};
use super::{
    Service, app_file, confirm,
    shown::{application_type, or_dash},
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Create an application, or all of a file
    Create(CreateArgs),
    /// Show an application with its fields
    Show {
        /// Name of the application
        name: String,
    },
    /// List the applications you have a role in
    List(ListArgs),
    /// Change description, contact, accounts, flags
    Update(UpdateArgs),
    /// Enable an application
    Enable {
        /// Name of the application
        name: String,
    },
    /// Disable an application: run-time reads are refused, data are kept
    Disable {
        /// Name of the application
        name: String,
    },
    /// Delete an application with everything kept under it
    Delete {
        /// Name of the application
        name: String,
        /// Do not ask; without a terminal nothing is asked either
        #[arg(long, short)]
        yes: bool,
    },
    /// Make every server forget the credentials it has cached of an application
    PurgeCache {
        /// Name of the application
        name: String,
    },
    /// Add a field behind the last one; stored values stay as they are
    AddField {
        /// Name of the application
        name: String,
        /// Label of the field, with :masked behind it if administrators must not see its values
        #[arg(value_name = "LABEL[:masked]", value_parser = parse_field)]
        field: NewField,
    },
    /// Write applications as an XML file that create reads
    Export(ExportArgs),
}

pub(crate) async fn run(
    command: AppCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        AppCommand::Create(args) => match &args.file {
            Some(file) => app_file::create(file, service, output).await,
            None => create(args, service, output).await,
        },
        AppCommand::Update(args) => match &args.file {
            Some(file) => app_file::update(file, service, output).await,
            None => update(args, service, output).await,
        },
        AppCommand::Show { name } => {
            show(service.connect()?.applications().show(&name).await?, output)
        }
        AppCommand::List(args) => list(args, service, output).await,
        AppCommand::Enable { name } => {
            show(service.connect()?.applications().enable(&name).await?, output)
        }
        AppCommand::Disable { name } => {
            show(service.connect()?.applications().disable(&name).await?, output)
        }
        AppCommand::Delete { name, yes } => delete(&name, yes, service, output).await,
        AppCommand::PurgeCache { name } => purge_cache(&name, service, output).await,
        AppCommand::AddField { name, field } => add_field(&name, &field, service, output).await,
        AppCommand::Export(args) => app_file::export(&args, service, output).await,
    }
}

async fn create(args: CreateArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let application = new_application(args);
    let (application, warnings) = service.connect()?.applications().create(application).await?;
    report(&warnings, output);
    show(application, output)
}

fn new_application(args: CreateArgs) -> Application {
    let first = args.first_field.unwrap_or_else(|| first_field(args.kind).to_owned());
    let first = Field { label: first, ..Field::default() };
    let others = (1..).zip(args.fields).map(|(ordinal, field)| Field {
        ordinal,
        label: field.label,
        masked: field.masked,
        synchronized: field.synchronized,
    });
    let mut application = Application {
        name: args.name.unwrap_or_default(),
        r#type: ApplicationType::from(args.kind).into(),
        description: args.description,
        contact: args.contact,
        user_accounts: accounts(args.users),
        administrator_accounts: accounts(args.admins),
        windows_account: args.windows_account.unwrap_or_default(),
        ticket_timeout: args.ticket_timeout.unwrap_or_default(),
        fields: std::iter::once(first).chain(others).collect(),
        enabled: args.enable,
        allow_local_accounts: args.allow_local_accounts,
        administrators_same: args.administrators_same,
        ..Application::default()
    };
    args.flags.apply(&mut application);
    application
}

/// Label of field 0 when nothing else is said.
fn first_field(kind: Kind) -> &'static str {
    match kind {
        Kind::ConfigStore => "reserved",
        Kind::Individual | Kind::Group | Kind::HostGroup => "External user",
    }
}

/// Accounts as they were typed, without what only looks like one.
pub(super) fn accounts(accounts: Vec<String>) -> Vec<String> {
    let accounts = accounts.into_iter().map(|account| account.trim().to_owned());
    accounts.filter(|account| !account.is_empty()).collect()
}

async fn update(args: UpdateArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let (application, paths) = changed_application(args);
    if paths.is_empty() {
        return Err(Failure::usage_hint("nothing to change", "see sso app update --help"));
    }
    let applications = service.connect()?.applications();
    let (application, warnings) = applications.update(application, &paths).await?;
    report(&warnings, output);
    show(application, output)
}

/// The message and the paths of what it changes.
fn changed_application(args: UpdateArgs) -> (Application, Vec<&'static str>) {
    let paths = [
        ("description", args.description.is_some()),
        ("contact", args.contact.is_some()),
        ("user_accounts", args.users.is_some()),
        ("administrator_accounts", args.admins.is_some()),
        ("windows_account", args.windows_account.is_some()),
        ("ticket_timeout", args.ticket_timeout.is_some()),
        ("allow_local_accounts", args.allow_local_accounts.is_some()),
    ];
    let mut paths: Vec<_> =
        paths.into_iter().filter_map(|(path, given)| given.then_some(path)).collect();
    let mut application = Application {
        name: args.name.unwrap_or_default(),
        description: args.description.unwrap_or_default(),
        contact: args.contact.unwrap_or_default(),
        user_accounts: accounts(args.users.unwrap_or_default()),
        administrator_accounts: accounts(args.admins.unwrap_or_default()),
        windows_account: args.windows_account.unwrap_or_default(),
        ticket_timeout: args.ticket_timeout.unwrap_or_default(),
        allow_local_accounts: args.allow_local_accounts.unwrap_or_default(),
        ..Application::default()
    };
    paths.extend(args.flags.apply(&mut application));
    (application, paths)
}

/// Warnings of the service.
pub(super) fn report(warnings: &[Warning], output: &Output) {
    for warning in warnings {
        output.warn(Some(&warning.reason), &warning.message);
    }
}

async fn list(args: ListArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let filter = sso_client::ApplicationFilter {
        name_contains: args.name_contains,
        kind: args.kind.map(ApplicationType::from),
        contact: args.contact,
    };
    let applications = service.connect()?.applications().list(&filter).await?;
    let rows: Vec<_> = applications
        .iter()
        .map(|application| {
            vec![
                application.name.clone(),
                application_type(application.r#type).to_owned(),
                if application.enabled { "enabled" } else { "disabled" }.to_owned(),
                application.fields.len().to_string(),
                or_dash(&application.contact),
                or_dash(&application.description),
            ]
        })
        .collect();
    let document = ApplicationsDocument {
        applications: applications.into_iter().map(ApplicationDocument::from).collect(),
    };
    output.document(&document, |output| {
        output.table(&["NAME", "TYPE", "STATE", "FIELDS", "CONTACT", "DESCRIPTION"], rows)
    })
}

#[derive(Debug, Serialize)]
struct DeletedDocument<'a> {
    name: &'a str,
    existed: bool,
}

async fn delete(
    name: &str,
    yes: bool,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    confirm(&format!("Delete application {name} with everything kept under it?"), yes)?;
    let existed = service.connect()?.applications().delete(name).await?;
    output.document(&DeletedDocument { name, existed }, |output| {
        output.line(if existed { "deleted" } else { "there was nothing to delete" })
    })
}

#[derive(Debug, Serialize)]
struct PurgedDocument<'a> {
    name: &'a str,
    purged: bool,
}

async fn purge_cache(name: &str, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    service.connect()?.applications().purge_cache(name).await?;
    output.document(&PurgedDocument { name, purged: true }, |output| {
        output.line("every server forgets what it has cached, within one poll")
    })
}

async fn add_field(
    name: &str,
    field: &NewField,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    if field.synchronized {
        return Err(Failure::usage("a field that is added cannot be the one to synchronise"));
    }
    let applications = service.connect()?.applications();
    let field = applications.add_field(name, &field.label, field.masked).await?;
    let document = FieldDocument::from(field);
    output.document(&document, |output| {
        let masked = if document.masked { " (masked)" } else { "" };
        let text = format!("field {} is {}{masked}", document.ordinal, document.label);
        output.line(&crate::output::escape(&text))
    })
}

#[cfg(test)]
mod tests;
