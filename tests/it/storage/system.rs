use sso_server::{
    model::{GlobalInfo, ServerEntry},
    storage::Storage,
};
use time::Duration;
use uuid::Uuid;

use super::{NOW, accounts, on_each};

fn global() -> GlobalInfo {
    GlobalInfo::initial(accounts(&["DEV\\SSO Administrators"]), accounts(&["DEV\\b", "DEV\\a"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_servers_that_start_at_once_one_makes_the_system() {
    async fn start(storage: Storage) -> bool {
        let mut transaction = storage.begin().await.unwrap();
        let first = transaction.initialise_system(&global(), NOW).await.unwrap();
        transaction.commit().await.unwrap();
        first
    }
    on_each(async |scene| {
        assert_eq!(scene.storage.system().await.unwrap(), None);
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(start(scene.storage.clone()))).collect();
        let mut first = 0;
        for task in tasks {
            first += u32::from(task.await.unwrap());
        }
        assert_eq!(first, 1);
        let system = scene.storage.system().await.unwrap().unwrap();
        assert_eq!((system.global, system.keystore_id), (global(), None));
        assert_eq!(system.updated_at, NOW);
    })
    .await;
}

#[tokio::test]
async fn settings_change_and_the_identity_stays() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let mut transaction = storage.begin().await.unwrap();
        assert!(!transaction.update_system(&global(), NOW).await.unwrap());
        assert!(transaction.initialise_system(&global(), NOW).await.unwrap());
        transaction.commit().await.unwrap();
        let before = storage.system().await.unwrap().unwrap();
        let changed = GlobalInfo {
            sso_administrators: accounts(&["DEV\\new"]),
            secret_server: "https://master:7410".to_owned(),
            audit_deleted_applications: 0,
            audit_credential_lookups: u32::MAX,
            ticket_timeout: 525_600,
            credential_cache_timeout: 0,
            enabled: false,
            tickets_allowed: true,
            tickets_validated: false,
            host_initiated_allowed: true,
            trusted_hosts: accounts(&["DEV\\Hosts", "DEV\\a"]),
            configuration_readers: accounts(&["DEV\\Readers"]),
            auditors: accounts(&["DEV\\Auditors"]),
            ..global()
        };
        let mut transaction = storage.begin().await.unwrap();
        assert_eq!(transaction.lock_system().await.unwrap(), Some(before.clone()));
        assert!(transaction.update_system(&changed, NOW + Duration::seconds(1)).await.unwrap());
        transaction.commit().await.unwrap();
        let after = storage.system().await.unwrap().unwrap();
        assert_eq!((after.id, after.global), (before.id, changed));
        assert_eq!(after.updated_at, NOW + Duration::seconds(1));
    })
    .await;
}

#[tokio::test]
async fn a_keystore_is_bound_once() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        let mut transaction = storage.begin().await.unwrap();
        transaction.initialise_system(&global(), NOW).await.unwrap();
        assert!(transaction.bind_keystore(first, NOW).await.unwrap());
        assert!(!transaction.bind_keystore(second, NOW).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(storage.system().await.unwrap().unwrap().keystore_id, Some(first));
    })
    .await;
}

#[tokio::test]
async fn servers_report_over_their_last_report() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let server = |name: &str, state: &str, seconds| ServerEntry {
            name: name.to_owned(),
            address: "10.0.0.1:7400".to_owned(),
            version: "0.1.0".to_owned(),
            started_at: NOW,
            last_seen_at: NOW + Duration::seconds(seconds),
            master_state: state.to_owned(),
        };
        let (b, a) = (server("b", "current", 0), server("a", "never-fetched", 0));
        let newer = server("b", "read-only", 30);
        let mut transaction = storage.begin().await.unwrap();
        for report in [&b, &a, &newer] {
            transaction.report_server(report).await.unwrap();
        }
        transaction.commit().await.unwrap();
        assert_eq!(storage.servers().await.unwrap(), [a, newer]);
    })
    .await;
}
