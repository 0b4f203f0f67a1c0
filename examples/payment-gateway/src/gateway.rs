//! The payment gateway: stands for a system of somebody else's, outside of the house.
//!
//! It takes bills over HTTPS from systems that show a client certificate, for merchants that show
//! credentials; gives each bill a payment number; and posts a signed notification once it is paid.
//! Of the secret store it knows nothing; it only uses the same TLS, so that it checks certificates
//! against revocation lists as the store does.

mod bank;
mod ledger;
mod listener;
mod merchants;
mod notifier;
mod pauses;
mod publisher;
mod settings;
mod standing;
mod uploads;

use std::{path::Path, sync::Arc, time::Duration};

use sso_core::{
    clock::Clock,
    operations::serve_operations,
    secret::SecretText,
    shutdown::{Shutdown, notify_ready},
    telemetry::Metrics,
    tls::{Application, TlsReloader},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use self::{
    bank::Bank,
    ledger::Ledger,
    listener::{Door, Visitor},
    merchants::{Gate, Kept},
    notifier::{Notifier, Poster},
    standing::Standing,
    uploads::{Uploads, VERIFIED_AT_ONCE},
};
pub use self::{merchants::Merchant, publisher::publish, settings::Settings};
use crate::{Stopped, notification::SigningKey};

/// How long requests may go on once the gateway is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Adds a merchant to the gateway's database, or replaces all that is known of it but its bills.
///
/// # Errors
/// The database cannot be written, or the text of the merchant makes no sense.
pub async fn add_merchant(
    database: &Path,
    merchant: &Merchant,
    value: &SecretText,
) -> Result<(), Stopped> {
    if merchant.name.contains(':') || merchant.name.trim().is_empty() {
        return Err(Stopped::refused("a merchant needs a name, and it has no colon"));
    }
    if !merchant.notify_url.starts_with("https://") {
        return Err(Stopped::refused(format!(
            "{}: notifications go to an address that starts with https://",
            merchant.notify_url
        )));
    }
    let failed = |error: sqlx::Error| Stopped::refused(format!("{}: {error}", database.display()));
    let kept = Kept::of(value).map_err(Stopped::refused)?;
    let ledger = Ledger::open(database).await.map_err(failed)?;
    ledger.put_merchant(merchant, &kept).await.map_err(failed)?;
    ledger.close().await;
    Ok(())
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A file of the settings is not usable, or an address cannot be listened on.
pub async fn run(settings: Settings, metrics: Metrics) -> Result<(), Stopped> {
    let shutdown = Shutdown::install(GRACE).map_err(Stopped::refused)?;
    let clock = Clock::System;
    let key = SigningKey::load(&settings.signing_key)?;
    let ledger = Ledger::open(&settings.database)
        .await
        .map_err(|error| Stopped::settings(format!("{}: {error}", settings.database.display())))?;
    let tls = TlsReloader::load_listener(&settings.tls, Application::Http, clock.clone())
        .map_err(Stopped::settings)?;
    tls.fetch_lists().await;

    let bind = |addr| async move {
        TcpListener::bind(addr)
            .await
            .map_err(|error| Stopped::unavailable(format!("{addr}: {error}")))
    };
    let door = Door::open(settings.listen, Arc::clone(&tls), shutdown.draining())
        .await
        .map_err(|error| Stopped::unavailable(format!("{}: {error}", settings.listen)))?;
    let bank_listener = bind(settings.bank_listen).await?;
    let operations = bind(settings.operations_listen).await?;
    tracing::info!(
        name = settings.name, listen = %door.addr(), signs_with = key.public(), "the gateway serves"
    );

    let news = Arc::new(Notify::new());
    let uploads = Arc::new(Uploads {
        ledger: ledger.clone(),
        gate: Arc::new(Gate::new().map_err(Stopped::refused)?),
        verifying: Arc::new(Semaphore::new(VERIFIED_AT_ONCE)),
        tls: Arc::clone(&tls),
        valid: settings.valid,
        clock: clock.clone(),
    });
    let bank = Arc::new(Bank {
        ledger: ledger.clone(),
        issuer: settings.name.clone(),
        key,
        news: Arc::clone(&news),
        clock: clock.clone(),
    });
    let notifier = Notifier {
        ledger: ledger.clone(),
        poster: Poster::new(Arc::clone(&tls), settings.notify_timeout),
        pauses: settings.notify_pauses,
        news,
        clock,
    };
    let standing = Standing::default();
    let pages = standing.pages(Arc::clone(&tls));

    let mut tasks = JoinSet::new();
    let draining = shutdown.draining();
    tasks.spawn(tls.watch(draining.clone()));
    tasks.spawn(standing.follow(ledger.clone(), draining.clone()));
    tasks.spawn(notifier.run(draining.clone()));
    let visitors = uploads::router(uploads).into_make_service_with_connect_info::<Visitor>();
    let stop = draining.clone().cancelled_owned();
    tasks.spawn(async move {
        served(axum::serve(door, visitors).with_graceful_shutdown(stop).await);
    });
    let stop = draining.clone().cancelled_owned();
    tasks.spawn(async move {
        let router = bank::router(bank);
        served(axum::serve(bank_listener, router).with_graceful_shutdown(stop).await);
    });
    let stop = draining.clone();
    tasks.spawn(async move { served(serve_operations(operations, metrics, pages, stop).await) });
    notify_ready();

    draining.cancelled().await;
    let finishing = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = finishing => {}
        () = shutdown.stop().cancelled_owned() => {}
    }
    ledger.close().await;
    tracing::info!("ended");
    Ok(())
}

fn served(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a listener fails");
    }
}
