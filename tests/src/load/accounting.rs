//! What the operating system says that processes cost: processor time, memory, and how busy the machine
//! was with others.

use std::{collections::BTreeMap, fs, time::Duration};

use rustix::param::clock_ticks_per_second;

/// A round with more processor time of others than this is no measurement.
pub const MOST_FOREIGN_CORES: f64 = 0.3;

/// The processor time, user and system, that a process has spent so far.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    ticks(own_ticks(&stat).expect("the fields of a process"))
}

/// Which children of a process count with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Children {
    /// None.
    #[default]
    No,
    /// Those that have ended.
    Ended,
    /// Those that live and those that have ended.
    All,
}

/// Processes that count as one, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What is said of them.
    pub name: String,
    /// The processes.
    pub processes: Vec<u32>,
    /// Which of their children count too.
    pub children: Children,
}

impl Group {
    /// One process, without its children.
    #[must_use]
    pub fn of(name: &str, process: u32) -> Self {
        Self { name: name.to_owned(), processes: vec![process], children: Children::No }
    }

    /// One process with its children.
    #[must_use]
    pub fn with_children(name: &str, process: u32) -> Self {
        Self { children: Children::All, ..Self::of(name, process) }
    }

    /// What they have spent so far; what cannot be read counts as nothing.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        let mut spent = 0;
        for process in &self.processes {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            spent += own_ticks(&stat).unwrap_or_default();
            if self.children != Children::No {
                spent += reaped_ticks(&stat).unwrap_or_default();
            }
            if self.children == Children::All {
                spent += children(*process)
                    .into_iter()
                    .filter_map(|child| fs::read_to_string(format!("/proc/{child}/stat")).ok())
                    .filter_map(|stat| own_ticks(&stat))
                    .sum::<u64>();
            }
        }
        ticks(spent)
    }
}

/// The processor time of each group and of the whole machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    groups: BTreeMap<String, Duration>,
    busy: Duration,
}

/// What was spent between two snapshots.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// By the name of the group.
    pub groups: BTreeMap<String, Duration>,
    /// By nobody of the groups: processors that were busy with others, on average.
    pub foreign_cores: f64,
}

impl Snapshot {
    /// Now.
    #[must_use]
    pub fn take(groups: &[Group]) -> Self {
        let spent = groups.iter().map(|group| (group.name.clone(), group.processor_time()));
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self { groups: spent.collect(), busy: ticks(busy_ticks(&stat).unwrap_or_default()) }
    }

    /// What was spent from then on until `later`, in `took`.
    #[must_use]
    pub fn until(&self, later: &Self, took: Duration) -> Spent {
        let spent_by = |(name, now): (&String, &Duration)| {
            let before = self.groups.get(name).copied().unwrap_or_default();
            (name.clone(), now.saturating_sub(before))
        };
        let groups: BTreeMap<_, _> = later.groups.iter().map(spent_by).collect();
        let known: Duration = groups.values().sum();
        let foreign = later.busy.saturating_sub(self.busy).saturating_sub(known);
        Spent { groups, foreign_cores: foreign.as_secs_f64() / took.as_secs_f64().max(1e-9) }
    }
}

/// KiB of memory that a process has; 0 when it has ended.
#[must_use]
pub fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// KiB of the most memory that a process has had so far; 0 when it has ended.
#[must_use]
pub fn most_resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

/// The load average of the last minute.
#[must_use]
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / clock_ticks_per_second())
}

/// The fields of `/proc/PID/stat` from the state on: the name before may hold spaces and parentheses.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn sum_of(stat: &str, first: usize) -> Option<u64> {
    let fields = fields(stat)?;
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(number(first)? + number(first + 1)?)
}

/// utime and stime.
fn own_ticks(stat: &str) -> Option<u64> {
    sum_of(stat, 11)
}

/// cutime and cstime.
fn reaped_ticks(stat: &str) -> Option<u64> {
    sum_of(stat, 13)
}

/// The children of every thread of a process.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// user, nice, system, irq, softirq and steal; not idle and iowait, and not what a guest is counted for
/// again.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some([0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| numbers.get(at)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(own_ticks(stat), Some(33));
        assert_eq!(reaped_ticks(stat), Some(77));
        assert_eq!(own_ticks("nothing"), None);
        assert_eq!(own_ticks("7 (short) S 1 2"), None);
    }

    #[test]
    fn waiting_for_a_disk_is_not_being_busy_and_a_guest_counts_once() {
        let stat = "cpu  100 20 30 5000 400 5 6 7 90 80\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(100 + 20 + 30 + 5 + 6 + 7));
        assert_eq!(busy_ticks("intr 1 2 3"), None);
    }

    #[test]
    fn what_nobody_of_ours_spent_is_foreign() {
        let snapshot = |server, database, busy| Snapshot {
            groups: [("server", server), ("database", database)]
                .map(|(name, ms)| (name.to_owned(), Duration::from_millis(ms)))
                .into(),
            busy: Duration::from_millis(busy),
        };
        let spent =
            snapshot(1000, 10, 50_000).until(&snapshot(3500, 510, 54_500), Duration::from_secs(5));
        assert_eq!(spent.groups.get("server"), Some(&Duration::from_millis(2500)));
        assert_eq!(spent.groups.get("database"), Some(&Duration::from_millis(500)));
        assert!((spent.foreign_cores - 0.3).abs() < 1e-9, "{spent:?}");
        // The counters of the machine and of processes are not read at the same moment.
        let less = snapshot(0, 0, 0).until(&snapshot(100, 0, 50), Duration::from_secs(1));
        assert!(less.foreign_cores.abs() < f64::EPSILON);
    }

    #[test]
    fn this_process_is_accounted_for() {
        let group = Group::of("own", std::process::id());
        let before = Snapshot::take(std::slice::from_ref(&group));
        let start = std::time::Instant::now();
        while group.processor_time() == before.groups["own"] {
            assert!(start.elapsed() < Duration::from_secs(60), "busy, and nothing is counted");
        }
        let spent = before.until(&Snapshot::take(&[group]), start.elapsed());
        assert!(spent.groups["own"] > Duration::ZERO);
        assert!(resident_kib(std::process::id()) > 0);
        assert!(most_resident_kib(std::process::id()) > 0);
        assert_eq!(resident_kib(u32::MAX), 0);
    }

    #[test]
    fn children_that_live_and_that_have_ended_count_with_their_parent() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
    }
}
