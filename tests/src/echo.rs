//! A bare tonic echo behind the product's own TLS acceptor: the yardstick of the benches. It does
//! nothing but give back a message of the size asked for.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    path::Path,
    sync::Arc,
    task::{Context, Poll},
};

use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    tls::{TlsReloader, TlsSettings},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, codegen::http, server};
use tonic_prost::ProstCodec;

/// The path of its one method.
pub const PATH: &str = "/sso.bench.Echo/Call";

/// What is sent and given back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// Any bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
    /// How many bytes the answer is to have.
    #[prost(uint32, tag = "2")]
    pub answer: u32,
}

#[derive(Clone)]
struct Echo;

impl server::NamedService for Echo {
    const NAME: &'static str = "sso.bench.Echo";
}

impl server::UnaryService<Message> for Echo {
    type Response = Message;
    type Future = Ready<Result<Response<Message>, Status>>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        ready(Ok(Response::new(answer(request.get_ref()))))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::<Message, Message>::default());
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

/// Serves the echo until the process ends, with the certificate of a server of the system laid out in
/// `tls`, and prints its address as the first line.
///
/// # Panics
/// When it cannot listen.
pub async fn serve(certificate: &Path, key: &Path, ca: &Path) {
    let settings = TlsSettings {
        allow_development: true,
        ..TlsSettings::new(certificate.to_owned(), key.to_owned(), ca.to_owned())
    };
    let tls = TlsReloader::load(&settings).expect("TLS settings");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let incoming = mtls_incoming(
        listener,
        Arc::clone(&tls),
        AcceptLimits::default(),
        CancellationToken::new(),
    );
    tonic::transport::Server::builder()
        .add_service(Echo)
        .serve_with_incoming(incoming)
        .await
        .expect("a server that serves");
}

/// What is given back.
#[must_use]
pub fn answer(asked: &Message) -> Message {
    let length = usize::try_from(asked.answer).unwrap_or_default();
    Message { bytes: vec![b'x'; length], answer: 0 }
}
