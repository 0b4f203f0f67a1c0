//! From settings to a server that listens, and from a signal to its end.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use sso_core::{
    acceptor::{AcceptLimits, RecheckPeerLayer, mtls_incoming},
    clock::Clock,
    operations::{Pages, Readiness, serve_operations},
    shutdown::{Shutdown, notify_ready, notify_status},
    telemetry::{self, Metrics},
    tls::TlsReloader,
};
use sso_proto::{Event, Reason, Refusal, v1::master_secret_server::MasterSecretServer};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    distribution::{Distribution, Unlocked},
    error::MasterError,
    keystore::Keystore,
    protector::{Kind, OsKeyring, Protector as _, Stanza, unlock},
    settings::Settings,
};

/// How long calls may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of the largest request; real ones have 34.
const MESSAGE_MAX: usize = 4096;
/// Calls at once on one connection; a server makes two.
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
    let tls = TlsReloader::load(&settings.tls)?;
    let keystore = Keystore::read(&settings.keystore).inspect_err(|error| {
        tracing::error!(event = Event::NoMasterSecret.number(), %error, "no master secret");
    })?;
    let unlocked = open(&settings, &keystore).inspect_err(|error| {
        tracing::error!(event = Event::MasterSecretLocked.number(), %error, "the master secret stays locked");
    })?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::install(GRACE)?;
        if settings.protector.kind == Kind::Keyutils {
            tokio::spawn(keep_in_kernel(keystore, shutdown.draining()));
        }
        // The sender stays here: its end would end the streams.
        let (_sender, unlocked) = watch::channel(Arc::new(unlocked));
        let listeners = Listeners::bind(&settings).await?;
        serve(&settings, listeners, unlocked, tls, metrics, &shutdown).await
    })
}

/// The key ring of the keystore.
///
/// # Errors
/// When no protector gives the keystore key, or the keystore was changed.
pub fn open(settings: &Settings, keystore: &Keystore) -> Result<Unlocked, MasterError> {
    let protectors = settings.protector.protectors(true)?;
    let ring = keystore.open(&unlock(&protectors, keystore)?)?;
    tracing::info!(
        event = Event::MasterUnlocked.number(),
        keystore = %keystore.id(),
        active = ring.active().number(),
        fingerprint = %ring.active_fingerprint(),
        "unlocked: this is the master secret server"
    );
    Ok(Unlocked { keystore: keystore.id(), change: keystore.change(), ring })
}

/// The bound ports.
#[derive(Debug)]
pub struct Listeners {
    /// For SSO servers.
    pub servers: TcpListener,
    /// For operators.
    pub operations: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name.
    ///
    /// # Errors
    /// Names the address that is taken or not this machine's.
    pub async fn bind(settings: &Settings) -> Result<Self, MasterError> {
        let operations = match settings.operations_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { servers: bind(settings.listen).await?, operations })
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, MasterError> {
    TcpListener::bind(address).await.map_err(|source| MasterError::Listen { address, source })
}

/// Serves until `shutdown`: first streams end and calls finish, then everything is dropped.
///
/// # Errors
/// When a listener fails.
pub async fn serve(
    settings: &Settings,
    listeners: Listeners,
    unlocked: watch::Receiver<Arc<Unlocked>>,
    tls: Arc<TlsReloader>,
    metrics: Metrics,
    shutdown: &Shutdown,
) -> Result<(), MasterError> {
    let draining = shutdown.draining();
    tokio::spawn(Arc::clone(&tls).watch(draining.clone()));
    let operations = operations(listeners.operations, metrics, shutdown);
    let distribution = Distribution {
        unlocked,
        servers: settings.server.as_slice().into(),
        tls: Arc::clone(&tls),
        clock: Clock::System,
        heartbeat: settings.heartbeat(),
        draining: draining.clone(),
    };
    let address = listeners.servers.local_addr()?;
    let limits = AcceptLimits::default();
    let incoming = mtls_incoming(listeners.servers, Arc::clone(&tls), limits, draining.clone());
    let service = MasterSecretServer::new(distribution).max_decoding_message_size(MESSAGE_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<MasterSecretServer<Distribution>>().await;
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(RecheckPeerLayer::new(tls, refuse_certificate))
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, told_to_stop(draining));
    tracing::info!(event = Event::Started.number(), name = settings.name, %address, servers = settings.server.len(), "serving");
    notify_ready();
    notify_status(&format!("serving on {address}"));
    let stop = shutdown.stop();
    tokio::select! {
        served = serving => served.map_err(std::io::Error::other)?,
        failed = operations => failed?,
        () = stop.cancelled() => tracing::warn!("calls were still open"),
    }
    tracing::info!(event = Event::Stopped.number(), "stopped");
    Ok(())
}

/// Returns when the signal to stop has come.
async fn told_to_stop(draining: CancellationToken) {
    draining.cancelled().await;
    tracing::info!(event = Event::Stopping.number(), "stopping");
}

fn refuse_certificate(reason: String) -> tonic::Status {
    Refusal::new(Reason::CertificateRefused, reason).into_status()
}

/// Serves operators; ends only when their listener fails.
async fn operations(
    listener: Option<TcpListener>,
    metrics: Metrics,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    if let Some(listener) = listener {
        let draining = shutdown.draining();
        let ready = move || Readiness {
            reasons: draining.is_cancelled().then(|| "draining".to_owned()).into_iter().collect(),
        };
        // Until the end, so that draining can be seen.
        serve_operations(listener, metrics, Pages::new(ready), shutdown.stop()).await?;
    }
    std::future::pending().await
}

/// Reads the key from the kernel's keyring now and then, which starts its expiry anew.
async fn keep_in_kernel(keystore: Keystore, draining: CancellationToken) {
    let keystore = Arc::new(keystore);
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOUCH) => {}
            () = draining.cancelled() => return,
        }
        let keystore = Arc::clone(&keystore);
        let touched = tokio::task::spawn_blocking(move || {
            let keyring = OsKeyring::keyutils()?;
            let own = |stanza: &&Stanza| stanza.kind() == Kind::Keyutils;
            let mut stanzas = keystore.stanzas().iter().filter(own);
            stanzas.try_for_each(|stanza| keyring.unwrap(keystore.id(), stanza).map(drop))
        });
        if let Ok(Err(error)) = touched.await {
            tracing::warn!(%error, "the next start will need the passphrase");
        }
    }
}
