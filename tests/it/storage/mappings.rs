//! Mappings: who is unique where, lists, and what a stranger swapped.

use std::collections::BTreeSet;

use sso_server::{
    model::{
        Account, Application, ApplicationId, ApplicationType, ExternalUser, Mapping, MappingId,
        MappingKey, MappingState, PageRequest,
    },
    storage::{MappingFilter, SealedCredentials, Storage, StorageError, StoredMapping},
};
use time::Duration;

use super::{NOW, application, insert, on_each, schema::damaged};

use ApplicationType::{ConfigStore, Group, HostGroup, Individual};

fn account(text: &str) -> Account {
    Account::parse(text).unwrap()
}

fn user(text: &str) -> ExternalUser {
    ExternalUser::parse(text).unwrap()
}

fn by_account(text: &str) -> MappingKey {
    MappingKey::Account(account(text))
}

fn by_user(text: &str) -> MappingKey {
    MappingKey::ExternalUser(user(text))
}

pub(super) fn mapping(of: ApplicationId, account_text: &str, user_text: &str) -> StoredMapping {
    let mapping = Mapping {
        id: MappingId::generate(),
        application: of,
        account: account(account_text),
        external_user: user(user_text),
        state: MappingState::Disabled,
        credentials_at: None,
        created_at: NOW,
        updated_at: NOW + Duration::seconds(1),
        updated_by: "DEV\\Admin".to_owned(),
    };
    StoredMapping { mapping, credentials: None }
}

fn with_credentials(mut stored: StoredMapping, sealed: &[u8]) -> StoredMapping {
    stored.mapping.credentials_at = Some(NOW + Duration::microseconds(7));
    stored.credentials = Some(SealedCredentials { generation: 3, sealed: sealed.to_vec() });
    stored
}

async fn application_of(storage: &Storage, name: &str, kind: ApplicationType) -> Application {
    let windows_account = (kind == HostGroup).then(|| account("DEV\\host"));
    let application = Application { kind, windows_account, ..application(name) };
    insert(storage, &application).await.unwrap();
    application
}

/// Writes a mapping in a transaction of its own.
pub(super) async fn add(
    storage: &Storage,
    kind: ApplicationType,
    stored: &StoredMapping,
) -> Result<bool, StorageError> {
    let mut transaction = storage.begin().await?;
    let inserted = transaction.insert_mapping(kind, stored).await?;
    transaction.commit().await?;
    Ok(inserted)
}

#[tokio::test]
async fn a_mapping_comes_back_as_it_was_written_by_either_side() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application_of(storage, "a", Individual).await;
        let bare = mapping(app.id, "DEV\\Müller", "müller@Host 1");
        let full = with_credentials(mapping(app.id, "DEV\\Other", "OTHER"), b"\0sealed\xff");
        for stored in [&bare, &full] {
            assert_eq!(add(storage, Individual, stored).await, Ok(true));
        }
        let found = async |key| storage.mapping(app.id, &key).await.unwrap();
        assert_eq!(found(by_account("dev\\MÜLLER")).await, Some(bare.clone()));
        assert_eq!(found(by_user("MU\u{308}LLER@host 1")).await, Some(bare.clone()));
        assert_eq!(found(by_account("DEV\\other")).await, Some(full.clone()));
        let read = found(by_user("other")).await.unwrap();
        assert_eq!((&read, read.mapping.external_user.as_str()), (&full, "OTHER"));
        for key in [by_account("DEV\\nobody"), by_user("nobody"), by_user("DEV\\other")] {
            assert_eq!(found(key).await, None);
        }
        let elsewhere = ApplicationId::generate();
        assert_eq!(storage.mapping(elsewhere, &by_user("other")).await, Ok(None));

        let mut transaction = storage.begin().await.unwrap();
        for (key, expected) in [
            (by_account("dev\\müller"), Some(bare)),
            (by_user("Other"), Some(full)),
            (by_user("nobody"), None),
        ] {
            assert_eq!(transaction.lock_mapping(app.id, &key).await.unwrap(), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn each_type_has_its_unique_sides_and_a_conflict_ends_no_transaction() {
    on_each(async |scene| {
        let storage = &scene.storage;
        for (kind, same_account, same_user) in [
            (Individual, false, false),
            (Group, false, true),
            (HostGroup, true, false),
            (ConfigStore, false, false),
        ] {
            let app = application_of(storage, kind.as_str(), kind).await;
            let first = mapping(app.id, "DEV\\host", "One");
            let mut transaction = storage.begin().await.unwrap();
            assert!(transaction.insert_mapping(kind, &first).await.unwrap());
            let again = mapping(app.id, "dev\\HOST", "two");
            assert_eq!(transaction.insert_mapping(kind, &again).await.unwrap(), same_account);
            let again = mapping(app.id, "DEV\\another", "ONE");
            assert_eq!(transaction.insert_mapping(kind, &again).await.unwrap(), same_user);
            // In another transaction it is the same, and this one goes on.
            let third = mapping(app.id, "DEV\\third", "three");
            assert!(transaction.insert_mapping(kind, &third).await.unwrap());
            transaction.commit().await.unwrap();
            let both = mapping(app.id, "DEV\\HOST", "one");
            assert_eq!(add(storage, kind, &both).await, Ok(false), "{kind:?}");
            let read = storage.mapping(app.id, &by_user("three")).await.unwrap();
            assert_eq!(read, Some(third));
            // The one that was first stays what an ambiguous side names.
            for key in [by_account("DEV\\host"), by_user("one")] {
                assert_eq!(storage.mapping(app.id, &key).await.unwrap().as_ref(), Some(&first));
            }
        }
        // Other applications are other rooms.
        let other = application_of(storage, "other", Individual).await;
        assert_eq!(
            add(storage, Individual, &mapping(other.id, "DEV\\host", "One")).await,
            Ok(true)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_create_one_mapping_at_once_one_does() {
    on_each(async |scene| {
        let app = application_of(&scene.storage, "a", Individual).await;
        let tasks: Vec<_> = (0..16)
            .map(|number| {
                let storage = scene.storage.clone();
                let stored = mapping(app.id, "DEV\\one", &format!("user {number}"));
                tokio::spawn(async move { add(&storage, Individual, &stored).await })
            })
            .collect();
        let mut created = 0;
        for task in tasks {
            created += u32::from(task.await.unwrap().unwrap());
        }
        assert_eq!(created, 1);
        assert_eq!(scene.count("SELECT COUNT(*) FROM mappings").await, 1);
    })
    .await;
}

#[tokio::test]
async fn state_and_credentials_change_and_the_sides_stay() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application_of(storage, "a", Individual).await;
        let before = mapping(app.id, "DEV\\one", "one");
        let kept = with_credentials(mapping(app.id, "DEV\\kept", "kept"), b"kept");
        add(storage, Individual, &before).await.unwrap();
        add(storage, Individual, &kept).await.unwrap();

        let mut changed = Mapping {
            state: MappingState::DisabledByAdministrator,
            updated_at: NOW + Duration::hours(1),
            updated_by: "DEV\\two".to_owned(),
            ..before.mapping.clone()
        };
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.update_mapping(&changed).await.unwrap());
        transaction.commit().await.unwrap();
        let read = storage.mapping(app.id, &by_account("DEV\\one")).await.unwrap();
        assert_eq!(read, Some(StoredMapping { mapping: changed.clone(), credentials: None }));

        changed.state = MappingState::Enabled;
        changed.credentials_at = Some(NOW + Duration::hours(2));
        changed.updated_at = NOW + Duration::hours(2);
        let sealed = |text: &[u8]| SealedCredentials { generation: 9, sealed: text.to_vec() };
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.set_credentials(&changed, &sealed(b"first")).await.unwrap());
        assert!(transaction.set_credentials(&changed, &sealed(b"second")).await.unwrap());
        transaction.commit().await.unwrap();
        let read = storage.mapping(app.id, &by_account("DEV\\one")).await.unwrap().unwrap();
        assert_eq!(read.credentials, Some(sealed(b"second")));
        // Credentials say nothing of the state.
        changed.state = MappingState::DisabledByAdministrator;
        assert_eq!(read.mapping, changed);

        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_mapping(changed.id).await.unwrap());
        assert!(!transaction.delete_mapping(changed.id).await.unwrap());
        assert!(!transaction.update_mapping(&changed).await.unwrap());
        assert!(!transaction.set_credentials(&changed, &sealed(b"third")).await.unwrap());
        // What was unique is free again.
        let again = mapping(app.id, "DEV\\one", "one");
        assert!(transaction.insert_mapping(Individual, &again).await.unwrap());
        transaction.commit().await.unwrap();
        let read = storage.mapping(app.id, &by_user("one")).await.unwrap();
        assert_eq!(read, Some(again));
        let read = storage.mapping(app.id, &by_user("kept")).await.unwrap();
        assert_eq!(read, Some(kept));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_lock_a_mapping_follow_one_another() {
    async fn count_up(storage: Storage, of: ApplicationId, key: MappingKey) {
        let mut transaction = storage.begin().await.unwrap();
        let mut stored = transaction.lock_mapping(of, &key).await.unwrap().unwrap();
        let count: u32 = stored.mapping.updated_by.parse().unwrap();
        stored.mapping.updated_by = (count + 1).to_string();
        assert!(transaction.update_mapping(&stored.mapping).await.unwrap());
        transaction.commit().await.unwrap();
    }
    on_each(async |scene| {
        let app = application_of(&scene.storage, "a", HostGroup).await;
        let mut stored = mapping(app.id, "DEV\\host", "one");
        stored.mapping.updated_by = "0".to_owned();
        add(&scene.storage, HostGroup, &stored).await.unwrap();
        let keys = [by_user("one"), by_account("DEV\\host")];
        let tasks: Vec<_> = keys
            .iter()
            .cycle()
            .take(16)
            .map(|key| tokio::spawn(count_up(scene.storage.clone(), app.id, key.clone())))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let read = scene.storage.mapping(app.id, &keys[0]).await.unwrap().unwrap();
        assert_eq!(read.mapping.updated_by, "16");
    })
    .await;
}

#[tokio::test]
async fn mappings_go_with_their_application() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let gone = application_of(storage, "a", Group).await;
        let kept = application_of(storage, "b", Group).await;
        for of in [gone.id, kept.id] {
            for number in 0..3 {
                let stored = mapping(of, &format!("DEV\\{number}"), "one");
                add(storage, Group, &with_credentials(stored, b"x")).await.unwrap();
            }
        }
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_application(gone.id).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(scene.count("SELECT COUNT(*) FROM mappings").await, 3);
        assert_eq!(storage.mapping(gone.id, &by_user("one")).await, Ok(None));
        assert!(storage.mapping(kept.id, &by_user("one")).await.unwrap().is_some());
        let late = add(storage, Group, &mapping(gone.id, "DEV\\late", "late")).await;
        assert_eq!(late, Err(StorageError::Gone));
        assert!(StorageError::Gone.to_string().contains("application"));
    })
    .await;
}

/// Reads a list page by page; application and external user of each.
async fn listed(storage: &Storage, filter: &MappingFilter, size: u32) -> Vec<(String, Mapping)> {
    let mut found = Vec::new();
    let mut page = PageRequest { size, after: None };
    loop {
        let read = storage.mappings(filter, &page).await.unwrap();
        assert!(read.entries.len() <= usize::try_from(size).unwrap());
        let entries = read.entries.into_iter();
        found.extend(entries.map(|(mapping, name)| (name.as_str().to_owned(), mapping)));
        match read.next {
            Some(next) => page.after = Some(next),
            None => return found,
        }
    }
}

/// Applications of every type, with accounts that occur in many of them; every mapping.
async fn populate(storage: &Storage) -> Vec<(String, Mapping)> {
    let mut all = Vec::new();
    // The names are not in the order of their ids.
    for (name, kind) in
        [("m", HostGroup), ("Änderung", Group), ("b", Individual), ("Empty", Group), ("A b", Group)]
    {
        let app = application_of(storage, name, kind).await;
        if name == "Empty" {
            continue;
        }
        for number in (0..7).rev() {
            let mapping = match kind {
                HostGroup => mapping(app.id, "DEV\\host", &format!("User {number}")),
                Group => mapping(app.id, &format!("DEV\\Group {number}"), "Shared"),
                Individual | ConfigStore => {
                    mapping(app.id, &format!("DEV\\group {number}"), &format!("user {number}"))
                }
            };
            assert_eq!(add(storage, kind, &mapping).await, Ok(true));
            all.push((name.to_owned(), mapping.mapping));
        }
    }
    all.sort_by_key(|(name, mapping)| {
        (name.to_lowercase(), mapping.account.key().to_owned(), mapping.id)
    });
    all
}

#[tokio::test]
async fn lists_hold_what_every_filter_asks_for_at_every_page_size() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let all = populate(storage).await;
        assert_eq!(all.len(), 28);
        let mut of: Vec<_> = all.iter().map(|(_, mapping)| Some(mapping.application)).collect();
        of.dedup();
        of.extend([None, Some(ApplicationId::generate())]);
        let text = |text: &str| Some(text.to_owned());
        let accounts = [None, text("dev\\group 3"), text("dev\\host"), text("dev\\nobody\0")];
        let users = [None, text("shared"), text("user 3"), text("nobody")];
        let mut lengths = BTreeSet::new();
        for (application, account_key, external_user_key) in of.iter().flat_map(|of| {
            let of_account = accounts.iter().map(move |account| (*of, account.clone()));
            let users = &users;
            of_account.flat_map(move |(of, account)| {
                users.iter().map(move |user| (of, account.clone(), user.clone()))
            })
        }) {
            let filter = MappingFilter { application, account_key, external_user_key };
            let fits =
                |given: &Option<String>, key: &str| given.as_deref().is_none_or(|k| k == key);
            let expected: Vec<_> = all
                .iter()
                .filter(|(_, mapping)| {
                    filter.application.is_none_or(|of| of == mapping.application)
                        && fits(&filter.account_key, mapping.account.key())
                        && fits(&filter.external_user_key, mapping.external_user.key())
                })
                .cloned()
                .collect();
            lengths.insert(expected.len());
            for size in [1, 3, 7, 1000] {
                assert_eq!(listed(storage, &filter, size).await, expected, "{filter:?} by {size}");
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 7, 14, 28]);
    })
    .await;
}

#[tokio::test]
async fn pages_go_on_where_mappings_and_applications_vanished() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let all = populate(storage).await;
        let filter = MappingFilter::default();
        let page = PageRequest { size: 9, after: None };
        let first = storage.mappings(&filter, &page).await.unwrap();
        // The last one of the page, and the application that the next page begins in.
        let (last, _) = &first.entries[8];
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_mapping(last.id).await.unwrap());
        transaction.commit().await.unwrap();
        let page = PageRequest { size: 1000, after: first.next };
        let rest = storage.mappings(&filter, &page).await.unwrap();
        let ids = |entries: &[(Mapping, _)]| entries.iter().map(|(m, _)| m.id).collect::<Vec<_>>();
        assert_eq!(ids(&rest.entries), all[9..].iter().map(|(_, m)| m.id).collect::<Vec<_>>());

        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_application(last.application).await.unwrap());
        transaction.commit().await.unwrap();
        let rest = storage.mappings(&filter, &page).await.unwrap();
        assert_eq!(ids(&rest.entries), all[14..].iter().map(|(_, m)| m.id).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_page_behind_no_mapping_of_the_list_is_empty() {
    on_each(async |scene| {
        let storage = &scene.storage;
        populate(storage).await;
        let of_account = MappingFilter {
            account_key: Some("dev\\group 3".to_owned()),
            ..MappingFilter::default()
        };
        for (filter, after) in [
            (&MappingFilter::default(), "m"),
            (&MappingFilter::default(), "m\ndev\\host"),
            (&of_account, "a b\ndev\\group 2\n0"),
        ] {
            let page = PageRequest { size: 9, after: Some(after.to_owned()) };
            let read = storage.mappings(filter, &page).await.unwrap();
            assert!(read.entries.is_empty() && read.next.is_none(), "{after:?}");
        }
        // What no database keeps is nowhere, too.
        let page = PageRequest { size: 9, after: Some("m\0\n\0\n\0".to_owned()) };
        assert!(storage.mappings(&MappingFilter::default(), &page).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn damaged_mappings_are_named_and_never_believed() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application_of(storage, "a", Individual).await;
        let (one, two) = (mapping(app.id, "DEV\\one", "one"), mapping(app.id, "DEV\\two", "two"));
        for stored in [&one, &two] {
            add(storage, Individual, &with_credentials(stored.clone(), b"x")).await.unwrap();
        }
        let by_key =
            async |storage: &Storage| storage.mapping(app.id, &by_account("DEV\\one")).await;
        let by_page = async |storage: &Storage| {
            let page = PageRequest { size: 9, after: None };
            storage.mappings(&MappingFilter::default(), &page).await
        };
        let by_lock = async |storage: &Storage| {
            storage.begin().await?.lock_mapping(app.id, &by_account("DEV\\one")).await
        };
        // The first one answers to the account of the other, and the other way round.
        let swapped = "UPDATE mappings SET account_key = CASE account_key \
                       WHEN 'dev\\one' THEN 'dev\\two' ELSE 'dev\\one' END";
        damaged(scene, swapped, "mappings", by_key).await;
        damaged(scene, "SELECT 1", "mappings", by_page).await;
        damaged(scene, "SELECT 1", "mappings", by_lock).await;
        scene.sql(swapped).await;
        assert!(by_key(storage).await.unwrap().is_some());
        for sql in [
            "UPDATE mappings SET external_user = 'twö'",
            "UPDATE mappings SET external_user = ' '",
            "UPDATE mappings SET external_user = external_user_key, account = 'DEV\\One '",
            "UPDATE mappings SET account = account_key, state = 'asleep'",
            "UPDATE mappings SET state = 'enabled', unique_account_key = id",
            "UPDATE mappings SET unique_account_key = account_key, unique_external_user_key = id",
            "UPDATE mappings SET unique_external_user_key = external_user_key, \
             credentials_at = 9223372036854775807",
            "UPDATE mappings SET credentials_at = 0, updated_at = 9223372036854775807",
        ] {
            damaged(scene, sql, "mappings", by_key).await;
            damaged(scene, "SELECT 1", "mappings", by_page).await;
        }
        for sql in [
            "UPDATE mappings SET updated_at = 0, credentials_at = NULL",
            "UPDATE mappings SET credentials_at = 0, sealed = NULL",
            "UPDATE mappings SET credentials_at = NULL, generation = 1",
            "UPDATE mappings SET credentials_at = NULL, generation = 4294967296",
        ] {
            damaged(scene, sql, "mappings", by_key).await;
        }
        // Nothing of it: no credentials were set.
        scene.sql("UPDATE mappings SET generation = NULL").await;
        assert_eq!(by_key(storage).await.unwrap().unwrap().credentials, None);
        let sql = "UPDATE applications SET name = 'other'";
        damaged(scene, sql, "applications", by_page).await;
    })
    .await;
}
