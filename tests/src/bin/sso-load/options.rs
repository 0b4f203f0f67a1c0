//! What can be asked of the program.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sso_tests::load::{stand::Kind, workload::Workload};

/// Measures the store beside a bare echo.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs workloads, each interleaved with the echo of the same sizes.
    Run(RunOptions),
    /// Reads and writes secrets, in turn with the echo and with etcd, Redis and PostgreSQL, as far as they are
    /// installed.
    Peers(PeersOptions),
    /// How long the server takes from its start until it is ready.
    Start(StartOptions),
    /// How long it takes from a write until the last of many watchers was told.
    Watch(WatchOptions),
    /// Resident memory of the server: idle, of rows, connections and watchers.
    Memory(MemoryOptions),
    /// Offers more than the server can do.
    Overload(OverloadOptions),
    /// Rotates the master secret, beside bare batches of `UPDATE` of a copy of the same rows.
    Rotation(RotationOptions),
    /// Counts instructions and allocations of the server for a request, with callgrind.
    Instructions(InstructionsOptions),
    /// Serves the bare echo; `run` starts it by itself.
    #[command(hide = true)]
    Echo {
        /// Certificate of the server.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The authority of the callers.
        ca: PathBuf,
    },
    /// Says what became better and worse from one report to another.
    Compare {
        /// The report of the earlier run.
        before: PathBuf,
        /// The report of the later run.
        after: PathBuf,
    },
    /// Shows reports.
    Table {
        /// Reports.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// As a table of a document.
        #[arg(long)]
        markdown: bool,
    },
}

/// Where the data go.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DatabaseName {
    Sqlite,
    Postgresql,
}

impl DatabaseName {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Sqlite => Kind::Sqlite,
            Self::Postgresql => Kind::Postgresql,
        }
    }
}

/// How reports are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Markdown,
    Json,
}

/// What system is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct StandOptions {
    /// Where the data go; several: one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sqlite")]
    pub(crate) database: Vec<DatabaseName>,
    /// Folder of sso-master, sso-server and sso; default: that of this program.
    #[arg(long)]
    pub(crate) programs: Option<PathBuf>,
    /// How many configurations, and how many mappings, there are; several: one after the other.
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    pub(crate) mappings: Vec<u64>,
    /// Bytes of a secret.
    #[arg(long, default_value_t = 512)]
    pub(crate) value: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    /// get-configuration, get-credentials, logon, issue, redeem, redeem-one-time, set-configuration,
    /// mixed; several: one after the other.
    #[arg(long, value_delimiter = ',', value_parser = workload, default_value = "get-configuration")]
    pub(crate) workload: Vec<Workload>,
    /// Connections; several: one after the other. Every one has at least one request in flight.
    #[arg(long, value_delimiter = ',', default_value = "8")]
    pub(crate) connections: Vec<usize>,
    /// Requests in flight over all connections; several: one after the other.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    pub(crate) in_flight: Vec<usize>,
    /// Requests per second (open loop); without it everybody sends again once answered (closed loop).
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Refusals for want of capacity are counted and end nothing.
    #[arg(long)]
    pub(crate) refusals: bool,
    /// Seconds of a round.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Rounds of each.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Threads of the generator; default: one for each processor.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// The master secret is rotated meanwhile, again and again.
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Every configuration is read once before, so that the rounds find them in memory.
    #[arg(long)]
    pub(crate) warm: bool,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PeersOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// Connections, where a client has several requests in flight on one.
    #[arg(long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Requests in flight over all connections; several: one after the other.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    pub(crate) in_flight: Vec<usize>,
    /// Seconds of a round.
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Rounds of each.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

/// How a report is shown and kept.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportOptions {
    /// How the report is shown.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// The report goes into this file besides, as JSON.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StartOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// How often.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WatchOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// How many watch; several: one after the other.
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    pub(crate) watchers: Vec<usize>,
    /// Connections that they share, each of another account: one may have 256 watches open.
    #[arg(long, default_value_t = 48)]
    pub(crate) connections: usize,
    /// How many changes.
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MemoryOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Watchers.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) watchers: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InstructionsOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// What is asked; several: one after the other.
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = workload,
        default_value = "get-configuration,get-credentials,issue,redeem"
    )]
    pub(crate) workload: Vec<Workload>,
    /// How many requests are counted.
    #[arg(long, default_value_t = 2000)]
    pub(crate) requests: u64,
    /// Folder that keeps what callgrind wrote.
    #[arg(long)]
    pub(crate) dumps: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RotationOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// Connections that update at once; SQLite has one.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
    /// Rows of one bare `UPDATE`.
    #[arg(long, default_value_t = 1000)]
    pub(crate) batch: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct OverloadOptions {
    #[command(flatten)]
    pub(crate) stand: StandOptions,
    #[command(flatten)]
    pub(crate) report: ReportOptions,
    /// What is asked.
    #[arg(long, value_parser = workload, default_value = "get-configuration")]
    pub(crate) workload: Workload,
    /// How many times of what the server can do.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) times: f64,
    /// Requests that wait for an answer at most.
    #[arg(long, default_value_t = 4096)]
    pub(crate) in_flight: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Rounds of each.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

fn workload(name: &str) -> Result<Workload, String> {
    Workload::parse(name).ok_or_else(|| {
        let known: Vec<_> = Workload::ALL.into_iter().map(Workload::name).collect();
        format!("one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str) -> Result<RunOptions, String> {
        let words = ["sso-load", "run"].into_iter().chain(words.split_whitespace());
        let command = Arguments::try_parse_from(words).map_err(|error| error.to_string())?.command;
        if let Command::Run(options) = command { Ok(options) } else { Err("another verb".into()) }
    }

    #[test]
    fn lists_are_read_and_what_is_unknown_is_refused() {
        let options =
            run("--workload issue,redeem --database sqlite,postgresql --mappings 1000,1000000 \
             --connections 1,8 --in-flight 1,64 --seconds 0.5 --rotate")
            .unwrap();
        assert_eq!(options.workload, [Workload::Issue, Workload::Redeem]);
        assert_eq!(options.stand.mappings, [1000, 1_000_000]);
        assert_eq!((options.connections, options.in_flight), (vec![1, 8], vec![1, 64]));
        assert!(options.rotate && options.rate.is_none() && options.stand.database.len() == 2);
        assert!(run("--workload isue").unwrap_err().contains("get-configuration"));
        assert!(run("--database mysql").is_err());
        assert!(run("--rate fast").is_err());
    }

    #[test]
    fn every_workload_is_found_by_its_name() {
        for workload in Workload::ALL {
            assert_eq!(Workload::parse(workload.name()), Some(workload));
        }
        assert_eq!(Workload::parse(""), None);
    }
}
