//! Who callers are by a token or by a socket, to the real programs.

mod provider;
mod socket;
mod tokens;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;
use sso_tests::system::{Database, System};

/// Changes the settings of server 1.
fn edit_settings(system: &System, edit: impl FnOnce(String) -> String) {
    let path = system.installation().server_settings(1);
    let text = fs::read_to_string(&path).expect("settings");
    fs::write(&path, edit(text)).expect("settings");
}

/// A system whose server 1 asks for no certificate and knows this source of tokens.
fn system_with_tokens(source: &str) -> System {
    let mut system = System::prepare(Database::Sqlite, 1, sso_tests::system::Timing::default());
    edit_settings(&system, |text| {
        let text = text.replace("[tls]\n", "[tls]\nclient_certificate = \"optional\"\n");
        format!("{text}\n[[identity.token]]\n{source}\n")
    });
    system.start_master();
    system.start_server(1);
    system
}

/// A file that nobody else may read.
fn private_file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
    path
}

/// `sso` with this token and no certificate.
fn sso_with_token(system: &System, token: &str, arguments: &[&str]) -> Output {
    let file = private_file(system.folder(), "caller.token", token);
    let profile = format!(
        "version = 1\ndefault = \"t\"\n[profile.t]\naddr = \"{}\"\nca = \"tls/ca.crt\"\n\
         token_file = \"{}\"\nallow_development = true\n",
        system.installation().server_address(1).expect("a server"),
        file.display()
    );
    let profiles = private_file(system.folder(), "token-profiles.toml", &profile);
    let mut command = system.command("t");
    command.env("SSO_CONFIG", profiles).args(arguments);
    command.args(["--output", "json"]).output().expect("sso runs")
}

/// Who the token is to the server.
fn who(system: &System, token: &str) -> Result<Value, String> {
    let output = sso_with_token(system, token, &["status"]);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    Ok(status["caller"].clone())
}
