//! What the server's log says about refusals, with many of them at the same time: every line names the
//! certificate that it is about. Alone in its file: the log is one of the whole process.

#[cfg(test)]
#[expect(dead_code, reason = "this test needs only a part of it")]
mod pki;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::Write,
        net::SocketAddr,
        sync::{Arc, LazyLock, Mutex},
        time::{Duration, Instant},
    };

    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use sso_core::{
        acceptor::{AcceptLimits, mtls_incoming},
        clock::Clock,
        connector::{ClientTls, ConnectOptions, connect_channel, tls_reason},
        peer::PeerCertificate,
        tls::{Application, RevocationPolicy, TlsReason, TlsReloader, TlsSettings},
    };
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };
    use tokio_stream::StreamExt as _;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use crate::pki::{Pki, year};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log of the process.
    static LOG: LazyLock<Lines> = LazyLock::new(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .init();
        lines
    });

    /// The lines that have all of these words.
    fn lines_with(words: &[&str]) -> Vec<String> {
        let text = String::from_utf8(LOG.0.lock().unwrap().clone()).unwrap();
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        text.lines().filter(fits).map(str::to_owned).collect()
    }

    async fn until_line(words: &[&str]) -> String {
        let began = Instant::now();
        loop {
            if let Some(line) = lines_with(words).pop() {
                return line;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no line with {words:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn serve(settings: &TlsSettings, limits: AcceptLimits) -> SocketAddr {
        LazyLock::force(&LOG);
        let tls = TlsReloader::load(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut incoming = mtls_incoming(listener, tls, limits, CancellationToken::new());
        tokio::spawn(async move {
            while let Some(Ok(mut connection)) = incoming.next().await {
                // The settings of HTTP/2, and good-bye: whoever comes that far is not refused.
                tokio::spawn(async move {
                    let _ = connection.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
                    let _ = connection.shutdown().await;
                });
            }
        });
        addr
    }

    async fn call(addr: SocketAddr, tls: ClientTls) -> Option<TlsReason> {
        let url = format!("https://{addr}");
        let channel = connect_channel(&url, tls, ConnectOptions::default()).unwrap();
        let request = http::Request::post("/x").body(tonic::body::Body::empty()).unwrap();
        let error = channel.oneshot(request).await.err()?;
        tls_reason(&tonic::Status::from_error(Box::new(error)))
    }

    fn certificate(settings: &TlsSettings) -> PeerCertificate {
        let der = CertificateDer::from_pem_file(&settings.certificate).unwrap();
        PeerCertificate::parse(&der).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_refusals_at_once_are_told_apart() {
        let pki = Pki::new();
        let other = Pki::with(|it| it.distinguished_name.push(rcgen::DnType::CountryName, "XX"));
        let mut server = pki.issue("server");
        let mut wanted = BTreeMap::new();
        let (mut revoked, mut peers) = (Vec::new(), Vec::new());
        for round in 0..10 {
            let name = |kind: &str| format!("{kind}-{round}");
            revoked.push(pki.upcoming());
            for (reason, settings) in [
                ("CERTIFICATE_REVOKED", pki.issue(&name("revoked"))),
                (
                    "CERTIFICATE_EXPIRED",
                    pki.issue_with(&name("expired"), |it| it.not_after = year(2021)),
                ),
                (
                    "WRONG_PURPOSE",
                    pki.issue_with(&name("wrong"), |it| {
                        it.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
                    }),
                ),
                (
                    "UNTRUSTED_ISSUER",
                    TlsSettings { ca: pki.path("ca.crt"), ..other.issue(&name("foreign")) },
                ),
            ] {
                wanted.insert(certificate(&settings).thumbprint_sha256, (reason, settings.clone()));
                peers.push(settings);
            }
        }
        server.crl = vec![pki.revoke(&revoked, 2200).into()];
        let addr = serve(&server, AcceptLimits::default()).await;
        let mut calls = tokio::task::JoinSet::new();
        for settings in peers {
            calls.spawn(async move {
                // A clock that is behind, so that what has expired is sent all the same.
                let clock = Clock::manual(rcgen::date_time_ymd(2020, 6, 1));
                let tls = TlsReloader::load_for(&settings, Application::Grpc, clock).unwrap();
                (settings, call(addr, tls.into()).await)
            });
        }
        while let Some(done) = calls.join_next().await {
            let (settings, reason) = done.unwrap();
            let thumbprint = certificate(&settings).thumbprint_sha256;
            let (wanted, _) = wanted[&thumbprint];
            assert_eq!(reason.map(TlsReason::as_str), Some(wanted), "{settings:?}");
        }
        for (thumbprint, (reason, settings)) in wanted {
            let line = until_line(&["TLS connection refused", &thumbprint]).await;
            assert_eq!(lines_with(&["TLS connection refused", &thumbprint]).len(), 1);
            let serial = certificate(&settings).serial;
            let subject = certificate(&settings).subject_common_name.unwrap();
            for field in [
                format!("\"reason\":\"{reason}\""),
                format!("\"serial\":\"{serial}\""),
                format!("CN={subject}\""),
                "\"addr\":\"127.0.0.1:".to_owned(),
                "\"words\":\"it".to_owned(),
            ] {
                assert!(line.contains(&field), "{field} in {line}");
            }
        }
    }

    #[tokio::test]
    async fn list_trouble_says_which_trouble() {
        let (pki, namesake) = (Pki::new(), Pki::new());
        let server = pki.issue("server");
        for (list, reason) in [
            (pki.list(&[], |it| it.next_update = year(2021)), "REVOCATION_LIST_EXPIRED"),
            (namesake.list(&[], |_| {}), "REVOCATION_LIST_UNTRUSTED"),
            (pki.intermediate("Branch").list(&[], |_| {}), "REVOCATION_LIST_UNAVAILABLE"),
        ] {
            let ann = pki.issue("ann");
            let settings = TlsSettings {
                crl: vec![pki.write_list("some.crl", &list).into()],
                ..server.clone()
            };
            let addr = serve(&settings, AcceptLimits::default()).await;
            let seen = call(addr, ClientTls::load(&ann).unwrap()).await.unwrap();
            assert!(seen.is_list_trouble(), "{seen}");
            let thumbprint = certificate(&ann).thumbprint_sha256;
            let line = until_line(&["TLS connection refused", &thumbprint]).await;
            assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{line}");

            let lenient = TlsSettings { revocation: Some(RevocationPolicy::SoftFail), ..settings };
            let addr = serve(&lenient, AcceptLimits::default()).await;
            assert_eq!(call(addr, ClientTls::load(&ann).unwrap()).await, None);
            let line = until_line(&["let through unchecked", &thumbprint]).await;
            assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{line}");
            assert!(line.contains("\"level\":\"WARN\""), "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_is_named_and_who_stalls_too() {
        let pki = Pki::new();
        let limits = AcceptLimits {
            handshake_timeout: Duration::from_millis(300),
            ..AcceptLimits::default()
        };
        let addr = serve(&pki.issue("server"), limits).await;
        let old = [22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
        let mut hello = old.to_vec();
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0]);
        for (bytes, reason) in [
            (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "NOT_TLS"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "NOT_TLS"),
            (&[0xff; 200], "NOT_TLS"),
            (&hello, "PROTOCOL_VERSION"),
            (&old, "HANDSHAKE_TIMEOUT"),
            (b"", "HANDSHAKE_TIMEOUT"),
        ] {
            let mut tcp = TcpStream::connect(addr).await.unwrap();
            let own = format!("\"addr\":\"{}\"", tcp.local_addr().unwrap());
            tcp.write_all(bytes).await.unwrap();
            let line = until_line(&["TLS connection refused", &own]).await;
            assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{bytes:?}: {line}");
            assert!(!line.contains("thumbprint"), "{line}");
        }
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_is_not_called_refused() {
        let (pki, other) = (Pki::new(), Pki::new());
        let addr = serve(&pki.issue("server"), AcceptLimits::default()).await;
        let eve = ClientTls::load(&other.issue("eve")).unwrap();
        assert_eq!(call(addr, eve).await, Some(TlsReason::UntrustedIssuer));
        let line = until_line(&["the peer broke off"]).await;
        assert!(line.contains("\"reason\":\"UNTRUSTED_ISSUER\""), "{line}");
    }

    #[tokio::test]
    async fn an_authority_that_no_list_is_looked_up_for_is_warned_of() {
        let pki = Pki::new();
        let branch = pki.intermediate("Trusted Branch");
        let mut settings = pki.issue("server");
        let both = std::fs::read_to_string(&settings.ca).unwrap() + &branch.pem();
        std::fs::write(&settings.ca, both).unwrap();
        LazyLock::force(&LOG);
        TlsReloader::load(&settings).unwrap();
        assert!(lines_with(&["should it be revoked", "CN=Trusted Branch"]).is_empty());
        settings.crl = vec![pki.revoke(&[], 2200).into()];
        TlsReloader::load(&settings).unwrap();
        assert_eq!(lines_with(&["should it be revoked", "CN=Trusted Branch"]).len(), 1);
    }

    /// A name that somebody chose cannot end a line of the log.
    #[tokio::test]
    async fn names_stay_on_their_line() {
        let (pki, other) = (Pki::new(), Pki::new());
        let addr = serve(&pki.issue("server"), AcceptLimits::default()).await;
        let eve = other.issue_with("eve", |params| {
            params.distinguished_name.push(
                rcgen::DnType::OrganizationName,
                format!("a\nforged line {}", "x".repeat(2000)),
            );
        });
        let eve = TlsSettings { ca: pki.path("ca.crt"), ..eve };
        call(addr, ClientTls::load(&eve).unwrap()).await;
        let line = until_line(&["TLS connection refused", "forged line"]).await;
        assert!(line.contains("a\u{fffd}forged") && line.len() < 1500, "{line}");
    }
}
