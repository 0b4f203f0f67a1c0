//! A server that asks for certificates and does without them: whoever shows a bad one is refused all the
//! same. And a client that wants the certificate of one server alone.

#[cfg(test)]
#[expect(dead_code, reason = "this test needs only a part of it")]
mod pki;

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::Arc,
        time::{Duration, Instant},
    };

    use axum::{http::Request, response::Response};
    use sso_core::{
        acceptor::{AcceptLimits, Peer, RecheckPeerLayer, mtls_incoming},
        connector::{
            ClientTls, ConnectOptions, connect_channel, is_trust_failure, transport_reason,
        },
        peer::{CertificatePart, CertificateRule},
        tls::{ClientCertificate, TlsReloader, TlsSettings, TrustSettings},
    };
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tonic::{
        Status,
        body::Body,
        service::Routes,
        transport::{Channel, Server},
    };
    use tower::{Service as _, ServiceExt as _};

    use crate::pki::Pki;

    async fn who(request: axum::extract::Request) -> Response {
        let peer = request.extensions().get::<Peer>().unwrap();
        if request.uri().path() == "/admitted" {
            peer.note_admitted();
        }
        let certificate = peer.certificate.as_deref();
        let uri = certificate.and_then(|found| found.uris.first()).map_or("nobody", String::as_str);
        let answer = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("x-peer", uri)
            .header("x-port", peer.addr.port());
        answer.body(axum::body::Body::empty()).unwrap()
    }

    async fn serve(settings: &TlsSettings) -> (SocketAddr, Arc<TlsReloader>) {
        serve_within(settings, AcceptLimits::default()).await
    }

    async fn serve_within(
        settings: &TlsSettings,
        limits: AcceptLimits,
    ) -> (SocketAddr, Arc<TlsReloader>) {
        let tls = TlsReloader::load(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let incoming = mtls_incoming(listener, Arc::clone(&tls), limits, stop);
        let server = Server::builder()
            .layer(RecheckPeerLayer::new(Arc::clone(&tls), Status::unauthenticated))
            .add_routes(Routes::from(axum::Router::new().fallback(who)))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        (addr, tls)
    }

    fn channel(addr: SocketAddr, tls: ClientTls) -> Channel {
        let url = format!("https://127.0.0.1:{}", addr.port());
        connect_channel(&url, tls, ConnectOptions::default()).unwrap()
    }

    fn bare(pki: &Pki) -> ClientTls {
        let trust = TrustSettings::new(pki.path("ca.crt"));
        ClientTls::without_certificate(&trust).unwrap()
    }

    async fn call(channel: &mut Channel) -> Result<String, Status> {
        Ok(call_at(channel, "/who").await?.0)
    }

    /// Whom the server sees, and the port that tells connections apart.
    async fn call_at(channel: &mut Channel, path: &str) -> Result<(String, String), Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response =
            channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            _ => {
                let header = |name| response.headers()[name].to_str().unwrap().to_owned();
                Ok((header("x-peer"), header("x-port")))
            }
        }
    }

    #[tokio::test]
    async fn who_shows_none_is_served_and_a_bad_one_is_not() {
        let pki = Pki::new();
        let mut settings = pki.issue("server");
        settings.client_certificate = ClientCertificate::Optional;
        let crl = pki.revoke(&[], 2090);
        settings.crl = vec![crl.into()];
        let (addr, tls) = serve(&settings).await;
        let (mut bare, mut ann) =
            (channel(addr, bare(&pki)), channel(addr, ClientTls::load(&pki.issue("ann")).unwrap()));
        assert_eq!(call(&mut bare).await.unwrap(), "nobody");
        assert_eq!(call(&mut ann).await.unwrap(), "sso://DEV/ann");
        let other = Pki::new();
        let mut stranger = other.issue("eve");
        stranger.ca = pki.path("ca.crt");
        let status =
            call(&mut channel(addr, ClientTls::load(&stranger).unwrap())).await.unwrap_err();
        assert!(is_trust_failure(&status), "{status:?}");

        // A certificate that was shown is looked at again after a reload; where there is none, there
        // is nothing to look at.
        let _ = pki.revoke(&[2], 2090);
        tls.reload().unwrap();
        assert_eq!(call(&mut bare).await.unwrap(), "nobody");
        let status = call(&mut ann).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    }

    fn optional(pki: &Pki) -> TlsSettings {
        TlsSettings { client_certificate: ClientCertificate::Optional, ..pki.issue("server") }
    }

    #[tokio::test]
    async fn strangers_take_so_many_connections_and_no_more() {
        let pki = Pki::new();
        let limits = AcceptLimits { strangers: 2, ..AcceptLimits::default() };
        let (addr, _tls) = serve_within(&optional(&pki), limits).await;
        let (mut first, mut second) = (channel(addr, bare(&pki)), channel(addr, bare(&pki)));
        assert_eq!(call(&mut first).await.unwrap(), "nobody");
        assert_eq!(call(&mut second).await.unwrap(), "nobody");
        assert!(call(&mut channel(addr, bare(&pki))).await.is_err());
        // Who shows a certificate needs no place among them.
        let mut ann = channel(addr, ClientTls::load(&pki.issue("ann")).unwrap());
        assert_eq!(call(&mut ann).await.unwrap(), "sso://DEV/ann");
        drop(first);
        let began = Instant::now();
        while call(&mut channel(addr, bare(&pki))).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the place is not given back");
        }
        assert_eq!(call(&mut second).await.unwrap(), "nobody");
    }

    #[tokio::test]
    async fn who_does_not_prove_in_time_who_they_are_is_cut_off() {
        let pki = Pki::new();
        let stranger_timeout = Duration::from_millis(400);
        let limits = AcceptLimits { stranger_timeout, ..AcceptLimits::default() };
        let (addr, _tls) = serve_within(&optional(&pki), limits).await;
        let mut known = channel(addr, bare(&pki));
        let mut ann = channel(addr, ClientTls::load(&pki.issue("ann")).unwrap());
        let mut stranger = channel(addr, bare(&pki));
        let of_known = call_at(&mut known, "/admitted").await.unwrap();
        let of_ann = call_at(&mut ann, "/who").await.unwrap();
        let before = call_at(&mut stranger, "/who").await.unwrap();
        let began = Instant::now();
        // The channel connects again, from another port.
        while call_at(&mut stranger, "/who").await.is_ok_and(|now| now == before) {
            assert!(began.elapsed() < Duration::from_secs(30), "the stranger is not cut off");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Theirs began earlier.
        assert_eq!(call_at(&mut known, "/who").await.unwrap(), of_known);
        assert_eq!(call_at(&mut ann, "/who").await.unwrap(), of_ann);
    }

    #[tokio::test]
    async fn by_default_nobody_is_served_without_one() {
        let pki = Pki::new();
        let (addr, _tls) = serve(&pki.issue("server")).await;
        let status = call(&mut channel(addr, bare(&pki))).await.unwrap_err();
        let reason = transport_reason(&status).unwrap();
        assert!(reason.contains("CertificateRequired"), "{reason}");
    }

    /// Another program of the same authority and host does not pass for the one that is meant.
    #[tokio::test]
    async fn only_the_certificate_that_the_rules_name_is_spoken_to() {
        let pki = Pki::new();
        let (addr, _) = serve(&pki.issue("server")).await;
        let meant = |uri: &str| {
            let rule = (CertificatePart::SanUri, Some(uri.to_owned()));
            let tls = ClientTls::load(&pki.issue("ann")).unwrap();
            channel(addr, tls.only([CertificateRule::new([rule]).unwrap()]))
        };
        assert_eq!(call(&mut meant("sso://DEV/server")).await.unwrap(), "sso://DEV/ann");
        assert_eq!(call(&mut meant("sso://DEV/serv*")).await.unwrap(), "sso://DEV/ann");
        let refused = call(&mut meant("sso-master://master")).await.unwrap_err();
        assert!(is_trust_failure(&refused));
        let reason = transport_reason(&refused).unwrap();
        assert!(reason.contains("another program answers there"), "{reason}");
    }
}
