//! Mutual TLS between the acceptor and the connector, over real sockets and with real files.

#[cfg(test)]
mod pki;

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        fs,
        net::SocketAddr,
        os::unix::fs::PermissionsExt as _,
        sync::Arc,
        time::{Duration, Instant},
    };

    use axum::{body::Bytes, http::Request, response::Response};
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
    use sso_core::{
        acceptor::{AcceptLimits, Peer, RecheckPeerLayer, mtls_incoming},
        clock::Clock,
        connector::{
            ClientTls, ConnectOptions, connect_channel, is_trust_failure, transport_reason,
        },
        tls::{TlsError, TlsReloader, TlsSettings},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };
    use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
    use tokio_util::sync::CancellationToken;
    use tonic::{
        Status,
        body::Body,
        service::Routes,
        transport::{Channel, Server},
    };
    use tower::{Service as _, ServiceExt as _};

    use crate::pki::{Pki, development};

    struct Running {
        addr: SocketAddr,
        tls: Arc<TlsReloader>,
        shutdown: CancellationToken,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.shutdown.cancel();
        }
    }

    /// Answers with the peer's first URI.
    async fn who(request: axum::extract::Request) -> Response {
        let peer = request.extensions().get::<Peer>().unwrap();
        let certificate = peer.certificate.as_deref();
        let uri = certificate.and_then(|found| found.uris.first()).map(String::as_str);
        let answer = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("x-peer", uri.unwrap_or("none"));
        answer.body(axum::body::Body::empty()).unwrap()
    }

    /// A byte every 20 ms, for ever.
    async fn ticks() -> Response {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
        tokio::spawn(async move {
            while sender.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Response::new(axum::body::Body::from_stream(ReceiverStream::new(receiver)))
    }

    async fn serve(tls: Arc<TlsReloader>, limits: AcceptLimits) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let incoming = mtls_incoming(listener, Arc::clone(&tls), limits, shutdown.clone());
        let router = axum::Router::new().route("/ticks", axum::routing::any(ticks)).fallback(who);
        let server = Server::builder()
            .layer(RecheckPeerLayer::new(Arc::clone(&tls), Status::unauthenticated))
            .add_routes(Routes::from(router))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        tokio::spawn(server);
        Running { addr, tls, shutdown }
    }

    async fn serve_files(settings: &TlsSettings) -> Running {
        serve(TlsReloader::load(settings).unwrap(), AcceptLimits::default()).await
    }

    fn channel_of(server: &Running, tls: ClientTls) -> Channel {
        let url = format!("https://127.0.0.1:{}", server.addr.port());
        connect_channel(&url, tls, ConnectOptions::default()).unwrap()
    }

    fn channel(server: &Running, settings: &TlsSettings) -> Channel {
        channel_of(server, ClientTls::load(settings).unwrap())
    }

    async fn send(channel: &mut Channel, path: &str) -> Result<Response<Body>, Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response =
            channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            _ => Ok(response),
        }
    }

    async fn call(channel: &mut Channel) -> Result<String, Status> {
        let response = send(channel, "/who").await?;
        Ok(response.headers()["x-peer"].to_str().unwrap().to_owned())
    }

    /// The reason that a client with these files gets.
    async fn refusal(server: &Running, settings: &TlsSettings) -> String {
        refusal_of(&mut channel(server, settings)).await
    }

    async fn refusal_of(channel: &mut Channel) -> String {
        let status = call(channel).await.unwrap_err();
        assert!(is_trust_failure(&status), "{status:?}");
        transport_reason(&status).unwrap()
    }

    fn load_error(settings: &TlsSettings) -> String {
        TlsReloader::load(settings).unwrap_err().to_string()
    }

    fn at(year: i32) -> Clock {
        Clock::manual(date_time_ymd(year, 6, 1))
    }

    #[tokio::test]
    async fn a_good_client_is_served_and_known() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let mut channel = channel(&server, &pki.issue("ann"));
        assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
        assert_eq!(call(&mut channel).await.unwrap(), "sso://DEV/ann");
    }

    #[tokio::test]
    async fn a_client_of_another_authority_is_refused() {
        let (pki, other) = (Pki::new(), Pki::new());
        let server = serve_files(&pki.issue("server")).await;
        let mut foreign = other.issue("ann");
        // The server's authority is known to the client, so only the server has a reason to refuse.
        foreign.ca = pki.path("ca.crt");
        let reason = refusal(&server, &foreign).await;
        assert!(reason.contains("UnknownCA") || reason.contains("DecryptError"), "{reason}");

        let reason = refusal(&server, &other.issue("bob")).await;
        assert!(reason.contains("server's certificate is refused"), "{reason}");
    }

    #[tokio::test]
    async fn a_client_without_certificate_is_refused() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        let reason = bare_handshake(&pki, &mut tcp).await;
        assert!(reason.contains("CertificateRequired"), "{reason}");
    }

    /// What the server answers to a client of the bare TLS library that sends no certificate.
    async fn bare_handshake(pki: &Pki, tcp: &mut TcpStream) -> String {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.path("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = "127.0.0.1".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut io = connector.connect(name, tcp).await.unwrap();
        io.read_u8().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_expired_client_is_refused() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let expired = pki.issue_with("ann", |params| params.not_after = date_time_ymd(2021, 1, 1));
        assert!(load_error(&expired).contains("expired on 2021-01-01"));
        // A client whose clock is behind sends it all the same.
        let behind = TlsReloader::load_with_clock(&expired, at(2020)).unwrap();
        let reason = refusal_of(&mut channel_of(&server, behind.into())).await;
        assert!(reason.contains("CertificateExpired"), "{reason}");
    }

    #[tokio::test]
    async fn an_expired_server_is_refused() {
        let pki = Pki::new();
        let expired =
            pki.issue_with("server", |params| params.not_after = date_time_ymd(2021, 1, 1));
        let behind = TlsReloader::load_with_clock(&expired, at(2020)).unwrap();
        let server = serve(behind, AcceptLimits::default()).await;
        let reason = refusal(&server, &pki.issue("ann")).await;
        assert!(reason.contains("CertificateExpired"), "{reason}");
    }

    #[tokio::test]
    async fn tls_1_2_is_refused() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        tcp.write_all(&client_hello_of_tls_1_2()).await.unwrap();
        let mut answer = [0; 7];
        tcp.read_exact(&mut answer).await.unwrap();
        // An alert record, fatal, protocol_version.
        assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70));
    }

    fn client_hello_of_tls_1_2() -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
        body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
        let extensions: &[u8] = &[
            0, 10, 0, 4, 0, 2, 0, 23, // groups: P-256
            0, 11, 0, 2, 1, 0, // point format: uncompressed
            0, 13, 0, 4, 0, 2, 4, 3, // signatures: ECDSA with P-256
            0, 23, 0, 0, // extended master secret
        ];
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let length = u8::try_from(body.len()).unwrap();
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(body);
        record
    }

    #[tokio::test]
    async fn a_revoked_client_is_refused() {
        let pki = Pki::new();
        let mut settings = pki.issue("server");
        let (ann, bob) = (pki.issue("ann"), pki.issue("bob"));
        settings.crl = Some(pki.revoke(&[2], 2200));
        let server = serve_files(&settings).await;
        let reason = refusal(&server, &ann).await;
        assert!(reason.contains("CertificateRevoked"), "{reason}");
        assert_eq!(call(&mut channel(&server, &bob)).await.unwrap(), "sso://DEV/bob");
    }

    #[tokio::test]
    async fn a_revoked_server_is_refused() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let mut ann = pki.issue("ann");
        ann.crl = Some(pki.revoke(&[1], 2200));
        let reason = refusal(&server, &ann).await;
        assert!(reason.contains("it is revoked"), "{reason}");
    }

    #[tokio::test]
    async fn an_expired_or_foreign_revocation_list_refuses_everyone() {
        let (pki, other) = (
            Pki::new(),
            Pki::with(|params| {
                params.distinguished_name.push(rcgen::DnType::OrganizationName, "Another");
            }),
        );
        let (mut server, mut ann) = (pki.issue("server"), pki.issue("ann"));
        let plain = serve_files(&server).await;
        for (list, wanted) in [
            (pki.revoke(&[], 2021), "out of date"),
            (other.revoke(&[], 2200), "UnknownRevocationStatus"),
        ] {
            ann.crl = Some(list.clone());
            let reason = refusal(&plain, &ann).await;
            assert!(reason.contains(wanted), "{reason}");

            ann.crl = None;
            server.crl = Some(list);
            let strict = serve_files(&server).await;
            let reason = refusal(&strict, &ann).await;
            assert!(reason.contains("refused the client certificate"), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_revocation_list_with_the_right_name_and_another_key_is_not_believed() {
        // Both authorities have the same name.
        let (pki, other) = (Pki::new(), Pki::new());
        let mut server = pki.issue("server");
        let ann = pki.issue("ann");
        server.crl = Some(other.revoke(&[], 2200));
        refusal(&serve_files(&server).await, &ann).await;
    }

    #[tokio::test]
    async fn a_reload_reaches_live_connections_and_streams() {
        let pki = Pki::new();
        let mut settings = pki.issue("server");
        let (ann, bob) = (pki.issue("ann"), pki.issue("bob"));
        settings.crl = Some(pki.revoke(&[], 2200));
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
        assert!(status.message().contains("no longer valid"), "{status:?}");
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
        let tls = TlsReloader::load_with_clock(&pki.issue("server"), clock.clone()).unwrap();
        let server = serve(tls, AcceptLimits::default()).await;
        let soon = pki.issue_with("ann", |params| params.not_after = date_time_ymd(2020, 7, 1));
        let ann = TlsReloader::load_with_clock(&soon, at(2020)).unwrap();
        let mut ann = channel_of(&server, ann.into());
        call(&mut ann).await.unwrap();
        clock.advance(Duration::from_secs(60 * 86_400));
        assert_eq!(call(&mut ann).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    }

    #[tokio::test]
    async fn a_leaf_is_no_authority() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        refusal(&server, &pki.issue_by_leaf("ann")).await;
    }

    #[tokio::test]
    async fn equal_names_and_serials_with_another_key_are_refused() {
        let pki = Pki::new();
        let ann = pki.issue("ann");
        let server = serve_files(&pki.issue("server")).await;
        call(&mut channel(&server, &ann)).await.unwrap();
        refusal(&server, &pki.forge("ann")).await;
    }

    #[tokio::test]
    async fn a_certificate_for_servers_is_none_for_clients() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let wrong = pki.issue_with("ann", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let reason = refusal(&server, &wrong).await;
        assert!(reason.contains("clientAuth"), "{reason}");
    }

    #[tokio::test]
    async fn certificates_of_development_are_refused_unless_allowed() {
        let pki = Pki::new();
        let mut marked = pki.issue_with("ann", development);
        assert!(load_error(&marked).contains("ann.crt: the certificate was made for development"));
        marked.allow_development = true;

        let strict = serve_files(&pki.issue("server")).await;
        let reason = refusal(&strict, &marked).await;
        assert!(reason.contains("development"), "{reason}");

        let mut lenient = pki.issue_with("dev-server", development);
        lenient.allow_development = true;
        let lenient = serve_files(&lenient).await;
        call(&mut channel(&lenient, &marked)).await.unwrap();
        let reason = refusal(&lenient, &pki.issue("bob")).await;
        assert!(reason.contains("development"), "{reason}");

        let pki = Pki::with(development);
        assert!(load_error(&pki.issue("carol")).contains("the certificate authority was made for"));
    }

    #[tokio::test]
    async fn long_chains_are_refused() {
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        let ann = pki.issue("ann");
        let own = fs::read_to_string(&ann.certificate).unwrap();
        fs::write(&ann.certificate, own.repeat(6)).unwrap();
        let reason = refusal(&server, &ann).await;
        assert!(reason.contains("chain too long"), "{reason}");
    }

    #[test]
    fn bad_files_are_named_with_what_to_do() {
        let pki = Pki::new();
        let good = pki.issue("ann");

        fs::set_permissions(&good.key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_error(&good);
        assert!(error.contains("ann.key") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&good.key, fs::Permissions::from_mode(0o600)).unwrap();
        TlsReloader::load(&good).unwrap();

        let with = |edit: &dyn Fn(&mut TlsSettings)| {
            let mut settings = good.clone();
            edit(&mut settings);
            load_error(&settings)
        };
        let missing = with(&|settings| settings.certificate = pki.path("none.crt"));
        assert!(missing.contains("none.crt: cannot read the certificate"), "{missing}");
        let empty = pki.path("empty.pem");
        fs::write(&empty, "no certificate\n").unwrap();
        let error = with(&|settings| settings.ca = empty.clone());
        assert!(error.contains("empty.pem: certificate authority: holds none"), "{error}");
        let error = with(&|settings| settings.crl = Some(empty.clone()));
        assert!(error.contains("empty.pem: revocation list: holds none"), "{error}");
        let leaf = with(&|settings| settings.ca = good.certificate.clone());
        assert!(leaf.contains("is not an authority's certificate"), "{leaf}");
        let mixed = with(&|settings| {
            let text = fs::read_to_string(&good.ca).unwrap();
            settings.ca = pki.path("mixed.pem");
            fs::write(&settings.ca, text + &fs::read_to_string(&good.key).unwrap()).unwrap();
        });
        assert!(mixed.contains("PEM sections of another kind"), "{mixed}");
        let damaged = with(&|settings| {
            let text = fs::read_to_string(&good.ca).unwrap();
            settings.ca = pki.path("damaged.pem");
            fs::write(&settings.ca, text.clone() + &text.replace("MII", "AII")).unwrap();
        });
        assert!(damaged.contains("damaged.pem: certificate authority"), "{damaged}");
        let other = pki.issue("other");
        let pair = with(&|settings| settings.key = other.key.clone());
        assert!(pair.contains("other.key") && pair.contains("ann.crt"), "{pair}");
        assert!(!pair.contains("PRIVATE"));
    }

    #[tokio::test]
    async fn broken_files_leave_the_old_ones_in_use() {
        let pki = Pki::new();
        let settings = pki.issue("server");
        let server = serve_files(&settings).await;
        let ann = pki.issue("ann");
        fs::write(&settings.certificate, "nothing").unwrap();
        assert!(matches!(server.tls.reload(), Err(TlsError::Content { .. })));
        assert_eq!(server.tls.current().number(), 1);
        call(&mut channel(&server, &ann)).await.unwrap();
    }

    #[tokio::test]
    async fn an_expired_certificate_does_not_keep_new_revocations_out() {
        let pki = Pki::new();
        let ends = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 7, 1);
        let mut settings = pki.issue_with("server", ends);
        settings.crl = Some(pki.revoke(&[], 2100));
        let clock = at(2020);
        let tls = TlsReloader::load_with_clock(&settings, clock.clone()).unwrap();
        clock.advance(Duration::from_secs(60 * 86_400));
        pki.revoke(&[1], 2100);
        tls.reload().unwrap();
        assert_eq!(tls.current().number(), 2);
        assert!(TlsReloader::load_with_clock(&settings, clock).is_err());
    }

    #[tokio::test]
    async fn changed_files_are_noticed_and_a_hangup_reloads() {
        let pki = Pki::new();
        let settings = pki.issue("server");
        let tls = TlsReloader::load(&settings).unwrap();
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(Arc::clone(&tls).watch(shutdown.clone()));
        pki.issue("server");
        let began = Instant::now();
        while tls.current().number() == 1 {
            assert!(began.elapsed() < Duration::from_secs(30), "the change is not noticed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        shutdown.cancel();
        watching.await.unwrap();
    }

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

    #[tokio::test]
    async fn nothing_is_resumed() {
        use rustls::HandshakeKind;
        let pki = Pki::new();
        let server = serve_files(&pki.issue("server")).await;
        // A client that would resume if it could.
        let config = resuming_client(&pki);
        for _ in 0..3 {
            let tcp = TcpStream::connect(server.addr).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            let mut io = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
            // The server's HTTP/2 settings come after any ticket it would send.
            io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            io.read_u8().await.unwrap();
            let (_, session) = io.get_ref();
            assert_ne!(session.handshake_kind(), Some(HandshakeKind::Resumed));
            assert_eq!(session.tls13_tickets_received(), 0);
        }
    }

    fn resuming_client(pki: &Pki) -> Arc<rustls::ClientConfig> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let files = pki.issue("ann");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(files.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(files.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(files.key).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    #[tokio::test]
    async fn unreachable_servers_are_told_apart_from_untrusted_ones() {
        let pki = Pki::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        drop(listener);
        let tls = ClientTls::load(&pki.issue("ann")).unwrap();
        let mut channel = connect_channel(&url, tls, ConnectOptions::default()).unwrap();
        let status = call(&mut channel).await.unwrap_err();
        assert!(!is_trust_failure(&status));
        assert!(transport_reason(&status).unwrap().contains("nothing listens"), "{status:?}");
        assert_eq!(transport_reason(&Status::internal("from the service")), None);
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
}
