//! Somebody who rotates, backs up, verifies, retires, destroys and restores all the time, by the command
//! line.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sso_proto::Reason;
use sso_tests::{
    history::{History, Operation, Outcome},
    system::System,
};

/// For one command under faults.
pub(crate) const PATIENCE: &str = "8s";

/// About what a restore takes, until one was made: its password is stretched.
const FIRST_RESTORE: Duration = Duration::from_secs(2);

/// A generation whose key was destroyed, and the backup that has it.
#[derive(Clone, Debug)]
struct Lost {
    generation: u64,
    fingerprint: String,
    backup: PathBuf,
}

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
    /// Held by whoever destroys and restores.
    alone: Arc<Mutex<()>>,
    /// Everything that was destroyed.
    lost: Arc<Mutex<Vec<Lost>>>,
    /// How long a restore took, at last.
    restoring: Arc<Mutex<Duration>>,
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
            alone: Arc::default(),
            lost: Arc::default(),
            restoring: Arc::new(Mutex::new(FIRST_RESTORE)),
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

    /// Whether the master says that it leads.
    pub(crate) fn leads(&self, master: usize) -> bool {
        self.status_at(master).is_some_and(|status| status["role"] == "primary")
    }

    /// `sso secret ARGUMENTS…` at one of the masters, which goes on by itself.
    pub(crate) fn begin(&self, master: usize, arguments: &[&str]) -> JoinHandle<Output> {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        let desk = self.clone();
        thread::spawn(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            desk.note(&arguments, desk.secret_at(master, PATIENCE, &arguments))
        })
    }

    /// Remembers what a command came to.
    fn note(&self, arguments: &[&str], output: Output) -> Output {
        let word = reason(&output).unwrap_or_else(|| "done".to_owned());
        let mut came = self.came.lock().expect("no panic");
        *came.entry((arguments[0].to_owned(), word)).or_default() += 1;
        output
    }

    /// One command of many: whether it was done.
    fn try_one(&self, history: &History, arguments: &[&str]) -> bool {
        let began = history.now();
        let output = self.note(arguments, self.secret(PATIENCE, arguments));
        // A refusal is an answer: what it stands for is gone in a moment, or it is for people.
        if reason(&output).as_deref() == Some("") {
            let operation = Operation::Other { what: "sso secret" };
            history.record(arguments[0], operation, began, Outcome::Refused(said(&output)));
        }
        output.status.success()
    }

    /// One round of everything.
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
            let _ = self.try_one(history, arguments);
        }
        if !stop.load(Ordering::Relaxed)
            && let Ok(_alone) = self.alone.try_lock()
            && let Some(backup) = self.lose(history)
        {
            let _ = self.try_one(history, &["restore", text(&backup), with[0], with[1]]);
        }
    }

    /// Keeps everybody else from destroying.
    pub(crate) fn destroys_alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().expect("no panic")
    }

    /// Destroys the key of a retired generation. Gives a backup that has it; nothing where something was
    /// refused, or no generation is retired.
    pub(crate) fn lose(&self, history: &History) -> Option<PathBuf> {
        let status = self.status()?;
        let all = status["generations"].as_array()?.iter();
        let retired: Vec<_> = all.filter(|it| it["state"] == "retired").collect();
        let made = self.made.load(Ordering::Relaxed);
        let chosen = retired.get(made.checked_rem(retired.len())?)?;
        let generation = chosen["generation"].as_u64()?;
        let fingerprint = chosen["fingerprint"].as_str()?;
        let number = generation.to_string();
        let (password, backup) = (self.password(), self.backup());
        let arguments = ["backup", text(&backup), "--password-file", text(&password)];
        if !self.try_one(history, &arguments) {
            return None;
        }
        // One that was restored before is open in the database again.
        let again = self.lost().iter().any(|one| one.generation == generation);
        if again && !self.try_one(history, &["retire", &number]) {
            return None;
        }
        let lost = Lost { generation, fingerprint: fingerprint.to_owned(), backup: backup.clone() };
        // Without an answer it may be destroyed all the same.
        self.lost().push(lost);
        let destroy = ["destroy", &number, "--fingerprint", fingerprint, "--yes"];
        self.try_one(history, &destroy).then_some(backup)
    }

    /// Begins to restore this backup at the primary.
    pub(crate) fn begin_restore(&self, backup: &Path) -> JoinHandle<Output> {
        let (desk, backup, password) = (self.clone(), backup.to_owned(), self.password());
        thread::spawn(move || {
            let began = Instant::now();
            let arguments = ["restore", text(&backup), "--password-file", text(&password)];
            let output = desk.note(&arguments, desk.secret(PATIENCE, &arguments));
            if output.status.success() {
                *desk.restoring.lock().expect("no panic") = began.elapsed();
            }
            output
        })
    }

    /// About what a restore takes here.
    pub(crate) fn restoring(&self) -> Duration {
        *self.restoring.lock().expect("no panic")
    }

    /// Restores it; where nothing is missing, that is well, too.
    ///
    /// # Errors
    /// What the command said.
    pub(crate) fn restore(&self, backup: &Path) -> Result<(), String> {
        let output = self.begin_restore(backup).join().expect("a command that ended");
        let nothing_new = Reason::BackupHasNothingNew.as_str();
        match reason(&output) {
            Some(reason) if reason != nothing_new => Err(said(&output)),
            _ => Ok(()),
        }
    }

    /// Everything that was destroyed is there again, or comes back from its backup now. Gives how much
    /// was destroyed.
    ///
    /// # Errors
    /// What a command said, or what is missing.
    pub(crate) fn restore_all(&self) -> Result<usize, String> {
        for lost in self.missing()? {
            self.restore(&lost.backup)?;
        }
        let missing = self.missing()?;
        if !missing.is_empty() {
            return Err(format!("did not come back: {missing:#?}"));
        }
        Ok(self.lost().len())
    }

    /// Whether the keystore has what was destroyed after this backup.
    ///
    /// # Errors
    /// There is no status.
    pub(crate) fn has(&self, backup: &Path) -> Result<bool, String> {
        Ok(!self.missing()?.iter().any(|one| one.backup == backup))
    }

    fn lost(&self) -> MutexGuard<'_, Vec<Lost>> {
        self.lost.lock().expect("no panic")
    }

    /// What was destroyed and is not there.
    fn missing(&self) -> Result<Vec<Lost>, String> {
        let status = self.status().ok_or("no status")?;
        let all = status["generations"].as_array().ok_or("no generations")?;
        let is_missing = |one: &&Lost| {
            !all.iter().any(|it| {
                it["generation"] == one.generation
                    && it["fingerprint"] == *one.fingerprint
                    && it["state"] != "destroyed"
            })
        };
        Ok(self.lost().iter().filter(is_missing).cloned().collect())
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
        self.verify(&backup)
    }

    /// A backup of now opens every row of the database.
    ///
    /// # Errors
    /// What the command said.
    pub(crate) fn prove(&self) -> Result<(), String> {
        let (password, backup) = (self.password(), self.backup());
        let arguments = ["backup", text(&backup), "--password-file", text(&password)];
        let output = self.secret("1m", &arguments);
        if !output.status.success() {
            return Err(said(&output));
        }
        self.verify(&backup)
    }

    fn verify(&self, backup: &Path) -> Result<(), String> {
        let password = self.password();
        let verify =
            ["verify", text(backup), "--password-file", text(&password), "--against-database"];
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
pub(crate) fn reason(output: &Output) -> Option<String> {
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
