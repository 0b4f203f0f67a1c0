//! PostgreSQL over TLS, by its own `pgbench` with prepared statements: a bare table, and the same with values
//! that pgcrypto seals in the database with a key that every statement carries.

use std::fs;

use super::{Ask, Identity, Peer, Said, Shape, by_program, output};
use crate::{
    load::{
        accounting::Group,
        round::{Round, SERVER},
    },
    postgres,
};

/// What 256 bits of key look like in a statement.
const KEY: &str = "'\\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'::bytea";
const BARE: &str = "PostgreSQL";
const SEALED: &str = "PostgreSQL + pgcrypto";
const INSERT: &str = "PostgreSQL insert";
/// The database that a new server has.
const DATABASE: &str = "postgres";

pub(super) struct Postgresql {
    server: postgres::Server,
}

impl Postgresql {
    pub(super) fn start(identity: &Identity, shape: &Shape) -> Result<Option<Self>, String> {
        let options = postgres::Options { fsync: true, tcp: true };
        let Some(server) = postgres::Server::start(options) else { return Ok(None) };
        server.use_tls(&identity.server.certificate, &identity.server.key);
        let Shape { keys, value, .. } = shape;
        for text in [
            "CREATE EXTENSION pgcrypto",
            "CREATE TABLE bare (id BIGINT PRIMARY KEY, secret BYTEA NOT NULL)",
            "CREATE TABLE sealed (id BIGINT PRIMARY KEY, secret BYTEA NOT NULL)",
            "CREATE TABLE inserted (id UUID PRIMARY KEY, until BIGINT NOT NULL)",
            &format!(
                "INSERT INTO bare SELECT it, repeat('s', {value})::bytea \
                 FROM generate_series(0, {keys} - 1) it"
            ),
            &format!("INSERT INTO sealed SELECT id, encrypt(secret, {KEY}, 'aes') FROM bare"),
            "VACUUM ANALYZE",
            "CHECKPOINT",
        ] {
            output(server.over_tls("psql").args(["-X", "-q", "-d", DATABASE, "-c", text]))?;
        }
        Ok(Some(Self { server }))
    }

    fn ask(&self, script: &str, shape: &Shape) -> Result<Said, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("script");
        fs::write(&file, script).map_err(|error| error.to_string())?;
        let mut command = self.server.over_tls("pgbench");
        command.args(["--no-vacuum", "--protocol=prepared", "-f"]).arg(&file);
        command.args(["-c", &shape.in_flight.to_string()]);
        command.args(["-j", &shape.threads.min(shape.in_flight).to_string()]);
        command.args(["-T", &shape.duration.as_secs().max(1).to_string(), DATABASE]);
        said(&output(&mut command)?)
    }
}

impl Peer for Postgresql {
    fn process(&self) -> Group {
        Group::with_children(SERVER, self.server.id().unwrap_or_default())
    }

    fn ways(&self, ask: Ask) -> &'static [&'static str] {
        match ask {
            Ask::Read => &[BARE, SEALED],
            Ask::Write => &[BARE, SEALED, INSERT],
        }
    }

    fn round(&self, way: &str, ask: Ask, shape: &Shape, groups: &[Group]) -> Result<Round, String> {
        let statement = match (ask, way) {
            (Ask::Read, SEALED) => {
                format!("SELECT decrypt(secret, {KEY}, 'aes') FROM sealed WHERE id = :id")
            }
            (Ask::Read, _) => "SELECT secret FROM bare WHERE id = :id".to_owned(),
            (Ask::Write, SEALED) => format!(
                "UPDATE sealed SET secret = encrypt(repeat('t', {})::bytea, {KEY}, 'aes') \
                 WHERE id = :id",
                shape.value
            ),
            (Ask::Write, INSERT) => {
                "INSERT INTO inserted VALUES (gen_random_uuid(), :id)".to_owned()
            }
            (Ask::Write, _) => format!(
                "UPDATE bare SET secret = repeat('t', {})::bytea WHERE id = :id",
                shape.value
            ),
        };
        let last = shape.keys.saturating_sub(1);
        let script = format!("\\set id random(0, {last})\n{statement};\n");
        let server = self.server.id().unwrap_or_default();
        by_program(groups, server, || self.ask(&script, shape))
    }
}

fn said(text: &str) -> Result<Said, String> {
    let of = |title: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(title))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let per_second = of("tps = ").ok_or_else(|| format!("pgbench says: {text}"))?;
    Ok(Said { per_second, ..Said::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_is_read() {
        let text = "number of failed transactions: 0 (0.000%)\nlatency average = 2.790 ms\n\
                    tps = 22941.505123 (without initial connection time)\n";
        let wanted = Said { per_second: 22941.505123, ..Said::default() };
        assert_eq!(said(text).unwrap(), wanted);
        assert!(said("fatal: no connection").is_err());
    }
}
