//! What is refused, and leaves the keystore byte for byte what it was.

use std::{fs, path::Path, process::Command};

use sso_tests::system::{Database, System, Timing, programs};

use super::{file, generation, password, path, refused, secret, secret_ok, status};

/// Runs what has to be refused, and compares the keystore.
fn unchanged(system: &System, arguments: &[&str]) -> String {
    let keystore = system.folder().join("keystore.json");
    let before = fs::read(&keystore).expect("a keystore");
    let (error, _) = refused(&secret(system, arguments));
    assert!(
        fs::read(&keystore).expect("a keystore") == before,
        "{arguments:?} changed it: {error}"
    );
    error
}

#[test]
fn passwords_and_files_are_judged_before_anything_is_generated() {
    let system = System::start(Database::Sqlite);
    let good = password(&system);
    let backup = system.folder().join("new.backup");
    for (content, why) in
        [("short\n", "7 to 256"), (&*format!("{}\n", "x".repeat(257)), "7 to 256"), ("", "empty")]
    {
        let bad = file(&system, "bad.password", content);
        let arguments = ["rotate", "--backup", path(&backup), "--password-file", path(&bad)];
        let error = unchanged(&system, &arguments);
        assert!(error.contains(why), "{error}");
    }
    let with_password = ["--password-file", path(&good)];
    let long = "r".repeat(513);
    for (reminder, why) in
        [(&*long, "512"), ("it is correct horse battery staple", "contains the password")]
    {
        let arguments =
            [&["rotate", "--backup", path(&backup), "--reminder", reminder][..], &with_password];
        let error = unchanged(&system, &arguments.concat());
        assert!(error.contains(why), "{error}");
    }
    assert!(!backup.exists());
    let existing = file(&system, "existing.backup", "mine");
    let arguments = [&["rotate", "--backup", path(&existing)][..], &with_password].concat();
    let error = unchanged(&system, &arguments);
    assert!(error.contains("exists"), "{error}");
    assert_eq!(fs::read(&existing).expect("there"), b"mine");
    let nowhere = system.folder().join("nowhere/new.backup");
    let arguments = [&["rotate", "--backup", path(&nowhere)][..], &with_password].concat();
    let error = unchanged(&system, &arguments);
    assert!(error.contains("nowhere"), "{error}");
    let lax = file(&system, "lax.password", "correct horse battery staple\n");
    fs::set_permissions(&lax, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
    let arguments = ["rotate", "--backup", path(&backup), "--password-file", path(&lax)];
    let error = unchanged(&system, &arguments);
    assert!(error.contains("0644"), "{error}");
    assert!(generation(&status(&system), 2).is_null(), "nothing was generated");
}

#[test]
fn backups_that_are_wrong_edited_cut_or_of_others_are_refused_with_what_to_do() {
    let system = System::start(Database::Sqlite);
    let other = System::prepare(Database::Sqlite, 1, Timing::default());
    let good = password(&system);
    let backup = system.folder().join("good.backup");
    let _ = secret_ok(&system, &["backup", path(&backup), "--password-file", path(&good)]);
    let text = fs::read_to_string(&backup).expect("a backup");
    let wrong = file(&system, "wrong.password", "something else\n");
    let cut = file(&system, "cut.backup", &text[..text.len() / 2]);
    let edited =
        file(&system, "edited.backup", &text.replacen("\"active\": 1", "\"active\": 2", 1));
    let note = file(&system, "note.backup", "Dear diary\n");
    let foreign = other.folder().join("master-secret.backup");
    let foreign_password = other.folder().join("backup.passphrase");
    for (document, password, reason) in [
        (&backup, &wrong, "BACKUP_PASSWORD_WRONG"),
        (&cut, &good, "BACKUP_MALFORMED"),
        (&edited, &good, "BACKUP_MALFORMED"),
        (&note, &good, "BACKUP_MALFORMED"),
        (&foreign, &foreign_password, "BACKUP_FOREIGN"),
        (&backup, &good, "BACKUP_HAS_NOTHING_NEW"),
    ] {
        let error =
            unchanged(&system, &["restore", path(document), "--password-file", path(password)]);
        // What is no backup at a glance is not even sent.
        let named = |error: &str| {
            let seen = error.contains("no backup") || error.contains("a damaged backup");
            let at_a_glance = reason == "BACKUP_MALFORMED" && seen;
            error.contains(reason) || at_a_glance
        };
        assert!(named(&error), "{}: {error}", document.display());
        if reason != "BACKUP_HAS_NOTHING_NEW" {
            let verify = ["verify", path(document), "--password-file", path(password)];
            let error = unchanged(&system, &verify);
            assert!(named(&error), "{}: {error}", document.display());
        }
    }
}

#[test]
fn a_backup_is_not_restored_over_a_newer_keystore_or_under_a_running_master() {
    let mut system = System::start(Database::Sqlite);
    let _ = super::rotate(&system, "second", &[]);
    let keystore = system.folder().join("keystore.json");
    let settings = system.installation().master_settings();
    let folder = system.folder().to_owned();
    let restore = |backup: &str, password: &Path| {
        let output = Command::new(&programs().master)
            .arg("restore")
            .arg(folder.join(backup))
            .arg("--settings")
            .arg(&settings)
            .arg("--password-file")
            .arg(password)
            .output()
            .expect("sso-master runs");
        refused(&output).0
    };
    let (of_dev, own) = (system.folder().join("backup.passphrase"), password(&system));
    let before = fs::read(&keystore).expect("a keystore");
    let error = restore("second.backup", &own);
    assert!(error.contains("in use by"), "{error}");
    let error = restore("master-secret.backup", &of_dev);
    assert!(error.contains("generation 2"), "{error}");
    system.stop_master();
    let error = restore("master-secret.backup", &of_dev);
    assert!(error.contains("generation 2"), "{error}");
    assert!(fs::read(&keystore).expect("a keystore") == before, "{error}");
    system.start_master();
}

#[test]
fn without_a_server_nothing_is_rotated() {
    let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
    system.start_master();
    let (backup, password) = (system.folder().join("new.backup"), password(&system));
    let arguments = ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
    let error = unchanged(&system, &arguments);
    assert!(error.contains("SERVERS_UNREACHABLE"), "{error}");
    let status = status(&system);
    assert_eq!(generation(&status, 1)["state"], "active", "{status:#}");
    assert!(generation(&status, 2).is_null() && !backup.exists(), "{status:#}");
}

#[test]
fn a_generation_in_use_is_not_destroyed() {
    let system = System::start(Database::Sqlite);
    let fingerprint = |number| {
        let known = generation(&status(&system), number);
        known["fingerprint"].as_str().expect("a fingerprint").to_owned()
    };
    let of_first = fingerprint(1);
    let destroy = |number, fingerprint: &str| {
        unchanged(&system, &["destroy", number, "--fingerprint", fingerprint, "--yes"])
    };
    assert!(destroy("1", &of_first).contains("only a retired"));
    let _ = super::rotate(&system, "second", &[]);
    let error = destroy("1", &of_first);
    assert!(error.contains("GENERATION_STATE_WRONG"), "{error}");
    assert!(destroy("2", &fingerprint(2)).contains("GENERATION_STATE_WRONG"));
    let _ = secret_ok(&system, &["retire", "1"]);
    let error = destroy("1", "0000000000000000");
    assert!(error.contains("GENERATION_FINGERPRINT_WRONG"), "{error}");
    assert!(destroy("7", &of_first).contains("GENERATION_NOT_FOUND"));
}

/// threat-model.md, case 21: whoever calls writes the files; and nobody but an administrator calls.
#[test]
fn nobody_but_an_administrator_of_the_master_is_served() {
    let system = System::start(Database::Sqlite);
    let address = system.installation().master_address();
    for profile in ["user", "app-admin", "affiliate-admin", "host"] {
        let output = system.sso(profile, &["secret", "status", "--master", &address]);
        let (error, code) = refused(&output);
        assert!(error.contains("NOT_MASTER_ADMINISTRATOR"), "{profile}: {error}");
        assert_eq!(code, Some(77), "{profile}: {error}");
    }
    let _ = system.sso_ok("admin", &["secret", "status", "--master", &address]);
}

#[test]
fn reminders_are_read_without_password_and_without_a_master() {
    let system = System::prepare(Database::Sqlite, 1, Timing::default());
    let backup = system.folder().join("master-secret.backup");
    let shown = secret_ok(&system, &["reminder", path(&backup)]);
    assert!(shown.contains("backup.passphrase"), "{shown}");
    let note = file(&system, "note", "Dear diary\n");
    let (error, _) = refused(&secret(&system, &["reminder", path(&note)]));
    assert!(error.contains("backup"), "{error}");
}

/// Officers and shares open what the password opens, each alone.
#[test]
fn officers_and_shares_open_a_backup_too() {
    let system = System::start(Database::Sqlite);
    let key = system.folder().join("officer.key");
    let _ = secret_ok(&system, &["officer-key", path(&key)]);
    let public = format!("ann={}.pub", key.display());
    let shares = system.folder().join("shares");
    fs::create_dir(&shares).expect("a folder");
    let backup = system.folder().join("shared.backup");
    let good = password(&system);
    let _ = secret_ok(
        &system,
        &[
            "backup",
            path(&backup),
            "--password-file",
            path(&good),
            "--officer",
            &public,
            "--shares",
            "2/3",
            "--share-folder",
            path(&shares),
        ],
    );
    let mut files: Vec<_> = fs::read_dir(&shares)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let _ = secret_ok(&system, &["verify", path(&backup), "--officer-key", path(&key)]);
    let share = |number: usize| ["--share", path(&files[number])];
    let verify = ["verify", path(&backup)];
    let _ = secret_ok(&system, &[&verify[..], &share(0), &share(2)].concat());
    let (error, _) = refused(&secret(&system, &[&verify[..], &share(1)].concat()));
    assert!(error.contains("BACKUP_SHARES_INVALID"), "{error}");
    let stranger = system.folder().join("stranger.key");
    let _ = secret_ok(&system, &["officer-key", path(&stranger)]);
    let (error, _) =
        refused(&secret(&system, &["verify", path(&backup), "--officer-key", path(&stranger)]));
    assert!(error.contains("officer"), "{error}");
}
