//! What this server knows of the database for the masters: generations, counts, what was closed.

use std::time::Duration;

use sso_core::clock::Clock;

use crate::{
    error::Error,
    generations,
    master::{DatabaseFacts, KnownGeneration, Orders, ResealProgress},
    storage::{CloseOutcome, SealedCount, Storage, StorageError},
};

/// How old what is told of generations may get.
const FRESH: Duration = Duration::from_secs(10);
/// Between two attempts to close a generation.
const CLOSING: Duration = Duration::from_secs(1);
/// Between two tellings, when nothing but progress is new.
const TELLING: Duration = Duration::from_secs(1);

/// Where facts go.
pub type Tell = Box<dyn Fn(DatabaseFacts) + Send + Sync>;

/// Counts and tells.
pub(super) struct Census {
    storage: Storage,
    clock: Clock,
    tell: Tell,
    facts: DatabaseFacts,
    counts: Vec<SealedCount>,
    looked_at: Option<Duration>,
    counted_at: Option<Duration>,
    /// The active generation of the last count: who waits for a rotation needs one of after it.
    counted_for: Option<u32>,
    closed_at: Option<Duration>,
    told_at: Option<Duration>,
}

impl Census {
    pub(super) fn new(storage: Storage, clock: Clock, tell: Tell) -> Self {
        Self {
            storage,
            clock,
            tell,
            facts: DatabaseFacts::default(),
            counts: Vec::new(),
            looked_at: None,
            counted_at: None,
            counted_for: None,
            closed_at: None,
            told_at: None,
        }
    }

    /// Reads what is not fresh any more, counts where nobody did yet, and closes what the masters want
    /// closed; with `now_please` whatever its age.
    pub(super) async fn keep(
        &mut self,
        orders: &Orders,
        failed_rows: u64,
        now_please: bool,
    ) -> Result<(), Error> {
        if self.counted_at.is_none() || self.counted_for != orders.active {
            self.count().await?;
            self.counted_for = orders.active;
        } else if now_please || self.is_older(self.looked_at, FRESH) {
            self.look().await?;
        }
        if orders.closing.is_empty() {
            if !self.facts.close_refusals.is_empty() {
                self.facts.close_refusals.clear();
                self.tell();
            }
        } else if now_please || self.is_older(self.closed_at, CLOSING) {
            self.close(orders, failed_rows).await?;
        }
        Ok(())
    }

    /// Counts every row, and tells.
    pub(super) async fn count(&mut self) -> Result<(), Error> {
        self.counts = self.storage.count_sealed_rows().await?;
        self.counted_at = Some(self.clock.instant());
        self.facts.counted_at = Some(self.clock.now());
        self.look().await
    }

    /// What was counted last.
    pub(super) fn counts(&self) -> &[SealedCount] {
        &self.counts
    }

    /// The last count is older than this.
    pub(super) fn counted_before(&self, age: Duration) -> bool {
        self.is_older(self.counted_at, age)
    }

    /// Shows how far sealing again is; at once when `news` are in it.
    pub(super) fn show(&mut self, progress: ResealProgress, news: bool) {
        self.facts.reseal = progress;
        if news || self.is_older(self.told_at, TELLING) {
            self.tell();
        }
    }

    fn is_older(&self, at: Option<Duration>, age: Duration) -> bool {
        at.is_none_or(|at| self.clock.instant().saturating_sub(at) >= age)
    }

    async fn look(&mut self) -> Result<(), Error> {
        let known = self.storage.known_generations().await?;
        self.looked_at = Some(self.clock.instant());
        self.facts.epoch = known.epoch;
        self.facts.primary = known.primary;
        self.facts.revocations = known.revocations;
        let rows = |number| {
            let counted = self.counts.iter().find(|count| count.generation == number);
            counted.map_or(0, SealedCount::rows)
        };
        self.facts.generations = known
            .generations
            .into_iter()
            .map(|generation| KnownGeneration {
                number: generation.number,
                fingerprint: generation.fingerprint,
                // Nothing is under a closed one, whatever an older count says.
                rows: if generation.closed_at.is_some() { 0 } else { rows(generation.number) },
                closed: generation.closed_at.is_some(),
            })
            .collect();
        self.tell();
        Ok(())
    }

    async fn close(&mut self, orders: &Orders, failed_rows: u64) -> Result<(), Error> {
        self.closed_at = Some(self.clock.instant());
        let Some(leader) = orders.leader else { return Ok(()) };
        let mut refusals = Vec::new();
        let mut closed = false;
        for &number in &orders.closing {
            let known = self.facts.generations.iter().find(|known| known.number == number);
            if known.is_some_and(|known| known.closed) {
                continue;
            }
            let refusal = if orders.active == Some(number) {
                Some(format!("values are sealed under generation {number}: it is the active one"))
            } else {
                match generations::close(&self.storage, &self.clock, number, leader).await {
                    Ok(CloseOutcome::Closed) => {
                        tracing::info!(
                            generation = number,
                            "a generation was closed: nothing is sealed under it, and nothing can be"
                        );
                        closed = true;
                        None
                    }
                    Ok(CloseOutcome::WasClosed) => {
                        closed = true;
                        None
                    }
                    Ok(CloseOutcome::Unknown) => {
                        Some(format!("the database has never seen generation {number}"))
                    }
                    Ok(CloseOutcome::LedByAnother) => {
                        Some("another master has been promoted".to_owned())
                    }
                    Ok(CloseOutcome::InUse { revisions, credentials }) => {
                        Some(in_use(number, revisions, credentials, failed_rows))
                    }
                    Err(error) => Some(not_now(number, &error)),
                }
            };
            refusals.extend(refusal.map(|refusal| (number, refusal)));
        }
        let changed = refusals != self.facts.close_refusals;
        self.facts.close_refusals = refusals;
        if closed {
            self.look().await?;
        } else if changed {
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told_at = Some(self.clock.instant());
        (self.tell)(self.facts.clone());
    }
}

fn in_use(number: u32, revisions: u64, credentials: u64, failed_rows: u64) -> String {
    let mut parts = Vec::new();
    for (rows, table) in [(revisions, "configuration_revisions"), (credentials, "mappings")] {
        if rows > 0 {
            parts.push(format!("{rows} rows of {table}"));
        }
    }
    let failed = if failed_rows == 0 {
        "they are being sealed again: wait until none are left".to_owned()
    } else {
        format!(
            "{failed_rows} rows do not open: set their values again, delete them, or restore them from \
             a backup of the database; the others are being sealed again"
        )
    };
    format!("{} are still sealed under generation {number}; {failed}", parts.join(" and "))
}

fn not_now(number: u32, error: &StorageError) -> String {
    format!("generation {number} cannot be closed now, it is tried again: {error}")
}
