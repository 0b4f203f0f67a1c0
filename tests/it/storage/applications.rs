use sso_server::{
    model::{
        Account, Application, ApplicationFlag, ApplicationFlags, ApplicationType, Field,
        FieldUpdate, Fields, Label, PageRequest,
    },
    storage::{ApplicationFilter, Storage, StorageError},
};
use time::Duration;

use super::{
    NOW, accounts, application, fields, identifier, insert, name, on_each, schema::damaged, write,
};

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
        assert_eq!(storage.application(&before.name).await.unwrap().as_deref(), Some(&before));
        transaction.commit().await.unwrap();
        let read = storage.application(&before.name).await.unwrap().unwrap();
        assert_eq!(read, after);
        assert_eq!(read.users.to_texts(), ["DEV\\alpha", "DEV\\Zeta", "DEV\\new"]);

        let mut transaction = storage.begin().await.unwrap();
        assert!(!transaction.update_application(&application("b")).await.unwrap());
    })
    .await;
}

/// A host group application, and an individual one with every flag there is.
fn mapped() -> [Application; 2] {
    let field = |ordinal, label: &str, synchronized| FieldUpdate {
        ordinal,
        label: label.to_owned(),
        masked: ordinal > 0,
        synchronized,
    };
    let given = vec![field(0, "User", false), field(1, "Pin", false), field(2, "Password", true)];
    let fields = Fields::parse(ApplicationType::Individual, given).unwrap().0;
    let host = Application {
        kind: ApplicationType::HostGroup,
        users: accounts(&[]),
        windows_account: Some(Account::parse("DEV\\Host Account").unwrap()),
        flags: ApplicationFlags::default_of(ApplicationType::HostGroup),
        fields: fields.clone(),
        ..application("host")
    };
    let own = Application {
        kind: ApplicationType::Individual,
        flags: ApplicationFlags::from_stored(ApplicationFlag::ALL.iter().copied()),
        ticket_timeout: 525_600,
        fields,
        ..application("own")
    };
    [host, own]
}

#[tokio::test]
async fn flags_windows_account_timeout_and_synchronized_fields_come_back_and_change() {
    on_each(async |scene| {
        let storage = &scene.storage;
        for written in mapped() {
            insert(storage, &written).await.unwrap();
            let read = storage.application(&written.name).await.unwrap().unwrap();
            assert_eq!(*read, written);
            assert!(read.fields.iter().map(|field| field.synchronized).eq([false, false, true]));
            let changed = Application {
                windows_account: written
                    .windows_account
                    .as_ref()
                    .map(|_| Account::parse("DEV\\other").unwrap()),
                flags: ApplicationFlags::from_stored([ApplicationFlag::ValidatePassword]),
                ticket_timeout: 7,
                ..written
            };
            let mut transaction = storage.begin().await.unwrap();
            assert!(transaction.update_application(&changed).await.unwrap());
            let read = transaction.application(&changed.name).await.unwrap();
            assert_eq!(read.as_ref(), Some(&changed));
            transaction.commit().await.unwrap();
            let read = storage.application(&changed.name).await.unwrap();
            assert_eq!(read.as_deref(), Some(&changed));
        }
        let filter = ApplicationFilter {
            kind: Some(ApplicationType::HostGroup),
            ..ApplicationFilter::default()
        };
        assert_eq!(names(storage, &filter).await, ["host"]);
    })
    .await;
}

#[tokio::test]
async fn flags_and_windows_accounts_that_cannot_be_are_not_believed() {
    on_each(async |scene| {
        let [host, _] = mapped();
        insert(&scene.storage, &host).await.unwrap();
        let read = async |storage: &Storage| storage.application(&host.name).await;
        for sql in [
            "UPDATE applications SET flags = '[\"host_initiated\",\"fly\"]'",
            "UPDATE applications SET flags = 'host_initiated'",
            "UPDATE applications SET flags = '[]', ticket_timeout = -1",
            "UPDATE applications SET ticket_timeout = 0; \
             UPDATE fields SET synchronized = 2 WHERE ordinal = 2",
            "UPDATE fields SET synchronized = 1",
            "UPDATE fields SET synchronized = 0; \
             UPDATE application_accounts SET account = '' WHERE role = 'windows'",
        ] {
            damaged(scene, sql, "applications", read).await;
        }
        scene.sql("UPDATE application_accounts SET account = 'D\\a' WHERE role = 'windows'").await;
        assert!(read(&scene.storage).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn an_account_is_found_in_the_enabled_applications_that_name_it() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let group = |users: &[&str], administrators: &[&str], name: &str| Application {
            users: accounts(users),
            administrators: accounts(administrators),
            ..application(name)
        };
        let team = "DEV\\Team";
        for written in [
            group(&["DEV\\x", team], &[], "user"),
            group(&[team], &["dev\\TEAM"], "Both"),
            group(&[], &[team], "administrator"),
            group(&["DEV\\Team 2"], &["Team"], "other"),
            Application { enabled: false, ..group(&[team], &[team], "disabled") },
            Application {
                kind: ApplicationType::HostGroup,
                windows_account: Some(Account::parse(team).unwrap()),
                ..group(&[], &[], "host")
            },
        ] {
            insert(storage, &written).await.unwrap();
            let found = storage.application_name(written.id).await.unwrap().unwrap();
            assert_eq!(found.as_str(), written.name.as_str());
        }
        let found = storage.applications_with_account("dev\\team").await.unwrap();
        let found: Vec<_> = found.iter().map(|name| name.as_str()).collect();
        assert_eq!(found, ["administrator", "Both", "user"]);
        assert!(storage.applications_with_account("dev\\t\0eam").await.unwrap().is_empty());
        let nowhere = application("x").id;
        assert_eq!(storage.application_name(nowhere).await, Ok(None));
        let sql = "UPDATE applications SET name = 'X' WHERE name = 'user'";
        let read = async |storage: &Storage| storage.applications_with_account("dev\\team").await;
        damaged(scene, sql, "applications", read).await;
    })
    .await;
}

#[tokio::test]
async fn fields_added_at_the_same_time_follow_one_another() {
    async fn add(storage: Storage, number: usize) -> Result<u16, StorageError> {
        let mut transaction = storage.begin().await?;
        let mut application = transaction.lock_application(&name("a")).await?.unwrap();
        let label = Label::parse(&format!("added {number}")).unwrap();
        let field = application.fields.add(label, true, 256).unwrap();
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

        let label = Label::parse("URL").unwrap();
        let again = Field { ordinal: 27, label, masked: false, synchronized: false };
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
        let most = ApplicationType::ConfigStore.max_fields();
        let labels: Vec<_> = (0..most).map(|n| format!("field {n}")).collect();
        let labels: Vec<_> = labels.iter().map(|label| (label.as_str(), true)).collect();
        let wide = Application { fields: fields(&labels), ..application("wide") };
        insert(&scene.storage, &wide).await.unwrap();
        let read = scene.storage.application(&wide.name).await.unwrap();
        assert_eq!(read.as_deref(), Some(&wide));
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
