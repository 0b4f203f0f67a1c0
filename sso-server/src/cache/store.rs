//! Values by hash, bounded by their weight. Whoever finds one looks whether it is what was asked for.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
};

use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Bytes that a value takes.
pub(crate) trait Weigh: Clone {
    fn weight(&self) -> u64;
}

/// Values by hash. A look-up takes the lock of a part for reading and moves nothing. What is looked up
/// often stays; when the bound is reached the others go.
pub(crate) struct Store<V: Weigh> {
    /// The key of the hashes is drawn at each start, so that nobody can make names meet.
    keyed: RandomState,
    entries: Cache<u64, V, Scales, Already>,
}

#[derive(Clone)]
struct Scales;

impl<V: Weigh> Weighter<u64, V> for Scales {
    fn weight(&self, _: &u64, value: &V) -> u64 {
        value.weight()
    }
}

/// The keys are hashes already.
#[derive(Clone, Default)]
struct Already(u64);

impl BuildHasher for Already {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<V: Weigh> Store<V> {
    /// At most of this weight, of values that weigh about `each`.
    pub(crate) fn new(bound: u64, each: u64) -> Self {
        let about = usize::try_from(bound / each.max(1)).unwrap_or(usize::MAX);
        let entries =
            Cache::with(about, bound, Scales, Already::default(), DefaultLifecycle::default());
        Self { keyed: RandomState::new(), entries }
    }

    /// The hash of a name.
    pub(crate) fn hash(&self, name: impl std::hash::Hash) -> u64 {
        self.keyed.hash_one(name)
    }

    pub(crate) fn find(&self, hash: u64) -> Option<V> {
        self.entries.get(&hash)
    }

    pub(crate) fn keep(&self, hash: u64, value: V) {
        self.entries.insert(hash, value);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// What they weigh.
    pub(crate) fn weight(&self) -> u64 {
        self.entries.weight()
    }
}

impl<V: Weigh> fmt::Debug for Store<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("count", &self.count()).finish_non_exhaustive()
    }
}
