//! `sso-server`: reads its settings, hardens itself, serves.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use sso_core::{
    clock::Clock,
    exit::Exit,
    huge_pages::{self, WithoutHugePages},
    memory, process, telemetry,
    tls::{self, Application, TlsReloader},
};
use sso_proto::Event;
use sso_server::{
    server::{self, ServerError},
    settings::Settings,
};

/// Small buffers come and go with every request: this takes a third less time for them than the
/// allocator of the C library (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// SSO server: keeps affiliate applications and their sealed configuration, and serves them over
/// gRPC with mutual TLS.
#[derive(Parser)]
#[command(name = "sso-server", version)]
struct Arguments {
    /// The settings file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/sso/sso-server.toml")]
    settings: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Run,
    /// Check the settings, and the files and revocation lists they name, without opening a port or the
    /// database.
    Check,
}

fn main() -> ExitCode {
    // Before the settings, which may name files of many members, take memory.
    let without_huge_pages = huge_pages::do_without();
    let arguments = Arguments::parse();
    match act(&arguments, without_huge_pages) {
        Ok(()) => Exit::Ok.into(),
        Err((exit, message)) => {
            // Nothing better can be done where standard error is gone.
            let _ = writeln!(std::io::stderr(), "sso-server: {message}");
            exit.into()
        }
    }
}

fn act(arguments: &Arguments, without_huge_pages: WithoutHugePages) -> Result<(), (Exit, String)> {
    let settings = |error: &dyn std::fmt::Display| (Exit::Settings, error.to_string());
    let loaded = Settings::load(&arguments.settings).map_err(|error| settings(&error))?;
    tls::install_provider();
    match arguments.verb {
        Verb::Check => {
            let tls = TlsReloader::load_listener(&loaded.tls, Application::Grpc, Clock::System)
                .map_err(|error| settings(&error))?;
            loaded.audit.check().map_err(|error| settings(&error))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(|error| (Exit::Refused, error.to_string()))?
                .block_on(tls.fetch_lists());
            let file = arguments.settings.display();
            let mut lines = format!("{file}: settings and certificates are good\n");
            for warning in tls.warnings() {
                lines.push_str(&format!("{file}: warning: {warning}\n"));
            }
            let _ = std::io::stdout().write_all(lines.as_bytes());
            Ok(())
        }
        Verb::Run => run(loaded, without_huge_pages),
    }
}

fn run(settings: Settings, without_huge_pages: WithoutHugePages) -> Result<(), (Exit, String)> {
    let refused = |error: &dyn std::fmt::Display| (Exit::Refused, error.to_string());
    settings.process.apply().map_err(|error| refused(&error))?;
    memory::harden_process().map_err(|error| refused(&error))?;
    let metrics = telemetry::init(&settings.telemetry).map_err(|error| refused(&error))?;
    if process::is_root() {
        tracing::warn!(
            event = Event::RunsAsRoot.number(),
            "this program runs as root and need not"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))?;
    let serving = server::run(settings, metrics, without_huge_pages);
    runtime.block_on(serving).map_err(|error: ServerError| {
        tracing::error!(event = Event::StartFailed.number(), %error, "ended");
        (error.exit(), error.to_string())
    })
}
