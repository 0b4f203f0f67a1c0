//! Calls by path with bytes: for tests that walk over every method of the descriptors, and for
//! requests that no client of ours would send.

use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_types::FileDescriptorSet;
use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel},
    tls::TlsSettings,
};
use sso_proto::FILE_DESCRIPTOR_SET;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::system::System;

/// A channel to server `number` with the certificate `tls/NAME.crt` of the system.
///
/// # Panics
/// When the certificate is not there.
#[must_use]
pub fn channel(system: &System, number: usize, name: &str) -> Channel {
    let installation = system.installation();
    let settings = TlsSettings {
        allow_development: true,
        ..TlsSettings::new(
            installation.tls_file(&format!("{name}.crt")),
            installation.tls_file(&format!("{name}.key")),
            installation.tls_file("ca.crt"),
        )
    };
    let tls = ClientTls::load(&settings).expect("certificates");
    let address = installation.server_address(number).expect("a server");
    connect_channel(&address, tls, ConnectOptions::default()).expect("a channel")
}

/// Services that the master secret server has.
const MASTER_SERVICES: [&str; 2] = ["MasterSecret", "Secret"];

/// The path of every method of package `sso.v1` but those of the master, with whether it streams.
///
/// # Panics
/// When the descriptors are damaged.
#[must_use]
pub fn methods() -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let files = set.file.iter().filter(|file| file.package() == "sso.v1");
    let services = files.flat_map(|file| &file.service);
    services
        .filter(|service| !MASTER_SERVICES.contains(&service.name()))
        .flat_map(|service| {
            service.method.iter().map(|method| {
                let path = format!("/sso.v1.{}/{}", service.name(), method.name());
                (path, method.server_streaming())
            })
        })
        .collect()
}

/// The answer to `message`, sent to the method at `path`; of a stream, its first message.
///
/// # Errors
/// What the server answers.
///
/// # Panics
/// When the path is none.
pub async fn call(channel: &Channel, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(path).expect("a path");
    let mut answers = grpc.server_streaming(Request::new(message), path, Bytes).await?.into_inner();
    answers.message().await.map(Option::unwrap_or_default)
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// The database of a system as a driver takes it.
#[must_use]
pub fn database_url(system: &System) -> String {
    let url = system.installation().database();
    match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite:{}", system.folder().join(path).display()),
        None => url.to_owned(),
    }
}

/// The answer to `GET /PATH` of an operations listener, with its head.
///
/// # Panics
/// When nothing listens there.
#[must_use]
pub fn page(operations: std::net::SocketAddr, path: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(operations).expect("the operations listener");
    write!(socket, "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    answer
}
