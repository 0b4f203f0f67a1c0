//! The contract of the storage floor, on every database that can be had here.

mod applications;
mod audit;
mod batches;
mod changes;
mod configurations;
mod generations;
mod group;
mod losses;
mod mappings;
mod principals;
mod schema;
mod sealed_rows;
mod server_settings;
mod sweeps;
mod system;
mod tickets;
mod whole;
mod work_leases;

use sqlx::Connection as _;
use sso_core::clock::Clock;
use sso_server::{
    model::{
        Accounts, Application, ApplicationFlags, ApplicationId, ApplicationName, ApplicationType,
        ConfigurationId, FieldUpdate, Fields, Identifier, Revision,
    },
    storage::{DatabaseSettings, DatabaseUrl, NewRevision, Storage, StorageError},
};
use sso_tests::postgres;
use time::{OffsetDateTime, macros::datetime};

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00.123_456 UTC);

/// What values of tests may be sealed under.
const GENERATIONS: &str = "INSERT INTO generations (generation, fingerprint, admitted_at) VALUES \
    (1, 'f1', 0), (2, 'f2', 0), (3, 'f3', 0), (9, 'f9', 0)";

/// A migrated database, and what its tests hold in their hands.
struct Scene {
    storage: Storage,
    clock: Clock,
    url: String,
}

impl Scene {
    /// Runs SQL as a stranger with access to the database would.
    async fn sql(&self, text: &'static str) {
        let mut connection = self.stranger().await;
        sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn count(&self, text: &'static str) -> i64 {
        let mut connection = self.stranger().await;
        let count = sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        count
    }

    async fn stranger(&self) -> sqlx::AnyConnection {
        sqlx::any::install_default_drivers();
        sqlx::AnyConnection::connect(&self.url).await.unwrap()
    }

    fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }
}

fn settings(url: &str) -> DatabaseSettings {
    DatabaseSettings::new(DatabaseUrl::parse(url).unwrap())
}

async fn open(url: &str, clock: &Clock) -> Storage {
    Storage::open(&settings(url), clock.clone()).await.unwrap()
}

/// Runs a test on every kind of database.
async fn on_each(test: impl AsyncFn(&Scene)) {
    for database in postgres::databases() {
        let clock = Clock::manual(NOW);
        let storage = open(&database.url, &clock).await;
        storage.migrate().await.unwrap();
        let scene = Scene { storage, clock, url: database.url.clone() };
        scene.sql(GENERATIONS).await;
        eprintln!("on {}", database.name);
        test(&scene).await;
        scene.storage.close().await;
    }
}

fn name(text: &str) -> ApplicationName {
    ApplicationName::parse(text).unwrap()
}

fn identifier(text: &str) -> Identifier {
    Identifier::parse(text).unwrap()
}

fn accounts(texts: &[&str]) -> Accounts {
    Accounts::parse(texts).unwrap()
}

fn fields(labels: &[(&str, bool)]) -> Fields {
    let given = (0..)
        .zip(labels)
        .map(|(ordinal, (label, masked))| FieldUpdate {
            ordinal,
            label: (*label).to_owned(),
            masked: *masked,
            synchronized: false,
        })
        .collect();
    Fields::parse(ApplicationType::ConfigStore, given).unwrap().0
}

fn application(text: &str) -> Application {
    Application {
        id: ApplicationId::generate(),
        name: name(text),
        kind: ApplicationType::ConfigStore,
        description: "Wohin Aufträge gehen\nund warum".to_owned(),
        contact: "Ops@Example.com".to_owned(),
        users: accounts(&["DEV\\Zeta", "DEV\\alpha"]),
        administrators: accounts(&["DEV\\App Admins"]),
        administrators_same: false,
        allow_local_accounts: false,
        windows_account: None,
        flags: ApplicationFlags::default(),
        ticket_timeout: 0,
        enabled: true,
        fields: fields(&[("reserved", false), ("Url", false), ("Password", true)]),
        created_at: NOW,
        updated_at: NOW,
    }
}

async fn insert(storage: &Storage, application: &Application) -> Result<(), StorageError> {
    let mut transaction = storage.begin().await?;
    transaction.insert_application(application).await?;
    transaction.commit().await
}

/// Writes the next revision of a configuration the way the rules do; its number.
async fn write(
    storage: &Storage,
    application: ApplicationId,
    identifier: &Identifier,
    sealed: &[u8],
) -> Result<(ConfigurationId, Revision), StorageError> {
    let mut transaction = storage.begin().await?;
    let (id, revision) = loop {
        if let Some(taken) =
            transaction.bump_revision(application, identifier, "DEV\\admin", NOW).await?
        {
            break (taken.id, taken.revision);
        }
        let id = ConfigurationId::generate();
        if transaction.insert_configuration(id, application, identifier, "DEV\\admin", NOW).await? {
            break (id, Revision(1));
        }
    };
    transaction.insert_revision(&new_revision(id, revision, sealed)).await?;
    transaction.commit().await?;
    Ok((id, revision))
}

fn new_revision(id: ConfigurationId, revision: Revision, sealed: &[u8]) -> NewRevision {
    NewRevision {
        configuration: id,
        revision,
        sealed: sealed.to_vec(),
        generation: 1,
        changed: vec!["Url".to_owned(), "Quote \" and , comma".to_owned()],
        rolled_back_to: None,
        written_at: NOW,
        written_by: "DEV\\admin".to_owned(),
    }
}
