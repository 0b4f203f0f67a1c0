//! The wiring of an SSO server: everything is checked, then bound, then served, then drained.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sso_core::{
    acceptor::AcceptLimits,
    clock::Clock,
    connector::ClientTls,
    exit::Exit,
    huge_pages::WithoutHugePages,
    lanes::{self, Lanes},
    local::{LocalError, LocalListener},
    operations::{Pages, Readiness, serve_operations},
    serving::Serving,
    shutdown::{self, Shutdown},
    telemetry::Metrics,
    tls::{Application, TlsError, TlsReloader},
};
use sso_proto::{Event, FILE_DESCRIPTOR_SET, Reason};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use uuid::Uuid;

use crate::{
    access::Access,
    announce,
    api::Door,
    assertion::Assertions,
    audit::{Audit, AuditWriter, Writer},
    changes::{ChangeReader, Changes},
    error::Error,
    generations,
    house::{Foundations, House},
    master::{
        AdmitKeyRing, Beginning, CacheOwner, LeaseCache, MasterLink, MasterSecret, MasterState,
        OfferedKeyRing,
    },
    reseal::{self, Resealer},
    settings::Settings,
    storage::{Storage, StorageError},
    system::ServerFacts,
    vault::Vault,
};

/// How often a server reports itself to the others.
const REPORT: Duration = Duration::from_secs(5);
/// How often `/readyz` and `grpc.health.v1` learn how things are, while they are well and otherwise.
const HEALTH: Duration = Duration::from_millis(500);
const HEALTH_WANTED: Duration = Duration::from_millis(50);

/// Where the operations listener has the keys that assertions are verified with.
const KEY_SET: &str = "/jwks.json";

/// Why a server does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A rule of ours.
    #[error(transparent)]
    Rule(#[from] Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Signals or reflection cannot be set up.
    #[error("cannot start: {0}")]
    Start(String),
}

impl ServerError {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Tls(_) => Exit::Settings,
            Self::Storage(StorageError::Settings(_)) => Exit::Settings,
            Self::Storage(StorageError::Unavailable(_)) => Exit::Unavailable,
            Self::Listen { .. } | Self::Local(_) => Exit::Unavailable,
            Self::Storage(_) | Self::Rule(_) | Self::Start(_) => Exit::Refused,
        }
    }
}

/// The parts of a server that is about to serve.
struct Parts {
    house: Arc<House>,
    storage: Storage,
    master: Arc<MasterSecret>,
    link: MasterLink,
    tls: Arc<TlsReloader>,
    changes: ChangeReader,
    audit: AuditWriter,
    resealer: Resealer,
}

/// Runs a server until it is told to stop. It does without huge pages until it has work.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(
    settings: Settings,
    metrics: Metrics,
    without_huge_pages: WithoutHugePages,
) -> Result<(), ServerError> {
    let stages = Shutdown::install(settings.stop_grace)
        .map_err(|error| ServerError::Start(error.to_string()))?;
    settings.audit.check().map_err(ServerError::Start)?;
    let tls = TlsReloader::load_listener(&settings.tls, Application::Grpc, Clock::System)?;
    tls.announce(announce::tls);
    let listener = listen(settings.listen).await?;
    let local = match &settings.listen_unix {
        Some(path) => Some(LocalListener::bind(path, settings.listen_unix_mode)?),
        None => None,
    };
    let operations = match settings.operations_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let address = listener.local_addr().unwrap_or(settings.listen);
    let tasks = TaskTracker::new();
    // Not ready until somebody looked.
    let opening = format!(
        "{}: starting; the database has not answered yet",
        Reason::DatabaseUnavailable.as_str()
    );
    let starting = (Readiness { reasons: vec![opening] }, Vec::new());
    let (readiness, observed) = tokio::sync::watch::channel(starting);
    let published = Arc::new(OnceLock::<Assertions>::new());
    if let Some(operations) = operations {
        let assertions = Arc::clone(&published);
        let (warned, certificates) = (observed.clone(), Arc::clone(&tls));
        let warnings = move || {
            let mut warnings = warned.borrow().1.clone();
            warnings.extend(certificates.warnings());
            warnings
        };
        let pages = Pages::new(move || observed.borrow().0.clone())
            .with_warnings(warnings)
            .with_json(KEY_SET, move || assertions.get()?.key_set().ok());
        let stop = stages.stop();
        tasks.spawn(async move {
            if let Err(error) = serve_operations(operations, metrics, pages, stop).await {
                tracing::warn!(event = Event::MetricsUnavailable.number(), %error, "the operations listener failed");
            }
        });
    }
    let lanes = Lanes::start(settings.lanes)
        .map_err(|error| ServerError::Start(format!("no threads to serve on: {error}")))?;
    // The database may take a while to answer; told to stop meanwhile, there is nothing to drain.
    let draining = stages.draining();
    let parts = tokio::select! {
        parts = build(&settings, address, tls, &lanes, &stages) => parts?,
        () = draining.cancelled() => return Ok(()),
    };
    let storage = parts.storage.clone();
    let house = Arc::clone(&parts.house);
    let _ = published.set(house.assertions.clone());
    let writer = tokio::spawn(parts.audit.run(stages.stop()));
    tasks.spawn(parts.changes.run(stages.stop()));
    tasks.spawn(Arc::clone(&parts.tls).watch(stages.stop()));
    tasks.spawn(settings.identity.clone().watch(stages.stop()));
    tasks.spawn(house.applications.clone().mind_groups(stages.stop()));
    tasks.spawn(parts.link.run(stages.stop()));
    tasks.spawn(parts.resealer.run(stages.stop()));
    let master = Arc::clone(&parts.master);
    tasks.spawn(report(Arc::clone(&house), master, stages.clone()));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let observing =
        observe(Arc::clone(&parts.master), storage.clone(), readiness, reporter, stages.clone());
    tasks.spawn(observing);
    let others = others(health, settings.reflection)?;
    let certificates = Arc::clone(&parts.tls);
    let count = lanes.handles().len();
    let door =
        Door::new(&house, certificates, &others, count, settings.max_requests, settings.quota);
    let records = house.audit.records();
    let serving = Serving::new(&lanes, settings.connection_age, records, stages.draining());
    let serving = serve(serving, door, listener, local, Arc::clone(&parts.tls));
    tracing::info!(event = Event::Started.number(), %address, server = settings.name, "serving");
    shutdown::notify_ready();
    tokio::spawn(without_huge_pages.until_busy());
    let stop = stages.stop();
    tokio::select! {
        () = serving => {}
        () = stop.cancelled() => tracing::warn!("requests still in work are given up"),
    }
    stages.stop_now();
    // The audit of what was answered is written before the process ends.
    let _ = writer.await;
    tasks.close();
    if tokio::time::timeout(settings.stop_grace, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    // Connections to the database may belong to lanes, which end last.
    storage.close().await;
    drop(lanes);
    tracing::info!(event = Event::Stopped.number(), "stopped");
    Ok(())
}

/// Serves clients over TLS, and those on this machine over the socket where there is one, until the server
/// has drained.
async fn serve(
    serving: Serving,
    door: Arc<Door>,
    listener: TcpListener,
    local: Option<LocalListener>,
    tls: Arc<TlsReloader>,
) {
    let limits = AcceptLimits::default();
    let visit = move |visitor| door.visit(visitor, lanes::current());
    let over_tls = serving.over_tls(listener, tls, limits, visit.clone());
    let Some(local) = local else { return over_tls.await };
    tracing::info!(socket = %local.path().display(), "serving this machine too");
    tokio::join!(over_tls, serving.over_socket(local, limits, visit));
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

/// Opens the database, and builds every floor on it.
async fn build(
    settings: &Settings,
    address: SocketAddr,
    tls: Arc<TlsReloader>,
    lanes: &Lanes,
    stages: &Shutdown,
) -> Result<Parts, ServerError> {
    // Nobody is let in, and no master is asked, before it is known whom the lists refuse.
    tls.fetch_lists().await;
    let clock = Clock::System;
    let (storage, schema_version) = open_database(settings, &clock).await?;
    let system = initialise(&storage, settings, &clock).await.inspect_err(|error| {
        tracing::error!(event = Event::DatabaseNotCreated.number(), %error, "no system in the database");
    })?;
    if !system.global.enabled {
        tracing::warn!(event = Event::SystemIsDisabled.number(), "the system is disabled");
    }
    announce::individuals(&system.global, |account| settings.identity.is_group(account));
    let access = Arc::new(Access::new(system.global));
    let (changes, reader) =
        Changes::begin(storage.clone(), Arc::clone(&access), stages.draining()).await?;
    // Both may have changed before the feed began.
    let system = storage.system().await?.ok_or_else(no_system)?;
    access.adopt(system.global, system.updated_at);
    access.adopt_server_settings(storage.server_settings(&settings.name).await?);
    let by = Writer { system: system.id, server: &settings.name };
    let (audit, writer) = Audit::open(by, &settings.audit, clock.clone(), storage.clone())?;
    let (master, link) = MasterSecret::new(
        &settings.master,
        &ClientTls::from(Arc::clone(&tls)),
        clock.clone(),
        beginning(settings, &storage, &clock, system.keystore_id).await?,
        admission(storage.clone(), clock.clone(), settings),
    )?;
    let started_at = clock.now();
    let assertions =
        Assertions::new(Arc::clone(&master), settings.assertion.clone(), clock.clone());
    let resealer = resealer(settings, &storage, &master, audit.clone(), clock.clone(), lanes);
    let house = House::build(Foundations {
        identity: Arc::new(settings.identity.clone()),
        access: Arc::clone(&access),
        audit,
        storage: storage.clone(),
        master: Arc::clone(&master),
        assertions,
        changes,
        clock,
        tls: Arc::clone(&tls),
        facts: ServerFacts {
            name: settings.name.clone(),
            address: settings.address.clone().unwrap_or_else(|| address.to_string()),
            started_at,
            schema_version,
        },
        cache: settings.cache,
    });
    Ok(Parts {
        house,
        storage,
        master,
        link,
        tls,
        changes: reader.of_server(&settings.name),
        audit: writer,
        resealer,
    })
}

/// The task that seals values again, and tells the masters of the database.
fn resealer(
    settings: &Settings,
    storage: &Storage,
    master: &Arc<MasterSecret>,
    audit: Audit,
    clock: Clock,
    lanes: &Lanes,
) -> Resealer {
    let (vault, told) = (Vault::new(Arc::clone(master)), Arc::clone(master));
    Resealer::new(reseal::Foundations {
        storage: storage.clone(),
        audit,
        clock,
        settings: settings.reseal,
        // Two processes may have one name for a while.
        holder: format!("{} {}", settings.name, Uuid::new_v4()),
        keys: Box::new(move || vault.resealing()),
        busy: Box::new(lanes.busy()),
        orders: master.orders(),
        tell: Box::new(move |facts| told.tell(facts)),
    })
}

/// The database with the schema that this program needs, and the version of that.
async fn open_database(settings: &Settings, clock: &Clock) -> Result<(Storage, u32), StorageError> {
    let storage = Storage::open(&settings.database, clock.clone()).await.inspect_err(|error| {
        let database = &settings.database.url;
        tracing::error!(event = Event::DatabaseNotReached.number(), %database, %error, "no database");
    })?;
    let schema =
        if settings.migrate { storage.migrate().await } else { storage.verify_schema().await };
    let schema = schema.inspect_err(|error| {
        tracing::error!(event = Event::SchemaIncompatible.number(), %error, "the schema does not fit");
    })?;
    Ok((storage, schema))
}

/// The row of the system, made from the settings where the database is new.
async fn initialise(
    storage: &Storage,
    settings: &Settings,
    clock: &Clock,
) -> Result<crate::storage::SystemRecord, ServerError> {
    if let Some(system) = storage.system().await? {
        return Ok(system);
    }
    let mut transaction = storage.begin().await?;
    if transaction.initialise_system(&settings.initial, clock.now()).await? {
        transaction.commit().await?;
        tracing::info!(
            event = Event::DatabaseCreated.number(),
            "a new SSO system was made in this database"
        );
    } else {
        transaction.rollback().await?;
    }
    Ok(storage.system().await?.ok_or_else(no_system)?)
}

/// The keys of the sealed cache, where there is one and the database allows them: a master is not
/// needed for reading then.
async fn beginning(
    settings: &Settings,
    storage: &Storage,
    clock: &Clock,
    keystore: Option<Uuid>,
) -> Result<Beginning, ServerError> {
    let Some(cache) = settings.master.cache.clone() else {
        return Ok(Beginning { keystore, ..Beginning::default() });
    };
    let server = settings.name.clone();
    let revoked = storage.revocations().await?.is_revoked(&server);
    let owner = CacheOwner { server: server.clone(), keystore, revoked };
    let its_clock = clock.clone();
    // Protectors block.
    let begun =
        tokio::task::spawn_blocking(move || LeaseCache::begin(&cache, &owner, its_clock)).await;
    let (cache, mut cached) = begun.map_err(|error| ServerError::Start(error.to_string()))?;
    if let Some(keys) = &cached
        && let Err(why) = generations::admit_kept(storage, clock, &server, &keys.offered()).await
    {
        tracing::warn!(%why, "the sealed cache of the keys is not used");
        cached = None;
    }
    Ok(Beginning { keystore, cache, cached })
}

/// Asks the database before keys are used: those of another keystore would seal values that nobody
/// could open later, and those of an earlier epoch what another master closed.
fn admission(storage: Storage, clock: Clock, settings: &Settings) -> AdmitKeyRing {
    let (server, masters) = (settings.name.clone(), settings.master.addresses().join(", "));
    Box::new(move |offered| {
        let (storage, clock, server) = (storage.clone(), clock.clone(), server.clone());
        // Global info names all masters of the settings, so that it does not change with each of them.
        let offered = OfferedKeyRing { master: masters.clone(), ..offered };
        Box::pin(async move { generations::admit(&storage, &clock, &server, &offered).await })
    })
}

fn no_system() -> Error {
    Error::new(Reason::Internal, "the row of the system cannot be read back")
}

/// Keeps the row of this server fresh: at once when the state of its keys changes, else every now and
/// then.
async fn report(house: Arc<House>, master: Arc<MasterSecret>, stages: Shutdown) {
    let stop = stages.stop();
    let mut reported: Option<(MasterState, Duration)> = None;
    let mut failed = false;
    loop {
        let (state, now) = (master.status().state, house.clock.instant());
        let fresh = |(known, at): (MasterState, Duration)| {
            known == state && now.saturating_sub(at) < REPORT
        };
        if !reported.is_some_and(fresh) {
            match house.system.report().await {
                Ok(()) => failed = false,
                Err(error) if !failed => {
                    tracing::warn!(event = Event::ReportFailed.number(), %error, "this server cannot report itself");
                    failed = true;
                }
                Err(_) => {}
            }
            reported = Some((state, now));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HEALTH) => {}
        }
    }
}

/// Keeps readiness true: keys at hand and a database that answers, and not draining. Beside it what
/// the keys warn of.
async fn observe(
    master: Arc<MasterSecret>,
    storage: Storage,
    readiness: tokio::sync::watch::Sender<(Readiness, Vec<String>)>,
    reporter: tonic_health::server::HealthReporter,
    stages: Shutdown,
) {
    let (draining, stop) = (stages.draining(), stages.stop());
    let mut ready = None;
    loop {
        let mut reasons = Vec::new();
        if draining.is_cancelled() {
            reasons.push(Reason::ServerStopping.as_str().to_owned());
        }
        if let Err(error) = master.keys_for_read() {
            let error = Error::from(error);
            reasons.push(format!("{}: {}", error.reason.as_str(), error.message));
        }
        let answered = tokio::time::timeout(Duration::from_secs(2), storage.ping()).await;
        if !matches!(answered, Ok(Ok(()))) {
            reasons.push(format!(
                "{}: the database does not answer",
                Reason::DatabaseUnavailable.as_str()
            ));
        }
        if ready != Some(reasons.is_empty()) && !draining.is_cancelled() {
            tell_readiness(&reasons, ready.is_some());
            ready = Some(reasons.is_empty());
        }
        let status = master.status();
        metrics::gauge!("sso_master_secret_state").set(f64::from(status.state as u8));
        metrics::gauge!("sso_ready").set(if reasons.is_empty() { 1.0 } else { 0.0 });
        let serving = if reasons.is_empty() {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        reporter.set_service_status("", serving).await;
        let pause = if reasons.is_empty() { HEALTH } else { HEALTH_WANTED };
        readiness.send_replace((Readiness { reasons }, master.warnings()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Says that the server became ready, or lost what it needs; at the start it only lacks it still.
fn tell_readiness(reasons: &[String], was_told: bool) {
    if reasons.is_empty() {
        tracing::info!(event = Event::Online.number(), "ready");
    } else if was_told {
        tracing::error!(event = Event::Offline.number(), ?reasons, "not ready any more");
    }
}

/// The services that are not of the product itself.
fn others<H>(health: H, reflection: bool) -> Result<Routes, ServerError>
where
    H: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    let mut routes = Routes::new(health);
    if reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let start = |error: tonic_reflection::server::Error| ServerError::Start(error.to_string());
        routes = routes
            .add_service(builder().build_v1().map_err(start)?)
            .add_service(builder().build_v1alpha().map_err(start)?);
    }
    Ok(routes)
}
