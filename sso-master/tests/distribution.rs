//! The running server over real mutual TLS: who gets the key ring, and what watchers see.

#![expect(clippy::expect_used, reason = "a helper of a test may fail the test")]

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
    connector::{ClientTls, ConnectOptions, connect_channel},
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    shutdown::Shutdown,
    telemetry::Metrics,
    tls::{TlsReloader, TlsSettings},
    transit::{self, TransitKeyPair},
};
use sso_master::{
    distribution::Unlocked,
    serve::{Listeners, serve},
    settings::Settings,
};
use sso_proto::{
    Reason, Refusal,
    v1::{FetchRequest, KeyRingTransfer, WatchRequest, master_secret_client::MasterSecretClient},
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::Channel;
use uuid::Uuid;

const SERVER: &str = "sso-server://sso-server-1";

/// A server in a folder of its own, and the authority of everyone's certificates.
struct House {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    url: String,
    sender: watch::Sender<Arc<Unlocked>>,
    tls: Arc<TlsReloader>,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).expect("32 bytes")
}

fn unlocked(change: u64, generations: u32) -> Arc<Unlocked> {
    let generation = |number| Generation::new(number).expect("not 0");
    let keys = (1..=generations).map(|number| (generation(number), key(number as u8)));
    let ring = KeyRing::new(keys, generation(generations)).expect("a ring");
    Arc::new(Unlocked { keystore: Uuid::from_u128(7), change, ring })
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

fn private(path: &Path, content: &str) -> PathBuf {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("private");
    path.to_owned()
}

/// Certificate and key with this name, signed by the authority.
fn issue(
    folder: &Path,
    authority: &CertifiedIssuer<'static, KeyPair>,
    file: &str,
    name: SanType,
) -> TlsSettings {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let own = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&own, authority).expect("signed");
    TlsSettings {
        certificate: private(&folder.join(format!("{file}.crt")), &certificate.pem()),
        key: private(&folder.join(format!("{file}.key")), &own.serialize_pem()),
        ca: private(&folder.join("ca.crt"), &authority.pem()),
        crl: None,
        allow_development: false,
        client_certificate: sso_core::tls::ClientCertificate::Required,
    }
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("a URI"))
}

impl House {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = authority();
        let address = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
        issue(folder.path(), &authority, "master", address);
        let text = format!(
            "version = 1\nname = 'master'\nkeystore = 'keystore.json'\nlisten = '127.0.0.1:0'\n\
             heartbeat_interval_ms = 100\n\
             [tls]\ncertificate = 'master.crt'\nkey = 'master.key'\nca = 'ca.crt'\n\
             [protector]\nkind = 'passphrase'\n\
             [[server]]\nname = 'sso-server-1'\ncertificate = {{ san_uri = '{SERVER}' }}\n"
        );
        let settings = private(&folder.path().join("sso-master.toml"), &text);
        let settings = Settings::load(&settings).expect("settings");
        let tls = TlsReloader::load(&settings.tls).expect("certificates");
        let listeners = Listeners::bind(&settings).await.expect("a port");
        let url = format!("https://{}", listeners.servers.local_addr().expect("an address"));
        let (sender, receiver) = watch::channel(unlocked(1, 1));
        let shutdown = Shutdown::manual();
        let (stages, reloader) = (shutdown.clone(), Arc::clone(&tls));
        let serving = tokio::spawn(async move {
            serve(&settings, listeners, receiver, reloader, Metrics::detached(), &stages)
                .await
                .expect("it stops when told");
        });
        Self { folder, authority, url, sender, tls, shutdown, serving }
    }

    /// A client whose certificate has this URI.
    fn client(&self, name: &str) -> MasterSecretClient<Channel> {
        let settings = issue(self.folder.path(), &self.authority, "client", uri(name));
        let tls = ClientTls::load(&settings).expect("certificates");
        let channel = connect_channel(&self.url, tls, ConnectOptions::default());
        MasterSecretClient::new(channel.expect("an address"))
    }

    async fn close(self) {
        self.shutdown.drain();
        tokio::time::timeout(Duration::from_secs(5), self.serving)
            .await
            .expect("streams do not hold it up")
            .expect("no panic");
    }
}

#[tokio::test]
async fn a_listed_server_fetches_every_generation() {
    let house = House::open().await;
    house.sender.send_replace(unlocked(2, 2));
    let pair = TransitKeyPair::generate().unwrap();
    let request = FetchRequest { recipient_key: pair.public_key() };
    let response = house.client(SERVER).fetch(request).await.unwrap().into_inner();

    let state = response.state.unwrap();
    assert_eq!((state.version, state.active_generation, state.interval_ms), (2, 2, 100));
    assert_eq!(state.keystore_id, Uuid::from_u128(7).to_string());
    let plaintext = pair.open(&response.sealed, transit::FETCH).unwrap();
    let transfer = KeyRingTransfer::decode(plaintext.expose()).unwrap();
    assert_eq!(transfer.active_generation, 2);
    let keys: Vec<_> =
        transfer.generations.iter().map(|key| (key.generation, key.key[0])).collect();
    assert_eq!(keys, [(1, 1), (2, 2)]);
    let clear = key(2);
    assert!(!response.sealed.windows(32).any(|window| window == clear.expose()));
    house.close().await;
}

#[tokio::test]
async fn only_listed_servers_get_anything() {
    let house = House::open().await;
    for name in ["sso-server://sso-server-2", "sso://DEV/admin", "sso-server://sso-server-11"] {
        let mut client = house.client(name);
        let pair = TransitKeyPair::generate().unwrap();
        let request = FetchRequest { recipient_key: pair.public_key() };
        let fetched = client.fetch(request).await.unwrap_err();
        let watched = client.watch(WatchRequest {}).await.unwrap_err();
        for status in [fetched, watched] {
            let refusal = Refusal::from_status(&status).unwrap();
            assert_eq!(refusal.reason, Reason::ServerNotListed, "{name}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_public_key_that_is_none_is_refused() {
    let house = House::open().await;
    for recipient_key in [vec![], vec![0; 32], vec![1; 31]] {
        let status = house.client(SERVER).fetch(FetchRequest { recipient_key }).await.unwrap_err();
        assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::InvalidRequest);
    }
    house.close().await;
}

#[tokio::test]
async fn watchers_see_heartbeats_and_changes_and_the_end() {
    let house = House::open().await;
    let mut beats = house.client(SERVER).watch(WatchRequest {}).await.unwrap().into_inner();
    let first = beats.message().await.unwrap().unwrap();
    assert_eq!((first.version, first.active_generation), (1, 1));
    let second = beats.message().await.unwrap().unwrap();
    assert_eq!(second.version, 1);
    assert!(second.master_time_ms >= first.master_time_ms);

    house.sender.send_replace(unlocked(2, 2));
    let mut beat = beats.message().await.unwrap().unwrap();
    if beat.version == 1 {
        // This one was on its way already.
        beat = beats.message().await.unwrap().unwrap();
    }
    assert_eq!((beat.version, beat.active_generation), (2, 2));
    assert_ne!(beat.active_fingerprint, first.active_fingerprint);

    house.shutdown.drain();
    let end = async { while let Ok(Some(_)) = beats.message().await {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_watcher_that_is_no_longer_trusted_is_cut_off() {
    let house = House::open().await;
    let mut beats = house.client(SERVER).watch(WatchRequest {}).await.unwrap().into_inner();
    beats.message().await.unwrap().unwrap();

    // Another authority takes over: the certificate of the watcher is worth nothing now.
    let other = authority();
    let address = SanType::IpAddress("127.0.0.1".parse().unwrap());
    issue(house.folder.path(), &other, "master", address);
    house.tls.reload().unwrap();
    let end = async {
        loop {
            match beats.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a reason is given"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
    assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::CertificateRefused);
    house.close().await;
}
