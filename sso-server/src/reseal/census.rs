//! What this server knows of the database for the masters: generations, counts, what was closed.

use std::time::Duration;

use sso_core::clock::{CLOCKS_APART, Clock};
use time::OffsetDateTime;

use crate::{
    error::Error,
    generations,
    master::{DatabaseFacts, KnownGeneration, Orders, ResealProgress},
    storage::{CloseOutcome, SealedCount, Storage, StorageError},
};

/// How old what is told of generations may get.
const FRESH: Duration = Duration::from_secs(10);
/// How old a count may get before somebody counts again though nothing is to be done, and finds what was
/// restored by hand under a generation that nothing is under.
const STALE: time::Duration = time::Duration::HOUR;
/// Counts of one server may take one part in so many of its time, while values are sealed again or a generation
/// is to be closed.
const SHARE: u32 = 100;
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
    /// What was counted last, by this server or another.
    counts: Vec<SealedCount>,
    looked_at: Option<Duration>,
    /// The last count of this server, and how long it took.
    counted_at: Option<Duration>,
    count_took: Duration,
    /// Values may be sealed under these.
    in_use: Vec<u32>,
    /// The generation that was active last.
    active: Option<u32>,
    /// A count of before this is too old: who waits for a rotation needs one of after it.
    count_after: OffsetDateTime,
    /// And one of after this, should the clock of the master be ahead.
    count_again: Option<OffsetDateTime>,
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
            count_took: Duration::ZERO,
            in_use: Vec::new(),
            active: None,
            count_after: OffsetDateTime::UNIX_EPOCH,
            count_again: None,
            closed_at: None,
            told_at: None,
        }
    }

    /// Reads what is not fresh any more, counts where nobody did for long, and closes what the masters want
    /// closed; with `now_please` whatever its age. Where this server `may_reseal`, and values are left, whoever
    /// does that counts.
    pub(super) async fn keep(
        &mut self,
        orders: &Orders,
        may_reseal: bool,
        failed_rows: u64,
        now_please: bool,
    ) -> Result<(), Error> {
        if now_please || self.is_older(self.looked_at, FRESH) {
            self.look().await?;
        }
        if let Some(active) = orders.active {
            self.note_active(active).await?;
            let left = self.in_use.iter().any(|number| *number < active);
            if self.is_count_too_old(may_reseal && left) {
                self.count(active).await?;
            }
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

    async fn note_active(&mut self, active: u32) -> Result<(), Error> {
        let now = self.clock.now();
        if self.count_again.is_some_and(|again| again <= now) {
            self.count_after = now;
            self.count_again = None;
        }
        if self.active == Some(active) {
            return Ok(());
        }
        // After a start what others counted is as good, as long as all of it is under one generation.
        if self.active.is_some() {
            self.count_again = Some(now + CLOCKS_APART);
        }
        if self.active.is_some() || self.in_use.iter().any(|number| *number != active) {
            self.count_after = now;
        }
        self.active = Some(active);
        let known = self.facts.generations.iter().any(|it| it.number == active && !it.closed);
        if known && !self.in_use.contains(&active) {
            self.storage.unmark(active).await?;
        }
        Ok(())
    }

    fn is_count_too_old(&self, others_count: bool) -> bool {
        let now = self.clock.now();
        // One of a clock that was far ahead says nothing.
        let counted = self.facts.counted_at.filter(|at| *at <= now + CLOCKS_APART);
        counted.is_none_or(|at| at < now - STALE || at < self.count_after && !others_count)
    }

    /// Counts every row, and tells.
    pub(super) async fn count(&mut self, active: u32) -> Result<(), Error> {
        let began = self.clock.instant();
        let counts = self.storage.sweep(active, self.clock.now()).await?;
        let now = self.clock.instant();
        self.counted_at = Some(now);
        self.count_took = now.saturating_sub(began);
        self.look().await?;
        self.counts = counts;
        Ok(())
    }

    /// What was counted last.
    pub(super) fn counts(&self) -> &[SealedCount] {
        &self.counts
    }

    /// The last count of this server is older than this, and so old that another one is worth its time.
    pub(super) fn counted_before(&self, age: Duration) -> bool {
        self.is_older(self.counted_at, age.max(self.count_took * SHARE))
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
        let open = || known.generations.iter().filter(|generation| generation.closed_at.is_none());
        let all = || known.generations.iter();
        self.in_use = all().filter(|it| !it.is_empty).map(|it| it.number).collect();
        self.counts = all().filter_map(|it| it.counted).map(|(count, _)| count).collect();
        self.facts.counted_at = open().filter_map(|it| it.counted).map(|(_, at)| at).min();
        self.facts.generations = known
            .generations
            .iter()
            .map(|generation| {
                // Nothing is under those, whatever an older count says.
                let counted = generation.counted.filter(|_| !generation.is_empty);
                KnownGeneration {
                    number: generation.number,
                    fingerprint: generation.fingerprint.clone(),
                    rows: counted.map_or(0, |(count, _)| count.rows()),
                    closed: generation.closed_at.is_some(),
                }
            })
            .collect();
        self.tell();
        Ok(())
    }

    async fn close(&mut self, orders: &Orders, failed_rows: u64) -> Result<(), Error> {
        self.closed_at = Some(self.clock.instant());
        let Some(leader) = orders.leader else { return Ok(()) };
        self.look().await?;
        if let Some(active) = orders.active
            && orders.closing.iter().any(|number| self.in_use.contains(number))
            && self.counted_before(CLOSING)
        {
            self.count(active).await?;
        }
        let mut refusals = Vec::new();
        for &number in &orders.closing {
            let known = self.facts.generations.iter().find(|known| known.number == number);
            if known.is_some_and(|known| known.closed) {
                continue;
            }
            let refusal = if orders.active == Some(number) {
                Some(format!("values are sealed under generation {number}: it is the active one"))
            } else if self.in_use.contains(&number) {
                let counted = self.counts.iter().find(|count| count.generation == number);
                let (revisions, credentials) =
                    counted.map_or((0, 0), |count| (count.revisions, count.credentials));
                Some(still_sealed(number, revisions, credentials, failed_rows))
            } else {
                let outcome = generations::close(&self.storage, &self.clock, number, leader).await;
                refusal(number, outcome, failed_rows)
            };
            refusals.extend(refusal.map(|refusal| (number, refusal)));
        }
        let changed = refusals != self.facts.close_refusals;
        let closed = refusals.len() < orders.closing.len();
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

/// Why a generation is not closed; `None` where it is.
fn refusal(
    number: u32,
    outcome: Result<CloseOutcome, StorageError>,
    failed_rows: u64,
) -> Option<String> {
    match outcome {
        Ok(CloseOutcome::Closed) => {
            tracing::info!(
                generation = number,
                "a generation was closed: nothing is sealed under it, and nothing can be"
            );
            None
        }
        Ok(CloseOutcome::WasClosed) => None,
        Ok(CloseOutcome::Unknown) => {
            Some(format!("the database has never seen generation {number}"))
        }
        Ok(CloseOutcome::LedByAnother) => Some("another master has been promoted".to_owned()),
        Ok(CloseOutcome::InUse { revisions, credentials }) => {
            Some(still_sealed(number, revisions, credentials, failed_rows))
        }
        Err(error) => Some(not_now(number, &error)),
    }
}

fn still_sealed(number: u32, revisions: u64, credentials: u64, failed_rows: u64) -> String {
    if revisions + credentials == 0 {
        return format!(
            "values may have been sealed under generation {number} since they were counted; they are \
             counted again before long"
        );
    }
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
