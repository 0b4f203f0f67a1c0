//! A connection that a receive location has accepted, and who is at its other end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use sso_core::{
    acceptor::{Connection, Peer},
    peer::PeerCertificate,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{HttpsListener, Parties, Party, PartyError, material::Material};

/// How often a connection is looked at on which nothing moves.
const LOOK: Duration = Duration::from_secs(2);

/// Who sent a request: in the handler, `ConnectInfo(peer): ConnectInfo<HttpsPeer>`, where the router is
/// served by `into_make_service_with_connect_info::<HttpsPeer>()`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpsPeer {
    peer: Peer,
}

impl HttpsPeer {
    /// Where the connection comes from.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.peer.addr
    }

    /// The peer's verified certificate; `None` only where the location says `optional`.
    #[must_use]
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        self.peer.certificate.as_deref()
    }

    /// Which party the peer is.
    ///
    /// # Errors
    /// See [`PartyError`].
    pub fn party(&self, parties: &Parties) -> Result<Party, PartyError> {
        parties.resolve(self.certificate().ok_or(PartyError::NoCertificate)?)
    }

    /// Notes that a peer without a certificate has proved in another way who it is, so that its
    /// connection is kept.
    pub fn note_admitted(&self) {
        self.peer.note_admitted();
    }

    /// All that the TLS acceptor knows of the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected<IncomingStream<'_, HttpsListener>> for HttpsPeer {
    fn connect_info(stream: IncomingStream<'_, HttpsListener>) -> Self {
        stream.io().peer().clone()
    }
}

/// An accepted connection. Nothing more is read from it when the peer's certificate is no longer good, it
/// is closed soon after, and when nothing has moved for the idle timeout of the location: also when a
/// handler takes longer for its answer.
#[derive(Debug)]
pub struct HttpsStream {
    connection: Connection,
    peer: HttpsPeer,
    /// Watched, with its lists, for as long as the connection lives.
    material: Arc<Material>,
    idle: Duration,
    moved: Instant,
    look: Pin<Box<Sleep>>,
}

impl HttpsStream {
    pub(super) fn new(connection: Connection, material: Arc<Material>, idle: Duration) -> Self {
        let peer = HttpsPeer { peer: connection.peer().clone() };
        let look = Box::pin(sleep(LOOK.min(idle)));
        Self { connection, peer, material, idle, moved: Instant::now(), look }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &HttpsPeer {
        &self.peer
    }

    fn check(&self) -> io::Result<()> {
        self.peer.peer.still_trusted(&self.material.tls).map_err(|reason| {
            let words = format!("the peer's certificate is no longer good: {reason}");
            io::Error::new(io::ErrorKind::ConnectionAborted, words)
        })
    }

    /// Looks at the clock, and asks to be woken for the next look.
    fn check_idle(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.look.as_mut().poll(context).is_ready() {
            if self.moved.elapsed() >= self.idle {
                let words = format!("nothing has moved on the connection for {:?}", self.idle);
                tracing::info!(addr = %self.peer.addr(), words, "connection closed");
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            self.look.as_mut().reset(Instant::now() + LOOK.min(self.idle));
        }
        Ok(())
    }

    fn note<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.moved = Instant::now();
        }
        result
    }
}

impl AsyncRead for HttpsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        self.check_idle(context)?;
        let result = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.note(result)
    }
}

impl AsyncWrite for HttpsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_idle(context)?;
        let result = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_idle(context)?;
        let result = Pin::new(&mut self.connection).poll_write_vectored(context, slices);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_idle(context)?;
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
