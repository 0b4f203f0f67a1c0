//! `payment-host`: the integration host of the example.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use payment_gateway::{
    Stopped,
    host::{self, Settings},
};
use sso_core::{exit::Exit, telemetry, tls};

/// Integration host: takes bills from portals and uploads them to the payment gateway, each with the
/// credentials of its user.
#[derive(Parser)]
#[command(name = "payment-host", version)]
struct Arguments {
    /// The settings file.
    #[arg(long, value_name = "FILE", default_value = "payment-host.toml")]
    settings: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => Exit::Ok.into(),
        Err(Stopped { exit, message }) => {
            // Nothing better can be done where standard error is gone.
            let _ = writeln!(std::io::stderr(), "payment-host: {message}");
            exit.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Stopped> {
    let stopped = |exit: Exit| {
        move |error: &dyn std::fmt::Display| Stopped { exit, message: error.to_string() }
    };
    let (wrong, refused) = (stopped(Exit::Settings), stopped(Exit::Refused));
    let settings = Settings::load(&arguments.settings).map_err(|error| wrong(&error))?;
    tls::install_provider();
    settings.process.apply().map_err(|error| refused(&error))?;
    let metrics = telemetry::init(&settings.telemetry).map_err(|error| refused(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    runtime.block_on(host::run(settings, metrics))
}
