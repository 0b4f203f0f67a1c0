//! The generations of the master secret that a process holds.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, sync::Arc};

use crate::{application_keys::ApplicationKeys, derive::Fingerprint, memory::LockedKey};

/// The number of a generation of the master secret, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU32);

impl Generation {
    /// The generation that every keystore begins with.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The generation of this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why these keys make no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// A generation is there twice.
    #[error("generation {0} is there twice")]
    Twice(Generation),
    /// The active generation is not among the keys.
    #[error("the active generation {0} is not among the keys")]
    ActiveMissing(Generation),
}

/// Every generation in use, one of them active: the active one seals, any of them opens.
/// A clone shares the keys.
#[derive(Clone)]
pub struct KeyRing {
    held: BTreeMap<Generation, Held>,
    active: Generation,
    active_key: Held,
}

#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) key: Arc<LockedKey>,
    pub(crate) fingerprint: Fingerprint,
    /// What it gives to applications.
    pub(crate) applications: Arc<ApplicationKeys>,
}

impl KeyRing {
    /// The ring of these keys.
    ///
    /// # Errors
    /// When a generation is there twice, or the active one is not there.
    pub fn new(
        keys: impl IntoIterator<Item = (Generation, LockedKey)>,
        active: Generation,
    ) -> Result<Self, KeyRingError> {
        let mut held = BTreeMap::new();
        for (generation, key) in keys {
            let fingerprint = Fingerprint::of(&key);
            if held
                .insert(
                    generation,
                    Held { key: Arc::new(key), fingerprint, applications: Arc::default() },
                )
                .is_some()
            {
                return Err(KeyRingError::Twice(generation));
            }
        }
        let active_key = held.get(&active).cloned().ok_or(KeyRingError::ActiveMissing(active))?;
        Ok(Self { held, active, active_key })
    }

    /// The ring of those generations that are to be kept; it shares their keys.
    ///
    /// # Errors
    /// When the active one is not among them.
    pub fn only(&self, keep: impl Fn(Generation) -> bool) -> Result<Self, KeyRingError> {
        if !keep(self.active) {
            return Err(KeyRingError::ActiveMissing(self.active));
        }
        let mut kept = self.clone();
        kept.held.retain(|generation, _| keep(*generation));
        Ok(kept)
    }

    /// The same keys with another generation active; it shares them.
    ///
    /// # Errors
    /// When it is not among them.
    pub fn with_active(&self, active: Generation) -> Result<Self, KeyRingError> {
        let active_key =
            self.held.get(&active).cloned().ok_or(KeyRingError::ActiveMissing(active))?;
        Ok(Self { held: self.held.clone(), active, active_key })
    }

    /// The newest generation held.
    #[must_use]
    pub fn newest(&self) -> Generation {
        self.held.keys().next_back().copied().unwrap_or(self.active)
    }

    /// The generation that seals.
    #[must_use]
    pub fn active(&self) -> Generation {
        self.active
    }

    /// Every generation held with its fingerprint, in ascending order.
    pub fn generations(&self) -> impl Iterator<Item = (Generation, Fingerprint)> + '_ {
        self.held.iter().map(|(generation, held)| (*generation, held.fingerprint))
    }

    /// The fingerprint of a generation; `None` when it is not held.
    #[must_use]
    pub fn fingerprint(&self, generation: Generation) -> Option<Fingerprint> {
        self.held.get(&generation).map(|held| held.fingerprint)
    }

    /// The fingerprint of the active generation.
    #[must_use]
    pub fn active_fingerprint(&self) -> Fingerprint {
        self.active_key.fingerprint
    }

    /// Whether a generation is held.
    #[must_use]
    pub fn contains(&self, generation: Generation) -> bool {
        self.held.contains_key(&generation)
    }

    /// The key of a generation, for the master that hands it out; `None` when it is not held.
    #[must_use]
    pub fn key(&self, generation: Generation) -> Option<&LockedKey> {
        self.held.get(&generation).map(|held| &*held.key)
    }

    pub(crate) fn held(&self, generation: Generation) -> Option<&Held> {
        self.held.get(&generation)
    }

    pub(crate) fn active_key(&self) -> &Held {
        &self.active_key
    }
}

/// Equal when the same generations have the same keys and the same one is active.
impl PartialEq for KeyRing {
    fn eq(&self, other: &Self) -> bool {
        self.active == other.active
            && self.held.len() == other.held.len()
            && self
                .held
                .iter()
                .zip(&other.held)
                .all(|(one, other)| one.0 == other.0 && one.1.key == other.1.key)
    }
}

impl Eq for KeyRing {}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("active", &self.active.number())
            .field("generations", &Listed(&self.generations().collect::<Vec<_>>()).to_string())
            .finish_non_exhaustive()
    }
}

/// Shows generations as "1 (fingerprint 9f2c…), 2 (fingerprint 04be…)".
pub(crate) struct Listed<'a>(pub(crate) &'a [(Generation, Fingerprint)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, (generation, fingerprint)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{generation} (fingerprint {fingerprint})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> LockedKey {
        LockedKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn generation(number: u32) -> Generation {
        Generation::new(number).unwrap()
    }

    #[test]
    fn generations_begin_with_one() {
        assert_eq!(Generation::new(0), None);
        assert_eq!(Generation::FIRST.number(), 1);
        assert_eq!(generation(7).to_string(), "7");
        assert!(generation(2) < generation(10));
    }

    #[test]
    fn a_ring_tells_what_it_holds_but_shows_no_key() {
        let ring = KeyRing::new([(generation(3), key(3)), (generation(1), key(1))], generation(3))
            .unwrap();
        assert_eq!(ring.active(), generation(3));
        assert_eq!(ring.active_fingerprint(), Fingerprint::of(&key(3)));
        let numbers: Vec<_> =
            ring.generations().map(|(generation, _)| generation.number()).collect();
        assert_eq!(numbers, [1, 3]);
        assert!(ring.contains(generation(1)) && !ring.contains(generation(2)));
        assert_eq!(ring.fingerprint(generation(2)), None);
        assert_eq!(ring.key(generation(1)), Some(&key(1)));
        let shown = format!("{ring:?}");
        assert!(shown.contains(&Fingerprint::of(&key(1)).to_string()), "{shown}");
        assert!(!shown.contains("[3, 3"), "{shown}");
    }

    #[test]
    fn rings_are_equal_by_generations_keys_and_active() {
        let ring = |byte, active| {
            KeyRing::new([(generation(1), key(1)), (generation(2), key(byte))], generation(active))
        };
        assert_eq!(ring(2, 2), ring(2, 2));
        assert_ne!(ring(2, 2), ring(2, 1));
        assert_ne!(ring(2, 2), ring(9, 2));
        assert_ne!(
            ring(2, 1).unwrap(),
            KeyRing::new([(generation(1), key(1))], generation(1)).unwrap()
        );
    }

    #[test]
    fn a_part_of_a_ring_shares_its_keys_and_has_the_active_one() {
        let ring = KeyRing::new([(generation(3), key(3)), (generation(1), key(1))], generation(3))
            .unwrap();
        let part = ring.only(|generation| generation.number() > 1).unwrap();
        assert_eq!(part.generations().count(), 1);
        assert!(std::ptr::eq(part.key(generation(3)).unwrap(), ring.key(generation(3)).unwrap()));
        assert_eq!(
            ring.only(|generation| generation.number() == 1).unwrap_err(),
            KeyRingError::ActiveMissing(generation(3))
        );
    }

    #[test]
    fn a_ring_needs_its_active_generation_and_each_once() {
        assert_eq!(
            KeyRing::new([], generation(1)).unwrap_err(),
            KeyRingError::ActiveMissing(generation(1))
        );
        assert_eq!(
            KeyRing::new([(generation(1), key(1)), (generation(1), key(2))], generation(1))
                .unwrap_err(),
            KeyRingError::Twice(generation(1))
        );
    }
}
