//! `ssoconfig`: one server and the master secret (ESSO.md 11.2).

use std::path::Path;

use sso_client::v1::{GetServerStatusResponse, ServerSettings};

use super::super::shown::{master_secret_state, time_cell};
use super::{
    frame::Call,
    secret, server,
    switches::{switches, yes_or_no},
};
use crate::failure::Failure;

switches! {
    /// What `ssoconfig` is asked for.
    Config by run;
    ShowDb = "showdb" "" 0..=0 Works "show the database of the server in use";
    SetDb = "setdb" "SERVER DATABASE" 2..=2 Explained "the settings file of the server names the database";
    CreateDb = "createdb" "FILE|SERVER [DATABASE]" 1..=2 Explained "a server creates what it needs in its database when it starts";
    UpgradeDb = "upgradedb" "[SERVER] [DATABASE]" 0..=2 Explained "a server upgrades its database when it starts";
    GenerateSecret = "generatesecret" "FILE" 1..=1 WorksHere "replace the master secret, with a backup in FILE";
    BackupSecret = "backupsecret" "FILE" 1..=1 WorksHere "back the master secret up";
    RestoreSecret = "restoresecret" "FILE" 1..=1 WorksHere "restore the master secret from a backup";
    DisplayReminder = "displayreminder" "FILE" 1..=1 WorksHere "show the reminder of a backup";
    AuditLevel = "auditlevel" "POSITIVE NEGATIVE" 2..=2 Works "set the audit levels of the server in use: 0 to 3 each";
    SetSsl = "setssl" "yes" 1..=1 Explained "TLS to a database on another machine is on already: yes changes nothing, no is refused";
    ReplayFiles = "replayfiles" "FOLDER|-default" 1..=1 Absent "replay files of password synchronisation";
    SyncAge = "syncage" "[HOURS]" 0..=1 Absent "age of password changes";
    RemoteLookup = "remotelookup" "yes|no" 1..=1 Works "serve look-ups to callers on other machines or not";
    AllowPs = "allowps" "pcns|miis yes|no" 2..=2 Absent "accept password changes from the directory";
    Status = "status" "" 0..=0 Works "show the state of the server in use";
}

async fn run(verb: Config, call: &Call<'_>) -> Result<(), Failure> {
    let file = call.argument(0);
    match verb {
        Config::ShowDb => server::show_database(call).await,
        Config::SetDb => Err(Failure::refused(
            "the database of a server is named in its settings file alone",
            "change [database] url in /etc/sso/sso-server.toml on that machine, then restart sso-server",
        )),
        Config::CreateDb | Config::UpgradeDb => Err(Failure::refused(
            "there is nothing to run: sso-server creates and upgrades its part of the database when it starts",
            "make an empty database, name it in [database] url of /etc/sso/sso-server.toml, start sso-server; \
             with [database] migrate = false it only checks",
        )),
        Config::GenerateSecret => secret::generate(Path::new(file), call).await,
        Config::BackupSecret => secret::back_up(Path::new(file), call).await,
        Config::RestoreSecret => secret::restore(Path::new(file), call).await,
        Config::DisplayReminder => secret::display_reminder(Path::new(file), call),
        Config::AuditLevel => audit_level(call).await,
        Config::SetSsl => server::set_ssl(call),
        Config::RemoteLookup => {
            let remote_lookup = yes_or_no(call.argument(0))?;
            let settings = ServerSettings { remote_lookup, ..ServerSettings::default() };
            update(settings, &["remote_lookup"], call).await
        }
        Config::ReplayFiles | Config::SyncAge | Config::AllowPs => Err(Failure::refused(
            "password synchronisation is not part of this version",
            "nothing was changed",
        )),
        Config::Status => status(call.connect()?.system().status().await?, call),
    }
}

async fn audit_level(call: &Call<'_>) -> Result<(), Failure> {
    let settings = ServerSettings {
        positive_audit_level: level(call.argument(0))?,
        negative_audit_level: level(call.argument(1))?,
        ..ServerSettings::default()
    };
    update(settings, &["positive_audit_level", "negative_audit_level"], call).await
}

fn level(text: &str) -> Result<u32, Failure> {
    match text.parse::<u32>() {
        Ok(level @ 0..=3) => Ok(level),
        Ok(_) | Err(_) => Err(Failure::usage(format!("'{text}' must be 0, 1, 2 or 3"))),
    }
}

async fn update(settings: ServerSettings, paths: &[&str], call: &Call<'_>) -> Result<(), Failure> {
    let system = call.connect()?.system();
    let (server, settings) = system.update_server_settings("", settings, paths).await?;
    let mut pairs = vec![("SSO server", server)];
    pairs.extend(settings_pairs(&settings));
    call.pairs(&pairs)
}

fn settings_pairs(settings: &ServerSettings) -> [(&'static str, String); 3] {
    let remote = if settings.remote_lookup { "yes" } else { "no" };
    [
        ("Audit level (positive)", settings.positive_audit_level.to_string()),
        ("Audit level (negative)", settings.negative_audit_level.to_string()),
        ("Remote look-up", remote.to_owned()),
    ]
}

fn status(status: GetServerStatusResponse, call: &Call<'_>) -> Result<(), Failure> {
    let secret = status.master_secret.unwrap_or_default();
    let yes = |on| if on { "yes" } else { "no" }.to_owned();
    let state = if status.system_enabled { "enabled" } else { "disabled" };
    let mut pairs = vec![
        ("SSO server", status.server),
        ("Version", status.version),
        ("Started", time_cell(status.started_at.as_ref())),
        ("Database", format!("{}, schema {}", status.database, status.schema_version)),
        ("SSO secret server", secret.master),
        ("Master secret", master_secret_state(secret.state).to_owned()),
        ("SSO status", state.to_owned()),
        ("Tickets allowed", yes(status.tickets_allowed)),
        ("Host-initiated SSO", yes(status.host_initiated_allowed)),
    ];
    pairs.extend(settings_pairs(&status.settings.unwrap_or_default()));
    pairs.push(("Password synchronisation", "not in this version".to_owned()));
    call.pairs(&pairs)
}
