//! The settings of the gateway: one strict TOML file.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sso_core::{
    process::ProcessSettings,
    settings::{self, SettingsError},
    telemetry::TelemetrySettings,
    tls::TlsSettings,
};

use super::pauses::Pauses;

/// Days a payment number is good for, at most.
const VALID_DAYS_MAX: u16 = 365;

/// Everything that says how the gateway runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it calls itself in notifications.
    pub name: String,
    /// Its SQLite file.
    pub database: PathBuf,
    /// Where bills are uploaded, over HTTPS with a client certificate.
    pub listen: SocketAddr,
    /// Where the bank says what was paid: plain HTTP, on this machine.
    pub bank_listen: SocketAddr,
    /// Where `/livez`, `/readyz`, `/metrics` and `/counts.json` are.
    pub operations_listen: SocketAddr,
    /// How long a payment number is good for.
    pub valid: time::Duration,
    /// The private key that notifications are signed with.
    pub signing_key: PathBuf,
    /// How long one post of a notification may take.
    pub notify_timeout: Duration,
    /// The pauses between posts of a notification that nobody acknowledges.
    pub notify_pauses: Pauses,
    /// Certificate and lists, for both directions.
    pub tls: TlsSettings,
    /// Log.
    pub telemetry: TelemetrySettings,
    /// How it stands to the one that started it.
    pub process: ProcessSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    name: String,
    database: PathBuf,
    listen: SocketAddr,
    bank_listen: SocketAddr,
    operations_listen: SocketAddr,
    #[serde(default = "default_valid_days")]
    valid_days: u16,
    signing_key: PathBuf,
    #[serde(default)]
    notify: NotifySection,
    tls: TlsSettings,
    #[serde(default)]
    telemetry: TelemetrySettings,
    #[serde(default)]
    process: ProcessSettings,
}

fn default_valid_days() -> u16 {
    14
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NotifySection {
    timeout_seconds: u64,
    retry_first_ms: u64,
    retry_most_seconds: u64,
}

impl Default for NotifySection {
    fn default() -> Self {
        Self { timeout_seconds: 10, retry_first_ms: 1000, retry_most_seconds: 300 }
    }
}

impl Settings {
    /// Reads and checks the file; relative paths start where it is.
    ///
    /// # Errors
    /// Names the file, the key and what to write.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let file: SettingsFile = settings::load(path)?;
        let base = settings::base_of(path);
        let refused = |key: &str, why: &str| Err(SettingsError::refused(path, key, why));
        if file.name.trim().is_empty() {
            return refused("name", "write what the gateway is to be called");
        }
        if !(1..=VALID_DAYS_MAX).contains(&file.valid_days) {
            return refused("valid_days", "write a number of days from 1 to 365");
        }
        if !file.bank_listen.ip().is_loopback() {
            return refused("bank_listen", "has no TLS: write an address of this machine alone");
        }
        Ok(Self {
            name: file.name,
            database: base.join(file.database),
            listen: file.listen,
            bank_listen: file.bank_listen,
            operations_listen: file.operations_listen,
            valid: time::Duration::days(file.valid_days.into()),
            signing_key: base.join(file.signing_key),
            notify_timeout: Duration::from_secs(file.notify.timeout_seconds.max(1)),
            notify_pauses: Pauses {
                first: Duration::from_millis(file.notify.retry_first_ms.max(1)),
                most: Duration::from_secs(file.notify.retry_most_seconds.max(1)),
            },
            tls: file.tls.resolve(&base),
            telemetry: file.telemetry,
            process: file.process,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\nname = 'gateway.example'\ndatabase = 'gateway.db'\n\
        listen = '127.0.0.1:1'\nbank_listen = '127.0.0.1:2'\noperations_listen = '127.0.0.1:3'\n\
        signing_key = 'signing.key'\n[tls]\ncertificate = 'a.crt'\nkey = 'a.key'\nca = 'ca.crt'\n";

    fn load(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        settings::write_private(&path, text.as_bytes(), true).unwrap();
        Settings::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_good_ones() {
        let settings = load(GOOD).unwrap();
        assert_eq!(settings.valid, time::Duration::days(14));
        assert!(settings.database.is_absolute());
        assert_eq!(settings.notify_pauses.most.as_secs(), 300);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (from, to, key) in [
            ("name = 'gateway.example'", "name = ' '", "name"),
            ("bank_listen = '127.0.0.1:2'", "bank_listen = '0.0.0.0:2'", "bank_listen"),
            ("database =", "valid_days = 0\ndatabase =", "valid_days"),
            ("database =", "valid_days = 366\ndatabase =", "valid_days"),
            ("database =", "databases =", "databases"),
        ] {
            let error = load(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
