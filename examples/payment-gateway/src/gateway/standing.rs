//! What the gateway tells those who operate it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sso_core::{
    operations::{Pages, Readiness},
    tls::TlsReloader,
};
use tokio_util::sync::CancellationToken;

use super::ledger::{Counts, Ledger};

/// How often is counted.
const COUNT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Seen {
    counts: Option<Counts>,
    problems: Vec<String>,
}

/// What was last seen of the database, for pages that cannot wait for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(Arc<Mutex<Seen>>);

impl Standing {
    /// Counts until `shutdown`.
    pub(super) async fn follow(self, ledger: Ledger, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let counts = ledger.counts().await.ok();
            let problems = ledger.problems().await.unwrap_or_default();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Seen { counts, problems };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(COUNT) => {}
            }
        }
    }

    fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `/readyz` and `/counts.json`.
    pub(super) fn pages(&self, tls: Arc<TlsReloader>) -> Pages {
        let (ready, warned, counted) = (self.clone(), self.clone(), self.clone());
        Pages::new(move || Readiness {
            reasons: match ready.look(|seen| seen.counts.is_some()) {
                true => Vec::new(),
                false => vec!["the database does not answer".to_owned()],
            },
        })
        .with_warnings(move || {
            let mut warnings = tls.warnings();
            let problems = warned.look(|seen| seen.problems.clone());
            warnings.extend(problems.iter().map(|it| format!("notifications wait: {it}")));
            warnings
        })
        .with_json("/counts.json", move || {
            let counts = counted.look(|seen| seen.counts)?;
            serde_json::to_string(&counts).ok()
        })
    }
}
