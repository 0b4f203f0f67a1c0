//! Something that is waited for beside the work of a connection, and costs nothing while it does not
//! happen.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A future that is polled only after it was woken: connections ask for it with every read.
pub(crate) struct Quiet {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    bell: Arc<Bell>,
    /// Made of the bell once.
    waker: Waker,
}

struct Bell {
    rung: AtomicBool,
    /// Who polls.
    owner: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl Quiet {
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), owner: Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&bell));
        Self { future: Box::pin(future), bell, waker }
    }

    /// Whether it has happened. Not to be asked again after that.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut owner = self.bell.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if !owner.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *owner = Some(context.waker().clone());
        }
        // The lock is not held while the future runs: it may ring by itself.
        drop(owner);
        // Whoever rings after this wakes the one who is known now.
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_woken_and_at_no_other_time() {
        let (sender, receiver) = oneshot::channel::<()>();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let mut receiver = receiver;
        let mut quiet = Quiet::new(poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut receiver).poll(context).map(drop)
        }));
        let context = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(quiet.poll(&context).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        // Whoever polls last is woken.
        let waiting = tokio::spawn(async move {
            poll_fn(|context| quiet.poll(context)).await;
        });
        tokio::task::yield_now().await;
        sender.send(()).unwrap();
        waiting.await.unwrap();
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
