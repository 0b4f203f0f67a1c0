use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use sqlx::{
    Connection as _,
    migrate::{Migration, MigrationType, Migrator},
};
use sso_core::clock::Clock;
use sso_server::{
    model::{AuditFilter, GlobalInfo, PageRequest},
    storage::{Change, Storage, StorageError},
};
use sso_tests::postgres;

use super::{
    NOW, Scene, accounts, application, identifier, insert, name, on_each, open, settings, write,
};

#[tokio::test]
async fn every_statement_is_understood() {
    on_each(async |scene| {
        assert!(scene.storage.check_statements().await.unwrap() > 60);
        scene.storage.ping().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn migrators_at_the_same_time_wait_for_one_another() {
    for database in postgres::databases() {
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let url = database.url.clone();
            tasks.push(tokio::spawn(async move {
                let storage = open(&url, &Clock::System).await;
                let version = storage.migrate().await;
                storage.close().await;
                version
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(Storage::known_schema()), "{}", database.name);
        }
    }
}

#[tokio::test]
async fn without_migrating_an_old_schema_is_refused() {
    for database in postgres::databases() {
        let storage = open(&database.url, &Clock::System).await;
        let known = Storage::known_schema();
        assert_eq!(storage.schema_version().await, Ok(0));
        let refused = Err(StorageError::OlderSchema { found: 0, known });
        assert_eq!(storage.verify_schema().await, refused);
        // Looking changes nothing.
        assert_eq!(storage.schema_version().await, Ok(0));
        assert_eq!(storage.migrate().await, Ok(known));
        assert_eq!(storage.migrate().await, Ok(known));
        assert_eq!(storage.verify_schema().await, Ok(known));
    }
}

/// Makes a database as the first release left it, with an application and a system in it.
async fn first_release(scene: &Scene) {
    let text = if scene.is_postgres() {
        include_str!("../../../migrations/postgres/0001_initial.sql")
    } else {
        include_str!("../../../migrations/sqlite/0001_initial.sql")
    };
    let text = sqlx::SqlSafeStr::into_sql_str(text);
    let step = Migration::new(1, "initial".into(), MigrationType::Simple, text, false);
    let mut connection = scene.stranger().await;
    let mut migrator = Migrator::with_migrations(vec![step]);
    migrator.set_locking(false);
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    scene
        .sql(
            "INSERT INTO system VALUES (1, '01890a5d-ac96-774b-bcce-b302099a8057', NULL, \
             '[\"D\\\\sso\"]', '[]', '', 1, 2, 3, 4, 5, 1, 0); \
             INSERT INTO applications VALUES ('01890a5d-ac96-774b-bcce-b302099a8058', 'Old', \
             'old', 'config-store', '', '', '', 0, 0, 1, 0, 0); \
             INSERT INTO application_accounts VALUES ('01890a5d-ac96-774b-bcce-b302099a8058', \
             'administrator', 0, 'D\\a', 'd\\a'); \
             INSERT INTO fields VALUES \
             ('01890a5d-ac96-774b-bcce-b302099a8058', 0, 'reserved', 'reserved', 0), \
             ('01890a5d-ac96-774b-bcce-b302099a8058', 1, 'Url', 'url', 1)",
        )
        .await;
}

#[tokio::test]
async fn a_database_of_the_first_release_goes_on_with_its_data() {
    for database in postgres::databases() {
        let clock = Clock::manual(NOW);
        let storage = open(&database.url, &clock).await;
        let scene = Scene { storage, clock, url: database.url.clone() };
        first_release(&scene).await;
        let storage = &scene.storage;
        let known = Storage::known_schema();
        let refused = StorageError::OlderSchema { found: 1, known };
        assert_eq!(storage.verify_schema().await, Err(refused), "{}", database.name);
        assert_eq!(storage.migrate().await, Ok(known));
        assert!(storage.check_statements().await.is_ok());

        let system = storage.system().await.unwrap().unwrap();
        let expected = GlobalInfo::initial(accounts(&["D\\sso"]), accounts(&[]));
        let settings = |global: &GlobalInfo| {
            (global.tickets_allowed, global.tickets_validated, global.host_initiated_allowed)
        };
        // What came new is as in a new system.
        assert_eq!(settings(&system.global), settings(&expected));
        assert_eq!(system.global.sso_administrators, expected.sso_administrators);
        assert_eq!((system.global.ticket_timeout, system.global.enabled), (4, true));
        for accounts in [
            &system.global.trusted_hosts,
            &system.global.configuration_readers,
            &system.global.auditors,
        ] {
            assert!(accounts.is_empty());
        }
        let old = storage.application(&name("old")).await.unwrap().unwrap();
        assert_eq!((old.flags.iter().count(), old.ticket_timeout), (0, 0));
        assert_eq!((old.windows_account.is_none(), old.fields.count()), (true, 2));
        assert!(old.fields.iter().all(|field| !field.synchronized));
        // What was there serves what came new.
        let mapping = super::mappings::mapping(old.id, "D\\a", "u");
        assert_eq!(super::mappings::add(storage, old.kind, &mapping).await, Ok(true));
        scene.sql(super::GENERATIONS).await;
        let (_, revision) = write(storage, old.id, &identifier("i"), b"x").await.unwrap();
        assert_eq!(revision.0, 1);
        storage.close().await;
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions() {
    on_each(async |scene| {
        scene
            .sql(
                "INSERT INTO _sqlx_migrations \
                 (version, description, success, checksum, execution_time) \
                 SELECT 77, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
            )
            .await;
        let known = Storage::known_schema();
        let refused = StorageError::NewerSchema { found: 77, known };
        assert_eq!(scene.storage.verify_schema().await, Err(refused.clone()));
        assert_eq!(scene.storage.migrate().await, Err(refused.clone()));
        assert!(
            refused.to_string().contains("77") && refused.to_string().contains(&known.to_string())
        );
    })
    .await;
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    on_each(async |scene| {
        scene
            .sql(if scene.is_postgres() {
                "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1"
            } else {
                "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1"
            })
            .await;
        assert_eq!(scene.storage.verify_schema().await, Err(StorageError::EditedMigration(1)));
        assert_eq!(scene.storage.migrate().await, Err(StorageError::EditedMigration(1)));
    })
    .await;
}

#[tokio::test]
async fn sqlite_files_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    // A path that must be escaped on its way through the driver.
    let path = folder.path().join("a %20#ö.db");
    let storage = open(&format!("sqlite:{}", path.display()), &Clock::System).await;
    storage.migrate().await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and its shared memory");
    storage.close().await;
    assert!(path.exists());
    let nowhere = format!("sqlite:{}/no/such/folder/sso.db", folder.path().display());
    let error = Storage::open(&settings(&nowhere), Clock::System).await.unwrap_err();
    assert!(matches!(&error, StorageError::Settings(what) if what.contains("no/such/folder")));
}

#[tokio::test]
async fn an_absent_server_is_waited_for_until_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres:///sso?host={}&user=sso", folder.path().display());
    let mut settings = settings(&url);
    settings.connect_deadline = Duration::from_millis(600);
    let error = Storage::open(&settings, Clock::System).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_makes_operations_fail_and_one_that_refuses_is_not_asked_again() {
    let Some(server) = postgres::Server::start(postgres::Options { tcp: true, fsync: true }) else {
        return;
    };
    let url = server.database();
    let unknown = url.replace("test_", "unknown_");
    let error = Storage::open(&settings(&unknown), Clock::System).await.unwrap_err();
    assert!(matches!(&error, StorageError::Unavailable(what) if what.contains("unknown_")));
    let storage = open(&url, &Clock::System).await;
    storage.migrate().await.unwrap();
    let mut transaction = storage.begin().await.unwrap();
    transaction.insert_application(&application("a")).await.unwrap();
    server.kill();
    assert!(matches!(transaction.commit().await, Err(StorageError::Unavailable(_))));
    assert!(matches!(storage.ping().await, Err(StorageError::Unavailable(_))));
}

/// Damages the database in one way, and expects the operation to name the table.
pub(super) async fn damaged<T: std::fmt::Debug>(
    scene: &Scene,
    sql: &'static str,
    table: &str,
    read: impl AsyncFn(&Storage) -> Result<T, StorageError>,
) {
    scene.sql(sql).await;
    match read(&scene.storage).await {
        Err(StorageError::Corrupt { table: named, .. }) => assert_eq!(named, table, "{sql}"),
        other => panic!("{sql}: {other:?}"),
    }
}

#[tokio::test]
async fn damaged_rows_are_named_and_never_believed() {
    on_each(async |scene| {
        let app = application("a");
        let key = identifier("i");
        insert(&scene.storage, &app).await.unwrap();
        let (id, revision) = write(&scene.storage, app.id, &key, b"x").await.unwrap();
        let mut transaction = scene.storage.begin().await.unwrap();
        let global = GlobalInfo::initial(accounts(&["D\\a"]), accounts(&["D\\b"]));
        transaction.initialise_system(&global, NOW).await.unwrap();
        transaction.commit().await.unwrap();
        let mut feed = scene.storage.change_feed().await.unwrap();

        let history = async |storage: &Storage| storage.history(id).await;
        for sql in [
            "UPDATE configuration_revisions SET changed = '[1]'",
            "UPDATE configuration_revisions SET changed = '[]', rolled_back_to = -1",
            "UPDATE configuration_revisions SET rolled_back_to = NULL, \
             written_at = 9223372036854775807",
        ] {
            damaged(scene, sql, "configuration_revisions", history).await;
        }
        damaged(
            scene,
            "UPDATE configuration_revisions SET generation = 4294967296",
            "configuration_revisions",
            async |storage| storage.revision(id, revision).await,
        )
        .await;
        let configuration = async |storage: &Storage| storage.configuration(app.id, &key).await;
        for sql in [
            "UPDATE configurations SET identifier = 'j'",
            "UPDATE configurations SET identifier = ' i'",
            "UPDATE configurations SET identifier = 'i', revision = -3",
            "UPDATE configurations SET revision = 0",
            "UPDATE configurations SET revision = 2",
            "UPDATE configurations SET revision = 1, id = 'no uuid' WHERE 1 = 0; \
             DELETE FROM configuration_revisions",
        ] {
            damaged(scene, sql, "configurations", configuration).await;
        }
        let read = async |storage: &Storage| storage.application(&name("a")).await;
        for sql in [
            "UPDATE fields SET ordinal = 9 WHERE ordinal = 2",
            "UPDATE fields SET ordinal = -1 WHERE ordinal = 9",
            "UPDATE fields SET ordinal = 2, masked = 7 WHERE ordinal = -1",
            "UPDATE fields SET masked = 1, label = '' WHERE ordinal = 2",
            "UPDATE fields SET label = 'Password' WHERE ordinal = 2; \
             UPDATE application_accounts SET account = 'Everyone' WHERE role = 'administrator'",
            "UPDATE application_accounts SET account = 'D\\x', role = 'king' \
             WHERE role = 'administrator'",
            "UPDATE application_accounts SET role = 'administrator' WHERE role = 'king'; \
             UPDATE applications SET type = 'teapot'",
            "UPDATE applications SET type = 'config-store', enabled = 2",
            "UPDATE applications SET enabled = 1, name = 'b'",
            "UPDATE applications SET name = 'a'; DELETE FROM fields",
        ] {
            damaged(scene, sql, "applications", read).await;
        }
        for sql in [
            "UPDATE system SET sso_administrators = 'D\\a'",
            "UPDATE system SET sso_administrators = '[\"D\\\\a\\\\b\"]'",
            "UPDATE system SET sso_administrators = '[]', keystore_id = 'x'",
            "UPDATE system SET keystore_id = NULL, ticket_timeout = 4294967296",
        ] {
            damaged(scene, sql, "system", async |storage| storage.system().await).await;
        }
        damaged(
            scene,
            "INSERT INTO audit VALUES ('no uuid', 1, '', '', '', '', '', '', '', '', 'done', '', '')",
            "audit",
            async |storage| {
                let page = PageRequest { size: 1, after: None };
                storage.audit(&AuditFilter::default(), &page).await
            },
        )
        .await;
        damaged(
            scene,
            "INSERT INTO servers VALUES ('s', '', '', -9223372036854775808, 0, '')",
            "servers",
            async |storage| storage.servers().await,
        )
        .await;

        // News of a configuration that is damaged still reaches everybody.
        scene.sql("UPDATE configurations SET identifier = ' i'").await;
        let mut transaction = scene.storage.begin().await.unwrap();
        let change = Change::Configuration(app.id, id);
        transaction.insert_change(change, NOW).await.unwrap();
        transaction.commit().await.unwrap();
        let new = feed.poll(&scene.storage, true).await.unwrap();
        assert_eq!((new.records[0].change, &new.records[0].head), (change, &None));
        // One that is not understood hides none behind it: everything is looked at again.
        scene.sql("INSERT INTO changes (kind, at) VALUES ('rumour', 0)").await;
        let mut transaction = scene.storage.begin().await.unwrap();
        transaction.insert_change(Change::System, NOW).await.unwrap();
        transaction.commit().await.unwrap();
        let new = feed.poll(&scene.storage, true).await.unwrap();
        assert!(new.everything);
        assert_eq!(new.records.iter().map(|record| record.change).collect::<Vec<_>>(), [Change::System]);
        assert!(!feed.poll(&scene.storage, true).await.unwrap().everything);
    })
    .await;
}
