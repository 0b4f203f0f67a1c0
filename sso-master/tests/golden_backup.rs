//! A backup of the second version, kept since it was introduced: every way of opening it works for
//! ever. Its keys are those of nobody.

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
    let backup = Backup::parse(FILE.as_bytes()).unwrap();
    assert_eq!(backup.to_text(), FILE);
    assert_eq!(backup.open(&Opener::Password(text("correct horse"))).unwrap(), ring());
    let officer = LockedKey::from_bytes(&[7; 32]).unwrap();
    let key = backup.open_envelope(&officer).unwrap();
    assert_eq!(backup.open(&Opener::BackupKey(key)).unwrap(), ring());
    let shares: Vec<_> = SHARES.lines().map(text).collect();
    for without in 0..3 {
        let mut some = shares.clone();
        some.remove(without);
        assert_eq!(backup.open(&Opener::Shares(some)).unwrap(), ring());
    }
}

#[test]
fn the_second_version_says_what_it_is() {
    let backup = Backup::parse(FILE.as_bytes()).unwrap();
    assert_eq!((backup.keystore(), backup.epoch()), (Uuid::from_u128(7), 3));
    assert_eq!(backup.created(), datetime!(2030-01-02 03:04:05 UTC));
    assert_eq!((backup.tool(), backup.reminder()), ("sso-master 0.1.0", "which animal?"));
    assert_eq!(backup.active(), ring().active());
    assert!(backup.generations().eq(ring().generations()));
    assert_eq!(backup.locks(), r#"a password, or the key of "Ada", or 2 of 3 shares"#);
}
