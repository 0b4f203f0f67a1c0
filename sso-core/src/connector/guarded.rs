//! A connection to a server that ends when the server is not trusted any more.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::listening::Listening;
use crate::{
    recheck::{Tripwire, Verdict},
    tls::{TlsGeneration, TlsReloader},
    verifier::{CertificateSummary, Refusal},
};

/// Bytes to and from a server whose certificate is verified again after every change of files and lists
/// and at least every minute.
#[derive(Debug)]
pub(super) struct Guarded {
    io: TlsStream<Listening>,
    /// None once it went off.
    tripwire: Option<Tripwire>,
}

impl Guarded {
    /// `number`: the generation that the connection was made under; `is_lenient`: although nobody knows
    /// whether the server is revoked.
    pub(super) fn new(
        io: TlsStream<Listening>,
        tls: Arc<TlsReloader>,
        name: ServerName<'static>,
        (number, is_lenient): (u64, bool),
    ) -> Self {
        let chain: Arc<[CertificateDer<'static>]> =
            io.get_ref().1.peer_certificates().unwrap_or(&[]).into();
        let verdict = Verdict::trusted(number, tls.clock().instant(), is_lenient);
        // Nothing is owed to a server that is not trusted: no grace.
        let tripwire = Tripwire::new(tls, Duration::ZERO, move |tls| {
            let verify =
                |generation: &TlsGeneration, time| generation.verify_server(&chain, &name, time);
            let told = |why: &Refusal| tell(&chain, &name, why);
            verdict.judge(tls, chain.first(), verify, told).refusal().is_none()
        });
        Self { io, tripwire: Some(tripwire) }
    }
}

fn tell(chain: &[CertificateDer<'_>], name: &ServerName<'_>, why: &Refusal) {
    let certificate = chain.first().map(CertificateSummary::of).unwrap_or_default();
    tracing::warn!(
        server = %name.to_str(),
        reason = why.reason.as_str(),
        thumbprint = certificate.thumbprint,
        serial = certificate.serial,
        subject = certificate.subject,
        words = why.words,
        "a connected server is no longer trusted"
    );
}

/// The next connection says what is wrong with the server, or finds a better one: worth a new try.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is not trusted any more")
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(tripwire) = &mut self.tripwire else { return Poll::Ready(Err(ended())) };
        if tripwire.poll(context).is_ready() {
            self.tripwire = None;
            return Poll::Ready(Err(ended()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.tripwire.is_none() {
            return Poll::Ready(Err(ended()));
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.tripwire.is_none() {
            return Poll::Ready(Err(ended()));
        }
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
