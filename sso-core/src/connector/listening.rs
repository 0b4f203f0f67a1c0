//! A socket whose last words are read although it takes no more.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A server that refuses a client sends its alert and closes, maybe while the client is still sending.
/// Were the failure to send what is reported, nobody would read the alert. So what cannot be sent to a
/// peer that is gone counts as sent: the next read brings the alert, or says that the peer is gone.
#[derive(Debug)]
pub(super) struct Listening(pub(super) TcpStream);

fn counted(sent: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
    match &sent {
        Poll::Ready(Err(error)) if is_gone(error.kind()) => Poll::Ready(Ok(bytes)),
        Poll::Ready(_) | Poll::Pending => sent,
    }
}

fn is_gone(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        counted(Pin::new(&mut self.0).poll_write(context, bytes), bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        counted(Pin::new(&mut self.0).poll_write_vectored(context, slices), bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.0).poll_flush(context);
        match &flushed {
            Poll::Ready(Err(error)) if is_gone(error.kind()) => Poll::Ready(Ok(())),
            Poll::Ready(_) | Poll::Pending => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
