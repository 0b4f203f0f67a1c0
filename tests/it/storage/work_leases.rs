//! Leases of work: one holder at a time, and whoever lost one notices.

use std::time::Duration;

use sso_server::storage::Storage;
use time::OffsetDateTime;

use super::{NOW, on_each};

const TTL: Duration = Duration::from_secs(10);

async fn take(storage: &Storage, holder: &str, now: OffsetDateTime) -> Option<u64> {
    let mut transaction = storage.begin().await.unwrap();
    let fencing = transaction.take_work_lease("work", holder, TTL, now).await.unwrap();
    transaction.commit().await.unwrap();
    fencing
}

async fn hold(storage: &Storage, holder: &str, fencing: u64, now: OffsetDateTime) -> bool {
    let mut transaction = storage.begin().await.unwrap();
    let held = transaction.hold_work_lease("work", holder, fencing, TTL, now).await.unwrap();
    transaction.commit().await.unwrap();
    held
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_ends_or_is_given_up() {
    on_each(async |scene| {
        let storage = &scene.storage;
        assert_eq!(take(storage, "one", NOW).await, Some(1));
        assert_eq!(take(storage, "two", NOW + TTL / 2).await, None);
        // Held, it goes on.
        assert!(hold(storage, "one", 1, NOW + TTL / 2).await);
        assert_eq!(take(storage, "two", NOW + TTL).await, None);
        // One that ended and that nobody took may still be held.
        assert!(hold(storage, "one", 1, NOW + TTL * 9).await);
        assert_eq!(take(storage, "two", NOW + TTL * 10).await, Some(2));
        assert!(!hold(storage, "one", 1, NOW + TTL * 10).await);
        assert!(!hold(storage, "one", 2, NOW + TTL * 10).await);
        assert!(!hold(storage, "two", 1, NOW + TTL * 10).await);
        assert!(hold(storage, "two", 2, NOW + TTL * 10).await);
        let mut transaction = storage.begin().await.unwrap();
        assert!(!transaction.end_work_lease("work", "one", 1).await.unwrap());
        assert!(transaction.end_work_lease("work", "two", 2).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(take(storage, "one", NOW + TTL * 10).await, Some(3));
        // Other work is another matter.
        let mut transaction = storage.begin().await.unwrap();
        let other = transaction.take_work_lease("other", "two", TTL, NOW).await.unwrap();
        assert_eq!(other, Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_a_wrong_clock_took_for_ever_ends() {
    on_each(async |scene| {
        assert_eq!(take(&scene.storage, "one", NOW + Duration::from_secs(86_400)).await, Some(1));
        assert_eq!(take(&scene.storage, "two", NOW).await, Some(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_who_take_a_lease_at_once_one_gets_it() {
    on_each(async |scene| {
        for round in 1..=4_u64 {
            let now = NOW + TTL * u32::try_from(round).unwrap() * 2;
            let tasks: Vec<_> = (0..16)
                .map(|number| {
                    let storage = scene.storage.clone();
                    tokio::spawn(async move { take(&storage, &format!("h{number}"), now).await })
                })
                .collect();
            let mut taken = Vec::new();
            for task in tasks {
                taken.extend(task.await.unwrap());
            }
            assert_eq!(taken, [round]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_holds_a_lease_in_a_transaction_keeps_others_from_taking_it() {
    on_each(async |scene| {
        let storage = &scene.storage;
        assert_eq!(take(storage, "one", NOW).await, Some(1));
        let late = NOW + TTL * 2;
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.hold_work_lease("work", "one", 1, TTL, late).await.unwrap());
        let other = storage.clone();
        let taking = tokio::spawn(async move { take(&other, "two", late).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!taking.is_finished());
        transaction.commit().await.unwrap();
        assert_eq!(taking.await.unwrap(), None);
        assert!(hold(storage, "one", 1, late).await);
    })
    .await;
}
