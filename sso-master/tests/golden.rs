//! Keystores and backups of every version open for ever.
//!
//! The passphrase of every keystore in `golden/` is "correct horse", the password of every backup is
//! "battery staple". No file there is ever made again.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    secret::SecretText,
};
use sso_master::{
    backup::{Backup, Locks, Opener},
    custody::Unlocked,
    keystore::{Keystore, State},
};
use sso_protector::{Passphrase, PassphraseSource, Protector, unlock};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2031-01-02 03:04:05 UTC);
const SYSTEM: Uuid = Uuid::from_u128(0x0001_e000_0000_4000_8000_0000_0000_0001);

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn password() -> SecretText {
    SecretText::new("battery staple".into())
}

/// The keystore key that its passphrase gives back.
fn keystore_key(keystore: &Keystore) -> LockedKey {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "correct horse").unwrap();
    let source = PassphraseSource::File(file.path().to_owned());
    let protectors: [Box<dyn Protector>; 1] = [Box::new(Passphrase::new(source))];
    unlock(&protectors, keystore.id(), keystore.stanzas()).unwrap()
}

#[test]
fn a_keystore_of_version_1_opens_and_becomes_version_2_at_its_first_change() {
    let text = golden("keystore-v1.json");
    let keystore = Keystore::parse(&text).unwrap();
    let own = keystore_key(&keystore);
    assert_eq!(own, key(0x22));
    let ring = keystore.open(&own).unwrap();
    assert_eq!(ring.key(generation(1)), Some(&key(0x11)));
    assert_eq!((keystore.id(), keystore.member(), keystore.primary()), (SYSTEM, SYSTEM, SYSTEM));
    assert_eq!((keystore.epoch(), keystore.change()), (1, 1));
    let first = &keystore.generations()[0];
    assert_eq!(first.state, State::Active);
    assert_eq!(first.activated, Some(datetime!(2030-01-02 03:04:05 UTC)));
    assert_eq!(first.backed_up, first.activated);
    // Whoever only reads it, or adds a protector, leaves its version.
    assert_eq!(keystore.to_text().as_bytes(), text);
    let more = [keystore.stanzas(), keystore.stanzas()].concat();
    let more = keystore.with_stanzas(more).unwrap();
    assert!(Keystore::parse(more.to_text().as_bytes()).unwrap().open(&own).is_ok());
    assert!(more.to_text().contains("\"version\": 1"));

    let changed = keystore.edit(&own, |draft| draft.prepare(NOW, 0)).unwrap().keystore.unwrap();
    let changed = Keystore::parse(changed.to_text().as_bytes()).unwrap();
    assert!(changed.to_text().contains("\"version\": 2"));
    assert_eq!((changed.change(), changed.member(), changed.is_primary()), (2, SYSTEM, true));
    let ring = changed.open(&own).unwrap();
    assert_eq!((ring.key(generation(1)), ring.generations().count()), (Some(&key(0x11)), 2));
    assert_eq!(keystore_key(&changed), own);
}

#[test]
fn a_keystore_of_version_1_is_as_closed_as_any() {
    let keystore = Keystore::parse(&golden("keystore-v1.json")).unwrap();
    assert!(keystore.open(&key(0x23)).is_err());
    let text = String::from_utf8(golden("keystore-v1.json")).unwrap();
    for (from, to) in [("\"change\": 1", "\"change\": 2"), ("active", "retired"), ("2030", "2031")]
    {
        assert!(Keystore::parse(text.replace(from, to).as_bytes()).is_err(), "{from}");
    }
}

#[test]
fn a_keystore_of_version_2_opens() {
    let text = golden("keystore-v2.json");
    let keystore = Keystore::parse(&text).unwrap();
    assert_eq!(keystore.to_text().as_bytes(), text);
    let opened = Unlocked::open(&keystore, &keystore_key(&keystore)).unwrap();
    assert_eq!((opened.keystore, opened.epoch, opened.change), (SYSTEM, 3, 9));
    assert!(opened.is_primary());
    let states: Vec<_> = opened
        .generations
        .iter()
        .map(|entry| (entry.state, entry.fingerprint.to_string()))
        .collect();
    let expected = [
        (State::Destroyed, "bb753cb16a6f17b5"),
        (State::Retired, "43917ab509e83b0f"),
        (State::Draining, "2c4a11544d0ab495"),
        (State::Active, "642ea1218f43af73"),
        (State::Distributed, "96006e79e9200629"),
    ];
    assert_eq!(states, expected.map(|(state, fingerprint)| (state, fingerprint.to_owned())));
    let kept: Vec<_> = opened.kept().into_iter().map(|(it, _)| it.number()).collect();
    assert_eq!((kept, opened.active), (vec![2, 3, 4, 5], generation(4)));
    assert_eq!((opened.distributed_in, opened.reseal_rows_per_second), (Some(8), 250));
    assert_eq!(opened.revocations.iter().collect::<Vec<_>>(), [("sso-server-9", 1)]);
    assert_eq!(opened.left_behind, BTreeSet::from(["sso-server-3".to_owned()]));
}

#[test]
fn a_backup_of_version_1_opens() {
    let backup = Backup::parse(&golden("backup-v1.backup")).unwrap();
    assert_eq!((backup.keystore(), backup.reminder()), (SYSTEM, "what is on the horse"));
    assert_eq!(backup.created(), datetime!(2030-01-02 03:04:05 UTC));
    let keys = [(generation(1), key(0x11)), (generation(2), key(0x12))];
    let expected = KeyRing::new(keys, generation(2)).unwrap();
    assert_eq!(backup.open(&Opener::Password(password())).unwrap(), expected);
    let wrong = SecretText::new("battery stapler".into());
    assert!(backup.open(&Opener::Password(wrong)).is_err());
}

/// Who writes a new version checks in what it writes.
#[test]
fn every_version_of_the_files_is_checked_in() {
    let version = |text: &[u8]| {
        let document: Value = serde_json::from_slice(text).unwrap();
        document["version"].as_u64().unwrap()
    };
    let (first, own) = (key(0x11), key(0x22));
    let keystore = Keystore::create(SYSTEM, SYSTEM, &first, &own, vec![], NOW).unwrap();
    let ring = KeyRing::new([(generation(1), first)], generation(1)).unwrap();
    let (backup, _) =
        Backup::seal(SYSTEM, 1, &ring, &Locks::password(password(), ""), NOW).unwrap();
    for (kind, ending, newest) in [
        ("keystore", "json", version(keystore.to_text().as_bytes())),
        ("backup", "backup", version(backup.to_text().as_bytes())),
    ] {
        for number in 1..=newest {
            let name = format!("{kind}-v{number}.{ending}");
            assert!(folder().join(&name).exists(), "{name} is missing");
            assert_eq!(version(&golden(&name)), number);
        }
    }
}
