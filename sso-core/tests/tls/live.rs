//! What a reload does to connections that exist.

use std::time::{Duration, Instant};

use rcgen::date_time_ymd;
use sso_core::{
    acceptor::AcceptLimits,
    tls::{Application, RevocationPolicy, TlsNotice, TlsReason, TlsReloader},
};
use tonic::body::Body;

use crate::{
    pki::Pki,
    world::{at, call, channel, channel_of, send, serve, serve_files},
};

#[tokio::test]
async fn a_reload_reaches_live_connections_and_streams() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    let (ann, bob) = (pki.issue("ann"), pki.issue("bob"));
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    let server = serve_files(&settings).await;
    let (mut ann, mut bob) = (channel(&server, &ann), channel(&server, &bob));
    call(&mut ann).await.unwrap();
    call(&mut bob).await.unwrap();
    let mut stream = send(&mut ann, "/ticks").await.unwrap().into_body();
    next_chunk(&mut stream).await.unwrap();

    pki.revoke(&[2], 2200);
    server.tls.reload().unwrap();
    let status = call(&mut ann).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("no longer valid: CERTIFICATE_REVOKED"), "{status:?}");
    assert!(!status.message().contains("ca.crl"), "files are no matter of a peer: {status:?}");
    assert_eq!(call(&mut bob).await.unwrap(), "sso://DEV/bob");

    let began = Instant::now();
    while next_chunk(&mut stream).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "the stream goes on");
    }
    assert_eq!(call(&mut bob).await.unwrap(), "sso://DEV/bob");
}

async fn next_chunk(body: &mut Body) -> Result<(), String> {
    use std::{future::poll_fn, pin::Pin};

    use axum::body::HttpBody as _;
    match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("end".to_owned()),
    }
}

#[tokio::test]
async fn expiry_reaches_live_connections() {
    let pki = Pki::new();
    let clock = at(2020);
    let tls =
        TlsReloader::load_for(&pki.issue("server"), Application::Grpc, clock.clone()).unwrap();
    let server = serve(tls, AcceptLimits::default()).await;
    let soon = pki.issue_with("ann", |params| params.not_after = date_time_ymd(2020, 7, 1));
    let ann = TlsReloader::load_for(&soon, Application::Grpc, at(2020)).unwrap();
    let mut ann = channel_of(&server, ann.into());
    call(&mut ann).await.unwrap();
    clock.advance(Duration::from_secs(60 * 86_400));
    assert_eq!(call(&mut ann).await.unwrap_err().code(), tonic::Code::Unauthenticated);
}

/// The caller's side of the same: its own list revokes the server.
#[tokio::test]
async fn a_connection_to_a_server_that_is_revoked_ends() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue("server")).await;
    let mut ann = pki.issue("ann");
    ann.crl = vec![pki.revoke(&[], 2200).into()];
    let tls = TlsReloader::load(&ann).unwrap();
    let mut channel = channel_of(&server, std::sync::Arc::clone(&tls).into());
    call(&mut channel).await.unwrap();
    let mut stream = send(&mut channel, "/ticks").await.unwrap().into_body();
    next_chunk(&mut stream).await.unwrap();

    pki.revoke(&[1], 2200);
    tls.reload().unwrap();
    let began = Instant::now();
    while next_chunk(&mut stream).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "the stream goes on");
    }
    let reason = crate::world::refusal_of(&mut channel).await;
    assert!(reason.starts_with("CERTIFICATE_REVOKED: "), "{reason}");

    // It gets a new certificate, and is spoken to again.
    pki.issue("server");
    server.tls.reload().unwrap();
    assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
}

/// Nobody says anything on it, and it ends all the same.
#[tokio::test]
async fn an_idle_connection_of_a_revoked_client_is_closed() {
    use rustls::version::TLS13;
    use tokio::io::AsyncReadExt as _;

    use crate::bare::{client, connect, first_byte};
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    let server = serve_files(&settings).await;
    let mut ann = connect(server.addr, &client(Some(&pki.issue("ann")), &[&TLS13])).await.unwrap();
    first_byte(&mut ann).await.unwrap();
    pki.revoke(&[2], 2200);
    server.tls.reload().unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(30), ann.read_to_end(&mut rest));
    // An end or an error, but soon.
    let _ = closed.await.expect("the connection goes on");
}

/// New certificates of both sides, again and again, and nobody notices.
#[tokio::test]
async fn renewals_break_no_connection() {
    let pki = Pki::new();
    let (server_files, ann_files) = (pki.issue("server"), pki.issue("ann"));
    let server = serve_files(&server_files).await;
    let ann = TlsReloader::load(&ann_files).unwrap();
    let mut old = channel_of(&server, std::sync::Arc::clone(&ann).into());
    let mut stream = send(&mut old, "/ticks").await.unwrap().into_body();
    for _ in 0..20 {
        pki.issue("server");
        pki.issue("ann");
        server.tls.reload().unwrap();
        ann.reload().unwrap();
        assert_eq!(call(&mut old).await.unwrap(), "sso://DEV/ann");
        let mut new = channel_of(&server, std::sync::Arc::clone(&ann).into());
        assert_eq!(call(&mut new).await.unwrap(), "sso://DEV/ann");
        next_chunk(&mut stream).await.unwrap();
    }
}

static LENIENT: std::sync::Mutex<Vec<TlsNotice>> = std::sync::Mutex::new(Vec::new());

/// Under soft-fail a connection goes on when its list ends, and that is told, once.
#[tokio::test]
async fn a_live_connection_that_nobody_can_tell_about_is_told_of_once() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    settings.revocation = Some(RevocationPolicy::SoftFail);
    let server = serve_files(&settings).await;
    server.tls.announce(|notice| LENIENT.lock().unwrap().push(notice.clone()));
    let mut ann = channel(&server, &pki.issue("ann"));
    call(&mut ann).await.unwrap();
    assert_eq!(*LENIENT.lock().unwrap(), []);
    pki.revoke(&[], 2021);
    for _ in 0..3 {
        server.tls.reload().unwrap();
        call(&mut ann).await.unwrap();
    }
    let told = LENIENT.lock().unwrap().clone();
    let [TlsNotice::SoftFailed { reason, serial, .. }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((*reason, serial.as_str()), (TlsReason::RevocationListExpired, "02"));
}
