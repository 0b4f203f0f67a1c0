//! Too many requests at once: what waits is limited, and what waits for nothing is answered.

use std::{fs, sync::Arc, time::Duration};

use prost::Message as _;
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    raw,
    system::{Database, System, Timing},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::asking::told;

const LONG: Duration = Duration::from_secs(60);

/// Requests whose messages never come, so that the server waits for them: the refusals of those that it
/// does not wait for.
struct Held {
    requests: JoinSet<Status>,
    begun: Arc<Semaphore>,
}

impl Held {
    fn new() -> Self {
        Self { requests: JoinSet::new(), begun: Arc::new(Semaphore::new(0)) }
    }

    /// One more.
    fn hold(&mut self, channel: &Channel) {
        let (channel, begun) = (channel.clone(), Arc::clone(&self.begun));
        self.requests.spawn(async move {
            let mut grpc = Grpc::new(channel);
            grpc.ready().await.expect("a connection");
            begun.add_permits(1);
            let path = PathAndQuery::from_static("/sso.v1.System/GetServerStatus");
            let nothing = futures_util::stream::pending::<v1::GetServerStatusRequest>();
            let codec =
                ProstCodec::<v1::GetServerStatusRequest, v1::GetServerStatusResponse>::default();
            let answer = grpc.client_streaming(Request::new(nothing), path, codec).await;
            answer.expect_err("an answer to nothing")
        });
    }

    /// The words of the next one that is refused.
    async fn refusal(&mut self) -> String {
        let refused = tokio::time::timeout(LONG, self.requests.join_next()).await;
        let status = refused.expect("a refusal in time").expect("a request").expect("no panic");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        let refusal = Refusal::from_status(&status).expect("a reason");
        assert_eq!(refusal.reason, Reason::Overloaded);
        assert!(!refusal.request_id.is_empty());
        refusal.message
    }
}

async fn status(system: &System, who: &str) -> Result<v1::GetServerStatusResponse, String> {
    let asked = told(system, who, "System/GetServerStatus", &v1::GetServerStatusRequest {});
    asked.await.map_err(|(_, words)| words)
}

/// The same for one whose account has nothing left to wait with: where its message comes a moment after its
/// head it waits for that, and is refused.
async fn status_in_time(system: &System, who: &str) {
    let asked = async { while status(system, who).await.is_err() {} };
    tokio::time::timeout(LONG, asked).await.expect("an answer");
}

/// A system whose server takes so many requests that wait.
fn system(most: usize) -> System {
    system_with(|settings| format!("max_requests = {most}\n{settings}"))
}

fn system_with(change: impl FnOnce(&str) -> String) -> System {
    let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
    let path = system.installation().server_settings(1);
    let text = fs::read_to_string(&path).expect("settings");
    fs::write(&path, change(&text)).expect("settings");
    system.start_master();
    system.start_server(1);
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_is_refused_and_what_waits_for_nothing_is_answered() {
    let system = system(3);
    let channel = raw::channel(&system, 1, "admin");
    let mut held = Held::new();
    for _ in 0..5 {
        held.hold(&channel);
    }
    for _ in 0..2 {
        let words = held.refusal().await;
        assert!(words.contains("as many requests in work as it takes"), "{words}");
    }
    assert_eq!(held.requests.len(), 3);
    for who in ["admin", "user"] {
        status_in_time(&system, who).await;
    }
    // The places of those that go are free again.
    held.requests.shutdown().await;
    let free = async {
        loop {
            let mut again = Held::new();
            for _ in 0..3 {
                again.hold(&channel);
            }
            let settled = tokio::time::timeout(Duration::from_millis(300), again.refusal()).await;
            if settled.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, free).await.expect("free places");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_account_takes_more_than_its_share() {
    let system = system(1000);
    // One connection carries no more.
    let (one, other) = (raw::channel(&system, 1, "admin"), raw::channel(&system, 1, "admin"));
    let mut held = Held::new();
    for number in 0..260 {
        held.hold(if number % 2 == 0 { &one } else { &other });
    }
    for _ in 0..4 {
        let words = held.refusal().await;
        assert!(words.contains("256 requests in work"), "{words}");
    }
    assert_eq!(held.requests.len(), 256);
    // Others have theirs, and so has what waits for nothing.
    let mut others = Held::new();
    others.hold(&raw::channel(&system, 1, "user"));
    let _begun = others.begun.acquire().await.expect("begun");
    status(&system, "user").await.expect("an answer");
    status_in_time(&system, "admin").await;
    assert!(others.requests.try_join_next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_beyond_its_quota_is_told_when_to_come_back_and_nobody_else_is() {
    let quota = "[quota]\nrequests_per_second = 2\nburst = 5\n";
    let system = system_with(|settings| format!("{settings}\n{quota}"));
    let mut refused = None;
    // More than a burst and what a second or two give.
    for _ in 0..50 {
        if let Err(status) = asked(&system, "user").await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("a refusal");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let refusal = Refusal::from_status(&status).expect("a reason");
    assert_eq!(refusal.reason, Reason::QuotaExceeded);
    assert!(refusal.message.contains("DEV\\user may send 2 requests a second"), "{refusal:?}");
    let pause = refusal.retry_after.expect("a time");
    assert!(!pause.is_zero() && pause <= Duration::from_secs(1), "{pause:?}");
    for who in ["app-admin", "host"] {
        asked(&system, who).await.expect("an answer");
    }
    // A client that waits as it is told gets its answer.
    let client = system.client("user");
    for _ in 0..5 {
        client.system().status().await.expect("an answer in the end");
    }
    let metrics = String::from_utf8(raw::page(system.operations(1), "metrics")).expect("text");
    assert!(metrics.contains("resource_exhausted"), "{metrics}");
}

async fn asked(system: &System, who: &str) -> Result<(), Status> {
    let message = v1::GetServerStatusRequest {}.encode_to_vec();
    let channel = raw::channel(system, 1, who);
    raw::call(&channel, "/sso.v1.System/GetServerStatus", message).await.map(drop)
}
