//! Somebody who rotates, backs up, verifies and retires all the time, by the command line.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sso_proto::Reason;
use sso_tests::{
    history::{History, Operation, Outcome},
    system::System,
};

/// For one command under faults.
const PATIENCE: &str = "8s";

/// The command line, and which master it is given.
#[derive(Clone)]
pub(crate) struct Desk {
    program: PathBuf,
    profiles: PathBuf,
    folder: PathBuf,
    /// `unix://…` of the first master and of the standby.
    masters: [String; 2],
    /// Which of them leads.
    primary: Arc<AtomicUsize>,
    /// Of backups: each has a file of its own.
    made: Arc<AtomicUsize>,
    /// How often each command came to what.
    came: Arc<Mutex<BTreeMap<(String, String), usize>>>,
}

impl Desk {
    pub(crate) fn of(system: &System) -> Self {
        let installation = system.installation();
        let socket = |path: PathBuf| format!("unix://{}", path.display());
        let desk = Self {
            program: installation.programs().client.clone(),
            profiles: installation.profiles(),
            folder: system.folder().join("backups"),
            masters: [socket(installation.master_socket()), socket(installation.standby_socket(1))],
            primary: Arc::default(),
            made: Arc::default(),
            came: Arc::default(),
        };
        fs::create_dir(&desk.folder).expect("a folder");
        fs::write(desk.password(), "correct horse battery staple\n").expect("a password");
        fs::set_permissions(desk.password(), fs::Permissions::from_mode(0o600)).expect("private");
        desk
    }

    /// How often each command came to what.
    pub(crate) fn came(&self) -> String {
        let came = self.came.lock().expect("no panic");
        let all = came.iter().map(|((command, word), times)| format!("{command} {word} ×{times}"));
        all.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn primary(&self) -> usize {
        self.primary.load(Ordering::SeqCst)
    }

    pub(crate) fn follow(&self, primary: usize) {
        self.primary.store(primary, Ordering::SeqCst);
    }

    fn password(&self) -> PathBuf {
        self.folder.join("password")
    }

    fn backup(&self) -> PathBuf {
        self.folder.join(format!("{}.backup", self.made.fetch_add(1, Ordering::Relaxed)))
    }

    /// `sso secret ARGUMENTS…` at the primary.
    pub(crate) fn secret(&self, patience: &str, arguments: &[&str]) -> Output {
        self.secret_at(self.primary(), patience, arguments)
    }

    /// The same at one of the masters.
    pub(crate) fn secret_at(&self, master: usize, patience: &str, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(["--output", "json", "--timeout", patience, "secret", "--master"])
            .arg(&self.masters[master])
            .args(arguments)
            .env("SSO_CONFIG", &self.profiles)
            .env("SSO_PROFILE", "admin")
            .env("RUST_BACKTRACE", "0")
            .env_remove("SSO_MASTER")
            .output()
            .expect("sso starts")
    }

    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        self.status_at(self.primary())
    }

    pub(crate) fn status_at(&self, master: usize) -> Option<serde_json::Value> {
        let output = self.secret_at(master, PATIENCE, &["status"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// One round of everything. Gives what came of each command.
    fn round(&self, stop: &AtomicBool, history: &History) {
        let password = self.password();
        let with = ["--password-file", text(&password)];
        let (backup, again) = (self.backup(), self.backup());
        for arguments in [
            &["rotate", "--backup", text(&backup), "--wait", "--retire", with[0], with[1]][..],
            &["backup", text(&again), with[0], with[1]],
            &["verify", text(&again), with[0], with[1]],
            &["rotate", "--continue", "--wait", "--retire"],
        ] {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let began = history.now();
            let output = self.secret(PATIENCE, arguments);
            let stated = reason(&output);
            let word = stated.as_deref().unwrap_or("done").to_owned();
            *self
                .came
                .lock()
                .expect("no panic")
                .entry((arguments[0].to_owned(), word))
                .or_default() += 1;
            // A refusal is an answer: what it stands for is gone in a moment, or it is for people.
            if stated.as_deref() == Some("") {
                let operation = Operation::Other { what: "sso secret" };
                history.record(arguments[0], operation, began, Outcome::Refused(said(&output)));
            }
        }
    }

    /// A rotation that has to come to its end, whatever state the last one was left in.
    ///
    /// # Errors
    /// What the command said.
    pub(crate) fn rotate(&self) -> Result<(), String> {
        let (password, backup) = (self.password(), self.backup());
        // Nothing may be left to go on with.
        let _ = self.secret("60s", &["rotate", "--continue", "--wait"]);
        let arguments = [
            &["rotate", "--backup", text(&backup), "--wait", "--retire"][..],
            &["--password-file", text(&password)],
        ];
        let output = self.secret("2m", &arguments.concat());
        if !output.status.success() {
            return Err(said(&output));
        }
        let verify =
            ["verify", text(&backup), "--password-file", text(&password), "--against-database"];
        let output = self.secret("1m", &verify);
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }

    /// Keeps rounds going until it is told to stop.
    pub(crate) fn work(&self, history: &Arc<History>, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
        let (desk, history, stop) = (self.clone(), Arc::clone(history), Arc::clone(stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                desk.round(&stop, &history);
                thread::sleep(Duration::from_millis(100));
            }
        })
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(crate) fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{}: {out}{error}", output.status)
}

/// Why a command failed: the reason of the service, or the word for a failure on this side. Empty when
/// it did not say; `None` when it did not fail.
fn reason(output: &Output) -> Option<String> {
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    let line: serde_json::Value = line.unwrap_or_default();
    let stated = match (line["error"]["reason"].as_str(), line["error"]["kind"].as_str()) {
        (Some(reason), _) => Reason::parse(reason).map(|it| it.as_str().to_owned()),
        (None, kind) => kind.map(str::to_owned),
    };
    Some(stated.unwrap_or_default())
}
