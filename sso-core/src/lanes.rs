//! Threads that serve connections: each has a runtime of its own, so that the requests of a connection
//! never move to another thread, and what they use is in the cache of one core.
//!
//! Work that takes long has no place here: it would keep every connection of the lane waiting.

use std::{
    cell::Cell,
    io,
    num::NonZeroUsize,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// The number of the lane that the caller runs on, from 0. Threads that are no lane share number 0 with
/// the first one, so that whoever keeps something for each lane has to expect company there.
#[must_use]
pub fn current() -> usize {
    LANE.get()
}

/// Serving threads. They end when the value is dropped.
#[derive(Debug)]
pub struct Lanes {
    handles: Vec<Handle>,
    ended: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    /// As many lanes as this, or as this machine has processors.
    ///
    /// # Errors
    /// The system gives no thread, or no runtime.
    pub fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let count = match count {
            Some(count) => count,
            None => thread::available_parallelism()?,
        };
        let mut lanes =
            Self { handles: Vec::new(), ended: CancellationToken::new(), threads: Vec::new() };
        for number in 0..count.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            lanes.handles.push(runtime.handle().clone());
            let ended = lanes.ended.clone();
            let thread = thread::Builder::new().name(format!("lane-{number}"));
            lanes.threads.push(thread.spawn(move || {
                LANE.set(number);
                runtime.block_on(ended.cancelled());
            })?);
        }
        Ok(lanes)
    }

    /// The runtimes, by the number of their lane.
    #[must_use]
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// What tells how long all of them together have been at work so far, by the clock: a lane that had to
    /// leave its processor to others counts as at work. What a lane does counts when it rests, and after some
    /// dozens of tasks.
    pub fn busy(&self) -> impl Fn() -> Duration + Send + Sync + use<> {
        let handles = self.handles.clone();
        move || handles.iter().map(|lane| lane.metrics().worker_total_busy_duration(0)).sum()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.ended.cancel();
        for thread in self.threads.drain(..) {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_number_and_a_thread_of_its_own() {
        let lanes = Lanes::start(NonZeroUsize::new(3)).unwrap();
        let (sender, numbers) = std::sync::mpsc::channel();
        for handle in lanes.handles() {
            let sender = sender.clone();
            handle.spawn(async move { sender.send((current(), thread::current().id())) });
        }
        let mut seen: Vec<_> = numbers.iter().take(3).collect();
        seen.sort_by_key(|(number, _)| *number);
        assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_ne!(seen[0].1, seen[1].1);
        assert_eq!(current(), 0, "whoever is no lane counts as the first one");
    }

    #[test]
    fn lanes_are_busy_while_they_work() {
        let work = Duration::from_millis(20);
        let lanes = Lanes::start(NonZeroUsize::new(2)).unwrap();
        let busy = lanes.busy();
        let (sender, ended) = std::sync::mpsc::channel();
        for lane in lanes.handles() {
            let sender = sender.clone();
            lane.spawn(async move {
                let began = std::time::Instant::now();
                while began.elapsed() < work {
                    std::hint::spin_loop();
                }
                // What a lane did counts when it rests.
                tokio::task::yield_now().await;
                sender.send(())
            });
        }
        assert_eq!(ended.iter().take(2).count(), 2);
        drop(lanes);
        assert!(busy() >= work * 2, "{:?}", busy());
    }
}
