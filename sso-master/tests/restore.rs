//! `sso-master restore` and `backup verify|reminder` as somebody runs them who has lost a host.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command, Output},
};

use sso_core::{memory::LockedKey, officer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sso-master");
const SETTINGS: &str = r#"
version = 1
name = "sso-master"
keystore = "state/keystore.json"
listen = "127.0.0.1:0"
[tls]
certificate = "none.crt"
key = "none.key"
ca = "none.crt"
[[protector]]
kind = "passphrase"
passphrase_file = "passphrase"
"#;

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("state")).unwrap();
        host.write("sso-master.toml", SETTINGS);
        host.write("passphrase", "at every start");
        host.write("password", "correct horse");
        host.write("wrong", "correct house");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), content.as_bytes()).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM).args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    /// The same, where no file can grow by a byte.
    fn run_on_a_full_disk(&self, arguments: &[&str]) -> Output {
        let script = r#"trap '' XFSZ; ulimit -f 0; exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", PROGRAM]).args(arguments);
        command.current_dir(self.folder.path()).output().unwrap()
    }

    fn init(&self) {
        let made = self.run(&[
            "init",
            "--settings=sso-master.toml",
            "--backup=master.backup",
            "--backup-password-file=password",
            "--reminder=which animal?",
        ]);
        assert!(made.status.success(), "{}", errors(&made));
    }

    /// Every file beside the keystore.
    fn state(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.path("state")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shown(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

const RESTORE: [&str; 3] = ["restore", "master.backup", "--settings=sso-master.toml"];

#[test]
fn a_lost_host_comes_back_and_bad_attempts_change_nothing() {
    let host = Host::new();
    host.init();
    let password = "--password-file=password";
    let before = host.state();

    let wrong = host.run(&[&RESTORE[..], &["--password-file=wrong"]].concat());
    assert_eq!(wrong.status.code(), Some(77));
    let error = errors(&wrong);
    assert!(error.contains("wrong password; its reminder is: which animal?"), "{error}");
    let full = host.run_on_a_full_disk(&[&RESTORE[..], &[password]].concat());
    assert_eq!(full.status.code(), Some(69), "{}", errors(&full));
    assert!(errors(&full).contains("cannot be written"), "{}", errors(&full));
    let whole = fs::read_to_string(host.path("master.backup")).unwrap();
    host.write("cut.backup", &whole[..whole.len() / 2]);
    host.write("edited.backup", &whole.replace("which animal?", "which planet?"));
    for bad in ["cut.backup", "edited.backup"] {
        let damaged = host.run(&["restore", bad, RESTORE[2], password]);
        assert_eq!(damaged.status.code(), Some(64));
        assert!(errors(&damaged).contains("use another copy"), "{}", errors(&damaged));
    }
    assert_eq!(host.state(), before);

    // Over the keystore that is there: its file is kept.
    let over = shown(&host.run(&[&RESTORE[..], &[password]].concat()));
    assert!(over.contains("epoch 2") && over.contains("kept aside"), "{over}");
    assert_eq!(host.state().len(), 2);
    assert!(host.state().values().any(|content| before.values().any(|old| old == content)));

    // On a host of its own.
    fs::remove_dir_all(host.path("state")).unwrap();
    fs::create_dir(host.path("state")).unwrap();
    let full = host.run_on_a_full_disk(&[&RESTORE[..], &[password]].concat());
    assert_eq!(full.status.code(), Some(69), "{}", errors(&full));
    assert!(host.state().is_empty());
    let fresh = shown(&host.run(&[&RESTORE[..], &[password]].concat()));
    assert!(fresh.contains("generation 1 active"), "{fresh}");
    assert!(!fresh.contains("kept aside"), "{fresh}");
    let keystore = fs::metadata(host.path("state/keystore.json")).unwrap();
    assert_eq!(keystore.permissions().mode() & 0o7777, 0o600);
    let mine = sso_master::keystore::Keystore::read(&host.path("state/keystore.json")).unwrap();
    assert!(mine.is_primary());
}

#[test]
fn officers_and_holders_of_shares_restore_too() {
    let host = Host::new();
    host.write("master.backup", include_str!("golden/backup-v2.backup"));
    let shares: Vec<_> = include_str!("golden/backup-v2.shares").lines().collect();
    host.write("one", shares[0]);
    host.write("three", shares[2]);
    let private = LockedKey::from_bytes(&[7; 32]).unwrap();
    // Expose: the key of nobody, into a file of the test.
    host.write("officer", officer::private_text(&private).expose());

    let verified =
        shown(&host.run(&["backup", "verify", "master.backup", "--officer-key=officer"]));
    assert!(verified.contains("good: every key opens"), "{verified}");
    assert!(verified.contains("2 of 3 shares"), "{verified}");
    assert_eq!(shown(&host.run(&["backup", "reminder", "master.backup"])), "which animal?\n");

    let few = host.run(&[&RESTORE[..], &["--share", "one"]].concat());
    assert_eq!(few.status.code(), Some(77));
    assert!(errors(&few).contains("2 different shares are needed and 1 are here"));
    let both = host.run(&[&RESTORE[..], &["--share", "one", "--officer-key=officer"]].concat());
    assert_eq!(both.status.code(), Some(2), "one way of opening at a time");
    assert!(host.state().is_empty());

    let restored = shown(&host.run(&[&RESTORE[..], &["--share", "one", "three"]].concat()));
    assert!(restored.contains("generation 2 active") && restored.contains("epoch 4"), "{restored}");
    assert!(!restored.contains("warning"), "{restored}");
    let again = shown(&host.run(&[&RESTORE[..], &["--officer-key=officer"]].concat()));
    assert!(again.contains("epoch 5") && again.contains("kept aside"), "{again}");
    // An envelope says nothing about who made the file.
    let warning = again.lines().find(|line| line.starts_with("warning")).unwrap();
    for part in ["nothing here proves who made", "e6aadcaef50eb720", "a2b73d45b5c6434f"] {
        assert!(warning.contains(part), "{warning}");
    }
}
