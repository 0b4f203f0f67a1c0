//! Tickets that are redeemed once.

use std::sync::Arc;

use futures_util::StreamExt as _;
use sso_core::clock::Clock;
use sso_server::{
    model::ApplicationId,
    storage::{Storage, StorageError},
};
use time::{Duration, OffsetDateTime};
use tokio::sync::Barrier;
use uuid::Uuid;

use super::{NOW, application, insert, on_each, open};

const IN_TWO_MINUTES: OffsetDateTime = NOW.saturating_add(Duration::minutes(2));

async fn redeem(storage: &Storage, ticket: Uuid, by: ApplicationId) -> Result<bool, StorageError> {
    storage.redeem_ticket(ticket, by, (NOW, IN_TWO_MINUTES)).await
}

/// Redeems some at a time.
async fn all_first(
    redeems: impl Iterator<Item = impl Future<Output = Result<bool, StorageError>>>,
) {
    let mut redeems = futures_util::stream::iter(redeems).buffer_unordered(64);
    while let Some(first) = redeems.next().await {
        assert_eq!(first, Ok(true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_redeems_at_once_exactly_one_is_first() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        // Four servers on one database.
        let mut servers = Vec::new();
        for _ in 0..4 {
            servers.push(open(&scene.url, &Clock::System).await);
        }
        for _ in 0..5 {
            let ticket = Uuid::now_v7();
            let start = Arc::new(Barrier::new(64));
            let tasks: Vec<_> = (0..64)
                .map(|number| {
                    let (storage, start) = (servers[number % 4].clone(), Arc::clone(&start));
                    let id = app.id;
                    tokio::spawn(async move {
                        start.wait().await;
                        redeem(&storage, ticket, id).await
                    })
                })
                .collect();
            let mut first = 0;
            for task in tasks {
                first += u32::from(task.await.unwrap().unwrap());
            }
            assert_eq!(first, 1);
        }
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 5);
        for server in servers {
            server.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_redeem_counts_for_its_application() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let (one, other) = (application("a"), application("b"));
        insert(storage, &one).await.unwrap();
        insert(storage, &other).await.unwrap();
        let ticket = Uuid::now_v7();
        assert_eq!(redeem(storage, ticket, one.id).await, Ok(true));
        assert_eq!(redeem(storage, ticket, one.id).await, Ok(false));
        assert_eq!(redeem(storage, ticket, other.id).await, Ok(true));
        assert_eq!(redeem(storage, Uuid::now_v7(), one.id).await, Ok(true));

        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_application(one.id).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 1);
        assert_eq!(redeem(storage, ticket, one.id).await, Err(StorageError::Gone));
        assert_eq!(redeem(storage, ticket, other.id).await, Ok(false));
    })
    .await;
}

#[tokio::test]
async fn pruning_takes_a_thousand_of_the_expired_and_none_else() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let (one, other) = (application("a"), application("b"));
        insert(storage, &one).await.unwrap();
        insert(storage, &other).await.unwrap();
        let redeems = (0..1200).map(|number| {
            let by = if number % 2 == 0 { one.id } else { other.id };
            let expires = NOW + Duration::seconds(number);
            storage.redeem_ticket(Uuid::now_v7(), by, (NOW, expires))
        });
        all_first(redeems).await;
        let prune = async |before| {
            let mut transaction = storage.begin().await.unwrap();
            let pruned = transaction.prune_redeemed_tickets(before).await.unwrap();
            transaction.commit().await.unwrap();
            pruned
        };
        assert_eq!(prune(NOW).await, 0);
        assert_eq!(prune(NOW + Duration::seconds(3)).await, 3);
        let before = NOW + Duration::seconds(1190);
        assert_eq!(prune(before).await, 1000);
        // The oldest went first.
        let oldest = scene.count("SELECT MIN(expires_at) FROM redeemed_tickets").await;
        let expected = (NOW + Duration::seconds(1003)).unix_timestamp_nanos() / 1000;
        assert_eq!(i128::from(oldest), expected);
        assert_eq!(prune(before).await, 187);
        assert_eq!(prune(before).await, 0);
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_prune_at_once_do_not_get_in_each_others_way() {
    async fn prune(storage: Storage) -> u64 {
        let mut transaction = storage.begin().await.unwrap();
        let before = NOW + Duration::hours(1);
        let pruned = transaction.prune_redeemed_tickets(before).await.unwrap();
        transaction.commit().await.unwrap();
        pruned
    }
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let storage = &scene.storage;
        let redeems = (0..600).map(|_| storage.redeem_ticket(Uuid::new_v4(), app.id, (NOW, NOW)));
        all_first(redeems).await;
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(prune(scene.storage.clone()))).collect();
        let mut pruned = 0;
        for task in tasks {
            pruned += task.await.unwrap();
        }
        assert_eq!(pruned, 600);
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_refused_spoils_none_of_those_that_come_with_it() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let gone = application("b").id;
        let start = Arc::new(Barrier::new(64));
        let tasks: Vec<_> = (0..64)
            .map(|number| {
                let (storage, start) = (scene.storage.clone(), Arc::clone(&start));
                let by = if number % 8 == 5 { gone } else { app.id };
                tokio::spawn(async move {
                    start.wait().await;
                    (number, redeem(&storage, Uuid::new_v4(), by).await)
                })
            })
            .collect();
        for task in tasks {
            let (number, first) = task.await.unwrap();
            let expected = if number % 8 == 5 { Err(StorageError::Gone) } else { Ok(true) };
            assert_eq!(first, expected, "{number}");
        }
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 56);
    })
    .await;
}
