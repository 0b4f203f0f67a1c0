//! The library for hosts that connect other systems: real HTTPS between its two ends, and a config
//! store that changes.

mod followed;
mod listener;
mod pki;
mod refusals;
mod renewals;
mod sign_on;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    routing::{get, post},
};
use sso_client::integration::{
    Call, CertificateStore, Followed, HttpsClient, HttpsListener, HttpsPeer, ListenerControl,
    ReceiveLocation, RetryPlan, SendPort, Thumbprint,
};
use sso_core::tls::{ClientCertificate, ListSource, TlsVersion};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::pki::{Ca, ClientAuth, Leaf, ServerAuth};

/// An authority, a store with the certificate of a server and of a client, and a good list.
struct Bench {
    ca: Ca,
    folder: TempDir,
    server: Leaf,
    client: Leaf,
    shutdown: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What a listener has served.
#[derive(Clone, Default)]
struct Served {
    requests: Arc<AtomicUsize>,
}

impl Served {
    fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Bench {
    fn new() -> Self {
        sso_core::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("Test CA");
        ca.write(&folder.path().join("ca.crt"));
        let server = ca.issue(folder.path(), "server", &[ServerAuth]);
        let client = ca.issue(folder.path(), "client", &[ClientAuth]);
        ca.write_list(&folder.path().join("ca.crl"), &[], time::Duration::days(1));
        Self { ca, folder, server, client, shutdown: CancellationToken::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> CertificateStore {
        CertificateStore::open(self.folder.path()).unwrap()
    }

    fn location(&self) -> ReceiveLocation {
        ReceiveLocation {
            name: "Notifications".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            path: "/".into(),
            certificate: self.server.thumbprint.clone(),
            ca: "ca.crt".into(),
            crl: vec![ListSource::File("ca.crl".into())],
            revocation: None,
            list_refresh: None,
            minimum_version: TlsVersion::V1_3,
            client_certificate: ClientCertificate::Required,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }

    fn port(&self, addr: SocketAddr) -> SendPort {
        SendPort {
            name: "Bills".into(),
            address: format!("https://localhost:{}", addr.port()),
            certificate: Some(self.client.thumbprint.clone()),
            ca: "ca.crt".into(),
            crl: vec![ListSource::File("ca.crl".into())],
            revocation: None,
            list_refresh: None,
            minimum_version: TlsVersion::V1_3,
            application: None,
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(30),
            retry: RetryPlan::default(),
        }
    }

    async fn listen(&self, location: ReceiveLocation) -> (ListenerControl, Served) {
        self.listen_followed(Followed::fixed(location)).await
    }

    async fn listen_followed(
        &self,
        locations: Followed<ReceiveLocation>,
    ) -> (ListenerControl, Served) {
        let listener =
            HttpsListener::bind(locations, self.store(), self.shutdown.clone()).await.unwrap();
        let control = listener.control();
        let served = Served::default();
        let router = Router::new()
            .route("/who", get(who))
            .route("/echo", post(|body: String| async move { body }))
            .route("/status/{status}", get(status))
            .route("/never", get(std::future::pending::<()>))
            .with_state(served.clone());
        let service = router.into_make_service_with_connect_info::<HttpsPeer>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        (control, served)
    }

    async fn client(&self, port: SendPort) -> HttpsClient {
        HttpsClient::open(Followed::fixed(port), self.store(), self.shutdown.clone()).await.unwrap()
    }
}

/// Answers with the thumbprint of the peer.
async fn who(State(served): State<Served>, ConnectInfo(peer): ConnectInfo<HttpsPeer>) -> String {
    served.requests.fetch_add(1, Ordering::SeqCst);
    peer.certificate().map(|it| Thumbprint::of(it).to_string()).unwrap_or_default()
}

async fn status(
    axum::extract::Path(status): axum::extract::Path<u16>,
) -> (StatusCode, [(&'static str, &'static str); 1]) {
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "3")])
}

/// Whom the listener takes the client for.
async fn asked(client: &HttpsClient) -> String {
    let answer = client.send(Call::get("/who")).await.unwrap();
    String::from_utf8(answer.body).unwrap()
}

/// Repeats a question until the answer is right: of things that happen by themselves in a while.
async fn until<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    for _ in 0..600 {
        if question().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not after half a minute");
}
