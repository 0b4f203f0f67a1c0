//! The listening side of TLS, mutual unless certificates are optional: accepts, shakes hands, and
//! says who is there.

use std::{
    fmt, io,
    net::SocketAddr,
    ops::Deref,
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
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

pub use crate::recheck::{RecheckPeer, RecheckPeerLayer};
use crate::{
    peer::PeerCertificate,
    places::{Place, Places},
    quiet::Quiet,
    recheck::{GRACE, Tripwire, Verdict},
    tls::{Application, TlsGeneration, TlsReason, TlsReloader},
    verifier::{CertificateSummary, Note, noted},
};

/// Pause after a failed `accept`, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long, and for how many bytes, a refused peer is listened to, so that it reads the alert before
/// the connection is reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 * 1024;
/// Refused peers that are listened to at once.
const LINGERING: usize = 64;

/// What those may take who have not proved who they are, and how much one local user.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Handshakes at once; further connections wait in the system's queue, and when one has waited
    /// for a while the longest handshake is broken off.
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

/// The peer of a connection: in the extensions of every request on it. Clones share one.
#[derive(Clone, Debug)]
pub struct Peer(Arc<PeerFacts>);

/// What is known of a peer.
#[derive(Debug)]
pub struct PeerFacts {
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
    pub(crate) verdict: Verdict,
    /// Whether a request of it was admitted.
    admitted: AtomicBool,
}

impl Deref for Peer {
    type Target = PeerFacts;

    fn deref(&self) -> &PeerFacts {
        &self.0
    }
}

impl Peer {
    /// Notes that a request on the connection was admitted: a peer without a certificate has proved
    /// who it is, and is not cut off after [`AcceptLimits::stranger_timeout`].
    pub fn note_admitted(&self) {
        if !self.admitted.load(Ordering::Relaxed) {
            self.admitted.store(true, Ordering::Relaxed);
        }
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
    let door = TlsDoor::new(tls, limits);
    loop {
        let arrival = tokio::select! {
            () = accepted.closed() => return,
            arrival = door.arrival(&listener, &shutdown) => arrival,
        };
        let Some(Arrival { tcp, addr, place }) = arrival else { return };
        let (door, accepted) = (Arc::clone(&door), accepted.clone());
        tokio::spawn(async move {
            if let Some(connection) = door.let_in(tcp, addr, place).await {
                // An error only says that the server is going away.
                let _ = accepted.send(Ok(connection)).await;
            }
        });
    }
}

/// Who has come, and has shown nothing yet.
pub(crate) struct Arrival {
    pub(crate) tcp: TcpStream,
    pub(crate) addr: SocketAddr,
    pub(crate) place: Place,
}

/// What all connections of one listener pass: their limits are for all of them together.
pub(crate) struct TlsDoor {
    tls: Arc<TlsReloader>,
    limits: AcceptLimits,
    places: Places,
    strangers: Arc<Semaphore>,
    lingering: Semaphore,
}

impl TlsDoor {
    pub(crate) fn new(tls: Arc<TlsReloader>, limits: AcceptLimits) -> Arc<Self> {
        Arc::new(Self {
            tls,
            limits,
            places: Places::new(limits.handshakes),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            lingering: Semaphore::new(LINGERING),
        })
    }

    /// The next one that comes, with a place for the handshake; `None` once `shutdown` has come.
    pub(crate) async fn arrival(
        &self,
        listener: &TcpListener,
        shutdown: &CancellationToken,
    ) -> Option<Arrival> {
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => return None,
                connection = listener.accept() => connection,
            };
            match connection {
                // The place is not given up for a shutdown: who was accepted is served, where others go
                // on listening at the same address.
                Ok((tcp, addr)) => {
                    let place = self.places.take(Some(addr.ip())).await;
                    return Some(Arrival { tcp, addr, place });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Shakes hands; `None` when the peer is refused.
    pub(crate) async fn let_in(
        &self,
        tcp: TcpStream,
        addr: SocketAddr,
        place: Place,
    ) -> Option<Connection> {
        match shake_hands(tcp, addr, &self.tls, self.limits, place).await {
            Shaken::Done(connection) => connection.admit(&self.strangers, self.limits),
            Shaken::Refused(tcp) => {
                if let Ok(_listening) = self.lingering.try_acquire() {
                    linger(tcp).await;
                }
                None
            }
            Shaken::Gone => None,
        }
    }
}

/// What became of a handshake.
enum Shaken {
    Done(Box<Connection>),
    /// The peer may still have to read the alert that says why.
    Refused(TcpStream),
    Gone,
}

async fn shake_hands(
    tcp: TcpStream,
    addr: SocketAddr,
    tls: &Arc<TlsReloader>,
    limits: AcceptLimits,
    place: Place,
) -> Shaken {
    // Without it every exchange waits 40 ms for a delayed acknowledgement.
    let _ = tcp.set_nodelay(true);
    let generation = tls.current();
    let Some(config) = generation.server() else {
        refuse(addr, TlsReason::Other, "this program has no certificate to listen with", None);
        return Shaken::Gone;
    };
    let handshake = noted(TlsAcceptor::from(config).accept(tcp).into_fallible());
    let timed = tokio::time::timeout(limits.handshake_timeout, handshake);
    let shaken = tokio::select! {
        () = place.is_wanted() => {
            let words = "the peer stalled while others waited for a place";
            refuse(addr, TlsReason::HandshakeTimeout, words, None);
            return Shaken::Gone;
        }
        shaken = timed => shaken,
    };
    match shaken {
        Ok((Ok(io), note)) => match identify(&io, addr, &generation, tls, note.as_ref()) {
            Ok(peer) => Shaken::Done(Box::new(Connection::new(io, peer, Arc::clone(tls)))),
            Err((reason, words)) => {
                refuse(addr, reason, &words, note.as_ref().map(|note| &note.certificate));
                Shaken::Gone
            }
        },
        Ok((Err((error, tcp)), note)) => {
            explain(addr, &error, note.as_ref());
            Shaken::Refused(tcp)
        }
        Err(_) => {
            refuse(addr, TlsReason::HandshakeTimeout, "no handshake in time", None);
            Shaken::Gone
        }
    }
}

fn identify(
    io: &TlsStream<TcpStream>,
    addr: SocketAddr,
    generation: &TlsGeneration,
    tls: &TlsReloader,
    note: Option<&Note>,
) -> Result<Peer, (TlsReason, String)> {
    let (_, session) = io.get_ref();
    if !tls.application().takes(session.alpn_protocol()) {
        let words = match tls.application() {
            Application::Grpc => "the peer does not speak HTTP/2",
            Application::Http => "the peer does not speak HTTP/1.1",
        };
        return Err((TlsReason::ApplicationProtocol, words.to_owned()));
    }
    let chain: Arc<[CertificateDer<'static>]> = session.peer_certificates().unwrap_or(&[]).into();
    let certificate = match chain.first() {
        Some(own) => Some(
            PeerCertificate::parse(own)
                .map_err(|error| (TlsReason::CertificateUnusable, error.to_string()))?,
        ),
        // The handshake refused this already; it holds even if that slips through.
        None if tls.requires_certificates() => {
            return Err((TlsReason::NoClientCertificate, "the peer sent no certificate".into()));
        }
        None => None,
    };
    Ok(Peer(Arc::new(PeerFacts {
        addr,
        generation: generation.number(),
        certificate: certificate.map(Arc::new),
        verdict: Verdict::trusted(
            generation.number(),
            tls.clock().instant(),
            note.is_some_and(|note| note.is_lenient),
        ),
        admitted: AtomicBool::new(false),
        chain,
    })))
}

/// Says why a handshake failed.
fn explain(addr: SocketAddr, error: &io::Error, note: Option<&Note>) {
    let certificate = note.map(|note| &note.certificate);
    if let Some(refusal) = note.and_then(|note| note.refusal.as_ref()) {
        return refuse(addr, refusal.reason, &refusal.words, certificate);
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => {
            let reason = TlsReason::of_alert(*alert).unwrap_or(TlsReason::Other);
            count("broken_off", reason.as_str());
            let reason = reason.as_str();
            tracing::info!(%addr, reason, ?alert, "the peer broke off: it does not take this server");
        }
        // The chain was good, so this is about the signature that proves the key.
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)) => {
            let words = "the peer does not hold the key of the certificate that it shows";
            refuse(addr, TlsReason::KeyMismatch, words, certificate);
        }
        Some(inner) => {
            let reason = TlsReason::of(inner).unwrap_or(TlsReason::Other);
            let words = if reason == TlsReason::NoClientCertificate {
                "the peer sent no certificate".to_owned()
            } else if reason == TlsReason::NotTls {
                format!("what the peer sends is not TLS ({inner})")
            } else {
                inner.to_string()
            };
            refuse(addr, reason, &words, certificate);
        }
        None => {
            count("refused", TlsReason::Disconnected.as_str());
            let reason = TlsReason::Disconnected.as_str();
            tracing::debug!(%addr, reason, %error, "the peer went away in the handshake");
        }
    }
}

fn refuse(
    addr: SocketAddr,
    reason: TlsReason,
    words: &str,
    certificate: Option<&CertificateSummary>,
) {
    let reason = reason.as_str();
    count("refused", reason);
    tracing::info!(
        %addr,
        reason,
        thumbprint = certificate.map(|it| it.thumbprint.as_str()),
        serial = certificate.map(|it| it.serial.as_str()),
        subject = certificate.map(|it| it.subject.as_str()),
        words,
        "TLS connection refused"
    );
}

/// `reason` is empty where there is none.
fn count(result: &'static str, reason: &'static str) {
    metrics::counter!("sso_tls_handshakes_total", "result" => result, "reason" => reason)
        .increment(1);
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
pub struct Connection {
    io: TlsStream<TcpStream>,
    peer: Peer,
    tls: Arc<TlsReloader>,
    /// None once it went off.
    tripwire: Option<Tripwire>,
    stranger: Option<Stranger>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What a connection without a certificate holds.
struct Stranger {
    _place: OwnedSemaphorePermit,
    /// None once the peer has proved who it is.
    deadline: Option<Quiet>,
}

impl Connection {
    fn new(io: TlsStream<TcpStream>, peer: Peer, tls: Arc<TlsReloader>) -> Self {
        let watched = peer.clone();
        let tripwire = Tripwire::new(Arc::clone(&tls), GRACE, move |tls| {
            watched.judge(tls).refusal().is_none()
        });
        Self { io, peer, tls, tripwire: Some(tripwire), stranger: None }
    }

    /// The peer of it: for servers that do not know [`Connected`].
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Counts the connection; one without a certificate takes a place, or is closed.
    fn admit(mut self, strangers: &Arc<Semaphore>, limits: AcceptLimits) -> Option<Self> {
        if self.peer.certificate.is_none() {
            let Ok(place) = Arc::clone(strangers).try_acquire_owned() else {
                let words = "too many connections without a client certificate";
                refuse(self.peer.addr, TlsReason::TooManyConnections, words, None);
                return None;
            };
            let deadline = Some(Quiet::new(tokio::time::sleep(limits.stranger_timeout)));
            self.stranger = Some(Stranger { _place: place, deadline });
        }
        count("accepted", "");
        Some(self)
    }

    /// Breaks the connection of a stranger whose time is over.
    fn check_stranger(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(stranger) = &mut self.stranger else { return Ok(()) };
        let Some(deadline) = &mut stranger.deadline else { return Ok(()) };
        if deadline.poll(context).is_pending() {
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

    /// What has to be before bytes are sent.
    fn before_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.peer.is_cut_off(&self.tls) {
            return Err(no_longer_valid());
        }
        self.check_stranger(context)
    }

    /// Breaks the connection of a peer that is not trusted any more.
    fn check_tripwire(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(tripwire) = &mut self.tripwire else { return Err(no_longer_valid()) };
        if tripwire.poll(context).is_pending() {
            return Ok(());
        }
        self.tripwire = None;
        Err(no_longer_valid())
    }
}

fn no_longer_valid() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's certificate is no longer valid")
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
        self.check_tripwire(context)?;
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
        self.before_write(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write(context)?;
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
