//! Masters of the tests: what they say is set by the test, and the way to them is the real one.

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
        FetchRequest, FetchResponse, GenerationKey, Heartbeat, KeyRingTransfer, ReplicateRequest,
        ReplicateResponse, ReportRequest, ReportResponse, WatchRequest,
        master_secret_server::{MasterSecret as MasterService, MasterSecretServer},
    },
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use self::pki::Pki;
use super::{
    AdmitKeyRing, Beginning, MasterError, MasterSecret, MasterSettings, MasterState, OfferedKeyRing,
};
use crate::error::Error;

mod cache;
mod leases;
mod one_master;
mod reports;
mod revocation;
mod settings;
mod several_masters;

#[path = "../../../../sso-core/tests/pki/mod.rs"]
#[expect(dead_code, reason = "the certificates of another crate's tests serve here, in part")]
mod pki;

const PLACE: Place<'_> = Place { table: "t", column: "c", row: b"r", application: b"a" };
const KEYSTORE: Uuid = Uuid::from_u128(7);
/// Members: the primary at first, and the one that is promoted.
const FIRST: Uuid = Uuid::from_u128(71);
const SECOND: Uuid = Uuid::from_u128(72);

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

/// What a master with these keys says.
pub(super) fn beat_of(keys: &KeyRing, version: u64) -> Heartbeat {
    Heartbeat {
        keystore_id: KEYSTORE.to_string(),
        version,
        active_generation: keys.active().number(),
        active_fingerprint: keys.active_fingerprint().to_string(),
        interval_ms: 50,
        epoch: 1,
        primary: FIRST.to_string(),
        member: FIRST.to_string(),
        ..Heartbeat::default()
    }
}

/// What a fake master says.
#[derive(Clone)]
struct Says {
    keystore: Uuid,
    version: u64,
    keys: Vec<u8>,
    active: u32,
    epoch: u64,
    primary: Uuid,
    member: Uuid,
    closing: Vec<u32>,
    watch: bool,
    refuse: Option<Reason>,
}

impl Says {
    /// A new generation.
    fn rotate(&mut self) {
        self.version += 1;
        self.keys.push(self.keys.len() as u8 + 1);
        self.active = self.keys.len() as u32;
    }

    /// This master leads a new epoch.
    fn promote(&mut self) {
        self.version += 1;
        self.epoch += 1;
        self.primary = self.member;
    }

    fn beat(&self) -> Heartbeat {
        Heartbeat {
            keystore_id: self.keystore.to_string(),
            epoch: self.epoch,
            primary: self.primary.to_string(),
            member: self.member.to_string(),
            name: format!("master-{}", self.member.as_u128()),
            closing_generations: self.closing.clone(),
            ..beat_of(&ring(&self.keys, self.active), self.version)
        }
    }
}

#[derive(Clone)]
struct FakeMaster {
    says: Arc<Mutex<Says>>,
    reports: Arc<Mutex<Vec<ReportRequest>>>,
}

impl FakeMaster {
    fn new(member: Uuid) -> Self {
        let says = Says {
            keystore: KEYSTORE,
            version: 1,
            keys: vec![1],
            active: 1,
            epoch: 1,
            primary: FIRST,
            member,
            closing: Vec::new(),
            watch: true,
            refuse: None,
        };
        Self { says: Arc::new(Mutex::new(says)), reports: Arc::default() }
    }

    fn says(&self) -> Says {
        self.says.lock().unwrap().clone()
    }

    fn willing(&self) -> Result<Says, Status> {
        let says = self.says();
        match says.refuse {
            Some(reason) => Err(Refusal::new(reason, "no server is listed").into()),
            None => Ok(says),
        }
    }
}

#[tonic::async_trait]
impl MasterService for FakeMaster {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Heartbeat, Status>> + Send>>;

    async fn fetch(&self, call: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let says = self.willing()?;
        let generations = (1..)
            .zip(&says.keys)
            .map(|(generation, &byte)| GenerationKey { generation, key: vec![byte; 32] })
            .collect();
        let transfer = KeyRingTransfer { generations, active_generation: says.active };
        let key = call.into_inner().recipient_key;
        let sealed = transit::seal_to(&key, transit::FETCH, &transfer.encode_to_vec()).unwrap();
        Ok(Response::new(FetchResponse { sealed, state: Some(says.beat()) }))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !self.willing()?.watch {
            return Err(Status::unimplemented("no watching here"));
        }
        let beats = stream::unfold((self.clone(), false), |(master, ended)| async move {
            if ended {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Only a revocation ends a stream, as it does at a real master.
            let beat = match master.willing() {
                Err(status) if master.says().refuse == Some(Reason::ServerRevoked) => Err(status),
                Ok(_) | Err(_) => Ok(master.says().beat()),
            };
            let ended = beat.is_err();
            Some((beat, (master, ended)))
        });
        Ok(Response::new(Box::pin(beats)))
    }

    async fn report(
        &self,
        call: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let says = self.willing()?;
        self.reports.lock().unwrap().push(call.into_inner());
        Ok(Response::new(ReportResponse { state: Some(says.beat()) }))
    }

    async fn replicate(
        &self,
        _: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        Err(Status::unimplemented("servers do not ask for this"))
    }
}

/// What the database of the tests says to key rings.
#[derive(Default)]
struct Database {
    bound: Option<Uuid>,
    epoch: u64,
    primary: Option<Uuid>,
    /// Instead of an answer.
    fault: Option<Reason>,
    admitted: Vec<OfferedKeyRing>,
}

impl Database {
    fn admit(&mut self, offered: OfferedKeyRing) -> Result<(), Error> {
        if let Some(reason) = self.fault {
            return Err(Error::new(reason, "the database does not answer"));
        }
        let bound = *self.bound.get_or_insert(offered.keystore);
        if bound != offered.keystore {
            let message = format!("keystore {}, and not {bound}", offered.keystore);
            return Err(Error::new(Reason::MasterSecretForeign, message));
        }
        let same = offered.epoch == self.epoch && self.primary == Some(offered.primary);
        if offered.epoch <= self.epoch && !same {
            return Err(Error::new(Reason::MasterOutdated, "an earlier epoch"));
        }
        (self.epoch, self.primary) = (offered.epoch, Some(offered.primary));
        self.admitted.push(offered);
        Ok(())
    }
}

fn admission(database: &Arc<Mutex<Database>>) -> AdmitKeyRing {
    let database = Arc::clone(database);
    Box::new(move |offered| {
        let answer = database.lock().unwrap().admit(offered);
        Box::pin(async move { answer })
    })
}

/// Where a fake master is, and whether it runs.
struct Seat {
    addr: SocketAddr,
    master: FakeMaster,
    /// Dropping it cuts every connection, as the death of a process does.
    running: Option<Runtime>,
}

/// Fake masters and a link to them.
struct Scene {
    pki: Pki,
    seats: Vec<Seat>,
    secret: Arc<MasterSecret>,
    clock: Clock,
    stop: CancellationToken,
    link: JoinHandle<()>,
    database: Arc<Mutex<Database>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.link.abort();
        for place in 0..self.seats.len() {
            self.down_at(place);
        }
    }
}

fn settings(urls: &[String]) -> MasterSettings {
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let mut settings = MasterSettings::with_urls(&urls);
    settings.poll_seconds = 1;
    settings.read_lease_seconds = 600;
    settings
}

impl Scene {
    /// The link runs, the only master does not yet. The database belongs to `bound` already, if given.
    async fn new(bound: Option<Uuid>) -> Self {
        Self::beginning(1, Beginning { keystore: bound, ..Beginning::default() }, manual()).await
    }

    /// So many masters, all of which run: the first leads.
    async fn of(masters: usize) -> Self {
        let mut scene = Self::beginning(masters, Beginning::default(), manual()).await;
        scene.all_up().await;
        scene
    }

    async fn all_up(&mut self) {
        for place in 0..self.seats.len() {
            self.up_at(place);
        }
        self.until_current().await;
        for place in 0..self.seats.len() {
            self.until_good(place).await;
        }
    }

    async fn beginning(masters: usize, beginning: Beginning, clock: Clock) -> Self {
        Self::with(masters, beginning, clock, |_| {}).await
    }

    async fn with(
        masters: usize,
        beginning: Beginning,
        clock: Clock,
        edit: impl FnOnce(&mut MasterSettings),
    ) -> Self {
        let pki = Pki::new();
        let mut seats = Vec::new();
        for place in 0..masters {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let member = Uuid::from_u128(FIRST.as_u128() + place as u128);
            seats.push(Seat { addr, master: FakeMaster::new(member), running: None });
        }
        let database = Database { bound: beginning.keystore, ..Database::default() };
        let database = Arc::new(Mutex::new(database));
        let tls = ClientTls::load(&pki.issue("server")).unwrap();
        let urls: Vec<_> = seats.iter().map(|seat| format!("https://{}", seat.addr)).collect();
        let admit = admission(&database);
        let mut settings = settings(&urls);
        edit(&mut settings);
        let (secret, link) =
            MasterSecret::new(&settings, &tls, clock.clone(), beginning, admit).unwrap();
        let stop = CancellationToken::new();
        let link = tokio::spawn(link.run(stop.clone()));
        Self { pki, seats, secret, clock, stop, link, database }
    }

    fn up(&mut self) {
        self.up_at(0);
    }

    fn up_at(&mut self, place: usize) {
        let tls: TlsSettings = self.pki.issue("master");
        // At once: the next one is issued into the same files.
        let tls = TlsReloader::load(&tls).unwrap();
        let seat = &mut self.seats[place];
        let (addr, master) = (seat.addr, seat.master.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.unwrap();
            let incoming =
                mtls_incoming(listener, tls, AcceptLimits::default(), CancellationToken::new());
            let service = MasterSecretServer::new(master);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        seat.running = Some(runtime);
    }

    fn down(&mut self) {
        self.down_at(0);
    }

    fn down_at(&mut self, place: usize) {
        if let Some(runtime) = self.seats[place].running.take() {
            runtime.shutdown_background();
        }
    }

    fn say(&self, edit: impl FnOnce(&mut Says)) {
        self.say_at(0, edit);
    }

    fn say_at(&self, place: usize, edit: impl FnOnce(&mut Says)) {
        edit(&mut self.seats[place].master.says.lock().unwrap());
    }

    fn reports(&self, place: usize) -> Vec<ReportRequest> {
        self.seats[place].master.reports.lock().unwrap().clone()
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

    async fn until_good(&self, place: usize) {
        let good = |secret: &MasterSecret| {
            let master = &secret.status().masters[place];
            master.reached && master.last_error.is_none()
        };
        self.until("good", good).await;
    }

    /// Waits until the word of this master does not count, for a reason with these words.
    async fn until_useless(&self, place: usize, words: &str) {
        let useless = |secret: &MasterSecret| {
            let error = secret.status().masters[place].last_error.clone();
            error.is_some_and(|error| error.contains(words))
        };
        self.until(words, useless).await;
    }

    async fn until_lost(&self, place: usize) {
        let lost = |secret: &MasterSecret| !secret.status().masters[place].reached;
        self.until("lost", lost).await;
    }
}
