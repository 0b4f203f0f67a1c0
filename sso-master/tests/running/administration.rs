//! Who administers the master secret, and what they are told.

use prost::Message as _;
use sso_core::transit::{self, TransitKeyPair};
use sso_master::backup::{Backup, Locks};
use sso_proto::{
    Reason, Refusal,
    v1::{
        BackupLocks, BackupRequest, GetSecretStatusRequest, KeyRingTransfer, MasterRole,
        RestoreRequest, VerifyBackupRequest, VerifyBackupResponse, secret_client::SecretClient,
    },
};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::{
    rotation::prepared,
    support::{Plan, World, by_password, by_shares, generation, port, reason},
};

const STATUS: GetSecretStatusRequest = GetSecretStatusRequest {};

fn shares() -> Option<BackupLocks> {
    Some(BackupLocks { shares: 2, shares_needed: 2, ..BackupLocks::default() })
}

async fn verify(
    administrator: &mut SecretClient<Channel>,
    document: &str,
    shares: &[String],
) -> Result<VerifyBackupResponse, Status> {
    let request = VerifyBackupRequest {
        document: document.to_owned(),
        opener: by_shares(shares),
        recipient_key: Vec::new(),
    };
    administrator.verify_backup(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn at_the_socket_the_user_decides() {
    let world = World::new();
    let master = world.master().await;
    let status = master.administrator().get_status(STATUS).await.unwrap().into_inner();
    assert_eq!((status.role(), status.epoch), (MasterRole::Primary, 1));
    assert_eq!(status.name, "master");
    assert!(status.generations[0].rows.is_none() && status.generations[0].backed_up_at.is_some());
    assert_eq!(status.servers.len(), 2);
    assert!(!status.servers[0].live);
    master.close().await;

    let plan = Plan { administrator: Some("nobody-else".to_owned()), ..Plan::default() };
    let master = world.start("master", port().await, &plan).await;
    let refused = master.administrator().get_status(STATUS).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NotMasterAdministrator);
    master.close().await;
}

#[tokio::test]
async fn over_the_network_only_where_the_settings_say_so() {
    let world = World::new();
    world.make_keystore("master", 1);
    let master = world.start("master", port().await, &Plan::default()).await;
    let call =
        async |channel: Channel| SecretClient::new(channel).get_status(STATUS).await.map(drop);
    for name in ["sso://DEV/anna", "sso-server://sso-server-1"] {
        let refused = call(world.channel(&master, name)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::MasterAdministrationLocal, "{name}");
    }
    master.close().await;

    let settings = "[administration]\nremote = true".to_owned();
    let plan = Plan { settings, ..Plan::default() };
    let master = world.start("master", port().await, &plan).await;
    call(world.channel(&master, "sso://DEV/anna")).await.unwrap();
    for name in ["sso-server://sso-server-1", "sso://DEV/berta"] {
        let refused = call(world.channel(&master, name)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::NotMasterAdministrator, "{name}");
    }
    master.close().await;
}

#[tokio::test]
async fn wrong_shares_and_passwords_are_limited() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let backup = administrator.backup(BackupRequest { locks: shares() }).await.unwrap();
    let backup = backup.into_inner();
    for attempt in 0..7 {
        // Right ones in between do not count.
        if attempt == 3 {
            verify(&mut administrator, &backup.document, &backup.shares).await.unwrap();
        }
        let one = verify(&mut administrator, &backup.document, &backup.shares[..1]);
        let expected = if attempt < 5 { Reason::BackupSharesInvalid } else { Reason::Overloaded };
        assert_eq!(reason(&one.await.unwrap_err()), expected, "attempt {attempt}");
    }
    let late = verify(&mut administrator, &backup.document, &backup.shares).await.unwrap_err();
    assert_eq!(reason(&late), Reason::Overloaded);
    // Everything else goes on.
    administrator.get_status(STATUS).await.unwrap();
    master.close().await;
}

#[tokio::test]
async fn a_verified_backup_counts_and_its_keys_go_to_a_server_sealed() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let generation = prepared(&master);
    let backup = administrator.backup(BackupRequest { locks: shares() }).await.unwrap();
    let backup = backup.into_inner();
    let before = master.current().entry(generation).unwrap().backed_up;
    let pair = TransitKeyPair::generate().unwrap();
    let request = VerifyBackupRequest {
        document: backup.document.clone(),
        opener: by_shares(&backup.shares),
        recipient_key: pair.public_key(),
    };
    let verified = administrator.verify_backup(request).await.unwrap().into_inner();
    assert!(master.current().entry(generation).unwrap().backed_up > before);
    let opened = pair.open(&verified.sealed, transit::CHECK).unwrap();
    let transfer = KeyRingTransfer::decode(opened.expose()).unwrap();
    assert_eq!((transfer.generations.len(), transfer.active_generation), (2, 1));

    let mut cut = backup.document.clone();
    cut.truncate(cut.len() / 2);
    let refused = verify(&mut administrator, &cut, &[]).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::BackupMalformed);
    master.close().await;
}

#[tokio::test]
async fn backups_of_other_systems_and_with_nothing_new_are_refused() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let ring = master.current().ring.clone();
    let locks = Locks { shares: Some((2, 2)), ..Locks::default() };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    let before = std::fs::read(world.keystore("master")).unwrap();
    let (foreign, shares) = Backup::seal(Uuid::from_u128(8), 1, &ring, &locks, now).unwrap();
    let shares: Vec<_> = shares.iter().map(|share| share.expose().to_owned()).collect();
    let refused = verify(&mut administrator, &foreign.to_text(), &shares).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::BackupForeign);

    let keystore = master.current().keystore;
    let (own, shares) = Backup::seal(keystore, 1, &ring, &locks, now).unwrap();
    let shares: Vec<_> = shares.iter().map(|share| share.expose().to_owned()).collect();
    let restore = |document: String, shares: &[String]| RestoreRequest {
        document,
        opener: by_shares(shares),
    };
    let nothing = administrator.restore(restore(own.to_text(), &shares)).await.unwrap_err();
    assert_eq!(reason(&nothing), Reason::BackupHasNothingNew);
    let wrong = administrator.restore(restore(own.to_text(), &shares[..1])).await.unwrap_err();
    assert_eq!(reason(&wrong), Reason::BackupSharesInvalid);
    assert_eq!(std::fs::read(world.keystore("master")).unwrap(), before);
    master.close().await;
}

#[tokio::test]
async fn a_destroyed_generation_comes_back_from_a_backup() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let second = prepared(&master);
    let ring = master.current().ring.clone();
    let locks = Locks { shares: Some((2, 2)), ..Locks::default() };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    let keystore = master.current().keystore;
    let (backup, shares) = Backup::seal(keystore, 1, &ring, &locks, now).unwrap();
    let shares: Vec<_> = shares.iter().map(|share| share.expose().to_owned()).collect();
    let fingerprint = ring.fingerprint(generation(1)).unwrap().to_string();
    master.custody.change(|draft| draft.distribute(second, &[], 0)).unwrap();
    master.custody.change(|draft| draft.activate(second, now)).unwrap();
    master.custody.change(|draft| draft.retire(generation(1))).unwrap();
    master.custody.change(|draft| draft.destroy(generation(1), &fingerprint)).unwrap();
    let request = RestoreRequest { document: backup.to_text(), opener: by_shares(&shares) };
    let restored = administrator.restore(request).await.unwrap().into_inner();
    assert_eq!(restored.generations, [1]);
    assert!(std::path::Path::new(&restored.kept_aside).exists(), "{}", restored.kept_aside);
    assert!(master.current().ring.contains(generation(1)));
    master.close().await;
}

#[tokio::test]
async fn a_password_opens_what_it_locked() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let with = |password: &str| BackupLocks {
        password: password.to_owned(),
        reminder: "the usual".to_owned(),
        ..BackupLocks::default()
    };
    let short = BackupRequest { locks: Some(with("short")) };
    let refused = administrator.backup(short).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::BackupPasswordLength);
    let request = BackupRequest { locks: Some(with("correct horse")) };
    let document = administrator.backup(request).await.unwrap().into_inner().document;
    let open = |password: &str| VerifyBackupRequest {
        document: document.clone(),
        opener: by_password(password),
        recipient_key: Vec::new(),
    };
    let wrong = administrator.verify_backup(open("correct house")).await.unwrap_err();
    let wrong = Refusal::from_status(&wrong).unwrap();
    assert_eq!(wrong.reason, Reason::BackupPasswordWrong);
    assert!(wrong.message.contains("the usual"), "{}", wrong.message);
    administrator.verify_backup(open("correct horse")).await.unwrap();
    master.close().await;
}
