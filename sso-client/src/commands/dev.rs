//! `sso dev`: a whole throw-away system on this machine, for as long as one wants to try something.

use std::{
    ffi::{OsStr, OsString},
    fs::Permissions,
    io,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use clap::Args;
use rustix::process::{Pid, Signal};
use serde_json::json;
use sso_client::development::{
    ACCOUNTS, DOMAIN, DevelopmentError, Installation, Options, Probe, Process, Programs,
};
use sso_core::clock::Clock;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::{failure::Failure, output::Output};

/// How long each program has to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long each program has to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the programs are looked at.
const LOOK: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  sso dev                            a fresh system until Ctrl-C
  sso dev --dir ~/sso-dev            the same data again the next time
  sso dev -- examples/tour.sh        runs a command with SSO_CONFIG, SSO_PROFILE=admin, SSO_ADDR,
                                     SSO_CA, SSO_CERT, SSO_KEY and PATH set; ends with its exit code,
                                     127 when it is not found, 126 when it cannot be executed
Profiles: admin, affiliate-admin, app-admin, user and host, for the accounts DEV\\admin … DEV\\host.
Tokens of users WEB\\NAME are signed with tokens/issuer.key in its folder (see
examples/payment-gateway/run.sh).
Its certificates are refused by programs that are not told to allow development.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Folder of the system, writable by nobody else; without it a fresh one that is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Database, such as postgres://sso@localhost/sso; without it SQLite in the folder. Only the
    /// folder it was first used with opens it again: give --dir too
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Command to run with the environment set; the system stops when it ends
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) async fn run(args: DevArgs, output: &Output) -> Result<u8, Failure> {
    // Before anything starts, so that nothing is left behind when it is interrupted.
    let mut signals = Signals::install()?;
    let start = Clock::System.instant();
    let programs = Programs::beside_this_one()?;
    if let Some(program) = args.command.first() {
        find(program, &search_path(&programs.folder))
            .map_err(|source| cannot_run(program, source))?;
    }
    let (folder, temporary) = match &args.dir {
        Some(folder) => (folder.clone(), None),
        None => {
            let made = tempfile::Builder::new()
                .prefix("sso-dev-")
                .permissions(Permissions::from_mode(0o700))
                .tempdir()
                .map_err(|error| Failure::io("a temporary folder", error))?;
            (made.path().to_owned(), Some(made))
        }
    };
    output.note("sso dev: starting sso-master and sso-server …");
    let options = Options { database: args.database, tokens: true, ..Options::default() };
    let starting = tokio::task::spawn_blocking(move || Running::start(&folder, programs, &options));
    let started = tokio::select! {
        started = starting => started.map_err(|error| Failure::Unavailable(error.to_string()))?,
        // The programs end with this one.
        code = signals.next() => return Err(Failure::Reported(code)),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            keep_log(&error, temporary, output);
            return Err(told(error, output));
        }
    };
    let elapsed = Clock::System.instant().saturating_sub(start);
    output.note(&format!("sso dev: ready in {:.1} s", elapsed.as_secs_f64()));

    let outcome = match args.command.split_first() {
        Some((program, arguments)) => running.run_command(program, arguments, &mut signals).await,
        None => {
            introduce(&running.installation, temporary.is_some(), output)?;
            running.until_signal(&mut signals).await
        }
    };
    let killed = tokio::task::spawn_blocking(move || running.stop()).await.unwrap_or_default();
    for name in killed {
        output.warn(None, &format!("{name} did not stop within {STOP_WITHIN:?} and was killed"));
    }
    let temporary = match &outcome {
        Err(Stopped::Broken(error)) => keep_log(error, temporary, output),
        Ok(_) | Err(Stopped::Failed(_)) => temporary,
    };
    if let Some(temporary) = temporary {
        temporary.close().map_err(|error| Failure::io("removing the temporary folder", error))?;
    }
    outcome.map_err(|stopped| match stopped {
        Stopped::Broken(error) => told(error, output),
        Stopped::Failed(failure) => failure,
    })
}

/// Keeps the temporary folder when the error names a log in it, and says so; else gives it back.
fn keep_log(
    error: &DevelopmentError,
    temporary: Option<TempDir>,
    output: &Output,
) -> Option<TempDir> {
    let temporary = temporary?;
    if error.log().is_none() {
        return Some(temporary);
    }
    let folder = temporary.keep();
    output.warn(
        None,
        &format!("{} is kept for its logs; remove it when they are read", folder.display()),
    );
    None
}

/// What no waiting mends: the database holds the values of another throw-away system.
fn hopeless(why: &str) -> Option<&'static str> {
    why.contains("MASTER_SECRET_FOREIGN").then_some(
        "the database belongs to another system: give the --dir that it was made with, or an empty \
         database",
    )
}

/// Why the work with a running system ended early.
enum Stopped {
    /// A program of the system ended.
    Broken(DevelopmentError),
    /// Something else went wrong.
    Failed(Failure),
}

struct Running {
    installation: Installation,
    /// In the order of their start.
    processes: Vec<Process>,
}

impl Running {
    fn start(
        folder: &Path,
        programs: Programs,
        options: &Options,
    ) -> Result<Self, DevelopmentError> {
        let installation = Installation::prepare(folder, programs, options)?;
        let mut master = installation.start_master()?;
        master.wait_until(Probe::Ready, READY_WITHIN)?;
        let mut processes = vec![master];
        for number in 1..=installation.server_count() {
            let mut server = installation.start_server(number)?;
            server.wait_until_or(Probe::Ready, READY_WITHIN, hopeless)?;
            processes.push(server);
        }
        Ok(Self { installation, processes })
    }

    /// Ends with the first program that ends.
    async fn watch(processes: &mut [Process]) -> DevelopmentError {
        loop {
            for process in &mut *processes {
                if let Err(error) = process.running() {
                    return error;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_signal(&mut self, signals: &mut Signals) -> Result<u8, Stopped> {
        tokio::select! {
            _ = signals.next() => Ok(0),
            error = Self::watch(&mut self.processes) => Err(Stopped::Broken(error)),
        }
    }

    async fn run_command(
        &mut self,
        program: &OsString,
        arguments: &[OsString],
        signals: &mut Signals,
    ) -> Result<u8, Stopped> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).kill_on_drop(true);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        let mut child =
            command.spawn().map_err(|source| Stopped::Failed(cannot_run(program, source)))?;
        let watch = Self::watch(&mut self.processes);
        tokio::pin!(watch);
        let Signals { interrupt, terminate: stop } = signals;
        loop {
            tokio::select! {
                status = child.wait() => {
                    return status.map(exit_code).map_err(|error| {
                        Stopped::Failed(Failure::io("waiting for the command", error))
                    });
                }
                // Ctrl-C reaches the command by the terminal; it decides what it means.
                _ = interrupt.recv() => {}
                _ = stop.recv() => terminate(child.id()),
                error = &mut watch => {
                    terminate(child.id());
                    let _ = tokio::time::timeout(STOP_WITHIN, child.wait()).await;
                    return Err(Stopped::Broken(error));
                }
            }
        }
    }

    /// What the command finds in its environment.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let installation = &self.installation;
        let address = installation.server_address(1).unwrap_or_default();
        vec![
            ("SSO_CONFIG", installation.profiles().into()),
            ("SSO_PROFILE", "admin".into()),
            ("SSO_ADDR", address.into()),
            ("SSO_CA", installation.tls_file("ca.crt").into()),
            ("SSO_CRL", installation.tls_file("ca.crl").into()),
            ("SSO_CERT", installation.tls_file("admin.crt").into()),
            ("SSO_KEY", installation.tls_file("admin.key").into()),
            ("PATH", search_path(&installation.programs().folder)),
        ]
    }

    /// Stops the servers and then the master; gives the names of those that had to be killed.
    fn stop(mut self) -> Vec<String> {
        let stop = |process: &mut Process| {
            let gone = process.running().is_err() || process.stop(STOP_WITHIN).is_some();
            (!gone).then(|| process.name().to_owned())
        };
        self.processes.iter_mut().rev().filter_map(stop).collect()
    }
}

/// What was made and what to do with it.
fn introduce(made: &Installation, temporary: bool, output: &Output) -> Result<(), Failure> {
    let server = made.server_address(1).unwrap_or_default();
    let names: Vec<_> = ACCOUNTS.iter().map(|(name, _)| *name).collect();
    let document = json!({
        "folder": made.folder(),
        "temporary": temporary,
        "server": server,
        "master": made.master_address(),
        "master_socket": made.master_socket(),
        "database": made.database(),
        "config": made.profiles(),
        "profiles": names,
    });
    output.document(&document, |output| {
        let kept = if temporary { " (removed at the end)" } else { "" };
        output.pairs(vec![
            ("folder", format!("{}{kept}", made.folder().display())),
            ("server", server.clone()),
            ("master", made.master_address()),
            ("database", made.database().to_owned()),
            ("profiles", format!("{} (accounts {DOMAIN}\\NAME)", names.join(", "))),
        ])?;
        output.line(&format!(
            "\nIn another terminal:\n\
             \x20 export SSO_CONFIG='{}' PATH='{}':\"$PATH\"\n\
             \x20 sso --profile admin status\n\
             \x20 sso --profile affiliate-admin app create --file examples/order-routing.xml\n\
             \x20 sso --profile app-admin app list\n\
             \x20 sso --profile admin secret status\n\
             Groups, and who is in them: {}\n\
             Ctrl-C stops everything.",
            made.profiles().display(),
            made.programs().folder.display(),
            made.folder().join("groups.toml").display()
        ))
    })
}

/// Shows the end of the log; the failure names the file.
fn told(error: DevelopmentError, output: &Output) -> Failure {
    for line in error.log_tail().lines() {
        output.note(&format!("    {line}"));
    }
    error.into()
}

impl From<DevelopmentError> for Failure {
    fn from(error: DevelopmentError) -> Self {
        let message = error.to_string();
        match error {
            DevelopmentError::Busy(_) => {
                Self::refused(message, "stop it first, or name another --dir")
            }
            DevelopmentError::Folder { .. } => {
                Self::refused(message, "name a folder for --dir that only you can write")
            }
            DevelopmentError::File { path, source } => Self::io(path.display().to_string(), source),
            DevelopmentError::Certificate(error) => error.into(),
            DevelopmentError::ProgramsMissing { .. }
            | DevelopmentError::System { .. }
            | DevelopmentError::Ended { .. }
            | DevelopmentError::NotReady { .. } => Self::Unavailable(message),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "handed on to the command, with one folder in front")]
fn search_path(first: &Path) -> OsString {
    let mut path = first.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

fn cannot_run(program: &OsStr, source: io::Error) -> Failure {
    Failure::Command { program: program.to_string_lossy().into_owned(), source }
}

/// Whether the program is found, on the search path where it is a mere name, and executable.
fn find(program: &OsStr, search: &OsStr) -> io::Result<()> {
    let program = Path::new(program);
    let places = match program.components().count() > 1 || program.is_absolute() {
        true => vec![program.to_owned()],
        false => std::env::split_paths(search).map(|folder| folder.join(program)).collect(),
    };
    let modes: Vec<_> = places
        .into_iter()
        .filter_map(|place| place.metadata().ok().filter(|metadata| !metadata.is_dir()))
        .map(|metadata| metadata.permissions().mode())
        .collect();
    match modes.iter().any(|mode| mode & 0o111 != 0) {
        true => Ok(()),
        false if modes.is_empty() => Err(io::ErrorKind::NotFound.into()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn terminate(child: Option<u32>) {
    let pid = child.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself in the meantime.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

/// Ctrl-C and the request to stop.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("signal handlers", error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The exit code that goes with whichever comes first.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_command_that_cannot_run_is_seen_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let search = folder.path().as_os_str();
        let file = folder.path().join("tour");
        let kind = |program: &OsStr| find(program, search).map_err(|error| error.kind());
        for program in [OsStr::new("tour"), OsStr::new("/nonexistent"), file.as_os_str()] {
            assert_eq!(kind(program), Err(io::ErrorKind::NotFound), "{}", program.display());
        }
        std::fs::write(&file, "").unwrap();
        for program in [OsStr::new("tour"), file.as_os_str()] {
            assert_eq!(
                kind(program),
                Err(io::ErrorKind::PermissionDenied),
                "{}",
                program.display()
            );
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
        assert_eq!((kind(OsStr::new("tour")), kind(file.as_os_str())), (Ok(()), Ok(())));
    }

    #[test]
    fn only_a_folder_whose_log_is_named_is_kept() {
        let cli = crate::cli::Cli::parse_from(["sso", "dev", "--output", "json"]);
        let output = Output::new(&cli.global);
        let made = || tempfile::tempdir().unwrap();
        let busy = DevelopmentError::Busy(PathBuf::new());
        assert!(keep_log(&busy, Some(made()), &output).is_some());
        let folder = made();
        let path = folder.path().to_owned();
        let ended = DevelopmentError::Ended {
            name: "sso-master".into(),
            what: "ended".into(),
            log: path.join("log"),
            tail: String::new(),
        };
        assert!(keep_log(&ended, Some(folder), &output).is_none());
        std::fs::remove_dir(path).unwrap();
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
