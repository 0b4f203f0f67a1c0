//! A measured round, and what several rounds say together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    accounting::{Group, MOST_FOREIGN_CORES, Spent, load_average, resident_kib},
    drive::{Outcome, Plan, run},
};

/// A round that others disturbed is repeated at most so often.
const REPEATED: u32 = 3;

/// The names of the groups of processes.
pub const SERVER: &str = "server";
/// The database server, where there is one.
pub const DATABASE: &str = "database";
/// The load generator itself.
pub const GENERATOR: &str = "generator";

/// What one round measured. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Answers per second.
    pub per_second: f64,
    /// Median latency.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The slowest answer.
    pub max: f64,
    /// Processor time of the server for an answer.
    pub server_cpu: f64,
    /// Of the database for an answer.
    pub database_cpu: f64,
    /// Of the load generator for an answer.
    pub generator_cpu: f64,
    /// Refusals per second.
    pub refused_per_second: f64,
    /// 99th percentile of their latency.
    pub refused_p99: f64,
    /// KiB of the server after the round.
    pub resident_kib: u64,
    /// Processors that were busy with what does not belong to the measurement.
    pub foreign_cores: f64,
    /// Of the last minute.
    pub load_average: f64,
    /// How often the round was thrown away before because of foreign work.
    pub thrown_away: u32,
}

impl Round {
    /// The round of an outcome.
    #[must_use]
    pub fn of(outcome: &Outcome, server: u32) -> Self {
        let quantile =
            |at: f64| micros(Duration::from_nanos(outcome.answered.value_at_quantile(at)));
        let refused = outcome.refused.value_at_quantile(0.99);
        Self {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: micros(Duration::from_nanos(outcome.answered.max())),
            refused_per_second: outcome.refused.len() as f64 / seconds(outcome.took),
            refused_p99: micros(Duration::from_nanos(refused)),
            ..Self::costs(outcome.answered.len() as f64, outcome.took, &outcome.spent, server)
        }
    }

    /// The round in which so many were answered, without latencies.
    #[must_use]
    pub fn costs(answers: f64, took: Duration, spent: &Spent, server: u32) -> Self {
        let cpu = |name: &str| {
            let spent = spent.groups.get(name).copied().unwrap_or_default();
            micros(spent) / answers.max(1.0)
        };
        Self {
            per_second: answers / seconds(took),
            server_cpu: cpu(SERVER),
            database_cpu: cpu(DATABASE),
            generator_cpu: cpu(GENERATOR),
            resident_kib: resident_kib(server),
            foreign_cores: spent.foreign_cores,
            load_average: load_average(),
            ..Self::default()
        }
    }
}

/// Runs a round, again where others took more than [`MOST_FOREIGN_CORES`] meanwhile, a few times at most:
/// then the last one counts and says so.
///
/// # Errors
/// As [`run`].
pub fn measure(mut plan: impl FnMut() -> Plan, groups: &[Group]) -> Result<Round, String> {
    let server = groups.iter().find(|group| group.name == SERVER);
    let server = server.and_then(|group| group.processes.first().copied()).unwrap_or_default();
    undisturbed(|| Ok(Round::of(&run(plan(), groups)?, server)))
}

/// The round, again where others took more than [`MOST_FOREIGN_CORES`] meanwhile.
pub(super) fn undisturbed(
    mut round: impl FnMut() -> Result<Round, String>,
) -> Result<Round, String> {
    let mut thrown_away = 0;
    loop {
        let done = Round { thrown_away, ..round()? };
        if done.foreign_cores <= MOST_FOREIGN_CORES || thrown_away == REPEATED {
            return Ok(done);
        }
        thrown_away += 1;
    }
}

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Middle {
    /// The median; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Middle {
    /// Of these values; zero of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let (half, last) = (sorted.len() / 2, sorted.len().saturating_sub(1));
        let median = match sorted.len() % 2 {
            1 => at(half),
            _ => f64::midpoint(at(half.saturating_sub(1)), at(half)),
        };
        Self { median, min: at(0), max: at(last) }
    }

    /// Of one figure of rounds.
    #[must_use]
    pub fn over(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        Self::of(rounds.iter().map(figure))
    }

    /// Of the quotients of rounds that were run one after the other.
    #[must_use]
    pub fn ratio(of: &[Round], to: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        let pairs = of.iter().zip(to).filter(|(_, to)| figure(to) > 0.0);
        Self::of(pairs.map(|(of, to)| figure(of) / figure(to)))
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::drive::latencies;

    #[test]
    fn quantiles_and_costs_of_a_round() {
        let mut answered = latencies();
        for micros in 1..=1000_u64 {
            answered.record(micros * 1000).unwrap();
        }
        let mut refused = latencies();
        refused.record_n(2_000_000, 500).unwrap();
        let groups = [(SERVER, 20), (DATABASE, 10), (GENERATOR, 30)];
        let outcome = Outcome {
            answered,
            refused,
            took: Duration::from_millis(500),
            spent: Spent {
                groups: groups
                    .map(|(name, ms)| (name.to_owned(), Duration::from_millis(ms)))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
                foreign_cores: 0.1,
            },
        };
        let round = Round::of(&outcome, std::process::id());
        let near = |is: f64, wanted: f64| (is - wanted).abs() <= wanted / 500.0;
        assert!(near(round.per_second, 2000.0), "{round:?}");
        assert!(near(round.p50, 500.0) && near(round.p99, 990.0), "{round:?}");
        assert!(near(round.p999, 999.0) && near(round.max, 1000.0), "{round:?}");
        assert!(near(round.server_cpu, 20.0) && near(round.database_cpu, 10.0), "{round:?}");
        assert!(near(round.generator_cpu, 30.0), "{round:?}");
        assert!(near(round.refused_per_second, 1000.0), "{round:?}");
        assert!(near(round.refused_p99, 2000.0) && round.resident_kib > 0, "{round:?}");
    }

    #[test]
    fn medians_and_ratios_of_rounds() {
        let rates = |rates: &[f64]| -> Vec<Round> {
            let round = |&per_second: &f64| Round { per_second, ..Round::default() };
            rates.iter().map(round).collect()
        };
        let (ours, limit) = (rates(&[90.0, 60.0, 40.0]), rates(&[100.0, 50.0, 80.0]));
        let rate = |round: &Round| round.per_second;
        assert_eq!(Middle::over(&ours, rate), Middle { median: 60.0, min: 40.0, max: 90.0 });
        // Each round with the one beside it, not the medians of each.
        assert_eq!(Middle::ratio(&ours, &limit, rate), Middle { median: 0.9, min: 0.5, max: 1.2 });
        assert!((Middle::of([1.0, 4.0, 2.0, 3.0]).median - 2.5).abs() < f64::EPSILON);
        assert_eq!(Middle::of([]), Middle::default());
        assert_eq!(Middle::ratio(&ours, &rates(&[0.0, 0.0, 0.0]), rate), Middle::default());
    }

    #[test]
    fn a_disturbed_round_is_repeated_and_not_for_ever() {
        let rounds = |foreign: &[f64]| {
            let mut foreign = foreign.iter().copied().enumerate();
            undisturbed(move || {
                let (number, foreign_cores) = foreign.next().ok_or("no more rounds")?;
                Ok(Round { per_second: number as f64, foreign_cores, ..Round::default() })
            })
        };
        let quiet = rounds(&[0.1]).unwrap();
        assert_eq!((quiet.per_second, quiet.thrown_away), (0.0, 0));
        let third = rounds(&[0.5, 1.9, 0.3]).unwrap();
        assert_eq!((third.per_second, third.thrown_away), (2.0, 2));
        let never = rounds(&[0.4, 0.4, 0.4, 0.4, 0.4]).unwrap();
        assert_eq!((never.per_second, never.thrown_away), (3.0, REPEATED));
        assert!(rounds(&[0.4]).is_err(), "an error is no round");
    }
}
