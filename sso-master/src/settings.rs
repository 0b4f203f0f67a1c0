//! The settings file of the master secret server; the only room here that reads it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sso_core::{
    peer::CertificateRule,
    process::ProcessSettings,
    settings::{SettingsError, base_of, load, resolve},
    telemetry::TelemetrySettings,
    tls::{ClientCertificate, TlsSettings},
};

use crate::protector::{Kind, OsKeyring, Passphrase, PassphraseSource, Protector, ProtectorError};

/// Where the settings are when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/sso/sso-master.toml";
/// Milliseconds: the shortest and the longest interval between heartbeats.
const HEARTBEAT: std::ops::RangeInclusive<u32> = 100..=60_000;

/// Everything the program is told; paths are resolved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name that servers are shown.
    pub name: String,
    /// The file with the wrapped keys.
    pub keystore: PathBuf,
    /// Where servers connect to.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are; nowhere by default.
    pub operations_listen: Option<SocketAddr>,
    /// Milliseconds between heartbeats, 100 to 60000.
    #[serde(default = "default_heartbeat")]
    heartbeat_interval_ms: u32,
    /// Whether to refuse keys in memory that cannot be locked, instead of warning.
    #[serde(default)]
    pub require_locked_memory: bool,
    /// Certificate, key and authorities.
    pub tls: TlsSettings,
    /// Who gives the keystore key back.
    pub protector: ProtectorSettings,
    /// The SSO servers that may have the master secret.
    #[serde(default)]
    pub server: Vec<ServerEntry>,
    /// Logs.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// What the operating system is asked to do with the process.
    #[serde(default)]
    pub process: ProcessSettings,
}

/// Section `[protector]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectorSettings {
    /// The first protector asked.
    pub kind: Kind,
    /// A private file with the passphrase.
    passphrase_file: Option<PathBuf>,
    /// A systemd credential with the passphrase.
    credential: Option<String>,
}

/// One `[[server]]`: who may have the master secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerEntry {
    /// Its name in logs.
    pub name: String,
    /// How its certificate is known.
    pub certificate: CertificateRule,
}

fn default_heartbeat() -> u32 {
    2000
}

impl Settings {
    /// The settings in the file `path`, checked as far as they can be without using anything.
    ///
    /// # Errors
    /// When the file is not what it has to be: names the file and the key.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let mut settings: Self = load(path)?;
        let base = base_of(path);
        settings.keystore = resolve(&base, &settings.keystore);
        settings.tls = settings.tls.resolve(&base);
        let file = &mut settings.protector.passphrase_file;
        *file = file.as_deref().map(|file| resolve(&base, file));
        settings.check(path)?;
        Ok(settings)
    }

    /// Between heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms.into())
    }

    fn check(&self, path: &Path) -> Result<(), SettingsError> {
        let refused = |key: &str, message: String| SettingsError::refused(path, key, message);
        if self.name.trim().is_empty() {
            return Err(refused("name", "write how servers shall call this one".into()));
        }
        if !HEARTBEAT.contains(&self.heartbeat_interval_ms) {
            let (from, to) = (HEARTBEAT.start(), HEARTBEAT.end());
            return Err(refused("heartbeat_interval_ms", format!("write {from} to {to}")));
        }
        let protector = &self.protector;
        if protector.passphrase_file.is_some() && protector.credential.is_some() {
            let message = "not together with passphrase_file: keep one of them";
            return Err(refused("protector.credential", message.into()));
        }
        let mut names = HashSet::new();
        for server in &self.server {
            if server.name.trim().is_empty() || !names.insert(&server.name) {
                let message = format!("{:?} is empty or there twice", server.name);
                return Err(refused("server.name", message));
            }
        }
        if self.tls.client_certificate != ClientCertificate::Required {
            let message = "servers prove with their certificates who they are: leave the key out";
            return Err(refused("tls.client_certificate", message.into()));
        }
        self.telemetry.check().map_err(|error| refused("telemetry.log_filter", error.to_string()))
    }
}

impl ProtectorSettings {
    /// The protectors, first the one to ask first.
    ///
    /// With `keyutils` a passphrase follows always, because the kernel forgets; with
    /// `secret-service` only when a file or a credential is named.
    ///
    /// # Errors
    /// When a keyring cannot be used. With `skip_unusable` that is an error only when no other
    /// protector is left.
    pub fn protectors(
        &self,
        skip_unusable: bool,
    ) -> Result<Vec<Box<dyn Protector>>, ProtectorError> {
        let keyring = match self.kind {
            Kind::Passphrase => None,
            Kind::SecretService => Some(OsKeyring::secret_service()),
            Kind::Keyutils => Some(OsKeyring::keyutils()),
        };
        let source = self.source();
        let passphrase = self.kind != Kind::SecretService || source != PassphraseSource::Prompt;
        let mut protectors: Vec<Box<dyn Protector>> = Vec::new();
        match keyring {
            None => {}
            Some(Ok(keyring)) => protectors.push(Box::new(keyring)),
            Some(Err(error)) if passphrase && skip_unusable => {
                tracing::warn!(%error, "only the passphrase is left");
            }
            Some(Err(error)) => return Err(error),
        }
        if passphrase {
            protectors.push(Box::new(Passphrase::new(source)));
        }
        Ok(protectors)
    }

    fn source(&self) -> PassphraseSource {
        match (&self.passphrase_file, &self.credential) {
            (Some(file), _) => PassphraseSource::File(file.clone()),
            (None, Some(name)) => PassphraseSource::Credential(name.clone()),
            (None, None) => PassphraseSource::Prompt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 1
name = "sso-master"
keystore = "keystore.json"
listen = "127.0.0.1:7410"
operations_listen = "127.0.0.1:7411"
heartbeat_interval_ms = 2000
[tls]
certificate = "tls/master.crt"
key = "tls/master.key"
ca = "tls/ca.crt"
[protector]
kind = "passphrase"
passphrase_file = "master.passphrase"
[[server]]
name = "sso-server-1"
certificate = { san_uri = "sso-server://sso-server-1" }
[telemetry]
log_format = "text"
log_filter = "info"
"#;

    fn loaded(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sso-master.toml");
        std::fs::write(&path, text).unwrap();
        Settings::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_file_loads_and_paths_start_at_its_folder() {
        let settings = loaded(GOOD).unwrap();
        assert_eq!(settings.heartbeat(), Duration::from_secs(2));
        assert!(settings.keystore.is_absolute() && settings.keystore.ends_with("keystore.json"));
        assert!(settings.tls.key.is_absolute());
        assert!(
            matches!(settings.protector.source(), PassphraseSource::File(file) if file.is_absolute())
        );
        assert_eq!(settings.server[0].name, "sso-server-1");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (from, to, key) in [
            ("heartbeat_interval_ms = 2000", "heartbeat_interval_ms = 99", "heartbeat_interval_ms"),
            ("name = \"sso-master\"", "name = \" \"", "name"),
            (
                "kind = \"passphrase\"",
                "kind = \"passphrase\"\ncredential = \"x\"",
                "protector.credential",
            ),
            ("kind = \"passphrase\"", "kind = \"pkcs\"", "pkcs"),
            ("[telemetry]", "[telemetry]\ncolour = 1", "colour"),
            ("log_filter = \"info\"", "log_filter = \"a=loud\"", "telemetry.log_filter"),
            (
                "[[server]]",
                "[[server]]\nname = \"sso-server-1\"\ncertificate = { san_dns = \"a\" }\n[[server]]",
                "server.name",
            ),
            ("name = \"sso-master\"", "", "name"),
            ("[tls]", "[tls]\nclient_certificate = \"optional\"", "tls.client_certificate"),
        ] {
            assert!(GOOD.contains(from));
            let error = loaded(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(key) && error.contains("sso-master.toml"), "{error}");
        }
    }

    #[test]
    fn a_passphrase_stands_beside_a_keyring_that_forgets() {
        let kinds = |text: &str| {
            let protectors = loaded(text).unwrap().protector.protectors(true).unwrap();
            protectors.iter().map(|protector| protector.kind()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(GOOD), [Kind::Passphrase]);
        let kernel = kinds(&GOOD.replace("\"passphrase\"", "\"keyutils\""));
        assert_eq!(kernel.last(), Some(&Kind::Passphrase));
    }
}
