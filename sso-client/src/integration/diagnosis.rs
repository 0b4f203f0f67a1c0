//! Why a connection broke: asked again, without a message.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::SendPort;

/// How long a server that has not refused within a handshake is listened to: with TLS 1.3 it judges the
/// client's certificate when the client believes to be done.
const PATIENCE: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(3);

/// What one side has against the other, if anything, by a handshake of its own.
pub(super) async fn diagnose(port: &SendPort, tls: &Arc<ClientConfig>) -> Option<rustls::Error> {
    let uri: http::Uri = port.address.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).ok()?;
    let address = (host, uri.port_u16().unwrap_or(443));
    let handshake = async {
        let tcp = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await
    };
    let error = match timeout(CONNECT.min(port.connect_timeout), handshake).await.ok()? {
        Ok(mut io) => timeout(PATIENCE, io.read_u8()).await.ok()?.err()?,
        Err(error) => error,
    };
    of_io(error)
}

fn of_io(error: io::Error) -> Option<rustls::Error> {
    error.into_inner()?.downcast::<rustls::Error>().ok().map(|error| *error)
}
