//! What was written on one server is read on another: the answer to a change has its number, and a read
//! may ask for what is no older.

use std::time::{Duration, Instant};

use sso_client::{Client, ClientError, ConfigurationKey, ReadMode, SecretText, SetOptions, v1};
use sso_proto::{AT_LEAST_CHANGE_HEADER, CHANGE_HEADER, Reason, Refusal};
use sso_tests::{
    postgres::{self, Server},
    raw,
    system::{Database, System, Timing},
};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

const STORE: &str = "Shared";
const WRITES: u32 = 200;

fn on_each(check: impl Fn(&System, &Runtime)) {
    let runtime = Runtime::new().expect("a runtime");
    let server = Server::start(postgres::Options::default());
    let databases =
        [Some(Database::Sqlite), server.as_ref().map(|it| Database::Postgres(it.database()))];
    for database in databases.into_iter().flatten() {
        let system = System::start_with(database, 2, Timing::default());
        system.create_application(STORE, &["Key"]);
        let _inside = runtime.enter();
        check(&system, &runtime);
    }
}

async fn set(client: &Client, value: &str) {
    let values = [("Key".to_owned(), Some(SecretText::new(value.to_owned())))].into();
    let key = ConfigurationKey::new(STORE, "one");
    client.config_store().set(&key, &values, SetOptions::default()).await.expect("written");
}

async fn get(client: &Client) -> Result<String, ClientError> {
    let key = ConfigurationKey::new(STORE, "one");
    let found = client.config_store().get(&key, ReadMode::Runtime).await?;
    Ok(found.value("Key").map(|value| value.expose().to_owned()).unwrap_or_default())
}

#[test]
fn what_one_server_acknowledged_another_one_shows_at_once() {
    on_each(|system, runtime| {
        let writer = system.client("app-admin");
        let reader = system.client("user-2").sharing_changes_with(&writer);
        let told = system.client("user-2");
        runtime.block_on(async {
            set(&writer, "first").await;
            // It is in memory of the other server from now on.
            assert_eq!(get(&reader).await.expect("a value"), "first");
            for number in 0..WRITES {
                let value = number.to_string();
                let before = writer.last_change();
                set(&writer, &value).await;
                assert!(writer.last_change() > before);
                // Both by sharing and by being told, in turn.
                let reader = match number % 2 {
                    0 => reader.clone(),
                    _ => told.clone().at_least(writer.last_change()),
                };
                assert_eq!(get(&reader).await.expect("a value"), value);
            }
        });
    });
}

/// A call with this header.
async fn asked<Q, A>(
    system: &System,
    (server, who): (usize, &str),
    path: &'static str,
    message: Q,
    at_least: Option<&str>,
) -> Result<Response<A>, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(raw::channel(system, server, who));
    grpc.ready().await.expect("a connection");
    let mut request = Request::new(message);
    if let Some(at_least) = at_least {
        request.metadata_mut().insert(AT_LEAST_CHANGE_HEADER, at_least.parse().expect("a header"));
    }
    let codec = ProstCodec::<Q, A>::default();
    grpc.unary(request, PathAndQuery::from_static(path), codec).await
}

/// The number of the change that was made.
fn number<A>(answer: &Response<A>) -> u64 {
    let value = answer.metadata().get(CHANGE_HEADER).expect("a number");
    value.to_str().expect("text").parse().expect("a number")
}

async fn read(
    system: &System,
    at_least: &str,
) -> Result<Response<v1::GetConfigurationResponse>, Status> {
    let message = v1::GetConfigurationRequest {
        application: STORE.into(),
        identifier: "one".into(),
        mode: v1::ReadMode::Runtime.into(),
        fields: Vec::new(),
    };
    asked(system, (2, "user"), "/sso.v1.ConfigStore/Get", message, Some(at_least)).await
}

#[test]
fn a_change_that_the_database_does_not_have_is_refused_and_then_forgotten() {
    on_each(|system, runtime| {
        runtime.block_on(async {
            set(&system.client("app-admin"), "it").await;
            let begun = Instant::now();
            let refused = read(system, "1000000000").await.expect_err("a refusal");
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
            assert_eq!(refused.code(), tonic::Code::Unavailable);
            let refusal = Refusal::from_status(&refused).expect("a reason");
            assert_eq!(refusal.reason, Reason::ChangeNotSeen);
            assert!(refusal.message.contains("change 1000000000"), "{}", refusal.message);
            assert!(!refusal.request_id.is_empty());
            let refused = read(system, "newest").await.expect_err("a refusal");
            let refusal = Refusal::from_status(&refused).expect("a reason");
            assert_eq!(refusal.reason, Reason::InvalidRequest, "{}", refusal.message);

            // As after a restore from a backup: said once, and then the client goes on.
            let client = system.client("user-2").at_least(1_000_000_000);
            let error = get(&client).await.expect_err("a refusal");
            assert!(error.to_string().contains("restored"), "{error}");
            assert_eq!(get(&client).await.expect("a value"), "it");
        });
    });
}

#[test]
fn every_change_says_its_number_and_nothing_else_does() {
    on_each(|system, runtime| {
        runtime.block_on(async {
            let value = v1::NewValue { value: Some("1".into()) };
            let set = v1::SetConfigurationRequest {
                application: STORE.into(),
                identifier: "one".into(),
                values: [("Key".to_owned(), value)].into(),
                ..Default::default()
            };
            let path = "/sso.v1.ConfigStore/Set";
            let mut last = 0;
            for _ in 0..3 {
                let answer: Response<v1::SetConfigurationResponse> =
                    asked(system, (1, "app-admin"), path, set.clone(), None)
                        .await
                        .expect("written");
                assert!(number(&answer) > last);
                last = number(&answer);
            }
            let answer = read(system, &last.to_string()).await.expect("a value");
            assert!(answer.metadata().get(CHANGE_HEADER).is_none(), "a read changes nothing");
            for (who, path) in [
                ("admin", "/sso.v1.Applications/Disable"),
                ("admin", "/sso.v1.Applications/Enable"),
            ] {
                let message = v1::DisableApplicationRequest { name: STORE.into() };
                let answer: Response<v1::DisableApplicationResponse> =
                    asked(system, (1, who), path, message, None).await.expect("changed");
                assert!(number(&answer) > last);
            }
        });
    });
}
