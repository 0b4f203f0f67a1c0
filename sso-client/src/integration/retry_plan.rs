//! When a message that was not delivered is sent again.

use std::time::Duration;

/// Pauses between attempts at one message: each is `factor` times the one before it, up to `most`,
/// and of that a random part between a half and the whole, so that what failed together does not
/// come back together. BizTalk's retry count and retry interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// The pause after the first attempt, before chance shortens it.
    pub first: Duration,
    /// How many times longer each further pause is; 1 = all the same.
    pub factor: u32,
    /// No pause is longer.
    pub most: Duration,
    /// Attempts in all, the first included; `None` = until it works.
    pub attempts: Option<u32>,
}

impl RetryPlan {
    /// The pause before the next attempt when `made` attempts have failed; `None` when there are no
    /// more. The number can be kept with the message, over restarts.
    #[must_use]
    pub fn pause(&self, made: u32) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| made >= attempts) {
            return None;
        }
        let longer = self.factor.max(1).saturating_pow(made.saturating_sub(1));
        let whole = self.first.saturating_mul(longer).min(self.most);
        Some(whole.mul_f64(rand::random_range(0.5..=1.0)).min(whole))
    }
}

/// 1 s, doubled up to 5 minutes, until it works.
impl Default for RetryPlan {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 2,
            most: Duration::from_secs(300),
            attempts: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_vary_and_stay_bounded() {
        let plan = RetryPlan::default();
        for (made, whole) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (1000, 300)] {
            let whole = Duration::from_secs(whole);
            let pauses: Vec<_> = (0..50).map(|_| plan.pause(made).unwrap()).collect();
            assert!(pauses.iter().all(|pause| *pause >= whole / 2 && *pause <= whole), "{made}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{made}: no jitter");
        }
        assert!(plan.pause(u32::MAX).is_some());
    }

    #[test]
    fn attempts_end() {
        let plan = RetryPlan { attempts: Some(3), factor: 0, ..RetryPlan::default() };
        assert!(plan.pause(0).is_some());
        assert!(plan.pause(2).is_some());
        assert_eq!(plan.pause(3), None);
        assert_eq!(plan.pause(4), None);
    }
}
