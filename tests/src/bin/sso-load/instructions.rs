//! Instructions and allocations of the server for a request, counted by callgrind: the same on every run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use sso_core::connector::{ConnectOptions, connect_channel};
use sso_tests::load::{
    call::{Random, call},
    callgrind::Counted,
    drive::Part,
    report::{Figure, Report},
    round::Middle,
    stand::Stand,
    workload::Workload,
};

use crate::{
    options::InstructionsOptions,
    run::{each_stand, show, touched},
};

/// Calls before the counted ones.
const WARM_UP: u64 = 2000;
/// So many rows, each of which was asked for before: what is counted is answered from memory.
const ROWS: u64 = 100;
/// The costliest functions that are said.
const COSTLIEST: usize = 40;

pub(crate) fn instructions(options: &InstructionsOptions) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
    let programs = options.stand.programs.clone().unwrap_or(beside);
    let programs = programs.canonicalize().map_err(|error| error.to_string())?;
    let dump = folder.path().join("callgrind");
    wrap(&programs, folder.path(), &dump).map_err(|error| error.to_string())?;
    let mut stand_options = options.stand.clone();
    stand_options.programs = Some(folder.path().to_owned());
    stand_options.mappings = vec![ROWS];

    let mut report = Report::of_this_machine();
    each_stand(&stand_options, &touched(&options.workload), |stand| {
        let server = stand.system.server(1).id();
        let mut dumps = 0;
        for workload in &options.workload {
            let part = workload.parts(stand, 1, 1, 1).pop().ok_or("nothing to ask")?;
            control(server, &["-i", "off"])?;
            ask(stand, &part, WARM_UP)?;
            control(server, &["-i", "on"])?;
            // The first ones find nothing in the tables of callgrind.
            ask(stand, &part, 20)?;
            control(server, &["-z"])?;
            ask(stand, &part, options.requests)?;
            control(server, &["-d"])?;
            dumps += 1;
            let text = dumped(&dump, dumps)?;
            if let Some(kept) = &options.dumps {
                let path = kept.join(format!("callgrind.out.{}", workload.name()));
                fs::write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let counted = Counted::parse(&text).ok_or("callgrind wrote no figures")?;
            note(&mut report, stand, *workload, &counted, options.requests);
        }
        Ok(())
    })?;
    show(&report, &options.report)
}

fn note(report: &mut Report, stand: &Stand, workload: Workload, counted: &Counted, requests: u64) {
    let what = format!("{}, {}", workload.name(), stand.wanted.database.name());
    for (name, value) in
        [("instructions", counted.instructions), ("allocations", counted.allocations)]
    {
        let value = Middle::of([value as f64 / requests.max(1) as f64]);
        let name = format!("{name} for a request, {what}");
        eprintln!("{name:<58} {:.1}", value.median);
        report.figures.push(Figure { name, value, unit: String::new() });
    }
    eprintln!("{}", counted.costliest(COSTLIEST, requests));
}

/// A folder of programs in which the server is run by callgrind, which counts nothing yet.
fn wrap(programs: &Path, folder: &Path, dump: &Path) -> std::io::Result<()> {
    for name in ["sso", "sso-master"] {
        symlink(programs.join(name), folder.join(name))?;
    }
    let script = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file='{}' '{}' \"$@\"\n",
        dump.display(),
        programs.join("sso-server").display()
    );
    let server = folder.join("sso-server");
    fs::write(&server, script)?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755))
}

fn control(server: u32, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("callgrind_control").args(arguments).arg(server.to_string()).output();
    let done = done.map_err(|error| format!("callgrind_control: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("callgrind_control: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

/// The dump of this number: a file for each thread, or one for all.
fn dumped(dump: &Path, number: u32) -> Result<String, String> {
    let path = dump.with_file_name(format!("callgrind.{number}"));
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Calls one after the other on one connection.
fn ask(stand: &Stand, part: &Part, count: u64) -> Result<(), String> {
    let random = Random::new(1);
    let (tls, job) = part.callers.first().zip(part.jobs.first()).ok_or("nothing to ask")?;
    stand.block_on(async {
        let channel = connect_channel(&part.url, tls.clone(), ConnectOptions::default())
            .map_err(|error| error.to_string())?;
        for _ in 0..count {
            let message = job.payload.next(&random).ok_or("nothing is left to send")?;
            call(&channel, &job.path, message).await.map_err(|status| status.to_string())?;
        }
        Ok(())
    })
}
