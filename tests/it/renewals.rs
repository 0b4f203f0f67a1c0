//! Certificates are renewed a hundred times while requests go on, over connections that are there and
//! over new ones: those of a server, of the master and of the clients. Not one request fails.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use rcgen::SerialNumber;
use rustls::{ClientConfig, ClientConnection, pki_types::CertificateDer};
use sso_client::Client;
use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel},
    tls::{TlsReloader, TlsSettings},
};
use sso_proto::v1::{self, config_store_client::ConfigStoreClient};
use sso_tests::{raw, system::eventually};
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::tls_matrix::{
    oracle::{Lists, Policy, Version},
    subject::{Subject, hang_up},
    zoo::{Leaf, client, program, replace},
};

const RENEWALS: usize = 100;
/// Every so many renewals the programs are told to reload between the certificate and its key.
const TORN_EVERY: usize = 10;
/// Tasks with a connection from before the first renewal, and tasks with a new one for each request.
const OLD: usize = 3;
const NEW: usize = 3;
const SOON: Duration = Duration::from_secs(30);

const APPLICATION: &str = "Renewals";
/// The account of the clients, and the name of their files.
const WHO: &str = "app-admin";
const SERVER: &str = "sso-server-1";
const MASTER: &str = "sso-master";

/// Requests that go on until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// One of each task: the requests that were answered.
    answered: Vec<Arc<AtomicU64>>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: JoinSet<()>,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            answered: Vec::new(),
            failures: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Keeps one request in flight.
    fn add<R>(&mut self, name: &'static str, mut request: impl FnMut(u64) -> R + Send + 'static)
    where
        R: Future<Output = Result<(), Status>> + Send,
    {
        let answered = Arc::new(AtomicU64::new(0));
        self.answered.push(Arc::clone(&answered));
        let (stop, failures) = (Arc::clone(&self.stop), Arc::clone(&self.failures));
        self.tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let number = answered.load(Ordering::Relaxed);
                if let Err(status) = request(number).await {
                    let what = format!("{name}, request {number}: {status:?}");
                    failures.lock().expect("no panic").push(what);
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Waits until every task had an answer to a request that was sent from now on.
    fn go_on(&self) {
        let count = |task: &Arc<AtomicU64>| task.load(Ordering::Relaxed);
        let before: Vec<_> = self.answered.iter().map(count).collect();
        eventually("every task has new answers", SOON, || {
            let after = self.answered.iter().map(count);
            after.zip(&before).all(|(after, before)| after >= before + 2).then_some(())
        });
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("no panic").clone()
    }
}

async fn set(channel: &Channel, identifier: &str, value: &str) -> Result<(), Status> {
    let value = v1::NewValue { value: Some(value.into()) };
    let message = v1::SetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        values: [("Value".to_owned(), value)].into(),
        ..Default::default()
    };
    raw::call(channel, "/sso.v1.ConfigStore/Set", message.encode_to_vec()).await.map(drop)
}

async fn get(channel: &Channel, identifier: &str) -> Result<(), Status> {
    let message = v1::GetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        ..Default::default()
    };
    raw::call(channel, "/sso.v1.ConfigStore/Get", message.encode_to_vec()).await.map(drop)
}

/// The certificate that is served at an address.
fn served(address: SocketAddr, config: Arc<ClientConfig>) -> CertificateDer<'static> {
    let name = "127.0.0.1".try_into().expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a time");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a handshake");
    }
    let shown = session.peer_certificates().expect("certificates");
    shown.first().expect("a certificate").clone().into_owned()
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("https://").expect("https").parse().expect("an address")
}

/// A system whose certificates are renewed, and a client of it.
struct Renewed {
    subject: Subject,
    client: Arc<TlsReloader>,
    /// Every certificate that was in use.
    superseded: Vec<SerialNumber>,
    in_use: Vec<Leaf>,
}

impl Renewed {
    fn start() -> Self {
        let mut subject = Subject::prepare();
        subject.write_lists(Lists::Good);
        subject.start_variant(Version::Tls13, Policy::HardFail);
        subject.system.create_application(APPLICATION, &["Value"]);
        let file = |name: String| subject.system.installation().tls_file(&name);
        let mut settings = TlsSettings::new(
            file(format!("{WHO}.crt")),
            file(format!("{WHO}.key")),
            file("ca.crt".to_owned()),
        );
        settings.allow_development = true;
        let client = TlsReloader::load(&settings).expect("the client's files");
        let mut renewed = Self { subject, client, superseded: Vec::new(), in_use: Vec::new() };
        // What `sso dev` made has serial numbers that are not known here.
        renewed.renew(0);
        renewed
    }

    fn channel(&self) -> Channel {
        connect(&self.url(), &self.client)
    }

    fn url(&self) -> String {
        self.subject.system.installation().server_address(1).expect("a server")
    }

    /// A new certificate and a new key for the server, the master and the client, in use when this
    /// returns.
    fn renew(&mut self, round: usize) {
        let own = &self.subject.own;
        let made = [
            (SERVER, own.issue(program("sso-server://sso-server-1"))),
            (MASTER, own.issue(program("sso-master://sso-master"))),
            (WHO, own.issue(client(WHO, WHO))),
        ];
        for (name, leaf) in &made {
            let file =
                |suffix| self.subject.system.installation().tls_file(&format!("{name}.{suffix}"));
            let (certificate, key) = (file("crt"), file("key"));
            // The two files cannot be replaced as one.
            if round.is_multiple_of(2) {
                leaf.write_certificate(&certificate);
                self.tear(round);
                leaf.write_key(&key);
            } else {
                leaf.write_key(&key);
                self.tear(round);
                leaf.write_certificate(&certificate);
            }
        }
        self.hang_up();
        self.client.reload().expect("the client's new files");
        for (url, (name, leaf)) in [
            (self.url(), &made[0]),
            (self.subject.system.installation().master_address(), &made[1]),
        ] {
            eventually(&format!("{name} has its new certificate"), SOON, || {
                let shown = served(address(&url), self.client.client_config());
                (shown == *leaf.der()).then_some(())
            });
        }
        let made = made.into_iter().map(|(_, leaf)| leaf).collect();
        let before = std::mem::replace(&mut self.in_use, made);
        self.superseded.extend(before.iter().map(Leaf::serial));
    }

    /// Has everybody look at files that do not fit together.
    fn tear(&mut self, round: usize) {
        if round % TORN_EVERY == 1 {
            self.hang_up();
            let _ = self.client.reload();
        }
    }

    fn hang_up(&mut self) {
        self.subject.hang_up();
        hang_up(self.subject.system.master().id());
    }
}

fn connect(url: &str, tls: &Arc<TlsReloader>) -> Channel {
    let tls = ClientTls::from(Arc::clone(tls));
    let options =
        ConnectOptions { connect_timeout: Duration::from_secs(30), ..ConnectOptions::default() };
    connect_channel(url, tls, options).expect("a channel")
}

/// Requests by every kind of client.
async fn load(renewed: &Renewed, library: &Arc<Client>) -> (Load, Vec<Channel>) {
    let mut load = Load::new();
    let mut old = Vec::new();
    for task in 0..OLD {
        let channel = renewed.channel();
        let identifier = format!("Old{task}");
        set(&channel, &identifier, "first").await.expect("written");
        old.push(channel.clone());
        load.add("an old connection", move |number| {
            let (channel, identifier) = (channel.clone(), identifier.clone());
            async move {
                if number.is_multiple_of(4) {
                    set(&channel, &identifier, &number.to_string()).await?;
                }
                get(&channel, &identifier).await
            }
        });
    }
    for _ in 0..NEW {
        let (url, tls) = (renewed.url(), Arc::clone(&renewed.client));
        load.add("a new connection", move |_| {
            let channel = connect(&url, &tls);
            async move { get(&channel, "Old0").await }
        });
    }
    let library = Arc::clone(library);
    load.add("the client library", move |_| {
        let library = Arc::clone(&library);
        async move {
            let status = library.system().status().await;
            status.map(drop).map_err(|error| Status::internal(error.to_string()))
        }
    });
    (load, old)
}

/// A stream that is to live as long as the test.
async fn watch(channel: Channel) -> Streaming<v1::ConfigurationChange> {
    let target = v1::WatchTarget { application: APPLICATION.into(), ..Default::default() };
    let message = v1::WatchConfigurationsRequest { targets: vec![target] };
    let watched = ConfigStoreClient::new(channel).watch(message).await;
    watched.expect("a stream").into_inner()
}

#[test]
fn a_hundred_renewals_of_every_certificate_fail_no_request() {
    let runtime = Runtime::new().expect("a runtime");
    let mut renewed = Renewed::start();
    let (mut load, old, mut stream) = runtime.block_on(async {
        let library = Arc::new(renewed.subject.system.client(WHO));
        let (load, old) = load(&renewed, &library).await;
        let stream = watch(renewed.channel()).await;
        (load, old, stream)
    });
    let failures = Arc::clone(&load.failures);
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    let watching = runtime.spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => counted.fetch_add(1, Ordering::Relaxed),
                ended => {
                    let what = format!("the stream ended: {ended:?}");
                    return failures.lock().expect("no panic").push(what);
                }
            };
        }
    });

    for round in 1..=RENEWALS {
        println!("renewal {round}");
        let changes = seen.load(Ordering::Relaxed);
        renewed.renew(round);
        load.go_on();
        eventually("the stream goes on", SOON, || {
            (seen.load(Ordering::Relaxed) > changes || !load.failures().is_empty()).then_some(())
        });
        let failures = load.failures();
        assert!(failures.is_empty(), "renewal {round}: {failures:#?}");
        if round.is_multiple_of(TORN_EVERY) {
            let _ = renewed.subject.system.sso_ok(WHO, &["status"]);
        }
    }
    watching.abort();
    load.stop.store(true, Ordering::Relaxed);
    runtime.block_on(async { while load.tasks.join_next().await.is_some() {} });
    assert_eq!(load.failures(), [""; 0]);
    superseded_certificates_are_let_go(&runtime, &mut renewed, &old);
}

/// What was in use before is revoked: nobody needs it any more but the connections from before, which
/// shows that these were never renewed on the way.
fn superseded_certificates_are_let_go(runtime: &Runtime, renewed: &mut Renewed, old: &[Channel]) {
    let list = renewed.subject.own_list(&renewed.superseded);
    replace(&renewed.subject.lists_file(), list.as_bytes());
    renewed.subject.reload();
    runtime.block_on(async {
        for channel in old {
            let status = get(channel, "Old0").await.expect_err("a connection of a revoked client");
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
        get(&renewed.channel(), "Old0").await.expect("a connection of the renewed client");
    });
}
