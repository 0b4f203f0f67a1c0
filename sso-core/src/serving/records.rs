//! What has to be on record before answers are seen: a connection sends nothing until what its answers rest
//! on is handed over.
//!
//! Connections of one lane take turns, and each sends in its next turn what it answered in the one before
//! (see `turns`). So the first that sends hands over what all of them have taken, and the others find it
//! done.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What answers rest on. Called on the lane of a connection, by the thread that answers and sends.
pub trait Records: Send + Sync {
    /// How many records the caller's lane has taken.
    fn taken(&self) -> u64;

    /// Hands over the first so many records of the caller's lane, before an answer that rests on them leaves.
    /// Records of a thread that called this may wait for the next call, so that it has to be called before
    /// every answer from then on; a thread that never calls it need not.
    ///
    /// # Errors
    /// Not one byte may leave; the connection breaks.
    fn hand_over(&self, taken: u64) -> io::Result<()>;
}

/// What the answers of one connection rest on. Clones are of the same connection.
#[derive(Clone)]
pub(super) struct Due {
    records: Arc<dyn Records>,
    taken: Arc<AtomicU64>,
}

impl Due {
    pub(super) fn new(records: Arc<dyn Records>) -> Self {
        Self { records, taken: Arc::default() }
    }

    /// An answer was worked on: it rests on what was taken until now.
    pub(super) fn note(&self) {
        self.taken.store(self.records.taken(), Ordering::Release);
    }

    fn hand_over(&self) -> io::Result<()> {
        self.records.hand_over(self.taken.load(Ordering::Acquire))
    }
}

/// A connection that sends only what may be seen.
pub(super) struct Recorded<T> {
    pub(super) io: T,
    pub(super) due: Due,
}

impl<T: AsyncRead + Unpin> AsyncRead for Recorded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Recorded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.due.hand_over()?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.due.hand_over()?;
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
