//! The integration host: runs on the secret store, and speaks for its users to the payment gateway.
//!
//! Everything but the place of the config store is read there and followed: addresses, thumbprints,
//! authorities, revocation lists and policies, timeouts, parties. A change takes effect without a
//! restart. Certificates and keys are in the host's own store, found by thumbprint.

mod agreement;
mod bills;
mod notifications;
mod outbox;
mod sender;
mod settings;
mod standing;

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use sso_client::{
    Client, ConfigurationKey, Profile,
    integration::{
        CertificateStore, Followed, HttpsClient, HttpsListener, HttpsPeer, ListenerControl,
        Parties, ReceiveLocation, RetryPlan, SendPort,
    },
};
use sso_core::{
    clock::Clock,
    operations::serve_operations,
    shutdown::{Shutdown, notify_ready},
    telemetry::Metrics,
};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::{
    agreement::Agreement,
    settings::{Places, Settings},
};
use self::{
    bills::Bills, notifications::Notifications, outbox::Outbox, sender::Sender, standing::Standing,
};
use crate::Stopped;

/// How long requests and uploads may go on once the host is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// The pauses of a start that has to wait: for the secret store, or for whoever configures the ports.
const START: RetryPlan = RetryPlan {
    first: Duration::from_millis(250),
    factor: 2,
    most: Duration::from_secs(5),
    attempts: None,
};

/// Everything that is read from the config store.
struct Ports {
    upload: Followed<SendPort>,
    bills: Followed<ReceiveLocation>,
    notifications: Followed<ReceiveLocation>,
    parties: Followed<Parties>,
    agreement: Followed<Agreement>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A file of the settings is not usable. What is wrong in the config store is no reason to end: it is
/// told at `/readyz`, and waited for.
pub async fn run(settings: Settings, metrics: Metrics) -> Result<(), Stopped> {
    let shutdown = Shutdown::install(GRACE).map_err(Stopped::refused)?;
    let outbox = Outbox::open(&settings.database)
        .await
        .map_err(|error| Stopped::settings(format!("{}: {error}", settings.database.display())))?;
    let mut store = CertificateStore::open(&settings.certificates)
        .map_err(Stopped::settings)?
        .allow_development(settings.allow_development);
    if let Some(folder) = &settings.list_cache {
        store = store.with_list_cache(folder);
    }
    let profile = Profile::load(settings.profile.as_deref()).map_err(Stopped::settings)?;
    let sso = Client::connect(&profile).map_err(Stopped::settings)?;
    let addr = settings.operations_listen;
    let operations = TcpListener::bind(addr)
        .await
        .map_err(|error| Stopped::unavailable(format!("{addr}: {error}")))?;

    let mut tasks = JoinSet::new();
    let draining = shutdown.draining();
    let standing = Standing::default();
    standing.starting(Some("the ports are not read yet".to_owned()));
    let (pages, stop) = (standing.pages(), draining.clone());
    tasks.spawn(async move { served(serve_operations(operations, metrics, pages, stop).await) });
    tasks.spawn(standing.clone().follow(outbox.clone(), draining.clone()));

    let host = Host {
        sso,
        store,
        applications: settings.applications.clone(),
        outbox: outbox.clone(),
        standing: standing.clone(),
    };
    tokio::select! {
        () = draining.cancelled() => {}
        () = host.open(&settings.places, &draining, &mut tasks) => {
            standing.starting(None);
            tracing::info!("the host serves");
            notify_ready();
            draining.cancelled().await;
        }
    }
    let finishing = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = finishing => {}
        () = shutdown.stop().cancelled_owned() => {}
    }
    outbox.close().await;
    tracing::info!("ended");
    Ok(())
}

/// What every port needs.
struct Host {
    sso: Client,
    store: CertificateStore,
    applications: Vec<String>,
    outbox: Outbox,
    standing: Standing,
}

impl Host {
    /// Opens every port, and waits where one cannot be opened yet.
    async fn open(self, places: &Places, draining: &CancellationToken, tasks: &mut JoinSet<()>) {
        let Self { sso, store, applications, outbox, standing } = self;
        let ports = insist(&standing, || Ports::read(&sso, places, draining)).await;
        let gateway = insist(&standing, || {
            HttpsClient::open(ports.upload.clone(), store.clone(), draining.clone())
        })
        .await;
        let bind = |location: &Followed<ReceiveLocation>| {
            HttpsListener::bind(location.clone(), store.clone(), draining.clone())
        };
        let for_bills = insist(&standing, || bind(&ports.bills)).await;
        let for_notifications = insist(&standing, || bind(&ports.notifications)).await;
        let controls = [for_bills.control(), for_notifications.control()];
        let [bills_control, notifications_control] = controls.clone();
        warn_of(&standing, &ports, gateway.clone(), controls);

        let (clock, news) = (Clock::System, Arc::new(Notify::new()));
        let upload = ports.upload.clone();
        tasks.spawn(hurry(upload, outbox.clone(), Arc::clone(&news), draining.clone()));
        let bills = Bills {
            outbox: outbox.clone(),
            sso: sso.clone(),
            upload: ports.upload,
            applications: applications.clone(),
            parties: ports.parties.clone(),
            agreement: ports.agreement.clone(),
            control: bills_control,
            news: Arc::clone(&news),
            clock: clock.clone(),
        };
        serve(tasks, for_bills, bills::router(Arc::new(bills)), draining);
        let notifications = Notifications {
            outbox: outbox.clone(),
            parties: ports.parties,
            agreement: ports.agreement.clone(),
            control: notifications_control,
            clock: clock.clone(),
        };
        let router = notifications::router(Arc::new(notifications));
        serve(tasks, for_notifications, router, draining);
        let agreement = ports.agreement;
        let sender = Sender { outbox, sso, gateway, applications, agreement, news, clock };
        tasks.spawn(sender.run(draining.clone()));
    }
}

/// Tries until it works, and says meanwhile at `/readyz` what is in the way.
async fn insist<T, E, F>(standing: &Standing, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let (mut made, mut told) = (0_u32, String::new());
    loop {
        let error = match attempt().await {
            Ok(done) => return done,
            Err(error) => error.to_string(),
        };
        // Once, not every few seconds as long as it lasts.
        if error != told {
            tracing::warn!(error, "the host cannot serve yet");
            told.clone_from(&error);
        }
        standing.starting(Some(error));
        made = made.saturating_add(1);
        tokio::time::sleep(START.pause(made).unwrap_or(START.most)).await;
    }
}

impl Ports {
    async fn read(
        sso: &Client,
        places: &Places,
        draining: &CancellationToken,
    ) -> Result<Self, sso_client::integration::FollowError> {
        let stop = || draining.clone();
        let place = |key: &ConfigurationKey| (key.clone(), key.identifier.clone());
        let (upload, name) = place(&places.upload);
        let upload = Followed::start(sso, upload, name, SendPort::read, stop()).await?;
        let (bills, name) = place(&places.bills);
        let bills = Followed::start(sso, bills, name, ReceiveLocation::read, stop()).await?;
        let (notifications, name) = place(&places.notifications);
        let notifications =
            Followed::start(sso, notifications, name, ReceiveLocation::read, stop()).await?;
        let (parties, name) = place(&places.parties);
        let parties = Followed::start(sso, parties, name, Parties::read, stop()).await?;
        let (agreement, name) = place(&places.agreement);
        let agreement = Followed::start(sso, agreement, name, Agreement::read, stop()).await?;
        Ok(Self { upload, bills, notifications, parties, agreement })
    }
}

/// Collects what the ports have to say: certificates that end, lists that are missing, new
/// configurations that are kept out.
fn warn_of(
    standing: &Standing,
    ports: &Ports,
    gateway: HttpsClient,
    listeners: [ListenerControl; 2],
) {
    let (parties, agreement) = (ports.parties.clone(), ports.agreement.clone());
    standing.warn_with(Arc::new(move || {
        let mut warnings = gateway.warnings();
        warnings.extend(listeners.iter().flat_map(ListenerControl::warnings));
        warnings.extend([parties.problem(), agreement.problem()].into_iter().flatten());
        // Both listeners have the same certificate, and all the same lists.
        warnings.sort();
        warnings.dedup();
        warnings
    }));
}

/// A send port that was changed was repaired, as far as anybody knows: bills need not wait for the end
/// of their pause.
async fn hurry(
    mut upload: Followed<SendPort>,
    outbox: Outbox,
    news: Arc<Notify>,
    shutdown: CancellationToken,
) {
    while shutdown.run_until_cancelled(upload.changed()).await.is_some() {
        tracing::info!(revision = upload.revision(), "the send port has changed");
        match outbox.hurry(Clock::System.now()).await {
            Ok(()) => news.notify_one(),
            Err(error) => tracing::error!(%error, "the database fails"),
        }
    }
}

fn serve(
    tasks: &mut JoinSet<()>,
    listener: HttpsListener,
    router: Router,
    draining: &CancellationToken,
) {
    tracing::info!(listen = %listener.local_addr(), "a receive location is open");
    let stop = draining.clone().cancelled_owned();
    let service = router.into_make_service_with_connect_info::<HttpsPeer>();
    tasks.spawn(async move {
        served(axum::serve(listener, service).with_graceful_shutdown(stop).await);
    });
}

fn served(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a listener fails");
    }
}
