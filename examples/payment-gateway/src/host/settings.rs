//! The settings of the host: one strict TOML file with what it needs to find the config store. All
//! else it reads there.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sso_client::ConfigurationKey;
use sso_core::{
    process::ProcessSettings,
    settings::{self, SettingsError},
    telemetry::TelemetrySettings,
};

/// Everything that says how the host runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The SQLite file with the outbox.
    pub database: PathBuf,
    /// The folder with the host's certificates, found by thumbprint.
    pub certificates: PathBuf,
    /// The affiliate applications whose credentials the host sends at all, whatever a port says.
    pub applications: Vec<String>,
    /// The folder for revocation lists that were fetched; none are kept without it.
    pub list_cache: Option<PathBuf>,
    /// Where `/livez`, `/readyz`, `/metrics` and `/counts.json` are.
    pub operations_listen: SocketAddr,
    /// The profile that the host calls the secret store with; the one of the environment if absent.
    pub profile: Option<String>,
    /// Where in the config store things are.
    pub places: Places,
    /// Whether certificates made for development are good enough. Never in production.
    pub allow_development: bool,
    /// Log.
    pub telemetry: TelemetrySettings,
    /// How it stands to the one that started it.
    pub process: ProcessSettings,
}

/// The configurations that say what the host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The send port to the gateway.
    pub upload: ConfigurationKey,
    /// The receive location for bills.
    pub bills: ConfigurationKey,
    /// The receive location for payment notifications.
    pub notifications: ConfigurationKey,
    /// Who stands behind which certificate.
    pub parties: ConfigurationKey,
    /// What the house and the gateway have agreed on.
    pub agreement: ConfigurationKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    database: PathBuf,
    certificates: PathBuf,
    applications: Vec<String>,
    list_cache: Option<PathBuf>,
    operations_listen: SocketAddr,
    profile: Option<String>,
    places: PlacesSection,
    #[serde(default)]
    allow_development: bool,
    #[serde(default)]
    telemetry: TelemetrySettings,
    #[serde(default)]
    process: ProcessSettings,
}

/// Each `APPLICATION/IDENTIFIER`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacesSection {
    upload: String,
    bills: String,
    notifications: String,
    parties: String,
    agreement: String,
}

impl Settings {
    /// Reads and checks the file; relative paths start where it is.
    ///
    /// # Errors
    /// Names the file, the key and what to write.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let file: SettingsFile = settings::load(path)?;
        let base = settings::base_of(path);
        let place = |key: &str, text: &str| match text.split_once('/') {
            Some((application, identifier))
                if !application.is_empty() && !identifier.is_empty() =>
            {
                Ok(ConfigurationKey::new(application, identifier))
            }
            _ => {
                let why = "write APPLICATION/IDENTIFIER of a configuration in the config store";
                Err(SettingsError::refused(path, format!("places.{key}"), why))
            }
        };
        Ok(Self {
            database: base.join(file.database),
            certificates: base.join(file.certificates),
            applications: file.applications,
            list_cache: file.list_cache.map(|folder| base.join(folder)),
            operations_listen: file.operations_listen,
            profile: file.profile,
            places: Places {
                upload: place("upload", &file.places.upload)?,
                bills: place("bills", &file.places.bills)?,
                notifications: place("notifications", &file.places.notifications)?,
                parties: place("parties", &file.places.parties)?,
                agreement: place("agreement", &file.places.agreement)?,
            },
            allow_development: file.allow_development,
            telemetry: file.telemetry,
            process: file.process,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\ndatabase = 'host.db'\ncertificates = 'certificates'\n\
        applications = ['PaymentGateway']\n\
        operations_listen = '127.0.0.1:1'\n[places]\nupload = 'PaymentHost.SendPorts/upload'\n\
        bills = 'a/b'\nnotifications = 'a/n'\nparties = 'a/p'\nagreement = 'a/g'\n";

    fn load(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        settings::write_private(&path, text.as_bytes(), true).unwrap();
        Settings::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn places_are_read() {
        let settings = load(GOOD).unwrap();
        let upload = ConfigurationKey::new("PaymentHost.SendPorts", "upload");
        assert_eq!(settings.places.upload, upload);
        assert!(settings.certificates.is_absolute());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (from, to, key) in [
            ("'a/b'", "'b'", "places.bills"),
            ("'a/p'", "'/p'", "places.parties"),
            ("bills = 'a/b'", "", "bills"),
            ("[places]", "[ports]", "ports"),
        ] {
            let error = load(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
