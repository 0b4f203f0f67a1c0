//! `sso server`: the servers that share the database.

use clap::Subcommand;
use serde::Serialize;

use super::{
    Service,
    shown::{master_secret_state, or_dash, time, time_cell},
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers of the system, with the state of their keys
    List,
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

pub(crate) async fn run(
    command: ServerCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let ServerCommand::List = command;
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
