//! `sso-master`: the command line of the master secret server.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sso_core::{
    clock::Clock,
    exit::Exit,
    memory::harden_process,
    officer::parse_private,
    secret::SecretText,
    settings::secret_file,
    telemetry,
    tls::{self, Application, TlsReloader},
};
use sso_master::{
    backup::{Backup, BackupError, Locks, Opener, PASSWORD},
    error::MasterError,
    init::{InitError, Target, init, require_new},
    join::join,
    keystore::{GenerationEntry, Keystore},
    protectors::{self, Which},
    restore::{require_place, restore},
    serve,
    settings::{DEFAULT_PATH, Role, Settings},
};
use sso_protector::{
    Kind,
    prompt::{Asker, Question, as_text},
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
    /// Generates the master secret: writes a backup, opens it again, then makes the keystore. With
    /// `role = "standby"`: takes the keystore over from the primary.
    Init(InitArguments),
    /// Unlocks the keystore and serves the SSO servers named in the settings.
    Run(SettingsArgument),
    /// Checks settings, certificates and keystore without serving.
    Check(CheckArguments),
    /// Lists, adds and removes what unlocks the keystore; the master may run meanwhile.
    #[command(subcommand)]
    Protector(ProtectorVerb),
    /// Looks into backup files; nothing is restored.
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Makes the keystore from a backup, on a new host or over one that is lost; the master must not
    /// run. Over a keystore that is there, its file is kept aside.
    Restore(RestoreArguments),
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
    /// The backup file to make; keep it on another machine. A standby makes none: its keys are those
    /// of the primary.
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// A private file with the password of the backup; without it you are asked.
    #[arg(long, value_name = "FILE")]
    backup_password_file: Option<PathBuf>,
    /// Helps to remember the password; anyone who has the backup can read it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reminder: String,
}

#[derive(Debug, Args)]
struct RestoreArguments {
    /// The backup file.
    file: PathBuf,
    #[command(flatten)]
    at: SettingsArgument,
    #[command(flatten)]
    opener: OpenerArguments,
    /// Goes on although the keystore that is there is damaged, or that of another system; it is kept
    /// beside the new one.
    #[arg(long)]
    set_aside: bool,
}

/// What opens the backup; without any of it you are asked for the password.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct OpenerArguments {
    /// A private file with the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A private file with a share; as many of them as the backup needs.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    share: Vec<PathBuf>,
    /// The private key of an officer of the backup.
    #[arg(long, value_name = "FILE")]
    officer_key: Option<PathBuf>,
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
enum ProtectorVerb {
    /// Shows the protectors of the keystore, and those of the settings that were not added.
    List {
        #[command(flatten)]
        at: SettingsArgument,
        /// Asks each of them for the key, as the next start will.
        #[arg(long)]
        r#try: bool,
        /// How the list is spelled.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Adds the `[[protector]]` entries of the settings that the keystore lacks, and proves them.
    Add {
        #[command(flatten)]
        at: SettingsArgument,
        /// Only entries of this kind; may be repeated.
        #[arg(long, value_name = "KIND")]
        kind: Vec<Kind>,
    },
    /// Removes a protector from the keystore, after another one opened it.
    Remove {
        #[command(flatten)]
        at: SettingsArgument,
        /// Its kind, or its number in the list.
        which: Which,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum BackupVerb {
    /// Opens the backup, and shows what it holds.
    Verify {
        /// The backup file.
        file: PathBuf,
        #[command(flatten)]
        opener: OpenerArguments,
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
        Verb::Protector(verb) => protector(verb),
        Verb::Backup(BackupVerb::Verify { file, opener }) => verify(&file, &opener),
        Verb::Backup(BackupVerb::Reminder { file }) => {
            let backup = Backup::read(&file)?;
            say(match backup.reminder() {
                "" => "(no reminder)",
                reminder => reminder,
            })
        }
        Verb::Restore(arguments) => put_back(&arguments),
    }
}

fn make(arguments: &InitArguments) -> Result<(), MasterError> {
    let settings = Settings::load(&arguments.at.settings)?;
    telemetry::init(&settings.telemetry)?;
    if settings.role == Role::Standby {
        return make_standby(&settings);
    }
    let backup = arguments.backup.clone().ok_or(InitError::NoBackup)?;
    let target = Target { keystore: settings.keystore.clone(), backup };
    require_new(&target)?;
    let protectors = settings.protectors(false)?;
    let password = new_password(arguments.backup_password_file.as_deref())?;
    Locks::password(password.clone(), &arguments.reminder).check()?;
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

fn make_standby(settings: &Settings) -> Result<(), MasterError> {
    let joined = join(settings, &settings.protectors(false)?)?;
    say(&format!(
        "keystore   {} (id {})\n\
         primary    {}, epoch {}\n\
         generation {} active, {} held\n\
         This master follows the primary from its next start on: `sso-master run`.",
        settings.keystore.display(),
        joined.keystore,
        joined.primary,
        joined.epoch,
        joined.active,
        joined.keys,
    ))
}

fn check(arguments: &CheckArguments) -> Result<(), MasterError> {
    let settings = Settings::load(&arguments.at.settings)?;
    telemetry::init(&settings.telemetry)?;
    say("settings   good")?;
    let tls = TlsReloader::load_listener(&settings.tls, Application::Grpc, Clock::System)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tls.fetch_lists());
    say("tls        good")?;
    for warning in tls.warnings() {
        say(&format!("warning    {warning}"))?;
    }
    let keystore = Keystore::read(&settings.keystore)?;
    say(&format!("keystore   {} (change {})", keystore.id(), keystore.change()))?;
    for entry in keystore.generations() {
        let GenerationEntry { generation, state, fingerprint, .. } = entry;
        say(&format!("generation {generation} {state}, fingerprint {fingerprint}"))?;
    }
    if arguments.unlock {
        serve::open(&settings, &keystore)?;
        say("unlocked   good")?;
    }
    Ok(())
}

fn protector(verb: ProtectorVerb) -> Result<(), MasterError> {
    let load = |at: SettingsArgument| -> Result<Settings, MasterError> {
        let settings = Settings::load(&at.settings)?;
        telemetry::init(&settings.telemetry)?;
        Ok(settings)
    };
    match verb {
        ProtectorVerb::List { at, r#try, output } => {
            let listed = protectors::list(&load(at)?, r#try)?;
            match output {
                Output::Table => say(&protectors::table(&listed)),
                Output::Json => say(&protectors::json(&listed)),
            }
        }
        ProtectorVerb::Add { at, kind } => {
            let settings = load(at)?;
            let added = protectors::add(&settings, &kind)?;
            if added.is_empty() {
                return say("nothing to add: the keystore has every [[protector]] of the settings");
            }
            for (kind, label) in added {
                say(format!("added      {kind} {label}").trim_end())?;
            }
            say("proved     each gave the key of the keystore back")
        }
        ProtectorVerb::Remove { at, which } => {
            let kind = protectors::remove(&load(at)?, which)?;
            say(&format!(
                "removed    {kind}: another protector opened the keystore before\n\
                 Remove its [[protector]] from the settings too."
            ))
        }
    }
}

fn put_back(arguments: &RestoreArguments) -> Result<(), MasterError> {
    let settings = Settings::load(&arguments.at.settings)?;
    telemetry::init(&settings.telemetry)?;
    let backup = Backup::read(&arguments.file)?;
    let (path, set_aside) = (&settings.keystore, arguments.set_aside);
    require_place(path, &backup, set_aside)?;
    let protectors = settings.protectors(false)?;
    let opener = arguments.opener.read(&backup)?;
    let restored = restore(path, &protectors, &backup, &opener, set_aside, &Clock::System)?;
    say(&format!(
        "keystore   {} (id {}), epoch {}",
        path.display(),
        restored.keystore,
        restored.epoch
    ))?;
    for (generation, fingerprint) in &restored.generations {
        let state = if *generation == restored.active { "active" } else { "draining" };
        say(&format!("generation {generation} {state}, fingerprint {fingerprint}"))?;
    }
    if let Some(aside) = &restored.kept_aside {
        say(&format!("kept aside {}", aside.display()))?;
    }
    if let Some(warning) = backup.warning(&opener) {
        say(&format!("warning    {warning}"))?;
    }
    say("This master is the primary from its next start on: `sso-master run`. If another one was \
         promoted meanwhile, run `sso secret promote`.")
}

impl OpenerArguments {
    fn read(&self, backup: &Backup) -> Result<Opener, MasterError> {
        if let Some(path) = &self.officer_key {
            let text = as_text("the officer's key", &secret_file(path)?)?;
            let private =
                parse_private(&text).map_err(|error| BackupError::WrongKey(error.to_string()))?;
            return Ok(Opener::BackupKey(backup.open_envelope(&private)?));
        }
        if !self.share.is_empty() {
            let share = |path: &PathBuf| Ok(as_text("the share", &secret_file(path)?)?);
            let shares: Result<_, MasterError> = self.share.iter().map(share).collect();
            return Ok(Opener::Shares(shares?));
        }
        let question = Question { what: PASSWORD, instead: "--password-file" };
        Ok(Opener::Password(match &self.password_file {
            Some(path) => as_text(PASSWORD, &secret_file(path)?)?,
            None => Asker::Terminal.ask(question)?,
        }))
    }
}

fn verify(file: &Path, opener: &OpenerArguments) -> Result<(), MasterError> {
    let backup = Backup::read(file)?;
    let ring = backup.open(&opener.read(&backup)?)?;
    say(&format!("keystore   {}", backup.keystore()))?;
    let created = backup.created().format(&Rfc3339).unwrap_or_default();
    say(&format!("created    {created} by {}", backup.tool()))?;
    say(&format!("opens with {}", backup.locks()))?;
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
