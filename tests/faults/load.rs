//! People at work: writers, readers and redeemers at every server, all of whose calls are remembered.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sso_client::{
    Client, ClientError, ConfigurationKey, MappingKey, NewMapping, ReadMode, SecretText,
    SetOptions, v1,
};
use sso_tests::{
    history::{History, Operation, Outcome},
    system::System,
};
use tokio::{runtime::Runtime, task::JoinHandle};

const STORE: &str = "Store";
const USER: &str = "DEV\\user";
/// Servers follow changes of the settings within this.
const SETTLED: Duration = Duration::from_secs(20);
/// For one call, retries of reads included.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between two calls of one worker.
const PACE: Duration = Duration::from_millis(25);
/// How long a server may answer from memory what another one has changed (docs/operations.md).
const BEHIND: Duration = Duration::from_secs(2);
/// After one that failed.
const BREATH: Duration = Duration::from_millis(100);

/// The application whose credentials are written at this server.
fn signed_on(server: usize) -> String {
    format!("Desk{server}")
}

fn number_of(value: Option<&SecretText>) -> u64 {
    // Expose: the numbers that the writers count with.
    value.and_then(|value| value.expose().parse().ok()).unwrap_or(u64::MAX)
}

fn credential(number: u64) -> Vec<SecretText> {
    vec![SecretText::new(number.to_string())]
}

/// Makes the applications, and everything that is read with 0 in it.
pub(crate) fn prepare(system: &System, runtime: &Runtime, servers: usize) {
    system.create_application(STORE, &["Key:masked"]);
    runtime.block_on(async {
        let on = v1::GlobalInfo { tickets_allowed: true, ..Default::default() };
        system.client("admin").system().update(on, &["tickets_allowed"]).await.expect("tickets");
        let administrator = system.client("app-admin");
        for server in 1..=servers {
            let field = |ordinal, label: &str| v1::Field {
                ordinal,
                label: label.into(),
                masked: ordinal > 0,
                ..Default::default()
            };
            let application = v1::Application {
                name: signed_on(server),
                r#type: v1::ApplicationType::Individual.into(),
                user_accounts: vec!["DEV\\Application Users".into()],
                administrator_accounts: vec![
                    "DEV\\Application Administrators".into(),
                    "DEV\\Integration Hosts".into(),
                ],
                fields: vec![field(0, "User"), field(1, "Password")],
                enabled: true,
                allow_tickets: Some(true),
                one_time_tickets: Some(true),
                ..Default::default()
            };
            system.client("admin").applications().create(application).await.expect("created");
            let mapping = NewMapping {
                application: signed_on(server),
                account: USER.into(),
                external_user: format!("USER{server}"),
                credentials: Some(credential(0)),
                enable: true,
            };
            administrator.mappings().create(&mapping).await.expect("a mapping");
            set(&administrator, &format!("one-{server}"), 0).await.expect("a value");
        }
        // Servers follow the switch within a moment.
        let began = std::time::Instant::now();
        for server in 1..=servers {
            let profile = if server == 1 { "user".to_owned() } else { format!("user-{server}") };
            let tickets = system.client(&profile).tickets();
            while let Err(error) = tickets.issue(Some(&signed_on(server)), None).await {
                assert!(began.elapsed() < SETTLED, "server {server}: {error}");
                tokio::time::sleep(BREATH).await;
            }
        }
    });
}

async fn set(client: &Client, identifier: &str, number: u64) -> Result<Option<u64>, ClientError> {
    let values = [("Key".to_owned(), Some(SecretText::new(number.to_string())))].into();
    let key = ConfigurationKey::new(STORE, identifier);
    client.config_store().set(&key, &values, SetOptions::default()).await.map(|_| None)
}

async fn get(client: &Client, identifier: &str) -> Result<Option<u64>, ClientError> {
    let key = ConfigurationKey::new(STORE, identifier);
    let found = client.config_store().get(&key, ReadMode::Runtime).await?;
    Ok(Some(number_of(found.value("Key"))))
}

/// Everybody at work.
pub(crate) struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    workers: Vec<String>,
}

impl Load {
    /// At each server a writer, readers and a redeemer of each kind; what is written at one is read
    /// there, where every read has the newest, and at the next.
    pub(crate) fn start(
        system: &System,
        runtime: &Runtime,
        servers: usize,
        history: &Arc<History>,
    ) -> Self {
        let _guard = runtime.enter();
        let mut load = Self {
            history: Arc::clone(history),
            stop: Arc::default(),
            tasks: vec![],
            workers: vec![],
        };
        for server in 1..=servers {
            let other = server % servers + 1;
            let at = |who: &str, server: usize| {
                let profile = if server == 1 { who.to_owned() } else { format!("{who}-{server}") };
                system.client(&profile).with_deadline(DEADLINE)
            };
            let writer = at("app-admin", server);
            let identifier = format!("one-{server}");
            load.writes(runtime, &identifier.clone(), move |number| {
                let (writer, identifier) = (writer.clone(), identifier.clone());
                async move { set(&writer, &identifier, number).await }
            });
            for (reader, behind) in [(server, Duration::ZERO), (other, BEHIND)] {
                let (reader, identifier) = (at("user", reader), format!("one-{server}"));
                load.reads(runtime, (&identifier.clone(), behind), move || {
                    let (reader, identifier) = (reader.clone(), identifier.clone());
                    async move { get(&reader, &identifier).await }
                });
            }
            let (writer, reader) = (at("app-admin", server), at("user", other));
            let application = signed_on(server);
            load.writes(runtime, &application.clone(), move |number| {
                let (writer, key) = (writer.clone(), MappingKey::account(&application, USER));
                async move {
                    writer.mappings().set_credentials(&key, &credential(number), None).await?;
                    Ok(None)
                }
            });
            let application = signed_on(server);
            load.reads(runtime, (&application.clone(), Duration::ZERO), move || {
                let (reader, application) = (reader.clone(), application.clone());
                async move {
                    let found = reader.lookup().credentials(&application, true).await?;
                    Ok(Some(number_of(found.values.first())))
                }
            });
            load.redeems(
                runtime,
                server,
                at("user", server),
                [at("host", server), at("host", other)],
            );
        }
        load
    }

    /// Names of everybody.
    pub(crate) fn workers(&self) -> &[String] {
        &self.workers
    }

    /// Ends it.
    pub(crate) fn end(self, runtime: &Runtime) {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for task in self.tasks {
                task.await.expect("a worker that ended");
            }
        });
    }

    fn writes<R>(
        &mut self,
        runtime: &Runtime,
        object: &str,
        write: impl Fn(u64) -> R + Send + 'static,
    ) where
        R: Future<Output = Result<Option<u64>, ClientError>> + Send,
    {
        let (number, object) = (AtomicU64::new(0), object.to_owned());
        let worker = format!("writer of {object}");
        self.spawn(runtime, &worker, move || {
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            let operation = Operation::Write { object: object.clone(), number };
            let answer = write(number);
            async move { (operation, Outcome::of(answer.await)) }
        });
    }

    fn reads<R>(
        &mut self,
        runtime: &Runtime,
        (object, behind): (&str, Duration),
        read: impl Fn() -> R + Send + 'static,
    ) where
        R: Future<Output = Result<Option<u64>, ClientError>> + Send,
    {
        let object = object.to_owned();
        let worker = format!("reader of {object}, {behind:?} behind");
        self.spawn(runtime, &worker, move || {
            let operation = Operation::Read { object: object.clone(), behind };
            let answer = read();
            async move { (operation, Outcome::of(answer.await)) }
        });
    }

    /// Issues tickets that are good for one time, and redeems each twice at the same time.
    fn redeems(&mut self, runtime: &Runtime, server: usize, user: Client, hosts: [Client; 2]) {
        let (history, application) = (Arc::clone(&self.history), signed_on(server));
        let worker = format!("redeemer at {server}");
        let name = worker.clone();
        self.spawn(runtime, &worker, move || {
            let (history, application) = (Arc::clone(&history), application.clone());
            let (user, hosts, name) = (user.clone(), hosts.clone(), name.clone());
            async move {
                let issue = Operation::Other { what: "issue" };
                let issued = match user.tickets().issue(Some(&application), None).await {
                    Ok(issued) => issued,
                    Err(error) => return (issue, Outcome::of(Err(error))),
                };
                let began = history.now();
                let redeem = |host: &Client| {
                    let (tickets, ticket) = (host.tickets(), issued.ticket.clone());
                    let application = application.clone();
                    async move {
                        let done = tickets.redeem(&application, &ticket, Some(USER), false).await;
                        Outcome::of(done.map(|_| None))
                    }
                };
                let answers = tokio::join!(redeem(&hosts[0]), redeem(&hosts[1]));
                for outcome in [answers.0, answers.1] {
                    let operation = Operation::Redeem { ticket: issued.id.clone() };
                    history.record(&name, operation, began, outcome);
                }
                (issue, Outcome::Done(None))
            }
        });
    }

    fn spawn<R>(&mut self, runtime: &Runtime, worker: &str, work: impl Fn() -> R + Send + 'static)
    where
        R: Future<Output = (Operation, Outcome)> + Send,
    {
        self.workers.push(worker.to_owned());
        let (history, stop) = (Arc::clone(&self.history), Arc::clone(&self.stop));
        let worker = worker.to_owned();
        self.tasks.push(runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let began = history.now();
                let (operation, outcome) = work().await;
                let failed = !matches!(outcome, Outcome::Done(_));
                history.record(&worker, operation, began, outcome);
                tokio::time::sleep(if failed { BREATH } else { PACE }).await;
            }
        }));
    }
}
