//! What strangers may do: garbage, silence, more work than is theirs to ask for.

use std::time::Duration;

use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    tls::TlsReloader,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    pki::Pki,
    world::{call, channel, serve},
};

#[tokio::test]
async fn garbage_and_silence_do_not_stop_the_acceptor() {
    let pki = Pki::new();
    let limits = AcceptLimits {
        handshakes: 4,
        handshake_timeout: Duration::from_millis(300),
        ..AcceptLimits::default()
    };
    let server = serve(TlsReloader::load(&pki.issue("server")).unwrap(), limits).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 5000], b""] {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
    }
    // More silent connections than there are places for handshakes.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let mut channel = channel(&server, &pki.issue("ann"));
    assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
}

/// More of them than places, and more time for each than anybody has.
#[tokio::test]
async fn a_hundred_who_stall_do_not_keep_a_good_client_out() {
    let pki = Pki::new();
    let limits =
        AcceptLimits { handshake_timeout: Duration::from_secs(3600), ..AcceptLimits::default() };
    let server = serve(TlsReloader::load(&pki.issue("server")).unwrap(), limits).await;
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a hello.
            tcp.write_all(&[22, 3, 1, 0, 200, 1, 0]).await.unwrap();
        }
        silent.push(tcp);
    }
    let mut channel = channel(&server, &pki.issue("ann"));
    assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_listener() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tls = TlsReloader::load(&pki.issue("server")).unwrap();
    let shutdown = CancellationToken::new();
    let mut incoming = mtls_incoming(listener, tls, AcceptLimits::default(), shutdown.clone());
    shutdown.cancel();
    assert!(incoming.next().await.is_none());
    assert!(TcpStream::connect(addr).await.is_err());
}
