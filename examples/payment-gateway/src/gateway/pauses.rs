//! The pauses between posts of a notification that nobody acknowledges.

use std::time::Duration;

use rand::TryRng as _;

/// Each twice as long as the one before it, up to the longest, and of that a random part between a half
/// and the whole, so that what failed together does not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The first one.
    pub first: Duration,
    /// The longest one.
    pub most: Duration,
}

impl Pauses {
    /// The pause when so many posts were in vain.
    #[must_use]
    pub fn after(self, posts: u32) -> Duration {
        let longer = 2_u32.saturating_pow(posts.saturating_sub(1));
        let whole = self.first.saturating_mul(longer).min(self.most);
        let mut part = [u8::MAX];
        // Without chance it is the whole.
        let _ = rand::rngs::SysRng.try_fill_bytes(&mut part);
        let [part] = part;
        whole.mul_f64(0.5 + f64::from(part) / 510.0).min(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses = Pauses { first: Duration::from_secs(1), most: Duration::from_secs(300) };
        for (posts, whole) in [(0, 1), (1, 1), (2, 2), (9, 256), (10, 300), (u32::MAX, 300)] {
            let whole = Duration::from_secs(whole);
            for _ in 0..20 {
                let pause = pauses.after(posts);
                assert!(pause >= whole / 2 && pause <= whole, "{posts}: {pause:?}");
            }
        }
    }
}
