use std::{collections::BTreeSet, time::Duration};

use sso_core::clock::Clock;
use sso_server::{
    model::{MappingId, Revision},
    storage::{Change, ChangeFeed, Storage, Transaction},
};
use sso_tests::{
    postgres,
    proxy::{Flow, Proxy},
};

use super::{NOW, Scene, application, identifier, insert, on_each, open, write};

async fn begin(scene: &Scene) -> (Transaction, u64) {
    let mut transaction = scene.storage.begin().await.unwrap();
    let number = transaction.insert_change(Change::System, NOW).await.unwrap();
    (transaction, number)
}

async fn change(scene: &Scene) -> u64 {
    let (transaction, number) = begin(scene).await;
    transaction.commit().await.unwrap();
    number
}

async fn poll(feed: &mut ChangeFeed, storage: &Storage) -> Vec<u64> {
    let new = feed.poll(storage, true).await.unwrap();
    assert!(!new.everything);
    new.records.iter().map(|record| record.number).collect()
}

#[tokio::test]
async fn a_feed_tells_each_change_once() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let mut from_empty = storage.change_feed().await.unwrap();
        assert!(poll(&mut from_empty, storage).await.is_empty());
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let (id, _) = write(storage, app.id, &identifier("i"), b"x").await.unwrap();
        let changes = [
            Change::System,
            Change::Application(app.id),
            Change::Configuration(app.id, id),
            Change::Mappings(app.id),
            Change::Mapping(app.id, MappingId::generate()),
        ];
        let mut transaction = storage.begin().await.unwrap();
        for change in changes {
            transaction.insert_change(change, NOW).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let mut unwatched = from_empty.clone();
        let bare = unwatched.poll(storage, false).await.unwrap();
        assert!(!bare.everything && bare.records.iter().all(|record| record.head.is_none()));
        let told: Vec<_> = bare.records.iter().map(|record| record.change).collect();
        assert_eq!(told, changes);
        let new = from_empty.poll(storage, true).await.unwrap();
        assert!(!new.everything);
        assert_eq!(unwatched.highest(), from_empty.highest());
        let told: Vec<_> = new.records.iter().map(|record| record.change).collect();
        assert_eq!(told, changes);
        let head = new.records[2].head.as_ref().unwrap();
        assert_eq!(
            (head.identifier.as_str(), head.revision, head.deleted),
            ("i", Revision(1), false)
        );
        assert_eq!(new.records[2].at, NOW);
        assert!(poll(&mut from_empty, storage).await.is_empty());
        assert_eq!(new.records[3].head, None);
        assert_eq!(from_empty.position(), new.records[4].number);

        // A later feed does not repeat the past.
        let mut later = storage.change_feed().await.unwrap();
        assert!(poll(&mut later, storage).await.is_empty());
        let number = change(scene).await;
        assert_eq!(poll(&mut later, storage).await, [number]);
    })
    .await;
}

#[tokio::test]
async fn many_changes_come_in_one_poll() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let mut feed = storage.change_feed().await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        for _ in 0..1234 {
            transaction.insert_change(Change::System, NOW).await.unwrap();
        }
        transaction.commit().await.unwrap();
        assert_eq!(poll(&mut feed, storage).await.len(), 1234);
    })
    .await;
}

#[tokio::test]
async fn a_lower_number_that_commits_later_is_not_lost() {
    on_each(async |scene| {
        // SQLite has one writer: numbers are given out in the order of commits.
        if !scene.is_postgres() {
            return;
        }
        let storage = &scene.storage;
        change(scene).await;
        let mut feed = storage.change_feed().await.unwrap();
        let (slow, slow_number) = begin(scene).await;
        let (slower, slower_number) = begin(scene).await;
        let quick = change(scene).await;
        assert!(slow_number < slower_number && slower_number < quick);
        assert_eq!(poll(&mut feed, storage).await, [quick]);
        assert_eq!(feed.position(), slow_number - 1);
        // A feed that begins now has to wait for them as well.
        let mut late = storage.change_feed().await.unwrap();
        slower.commit().await.unwrap();
        assert_eq!(poll(&mut feed, storage).await, [slower_number]);
        assert_eq!(poll(&mut late, storage).await, [slower_number]);
        scene.clock.advance(Duration::from_secs(15));
        slow.commit().await.unwrap();
        let next = change(scene).await;
        // Who knows of the slow one does not hear of it again, and of the one behind it all the same.
        let mut knowing = feed.clone();
        knowing.pass(slow_number);
        assert_eq!(poll(&mut knowing, storage).await, [next]);
        assert_eq!(poll(&mut feed, storage).await, [slow_number, next]);
        assert_eq!(poll(&mut late, storage).await, [slow_number, next]);
        assert_eq!((feed.position(), late.position()), (next, next));
    })
    .await;
}

#[tokio::test]
async fn a_look_that_takes_long_makes_nobody_late() {
    let options = postgres::Options { tcp: true, ..postgres::Options::default() };
    let Some(server) = postgres::Server::start(options) else { return };
    let direct = server.database();
    let (proxy, url) = Proxy::before_database(&direct);
    let clock = Clock::manual(NOW);
    let storage = open(&url, &clock).await;
    storage.migrate().await.unwrap();
    let scene = Scene { storage: storage.clone(), clock, url: direct };
    // Until a minute later no answer of the database arrives.
    let hold = || proxy.flow(Flow::Pass, Flow::BlackHole);
    let late = async || {
        scene.clock.advance(Duration::from_secs(70));
        proxy.heal();
    };
    for begins in [false, true] {
        change(&scene).await;
        let mut feed = storage.change_feed().await.unwrap();
        let mut slow = scene.stranger().await;
        let mut slow = sqlx::Connection::begin(&mut slow).await.unwrap();
        let insert = "INSERT INTO changes (kind, at) VALUES ('system', 0)";
        sqlx::raw_sql(insert).execute(&mut *slow).await.unwrap();
        let quick = change(&scene).await;
        hold();
        if begins {
            let (begun, ()) = tokio::join!(storage.change_feed(), late());
            feed = begun.unwrap();
        } else {
            let (seen, ()) = tokio::join!(poll(&mut feed, &storage), late());
            assert_eq!(seen, [quick]);
        }
        assert!(poll(&mut feed, &storage).await.is_empty());
        slow.commit().await.unwrap();
        assert_eq!(poll(&mut feed, &storage).await, [quick - 1], "{begins}");
    }
    storage.close().await;
}

#[tokio::test]
async fn a_number_that_never_comes_is_given_up() {
    on_each(async |scene| {
        if !scene.is_postgres() {
            return;
        }
        let storage = &scene.storage;
        let mut feed = storage.change_feed().await.unwrap();
        let (undone, missing) = begin(scene).await;
        undone.rollback().await.unwrap();
        let number = change(scene).await;
        assert_eq!(poll(&mut feed, storage).await, [number]);
        scene.clock.advance(Duration::from_secs(59));
        assert!(poll(&mut feed, storage).await.is_empty());
        assert_eq!(feed.position(), missing - 1);
        scene.clock.advance(Duration::from_secs(2));
        assert!(poll(&mut feed, storage).await.is_empty());
        assert_eq!(feed.position(), number);
    })
    .await;
}

#[tokio::test]
async fn a_feed_that_slept_through_changes_says_so() {
    on_each(async |scene| {
        let storage = &scene.storage;
        change(scene).await;
        let mut asleep = storage.change_feed().await.unwrap();
        let mut awake = asleep.clone();
        for _ in 0..20 {
            change(scene).await;
        }
        assert_eq!(poll(&mut awake, storage).await.len(), 20);
        let mut transaction = storage.begin().await.unwrap();
        assert_eq!(transaction.prune_changes(5).await.unwrap(), 16);
        transaction.commit().await.unwrap();
        assert!(poll(&mut awake, storage).await.is_empty());
        let new = asleep.poll(storage, true).await.unwrap();
        assert!(new.everything && new.records.is_empty());
        let number = change(scene).await;
        assert_eq!(poll(&mut asleep, storage).await, [number]);
        assert_eq!(poll(&mut awake, storage).await, [number]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_is_lost_among_many_writers() {
    on_each(async |scene| {
        let mut feed = scene.storage.change_feed().await.unwrap();
        // Two servers: two pools.
        let other = open(&scene.url, &scene.clock).await;
        let mut tasks = Vec::new();
        for n in 0..16_u64 {
            let storage = if n % 2 == 0 { scene.storage.clone() } else { other.clone() };
            tasks.push(tokio::spawn(async move {
                let mut numbers = Vec::new();
                for turn in 0..12_u64 {
                    let mut transaction = storage.begin().await.unwrap();
                    numbers.push(transaction.insert_change(Change::System, NOW).await.unwrap());
                    // Different times between number and commit put commits out of order.
                    tokio::time::sleep(Duration::from_millis((n * 7 + turn * 3) % 11)).await;
                    if (n + turn) % 5 == 0 {
                        numbers.pop();
                        transaction.rollback().await.unwrap();
                    } else {
                        transaction.commit().await.unwrap();
                    }
                }
                numbers
            }));
        }
        let mut seen = Vec::new();
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            seen.extend(poll(&mut feed, &scene.storage).await);
        }
        let mut committed = BTreeSet::new();
        for task in tasks {
            committed.extend(task.await.unwrap());
        }
        seen.extend(poll(&mut feed, &scene.storage).await);
        assert_eq!(seen.len(), committed.len(), "a change was told twice or not at all");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), committed);
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_hears_that_another_one_changed_something_and_not_itself() {
    on_each(async |scene| {
        // On one machine a server looks by itself, and is told nothing.
        if !scene.is_postgres() {
            scene.storage.notify().await.unwrap();
            return;
        }
        let other = open(&scene.url, &scene.clock).await;
        let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
        let listener = other.clone();
        let listening = tokio::spawn(async move { listener.listen(|| _ = heard.send(())).await });
        // From the first word on, nothing goes unheard.
        let wait = Duration::from_secs(20);
        let mut hear = async || {
            tokio::time::timeout(wait, hearing.recv()).await.unwrap().unwrap();
            hearing.len()
        };
        assert_eq!(hear().await, 0);
        for _ in 0..3 {
            // Words come in the order in which they were said.
            other.notify().await.unwrap();
            scene.storage.notify().await.unwrap();
            assert_eq!(hear().await, 0, "its own word was heard");
        }
        // Whoever was cut off is told that something may have gone by.
        scene
            .sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND query LIKE 'LISTEN%'",
            )
            .await;
        hear().await;
        scene.storage.notify().await.unwrap();
        hear().await;
        listening.abort();
    })
    .await;
}
