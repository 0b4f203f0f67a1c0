//! What is set for single servers.

use sso_server::{model::ServerSettings, storage::Storage};
use time::Duration;

use super::{NOW, on_each, schema::damaged};

#[tokio::test]
async fn a_server_has_the_defaults_until_something_is_set() {
    on_each(async |scene| {
        let storage = &scene.storage;
        assert_eq!(storage.server_settings("one").await, Ok(ServerSettings::default()));
        assert_eq!(storage.server_settings("o\0ne").await, Ok(ServerSettings::default()));
        let first = ServerSettings {
            positive_audit_level: 3,
            negative_audit_level: 0,
            remote_lookup: false,
        };
        let second = ServerSettings { positive_audit_level: 2, remote_lookup: true, ..first };
        let mut at = NOW;
        for settings in [first, second] {
            let mut transaction = storage.begin().await.unwrap();
            let before = transaction.lock_server_settings("one").await.unwrap();
            assert_ne!(before, settings);
            transaction.write_server_settings("one", &settings, at).await.unwrap();
            assert_eq!(transaction.lock_server_settings("one").await, Ok(settings));
            // Not before the commit.
            assert_eq!(storage.server_settings("one").await, Ok(before));
            transaction.commit().await.unwrap();
            assert_eq!(storage.server_settings("one").await, Ok(settings));
            at += Duration::seconds(1);
        }
        // Names of servers are compared as they are written, as in the table of servers.
        for other in ["ONE", "two"] {
            assert_eq!(storage.server_settings(other).await, Ok(ServerSettings::default()));
        }
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_be_are_not_believed() {
    on_each(async |scene| {
        let mut transaction = scene.storage.begin().await.unwrap();
        let settings = ServerSettings::default();
        transaction.write_server_settings("one", &settings, NOW).await.unwrap();
        transaction.commit().await.unwrap();
        let read = async |storage: &Storage| storage.server_settings("one").await;
        for sql in [
            "UPDATE server_settings SET positive_audit_level = 4",
            "UPDATE server_settings SET positive_audit_level = 0, negative_audit_level = -1",
            "UPDATE server_settings SET negative_audit_level = 1, remote_lookup = 2",
        ] {
            damaged(scene, sql, "server_settings", read).await;
        }
        scene.sql("UPDATE server_settings SET remote_lookup = 0").await;
        let expected = ServerSettings { remote_lookup: false, ..settings };
        assert_eq!(read(&scene.storage).await, Ok(expected));
    })
    .await;
}
