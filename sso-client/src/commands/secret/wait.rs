//! Waits for a rotation: first until everybody has the generation, then until everything is sealed
//! again. What goes on does so without this program.

use std::{cmp::Ordering, time::Duration};

use indicatif::ProgressBar;
use prost_types::Timestamp;
use sso_client::{
    ClientError,
    secret::Secret,
    v1::{GenerationState, GetSecretStatusResponse, ResealStatus, SecretGeneration},
};
use sso_proto::Reason;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{failure::Failure, output::Output};

/// Between two looks.
const POLL: Duration = Duration::from_millis(250);
/// Between two lines where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
/// As a shell has it for an interrupted command.
const INTERRUPTED: u8 = 130;

/// Says now and then that it is time for a line.
#[derive(Debug, Default)]
pub(super) struct Now {
    last: Option<Instant>,
}

impl Now {
    pub(super) fn and_then(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= LINES);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// What is waited for.
pub(super) struct Wait {
    pub(super) generation: u32,
    /// Retire what drained.
    pub(super) retire: bool,
}

/// What came of it.
pub(super) struct Waited {
    pub(super) retired: Vec<u32>,
}

/// How far a rotation is.
#[derive(Debug, PartialEq)]
enum Step {
    /// The keystore has no such generation any more.
    Gone,
    /// Not everybody has it.
    Acknowledgements(Vec<String>),
    /// Nobody has counted since it became active.
    Counting,
    /// So many rows are sealed under older generations.
    Rows(u64),
    /// All rows that are left do not open.
    Damaged { rows: u64, names: Vec<String> },
    /// Nothing is sealed under these any more.
    Drained(Vec<u32>),
}

impl Wait {
    /// Waits to the end, at most for `patience`. Ctrl-C ends the waiting alone.
    pub(super) async fn run(
        &self,
        secret: &Secret,
        patience: Option<Duration>,
        output: &Output,
    ) -> Result<Waited, Failure> {
        let mut shown = Shown::new(output);
        let watched = async {
            match patience {
                None => self.follow(secret, &mut shown, output).await,
                Some(patience) => {
                    let until = Instant::now() + patience;
                    let following = self.follow(secret, &mut shown, output);
                    timeout_at(until, following).await.unwrap_or_else(|_| Err(impatient(patience)))
                }
            }
        };
        let ended = tokio::select! {
            ended = watched => ended,
            _ = tokio::signal::ctrl_c() => {
                output.note(
                    "the rotation goes on without this command; 'sso secret status' shows how far it is",
                );
                Err(Failure::Reported(INTERRUPTED))
            }
        };
        shown.bar.finish_and_clear();
        ended
    }

    async fn follow(
        &self,
        secret: &Secret,
        shown: &mut Shown,
        output: &Output,
    ) -> Result<Waited, Failure> {
        let mut retired = Vec::new();
        loop {
            let status = match secret.status().await {
                Ok(status) => status,
                Err(error) => {
                    shown.outage(error, output)?;
                    sleep(POLL).await;
                    continue;
                }
            };
            shown.outage = false;
            let step = step(&status, self.generation);
            shown.show(&step, status.reseal.as_ref(), output);
            match step {
                Step::Gone => {
                    return Err(Failure::refused(
                        format!("generation {} is not in the keystore any more", self.generation),
                        "'sso secret status' shows what there is",
                    ));
                }
                Step::Damaged { rows, names } => return Err(damaged(rows, &names)),
                Step::Drained(generations) if self.retire => {
                    if self.retire_all(secret, &generations, &mut retired).await? {
                        return Ok(Waited { retired });
                    }
                }
                Step::Drained(_) => return Ok(Waited { retired }),
                Step::Acknowledgements(_) | Step::Counting | Step::Rows(_) => {}
            }
            sleep(POLL).await;
        }
    }

    /// Whether all of them are retired. A server that was late may have written in between; then
    /// that is sealed again first.
    async fn retire_all(
        &self,
        secret: &Secret,
        generations: &[u32],
        retired: &mut Vec<u32>,
    ) -> Result<bool, Failure> {
        for &generation in generations {
            match secret.retire(generation).await {
                Ok(()) => retired.push(generation),
                Err(ClientError::Precondition(refusal))
                    if refusal.known() == Some(Reason::GenerationInUse) =>
                {
                    return Ok(false);
                }
                Err(ClientError::Unavailable(_) | ClientError::Unreachable { .. }) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

fn impatient(patience: Duration) -> Failure {
    Failure::Unavailable(format!(
        "not done after {patience:?}; the rotation goes on, and 'sso secret status' shows what it waits for"
    ))
}

fn damaged(rows: u64, names: &[String]) -> Failure {
    let named = if names.is_empty() { String::new() } else { format!(": {}", names.join("; ")) };
    Failure::refused(
        format!("{rows} values are left under older generations and do not open{named}"),
        "write them anew or restore the database; then the generation drains by itself",
    )
}

fn step(status: &GetSecretStatusResponse, generation: u32) -> Step {
    let own = status.generations.iter().find(|one| one.generation == generation);
    let Some(own) = own else { return Step::Gone };
    match own.state() {
        GenerationState::Prepared | GenerationState::Distributed => {
            return Step::Acknowledgements(status.waiting_for.clone());
        }
        GenerationState::Active
        | GenerationState::Draining
        | GenerationState::Retired
        | GenerationState::Destroyed => {}
        GenerationState::Unspecified => return Step::Gone,
    }
    let draining: Vec<_> =
        status.generations.iter().filter(|one| one.state() == GenerationState::Draining).collect();
    if draining.is_empty() {
        return Step::Drained(Vec::new());
    }
    let Some(rows) = counted(status, own, &draining) else { return Step::Counting };
    if rows == 0 {
        return Step::Drained(draining.iter().map(|one| one.generation).collect());
    }
    match &status.reseal {
        Some(reseal) if reseal.failed_rows >= rows => {
            Step::Damaged { rows, names: reseal.failed.clone() }
        }
        Some(_) | None => Step::Rows(rows),
    }
}

/// The rows of draining generations, if they were counted since the generation became active.
fn counted(
    status: &GetSecretStatusResponse,
    own: &SecretGeneration,
    draining: &[&SecretGeneration],
) -> Option<u64> {
    let counted_at = status.rows_counted_at.as_ref()?;
    if let Some(activated_at) = &own.activated_at
        && order(counted_at, activated_at) == Ordering::Less
    {
        return None;
    }
    draining.iter().map(|one| one.rows).sum()
}

fn order(one: &Timestamp, other: &Timestamp) -> Ordering {
    (one.seconds, one.nanos).cmp(&(other.seconds, other.nanos))
}

/// A bar on a terminal; lines now and then elsewhere.
struct Shown {
    bar: ProgressBar,
    lines: Now,
    outage: bool,
    most: u64,
}

impl Shown {
    fn new(output: &Output) -> Self {
        let bar = output.progress(usize::MAX, "");
        Self { bar, lines: Now::default(), outage: false, most: 0 }
    }

    fn show(&mut self, step: &Step, reseal: Option<&ResealStatus>, output: &Output) {
        let text = match step {
            Step::Gone | Step::Damaged { .. } | Step::Drained(_) => return,
            Step::Acknowledgements(names) if names.is_empty() => "handing out".to_owned(),
            Step::Acknowledgements(names) => format!("waits for {}", names.join("; ")),
            Step::Counting => "counting rows".to_owned(),
            Step::Rows(left) => in_words(*left, reseal),
        };
        if let Step::Rows(left) = step {
            self.most = self.most.max(*left);
            self.bar.set_length(self.most);
            self.bar.set_position(self.most.saturating_sub(*left));
        } else {
            self.bar.set_length(1);
            self.bar.set_position(0);
        }
        if !self.bar.is_hidden() {
            self.bar.set_message(crate::output::escape(&text));
        } else if self.lines.and_then() {
            output.note(&text);
        }
    }

    /// A master that is away for a while comes back; anything else ends the waiting.
    fn outage(&mut self, error: ClientError, output: &Output) -> Result<(), Failure> {
        let passing = matches!(error, ClientError::Unreachable { trust: false, .. })
            || matches!(error, ClientError::Unavailable(_));
        if !passing {
            return Err(error.into());
        }
        if !self.outage {
            output.warn(
                None,
                &format!("{error}; trying again, the rotation goes on when it is back"),
            );
        }
        self.outage = true;
        Ok(())
    }
}

/// Rows, rate and time left.
fn in_words(left: u64, reseal: Option<&ResealStatus>) -> String {
    let mut text = format!("{left} rows left");
    if let Some(reseal) = reseal {
        if reseal.rows_per_second > 0.0 {
            text.push_str(&format!(", {:.0} a second", reseal.rows_per_second));
        }
        if let Some(seconds) = seconds_left(reseal) {
            text.push_str(&format!(", {} to go", duration(seconds)));
        }
        if !reseal.waiting_for.is_empty() {
            text.push_str(&format!(", waits for {}", reseal.waiting_for));
        }
    }
    text
}

/// Until everything is sealed again, at the rate of the moment.
pub(super) fn seconds_left(reseal: &ResealStatus) -> Option<u64> {
    let rate = reseal.rows_per_second;
    if reseal.rows_left == 0 || !rate.is_finite() || rate <= 0.0 {
        return None;
    }
    // More than whoever waits is going to read is all the same.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = (reseal.rows_left as f64 / rate).ceil().min(3e9);
    Duration::try_from_secs_f64(seconds).ok().map(|duration| duration.as_secs())
}

/// `3 d 4 h`, `5 min 6 s`: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut words = Vec::new();
    for (length, unit) in units {
        if left >= length && words.len() < 2 {
            words.push(format!("{} {unit}", left / length));
        }
        left %= length;
    }
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn status(
        old: GenerationState,
        new: GenerationState,
        rows: Option<u64>,
    ) -> GetSecretStatusResponse {
        let one = |generation, state: GenerationState, rows| SecretGeneration {
            generation,
            state: state.into(),
            rows,
            activated_at: at(100),
            ..Default::default()
        };
        GetSecretStatusResponse {
            generations: vec![one(1, old, rows), one(2, new, Some(9))],
            waiting_for: vec!["sso-server-2: not there".into()],
            rows_counted_at: at(100),
            ..Default::default()
        }
    }

    #[test]
    fn the_steps_of_a_rotation() {
        use GenerationState as State;
        let waiting = status(State::Active, State::Distributed, None);
        let names = vec!["sso-server-2: not there".to_owned()];
        assert_eq!(step(&waiting, 2), Step::Acknowledgements(names));
        assert_eq!(step(&waiting, 3), Step::Gone);
        let draining = |rows| status(State::Draining, State::Active, rows);
        assert_eq!(step(&draining(None), 2), Step::Counting);
        assert_eq!(step(&draining(Some(7)), 2), Step::Rows(7));
        assert_eq!(step(&draining(Some(0)), 2), Step::Drained(vec![1]));
        assert_eq!(step(&status(State::Retired, State::Active, Some(3)), 2), Step::Drained(vec![]));
    }

    #[test]
    fn a_count_of_before_the_activation_does_not_count() {
        let mut early = status(GenerationState::Draining, GenerationState::Active, Some(0));
        early.rows_counted_at = at(99);
        assert_eq!(step(&early, 2), Step::Counting);
        early.rows_counted_at = None;
        assert_eq!(step(&early, 2), Step::Counting);
    }

    #[test]
    fn rows_that_do_not_open_end_the_waiting() {
        let mut broken = status(GenerationState::Draining, GenerationState::Active, Some(2));
        let names = vec!["App/Id revision 3".to_owned()];
        let reseal =
            |failed_rows| ResealStatus { failed_rows, failed: names.clone(), ..Default::default() };
        broken.reseal = Some(reseal(1));
        assert_eq!(step(&broken, 2), Step::Rows(2), "the other one is sealed again");
        broken.reseal = Some(reseal(2));
        assert_eq!(step(&broken, 2), Step::Damaged { rows: 2, names });
    }

    #[test]
    fn times_and_rates_in_words() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (3600, "1 h"), (3725, "1 h 2 min"), (90_061, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
        let reseal = |rows_left, rows_per_second| ResealStatus {
            rows_left,
            rows_per_second,
            ..Default::default()
        };
        assert_eq!(seconds_left(&reseal(100, 30.0)), Some(4));
        for (rows, rate) in [(0, 1.0), (9, 0.0), (9, f64::NAN), (9, -1.0)] {
            assert_eq!(seconds_left(&reseal(rows, rate)), None);
        }
        assert!(seconds_left(&reseal(u64::MAX, f64::MIN_POSITIVE)).is_some());
        let text = in_words(1200, Some(&reseal(1200, 100.0)));
        assert_eq!(text, "1200 rows left, 100 a second, 12 s to go");
    }
}
