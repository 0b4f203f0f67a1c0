//! Callers on the machine of the server, known by the user they run as.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use sso_tests::system::{Database, System, Timing};

use super::edit_settings;

/// A user that every system has and that is nobody here.
const DAEMON: u32 = 1;

/// A folder that others may look into, with the socket and a copy of `sso`: they may not look into that
/// of the system.
fn open_folder(system: &System) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let _ = fs::copy(&system.installation().programs().client, folder.path().join("sso"))
        .expect("a copy of sso");
    folder
}

fn system_with_socket(rules: &str) -> (System, tempfile::TempDir) {
    let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
    let folder = open_folder(&system);
    let socket = folder.path().join("sso.sock");
    edit_settings(&system, |text| {
        let listen = format!(
            "listen_unix = \"{}\"\nlisten_unix_mode = 0o666\nreflection = true\n",
            socket.display()
        );
        format!("{}\n{rules}\n", text.replace("reflection = true\n", &listen))
    });
    system.start_master();
    system.start_server(1);
    (system, folder)
}

fn sso_as(uid: Option<u32>, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(folder.join("sso"));
    command.env_clear().current_dir(folder).env("SSO_MACHINE_CONFIG", folder);
    command.arg("--addr").arg(format!("unix://{}", folder.join("sso.sock").display()));
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command.args(arguments).args(["--output", "json"]).output().expect("sso runs")
}

fn caller(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["caller"].clone()
}

#[test]
fn the_user_of_a_process_is_its_account() {
    let own = rustix::process::geteuid().as_raw();
    let rules = format!(
        "[[identity.unix]]\nuid = {own}\naccount = 'HOST\\tester'\n\
         [[identity.unix]]\ndomain = \"HOST\""
    );
    let (mut system, folder) = system_with_socket(&rules);
    let me = caller(&sso_as(None, folder.path(), &["status"]));
    assert_eq!(
        (me["account"].as_str(), me["source"].as_str()),
        (Some("HOST\\tester"), Some("unix"))
    );
    // Root of the machine is nobody in the system unless a role says so.
    let roles = ["sso_administrator", "affiliate_administrator", "trusted_host"];
    assert!(roles.iter().all(|role| me[role] == false), "{me}");
    let denied = sso_as(None, folder.path(), &["audit", "list"]);
    assert_eq!(denied.status.code(), Some(77), "{denied:?}");

    if own == 0 {
        let daemon = caller(&sso_as(Some(DAEMON), folder.path(), &["status"]));
        assert_eq!(daemon["account"], "HOST\\daemon");
        // The same account over TLS would be somebody else's; the other users are who they are.
        let _ = system.sso_ok("user", &["status"]);
    }

    // What a killed server leaves behind does not keep the next one from starting.
    system.kill_server(1);
    assert!(folder.path().join("sso.sock").exists());
    system.start_server(1);
    let _ = caller(&sso_as(None, folder.path(), &["status"]));
    system.stop_server(1);
    assert!(!folder.path().join("sso.sock").exists(), "the socket goes with the server");
    let gone = sso_as(None, folder.path(), &["status"]);
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
}

#[test]
fn users_that_no_rule_knows_are_nobody() {
    let own = rustix::process::geteuid().as_raw();
    let rules = format!("[[identity.unix]]\nuid = {}\naccount = 'HOST\\other'", own + 1);
    let (system, folder) = system_with_socket(&rules);
    let output = sso_as(None, folder.path(), &["status"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("NOT_AUTHENTICATED"), "{error}");
    assert!(error.contains(&format!("uid {own}")), "{error}");
    if own == 0 {
        let other = caller(&sso_as(Some(own + 1), folder.path(), &["status"]));
        assert_eq!(other["account"], "HOST\\other");
    }
    let _ = system.sso_ok("user", &["status"]);
}
