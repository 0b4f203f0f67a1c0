//! Posts payment notifications until somebody acknowledges them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sso_core::{clock::Clock, connector::tls_words, tls::TlsReloader};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Ledger, Outgoing},
    pauses::Pauses,
};

/// What a notification is sent as.
pub(crate) const CONTENT_TYPE: &str = "application/jose";
/// How many are on their way at once.
const AT_ONCE: u32 = 8;
/// How often is looked for some that are due.
const LOOK: Duration = Duration::from_millis(250);
/// The shortest pause after a failure of the own database.
const REST: Duration = Duration::from_secs(1);

/// What posting needs.
pub(super) struct Notifier {
    pub(super) ledger: Ledger,
    pub(super) poster: Poster,
    pub(super) pauses: Pauses,
    pub(super) news: Arc<Notify>,
    pub(super) clock: Clock,
}

impl Notifier {
    /// Runs until `shutdown`; what is on its way then is finished.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let notifier = Arc::new(self);
        while !shutdown.is_cancelled() {
            let due = match notifier.ledger.due(notifier.clock.now(), AT_ONCE).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "the database fails");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            if due.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = notifier.news.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            let mut posts = JoinSet::new();
            for outgoing in due {
                let notifier = Arc::clone(&notifier);
                posts.spawn(async move { notifier.tell(outgoing).await });
            }
            while posts.join_next().await.is_some() {}
        }
    }

    async fn tell(&self, outgoing: Outgoing) {
        let posted = self.poster.post(&outgoing).await;
        let now = self.clock.now();
        let noted = match posted {
            Ok(()) => {
                metrics::counter!("payment_gateway_notifications_total", "outcome" => "acknowledged")
                    .increment(1);
                tracing::info!(id = %outgoing.id, "a notification is acknowledged");
                self.ledger.acknowledged(outgoing.id, now).await
            }
            Err(problem) => {
                metrics::counter!("payment_gateway_notifications_total", "outcome" => "refused")
                    .increment(1);
                let pause = self.pauses.after(outgoing.attempts.saturating_add(1));
                tracing::warn!(
                    id = %outgoing.id, problem, ?pause, "nobody takes a notification; it is posted again"
                );
                self.ledger.postpone(&outgoing, now, pause, &problem).await
            }
        };
        if let Err(error) = noted {
            // It is due still, so it is posted again: the other side knows its id.
            tracing::error!(%error, "what became of a notification cannot be noted");
            tokio::time::sleep(REST).await;
        }
    }
}

/// An HTTPS client that shows the certificate of the moment.
pub(super) struct Poster {
    tls: Arc<TlsReloader>,
    timeout: Duration,
    current: Mutex<Option<(u64, reqwest::Client)>>,
}

impl Poster {
    pub(super) fn new(tls: Arc<TlsReloader>, timeout: Duration) -> Self {
        Self { tls, timeout, current: Mutex::default() }
    }

    async fn post(&self, outgoing: &Outgoing) -> Result<(), String> {
        let request = self
            .client()?
            .post(&outgoing.notify_url)
            .header(reqwest::header::CONTENT_TYPE, CONTENT_TYPE)
            .body(outgoing.content.clone());
        let answer = request.send().await.map_err(|error| words(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        Err(format!("the answer is {status}: {text}"))
    }

    /// A client with what TLS has in use now: connections with the certificate before are let go.
    fn client(&self) -> Result<reqwest::Client, String> {
        let generation = self.tls.current().number();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, client)) = &*current
            && *number == generation
        {
            return Ok(client.clone());
        }
        let config = rustls::ClientConfig::clone(&self.tls.client_config());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .timeout(self.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| words(&error))?;
        *current = Some((generation, client.clone()));
        Ok(client)
    }
}

/// What went wrong: of TLS with its reason in front, else the deepest cause, as the outer ones only say
/// that sending failed.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut words, mut next) = (error.to_string(), Some(error));
    while let Some(error) = next {
        if let Some(tls) = tls_error(error) {
            return tls_words(tls);
        }
        words = error.to_string();
        next = error.source();
    }
    words
}

/// An error of the TLS library, also where it travels inside of one of input and output.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>())
}
