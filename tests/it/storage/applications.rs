use sso_server::{
    model::{Application, ApplicationType, Field, Label, MAX_FIELDS, PageRequest},
    storage::{ApplicationFilter, Storage, StorageError},
};
use time::Duration;

use super::{NOW, accounts, application, fields, identifier, insert, name, on_each, write};

#[tokio::test]
async fn an_application_comes_back_as_it_was_written() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let written = application("Order Routing.Settings");
        insert(storage, &written).await.unwrap();
        let read = storage.application(&name("ORDER routing.SETTINGS")).await.unwrap().unwrap();
        assert_eq!(read, written);
        assert_eq!(read.name.as_str(), "Order Routing.Settings");
        assert_eq!(read.users.to_texts(), ["DEV\\Zeta", "DEV\\alpha"]);
        assert_eq!(storage.application(&name("other")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_in_every_case() {
    on_each(async |scene| {
        let storage = &scene.storage;
        insert(storage, &application("Straße")).await.unwrap();
        let error = insert(storage, &application("STRASSE")).await;
        // ß has no one-letter capital: these are two names.
        assert_eq!(error, Ok(()));
        let error = insert(storage, &application("ＳＴＲＡＳＳＥ")).await.unwrap_err();
        assert!(matches!(error, StorageError::NameTaken(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn mutable_parts_change_and_the_others_stay() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let before = application("a");
        insert(storage, &before).await.unwrap();
        let after = Application {
            description: String::new(),
            contact: "other".to_owned(),
            users: accounts(&["DEV\\alpha", "DEV\\Zeta", "DEV\\new"]),
            administrators: accounts(&[]),
            allow_local_accounts: true,
            enabled: false,
            updated_at: NOW + Duration::seconds(1),
            ..before.clone()
        };
        let mut transaction = storage.begin().await.unwrap();
        assert_eq!(transaction.lock_application(&before.name).await.unwrap(), Some(before.clone()));
        assert!(transaction.update_application(&after).await.unwrap());
        // Not before the commit.
        assert_eq!(storage.application(&before.name).await.unwrap(), Some(before.clone()));
        transaction.commit().await.unwrap();
        let read = storage.application(&before.name).await.unwrap().unwrap();
        assert_eq!(read, after);
        assert_eq!(read.users.to_texts(), ["DEV\\alpha", "DEV\\Zeta", "DEV\\new"]);

        let mut transaction = storage.begin().await.unwrap();
        assert!(!transaction.update_application(&application("b")).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn fields_added_at_the_same_time_follow_one_another() {
    async fn add(storage: Storage, number: usize) -> Result<u16, StorageError> {
        let mut transaction = storage.begin().await?;
        let mut application = transaction.lock_application(&name("a")).await?.unwrap();
        let label = Label::parse(&format!("added {number}")).unwrap();
        let field = application.fields.add(label, true).unwrap();
        transaction.insert_field(application.id, &field).await?;
        transaction.commit().await?;
        Ok(field.ordinal)
    }
    on_each(async |scene| {
        insert(&scene.storage, &application("a")).await.unwrap();
        let tasks: Vec<_> = (0..24).map(|n| tokio::spawn(add(scene.storage.clone(), n))).collect();
        let mut ordinals = Vec::new();
        for task in tasks {
            ordinals.push(task.await.unwrap().unwrap());
        }
        ordinals.sort_unstable();
        assert_eq!(ordinals, (3..27).collect::<Vec<u16>>());
        let read = scene.storage.application(&name("a")).await.unwrap().unwrap();
        assert_eq!(read.fields.count(), 27);

        let again = Field { ordinal: 27, label: Label::parse("URL").unwrap(), masked: false };
        let mut transaction = scene.storage.begin().await.unwrap();
        let error = transaction.insert_field(read.id, &again).await.unwrap_err();
        assert_eq!(error, StorageError::LabelTaken);
        transaction.rollback().await.unwrap();
        let mut transaction = scene.storage.begin().await.unwrap();
        let error = transaction.insert_field(application("x").id, &again).await.unwrap_err();
        assert_eq!(error, StorageError::Gone);
    })
    .await;
}

#[tokio::test]
async fn an_application_may_have_as_many_fields_as_the_model_says() {
    on_each(async |scene| {
        let labels: Vec<_> = (0..MAX_FIELDS).map(|n| format!("field {n}")).collect();
        let labels: Vec<_> = labels.iter().map(|label| (label.as_str(), true)).collect();
        let wide = Application { fields: fields(&labels), ..application("wide") };
        insert(&scene.storage, &wide).await.unwrap();
        assert_eq!(scene.storage.application(&wide.name).await.unwrap(), Some(wide));
    })
    .await;
}

#[tokio::test]
async fn deleting_takes_everything_along() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let first = application("a");
        let kept = application("kept");
        insert(storage, &first).await.unwrap();
        insert(storage, &kept).await.unwrap();
        for n in 0..3 {
            write(storage, first.id, &identifier(&format!("i{n}")), b"sealed").await.unwrap();
        }
        write(storage, kept.id, &identifier("i"), b"sealed").await.unwrap();
        let mut transaction = storage.begin().await.unwrap();
        assert!(transaction.delete_application(first.id).await.unwrap());
        assert!(!transaction.delete_application(first.id).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(storage.application(&first.name).await.unwrap(), None);
        for (table, rows) in [
            ("SELECT COUNT(*) FROM application_accounts", 3),
            ("SELECT COUNT(*) FROM fields", 3),
            ("SELECT COUNT(*) FROM configurations", 1),
            ("SELECT COUNT(*) FROM configuration_revisions", 1),
        ] {
            assert_eq!(scene.count(table).await, rows, "{table}");
        }
        // The same name again is another application, without a past.
        let second = application("A");
        insert(storage, &second).await.unwrap();
        assert_eq!(storage.configuration(second.id, &identifier("i1")).await.unwrap(), None);
        let error = write(storage, first.id, &identifier("i1"), b"sealed").await.unwrap_err();
        assert_eq!(error, StorageError::Gone);
    })
    .await;
}

async fn names(storage: &Storage, filter: &ApplicationFilter) -> Vec<String> {
    let mut names = Vec::new();
    let mut page = PageRequest { size: 2, after: None };
    loop {
        let found = storage.applications(filter, &page).await.unwrap();
        assert!(found.entries.len() <= 2);
        names.extend(found.entries.iter().map(|found| found.name.as_str().to_owned()));
        match found.next {
            Some(next) => page.after = Some(next),
            None => return names,
        }
    }
}

#[tokio::test]
async fn lists_hold_what_the_filter_asks_for() {
    on_each(async |scene| {
        let storage = &scene.storage;
        for (text, users, contact) in [
            ("b_One", "DEV\\Team 1", "BizTalkAdmin@x"),
            ("Bxone", "DEV\\team 2", "biztalkadmin@X"),
            ("a 100%", "DEV\\Team 1", ""),
            ("Änderung", "DEV\\other", "BizTalkAdmin@x.de"),
        ] {
            let new = application(text);
            let new = Application {
                users: accounts(&[users]),
                administrators: accounts(&["DEV\\Boss"]),
                contact: contact.to_owned(),
                ..new
            };
            insert(storage, &new).await.unwrap();
        }
        let all = ApplicationFilter::default();
        assert_eq!(names(storage, &all).await, ["a 100%", "b_One", "Bxone", "Änderung"]);
        let containing = |part: &str| ApplicationFilter {
            name_contains: part.to_owned(),
            ..ApplicationFilter::default()
        };
        assert_eq!(names(storage, &containing("B_")).await, ["b_One"]);
        assert_eq!(names(storage, &containing("%")).await, ["a 100%"]);
        assert_eq!(names(storage, &containing("ONE")).await, ["b_One", "Bxone"]);
        assert_eq!(names(storage, &containing("ä")).await, ["Änderung"]);
        assert!(names(storage, &containing("!")).await.is_empty());
        assert!(names(storage, &containing("b\0")).await.is_empty());
        let odd = PageRequest { size: 9, after: Some("b\0".to_owned()) };
        let page = storage.applications(&all, &odd).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        let contact = ApplicationFilter {
            contact: "BIZTALKadmin@x".to_owned(),
            kind: Some(ApplicationType::ConfigStore),
            ..ApplicationFilter::default()
        };
        assert_eq!(names(storage, &contact).await, ["b_One", "Bxone"]);
        let visible = |keys: &[&str]| ApplicationFilter {
            visible_to: Some(keys.iter().map(|&key| key.to_owned()).collect()),
            ..ApplicationFilter::default()
        };
        assert_eq!(
            names(storage, &visible(&["dev\\team 1", "dev\\x\""])).await,
            ["a 100%", "b_One"]
        );
        assert_eq!(names(storage, &visible(&["dev\\boss"])).await.len(), 4);
        assert!(names(storage, &visible(&[])).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn pages_are_complete_while_others_insert() {
    on_each(async |scene| {
        let storage = &scene.storage;
        for n in 0..40 {
            insert(storage, &application(&format!("m{n:02}"))).await.unwrap();
        }
        let other = storage.clone();
        let inserting = tokio::spawn(async move {
            for n in 0..40 {
                insert(&other, &application(&format!("m{n:02}x"))).await.unwrap();
            }
        });
        let found = names(storage, &ApplicationFilter::default()).await;
        inserting.await.unwrap();
        let old: Vec<_> = found.iter().filter(|name| !name.ends_with('x')).collect();
        assert_eq!(old.len(), 40);
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
    })
    .await;
}
