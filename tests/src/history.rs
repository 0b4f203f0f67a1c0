//! What callers saw: every operation with its begin, its end and what came of it, and whether all of it
//! together can be true.
//!
//! Each object has one writer, which writes 1, 2, 3 …; so a value says which write it is of.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sso_client::ClientError;
use sso_proto::Reason;

/// What somebody wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To write this number.
    Write {
        /// Which object.
        object: String,
        /// Larger than every number written to it before.
        number: u64,
    },
    /// To read.
    Read {
        /// Which object.
        object: String,
        /// How much older than what was acknowledged the answer may be: a server remembers.
        behind: Duration,
    },
    /// To redeem a ticket that is good for one time.
    Redeem {
        /// Which ticket.
        ticket: String,
    },
    /// Something whose answer says nothing about objects: a ticket to be issued, a status.
    Other {
        /// What.
        what: &'static str,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; of a read, the number that was read.
    Done(Option<u64>),
    /// Refused, by the name of the reason.
    Refused(String),
    /// No answer came.
    Unreachable(String),
}

impl Outcome {
    /// Of a call that gives nothing, or the number that was read.
    #[must_use]
    pub fn of(answer: Result<Option<u64>, ClientError>) -> Self {
        match answer {
            Ok(number) => Self::Done(number),
            Err(error) => match error.refusal() {
                Some(refusal) => Self::Refused(refusal.reason.clone()),
                None => Self::Unreachable(error.to_string()),
            },
        }
    }

    /// Whether it certainly changed nothing. A database that goes away while it commits leaves that
    /// open.
    fn changed_nothing(&self) -> bool {
        match self {
            Self::Done(_) | Self::Unreachable(_) => false,
            Self::Refused(reason) => matches!(
                Reason::parse(reason),
                Some(
                    Reason::MasterUnreachable
                        | Reason::MasterSecretExpired
                        | Reason::MasterSecretMissing
                        | Reason::GenerationClosed
                        | Reason::ServerStopping
                )
            ),
        }
    }
}

/// One operation, with times since the beginning of the history.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub worker: String,
    /// What.
    pub operation: Operation,
    /// When it was sent.
    pub began: Duration,
    /// When the answer was there.
    pub ended: Duration,
    /// The answer.
    pub outcome: Outcome,
}

/// A time during which something was broken, and what.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What was done.
    pub what: String,
    /// When.
    pub began: Duration,
    /// When it was undone; `None` = not yet.
    pub ended: Option<Duration>,
}

/// Everything that happened.
#[derive(Debug)]
pub struct History {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
    faults: Mutex<Vec<Fault>>,
}

/// How much of what there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All of them.
    pub operations: usize,
    /// Those that were done.
    pub done: usize,
    /// Those with a reason.
    pub refused: usize,
    /// Those without an answer.
    pub unreachable: usize,
    /// Faults.
    pub faults: usize,
    /// The longest time from the end of a fault to the next success of some worker.
    pub slowest_recovery: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations: {} done, {} refused, {} without an answer; {} faults, slowest recovery {:?}",
            self.operations,
            self.done,
            self.refused,
            self.unreachable,
            self.faults,
            self.slowest_recovery
        )
    }
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), entries: Mutex::default(), faults: Mutex::default() }
    }
}

impl History {
    /// The time now, as entries have it.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes an operation that has just ended.
    pub fn record(&self, worker: &str, operation: Operation, began: Duration, outcome: Outcome) {
        let ended = self.now();
        let entry = Entry { worker: worker.to_owned(), operation, began, ended, outcome };
        self.entries().push(entry);
    }

    /// Notes that something is broken from now on.
    pub fn fault_begins(&self, what: &str) {
        let fault = Fault { what: what.to_owned(), began: self.now(), ended: None };
        self.faults().push(fault);
    }

    /// Notes that nothing is broken any more.
    pub fn faults_end(&self) {
        let now = self.now();
        for fault in self.faults().iter_mut().filter(|fault| fault.ended.is_none()) {
            fault.ended = Some(now);
        }
    }

    /// Whether a worker has succeeded in something that it began at `since` or later.
    #[must_use]
    pub fn has_succeeded(&self, worker: &str, since: Duration) -> bool {
        self.entries().iter().rev().take_while(|entry| entry.ended >= since).any(|entry| {
            entry.worker == worker
                && entry.began >= since
                && matches!(entry.outcome, Outcome::Done(_))
        })
    }

    /// With which reasons writes were refused that began at `since` or later.
    #[must_use]
    pub fn refused_writes(&self, since: Duration) -> BTreeMap<String, usize> {
        let mut reasons = BTreeMap::new();
        for entry in self.entries().iter().filter(|entry| entry.began >= since) {
            if let (Operation::Write { .. }, Outcome::Refused(reason)) =
                (&entry.operation, &entry.outcome)
            {
                *reasons.entry(reason.clone()).or_default() += 1;
            }
        }
        reasons
    }

    /// The last thing that a worker did.
    #[must_use]
    pub fn last_of(&self, worker: &str) -> Option<Entry> {
        self.entries().iter().rev().find(|entry| entry.worker == worker).cloned()
    }

    /// Everything that cannot be true, in words; empty when all is well. Within `grace` after the end
    /// of a fault errors are allowed still, and after it none is.
    #[must_use]
    pub fn faulty(&self, grace: Duration) -> Vec<String> {
        let (entries, faults) = (self.entries(), self.faults());
        let mut found = Vec::new();
        let mut objects: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        let mut redeemed: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in entries.iter() {
            found.extend(bad_error(entry, &faults, grace));
            match &entry.operation {
                Operation::Write { object, .. } | Operation::Read { object, .. } => {
                    objects.entry(object).or_default().push(entry);
                }
                Operation::Redeem { ticket } => {
                    let times = redeemed.entry(ticket).or_default();
                    *times += usize::from(matches!(entry.outcome, Outcome::Done(_)));
                }
                Operation::Other { .. } => {}
            }
        }
        for (ticket, times) in redeemed.into_iter().filter(|(_, times)| *times > 1) {
            found.push(format!("ticket {ticket} was redeemed {times} times"));
        }
        for (object, entries) in objects {
            found.extend(bad_values(object, &entries));
        }
        found
    }

    /// How much of what there was.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (entries, faults) = (self.entries(), self.faults());
        let count = |which: fn(&Outcome) -> bool| {
            entries.iter().filter(|entry| which(&entry.outcome)).count()
        };
        let recovered = |fault: &Fault| {
            let ended = fault.ended?;
            let later = entries.iter().filter(|it| it.began >= ended);
            let first =
                later.filter(|it| matches!(it.outcome, Outcome::Done(_))).map(|it| it.ended);
            Some(first.min()?.saturating_sub(ended))
        };
        Figures {
            operations: entries.len(),
            done: count(|outcome| matches!(outcome, Outcome::Done(_))),
            refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
            unreachable: count(|outcome| matches!(outcome, Outcome::Unreachable(_))),
            faults: faults.len(),
            slowest_recovery: faults.iter().filter_map(recovered).max().unwrap_or_default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that nothing explains.
fn bad_error(entry: &Entry, faults: &[Fault], grace: Duration) -> Option<String> {
    let Entry { worker, operation, began, ended, outcome } = entry;
    let what = match outcome {
        Outcome::Done(_) => return None,
        Outcome::Refused(reason) if Reason::parse(reason) == Some(Reason::TicketRedeemed) => {
            return None;
        }
        Outcome::Refused(reason) => match Reason::parse(reason) {
            Some(Reason::Internal) | None => {
                return Some(format!("{worker}: {operation:?} at {began:?}: reason {reason}"));
            }
            Some(_) => reason,
        },
        Outcome::Unreachable(why) => why,
    };
    let explained = faults.iter().any(|fault| {
        let over = fault.ended.map_or(Duration::MAX, |at| at.saturating_add(grace));
        *ended >= fault.began && *began <= over
    });
    let word = "while nothing was broken";
    (!explained).then(|| format!("{worker}: {operation:?} at {began:?}: {what}, {word}"))
}

/// Reads that gave what was never written, or less than what was acknowledged before.
fn bad_values(object: &str, entries: &[&Entry]) -> Vec<String> {
    let writes: Vec<(u64, &Entry)> = entries
        .iter()
        .filter_map(|&entry| match entry.operation {
            Operation::Write { number, .. } => Some((number, entry)),
            Operation::Read { .. } | Operation::Redeem { .. } | Operation::Other { .. } => None,
        })
        .collect();
    let mut found = Vec::new();
    for read in entries {
        let (Operation::Read { behind, .. }, Outcome::Done(number)) =
            (&read.operation, &read.outcome)
        else {
            continue;
        };
        let number = number.unwrap_or_default();
        let acknowledged = writes
            .iter()
            .filter(|(_, it)| it.ended.saturating_add(*behind) <= read.began)
            .filter(|(_, it)| matches!(it.outcome, Outcome::Done(_)))
            .map(|(number, _)| *number)
            .max();
        if let Some(acknowledged) = acknowledged.filter(|it| number < *it) {
            found.push(format!(
                "{object}: {} read {number} at {:?}, and {acknowledged} was acknowledged before",
                read.worker, read.began
            ));
        }
        let written = writes.iter().find(|(written, _)| *written == number);
        match written {
            Some((_, write)) if write.began > read.ended => {
                found.push(format!("{object}: {number} was read before it was written"));
            }
            Some((_, write)) if write.outcome.changed_nothing() => found.push(format!(
                "{object}: {number} was read, and its write refused: {:?}",
                write.outcome
            )),
            Some(_) => {}
            None if number == 0 => {}
            None => found.push(format!("{object}: {number} was read and never written")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(1);

    fn write(history: &History, number: u64, outcome: Outcome) {
        let operation = Operation::Write { object: "one".into(), number };
        history.record("writer", operation, history.now(), outcome);
    }

    fn read(history: &History, number: u64) {
        read_behind(history, number, Duration::ZERO);
    }

    fn read_behind(history: &History, number: u64, behind: Duration) {
        let operation = Operation::Read { object: "one".into(), behind };
        history.record("reader", operation, history.now(), Outcome::Done(Some(number)));
    }

    fn refused(reason: Reason) -> Outcome {
        Outcome::Refused(reason.as_str().to_owned())
    }

    #[test]
    fn what_can_be_true_is() {
        let history = History::default();
        read(&history, 0);
        write(&history, 1, Outcome::Done(None));
        read(&history, 1);
        history.fault_begins("something");
        write(&history, 2, Outcome::Unreachable("gone".into()));
        // It may have been made, or not.
        read(&history, 1);
        read(&history, 2);
        write(&history, 3, refused(Reason::MasterUnreachable));
        read(&history, 2);
        history.faults_end();
        write(&history, 4, Outcome::Done(None));
        assert_eq!(history.faulty(GRACE), [""; 0]);
        let figures = history.figures();
        assert_eq!((figures.operations, figures.done, figures.refused), (9, 7, 1));
        assert!(history.has_succeeded("reader", Duration::ZERO));
        assert!(!history.has_succeeded("reader", history.now()));
    }

    #[test]
    fn what_cannot_be_true_is_named() {
        let lost = History::default();
        write(&lost, 1, Outcome::Done(None));
        write(&lost, 2, Outcome::Done(None));
        read(&lost, 1);
        assert!(lost.faulty(GRACE)[0].contains("2 was acknowledged before"));
        let remembered = History::default();
        write(&remembered, 1, Outcome::Done(None));
        write(&remembered, 2, Outcome::Done(None));
        read_behind(&remembered, 1, Duration::from_secs(60));
        assert_eq!(remembered.faulty(GRACE), [""; 0]);
        read_behind(&remembered, 1, Duration::ZERO);
        assert!(remembered.faulty(GRACE)[0].contains("2 was acknowledged before"));

        let invented = History::default();
        read(&invented, 7);
        assert!(invented.faulty(GRACE)[0].contains("never written"));

        let refused_and_made = History::default();
        refused_and_made.fault_begins("something");
        write(&refused_and_made, 1, refused(Reason::GenerationClosed));
        read(&refused_and_made, 1);
        assert!(refused_and_made.faulty(GRACE)[0].contains("its write refused"));

        let twice = History::default();
        for _ in 0..2 {
            let ticket = Operation::Redeem { ticket: "t".into() };
            twice.record("redeemer", ticket, twice.now(), Outcome::Done(None));
        }
        assert_eq!(twice.faulty(GRACE), ["ticket t was redeemed 2 times"]);
    }

    #[test]
    fn errors_need_a_reason_and_a_fault() {
        let history = History::default();
        write(&history, 1, refused(Reason::MasterUnreachable));
        assert!(history.faulty(GRACE)[0].contains("while nothing was broken"));

        let history = History::default();
        history.fault_begins("something");
        write(&history, 1, Outcome::Refused("NO_SUCH_REASON".into()));
        assert!(history.faulty(GRACE)[0].contains("NO_SUCH_REASON"));
        write(&history, 2, refused(Reason::Internal));
        assert_eq!(history.faulty(GRACE).len(), 2);
    }
}
