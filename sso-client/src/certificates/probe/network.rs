//! The way to the server: names, connections, and what a peer says before TLS understands it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::Target;

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Bytes of the beginning that are kept, to tell what speaks there when it is not TLS.
const BEGINNING: usize = 64;
/// Bytes that one connection may bring: the largest handshake is far below.
const READ_MAX: usize = 1024 * 1024;

/// Looks the name up.
///
/// # Errors
/// In words.
pub(super) async fn resolve(
    target: &Target,
    patience: Duration,
) -> Result<Vec<SocketAddr>, String> {
    let looked_up =
        timeout(patience, tokio::net::lookup_host((target.host(), target.port()))).await;
    let addresses: Vec<_> = match looked_up {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => return Err(format!("the name cannot be looked up: {error}")),
        Err(_) => return Err("the look-up of the name was not answered in time".to_owned()),
    };
    match addresses.is_empty() {
        true => Err("the name has no address".to_owned()),
        false => Ok(addresses),
    }
}

/// Connects to the first address that takes the connection, as clients do, and closes again.
///
/// # Errors
/// For each address: why not, in words.
pub(super) async fn find(
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<SocketAddr, Vec<(SocketAddr, String)>> {
    // Time for every address, so that one which swallows packets does not use up that of the others.
    let each = patience / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut failed = Vec::new();
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(*address),
            Ok(Err(error)) => failed.push((*address, connect_words(&error))),
            Err(_) => failed.push((
                *address,
                "no answer: the host is down, or a firewall swallows the packets".to_owned(),
            )),
        }
    }
    Err(failed)
}

/// A connection for one handshake.
pub(super) async fn connect(address: SocketAddr, deadline: Instant) -> io::Result<Tapped> {
    let tcp = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tcp.set_nodelay(true)?;
    Ok(Tapped { tcp, beginning: Beginning::default(), read: 0 })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what has no advice is told as the system says it"
)]
fn connect_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "refused: nothing listens there; is the server running, is the port right?".to_owned()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no way there from this machine: {error}")
        }
        _ => error.to_string(),
    }
}

/// Whether the peer has gone away.
pub(super) fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// The first bytes that the peer sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning(Arc<Mutex<Vec<u8>>>);

impl Beginning {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BEGINNING.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }

    /// Whether the peer has said something, and its first byte is none of these.
    pub(super) fn starts_otherwise(&self, known: &[u8]) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.first().is_some_and(|first| !known.contains(first))
    }

    /// What seems to speak there, when it is not TLS.
    pub(super) fn looks_like(&self) -> Option<&'static str> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks_like(&kept)
    }
}

/// What beginning of this kind comes from; `None` when that is not known.
pub(super) fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"HTTP/", "HTTP without TLS"),
        (b"<", "HTTP without TLS"),
        (b"SSH-", "SSH"),
        (b"220", "mail (SMTP) or FTP, which starts TLS only on request"),
        (b"+OK", "mail (POP3), which starts TLS only on request"),
        (b"* OK", "mail (IMAP), which starts TLS only on request"),
        // A SETTINGS frame on stream 0: its length is a multiple of six, below 256 in practice.
        (&[0, 0], "HTTP/2 without TLS"),
        (b"RFB ", "VNC"),
    ];
    let (_, what) = KNOWN.iter().find(|(start, _)| bytes.starts_with(start))?;
    // Two zeros alone are no SETTINGS frame.
    if *what == "HTTP/2 without TLS" && !matches!(bytes, [0, 0, _, 4, _, 0, 0, 0, 0, ..]) {
        return None;
    }
    Some(what)
}

/// A connection whose first bytes are kept, and which brings no more than [`READ_MAX`].
#[derive(Debug)]
pub(super) struct Tapped {
    tcp: TcpStream,
    beginning: Beginning,
    read: usize,
}

impl Tapped {
    pub(super) fn beginning(&self) -> Beginning {
        self.beginning.clone()
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read >= READ_MAX {
            return Poll::Ready(Err(io::Error::other(format!(
                "the server sent more than {READ_MAX} bytes, which no handshake needs"
            ))));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.tcp).poll_read(context, buffer);
        if let Some(news) = buffer.filled().get(before..) {
            this.read = this.read.saturating_add(news.len());
            this.beginning.keep(news);
        }
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.get_mut().tcp).poll_write(context, bytes) {
            // A server that refuses says why and closes, while this side is still talking. What it said
            // is there to be read.
            Poll::Ready(Err(error)) if is_break(&error) => Poll::Ready(Ok(bytes.len())),
            written @ (Poll::Ready(_) | Poll::Pending) => written,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.get_mut().tcp).poll_shutdown(context) {
            Poll::Ready(Err(error))
                if is_break(&error) || error.kind() == io::ErrorKind::NotConnected =>
            {
                Poll::Ready(Ok(()))
            }
            shut_down @ (Poll::Ready(_) | Poll::Pending) => shut_down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tls_is_recognised() {
        for (bytes, what) in [
            (&b"HTTP/1.1 400 Bad Request"[..], Some("HTTP without TLS")),
            (b"SSH-2.0-OpenSSH_9.2", Some("SSH")),
            (&[0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3], Some("HTTP/2 without TLS")),
            (&[0, 0, 12, 4], None),
            (&[0, 0], None),
            (&[22, 3, 3, 0, 90], None),
            (b"", None),
        ] {
            assert_eq!(looks_like(bytes), what, "{bytes:?}");
        }
    }
}
