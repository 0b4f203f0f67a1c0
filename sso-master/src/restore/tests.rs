use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    sync::Mutex,
};

use sso_core::{exit::Exit, key_ring::KeyRing, secret::SecretText};
use sso_protector::{KeyFile, KeyFileSource, Kind, ProtectorError, RingStanza, Stanza, unlock};
use time::macros::datetime;

use super::*;
use crate::{
    backup::{BackupError, Locks},
    custody::Custody,
};

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
const KEYSTORE: Uuid = Uuid::from_u128(7);

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

/// Generations 1 to `last`, the last one active.
fn ring(last: u8) -> KeyRing {
    let keys = (1..=last).map(|byte| (generation(byte.into()), key(byte)));
    KeyRing::new(keys, generation(last.into())).unwrap()
}

/// Opens by shares, which costs nothing.
fn backup_of(keystore: Uuid, ring: &KeyRing) -> (Backup, Opener) {
    let locks = Locks { shares: Some((2, 2)), ..Locks::default() };
    let (backup, shares) = Backup::seal(keystore, 4, ring, &locks, NOW).unwrap();
    (backup, Opener::Shares(shares))
}

fn backup() -> (Backup, Opener) {
    backup_of(KEYSTORE, &ring(2))
}

struct Host {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("key");
        sso_core::settings::write_private(&key_file, &[3; 32], false).unwrap();
        Self { folder, clock: Clock::manual(NOW) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keystore.json")
    }

    fn protectors(&self) -> Vec<Box<dyn Protector>> {
        let file = Some(self.folder.path().join("key"));
        vec![Box::new(KeyFile::new(KeyFileSource { file, credential: None }))]
    }

    fn restore(&self, from: &(Backup, Opener), set_aside: bool) -> Result<Restored, MasterError> {
        let (backup, opener) = from;
        restore(&self.path(), &self.protectors(), backup, opener, set_aside, &self.clock)
    }

    /// A keystore of another life: generation 1 has another key than in a backup.
    fn make_keystore(&self, id: Uuid, first: &LockedKey) -> (Keystore, LockedKey) {
        let keystore_key = LockedKey::generate().unwrap();
        let stanza = self.protectors()[0].wrap(id, &keystore_key).unwrap();
        let keystore =
            Keystore::create(id, Uuid::new_v4(), first, &keystore_key, vec![stanza], NOW).unwrap();
        keystore.write_new(&self.path()).unwrap();
        (keystore, keystore_key)
    }

    /// Everything in the folder.
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap());
        entries
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn opened(&self) -> (Keystore, KeyRing) {
        let keystore = Keystore::read(&self.path()).unwrap();
        let key = unlock(&self.protectors(), keystore.id(), keystore.stanzas()).unwrap();
        let ring = keystore.open(&key).unwrap();
        (keystore, ring)
    }

    /// Refused, and nothing in the folder is another.
    fn refused(&self, from: &(Backup, Opener), set_aside: bool) -> MasterError {
        let before = self.contents();
        let error = self.restore(from, set_aside).unwrap_err();
        assert_eq!(self.contents(), before, "{error}");
        error
    }
}

#[test]
fn a_new_host_gets_a_whole_keystore_of_the_next_epoch() {
    let host = Host::new();
    let restored = host.restore(&backup(), false).unwrap();
    let (keystore, opened) = host.opened();
    assert_eq!(opened, ring(2));
    assert_eq!((restored.epoch, keystore.epoch(), restored.keystore), (5, 5, KEYSTORE));
    assert_eq!((restored.active, restored.kept_aside), (generation(2), None));
    assert!(keystore.is_primary());
    assert_ne!(keystore.member(), KEYSTORE);
    let states: Vec<_> = keystore.generations().iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Draining, State::Active]);
    assert!(keystore.generations().iter().all(|it| it.backed_up.is_some()));
    assert_eq!(std::fs::metadata(host.path()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(host.contents().len(), 2, "keystore and key file");
}

#[test]
fn a_keystore_whose_protectors_are_lost_is_kept_aside() {
    let host = Host::new();
    let (old, _) = host.make_keystore(KEYSTORE, &key(1));
    let before = std::fs::read(host.path()).unwrap();
    let restored = host.restore(&backup(), false).unwrap();
    let aside = restored.kept_aside.unwrap();
    assert!(aside.to_str().unwrap().ends_with("keystore.json.aside-20300102T030405Z"));
    assert_eq!(std::fs::read(&aside).unwrap(), before);
    let (keystore, opened) = host.opened();
    assert_eq!(opened, ring(2));
    assert_ne!(keystore.member(), old.member());
    // Once more within the second: nothing that was kept is lost.
    let again = host.restore(&backup(), false).unwrap();
    assert_eq!(again.epoch, 6, "above the epoch of the keystore that was there");
    assert!(again.kept_aside.unwrap().to_str().unwrap().ends_with("Z-1"));
    assert_eq!(std::fs::read(&aside).unwrap(), before);
}

#[test]
fn a_newer_keystore_is_never_restored_over() {
    let host = Host::new();
    let (_, keystore_key) = host.make_keystore(KEYSTORE, &key(1));
    let custody = Custody::begin(&host.path(), keystore_key, host.clock.clone()).unwrap();
    custody.change(|draft| draft.prepare(NOW, 2)).unwrap();
    drop(custody);
    for set_aside in [false, true] {
        let error = host.refused(&backup(), set_aside);
        assert!(matches!(error, MasterError::Restore(RestoreError::Newer { .. })), "{error}");
        assert!(error.to_string().contains("generation 3 (fingerprint"), "{error}");
        assert_eq!(error.exit(), Exit::Refused);
    }
    // The same number with another key is lost as well.
    let diverged = Host::new();
    diverged.make_keystore(KEYSTORE, &key(9));
    let error = diverged.refused(&backup(), true).to_string();
    assert!(error.contains("generation 1 (fingerprint"), "{error}");
}

#[test]
fn a_running_master_keeps_its_keystore() {
    let host = Host::new();
    let (_, keystore_key) = host.make_keystore(KEYSTORE, &key(1));
    let _custody = Custody::begin(&host.path(), keystore_key, host.clock.clone()).unwrap();
    let error = host.refused(&backup(), true);
    assert!(matches!(error, MasterError::Keystore(KeystoreError::Held { .. })), "{error}");
    assert_eq!(error.exit(), Exit::Refused);
}

#[test]
fn a_foreign_keystore_is_set_aside_only_on_purpose() {
    let host = Host::new();
    host.make_keystore(Uuid::from_u128(1), &key(1));
    let error = host.refused(&backup(), false);
    assert!(matches!(error, MasterError::Restore(RestoreError::Foreign { .. })), "{error}");
    assert!(error.to_string().contains("--set-aside"), "{error}");
    let before = std::fs::read(host.path()).unwrap();
    let aside = host.restore(&backup(), true).unwrap().kept_aside.unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), before);
    assert_eq!(host.opened().1, ring(2));
}

#[test]
fn a_damaged_keystore_is_set_aside_only_on_purpose() {
    let host = Host::new();
    host.make_keystore(KEYSTORE, &key(1));
    let whole = std::fs::read(host.path()).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"hello"] {
        std::fs::write(host.path(), damaged).unwrap();
        let error = host.refused(&backup(), false);
        assert!(matches!(error, MasterError::Restore(RestoreError::Unusable(_))), "{error}");
        assert!(error.to_string().contains("--set-aside"), "{error}");
        let aside = host.restore(&backup(), true).unwrap().kept_aside.unwrap();
        assert_eq!(std::fs::read(aside).unwrap(), damaged);
        assert_eq!(host.opened().1, ring(2));
    }
    std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = host.refused(&backup(), false).to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn what_does_not_open_replaces_nothing() {
    let password = |text: &str| Opener::Password(SecretText::new(text.to_owned()));
    let locks = Locks::password(SecretText::new("correct horse".into()), "which animal?");
    let (locked, _) = Backup::seal_with(
        sso_core::passphrase::Argon2Params::FLOOR,
        KEYSTORE,
        1,
        &ring(2),
        &locks,
        NOW,
    )
    .unwrap();
    let (_, foreign_shares) = backup();
    for existing in [false, true] {
        let host = Host::new();
        if existing {
            host.make_keystore(KEYSTORE, &key(1));
        }
        let error = host.refused(&(locked.clone(), password("correct house")), true);
        assert!(error.to_string().contains("wrong password; its reminder is: which animal?"));
        assert_eq!(error.exit(), Exit::Denied);
        let (shared, Opener::Shares(shares)) = backup() else { panic!() };
        let few = Opener::Shares(shares[..1].to_vec());
        let error = host.refused(&(shared.clone(), few), true);
        assert!(error.to_string().contains("2 different shares are needed"), "{error}");
        let Opener::Shares(others) = &foreign_shares else { panic!() };
        let error = host.refused(&(shared, Opener::Shares(others.clone())), true);
        assert!(error.to_string().contains("another backup of this system"), "{error}");
    }
    // Cut and edited files do not even parse; edited ones with a checksum that fits do not open: see
    // the tests of backups.
    let cut = &locked.to_text()[..200];
    assert!(Backup::parse(cut.as_bytes()).is_err());
    let error = BackupError::from(Backup::parse(cut.as_bytes()).unwrap_err()).to_string();
    assert!(error.contains("use another copy of the file"), "{error}");
}

#[test]
fn a_disk_that_cannot_be_written_changes_nothing() {
    let host = Host::new();
    host.make_keystore(KEYSTORE, &key(1));
    // In the way of the new file; as good as a full disk, and stops root too.
    std::fs::create_dir(host.folder.path().join("keystore.json.new")).unwrap();
    let error = host.refused(&backup(), false);
    assert!(error.to_string().contains("cannot be written"), "{error}");
    assert_eq!(error.exit(), Exit::Unavailable);
    let nowhere = host.folder.path().join("nowhere/keystore.json");
    let (backup, opener) = backup();
    let error = restore(&nowhere, &host.protectors(), &backup, &opener, false, &host.clock);
    assert_eq!(error.unwrap_err().exit(), Exit::Unavailable);
}

/// A keyring with one entry for each keystore.
#[derive(Default)]
struct Keyring {
    entry: Mutex<Option<LockedKey>>,
}

impl Protector for &'static Keyring {
    fn kind(&self) -> Kind {
        Kind::Keyutils
    }

    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
        self.put_back(keystore, key)?;
        Ok(Stanza::Keyutils(RingStanza::new(keystore, key)))
    }

    fn unwrap(&self, _: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
        let entry = self.entry.lock().unwrap();
        let held = entry.as_ref().filter(|_| stanza.kind() == Kind::Keyutils);
        Ok(held.map(|key| LockedKey::from_bytes(key.expose()).unwrap()))
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

#[test]
fn the_old_keystore_still_unlocks_from_a_keyring_after_a_failure() {
    let keyring: &'static Keyring = Box::leak(Box::default());
    let protectors: Vec<Box<dyn Protector>> = vec![Box::new(keyring)];
    let host = Host::new();
    let (backup, opener) = backup();
    let keystore_key = key(8);
    let stanza = keyring.wrap(KEYSTORE, &keystore_key).unwrap();
    let member = Uuid::new_v4();
    let old =
        Keystore::create(KEYSTORE, member, &key(1), &keystore_key, vec![stanza], NOW).unwrap();
    old.write_new(&host.path()).unwrap();
    let blocked = host.folder.path().join("keystore.json.new");
    std::fs::create_dir(&blocked).unwrap();
    restore(&host.path(), &protectors, &backup, &opener, false, &host.clock).unwrap_err();
    assert_eq!(keyring.entry.lock().unwrap().as_ref(), Some(&keystore_key));
    let key = unlock(&protectors, KEYSTORE, old.stanzas()).unwrap();
    assert!(Keystore::read(&host.path()).unwrap().open(&key).is_ok());

    std::fs::remove_dir(&blocked).unwrap();
    restore(&host.path(), &protectors, &backup, &opener, false, &host.clock).unwrap();
    assert_ne!(keyring.entry.lock().unwrap().as_ref(), Some(&keystore_key));
    let fresh = Host::new();
    let nowhere = fresh.folder.path().join("keystore.json");
    let wrong = Opener::Shares(Vec::new());
    restore(&nowhere, &protectors, &backup, &wrong, false, &host.clock).unwrap_err();
    assert!(
        keyring.entry.lock().unwrap().is_some(),
        "nothing was wrapped, so nothing is forgotten"
    );
}
