//! `sso secret`: the life of the master secret, at a master secret server.

mod advice;
mod args;
mod check;
mod document;
mod generations;
mod locks;
mod made;
mod officer;
mod opener;
mod restore;
mod rotate;
mod status;
mod status_shown;
mod wait;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use sso_client::{Client, SecretText, secret::Secret};

use self::{
    args::{BackupArgs, DestroyArgs, PromoteArgs, RestoreArgs, RotateArgs, VerifyArgs},
    document::Document,
    made::{Target, back_up},
};
use super::Service;
use crate::{failure::Failure, output::Output};

const AFTER_HELP: &str = "\
The master secret server is found by --master, the key 'master' of the profile, or SSO_MASTER:
unix:///PATH of the socket on its machine ([administration] socket in its settings), or
https://HOST:PORT where its settings allow that, with the certificate of the profile.

Examples:
  sso secret status
  sso secret rotate --backup /safe/2031-05.backup --wait --retire
  sso secret backup /safe/now.backup --password-file backup.password --reminder 'the usual one'
  sso secret verify /safe/now.backup --against-database
  sso secret reminder /safe/now.backup
  sso secret restore /safe/now.backup
  sso secret destroy 1
  sso secret reload-tls
  sso secret --master unix:///run/sso-master/standby.sock promote";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SecretArgs {
    /// Address of the master secret server, unix:///PATH or https://HOST:PORT [env: SSO_MASTER]
    #[arg(long, global = true, value_name = "URL")]
    master: Option<String>,
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Show generations, masters, servers, sealing again and backups
    Status,
    /// Replace the master secret: a new generation, backed up, handed out and activated
    Rotate(Box<RotateArgs>),
    /// Write a backup of every generation, and open it again
    Backup(BackupArgs),
    /// Open a backup and compare it with the keystore
    Verify(VerifyArgs),
    /// Add the generations of a backup that the keystore lacks
    Restore(RestoreArgs),
    /// Show the reminder of a backup; it needs neither password nor server
    Reminder {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Close a generation that nothing is sealed under any more
    Retire {
        /// Number of the generation
        #[arg(value_name = "GENERATION")]
        generation: u32,
    },
    /// Take the key of a retired generation away for good
    Destroy(DestroyArgs),
    /// Make the master that answers the primary
    Promote(PromoteArgs),
    /// Have the master load its certificate, key, authorities and revocation lists again
    ReloadTls,
    /// Make the key pair of an officer: FILE, which the officer keeps, and FILE.pub
    OfficerKey {
        /// The private file; never over another
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) async fn run(
    args: SecretArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let master = Master { service, address: args.master.as_deref() };
    match args.command {
        SecretCommand::Status => status::run(&master, output).await,
        SecretCommand::Rotate(args) => rotate::run(*args, &master, output).await,
        SecretCommand::Backup(args) => backup(args, &master, output).await,
        SecretCommand::Verify(args) => check::run(args, &master, output).await,
        SecretCommand::Restore(args) => restore::run(args, &master, output).await,
        SecretCommand::Reminder { file } => reminder(&file, output),
        SecretCommand::Retire { generation } => {
            generations::retire(generation, &master, output).await
        }
        SecretCommand::Destroy(args) => generations::destroy(args, &master, output).await,
        SecretCommand::Promote(args) => generations::promote(args, &master, output).await,
        SecretCommand::ReloadTls => {
            super::tls_shown::reloaded(master.connect()?.reload_tls().await?, output)
        }
        SecretCommand::OfficerKey { file } => officer::make(&file, output),
    }
}

/// The master secret server, and with it the server of the same profile.
pub(super) struct Master<'s> {
    service: &'s Service<'s>,
    address: Option<&'s str>,
}

impl Master<'_> {
    fn connect(&self) -> Result<Secret, Failure> {
        Ok(self.service.connect_master(self.address)?.secret())
    }

    fn server(&self) -> Result<Client, Failure> {
        self.service.connect()
    }

    /// How long waiting may take; without end where nothing is said.
    fn patience(&self) -> Option<std::time::Duration> {
        self.service.global.timeout
    }
}

#[derive(Debug, Serialize)]
struct BackupDocument<'a> {
    backup: &'a Path,
    shares: Vec<PathBuf>,
    verified: bool,
    generations: Vec<u32>,
}

async fn backup(args: BackupArgs, master: &Master<'_>, output: &Output) -> Result<(), Failure> {
    let target = Target::new(&args.file, args.locks.shares())?;
    let locks = args.locks.read(output)?;
    let secret = master.connect()?;
    let made = secret.backup(&locks).await?;
    let written = back_up(&secret, &made, &target, &locks).await?;
    let generations: Vec<_> = written.generations();
    let verified = written.is_verified();
    if !verified {
        output.warn(
            None,
            "nobody opened this backup yet, so it does not count: an officer does that with sso secret \
             verify FILE --officer-key KEY",
        );
    }
    let shares = written.keep();
    let document = BackupDocument { backup: &args.file, shares, verified, generations };
    output.document(&document, |output| {
        output.pairs(vec![
            ("backup", args.file.display().to_string()),
            ("shares", super::shown::or_dash(&paths(&document.shares))),
            ("opened again", super::shown::yes(verified)),
            ("generations", numbers(&document.generations)),
        ])
    })
}

fn reminder(file: &Path, output: &Output) -> Result<(), Failure> {
    let document = Document::read(file)?;
    output.document(&serde_json::json!({ "reminder": document.reminder }), |output| {
        if document.reminder.is_empty() {
            output.note("the backup has no reminder");
            return Ok(());
        }
        output.line(&crate::output::escape(&document.reminder))
    })
}

/// What the tools of the reference product do with the same code.
pub(super) mod for_tools {
    use sso_client::secret::{Locks, Opener};

    use super::*;

    pub(in crate::commands) use super::{advice::weaknesses, made::check_free};

    /// The reminder of a backup.
    pub(in crate::commands) fn reminder_of(file: &Path) -> Result<String, Failure> {
        Ok(Document::read(file)?.reminder)
    }

    fn locks(password: SecretText, reminder: String) -> Result<Locks, Failure> {
        let locks = Locks { password: Some(password), reminder, ..Locks::default() };
        super::locks::check(&locks)?;
        Ok(locks)
    }

    fn master<'s>(service: &'s Service<'s>) -> Master<'s> {
        Master { service, address: None }
    }

    /// A new generation behind a backup; gives its number, and what its activation waits for.
    pub(in crate::commands) async fn generate(
        file: &Path,
        password: SecretText,
        reminder: String,
        service: &Service<'_>,
    ) -> Result<(u32, Vec<String>), Failure> {
        let (target, locks) = (Target::new(file, None)?, locks(password, reminder)?);
        let secret = master(service).connect()?;
        let (generation, written) = rotate::prepare(&secret, &target, &locks).await?;
        written.keep();
        Ok((generation, secret.rotate(generation, &[], 0).await?.waiting_for))
    }

    /// A backup of every generation; gives their numbers.
    pub(in crate::commands) async fn back_up_to(
        file: &Path,
        password: SecretText,
        reminder: String,
        service: &Service<'_>,
    ) -> Result<Vec<u32>, Failure> {
        let (target, locks) = (Target::new(file, None)?, locks(password, reminder)?);
        let secret = master(service).connect()?;
        let made = secret.backup(&locks).await?;
        let written = back_up(&secret, &made, &target, &locks).await?;
        let generations = written.generations();
        written.keep();
        Ok(generations)
    }

    /// Adds the generations of a backup; gives their numbers.
    pub(in crate::commands) async fn restore_from(
        file: &Path,
        password: SecretText,
        service: &Service<'_>,
    ) -> Result<Vec<u32>, Failure> {
        let document = Document::read(file)?;
        let secret = master(service).connect()?;
        Ok(secret.restore(&document.text, &Opener::Password(password)).await?.generations)
    }
}

fn numbers(generations: &[u32]) -> String {
    let words: Vec<_> = generations.iter().map(u32::to_string).collect();
    super::shown::or_dash(&words.join(", "))
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
