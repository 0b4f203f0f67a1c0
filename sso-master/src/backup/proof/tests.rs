use std::sync::Arc;

use sso_core::{clock::Clock, memory::LockedKey};
use sso_proto::{Reason, Refusal};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::*;
use crate::{
    backup::{Locks, Officer},
    custody::Custody,
    keystore::Keystore,
};

const START: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
const KEYSTORE: Uuid = Uuid::from_u128(7);

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

/// Keys by number; the last one is active.
fn ring(keys: &[(u32, u8)]) -> KeyRing {
    let active = keys.last().unwrap().0;
    let keys = keys.iter().map(|&(number, byte)| (generation(number), key(byte)));
    KeyRing::new(keys, generation(active)).unwrap()
}

/// A keystore with generation 1, whose key is of ones.
fn custody() -> (tempfile::TempDir, Arc<Custody>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    let member = Uuid::from_u128(8);
    let keystore = Keystore::create(KEYSTORE, member, &key(1), &key(9), Vec::new(), START);
    keystore.unwrap().write_new(&path).unwrap();
    let custody = Custody::begin(&path, key(9), Clock::manual(START)).unwrap();
    (folder, custody)
}

/// A backup for an officer, and what opens it. Nobody needs more for it than keystore id and public key.
fn for_officer(ring: &KeyRing) -> (Backup, Opener) {
    let private = key(7);
    let public_key = sso_core::officer::public_key(&private).unwrap();
    let officers = vec![Officer { name: "Ada".into(), public_key }];
    let locks = Locks { officers, ..Locks::default() };
    let (backup, _) = Backup::seal(KEYSTORE, 1, ring, &locks, START).unwrap();
    let opener = Opener::BackupKey(backup.open_envelope(&private).unwrap());
    (backup, opener)
}

fn header(backup: &Backup) -> Header {
    match &backup.body {
        Body::V2(header) => header.clone(),
        Body::V1(_) => panic!("this is the old version"),
    }
}

fn with(backup: &Backup, change: impl Fn(&mut Header)) -> Backup {
    let mut header = header(backup);
    change(&mut header);
    Backup { body: Body::V2(header), sealed: backup.sealed.clone() }
}

fn refusal(backup: &Backup, opener: &Opener, custody: &Custody) -> Option<Refusal> {
    backup.require_origin(opener, &custody.current()).err().map(Refusal::from)
}

#[test]
fn every_generation_proves_the_header() {
    let made = ring(&[(1, 1), (2, 2)]);
    let (backup, _) = for_officer(&made);
    let backup = Backup::parse(backup.to_text().as_bytes()).unwrap();
    assert_eq!(header(&backup).proofs.len(), 2);
    for held in [&made, &ring(&[(1, 1)]), &ring(&[(2, 2)]), &ring(&[(2, 2), (3, 3)])] {
        assert!(backup.is_proved_by(held));
    }
    for held in [ring(&[(1, 3)]), ring(&[(3, 1)]), ring(&[(1, 2), (2, 1)])] {
        assert!(!backup.is_proved_by(&held));
    }
}

#[test]
fn a_proof_is_good_for_its_own_header_only() {
    let (backup, _) = for_officer(&ring(&[(1, 1), (2, 2)]));
    let (other, _) = for_officer(&ring(&[(1, 1), (2, 2)]));
    let held = ring(&[(1, 1)]);
    let changed = [
        with(&backup, |it| it.proofs.clear()),
        with(&backup, |it| it.proofs.reverse()),
        with(&backup, |it| it.proofs.clone_from(&header(&other).proofs)),
        with(&backup, |it| it.proofs[0].0[0] ^= 1),
        with(&backup, |it| it.proofs[0].0.truncate(31)),
        with(&backup, |it| it.proofs[0].0.clear()),
        with(&backup, |it| it.keystore = Uuid::nil()),
        with(&backup, |it| it.backup = Uuid::nil()),
        with(&backup, |it| it.epoch = 2),
        with(&backup, |it| it.active = generation(1)),
        with(&backup, |it| it.key = Fingerprint::from_bytes([1; 8])),
        with(&backup, |it| it.generations[1].fingerprint = Fingerprint::from_bytes([1; 8])),
        with(&backup, |it| it.generations[1].generation = generation(3)),
        with(&backup, |it| it.locks.clone_from(&header(&other).locks)),
    ];
    for changed in changed {
        assert!(!changed.is_proved_by(&held), "{changed:?}");
    }
    assert!(backup.is_proved_by(&held));
}

#[test]
fn proofs_are_bound_to_the_keys_and_complete() {
    let (backup, opener) = for_officer(&ring(&[(1, 1), (2, 2)]));
    let stripped = with(&backup, |it| it.proofs.clear());
    let stripped = Backup::parse(stripped.to_text().as_bytes()).unwrap();
    assert!(matches!(stripped.open(&opener), Err(BackupError::Format(_))));
    let one = with(&backup, |it| it.proofs.truncate(1));
    let error = Backup::parse(one.to_text().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("one proof for each generation"), "{error}");
}

/// Keystore id, epoch and fingerprints are in the clear in every backup.
#[test]
fn what_anyone_can_make_for_an_officer_is_refused() {
    let (_folder, custody) = custody();
    let (own, _) = for_officer(&custody.current().ring);
    let (forged, opener) = for_officer(&ring(&[(5, 6)]));
    // It opens, its own proof is that of the maker, and those of another backup do not help.
    let _ = forged.open(&opener).unwrap();
    let copied = with(&forged, |it| it.proofs.clone_from(&header(&own).proofs));
    let older = with(&forged, |it| it.proofs.clear());
    for backup in [&forged, &copied, &older] {
        let refusal = refusal(backup, &opener, &custody).unwrap();
        assert_eq!(refusal.reason, Reason::BackupForeign);
        let fingerprint = Fingerprint::of(&key(6)).to_string();
        for part in ["generation 5", &fingerprint, "password or its shares", "sso-master restore"] {
            assert!(refusal.message.contains(part), "{part}: {}", refusal.message);
        }
    }
    // A number that is there, with another key.
    let (forged, opener) = for_officer(&ring(&[(1, 6)]));
    assert_eq!(refusal(&forged, &opener, &custody).unwrap().reason, Reason::BackupForeign);
}

#[test]
fn a_generation_that_is_held_vouches_for_those_that_are_not() {
    let (_folder, custody) = custody();
    let (backup, opener) = for_officer(&ring(&[(1, 1), (2, 2)]));
    assert_eq!(refusal(&backup, &opener, &custody), None);
    // Whoever knows the password or the shares made the file, or could have opened the right one.
    let (strange, _) = for_officer(&ring(&[(5, 6)]));
    for opener in [Opener::Password("correct horse".to_owned().into()), Opener::Shares(Vec::new())]
    {
        assert_eq!(refusal(&strange, &opener, &custody), None);
    }
}

#[test]
fn what_was_destroyed_here_comes_back_without_a_proof() {
    let (_folder, custody) = custody();
    let (second, _) = custody.change(|draft| draft.prepare(START, 0)).unwrap();
    let kept = custody.current().kept();
    custody
        .change(|draft| {
            draft.record_backup(&kept, START);
            draft.distribute(second, &[], 0)?;
            draft.activate(second, START)?;
            draft.retire(generation(1))?;
            draft.destroy(generation(1), &Fingerprint::of(&key(1)).to_string())
        })
        .unwrap();
    // As the programs made them that had no proofs.
    let older = |ring: &KeyRing| {
        let (backup, opener) = for_officer(ring);
        (with(&backup, |it| it.proofs.clear()), opener)
    };
    let (backup, opener) = older(&ring(&[(1, 1)]));
    assert_eq!(refusal(&backup, &opener, &custody), None);
    for other in [ring(&[(1, 6)]), ring(&[(1, 1), (5, 6)])] {
        let (backup, opener) = older(&other);
        assert_eq!(refusal(&backup, &opener, &custody).unwrap().reason, Reason::BackupForeign);
    }
    // What is destroyed proves nothing, whoever has a copy of it.
    let (backup, opener) = for_officer(&ring(&[(1, 1), (5, 6)]));
    assert_eq!(refusal(&backup, &opener, &custody).unwrap().reason, Reason::BackupForeign);
}

#[test]
fn only_an_officers_key_is_warned_of() {
    let (backup, opener) = for_officer(&ring(&[(1, 1)]));
    let warning = backup.warning(&opener).unwrap();
    assert!(warning.contains(&Fingerprint::of(&key(1)).to_string()), "{warning}");
    assert_eq!(backup.warning(&Opener::Shares(Vec::new())), None);
}
