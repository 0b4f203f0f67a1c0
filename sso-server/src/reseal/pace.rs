//! How much is sealed again at once, and how long others are let in afterwards.

use std::{collections::VecDeque, time::Duration};

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
/// Others have work where what serves them was at work for more than such a part of the time.
const WORK: u32 = 4;
/// What the rate shown is measured over.
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps the pace of one server.
#[derive(Debug)]
pub(super) struct Pace {
    dialect: Dialect,
    most: u32,
    rows: u32,
    begun: Duration,
    /// When the last transaction ended, and how long this server had worked for others then.
    wrote: (Duration, Duration),
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
            wrote: (Duration::ZERO, Duration::ZERO),
            done: VecDeque::new(),
        }
    }

    /// Work begins at this instant, when this server has worked so long for others.
    pub(super) fn begin(&mut self, now: Duration, load: Duration) {
        self.begun = now;
        self.wrote = (now, load);
        self.done.clear();
    }

    /// Rows of the next transaction, where so many a second are allowed; 0 = any number. Never more
    /// than those of one second, so that no pause outlasts the lease.
    pub(super) fn rows(&self, allowed: u32) -> u32 {
        if allowed == 0 { self.rows } else { self.rows.min(allowed) }
    }

    /// How long to pause after a transaction with so many rows, for which so many were looked at, and which
    /// `took` so long until `now`, when this server has worked so long for others.
    pub(super) fn wrote(
        &mut self,
        (seen, rows): (u32, u32),
        took: Duration,
        allowed: u32,
        (now, load): (Duration, Duration),
    ) -> Duration {
        let (since, before) = std::mem::replace(&mut self.wrote, (now, load));
        let others_work = load.saturating_sub(before) > now.saturating_sub(since) / WORK;
        self.done.push_back((now, u64::from(rows)));
        if took > LONGEST_WRITE {
            self.rows = (self.rows / 2).max(LEAST_ROWS).min(self.most);
        } else if took < LONGEST_WRITE / 2 && seen >= self.rows {
            self.rows = self.rows.saturating_mul(2).min(self.most);
        }
        let gap = match self.dialect {
            Dialect::Sqlite if others_work => took.clamp(GAP, LONGEST_GAP),
            // Writers of another process do not show.
            Dialect::Sqlite => (took / 4).clamp(GAP, LONGEST_GAP),
            // Others wait for the rows that they want, not for all.
            Dialect::Postgres => Duration::ZERO,
        };
        if allowed == 0 {
            return gap;
        }
        let fair = Duration::from_secs(1) * rows / allowed;
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

    #[test]
    fn long_transactions_get_shorter_and_short_ones_longer() {
        let mut pace = Pace::new(Dialect::Postgres, 500);
        for expected in [200, 400, 500, 500] {
            assert_eq!(
                pace.wrote((pace.rows(0), pace.rows(0)), QUICK, 0, (QUICK, QUICK)),
                Duration::ZERO
            );
            assert_eq!(pace.rows(0), expected);
        }
        for _ in 0..20 {
            pace.wrote((pace.rows(0), pace.rows(0)), SLOW, 0, (SLOW, SLOW));
        }
        assert_eq!(pace.rows(0), LEAST_ROWS);
        // The rest of a table says nothing of how long a full one would take.
        pace.wrote((3, 3), QUICK, 0, (SLOW, SLOW));
        assert_eq!(pace.rows(0), LEAST_ROWS);
        assert_eq!(Pace::new(Dialect::Sqlite, 1).rows(0), 1);
    }

    #[test]
    fn others_get_a_turn_on_sqlite_and_as_much_time_as_was_taken_where_they_have_work() {
        let milliseconds = Duration::from_millis;
        let mut pace = Pace::new(Dialect::Sqlite, 500);
        pace.begin(milliseconds(1000), milliseconds(700));
        let mut now = (milliseconds(1000), milliseconds(700));
        // Others worked so long in the 100 ms since the last transaction.
        for (worked, took, gap) in [
            (0, 40, 10),
            (25, 40, 10),
            (26, 40, 40),
            (200, 40, 40),
            (0, 500, 100),
            (26, 500, 100),
            (26, 5, 5),
            (0, 5, 2),
            (26, 1, 2),
        ] {
            now = (now.0 + milliseconds(100), now.1 + milliseconds(worked));
            let pause = pace.wrote((100, 100), milliseconds(took), 0, now);
            assert_eq!(pause, milliseconds(gap), "{worked} {took}");
        }
        // What was before this work says nothing.
        now = (now.0 + milliseconds(100), now.1 + milliseconds(100));
        pace.begin(now.0, now.1);
        now.0 += milliseconds(100);
        assert_eq!(pace.wrote((100, 100), milliseconds(40), 0, now), milliseconds(10));
    }

    #[test]
    fn a_rate_is_kept_and_pauses_stay_short() {
        let mut pace = Pace::new(Dialect::Postgres, 500);
        for allowed in [1, 7, 100, 333] {
            let rows = pace.rows(allowed);
            assert!(rows <= allowed);
            let pause = pace.wrote((rows, rows), QUICK, allowed, (QUICK, QUICK));
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
        pace.wrote((500, 500), QUICK, 0, (seconds(101), QUICK));
        assert!((pace.rate(seconds(102)) - 250.0).abs() < 0.01);
        pace.wrote((500, 500), QUICK, 0, (seconds(110), QUICK));
        assert!((pace.rate(seconds(111)) - 100.0).abs() < 0.01);
        assert!(pace.rate(seconds(200)) < 0.01);
    }
}
