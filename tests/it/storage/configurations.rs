use std::collections::BTreeSet;

use sso_server::{
    model::{ApplicationId, ConfigurationId, PageRequest, Revision},
    storage::{NewRevision, Storage, StorageError},
};

use super::{NOW, application, identifier, insert, new_revision, on_each, write};

#[tokio::test]
async fn writes_count_up_and_reads_bring_the_newest() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("{56D74464-67EA}");
        assert_eq!(storage.configuration(app.id, &key).await.unwrap(), None);
        assert_eq!(storage.configuration_head(app.id, &key).await.unwrap(), None);
        let (id, first) = write(storage, app.id, &key, b"one").await.unwrap();
        let (same, second) =
            write(storage, app.id, &identifier("{56d74464-67ea}"), b"two").await.unwrap();
        assert_eq!((first, second, same), (Revision(1), Revision(2), id));
        let read = storage.configuration(app.id, &identifier("{56d74464-67EA}")).await.unwrap();
        let read = read.unwrap();
        assert_eq!(read.sealed, b"two");
        assert_eq!(read.head.identifier.as_str(), "{56D74464-67EA}");
        assert_eq!((read.head.revision, read.head.deleted), (Revision(2), false));
        assert_eq!((read.head.updated_at, &*read.head.updated_by), (NOW, "DEV\\admin"));
        let old = storage.revision(id, Revision(1)).await.unwrap().unwrap();
        assert_eq!((&*old.sealed, old.generation), (&b"one"[..], 1));
        assert_eq!(storage.revision(id, Revision(3)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn large_and_empty_blobs_survive() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        // All 256 fields filled to the brim.
        let large = b"0123456789abcdef".repeat(66_000 * 16);
        for (text, sealed) in [("large", &*large), ("empty", b"")] {
            write(storage, app.id, &identifier(text), sealed).await.unwrap();
            let read = storage.configuration(app.id, &identifier(text)).await.unwrap().unwrap();
            assert!(read.sealed == sealed, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn history_holds_the_last_ten() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("i");
        for n in 0..13_u8 {
            write(storage, app.id, &key, &[n]).await.unwrap();
        }
        let mut transaction = storage.begin().await.unwrap();
        let taken = transaction.bump_revision(app.id, &key, "DEV\\x", NOW).await.unwrap().unwrap();
        assert_eq!((taken.revision, taken.was_deleted), (Revision(14), false));
        let back = transaction.revision(taken.id, Revision(4)).await.unwrap().unwrap();
        let new = NewRevision {
            rolled_back_to: Some(Revision(4)),
            changed: Vec::new(),
            ..new_revision(taken.id, taken.revision, &back.sealed)
        };
        transaction.insert_revision(&new).await.unwrap();
        transaction.commit().await.unwrap();

        let history = storage.history(taken.id).await.unwrap();
        let numbers: Vec<_> = history.iter().map(|entry| entry.revision.0).collect();
        assert_eq!(numbers, (5..=14).rev().collect::<Vec<_>>());
        assert_eq!(history[0].rolled_back_to, Some(Revision(4)));
        assert!(history[0].changed.is_empty());
        assert_eq!(history[1].changed, ["Url", "Quote \" and , comma"]);
        assert_eq!((history[1].written_at, &*history[1].written_by), (NOW, "DEV\\admin"));
        assert_eq!(scene.count("SELECT COUNT(*) FROM configuration_revisions").await, 10);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_counts_and_what_comes_after_it_goes_on() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("i");
        let (id, _) = write(storage, app.id, &key, b"one").await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        let head = transaction.lock_configuration(app.id, &key).await.unwrap().unwrap();
        assert_eq!((head.id, head.revision, head.deleted), (id, Revision(1), false));
        let number = transaction.delete_configuration(id, "DEV\\y", NOW).await.unwrap();
        assert_eq!(number, Some(Revision(2)));
        assert_eq!(transaction.delete_configuration(id, "DEV\\y", NOW).await.unwrap(), None);
        transaction.commit().await.unwrap();

        assert_eq!(storage.configuration(app.id, &key).await.unwrap(), None);
        assert!(storage.history(id).await.unwrap().is_empty());
        let head = storage.configuration_head(app.id, &key).await.unwrap().unwrap();
        assert_eq!((head.revision, head.deleted, &*head.updated_by), (Revision(2), true, "DEV\\y"));

        let mut transaction = storage.begin().await.unwrap();
        let taken = transaction.bump_revision(app.id, &key, "DEV\\z", NOW).await.unwrap().unwrap();
        assert_eq!((taken.id, taken.revision, taken.was_deleted), (id, Revision(3), true));
        transaction.insert_revision(&new_revision(id, Revision(3), b"new")).await.unwrap();
        transaction.commit().await.unwrap();
        let read = storage.configuration(app.id, &key).await.unwrap().unwrap();
        assert_eq!((read.head.revision, &*read.sealed), (Revision(3), &b"new"[..]));
        let (_, next) = write(storage, app.id, &key, b"newer").await.unwrap();
        assert_eq!(next, Revision(4));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_committed_never_was() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("i");
        write(storage, app.id, &key, b"one").await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        transaction.bump_revision(app.id, &key, "DEV\\x", NOW).await.unwrap().unwrap();
        drop(transaction);
        let mut transaction = storage.begin().await.unwrap();
        transaction.delete_application(app.id).await.unwrap();
        transaction.rollback().await.unwrap();
        let read = storage.configuration(app.id, &key).await.unwrap().unwrap();
        assert_eq!((read.head.revision, &*read.sealed), (Revision(1), &b"one"[..]));

        let mut transaction = storage.begin().await.unwrap();
        transaction.delete_application(app.id).await.unwrap();
        scene.clock.advance(std::time::Duration::from_secs(21));
        assert_eq!(transaction.commit().await.unwrap_err(), StorageError::TooSlow(20));
        assert!(storage.configuration(app.id, &key).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_first_writers_get_sixty_four_numbers() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let mut tasks = Vec::new();
        for n in 0..64_u8 {
            let storage = scene.storage.clone();
            tasks.push(tokio::spawn(async move {
                write(&storage, app.id, &identifier("i"), &[n]).await
            }));
        }
        let mut revisions = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for task in tasks {
            let (id, revision) = task.await.unwrap().unwrap();
            revisions.insert(revision.0);
            ids.insert(id);
        }
        assert_eq!(revisions, (1..=64).collect());
        assert_eq!(ids.len(), 1);
        assert_eq!(scene.count("SELECT COUNT(*) FROM configuration_revisions").await, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_writers_on_sight_of_one_revision_one_wins() {
    async fn attempt(
        storage: Storage,
        app: ApplicationId,
        seen: Revision,
    ) -> Result<bool, StorageError> {
        let mut transaction = storage.begin().await?;
        let taken = transaction.bump_revision(app, &identifier("i"), "DEV\\x", NOW).await?;
        let taken = taken.unwrap();
        if taken.revision.0 - 1 != seen.0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        transaction.insert_revision(&new_revision(taken.id, taken.revision, b"won")).await?;
        transaction.commit().await?;
        Ok(true)
    }
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        write(&scene.storage, app.id, &identifier("i"), b"first").await.unwrap();
        for round in 1..=5 {
            let tasks: Vec<_> = (0..64)
                .map(|_| tokio::spawn(attempt(scene.storage.clone(), app.id, Revision(round))))
                .collect();
            let mut won = 0;
            for task in tasks {
                won += u32::from(task.await.unwrap().unwrap());
            }
            assert_eq!(won, 1, "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn identifiers_are_listed_without_the_deleted() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let mut ids = Vec::<ConfigurationId>::new();
        for n in 0..9 {
            let key = identifier(&format!("I{n}"));
            ids.push(write(storage, app.id, &key, b"x").await.unwrap().0);
        }
        let mut transaction = storage.begin().await.unwrap();
        transaction.delete_configuration(ids[4], "x", NOW).await.unwrap();
        transaction.commit().await.unwrap();
        let mut found = Vec::new();
        let mut page = PageRequest { size: 3, after: None };
        loop {
            let part = storage.identifiers(app.id, &page).await.unwrap();
            found.extend(part.entries.into_iter().map(|head| head.identifier.as_str().to_owned()));
            let Some(next) = part.next else { break };
            page.after = Some(next);
        }
        assert_eq!(found, ["I0", "I1", "I2", "I3", "I5", "I6", "I7", "I8"]);
    })
    .await;
}
