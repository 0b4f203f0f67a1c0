//! `sso config`: configurations of config-store applications.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;
use sso_client::{Configuration, ConfigurationKey, ReadMode, SetMode, WatchTarget};

use super::{
    Service, config_set, confirm,
    shown::{or_dash, time, time_cell},
};
use crate::{failure::Failure, output::Output};

/// The identifier that tools of the reference product use when an application has only one.
pub(super) const IDENTIFIER: &str = "ConfigProperties";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write values
    Set(SetArgs),
    /// Read values
    Get(GetArgs),
    /// List the identifiers of an application
    List {
        /// Name of the application
        #[arg(value_name = "APP")]
        application: String,
    },
    /// Show the last revisions, without values
    History(KeyArgs),
    /// Write the values of an earlier revision as a new revision
    Rollback(RollbackArgs),
    /// Delete a configuration with its history
    Delete(DeleteArgs),
    /// Print the revision number now, and again on every change
    Watch(WatchArgs),
    /// Write the values of a settings file
    Import(ImportArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// Identifier of the configuration
    #[arg(value_name = "IDENTIFIER", default_value = IDENTIFIER)]
    identifier: String,
}

impl KeyArgs {
    fn key(&self) -> ConfigurationKey {
        ConfigurationKey::new(&self.application, &self.identifier)
    }
}

#[derive(Args)]
#[command(after_help = "\
The first write of an identifier gives every field but field 0, later ones any of them. Values
not named are kept. A secret must not stand on the command line, where other users and the
shell's history see it: a masked field given as KEY=VALUE is refused.

Examples:
  sso config set OrderRouting.Settings ConfigProperties RetryLimit=5
  sso config set OrderRouting.Settings ConfigProperties RetryLimit=5 --prompt PartnerApiKey
  sso config set OrderRouting.Settings ConfigProperties --values - < values.json
where values.json is {\"RetryLimit\": 5, \"PartnerApiKey\": \"…\", \"Note\": null}; null keeps")]
pub(crate) struct SetArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    pub(super) application: String,
    /// Identifier of the configuration [default: ConfigProperties]
    #[arg(value_name = "IDENTIFIER")]
    pub(super) identifier: Option<String>,
    /// Label of a field that is not masked, and its value
    #[arg(value_name = "KEY=VALUE")]
    pub(super) pairs: Vec<String>,
    /// File with a JSON object of values; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) values: Option<PathBuf>,
    /// Ask for this value on the terminal without showing it; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(super) prompt: Vec<String>,
    /// Only when this is still the current revision; 0 = only when nothing is there
    #[arg(long, value_name = "N")]
    pub(super) if_revision: Option<u64>,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// What stands in the pairs may be a secret in the wrong place.
impl std::fmt::Debug for SetArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetArgs").field("application", &self.application).finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without --reveal you read as an administrator of the application: values of masked fields
are withheld. With --reveal you read as a user of the application: every value, and it is
recorded. With KEY the value alone is printed, and a newline.

Examples:
  sso config get OrderRouting.Settings
  sso config get OrderRouting.Settings ConfigProperties PartnerApiKey --reveal
  sso config get OrderRouting.Settings ConfigProperties --output json")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Label of one field
    #[arg(value_name = "KEY")]
    field: Option<String>,
    /// Read as a user of the application, masked values too
    #[arg(long)]
    reveal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The earlier revision whose values are wanted
    #[arg(long, value_name = "N")]
    revision: u64,
    /// Only when this is still the current revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Only when this is still the current revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    /// Do not ask; without a terminal nothing is asked either
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One line for each change; with --output json one JSON object a line. A lost connection is
opened again, and what changed meanwhile is told. Where nothing is set yet, nothing is printed
before the first write.

Examples:
  sso config watch OrderRouting.Settings ConfigProperties
  sso config watch OrderRouting.Settings --count 1 --output json")]
pub(crate) struct WatchArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// Identifier of the configuration; without one all of the application
    #[arg(value_name = "IDENTIFIER")]
    identifier: Option<String>,
    /// End after so many lines
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
    /// End when the connection is lost
    #[arg(long)]
    no_reconnect: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file: <settings><property name=\"RetryLimit\">5</property></settings>

Examples:
  sso config import OrderRouting.Settings --file settings.xml --dry-run
  sso config import OrderRouting.Settings ConfigProperties --file settings.xml --mode replace")]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// XML file of settings; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,
    /// What happens to fields that have a value or are not in the file
    #[arg(long, value_enum, default_value_t = ImportMode::Merge)]
    pub(super) mode: ImportMode,
    /// Only when this is still the current revision; 0 = only when nothing is there
    #[arg(long, value_name = "N")]
    pub(super) if_revision: Option<u64>,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ImportMode {
    /// Write only fields that have no value yet
    Add,
    /// Write what the file has, keep the rest
    Merge,
    /// Write what the file has, clear the rest
    Replace,
}

impl From<ImportMode> for SetMode {
    fn from(mode: ImportMode) -> Self {
        match mode {
            ImportMode::Add => Self::Add,
            ImportMode::Merge => Self::Merge,
            ImportMode::Replace => Self::Replace,
        }
    }
}

pub(crate) async fn run(
    command: ConfigCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Set(args) => config_set::set(args, service, output).await,
        ConfigCommand::Get(args) => get(args, service, output).await,
        ConfigCommand::List { application } => list(&application, service, output).await,
        ConfigCommand::History(args) => history(&args.key(), service, output).await,
        ConfigCommand::Rollback(args) => rollback(args, service, output).await,
        ConfigCommand::Delete(args) => delete(args, service, output).await,
        ConfigCommand::Watch(args) => watch(args, service, output).await,
        ConfigCommand::Import(args) => {
            config_set::import(&args, &args.key.key(), service, output).await
        }
    }
}

/// The one place where values become plain: the user asked to see them.
#[derive(Serialize)]
struct ConfigurationDocument<'c> {
    application: &'c str,
    identifier: &'c str,
    revision: u64,
    values: BTreeMap<&'c str, &'c str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    masked: &'c [String],
}

impl<'c> ConfigurationDocument<'c> {
    fn new(configuration: &'c Configuration) -> Self {
        Self {
            application: &configuration.application,
            identifier: &configuration.identifier,
            revision: configuration.revision,
            values: configuration
                .values
                .iter()
                // Expose: onto standard output, as asked.
                .map(|(label, value)| (label.as_str(), value.expose()))
                .collect(),
            masked: &configuration.masked,
        }
    }
}

async fn get(args: GetArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let mode = if args.reveal { ReadMode::Runtime } else { ReadMode::Admin };
    let store = service.connect()?.config_store();
    let fields: Vec<&str> = args.field.as_deref().into_iter().collect();
    let configuration = store.get_fields(&args.key.key(), mode, &fields).await?;
    if let Some(field) = &args.field {
        require_value(&configuration, field)?;
    }
    output.document(&ConfigurationDocument::new(&configuration), |output| match &args.field {
        Some(field) => {
            // Expose: onto standard output, as asked.
            let value = configuration.value(field).map(sso_client::SecretText::expose);
            output.line(value.unwrap_or_default())
        }
        None => show(&configuration, output),
    })
}

fn require_value(configuration: &Configuration, field: &str) -> Result<(), Failure> {
    if configuration.value(field).is_some() {
        return Ok(());
    }
    let same = |label: &String| label.to_lowercase() == field.to_lowercase();
    match configuration.masked.iter().any(same) {
        true => Err(Failure::refused(
            format!("field '{field}' is masked; administrators do not see its value"),
            "an application user reads it with --reveal",
        )),
        false => Err(Failure::refused(
            format!("field '{field}' has no value"),
            "'sso app show APP' lists the fields",
        )),
    }
}

fn show(configuration: &Configuration, output: &Output) -> Result<(), Failure> {
    let values = configuration.values.iter().map(|(label, value)| {
        // Expose: onto standard output, as asked.
        vec![label.clone(), value.expose().to_owned()]
    });
    let masked = configuration
        .masked
        .iter()
        .map(|label| vec![label.clone(), "(masked; a user of the application sees it)".to_owned()]);
    output.table(&["KEY", "VALUE"], values.chain(masked))?;
    let mut note = format!("revision {}", configuration.revision);
    if let Some(at) = time(configuration.updated_at.as_ref()) {
        note.push_str(&format!(" of {at}"));
    }
    if !configuration.updated_by.is_empty() {
        note.push_str(&format!(" by {}", configuration.updated_by));
    }
    output.note(&note);
    Ok(())
}

#[derive(Debug, Serialize)]
struct IdentifiersDocument<'a> {
    application: &'a str,
    identifiers: Vec<IdentifierDocument>,
}

#[derive(Debug, Serialize)]
struct IdentifierDocument {
    identifier: String,
    revision: u64,
    updated_at: Option<String>,
    updated_by: String,
}

async fn list(application: &str, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let entries = service.connect()?.config_store().identifiers(application).await?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.identifier.clone(),
                entry.revision.to_string(),
                time_cell(entry.updated_at.as_ref()),
                or_dash(&entry.updated_by),
            ]
        })
        .collect();
    let identifiers = entries.into_iter().map(|entry| IdentifierDocument {
        updated_at: time(entry.updated_at.as_ref()),
        identifier: entry.identifier,
        revision: entry.revision,
        updated_by: entry.updated_by,
    });
    let document = IdentifiersDocument { application, identifiers: identifiers.collect() };
    output.document(&document, |output| {
        output.table(&["IDENTIFIER", "REVISION", "UPDATED", "BY"], rows)
    })
}

#[derive(Debug, Serialize)]
struct HistoryDocument<'a> {
    application: &'a str,
    identifier: &'a str,
    revisions: Vec<RevisionDocument>,
}

#[derive(Debug, Serialize)]
struct RevisionDocument {
    revision: u64,
    written_at: Option<String>,
    written_by: String,
    changed: Vec<String>,
    rolled_back_to: Option<u64>,
}

async fn history(
    key: &ConfigurationKey,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let entries = service.connect()?.config_store().history(key).await?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let mut changed = or_dash(&entry.changed.join(", "));
            if let Some(revision) = entry.rolled_back_to {
                changed.push_str(&format!(" (rolled back to {revision})"));
            }
            vec![
                entry.revision.to_string(),
                time_cell(entry.written_at.as_ref()),
                or_dash(&entry.written_by),
                changed,
            ]
        })
        .collect();
    let revisions = entries.into_iter().map(|entry| RevisionDocument {
        revision: entry.revision,
        written_at: time(entry.written_at.as_ref()),
        written_by: entry.written_by,
        changed: entry.changed,
        rolled_back_to: entry.rolled_back_to,
    });
    let document = HistoryDocument {
        application: &key.application,
        identifier: &key.identifier,
        revisions: revisions.collect(),
    };
    output
        .document(&document, |output| output.table(&["REVISION", "WRITTEN", "BY", "CHANGED"], rows))
}

#[derive(Debug, Serialize)]
struct RollbackDocument<'a> {
    application: &'a str,
    identifier: &'a str,
    revision: u64,
    rolled_back_to: u64,
}

async fn rollback(
    args: RollbackArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let key = args.key.key();
    let store = service.connect()?.config_store();
    let revision = store.rollback(&key, args.revision, args.if_revision).await?;
    let document = RollbackDocument {
        application: &key.application,
        identifier: &key.identifier,
        revision,
        rolled_back_to: args.revision,
    };
    output.document(&document, |output| {
        output.line(&format!("revision {revision} has the values of revision {}", args.revision))
    })
}

#[derive(Debug, Serialize)]
struct DeletedDocument<'a> {
    application: &'a str,
    identifier: &'a str,
    existed: bool,
    revision: u64,
}

async fn delete(args: DeleteArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let key = args.key.key();
    let question = format!("Delete {} of {} with its history?", key.identifier, key.application);
    confirm(&question, args.yes)?;
    let answer = service.connect()?.config_store().delete(&key, args.if_revision).await?;
    let document = DeletedDocument {
        application: &key.application,
        identifier: &key.identifier,
        existed: answer.existed,
        revision: answer.revision,
    };
    output.document(&document, |output| {
        output.line(&match answer.existed {
            true => format!("deleted, as revision {}", answer.revision),
            false => "there was nothing to delete".to_owned(),
        })
    })
}

#[derive(Debug, Serialize)]
struct ChangeDocument {
    application: String,
    identifier: String,
    revision: u64,
    deleted: bool,
}

async fn watch(args: WatchArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let target = WatchTarget { application: args.application, identifier: args.identifier };
    let mut watch = service
        .connect()?
        .config_store()
        .watch(vec![target])
        .await?
        .reconnecting(!args.no_reconnect);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(change) = watch.next().await? else {
            return Err(Failure::Unavailable("the server ended the watch".to_owned()));
        };
        left -= 1;
        if output.is_json() {
            output.json_line(&ChangeDocument {
                application: change.key.application,
                identifier: change.key.identifier,
                revision: change.revision,
                deleted: change.deleted,
            })?;
        } else {
            let deleted = if change.deleted { " deleted" } else { "" };
            output.line(&crate::output::escape(&format!(
                "{} {} revision {}{deleted}",
                change.key.application, change.key.identifier, change.revision
            )))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sso_client::SecretText;

    use super::*;

    fn sample() -> Configuration {
        Configuration {
            application: "App".into(),
            identifier: "Id".into(),
            revision: 7,
            values: BTreeMap::from([("Url".to_owned(), SecretText::new("https://x\n".into()))]),
            masked: vec!["ApiKey".into()],
            updated_at: None,
            updated_by: String::new(),
        }
    }

    #[test]
    fn json_of_get() {
        let mut configuration = sample();
        let json = serde_json::to_string(&ConfigurationDocument::new(&configuration)).unwrap();
        assert_eq!(
            json,
            r#"{"application":"App","identifier":"Id","revision":7,"values":{"Url":"https://x\n"},"masked":["ApiKey"]}"#
        );
        configuration.masked.clear();
        let json = serde_json::to_string(&ConfigurationDocument::new(&configuration)).unwrap();
        assert!(!json.contains("masked"), "{json}");
    }

    #[test]
    fn a_masked_or_missing_field_is_named() {
        let configuration = sample();
        assert!(require_value(&configuration, "URL").is_ok());
        let failure = require_value(&configuration, "apikey").unwrap_err();
        assert!(failure.message().contains("masked") && failure.exit_code() == 1);
        let failure = require_value(&configuration, "Other").unwrap_err();
        assert!(failure.message().contains("has no value"));
    }
}
