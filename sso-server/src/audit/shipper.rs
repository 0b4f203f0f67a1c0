//! Brings what the journal has into the database, in batches, each record once.
//!
//! The database knows how far each file is there. Where this program does not (a file of a process that
//! is gone, a commit whose answer got lost), it asks before it goes on.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use sso_core::clock::Clock;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    journal::Journal,
    record::{self, Next},
    segment::Segment,
};
use crate::{
    model::canonical,
    storage::{AuditBatch, Storage, StorageError},
};

/// Bytes of a batch at the most, unless one record is longer.
const BATCH: usize = 256 * 1024;
/// Microseconds between the earliest and the latest record of a batch at the most: whoever looks for
/// the records of a time need not open all batches before.
pub(super) const SPAN: i64 = 60_000_000;
/// Batches of one transaction at the most.
const BATCHES: usize = 16;
/// Applications or callers that a batch names at the most.
const KEYS: usize = 16;
/// How often what is new is brought.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked for files of processes that are gone.
const ROUNDS_TO_ADOPT: u32 = 25;
/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take for what is left when the server stops.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Brings records.
#[derive(Debug)]
pub(super) struct Shipper {
    journal: Arc<Journal>,
    storage: Storage,
    clock: Clock,
    /// Files of which it has to be asked how far they are there. Who holds it brings.
    unsure: Mutex<HashSet<Uuid>>,
}

/// Why something was not brought.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShipError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the database did not take it in time")]
    Late,
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] io::Error),
}

impl Shipper {
    pub(super) fn new(journal: Arc<Journal>, storage: Storage, clock: Clock) -> Self {
        Self { journal, storage, clock, unsure: Mutex::default() }
    }

    /// Brings what is new every now and then until `stop`, then all that is left.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut round = 0;
        let mut failing = false;
        while !stop.is_cancelled() {
            if round % ROUNDS_TO_ADOPT == 0 {
                self.adopt().await;
            }
            round += 1;
            self.tell(&mut failing, self.ship().await);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        self.journal.close();
        let left = tokio::time::timeout(LAST_PATIENCE, self.ship()).await;
        self.tell(&mut failing, left.unwrap_or(Err(ShipError::Late)));
    }

    /// Brings everything that was taken before this call.
    pub(super) async fn ship(&self) -> Result<(), ShipError> {
        let mut unsure = self.unsure.lock().await;
        self.journal.flush();
        loop {
            let segments = self.journal.segments();
            self.ask(&segments, &mut unsure).await?;
            let mut batches = Vec::new();
            for segment in &segments {
                let mut start = segment.shipped();
                while batches.len() < BATCHES
                    && let Some(batch) = cut(segment, start)?
                {
                    start = batch.last_offset;
                    batches.push((Arc::clone(segment), batch));
                }
            }
            if batches.is_empty() {
                self.journal.remove_finished();
                return Ok(());
            }
            // Until it is known that they are there.
            unsure.extend(batches.iter().map(|(segment, _)| segment.id));
            let inserted = tokio::time::timeout(PATIENCE, self.insert(&batches)).await;
            inserted.map_err(|_| ShipError::Late)??;
            for (segment, batch) in &batches {
                segment.note_shipped(batch.last_offset);
                unsure.remove(&segment.id);
            }
            metrics::counter!("sso_audit_batches_total")
                .increment(u64::try_from(batches.len()).unwrap_or_default());
            self.journal.remove_finished();
        }
    }

    /// Asks the database how far it has the files of which that is not known.
    async fn ask(
        &self,
        segments: &[Arc<Segment>],
        unsure: &mut HashSet<Uuid>,
    ) -> Result<(), ShipError> {
        for segment in segments {
            if unsure.contains(&segment.id) {
                let asked = tokio::time::timeout(PATIENCE, self.storage.audit_shipped(segment.id));
                if let Some(end) = asked.await.map_err(|_| ShipError::Late)?? {
                    segment.note_shipped(end);
                }
                unsure.remove(&segment.id);
            }
        }
        Ok(())
    }

    async fn insert(&self, batches: &[(Arc<Segment>, AuditBatch)]) -> Result<(), StorageError> {
        let mut transaction = self.storage.begin().await?;
        for (_, batch) in batches {
            transaction.insert_audit_batch(batch).await?;
        }
        transaction.commit().await
    }

    /// Takes over what processes left that are gone.
    async fn adopt(&self) {
        let mut unsure = self.unsure.lock().await;
        let journal = Arc::clone(&self.journal);
        let adopted = tokio::task::spawn_blocking(move || journal.adopt()).await;
        match adopted.map_err(io::Error::other).flatten() {
            Ok(ids) => {
                if !ids.is_empty() {
                    let files = ids.len();
                    tracing::info!(
                        files,
                        "an audit journal was left behind; it goes to the database now"
                    );
                }
                unsure.extend(ids);
            }
            Err(error) => {
                let folder = self.journal.folder().display();
                tracing::warn!(%folder, %error, "the folder of the audit journal cannot be read");
            }
        }
    }

    /// Logs what begins to fail, and what works again.
    fn tell(&self, failing: &mut bool, shipped: Result<(), ShipError>) {
        let failed = shipped.is_err();
        if failed {
            metrics::counter!("sso_audit_ship_failures_total").increment(1);
        }
        match shipped {
            Ok(()) if *failing => tracing::info!("audit records reach the database again"),
            Err(error) if !*failing => {
                tracing::warn!(%error, "audit records wait in the journal until the database takes them");
            }
            Ok(()) | Err(_) => {}
        }
        *failing = failed;
        let segments = self.journal.segments();
        let behind = |it: &Arc<Segment>| it.written().saturating_sub(it.shipped());
        let waiting: u64 = segments.iter().map(behind).sum();
        metrics::gauge!("sso_audit_waiting_bytes").set(number(waiting));
        // Nothing waits long while all is well.
        let oldest = if *failing { self.oldest(&segments) } else { None };
        metrics::gauge!("sso_audit_waiting_seconds").set(oldest.unwrap_or_default());
    }

    /// Seconds since the oldest record that waits.
    fn oldest(&self, segments: &[Arc<Segment>]) -> Option<f64> {
        let first = |segment: &Arc<Segment>| {
            let bytes = segment.read(segment.shipped(), record::LONGEST).ok()?;
            match record::next(&bytes) {
                Next::Record(record, _) => Some(record.at),
                Next::End | Next::Cut | Next::Damaged(_) => None,
            }
        };
        let oldest = segments.iter().filter_map(first).min()?;
        let now = self.clock.now().unix_timestamp_nanos() / 1000;
        let micros = u64::try_from(now - i128::from(oldest)).unwrap_or_default();
        Some(Duration::from_micros(micros).as_secs_f64())
    }
}

/// A gauge takes no other numbers.
fn number(bytes: u64) -> f64 {
    u32::try_from(bytes / 1024).map_or(f64::INFINITY, |kibibytes| f64::from(kibibytes) * 1024.0)
}

/// The batch of a file that begins at this byte; `None` at the end.
fn cut(segment: &Segment, start: u64) -> Result<Option<AuditBatch>, io::Error> {
    if start >= segment.written() {
        return Ok(None);
    }
    let bytes = segment.read(start, BATCH)?;
    let batch = match record::next(&bytes) {
        Next::Cut => {
            segment.read(start, record::LONGEST).map(|bytes| collect(segment, start, bytes))?
        }
        Next::Record(..) | Next::End | Next::Damaged(_) => collect(segment, start, bytes),
    };
    if batch.entries == 0 {
        // The disk gave back something else than it was given.
        let path = segment.path().display();
        tracing::error!(%path, offset = start, "the audit journal is damaged; what follows is lost");
        metrics::counter!("sso_audit_failures_total").increment(1);
        segment.note_shipped(segment.written());
        return Ok(None);
    }
    Ok(Some(batch))
}

/// The whole records of one span at the beginning of these bytes.
fn collect(segment: &Segment, start: u64, mut bytes: Vec<u8>) -> AuditBatch {
    let (mut end, mut entries) = (0, 0);
    let (mut first_at, mut last_at) = (i64::MAX, i64::MIN);
    let (mut applications, mut callers) = (Keys::default(), Keys::default());
    while let Next::Record(record, size) = record::next(bytes.get(end..).unwrap_or_default()) {
        let (first, last) = (first_at.min(record.at), last_at.max(record.at));
        if entries > 0 && last.saturating_sub(first) > SPAN {
            break;
        }
        (first_at, last_at) = (first, last);
        applications.note(record.application);
        callers.note(record.caller);
        entries += 1;
        end += size;
    }
    bytes.truncate(end);
    AuditBatch {
        segment: segment.id,
        first_offset: start,
        last_offset: start + u64::try_from(end).unwrap_or_default(),
        server: segment.server.as_ref().to_owned(),
        first_at,
        last_at,
        entries,
        application_keys: applications.few(),
        caller_keys: callers.few(),
        records: bytes,
    }
}

/// Distinct names, up to so many.
#[derive(Default)]
struct Keys {
    keys: BTreeSet<String>,
    last: String,
    begun: bool,
    many: bool,
}

impl Keys {
    fn note(&mut self, name: &str) {
        // Most records are like the one before.
        if self.many || (self.begun && self.last == name) {
            return;
        }
        self.begun = true;
        name.clone_into(&mut self.last);
        self.keys.insert(canonical(name));
        self.many = self.keys.len() > KEYS;
    }

    fn few(self) -> Option<Vec<String>> {
        (!self.many).then(|| self.keys.into_iter().collect())
    }
}
