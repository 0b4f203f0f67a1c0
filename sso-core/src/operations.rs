//! The listener for whoever operates the process: `/livez`, `/readyz`, `/metrics`. It has no TLS and
//! serves no secret; bind it to an address that only operators reach.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use axum::{
    Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// How often metrics are tidied up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Whether the process can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty when it can. Names of states, no secrets.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Whether there is no reason against it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    fn to_json(&self) -> String {
        let mut text = format!("{{\"ready\":{},\"reasons\":[", self.is_ready());
        for (number, reason) in self.reasons.iter().enumerate() {
            text.push_str(if number == 0 { "\"" } else { ",\"" });
            reason.chars().for_each(|character| push_escaped(&mut text, character));
            text.push('"');
        }
        text.push_str("]}\n");
        text
    }
}

/// Serves `/livez` (200 while the process runs), `/readyz` (200, or 503 with the reasons, as JSON) and
/// `/metrics` until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve_operations<F>(
    listener: TcpListener,
    metrics: Metrics,
    ready: F,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    F: Fn() -> Readiness + Send + Sync + 'static,
{
    let ready: Arc<dyn Fn() -> Readiness + Send + Sync> = Arc::new(ready);
    let router = Router::new()
        .route("/livez", routing::get(|| async { "alive\n" }))
        .route("/readyz", routing::get(readiness).with_state(ready))
        .route("/metrics", routing::get(render).with_state(metrics.clone()));
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.upkeep();
        }
    };
    tokio::select! {
        served = serving => served,
        () = upkeep => Ok(()),
    }
}

async fn readiness(
    State(ready): State<Arc<dyn Fn() -> Readiness + Send + Sync>>,
) -> impl IntoResponse {
    let readiness = ready();
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], readiness.to_json())
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

fn push_escaped(text: &mut String, character: char) {
    match character {
        '"' | '\\' => text.extend(['\\', character]),
        control if control.is_control() => {
            // Writing to a string does not fail.
            let _ = write!(text, "\\u{:04x}", u32::from(control));
        }
        plain => text.push(plain),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn get(addr: std::net::SocketAddr, path: &str) -> String {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn states_are_served_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let good = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&good);
        let ready = move || {
            let reasons = if state.load(Ordering::Relaxed) {
                Vec::new()
            } else {
                vec!["master \"unreachable\"".to_owned(), "database".to_owned()]
            };
            Readiness { reasons }
        };
        let server =
            tokio::spawn(serve_operations(listener, Metrics::detached(), ready, shutdown.clone()));

        assert!(get(addr, "/livez").await.contains("200 OK"));
        let answer = get(addr, "/readyz").await;
        assert!(answer.contains("503 Service Unavailable"), "{answer}");
        assert!(
            answer.contains(r#"{"ready":false,"reasons":["master \"unreachable\"","database"]}"#),
            "{answer}"
        );
        good.store(true, Ordering::Relaxed);
        let answer = get(addr, "/readyz").await;
        assert!(answer.contains("200 OK") && answer.contains(r#"{"ready":true,"reasons":[]}"#));
        assert!(get(addr, "/metrics").await.contains("text/plain"));
        assert!(get(addr, "/other").await.contains("404"));

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn reasons_are_escaped() {
        let readiness = Readiness { reasons: vec!["a\n\"b\\".into()] };
        assert_eq!(readiness.to_json(), "{\"ready\":false,\"reasons\":[\"a\\u000a\\\"b\\\\\"]}\n");
    }
}
