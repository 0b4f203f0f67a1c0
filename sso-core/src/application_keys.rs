//! The keys of applications, derived once for each generation and kept in locked memory: deriving one
//! again for every value would be a good part of opening it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{
    derive::derive,
    memory::{KEY_BYTES, KeyPages, LockedKey, PagedKey},
};

/// What the keys of applications are for.
const PURPOSE: &str = "seal";
/// Applications whose keys are kept, for each generation: 128 KiB of locked memory. Those of others are
/// derived for every value.
const MOST: usize = 4096;

/// The keys that one generation gives to applications. They go when the generation goes.
#[derive(Default)]
pub(crate) struct ApplicationKeys {
    /// By the id of the application; read without a lock.
    kept: ArcSwap<HashMap<Box<[u8]>, Arc<PagedKey>>>,
    pages: Mutex<KeyPages>,
}

impl ApplicationKeys {
    /// What `work` makes of the key that `key`, the generation's own, gives to `application`.
    pub(crate) fn with<T>(
        &self,
        key: &LockedKey,
        application: &[u8],
        work: impl FnOnce(&[u8; KEY_BYTES]) -> T,
    ) -> T {
        let kept = self.kept.load();
        if let Some(kept) = kept.get(application) {
            return work(kept.expose());
        }
        let is_full = kept.len() >= MOST;
        drop(kept);
        let derived = derive(key, PURPOSE, &[application]);
        // Expose: to be copied into locked memory.
        if !is_full {
            self.keep(application, derived.expose());
        }
        work(derived.expose())
    }

    fn keep(&self, application: &[u8], key: &[u8; KEY_BYTES]) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.kept.load();
        if kept.contains_key(application) || kept.len() >= MOST {
            return;
        }
        // Without locked memory it is derived every time.
        let Ok(paged) = pages.add(key) else { return };
        let mut more = HashMap::clone(&kept);
        more.insert(application.into(), Arc::new(paged));
        self.kept.store(Arc::new(more));
    }
}

impl fmt::Debug for ApplicationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationKeys").field("kept", &self.kept.load().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(keys: &ApplicationKeys, generation: &LockedKey, application: &[u8]) -> [u8; 32] {
        keys.with(generation, application, |key| *key)
    }

    #[test]
    fn kept_keys_are_the_derived_ones() {
        let generation = LockedKey::from_bytes(&[1; 32]).unwrap();
        let keys = ApplicationKeys::default();
        for application in [&b""[..], b"a", b"b", &[7; 16]] {
            let derived = derive(&generation, PURPOSE, &[application]);
            for _ in 0..2 {
                assert_eq!(key_of(&keys, &generation, application), *derived.expose());
            }
        }
        assert_eq!(format!("{keys:?}"), "ApplicationKeys { kept: 4 }");
    }

    #[test]
    fn more_applications_than_are_kept_get_their_keys_all_the_same() {
        let generation = LockedKey::from_bytes(&[1; 32]).unwrap();
        let keys = ApplicationKeys::default();
        for number in 0..MOST + 3 {
            let application = number.to_be_bytes();
            let derived = derive(&generation, PURPOSE, &[&application]);
            assert_eq!(key_of(&keys, &generation, &application), *derived.expose());
        }
        assert_eq!(keys.kept.load().len(), MOST);
    }

    #[test]
    fn threads_that_come_together_agree() {
        let generation = LockedKey::from_bytes(&[1; 32]).unwrap();
        let keys = ApplicationKeys::default();
        let all: Vec<Vec<[u8; 32]>> = std::thread::scope(|scope| {
            let read = || (0..200_u32).map(|n| key_of(&keys, &generation, &n.to_be_bytes()));
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(move || read().collect::<Vec<_>>())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
        assert_eq!(keys.kept.load().len(), 200);
    }
}
