//! Sweeps: what is counted is noted, and what is noted as empty is.

use std::{sync::Arc, time::Duration};

use sso_server::{
    model::{Application, ApplicationType, ConfigurationId, Revision},
    storage::{
        CloseOutcome, NewRevision, OtherGenerations, ResealedRow, SealedCount, SealedCredentials,
        SealedTable, Storage,
    },
};
use time::OffsetDateTime;
use tokio::sync::Barrier;
use uuid::Uuid;

use super::{
    NOW, Scene, application,
    generations::{close, led},
    group::record,
    identifier, insert, mappings, new_revision, on_each,
    sealed_rows::{all_anew, filled, reseal},
    write,
};

/// Generations that nothing is sealed under, as the database notes it.
async fn empty(storage: &Storage) -> Vec<u32> {
    let known = storage.known_generations().await.unwrap();
    known.generations.iter().filter(|it| it.is_empty).map(|it| it.number).collect()
}

async fn counted(storage: &Storage) -> Vec<(SealedCount, OffsetDateTime)> {
    let known = storage.known_generations().await.unwrap();
    known.generations.iter().filter_map(|it| it.counted).collect()
}

fn individual() -> Application {
    Application { kind: ApplicationType::Individual, ..application("Orders") }
}

#[tokio::test]
async fn a_sweep_notes_what_it_counted_and_what_is_empty_but_the_active_one() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        assert_eq!(counted(storage).await, []);
        let others = OtherGenerations { lower: true, higher: true };
        assert_eq!(storage.others_in_use(2).await.unwrap(), others);
        storage.sweep(2, NOW).await.unwrap();
        assert_eq!(empty(storage).await, [1, 3, 9]);
        assert_eq!(storage.others_in_use(2).await.unwrap(), OtherGenerations::default());
        let lower = OtherGenerations { lower: true, higher: false };
        assert_eq!(storage.others_in_use(3).await.unwrap(), lower);
        write(storage, app.id, &identifier("i"), b"x").await.unwrap();
        write(storage, app.id, &identifier("i"), b"y").await.unwrap();
        assert_eq!(empty(storage).await, [3, 9]);
        // An older count does not come over a newer one, but for one of a clock that was far ahead.
        let seconds = Duration::from_secs;
        let count = |generation, revisions| SealedCount { generation, revisions, credentials: 0 };
        let expected = [count(1, 2), count(2, 0), count(3, 0), count(9, 0)];
        for (at, noted) in [
            (NOW + seconds(5), NOW + seconds(5)),
            (NOW - seconds(5), NOW + seconds(5)),
            (NOW + seconds(100_000), NOW + seconds(100_000)),
            (NOW, NOW),
        ] {
            assert_eq!(storage.sweep(3, at).await.unwrap(), expected[..1]);
            assert_eq!(empty(storage).await, [2, 3, 9]);
            assert_eq!(counted(storage).await, expected.map(|count| (count, noted)));
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_writes_a_value_takes_the_note_away() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = individual();
        insert(storage, &app).await.unwrap();
        let config = application("c");
        insert(storage, &config).await.unwrap();
        let (id, _) = write(storage, config.id, &identifier("i"), b"one").await.unwrap();
        let mut mapping = mappings::mapping(app.id, "D\\u", "X");
        mapping.mapping.credentials_at = Some(NOW);
        let sealed = SealedCredentials { generation: 2, sealed: b"sealed".to_vec() };
        mapping.credentials = Some(sealed.clone());
        let rows = storage.sealed_rows(SealedTable::Revisions, None, None, 10).await.unwrap().rows;
        let resealed = ResealedRow {
            key: rows[0].key.clone(),
            before: rows[0].sealed.clone(),
            after: b"other".to_vec(),
        };
        let next = |after: u64| NewRevision {
            generation: 2,
            ..new_revision(id, Revision(after + 1), b"next")
        };
        for way in 0..4 {
            scene
                .sql(
                    "DELETE FROM mappings WHERE generation = 2; \
                      DELETE FROM configuration_revisions WHERE generation = 2",
                )
                .await;
            storage.sweep(1, NOW).await.unwrap();
            assert_eq!(empty(storage).await, [2, 3, 9]);
            // The short way of a write leaves it to the long one.
            let short = storage.write_on(&config, next(1), record(Uuid::now_v7())).await;
            assert_eq!(short, Ok(None));
            let mut transaction = storage.begin().await.unwrap();
            match way {
                0 => transaction.insert_revision(&next(9)).await.unwrap(),
                1 => assert!(transaction.insert_mapping(app.kind, &mapping).await.unwrap()),
                2 => {
                    let bare = mappings::mapping(app.id, "D\\bare", "bare");
                    assert!(transaction.insert_mapping(app.kind, &bare).await.unwrap());
                    transaction.set_credentials(&bare.mapping, &sealed).await.unwrap();
                }
                _ => {
                    let table = SealedTable::Revisions;
                    let rows = std::slice::from_ref(&resealed);
                    assert_eq!(transaction.reseal(table, 2, rows).await, Ok(1));
                }
            }
            transaction.commit().await.unwrap();
            assert_eq!(empty(storage).await, [3, 9], "{way}");
        }
        let short = storage.write_on(&config, next(1), record(Uuid::now_v7())).await.unwrap();
        assert!(short.is_some());
        // What is undone was nothing.
        storage.sweep(1, NOW).await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        transaction.hold_generation(3).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(empty(storage).await, [3, 9]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sweep_waits_for_who_is_writing_and_counts_what_it_wrote() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let id = ConfigurationId::generate();
        let mut transaction = storage.begin().await.unwrap();
        transaction.insert_configuration(id, app.id, &identifier("i"), "D\\a", NOW).await.unwrap();
        transaction.hold_generation(1).await.unwrap();
        let other = storage.clone();
        let sweeping = tokio::spawn(async move { other.sweep(2, NOW).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!sweeping.is_finished());
        transaction.insert_revision(&new_revision(id, Revision(1), b"x")).await.unwrap();
        transaction.commit().await.unwrap();
        sweeping.await.unwrap().unwrap();
        assert_eq!(empty(storage).await, [3, 9]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_sweeps_and_writers_race_what_is_called_empty_is() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        for round in 0..12 {
            scene.sql("DELETE FROM configurations").await;
            let start = Arc::new(Barrier::new(6));
            let tasks: Vec<_> = (0..6)
                .map(|number| {
                    let (storage, id, start) = (storage.clone(), app.id, Arc::clone(&start));
                    tokio::spawn(async move {
                        start.wait().await;
                        if number % 2 == 0 {
                            for _ in 0..3 {
                                storage.sweep(9, NOW).await.unwrap();
                            }
                        } else if number == 1 + 2 * (round % 3) {
                            write(&storage, id, &identifier("i"), b"x").await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let wrong = "SELECT COUNT(*) FROM generations g WHERE g.sweep = 'empty' AND EXISTS \
                         (SELECT 1 FROM configuration_revisions r WHERE r.generation = g.generation)";
            assert_eq!(scene.count(wrong).await, 0);
            assert_eq!(scene.count("SELECT COUNT(*) FROM configuration_revisions").await, 1);
        }
    })
    .await;
}

/// A program from before there were sweeps, or a hand that restores a row, writes beside the note.
#[tokio::test]
async fn a_sweep_finds_what_is_under_an_empty_a_closed_or_an_unknown_generation() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        storage.sweep(9, NOW).await.unwrap();
        assert_eq!(close(storage, 2).await, CloseOutcome::Closed);
        assert_eq!(empty(storage).await, [1, 2, 3]);
        let others = OtherGenerations { lower: true, higher: false };
        for (generation, known) in [(1, true), (2, true), (3, true), (7, false)] {
            write(storage, app.id, &identifier("i"), b"x").await.unwrap();
            let moved = format!(
                "UPDATE configuration_revisions SET generation = {generation}; \
                 UPDATE generations SET sweep = 'empty'"
            );
            scene.sql(moved.leak()).await;
            assert_eq!(storage.others_in_use(9).await.unwrap(), OtherGenerations::default());
            let counts = storage.sweep(9, NOW).await.unwrap();
            assert_eq!(counts.iter().map(|it| it.generation).collect::<Vec<_>>(), [generation]);
            assert_eq!(storage.others_in_use(9).await.unwrap(), others, "{generation}");
            assert!(!empty(storage).await.contains(&generation), "{generation}");
            let noted = if known { "generations" } else { "sealed_counts" };
            let noted = format!("SELECT COUNT(*) FROM {noted} WHERE generation = {generation}");
            assert_eq!(scene.count(noted.leak()).await, 1);
            scene.sql("DELETE FROM configurations").await;
            storage.sweep(9, NOW).await.unwrap();
            assert_eq!(storage.others_in_use(9).await.unwrap(), OtherGenerations::default());
        }
    })
    .await;
}

/// A program from before there were sweeps writes beside the note, as while servers are brought up to date.
#[tokio::test]
async fn closing_counts_whatever_is_noted() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        write(storage, app.id, &identifier("i"), b"x").await.unwrap();
        scene.sql("UPDATE generations SET sweep = 'empty' WHERE generation = 1").await;
        let in_use = CloseOutcome::InUse { revisions: 1, credentials: 0 };
        assert_eq!(close(storage, 1).await, in_use);
        // And is found by whoever seals again.
        assert_eq!(empty(storage).await, [0; 0]);
        scene.sql("DELETE FROM configurations").await;
        assert_eq!(close(storage, 1).await, CloseOutcome::Closed);
    })
    .await;
}

async fn indexes(scene: &Scene) -> i64 {
    scene
        .count(if scene.is_postgres() {
            "SELECT COUNT(*) FROM pg_indexes WHERE indexdef LIKE '%generation%' \
             AND tablename IN ('mappings', 'configuration_revisions')"
        } else {
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name LIKE '%by_generation'"
        })
        .await
}

/// On PostgreSQL an index with the generation would be written with every value that is sealed again.
#[tokio::test]
async fn sealing_again_changes_no_index_of_postgresql() {
    on_each(async |scene| {
        assert_eq!(indexes(scene).await, if scene.is_postgres() { 0 } else { 2 });
        if !scene.is_postgres() {
            return;
        }
        let storage = &scene.storage;
        filled(scene, 50).await;
        let table = SealedTable::Credentials;
        let rows = all_anew(storage, table).await;
        assert_eq!(reseal(storage, table, 2, &rows).await, Ok(50));
        // A connection brings its figures at its end at the latest.
        storage.close().await;
        let updated = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'mappings'";
        let told = async {
            while scene.count(updated).await < 50 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
        let hot = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'mappings'";
        assert_eq!(scene.count(hot).await, 50);
    })
    .await;
}
