//! Seals every value again that is not sealed under the active generation, in small transactions beside
//! the traffic, and tells the masters how far that is.
//!
//! Every server runs this; a lease with a fencing number lets one at a time do the work, and whatever
//! one does that has lost it is undone. Nothing is remembered between two batches that the rows do not
//! say themselves, so that the work goes on after a crash where it was.

mod batch;
mod census;
mod lease;
mod pace;
mod pass;
mod settings;

use std::time::Duration;

use sso_core::clock::Clock;
use sso_proto::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{batch::Ahead, census::Census, lease::Lease, pace::Pace, pass::Pass};
pub use self::{census::Tell, settings::ResealSettings};
use crate::{
    access::Action,
    audit::{Audit, Subject},
    error::Error,
    master::{Orders, ResealProgress},
    storage::{SealedCount, Storage},
    vault::Resealing,
};

/// How often an idle server looks for work.
const LOOK: Duration = Duration::from_secs(2);
/// Between two steps while there is nothing but waiting.
const WAIT: Duration = Duration::from_secs(1);
/// Between two looks at keys and orders that do not fit one another yet.
const MOMENT: Duration = Duration::from_millis(100);
/// How old the counts get while this server works.
const RECOUNT: Duration = Duration::from_secs(10);
/// While it counts, or waits for rows that do not open, the lease is renewed this often.
const RENEW: Duration = Duration::from_secs(3);
/// Pauses before rows that do not open are tried again.
const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(600);
/// Pauses after a failure of database or master.
const LONGEST_FAILURE: Duration = Duration::from_secs(10);
/// Values under a generation above the active one are of servers that heard of it earlier, unless they
/// stay for longer than any lease.
const OVERTAKEN: Duration = Duration::from_secs(60);
/// Time for giving the lease up when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The keys of this moment, to seal again with.
pub type KeysOfNow = Box<dyn Fn() -> Result<Resealing, Error> + Send + Sync>;

/// How long what serves others has been at work so far.
pub type Busy = Box<dyn Fn() -> Duration + Send + Sync>;

/// What the work stands on.
pub struct Foundations {
    /// Keeps.
    pub storage: Storage,
    /// Records.
    pub audit: Audit,
    /// Tells the time.
    pub clock: Clock,
    /// How it is done.
    pub settings: ResealSettings,
    /// Names this process.
    pub holder: String,
    /// Opens and seals.
    pub keys: KeysOfNow,
    /// How much others have it do.
    pub busy: Busy,
    /// What the masters want.
    pub orders: watch::Receiver<Orders>,
    /// Where the masters hear of the database.
    pub tell: Tell,
}

/// The task that seals again.
pub struct Resealer {
    storage: Storage,
    audit: Audit,
    clock: Clock,
    settings: ResealSettings,
    holder: String,
    keys: KeysOfNow,
    busy: Busy,
    orders: watch::Receiver<Orders>,
    census: Census,
    pace: Pace,
    progress: ResealProgress,
    work: Work,
    /// The rows behind those that were written last.
    ahead: Option<Ahead>,
    /// Since when values under generations above this active one were seen.
    overtaken: Option<(u32, Duration)>,
    failures: u32,
}

/// What this server is at.
enum Work {
    /// Nothing; it looks again at this instant.
    Idle(Duration),
    /// It has the work.
    Pass(Lease, Pass),
    /// It has the work, and only rows are left that do not open.
    Rest(Lease, Rest),
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    active: u32,
    until: Duration,
    pause: Duration,
    renew: Duration,
}

impl Resealer {
    /// Nothing is done before [`Self::run`].
    #[must_use]
    pub fn new(on: Foundations) -> Self {
        let Foundations { storage, audit, clock, settings, holder, keys, busy, orders, tell } = on;
        let census = Census::new(storage.clone(), clock.clone(), tell);
        let pace = Pace::new(storage.dialect(), settings.batch_rows);
        Self {
            storage,
            audit,
            clock,
            settings,
            holder,
            keys,
            busy,
            orders,
            census,
            pace,
            progress: ResealProgress::default(),
            work: Work::Idle(Duration::ZERO),
            ahead: None,
            overtaken: None,
            failures: 0,
        }
    }

    /// Works until `stop`; then another server may go on at once.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => break,
                pause = self.step() => pause,
            };
            if pause.is_zero() {
                // The shortest sleep is a millisecond.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.orders.changed() => self.orders.mark_changed(),
                () = tokio::time::sleep(pause) => {}
            }
        }
        // Best effort: the lease ends by itself.
        let _ = tokio::time::timeout(FAREWELL, self.give_up()).await;
    }

    /// One step: a look, or one batch; how long to pause before the next one. Fails at nothing: what
    /// went wrong is logged and tried again.
    pub async fn step(&mut self) -> Duration {
        match self.try_step().await {
            Ok(pause) => {
                self.failures = 0;
                pause
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn try_step(&mut self) -> Result<Duration, Error> {
        let changed = self.orders.has_changed().unwrap_or(false);
        let orders = self.orders.borrow_and_update().clone();
        let (may_reseal, failed) = (self.settings.enabled, self.progress.failed_rows);
        self.census.keep(&orders, may_reseal, failed, changed).await?;
        let Some(active) = orders.active.filter(|_| may_reseal) else {
            // The lease ends by itself.
            self.stand_down(WAIT);
            return Ok(WAIT);
        };
        let now = self.clock.instant();
        match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Idle(until) if now < until && !changed => {
                self.work = Work::Idle(until);
                Ok(WAIT)
            }
            Work::Idle(_) => self.look_for_work(active).await,
            Work::Pass(lease, pass) if pass.active == active => {
                let allowed = match orders.reseal_rows_per_second {
                    0 => self.settings.rows_per_second,
                    wanted => wanted,
                };
                self.go_on(lease, pass, allowed).await
            }
            Work::Rest(lease, rest) if rest.active == active => self.rest(lease, rest).await,
            // Rotated again meanwhile.
            Work::Pass(lease, _) | Work::Rest(lease, _) => {
                self.ahead = None;
                self.begin_pass(lease, active, FIRST_REST).await
            }
        }
    }

    /// Looks whether there is work, and takes it unless another server has it.
    async fn look_for_work(&mut self, active: u32) -> Result<Duration, Error> {
        self.work = Work::Idle(self.clock.instant().saturating_add(LOOK));
        let others = self.storage.others_in_use(active).await?;
        let above = self.overtaken_for_long(active, others.higher);
        if !others.lower && !above {
            return Ok(WAIT);
        }
        let mut transaction = self.storage.begin().await?;
        let lease = Lease::take(&mut transaction, &self.holder, &self.clock).await?;
        let Some(lease) = lease else {
            transaction.rollback().await?;
            return Ok(WAIT);
        };
        transaction.commit().await?;
        self.count(&lease, active).await?;
        let mut transaction = self.storage.begin().await?;
        if !lease.renew(&mut transaction, &self.clock).await? {
            transaction.rollback().await?;
            return Ok(WAIT);
        }
        if self.left(active).is_empty() {
            // Nothing was sealed under what was not known to be empty.
            lease.end(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(WAIT);
        }
        let detail = format!("begun, under generation {active}");
        let subject = Subject { detail: &detail, ..Subject::default() };
        self.audit.record_own(&mut transaction, Action::SecretReseal, subject).await?;
        transaction.commit().await?;
        self.progress = ResealProgress {
            working: true,
            began_at: Some(self.clock.now()),
            ..ResealProgress::default()
        };
        self.pace.begin(self.clock.instant(), (self.busy)());
        let pause = self.go_through(lease, active, FIRST_REST);
        tracing::info!(
            event = Event::ResealRunning.number(),
            generation = active,
            rows = self.progress.rows_left,
            "values are being sealed again"
        );
        Ok(pause)
    }

    /// Counts, and keeps the work meanwhile: whoever has lost it finds that out when it writes.
    async fn count(&mut self, lease: &Lease, active: u32) -> Result<(), Error> {
        let (storage, clock) = (&self.storage, &self.clock);
        let mut counting = std::pin::pin!(self.census.count(active));
        loop {
            tokio::select! {
                counted = &mut counting => return counted,
                () = tokio::time::sleep(RENEW) => {
                    let mut transaction = storage.begin().await?;
                    lease.renew(&mut transaction, clock).await?;
                    transaction.commit().await?;
                }
            }
        }
    }

    /// Whether values under a higher generation than the active one are there for so long that no
    /// server can be ahead of this one.
    fn overtaken_for_long(&mut self, active: u32, higher: bool) -> bool {
        let now = self.clock.instant();
        match self.overtaken.filter(|(of, _)| higher && *of == active) {
            Some((_, since)) => now.saturating_sub(since) >= OVERTAKEN,
            None => {
                self.overtaken = higher.then_some((active, now));
                false
            }
        }
    }

    /// Counts, and begins with the first row again.
    async fn begin_pass(
        &mut self,
        lease: Lease,
        active: u32,
        rest: Duration,
    ) -> Result<Duration, Error> {
        // Kept over a failure of the count.
        self.work = Work::Pass(lease.clone(), Pass::empty(active, rest));
        self.count(&lease, active).await?;
        Ok(self.go_through(lease, active, rest))
    }

    /// Begins with the first of the rows that were counted.
    fn go_through(&mut self, lease: Lease, active: u32, rest: Duration) -> Duration {
        let wanted: Vec<_> = self.left(active).into_iter().copied().collect();
        let pass = Pass::over(active, rest, &wanted);
        self.progress.failed.clear();
        self.progress.failed_rows = 0;
        self.progress.waiting_for.clear();
        self.set_left(active);
        self.work = Work::Pass(lease, pass);
        self.show(true);
        Duration::ZERO
    }

    /// The generations with rows that are to be sealed again.
    fn left(&self, active: u32) -> Vec<&SealedCount> {
        let now = self.clock.instant();
        let above = self
            .overtaken
            .is_some_and(|(of, since)| of == active && now.saturating_sub(since) >= OVERTAKEN);
        let is_left = |count: &&SealedCount| {
            let other = count.generation < active || (above && count.generation > active);
            other && count.rows() > 0
        };
        self.census.counts().iter().filter(is_left).collect()
    }

    fn set_left(&mut self, active: u32) {
        self.progress.rows_left = self.left(active).into_iter().map(SealedCount::rows).sum();
    }

    /// The next batch of a pass, or its end.
    async fn go_on(
        &mut self,
        lease: Lease,
        mut pass: Pass,
        allowed: u32,
    ) -> Result<Duration, Error> {
        let active = pass.active;
        // Kept over whatever fails from here on: the rows say what is done.
        self.work = Work::Pass(lease.clone(), pass.clone());
        let rows = self.pace.rows(allowed);
        let Some(wanted) = pass.next(rows) else { return self.end_pass(lease, pass).await };
        let keys = (self.keys)()?;
        if keys.active() != active {
            // The orders follow in a moment.
            return Ok(MOMENT);
        }
        let ahead = self.ahead.take().filter(|ahead| ahead.serves(&wanted, active));
        let ahead = ahead.unwrap_or_else(|| Ahead::begin(wanted, rows, &self.storage, &keys));
        let mut prepared = ahead.prepared().await?;
        self.ahead = Ahead::behind(&mut prepared, rows, &self.storage, &keys);
        let batch = batch::write(&self.storage, &self.clock, &lease, prepared).await?;
        let now = self.clock.instant();
        if batch.lost {
            tracing::info!("another server goes on sealing values again");
            self.stand_down(LOOK);
            return Ok(WAIT);
        }
        self.progress.waiting_for.clear();
        let written = batch.written;
        self.progress.rows_done = self.progress.rows_done.saturating_add(written);
        self.progress.rows_left = self.progress.rows_left.saturating_sub(written);
        metrics::counter!("sso_reseal_rows_total").increment(written);
        let pause = self.pace.wrote(&batch, allowed, (now, (self.busy)()));
        let news = !batch.failed.is_empty();
        pass.take(batch, &mut self.progress);
        self.work = Work::Pass(lease.clone(), pass);
        if self.census.counted_before(RECOUNT) {
            self.count(&lease, active).await?;
            self.set_left(active);
        }
        self.show(news);
        Ok(pause)
    }

    /// Counts again: the work is done, or rows were passed over, or only those are left that do not open.
    async fn end_pass(&mut self, lease: Lease, pass: Pass) -> Result<Duration, Error> {
        let active = pass.active;
        self.count(&lease, active).await?;
        self.set_left(active);
        let left = self.progress.rows_left;
        if left == 0 {
            return self.finish(lease, active).await;
        }
        if left > pass.failed {
            // Passed over, or written by a server that had not heard of the active generation yet.
            self.begin_pass(lease, active, FIRST_REST).await?;
            return Ok(MOMENT);
        }
        let now = self.clock.instant();
        let pause = pass.rest.min(LONGEST_REST);
        let rest = Rest { active, until: now.saturating_add(pause), pause, renew: now };
        tracing::warn!(rows = left, pause = ?pause, "rows that do not open are left; they are tried again");
        self.progress.waiting_for =
            "rows that do not open: set their values again, delete them, or \
                                     restore them from a backup of the database"
                .to_owned();
        self.work = Work::Rest(lease, rest);
        self.show(true);
        Ok(WAIT)
    }

    /// Waits for rows that do not open to be mended, and keeps the work meanwhile.
    async fn rest(&mut self, lease: Lease, mut rest: Rest) -> Result<Duration, Error> {
        self.work = Work::Rest(lease.clone(), rest);
        let now = self.clock.instant();
        if now >= rest.until {
            return self.begin_pass(lease, rest.active, rest.pause.saturating_mul(2)).await;
        }
        if now >= rest.renew {
            let mut transaction = self.storage.begin().await?;
            let held = lease.renew(&mut transaction, &self.clock).await?;
            transaction.commit().await?;
            if !held {
                self.stand_down(LOOK);
                return Ok(WAIT);
            }
            rest.renew = now.saturating_add(RENEW);
            self.work = Work::Rest(lease.clone(), rest);
        }
        if self.census.counted_before(RECOUNT) {
            self.count(&lease, rest.active).await?;
            self.set_left(rest.active);
            if self.progress.rows_left == 0 {
                return self.finish(lease, rest.active).await;
            }
            if self.progress.rows_left > self.progress.failed_rows {
                return self.begin_pass(lease, rest.active, rest.pause).await;
            }
            self.show(true);
        }
        Ok(WAIT)
    }

    async fn finish(&mut self, lease: Lease, active: u32) -> Result<Duration, Error> {
        let done = self.progress.rows_done;
        let mut transaction = self.storage.begin().await?;
        if lease.end(&mut transaction).await? {
            let detail = format!("done, under generation {active}: {done} rows");
            let subject = Subject { detail: &detail, ..Subject::default() };
            self.audit.record_own(&mut transaction, Action::SecretReseal, subject).await?;
        }
        transaction.commit().await?;
        tracing::info!(
            event = Event::ResealDone.number(),
            generation = active,
            rows = done,
            "every value is sealed under the active generation"
        );
        self.progress.working = false;
        self.progress.failed.clear();
        self.progress.failed_rows = 0;
        self.progress.rows_per_second = 0.0;
        self.progress.waiting_for.clear();
        self.progress.finished_at = Some(self.clock.now());
        self.census.show(self.progress.clone(), true);
        self.work = Work::Idle(self.clock.instant().saturating_add(LOOK));
        Ok(WAIT)
    }

    /// Leaves the work to others, if there is any.
    fn stand_down(&mut self, pause: Duration) {
        self.work = Work::Idle(self.clock.instant().saturating_add(pause));
        self.ahead = None;
        if self.progress.working {
            self.progress = ResealProgress::default();
            self.census.show(self.progress.clone(), true);
        }
    }

    fn show(&mut self, news: bool) {
        self.progress.rows_per_second = self.pace.rate(self.clock.instant());
        metrics::gauge!("sso_reseal_rows_left").set(self.progress.rows_left as f64);
        self.census.show(self.progress.clone(), news);
    }

    fn failed(&mut self, error: &Error) -> Duration {
        // It may be long until there are keys, or the database, again.
        self.ahead = None;
        if matches!(self.work, Work::Pass(..) | Work::Rest(..)) {
            if self.failures == 0 {
                tracing::warn!(event = Event::ResealFailed.number(), %error, "sealing again was interrupted");
            }
            self.progress.waiting_for.clone_from(&error.message);
            self.census.show(self.progress.clone(), self.failures == 0);
        } else if self.failures == 0 {
            tracing::warn!(%error, "what is sealed under which generation cannot be read");
        }
        self.failures = self.failures.saturating_add(1);
        WAIT.saturating_mul(self.failures).min(LONGEST_FAILURE)
    }

    async fn give_up(&mut self) -> Result<(), Error> {
        let (Work::Pass(lease, _) | Work::Rest(lease, _)) = &self.work else { return Ok(()) };
        let mut transaction = self.storage.begin().await?;
        lease.end(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl std::fmt::Debug for Resealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resealer").field("holder", &self.holder).finish_non_exhaustive()
    }
}
