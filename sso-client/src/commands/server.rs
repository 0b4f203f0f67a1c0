//! `sso server`: the servers that share the database.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sso_client::v1::ServerSettings;

use super::{
    Service,
    app::parse_yes,
    confirm,
    shown::{master_secret_state, or_dash, time, time_cell, yes as yes_no},
    tls_shown,
};
use crate::{
    failure::Failure,
    output::{Output, escape},
};

const RELOAD_HELP: &str = "\
The server notices changed files by itself within seconds, and fetches lists again in time; this is for
whoever does not want to wait, and to see what is wrong with a file. What is not good enough changes
nothing. A master secret server does the same with 'sso secret reload-tls'.

Examples:
  sso server reload-tls
  sso --addr https://sso-2.corp.example:7400 server reload-tls --output json";

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers of the system, with the state of their keys
    List,
    /// Show the settings of a server that are kept in the database
    Show {
        /// Name of the server [default: the one that answers]
        #[arg(value_name = "NAME", default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Change the settings of a server; it follows within one poll
    Set(SetArgs),
    /// Print the public keys of assertions as a JSON Web Key Set
    AssertionKeys,
    /// Have the server that answers load its certificate, key, authorities and revocation lists again
    #[command(after_help = RELOAD_HELP)]
    ReloadTls,
    /// Take the master secret from a server: it forgets its keys
    Revoke(RevokeArgs),
    /// Give a revoked server the master secret again
    Readmit(MasterArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The master secret server says so to the server at once, and to every other master; one that is not reached
has forgotten its keys when its read lease ends. 'sso server readmit' takes it back.

Examples:
  sso server revoke sso-server-3
  sso server revoke sso-server-3 --master unix:///run/sso-master/admin.sock --yes")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    server: MasterArgs,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MasterArgs {
    /// Name of the server, as the settings of the master call it
    #[arg(value_name = "NAME")]
    name: String,
    /// Address of the master secret server, unix:///PATH or https://HOST:PORT [env: SSO_MASTER]
    #[arg(long, value_name = "URL")]
    master: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only what is given is changed.

Examples:
  sso server set sso-server-1 --positive-audit-level 2
  sso server set sso-server-1 --remote-lookup no")]
pub(crate) struct SetArgs {
    /// Name of the server
    #[arg(value_name = "NAME")]
    name: String,
    /// What is logged of requests that are done: 0 nothing, 1 changes, 2 also reveals, 3 everything
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(..=3))]
    positive_audit_level: Option<u32>,
    /// What is logged of requests that are refused: 0 nothing, 1 denials, 2 also refusals, 3 everything
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(..=3))]
    negative_audit_level: Option<u32>,
    /// Run-time look-ups are served to callers on other machines
    #[arg(long, value_name = "yes|no", value_parser = parse_yes)]
    remote_lookup: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ServersDocument {
    servers: Vec<ServerDocument>,
}

#[derive(Debug, Serialize)]
struct ServerDocument {
    name: String,
    address: String,
    version: String,
    online: bool,
    master_secret_state: &'static str,
    started_at: Option<String>,
    last_seen_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct SettingsDocument<'a> {
    name: &'a str,
    positive_audit_level: u32,
    negative_audit_level: u32,
    remote_lookup: bool,
}

pub(crate) async fn run(
    command: ServerCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        ServerCommand::List => list(service, output).await,
        ServerCommand::Show { name } => {
            let (name, settings) = service.connect()?.system().server_settings(&name).await?;
            show(&name, &settings, output)
        }
        ServerCommand::Set(args) => {
            let (settings, paths) = changes(&args)?;
            let system = service.connect()?.system();
            let answer = system.update_server_settings(&args.name, settings, &paths).await?;
            show(&answer.0, &answer.1, output)
        }
        ServerCommand::AssertionKeys => {
            output.line(&service.connect()?.lookup().assertion_keys().await?)
        }
        ServerCommand::ReloadTls => {
            let system = service.connect_for_batches()?.system();
            tls_shown::reloaded(system.reload_tls().await?, output)
        }
        ServerCommand::Revoke(args) => revoke(args, service, output).await,
        ServerCommand::Readmit(args) => {
            let secret = service.connect_master(args.master.as_deref())?.secret();
            secret.readmit_server(&args.name).await?;
            output.document(&json!({ "name": args.name, "revoked": false }), |output| {
                output.line(&format!("{} may have the master secret again", escape(&args.name)))
            })
        }
    }
}

async fn revoke(args: RevokeArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let RevokeArgs { server: MasterArgs { name, master }, yes } = args;
    confirm(&format!("Take the master secret from {name}? It serves nobody then."), yes)?;
    let secret = service.connect_master(master.as_deref())?.secret();
    let revoked = secret.revoke_server(&name).await?;
    let by = time(revoked.forgotten_by.as_ref());
    let unaware = &revoked.unaware_masters;
    let document = json!({
        "name": name, "revoked": true, "told": revoked.told, "forgotten_by": by,
        "unaware_masters": unaware
    });
    if !unaware.is_empty() {
        output.warn(
            None,
            &format!(
                "{} has not heard of it yet and may still hand the keys out: stop it, or repair the way \
                 to it",
                unaware.join(", ")
            ),
        );
    }
    output.document(&document, |output| {
        output.pairs(vec![
            ("server", name.clone()),
            ("was told", yes_no(revoked.told)),
            (
                "has forgotten by",
                match &revoked.forgotten_by {
                    Some(_) => time_cell(revoked.forgotten_by.as_ref()),
                    None => {
                        "unknown: told before, or not heard of since the master started".to_owned()
                    }
                },
            ),
        ])
    })
}

/// The message and the paths of what it changes.
fn changes(args: &SetArgs) -> Result<(ServerSettings, Vec<&'static str>), Failure> {
    let paths: Vec<_> = [
        ("positive_audit_level", args.positive_audit_level.is_some()),
        ("negative_audit_level", args.negative_audit_level.is_some()),
        ("remote_lookup", args.remote_lookup.is_some()),
    ]
    .into_iter()
    .filter_map(|(path, given)| given.then_some(path))
    .collect();
    if paths.is_empty() {
        return Err(Failure::usage_hint("nothing to change", "see sso server set --help"));
    }
    let settings = ServerSettings {
        positive_audit_level: args.positive_audit_level.unwrap_or_default(),
        negative_audit_level: args.negative_audit_level.unwrap_or_default(),
        remote_lookup: args.remote_lookup.unwrap_or_default(),
    };
    Ok((settings, paths))
}

fn show(name: &str, settings: &ServerSettings, output: &Output) -> Result<(), Failure> {
    let document = SettingsDocument {
        name,
        positive_audit_level: settings.positive_audit_level,
        negative_audit_level: settings.negative_audit_level,
        remote_lookup: settings.remote_lookup,
    };
    output.document(&document, |output| {
        output.pairs(vec![
            ("server", name.to_owned()),
            ("positive audit level", settings.positive_audit_level.to_string()),
            ("negative audit level", settings.negative_audit_level.to_string()),
            ("remote look-ups", yes_no(settings.remote_lookup)),
        ])
    })
}

async fn list(service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let servers = service.connect()?.system().servers().await?;
    let rows: Vec<_> = servers
        .iter()
        .map(|server| {
            vec![
                server.name.clone(),
                or_dash(&server.address),
                server.version.clone(),
                if server.online { "online" } else { "offline" }.to_owned(),
                master_secret_state(server.master_secret_state).to_owned(),
                time_cell(server.started_at.as_ref()),
                time_cell(server.last_seen_at.as_ref()),
            ]
        })
        .collect();
    let servers = servers.into_iter().map(|server| ServerDocument {
        started_at: time(server.started_at.as_ref()),
        last_seen_at: time(server.last_seen_at.as_ref()),
        name: server.name,
        address: server.address,
        version: server.version,
        online: server.online,
        master_secret_state: master_secret_state(server.master_secret_state),
    });
    output.document(&ServersDocument { servers: servers.collect() }, |output| {
        let header = ["NAME", "ADDRESS", "VERSION", "STATE", "KEYS", "STARTED", "LAST SEEN"];
        output.table(&header, rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_in_the_mask() {
        let mut args = SetArgs {
            name: "a".into(),
            positive_audit_level: None,
            negative_audit_level: None,
            remote_lookup: Some(false),
        };
        let (settings, paths) = changes(&args).unwrap();
        assert_eq!((settings.remote_lookup, paths), (false, vec!["remote_lookup"]));
        args.remote_lookup = None;
        assert_eq!(changes(&args).unwrap_err().exit_code(), 2);
    }
}
