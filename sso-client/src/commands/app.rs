//! `sso app`: affiliate applications.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;
use sso_client::v1::{Application, ApplicationType, Field, Warning};

use super::{
    Service, app_file, confirm,
    shown::{application_type, or_dash, time, time_cell, yes},
};
use crate::{failure::Failure, output::Output};

/// Label of field 0 when nothing else is said.
const FIRST_FIELD: &str = "reserved";

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
    /// Change description, contact, accounts
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

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "file"]))]
#[command(after_help = "\
Field 0 takes the slot of an external user id and is never masked. It is made by itself,
labelled 'reserved'; --first-field gives it another label. The fields of --field count from 1.
An application is created disabled unless --enable is given.

A file has the elements of the reference product, older spellings included; several
<application> elements are created one by one, failures are reported and the rest goes on. A
malformed file (unknown elements too) changes nothing: exit code 2, with line and column.

Examples:
  sso app create OrderRouting.Settings --type config-store --field RetryLimit \\
      --field PartnerApiKey:masked --users 'CORP\\Orders' --admins 'CORP\\Order Admins' --enable
  sso app create --file order-routing.xml")]
pub(crate) struct CreateArgs {
    /// Name of the application
    name: Option<String>,
    /// XML file of applications; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// What the application keeps
    #[arg(long = "type", value_enum, default_value_t = Kind::ConfigStore, conflicts_with = "file")]
    kind: Kind,
    /// Label of a field, with :masked behind it if administrators must not see its values; repeated
    #[arg(long = "field", value_name = "LABEL[:masked]", value_parser = parse_field,
        conflicts_with = "file")]
    fields: Vec<NewField>,
    /// Label of field 0
    #[arg(long, value_name = "LABEL", default_value = FIRST_FIELD, conflicts_with = "file")]
    first_field: String,
    /// Account of the application users, DOMAIN\name; repeated or separated by ;
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    users: Vec<String>,
    /// Account of the application administrators, DOMAIN\name; repeated or separated by ;
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    admins: Vec<String>,
    /// Free text
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "file"
    )]
    description: String,
    /// Free text, often a mail address
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "file"
    )]
    contact: String,
    /// Enable it at once
    #[arg(long, conflicts_with = "file")]
    enable: bool,
    /// Accept accounts without a domain (single machine only)
    #[arg(long, conflicts_with = "file")]
    allow_local_accounts: bool,
    /// The application administrators are always the affiliate administrators
    #[arg(long, conflicts_with_all = ["file", "admins"])]
    administrators_same: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Individual,
    Group,
    ConfigStore,
    HostGroup,
}

impl From<Kind> for ApplicationType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Individual => Self::Individual,
            Kind::Group => Self::Group,
            Kind::ConfigStore => Self::ConfigStore,
            Kind::HostGroup => Self::HostGroup,
        }
    }
}

/// A field as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewField {
    label: String,
    masked: bool,
}

fn parse_field(text: &str) -> Result<NewField, String> {
    let (label, masked) = match text.rsplit_once(':') {
        Some((label, mark)) if mark.eq_ignore_ascii_case("masked") => (label, true),
        Some(_) | None => (text, false),
    };
    match label.trim() {
        "" => Err("the label is empty".to_owned()),
        label => Ok(NewField { label: label.to_owned(), masked }),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only names that contain this text, regardless of case
    #[arg(value_name = "TEXT", default_value = "", hide_default_value = true)]
    name_contains: String,
    /// Only this type
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// Only this contact, regardless of case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    contact: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "file"]))]
#[command(after_help = "\
Only what is given is changed. Type, fields and --administrators-same cannot change; fields
can be added with 'sso app add-field'. In a file, elements and flags that cannot change are
ignored with a warning.

Examples:
  sso app update OrderRouting.Settings --contact orders@corp.example
  sso app update OrderRouting.Settings --users 'CORP\\Orders' --users 'CORP\\Order Tests'
  sso app update --file order-routing.xml")]
pub(crate) struct UpdateArgs {
    /// Name of the application
    name: Option<String>,
    /// XML file of applications; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Free text
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    description: Option<String>,
    /// Free text, often a mail address
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    contact: Option<String>,
    /// Account of the application users; repeated or separated by ;, replaces the list
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    users: Option<Vec<String>>,
    /// Account of the application administrators; repeated or separated by ;, replaces the list
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    admins: Option<Vec<String>>,
    /// Accept accounts without a domain (single machine only)
    #[arg(long, value_name = "yes|no", value_parser = parse_yes, conflicts_with = "file")]
    allow_local_accounts: Option<bool>,
}

fn parse_yes(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Ok(true),
        "no" | "off" | "false" => Ok(false),
        _ => Err("write yes or no".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sso app export > applications.xml
  sso app export OrderRouting.Settings --file order-routing.xml")]
pub(crate) struct ExportArgs {
    /// Names of applications; none = all you have a role in
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// File to write instead of standard output; an existing one is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
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
    let first = Field { ordinal: 0, label: args.first_field, masked: false };
    let others = (1..).zip(args.fields).map(|(ordinal, field)| Field {
        ordinal,
        label: field.label,
        masked: field.masked,
    });
    Application {
        name: args.name.unwrap_or_default(),
        r#type: ApplicationType::from(args.kind).into(),
        description: args.description,
        contact: args.contact,
        user_accounts: accounts(args.users),
        administrator_accounts: accounts(args.admins),
        fields: std::iter::once(first).chain(others).collect(),
        enabled: args.enable,
        allow_local_accounts: args.allow_local_accounts,
        administrators_same: args.administrators_same,
        ..Application::default()
    }
}

fn accounts(accounts: Vec<String>) -> Vec<String> {
    let accounts = accounts.into_iter().map(|account| account.trim().to_owned());
    accounts.filter(|account| !account.is_empty()).collect()
}

async fn update(args: UpdateArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let paths: Vec<_> = [
        ("description", args.description.is_some()),
        ("contact", args.contact.is_some()),
        ("user_accounts", args.users.is_some()),
        ("administrator_accounts", args.admins.is_some()),
        ("allow_local_accounts", args.allow_local_accounts.is_some()),
    ]
    .into_iter()
    .filter_map(|(path, given)| given.then_some(path))
    .collect();
    if paths.is_empty() {
        return Err(Failure::usage_hint("nothing to change", "see sso app update --help"));
    }
    let application = Application {
        name: args.name.unwrap_or_default(),
        description: args.description.unwrap_or_default(),
        contact: args.contact.unwrap_or_default(),
        user_accounts: accounts(args.users.unwrap_or_default()),
        administrator_accounts: accounts(args.admins.unwrap_or_default()),
        allow_local_accounts: args.allow_local_accounts.unwrap_or_default(),
        ..Application::default()
    };
    let applications = service.connect()?.applications();
    let (application, warnings) = applications.update(application, &paths).await?;
    report(&warnings, output);
    show(application, output)
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

async fn add_field(
    name: &str,
    field: &NewField,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let applications = service.connect()?.applications();
    let field = applications.add_field(name, &field.label, field.masked).await?;
    let document = FieldDocument::from(field);
    output.document(&document, |output| {
        let masked = if document.masked { " (masked)" } else { "" };
        let text = format!("field {} is {}{masked}", document.ordinal, document.label);
        output.line(&crate::output::escape(&text))
    })
}

#[derive(Debug, Serialize)]
pub(super) struct ApplicationsDocument {
    pub(super) applications: Vec<ApplicationDocument>,
}

#[derive(Debug, Serialize)]
pub(super) struct ApplicationDocument {
    name: String,
    r#type: &'static str,
    description: String,
    contact: String,
    enabled: bool,
    user_accounts: Vec<String>,
    administrator_accounts: Vec<String>,
    administrators_same: bool,
    allow_local_accounts: bool,
    fields: Vec<FieldDocument>,
    id: String,
    created_at: Option<String>,
    updated_at: Option<String>,
    sensitive_info_removed: bool,
}

#[derive(Debug, Serialize)]
struct FieldDocument {
    ordinal: u32,
    label: String,
    masked: bool,
}

impl From<Field> for FieldDocument {
    fn from(field: Field) -> Self {
        Self { ordinal: field.ordinal, label: field.label, masked: field.masked }
    }
}

impl From<Application> for ApplicationDocument {
    fn from(application: Application) -> Self {
        Self {
            r#type: application_type(application.r#type),
            created_at: time(application.created_at.as_ref()),
            updated_at: time(application.updated_at.as_ref()),
            name: application.name,
            description: application.description,
            contact: application.contact,
            enabled: application.enabled,
            user_accounts: application.user_accounts,
            administrator_accounts: application.administrator_accounts,
            administrators_same: application.administrators_same,
            allow_local_accounts: application.allow_local_accounts,
            fields: application.fields.into_iter().map(FieldDocument::from).collect(),
            id: application.id,
            sensitive_info_removed: application.sensitive_info_removed,
        }
    }
}

fn show(application: Application, output: &Output) -> Result<(), Failure> {
    let pairs = pairs(&application);
    let fields: Vec<_> = application
        .fields
        .iter()
        .map(|field| vec![field.ordinal.to_string(), field.label.clone(), yes(field.masked)])
        .collect();
    output.document(&ApplicationDocument::from(application), |output| {
        output.pairs(pairs)?;
        output.line("")?;
        output.table(&["ORDINAL", "LABEL", "MASKED"], fields)
    })
}

fn pairs(application: &Application) -> Vec<(&'static str, String)> {
    let accounts = |accounts: &[String]| match application.sensitive_info_removed {
        true => "(only administrators see this)".to_owned(),
        false => or_dash(&accounts.join("; ")),
    };
    let administrators = match application.administrators_same {
        true => "(the affiliate administrators)".to_owned(),
        false => accounts(&application.administrator_accounts),
    };
    vec![
        ("name", application.name.clone()),
        ("type", application_type(application.r#type).to_owned()),
        ("state", if application.enabled { "enabled" } else { "disabled" }.to_owned()),
        ("description", or_dash(&application.description)),
        ("contact", or_dash(&application.contact)),
        ("users", accounts(&application.user_accounts)),
        ("administrators", administrators),
        ("local accounts", yes(application.allow_local_accounts)),
        ("created", time_cell(application.created_at.as_ref())),
        ("updated", time_cell(application.updated_at.as_ref())),
        ("id", application.id.clone()),
    ]
}

#[cfg(test)]
mod tests;
