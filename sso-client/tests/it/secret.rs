//! `sso secret` against a master that does what a test tells it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use sso_client::v1::{
    CheckSealedRowsResponse, GenerationState, GetSecretStatusResponse, SecretGeneration,
};
use sso_proto::Reason;

use crate::{
    cli::{json, sso, sso_with},
    fake::Fake,
};

const PASSWORD: &str = "tall-Horse 4 staple?";

/// A private file with the password, and where a backup goes.
fn files(fake: &Fake) -> (String, PathBuf) {
    let password = fake.folder.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    (password.to_str().unwrap().to_owned(), fake.folder.path().join("b"))
}

fn status(states: &[(u32, GenerationState, Option<u64>)]) -> GetSecretStatusResponse {
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let generations = states.iter().map(|&(generation, state, rows)| SecretGeneration {
        generation,
        state: state.into(),
        rows,
        fingerprint: format!("f{generation}"),
        activated_at: at(10),
        ..Default::default()
    });
    GetSecretStatusResponse {
        generations: generations.collect(),
        rows_counted_at: at(11),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_backed_up_proved_and_followed_to_its_end() {
    use GenerationState as State;
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    *fake.state.secret.statuses.lock().unwrap() = vec![
        status(&[(1, State::Active, None), (2, State::Distributed, None)]),
        status(&[(1, State::Active, None), (2, State::Distributed, None)]),
        status(&[(1, State::Draining, Some(5)), (2, State::Active, None)]),
        status(&[(1, State::Draining, Some(0)), (2, State::Active, None)]),
    ];
    let file_name = file.to_str().unwrap();
    let line = ["secret", "rotate", "--backup", file_name, "--password-file", &password];
    let line = [&line[..], &["--wait", "--retire", "--timeout", "60", "-o", "json"]].concat();
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document = json(&ran.stdout);
    assert_eq!((&document["generation"], &document["fingerprint"]), (&2.into(), &"f2".into()));
    assert_eq!((&document["active"], &document["drained"]), (&true.into(), &true.into()));
    assert_eq!(document["retired"], serde_json::json!([1]));
    let calls = fake.state.secret.taken();
    assert_eq!(calls[..3], ["prepare", "verify with password", "rotate 2 without []"]);
    assert_eq!(calls.last().map(String::as_str), Some("retire 1"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rotated_behind_a_backup_that_does_not_open() {
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    let line =
        ["secret", "rotate", "--backup", file.to_str().unwrap(), "--password-file", &password];
    *fake.state.secret.wrong.lock().unwrap() = true;
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 77, "{}", ran.stderr);
    assert!(ran.stderr.contains("BACKUP_PASSWORD_WRONG"), "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["prepare", "verify with password"]);
    assert!(!file.exists(), "removed again");

    *fake.state.secret.wrong.lock().unwrap() = false;
    *fake.state.secret.incomplete.lock().unwrap() = true;
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("does not give generation 2 back"), "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["prepare", "verify with password"]);
    assert!(file.exists(), "it was opened, so it counts as a backup of what is in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_where_something_is_wrong_here() {
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    let file = file.to_str().unwrap();
    fs::write(file, "of somebody else").unwrap();
    let other = format!("{file}-2");
    let lax = fake.folder.path().join("profiles.toml");
    let lax = lax.to_str().unwrap();
    for (line, code, says) in [
        (vec!["backup", file, "--password-file", &password], 1, "exists"),
        (vec!["rotate", "--backup", file, "--password-file", &password], 1, "exists"),
        (vec!["backup", "/nonexistent/b", "--password-file", &password], 1, "/nonexistent"),
        (vec!["backup", &other, "--password-file", lax], 64, "chmod 600"),
        (vec!["backup", &other], 2, "no terminal"),
        (vec!["backup", &other, "--officer", &format!("ada={lax}")], 2, "officer"),
        (vec!["verify", file, "--password-file", &password], 2, "is no backup"),
        (vec!["restore", file, "--password-file", &password], 2, "is no backup"),
        (vec!["destroy", "1"], 2, "--fingerprint"),
        (vec!["destroy", "1", "--yes"], 2, "--fingerprint"),
        (vec!["promote", "--force"], 2, "--yes"),
    ] {
        let ran = sso(&fake, &[&["secret"], &line[..]].concat()).await;
        assert_eq!(ran.code, code, "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{line:?}: {}", ran.stderr);
    }
    let ran =
        sso_with(&fake, "short\n", &["secret", "backup", &other, "--password-file", "-"]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("5 characters"), "{}", ran.stderr);
    let reminder = format!("it is {PASSWORD}");
    let line = ["secret", "backup", &other, "--password-file", &password, "--reminder", &reminder];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("contains the password"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(PASSWORD), "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(file).unwrap(), "of somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_shares_is_proved_with_both_and_a_weak_password_is_told() {
    let fake = Fake::start().await;
    let (_, file) = files(&fake);
    let shares = fake.folder.path().join("shares");
    let line = ["secret", "backup", file.to_str().unwrap(), "--password-file", "-"];
    let shared = ["--shares", "2/3", "--share-folder", shares.to_str().unwrap(), "-o", "json"];
    let ran = sso_with(&fake, "password1\n", &[&line[..], &shared].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("weak") && !ran.stderr.contains("password1"), "{}", ran.stderr);
    let document = json(&ran.stdout);
    assert_eq!(
        (&document["verified"], document["shares"].as_array().unwrap().len()),
        (&true.into(), 3)
    );
    let calls = fake.state.secret.taken();
    assert_eq!(calls, ["backup", "verify with password", "verify with 3 shares"]);
    assert_eq!(fs::read_to_string(shares.join("b.share-2")).unwrap(), "sso-share-1:2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn officers_have_key_pairs_and_reminders_need_nobody() {
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    let key = fake.folder.path().join("ada.key");
    let key = key.to_str().unwrap();
    let ran = sso(&fake, &["secret", "officer-key", key]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(key).unwrap();
    assert!(!ran.stdout.contains(text.trim()) && text.starts_with("sso-officer-key-1:"));
    assert_eq!(sso(&fake, &["secret", "officer-key", key]).await.code, 1, "never over another");

    let officer = format!("ada={key}.pub");
    let line = ["secret", "rotate", "--backup", file.to_str().unwrap(), "--officer", &officer];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--password-file"), "{}", ran.stderr);
    let file = file.to_str().unwrap();
    let ran = sso(&fake, &["secret", "backup", file, "--officer", &officer]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("nobody opened"), "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["backup"]);

    let ran = sso(&fake, &["secret", "reminder", file]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "which animal?\n"));
    let ran = sso(&fake, &["secret", "restore", file, "--officer-key", key]).await;
    assert_eq!(ran.code, 1, "not for this officer: {}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), Vec::<String>::new());
    let line = ["secret", "restore", file, "--password-file", &password, "-o", "json"];
    let ran = sso(&fake, &line).await;
    assert_eq!(json(&ran.stdout)["generations"], serde_json::json!([2]), "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["restore with password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_open_are_named() {
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    let file = file.to_str().unwrap();
    let made = sso(&fake, &["secret", "backup", file, "--password-file", &password]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let line =
        ["secret", "verify", file, "--password-file", &password, "--against-database", "-ojson"];
    let answer = |opened, failed: &[&str], done| CheckSealedRowsResponse {
        rows_total: 3,
        rows_opened: opened,
        rows_failed: failed.len() as u64,
        failed: failed.iter().map(|&name| name.to_owned()).collect(),
        done,
    };
    *fake.state.checked.lock().unwrap() = vec![answer(1, &[], false), answer(3, &[], true)];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["database"]["opened"], 3);
    assert!(ran.stderr.contains("lacks generation 3"), "{}", ran.stderr);

    *fake.state.checked.lock().unwrap() = vec![answer(2, &["App/Id revision 4: damaged"], true)];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 1);
    let document = json(&ran.stdout);
    assert_eq!(document["database"]["failed"][0], "App/Id revision 4: damaged");
    assert_eq!(document["database"]["not_opened"], 1);

    // A check that breaks off proves nothing.
    *fake.state.checked.lock().unwrap() = vec![answer(2, &[], false)];
    assert_ne!(sso(&fake, &line).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_masters_and_servers_are_told_what_to_do() {
    use GenerationState as State;
    let fake = Fake::start().await;
    *fake.state.secret.statuses.lock().unwrap() =
        vec![status(&[(1, State::Retired, Some(0)), (2, State::Active, None)])];
    for (line, call) in [
        (&["secret", "retire", "1"][..], "retire 1"),
        (&["secret", "destroy", "1", "--fingerprint", "ab", "--yes"], "destroy 1 ab"),
        (&["secret", "promote"], "promote false"),
        (&["secret", "promote", "--force", "--yes"], "promote true"),
        (&["server", "revoke", "sso-server-3"], "revoke sso-server-3"),
        (&["server", "readmit", "sso-server-3"], "readmit sso-server-3"),
    ] {
        let ran = sso(&fake, line).await;
        assert_eq!(ran.code, 0, "{line:?}: {}", ran.stderr);
        let calls = fake.state.secret.taken();
        assert_eq!(calls.last().map(String::as_str), Some(call), "{calls:?}");
    }
    let ran = sso(&fake, &["secret", "rotate", "--continue"]).await;
    assert!(ran.stderr.contains("no rotation to go on with"), "{}", ran.stderr);
    let ran = sso(&fake, &["secret", "status"]).await;
    assert!(ran.stdout.contains("retired") && ran.code == 0, "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_in_time_and_a_refusal_keeps_the_backup() {
    use GenerationState as State;
    let fake = Fake::start().await;
    let (password, file) = files(&fake);
    *fake.state.secret.statuses.lock().unwrap() =
        vec![status(&[(1, State::Active, None), (2, State::Distributed, None)])];
    let line =
        ["secret", "rotate", "--continue", "--leave-behind", "a", "--wait", "--timeout", "1"];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    assert!(ran.stderr.contains("the rotation goes on"), "{}", ran.stderr);
    assert!(fake.state.secret.taken().contains(&"rotate 2 without [\"a\"]".to_owned()));

    *fake.state.secret.refuse.lock().unwrap() = Some(Reason::NotMasterAdministrator);
    let file = file.to_str().unwrap();
    let line = ["secret", "rotate", "--backup", file, "--password-file", &password];
    let ran = sso(&fake, &line).await;
    assert_eq!(ran.code, 77, "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["prepare"]);
    let master = "unix:///nonexistent/m.sock";
    let ran = sso(&fake, &["secret", "--master", master, "status", "--timeout", "2s"]).await;
    assert_eq!(ran.code, 69, "{}", ran.stderr);
}
