//! How a rotation goes on, and what holds it up.

use std::time::Duration;

use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
};
use sso_master::keystore::State;
use sso_proto::{
    Reason, Refusal,
    v1::{
        BackupLocks, CloseRefusal, DestroyRequest, GenerationRows, Heartbeat, PrepareRequest,
        ReportRequest, RetireRequest, RotateRequest, VerifyBackupRequest,
    },
};
use time::OffsetDateTime;
use tonic::Streaming;

use crate::support::{
    Master, Plan, SOON, Server, World, by_shares, facts, generation, key, port, reason, rows,
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Prepared and backed up, as `sso secret rotate` does it, without the time that a password takes.
pub(crate) fn prepared(master: &Master) -> Generation {
    master
        .custody
        .change(|draft| {
            let (generation, fingerprint) = draft.prepare(NOW, 0)?;
            draft.record_backup(&[(generation, fingerprint)], NOW);
            Ok(generation)
        })
        .unwrap()
}

pub(crate) fn rotate(generation: u32, leave_behind: &[&str]) -> RotateRequest {
    let leave_behind = leave_behind.iter().map(|&name| name.to_owned()).collect();
    RotateRequest { generation, leave_behind, reseal_rows_per_second: 100 }
}

fn state(master: &Master, number: u32) -> Option<State> {
    master.current().entry(generation(number)).map(|entry| entry.state)
}

/// Several heartbeats, in which nothing may happen.
async fn heartbeats(beats: &mut Streaming<Heartbeat>, count: usize) -> Heartbeat {
    let mut last = Heartbeat::default();
    for _ in 0..count {
        last = beats.message().await.unwrap().unwrap();
    }
    last
}

fn numbers(held: &[(u32, String)]) -> Vec<u32> {
    held.iter().map(|(number, _)| *number).collect()
}

#[tokio::test]
async fn a_rotation_activates_only_when_everybody_has_it() {
    let world = World::new();
    let master = world.master().await;
    let (one, two) = (world.server(&master, "sso-server-1"), world.server(&master, "sso-server-2"));
    let mut administrator = master.administrator();
    let locks = BackupLocks { shares: 3, shares_needed: 2, ..BackupLocks::default() };
    let request = PrepareRequest { locks: Some(locks) };
    // Nobody says which numbers its database knows.
    let refused = administrator.prepare(request.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServersUnreachable);
    one.catch_up().await;
    let prepared = administrator.prepare(request.clone()).await.unwrap().into_inner();
    assert_eq!((prepared.generation, prepared.shares.len()), (2, 3));
    // The same one again, and nobody gets it.
    let again = administrator.prepare(request).await.unwrap().into_inner();
    assert_eq!(again.fingerprint, prepared.fingerprint);
    assert_eq!(numbers(&one.fetch().await.unwrap().1), [1]);

    let refused = administrator.rotate(rotate(2, &[])).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::BackupMissing);
    let verify = VerifyBackupRequest {
        document: again.document,
        opener: by_shares(&again.shares[1..]),
        recipient_key: Vec::new(),
    };
    let verified = administrator.verify_backup(verify).await.unwrap().into_inner();
    assert!(verified.generations.iter().all(|it| it.in_keystore) && verified.missing.is_empty());
    assert_eq!(verified.generations.len(), 2);
    assert_eq!(numbers(&one.fetch().await.unwrap().1), [1]);

    let waiting = administrator.rotate(rotate(2, &[])).await.unwrap().into_inner();
    assert!(!waiting.active);
    assert_eq!(waiting.waiting_for.len(), 2, "{:?}", waiting.waiting_for);
    let mut beats = one.watch().await;
    let (response, held) = one.fetch().await.unwrap();
    assert_eq!((numbers(&held), response.state.unwrap().active_generation), (vec![1, 2], 1));
    one.catch_up().await;
    let beat = heartbeats(&mut beats, 5).await;
    assert_eq!((beat.active_generation, beat.reseal_rows_per_second), (1, 100));
    let waiting = administrator.rotate(rotate(2, &[])).await.unwrap().into_inner();
    assert!(waiting.waiting_for[0].starts_with("sso-server-2: not heard of"), "{waiting:?}");

    // The second one came from a restart: its first word is that it has nothing yet.
    two.report(facts(1, &master.current().primary.to_string())).await.unwrap();
    assert_eq!(heartbeats(&mut beats, 3).await.active_generation, 1);
    two.catch_up().await;
    master.until("it becomes active", |now| now.active == generation(2)).await;
    assert_eq!(state(&master, 1), Some(State::Draining));
    let done = administrator.rotate(rotate(2, &[])).await.unwrap().into_inner();
    assert!(done.active && done.waiting_for.is_empty());
    master.close().await;
}

#[tokio::test]
async fn a_dead_server_is_named_and_can_be_left_behind() {
    let world = World::new();
    let master = world.master().await;
    let one = world.server(&master, "sso-server-1");
    one.catch_up().await;
    let mut administrator = master.administrator();
    prepared(&master);
    let refused = administrator.rotate(rotate(2, &["sso-server-7"])).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServerNotFound);
    assert_eq!(state(&master, 2), Some(State::Prepared));

    administrator.rotate(rotate(2, &[])).await.unwrap();
    one.catch_up().await;
    let waiting = administrator.rotate(rotate(2, &[])).await.unwrap().into_inner();
    assert_eq!(waiting.waiting_for.len(), 1, "{waiting:?}");
    assert!(waiting.waiting_for[0].starts_with("sso-server-2: "), "{waiting:?}");
    let status = administrator.get_status(sso_proto::v1::GetSecretStatusRequest {}).await.unwrap();
    assert_eq!(status.into_inner().waiting_for, waiting.waiting_for);
    administrator.rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    master.until("it becomes active", |now| now.active == generation(2)).await;
    assert!(master.current().left_behind.is_empty());
    master.close().await;
}

#[tokio::test]
async fn everybody_left_behind_is_not_enough() {
    let world = World::new();
    let master = world.master().await;
    let one = world.server(&master, "sso-server-1");
    one.catch_up().await;
    let mut beats = one.watch().await;
    prepared(&master);
    let mut administrator = master.administrator();
    let names = ["sso-server-1", "sso-server-2"];
    let waiting = administrator.rotate(rotate(2, &names)).await.unwrap().into_inner();
    assert!(waiting.waiting_for[0].starts_with("an SSO server"), "{waiting:?}");
    assert_eq!(heartbeats(&mut beats, 5).await.active_generation, 1);
    one.catch_up().await;
    master.until("it becomes active", |now| now.active == generation(2)).await;
    master.close().await;
}

#[tokio::test]
async fn a_rotation_goes_on_after_a_restart() {
    let world = World::new();
    let master = world.master().await;
    let one = world.server(&master, "sso-server-1");
    one.catch_up().await;
    prepared(&master);
    master.administrator().rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    master.close().await;

    let master = world.start("master", port().await, &Plan::default()).await;
    let now = master.current();
    assert_eq!(now.left_behind.iter().collect::<Vec<_>>(), ["sso-server-2"]);
    assert_eq!(state(&master, 2), Some(State::Distributed));
    world.server(&master, "sso-server-1").catch_up().await;
    master.until("it becomes active", |now| now.active == generation(2)).await;
    master.close().await;
}

/// What a server reports that was told to close generation 1, or not to.
async fn database(master: &Master, server: &Server, closed: bool, refusal: &str) -> Heartbeat {
    let now = master.current();
    let refusal = CloseRefusal { generation: 1, message: refusal.to_owned() };
    let report = ReportRequest {
        version: now.change,
        generations: now
            .generations
            .iter()
            .map(|entry| GenerationRows {
                generation: entry.generation.number(),
                fingerprint: entry.fingerprint.to_string(),
                rows: if closed { 0 } else { 7 },
                closed: closed && entry.generation == Generation::FIRST,
            })
            .collect(),
        counted_at_ms: 1_000,
        close_refusals: if refusal.message.is_empty() { vec![] } else { vec![refusal] },
        ..facts(now.epoch, &now.primary.to_string())
    };
    server.report(report).await.unwrap()
}

async fn until_ordered(beats: &mut Streaming<Heartbeat>, number: u32) {
    let ordered =
        async { while beats.message().await.unwrap().unwrap().closing_generations != [number] {} };
    tokio::time::timeout(SOON, ordered).await.unwrap();
}

#[tokio::test]
async fn retiring_takes_the_word_of_a_server_and_destroying_takes_the_key() {
    let world = World::new();
    let master = world.master().await;
    let mut administrator = master.administrator();
    let retire = RetireRequest { generation: 1 };
    let refused = administrator.retire(retire).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::GenerationStateWrong);

    let one = world.server(&master, "sso-server-1");
    one.catch_up().await;
    prepared(&master);
    administrator.rotate(rotate(2, &["sso-server-2"])).await.unwrap();
    one.catch_up().await;
    master.until("it becomes active", |now| now.active == generation(2)).await;

    let mut beats = one.watch().await;
    let mut other = master.administrator();
    let retiring = tokio::spawn(async move { other.retire(retire).await });
    until_ordered(&mut beats, 1).await;
    database(&master, &one, false, "7 rows are sealed under it").await;
    let refused = Refusal::from_status(&retiring.await.unwrap().unwrap_err()).unwrap();
    assert_eq!(refused.reason, Reason::GenerationInUse);
    assert!(refused.message.contains("sso-server-1 says: 7 rows"), "{}", refused.message);
    // The order is taken back.
    let after = tokio::time::timeout(SOON, async {
        while !beats.message().await.unwrap().unwrap().closing_generations.is_empty() {}
    });
    after.await.unwrap();
    database(&master, &one, false, "").await;

    let destroy =
        |fingerprint: &str| DestroyRequest { generation: 1, fingerprint: fingerprint.to_owned() };
    let own = master.current().entry(generation(1)).unwrap().fingerprint.to_string();
    let refused = administrator.destroy(destroy(&own)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::GenerationStateWrong);

    let mut other = master.administrator();
    let retiring = tokio::spawn(async move { other.retire(retire).await });
    until_ordered(&mut beats, 1).await;
    database(&master, &one, true, "").await;
    retiring.await.unwrap().unwrap();
    assert_eq!(state(&master, 1), Some(State::Retired));
    // Retired keys still open old tickets and backups of the database.
    assert_eq!(numbers(&one.fetch().await.unwrap().1), [1, 2]);

    let refused = administrator.destroy(destroy("00")).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::GenerationFingerprintWrong);
    administrator.destroy(destroy(&own)).await.unwrap();
    assert_eq!(numbers(&one.fetch().await.unwrap().1), [2]);
    master.close().await;
}

#[tokio::test]
async fn nobody_rotates_or_retires_without_a_server() {
    let world = World::new();
    world.make_keystore("master", 1);
    let master = world.start("master", port().await, &Plan::default()).await;
    let generation = prepared(&master);
    let mut administrator = master.administrator();
    let refused = administrator.rotate(rotate(2, &[])).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServersUnreachable);
    master
        .custody
        .change(|draft| {
            draft.distribute(generation, &[], 0)?;
            draft.activate(generation, NOW)
        })
        .unwrap();
    let began = tokio::time::Instant::now();
    let refused = administrator.retire(RetireRequest { generation: 1 }).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ServersUnreachable);
    assert!(began.elapsed() < Duration::from_secs(10));
    let unknown = administrator.retire(RetireRequest { generation: 9 }).await.unwrap_err();
    assert_eq!(reason(&unknown), Reason::GenerationNotFound);
    master.close().await;
}

/// A generation that came back from a backup.
const RESTORED: u32 = 40;

/// A master of epoch 2 with generation 40 from a backup, and the fingerprint of that.
async fn with_restored(world: &World) -> (Master, String) {
    let master = world.master().await;
    let keys = [(Generation::FIRST, key(1)), (generation(RESTORED), key(40))];
    let ring = KeyRing::new(keys, Generation::FIRST).unwrap();
    master
        .custody
        .change(|draft| {
            draft.promote(0)?;
            draft.restore(&ring, NOW)
        })
        .unwrap();
    assert_eq!(state(&master, RESTORED), Some(State::Retired));
    (master, Fingerprint::of(&key(40)).to_string())
}

/// What a server says whose database is of this epoch and has these generations.
async fn knows(master: &Master, server: &Server, epoch: u64, generations: &[GenerationRows]) {
    let now = master.current();
    let report = ReportRequest {
        version: now.change,
        generations: generations.to_vec(),
        ..facts(epoch, &now.primary.to_string())
    };
    server.report(report).await.unwrap();
}

fn closed(number: u32, fingerprint: &str) -> GenerationRows {
    GenerationRows { closed: true, ..rows(number, fingerprint) }
}

async fn not_destroyed(master: &Master, fingerprint: &str) -> Refusal {
    let request = DestroyRequest { generation: RESTORED, fingerprint: fingerprint.to_owned() };
    let refused = master.administrator().destroy(request).await.unwrap_err();
    assert_eq!(state(master, RESTORED), Some(State::Retired));
    Refusal::from_status(&refused).unwrap()
}

#[tokio::test]
async fn what_the_database_has_not_closed_is_not_destroyed() {
    let world = World::new();
    let (master, own) = with_restored(&world).await;
    let first = master.current().entry(Generation::FIRST).unwrap().fingerprint.to_string();
    let (one, two) = (world.server(&master, "sso-server-1"), world.server(&master, "sso-server-2"));
    let watching = (one.watch().await, two.watch().await);

    // The word of an earlier epoch is of a database that may be another by now.
    knows(&master, &one, 1, &[rows(1, &first), closed(RESTORED, &own)]).await;
    let refused = not_destroyed(&master, &own).await;
    assert_eq!(refused.reason, Reason::ServersUnreachable);
    knows(&master, &two, 2, &[rows(1, &first)]).await;
    let refused = not_destroyed(&master, &own).await;
    assert_eq!(refused.reason, Reason::GenerationInUse);
    assert!(refused.message.contains("does not know generation 40 yet"), "{refused}");
    assert!(refused.message.contains("sso secret retire 40"), "{refused}");

    knows(&master, &two, 2, &[rows(1, &first), closed(RESTORED, "00ff00ff00ff00ff")]).await;
    let refused = not_destroyed(&master, &own).await;
    assert_eq!(refused.reason, Reason::GenerationInUse);
    assert!(refused.message.contains("00ff00ff00ff00ff"), "{refused}");
    let retire = RetireRequest { generation: RESTORED };
    let refused = master.administrator().retire(retire).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::GenerationInUse);

    knows(&master, &two, 2, &[rows(1, &first), rows(RESTORED, &own)]).await;
    let refused = not_destroyed(&master, &own).await;
    assert_eq!(refused.reason, Reason::GenerationInUse);
    assert!(refused.message.contains("has generation 40 open"), "{refused}");

    // Put there by hand since it was closed.
    let restored = GenerationRows { rows: 3, ..closed(RESTORED, &own) };
    knows(&master, &two, 2, &[rows(1, &first), restored]).await;
    let refused = not_destroyed(&master, &own).await;
    assert_eq!(refused.reason, Reason::GenerationInUse);
    assert!(refused.message.contains("3 rows sealed under it"), "{refused}");
    drop(watching);
    master.close().await;
}

#[tokio::test]
async fn a_restored_generation_is_closed_by_retiring_it_and_destroyed_then() {
    let world = World::new();
    let (master, own) = with_restored(&world).await;
    let first = master.current().entry(Generation::FIRST).unwrap().fingerprint.to_string();
    let one = world.server(&master, "sso-server-1");
    let mut beats = one.watch().await;
    knows(&master, &one, 2, &[rows(1, &first)]).await;
    let mut administrator = master.administrator();
    let retire = RetireRequest { generation: RESTORED };
    let retiring = tokio::spawn(async move { administrator.retire(retire).await });
    until_ordered(&mut beats, RESTORED).await;
    // The server was told to close it before it took the key.
    let now = master.current();
    let refusal =
        CloseRefusal { generation: RESTORED, message: "the database has never seen it".to_owned() };
    let report = ReportRequest {
        version: now.change,
        generations: vec![rows(1, &first)],
        close_refusals: vec![refusal],
        ..facts(2, &now.primary.to_string())
    };
    one.report(report).await.unwrap();
    heartbeats(&mut beats, 3).await;
    assert!(!retiring.is_finished());
    knows(&master, &one, 2, &[rows(1, &first), rows(RESTORED, &own)]).await;
    heartbeats(&mut beats, 3).await;
    assert!(!retiring.is_finished(), "the database has it open");
    knows(&master, &one, 2, &[rows(1, &first), closed(RESTORED, &own)]).await;
    retiring.await.unwrap().unwrap();
    assert_eq!(state(&master, RESTORED), Some(State::Retired));

    let destroy = DestroyRequest { generation: RESTORED, fingerprint: own };
    master.administrator().destroy(destroy).await.unwrap();
    assert_eq!(state(&master, RESTORED), Some(State::Destroyed));
    assert_eq!(numbers(&one.fetch().await.unwrap().1), [1]);
    master.close().await;
}
