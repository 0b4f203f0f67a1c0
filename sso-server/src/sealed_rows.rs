//! Opens every sealed value of the database with the keys of a backup, and names those that do not
//! open: a backup that was not tried is none.
//!
//! The keys come sealed to a key pair of this server that lives for one check, and are forgotten with
//! it. Nothing is changed, and no value leaves the server.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sso_core::{
    clock::Clock,
    key_ring::KeyRing,
    transit::{self, TransitKeyPair},
};
use sso_proto::{Reason, v1::KeyRingTransfer};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    error::Error,
    master::key_ring,
    storage::{RowKey, SealedCount, SealedRow, SealedTable, Storage},
    vault::Resealing,
};

/// How long a key pair waits for its check.
const LIFETIME: Duration = Duration::from_secs(600);
/// Checks that may be begun at once.
const AT_ONCE: usize = 8;
/// Rows read at once.
const PAGE: u32 = 500;
/// Between two messages.
const NEWS: Duration = Duration::from_millis(500);
/// Names of rows that did not open, at the most.
const NAMED: usize = 1000;

/// How far a check is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Rows there were at its beginning.
    pub total: u64,
    /// Rows that opened.
    pub opened: u64,
    /// Rows that did not.
    pub failed: u64,
    /// Since the last message: which did not, and why.
    pub names: Vec<String>,
    /// It has seen every row.
    pub done: bool,
}

/// What a check says as it goes on. Who drops it ends the check.
pub type CheckNews = mpsc::Receiver<Result<CheckProgress, Error>>;

/// Checks the sealed values.
#[derive(Clone)]
pub struct SealedRowsCheck {
    access: Arc<Access>,
    audit: Audit,
    storage: Storage,
    clock: Clock,
    begun: Arc<Mutex<HashMap<Uuid, Begun>>>,
}

/// A check that waits for its keys.
struct Begun {
    pair: TransitKeyPair,
    /// The canonical account it is for.
    by: String,
    until: Duration,
}

impl SealedRowsCheck {
    /// On these foundations.
    #[must_use]
    pub fn new(access: Arc<Access>, audit: Audit, storage: Storage, clock: Clock) -> Self {
        Self { access, audit, storage, clock, begun: Arc::default() }
    }

    /// A key pair for one check by this caller: its id, and the public half to seal the keys to.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`; `OVERLOADED` while too many wait.
    pub fn begin(&self, call: &Call) -> Result<(Uuid, Vec<u8>), Error> {
        self.access.require(call, Action::SecretCheckRows)?;
        let pair = TransitKeyPair::generate()
            .map_err(|error| Error::new(Reason::Internal, error.to_string()))?;
        let public_key = pair.public_key();
        let mut begun = self.begun();
        if begun.len() >= AT_ONCE {
            let message = format!(
                "{AT_ONCE} checks were begun and wait for their keys; try again in a few minutes"
            );
            return Err(Error::new(Reason::Overloaded, message));
        }
        let id = Uuid::new_v4();
        let by = call.caller.account.key().to_owned();
        let until = self.clock.instant().saturating_add(LIFETIME);
        begun.insert(id, Begun { pair, by, until });
        Ok((id, public_key))
    }

    /// Opens every row with the keys that were sealed to the key pair of this check, once.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`; `SEALED_ROWS_CHECK_NOT_FOUND`, also for the check of another;
    /// `INVALID_REQUEST` for keys that do not open.
    pub async fn check(&self, call: &Call, id: &str, sealed: &[u8]) -> Result<CheckNews, Error> {
        self.access.require(call, Action::SecretCheckRows)?;
        let pair = self.take(call, id)?;
        let keys = keys(pair, sealed)?;
        let counts = self.storage.count_sealed_rows().await?;
        let total = counts.iter().map(SealedCount::rows).sum();
        // One message more than is taken waits: a slow reader holds the check up, not the memory.
        let (sender, news) = mpsc::channel(1);
        let running = Running {
            check: self.clone(),
            call: call.clone(),
            keys: Resealing::new(Arc::new(keys)),
            sender,
            progress: CheckProgress { total, ..CheckProgress::default() },
            named: 0,
            told_at: self.clock.instant(),
        };
        tokio::spawn(running.run());
        Ok(news)
    }

    fn take(&self, call: &Call, id: &str) -> Result<TransitKeyPair, Error> {
        let not_found = || {
            let message = "no check of yours waits under this id: begin one with \
                           System.BeginSealedRowsCheck, and use it once within ten minutes";
            Error::new(Reason::SealedRowsCheckNotFound, message)
        };
        let id = Uuid::try_parse(id).map_err(|_| not_found())?;
        let mut begun = self.begun();
        if begun.get(&id).is_none_or(|it| it.by != call.caller.account.key()) {
            return Err(not_found());
        }
        begun.remove(&id).map(|it| it.pair).ok_or_else(not_found)
    }

    /// Those that wait, and have not waited for too long.
    fn begun(&self) -> MutexGuard<'_, HashMap<Uuid, Begun>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.instant();
        begun.retain(|_, it| now < it.until);
        begun
    }
}

impl fmt::Debug for SealedRowsCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedRowsCheck")
            .field("begun", &self.begun().len())
            .finish_non_exhaustive()
    }
}

fn keys(pair: TransitKeyPair, sealed: &[u8]) -> Result<KeyRing, Error> {
    let refused = |why: String| {
        let message = format!("the keys of the backup cannot be used: {why}; verify it once more");
        Error::new(Reason::InvalidRequest, message)
    };
    let opened = pair.open(sealed, transit::CHECK).map_err(|error| refused(error.to_string()))?;
    // Expose: to be decoded; every key in the message wipes itself.
    let transfer = sso_proto::decode_keys::<KeyRingTransfer>(opened.expose())
        .map_err(|_| refused("they cannot be decoded".to_owned()))?;
    key_ring(&transfer).map_err(refused)
}

/// A check under way.
struct Running {
    check: SealedRowsCheck,
    call: Call,
    keys: Resealing,
    sender: mpsc::Sender<Result<CheckProgress, Error>>,
    progress: CheckProgress,
    named: usize,
    told_at: Duration,
}

/// How a check ended.
enum Ended {
    Complete,
    /// The caller is gone.
    Alone,
}

impl Running {
    async fn run(mut self) {
        let ended = self.rows().await;
        let CheckProgress { total, opened, failed, .. } = self.progress;
        let how = match &ended {
            Ok(Ended::Complete) => "complete",
            Ok(Ended::Alone) => "ended by the caller",
            Err(_) => "broken off",
        };
        let detail = format!("{how}: {opened} of {total} rows opened, {failed} did not");
        tracing::info!(call = %self.call, detail, "sealed rows were checked with the keys of a backup");
        let subject = Subject { detail: &detail, ..Subject::default() };
        let recorded = self.check.audit.reveal(&self.call, Action::SecretCheckRows, subject).await;
        let last = match (ended, recorded) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Ended::Complete), Ok(())) => {
                self.progress.done = true;
                Ok(std::mem::take(&mut self.progress))
            }
            (Ok(Ended::Alone), Ok(())) => return,
        };
        // Nobody may be listening any more, which is no error.
        let _ = self.sender.send(last).await;
    }

    async fn rows(&mut self) -> Result<Ended, Error> {
        for table in SealedTable::ALL {
            let mut after: Option<RowKey> = None;
            loop {
                let storage = &self.check.storage;
                let page = storage.sealed_rows(table, None, after.as_ref(), PAGE).await?;
                for (name, why) in page.damaged {
                    self.failed(&name, &why);
                }
                let keys = self.keys.clone();
                let opened = tokio::task::spawn_blocking(move || open(&keys, page.rows)).await;
                let (opened, failed) =
                    opened.map_err(|error| Error::new(Reason::Internal, error.to_string()))?;
                self.progress.opened = self.progress.opened.saturating_add(opened);
                for (name, why) in failed {
                    self.failed(&name, &why);
                }
                if !self.tell().await {
                    return Ok(Ended::Alone);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(Ended::Complete)
    }

    fn failed(&mut self, name: &str, why: &str) {
        self.progress.failed = self.progress.failed.saturating_add(1);
        if self.named < NAMED {
            self.named += 1;
            self.progress.names.push(format!("{name}: {why}"));
        }
    }

    /// Sends the progress, now and then; `false` when nobody wants it any more.
    async fn tell(&mut self) -> bool {
        let now = self.check.clock.instant();
        if now.saturating_sub(self.told_at) < NEWS {
            return !self.sender.is_closed();
        }
        self.told_at = now;
        let news = self.progress.clone();
        self.progress.names.clear();
        self.sender.send(Ok(news)).await.is_ok()
    }
}

fn open(keys: &Resealing, rows: Vec<SealedRow>) -> (u64, Vec<(String, String)>) {
    let (mut opened, mut failed) = (0_u64, Vec::new());
    for row in rows {
        match keys.check(&row.owner, &row.sealed) {
            Ok(()) => opened += 1,
            Err(why) => failed.push((row.name(), why)),
        }
    }
    (opened, failed)
}
