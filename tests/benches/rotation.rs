//! Rotation of many mappings on PostgreSQL under a load of reads and writes: rows a second beside a bare
//! batch `UPDATE` of a copy of the same rows with the same indexes, and what callers notice of either.
//!
//! `cargo bench -p sso-tests --bench rotation --profile dist` after building the programs with that
//! profile. How many mappings may be given as argument behind `--`.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where something is not as it has to be"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use prost::Message as _;
use sqlx::{AnyConnection, Connection as _, Row as _};
use sso_core::{key_ring::KeyRing, seal::Place};
use sso_master::{keystore::Keystore, serve, settings::Settings};
use sso_proto::v1;
use sso_server::model::{Account, Bag, ExternalUser, MappingId};
use sso_tests::{
    load::{Round, closed_loop, processor_time},
    postgres, raw,
    system::{Database, System},
};

const APPLICATION: &str = "Rotation";
const STORE: &str = "Store";
const IN_FLIGHT: usize = 16;
/// Every how many-th of those in flight writes.
const WRITER: usize = 8;
/// Rows of one statement, of ours and of the yardstick.
const BATCH: usize = 500;
const ROUND: Duration = Duration::from_secs(5);

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let options = postgres::Options { fsync: true, ..postgres::Options::default() };
    let Some(server) = postgres::Server::start(options) else { return };
    let mut system = System::start(Database::Postgres(server.database()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    prepare(&system);
    let began = Instant::now();
    runtime.block_on(fill(&system, count));
    println!("{count} mappings written in {:.0} s", began.elapsed().as_secs_f64());

    println!("what | rows/s | calls/s | call p50 | call p99");
    let pid = system.server(1).id();
    let quiet = runtime.block_on(calls(&system, pid, 3));
    show("no work", None, &quiet);
    runtime.block_on(copy(&system));

    let bare = beside(&system, &runtime, pid, || runtime.block_on(bare_update(&system, count)));
    show("bare batch UPDATE", Some(f64::from(count) / bare.1.as_secs_f64()), &bare.0);

    let backup = system.folder().join("bench.backup");
    let password = system.folder().join("backup.passphrase");
    let rotated = beside(&system, &runtime, pid, || {
        let arguments = ["secret", "rotate", "--wait", "--timeout", "60m", "--backup"];
        let arguments = arguments.map(str::to_owned).into_iter().chain([
            backup.display().to_string(),
            "--password-file".to_owned(),
            password.display().to_string(),
        ]);
        let _ = system.sso_ok("admin", &arguments.collect::<Vec<_>>());
    });
    // Backup, hand-out and activation are in it: a second or two.
    show("rotation", Some(f64::from(count) / rotated.1.as_secs_f64()), &rotated.0);
    println!("rotation / bare UPDATE: {:.2}", bare.1.as_secs_f64() / rotated.1.as_secs_f64());
    let left = runtime.block_on(left_behind(&system));
    assert_eq!(left, 0, "rows that are not of generation 2");
}

fn prepare(system: &System) {
    system.create_application(STORE, &["Key"]);
    let set = ["config", "set", STORE, "One", "Key=value"];
    let _ = system.sso_ok("app-admin", &set);
    let create =
        ["app", "create", APPLICATION, "--type", "individual", "--field", "Password:masked"];
    let accounts = ["--users", r"DEV\Application Users", "--enable"];
    let administrators = ["--admins", r"DEV\Application Administrators"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &accounts, &administrators].concat());
}

async fn database(system: &System) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(&raw::database_url(system)).await.expect("the database")
}

fn keys(system: &System) -> KeyRing {
    let settings = Settings::load(&system.installation().master_settings()).expect("settings");
    let keystore = Keystore::read(&settings.keystore).expect("a keystore");
    serve::open(&settings, &keystore).expect("unlocked").ring
}

/// Mappings as the server writes them, without its checks: a million would take a while.
async fn fill(system: &System, count: u32) {
    let keys = keys(system);
    let mut database = database(system).await;
    let id: String = sqlx::query("SELECT id FROM applications WHERE name = $1")
        .bind(APPLICATION)
        .fetch_one(&mut database)
        .await
        .expect("the application")
        .get(0);
    let application: uuid::Uuid = id.parse().expect("an id");
    for first in (0..count).step_by(BATCH) {
        let rows = (first..count.min(first + BATCH as u32)).map(|number| {
            let account = Account::parse(&format!("DEV\\U{number:07}")).expect("an account");
            let external = ExternalUser::parse(&format!("EXT{number:07}")).expect("a user");
            let mapping = MappingId::generate();
            let mut bag = Bag::default();
            let value = sso_core::secret::SecretText::new(format!("password-{number:07}"));
            bag.put(1, "Password", value).expect("a value");
            let row = mapping.row(Some(&account), &external);
            let place = Place {
                table: "mappings",
                column: "sealed",
                row: &row,
                application: application.as_bytes(),
            };
            let sealed = keys.seal(&place, bag.encode().expose()).expect("sealed");
            let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
            let (key, external_key) = (account.key().to_owned(), external.key().to_owned());
            format!(
                "('{mapping}', '{id}', '{}', '{key}', '{}', '{external_key}', '{key}', \
                 '{external_key}', 'enabled', '\\x{hex}'::bytea, 1, 1, 1, 1, 'bench')",
                account.as_str(),
                external.as_str()
            )
        });
        let text = format!(
            "INSERT INTO mappings (id, application_id, account, account_key, external_user, \
             external_user_key, unique_account_key, unique_external_user_key, state, sealed, \
             generation, credentials_at, created_at, updated_at, updated_by) VALUES {}",
            rows.collect::<Vec<_>>().join(", ")
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut database).await.expect("inserted");
    }
    sqlx::query("ANALYZE mappings").execute(&mut database).await.expect("analysed");
}

/// The same rows and indexes in a table of their own.
async fn copy(system: &System) {
    let mut database = database(system).await;
    for text in [
        "CREATE TABLE bare (LIKE mappings INCLUDING ALL)",
        "INSERT INTO bare SELECT * FROM mappings",
        "ANALYZE bare",
        "CHECKPOINT",
    ] {
        sqlx::query(text).execute(&mut database).await.expect("copied");
    }
}

/// What the database takes at most: batches of the same size and the same bytes, and no cryptography.
async fn bare_update(system: &System, count: u32) {
    let mut database = database(system).await;
    let mut after = String::new();
    let mut done = 0;
    while done < count {
        let rows = sqlx::query("SELECT id, sealed FROM bare WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(&after)
            .bind(BATCH as i64)
            .fetch_all(&mut database)
            .await
            .expect("rows");
        let Some(last) = rows.last() else { break };
        after = last.get(0);
        done += u32::try_from(rows.len()).expect("a batch");
        let values: Vec<_> = (0..rows.len())
            .map(|at| format!("(${}::text, ${}::bytea)", 2 * at + 1, 2 * at + 2))
            .collect();
        let text = format!(
            "UPDATE bare SET sealed = v.sealed, generation = 2 \
             FROM (VALUES {}) AS v (id, sealed) WHERE bare.id = v.id",
            values.join(", ")
        );
        let mut update = sqlx::query(sqlx::AssertSqlSafe(text));
        for row in &rows {
            let (id, sealed): (String, Vec<u8>) = (row.get(0), row.get(1));
            update = update.bind(id).bind(sealed);
        }
        update.execute(&mut database).await.expect("updated");
    }
}

async fn left_behind(system: &System) -> i64 {
    sqlx::query("SELECT COUNT(*) FROM mappings WHERE generation <> 2")
        .fetch_one(&mut database(system).await)
        .await
        .expect("a count")
        .get(0)
}

/// Rounds of calls until `work` has ended, and how long that took.
fn beside(
    system: &System,
    runtime: &tokio::runtime::Runtime,
    pid: u32,
    work: impl FnOnce() + Send,
) -> (Vec<Round>, Duration) {
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let over = Arc::clone(&done);
        let reader = scope.spawn(move || {
            let mut rounds = Vec::new();
            while !over.load(Ordering::Relaxed) {
                rounds.extend(runtime.block_on(calls(system, pid, 1)));
            }
            rounds
        });
        let began = Instant::now();
        work();
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        (reader.join().expect("the reader"), took)
    })
}

/// Reads of a configuration at run time, and writes of another one; one that fails ends the bench.
async fn calls(system: &System, pid: u32, rounds: usize) -> Vec<Round> {
    let channels = |profile| (0..4).map(move |_| raw::channel(system, 1, profile));
    let (readers, writers): (Vec<_>, Vec<_>) =
        (channels("user").collect(), channels("app-admin").collect());
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let round = closed_loop(
            IN_FLIGHT,
            ROUND,
            || processor_time(pid),
            |index| {
                let writes = index % WRITER == 0;
                let of = if writes { &writers } else { &readers };
                let channel = of.get(index % 4).expect("a channel").clone();
                let (path, message) = if writes { write(index) } else { read() };
                move || {
                    let (channel, message) = (channel.clone(), message.clone());
                    async move { raw::call(&channel, path, message).await.map(drop) }
                }
            },
        );
        measured.push(round.await);
    }
    measured
}

fn read() -> (&'static str, Vec<u8>) {
    let message = v1::GetConfigurationRequest {
        application: STORE.into(),
        identifier: "One".into(),
        mode: v1::ReadMode::Runtime.into(),
        ..Default::default()
    };
    ("/sso.v1.ConfigStore/Get", message.encode_to_vec())
}

fn write(writer: usize) -> (&'static str, Vec<u8>) {
    let value = v1::NewValue { value: Some("another value".into()) };
    let message = v1::SetConfigurationRequest {
        application: STORE.into(),
        identifier: format!("Of writer {writer}"),
        values: [("Key".to_owned(), value)].into(),
        ..Default::default()
    };
    ("/sso.v1.ConfigStore/Set", message.encode_to_vec())
}

fn show(what: &str, rate: Option<f64>, rounds: &[Round]) {
    let median = |of: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    println!(
        "{what:<18} | {rate:>8} | {:>7.0} | {:>6.2} ms | {:>6.2} ms",
        median(&|it| it.per_second),
        median(&|it| it.p50.as_secs_f64() * 1000.0),
        median(&|it| it.p99.as_secs_f64() * 1000.0)
    );
}
