//! A master that is killed at any moment leaves a keystore that opens.

#![expect(clippy::expect_used, reason = "a test")]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use sso_core::{clock::Clock, memory::LockedKey};
use sso_master::{
    custody::{Custody, KeystoreLock, Unlocked},
    keystore::Keystore,
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
/// Names the keystore to the process that is to be killed.
const VICTIM: &str = "SSO_TEST_CUSTODY_VICTIM";

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).expect("32 bytes")
}

/// Changes the keystore for as long as it lives; does nothing unless it is told to.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test tells its own child what to do")]
fn victim() {
    let Some(path) = env::var_os(VICTIM) else { return };
    let custody = Custody::begin(Path::new(&path), key(2), Clock::System).unwrap();
    loop {
        for name in ["a", "b"] {
            custody.change(|draft| draft.revoke(name)).unwrap();
            custody.change(|draft| draft.readmit(name)).unwrap();
        }
    }
}

#[test]
fn a_killed_master_leaves_a_whole_keystore_and_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let made = Keystore::create(id, member, &key(1), &key(2), vec![], NOW).unwrap();
    made.write_new(&path).unwrap();
    let mut change = 1;
    for round in 0..10u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "victim", "--test-threads=1"])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Until it changes something: from then on every moment is a good one.
        let changes = || Keystore::read(&path).unwrap().change();
        for _ in 0..1000 {
            if changes() > change + round {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        assert!(KeystoreLock::take(&path).is_err(), "the child holds it");
        child.kill().unwrap();
        child.wait().unwrap();

        let left = Unlocked::open(&Keystore::read(&path).unwrap(), &key(2)).unwrap();
        assert!(left.change > change, "{} after {change}", left.change);
        change = left.change;
        let custody = Custody::begin(&path, key(2), Clock::System).unwrap();
        assert_eq!(*custody.current(), left);
        drop(custody);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}
