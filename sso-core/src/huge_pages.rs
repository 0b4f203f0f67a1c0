//! Huge pages for a program with work: they make it faster, and one that idles twice as large, as most of
//! each page is never written to.
//!
//! Linux gives them out to whom asks for them, as the allocator does (`madvise(2)`, mode `madvise` or `always`
//! in `/sys/kernel/mm/transparent_hugepage/enabled`), and can be told per process to refuse
//! (`PR_SET_THP_DISABLE`, `prctl(2)`). What memory the process has by then is made of huge pages by and by.

use std::time::Duration;

use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

use crate::process::processor_time;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Who used more of a processor since the last look has work.
const BUSY: Duration = Duration::from_millis(250);

/// The process does without huge pages, until it has work.
#[derive(Debug)]
#[must_use = "without `until_busy` the process never takes huge pages"]
pub struct WithoutHugePages {
    /// Somebody decided against them before.
    told_before: bool,
}

/// Takes no huge pages from here on. Best called before much memory is taken.
pub fn do_without() -> WithoutHugePages {
    // Where it cannot be known or told, they are what they are.
    let told_before = transparent_huge_pages_are_disabled().unwrap_or(true);
    if !told_before {
        let _ = disable_transparent_huge_pages(true);
    }
    WithoutHugePages { told_before }
}

impl WithoutHugePages {
    /// Returns once the process has work, and takes huge pages from then on; or at once, where it was told
    /// before [`do_without`] to take none.
    pub async fn until_busy(self) {
        if self.told_before {
            return;
        }
        let mut before = processor_time();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = processor_time();
            if now.saturating_sub(before) > BUSY {
                break;
            }
            before = now;
        }
        let _ = disable_transparent_huge_pages(false);
        tracing::debug!("huge pages are taken from now on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_work_takes_huge_pages_again() {
        if transparent_huge_pages_are_disabled().unwrap() {
            return do_without().until_busy().await;
        }
        let without = do_without();
        assert!(transparent_huge_pages_are_disabled().unwrap());
        let work = tokio::task::spawn_blocking(|| {
            let before = processor_time();
            while processor_time().saturating_sub(before) < BUSY * 40
                && transparent_huge_pages_are_disabled().unwrap()
            {
                std::hint::spin_loop();
            }
        });
        without.until_busy().await;
        assert!(!transparent_huge_pages_are_disabled().unwrap());
        work.await.unwrap();
    }
}
