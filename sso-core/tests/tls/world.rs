//! A server over real sockets, and callers of it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Bytes, http::Request, response::Response};
use rcgen::date_time_ymd;
use sso_core::{
    acceptor::{AcceptLimits, Peer, RecheckPeerLayer, mtls_incoming},
    clock::Clock,
    connector::{ClientTls, ConnectOptions, connect_channel, is_trust_failure, transport_reason},
    tls::{TlsReloader, TlsSettings},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{Channel, Server},
};
use tower::{Service as _, ServiceExt as _};

/// A server that listens until it is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Arc<TlsReloader>,
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

pub(crate) async fn serve(tls: Arc<TlsReloader>, limits: AcceptLimits) -> Running {
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

pub(crate) async fn serve_files(settings: &TlsSettings) -> Running {
    serve(TlsReloader::load(settings).unwrap(), AcceptLimits::default()).await
}

pub(crate) fn channel_of(server: &Running, tls: ClientTls) -> Channel {
    let url = format!("https://127.0.0.1:{}", server.addr.port());
    connect_channel(&url, tls, ConnectOptions::default()).unwrap()
}

pub(crate) fn channel(server: &Running, settings: &TlsSettings) -> Channel {
    channel_of(server, ClientTls::load(settings).unwrap())
}

pub(crate) async fn send(channel: &mut Channel, path: &str) -> Result<Response<Body>, Status> {
    let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
    let request = Request::post(path).body(Body::empty()).unwrap();
    let response = channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ => Ok(response),
    }
}

pub(crate) async fn call(channel: &mut Channel) -> Result<String, Status> {
    let response = send(channel, "/who").await?;
    Ok(response.headers()["x-peer"].to_str().unwrap().to_owned())
}

/// The reason that a client with these files gets.
pub(crate) async fn refusal(server: &Running, settings: &TlsSettings) -> String {
    refusal_of(&mut channel(server, settings)).await
}

pub(crate) async fn refusal_of(channel: &mut Channel) -> String {
    let status = call(channel).await.unwrap_err();
    assert!(is_trust_failure(&status), "{status:?}");
    transport_reason(&status).unwrap()
}

pub(crate) fn load_error(settings: &TlsSettings) -> String {
    TlsReloader::load(settings).unwrap_err().to_string()
}

pub(crate) fn at(year: i32) -> Clock {
    Clock::manual(date_time_ymd(year, 6, 1))
}
