//! A load generator: closed loop, several connections, latencies in a histogram, and the processor
//! time of the server from the operating system's accounting.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::param::clock_ticks_per_second;

/// What one round measured.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Answers per second.
    pub per_second: f64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
    /// Processor time of the server per answer.
    pub server_cpu: Duration,
}

/// Keeps `tasks` requests in flight for `duration`, each task with its own `request` made by `task`,
/// and asks `cpu` for the server's processor time before and after.
///
/// # Panics
/// When a request fails: a measured error would look like speed.
pub async fn closed_loop<F, R, E>(
    tasks: usize,
    duration: Duration,
    cpu: impl Fn() -> Duration,
    task: impl Fn(usize) -> F,
) -> Round
where
    F: FnMut() -> R + Send + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Debug + Send,
{
    let stop = Arc::new(AtomicBool::new(false));
    let before = cpu();
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|index| {
            let (stop, mut request) = (Arc::clone(&stop), task(index));
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).expect("a histogram");
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    request().await.expect("an answer");
                    let nanos = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    latencies.record(nanos).expect("a latency within range");
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Histogram::<u64>::new(3).expect("a histogram");
    for task in running {
        latencies.add(task.await.expect("a task that ended")).expect("the same shape");
    }
    let (took, spent) = (start.elapsed(), cpu().saturating_sub(before));
    let answers = u32::try_from(latencies.len()).unwrap_or(u32::MAX).max(1);
    Round {
        per_second: f64::from(answers) / took.as_secs_f64(),
        p50: Duration::from_nanos(latencies.value_at_quantile(0.50)),
        p99: Duration::from_nanos(latencies.value_at_quantile(0.99)),
        server_cpu: spent / answers,
    }
}

/// The processor time, user and system, that a process has spent so far.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    // The name may hold spaces; what follows its parenthesis does not.
    let (_, fields) = stat.rsplit_once(')').expect("the name in parentheses");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number of ticks"))
        .sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}
