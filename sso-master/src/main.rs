//! `sso-master`: the command line of the master secret server.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use sso_core::{
    clock::Clock, exit::Exit, memory::harden_process, secret::SecretText, settings::secret_file,
    telemetry, tls,
};
use sso_master::{
    backup::{Backup, PASSWORD, check_password, check_reminder},
    error::MasterError,
    init::{Target, init, require_new},
    keystore::Keystore,
    prompt::{Asker, Question, as_text},
    serve,
    settings::{DEFAULT_PATH, Settings},
};
use sso_proto::Event;
use time::format_description::well_known::Rfc3339;

/// The master secret server: keeps the master secret and hands it to SSO servers.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Generates the master secret: writes a backup, opens it again, then makes the keystore.
    Init(InitArguments),
    /// Unlocks the keystore and serves the SSO servers named in the settings.
    Run(SettingsArgument),
    /// Checks settings, certificates and keystore without serving.
    Check(CheckArguments),
    /// Looks into backup files; nothing is restored.
    #[command(subcommand)]
    Backup(BackupVerb),
}

#[derive(Debug, Args)]
struct SettingsArgument {
    /// The settings file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    settings: PathBuf,
}

#[derive(Debug, Args)]
struct InitArguments {
    #[command(flatten)]
    at: SettingsArgument,
    /// The backup file to make; keep it on another machine.
    #[arg(long, value_name = "FILE")]
    backup: PathBuf,
    /// A private file with the password of the backup; without it you are asked.
    #[arg(long, value_name = "FILE")]
    backup_password_file: Option<PathBuf>,
    /// Helps to remember the password; anyone who has the backup can read it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reminder: String,
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    at: SettingsArgument,
    /// Unlocks the keystore as well.
    #[arg(long)]
    unlock: bool,
}

#[derive(Debug, Subcommand)]
enum BackupVerb {
    /// Opens the backup with its password, and shows what it holds.
    Verify {
        /// The backup file.
        file: PathBuf,
        /// A private file with the password; without it you are asked.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Shows the reminder; needs no password.
    Reminder {
        /// The backup file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(cli.verb) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "sso-master: {error}");
            error.exit().into()
        }
    }
}

fn perform(verb: Verb) -> Result<(), MasterError> {
    harden_process()?;
    tls::install_provider();
    match verb {
        Verb::Init(arguments) => make(&arguments),
        Verb::Run(at) => serve::run(&at.settings).inspect_err(|error| {
            tracing::error!(event = Event::StartFailed.number(), %error, "ended");
        }),
        Verb::Check(arguments) => check(&arguments),
        Verb::Backup(BackupVerb::Verify { file, password_file }) => {
            verify(&file, password_file.as_deref())
        }
        Verb::Backup(BackupVerb::Reminder { file }) => {
            let backup = Backup::read(&file)?;
            say(match backup.reminder() {
                "" => "(no reminder)",
                reminder => reminder,
            })
        }
    }
}

fn make(arguments: &InitArguments) -> Result<(), MasterError> {
    let settings = Settings::load(&arguments.at.settings)?;
    telemetry::init(&settings.telemetry)?;
    let backup = arguments.backup.clone();
    let target = Target { keystore: settings.keystore.clone(), backup };
    require_new(&target)?;
    let protectors = settings.protector.protectors(false)?;
    let password = new_password(arguments.backup_password_file.as_deref())?;
    check_password(&password)?;
    check_reminder(&arguments.reminder, &password)?;
    let made = init(&target, &protectors, &password, &arguments.reminder, &Clock::System)
        .inspect_err(|error| {
            tracing::error!(event = Event::MasterSecretNotGenerated.number(), %error, "no master secret");
        })?;
    say(&format!(
        "keystore   {} (id {})\n\
         generation {}, fingerprint {}\n\
         backup     {}: written, opened again, good\n\
         Keep the backup away from this machine, and its password away from the backup.",
        target.keystore.display(),
        made.keystore,
        made.generation,
        made.fingerprint,
        target.backup.display(),
    ))
}

fn check(arguments: &CheckArguments) -> Result<(), MasterError> {
    let settings = Settings::load(&arguments.at.settings)?;
    telemetry::init(&settings.telemetry)?;
    say("settings   good")?;
    tls::TlsReloader::load(&settings.tls)?;
    say("tls        good")?;
    let keystore = Keystore::read(&settings.keystore)?;
    say(&format!("keystore   {} (change {})", keystore.id(), keystore.change()))?;
    for entry in keystore.generations() {
        let state = format!("{:?}", entry.state).to_lowercase();
        say(&format!(
            "generation {} {state}, fingerprint {}",
            entry.generation, entry.fingerprint
        ))?;
    }
    if arguments.unlock {
        serve::open(&settings, &keystore)?;
        say("unlocked   good")?;
    }
    Ok(())
}

fn verify(file: &Path, password_file: Option<&Path>) -> Result<(), MasterError> {
    let backup = Backup::read(file)?;
    let instead = "--password-file";
    let password = match password_file {
        Some(path) => as_text(PASSWORD, &secret_file(path)?)?,
        None => Asker::Terminal.ask(Question { what: PASSWORD, instead })?,
    };
    let ring = backup.open(&password)?;
    say(&format!("keystore   {}", backup.keystore()))?;
    let created = backup.created().format(&Rfc3339).unwrap_or_default();
    say(&format!("created    {created}"))?;
    for (generation, fingerprint) in ring.generations() {
        let active = if generation == ring.active() { " active," } else { "" };
        say(&format!("generation {generation}{active} fingerprint {fingerprint}"))?;
    }
    say("backup     good: every key opens")
}

fn new_password(file: Option<&Path>) -> Result<SecretText, MasterError> {
    let question = Question { what: PASSWORD, instead: "--backup-password-file" };
    Ok(match file {
        Some(path) => as_text(PASSWORD, &secret_file(path)?)?,
        None => Asker::Terminal.ask_new(question)?,
    })
}

/// One line of what was asked for, to standard output.
fn say(line: &str) -> Result<(), MasterError> {
    match writeln!(io::stdout(), "{line}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
