//! From settings to a master that listens, and from a signal to its end.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use sso_core::{
    acceptor::{AcceptLimits, RecheckPeerLayer, mtls_incoming},
    clock::Clock,
    local::{LocalListener, local_incoming},
    memory::LockedKey,
    operations::{Pages, Readiness, serve_operations},
    shutdown::{Shutdown, notify_ready, notify_status},
    telemetry::{self, Metrics},
    tls::{Application, TlsReloader},
};
use sso_protector::{Kind, OsKeyring, Protector as _, Stanza, unlock};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{master_secret_server::MasterSecretServer, secret_server::SecretServer},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

use crate::{
    announce,
    backup::health,
    custody::{Custody, Unlocked},
    distribution::Distribution,
    door::DoorLayer,
    error::MasterError,
    file::FileError,
    house::House,
    keystore::{Keystore, KeystoreError},
    rotation,
    secret::SecretService,
    settings::{Role, Settings},
    standby,
};

/// How long calls may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of the largest request of a server: a report with names of rows that do not open.
const MESSAGE_MAX: usize = 256 * 1024;
/// Bytes of the largest request of an administrator: one with a backup.
const DOCUMENT_MAX: usize = 2 * 1024 * 1024;
/// Calls at once on one connection; a server makes three.
const STREAMS: u32 = 16;
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How often the kernel is shown that its key is in use; it forgets after three days by default.
const TOUCH: Duration = Duration::from_secs(12 * 3600);

/// Unlocks the keystore and serves until a signal. Blocks: it starts its own runtime, and only after
/// unlocking, because keyrings of the kernel belong to threads and those of the desktop bring a
/// runtime along.
///
/// # Errors
/// When anything is wrong before the first port is bound, or a listener fails.
pub fn run(settings_path: &Path) -> Result<(), MasterError> {
    let settings = Settings::load(settings_path)?;
    settings.process.apply()?;
    let metrics = telemetry::init(&settings.telemetry)?;
    if settings.require_locked_memory {
        sso_core::memory::require_locked_memory();
    }
    if sso_core::process::is_root() {
        tracing::warn!(
            event = Event::RunsAsRoot.number(),
            "this program runs as root and need not"
        );
    }
    let tls = TlsReloader::load_listener(&settings.tls, Application::Grpc, Clock::System)?;
    tls.announce(announce::tls);
    let keystore = Keystore::read(&settings.keystore).inspect_err(|error| {
        tracing::error!(event = Event::NoMasterSecret.number(), %error, "no master secret");
        if settings.role == Role::Standby
            && matches!(error, KeystoreError::File(FileError::Missing(_)))
        {
            tracing::error!(
                "this is a standby: `sso-master init` takes the keystore over from a [[peer]]"
            );
        }
    })?;
    let locked = |error: &MasterError| {
        tracing::error!(event = Event::MasterSecretLocked.number(), %error, "the master secret stays locked");
    };
    let key = keystore_key(&settings, &keystore).inspect_err(locked)?;
    let custody = Custody::begin(&settings.keystore, key, Clock::System).inspect_err(locked)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::install(GRACE)?;
        if settings.protector.iter().any(|it| it.kind() == Kind::Keyutils) {
            tokio::spawn(keep_in_kernel(settings.keystore.clone(), shutdown.draining()));
        }
        let listeners = Listeners::bind(&settings).await?;
        serve(settings, listeners, custody, tls, metrics, &shutdown).await
    })
}

fn keystore_key(settings: &Settings, keystore: &Keystore) -> Result<LockedKey, MasterError> {
    let protectors = settings.protectors(true)?;
    Ok(unlock(&protectors, keystore.id(), keystore.stanzas())?)
}

/// The keystore, opened.
///
/// # Errors
/// When no protector gives the keystore key, or the keystore was changed.
pub fn open(settings: &Settings, keystore: &Keystore) -> Result<Unlocked, MasterError> {
    Ok(Unlocked::open(keystore, &keystore_key(settings, keystore)?)?)
}

/// What is listened on.
#[derive(Debug)]
pub struct Listeners {
    /// For SSO servers and other masters.
    pub servers: TcpListener,
    /// For administrators on this machine.
    pub administrators: Option<LocalListener>,
    /// For operators.
    pub operations: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name.
    ///
    /// # Errors
    /// Names the address that is taken or not this machine's, and the socket that cannot be made.
    pub async fn bind(settings: &Settings) -> Result<Self, MasterError> {
        let operations = match settings.operations_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let servers = bind(settings.listen).await?;
        let administration = &settings.administration;
        let administrators = match &administration.socket {
            Some(path) => Some(LocalListener::bind(path, administration.socket_mode)?),
            None => None,
        };
        Ok(Self { servers, administrators, operations })
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, MasterError> {
    TcpListener::bind(address).await.map_err(|source| MasterError::Listen { address, source })
}

/// Serves until `shutdown`: first streams end and calls finish, then everything is dropped. What is
/// in the middle of a rotation goes on at the next start: it stands in the keystore.
///
/// # Errors
/// When a listener fails.
pub async fn serve(
    settings: Settings,
    listeners: Listeners,
    custody: Arc<Custody>,
    tls: Arc<TlsReloader>,
    metrics: Metrics,
    shutdown: &Shutdown,
) -> Result<(), MasterError> {
    let draining = shutdown.draining();
    // Nobody is let in before it is known whom the lists refuse.
    tokio::select! {
        () = tls.fetch_lists() => {}
        () = draining.cancelled() => return Ok(()),
    }
    tokio::spawn(Arc::clone(&tls).watch(draining.clone()));
    let address = listeners.servers.local_addr()?;
    let house = House::new(settings, custody, tls, draining.clone());
    let operations = operations(listeners.operations, metrics, &house, shutdown);
    let doors = doors(&house, listeners.servers, listeners.administrators).await;
    tokio::spawn(begin(Arc::clone(&house), address));
    let unlocked = house.current();
    tracing::info!(
        event = Event::MasterUnlocked.number(),
        keystore = %unlocked.keystore,
        active = unlocked.active.number(),
        fingerprint = %unlocked.ring.active_fingerprint(),
        epoch = unlocked.epoch,
        primary = unlocked.is_primary(),
        "unlocked: this is a master secret server"
    );
    let name = house.settings.name.as_str();
    tracing::info!(event = Event::Started.number(), name, %address, servers = house.settings.server.len(), peers = house.settings.peer.len(), "serving");
    notify_ready();
    let stop = shutdown.stop();
    tokio::select! {
        served = doors => served.map_err(std::io::Error::other)?,
        failed = operations => failed?,
        () = stop.cancelled() => tracing::warn!("calls were still open"),
    }
    tracing::info!(event = Event::Stopped.number(), "stopped");
    Ok(())
}

/// What goes on beside the calls. Only after the other masters were asked, or did not answer, is
/// anything administered.
async fn begin(house: Arc<House>, address: SocketAddr) {
    for peer in house.settings.peer.clone() {
        tokio::spawn(standby::follow(Arc::clone(&house), peer));
    }
    tokio::spawn(rotation::drive(Arc::clone(&house)));
    let (custody, draining) = (Arc::clone(&house.custody), house.draining.clone());
    let backup = house.settings.backup.clone();
    tokio::spawn(health::watch(custody, backup, house.clock.clone(), draining.clone()));
    if let Some(schedule) = &house.schedule {
        tokio::spawn(Arc::clone(schedule).run(draining));
    }
    tokio::spawn(tell_manager(Arc::clone(&house), address));
    standby::ask_all(&house).await;
    house.asked.cancel();
}

/// Serves the doors: mutual TLS for servers, masters and remote administrators, and the socket for
/// administrators of this machine.
async fn doors(
    house: &Arc<House>,
    servers: TcpListener,
    administrators: Option<LocalListener>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + use<> {
    let (tls, draining) = (Arc::clone(&house.tls), house.draining.clone());
    let limits = AcceptLimits::default();
    let distribution = MasterSecretServer::new(Distribution(Arc::clone(house)))
        .max_decoding_message_size(MESSAGE_MAX);
    let secret = SecretServer::new(SecretService::new(Arc::clone(house)))
        .max_decoding_message_size(DOCUMENT_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<MasterSecretServer<Distribution>>().await;
    let over_tls = transport()
        .layer(RecheckPeerLayer::new(Arc::clone(&tls), refuse_certificate))
        .layer(DoorLayer::new(Arc::clone(house)))
        .add_routes(
            Routes::new(health_service).add_service(distribution).add_service(secret.clone()),
        )
        .serve_with_incoming_shutdown(
            mtls_incoming(servers, tls, limits, draining.clone()),
            told_to_stop(draining.clone()),
        );
    let at_socket = async move {
        let Some(listener) = administrators else { return Ok(()) };
        tracing::info!(socket = %listener.path().display(), "serving administrators of this machine");
        transport()
            .add_routes(Routes::new(secret))
            .serve_with_incoming_shutdown(
                local_incoming(listener, limits, draining.clone()),
                draining.cancelled_owned(),
            )
            .await
    };
    async move { tokio::try_join!(over_tls, at_socket).map(drop) }
}

fn transport() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// Returns when the signal to stop has come.
async fn told_to_stop(draining: CancellationToken) {
    draining.cancelled().await;
    tracing::info!(event = Event::Stopping.number(), "stopping");
}

fn refuse_certificate(reason: String) -> tonic::Status {
    Refusal::new(Reason::CertificateRefused, reason).into_status()
}

/// Keeps the line that the service manager shows up to date.
async fn tell_manager(house: Arc<House>, address: SocketAddr) {
    let mut keystore = house.custody.subscribe();
    let mut told = String::new();
    loop {
        let unlocked = Arc::clone(&keystore.borrow_and_update());
        let role = if house.leadership.is_primary(&unlocked) { "primary" } else { "standby" };
        let line = format!(
            "{role} of epoch {}, version {}, generation {} active, serving on {address}",
            unlocked.epoch, unlocked.change, unlocked.active
        );
        if line != told {
            notify_status(&line);
            told = line;
        }
        tokio::select! {
            () = tokio::time::sleep(house.interval()) => {}
            changed = keystore.changed() => if changed.is_err() { return },
            () = house.draining.cancelled() => return,
        }
    }
}

/// Serves operators; ends only when their listener fails.
async fn operations(
    listener: Option<TcpListener>,
    metrics: Metrics,
    house: &Arc<House>,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    if let Some(listener) = listener {
        let (house, tls) = (Arc::clone(house), Arc::clone(&house.tls));
        let ready = move || Readiness { reasons: not_ready(&house) };
        let pages = Pages::new(ready).with_warnings(move || tls.warnings());
        // Until the end, so that draining can be seen.
        serve_operations(listener, metrics, pages, shutdown.stop()).await?;
    }
    std::future::pending().await
}

/// Why no server should come to this master; empty when it serves. A standby serves although its
/// primary is away: that is what it is for, and its status says so.
fn not_ready(house: &House) -> Vec<String> {
    house.draining.is_cancelled().then(|| "draining".to_owned()).into_iter().collect()
}

/// Reads the key from the kernel's keyring now and then, which starts its expiry anew.
async fn keep_in_kernel(keystore: std::path::PathBuf, draining: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOUCH) => {}
            () = draining.cancelled() => return,
        }
        let path = keystore.clone();
        let touched = tokio::task::spawn_blocking(move || -> Result<(), MasterError> {
            let keystore = Keystore::read(&path)?;
            let keyring = OsKeyring::keyutils()?;
            let own = |stanza: &&Stanza| stanza.kind() == Kind::Keyutils;
            for stanza in keystore.stanzas().iter().filter(own) {
                keyring.unwrap(keystore.id(), stanza)?;
            }
            Ok(())
        });
        if let Ok(Err(error)) = touched.await {
            tracing::warn!(%error, "the next start will need the passphrase");
        }
    }
}
