//! Hot writes beside the bare statement through a pool of the same size: a one-time redeem beside the
//! insert of one row, a revision of a configuration beside the update of one row. Durable, on both
//! databases, so many in flight.
//!
//! `cargo bench -p sso-tests --bench writes --profile dist`. Seconds of each round may be given as argument
//! behind `--`. Only ratios within one run count.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where something is not as it has to be"
)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{AnyPool, any::AnyPoolOptions};
use sso_core::clock::Clock;
use sso_server::{
    model::{
        Accounts, Application, ApplicationFlags, ApplicationId, ApplicationName, ApplicationType,
        AuditOutcome, AuditRecord, ConfigurationId, FieldUpdate, Fields, Identifier, Revision,
    },
    storage::{DatabaseSettings, DatabaseUrl, Dialect, NewRevision, Storage},
};
use sso_tests::postgres;
use time::OffsetDateTime;
use uuid::Uuid;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 5;
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(3.0);
    let round = Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("database | what | in flight | writes/s (median of {ROUNDS}, least, most)");
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = format!("sqlite:{}", folder.path().join("sso.db").display());
    runtime.block_on(measure(&sqlite, round));
    let options = postgres::Options { fsync: true, ..postgres::Options::default() };
    if let Some(server) = postgres::Server::start(options) {
        runtime.block_on(measure(&server.database(), round));
    }
}

/// What is written to.
struct Scene {
    storage: Storage,
    bare: AnyPool,
    application: Application,
    configurations: Vec<ConfigurationId>,
}

async fn measure(url: &str, round: Duration) {
    let scene = Arc::new(Scene::new(url).await);
    let name = scene.storage.dialect();
    let mut found: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for in_flight in [1, IN_FLIGHT] {
            let mut note = |what, rate| found.entry((what, in_flight)).or_default().push(rate);
            let rate = closed(&scene, in_flight, round, |scene, _, _| async move {
                let insert = "INSERT INTO bare_tickets (id, at) VALUES ($1, 1)";
                let query = sqlx::query(insert).bind(Uuid::now_v7().to_string());
                query.execute(&scene.bare).await.expect("inserted");
            });
            note("bare insert", rate.await);
            let rate = closed(&scene, in_flight, round, |scene, _, _| async move {
                let by = scene.application.id;
                let ticket = Uuid::now_v7();
                let first = scene.storage.redeem_ticket(ticket, by, (NOW, NOW)).await;
                assert_eq!(first, Ok(true));
            });
            note("redeem", rate.await);
            let rate = closed(&scene, in_flight, round, |scene, writer, _| async move {
                let text = "UPDATE bare_values SET sealed = $1, at = at + 1 WHERE id = $2";
                let id = scene.configurations.get(writer).expect("one each").to_string();
                let query = sqlx::query(text).bind(vec![7_u8; 500]).bind(id);
                query.execute(&scene.bare).await.expect("updated");
            });
            note("bare update", rate.await);
            let rate = closed(&scene, in_flight, round, |scene, writer, _| async move {
                write(&scene, writer).await;
            });
            note("set", rate.await);
        }
    }
    for ((what, in_flight), mut rates) in found {
        rates.sort_by(f64::total_cmp);
        let at = |place: usize| rates.get(place).copied().unwrap_or_default();
        let (median, least, most) = (at(ROUNDS / 2), at(0), at(ROUNDS - 1));
        println!("{name} | {what} | {in_flight} | {median:.0} ({least:.0}, {most:.0})");
    }
    scene.storage.close().await;
    scene.bare.close().await;
}

/// The next revision, whatever the newest one is.
async fn write(scene: &Scene, writer: usize) {
    let id = *scene.configurations.get(writer).expect("one each");
    let identifier = Identifier::parse(&format!("Of writer {writer}")).expect("an identifier");
    let current = scene.storage.configuration(scene.application.id, &identifier).await;
    let current = current.expect("read").expect("a configuration");
    let new = revision(id, current.head.revision.0 + 1);
    let written = scene.storage.write_on(&scene.application, new, record()).await;
    assert!(matches!(written, Ok(Some(_))), "{written:?}");
}

/// Writes a second, by so many of whom each waits for its answer.
async fn closed<W: Future<Output = ()> + Send + 'static>(
    scene: &Arc<Scene>,
    in_flight: usize,
    round: Duration,
    write: impl Fn(Arc<Scene>, usize, u64) -> W + Copy + Send + 'static,
) -> f64 {
    let began = Instant::now();
    let writers: Vec<_> = (0..in_flight)
        .map(|writer| {
            let scene = Arc::clone(scene);
            tokio::spawn(async move {
                let mut count = 0_u64;
                while began.elapsed() < round {
                    write(Arc::clone(&scene), writer, count).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for writer in writers {
        count += writer.await.expect("a writer");
    }
    count as f64 / began.elapsed().as_secs_f64()
}

impl Scene {
    async fn new(url: &str) -> Self {
        let settings = DatabaseSettings::new(DatabaseUrl::parse(url).expect("a URL"));
        let storage = Storage::open(&settings, Clock::System).await.expect("open");
        storage.migrate().await.expect("migrated");
        let on_connect = match storage.dialect() {
            Dialect::Sqlite => "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL",
            Dialect::Postgres => "SELECT 1",
        };
        let writers = match storage.dialect() {
            Dialect::Sqlite => 1,
            Dialect::Postgres => 8,
        };
        let bare = AnyPoolOptions::new()
            .max_connections(writers)
            .acquire_timeout(Duration::from_secs(60))
            .after_connect(move |connection, _| {
                Box::pin(
                    async move { sqlx::raw_sql(on_connect).execute(connection).await.map(drop) },
                )
            })
            .connect(url)
            .await
            .expect("a pool");
        let blob = match storage.dialect() {
            Dialect::Sqlite => "BLOB",
            Dialect::Postgres => "BYTEA",
        };
        let tables = format!(
            "CREATE TABLE bare_tickets (id TEXT PRIMARY KEY, at BIGINT NOT NULL); \
             CREATE TABLE bare_values (id TEXT PRIMARY KEY, sealed {blob}, at BIGINT NOT NULL); \
             INSERT INTO generations (generation, fingerprint, admitted_at) VALUES (1, 'f', 0)"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(tables)).execute(&bare).await.expect("tables");
        let application = application();
        let mut transaction = storage.begin().await.expect("begun");
        transaction.insert_application(&application).await.expect("inserted");
        let mut configurations = Vec::new();
        for writer in 0..IN_FLIGHT {
            let id = ConfigurationId::generate();
            let identifier = Identifier::parse(&format!("Of writer {writer}")).expect("one");
            let by = "DEV\\writer";
            let made = transaction.insert_configuration(id, application.id, &identifier, by, NOW);
            assert_eq!(made.await, Ok(true));
            transaction.insert_revision(&revision(id, 1)).await.expect("written");
            configurations.push(id);
        }
        transaction.commit().await.expect("committed");
        for id in &configurations {
            let text = "INSERT INTO bare_values (id, sealed, at) VALUES ($1, $2, 0)";
            let query = sqlx::query(text).bind(id.to_string()).bind(vec![7_u8; 500]);
            query.execute(&bare).await.expect("inserted");
        }
        Self { storage, bare, application, configurations }
    }
}

fn application() -> Application {
    let field =
        FieldUpdate { ordinal: 0, label: "Key".to_owned(), masked: true, synchronized: false };
    Application {
        id: ApplicationId::generate(),
        name: ApplicationName::parse("Writes").expect("a name"),
        kind: ApplicationType::ConfigStore,
        description: String::new(),
        contact: String::new(),
        users: Accounts::default(),
        administrators: Accounts::default(),
        administrators_same: true,
        allow_local_accounts: false,
        windows_account: None,
        flags: ApplicationFlags::default(),
        ticket_timeout: 0,
        enabled: true,
        fields: Fields::parse(ApplicationType::ConfigStore, vec![field]).expect("fields").0,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn revision(configuration: ConfigurationId, number: u64) -> NewRevision {
    NewRevision {
        configuration,
        revision: Revision(number),
        sealed: vec![7; 500],
        generation: 1,
        changed: vec!["Key".to_owned()],
        rolled_back_to: None,
        written_at: NOW,
        written_by: "DEV\\writer".to_owned(),
    }
}

fn record() -> AuditRecord {
    let id = Uuid::now_v7();
    AuditRecord {
        id,
        at: NOW,
        server: "sso-server-1".to_owned(),
        request_id: id.to_string(),
        caller: "DEV\\writer".to_owned(),
        action: "configuration.set".to_owned(),
        application: "Writes".to_owned(),
        object: "Of writer".to_owned(),
        outcome: AuditOutcome::Done,
        reason: String::new(),
        detail: "revision and labels".to_owned(),
    }
}
