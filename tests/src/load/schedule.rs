//! When requests are due at a fixed rate, and from when their latency counts.
//!
//! A generator that waits for an answer before it sends the next request leaves out exactly the requests
//! that would have been slow ("coordinated omission"). So at a fixed rate every request has a moment at
//! which it is due, and its latency counts from then, also when nobody was free to send it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// A timer may wake up so much too late; that is not the fault of who is measured.
const TIMER: Duration = Duration::from_millis(2);

/// The moments at which requests of one thread are due.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    per_second: f64,
    next: Cell<u32>,
}

impl Schedule {
    /// So many per second, from `start` on.
    #[must_use]
    pub fn new(start: Instant, per_second: f64) -> Self {
        Self { start, per_second: per_second.max(1e-6), next: Cell::new(0) }
    }

    /// Takes the next moment.
    pub fn take(&self) -> Instant {
        let number = self.next.get();
        self.next.set(number.saturating_add(1));
        self.start + Duration::from_secs_f64(f64::from(number) / self.per_second)
    }
}

/// From when the latency of a request counts that was due at `due` and is sent at `sent`, by somebody who
/// was `free` before and waited for that moment.
#[must_use]
pub fn counted_from(due: Instant, sent: Instant, free: bool) -> Instant {
    if free && sent.saturating_duration_since(due) <= TIMER { sent.max(due) } else { due }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn requests_are_due_at_the_rate_whatever_became_of_those_before() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 250.0);
        let due: Vec<_> = (0..4).map(|_| schedule.take() - start).collect();
        assert_eq!(due, [Duration::ZERO, 4 * MS, 8 * MS, 12 * MS]);
    }

    /// One worker, a request each millisecond, answers at once but for one that takes 100 ms: a generator
    /// that counts from the sending sees one slow request, and 99 were.
    #[test]
    fn a_server_that_stalls_is_charged_for_everybody_who_waited() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0);
        let (mut now, mut corrected, mut naive) = (start, Vec::new(), Vec::new());
        for number in 0..300 {
            let due = schedule.take();
            let free = now < due;
            let sent = now.max(due);
            let answered = sent + if number == 50 { 100 * MS } else { MS / 10 };
            corrected.push(answered - counted_from(due, sent, free));
            naive.push(answered - sent);
            now = answered;
        }
        let slow = |latencies: &[Duration]| latencies.iter().filter(|it| **it > MS).count();
        assert_eq!(slow(&naive), 1);
        assert!((105..=112).contains(&slow(&corrected)), "{}", slow(&corrected));
        let worst = corrected.iter().max().unwrap();
        assert_eq!(*worst, 100 * MS);
        // Half of the hundred milliseconds, on average, for those who were due meanwhile.
        let waited: Duration = corrected.iter().filter(|it| **it > MS).sum();
        assert!(waited > 100 * 45 * MS, "{waited:?}");
    }

    #[test]
    fn what_the_timer_is_late_is_not_charged_but_what_a_busy_machine_is_late_is() {
        let due = Instant::now();
        assert_eq!(counted_from(due, due + MS, true), due + MS);
        assert_eq!(counted_from(due, due + MS, false), due);
        assert_eq!(counted_from(due, due + 30 * MS, true), due);
        assert_eq!(counted_from(due, due, true), due);
    }
}
