//! What the host tells those who operate it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sso_core::operations::{Pages, Readiness};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;

/// How often is counted.
const COUNT: Duration = Duration::from_millis(500);

type Warnings = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Default)]
struct Seen {
    /// Why the host does not serve yet.
    starting: Option<String>,
    database: bool,
    counts: BTreeMap<&'static str, i64>,
    problems: Vec<String>,
    /// Of the ports, once they are there.
    warnings: Option<Warnings>,
}

/// What was last seen, for pages that cannot wait.
#[derive(Clone, Default)]
pub(super) struct Standing(Arc<Mutex<Seen>>);

impl Standing {
    /// Says why the host does not serve yet; `None` once it does.
    pub(super) fn starting(&self, why: Option<String>) {
        self.change(|seen| seen.starting = why);
    }

    /// What the ports have to say, from now on.
    pub(super) fn warn_with(&self, warnings: Warnings) {
        self.change(|seen| seen.warnings = Some(warnings));
    }

    /// Counts until `shutdown`.
    pub(super) async fn follow(self, outbox: Outbox, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let counts = outbox.counts().await;
            let problems = outbox.problems().await.unwrap_or_default();
            self.change(|seen| {
                seen.database = counts.is_ok();
                seen.counts = counts.unwrap_or_default().into_iter().collect();
                seen.problems = problems;
            });
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(COUNT) => {}
            }
        }
    }

    /// `/readyz` and `/counts.json`.
    pub(super) fn pages(&self) -> Pages {
        let (ready, warned, counted) = (self.clone(), self.clone(), self.clone());
        Pages::new(move || {
            ready.look(|seen| Readiness {
                reasons: seen
                    .starting
                    .clone()
                    .into_iter()
                    .chain((!seen.database).then(|| "the database does not answer".to_owned()))
                    .collect(),
            })
        })
        .with_warnings(move || {
            let (ports, mut warnings) =
                warned.look(|seen| (seen.warnings.clone(), seen.problems.clone()));
            warnings.extend(ports.map(|ports| ports()).unwrap_or_default());
            warnings
        })
        .with_json("/counts.json", move || {
            counted.look(|seen| seen.database.then(|| serde_json::to_string(&seen.counts).ok()))?
        })
    }

    fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
