//! The listening side of TLS, mutual unless certificates are optional: accepts, shakes hands, and
//! says who is there.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

pub use crate::recheck::{RecheckPeer, RecheckPeerLayer};
use crate::{
    peer::PeerCertificate,
    recheck::Verdict,
    tls::{TlsGeneration, TlsReloader},
};

/// Pause after a failed `accept`, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long, and for how many bytes, a refused peer is listened to, so that it reads the alert before
/// the connection is reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 * 1024;

/// What those may take who have not proved who they are, and how much one local user.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Handshakes at once; further connections wait in the system's queue.
    pub handshakes: usize,
    /// Time for one handshake.
    pub handshake_timeout: Duration,
    /// Connections at once whose peers showed no certificate; further ones are closed.
    pub strangers: usize,
    /// A peer without a certificate is cut off when none of its requests was admitted for this long
    /// after the handshake.
    pub stranger_timeout: Duration,
    /// Connections at once of one user of this machine; further ones are closed.
    pub per_local_user: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshakes: 64,
            handshake_timeout: Duration::from_secs(5),
            strangers: 512,
            stranger_timeout: Duration::from_secs(30),
            per_local_user: 64,
        }
    }
}

/// The peer of a connection: in the extensions of every request on it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// The TLS generation that the connection was accepted under.
    pub generation: u64,
    /// The verified certificates as sent, the peer's own first; none where none was asked for and
    /// shown.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// What the peer's own certificate says; `None` where certificates are optional and the peer
    /// showed none.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Whether the certificates were still good when last looked at.
    pub(crate) verdict: Arc<Verdict>,
    /// Whether a request of it was admitted.
    admitted: Arc<AtomicBool>,
}

impl Peer {
    /// Notes that a request on the connection was admitted: a peer without a certificate has proved
    /// who it is, and is not cut off after [`AcceptLimits::stranger_timeout`].
    pub fn note_admitted(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }
}

/// Accepted connections for `serve_with_incoming_shutdown`. Dropping the stream, or `shutdown`, closes
/// the listener. Neither errors of the system nor what peers send ends the stream.
pub fn mtls_incoming(
    listener: TcpListener,
    tls: Arc<TlsReloader>,
    limits: AcceptLimits,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, incoming) = mpsc::channel(64);
    tokio::spawn(accept_loop(listener, tls, limits, shutdown, accepted));
    ReceiverStream::new(incoming)
}

type Accepted = mpsc::Sender<io::Result<Connection>>;

async fn accept_loop(
    listener: TcpListener,
    tls: Arc<TlsReloader>,
    limits: AcceptLimits,
    shutdown: CancellationToken,
    accepted: Accepted,
) {
    let slots = Arc::new(Semaphore::new(limits.handshakes));
    let strangers = Arc::new(Semaphore::new(limits.strangers));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, connection) = tokio::select! {
            () = shutdown.cancelled() => return,
            () = accepted.closed() => return,
            next = next => next,
        };
        match connection {
            Ok((tcp, addr)) => {
                let (tls, accepted) = (Arc::clone(&tls), accepted.clone());
                let strangers = Arc::clone(&strangers);
                tokio::spawn(async move {
                    let _slot = slot;
                    let shaken = shake_hands(tcp, addr, tls, limits).await;
                    if let Some(connection) = shaken.and_then(|it| it.admit(strangers, limits)) {
                        // An error only says that the server is going away.
                        let _ = accepted.send(Ok(connection)).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    tcp: TcpStream,
    addr: SocketAddr,
    tls: Arc<TlsReloader>,
    limits: AcceptLimits,
) -> Option<Connection> {
    // Without it every exchange waits 40 ms for a delayed acknowledgement.
    let _ = tcp.set_nodelay(true);
    let generation = tls.current();
    let handshake = TlsAcceptor::from(generation.server()).accept(tcp).into_fallible();
    match tokio::time::timeout(limits.handshake_timeout, handshake).await {
        Ok(Ok(io)) => match identify(&io, addr, &generation, &tls) {
            Ok(peer) => Some(Connection { io, peer, tls, stranger: None }),
            Err(reason) => {
                refuse(addr, &reason);
                None
            }
        },
        Ok(Err((error, tcp))) => {
            refuse(addr, &error.to_string());
            linger(tcp).await;
            None
        }
        Err(_) => {
            refuse(addr, "no handshake in time");
            None
        }
    }
}

fn identify(
    io: &TlsStream<TcpStream>,
    addr: SocketAddr,
    generation: &TlsGeneration,
    tls: &TlsReloader,
) -> Result<Peer, String> {
    let (_, session) = io.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err("the peer does not speak HTTP/2".to_owned());
    }
    let chain: Arc<[CertificateDer<'static>]> = session.peer_certificates().unwrap_or(&[]).into();
    let certificate = match chain.first() {
        Some(own) => Some(PeerCertificate::parse(own).map_err(|error| error.to_string())?),
        // The handshake refused this already; it holds even if that slips through.
        None if tls.requires_certificates() => return Err("the peer sent no certificate".into()),
        None => None,
    };
    Ok(Peer {
        addr,
        generation: generation.number(),
        certificate: certificate.map(Arc::new),
        verdict: Arc::new(Verdict::trusted(generation.number(), tls.clock().instant())),
        admitted: Arc::default(),
        chain,
    })
}

fn refuse(addr: SocketAddr, reason: &str) {
    count("refused");
    tracing::info!(%addr, reason, "TLS connection refused");
}

fn count(result: &'static str) {
    metrics::counter!("sso_tls_handshakes_total", "result" => result).increment(1);
}

/// Closing a socket with unread bytes resets the connection, and the peer loses the alert that says
/// why.
async fn linger(mut tcp: TcpStream) {
    let _ = tokio::time::timeout(LINGER, async {
        let _ = tcp.shutdown().await;
        let _ = tokio::io::copy(&mut tcp.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    })
    .await;
}

/// A connection of a verified peer. It breaks soon after the peer's certificate is no longer good, so
/// that streams end too; that of a peer without a certificate also when it does not prove in time who
/// it is.
#[derive(Debug)]
pub struct Connection {
    io: TlsStream<TcpStream>,
    peer: Peer,
    tls: Arc<TlsReloader>,
    stranger: Option<Stranger>,
}

/// What a connection without a certificate holds.
#[derive(Debug)]
struct Stranger {
    _place: OwnedSemaphorePermit,
    /// None once the peer has proved who it is.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Counts the connection; one without a certificate takes a place, or is closed.
    fn admit(mut self, strangers: Arc<Semaphore>, limits: AcceptLimits) -> Option<Self> {
        if self.peer.certificate.is_none() {
            let Ok(place) = strangers.try_acquire_owned() else {
                refuse(self.peer.addr, "too many connections without a client certificate");
                return None;
            };
            let deadline = Some(Box::pin(tokio::time::sleep(limits.stranger_timeout)));
            self.stranger = Some(Stranger { _place: place, deadline });
        }
        count("accepted");
        Some(self)
    }

    /// Breaks the connection of a stranger whose time is over.
    fn check_stranger(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(stranger) = &mut self.stranger else { return Ok(()) };
        let Some(deadline) = &mut stranger.deadline else { return Ok(()) };
        if deadline.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        if self.peer.admitted.load(Ordering::Relaxed) {
            stranger.deadline = None;
            return Ok(());
        }
        tracing::info!(addr = %self.peer.addr, "a connection that nobody was known on is closed");
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the peer did not prove in time who it is",
        ))
    }

    fn check(&self) -> io::Result<()> {
        if self.peer.is_cut_off(&self.tls) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer's certificate is no longer valid",
            ));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_stranger(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.check_stranger(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.check_stranger(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
