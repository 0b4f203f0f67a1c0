//! The runbooks of `docs/operations.md`, each played by its script on an installation by hand.

use std::{path::Path, process::Command, time::Duration};

use sso_tests::system::programs;

/// Longest time of one runbook: many tests share few cores, and Argon2id is meant to take long.
const LONGEST: Duration = Duration::from_secs(300);

fn play(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/runbooks").join(name);
    let programs = programs();
    let bin = programs.client.parent().expect("a folder");
    let output = Command::new("timeout")
        .arg(LONGEST.as_secs().to_string())
        .arg(script)
        .env("SSO_BIN", bin)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the script runs");
    assert!(
        output.status.success(),
        "{name}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn first_install() {
    play("first-install.sh");
}

#[test]
fn monthly_rotation() {
    play("monthly-rotation.sh");
}

#[test]
fn lost_master_host() {
    play("lost-master-host.sh");
}

#[test]
fn move_master() {
    play("move-master.sh");
}

#[test]
fn lost_passphrase() {
    play("lost-passphrase.sh");
}

#[test]
fn service_account() {
    play("service-account.sh");
}

/// threat-model.md, cases 15 and 34: from cold, with nothing but what the manual says one has.
#[test]
fn disaster_recovery() {
    play("disaster-recovery.sh");
}

#[test]
fn every_runbook_is_played() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/runbooks");
    let own = include_str!("runbooks.rs");
    let manual = include_str!("../../docs/operations.md");
    for entry in std::fs::read_dir(folder).expect("the runbooks") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if name != "common.sh" {
            assert!(own.contains(&format!("play(\"{name}\")")), "{name} is played by no test");
            assert!(manual.contains(&name), "{name} is not in docs/operations.md");
        }
    }
}
