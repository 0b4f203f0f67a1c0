//! Locking a keystore that is being made: its key under every protector of the settings, each of which
//! then has to open it alone.
//!
//! ```text
//! wrap_all ─► make the keystore ─► prove ─► write it ─► keep
//!     └──────────────┴── dropped before: protectors have what they had ──┘
//! ```

use std::path::Path;

use sso_core::{key_ring::KeyRing, memory::LockedKey};
use sso_protector::{Kind, Protector, ProtectorError, Stanza, unlock};
use uuid::Uuid;

use crate::{
    error::MasterError,
    file::may_exist,
    keystore::{Keystore, KeystoreError},
};

/// Protectors that keep the keystore key outside the file, under the id of the keystore.
const KEYRINGS: [Kind; 2] = [Kind::SecretService, Kind::Keyutils];

/// A keystore was made that one of its protectors does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the new keystore does not open again; nothing was changed. Check disk and protector")]
pub struct NotProved;

/// What protectors are given to keep for a keystore that is being made. Dropped before [`Given::keep`],
/// it is taken back.
pub(crate) struct Given<'a> {
    keystore: Uuid,
    protectors: &'a [Box<dyn Protector>],
    /// Where nothing was before: a keystore that is there in the end may need what was given.
    place: Option<&'a Path>,
    /// What each of them kept for the keystore of before.
    before: Vec<Option<LockedKey>>,
    /// Places of those that were given something.
    given: Vec<usize>,
}

impl<'a> Given<'a> {
    /// For the keystore `keystore`, where `place` is free.
    pub(crate) fn for_new(
        keystore: Uuid,
        protectors: &'a [Box<dyn Protector>],
        place: &'a Path,
    ) -> Self {
        let mut given = Self::for_another(keystore, protectors);
        given.place = Some(place);
        given
    }

    /// For a keystore that takes the place of something else.
    pub(crate) fn for_another(keystore: Uuid, protectors: &'a [Box<dyn Protector>]) -> Self {
        Self { keystore, protectors, place: None, before: Vec::new(), given: Vec::new() }
    }

    /// For a keystore that takes the place of `old`, which has the same id: what keyrings keep for that
    /// one is remembered, and nobody is asked for a passphrase.
    pub(crate) fn for_successor(old: &Keystore, protectors: &'a [Box<dyn Protector>]) -> Self {
        let held = |protector: &dyn Protector| {
            if !KEYRINGS.contains(&protector.kind()) {
                return None;
            }
            let mut own = old.stanzas().iter().filter(|stanza| protector.covers(stanza));
            own.find_map(|stanza| protector.unwrap(old.id(), stanza).ok().flatten())
        };
        let mut given = Self::for_another(old.id(), protectors);
        given.before = protectors.iter().map(|it| held(it.as_ref())).collect();
        given
    }

    /// The stanzas of all protectors, in the order in which they are tried. The last one is given the
    /// key first: it is the passphrase, and a keyring is given nothing to keep until one was entered.
    pub(crate) fn wrap_all(&mut self, key: &LockedKey) -> Result<Vec<Stanza>, ProtectorError> {
        let mut stanzas = Vec::new();
        for (at, protector) in self.protectors.iter().enumerate().rev() {
            self.given.push(at);
            stanzas.push(protector.wrap(self.keystore, key)?);
        }
        stanzas.reverse();
        Ok(stanzas)
    }

    /// The keystore is there, and needs all of it.
    pub(crate) fn keep(mut self) {
        self.given.clear();
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        if self.given.is_empty() {
            return;
        }
        if let Some(place) = self.place.filter(|place| may_exist(place)) {
            let keystore = place.display();
            tracing::warn!(%keystore, "there is a keystore: what protectors keep for it stays");
            return;
        }
        for (at, protector) in self.protectors.iter().enumerate() {
            if !self.given.contains(&at) {
                continue;
            }
            let undone = match self.before.get(at).and_then(Option::as_ref) {
                Some(key) => protector.put_back(self.keystore, key),
                None => protector.forget(self.keystore),
            };
            if let Err(error) = undone {
                tracing::warn!(%error, "a keyring may hold a key of a keystore that was not made");
            }
        }
    }
}

/// Reads the text as the next start will, and opens it with every protector alone: each has to give
/// the keys of `ring`.
pub(crate) fn prove(
    keystore: &Keystore,
    protectors: &[Box<dyn Protector>],
    ring: &KeyRing,
) -> Result<(), MasterError> {
    let again = Keystore::parse(keystore.to_text().as_bytes()).map_err(KeystoreError::from)?;
    for protector in protectors {
        let protector = std::slice::from_ref(protector);
        if again.open(&unlock(protector, again.id(), again.stanzas())?)? != *ring {
            return Err(NotProved.into());
        }
    }
    if protectors.is_empty() { Err(NotProved.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sso_protector::RingStanza;
    use time::OffsetDateTime;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn key(byte: u8) -> LockedKey {
        LockedKey::from_bytes(&[byte; 32]).unwrap()
    }

    /// A keyring with one entry, which can be unable to take another.
    #[derive(Default)]
    struct Keyring {
        entry: Mutex<Option<LockedKey>>,
        full: bool,
    }

    impl Keyring {
        fn new(held: Option<u8>, full: bool) -> &'static Self {
            Box::leak(Box::new(Self { entry: Mutex::new(held.map(key)), full }))
        }

        fn held(&self) -> Option<LockedKey> {
            let entry = self.entry.lock().unwrap();
            entry.as_ref().map(|key| LockedKey::from_bytes(key.expose()).unwrap())
        }
    }

    impl Protector for &'static Keyring {
        fn kind(&self) -> Kind {
            Kind::Keyutils
        }

        fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
            if self.full {
                let kind = Kind::Keyutils;
                return Err(ProtectorError::EntryMissing { kind, keystore, advice: "" });
            }
            self.put_back(keystore, key)?;
            Ok(Stanza::Keyutils(RingStanza::new(keystore, key)))
        }

        fn unwrap(&self, _: Uuid, _: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
            Ok(self.held())
        }

        fn put_back(&self, _: Uuid, key: &LockedKey) -> Result<(), ProtectorError> {
            *self.entry.lock().unwrap() = Some(LockedKey::from_bytes(key.expose()).unwrap());
            Ok(())
        }

        fn forget(&self, _: Uuid) -> Result<(), ProtectorError> {
            self.entry.lock().unwrap().take();
            Ok(())
        }
    }

    fn boxed(keyrings: &[&'static Keyring]) -> Vec<Box<dyn Protector>> {
        keyrings.iter().map(|&it| Box::new(it) as Box<dyn Protector>).collect()
    }

    fn made(stanzas: Vec<Stanza>) -> Keystore {
        let now = OffsetDateTime::UNIX_EPOCH;
        Keystore::create(ID, Uuid::from_u128(8), &key(1), &key(2), stanzas, now).unwrap()
    }

    #[test]
    fn what_fails_half_way_is_taken_back_where_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("keystore.json");
        let (last, full, first) =
            (Keyring::new(None, false), Keyring::new(Some(5), true), Keyring::new(Some(6), false));
        let protectors = boxed(&[first, full, last]);
        let mut given = Given::for_new(ID, &protectors, &place);
        assert!(given.wrap_all(&key(2)).is_err());
        assert_eq!(last.held(), Some(key(2)));
        drop(given);
        // The first one was never asked.
        assert_eq!((last.held(), first.held()), (None, Some(key(6))));
    }

    #[test]
    fn what_a_keystore_may_need_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("keystore.json");
        let keyring = Keyring::new(None, false);
        let protectors = boxed(&[keyring]);
        let wrapped = || {
            let mut given = Given::for_new(ID, &protectors, &place);
            given.wrap_all(&key(2)).unwrap();
            given
        };
        std::fs::write(&place, "keystore").unwrap();
        drop(wrapped());
        assert_eq!(keyring.held(), Some(key(2)));
        std::fs::remove_file(&place).unwrap();
        drop(wrapped());
        assert_eq!(keyring.held(), None);
        wrapped().keep();
        assert_eq!(keyring.held(), Some(key(2)));
    }

    #[test]
    fn the_key_of_before_comes_back() {
        let keyring = Keyring::new(Some(4), false);
        let old = made(vec![Stanza::Keyutils(RingStanza::new(ID, &key(4)))]);
        let protectors = boxed(&[keyring]);
        let mut given = Given::for_successor(&old, &protectors);
        given.wrap_all(&key(2)).unwrap();
        assert_eq!(keyring.held(), Some(key(2)));
        drop(given);
        assert_eq!(keyring.held(), Some(key(4)));
    }

    #[test]
    fn each_protector_has_to_give_the_same_keys() {
        let (good, bad) = (Keyring::new(None, false), Keyring::new(None, false));
        let protectors = boxed(&[good, bad]);
        let mut given = Given::for_another(ID, &protectors);
        let keystore = made(given.wrap_all(&key(2)).unwrap());
        let ring = keystore.open(&key(2)).unwrap();
        prove(&keystore, &protectors, &ring).unwrap();
        bad.put_back(ID, &key(3)).unwrap();
        prove(&keystore, &protectors, &ring).unwrap_err();
        let nobody = prove(&keystore, &[], &ring).unwrap_err();
        assert!(matches!(nobody, MasterError::NotProved(NotProved)), "{nobody}");
        given.keep();
    }
}
