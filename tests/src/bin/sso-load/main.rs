//! Measures the store: starts a system of the real programs, loads it, and says what it costs beside a
//! bare echo over the same mutual TLS. `tests/measure` runs it, `docs/performance.md` has the method.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the command line, for whoever measures"
)]

mod figures;
mod instructions;
mod options;
mod peers;
mod rotation;
mod run;

use std::{path::Path, process::ExitCode};

use clap::Parser as _;
use sso_tests::{echo, load::report::Report};

use options::{Arguments, Command};

/// That of the server: the echo has no other one than what it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sso-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<(), String> {
    more_files()?;
    match command {
        Command::Echo { certificate, key, ca } => serve_echo(&certificate, &key, &ca),
        Command::Run(options) => run::run(&options),
        Command::Peers(options) => peers::peers(&options),
        Command::Start(options) => figures::start(&options),
        Command::Watch(options) => figures::watch(&options),
        Command::Memory(options) => figures::memory(&options),
        Command::Overload(options) => figures::overload(&options),
        Command::Rotation(options) => rotation::rotation(&options),
        Command::Instructions(options) => instructions::instructions(&options),
        Command::Compare { before, after } => {
            println!("{}", Report::read(&after)?.beside(&Report::read(&before)?));
            Ok(())
        }
        Command::Table { files, markdown } => {
            for file in files {
                println!("{}", Report::read(&file)?.table(markdown));
            }
            Ok(())
        }
    }
}

/// A plain tonic server, on as many threads as tokio takes by default.
fn serve_echo(certificate: &Path, key: &Path, ca: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(echo::serve(certificate, key, ca));
    Ok(())
}

/// As many open files as the system lets this process and those it starts have.
fn more_files() -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).map_err(|error| format!("open files: {error}"))
}
