//! The only room that reads the time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// How far the clocks of servers and masters differ at the most.
pub const CLOCKS_APART: time::Duration = time::Duration::MINUTE;

/// Where the time comes from: the machine, or a test.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The clocks of this machine.
    System,
    /// Stands still until [`Clock::advance`] moves it; clones share one time.
    Manual(Arc<Mutex<ManualTime>>),
}

/// The time a manual clock shows.
#[derive(Clone, Copy, Debug)]
pub struct ManualTime {
    now: OffsetDateTime,
    instant: Duration,
}

impl Clock {
    /// A clock that stands at `start` (kept in UTC).
    #[must_use]
    pub fn manual(start: OffsetDateTime) -> Self {
        let start = start.to_offset(time::UtcOffset::UTC);
        Self::Manual(Arc::new(Mutex::new(ManualTime { now: start, instant: Duration::ZERO })))
    }

    /// The time of day, in UTC. May jump when the machine's clock is set.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the room the rule points to")]
            Self::System => OffsetDateTime::now_utc(),
            Self::Manual(time) => time.lock().unwrap_or_else(PoisonError::into_inner).now,
        }
    }

    /// Time since an arbitrary fixed point; never goes back. Leases are measured with it.
    ///
    /// It goes on while the machine is suspended, so that a lease does not outlive its end in a
    /// laptop's bag or in a paused virtual machine that was told of the pause.
    #[must_use]
    pub fn instant(&self) -> Duration {
        match self {
            Self::System => {
                let now = clock_gettime(ClockId::Boottime);
                Duration::new(
                    u64::try_from(now.tv_sec).unwrap_or_default(),
                    u32::try_from(now.tv_nsec).unwrap_or_default(),
                )
            }
            Self::Manual(time) => time.lock().unwrap_or_else(PoisonError::into_inner).instant,
        }
    }

    /// Moves a manual clock forward; the system clock takes no orders and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(time) = self {
            let mut time = time.lock().unwrap_or_else(PoisonError::into_inner);
            time.now += by;
            time.instant += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_system_clock_runs_forward() {
        let clock = Clock::System;
        let (first, second) = (clock.instant(), clock.instant());
        assert!(first > Duration::ZERO);
        assert!(second >= first);
        assert!(clock.now() > datetime!(2026-01-01 0:00 UTC));
        assert!(clock.now().offset().is_utc());
    }

    #[test]
    fn clones_of_a_manual_clock_share_the_time() {
        let clock = Clock::manual(datetime!(2030-05-01 14:00 +2));
        let other = clock.clone();
        let start = other.instant();
        clock.advance(Duration::from_secs(90));
        assert_eq!(other.now(), datetime!(2030-05-01 12:01:30 UTC));
        assert_eq!(other.instant() - start, Duration::from_secs(90));
    }
}
