//! Applications in files: create, update, export.

use std::path::Path;

use serde::Serialize;
use sso_client::{
    ApplicationFilter, Applications, ClientError, Refusal,
    v1::{Application, ApplicationType, Field},
    xml::{
        ApplicationDefinition, FieldDefinition, Flag, Flags, Kind, Position, parse_applications,
        write_applications,
    },
};
use sso_core::exit::Exit;

use super::{
    Service,
    app::{ApplicationDocument, ApplicationsDocument, ExportArgs, report},
    read_file,
};
use crate::{failure::Failure, output::Output};

/// Flags that are on when a file says nothing.
const ON_BY_DEFAULT: [Flag; 5] = [
    Flag::WindowsInitiatedSso,
    Flag::ValidatePassword,
    Flag::ValidateTickets,
    Flag::TimeoutTickets,
    Flag::VerifyOldPassword,
];
/// Flags that reach the service: as type, or as themselves.
const SENT: [Flag; 6] = [
    Flag::ConfigStoreApp,
    Flag::GroupApp,
    Flag::HostInitiatedSso,
    Flag::AllowLocalAccounts,
    Flag::AdminAccountSame,
    Flag::EnableApp,
];

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Update,
}

impl Verb {
    fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
        }
    }
}

#[derive(Debug, Serialize)]
struct ResultsDocument {
    applications: Vec<ResultDocument>,
}

#[derive(Debug, Serialize)]
struct ResultDocument {
    name: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Creates every application of the file, one by one.
pub(super) async fn create(
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    apply(Verb::Create, file, service, output).await
}

/// Updates every application of the file, one by one; only elements present are changed.
pub(super) async fn update(
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    apply(Verb::Update, file, service, output).await
}

async fn apply(
    verb: Verb,
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let bytes = read_file(file)?;
    let definitions = parse_applications(&bytes).map_err(|error| Failure::xml(file, &error))?;
    let applications = service.connect()?.applications();
    let count = definitions.len();
    let bar = output.progress(count, "applications");
    let mut results = Vec::with_capacity(count);
    let mut worst = None;
    let mut unreachable = false;
    for definition in definitions {
        let name = definition.name.clone();
        if unreachable {
            results.push(ResultDocument { name, result: "not_tried", message: None });
            continue;
        }
        let outcome = bar.suspend(|| prepare(verb, definition, output));
        let outcome = match outcome {
            Ok(request) => send(&applications, request).await,
            Err(failure) => Err(failure),
        };
        let outcome = outcome.map_err(|failure| naming(&name, failure));
        bar.inc(1);
        match outcome {
            Ok(warnings) => {
                bar.suspend(|| report(&warnings, output));
                results.push(ResultDocument { name, result: verb.done(), message: None });
            }
            Err(failure) if count == 1 => return Err(failure),
            Err(failure) => {
                unreachable = matches!(failure, Failure::Client(ClientError::Unreachable { .. }));
                let message = Some(failure.message());
                bar.suspend(|| output.failure(&failure));
                worst = Some(if unreachable { failure.exit_code() } else { Exit::Refused.code() });
                results.push(ResultDocument { name, result: "failed", message });
            }
        }
    }
    bar.finish_and_clear();
    let rows: Vec<_> =
        results.iter().map(|one| vec![one.name.clone(), one.result.to_owned()]).collect();
    output.document(&ResultsDocument { applications: results }, |output| {
        output.table(&["NAME", "RESULT"], rows)
    })?;
    worst.map_or(Ok(()), |code| Err(Failure::Reported(code)))
}

enum Request {
    Create(Application),
    Update(Application, Vec<&'static str>),
}

/// The failure with the application in its message, for refusals that speak of a part of it.
fn naming(name: &str, failure: Failure) -> Failure {
    let named = |mut refusal: Refusal| {
        if !refusal.message.contains(name) {
            refusal.message = format!("application '{name}': {}", refusal.message);
        }
        refusal
    };
    let Failure::Client(error) = failure else { return failure };
    Failure::Client(match error {
        ClientError::Denied(refusal) => ClientError::Denied(named(refusal)),
        ClientError::Invalid(refusal) => ClientError::Invalid(named(refusal)),
        ClientError::Conflict(refusal) => ClientError::Conflict(named(refusal)),
        ClientError::Precondition(refusal) => ClientError::Precondition(named(refusal)),
        error @ (ClientError::NotFound(_)
        | ClientError::Unavailable(_)
        | ClientError::Damaged(_)
        | ClientError::Fault(_)
        | ClientError::Unreachable { .. }
        | ClientError::Settings(_)
        | _) => error,
    })
}

fn prepare(
    verb: Verb,
    definition: ApplicationDefinition,
    output: &Output,
) -> Result<Request, Failure> {
    let name = definition.name.clone();
    let (request, notes) = match verb {
        Verb::Create => creation(definition)?,
        Verb::Update => change(definition)?,
    };
    for note in notes {
        output.warn(None, &format!("application '{name}': {note}"));
    }
    Ok(request)
}

async fn send(
    applications: &Applications,
    request: Request,
) -> Result<Vec<sso_client::v1::Warning>, Failure> {
    let (_, warnings) = match request {
        Request::Create(application) => applications.create(application).await?,
        Request::Update(application, paths) => applications.update(application, &paths).await?,
    };
    Ok(warnings)
}

/// The message that creates the application, and what an administrator should know.
fn creation(definition: ApplicationDefinition) -> Result<(Request, Vec<String>), Failure> {
    let kind = match definition.kind() {
        Kind::Individual => ApplicationType::Individual,
        Kind::Group => ApplicationType::Group,
        Kind::HostGroup => ApplicationType::HostGroup,
        Kind::ConfigStore => ApplicationType::ConfigStore,
        Kind::Adapter | Kind::GroupAdapter => return Err(unsupported(&definition.name)),
    };
    let notes = creation_notes(&definition);
    let flags = &definition.flags;
    let (enabled, allow_local_accounts, administrators_same) = (
        flags.is_on(Flag::EnableApp),
        flags.is_on(Flag::AllowLocalAccounts),
        flags.is_on(Flag::AdminAccountSame),
    );
    let fields = (0..).zip(definition.fields).map(|(ordinal, field)| Field {
        ordinal,
        label: field.label,
        masked: field.masked,
    });
    let application = Application {
        name: definition.name,
        r#type: kind.into(),
        description: definition.description.unwrap_or_default(),
        contact: definition.contact.unwrap_or_default(),
        user_accounts: definition
            .user_accounts
            .or_else(|| definition.windows_account.map(|account| vec![account]))
            .unwrap_or_default(),
        administrator_accounts: definition.administrator_accounts.unwrap_or_default(),
        fields: fields.collect(),
        enabled,
        allow_local_accounts,
        administrators_same,
        ..Application::default()
    };
    Ok((Request::Create(application), notes))
}

fn unsupported(name: &str) -> Failure {
    Failure::Client(ClientError::Precondition(Refusal {
        reason: "APPLICATION_TYPE_UNSUPPORTED".to_owned(),
        event: None,
        message: format!("application '{name}' is a password-sync adapter; they are not kept here"),
        request_id: String::new(),
    }))
}

fn creation_notes(definition: &ApplicationDefinition) -> Vec<String> {
    let mut notes = Vec::new();
    if definition.name.contains(char::is_whitespace) {
        notes.push("the name has a space; many tools do not expect one".to_owned());
    }
    if definition.ticket_timeout.is_some() {
        notes.push("<appTicketTimeout> takes effect on update only; it is ignored".to_owned());
    }
    if definition.kind() == Kind::ConfigStore {
        for (flag, on) in definition.flags.iter() {
            if !SENT.contains(&flag) && on != ON_BY_DEFAULT.contains(&flag) {
                let flag = flag.as_str();
                notes.push(format!("flag '{flag}' means nothing to a config store; it is ignored"));
            }
        }
        if definition.fields.iter().any(|field| field.synchronized) {
            notes.push("'synchronized' means nothing to a config store; it is ignored".to_owned());
        }
    }
    notes
}

/// The message that changes what the file gives, and what of the file cannot change.
fn change(definition: ApplicationDefinition) -> Result<(Request, Vec<String>), Failure> {
    let mut notes = Vec::new();
    for (flag, _) in definition.flags.iter() {
        if !matches!(flag, Flag::EnableApp | Flag::AllowLocalAccounts) {
            notes.push(format!("flag '{}' cannot be changed here; it is ignored", flag.as_str()));
        }
    }
    if !definition.fields.is_empty() {
        notes.push("fields cannot change; use 'sso app add-field' to add one".to_owned());
    }
    if definition.ticket_timeout.is_some() {
        notes.push("<appTicketTimeout> cannot be changed here; it is ignored".to_owned());
    }
    if definition.computer.is_some() {
        notes.push("<computer> cannot be changed here; it is ignored".to_owned());
    }
    let users = definition
        .user_accounts
        .or_else(|| definition.windows_account.map(|account| vec![account]));
    let enabled = definition.flags.value(Flag::EnableApp);
    let allow_local_accounts = definition.flags.value(Flag::AllowLocalAccounts);
    let paths: Vec<_> = [
        ("description", definition.description.is_some()),
        ("contact", definition.contact.is_some()),
        ("user_accounts", users.is_some()),
        ("administrator_accounts", definition.administrator_accounts.is_some()),
        ("enabled", enabled.is_some()),
        ("allow_local_accounts", allow_local_accounts.is_some()),
    ]
    .into_iter()
    .filter_map(|(path, given)| given.then_some(path))
    .collect();
    if paths.is_empty() {
        let message =
            format!("the file says nothing of application '{}' that can change", definition.name);
        return Err(Failure::usage(message));
    }
    let application = Application {
        name: definition.name,
        description: definition.description.unwrap_or_default(),
        contact: definition.contact.unwrap_or_default(),
        user_accounts: users.unwrap_or_default(),
        administrator_accounts: definition.administrator_accounts.unwrap_or_default(),
        enabled: enabled.unwrap_or_default(),
        allow_local_accounts: allow_local_accounts.unwrap_or_default(),
        ..Application::default()
    };
    Ok((Request::Update(application, paths), notes))
}

#[derive(Debug, Serialize)]
struct ExportDocument<'a> {
    file: String,
    applications: Vec<&'a str>,
}

/// Writes applications as XML, to standard output or a file; with JSON output and no file as JSON.
pub(super) async fn export(
    args: &ExportArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let applications = fetch(args, &service.connect()?.applications(), output).await?;
    let Some(file) = &args.file else {
        if output.is_json() {
            let applications = applications.into_iter().map(ApplicationDocument::from).collect();
            return output.document(&ApplicationsDocument { applications }, |_| Ok(()));
        }
        return output.raw(&as_xml(applications)?);
    };
    let names: Vec<_> = applications.iter().map(|application| application.name.clone()).collect();
    std::fs::write(file, as_xml(applications)?)
        .map_err(|error| Failure::io(file.display().to_string(), error))?;
    let document = ExportDocument {
        file: file.display().to_string(),
        applications: names.iter().map(String::as_str).collect(),
    };
    output.document(&document, |output| {
        output.note(&format!("wrote {} applications to {}", names.len(), document.file));
        Ok(())
    })
}

async fn fetch(
    args: &ExportArgs,
    applications: &Applications,
    output: &Output,
) -> Result<Vec<Application>, Failure> {
    if args.names.is_empty() {
        return Ok(applications.list(&ApplicationFilter::default()).await?);
    }
    let bar = output.progress(args.names.len(), "applications");
    let mut fetched = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let application = applications.show(name).await;
        bar.inc(1);
        fetched.push(application.inspect_err(|_| bar.finish_and_clear())?);
    }
    bar.finish_and_clear();
    Ok(fetched)
}

fn as_xml(applications: Vec<Application>) -> Result<String, Failure> {
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
    let single = || application.user_accounts.first().cloned();
    Ok(ApplicationDefinition {
        position: Position::START,
        flags,
        windows_account: if host_group { single() } else { None },
        user_accounts: (!host_group).then(|| application.user_accounts.clone()),
        administrator_accounts: (!application.administrators_same)
            .then_some(application.administrator_accounts),
        name: application.name,
        description: Some(application.description),
        contact: Some(application.contact),
        computer: None,
        ticket_timeout: None,
        fields: fields
            .into_iter()
            .map(|field| FieldDefinition {
                label: field.label,
                masked: field.masked,
                synchronized: false,
            })
            .collect(),
    })
}

/// The flags that make this type, and the three that every type has.
fn flags(application: &Application) -> Flags {
    let mut flags = Flags::default();
    match ApplicationType::try_from(application.r#type).unwrap_or_default() {
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

#[cfg(test)]
mod tests;
