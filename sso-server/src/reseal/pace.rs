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
const GAP: Duration = Duration::from_millis(5);
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// Others have work where this process used more than such a part of one processor while this paused.
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
    /// When the last pause began, and the processor time of this process then.
    paused: Option<(Duration, Duration)>,
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
            paused: None,
            others_work: true,
            done: VecDeque::new(),
        }
    }

    /// Work begins at this instant.
    pub(super) fn begin(&mut self, now: Duration) {
        self.begun = now;
        (self.paused, self.others_work) = (None, true);
        self.done.clear();
    }

    /// Rows of the next transaction, where so many a second are allowed; 0 = any number. Never more
    /// than those of one second, so that no pause outlasts the lease.
    pub(super) fn rows(&self, allowed: u32) -> u32 {
        if allowed == 0 { self.rows } else { self.rows.min(allowed) }
    }

    /// How long to pause after a transaction with so many rows, for which so many were looked at, and which
    /// `took` so long until `now`.
    pub(super) fn wrote(
        &mut self,
        (seen, rows): (u32, u32),
        took: Duration,
        allowed: u32,
        now: Duration,
    ) -> Duration {
        self.done.push_back((now, u64::from(rows)));
        if took > LONGEST_WRITE {
            self.rows = (self.rows / 2).max(LEAST_ROWS).min(self.most);
        } else if took < LONGEST_WRITE / 2 && seen >= self.rows {
            self.rows = self.rows.saturating_mul(2).min(self.most);
        }
        let gap = match self.dialect {
            Dialect::Sqlite if self.others_work => took.clamp(GAP, LONGEST_GAP),
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

    /// A pause begins, at this instant and with so much processor time used.
    pub(super) fn pause_begins(&mut self, now: Duration, used: Duration) {
        self.paused = Some((now, used));
    }

    /// It is over: whether others have work shows in what was used meanwhile.
    pub(super) fn pause_ends(&mut self, now: Duration, used: Duration) {
        if let Some((since, before)) = self.paused.take() {
            let (paused, worked) = (now.saturating_sub(since), used.saturating_sub(before));
            self.others_work = worked > paused / WORK;
        }
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
            assert_eq!(pace.wrote((pace.rows(0), pace.rows(0)), QUICK, 0, QUICK), Duration::ZERO);
            assert_eq!(pace.rows(0), expected);
        }
        for _ in 0..20 {
            pace.wrote((pace.rows(0), pace.rows(0)), SLOW, 0, SLOW);
        }
        assert_eq!(pace.rows(0), LEAST_ROWS);
        // The rest of a table says nothing of how long a full one would take.
        pace.wrote((3, 3), QUICK, 0, SLOW);
        assert_eq!(pace.rows(0), LEAST_ROWS);
        assert_eq!(Pace::new(Dialect::Sqlite, 1).rows(0), 1);
    }

    #[test]
    fn other_writers_of_sqlite_get_a_turn() {
        let mut pace = Pace::new(Dialect::Sqlite, 500);
        assert_eq!(pace.wrote((100, 100), QUICK, 0, QUICK), GAP);
        assert_eq!(pace.wrote((100, 100), QUICK * 8, 0, QUICK), QUICK * 8);
        assert_eq!(pace.wrote((100, 100), SLOW, 0, QUICK), LONGEST_GAP);
    }

    #[test]
    fn where_nobody_has_work_pauses_are_short() {
        let milliseconds = Duration::from_millis;
        let mut pace = Pace::new(Dialect::Sqlite, 500);
        let took = milliseconds(40);
        for (worked, gap) in [(4, 40), (1, 10), (2, 10), (3, 40)] {
            pace.pause_begins(milliseconds(100), milliseconds(70));
            pace.pause_ends(milliseconds(110), milliseconds(70 + worked));
            assert_eq!(pace.wrote((100, 100), took, 0, QUICK), milliseconds(gap), "{worked}");
            pace.pause_begins(milliseconds(100), milliseconds(70));
            pace.pause_ends(milliseconds(110), milliseconds(71));
            assert_eq!(pace.wrote((100, 100), QUICK, 0, QUICK), GAP);
        }
        // No pause, no news of others.
        pace.pause_ends(milliseconds(200), milliseconds(1000));
        assert_eq!(pace.wrote((100, 100), took, 0, QUICK), milliseconds(10));
        // What was before this work says nothing.
        pace.begin(milliseconds(300));
        assert_eq!(pace.wrote((100, 100), took, 0, QUICK), milliseconds(40));
    }

    #[test]
    fn a_rate_is_kept_and_pauses_stay_short() {
        let mut pace = Pace::new(Dialect::Postgres, 500);
        for allowed in [1, 7, 100, 333] {
            let rows = pace.rows(allowed);
            assert!(rows <= allowed);
            let pause = pace.wrote((rows, rows), QUICK, allowed, QUICK);
            assert!(pause <= Duration::from_secs(1), "{pause:?}");
            let second = (pause + QUICK) * allowed / rows;
            assert!(second >= Duration::from_millis(999), "{allowed}: {second:?}");
        }
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(Dialect::Postgres, 500);
        pace.begin(seconds(100));
        pace.wrote((500, 500), QUICK, 0, seconds(101));
        assert!((pace.rate(seconds(102)) - 250.0).abs() < 0.01);
        pace.wrote((500, 500), QUICK, 0, seconds(110));
        assert!((pace.rate(seconds(111)) - 100.0).abs() < 0.01);
        assert!(pace.rate(seconds(200)) < 0.01);
    }
}
