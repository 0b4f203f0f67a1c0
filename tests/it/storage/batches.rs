//! Reads that come together and are few statements.

use std::sync::Arc;

use sso_server::{
    model::{Account, Application, ApplicationType, ExternalUser, MappingKey},
    storage::{SealedCredentials, Storage, StorageError},
};

use super::{application, identifier, insert, mappings::mapping, name, on_each, write};

/// More than go with one statement.
const MANY: usize = 100;

fn by_account(number: usize) -> MappingKey {
    MappingKey::Account(Account::parse(&format!("dev\\USER{number}")).unwrap())
}

fn by_user(number: usize) -> MappingKey {
    MappingKey::ExternalUser(ExternalUser::parse(&format!("u{number}")).unwrap())
}

/// Two applications of the same accounts, with mappings and configurations whose sealed bytes say
/// which one they are of.
async fn fill(storage: &Storage) -> [Application; 2] {
    let applications = ["a", "b"]
        .map(|name| Application { kind: ApplicationType::Individual, ..application(name) });
    for (place, application) in applications.iter().enumerate() {
        insert(storage, application).await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        for number in 0..MANY {
            let (account, user) = (format!("DEV\\User{number}"), format!("U{number}"));
            let mut stored = mapping(application.id, &account, &user);
            stored.mapping.credentials_at = Some(stored.mapping.created_at);
            let sealed = format!("{place} {number}").into_bytes();
            stored.credentials = Some(SealedCredentials { generation: 1, sealed });
            assert!(transaction.insert_mapping(application.kind, &stored).await.unwrap());
        }
        transaction.commit().await.unwrap();
        for number in 0..10 {
            let sealed = format!("{place} {number}");
            let identifier = identifier(&format!("I{number}"));
            write(storage, application.id, &identifier, sealed.as_bytes()).await.unwrap();
        }
    }
    applications
}

#[tokio::test]
async fn whatever_comes_together_everybody_gets_its_own() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let applications = Arc::new(fill(storage).await);
        // Some keys twice, some that are not there.
        let keys: Vec<_> = (0..2).flat_map(|of| (0..MANY + 5).map(move |it| (of, it))).collect();
        let keys: Vec<_> = keys.iter().chain(keys.iter().take(50)).copied().collect();
        let tasks = keys.into_iter().map(|(of, number)| {
            let (storage, applications) = (storage.clone(), Arc::clone(&applications));
            tokio::spawn(async move {
                let id = applications[of].id;
                let expected = (number < MANY).then(|| format!("{of} {number}").into_bytes());
                for key in [by_account(number), by_user(number)] {
                    let found = storage.mapping(id, &key).await.unwrap();
                    let sealed = found.map(|it| it.credentials.unwrap().sealed);
                    assert_eq!(sealed, expected, "{key}");
                }
                let expected = (number < 10).then(|| format!("{of} {number}").into_bytes());
                let key = identifier(&format!("i{number}"));
                let found = storage.configuration(id, &key).await.unwrap();
                assert_eq!(found.map(|it| it.sealed), expected, "{key}");
                let known = [("A", Some(0)), ("b", Some(1)), ("c", None)];
                for (text, place) in known {
                    let found = storage.application(&name(text)).await.unwrap();
                    assert_eq!(found.as_deref(), place.map(|place| &applications[place]));
                }
            })
        });
        // All are under way before the first is waited for.
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_damaged_row_spoils_no_other_of_its_batch() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let [one, _] = fill(storage).await;
        scene.sql("UPDATE mappings SET state = 'sleeping' WHERE external_user = 'U7'").await;
        for _ in 0..3 {
            let reads = (0..MANY).map(|number| {
                let storage = storage.clone();
                tokio::spawn(async move {
                    let found = storage.mapping(one.id, &by_account(number)).await;
                    match number {
                        7 => assert!(matches!(found, Err(StorageError::Corrupt { .. }))),
                        _ => assert!(found.unwrap().is_some()),
                    }
                })
            });
            for read in reads.collect::<Vec<_>>() {
                read.await.unwrap();
            }
        }
    })
    .await;
}
