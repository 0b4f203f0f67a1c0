//! Two leases on one clock, read on every request without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// When the leases end, as time of [`sso_core::clock::Clock::instant`]. Both are over at first.
#[derive(Debug)]
pub(super) struct Leases {
    read: Duration,
    write: Duration,
    /// Nanoseconds; 0 = over.
    read_until: AtomicU64,
    write_until: AtomicU64,
}

impl Leases {
    pub(super) fn new(read: Duration, write: Duration) -> Self {
        Self { read, write, read_until: AtomicU64::new(0), write_until: AtomicU64::new(0) }
    }

    pub(super) fn may_read(&self, now: Duration) -> bool {
        nanoseconds(now) < self.read_until.load(Ordering::Acquire)
    }

    /// The write lease is never longer than the read lease.
    pub(super) fn may_write(&self, now: Duration) -> bool {
        nanoseconds(now) < self.write_until.load(Ordering::Acquire)
    }

    /// Both leases begin anew at the instant `at`. Neither gets shorter by that: what another master
    /// said later counts for longer.
    pub(super) fn confirm(&self, at: Duration) {
        self.confirm_read(at);
        self.write_until.fetch_max(nanoseconds(at + self.write.min(self.read)), Ordering::AcqRel);
    }

    /// The read lease alone begins anew at the instant `at`.
    pub(super) fn confirm_read(&self, at: Duration) {
        self.read_until.fetch_max(nanoseconds(at + self.read), Ordering::AcqRel);
    }

    /// What is left of a read lease that began in a former life, at most a whole one.
    pub(super) fn resume_read(&self, now: Duration, left: Duration) {
        self.read_until.store(nanoseconds(now + left.min(self.read)), Ordering::Release);
    }

    pub(super) fn end_write(&self) {
        self.write_until.store(0, Ordering::Release);
    }

    pub(super) fn end_both(&self) {
        self.end_write();
        self.read_until.store(0, Ordering::Release);
    }

    /// How long a whole read lease is.
    pub(super) fn read(&self) -> Duration {
        self.read
    }

    /// What is left of the read and of the write lease; `None` of one that is over.
    pub(super) fn left(&self, now: Duration) -> (Option<Duration>, Option<Duration>) {
        let left = |until: &AtomicU64| {
            Duration::from_nanos(until.load(Ordering::Acquire))
                .checked_sub(now)
                .filter(|left| !left.is_zero())
        };
        (left(&self.read_until), left(&self.write_until))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // 584 years of uptime.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn leases_end_to_the_nanosecond() {
        let leases = Leases::new(seconds(100), seconds(10));
        assert!(!leases.may_read(seconds(0)) && !leases.may_write(seconds(0)));
        leases.confirm(seconds(5));
        let before = Duration::from_nanos(1);
        assert!(leases.may_write(seconds(15) - before) && !leases.may_write(seconds(15)));
        assert!(leases.may_read(seconds(105) - before) && !leases.may_read(seconds(105)));
        assert_eq!(leases.left(seconds(6)), (Some(seconds(99)), Some(seconds(9))));
        assert_eq!(leases.left(seconds(20)), (Some(seconds(85)), None));
        assert_eq!(leases.left(seconds(200)), (None, None));
    }

    #[test]
    fn the_write_lease_can_end_early() {
        let leases = Leases::new(seconds(100), seconds(10));
        leases.confirm(seconds(1));
        leases.end_write();
        assert!(leases.may_read(seconds(2)) && !leases.may_write(seconds(2)));
        leases.confirm(seconds(3));
        assert!(leases.may_write(seconds(4)));
    }

    #[test]
    fn a_late_word_shortens_nothing_and_an_end_ends_both() {
        let leases = Leases::new(seconds(100), seconds(10));
        leases.confirm(seconds(8));
        leases.confirm(seconds(2));
        assert_eq!(leases.left(seconds(8)), (Some(seconds(100)), Some(seconds(10))));
        leases.end_both();
        assert_eq!(leases.left(seconds(8)), (None, None));
        leases.resume_read(seconds(8), seconds(500));
        assert_eq!(leases.left(seconds(8)), (Some(seconds(100)), None));
        leases.resume_read(seconds(8), seconds(5));
        assert_eq!(leases.left(seconds(8)), (Some(seconds(5)), None));
    }

    #[test]
    fn the_write_lease_is_not_longer_than_the_read_lease() {
        let leases = Leases::new(seconds(5), seconds(10));
        leases.confirm(seconds(0));
        assert!(!leases.may_write(seconds(5)) && !leases.may_read(seconds(5)));
    }
}
