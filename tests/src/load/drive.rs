//! Drives a server: threads with a runtime each, connections, and requests in flight on them, either one
//! after the other (closed loop) or at a fixed rate (open loop).

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use sso_core::connector::{ClientTls, ConnectOptions, connect_channel};
use tokio::task::LocalSet;
use tonic::{Code, Status, codegen::http::uri::PathAndQuery, transport::Channel};

use super::{
    accounting::{Group, Snapshot, Spent},
    call::{Payload, Random, call},
    schedule::{Schedule, counted_from},
};

/// Before a round, calls are made for so long.
const WARM_UP: Duration = Duration::from_millis(500);
/// All connections have to be there within this.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);

/// No two workers of a process ask for the same keys in the same order, in whichever round.
static SEEDS: AtomicU64 = AtomicU64::new(1);

/// A call, and how many of a hundred it is.
#[derive(Clone, Debug)]
pub struct Job {
    /// The path of the method.
    pub path: PathAndQuery,
    /// What is sent.
    pub payload: Payload,
    /// Weight beside the other jobs of the same part.
    pub share: u64,
}

/// Callers of one kind.
#[derive(Clone, Debug)]
pub struct Part {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The certificates of the callers: connections take them in turn.
    pub callers: Vec<ClientTls>,
    /// How many connections.
    pub connections: usize,
    /// How many requests in flight over all connections of the part.
    pub in_flight: usize,
    /// What they ask.
    pub jobs: Vec<Job>,
}

/// What a round does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Threads of the generator.
    pub threads: usize,
    /// How long.
    pub duration: Duration,
    /// Requests per second in all; `None` = closed loop.
    pub rate: Option<f64>,
    /// Refusals (`RESOURCE_EXHAUSTED`) are what is asked for, and counted.
    pub refusals: bool,
    /// Who asks what.
    pub parts: Vec<Part>,
}

impl Plan {
    /// A closed loop, which a refusal ends.
    #[must_use]
    pub fn new(threads: usize, duration: Duration, parts: Vec<Part>) -> Self {
        Self { threads, duration, rate: None, refusals: false, parts }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Nanoseconds of every answer, from when the request was due.
    pub answered: Histogram<u64>,
    /// Nanoseconds of every refusal, from when the request was sent.
    pub refused: Histogram<u64>,
    /// How long the round was.
    pub took: Duration,
    /// What it cost.
    pub spent: Spent,
}

/// An empty histogram of nanoseconds, up to ten minutes; what is longer counts as ten minutes.
///
/// # Panics
/// Never: the bounds are good.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 600_000_000_000, 3).expect("good bounds")
}

/// What a thread has counted.
struct Counted {
    answered: Histogram<u64>,
    refused: Histogram<u64>,
}

impl Counted {
    fn new() -> Self {
        Self { answered: latencies(), refused: latencies() }
    }
}

/// What the threads share.
struct Round {
    plan: Plan,
    gate: Barrier,
    over: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Round {
    fn fail(&self, what: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Runs one round.
///
/// # Errors
/// The first error that a request ended with: it would look like speed.
///
/// # Panics
/// When the system gives no thread, or a thread panicked.
pub fn run(plan: Plan, groups: &[Group]) -> Result<Outcome, String> {
    let (duration, threads) = (plan.duration, plan.threads.max(1));
    let round = Arc::new(Round {
        plan,
        gate: Barrier::new(threads + 1),
        over: AtomicBool::new(false),
        failure: Mutex::new(None),
    });
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let round = Arc::clone(&round);
            let thread = thread::Builder::new().name(format!("load-{number}"));
            thread.spawn(move || of_thread(&round, number, threads)).expect("a thread")
        })
        .collect();
    // Everybody is connected and warm.
    round.gate.wait();
    let before = Snapshot::take(groups);
    let start = Instant::now();
    round.gate.wait();
    while start.elapsed() < duration && !round.over.load(Ordering::Relaxed) {
        let left = duration.saturating_sub(start.elapsed());
        thread::sleep(left.min(Duration::from_millis(10)));
    }
    round.over.store(true, Ordering::Relaxed);
    let took = start.elapsed();
    let spent = before.until(&Snapshot::take(groups), took);
    let mut all = Counted::new();
    for thread in running {
        let counted = thread.join().expect("a thread that ended");
        all.answered.add(counted.answered).expect("the same shape");
        all.refused.add(counted.refused).expect("the same shape");
    }
    let failure = round.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failure {
        Some(failure) => Err(failure),
        None => Ok(Outcome { answered: all.answered, refused: all.refused, took, spent }),
    }
}

fn of_thread(round: &Arc<Round>, number: usize, threads: usize) -> Counted {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let workers = workers(round, number, threads);
        if let Err(failure) = warm_up(round, &workers).await {
            round.fail(failure);
        }
        round.gate.wait();
        round.gate.wait();
        let start = Instant::now();
        let rate = round.plan.rate.map(|rate| rate / threads as f64);
        let schedule = rate.map(|rate| Rc::new(Schedule::new(start, rate)));
        let counted = Rc::new(RefCell::new(Counted::new()));
        let running: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (counted, round) = (Rc::clone(&counted), Arc::clone(round));
                let schedule = schedule.clone();
                tokio::task::spawn_local(async move {
                    worker.work(&round, schedule.as_deref(), &counted).await;
                })
            })
            .collect();
        for worker in running {
            worker.await.expect("a worker that ended");
        }
        counted.replace(Counted::new())
    })
}

/// Keeps one request in flight.
struct Worker {
    channel: Channel,
    part: usize,
    random: Random,
    /// Of its connection.
    first: bool,
}

/// The workers of a thread: it has every `threads`-th connection, and what is in flight is spread evenly
/// over the connections.
fn workers(round: &Round, number: usize, threads: usize) -> Vec<Worker> {
    let mut workers = Vec::new();
    for (part, of) in round.plan.parts.iter().enumerate() {
        let connections = of.connections.clamp(1, of.in_flight.max(1));
        for connection in (number..connections).step_by(threads) {
            let caller = of.callers.get(connection % of.callers.len().max(1));
            let tls = caller.expect("certificates of a caller").clone();
            let channel =
                connect_channel(&of.url, tls, ConnectOptions::default()).expect("an address");
            for seat in (connection..of.in_flight).step_by(connections) {
                let random = Random::new(SEEDS.fetch_add(1, Ordering::Relaxed));
                let first = seat == connection;
                workers.push(Worker { channel: channel.clone(), part, random, first });
            }
        }
    }
    workers
}

/// Connects, and runs every kind of call for a while. What may be sent only once is kept for the round,
/// but for one of each connection.
async fn warm_up(round: &Round, workers: &[Worker]) -> Result<(), String> {
    let end = Instant::now() + WARM_UP;
    for worker in workers.iter().filter(|worker| worker.first) {
        if round.over.load(Ordering::Relaxed) {
            break;
        }
        let Some(part) = round.plan.parts.get(worker.part) else { continue };
        for job in &part.jobs {
            let Some(message) = job.payload.next(&worker.random) else { continue };
            tolerated(round, call(&worker.channel, &job.path, message).await)?;
        }
        if Instant::now() > end + CONNECTED_WITHIN {
            return Err("the first calls take too long".to_owned());
        }
    }
    while Instant::now() < end && !workers.is_empty() {
        for worker in workers {
            let Some(part) = round.plan.parts.get(worker.part) else { continue };
            let job = part.jobs.iter().find(|job| !matches!(job.payload, Payload::Once(_)));
            let message = job.and_then(|job| Some((job, job.payload.next(&worker.random)?)));
            let Some((job, message)) = message else { return Ok(()) };
            tolerated(round, call(&worker.channel, &job.path, message).await)?;
            if Instant::now() >= end {
                break;
            }
        }
    }
    Ok(())
}

fn tolerated(round: &Round, answer: Result<usize, Status>) -> Result<(), String> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) if round.plan.refusals && status.code() == Code::ResourceExhausted => Ok(()),
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
    }
}

impl Worker {
    async fn work(&self, round: &Round, schedule: Option<&Schedule>, counted: &RefCell<Counted>) {
        let Some(part) = round.plan.parts.get(self.part) else { return };
        let shares = part.jobs.iter().map(|job| job.share).sum();
        while !round.over.load(Ordering::Relaxed) {
            let (sent, counts_from) = match schedule {
                None => {
                    let now = Instant::now();
                    (now, now)
                }
                Some(schedule) => {
                    let due = schedule.take();
                    let free = Instant::now() < due;
                    if free {
                        tokio::time::sleep_until(due.into()).await;
                    }
                    let sent = Instant::now();
                    (sent, counted_from(due, sent, free))
                }
            };
            if round.over.load(Ordering::Relaxed) {
                return;
            }
            let Some(job) = chosen(&part.jobs, self.random.below(shares)) else { return };
            let Some(message) = job.payload.next(&self.random) else {
                // Nothing left: the round ends before its time.
                round.over.store(true, Ordering::Relaxed);
                return;
            };
            let answer = call(&self.channel, &job.path, message).await;
            // What is answered after the end is not of this round.
            if round.over.load(Ordering::Relaxed) {
                return;
            }
            let mut counted = counted.borrow_mut();
            match answer {
                Ok(_) => counted.answered.saturating_record(nanos(counts_from.elapsed())),
                Err(status) => {
                    if let Err(failure) = tolerated(round, Err(status)) {
                        round.fail(failure);
                        return;
                    }
                    counted.refused.saturating_record(nanos(sent.elapsed()));
                }
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn chosen(jobs: &[Job], mut ticket: u64) -> Option<&Job> {
    jobs.iter().find(|job| {
        let found = ticket < job.share;
        ticket = ticket.saturating_sub(job.share);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_three_digits_over_the_whole_range() {
        let mut histogram = latencies();
        for nanos in [50_u64, 40_000, 40_000, 3_000_000_000, u64::MAX] {
            histogram.saturating_record(nanos);
        }
        let near =
            |at: f64, wanted: u64| histogram.value_at_quantile(at).abs_diff(wanted) <= wanted / 500;
        assert!(near(0.5, 40_000) && near(0.8, 3_000_000_000) && near(1.0, 600_000_000_000));
        assert_eq!(histogram.len(), 5);
    }

    #[test]
    fn jobs_are_chosen_by_their_shares() {
        let job = |share| Job {
            path: PathAndQuery::from_static("/x"),
            payload: Payload::Same("x".into()),
            share,
        };
        let jobs = [job(70), job(0), job(30)];
        let mut counts = [0; 3];
        for ticket in 0..100 {
            let found = chosen(&jobs, ticket).unwrap();
            let at = jobs.iter().position(|job| std::ptr::eq(job, found)).unwrap();
            counts[at] += 1;
        }
        assert_eq!(counts, [70, 0, 30]);
        assert!(chosen(&jobs, 100).is_none());
    }
}
