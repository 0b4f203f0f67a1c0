//! What was measured, as a file and as tables.

use std::{fmt::Write as _, fs};

use serde::{Deserialize, Serialize};

use super::round::{Middle, Round};

/// The subject that everything is compared with.
pub const ECHO: &str = "echo";
/// Ours.
pub const SSO: &str = "sso";

/// Everything of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The arguments of the run.
    pub made_by: String,
    /// Processors.
    pub cores: usize,
    /// What kind.
    pub processor: String,
    /// Version of the operating system.
    pub kernel: String,
    /// What was measured.
    pub series: Vec<Series>,
    /// Single figures by name, such as of memory and of starting.
    #[serde(default)]
    pub figures: Vec<Figure>,
}

/// Something that is one number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of.
    pub name: String,
    /// The number.
    pub value: Middle,
    /// Of the number.
    pub unit: String,
}

/// The rounds of one workload under the same circumstances, interleaved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What was asked.
    pub workload: String,
    /// Where the data were.
    pub database: String,
    /// How many configurations and mappings there were.
    pub mappings: u64,
    /// Bytes of a secret.
    pub value: usize,
    /// How many there were.
    pub connections: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests per second that were asked for; none in a closed loop.
    pub rate: Option<f64>,
    /// A rotation of the master secret ran meanwhile.
    pub rotating: bool,
    /// Seconds of a round.
    pub seconds: f64,
    /// Bytes of a request and of an answer.
    pub sizes: (usize, usize),
    /// Who was measured.
    pub subjects: Vec<Subject>,
}

/// One of those that were measured in turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// [`ECHO`], [`SSO`] or a peer.
    pub name: String,
    /// In the order of time.
    pub rounds: Vec<Round>,
}

impl Report {
    /// An empty report of this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let line = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
        };
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        Self {
            made_by: format!("sso-load {}", arguments.join(" ")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: line("/proc/cpuinfo", "model name"),
            kernel: line("/proc/sys/kernel/osrelease", ""),
            ..Self::default()
        }
    }

    /// The report in a file.
    ///
    /// # Errors
    /// Why the file is none.
    pub fn read(path: &std::path::Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        serde_json::from_str(&text?).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// As JSON.
    ///
    /// # Panics
    /// Never: the report is plain data.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    /// For a person; with `markdown` as a table of a document.
    #[must_use]
    pub fn table(&self, markdown: bool) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
        for series in &self.series {
            rows.extend(series.subjects.iter().map(|subject| series.row(subject)));
        }
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} cores, {}, Linux {}; `{}`\n",
            self.cores, self.processor, self.kernel, self.made_by
        );
        if self.series.is_empty() {
            text.clear();
        } else {
            text.push_str(&if markdown { as_markdown(&rows) } else { as_columns(&rows) });
        }
        for figure in &self.figures {
            let Middle { median, min, max } = figure.value;
            let spread = spread(Middle { median, min, max }, 2);
            let _ = match markdown {
                true => writeln!(text, "| {} | {spread} {} |", figure.name, figure.unit),
                false => writeln!(text, "{:<58} {spread} {}", figure.name, figure.unit),
            };
        }
        text
    }

    /// This report beside an earlier one: of each series that both have, what became of processor time and
    /// rate in relation to the echo of their own runs.
    #[must_use]
    pub fn beside(&self, before: &Self) -> String {
        let titles = ["workload", "server CPU µs", "÷ echo", "req/s ÷ echo", "p99 ms", "RSS MiB"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        for after in &self.series {
            let same = before.series.iter().find(|series| series.key() == after.key());
            let Some(before) = same else { continue };
            let both = |figure: &dyn Fn(&Series) -> f64, digits: usize| {
                let (was, is) = (figure(before), figure(after));
                format!("{was:.digits$} → {is:.digits$}")
            };
            let of = |series: &Series, figure: fn(&Round) -> f64| {
                Middle::over(series.rounds(SSO), figure).median
            };
            let to_echo = |series: &Series, figure: fn(&Round) -> f64| {
                Middle::ratio(series.rounds(SSO), series.rounds(ECHO), figure).median
            };
            rows.push(vec![
                after.key(),
                both(&|it| of(it, |round| round.server_cpu), 1),
                both(&|it| to_echo(it, |round| round.server_cpu), 2),
                both(&|it| to_echo(it, |round| round.per_second), 2),
                both(&|it| of(it, |round| round.p99) / 1000.0, 2),
                both(&|it| of(it, |round| round.resident_kib as f64) / 1024.0, 0),
            ]);
        }
        as_columns(&rows)
    }
}

const HEADINGS: [&str; 9] = [
    "workload",
    "who",
    "req/s",
    "p50 ms",
    "p99 ms",
    "server CPU µs (database)",
    "req/s ÷ echo",
    "CPU ÷ echo",
    "foreign cores",
];

impl Series {
    /// What has to be the same for two series to be compared.
    #[must_use]
    pub fn key(&self) -> String {
        let rotating = if self.rotating { ", rotating" } else { "" };
        let rate = self.rate.map(|rate| format!(", {rate:.0}/s")).unwrap_or_default();
        format!(
            "{} {} {} rows {} B, {}×{}{rate}{rotating}",
            self.workload,
            self.database,
            shortened(self.mappings),
            self.value,
            self.connections,
            self.in_flight
        )
    }

    /// The rounds of a subject; none where it was not measured.
    #[must_use]
    pub fn rounds(&self, name: &str) -> &[Round] {
        let found = self.subjects.iter().find(|subject| subject.name == name);
        found.map_or(&[], |subject| &subject.rounds)
    }

    fn row(&self, subject: &Subject) -> Vec<String> {
        let rounds = &subject.rounds;
        let over = |figure: fn(&Round) -> f64| Middle::over(rounds, figure);
        let to_echo = |figure: fn(&Round) -> f64| match &*subject.name {
            ECHO => "1".to_owned(),
            _ => spread(Middle::ratio(rounds, self.rounds(ECHO), figure), 2),
        };
        let database = over(|round| round.database_cpu).median;
        let database = if database > 0.0 { format!(" ({database:.1})") } else { String::new() };
        let refused = over(|round| round.refused_per_second).median;
        let refused = match refused > 0.0 {
            true => format!(
                ", {refused:.0}/s refused in {:.2} ms",
                over(|round| round.refused_p99).median / 1000.0
            ),
            false => String::new(),
        };
        let repeated: u32 = rounds.iter().map(|round| round.thrown_away).sum();
        let repeated = if repeated > 0 { format!(", {repeated} repeated") } else { String::new() };
        vec![
            self.key(),
            subject.name.clone(),
            spread(over(|round| round.per_second), 0) + &refused,
            latency(over(|round| round.p50).median, 3),
            latency(over(|round| round.p99).median, 2),
            spread(over(|round| round.server_cpu), 1) + &database,
            to_echo(|round| round.per_second),
            to_echo(|round| round.server_cpu),
            format!("{:.2}{repeated}", over(|round| round.foreign_cores).max),
        ]
    }
}

/// Milliseconds; programs of others do not always say it.
fn latency(micros: f64, digits: usize) -> String {
    if micros > 0.0 { format!("{:.digits$}", micros / 1000.0) } else { "–".to_owned() }
}

fn spread(middle: Middle, digits: usize) -> String {
    let Middle { median, min, max } = middle;
    if (max - min).abs() < f64::EPSILON {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

/// 10⁴ as `10k`.
fn shortened(number: u64) -> String {
    match number {
        0 => "0".to_owned(),
        _ if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        _ if number.is_multiple_of(1000) => format!("{}k", number / 1000),
        _ => number.to_string(),
    }
}

fn as_columns(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn as_markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rotating: bool, ours: &[(f64, f64)], echo: &[(f64, f64)]) -> Series {
        let subject = |name: &str, rounds: &[(f64, f64)]| Subject {
            name: name.to_owned(),
            rounds: rounds
                .iter()
                .map(|&(per_second, server_cpu)| Round {
                    per_second,
                    server_cpu,
                    p99: 2500.0,
                    resident_kib: 20 * 1024,
                    ..Round::default()
                })
                .collect(),
        };
        Series {
            workload: "get-configuration".to_owned(),
            database: "sqlite".to_owned(),
            mappings: 10_000,
            value: 512,
            connections: 8,
            in_flight: 64,
            rotating,
            subjects: vec![subject(ECHO, echo), subject(SSO, ours)],
            ..Series::default()
        }
    }

    fn report(series: Vec<Series>) -> Report {
        Report { series, ..Report::of_this_machine() }
    }

    #[test]
    fn a_report_is_the_same_after_it_was_a_file() {
        let mut report = report(vec![series(true, &[(1.5, 2.5)], &[(3.0, 1.0)])]);
        let value = Middle::of([1.0, 2.0, 3.0]);
        report.figures.push(Figure { name: "idle".into(), value, unit: "MiB".into() });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, report.json()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        fs::write(&path, "{\"series\": 1}").unwrap();
        assert!(Report::read(&path).unwrap_err().contains("report.json"));
        assert!(Report::read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn the_table_has_ratios_to_the_echo_of_the_same_round() {
        let ours = [(45_000.0, 20.0), (30_000.0, 30.0), (50_000.0, 25.0)];
        let echo = [(50_000.0, 20.0), (50_000.0, 20.0), (50_000.0, 20.0)];
        let report = report(vec![series(false, &ours, &echo)]);
        let table = report.table(true);
        let row = table.lines().find(|line| line.contains("| sso |")).unwrap();
        assert!(row.contains("45000 (30000–50000)"), "{row}");
        assert!(row.contains("| 0.90 (0.60–1.00) | 1.25 (1.00–1.50) |"), "{row}");
        assert!(row.contains("get-configuration sqlite 10k rows 512 B, 8×64"), "{row}");
        let echo = table.lines().find(|line| line.contains("| echo |")).unwrap();
        assert!(echo.contains("| 50000 |") && echo.contains("| 1 | 1 |"), "{echo}");
        assert!(
            table
                .lines()
                .filter(|line| line.starts_with('|'))
                .all(|line| { line.matches('|').count() == HEADINGS.len() + 1 })
        );
        assert!(!report.table(false).contains('|'));
    }

    #[test]
    fn only_what_was_measured_under_the_same_circumstances_is_compared() {
        let echo = [(50_000.0, 20.0)];
        let before = report(vec![series(false, &[(10_000.0, 100.0)], &echo)]);
        let after = report(vec![
            series(false, &[(45_000.0, 22.0)], &echo),
            series(true, &[(40_000.0, 24.0)], &echo),
        ]);
        let table = after.beside(&before);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("100.0 → 22.0") && table.contains("5.00 → 1.10"), "{table}");
        assert!(table.contains("0.20 → 0.90") && table.contains("20 → 20"), "{table}");
    }

    #[test]
    fn numbers_of_rows_are_short() {
        let written = [0, 999, 1000, 10_000, 1_000_000, 1_500_000].map(shortened);
        assert_eq!(written, ["0", "999", "1k", "10k", "1M", "1500k"]);
    }
}
