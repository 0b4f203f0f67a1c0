//! What else somebody could keep secrets in, asked for the same over TLS: etcd, Redis, and PostgreSQL with
//! pgcrypto and without. Each is started from what is installed, with a folder of its own.

mod etcd;
mod postgresql;
mod redis;

use std::{
    fs, io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sso_client::{
    certificates::{Authority, Request, Role},
    development::ReservedPort,
};
use sso_core::{clock::Clock, connector::ClientTls, tls::TlsSettings};
use tempfile::TempDir;

use super::{
    accounting::{Group, Snapshot},
    round::{Round, undisturbed},
};

/// A server of others has to answer within this.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A secret, chosen at random.
    Read,
    /// To replace a secret, chosen at random, durably.
    Write,
}

/// How it is asked.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Secrets there are.
    pub keys: u64,
    /// Bytes of each.
    pub value: usize,
    /// Connections, where a client can have several requests in flight on one.
    pub connections: usize,
    /// Requests in flight; elsewhere so many connections.
    pub in_flight: usize,
    /// How long a round is.
    pub duration: Duration,
    /// Threads of the client.
    pub threads: usize,
}

/// What servers and clients of others prove who they are with.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of the server.
    pub server: TlsSettings,
    /// Of the clients, as files.
    pub client: TlsSettings,
    /// The same, as ours.
    pub callers: Vec<ClientTls>,
}

/// A running server of others, filled. Ends with the value.
pub trait Peer {
    /// Its process, with those it has started.
    fn process(&self) -> Group;

    /// Ways to ask it; none where it cannot be asked so.
    fn ways(&self, ask: Ask) -> &'static [&'static str];

    /// Asks in one of its ways for as long as a round takes.
    ///
    /// # Errors
    /// What was refused.
    fn round(&self, way: &str, ask: Ask, shape: &Shape, groups: &[Group]) -> Result<Round, String>;
}

impl Identity {
    /// Of an authority of its own, kept in this folder: programs of others do not read the mark that
    /// certificates of `sso dev` carry.
    ///
    /// # Panics
    /// When no certificate can be made.
    #[must_use]
    pub fn make(folder: &Path) -> Self {
        let (now, lifetime) = (Clock::System.now(), time::Duration::days(30));
        let authority = Authority::create("Peers", lifetime, false, now).expect("an authority");
        let ca = folder.join("ca.crt");
        fs::write(&ca, authority.certificate()).expect("written");
        let issue = |name: &str, role| {
            let mut request = Request::new(name, role, time::Duration::days(7));
            if role == Role::Server {
                request.addresses = vec![Ipv4Addr::LOCALHOST.into()];
            }
            let issued = authority.issue(&request, now).expect("a certificate");
            let (certificate, key) = issued.write(folder, name, true).expect("written");
            TlsSettings::new(certificate, key, ca.clone())
        };
        let (server, client) = (issue("server", Role::Server), issue("client", Role::Client));
        let callers = vec![ClientTls::load(&client).expect("the certificates of a caller")];
        Self { server, client, callers }
    }
}

/// Those that run, and the names of those that are not installed.
type Started = (Vec<Box<dyn Peer>>, Vec<&'static str>);

/// Starts and fills everyone that is installed.
///
/// # Errors
/// When one does not start, or cannot be filled.
pub fn start(identity: &Identity, shape: &Shape) -> Result<Started, String> {
    let (mut peers, mut absent): Started = (Vec::new(), Vec::new());
    if installed("etcd") {
        peers.push(Box::new(etcd::Etcd::start(identity, shape)?));
    } else {
        absent.push("etcd");
    }
    if installed("redis-server") && installed("redis-benchmark") {
        peers.push(Box::new(redis::Redis::start(identity, shape)?));
    } else {
        absent.push("Redis");
    }
    match postgresql::Postgresql::start(identity, shape)? {
        Some(postgresql) => peers.push(Box::new(postgresql)),
        None => absent.push("PostgreSQL"),
    }
    Ok((peers, absent))
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success())
}

/// A process with a folder and a port of its own. Ends with the value.
#[derive(Debug)]
struct Process {
    child: Child,
    port: ReservedPort,
    folder: TempDir,
}

impl Process {
    fn start(
        program: &str,
        arguments: impl FnOnce(u16, &TempDir) -> Vec<String>,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = ReservedPort::choose()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(program)
            .args(arguments(port.number(), &folder))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut process = Self { child, port, folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", process.port.number())).is_err() {
            let ended = process.child.try_wait()?.is_some();
            if ended || begun.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(process.log())?;
                return Err(io::Error::other(format!("{program} does not start:\n{log}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client program of others says of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Said {
    per_second: f64,
    /// Microseconds; 0 where it does not say.
    p50: f64,
    p99: f64,
}

/// Runs a client program, again where others disturbed it, and counts what it cost.
fn by_program(
    groups: &[Group],
    server: u32,
    mut run: impl FnMut() -> Result<Said, String>,
) -> Result<Round, String> {
    undisturbed(|| {
        let (before, begun) = (Snapshot::take(groups), Instant::now());
        let said = run()?;
        let took = begun.elapsed();
        let spent = before.until(&Snapshot::take(groups), took);
        // What it says is without the time to connect.
        let answers = said.per_second * took.as_secs_f64();
        let costs = Round::costs(answers, took, &spent, server);
        Ok(Round { p50: said.p50, p99: said.p99, ..costs })
    })
}

/// The standard output of a program that has to do well.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|error| format!("{name}: {error}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}
