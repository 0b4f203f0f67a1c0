//! Redis over mutual TLS, by its own `redis-benchmark`: nothing is encrypted at rest, and who is connected
//! may read everything.

use std::process::Command;

use super::{Ask, Identity, Peer, Process, READY_WITHIN, Said, Shape, by_program, output};
use crate::load::{
    accounting::Group,
    round::{Round, SERVER},
};

/// Requests that tell how many a round takes.
const TASTE: u64 = 2000;

pub(super) struct Redis {
    process: Process,
    identity: Identity,
}

impl Redis {
    pub(super) fn start(identity: &Identity, shape: &Shape) -> Result<Self, String> {
        let tls = &identity.server;
        let process = Process::start("redis-server", |port, folder| {
            [
                ("--port", "0".to_owned()),
                ("--tls-port", port.to_string()),
                ("--bind", "127.0.0.1".to_owned()),
                ("--dir", folder.path().display().to_string()),
                ("--tls-cert-file", tls.certificate.display().to_string()),
                ("--tls-key-file", tls.key.display().to_string()),
                ("--tls-ca-cert-file", tls.ca.display().to_string()),
                ("--tls-auth-clients", "yes".to_owned()),
                ("--save", String::new()),
                ("--appendonly", "yes".to_owned()),
                ("--appendfsync", "always".to_owned()),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
        })
        .map_err(|error| error.to_string())?;
        let redis = Self { process, identity: identity.clone() };
        redis.fill(shape)?;
        Ok(redis)
    }

    fn client(&self, program: &str) -> Command {
        let tls = &self.identity.client;
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.process.port.number().to_string(), "--tls"]);
        command.arg("--cert").arg(&tls.certificate).arg("--key").arg(&tls.key);
        command.arg("--cacert").arg(&tls.ca);
        command
    }

    /// Keys as `redis-benchmark` has them.
    fn fill(&self, shape: &Shape) -> Result<(), String> {
        const FILL: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do \
             redis.call('set', string.format('key:%012d', i), string.rep('s', tonumber(ARGV[3]))) end";
        const AT_ONCE: u64 = 10_000;
        let limit = READY_WITHIN.as_millis().to_string();
        output(self.client("redis-cli").args(["config", "set", "busy-reply-threshold", &limit]))?;
        for first in (0..shape.keys).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let last = shape.keys.min(first + AT_ONCE);
            let numbers = [first.to_string(), last.to_string(), shape.value.to_string()];
            output(self.client("redis-cli").args(["eval", FILL, "0"]).args(numbers))?;
        }
        Ok(())
    }

    fn ask(&self, ask: Ask, shape: &Shape, requests: u64) -> Result<Said, String> {
        let what = match ask {
            Ask::Read => "get",
            Ask::Write => "set",
        };
        let numbers = [
            ("-c", shape.in_flight as u64),
            ("-n", requests.max(1)),
            ("-r", shape.keys),
            ("-d", shape.value as u64),
            ("--threads", shape.threads.min(shape.in_flight) as u64),
        ];
        let numbers = numbers.into_iter().flat_map(|(name, it)| [name.to_owned(), it.to_string()]);
        let mut command = self.client("redis-benchmark");
        said(&output(command.args(["-t", what, "--csv"]).args(numbers))?)
    }
}

impl Peer for Redis {
    fn process(&self) -> Group {
        Group::of(SERVER, self.process.child.id())
    }

    fn ways(&self, ask: Ask) -> &'static [&'static str] {
        match ask {
            Ask::Read => &["Redis GET"],
            Ask::Write => &["Redis SET"],
        }
    }

    fn round(&self, _: &str, ask: Ask, shape: &Shape, groups: &[Group]) -> Result<Round, String> {
        let taste = self.ask(ask, shape, TASTE)?;
        let requests = (taste.per_second * shape.duration.as_secs_f64()) as u64;
        by_program(groups, self.process.child.id(), || self.ask(ask, shape, requests))
    }
}

/// Of `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",…`.
fn said(text: &str) -> Result<Said, String> {
    let unread = || format!("redis-benchmark says: {text}");
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let titles = lines.next().ok_or_else(unread)?.split(',');
    let numbers = lines.next().ok_or_else(unread)?.split(',').collect::<Vec<_>>();
    let of = |title: &str| {
        let at = titles.clone().position(|it| it.trim_matches('"') == title)?;
        numbers.get(at)?.trim_matches('"').parse::<f64>().ok()
    };
    let micros = |title: &str| of(title).map(|millis| millis * 1000.0);
    let said = || {
        let (p50, p99) = (micros("p50_latency_ms")?, micros("p99_latency_ms")?);
        Some(Said { per_second: of("rps")?, p50, p99 })
    };
    said().ok_or_else(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_is_read_by_its_titles() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"GET\",\"33112.58\",\"1.5\",\"0.2\",\"1.359\",\"2.1\",\"2.400\",\"9.0\"\n";
        let wanted = Said { per_second: 33112.58, p50: 1359.0, p99: 2400.0 };
        assert_eq!(said(text).unwrap(), wanted);
        assert!(said("Could not connect").is_err());
        assert!(said("\"test\",\"rps\"\n\"GET\",\"many\"").is_err());
    }
}
