//! A program of the system that runs as a child process.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use sso_core::clock::Clock;

use super::{DevelopmentError, Probe};

const POLL: Duration = Duration::from_millis(10);
/// Lines of a log that an error shows.
const TAIL: usize = 15;

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    operations: SocketAddr,
    log: Log,
}

/// A log file, and where in it this run begins.
#[derive(Clone, Debug)]
struct Log {
    path: PathBuf,
    start: usize,
}

impl Process {
    /// Starts `PROGRAM run --settings SETTINGS`; what it says is appended to the log file.
    pub(super) fn start(
        name: &str,
        program: &Path,
        settings: &Path,
        operations: SocketAddr,
        log: PathBuf,
    ) -> Result<Self, DevelopmentError> {
        let mut command = Command::new(program);
        command.arg("run").arg("--settings").arg(settings);
        let log = Log::at_its_end(log);
        let child = spawn(quiet(command, &log)?).map_err(DevelopmentError::file(program))?;
        Ok(Self { name: name.to_owned(), child, operations, log })
    }

    /// The name of the program, with its number where there are several.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what the program said.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log.path
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn operations(&self) -> SocketAddr {
        self.operations
    }

    /// # Errors
    /// [`DevelopmentError::Ended`] when the program is not running any more.
    pub fn running(&mut self) -> Result<(), DevelopmentError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(ended(&self.name, status, &self.log)),
            Err(source) => Err(DevelopmentError::System { what: "news of a child", source }),
        }
    }

    /// Waits until the probe is answered with yes.
    ///
    /// # Errors
    /// When the program ends before, or at the deadline, with the end of its log.
    pub fn wait_until(&mut self, probe: Probe, deadline: Duration) -> Result<(), DevelopmentError> {
        self.wait_until_or(probe, deadline, |_| None)
    }

    /// As [`Self::wait_until`], but gives up at once where `hopeless` knows what an answer means.
    ///
    /// # Errors
    /// As [`Self::wait_until`], and what `hopeless` says.
    pub fn wait_until_or(
        &mut self,
        probe: Probe,
        deadline: Duration,
        hopeless: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<(), DevelopmentError> {
        let clock = Clock::System;
        let start = clock.instant();
        loop {
            self.running()?;
            let Err(why) = probe.ask(self.operations) else { return Ok(()) };
            if let Some(what) = hopeless(&why) {
                return Err(DevelopmentError::Ended {
                    name: self.name.clone(),
                    what: format!("cannot become ready: {what}"),
                    log: self.log.path.clone(),
                    tail: String::new(),
                });
            }
            if clock.instant().saturating_sub(start) > deadline {
                return Err(DevelopmentError::NotReady {
                    name: self.name.clone(),
                    seconds: deadline.as_secs(),
                    why,
                    log: self.log.path.clone(),
                    tail: self.log.tail(),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the program to stop (SIGTERM) without waiting for it.
    pub fn terminate(&mut self) {
        // A child that is not yet waited for keeps its id, so no other process is hit.
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), pid(&self.child)) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    /// Asks the program to stop and gives it `grace` to do so; kills it then. `None`: it had to be
    /// killed.
    pub fn stop(&mut self, grace: Duration) -> Option<ExitStatus> {
        let clock = Clock::System;
        let start = clock.instant();
        self.terminate();
        while clock.instant().saturating_sub(start) < grace {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        self.kill();
        None
    }

    /// Kills the program at once (SIGKILL), as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end; what it says is appended to the log file.
pub(super) fn complete(name: &str, command: Command, log: &Path) -> Result<(), DevelopmentError> {
    let program = PathBuf::from(command.get_program());
    let log = &Log::at_its_end(log.to_owned());
    let status = spawn(quiet(command, log)?)
        .and_then(|mut child| child.wait())
        .map_err(DevelopmentError::file(program))?;
    if status.success() { Ok(()) } else { Err(ended(name, status, log)) }
}

/// Without input, with output to the log, and out of reach of the terminal's Ctrl-C: who started it
/// stops it, in order.
fn quiet(mut command: Command, log: &Log) -> Result<Command, DevelopmentError> {
    let log = &log.path;
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(DevelopmentError::file(log))?;
    let errors = file.try_clone().map_err(DevelopmentError::file(log))?;
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .process_group(0)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env("RUST_BACKTRACE", "0");
    Ok(command)
}

struct Order {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

/// The kernel signals the death of a parent when the *thread* that started the child ends. So all
/// children are started by one thread that lasts as long as this process.
static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for Order { mut command, answer } in orders {
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

fn spawn(command: Command) -> io::Result<Child> {
    let (answer, child) = mpsc::channel();
    SPAWNER.send(Order { command, answer }).map_err(|_| io::Error::other("no thread"))?;
    child.recv().map_err(io::Error::other)?
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn ended(name: &str, status: ExitStatus, log: &Log) -> DevelopmentError {
    DevelopmentError::Ended {
        name: name.to_owned(),
        what: format!("ended with {status}"),
        log: log.path.clone(),
        tail: log.tail(),
    }
}

impl Log {
    fn at_its_end(path: PathBuf) -> Self {
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, start: usize::try_from(length).unwrap_or_default() }
    }

    /// The last lines of this run.
    fn tail(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(self.start..).unwrap_or_default());
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An executable script. Another process writes it: what this one writes could still be open in a
    /// child that another test starts just now, and is then too busy to be executed.
    pub(in crate::development) fn script(path: &Path, text: &str) {
        let written = Command::new("sh")
            .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 700 "$0""#])
            .arg(path)
            .arg(text)
            .status();
        assert!(written.unwrap().success());
    }

    fn started(folder: &Path, text: &str) -> Process {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let program = folder.join("program");
        script(&program, text);
        Process::start("program", &program, Path::new("x"), address, folder.join("log")).unwrap()
    }

    #[test]
    fn an_early_end_is_told_with_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            started(folder.path(), "echo \"$1 $2 $3\"; echo no such key >&2; exit 64");
        let error = process.wait_until(Probe::Ready, Duration::from_secs(20)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ended with exit status: 64"), "{text}");
        assert_eq!(error.log_tail(), "run --settings x\nno such key");
    }

    #[test]
    fn a_program_that_heeds_the_signal_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            started(folder.path(), "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done");
        let clock = Clock::System;
        let start = clock.instant();
        while !process.log.tail().contains("up") {
            assert!(clock.instant().saturating_sub(start) < Duration::from_secs(20));
            thread::sleep(POLL);
        }
        let status = process.stop(Duration::from_secs(20));
        assert_eq!(status.and_then(|status| status.code()), Some(3));
    }

    #[test]
    fn a_program_that_ignores_the_signal_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = started(folder.path(), "trap '' TERM; while :; do sleep 0.01; done");
        assert!(process.running().is_ok());
        process.stop(Duration::from_millis(50));
        assert!(process.running().is_err());
    }
}
