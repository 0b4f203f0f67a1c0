//! Workloads beside the echo.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use sso_tests::{
    load::{
        drive::{Part, Plan},
        report::{ECHO, Report, SSO, Series, Subject},
        round::measure,
        stand::{Stand, Wanted},
        workload::{Workload, sizes},
        yardstick::Yardstick,
    },
    system::System,
};

use crate::{
    figures::read_rows,
    options::{Output, ReportOptions, RunOptions, StandOptions},
};

pub(crate) fn run(options: &RunOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &touched(&options.workload), |stand| {
        run_on(options, stand, &mut report)
    })?;
    show(&report, &options.report)
}

/// Shows a report, and keeps it where that is wanted.
pub(crate) fn show(report: &Report, options: &ReportOptions) -> Result<(), String> {
    if let Some(file) = &options.report {
        std::fs::write(file, report.json())
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match options.output {
        Output::Json => println!("{}", report.json()),
        Output::Table | Output::Markdown => {
            println!("{}", report.table(options.output == Output::Markdown));
        }
    }
    Ok(())
}

/// Does the work with a system of each database and size.
pub(crate) fn each_stand(
    options: &StandOptions,
    filled: &[&'static str],
    mut work: impl FnMut(&mut Stand) -> Result<(), String>,
) -> Result<(), String> {
    for database in &options.database {
        for mappings in &options.mappings {
            let wanted = Wanted {
                database: database.kind(),
                programs: options.programs.clone(),
                mappings: *mappings,
                value: options.value,
                filled: filled.to_vec(),
            };
            eprintln!("{}: {mappings} rows …", wanted.database.name());
            match Stand::start(wanted) {
                Some(mut stand) => work(&mut stand)?,
                None => eprintln!("left out: the database is not installed here"),
            }
        }
    }
    Ok(())
}

fn run_on(options: &RunOptions, stand: &mut Stand, report: &mut Report) -> Result<(), String> {
    let yardstick = Yardstick::start(stand);
    if options.warm {
        read_rows(stand, 0..stand.wanted.mappings)?;
    }
    for workload in &options.workload {
        for connections in &options.connections {
            for in_flight in &options.in_flight {
                let load = Load {
                    workload: *workload,
                    connections: *connections,
                    in_flight: (*in_flight).max(*connections),
                };
                let series = interleaved(options, load, stand, &yardstick)?;
                let one = Report { series: vec![series.clone()], ..report.clone() };
                eprintln!("{}", one.table(false));
                report.series.push(series);
            }
        }
    }
    Ok(())
}

/// The applications that the workloads need filled.
pub(crate) fn touched(workloads: &[Workload]) -> Vec<&'static str> {
    let mut touched: Vec<_> =
        workloads.iter().flat_map(|it| it.touches().iter().copied()).collect();
    touched.sort_unstable();
    touched.dedup();
    touched
}

/// What is measured of a stand.
#[derive(Clone, Copy)]
struct Load {
    workload: Workload,
    connections: usize,
    in_flight: usize,
}

/// Rounds of the echo and of a workload in turn.
fn interleaved(
    options: &RunOptions,
    load: Load,
    stand: &mut Stand,
    yardstick: &Yardstick,
) -> Result<Series, String> {
    let Load { workload, connections, in_flight } = load;
    let seconds = options.seconds.ceil().max(1.0) as u64;
    let once = workload == Workload::RedeemOneTime;
    let parts = workload.parts(stand, connections, in_flight, if once { 1 } else { seconds });
    let sizes = stand.block_on(sizes(&parts))?;
    let echo = yardstick.instead_of(&parts, sizes.0, sizes.1);
    let threads = threads(options).min(connections);
    let duration = Duration::from_secs_f64(options.seconds);
    let plan = |parts: Vec<Part>| Plan {
        rate: options.rate,
        refusals: options.refusals,
        ..Plan::new(threads, duration, parts)
    };
    let server = stand.system.server(1).id();
    let (of_echo, of_server) = (stand.groups(yardstick.id()), stand.groups(server));
    let stand = &*stand;
    let (mut echoes, mut ours) = (Vec::new(), Vec::new());
    rotating(options.rotate, &stand.system, || {
        for _ in 0..options.rounds {
            echoes.push(measure(|| plan(echo.clone()), &of_echo)?);
            let parts = || match once {
                // Each round has tickets of its own.
                true => workload.parts(stand, connections, in_flight, seconds),
                false => parts.clone(),
            };
            ours.push(measure(|| plan(parts()), &of_server)?);
        }
        Ok(())
    })?;
    Ok(Series {
        workload: workload.name().to_owned(),
        database: stand.wanted.database.name().to_owned(),
        mappings: stand.wanted.mappings,
        value: stand.wanted.value,
        connections,
        in_flight,
        rate: options.rate,
        rotating: options.rotate,
        seconds: options.seconds,
        sizes,
        subjects: vec![
            Subject { name: ECHO.to_owned(), rounds: echoes },
            Subject { name: SSO.to_owned(), rounds: ours },
        ],
    })
}

fn threads(options: &RunOptions) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    options.threads.unwrap_or(cores).max(1)
}

/// Does the work while the master secret is rotated, if that is wanted, again and again.
fn rotating<T>(
    wanted: bool,
    system: &System,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    if !wanted {
        return work();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let rotation = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                rotate(system, number);
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        rotation.join().map_err(|_| "the rotation failed".to_owned())?;
        done
    })
}

/// Rotates the master secret once, and waits until no row is sealed under the old generation.
pub(crate) fn rotate(system: &System, number: u32) {
    let backup = system.folder().join(format!("load-{number}.backup")).display().to_string();
    let password = system.folder().join("backup.passphrase").display().to_string();
    let rotate = ["secret", "rotate", "--wait", "--timeout", "60m", "--backup", &backup];
    let arguments = [&rotate[..], &["--password-file", &password]].concat();
    let _ = system.sso_ok("admin", &arguments);
}
