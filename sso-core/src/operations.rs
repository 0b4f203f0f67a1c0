//! The listener for whoever operates the process: `/livez`, `/readyz`, `/metrics`, and what else the
//! process publishes. It has no TLS and serves no secret; bind it to an address that only operators
//! reach.

use std::{fmt, fmt::Write as _, io, sync::Arc, time::Duration};

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

    fn to_json(&self, warnings: &[String]) -> String {
        let mut text = format!("{{\"ready\":{},\"reasons\":[", self.is_ready());
        push_list(&mut text, &self.reasons);
        text.push_str("],\"warnings\":[");
        push_list(&mut text, warnings);
        text.push_str("]}\n");
        text
    }
}

/// What is served beside the metrics.
#[derive(Clone)]
pub struct Pages {
    standing: Standing,
    documents: Vec<Document>,
}

/// What `/readyz` asks.
#[derive(Clone)]
struct Standing {
    ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    warnings: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// A document in JSON at a path of its own; `None` while there is none.
#[derive(Clone)]
struct Document {
    path: &'static str,
    content: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Pages {
    /// Nothing but the readiness.
    #[must_use]
    pub fn new(ready: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        let standing = Standing { ready: Arc::new(ready), warnings: Arc::new(Vec::new) };
        Self { standing, documents: Vec::new() }
    }

    /// The same with what will stand in the way before long if nobody acts. The status does not depend
    /// on it.
    #[must_use]
    pub fn with_warnings(
        mut self,
        warnings: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.standing.warnings = Arc::new(warnings);
        self
    }

    /// The same with a document in JSON at this path; while it is `None` the answer is 503.
    #[must_use]
    pub fn with_json(
        mut self,
        path: &'static str,
        content: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.documents.push(Document { path, content: Arc::new(content) });
        self
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.documents.iter().map(|document| document.path);
        f.debug_list().entries(paths).finish()
    }
}

/// Serves `/livez` (200 while the process runs), `/readyz` (200, or 503 with the reasons; as JSON, with
/// the warnings), `/metrics` and the documents of `pages` until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve_operations(
    listener: TcpListener,
    metrics: Metrics,
    pages: Pages,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut router = Router::new()
        .route("/livez", routing::get(|| async { "alive\n" }))
        .route("/readyz", routing::get(readiness).with_state(pages.standing))
        .route("/metrics", routing::get(render).with_state(metrics.clone()));
    for document in pages.documents {
        router = router.route(document.path, routing::get(json).with_state(document));
    }
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

async fn readiness(State(standing): State<Standing>) -> impl IntoResponse {
    let readiness = (standing.ready)();
    let content = readiness.to_json(&(standing.warnings)());
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], content)
}

async fn json(State(document): State<Document>) -> impl IntoResponse {
    let (status, content) = match (document.content)() {
        Some(content) => (StatusCode::OK, content),
        None => (StatusCode::SERVICE_UNAVAILABLE, "{}\n".to_owned()),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], content)
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

fn push_list(text: &mut String, lines: &[String]) {
    for (number, line) in lines.iter().enumerate() {
        text.push_str(if number == 0 { "\"" } else { ",\"" });
        line.chars().for_each(|character| push_escaped(text, character));
        text.push('"');
    }
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
        let state = Arc::clone(&good);
        let warnings = || vec!["keys end in 20 s".to_owned()];
        let pages = Pages::new(ready).with_warnings(warnings).with_json("/more.json", move || {
            state.load(Ordering::Relaxed).then(|| "{\"more\":1}".to_owned())
        });
        assert_eq!(format!("{pages:?}"), "[\"/more.json\"]");
        let server =
            tokio::spawn(serve_operations(listener, Metrics::detached(), pages, shutdown.clone()));

        assert!(get(addr, "/livez").await.contains("200 OK"));
        let answer = get(addr, "/readyz").await;
        assert!(answer.contains("503 Service Unavailable"), "{answer}");
        assert!(
            answer.contains(r#"{"ready":false,"reasons":["master \"unreachable\"","database"],"#),
            "{answer}"
        );
        assert!(answer.ends_with("\"warnings\":[\"keys end in 20 s\"]}\n"), "{answer}");
        assert!(get(addr, "/more.json").await.contains("503 Service Unavailable"));
        good.store(true, Ordering::Relaxed);
        let answer = get(addr, "/more.json").await;
        assert!(answer.contains("application/json") && answer.ends_with("{\"more\":1}"));
        let answer = get(addr, "/readyz").await;
        assert!(answer.contains("200 OK") && answer.contains(r#"{"ready":true,"reasons":[],"#));
        assert!(answer.ends_with("\"warnings\":[\"keys end in 20 s\"]}\n"), "{answer}");
        assert!(get(addr, "/metrics").await.contains("text/plain"));
        assert!(get(addr, "/other").await.contains("404"));

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn reasons_and_warnings_are_escaped() {
        let readiness = Readiness { reasons: vec!["a\n\"b\\".into()] };
        let warnings = ["c".to_owned(), "\"d".to_owned()];
        assert_eq!(
            readiness.to_json(&warnings),
            "{\"ready\":false,\"reasons\":[\"a\\u000a\\\"b\\\\\"],\"warnings\":[\"c\",\"\\\"d\"]}\n"
        );
        let ready = Readiness::default().to_json(&[]);
        assert_eq!(ready, "{\"ready\":true,\"reasons\":[],\"warnings\":[]}\n");
    }
}
