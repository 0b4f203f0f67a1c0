//! Backups of the second version, with and without proofs, kept since each was introduced: every way of
//! opening them works for ever. Their keys are those of nobody.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    secret::SecretText,
};
use sso_master::backup::{Backup, Opener};
use time::macros::datetime;
use uuid::Uuid;

const FILE: &str = include_str!("golden/backup-v2.backup");
const SHARES: &str = include_str!("golden/backup-v2.shares");
const PROVED: &str = include_str!("golden/backup-v2-proved.backup");
const PROVED_SHARES: &str = include_str!("golden/backup-v2-proved.shares");

fn ring() -> KeyRing {
    let key = |byte| LockedKey::from_bytes(&[byte; 32]).unwrap();
    let generation = |number| Generation::new(number).unwrap();
    KeyRing::new([(generation(1), key(1)), (generation(2), key(2))], generation(2)).unwrap()
}

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

#[test]
fn the_second_version_opens_in_every_way() {
    for (file, shares) in [(FILE, SHARES), (PROVED, PROVED_SHARES)] {
        let backup = Backup::parse(file.as_bytes()).unwrap();
        assert_eq!(backup.to_text(), file);
        assert_eq!(backup.open(&Opener::Password(text("correct horse"))).unwrap(), ring());
        let officer = LockedKey::from_bytes(&[7; 32]).unwrap();
        let key = backup.open_envelope(&officer).unwrap();
        assert_eq!(backup.open(&Opener::BackupKey(key)).unwrap(), ring());
        let shares: Vec<_> = shares.lines().map(text).collect();
        for without in 0..3 {
            let mut some = shares.clone();
            some.remove(without);
            assert_eq!(backup.open(&Opener::Shares(some)).unwrap(), ring());
        }
    }
}

#[test]
fn the_second_version_says_what_it_is() {
    for file in [FILE, PROVED] {
        let backup = Backup::parse(file.as_bytes()).unwrap();
        assert_eq!((backup.keystore(), backup.epoch()), (Uuid::from_u128(7), 3));
        assert_eq!(backup.created(), datetime!(2030-01-02 03:04:05 UTC));
        assert_eq!((backup.tool(), backup.reminder()), ("sso-master 0.1.0", "which animal?"));
        assert_eq!(backup.active(), ring().active());
        assert!(backup.generations().eq(ring().generations()));
        assert_eq!(backup.locks(), r#"a password, or the key of "Ada", or 2 of 3 shares"#);
    }
}

#[test]
fn the_proofs_of_the_second_version_hold() {
    let proved = |file: &str| Backup::parse(file.as_bytes()).unwrap().is_proved_by(&ring());
    assert!(proved(PROVED));
    assert!(!proved(FILE));
    // With a generation of this number and another key.
    let key = LockedKey::from_bytes(&[3; 32]).unwrap();
    let first = Generation::new(1).unwrap();
    let other = KeyRing::new([(first, key)], first).unwrap();
    assert!(!Backup::parse(PROVED.as_bytes()).unwrap().is_proved_by(&other));
}
