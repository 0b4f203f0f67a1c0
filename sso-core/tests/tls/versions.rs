//! Protocol versions, and that nothing is resumed in any of them.

use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use sso_core::{
    acceptor::AcceptLimits,
    connector::ClientTls,
    tls::{TlsReloader, TlsSettings, TlsVersion},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    bare::{Saw, ask, client, connect, first_byte},
    pki::Pki,
    world::{call, channel, channel_of, refusal, serve, serve_files},
};

fn lenient(pki: &Pki, name: &str) -> TlsSettings {
    TlsSettings { minimum_version: TlsVersion::V1_2, ..pki.issue(name) }
}

#[tokio::test]
async fn tls_1_2_is_refused_unless_it_is_allowed() {
    let pki = Pki::new();
    let strict = serve_files(&pki.issue("server")).await;
    let ann = pki.issue("ann");
    assert_eq!(ask(strict.addr, &client(Some(&ann), &[&TLS12])).await, Saw::Alert(70));
    assert_eq!(ask(strict.addr, &client(Some(&ann), &[&TLS13])).await, Saw::Served);

    let lenient = serve_files(&lenient(&pki, "lenient")).await;
    for version in [&TLS12, &TLS13] {
        let saw = ask(lenient.addr, &client(Some(&ann), &[version])).await;
        assert_eq!(saw, Saw::Served, "{version:?}");
        assert_eq!(ask(lenient.addr, &client(None, &[version])).await, Saw::Alert(116));
    }
    let mut newest = connect(lenient.addr, &client(Some(&ann), &[&TLS12, &TLS13])).await.unwrap();
    first_byte(&mut newest).await.unwrap();
    assert_eq!(
        newest.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3),
        "1.2 is for those who know nothing newer"
    );
}

/// A server of others that speaks TLS 1.2 alone.
///
/// What it returns second hears of every handshake that was complete.
async fn old_server(pki: &Pki) -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<()>) {
    old_server_for(pki, None).await
}

/// As [`old_server`], for clients of the authorities in the file, if there is one.
async fn old_server_for(
    pki: &Pki,
    clients: Option<&std::path::Path>,
) -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<()>) {
    use std::sync::Arc;

    use rustls::{
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    };
    let files = pki.issue("old");
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |file| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        builder.build().unwrap()
    });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (complete, heard) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, complete) = (acceptor.clone(), complete.clone());
            tokio::spawn(async move {
                if let Ok(mut io) = acceptor.accept(tcp).await {
                    complete.send(()).await.unwrap();
                    // Settings, and then whatever comes.
                    let _ = io.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
                    let _ = io.read_to_end(&mut Vec::new()).await;
                }
            });
        }
    });
    (addr, heard)
}

#[tokio::test]
async fn a_caller_speaks_tls_1_2_only_where_it_is_allowed() {
    use sso_core::connector::{ConnectOptions, connect_channel, transport_reason};
    let pki = Pki::new();
    let (addr, mut complete) = old_server(&pki).await;
    let url = format!("https://{addr}");
    let connect = |tls: ClientTls| connect_channel(&url, tls, ConnectOptions::default()).unwrap();
    let strict = ClientTls::load(&pki.issue("ann")).unwrap();
    let status = call(&mut connect(strict)).await.unwrap_err();
    let reason = transport_reason(&status).unwrap();
    assert!(reason.starts_with("PROTOCOL_VERSION: "), "{reason}");
    assert!(complete.try_recv().is_err());

    let lenient = ClientTls::load(&lenient(&pki, "bob")).unwrap();
    let mut channel = connect(lenient);
    let calling = tokio::spawn(async move { call(&mut channel).await });
    complete.recv().await.unwrap();
    calling.abort();
}

/// With TLS 1.2 the server's alert crosses what this side still has to send.
#[tokio::test]
async fn the_alert_of_an_old_server_is_read_to_the_end() {
    use sso_core::connector::{ConnectOptions, connect_channel, transport_reason};
    let (pki, other) = (Pki::new(), Pki::new());
    let (addr, _complete) = old_server_for(&pki, Some(&other.path("ca.crt"))).await;
    for _ in 0..20 {
        let ann = ClientTls::load(&lenient(&pki, "ann")).unwrap();
        let url = format!("https://{addr}");
        let mut channel = connect_channel(&url, ann, ConnectOptions::default()).unwrap();
        let status = call(&mut channel).await.unwrap_err();
        let reason = transport_reason(&status).unwrap();
        assert!(reason.starts_with("UNTRUSTED_ISSUER: the server refused"), "{reason}");
    }
}

#[tokio::test]
async fn our_own_ends_get_on_in_every_mixture() {
    let pki = Pki::new();
    let (strict, lenient_server) =
        (serve_files(&pki.issue("a")).await, serve_files(&lenient(&pki, "b")).await);
    for server in [&strict, &lenient_server] {
        for files in [pki.issue("ann"), lenient(&pki, "ann")] {
            assert_eq!(call(&mut channel(server, &files)).await.unwrap(), "sso://DEV/ann");
        }
    }
}

#[tokio::test]
async fn hellos_of_old_versions_are_refused_with_an_alert() {
    let pki = Pki::new();
    let strict = serve_files(&pki.issue("server")).await;
    let lenient = serve_files(&lenient(&pki, "lenient")).await;
    for (server, minor, alerts) in [
        (&strict, 3, &[70][..]),
        // The oldest of them name no signature algorithms, which is what is noticed first.
        (&strict, 2, &[70, 40]),
        (&strict, 1, &[70, 40]),
        (&lenient, 2, &[70, 40]),
        (&lenient, 1, &[70, 40]),
    ] {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        tcp.write_all(&client_hello(minor)).await.unwrap();
        let mut answer = [0; 7];
        tcp.read_exact(&mut answer).await.unwrap();
        // An alert record, fatal.
        assert_eq!((answer[0], answer[5]), (21, 2));
        assert!(alerts.contains(&answer[6]), "version 3.{minor}: alert {}", answer[6]);
    }
}

/// The hello of a client that knows nothing newer than version 3.`minor` of SSL, which is TLS
/// 1.(`minor` - 1).
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    let mut extensions: Vec<u8> = vec![
        0, 10, 0, 4, 0, 2, 0, 23, // groups: P-256
        0, 11, 0, 2, 1, 0, // point format: uncompressed
        0, 23, 0, 0, // extended master secret
    ];
    if minor == 3 {
        // Signatures: ECDSA with P-256.
        extensions.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    }
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[tokio::test]
async fn nothing_is_resumed() {
    let pki = Pki::new();
    let server = serve_files(&lenient(&pki, "server")).await;
    for version in [&TLS12, &TLS13] {
        // A client that would resume if it could.
        let config = client(Some(&pki.issue("ann")), &[version]);
        for _ in 0..3 {
            let mut io = connect(server.addr, &config).await.unwrap();
            first_byte(&mut io).await.unwrap();
            let (_, session) = io.get_ref();
            assert_ne!(session.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
            assert_eq!(session.tls13_tickets_received(), 0);
        }
    }
}

#[tokio::test]
async fn a_revoked_client_does_not_come_back_by_resuming() {
    let pki = Pki::new();
    let mut settings = lenient(&pki, "server");
    let ann = pki.issue("ann");
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    let tls = TlsReloader::load(&settings).unwrap();
    let server = serve(tls, AcceptLimits::default()).await;
    for version in [&TLS12, &TLS13] {
        pki.revoke(&[], 2200);
        server.tls.reload().unwrap();
        let config = client(Some(&ann), &[version]);
        assert_eq!(ask(server.addr, &config).await, Saw::Served);
        pki.revoke(&[2], 2200);
        server.tls.reload().unwrap();
        assert_eq!(ask(server.addr, &config).await, Saw::Alert(44), "{version:?}");
    }
}

#[tokio::test]
async fn a_name_that_the_certificate_lacks_is_refused() {
    let pki = Pki::new();
    let server = serve_files(&pki.issue_with("server", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("other".try_into().unwrap())];
    }))
    .await;
    let reason = refusal(&server, &pki.issue("ann")).await;
    assert!(reason.starts_with("WRONG_NAME: "), "{reason}");
    let ann = ClientTls::load(&pki.issue("ann")).unwrap();
    assert!(call(&mut channel_of(&server, ann)).await.is_err());
}
