//! Which key rings the database takes, and what may be sealed while a generation closes.

use std::time::Duration;

use sso_core::{clock::Clock, revocations::Revocations};
use sso_proto::Reason;
use sso_server::{
    generations,
    master::{OfferedGeneration, OfferedKeyRing},
    model::{ApplicationId, ApplicationType, GlobalInfo, Revision, ServerEntry},
    storage::{Admission, CloseOutcome, SealedCredentials, Storage, StorageError},
};
use uuid::Uuid;

use super::{
    NOW, Scene, accounts, application, identifier, insert, mappings, new_revision, on_each, open,
    write,
};

const KEYSTORE: Uuid = Uuid::from_u128(1);
const PRIMARY: Uuid = Uuid::from_u128(2);

/// A ring with these generations, whose fingerprints are `f` and the number; the last one is active.
fn ring(epoch: u64, numbers: &[u32]) -> OfferedKeyRing {
    let generation = |&number: &u32| OfferedGeneration {
        number,
        fingerprint: format!("f{number}"),
        active: Some(&number) == numbers.last(),
    };
    OfferedKeyRing {
        keystore: KEYSTORE,
        epoch,
        primary: PRIMARY,
        master: "https://master:7410".to_owned(),
        generations: numbers.iter().map(generation).collect(),
        revocations: Revocations::default(),
    }
}

async fn system(storage: &Storage) {
    let mut transaction = storage.begin().await.unwrap();
    let global = GlobalInfo::initial(accounts(&["D\\a"]), accounts(&["D\\b"]));
    transaction.initialise_system(&global, NOW).await.unwrap();
    transaction.commit().await.unwrap();
}

/// What the database says, as a reason.
async fn admit(scene: &Scene, offered: &OfferedKeyRing) -> Result<(), Reason> {
    let admitted = generations::admit(&scene.storage, &scene.clock, "own", offered).await;
    admitted.map_err(|error| error.reason)
}

async fn open_generations(storage: &Storage) -> Vec<u32> {
    let known = storage.known_generations().await.unwrap();
    let open = known.generations.iter().filter(|it| it.closed_at.is_none());
    open.map(|it| it.number).collect()
}

/// A system that `PRIMARY` leads in epoch 1.
pub(super) async fn led(scene: &Scene) {
    system(&scene.storage).await;
    scene
        .sql("UPDATE system SET master_epoch = 1, master_primary = '00000000-0000-0000-0000-000000000002'")
        .await;
}

pub(super) async fn close(storage: &Storage, number: u32) -> CloseOutcome {
    close_for(storage, number, (1, PRIMARY)).await
}

async fn close_for(storage: &Storage, number: u32, leader: (u64, Uuid)) -> CloseOutcome {
    generations::close(storage, &Clock::manual(NOW), number, leader).await.unwrap()
}

/// Writes the first revision of a configuration under a generation.
async fn seal(
    storage: &Storage,
    of: ApplicationId,
    name: &str,
    generation: u32,
) -> Result<(), StorageError> {
    let mut transaction = storage.begin().await?;
    let id = sso_server::model::ConfigurationId::generate();
    transaction.insert_configuration(id, of, &identifier(name), "D\\a", NOW).await?;
    let mut new = new_revision(id, Revision(1), b"sealed");
    new.generation = generation;
    transaction.insert_revision(&new).await?;
    transaction.commit().await
}

#[tokio::test]
async fn a_key_ring_is_taken_when_it_has_all_that_the_database_uses() {
    on_each(async |scene| {
        scene.sql("DELETE FROM generations").await;
        let storage = &scene.storage;
        system(storage).await;
        assert_eq!(storage.known_generations().await.unwrap().epoch, 0);
        assert_eq!(admit(scene, &ring(1, &[1])).await, Ok(()));
        // Once more changes nothing.
        assert_eq!(admit(scene, &ring(1, &[1])).await, Ok(()));
        assert_eq!(admit(scene, &ring(1, &[1, 2])).await, Ok(()));
        let known = storage.known_generations().await.unwrap();
        assert_eq!((known.epoch, known.primary), (1, Some(PRIMARY)));
        let shown: Vec<_> =
            known.generations.iter().map(|it| (it.number, &*it.fingerprint)).collect();
        assert_eq!(shown, [(1, "f1"), (2, "f2")]);
        assert_eq!(known.generations[0].admitted_at, NOW);
        let found = storage.system().await.unwrap().unwrap();
        assert_eq!(found.keystore_id, Some(KEYSTORE));
        assert_eq!(found.global.secret_server, "https://master:7410");

        // Another keystore.
        let foreign = OfferedKeyRing { keystore: Uuid::from_u128(9), ..ring(5, &[1, 2]) };
        assert_eq!(admit(scene, &foreign).await, Err(Reason::MasterSecretForeign));
        // A generation is missing, and one has another key.
        assert_eq!(admit(scene, &ring(1, &[1])).await, Err(Reason::MasterOutdated));
        assert_eq!(admit(scene, &ring(9, &[1])).await, Err(Reason::MasterOutdated));
        let mut diverged = ring(2, &[1, 2]);
        diverged.generations[1].fingerprint = "other".to_owned();
        assert_eq!(admit(scene, &diverged).await, Err(Reason::MasterOutdated));
        // Refused, nothing was written.
        assert_eq!(storage.known_generations().await.unwrap(), known);

        // Promoted: the old primary and a rival of the same epoch are refused from then on.
        let other = Uuid::from_u128(3);
        let promoted = OfferedKeyRing { primary: other, ..ring(2, &[1, 2]) };
        assert_eq!(admit(scene, &promoted).await, Ok(()));
        for late in [ring(1, &[1, 2]), ring(2, &[1, 2]), ring(1, &[1, 2, 3])] {
            assert_eq!(admit(scene, &late).await, Err(Reason::MasterOutdated));
        }
        let known = storage.known_generations().await.unwrap();
        assert_eq!((known.epoch, known.primary), (2, Some(other)));
        assert_eq!(open_generations(storage).await, [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn a_closed_generation_may_be_missing_and_is_never_opened_again() {
    on_each(async |scene| {
        scene.sql("DELETE FROM generations").await;
        system(&scene.storage).await;
        admit(scene, &ring(1, &[1, 2])).await.unwrap();
        assert_eq!(close(&scene.storage, 1).await, CloseOutcome::Closed);
        assert_eq!(close(&scene.storage, 1).await, CloseOutcome::WasClosed);
        assert_eq!(close(&scene.storage, 5).await, CloseOutcome::Unknown);
        // Retired keys are still handed out; destroyed ones are not.
        assert_eq!(admit(scene, &ring(1, &[1, 2])).await, Ok(()));
        assert_eq!(admit(scene, &ring(1, &[2])).await, Ok(()));
        assert_eq!(open_generations(&scene.storage).await, [2]);
    })
    .await;
}

#[tokio::test]
async fn revocations_are_remembered_until_they_are_taken_back_on_purpose() {
    on_each(async |scene| {
        system(&scene.storage).await;
        let told = |epoch, numbers: &[(&str, u32)]| OfferedKeyRing {
            revocations: numbers.iter().map(|(name, number)| ((*name).into(), *number)).collect(),
            ..ring(epoch, &[1, 2, 3, 9])
        };
        let kept = async || {
            let ring = ring(2, &[1, 2, 3, 9]);
            let kept = generations::admit_kept(&scene.storage, &scene.clock, "two", &ring).await;
            kept.map_err(|error| error.reason)
        };
        let revoked = async || {
            let known = scene.storage.revocations().await.unwrap();
            known.revoked().map(str::to_owned).collect::<Vec<_>>()
        };
        admit(scene, &told(1, &[("one", 1), ("two", 3)])).await.unwrap();
        assert_eq!(revoked().await, ["one", "two"]);
        assert_eq!(kept().await, Err(Reason::MasterSecretRevoked));
        let report = |at| ServerEntry {
            name: "two".into(),
            address: String::new(),
            version: String::new(),
            started_at: NOW,
            last_seen_at: at,
            master_state: String::new(),
        };
        // A standby that is behind, and one that was promoted without having heard of it.
        for behind in [told(1, &[("two", 2)]), told(2, &[])] {
            admit(scene, &behind).await.unwrap();
            assert_eq!(revoked().await, ["one", "two"]);
        }
        // The server itself gets nothing from such a one, and nothing of that offer is noted.
        admit(scene, &told(2, &[("own", 1)])).await.unwrap_err();
        let again = told(2, &[("own", 1), ("one", 2)]);
        assert_eq!(admit(scene, &again).await, Err(Reason::MasterSecretRevoked));
        assert_eq!(revoked().await, ["one", "two"]);
        admit(scene, &told(2, &[("two", 4)])).await.unwrap();
        assert_eq!(revoked().await, ["one"]);
        // Keys that were kept are used, unless the clock was set back.
        for (ahead, kept_then) in [(59, Ok(())), (61, Err(Reason::MasterSecretExpired))] {
            let at = NOW + time::Duration::seconds(ahead);
            let mut transaction = scene.storage.begin().await.unwrap();
            transaction.report_server(&report(at)).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(kept().await, kept_then);
        }
        let known = scene.storage.known_generations().await.unwrap().revocations;
        assert_eq!(known, scene.storage.revocations().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_under_a_closed_or_unknown_generation() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        for other in [(1, KEYSTORE), (0, PRIMARY), (2, PRIMARY)] {
            assert_eq!(close_for(storage, 2, other).await, CloseOutcome::LedByAnother);
        }
        assert_eq!(close(storage, 2).await, CloseOutcome::Closed);
        for generation in [2, 5] {
            let closed = Err(StorageError::GenerationClosed(generation));
            assert_eq!(seal(storage, app.id, "c", generation).await, closed);
            let mut mapping = mappings::mapping(app.id, "D\\a", "u");
            mapping.mapping.credentials_at = Some(NOW);
            let sealed = SealedCredentials { generation, sealed: vec![1] };
            mapping.credentials = Some(sealed.clone());
            let added = mappings::add(storage, ApplicationType::Individual, &mapping).await;
            assert_eq!(added, Err(StorageError::GenerationClosed(generation)));
            let mut transaction = storage.begin().await.unwrap();
            let set = transaction.set_credentials(&mapping.mapping, &sealed).await;
            assert_eq!(set, Err(StorageError::GenerationClosed(generation)));
        }
        assert_eq!(scene.count("SELECT COUNT(*) FROM configuration_revisions").await, 0);
        assert_eq!(scene.count("SELECT COUNT(*) FROM mappings").await, 0);
        // Without a sealed value no generation is asked for.
        let bare = mappings::mapping(app.id, "D\\a", "u");
        assert_eq!(mappings::add(storage, ApplicationType::Individual, &bare).await, Ok(true));
    })
    .await;
}

#[tokio::test]
async fn a_generation_with_values_stays_open_and_says_where_they_are() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        write(storage, app.id, &identifier("i"), b"x").await.unwrap();
        write(storage, app.id, &identifier("i"), b"y").await.unwrap();
        let mut mapping = mappings::mapping(app.id, "D\\a", "u");
        mapping.mapping.credentials_at = Some(NOW);
        mapping.credentials = Some(SealedCredentials { generation: 1, sealed: vec![1] });
        mappings::add(storage, ApplicationType::Individual, &mapping).await.unwrap();
        let in_use = CloseOutcome::InUse { revisions: 2, credentials: 1 };
        assert_eq!(close(storage, 1).await, in_use);
        assert_eq!(open_generations(storage).await, [1, 2, 3, 9]);
        assert_eq!(seal(storage, app.id, "c", 1).await, Ok(()));
        scene.sql("DELETE FROM mappings; DELETE FROM configuration_revisions").await;
        assert_eq!(close(storage, 1).await, CloseOutcome::Closed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closing_waits_for_a_writer_and_counts_what_it_wrote() {
    on_each(async |scene| {
        // Whatever the database does by default.
        if scene.is_postgres() {
            scene
                .sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$")
                .await;
        }
        let storage = &open(&scene.url, &scene.clock).await;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let id = sso_server::model::ConfigurationId::generate();
        let mut transaction = storage.begin().await.unwrap();
        transaction.insert_configuration(id, app.id, &identifier("i"), "D\\a", NOW).await.unwrap();
        transaction.hold_generation(1).await.unwrap();
        let other = storage.clone();
        let closing = tokio::spawn(async move { close(&other, 1).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!closing.is_finished());
        transaction.insert_revision(&new_revision(id, Revision(1), b"x")).await.unwrap();
        transaction.commit().await.unwrap();
        let in_use = CloseOutcome::InUse { revisions: 1, credentials: 0 };
        assert_eq!(closing.await.unwrap(), in_use);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_writers_and_closers_race_nothing_is_under_a_closed_generation() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        for round in 0..6 {
            scene.sql("DELETE FROM configurations; UPDATE generations SET closed_at = NULL").await;
            let tasks: Vec<_> = (0..16)
                .map(|number| {
                    let (storage, id) = (storage.clone(), app.id);
                    tokio::spawn(async move {
                        if number % 4 == round % 4 {
                            let outcome = close(&storage, 3).await;
                            return (false, outcome == CloseOutcome::Closed);
                        }
                        match seal(&storage, id, &format!("c{number}"), 3).await {
                            Ok(()) => (true, false),
                            Err(StorageError::GenerationClosed(3)) => (false, false),
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            let (mut written, mut closed) = (0, 0);
            for task in tasks {
                let (wrote, did_close) = task.await.unwrap();
                written += i64::from(wrote);
                closed += i64::from(did_close);
            }
            let rows = scene.count("SELECT COUNT(*) FROM configuration_revisions").await;
            assert_eq!(rows, written);
            assert!(closed <= 1);
            assert!(closed == 0 || written == 0, "{closed} {written}");
            let open = open_generations(storage).await.contains(&3);
            assert_eq!(open, closed == 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_masters_that_come_at_once_only_one_epoch_wins() {
    on_each(async |scene| {
        scene.sql("DELETE FROM generations").await;
        let storage = &scene.storage;
        system(storage).await;
        let tasks: Vec<_> = (0..16_u64)
            .map(|number| {
                let storage = storage.clone();
                let offered = OfferedKeyRing {
                    primary: Uuid::from_u128(100 + u128::from(number)),
                    ..ring(7, &[1])
                };
                tokio::spawn(async move {
                    let mut transaction = storage.begin().await.unwrap();
                    let said = transaction.admit_key_ring(&offered, NOW).await.unwrap();
                    let taken = matches!(said, Admission::Admitted { .. });
                    transaction.commit().await.unwrap();
                    taken.then_some(offered.primary)
                })
            })
            .collect();
        let mut taken = Vec::new();
        for task in tasks {
            taken.extend(task.await.unwrap());
        }
        assert_eq!(taken.len(), 1);
        assert_eq!(storage.known_generations().await.unwrap().primary, Some(taken[0]));
    })
    .await;
}
