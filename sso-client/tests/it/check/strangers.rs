//! What is not a TLS server in order. Each is named, and nothing hangs: the time is bounded by the code
//! that is tested.

use std::{net::SocketAddr, time::Duration};

use sso_client::certificates::probe::{Look, Outcome, Report, StepKind, Verdict};
use sso_core::tls::TlsReason;
use tokio::io::AsyncReadExt as _;

use super::{
    TIMEOUT, check_of, outcome,
    pki::{Authority, SERVER},
    run,
    servers::{Served, answering, listen, resetting},
    words,
};

/// For what never answers.
const SHORT: Duration = Duration::from_millis(700);

async fn check(address: SocketAddr) -> Report {
    check_within(TIMEOUT, address).await
}

async fn check_within(timeout: Duration, address: SocketAddr) -> Report {
    let authority = Authority::root("Good CA");
    let mut check = check_of(address, &authority);
    check.timeout = timeout;
    run(&check).await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols() {
    for (answer, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP without TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100], "HTTP/2 without TLS"),
        (&[0xff; 300], "not TLS"),
        (b"\x16\x03\x03\x00\x04garb", "not TLS"),
    ] {
        for close in [true, false] {
            let report = check(answering(answer, close).await).await;
            assert_eq!(report.verdict, Verdict::Refused, "{:#?}", report.steps);
            assert_eq!(report.reason, Some(TlsReason::NotTls), "{:#?}", report.steps);
            let said = words(&report, StepKind::Tls13);
            assert!(said.contains(says), "{said}");
            assert!(report.chain.certificates.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing() {
    let address = answering(b"", false).await;
    let report = check_within(SHORT, address).await;
    assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
    assert_eq!(report.reason, Some(TlsReason::HandshakeTimeout), "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Connect), Some(Outcome::Ok));

    let target = address.to_string().parse().unwrap();
    let error = Look::at(&target, None, SHORT).await.unwrap_err();
    assert!(error.unreachable && error.to_string().contains("does not finish"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_in_the_middle_of_a_record() {
    let report = check_within(SHORT, answering(b"\x16\x03\x03\x01", false).await).await;
    assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
    assert_eq!(report.reason, Some(TlsReason::HandshakeTimeout), "{:#?}", report.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_stops_talking() {
    let address = listen(|mut tcp| async move {
        use tokio::io::AsyncWriteExt as _;
        // Empty handshake records for ever.
        while tcp.write_all(b"\x16\x03\x03\x00\x00").await.is_ok() {}
    })
    .await;
    let report = check(address).await;
    assert_ne!(report.verdict, Verdict::Served, "{:#?}", report.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_break_off() {
    for address in [answering(b"", true).await, resetting().await] {
        let report = check(address).await;
        assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
        assert_eq!(report.reason, Some(TlsReason::Disconnected), "{:#?}", report.steps);
        assert_eq!(outcome(&report, StepKind::Tls11), Some(Outcome::Ok), "{:#?}", report.steps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_after_the_handshake() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let acceptor = Served::with(&issued).acceptor();
    let address = listen(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            // It neither speaks nor closes, but keeps the connection for as long as it lasts.
            let (mut tcp, _session) = tls.into_inner();
            let mut space = [0; 1024];
            while matches!(tcp.read(&mut space).await, Ok(1..)) {}
            std::future::pending::<()>().await;
        }
    })
    .await;
    let mut check = check_of(address, &authority);
    check.timeout = Duration::from_secs(3);
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
    assert_eq!(report.reason, Some(TlsReason::HandshakeTimeout), "{:#?}", report.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let report = check(taken.local_addr().unwrap()).await;
    assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Connect), Some(Outcome::Failed));
    assert!(words(&report, StepKind::Connect).contains("nothing listens"), "{:#?}", report.steps);

    let authority = Authority::root("Good CA");
    let mut check = check_of("127.0.0.1:1".parse().unwrap(), &authority);
    check.target = "no-such-host.invalid:443".parse().unwrap();
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Unreachable, "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Resolve), Some(Outcome::Failed));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_told() {
    // The beginnings of a ServerHello in TLS 1.0: an old server accepts both greetings with it.
    let old = b"\x16\x03\x01\x00\x4a\x02\x00\x00\x46\x03\x01";
    let report = check(answering(old, true).await).await;
    assert_eq!(outcome(&report, StepKind::Tls10), Some(Outcome::Warning), "{:#?}", report.steps);
    assert!(words(&report, StepKind::Tls10).contains("ACCEPTED"), "{:#?}", report.steps);
    let newer = words(&report, StepKind::Tls11);
    assert!(newer.contains("answers in TLS 1.0"), "{newer}");

    // protocol_version, fatal
    let report = check(answering(b"\x15\x03\x01\x00\x02\x02\x46", true).await).await;
    for step in [StepKind::Tls11, StepKind::Tls10] {
        assert!(words(&report, step).contains("alert 70"), "{:#?}", report.steps);
    }
    assert_eq!(report.reason, Some(TlsReason::ProtocolVersion), "{:#?}", report.steps);
}
