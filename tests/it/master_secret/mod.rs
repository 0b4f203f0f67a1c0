//! The master secret's whole life, with the real programs: rotation, backup, restore, standby, revocation.

mod bad_input;
mod cache;
mod rotation;
mod standby;

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use sqlx::{Connection as _, Row as _};
use sso_proto::v1;
use sso_tests::{
    raw,
    system::{System, eventually},
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tonic::transport::Channel;

use crate::sign_on::{self, Desk, ask};

/// Longest wait for something that the whole system has to do.
const SOON: Duration = Duration::from_secs(60);
const STORE: &str = "Store";

/// A private file with a backup password, in the folder of the system.
fn password(system: &System) -> PathBuf {
    file(system, "rotation.password", "correct horse battery staple\n")
}

fn file(system: &System, name: &str, content: &str) -> PathBuf {
    let path = system.folder().join(name);
    std::fs::write(&path, content).expect("written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("private");
    path
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `sso secret ARGUMENTS…` at the primary.
fn secret(system: &System, arguments: &[&str]) -> Output {
    system.sso("admin", &[&["secret"], arguments].concat())
}

/// The same, which has to succeed.
fn secret_ok(system: &System, arguments: &[&str]) -> String {
    system.sso_ok("admin", &[&["secret"], arguments].concat())
}

/// What a command that has to fail says, and its exit code.
fn refused(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stdout));
    (text, output.status.code())
}

fn status(system: &System) -> Value {
    system.sso_json("admin", &["secret", "status"])
}

/// The generation of this number in a status.
fn generation(status: &Value, number: u64) -> Value {
    let all = status["generations"].as_array().expect("generations");
    all.iter().find(|it| it["generation"] == number).cloned().unwrap_or_default()
}

/// Rotates to the end: the backup gets the name `FOLDER/NAME.backup`.
fn rotate(system: &System, name: &str, more: &[&str]) -> PathBuf {
    let backup = system.folder().join(format!("{name}.backup"));
    let (password, output) = (password(system), backup.clone());
    let arguments = [
        &["rotate", "--backup", path(&output), "--password-file", path(&password)][..],
        &["--wait", "--timeout", "5m"],
        more,
    ];
    let _ = secret_ok(system, &arguments.concat());
    backup
}

/// Numbers of rows by generation: of revisions, and of mappings with credentials.
async fn rows(system: &System) -> Vec<(String, i64, i64)> {
    sqlx::any::install_default_drivers();
    let mut database =
        sqlx::AnyConnection::connect(&raw::database_url(system)).await.expect("the database");
    let mut found = Vec::new();
    for table in ["configuration_revisions", "mappings"] {
        let text = format!(
            "SELECT generation, COUNT(*) FROM {table} WHERE generation IS NOT NULL \
             GROUP BY generation ORDER BY generation"
        );
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut database).await.expect("rows");
        found.extend(rows.iter().map(|row| (table.to_owned(), row.get(0), row.get(1))));
    }
    found
}

/// Changes the database behind the back of the servers.
async fn execute(system: &System, statement: &'static str) {
    sqlx::any::install_default_drivers();
    let mut database =
        sqlx::AnyConnection::connect(&raw::database_url(system)).await.expect("the database");
    sqlx::query(statement).execute(&mut database).await.expect("executed");
}

/// An application of every kind that seals, with values, and a ticket from before.
struct Filled {
    host: Channel,
    ticket: String,
}

impl Filled {
    /// Needs a runtime.
    async fn prepare(system: &System) -> Self {
        system.create_application(STORE, &["Key"]);
        let desk = Desk::open(system).await;
        for revision in 1..=3 {
            for identifier in ["One", "Two", "Three"] {
                set(system, identifier, &format!("{identifier}-{revision}")).await.expect("set");
            }
        }
        let ticket = desk.ticket().await;
        // Every server has heard of it.
        for number in 1..=system.installation().server_count() {
            let user = raw::channel(system, number, "user");
            let heard = async {
                while sign_on::issue(&user, "").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(SOON, heard).await.expect("tickets are allowed everywhere");
        }
        Self { host: desk.host.clone(), ticket }
    }

    /// Everything from before is still what it was.
    async fn check(&self, system: &System) {
        for identifier in ["One", "Two", "Three"] {
            let value = get(system, identifier).await.expect("a value");
            assert_eq!(value, format!("{identifier}-3"));
        }
        let answer = sign_on::redeem(&self.host, &self.ticket, Some("DEV\\user"))
            .await
            .expect("a ticket from before the rotation");
        assert_eq!(sign_on::revealed(answer).1, sign_on::PASSWORD);
        let history = ["config", "rollback", STORE, "One", "--revision", "1"];
        let _ = system.sso_ok("app-admin", &history);
        assert_eq!(get(system, "One").await.expect("a value"), "One-1");
        set(system, "One", "One-3").await.expect("set");
    }
}

async fn set(system: &System, identifier: &str, value: &str) -> Result<(), String> {
    set_at(&raw::channel(system, 1, "app-admin"), identifier, value).await
}

async fn set_at(channel: &Channel, identifier: &str, value: &str) -> Result<(), String> {
    let message = v1::SetConfigurationRequest {
        application: STORE.into(),
        identifier: identifier.into(),
        values: [("Key".to_owned(), v1::NewValue { value: Some(value.into()) })].into(),
        ..Default::default()
    };
    ask::<v1::SetConfigurationResponse>(channel, "ConfigStore/Set", message)
        .await
        .map(drop)
        .map_err(|refusal| format!("set: {refusal:?}"))
}

async fn get(system: &System, identifier: &str) -> Result<String, String> {
    get_at(&raw::channel(system, 1, "user"), identifier, v1::ReadMode::Runtime).await
}

async fn get_at(channel: &Channel, identifier: &str, mode: v1::ReadMode) -> Result<String, String> {
    let message = v1::GetConfigurationRequest {
        application: STORE.into(),
        identifier: identifier.into(),
        mode: mode.into(),
        ..Default::default()
    };
    let answer: v1::GetConfigurationResponse = ask(channel, "ConfigStore/Get", message)
        .await
        .map_err(|refusal| format!("get: {refusal:?}"))?;
    Ok(answer.configuration.expect("a configuration").values["Key"].clone())
}

/// Reads, writes and redeems at every server until it is told to stop; remembers every failure.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(system: &System, runtime: &Runtime, servers: usize) -> Self {
        let _guard = runtime.enter();
        let mut load = Self {
            stop: Arc::default(),
            done: Arc::default(),
            failures: Arc::default(),
            tasks: Vec::new(),
        };
        for number in 1..=servers {
            let (admin, user, host) = (
                raw::channel(system, number, "app-admin"),
                raw::channel(system, number, "user"),
                raw::channel(system, number, "host"),
            );
            let writer = format!("writer-{number}");
            load.spawn(runtime, move |round| {
                let (admin, writer) = (admin.clone(), writer.clone());
                async move {
                    set_at(&admin, &writer, &round.to_string()).await?;
                    let found = get_at(&admin, &writer, v1::ReadMode::Admin).await;
                    // Nobody else writes here.
                    match found {
                        Ok(value) if value == round.to_string() => Ok(()),
                        other => Err(format!("{writer}: wrote {round}, found {other:?}")),
                    }
                }
            });
            let reader = user.clone();
            load.spawn(runtime, move |round| {
                let reader = reader.clone();
                async move {
                    let identifier = ["One", "Two", "Three"][(round % 3) as usize];
                    let value = get_at(&reader, identifier, v1::ReadMode::Runtime).await?;
                    if value == format!("{identifier}-3") { Ok(()) } else { Err(value) }
                }
            });
            load.spawn(runtime, move |_| {
                let (user, host) = (user.clone(), host.clone());
                async move {
                    let issued = sign_on::issue(&user, "").await.map_err(|it| format!("{it:?}"))?;
                    let ticket = sign_on::text(issued);
                    sign_on::redeem(&host, &ticket, Some("DEV\\user"))
                        .await
                        .map(drop)
                        .map_err(|refusal| format!("redeem: {refusal:?}"))
                }
            });
        }
        load
    }

    fn spawn<F>(&mut self, runtime: &Runtime, work: impl Fn(u64) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, done) = (Arc::clone(&self.stop), Arc::clone(&self.done));
        let failures = Arc::clone(&self.failures);
        self.tasks.push(runtime.spawn(async move {
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match work(round).await {
                    Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    Err(failure) => failures.lock().expect("no panic").push(failure),
                }
            }
        }));
    }

    /// Waits until so much more was done.
    fn more(&self, more: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        eventually("the load goes on", SOON, || {
            (self.done.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// How much was done, and every failure.
    fn end(self, runtime: &Runtime) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for task in self.tasks {
                task.await.expect("no panic");
            }
        });
        let failures = std::mem::take(&mut *self.failures.lock().expect("no panic"));
        (self.done.load(Ordering::Relaxed), failures)
    }
}
