//! Leases by a clock that the test moves, and the whole way to a master over mutual TLS.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use prost::Message as _;
use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    clock::Clock,
    connector::ClientTls,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::Place,
    tls::{TlsReloader, TlsSettings},
    transit,
};
use sso_proto::{
    Reason, Refusal,
    v1::{
        self, FetchRequest, FetchResponse, GenerationKey, Heartbeat, KeyRingTransfer, WatchRequest,
        master_secret_server::{MasterSecret as MasterService, MasterSecretServer},
    },
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use self::pki::Pki;
use super::{BindKeystore, MasterError, MasterSecret, MasterSettings, MasterState};
use crate::error::Error;

#[path = "../../../sso-core/tests/pki/mod.rs"]
#[expect(dead_code, reason = "the certificates of another crate's tests serve here, in part")]
mod pki;

const PLACE: Place<'_> = Place { table: "t", column: "c", row: b"r", application: b"a" };

fn ring(keys: &[u8], active: u32) -> KeyRing {
    let generation = |number| Generation::new(number).unwrap();
    let keys = (1..)
        .zip(keys)
        .map(|(number, &byte)| (generation(number), LockedKey::from_bytes(&[byte; 32]).unwrap()));
    KeyRing::new(keys, generation(active)).unwrap()
}

fn manual() -> Clock {
    Clock::manual(time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000))
}

// ---- leases, without a network ----

#[test]
fn leases_decide_who_gets_keys() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    assert!(secret.keys_for_write().is_ok());
    assert_eq!(secret.status().state, MasterState::Current);
    assert_eq!(secret.status().active, Some(1));

    clock.advance(Duration::from_secs(15));
    assert!(matches!(secret.keys_for_write(), Err(MasterError::Unreachable { .. })));
    assert!(secret.keys_for_read().is_ok());
    let status = secret.status();
    assert_eq!(status.state, MasterState::ReadOnly);
    assert!(status.write_lease_until.is_none() && status.read_lease_until.is_some());

    clock.advance(Duration::from_secs(43_200));
    assert!(matches!(secret.keys_for_read(), Err(MasterError::Expired { .. })));
    assert!(matches!(secret.keys_for_write(), Err(MasterError::Expired { .. })));
    let status = secret.status();
    assert_eq!((status.state, status.active), (MasterState::Expired, None));
    assert!(status.generations.is_empty() && status.read_lease_until.is_none());
}

#[test]
fn keys_are_forgotten_without_being_asked_for() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    secret.forget_expired();
    assert!(secret.keys.load().is_some());
    clock.advance(Duration::from_secs(43_200));
    secret.forget_expired();
    assert!(secret.keys.load().is_none());
    assert_eq!(secret.version(), None);
}

#[test]
fn a_failure_ends_writing_at_once_and_a_word_brings_it_back() {
    let secret = MasterSecret::holding(ring(&[1], 1), manual());
    secret.fail("connection refused".into());
    let error = Error::from(secret.keys_for_write().unwrap_err());
    assert_eq!(error.reason, Reason::MasterUnreachable);
    assert!(error.message.contains("connection refused"), "{error}");
    assert!(secret.keys_for_read().is_ok());
    secret.confirm(secret.clock.instant());
    assert!(secret.keys_for_write().is_ok());
    assert_eq!(secret.status().last_error, None);
}

#[test]
fn a_confirmation_holds_from_its_own_instant() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    let asked = clock.instant();
    clock.advance(Duration::from_secs(20));
    secret.adopt(ring(&[1], 1), 1, asked);
    assert!(secret.keys_for_write().is_err());
    assert!(secret.keys_for_read().is_ok());
}

#[test]
fn an_older_version_counts_while_a_newer_one_is_held() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    secret.adopt(ring(&[1], 1), 3, clock.instant());
    assert!(secret.require_not_older(2).unwrap_err().contains("change 2"));
    assert_eq!(secret.require_not_older(3), Ok(()));
    clock.advance(Duration::from_secs(43_200));
    assert_eq!(secret.require_not_older(2), Ok(()));
}

#[test]
fn states_have_words() {
    for state in MasterState::ALL {
        assert_eq!(MasterState::parse(state.as_str()), Some(state));
    }
    assert_eq!(MasterState::parse("other"), None);
}

#[test]
fn settings_are_checked() {
    let good = settings("https://127.0.0.1:7410");
    assert_eq!(good.check(), Ok(()));
    let bad = |url: &str, poll, read, write| {
        let bad = MasterSettings {
            url: url.to_owned(),
            poll_seconds: poll,
            read_lease_seconds: read,
            write_lease_seconds: write,
        };
        bad.check().unwrap_err().0
    };
    assert_eq!(bad("http://127.0.0.1:7410", 1, 1, 1), "url");
    assert_eq!(bad("https://127.0.0.1:7410", 0, 1, 1), "poll_seconds");
    assert_eq!(bad("https://127.0.0.1:7410", 1, 0, 0), "read_lease_seconds");
    assert_eq!(bad("https://127.0.0.1:7410", 1, 5, 6), "write_lease_seconds");
}

// ---- a master of the tests ----

/// What the fake master says.
#[derive(Clone)]
struct Says {
    keystore: Uuid,
    version: u64,
    keys: Vec<u8>,
    active: u32,
    watch: bool,
    refuse: bool,
}

#[derive(Clone)]
struct FakeMaster(Arc<Mutex<Says>>);

impl FakeMaster {
    fn says(&self) -> Says {
        self.0.lock().unwrap().clone()
    }

    fn beat(&self) -> Heartbeat {
        let says = self.says();
        Heartbeat {
            keystore_id: says.keystore.to_string(),
            version: says.version,
            active_generation: says.active,
            active_fingerprint: ring(&says.keys, says.active).active_fingerprint().to_string(),
            interval_ms: 50,
            master_time_ms: 0,
        }
    }
}

#[tonic::async_trait]
impl MasterService for FakeMaster {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Heartbeat, Status>> + Send>>;

    async fn fetch(&self, call: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let says = self.says();
        if says.refuse {
            return Err(Refusal::new(Reason::ServerNotListed, "no server is listed").into());
        }
        let generations = (1..)
            .zip(&says.keys)
            .map(|(generation, &byte)| GenerationKey { generation, key: vec![byte; 32] })
            .collect();
        let transfer = KeyRingTransfer { generations, active_generation: says.active };
        let key = call.into_inner().recipient_key;
        let sealed = transit::seal_to(&key, transit::FETCH, &transfer.encode_to_vec()).unwrap();
        Ok(Response::new(FetchResponse { sealed, state: Some(self.beat()) }))
    }

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let _ = WatchRequest {};
        if !self.says().watch || self.says().refuse {
            return Err(Status::unimplemented("no watching here"));
        }
        let beats = stream::unfold(self.clone(), |master| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok(master.beat()), master))
        });
        Ok(Response::new(Box::pin(beats)))
    }
}

/// A fake master and a link to it.
struct Scene {
    pki: Pki,
    addr: SocketAddr,
    master: FakeMaster,
    /// Dropping it cuts every connection, as the death of a process does.
    running: Option<Runtime>,
    secret: Arc<MasterSecret>,
    clock: Clock,
    stop: CancellationToken,
    link: JoinHandle<()>,
    bound: Arc<Mutex<Option<Uuid>>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.link.abort();
        self.down();
    }
}

fn settings(url: &str) -> MasterSettings {
    MasterSettings {
        url: url.to_owned(),
        poll_seconds: 1,
        read_lease_seconds: 600,
        write_lease_seconds: 15,
    }
}

impl Scene {
    /// The link runs, the master does not yet. The database belongs to `bound` already, if given.
    async fn new(bound: Option<Uuid>) -> Self {
        let pki = Pki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let master = FakeMaster(Arc::new(Mutex::new(Says {
            keystore: Uuid::from_u128(7),
            version: 1,
            keys: vec![1],
            active: 1,
            watch: true,
            refuse: false,
        })));
        let bound = Arc::new(Mutex::new(bound));
        let clock = manual();
        let tls = ClientTls::load(&pki.issue("server")).unwrap();
        let url = format!("https://{addr}");
        let (secret, link) =
            MasterSecret::new(&settings(&url), tls, clock.clone(), binder(&bound)).unwrap();
        let stop = CancellationToken::new();
        let link = tokio::spawn(link.run(stop.clone()));
        Self { pki, addr, master, running: None, secret, clock, stop, link, bound }
    }

    fn up(&mut self) {
        let tls: TlsSettings = self.pki.issue("master");
        let (addr, master) = (self.addr, self.master.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.unwrap();
            let tls = TlsReloader::load(&tls).unwrap();
            let incoming =
                mtls_incoming(listener, tls, AcceptLimits::default(), CancellationToken::new());
            let service = MasterSecretServer::new(master);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        self.running = Some(runtime);
    }

    fn down(&mut self) {
        if let Some(runtime) = self.running.take() {
            runtime.shutdown_background();
        }
    }

    fn say(&self, edit: impl FnOnce(&mut Says)) {
        edit(&mut self.master.0.lock().unwrap());
    }

    /// Waits until it is true, and says how long that took.
    async fn until(&self, what: &str, truth: impl Fn(&MasterSecret) -> bool) -> Duration {
        let began = Instant::now();
        while !truth(&self.secret) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "not {what}: {:?}",
                self.secret.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    async fn until_current(&self) -> Duration {
        self.until("current", |secret| secret.keys_for_write().is_ok()).await
    }
}

fn binder(bound: &Arc<Mutex<Option<Uuid>>>) -> BindKeystore {
    let bound = Arc::clone(bound);
    Box::new(move |found| {
        let bound = *bound.lock().unwrap().get_or_insert(found);
        Box::pin(async move { Ok(bound) })
    })
}

#[tokio::test]
async fn keys_are_obtained_and_are_the_masters() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    let keys = scene.secret.keys_for_write().unwrap();
    let sealed = keys.seal(&PLACE, b"value").unwrap();
    assert_eq!(ring(&[1], 1).open(&PLACE, &sealed).unwrap().expose(), b"value");
    assert_eq!(*scene.bound.lock().unwrap(), Some(Uuid::from_u128(7)));
    assert!(scene.secret.status().last_confirmed_at.is_some());
}

#[tokio::test]
async fn reads_outlive_the_master_and_writes_do_not() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.down();
    // The clock stands still, so the lease did not just end by itself.
    let refused = |secret: &MasterSecret| {
        matches!(secret.keys_for_write(), Err(MasterError::Unreachable { last_error, .. })
            if last_error.contains("nothing listens"))
    };
    let took = scene.until("refusing writes", refused).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(scene.secret.keys_for_read().is_ok());

    scene.up();
    let took = scene.until_current().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn keys_are_forgotten_when_the_read_lease_ends() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.down();
    scene.until("refusing writes", |secret| secret.keys_for_write().is_err()).await;
    scene.clock.advance(Duration::from_secs(600));
    assert!(matches!(scene.secret.keys_for_read(), Err(MasterError::Expired { .. })));
    scene.until("forgotten", |secret| secret.keys.load().is_none()).await;
    scene.up();
    scene.until_current().await;
}

#[tokio::test]
async fn a_server_started_without_master_says_so_and_recovers() {
    let mut scene = Scene::new(None).await;
    let tried = |secret: &MasterSecret| secret.status().last_error.is_some();
    scene.until("tried", tried).await;
    let error = Error::from(scene.secret.keys_for_read().unwrap_err());
    assert_eq!(error.reason, Reason::MasterSecretMissing);
    assert!(error.message.contains("since it started (nothing listens"), "{error}");
    assert_eq!(scene.secret.status().state, MasterState::NeverFetched);
    scene.up();
    scene.until_current().await;
}

#[tokio::test]
async fn the_keys_of_another_system_are_not_used() {
    let own = Uuid::from_u128(1);
    let mut scene = Scene::new(Some(own)).await;
    scene.up();
    scene.until("foreign", |secret| secret.status().state == MasterState::Foreign).await;
    let error = Error::from(scene.secret.keys_for_read().unwrap_err());
    assert_eq!(error.reason, Reason::MasterSecretForeign);
    assert!(error.message.contains(&own.to_string()), "{error}");
    assert!(scene.secret.keys.load().is_none());
    scene.say(|says| says.keystore = own);
    scene.until_current().await;
}

#[tokio::test]
async fn a_master_that_becomes_foreign_ends_writing_alone() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.keystore = Uuid::from_u128(8);
        says.version = 2;
        says.keys = vec![9];
    });
    let foreign =
        |secret: &MasterSecret| matches!(secret.keys_for_write(), Err(MasterError::Foreign { .. }));
    scene.until("foreign", foreign).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert_eq!(keys.active_fingerprint(), ring(&[1], 1).active_fingerprint());
}

#[tokio::test]
async fn a_new_generation_arrives_by_itself() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    assert_eq!(scene.secret.status().generations.len(), 2);
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_keystore_that_was_rolled_back_ends_writing() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 1;
        says.keys = vec![1];
        says.active = 1;
    });
    let refused = |secret: &MasterSecret| {
        matches!(secret.keys_for_write(), Err(MasterError::Unreachable { last_error, .. })
            if last_error.contains("change 1"))
    };
    scene.until("refused", refused).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert_eq!(keys.active_fingerprint(), ring(&[1, 2], 2).active_fingerprint());
}

#[tokio::test]
async fn heartbeats_from_before_a_pause_extend_nothing() {
    let mut scene = Scene::new(None).await;
    scene.up();
    scene.until_current().await;
    // The pause ends the stream; only what is asked for anew brings the lease back.
    scene.say(|says| says.refuse = true);
    scene.clock.advance(Duration::from_secs(60));
    scene
        .until("told", |secret| {
            secret.status().last_error.is_some_and(|error| error.contains("no server is listed"))
        })
        .await;
    assert!(scene.secret.keys_for_write().is_err());
    scene.say(|says| says.refuse = false);
    scene.until_current().await;
}

#[tokio::test]
async fn polling_serves_where_watching_does_not() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| says.watch = false);
    scene.up();
    scene.until_current().await;
    scene.say(|says| {
        says.version = 2;
        says.keys = vec![1, 2];
        says.active = 2;
    });
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    assert!(scene.secret.keys_for_write().is_ok());
}

#[tokio::test]
async fn a_refusal_of_the_master_is_told() {
    let mut scene = Scene::new(None).await;
    scene.say(|says| says.refuse = true);
    scene.up();
    let told = |secret: &MasterSecret| {
        secret.status().last_error.is_some_and(|error| error.contains("no server is listed"))
    };
    scene.until("told", told).await;
    assert!(matches!(scene.secret.keys_for_read(), Err(MasterError::Missing { .. })));
}
