//! `payment-gateway`: the outside system of the example, with what its operator needs.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use payment_gateway::{
    Stopped,
    gateway::{self, Merchant, Settings},
    notification::SigningKey,
    upload::Scheme,
};
use sso_core::{
    exit::Exit,
    secret::SecretText,
    settings::secret_file,
    telemetry::{self, TelemetrySettings},
    tls,
};

/// Payment gateway: takes bills over HTTPS with a client certificate, and posts a signed notification
/// once a bill is paid.
#[derive(Parser)]
#[command(name = "payment-gateway", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The settings file.
        #[arg(long, value_name = "FILE", default_value = "payment-gateway.toml")]
        settings: PathBuf,
    },
    /// Make the key that notifications are signed with, and print its public half.
    Key {
        /// Where it goes: PKCS #8, PEM, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Add a merchant to the database, or replace all that is known of it but its bills.
    Merchant {
        /// The SQLite file of the gateway; made where it is missing.
        #[arg(long, value_name = "FILE")]
        database: PathBuf,
        /// Its name; with basic also the user name.
        #[arg(long)]
        name: String,
        /// The system that may speak for it: a host name or the common name in its client certificate.
        #[arg(long)]
        client: String,
        /// How it proves who it is, beside the certificate.
        #[arg(long, value_enum)]
        scheme: Scheme,
        /// File with the password or the token; no other user may read it.
        #[arg(long, value_name = "FILE")]
        value_file: PathBuf,
        /// Where its notifications go.
        #[arg(long, value_name = "URL")]
        notify_url: String,
    },
    /// Serve the revocation lists of a folder over HTTP, as an authority's distribution point does.
    Publish {
        /// Where.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// The folder with the files NAME.crl.
        #[arg(long, value_name = "DIR")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse().verb) {
        Ok(()) => Exit::Ok.into(),
        Err(Stopped { exit, message }) => {
            // Nothing better can be done where standard error is gone.
            let _ = writeln!(std::io::stderr(), "payment-gateway: {message}");
            exit.into()
        }
    }
}

fn stopped(exit: Exit) -> impl Fn(&dyn std::fmt::Display) -> Stopped {
    move |error| Stopped { exit, message: error.to_string() }
}

fn act(verb: Verb) -> Result<(), Stopped> {
    let (wrong, refused) = (stopped(Exit::Settings), stopped(Exit::Refused));
    tls::install_provider();
    match verb {
        Verb::Run { settings } => {
            let settings = Settings::load(&settings).map_err(|error| wrong(&error))?;
            settings.process.apply().map_err(|error| refused(&error))?;
            let metrics = telemetry::init(&settings.telemetry).map_err(|error| refused(&error))?;
            runtime()?.block_on(gateway::run(settings, metrics))
        }
        Verb::Key { out } => {
            let key = SigningKey::create(&out)?;
            let line = format!("{}\n", key.public());
            std::io::stdout().write_all(line.as_bytes()).map_err(|error| refused(&error))
        }
        Verb::Merchant { database, name, client, scheme, value_file, notify_url } => {
            let value = secret_file(&value_file).map_err(|error| wrong(&error))?;
            let value = SecretText::from_utf8(&value).map_err(|error| wrong(&error))?;
            let merchant = Merchant { name, client, scheme, notify_url };
            runtime()?.block_on(gateway::add_merchant(&database, &merchant, &value))
        }
        Verb::Publish { listen, folder } => {
            telemetry::init(&TelemetrySettings::default()).map_err(|error| refused(&error))?;
            runtime()?.block_on(gateway::publish(listen, &folder))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Stopped> {
    let refused = stopped(Exit::Refused);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| refused(&error))
}
