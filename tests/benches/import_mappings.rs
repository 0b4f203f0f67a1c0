//! `sso mapping create --file` with many mappings of a host group application, every one checked and
//! audited: how long it takes, and the most memory that the client and the server need.
//!
//! `cargo bench -p sso-tests --bench import_mappings --profile dist` after building the programs with
//! that profile. How many mappings may be given as argument behind `--`.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and ends where something is not as it has to be"
)]

use std::{fmt::Write as _, process::Stdio, time::Instant};

use sso_tests::{
    postgres,
    system::{Database, System},
};

const APPLICATION: &str = "Import";

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(100_000);
    println!("{count} mappings by file");
    println!("database | seconds | mappings/s | client VmHWM | server VmHWM");
    measure("sqlite", Database::Sqlite, count);
    if let Some(url) = postgres::database() {
        measure("postgresql", Database::Postgres(url), count);
    }
}

fn measure(name: &str, database: Database, count: u32) {
    let mut system = System::start(database);
    let create =
        ["app", "create", APPLICATION, "--type", "host-group", "--field", "Password:masked"];
    let accounts = ["--windows-account", r"DEV\user"];
    let administrators = ["--admins", r"DEV\Application Administrators", "--enable"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &accounts, &administrators].concat());
    let file = system.folder().join("mappings.xml");
    std::fs::write(&file, document(count)).expect("a file");

    let start = Instant::now();
    let mut command = system.command("app-admin");
    command.args(["mapping", "create", "--file"]).arg(&file).stdout(Stdio::piped());
    let child = command.spawn().expect("sso starts");
    let pid = child.id();
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        // The process has no status once it has ended.
        while let Some(now) = high_water(pid) {
            most = now;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        most
    });
    let output = child.wait_with_output().expect("it ends");
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.ends_with("0 refused\n"), "{said}");
    let client = watch.join().expect("the watch ends");
    let server = high_water(system.server(1).id()).expect("a running server");
    println!(
        "{name:<10} | {seconds:>7.1} | {:>10.0} | {client:>9} KiB | {server:>9} KiB",
        f64::from(count) / seconds
    );
}

/// The file that is imported.
fn document(count: u32) -> String {
    let mut text = String::from("<sso>\n");
    for number in 0..count {
        let _ = writeln!(
            text,
            "<mapping><windowsDomain>DEV</windowsDomain><windowsUserId>user</windowsUserId>\
             <externalApplication>{APPLICATION}</externalApplication>\
             <externalUserId>JOB{number:07}</externalUserId></mapping>"
        );
    }
    text.push_str("</sso>\n");
    text
}

/// KiB of the most memory that a process has had so far; `None` when it has ended.
fn high_water(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
