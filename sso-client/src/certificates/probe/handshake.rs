//! One handshake with a server, and what the server says to it, at once or late.
//!
//! With TLS 1.3 a client is done before the server has judged its certificate. Whether the server takes
//! it shows only in what comes next: an alert, or anything else.

use std::{io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use rustls::{
    AlertDescription, CipherSuite, ClientConfig, NamedGroup, ProtocolVersion, pki_types::ServerName,
};
use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::network::{Beginning, Tapped, connect, is_break};

/// How long a server has the word after the handshake: it refuses within a round trip, and most greet
/// at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// A quarter of the time is the most that is spent on waiting for its first word.
const PATIENCE_SHARE: u32 = 4;
/// What a TLS alert of a server looks like in the first byte, and what its handshake does.
const ALERT_OR_HANDSHAKE: [u8; 2] = [21, 22];

/// What was agreed in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) version: ProtocolVersion,
    pub(super) cipher_suite: CipherSuite,
    pub(super) key_exchange: Option<NamedGroup>,
    pub(super) alpn: Option<Alpn>,
}

/// The application protocols that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    Http2,
    Http1,
}

/// How it shows that the server takes the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// TLS 1.2: the server ends its handshake last, and has judged by then.
    Finished,
    /// It sent data, or what a later connection may resume.
    Greeted,
    /// It said nothing, and when this side took leave it did so too.
    ClosedInPeace,
}

/// Why a connection came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// No TCP connection.
    NoConnection(io::Error),
    /// Nothing, or not enough, was said in time.
    Silent {
        /// Whether the handshake of this side was over.
        shaken: bool,
    },
    /// The server closed the connection in the handshake.
    Closed,
    /// The server broke the connection off.
    Reset,
    /// What answers does not speak TLS.
    NotTls(Option<&'static str>),
    /// The server says why it refuses.
    Alert(AlertDescription),
    /// This side refuses what the server shows or says.
    Tls(rustls::Error),
    /// Anything else.
    Other(io::Error),
}

/// One handshake, however it ended.
#[derive(Debug)]
pub(super) struct Shaken {
    /// `None` when this side did not get to the end.
    pub(super) agreed: Option<Agreed>,
    pub(super) end: Result<Taken, Fault>,
}

/// Connects, shakes hands, hears what the server says to it, and takes leave. Nothing is sent beyond
/// the handshake.
pub(super) async fn shake(
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    time: Duration,
) -> Shaken {
    let deadline = Instant::now() + time;
    let failed = |fault| Shaken { agreed: None, end: Err(fault) };
    let tcp = match connect(address, deadline).await {
        Ok(tcp) => tcp,
        Err(error) => return failed(Fault::NoConnection(error)),
    };
    let beginning = tcp.beginning();
    let shaking = TlsConnector::from(config).connect(name, tcp);
    let mut io = match timeout_at(deadline, shaking).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return failed(fault_of(error, &beginning)),
        Err(_) => return failed(Fault::Silent { shaken: false }),
    };
    let agreed = agreed(&io);
    let end = match agreed.map(|agreed| agreed.version) {
        Some(ProtocolVersion::TLSv1_2) => Ok(Taken::Finished),
        _ => hear(&mut io, &beginning, deadline, PATIENCE.min(time / PATIENCE_SHARE)).await,
    };
    if end.is_ok() {
        // A server that does not wait for the farewell is none the worse for it.
        let _ = timeout_at(deadline, io.shutdown()).await;
    }
    Shaken { agreed, end }
}

fn agreed(io: &TlsStream<Tapped>) -> Option<Agreed> {
    let (_, connection) = io.get_ref();
    let alpn = match connection.alpn_protocol() {
        Some(b"h2") => Some(Alpn::Http2),
        Some(b"http/1.1") => Some(Alpn::Http1),
        _ => None,
    };
    Some(Agreed {
        version: connection.protocol_version()?,
        cipher_suite: connection.negotiated_cipher_suite()?.suite(),
        key_exchange: connection.negotiated_key_exchange_group().map(|group| group.name()),
        alpn,
    })
}

/// What a TLS 1.3 server makes of the client. One that has no first word is taken leave of: the answer
/// to that, or the end of the connection, comes after its judgement.
async fn hear(
    io: &mut TlsStream<Tapped>,
    beginning: &Beginning,
    deadline: Instant,
    patience: Duration,
) -> Result<Taken, Fault> {
    match timeout_at(deadline.min(Instant::now() + patience), news(io)).await {
        Ok(Ok(News::Word)) => return Ok(Taken::Greeted),
        Ok(Ok(News::End)) => return Err(Fault::Closed),
        Ok(Err(error)) => return Err(fault_of(error, beginning)),
        Err(_) => {}
    }
    let farewell = async {
        io.shutdown().await?;
        news(io).await
    };
    match timeout_at(deadline, farewell).await {
        Ok(Ok(News::Word)) => Ok(Taken::Greeted),
        Ok(Ok(News::End)) => Ok(Taken::ClosedInPeace),
        Ok(Err(error)) => match fault_of(error, beginning) {
            // It had time to refuse; now it does not wait for the end of a conversation that is over.
            Fault::Closed | Fault::Reset => Ok(Taken::ClosedInPeace),
            fault @ (Fault::NoConnection(_)
            | Fault::Silent { .. }
            | Fault::NotTls(_)
            | Fault::Alert(_)
            | Fault::Tls(_)
            | Fault::Other(_)) => Err(fault),
        },
        Err(_) => Err(Fault::Silent { shaken: true }),
    }
}

/// The next thing that a server says.
enum News {
    /// Data, or what a later connection may resume, which is nothing to be read.
    Word,
    /// It closed.
    End,
}

async fn news(io: &mut TlsStream<Tapped>) -> io::Result<News> {
    let mut space = [0; 256];
    std::future::poll_fn(move |context| {
        let mut buffer = ReadBuf::new(&mut space);
        let read = std::pin::Pin::new(&mut *io).poll_read(context, &mut buffer);
        let tickets = io.get_ref().1.tls13_tickets_received() > 0;
        match read {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(Ok(News::Word)),
            _ if tickets => Poll::Ready(Ok(News::Word)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(News::End)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn fault_of(error: io::Error, beginning: &Beginning) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => return fault_of_tls(error, beginning),
        None if error.kind() == io::ErrorKind::TimedOut => return Fault::Silent { shaken: false },
        None => {}
    }
    // A server that answers in another protocol often closes before TLS understands its words.
    if beginning.starts_otherwise(&ALERT_OR_HANDSHAKE) {
        return Fault::NotTls(beginning.looks_like());
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Fault::Closed;
    }
    match is_break(&error) {
        true => Fault::Reset,
        false => Fault::Other(error),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors are this side's refusal")]
fn fault_of_tls(error: &rustls::Error, beginning: &Beginning) -> Fault {
    match error {
        rustls::Error::AlertReceived(alert) => Fault::Alert(*alert),
        rustls::Error::InvalidMessage(_) => Fault::NotTls(beginning.looks_like()),
        _ if beginning.starts_otherwise(&ALERT_OR_HANDSHAKE) => {
            Fault::NotTls(beginning.looks_like())
        }
        other => Fault::Tls(other.clone()),
    }
}
