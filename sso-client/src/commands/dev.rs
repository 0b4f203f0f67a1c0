//! `sso dev`: a whole throw-away system on this machine, for as long as one wants to try something.

use std::{
    ffi::OsString,
    fs::Permissions,
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
                                     SSO_CA, SSO_CERT, SSO_KEY and PATH set; ends with its exit code
Profiles: admin, affiliate-admin, app-admin, user and host, for the accounts DEV\\admin … DEV\\host.
Its certificates are refused by programs that are not told to allow development.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Folder of the system; without it a fresh one that is removed at the end
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
    let options = Options { database: args.database, ..Options::default() };
    let starting = tokio::task::spawn_blocking(move || Running::start(&folder, programs, &options));
    let started = tokio::select! {
        started = starting => started.map_err(|error| Failure::Unavailable(error.to_string()))?,
        // The programs end with this one.
        code = signals.next() => return Err(Failure::Reported(code)),
    };
    let mut running = started.map_err(|error| told(error, output))?;
    let elapsed = Clock::System.instant().saturating_sub(start);
    output.note(&format!("sso dev: ready in {:.1} s", elapsed.as_secs_f64()));

    let outcome = match args.command.split_first() {
        Some((program, arguments)) => {
            running.run_command(program, arguments, &mut signals, output).await
        }
        None => {
            introduce(&running.installation, temporary.is_some(), output)?;
            running.until_signal(&mut signals, output).await
        }
    };
    let killed = tokio::task::spawn_blocking(move || running.stop()).await.unwrap_or_default();
    for name in killed {
        output.warn(None, &format!("{name} did not stop within {STOP_WITHIN:?} and was killed"));
    }
    if let Some(temporary) = temporary {
        temporary.close().map_err(|error| Failure::io("removing the temporary folder", error))?;
    }
    outcome
}

/// What no waiting mends: the database holds the values of another throw-away system.
fn hopeless(why: &str) -> Option<&'static str> {
    why.contains("MASTER_SECRET_FOREIGN").then_some(
        "the database belongs to another system: give the --dir that it was made with, or an empty \
         database",
    )
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

    async fn until_signal(
        &mut self,
        signals: &mut Signals,
        output: &Output,
    ) -> Result<u8, Failure> {
        tokio::select! {
            _ = signals.next() => Ok(0),
            error = Self::watch(&mut self.processes) => Err(told(error, output)),
        }
    }

    async fn run_command(
        &mut self,
        program: &OsString,
        arguments: &[OsString],
        signals: &mut Signals,
        output: &Output,
    ) -> Result<u8, Failure> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).kill_on_drop(true);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure::io(program.to_string_lossy().into_owned(), error))?;
        let watch = Self::watch(&mut self.processes);
        tokio::pin!(watch);
        let Signals { interrupt, terminate: stop } = signals;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(|error| Failure::io("waiting for the command", error))?;
                    return Ok(exit_code(status));
                }
                // Ctrl-C reaches the command by the terminal; it decides what it means.
                _ = interrupt.recv() => {}
                _ = stop.recv() => terminate(child.id()),
                error = &mut watch => {
                    let failure = told(error, output);
                    terminate(child.id());
                    let _ = tokio::time::timeout(STOP_WITHIN, child.wait()).await;
                    return Err(failure);
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
             Ctrl-C stops everything.",
            made.profiles().display(),
            made.programs().folder.display()
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
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
