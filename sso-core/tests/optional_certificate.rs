//! A server that asks for certificates and does without them: whoever shows a bad one is refused all the
//! same.

#[cfg(test)]
#[expect(dead_code, reason = "this test needs only a part of it")]
mod pki;

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use axum::{http::Request, response::Response};
    use sso_core::{
        acceptor::{AcceptLimits, Peer, RecheckPeerLayer, mtls_incoming},
        connector::{
            ClientTls, ConnectOptions, connect_channel, is_trust_failure, transport_reason,
        },
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
        let certificate = peer.certificate.as_deref();
        let uri = certificate.and_then(|found| found.uris.first()).map_or("nobody", String::as_str);
        let answer = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("x-peer", uri);
        answer.body(axum::body::Body::empty()).unwrap()
    }

    async fn serve(settings: &TlsSettings) -> (SocketAddr, Arc<TlsReloader>) {
        let tls = TlsReloader::load(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let incoming = mtls_incoming(listener, Arc::clone(&tls), AcceptLimits::default(), stop);
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
        let trust = TrustSettings { ca: pki.path("ca.crt"), crl: None, allow_development: false };
        ClientTls::without_certificate(&trust).unwrap()
    }

    async fn call(channel: &mut Channel) -> Result<String, Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        let request = Request::post("/who").body(Body::empty()).unwrap();
        let response =
            channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            _ => Ok(response.headers()["x-peer"].to_str().unwrap().to_owned()),
        }
    }

    #[tokio::test]
    async fn who_shows_none_is_served_and_a_bad_one_is_not() {
        let pki = Pki::new();
        let mut settings = pki.issue("server");
        settings.client_certificate = ClientCertificate::Optional;
        let crl = pki.revoke(&[], 2090);
        settings.crl = Some(crl);
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

    #[tokio::test]
    async fn by_default_nobody_is_served_without_one() {
        let pki = Pki::new();
        let (addr, _tls) = serve(&pki.issue("server")).await;
        let status = call(&mut channel(addr, bare(&pki))).await.unwrap_err();
        let reason = transport_reason(&status).unwrap();
        assert!(reason.contains("CertificateRequired"), "{reason}");
    }
}
