//! Who had an account name first.

use sso_server::{
    model::{Account, PageRequest, Principal},
    storage::{Storage, StorageError},
};
use time::Duration;

use super::{NOW, on_each};

fn principal(account: &str, subject: &str) -> Principal {
    Principal {
        account: Account::parse(account).unwrap(),
        subject: subject.to_owned(),
        first_seen_at: NOW,
        refused: None,
    }
}

async fn first(storage: Storage, principal: Principal) -> bool {
    let mut transaction = storage.begin().await.unwrap();
    let first = transaction.insert_principal(&principal).await.unwrap();
    transaction.commit().await.unwrap();
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_come_with_one_name_at_once_exactly_one_gets_it() {
    on_each(async |scene| {
        let ask = |number| {
            let principal = principal("CORP\\ann", &format!("https://idp.example|{number}"));
            tokio::spawn(first(scene.storage.clone(), principal))
        };
        let tasks: Vec<_> = (0..16).map(ask).collect();
        let mut first = 0;
        for task in tasks {
            first += u32::from(task.await.unwrap());
        }
        assert_eq!(first, 1);
        assert_eq!(scene.count("SELECT COUNT(*) FROM principals").await, 1);
    })
    .await;
}

#[tokio::test]
async fn names_are_kept_regardless_of_case_until_they_are_forgotten() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let ann = principal("CORP\\Ann", "unix|1000");
        assert!(first(storage.clone(), ann.clone()).await);
        assert!(first(storage.clone(), principal("CORP\\bob", "unix|1001")).await);
        assert!(!first(storage.clone(), principal("corp\\ANN", "unix|2000")).await);
        let other = Account::parse("corp\\ann").unwrap();
        assert_eq!(storage.principal(&other).await.unwrap(), Some(ann.clone()));

        let later = NOW + Duration::seconds(5);
        let mut transaction = storage.begin().await.unwrap();
        transaction.note_refused_principal(&other, "unix|2000", later).await.unwrap();
        transaction.commit().await.unwrap();
        let page = |size| PageRequest { size, after: None };
        let replaced = storage.principals(true, &page(10)).await.unwrap();
        let refused = Some(("unix|2000".to_owned(), later));
        assert_eq!(replaced.entries, [Principal { refused, ..ann }]);
        let one = storage.principals(false, &page(1)).await.unwrap();
        assert_eq!((one.entries.len(), one.next.is_some()), (1, true));
        let rest = PageRequest { size: 10, after: one.next };
        let rest = storage.principals(false, &rest).await.unwrap();
        assert_eq!(rest.entries[0].account.as_str(), "CORP\\bob");

        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.forget_principal(&other).await.unwrap());
        assert!(!transaction.forget_principal(&other).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(storage.principal(&other).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_was_moved_to_another_key_is_damage() {
    on_each(async |scene| {
        assert!(first(scene.storage.clone(), principal("CORP\\ann", "unix|1000")).await);
        scene.sql("UPDATE principals SET account_key = 'corp\\eve'").await;
        let found = scene.storage.principal(&Account::parse("CORP\\eve").unwrap()).await;
        assert!(matches!(found, Err(StorageError::Corrupt { .. })), "{found:?}");
    })
    .await;
}
