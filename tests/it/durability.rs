//! Promise 3: no acknowledged write is lost by kill -9 of any process, and promise 5: what works
//! while the master is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use sso_client::development::Probe;
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    everywhere::on_each_database,
    postgres, raw,
    system::{Database, System, Timing, eventually},
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tonic::transport::Channel;

const APPLICATION: &str = "Durable";

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Key"]);
}

async fn set(channel: &Channel, identifier: &str, value: &str) -> Result<u64, tonic::Status> {
    let request = v1::SetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        values: [("Key".to_owned(), v1::NewValue { value: Some(value.into()) })].into(),
        ..Default::default()
    };
    let answer = raw::call(channel, "/sso.v1.ConfigStore/Set", request.encode_to_vec()).await?;
    Ok(v1::SetConfigurationResponse::decode(&answer[..]).expect("an answer").revision)
}

async fn get(channel: &Channel, identifier: &str) -> Result<(u64, String), tonic::Status> {
    let request = v1::GetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        ..Default::default()
    };
    let answer = raw::call(channel, "/sso.v1.ConfigStore/Get", request.encode_to_vec()).await?;
    let answer = v1::GetConfigurationResponse::decode(&answer[..]).expect("an answer");
    let configuration = answer.configuration.expect("a configuration");
    Ok((configuration.revision, configuration.values["Key"].clone()))
}

fn reason(status: &tonic::Status) -> Option<Reason> {
    Refusal::from_status(status).map(|refusal| refusal.reason)
}

/// Asks until the answer is `Some`.
async fn within_soon<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("an answer within 30 s")
}

/// The last write that was acknowledged: its revision and its value.
type Acknowledged = Option<(u64, u64)>;

/// Eight writers, each to an identifier of its own.
struct Writers {
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<(String, Acknowledged)>>,
}

impl Writers {
    fn start(system: &System, runtime: &Runtime, prefix: &str) -> Self {
        let _guard = runtime.enter();
        let stop = Arc::new(AtomicBool::new(false));
        let counts: Vec<_> = (0..8).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let task = |(writer, count): (usize, &Arc<AtomicU64>)| {
            let channel = raw::channel(system, 1, "app-admin");
            let identifier = format!("{prefix}-{writer}");
            runtime.spawn(write(channel, identifier, Arc::clone(&stop), Arc::clone(count)))
        };
        let tasks = counts.iter().enumerate().map(task).collect();
        Self { stop, counts, tasks }
    }

    /// Waits until each writer has so many more writes acknowledged.
    fn more_from_each(&self, more: u64) {
        let now = || self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let wanted: Vec<u64> = now().map(|count| count + more).collect();
        eventually("every writer is acknowledged", Duration::from_secs(60), || {
            now().zip(&wanted).all(|(count, wanted)| count >= *wanted).then_some(())
        });
    }

    /// Every acknowledged write is there.
    fn check(self, system: &System, runtime: &Runtime) {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            let channel = raw::channel(system, 1, "app-admin");
            for task in self.tasks {
                let (identifier, acknowledged) = task.await.expect("a writer");
                let (revision, number) = acknowledged.expect("some write was acknowledged");
                let (found, value) = get(&channel, &identifier).await.expect("a value");
                // A write whose acknowledgement was lost may be there as well.
                assert!(found >= revision, "{identifier}: {found} < {revision}");
                let value: u64 = value.parse().expect("a number");
                assert!(value >= number, "{identifier}: {value} < {number}");
            }
        });
    }
}

/// Writes 0, 1, 2 … until `stop`; the last write that was acknowledged.
async fn write(
    channel: Channel,
    identifier: String,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> (String, Acknowledged) {
    let mut acknowledged = None;
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match set(&channel, &identifier, &number.to_string()).await {
            Ok(revision) => {
                acknowledged = Some((revision, number));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    (identifier, acknowledged)
}

#[test]
fn no_acknowledged_write_is_lost_by_killing_any_process() {
    on_each_database(|system, runtime| {
        prepare(system);
        for victim in ["server", "master", "server", "both"] {
            let writers = Writers::start(system, runtime, victim);
            // The kill comes while all of them write.
            writers.more_from_each(10);
            if victim != "master" {
                system.kill_server(1);
            }
            if victim != "server" {
                system.kill_master();
                system.start_master();
            }
            if victim != "master" {
                system.start_server(1);
            }
            writers.more_from_each(1);
            writers.check(system, runtime);
        }
    });
}

#[test]
fn no_acknowledged_write_is_lost_by_killing_postgresql() {
    let options = postgres::Options { fsync: true, ..postgres::Options::default() };
    let Some(database) = postgres::Server::start(options) else { return };
    let system = System::start(Database::Postgres(database.database()));
    let runtime = Runtime::new().expect("a runtime");
    prepare(&system);
    for round in 0..3 {
        let writers = Writers::start(&system, &runtime, &round.to_string());
        writers.more_from_each(10);
        database.crash();
        // The server finds its database again by itself.
        writers.more_from_each(1);
        writers.check(&system, &runtime);
    }
}

#[test]
fn while_the_master_is_away_reads_go_on_and_writes_are_refused_at_once() {
    on_each_database(|system, runtime| {
        prepare(system);
        let channel = {
            let _guard = runtime.enter();
            raw::channel(system, 1, "app-admin")
        };
        runtime.block_on(async {
            set(&channel, "One", "before").await.expect("written");
            set(&channel, "Two", "before").await.expect("written");
        });
        system.kill_master();
        runtime.block_on(async {
            // The connection breaks with the process; nothing waits for a lease to end.
            let refused = within_soon(async || set(&channel, "One", "too late").await.err()).await;
            assert_eq!(reason(&refused), Some(Reason::MasterUnreachable), "{refused:?}");
            let (_, value) = get(&channel, "One").await.expect("reads go on");
            assert_ne!(value, "");
            // Deletions and switches need no key.
            let delete = v1::DeleteConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "Two".into(),
                if_revision: None,
            };
            raw::call(&channel, "/sso.v1.ConfigStore/Delete", delete.encode_to_vec())
                .await
                .expect("deleted");
            for path in ["Disable", "Enable"] {
                let name = v1::EnableApplicationRequest { name: APPLICATION.into() };
                let path = format!("/sso.v1.Applications/{path}");
                raw::call(&channel, &path, name.encode_to_vec()).await.expect("switched");
            }
        });
        let status = system.sso_json("admin", &["status"]);
        assert_eq!(status["master_secret"]["state"], "read_only", "{status}");

        // A server that starts now has no keys, and says so.
        system.stop_server(1);
        system.start_server_until(1, Probe::Live);
        let channel = {
            let _guard = runtime.enter();
            raw::channel(system, 1, "app-admin")
        };
        runtime.block_on(async {
            let refused = within_soon(async || {
                get(&channel, "One").await.err().filter(|status| reason(status).is_some())
            })
            .await;
            assert_eq!(reason(&refused), Some(Reason::MasterSecretMissing), "{refused:?}");
            let refused = set(&channel, "One", "no").await.expect_err("refused");
            assert_eq!(reason(&refused), Some(Reason::MasterSecretMissing), "{refused:?}");
        });
        let operations = system.operations(1);
        let unready = Probe::Ready.ask(operations).expect_err("a server without keys is not ready");
        assert!(unready.contains("MASTER_SECRET_MISSING"), "{unready}");

        // The master comes back, and everything recovers by itself.
        system.start_master();
        runtime.block_on(async {
            within_soon(async || set(&channel, "One", "after").await.ok()).await;
            assert_eq!(get(&channel, "One").await.expect("read").1, "after");
        });
    });
}

#[test]
fn keys_are_forgotten_when_the_read_lease_ends() {
    let timing = Timing { read_lease_seconds: 3, write_lease_seconds: 1, ..Timing::default() };
    let mut system = System::start_with(Database::Sqlite, 1, timing);
    prepare(&system);
    let runtime = Runtime::new().expect("a runtime");
    let channel = {
        let _guard = runtime.enter();
        raw::channel(&system, 1, "app-admin")
    };
    runtime.block_on(async { set(&channel, "One", "kept").await.expect("written") });
    system.kill_master();
    eventually("the lease ends", Duration::from_secs(15), || {
        runtime.block_on(async {
            let status = get(&channel, "One").await.err()?;
            (reason(&status) == Some(Reason::MasterSecretExpired)).then_some(())
        })
    });
    system.start_master();
    eventually("the keys are fetched again", Duration::from_secs(30), || {
        runtime.block_on(async { get(&channel, "One").await.ok() })
    });
}

#[test]
fn the_keys_of_another_system_are_refused() {
    let mut system = System::start(Database::Sqlite);
    prepare(&system);
    let runtime = Runtime::new().expect("a runtime");
    let channel = {
        let _guard = runtime.enter();
        raw::channel(&system, 1, "app-admin")
    };
    runtime.block_on(async { set(&channel, "One", "kept").await.expect("written") });
    system.stop_server(1);
    system.stop_master();
    // Another keystore in the place of the one that sealed the database.
    let other = System::prepare(Database::Sqlite, 1, Timing::default());
    for file in ["keystore.json", "master.passphrase"] {
        std::fs::copy(other.folder().join(file), system.folder().join(file)).expect("copied");
    }
    system.start_master();
    system.start_server_until(1, Probe::Live);
    let channel = {
        let _guard = runtime.enter();
        raw::channel(&system, 1, "app-admin")
    };
    eventually("the keys are refused", Duration::from_secs(20), || {
        runtime.block_on(async {
            let status = get(&channel, "One").await.err()?;
            (reason(&status) == Some(Reason::MasterSecretForeign)).then_some(())
        })
    });
    runtime.block_on(async {
        let status = set(&channel, "One", "under foreign keys").await.expect_err("refused");
        assert_eq!(reason(&status), Some(Reason::MasterSecretForeign));
    });
}
