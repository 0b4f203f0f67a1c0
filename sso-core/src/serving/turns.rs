//! Turns: how the requests of one connection, and the handshakes of one lane, leave time for others.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use futures_util::FutureExt as _;
use hyper::rt::Executor;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};

use super::records::Due;

/// Requests of one connection that are answered before other connections have their turn: about half a
/// millisecond.
const MOST: usize = 32;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The requests that have come on a connection and were not looked at. Clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    waiting: Arc<Mutex<VecDeque<Work>>>,
    due: Due,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Turns {
    fn execute(&self, work: F) {
        self.lock().push_back(Box::pin(work));
    }
}

impl Turns {
    pub(super) fn new(due: Due) -> Self {
        Self { waiting: Arc::default(), due }
    }

    /// One turn: sends the answers of the one before, takes what `transport` has read, and answers requests.
    pub(super) fn take<T>(
        &self,
        context: &mut Context<'_>,
        mut transport: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Poll::Ready(ended) = transport(context) {
            return Poll::Ready(ended);
        }
        let mut done = 0;
        while done < MOST {
            let Some(work) = self.next() else { break };
            self.begin(work);
            done += 1;
        }
        if done > 0 {
            // The answers wait for the others of the lane: what they rest on is handed over together.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Answers a request where that can be done at once; else it becomes a task.
    fn begin(&self, work: Work) {
        let mut answer = Answer { work, due: self.due.clone() };
        // A task is polled again at once, so nothing that happens before that is missed.
        let mut context = Context::from_waker(Waker::noop());
        // One request that panics ends alone, as it would in a task.
        let polled = catch_unwind(AssertUnwindSafe(|| answer.poll_unpin(&mut context)));
        if matches!(polled, Ok(Poll::Pending)) {
            tokio::spawn(answer);
        }
    }

    fn next(&self) -> Option<Work> {
        self.lock().pop_front()
    }

    /// Gives up what was not looked at.
    pub(super) fn clear(&self) {
        // Dropped without the lock: dropping may bring something new.
        let given_up = std::mem::take(&mut *self.lock());
        drop(given_up);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer at work. Whatever it gives to the transport it gives within its own steps.
struct Answer {
    work: Work,
    due: Due,
}

impl Future for Answer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { work, due } = &mut *self;
        // Also where it panics.
        let _noted = scopeguard::guard(due, |due| due.note());
        work.as_mut().poll(context)
    }
}

/// Does the work in steps, of which only as many as `steps` has places are taken until the lane has done
/// what else there was to do.
pub(super) async fn in_turn<F: Future>(steps: &Arc<Semaphore>, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut place: Option<Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>> =
        None;
    poll_fn(move |context| {
        let waiting = place.get_or_insert_with(|| {
            let steps = Arc::clone(steps);
            Box::pin(async move { steps.acquire_owned().await.ok() })
        });
        let permit = ready!(waiting.as_mut().poll(context));
        place = None;
        let done = work.as_mut().poll(context);
        tokio::spawn(async move {
            yield_now().await;
            drop(permit);
        });
        done
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    };

    use tokio::io::AsyncWriteExt as _;

    use super::{
        super::records::{Recorded, Records},
        *,
    };

    /// Counts what is taken, and notes what is handed over.
    #[derive(Default)]
    struct Counted {
        taken: AtomicU64,
        handed_over: Mutex<Vec<u64>>,
    }

    impl Records for Counted {
        fn taken(&self) -> u64 {
            self.taken.load(Ordering::Relaxed)
        }

        fn hand_over(&self, taken: u64) -> io::Result<()> {
            self.handed_over.lock().unwrap().push(taken);
            Ok(())
        }
    }

    fn turns() -> Turns {
        Turns::new(Due::new(Arc::new(Counted::default())))
    }

    /// A transport that brings these requests at once.
    fn burst(turns: &Turns, count: usize, done: &Arc<AtomicUsize>) {
        for _ in 0..count {
            let done = Arc::clone(done);
            turns.execute(async move {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    #[tokio::test]
    async fn a_burst_leaves_turns_to_others() {
        let (turns, done) = (turns(), Arc::new(AtomicUsize::new(0)));
        burst(&turns, 10 * MOST, &done);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (told, counted) = (Arc::clone(&sent), Arc::clone(&done));
        let serving = tokio::spawn(async move {
            poll_fn(|context| {
                turns.take(context, |_| {
                    let done = counted.load(Ordering::Relaxed);
                    told.lock().unwrap().push(done);
                    if done == 10 * MOST { Poll::Ready(()) } else { Poll::Pending }
                })
            })
            .await;
        });
        // Whoever comes meanwhile is served after one turn of the other one.
        let mut seen = Vec::new();
        while !serving.is_finished() {
            tokio::task::yield_now().await;
            seen.push(done.load(Ordering::Relaxed));
        }
        for pair in seen.windows(2) {
            assert!(pair[1] - pair[0] <= MOST, "{seen:?}");
        }
        // The answers are sent together, once each turn.
        let sent = sent.lock().unwrap();
        assert!(sent.contains(&MOST) && sent.len() <= 2 * 10 + 1, "{sent:?}");
    }

    #[tokio::test]
    async fn a_request_that_waits_holds_nobody_up() {
        let (turns, done) = (turns(), Arc::new(AtomicUsize::new(0)));
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let late = Arc::clone(&done);
        turns.execute(async move {
            receiver.await.unwrap();
            late.fetch_add(100, Ordering::Relaxed);
        });
        burst(&turns, 1, &done);
        turns.execute(async { panic!("on purpose") });
        burst(&turns, 1, &done);
        let mut context = Context::from_waker(Waker::noop());
        assert!(turns.take(&mut context, |_| Poll::<()>::Pending).is_pending());
        assert_eq!(done.load(Ordering::Relaxed), 2);
        sender.send(()).unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(done.load(Ordering::Relaxed), 102);
    }

    /// What an answer rests on is what was taken when it was given to the transport, however much is taken
    /// by others meanwhile, and however late it comes.
    #[tokio::test]
    async fn a_connection_waits_for_what_its_own_answers_rest_on() {
        let records = Arc::new(Counted::default());
        let due = Due::new(Arc::<Counted>::clone(&records));
        let turns = Turns::new(due.clone());
        let (client, _server) = tokio::io::duplex(64);
        let mut io = Recorded { io: client, due };
        io.write_all(b"hello").await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let taken = Arc::clone(&records);
        turns.execute(async move {
            taken.taken.fetch_add(3, Ordering::Relaxed);
        });
        let taken = Arc::clone(&records);
        turns.execute(async move {
            receiver.await.unwrap();
            taken.taken.fetch_add(1, Ordering::Relaxed);
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(turns.take(&mut context, |_| Poll::<()>::Pending).is_pending());
        records.taken.fetch_add(5, Ordering::Relaxed);
        io.write_all(b"three").await.unwrap();
        sender.send(()).unwrap();
        tokio::task::yield_now().await;
        records.taken.fetch_add(5, Ordering::Relaxed);
        let slices = [io::IoSlice::new(b"nine")];
        assert_eq!(io.write_vectored(&slices).await.unwrap(), 4);
        assert_eq!(*records.handed_over.lock().unwrap(), [0, 3, 9]);
    }

    #[tokio::test]
    async fn handshakes_leave_turns_to_requests() {
        let steps = Arc::new(Semaphore::new(2));
        let taken = Arc::new(AtomicUsize::new(0));
        let shaking: Vec<_> = (0..20)
            .map(|_| {
                let (steps, taken) = (Arc::clone(&steps), Arc::clone(&taken));
                tokio::spawn(async move {
                    let mut left = 3;
                    let handshake = poll_fn(|context| {
                        taken.fetch_add(1, Ordering::Relaxed);
                        left -= 1;
                        if left == 0 {
                            return Poll::Ready(());
                        }
                        context.waker().wake_by_ref();
                        Poll::Pending
                    });
                    in_turn(&steps, handshake).await;
                })
            })
            .collect();
        let mut seen = 0;
        while shaking.iter().any(|task| !task.is_finished()) {
            tokio::task::yield_now().await;
            let now = taken.load(Ordering::Relaxed);
            assert!(now - seen <= 4, "{now} after {seen}");
            seen = now;
        }
        assert_eq!(seen, 60);
    }
}
