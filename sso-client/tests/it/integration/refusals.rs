//! Why a call fails, and whether trying again helps.

use std::{net::SocketAddr, time::Duration};

use sso_client::integration::{
    Again, Call, Followed, HttpsClient, HttpsError, SendPort, SetupError, StoreError,
};
use sso_core::tls::{RevocationPolicy, TlsReason, TlsVersion};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    Bench, asked,
    pki::{Ca, ClientAuth, ServerAuth},
};

async fn refusal(client: &HttpsClient) -> HttpsError {
    client.send(Call::get("/who")).await.unwrap_err()
}

#[tokio::test]
async fn a_call_is_answered_and_knows_its_peer() {
    let bench = Bench::new();
    let (control, served) = bench.listen(bench.location()).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    assert_eq!(asked(&client).await, bench.client.thumbprint.to_string());
    let call = Call::post("echo").body("text/plain", "hello");
    assert_eq!(client.send(call).await.unwrap().body, b"hello");
    assert_eq!(served.count(), 1);
    assert_eq!((client.problem(), control.problem()), (None, None));
}

/// The server has something against the client; with TLS 1.3 it says so after the client believes to
/// be connected.
#[tokio::test]
async fn the_servers_refusals_have_reasons() {
    let bench = Bench::new();
    let now = time::Duration::seconds(-3600);
    for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
        let mut location = bench.location();
        location.minimum_version = version;
        location.crl = vec!["listener.crl".parse().unwrap()];
        let revoked = bench.ca.issue(bench.folder(), "revoked", &[ClientAuth]);
        let list = bench.path("listener.crl");
        bench.ca.write_list(&list, &[&revoked], time::Duration::days(1));
        let (control, served) = bench.listen(location).await;
        let good = bench.port(control.local_addr());

        let wrong = bench.ca.issue(bench.folder(), "wrong", &[ServerAuth]);
        let foreign = Ca::new("Foreign CA");
        let foreign = foreign.issue(bench.folder(), "foreign", &[ClientAuth]);
        for (certificate, reason) in [
            (Some(revoked.thumbprint.clone()), TlsReason::CertificateRevoked),
            (Some(foreign.thumbprint.clone()), TlsReason::UntrustedIssuer),
            (Some(wrong.thumbprint.clone()), TlsReason::WrongPurpose),
            (None, TlsReason::NoClientCertificate),
        ] {
            let client = bench.client(SendPort { certificate, ..good.clone() }).await;
            let error = refusal(&client).await;
            assert_eq!(error.reason(), Some(reason), "{error}");
            assert_eq!(error.again(), Again::AfterRepair, "{error}");
            assert!(!error.may_have_arrived());
            assert!(error.to_string().contains(reason.as_str()), "{error}");
            assert!(error.to_string().contains("send port 'Bills'"), "{error}");
        }
        let client = bench.client(good.clone()).await;
        assert_eq!(asked(&client).await, bench.client.thumbprint.to_string());

        // Trouble with the list is no refusal of the certificate.
        bench.ca.write_list(&list, &[], now);
        control.reload().await.unwrap();
        let client = bench.client(good.clone()).await;
        let error = refusal(&client).await;
        assert_eq!(error.again(), Again::Later, "{error}");
        assert!(error.reason().is_some_and(TlsReason::is_list_trouble), "{error}");
        assert_eq!(served.count(), 1, "nobody else was served");
    }
}

#[tokio::test]
async fn the_clients_refusals_have_reasons() {
    let bench = Bench::new();
    let (control, served) = bench.listen(bench.location()).await;
    let good = bench.port(control.local_addr());
    let other = Ca::new("Other CA");
    other.write(&bench.path("other.crt"));
    other.write_list(&bench.path("other.crl"), &[], time::Duration::days(1));
    bench.ca.write_list(&bench.path("revoked.crl"), &[&bench.server], time::Duration::days(1));
    bench.ca.write_list(&bench.path("expired.crl"), &[], time::Duration::seconds(-3600));
    let list = |name: &str| vec![name.parse().unwrap()];
    for (port, reason, again) in [
        (
            SendPort { crl: list("revoked.crl"), ..good.clone() },
            TlsReason::CertificateRevoked,
            Again::AfterRepair,
        ),
        (
            SendPort { crl: list("expired.crl"), ..good.clone() },
            TlsReason::RevocationListExpired,
            Again::Later,
        ),
        (
            SendPort { crl: list("other.crl"), ..good.clone() },
            TlsReason::RevocationListUnavailable,
            Again::Later,
        ),
        (
            SendPort { ca: "other.crt".into(), crl: Vec::new(), ..good.clone() },
            TlsReason::UntrustedIssuer,
            Again::AfterRepair,
        ),
        (
            SendPort {
                address: format!("https://127.0.0.2:{}", control.local_addr().port()),
                ..good.clone()
            },
            TlsReason::WrongName,
            Again::AfterRepair,
        ),
    ] {
        if reason == TlsReason::WrongName {
            // The listener is at 127.0.0.1 alone.
            let mut location = bench.location();
            location.listen = "127.0.0.2:0".parse().unwrap();
            let (control, _) = bench.listen(location).await;
            let address = format!("https://{}", control.local_addr());
            let client = bench.client(SendPort { address, ..port }).await;
            assert_eq!(refusal(&client).await.reason(), Some(reason));
            continue;
        }
        let client = bench.client(port).await;
        let error = refusal(&client).await;
        assert_eq!((error.reason(), error.again()), (Some(reason), again), "{error}");
    }
    let soft = SendPort {
        crl: list("expired.crl"),
        revocation: Some(RevocationPolicy::SoftFail),
        ..good.clone()
    };
    assert!(!asked(&bench.client(soft).await).await.is_empty(), "on purpose");
    assert_eq!(served.count(), 1);
}

/// The distribution point of the lists is away, then there again.
#[tokio::test]
async fn lists_that_cannot_be_fetched_are_named_and_waited_for() {
    let bench = Bench::new();
    let (control, served) = bench.listen(bench.location()).await;
    let lists = closed_address().await;
    let source = format!("http://{lists}/ca.crl").parse().unwrap();
    let port = SendPort { crl: vec![source], ..bench.port(control.local_addr()) };
    let client = bench.client(port.clone()).await;
    let error = refusal(&client).await;
    assert_eq!(error.reason(), Some(TlsReason::RevocationListUnavailable), "{error}");
    assert_eq!(error.again(), Again::Later);
    assert!(!client.warnings().is_empty());
    let revocation = Some(RevocationPolicy::SoftFail);
    let soft = bench.client(SendPort { revocation, ..port }).await;
    assert!(!asked(&soft).await.is_empty());
    assert_eq!(served.count(), 1);

    let list = std::fs::read(bench.path("ca.crl")).unwrap();
    let listener = TcpListener::bind(lists).await.unwrap();
    let router = axum::Router::new().route("/ca.crl", axum::routing::get(async || list));
    tokio::spawn(async move { axum::serve(listener, router).await });
    client.reload().await.unwrap();
    assert!(!asked(&client).await.is_empty());
}

#[tokio::test]
async fn statuses_are_errors_with_their_answer() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    for (status, again) in
        [(503, Again::Later), (429, Again::Later), (401, Again::AfterRepair), (422, Again::Never)]
    {
        let error = client.send(Call::get(format!("/status/{status}"))).await.unwrap_err();
        assert_eq!((error.status(), error.again()), (Some(status), again), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    }
    assert_eq!(client.send(Call::get("/status/204")).await.unwrap().status, 204);
    let error = client.send(Call::get("/a b")).await.unwrap_err();
    assert_eq!((error.again(), error.may_have_arrived()), (Again::Never, false));
}

#[tokio::test]
async fn deadlines_and_outages_are_told_apart() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let good = bench.port(control.local_addr());
    let timeout = Duration::from_millis(500);
    let slow = bench.client(SendPort { timeout, ..good.clone() }).await;
    let error = slow.send(Call::get("/never")).await.unwrap_err();
    assert!(matches!(error, HttpsError::Timeout { connecting: false, .. }), "{error}");
    assert_eq!((error.again(), error.may_have_arrived()), (Again::Later, true));

    let closed = closed_address().await;
    let error = refusal(&bench.client(bench.port(closed)).await).await;
    assert!(matches!(error, HttpsError::Unreachable { .. }), "{error}");
    assert_eq!((error.again(), error.may_have_arrived()), (Again::Later, false));

    // Accepts, and never shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut port = bench.port(silent.local_addr().unwrap());
    port.connect_timeout = timeout;
    let error = refusal(&bench.client(port).await).await;
    assert!(matches!(error, HttpsError::Timeout { connecting: true, .. }), "{error}");
    assert!(!error.may_have_arrived());

    // Speaks something else.
    let garbage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = bench.port(garbage.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = garbage.accept().await {
            let _ = tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            let _ = tcp.read_u8().await;
        }
    });
    let error = refusal(&bench.client(port).await).await;
    assert_eq!(error.reason(), Some(TlsReason::NotTls), "{error}");
    assert_eq!(error.again(), Again::AfterRepair);
}

async fn closed_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let bench = Bench::new();
    let open = |port: SendPort| {
        HttpsClient::open(Followed::fixed(port), bench.store(), bench.shutdown.clone())
    };
    let good = bench.port("127.0.0.1:1".parse().unwrap());
    let unknown = Some("0".repeat(64).parse().unwrap());
    let error = open(SendPort { certificate: unknown, ..good.clone() }).await.unwrap_err();
    assert!(
        matches!(&error, SetupError::Store { source: StoreError::NotFound { .. }, .. }),
        "{error}"
    );
    assert!(error.to_string().contains(bench.client.thumbprint.as_str()), "{error}");
    let error = open(SendPort { ca: "none.crt".into(), ..good.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("none.crt"), "{error}");
    std::fs::copy(bench.path("server.key"), bench.path("client.key")).unwrap();
    let error = open(good).await.unwrap_err();
    assert!(matches!(error, SetupError::Tls { .. }), "{error}");
    assert_eq!(error.again(), Again::AfterRepair);
}
