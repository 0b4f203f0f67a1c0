//! How much is sealed again at once, and how long others are let in afterwards.

use std::{collections::VecDeque, time::Duration};

use super::batch::Batch;
use crate::storage::Dialect;

/// A transaction that writes longer takes fewer rows the next time.
const LONGEST_WRITE: Duration = Duration::from_millis(200);
/// With so few rows the cost of the transaction itself shows.
const LEAST_ROWS: u32 = 10;
const FIRST_ROWS: u32 = 100;
/// What others get after each transaction on SQLite, at least and at most; in between as long as it took
/// while they have work, so that who reads shares the processors for half of the time at most, and a quarter
/// of that where they have none. Writers of this process come before the next one either way, as turns are
/// given in order; those of another one look now and then whether the file is free.
const GAP: Duration = Duration::from_millis(2);
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// Others have work where all that serves them was, together, at work for more than such a part of the time,
/// over so long at least, as it says so now and then only; or where one waits to write.
const WORK: u32 = 4;
const LOOK: Duration = Duration::from_millis(100);
/// What the rate shown is measured over.
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps the pace of one server.
#[derive(Debug)]
pub(super) struct Pace {
    dialect: Dialect,
    most: u32,
    rows: u32,
    begun: Duration,
    /// When that was looked at last, and how long what serves others had been at work then.
    looked: (Duration, Duration),
    others_work: bool,
    done: VecDeque<(Duration, u64)>,
}

impl Pace {
    pub(super) fn new(dialect: Dialect, most: u32) -> Self {
        let rows = FIRST_ROWS.min(most).max(1);
        Self {
            dialect,
            most: most.max(1),
            rows,
            begun: Duration::ZERO,
            looked: (Duration::ZERO, Duration::ZERO),
            others_work: true,
            done: VecDeque::new(),
        }
    }

    /// Work begins at this instant, when what serves others has been at work for so long.
    pub(super) fn begin(&mut self, now: Duration, busy: Duration) {
        self.begun = now;
        (self.looked, self.others_work) = ((now, busy), true);
        self.done.clear();
    }

    /// Rows of the next transaction, where so many a second are allowed; 0 = any number. Never more
    /// than those of one second, so that no pause outlasts the lease.
    pub(super) fn rows(&self, allowed: u32) -> u32 {
        if allowed == 0 { self.rows } else { self.rows.min(allowed) }
    }

    /// How long to pause after a transaction that ended now, when what serves others has been at work for
    /// so long.
    pub(super) fn wrote(
        &mut self,
        batch: &Batch,
        allowed: u32,
        (now, busy): (Duration, Duration),
    ) -> Duration {
        let &Batch { seen, read, took, waited_for, .. } = batch;
        let (since, before) = self.looked;
        let passed = now.saturating_sub(since);
        if passed >= LOOK {
            self.looked = (now, busy);
            self.others_work = busy.saturating_sub(before) > passed / WORK;
        }
        self.done.push_back((now, u64::from(read)));
        if took > LONGEST_WRITE {
            self.rows = (self.rows / 2).max(LEAST_ROWS).min(self.most);
        } else if took < LONGEST_WRITE / 2 && seen >= self.rows {
            self.rows = self.rows.saturating_mul(2).min(self.most);
        }
        let gap = match self.dialect {
            Dialect::Sqlite if self.others_work || waited_for => took.clamp(GAP, LONGEST_GAP),
            // Writers of another process do not show.
            Dialect::Sqlite => (took / 4).clamp(GAP, LONGEST_GAP),
            // Others wait for the rows that they want, not for all.
            Dialect::Postgres => Duration::ZERO,
        };
        if allowed == 0 {
            return gap;
        }
        let fair = Duration::from_secs(1) * read / allowed;
        gap.max(fair.saturating_sub(took))
    }

    /// Rows a second over the last while.
    pub(super) fn rate(&mut self, now: Duration) -> f64 {
        let from = now.saturating_sub(WINDOW);
        while self.done.front().is_some_and(|(at, _)| *at < from) {
            self.done.pop_front();
        }
        let rows: u64 = self.done.iter().map(|(_, rows)| rows).sum();
        let over = now.saturating_sub(from.max(self.begun)).as_secs_f64().max(0.1);
        // Far below the 52 bits that a float holds exactly.
        u32::try_from(rows).map_or(f64::MAX, f64::from) / over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_millis(500);

    fn batch(rows: u32, took: Duration) -> Batch {
        Batch { seen: rows, read: rows, took, ..Batch::default() }
    }

    #[test]
    fn long_transactions_get_shorter_and_short_ones_longer() {
        let mut pace = Pace::new(Dialect::Postgres, 500);
        for expected in [200, 400, 500, 500] {
            let pause = pace.wrote(&batch(pace.rows(0), QUICK), 0, (QUICK, QUICK));
            assert_eq!((pause, pace.rows(0)), (Duration::ZERO, expected));
        }
        for _ in 0..20 {
            pace.wrote(&batch(pace.rows(0), SLOW), 0, (SLOW, SLOW));
        }
        assert_eq!(pace.rows(0), LEAST_ROWS);
        // The rest of a table says nothing of how long a full one would take.
        pace.wrote(&batch(3, QUICK), 0, (SLOW, SLOW));
        assert_eq!(pace.rows(0), LEAST_ROWS);
        assert_eq!(Pace::new(Dialect::Sqlite, 1).rows(0), 1);
    }

    #[test]
    fn others_get_a_turn_on_sqlite_and_as_much_time_as_was_taken_where_they_have_work() {
        let milliseconds = Duration::from_millis;
        let mut pace = Pace::new(Dialect::Sqlite, 500);
        let mut now = (milliseconds(1000), milliseconds(700));
        pace.begin(now.0, now.1);
        let mut wrote = |pace: &mut Pace, passed, worked, batch: &Batch| {
            now = (now.0 + milliseconds(passed), now.1 + milliseconds(worked));
            pace.wrote(batch, 0, now)
        };
        // Nothing is known yet.
        assert_eq!(wrote(&mut pace, 40, 0, &batch(100, milliseconds(30))), milliseconds(30));
        assert_eq!(wrote(&mut pace, 59, 0, &batch(100, milliseconds(30))), milliseconds(30));
        assert_eq!(wrote(&mut pace, 1, 0, &batch(100, milliseconds(40))), milliseconds(10));
        for (worked, took, gap) in [
            (25, 40, 10),
            (26, 40, 40),
            (200, 40, 40),
            (0, 500, 100),
            (26, 500, 100),
            (26, 5, 5),
            (0, 5, 2),
            (26, 1, 2),
        ] {
            let pause = wrote(&mut pace, 100, worked, &batch(100, milliseconds(took)));
            assert_eq!(pause, milliseconds(gap), "{worked} {took}");
        }
        // What is said now and then only counts over all the time.
        wrote(&mut pace, 100, 0, &batch(100, QUICK));
        for (worked, gap) in [(0, 10), (20, 10), (0, 10), (0, 10), (10, 40), (0, 40)] {
            let pause = wrote(&mut pace, 20, worked, &batch(100, milliseconds(40)));
            assert_eq!(pause, milliseconds(gap), "{worked}");
        }
        // Who waits to write has work.
        wrote(&mut pace, 100, 0, &batch(100, QUICK));
        let waited_for = Batch { waited_for: true, ..batch(100, milliseconds(40)) };
        assert_eq!(wrote(&mut pace, 100, 0, &waited_for), milliseconds(40));
        assert_eq!(wrote(&mut pace, 100, 0, &batch(100, milliseconds(40))), milliseconds(10));
        // What was before this work says nothing.
        pace.begin(now.0, now.1);
        assert_eq!(pace.wrote(&batch(100, milliseconds(40)), 0, now), milliseconds(40));
    }

    #[test]
    fn a_rate_is_kept_and_pauses_stay_short() {
        let mut pace = Pace::new(Dialect::Postgres, 500);
        for allowed in [1, 7, 100, 333] {
            let rows = pace.rows(allowed);
            assert!(rows <= allowed);
            let pause = pace.wrote(&batch(rows, QUICK), allowed, (QUICK, QUICK));
            assert!(pause <= Duration::from_secs(1), "{pause:?}");
            let second = (pause + QUICK) * allowed / rows;
            assert!(second >= Duration::from_millis(999), "{allowed}: {second:?}");
        }
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(Dialect::Postgres, 500);
        pace.begin(seconds(100), QUICK);
        pace.wrote(&batch(500, QUICK), 0, (seconds(101), QUICK));
        assert!((pace.rate(seconds(102)) - 250.0).abs() < 0.01);
        pace.wrote(&batch(500, QUICK), 0, (seconds(110), QUICK));
        assert!((pace.rate(seconds(111)) - 100.0).abs() < 0.01);
        assert!(pace.rate(seconds(200)) < 0.01);
    }
}
