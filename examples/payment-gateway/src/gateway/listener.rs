//! The gateway's door: connections over mutual TLS for axum.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use sso_core::{
    acceptor::{AcceptLimits, Connection, Peer, mtls_incoming},
    tls::TlsReloader,
};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

/// Gives out connections whose handshake is done. What peers send that is no handshake never gets here.
pub(super) struct Door {
    incoming: ReceiverStream<io::Result<Connection>>,
    addr: SocketAddr,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Visitor(pub(super) Peer);

impl Door {
    pub(super) async fn open(
        addr: SocketAddr,
        tls: Arc<TlsReloader>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let incoming = mtls_incoming(listener, tls, AcceptLimits::default(), shutdown);
        Ok(Self { incoming, addr })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.incoming.next().await {
                Some(Ok(connection)) => {
                    let addr = connection.peer().addr;
                    return (connection, addr);
                }
                Some(Err(error)) => tracing::warn!(%error, "a connection is lost"),
                // The door is closed for good; the server is told by its own token.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

impl Connected<IncomingStream<'_, Door>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(stream.io().peer().clone())
    }
}
