//! What is known of when something last changed: whoever remembers a row asks here whether it still
//! stands.
//!
//! Every change that this server hears of, its own ones and those of the feed, begins a new tick. A
//! reader takes the tick *before* it reads the database, and keeps what it read under that tick:
//! - what was committed before the read is in what was read;
//! - what is committed after it is told of later, by the writer here or by the feed, under a later
//!   tick, and what was kept under an earlier one does not stand any more.
//!
//! So however reads, commits and news interleave, a row that was read before its invalidation is not
//! served after it. Most of the time nothing at all changed since a row was read, which one look at the
//! tick tells. Otherwise the ticks of the last change of the row, of its application and of everything
//! decide. They are kept in tables of fixed size, by a hash of the id: two ids of one place count as
//! changed together, so that a row is read again without need at times, and never served too long.
//! Nothing here waits for anything.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use uuid::Uuid;
use zerocopy::FromZeros as _;

use crate::{model::ApplicationId, storage::Change};

/// How long what is remembered is served after the feed was last read to its end. The feed is read
/// every quarter of a second at the latest, so that a few reads may fail or be late before it matters,
/// and a server that is cut off from the database still refuses within seconds what was revoked
/// elsewhere.
pub const FRESH: Duration = Duration::from_secs(2);
/// Places of rows: with a million rows in memory, a change makes one other row be read again. The
/// system gives memory only to those places that are written.
const ROWS: usize = 1 << 20;
/// Places of applications.
const APPLICATIONS: usize = 1 << 12;

/// Changes made here that are remembered until all before them were taken in: more than are made between two
/// looks at the feed.
const MADE: usize = 1 << 13;

/// A moment between changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The number to keep it by.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The tick that was kept by this number.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self(number)
    }
}

/// When what last changed.
#[derive(Debug)]
pub struct Ticks {
    last: AtomicU64,
    everything: AtomicU64,
    applications: Table,
    /// All rows of an application.
    rows_of: Table,
    rows: Table,
    /// Milliseconds by the clock of leases, see [`Self::are_fresh`].
    complete: AtomicU64,
    /// Every change up to this number was taken in.
    seen: AtomicU64,
    /// The numbers of changes that were made here lately, each at its own place.
    made: Box<[AtomicU64]>,
}

impl Ticks {
    /// Nothing changed yet.
    pub(super) fn new() -> Self {
        Self::with_places(ROWS, APPLICATIONS)
    }

    fn with_places(rows: usize, applications: usize) -> Self {
        Self {
            last: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            applications: Table::new(applications),
            rows_of: Table::new(applications),
            rows: Table::new(rows),
            complete: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            made: (0..MADE).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The tick to keep under what is read from now on.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(self.last.load(Ordering::Acquire))
    }

    /// Takes in a change that is committed. Nothing that was read before is served after this returns.
    pub fn changed(&self, change: Change) {
        let place = match change {
            Change::System => Some(&self.everything),
            Change::Application(id) => self.applications.place(id.0),
            Change::Mappings(id) => self.rows_of.place(id.0),
            Change::Configuration(_, id) => self.rows.place(id.0),
            Change::Mapping(_, id) => self.rows.place(id.0),
        };
        if let Some(place) = place {
            let _ = self.raise(place);
        }
    }

    /// The same for a row that was changed here by somebody who began at `since`: the tick to keep under what
    /// was written. `None` where something else changed meanwhile, so that it may be the older one.
    pub fn changed_row(&self, application: ApplicationId, row: Uuid, since: Tick) -> Option<Tick> {
        let (before, tick) = self.raise(self.rows.place(row)?)?;
        let alone = before <= since.0
            && self.everything.load(Ordering::SeqCst) <= since.0
            && self.applications.stands(application.0, since)
            && self.rows_of.stands(application.0, since);
        alone.then_some(Tick(tick))
    }

    /// Anything may have changed.
    pub fn everything_changed(&self) {
        // Perhaps of another database, whose numbers mean nothing here.
        self.made.iter().for_each(|place| place.store(0, Ordering::Release));
        self.seen.store(0, Ordering::Release);
        let _ = self.raise(&self.everything);
    }

    /// Begins a tick, and puts it at the place; what stood there before, and the tick. Between the two another
    /// may have begun a later tick, kept something under it, and put it at this place or found the place
    /// as it was: then a tick later than that one follows, and the answer is `None`. Once is enough: who
    /// begins after the first tick sees in the database what this change committed. Nothing is to be kept under
    /// the second tick, even where nobody was at the place between the two: a younger one that was overtaken
    /// both times has left no trace there.
    fn raise(&self, place: &AtomicU64) -> Option<(u64, u64)> {
        let tick = self.next();
        let before = place.fetch_max(tick, Ordering::SeqCst);
        if self.last.load(Ordering::SeqCst) == tick {
            return Some((before, tick));
        }
        place.fetch_max(self.next(), Ordering::SeqCst);
        None
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
    }

    /// Whether what was read under this tick stands, as far as the system as a whole goes.
    #[must_use]
    pub fn system_stands(&self, since: Tick) -> bool {
        self.last.load(Ordering::Acquire) == since.0
            || self.everything.load(Ordering::Acquire) <= since.0
    }

    /// Whether an application that was read under this tick stands.
    #[must_use]
    pub fn application_stands(&self, id: ApplicationId, since: Tick) -> bool {
        self.last.load(Ordering::Acquire) == since.0
            || (self.everything.load(Ordering::Acquire) <= since.0
                && self.applications.stands(id.0, since))
    }

    /// Whether a mapping or configuration of this id that was read under this tick stands.
    #[must_use]
    pub fn row_stands(&self, application: ApplicationId, id: Uuid, since: Tick) -> bool {
        self.last.load(Ordering::Acquire) == since.0
            || (self.everything.load(Ordering::Acquire) <= since.0
                && self.applications.stands(application.0, since)
                && self.rows_of.stands(application.0, since)
                && self.rows.stands(id, since))
    }

    /// Whatever was committed before this moment was taken in.
    pub(super) fn complete_until(&self, moment: Duration) {
        self.complete.fetch_max(millis(moment), Ordering::Release);
    }

    /// Every change up to this number was taken in, and perhaps later ones.
    pub(super) fn saw(&self, number: u64) {
        self.seen.fetch_max(number, Ordering::AcqRel);
    }

    /// The change of this number, which was made here, was taken in.
    pub(super) fn made(&self, number: u64) {
        if let Some(place) = self.made_at(number) {
            place.store(number, Ordering::Release);
        }
        // Where nothing is missing before it nobody has to wait for the feed.
        let mut seen = self.seen.load(Ordering::Acquire);
        loop {
            let next = seen.saturating_add(1);
            let here = self.made_at(next).is_some_and(|it| it.load(Ordering::Acquire) == next);
            if !here {
                return;
            }
            let swapped =
                self.seen.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire);
            seen = swapped.map_or_else(|now| now, |_| next);
        }
    }

    /// Whether the change of this number was made here, and so taken in already.
    pub(super) fn was_made_here(&self, number: u64) -> bool {
        self.made_at(number).is_some_and(|place| place.load(Ordering::Acquire) == number)
    }

    fn made_at(&self, number: u64) -> Option<&AtomicU64> {
        self.made.get(usize::try_from(number).ok()? % MADE)
    }

    /// Every change up to this number was taken in.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Whether the change of this number, and every one before it, was taken in.
    #[must_use]
    pub fn have_seen(&self, number: u64) -> bool {
        number <= self.seen()
    }

    /// As if the feed was read now.
    #[cfg(test)]
    pub(crate) fn complete_until_now(&self, clock: &sso_core::clock::Clock) {
        self.complete_until(clock.instant());
    }

    /// Whether everything that was committed until [`FRESH`] ago was taken in, so that what stands may be
    /// served.
    #[must_use]
    pub fn are_fresh(&self, now: Duration) -> bool {
        let complete = self.complete.load(Ordering::Acquire);
        millis(now).saturating_sub(complete) < millis(FRESH)
    }
}

fn millis(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks by a hash of ids.
#[derive(Debug)]
struct Table(Box<[AtomicU64]>);

impl Table {
    /// A power of two places.
    fn new(places: usize) -> Self {
        let zeros = <[AtomicU64]>::new_box_zeroed_with_elems(places);
        // Without memory for it everything is always changed, see `stands`.
        Self(zeros.unwrap_or_default())
    }

    fn place(&self, id: Uuid) -> Option<&AtomicU64> {
        // The ids are random to a large part; the product spreads that over the high bits.
        let (high, low) = id.as_u64_pair();
        let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = self.0.len().checked_ilog2()?;
        let place = mixed.checked_shr(u64::BITS - bits).unwrap_or_default();
        self.0.get(usize::try_from(place).ok()?)
    }

    fn stands(&self, id: Uuid, since: Tick) -> bool {
        self.place(id).is_some_and(|place| place.load(Ordering::SeqCst) <= since.0)
    }
}

#[cfg(test)]
mod tests;
