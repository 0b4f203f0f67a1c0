//! The receive side: who is let in, who harms nobody, and what becomes of connections.

use std::time::Duration;

use sso_client::integration::{Call, Followed, HttpsListener, SendPort, SetupError};
use sso_core::tls::ClientCertificate;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Bench, asked,
    pki::{ClientAuth, ServerAuth},
    until,
};

#[tokio::test]
async fn who_stalls_or_talks_nonsense_harms_nobody() {
    let bench = Bench::new();
    let mut location = bench.location();
    location.handshake_timeout = Duration::from_millis(500);
    let (control, served) = bench.listen(location).await;
    let mut stalling = Vec::new();
    for number in 0..100 {
        let mut tcp = TcpStream::connect(control.local_addr()).await.unwrap();
        match number % 3 {
            0 => tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
            1 => tcp.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00]).await.unwrap(),
            _ => {}
        }
        stalling.push(tcp);
    }
    let client = bench.client(bench.port(control.local_addr())).await;
    assert!(!asked(&client).await.is_empty());
    for mut tcp in stalling {
        let mut rest = Vec::new();
        // Closed or reset: both are an end.
        let _ = tcp.read_to_end(&mut rest).await;
    }
    assert_eq!(served.count(), 1);
}

#[tokio::test]
async fn a_connection_that_does_nothing_is_closed() {
    let bench = Bench::new();
    let mut location = bench.location();
    location.idle_timeout = Duration::from_secs(1);
    let (control, _) = bench.listen(location).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    // The handler never answers: nothing moves, and the connection ends.
    let error = client.send(Call::get("/never")).await.unwrap_err();
    assert!(error.may_have_arrived() && error.again().helps(), "{error}");
    assert!(!asked(&client).await.is_empty());
}

#[tokio::test]
async fn a_live_connection_of_a_revoked_peer_is_closed() {
    let bench = Bench::new();
    let mut location = bench.location();
    location.crl = vec!["listener.crl".parse().unwrap()];
    let list = bench.path("listener.crl");
    bench.ca.write_list(&list, &[], time::Duration::days(1));
    let (control, served) = bench.listen(location).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    assert!(!asked(&client).await.is_empty());
    bench.ca.write_list(&list, &[&bench.client], time::Duration::days(1));
    control.reload().await.unwrap();
    let error = client.send(Call::get("/who")).await.unwrap_err();
    assert!(!error.to_string().is_empty());
    assert_eq!(served.count(), 1, "nothing more of the revoked peer is served");
    let error = client.send(Call::get("/who")).await.unwrap_err();
    assert!(error.to_string().contains("CERTIFICATE_REVOKED"), "{error}");
}

#[tokio::test]
async fn peers_without_a_certificate_are_known_as_such() {
    let bench = Bench::new();
    let mut location = bench.location();
    location.client_certificate = ClientCertificate::Optional;
    let (control, _) = bench.listen(location).await;
    let without = SendPort { certificate: None, ..bench.port(control.local_addr()) };
    assert_eq!(asked(&bench.client(without).await).await, "");
    let with = bench.client(bench.port(control.local_addr())).await;
    assert_eq!(asked(&with).await, bench.client.thumbprint.to_string());
}

#[tokio::test]
async fn the_location_is_followed() {
    let bench = Bench::new();
    let (locations, set_location) = Followed::settable(bench.location());
    let (control, _) = bench.listen_followed(locations).await;
    let first = control.local_addr();
    let client = bench.client(bench.port(first)).await;
    assert!(!asked(&client).await.is_empty());

    // An address that is taken already is kept out.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut location = bench.location();
    location.listen = taken.local_addr().unwrap();
    set_location(location.clone());
    until("the problem is told", async || control.problem().is_some()).await;
    assert_eq!(control.local_addr(), first);
    assert!(!asked(&client).await.is_empty());

    drop(taken);
    control.reload().await.unwrap();
    assert_eq!(control.local_addr(), location.listen);
    assert!(!asked(&client).await.is_empty(), "the old connection goes on");
    let client = bench.client(bench.port(location.listen)).await;
    assert!(!asked(&client).await.is_empty());
    until("the old address is given up", async || TcpStream::connect(first).await.is_err()).await;
}

#[tokio::test]
async fn a_shutdown_gives_the_address_up() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    assert!(!asked(&client).await.is_empty());
    bench.shutdown.cancel();
    let addr = control.local_addr();
    until("nothing listens", async || TcpStream::connect(addr).await.is_err()).await;
    control.reload().await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_is_not_for_servers_is_refused_at_once() {
    let bench = Bench::new();
    let bind = |thumbprint| {
        let mut location = bench.location();
        location.certificate = thumbprint;
        HttpsListener::bind(Followed::fixed(location), bench.store(), bench.shutdown.clone())
    };
    let error = bind(bench.client.thumbprint.clone()).await.unwrap_err();
    assert!(matches!(error, SetupError::Tls { .. }), "{error}");
    let both = bench.ca.issue(bench.folder(), "both", &[ServerAuth, ClientAuth]);
    assert!(bind(both.thumbprint).await.is_ok());
}
