//! Masters in a folder of their own, and servers that only pretend.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel, connect_local},
    derive::Fingerprint,
    key_ring::Generation,
    local::{LocalListener, user_name},
    memory::LockedKey,
    shutdown::Shutdown,
    telemetry::Metrics,
    tls::{TlsReloader, TlsSettings},
    transit::{self, TransitKeyPair},
};
use sso_master::{
    custody::{Custody, Unlocked},
    keystore::Keystore,
    serve::{Listeners, serve},
    settings::Settings,
};
use sso_proto::{
    Reason, Refusal,
    v1::{
        BackupOpener, FetchRequest, FetchResponse, GenerationRows, Heartbeat, KeyRingTransfer,
        ReportRequest, WatchRequest, master_secret_client::MasterSecretClient,
        secret_client::SecretClient,
    },
};
use time::{OffsetDateTime, macros::datetime};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

/// Everything is there within this, or never.
pub(crate) const SOON: Duration = Duration::from_secs(15);
const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
pub(crate) const KEYSTORE: Uuid = Uuid::from_u128(7);

pub(crate) fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).expect("32 bytes")
}

fn keystore_key() -> LockedKey {
    key(200)
}

pub(crate) fn generation(number: u32) -> Generation {
    Generation::new(number).expect("not 0")
}

pub(crate) fn server_uri(name: &str) -> String {
    format!("sso-server://{name}")
}

pub(crate) fn master_uri(name: &str) -> String {
    format!("sso-master://{name}")
}

pub(crate) fn own_user() -> String {
    user_name(sso_core::process::user_id()).expect("a user with a name").to_string()
}

/// Folder and authority of a system.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: CertifiedIssuer<'static, KeyPair>,
}

/// What is special about a master.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    /// Beside the servers `sso-server-1` and `sso-server-2`.
    pub(crate) settings: String,
    /// Name and port of another master.
    pub(crate) peers: Vec<(String, u16)>,
    pub(crate) administrator: Option<String>,
}

pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

pub(crate) fn private(path: &Path, content: &str) -> PathBuf {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("private");
    path.to_owned()
}

/// Certificate and key with this name and for this machine, signed by the authority.
pub(crate) fn issue(
    folder: &Path,
    authority: &CertifiedIssuer<'static, KeyPair>,
    file: &str,
    name: &str,
) -> TlsSettings {
    let mut params = CertificateParams::default();
    let address = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
    let name = SanType::URI(name.try_into().expect("a URI"));
    params.subject_alt_names = vec![address, name];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let own = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&own, authority).expect("signed");
    TlsSettings::new(
        private(&folder.join(format!("{file}.crt")), &certificate.pem()),
        private(&folder.join(format!("{file}.key")), &own.serialize_pem()),
        private(&folder.join("ca.crt"), &authority.pem()),
    )
}

/// A port that nobody has for now.
pub(crate) async fn port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

pub(crate) fn number(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

impl World {
    pub(crate) fn new() -> Self {
        // Where sockets are made nobody else may write.
        Self { folder: tempfile::tempdir().expect("a folder"), authority: authority() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn keystore(&self, master: &str) -> PathBuf {
        self.path(&format!("{master}.keystore.json"))
    }

    /// The keystore of a primary with one generation, which has a backup.
    pub(crate) fn make_keystore(&self, master: &str, member: u128) {
        let member = Uuid::from_u128(member);
        let made = Keystore::create(KEYSTORE, member, &key(1), &keystore_key(), Vec::new(), NOW);
        let made = made.expect("a keystore").with_backup(&keystore_key(), NOW).expect("recorded");
        made.write_new(&self.keystore(master)).expect("written");
    }

    /// The keystore of a standby: a copy of what a primary has.
    pub(crate) fn copy_keystore(&self, of: &Unlocked, master: &str, member: u128) {
        let keys = of.kept().into_iter().map(|(generation, _)| {
            let key = of.ring.key(generation).expect("a key");
            (generation, LockedKey::from_bytes(key.expose()).expect("a key"))
        });
        let (keys, member) = (keys.collect(), Uuid::from_u128(member));
        let copy = Keystore::from_transfer(&of.header, keys, member, &keystore_key(), Vec::new());
        copy.expect("a keystore").write_new(&self.keystore(master)).expect("written");
    }

    pub(crate) fn settings(&self, master: &str, plan: &Plan) -> PathBuf {
        issue(self.folder.path(), &self.authority, master, &master_uri(master));
        let mut text = format!(
            "version = 1\nname = '{master}'\nkeystore = '{master}.keystore.json'\n\
             listen = '127.0.0.1:0'\nheartbeat_interval_ms = 100\n{settings}\n\
             [tls]\ncertificate = '{master}.crt'\nkey = '{master}.key'\nca = 'ca.crt'\n\
             [[protector]]\nkind = 'passphrase'\npassphrase_file = 'passphrase'\n\
             [[administrator]]\nname = 'anna'\nuser = '{user}'\n\
             certificate = {{ san_uri = 'sso://DEV/anna' }}\n",
            settings = plan.settings,
            user = plan.administrator.clone().unwrap_or_else(own_user),
        );
        for server in ["sso-server-1", "sso-server-2"] {
            let uri = server_uri(server);
            text +=
                &format!("[[server]]\nname = '{server}'\ncertificate = {{ san_uri = '{uri}' }}\n");
        }
        for (peer, port) in &plan.peers {
            let uri = master_uri(peer);
            text += &format!(
                "[[peer]]\nname = '{peer}'\nurl = 'https://127.0.0.1:{port}'\n\
                 certificate = {{ san_uri = '{uri}' }}\n"
            );
        }
        private(&self.path(&format!("{master}.toml")), &text)
    }

    /// A master that serves on this port, with the keystore that is there.
    pub(crate) async fn start(&self, master: &str, listener: TcpListener, plan: &Plan) -> Master {
        let settings = Settings::load(&self.settings(master, plan)).expect("settings");
        let tls = TlsReloader::load(&settings.tls).expect("certificates");
        let custody =
            Custody::begin(&settings.keystore, keystore_key(), sso_core::clock::Clock::System)
                .expect("a keystore");
        let socket = self.path(&format!("{master}.socket"));
        let administrators = LocalListener::bind(&socket, 0o600).expect("a socket");
        let port = number(&listener);
        let listeners =
            Listeners { servers: listener, administrators: Some(administrators), operations: None };
        let shutdown = Shutdown::manual();
        let (stages, reloader, held) = (shutdown.clone(), Arc::clone(&tls), Arc::clone(&custody));
        let serving = tokio::spawn(async move {
            serve(settings, listeners, held, reloader, Metrics::detached(), &stages)
                .await
                .expect("it stops when told");
        });
        Master { name: master.to_owned(), port, socket, custody, tls, shutdown, serving }
    }

    /// A master without others, with one generation.
    pub(crate) async fn master(&self) -> Master {
        self.make_keystore("master", 1);
        self.start("master", port().await, &Plan::default()).await
    }

    /// Whoever has a certificate with this name.
    pub(crate) fn channel(&self, of: &Master, name: &str) -> Channel {
        let settings = issue(self.folder.path(), &self.authority, "client", name);
        let tls = ClientTls::load(&settings).expect("certificates");
        let url = format!("https://127.0.0.1:{}", of.port);
        connect_channel(&url, tls, ConnectOptions::default()).expect("an address")
    }

    pub(crate) fn client(&self, of: &Master, name: &str) -> MasterSecretClient<Channel> {
        MasterSecretClient::new(self.channel(of, name))
    }

    pub(crate) fn server(&self, of: &Master, name: &str) -> Server {
        Server { client: self.client(of, &server_uri(name)), instance: Uuid::new_v4() }
    }
}

/// A running master.
pub(crate) struct Master {
    pub(crate) name: String,
    pub(crate) port: u16,
    socket: PathBuf,
    pub(crate) custody: Arc<Custody>,
    pub(crate) tls: Arc<TlsReloader>,
    pub(crate) shutdown: Shutdown,
    serving: JoinHandle<()>,
}

impl Master {
    /// An administrator at the socket.
    pub(crate) fn administrator(&self) -> SecretClient<Channel> {
        SecretClient::new(connect_local(&self.socket, ConnectOptions::default()))
            .max_decoding_message_size(4 << 20)
    }

    pub(crate) fn current(&self) -> Arc<Unlocked> {
        self.custody.current()
    }

    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Unlocked) -> bool) -> Arc<Unlocked> {
        let mut keystore = self.custody.subscribe();
        let reached = tokio::time::timeout(SOON, keystore.wait_for(|now| is(now))).await;
        match reached {
            Ok(Ok(now)) => Arc::clone(&now),
            Ok(Err(_)) | Err(_) => panic!("{}: {what}: {:?}", self.name, self.current()),
        }
    }

    pub(crate) async fn close(self) {
        self.shutdown.drain();
        tokio::time::timeout(Duration::from_secs(10), self.serving)
            .await
            .expect("streams do not hold it up")
            .expect("no panic");
        // The tasks beside the calls let go of the keystore.
        let weak = Arc::downgrade(&self.custody);
        drop(self.custody);
        until(|| weak.strong_count() == 0, "the keystore is let go of").await;
    }
}

/// An SSO server that keeps no promise of its own accord.
pub(crate) struct Server {
    pub(crate) client: MasterSecretClient<Channel>,
    pub(crate) instance: Uuid,
}

impl Server {
    /// The answer, and number and fingerprint of every generation in it.
    pub(crate) async fn fetch(&self) -> Result<(FetchResponse, Vec<(u32, String)>), Status> {
        let pair = TransitKeyPair::generate().expect("a key pair");
        let request = FetchRequest { recipient_key: pair.public_key() };
        let response = self.client.clone().fetch(request).await?.into_inner();
        let plaintext = pair.open(&response.sealed, transit::FETCH).expect("sealed to this call");
        let transfer = KeyRingTransfer::decode(plaintext.expose()).expect("a key ring");
        let held = transfer.generations.iter().map(|sent| {
            let key = LockedKey::from_bytes(&sent.key).expect("a key");
            (sent.generation, Fingerprint::of(&key).to_string())
        });
        Ok((response, held.collect()))
    }

    pub(crate) async fn report(&self, report: ReportRequest) -> Result<Heartbeat, Status> {
        let report = ReportRequest { instance: self.instance.to_string(), ..report };
        let answer = self.client.clone().report(report).await?;
        Ok(answer.into_inner().state.expect("a state"))
    }

    /// Fetches, and reports what it holds then, as a server with a database in this epoch.
    pub(crate) async fn catch_up(&self) -> Heartbeat {
        let (response, held) = self.fetch().await.expect("fetched");
        let state = response.state.expect("a state");
        let report = ReportRequest {
            version: state.version,
            held_epoch: state.epoch,
            generations: held.iter().map(|(number, print)| rows(*number, print)).collect(),
            held_fingerprints: held.iter().map(|(_, print)| print.clone()).collect(),
            ..facts(state.epoch, &state.primary)
        };
        self.report(report).await.expect("reported")
    }

    pub(crate) async fn watch(&self) -> Streaming<Heartbeat> {
        let request = WatchRequest { instance: self.instance.to_string() };
        self.client.clone().watch(request).await.expect("watching").into_inner()
    }
}

/// What a server says whose database is of this epoch.
pub(crate) fn facts(epoch: u64, primary: &str) -> ReportRequest {
    ReportRequest {
        epoch,
        primary: primary.to_owned(),
        read_lease_left_ms: 3_600_000,
        write_lease_left_ms: 30_000,
        program_version: "test".to_owned(),
        ..ReportRequest::default()
    }
}

pub(crate) fn rows(generation: u32, fingerprint: &str) -> GenerationRows {
    GenerationRows { generation, fingerprint: fingerprint.to_owned(), rows: 0, closed: false }
}

pub(crate) fn reason(status: &Status) -> Reason {
    Refusal::from_status(status).unwrap_or_else(|| panic!("{status:?}")).reason
}

/// Waits until something holds; fails when it does not become so.
pub(crate) async fn until(mut is: impl FnMut() -> bool, what: &str) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Reads a stream to its end, which has to come with a reason.
pub(crate) async fn end_of(stream: &mut Streaming<Heartbeat>) -> Reason {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a reason is given"),
                Err(status) => return reason(&status),
            }
        }
    };
    tokio::time::timeout(SOON, end).await.expect("the stream ends")
}

/// Shares open a backup, without the time that a password takes.
pub(crate) fn by_shares(shares: &[String]) -> Option<BackupOpener> {
    let mut opener = BackupOpener::default();
    opener.shares = shares.to_vec();
    Some(opener)
}

pub(crate) fn by_password(password: &str) -> Option<BackupOpener> {
    let mut opener = BackupOpener::default();
    opener.password = password.to_owned();
    Some(opener)
}
