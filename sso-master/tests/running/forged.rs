//! Backups that somebody made up for an officer, at a master that runs.

use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    officer::public_key,
};
use sso_master::backup::{Backup, Locks, Officer};
use sso_proto::{
    Reason,
    v1::{
        BackupLocks, BackupOpener, BackupRequest, OfficerKey, RestoreRequest, VerifyBackupRequest,
    },
};
use time::OffsetDateTime;

use crate::{
    rotation::prepared,
    support::{World, by_shares, generation, key, reason},
};

fn officer() -> LockedKey {
    key(7)
}

/// As the command line does it: the private key stays on the side of the officer.
fn by_officer(backup: &Backup) -> Option<BackupOpener> {
    let mut opener = BackupOpener::default();
    let backup_key = backup.open_envelope(&officer()).unwrap();
    // Expose: into the request.
    opener.backup_key = backup_key.expose().to_vec();
    Some(opener)
}

#[tokio::test]
async fn a_backup_that_was_made_up_for_an_officer_puts_no_key_back() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let before = std::fs::read(world.keystore("master")).unwrap();

    // Keystore id and public key are all that it takes.
    let keystore = master.current().keystore;
    let evil = generation(9);
    let ring = KeyRing::new([(evil, key(66))], evil).unwrap();
    let public_key = public_key(&officer()).unwrap();
    let officers = vec![Officer { name: "Ada".to_owned(), public_key }];
    let locks = Locks { officers, shares: Some((2, 2)), ..Locks::default() };
    let now = OffsetDateTime::UNIX_EPOCH;
    let (forged, shares) = Backup::seal(keystore, 1, &ring, &locks, now).unwrap();
    let document = forged.to_text();
    let request = RestoreRequest { document: document.clone(), opener: by_officer(&forged) };
    let refused = administrator.restore(request).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::BackupForeign);
    assert!(refused.message().contains("generation 9"), "{}", refused.message());
    assert_eq!(std::fs::read(world.keystore("master")).unwrap(), before);

    // To look into it changes nothing.
    let request = VerifyBackupRequest {
        document: document.clone(),
        opener: by_officer(&forged),
        recipient_key: Vec::new(),
    };
    let verified = administrator.verify_backup(request).await.unwrap().into_inner();
    assert!(verified.generations.iter().all(|it| !it.in_keystore));
    assert_eq!(std::fs::read(world.keystore("master")).unwrap(), before);

    // Nobody makes shares without having the backup key.
    let shares: Vec<_> = shares.iter().map(|share| share.expose().to_owned()).collect();
    let request = RestoreRequest { document, opener: by_shares(&shares) };
    let restored = administrator.restore(request).await.unwrap().into_inner();
    assert_eq!(restored.generations, [9]);
    master.close().await;
}

#[tokio::test]
async fn an_officer_restores_from_a_backup_of_this_system() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let second = prepared(&master);
    let public_key = public_key(&officer()).unwrap().to_vec();
    let officers = vec![OfficerKey { name: "Ada".to_owned(), public_key }];
    let locks = Some(BackupLocks { officers, ..BackupLocks::default() });
    let made = administrator.backup(BackupRequest { locks }).await.unwrap().into_inner();
    let backup = Backup::parse(made.document.as_bytes()).unwrap();
    assert!(backup.is_proved_by(&master.current().ring));

    let now = OffsetDateTime::UNIX_EPOCH;
    let first = Generation::FIRST;
    let fingerprint = master.current().ring.fingerprint(first).unwrap().to_string();
    master.custody.change(|draft| draft.distribute(second, &[], 0)).unwrap();
    master.custody.change(|draft| draft.activate(second, now)).unwrap();
    master.custody.change(|draft| draft.retire(first)).unwrap();
    master.custody.change(|draft| draft.destroy(first, &fingerprint)).unwrap();
    let request = RestoreRequest { document: made.document, opener: by_officer(&backup) };
    let restored = administrator.restore(request).await.unwrap().into_inner();
    assert_eq!(restored.generations, [1]);
    master.close().await;
}
