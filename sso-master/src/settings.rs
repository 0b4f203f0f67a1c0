//! The settings file of the master secret server; the only room here that reads it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sso_core::{
    connector::check_address,
    peer::{CertificateRule, PeerCertificate, RuleMatch},
    process::ProcessSettings,
    settings::{SettingsError, base_of, load, resolve},
    telemetry::TelemetrySettings,
    tls::{ClientCertificate, TlsSettings},
};
use sso_protector::{Kind, Protector, ProtectorError, ProtectorSettings};

/// Where the settings are when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/sso/sso-master.toml";
/// Milliseconds: the shortest and the longest interval between heartbeats.
const HEARTBEAT: std::ops::RangeInclusive<u32> = 100..=60_000;

/// Everything the program is told; paths are resolved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name that servers and other masters are shown.
    pub name: String,
    /// How a keystore that is made here begins; promotions are kept in the keystore.
    #[serde(default)]
    pub role: Role,
    /// The file with the wrapped keys.
    pub keystore: PathBuf,
    /// Where servers and other masters connect to.
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
    /// Who gives the keystore key back, first the one to ask first; each of them is enough.
    pub protector: Vec<ProtectorSettings>,
    /// The SSO servers that may have the master secret.
    #[serde(default)]
    pub server: Vec<ServerEntry>,
    /// The other masters.
    #[serde(default)]
    pub peer: Vec<PeerEntry>,
    /// How the master secret is administered.
    #[serde(default)]
    pub administration: AdministrationSettings,
    /// The SSO administrators who may do that.
    #[serde(default)]
    pub administrator: Vec<AdministratorEntry>,
    /// Backups.
    #[serde(default)]
    pub backup: BackupSettings,
    /// Logs.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// What the operating system is asked to do with the process.
    #[serde(default)]
    pub process: ProcessSettings,
}

/// How a keystore begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// With a master secret generated here.
    #[default]
    Primary,
    /// With what another master has.
    Standby,
}

/// One `[[server]]`: who may have the master secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerEntry {
    /// Its name in logs, and for `sso server revoke`.
    pub name: String,
    /// How its certificate is known.
    pub certificate: CertificateRule,
}

/// One `[[peer]]`: another master of the system.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// What its own settings call it.
    pub name: String,
    /// `https://HOST:PORT`
    pub url: String,
    /// How its certificate is known.
    pub certificate: CertificateRule,
}

/// Section `[administration]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdministrationSettings {
    /// The socket for callers on this machine; none by default.
    pub socket: Option<PathBuf>,
    /// Permission bits of the socket: who may write to it may connect.
    pub socket_mode: u32,
    /// Whether administrators may call over the network, with their certificates.
    pub remote: bool,
}

impl Default for AdministrationSettings {
    fn default() -> Self {
        Self { socket: None, socket_mode: 0o660, remote: false }
    }
}

/// One `[[administrator]]`: an SSO administrator who may administer the master secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdministratorEntry {
    /// Who they are, in logs.
    pub name: String,
    /// The user of this machine that they are at the socket.
    pub user: Option<String>,
    /// How their certificate is known, where the network is allowed.
    pub certificate: Option<CertificateRule>,
}

/// Section `[backup]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSettings {
    /// Where scheduled backups are written; none are by default.
    pub folder: Option<PathBuf>,
    /// Hours between scheduled backups, 1 to 8760.
    pub every_hours: u32,
    /// How many scheduled backups are kept, 1 to 1000.
    pub keep: u32,
    /// A private file with the password of scheduled backups.
    pub password_file: Option<PathBuf>,
    /// A systemd credential with the password of scheduled backups.
    pub credential: Option<String>,
    /// Helps to remember that password.
    pub reminder: String,
    /// Days after which the last backup counts as old, 1 to 3650.
    pub warn_after_days: u32,
    /// Days after which the active generation counts as old, 1 to 3650.
    pub rotate_after_days: u32,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            folder: None,
            every_hours: 24,
            keep: 14,
            password_file: None,
            credential: None,
            reminder: String::new(),
            warn_after_days: 35,
            rotate_after_days: 365,
        }
    }
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
        for protector in &mut settings.protector {
            protector.resolve(&base);
        }
        for path in [
            &mut settings.administration.socket,
            &mut settings.backup.folder,
            &mut settings.backup.password_file,
        ] {
            *path = path.as_deref().map(|path| resolve(&base, path));
        }
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
        if self.protector.is_empty() {
            return Err(refused("protector", "name at least one".into()));
        }
        if self.protector.iter().all(|protector| protector.kind() == Kind::Keyutils) {
            let message = "the kernel forgets at a restart of the machine: name another one too";
            return Err(refused("protector", message.into()));
        }
        for (at, protector) in self.protector.iter().enumerate() {
            protector
                .check()
                .map_err(|(key, message)| refused(&format!("protector[{at}].{key}"), message))?;
        }
        let servers = self.server.iter().map(|server| ("server.name", &server.name));
        let peers = self.peer.iter().map(|peer| ("peer.name", &peer.name));
        let administrators = self.administrator.iter().map(|it| ("administrator.name", &it.name));
        let mut names = HashSet::from([("peer.name", &self.name)]);
        for (key, name) in servers.chain(peers).chain(administrators) {
            if name.trim().is_empty() || !names.insert((key, name)) {
                return Err(refused(key, format!("{name:?} is empty or there twice")));
            }
        }
        for peer in &self.peer {
            if self.server.iter().any(|server| server.name == peer.name) {
                let message = format!("{:?} is the name of a [[server]] too", peer.name);
                return Err(refused("peer.name", message));
            }
            check_address(&peer.url)
                .map_err(|problem| refused("peer.url", format!("{}: {problem}", peer.url)))?;
        }
        if self.role == Role::Standby && self.peer.is_empty() {
            return Err(refused("peer", "name the primary that this standby follows".into()));
        }
        self.check_administration().map_err(|(key, message)| refused(key, message))?;
        self.backup.check().map_err(|(key, message)| refused(key, message))?;
        if self.tls.client_certificate != ClientCertificate::Required {
            let message = "servers prove with their certificates who they are: leave the key out";
            return Err(refused("tls.client_certificate", message.into()));
        }
        self.telemetry.check().map_err(|error| refused("telemetry.log_filter", error.to_string()))
    }
}

impl Settings {
    fn check_administration(&self) -> Result<(), (&'static str, String)> {
        for administrator in &self.administrator {
            if administrator.user.is_none() && administrator.certificate.is_none() {
                let message = format!("{:?} has neither user nor certificate", administrator.name);
                return Err(("administrator", message));
            }
        }
        let with_certificate = self.administrator.iter().any(|it| it.certificate.is_some());
        if self.administration.remote && !with_certificate {
            let message = "no [[administrator]] has a certificate, so nobody could call".to_owned();
            return Err(("administration.remote", message));
        }
        Ok(())
    }

    /// The protectors, first the one to ask first.
    ///
    /// # Errors
    /// When one cannot be used. With `skip_unusable` that is an error only when no other is left.
    pub fn protectors(
        &self,
        skip_unusable: bool,
    ) -> Result<Vec<Box<dyn Protector>>, ProtectorError> {
        sso_protector::protectors(&self.protector, skip_unusable)
    }
}

/// What stands beside the first rule that the certificate fits; `None` when that rule, or one before,
/// cannot say whose it is.
pub(crate) fn first_match<'r, T>(
    rules: impl Iterator<Item = (T, &'r CertificateRule)>,
    certificate: &PeerCertificate,
) -> Option<T> {
    let mut decided = rules.map(|(what, rule)| (what, rule.matches(certificate)));
    let decided = decided.find(|(_, found)| *found != RuleMatch::No);
    decided.filter(|(_, found)| *found != RuleMatch::Ambiguous).map(|(what, _)| what)
}

impl BackupSettings {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("backup.every_hours", self.every_hours, 8760),
            ("backup.keep", self.keep, 1000),
            ("backup.warn_after_days", self.warn_after_days, 3650),
            ("backup.rotate_after_days", self.rotate_after_days, 3650),
        ];
        for (key, value, most) in ranges {
            if !(1..=most).contains(&value) {
                return Err((key, format!("{value} is outside its range, 1 to {most}")));
            }
        }
        match (&self.folder, &self.password_file, &self.credential) {
            (_, Some(_), Some(_)) => {
                Err(("backup.credential", "not together with password_file: keep one".to_owned()))
            }
            (Some(_), None, None) => {
                Err(("backup.password_file", "scheduled backups need a password".to_owned()))
            }
            _ => Ok(()),
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
[[protector]]
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
        assert_eq!(settings.protector[0].kind(), Kind::Passphrase);
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
                "protector[0].credential",
            ),
            ("kind = \"passphrase\"", "kind = \"pkcs\"", "pkcs"),
            (
                "kind = \"passphrase\"\npassphrase_file = \"master.passphrase\"",
                "kind = \"keyutils\"",
                "protector: the kernel forgets",
            ),
            ("[telemetry]", "[telemetry]\ncolour = 1", "colour"),
            ("log_filter = \"info\"", "log_filter = \"a=loud\"", "telemetry.log_filter"),
            (
                "[[server]]",
                "[[server]]\nname = \"sso-server-1\"\ncertificate = { san_dns = \"a\" }\n[[server]]",
                "server.name",
            ),
            ("name = \"sso-master\"", "", "name"),
            (
                "[[server]]",
                "[[peer]]\nname = \"sso-server-1\"\nurl = \"https://a:1\"\ncertificate = { san_dns = \"a\" }\n[[server]]",
                "peer.name",
            ),
            ("[tls]", "[tls]\nclient_certificate = \"optional\"", "tls.client_certificate"),
        ] {
            assert!(GOOD.contains(from));
            let error = loaded(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(key) && error.contains("sso-master.toml"), "{error}");
        }
    }
}
