//! Sealed values by generation: counted, gone through, replaced.

use std::collections::BTreeSet;

use sso_server::{
    model::{Application, ApplicationType, MappingKey},
    storage::{
        ResealedRow, RowKey, SealedCount, SealedCredentials, SealedOwner, SealedRow, SealedTable,
        Storage, StorageError,
    },
};

use super::{NOW, Scene, application, identifier, insert, mappings, on_each, write};

/// Three revisions of one configuration, and so many mappings under generation 1.
pub(super) async fn filled(scene: &Scene, many: u32) -> Application {
    let app = Application { kind: ApplicationType::Individual, ..application("Orders") };
    insert(&scene.storage, &app).await.unwrap();
    for value in [b"one", b"two", b"tre"] {
        write(&scene.storage, app.id, &identifier("Prod"), value).await.unwrap();
    }
    let mut transaction = scene.storage.begin().await.unwrap();
    for number in 0..many {
        let mut mapping =
            mappings::mapping(app.id, &format!("D\\u{number}"), &format!("X{number}"));
        mapping.mapping.credentials_at = Some(NOW);
        let sealed = format!("sealed {number}").into_bytes();
        mapping.credentials = Some(SealedCredentials { generation: 1, sealed });
        assert!(transaction.insert_mapping(app.kind, &mapping).await.unwrap());
    }
    let bare = mappings::mapping(app.id, "D\\bare", "bare");
    assert!(transaction.insert_mapping(app.kind, &bare).await.unwrap());
    transaction.commit().await.unwrap();
    app
}

/// Every row of a table, read in pages of this size.
async fn all(
    storage: &Storage,
    table: SealedTable,
    generation: Option<u32>,
    page: u32,
) -> Vec<SealedRow> {
    let (mut rows, mut after) = (Vec::new(), None::<RowKey>);
    loop {
        let found = storage.sealed_rows(table, generation, after.as_ref(), page).await.unwrap();
        assert!(found.damaged.is_empty(), "{:?}", found.damaged);
        rows.extend(found.rows);
        after = found.next;
        if after.is_none() {
            return rows;
        }
    }
}

fn anew(row: &SealedRow) -> ResealedRow {
    let mut after = row.sealed.clone();
    after.reverse();
    ResealedRow { key: row.key.clone(), before: row.sealed.clone(), after }
}

/// Every row of a table, to be sealed anew.
pub(super) async fn all_anew(storage: &Storage, table: SealedTable) -> Vec<ResealedRow> {
    all(storage, table, None, 100).await.iter().map(anew).collect()
}

/// The mapping of this number in [`filled`].
fn account(number: u32) -> MappingKey {
    MappingKey::Account(sso_server::model::Account::parse(&format!("D\\u{number}")).unwrap())
}

pub(super) async fn reseal(
    storage: &Storage,
    table: SealedTable,
    generation: u32,
    rows: &[ResealedRow],
) -> Result<u64, StorageError> {
    let mut transaction = storage.begin().await?;
    let done = transaction.reseal(table, generation, rows).await?;
    transaction.commit().await?;
    Ok(done)
}

#[tokio::test]
async fn every_sealed_row_is_counted_and_read_once_with_what_it_is_sealed_to() {
    on_each(async |scene| {
        let app = filled(scene, 25).await;
        let storage = &scene.storage;
        let count = SealedCount { generation: 1, revisions: 3, credentials: 25 };
        assert_eq!(storage.count_sealed_rows().await.unwrap(), [count]);
        for page in [1, 2, 7, 25, 26, 100] {
            for generation in [None, Some(1)] {
                let rows = all(storage, SealedTable::Revisions, generation, page).await;
                let found: Vec<_> = rows.iter().map(|row| &*row.sealed).collect();
                assert_eq!(found, [b"one", b"two", b"tre"]);
                let rows = all(storage, SealedTable::Credentials, generation, page).await;
                let names: BTreeSet<_> = rows.iter().map(|row| row.name()).collect();
                assert_eq!((rows.len(), names.len()), (25, 25), "{page} {generation:?}");
                assert!(names.contains("mapping Orders/D\\u7"), "{names:?}");
            }
        }
        assert_eq!(all(storage, SealedTable::Credentials, Some(2), 10).await, []);
        let rows = all(storage, SealedTable::Revisions, None, 10).await;
        assert_eq!(rows[1].name(), "configuration Orders/Prod revision 2");
        let SealedOwner::Revision { application, identifier: of, revision, .. } = &rows[1].owner
        else {
            panic!("{:?}", rows[1]);
        };
        assert_eq!((*application, of, revision.0), (app.id, &identifier("Prod"), 2));
        let rows = all(storage, SealedTable::Credentials, None, 10).await;
        assert!(rows.iter().all(|row| matches!(&row.owner, SealedOwner::Mapping { kind, .. } if *kind == ApplicationType::Individual)));
    })
    .await;
}

#[tokio::test]
async fn values_are_replaced_with_their_generation_and_nothing_else() {
    on_each(async |scene| {
        let app = filled(scene, 30).await;
        let storage = &scene.storage;
        let key = account(3);
        let before = storage.mapping(app.id, &key).await.unwrap().unwrap();
        for table in SealedTable::ALL {
            let rows = all_anew(storage, table).await;
            let many = rows.len() as u64;
            // One alone, then all of them: the first is another one by now.
            assert_eq!(reseal(storage, table, 2, &rows[..1]).await, Ok(1));
            assert_eq!(reseal(storage, table, 2, &rows).await, Ok(many - 1));
            assert_eq!(reseal(storage, table, 3, &rows).await, Ok(0));
            assert_eq!(reseal(storage, table, 3, &[]).await, Ok(0));
            assert_eq!(all(storage, table, Some(1), 100).await, []);
            let after = all(storage, table, Some(2), 100).await;
            for (after, row) in after.iter().zip(&rows) {
                assert_eq!((&after.key, &after.sealed), (&row.key, &row.after));
            }
        }
        let after = storage.mapping(app.id, &key).await.unwrap().unwrap();
        assert_eq!(after.mapping, before.mapping);
        let sealed = after.credentials.unwrap();
        assert_eq!((sealed.generation, &*sealed.sealed), (2, &b"3 delaes"[..]));
        let counts = storage.count_sealed_rows().await.unwrap();
        assert_eq!(counts, [SealedCount { generation: 2, revisions: 3, credentials: 30 }]);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_was_changed_or_deleted_meanwhile_stays_as_it_is() {
    on_each(async |scene| {
        filled(scene, 4).await;
        let storage = &scene.storage;
        let rows = all_anew(storage, SealedTable::Credentials).await;
        scene
            .sql(if scene.is_postgres() {
                "UPDATE mappings SET sealed = 'changed' WHERE account = 'D\\u1'"
            } else {
                "UPDATE mappings SET sealed = CAST('changed' AS BLOB) WHERE account = 'D\\u1'"
            })
            .await;
        scene.sql("DELETE FROM mappings WHERE account = 'D\\u2'").await;
        assert_eq!(reseal(storage, SealedTable::Credentials, 2, &rows).await, Ok(2));
        let left = all(storage, SealedTable::Credentials, Some(1), 10).await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].sealed, b"changed");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_sealed_again_under_a_closed_generation() {
    on_each(async |scene| {
        filled(scene, 2).await;
        let rows = all_anew(&scene.storage, SealedTable::Credentials).await;
        scene.sql("UPDATE generations SET closed_at = 1 WHERE generation = 2").await;
        let refused = reseal(&scene.storage, SealedTable::Credentials, 2, &rows).await;
        assert_eq!(refused, Err(StorageError::GenerationClosed(2)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_another_transaction_holds_is_passed_over() {
    on_each(async |scene| {
        let app = filled(scene, 3).await;
        let storage = &scene.storage;
        if !scene.is_postgres() {
            // There is one writer at a time.
            return;
        }
        let rows = all_anew(storage, SealedTable::Credentials).await;
        let key = account(1);
        let mut holder = storage.begin().await.unwrap();
        holder.lock_mapping(app.id, &key).await.unwrap().unwrap();
        assert_eq!(reseal(storage, SealedTable::Credentials, 2, &rows).await, Ok(2));
        holder.rollback().await.unwrap();
        assert_eq!(reseal(storage, SealedTable::Credentials, 2, &rows).await, Ok(1));

        let rows = all_anew(storage, SealedTable::Revisions).await;
        let mut holder = storage.begin().await.unwrap();
        assert_eq!(holder.reseal(SealedTable::Revisions, 2, &rows[1..2]).await, Ok(1));
        assert_eq!(reseal(storage, SealedTable::Revisions, 2, &rows).await, Ok(2));
        holder.commit().await.unwrap();
        assert_eq!(reseal(storage, SealedTable::Revisions, 2, &rows).await, Ok(0));
        assert_eq!(all(storage, SealedTable::Revisions, Some(2), 10).await.len(), 3);
    })
    .await;
}

/// Transactions that wait for one another, which those of SQLite never do.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_row_that_is_sealed_again_gets_it_and_what_it_writes_stays() {
    on_each(async |scene| {
        let app = filled(scene, 3).await;
        let storage = &scene.storage;
        if !scene.is_postgres() {
            return;
        }
        let rows = all_anew(storage, SealedTable::Credentials).await;
        let number = |row: &ResealedRow| {
            let sealed = String::from_utf8(row.before.clone()).unwrap();
            sealed.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
        };
        let (first, last) = (account(number(&rows[0])), account(number(&rows[2])));
        // A circle: it holds the last row, which sealing again comes to last, and wants the first.
        let mut holder = storage.begin().await.unwrap();
        let held = holder.lock_mapping(app.id, &last).await.unwrap().unwrap().mapping;
        let resealing = reseal(storage, SealedTable::Credentials, 2, &rows);
        let wanting = async {
            holder.lock_mapping(app.id, &first).await.unwrap().unwrap();
            let sealed = SealedCredentials { generation: 1, sealed: b"by the holder".to_vec() };
            assert!(holder.set_credentials(&held, &sealed).await.unwrap());
            holder.commit().await.unwrap();
        };
        let (resealed, ()) = tokio::join!(resealing, wanting);
        assert!(matches!(resealed, Ok(1..=2)), "{resealed:?}");
        let left = reseal(storage, SealedTable::Credentials, 2, &rows).await.unwrap();
        assert_eq!(resealed.unwrap() + left, 2);
        let stays = all(storage, SealedTable::Credentials, Some(1), 10).await;
        assert_eq!((stays.len(), &*stays[0].sealed), (1, &b"by the holder"[..]));
        // All of them are held.
        let rows = all_anew(storage, SealedTable::Credentials).await;
        let mut holder = storage.begin().await.unwrap();
        for number in 0..3 {
            holder.lock_mapping(app.id, &account(number)).await.unwrap().unwrap();
        }
        assert_eq!(reseal(storage, SealedTable::Credentials, 2, &rows).await, Ok(0));
        holder.rollback().await.unwrap();
        assert_eq!(reseal(storage, SealedTable::Credentials, 2, &rows).await, Ok(3));
    })
    .await;
}

#[tokio::test]
async fn long_values_are_told_apart_by_their_beginning_and_replaced_whole() {
    on_each(async |scene| {
        filled(scene, 2).await;
        let storage = &scene.storage;
        for table in SealedTable::ALL {
            let long = |row: &SealedRow, fill: u8| ResealedRow {
                key: row.key.clone(),
                before: row.sealed.clone(),
                after: vec![fill; 300],
            };
            let rows = all(storage, table, None, 10).await;
            let many = rows.len() as u64;
            let rows: Vec<_> = rows.iter().map(|row| long(row, b'a')).collect();
            assert_eq!(reseal(storage, table, 1, &rows).await, Ok(many));
            let mut rows: Vec<_> =
                all(storage, table, None, 10).await.iter().map(|row| long(row, b'b')).collect();
            rows[0].before[30] = b'c';
            assert_eq!(reseal(storage, table, 2, &rows).await, Ok(many - 1));
            let after: Vec<_> =
                all(storage, table, None, 10).await.into_iter().map(|row| row.sealed).collect();
            assert_eq!(after[0], [b'a'; 300]);
            assert!(after[1..].iter().all(|sealed| *sealed == [b'b'; 300]));
        }
    })
    .await;
}

#[tokio::test]
async fn damaged_rows_are_named_and_hide_none_behind_them() {
    on_each(async |scene| {
        filled(scene, 5).await;
        scene.sql("UPDATE mappings SET external_user = '' WHERE account = 'D\\u2'").await;
        scene.sql("UPDATE configurations SET identifier = ' '").await;
        let storage = &scene.storage;
        let found = storage.sealed_rows(SealedTable::Credentials, None, None, 10).await.unwrap();
        assert_eq!((found.rows.len(), found.damaged.len()), (4, 1));
        assert_eq!(found.damaged[0].0, "mapping Orders/D\\u2");
        assert!(found.damaged[0].1.contains("external_user"), "{:?}", found.damaged);
        let found = storage.sealed_rows(SealedTable::Revisions, Some(1), None, 2).await.unwrap();
        assert_eq!((found.rows.len(), found.damaged.len()), (0, 2));
        assert!(found.next.is_some());
    })
    .await;
}
