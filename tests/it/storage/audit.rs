use sso_server::{
    model::{AuditFilter, AuditOutcome, AuditRecord, PageRequest},
    storage::Storage,
};
use time::Duration;
use uuid::Uuid;

use super::{NOW, on_each};

fn record(n: i64) -> AuditRecord {
    let denied = n % 10 == 0;
    AuditRecord {
        id: Uuid::now_v7(),
        // Five records share each microsecond.
        at: NOW + Duration::microseconds(n / 5),
        server: "sso-server-1".to_owned(),
        request_id: Uuid::now_v7().to_string(),
        caller: if n % 2 == 0 { "DEV\\Admin" } else { "DEV\\user" }.to_owned(),
        action: if n % 3 == 0 { "configuration.set" } else { "configurations.read" }.to_owned(),
        application: if n % 4 == 0 { "App" } else { "" }.to_owned(),
        object: format!("object {n}"),
        outcome: if denied { AuditOutcome::Denied } else { AuditOutcome::Done },
        reason: if denied { "NOT_APPLICATION_USER" } else { "" }.to_owned(),
        detail: "revision 3; Url, \"Ö\"".to_owned(),
    }
}

async fn all(storage: &Storage, filter: &AuditFilter, size: u32) -> Vec<AuditRecord> {
    let mut records = Vec::new();
    let mut page = PageRequest { size, after: None };
    loop {
        let part = storage.audit(filter, &page).await.unwrap();
        assert!(part.entries.len() <= usize::try_from(size).unwrap());
        records.extend(part.entries);
        match part.next {
            Some(next) => page.after = Some(next),
            None => return records,
        }
    }
}

#[tokio::test]
async fn records_are_listed_newest_first_and_completely() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let records: Vec<_> = (0..101).map(record).collect();
        let mut transaction = storage.begin().await.unwrap();
        transaction.insert_audit(&records).await.unwrap();
        transaction.insert_audit(&[]).await.unwrap();
        transaction.commit().await.unwrap();
        let expected: Vec<_> = records.iter().rev().cloned().collect();
        for size in [1, 7, 100, 101, 1000] {
            assert_eq!(all(storage, &AuditFilter::default(), size).await, expected, "{size}");
        }
        let odd = PageRequest { size: 5, after: Some("no position".to_owned()) };
        let page = storage.audit(&AuditFilter::default(), &odd).await.unwrap();
        assert!(page.entries.is_empty() && page.next.is_none());
    })
    .await;
}

#[tokio::test]
async fn filters_narrow_and_combine() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let records: Vec<_> = (0..60).map(record).collect();
        let mut transaction = storage.begin().await.unwrap();
        transaction.insert_audit(&records).await.unwrap();
        transaction.commit().await.unwrap();
        let check = async |filter: AuditFilter, keep: &dyn Fn(i64) -> bool| {
            let found: Vec<_> =
                all(storage, &filter, 4).await.into_iter().map(|record| record.object).collect();
            let expected: Vec<_> =
                (0..60).rev().filter(|&n| keep(n)).map(|n| format!("object {n}")).collect();
            assert_eq!(found, expected, "{filter:?}");
        };
        let text = |text: &str| Some(text.to_owned());
        let any = AuditFilter::default;
        check(AuditFilter { application_key: text("app"), ..any() }, &|n| n % 4 == 0).await;
        check(AuditFilter { caller_key: text("dev\\admin"), ..any() }, &|n| n % 2 == 0).await;
        check(AuditFilter { action: text("configuration.set"), ..any() }, &|n| n % 3 == 0).await;
        check(AuditFilter { action: text("configuration."), ..any() }, &|n| n % 3 == 0).await;
        check(AuditFilter { action: text("configuration"), ..any() }, &|_| false).await;
        check(AuditFilter { action: text("configuration\0."), ..any() }, &|_| false).await;
        let denied = Some(AuditOutcome::Denied);
        check(AuditFilter { outcome: denied, ..any() }, &|n| n % 10 == 0).await;
        let from = |micros| Some(NOW + Duration::microseconds(micros));
        check(AuditFilter { since: from(3), until: from(5), ..any() }, &|n| (15..25).contains(&n))
            .await;
        check(
            AuditFilter {
                application_key: text("app"),
                caller_key: text("dev\\admin"),
                action: text("configurations."),
                since: from(1),
                until: from(11),
                outcome: denied,
            },
            &|n| n % 20 == 0 && n % 3 != 0 && (5..55).contains(&n),
        )
        .await;
    })
    .await;
}
