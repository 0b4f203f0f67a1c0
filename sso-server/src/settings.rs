//! The settings of an SSO server: one strict TOML file, read and checked before anything is bound.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sso_core::{
    process::ProcessSettings,
    secret::SecretText,
    serving::ConnectionAge,
    settings::{self, SettingsError, resolve},
    telemetry::TelemetrySettings,
    tls::{ClientCertificate, TlsSettings},
};

use crate::{
    api::QuotaSettings,
    assertion::AssertionSettings,
    audit::{AuditSection, AuditSettings},
    cache::CacheSettings,
    error::Error,
    identity::{Identity, IdentitySection},
    master::MasterSettings,
    model::{Accounts, GlobalInfo},
    reseal::ResealSettings,
    storage::{DatabaseSettings, DatabaseUrl},
};

/// Everything that says how this process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the file is.
    pub path: PathBuf,
    /// Name of the server, unique in the system.
    pub name: String,
    /// Where clients are listened for.
    pub listen: SocketAddr,
    /// Where clients on this machine are listened for besides; nowhere if absent.
    pub listen_unix: Option<PathBuf>,
    /// The permissions of that socket: who may write may connect.
    pub listen_unix_mode: u32,
    /// What other servers and clients are told as its address; the one listened on if absent.
    pub address: Option<String>,
    /// Where `/livez`, `/readyz` and `/metrics` are served; nowhere if absent.
    pub operations_listen: Option<SocketAddr>,
    /// Serve `grpc.reflection`.
    pub reflection: bool,
    /// Requests that wait for something at once; more are refused.
    pub max_requests: usize,
    /// Threads that serve connections; as many as there are processors if absent.
    pub lanes: Option<NonZeroUsize>,
    /// How long connections last.
    pub connection_age: ConnectionAge,
    /// How long requests in work may go on when the server stops.
    pub stop_grace: Duration,
    /// Certificates.
    pub tls: TlsSettings,
    /// Where the data are.
    pub database: DatabaseSettings,
    /// Bring the schema up to date at start.
    pub migrate: bool,
    /// Where the keys come from.
    pub master: MasterSettings,
    /// How reveals and denials are recorded.
    pub audit: AuditSettings,
    /// How values are sealed again after a rotation.
    pub reseal: ResealSettings,
    /// How much is remembered.
    pub cache: CacheSettings,
    /// How often one account may ask.
    pub quota: QuotaSettings,
    /// Who clients are.
    pub identity: Identity,
    /// The administrators of a new system.
    pub initial: GlobalInfo,
    /// Whom signed assertions are from and for; none are signed if absent.
    pub assertion: Option<AssertionSettings>,
    /// Logs.
    pub telemetry: TelemetrySettings,
    /// Relation to the parent process.
    pub process: ProcessSettings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    listen: SocketAddr,
    listen_unix: Option<PathBuf>,
    #[serde(default = "default_unix_mode")]
    listen_unix_mode: u32,
    address: Option<String>,
    operations_listen: Option<SocketAddr>,
    #[serde(default)]
    reflection: bool,
    #[serde(default = "default_max_requests")]
    max_requests: usize,
    lanes: Option<NonZeroUsize>,
    connection_age_seconds: Option<u64>,
    #[serde(default = "default_stop_grace")]
    stop_grace_seconds: u64,
    tls: TlsSettings,
    database: DatabaseSection,
    master: MasterSettings,
    #[serde(default)]
    audit: AuditSection,
    #[serde(default)]
    reseal: ResealSettings,
    #[serde(default)]
    cache: CacheSettings,
    #[serde(default)]
    quota: QuotaSettings,
    identity: IdentitySection,
    initial: InitialSection,
    assertion: Option<AssertionSettings>,
    #[serde(default)]
    telemetry: TelemetrySettings,
    #[serde(default)]
    process: ProcessSettings,
}

fn default_unix_mode() -> u32 {
    0o660
}

fn default_max_requests() -> usize {
    1024
}

fn default_stop_grace() -> u64 {
    10
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseSection {
    url: String,
    password_file: Option<PathBuf>,
    password_credential: Option<String>,
    max_connections: Option<u32>,
    connect_deadline_seconds: Option<u64>,
    #[serde(default = "yes")]
    migrate: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InitialSection {
    sso_administrators: Vec<String>,
    #[serde(default)]
    affiliate_administrators: Vec<String>,
    #[serde(default)]
    trusted_hosts: Vec<String>,
    #[serde(default)]
    configuration_readers: Vec<String>,
    #[serde(default)]
    auditors: Vec<String>,
}

impl Settings {
    /// Reads and checks the file, and what it names: the password and the groups.
    ///
    /// # Errors
    /// Names the file, the key and what to do.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let mut file: File = settings::load(path)?;
        let base = settings::base_of(path);
        let refused = |key: &str, why: String| SettingsError::refused(path, key, why);
        if file.name.is_empty()
            || !file.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            let why = "must be letters, digits, dots, dashes and underscores".to_owned();
            return Err(refused("name", why));
        }
        file.telemetry
            .check()
            .map_err(|error| refused("telemetry.log_filter", error.to_string()))?;
        file.master.check().map_err(|(key, why)| refused(&format!("master.{key}"), why))?;
        file.master.resolve(&base);
        file.reseal.check().map_err(|(key, why)| refused(&format!("reseal.{key}"), why))?;
        file.cache.check().map_err(|(key, why)| refused(&format!("cache.{key}"), why))?;
        let assertion = file.assertion.as_ref().map_or(Ok(()), AssertionSettings::check);
        assertion.map_err(|(key, why)| refused(&format!("assertion.{key}"), why))?;
        let database = database(&file.database, &base, path)?;
        let audit = file.audit.build(&base, &database.url);
        let audit = audit.map_err(|(key, why)| refused(&format!("audit.{key}"), why))?;
        let migrate = file.database.migrate;
        let development = file.tls.allow_development;
        let identity = std::mem::take(&mut file.identity).build(&base, path, development)?;
        check_sources(&file, &identity).map_err(|(key, why)| refused(key, why))?;
        let over_tls = file.tls.client_certificate == ClientCertificate::Optional;
        let identity = identity.with_tokens_over_tls(over_tls);
        let initial = initial(&file.initial).map_err(|error| refused("initial", error.message))?;
        Ok(Self {
            path: path.to_owned(),
            name: file.name,
            listen: file.listen,
            listen_unix: file.listen_unix.map(|socket| resolve(&base, &socket)),
            listen_unix_mode: file.listen_unix_mode,
            address: file.address,
            operations_listen: file.operations_listen,
            reflection: file.reflection,
            max_requests: file.max_requests.max(1),
            lanes: file.lanes,
            connection_age: connection_age(file.connection_age_seconds),
            stop_grace: Duration::from_secs(file.stop_grace_seconds),
            tls: file.tls.resolve(&base),
            database,
            migrate,
            master: file.master,
            audit,
            reseal: file.reseal,
            cache: file.cache,
            quota: file.quota,
            identity,
            initial,
            assertion: file.assertion,
            telemetry: file.telemetry,
            process: file.process,
        })
    }
}

/// 0 stands for no limit.
fn connection_age(seconds: Option<u64>) -> ConnectionAge {
    let default = ConnectionAge::default();
    let most = seconds.map_or(default.most, |seconds| {
        Some(Duration::from_secs(seconds)).filter(|most| !most.is_zero())
    });
    ConnectionAge { most, ..default }
}

fn database(
    section: &DatabaseSection,
    base: &Path,
    path: &Path,
) -> Result<DatabaseSettings, SettingsError> {
    let url = DatabaseUrl::parse(&section.url)
        .map_err(|error| SettingsError::refused(path, "database.url", error.to_string()))?;
    let mut settings = DatabaseSettings::new(url.resolve(base));
    let password_file = section.password_file.as_ref().map(|file| resolve(base, file));
    let password = settings::credential_or_file(
        section.password_credential.as_deref(),
        password_file.as_deref(),
    )?;
    settings.password = password.as_ref().map(SecretText::from_utf8).transpose().map_err(|_| {
        let why = "the password is not UTF-8".to_owned();
        SettingsError::refused(path, "database.password_file", why)
    })?;
    if let Some(most) = section.max_connections {
        settings.max_connections = most;
    }
    if let Some(seconds) = section.connect_deadline_seconds {
        settings.connect_deadline = Duration::from_secs(seconds);
    }
    Ok(settings)
}

/// Whether certificates, tokens and the socket go together.
fn check_sources(file: &File, identity: &Identity) -> Result<(), (&'static str, String)> {
    if file.listen_unix_mode & !0o777 != 0 {
        return Err(("listen_unix_mode", "write permissions like 0o660".to_owned()));
    }
    let optional = file.tls.client_certificate == ClientCertificate::Optional;
    if optional && !identity.has_tokens() {
        let why = "\"optional\" lets in who shows no certificate, and there is no \
                   [[identity.token]] to know them by";
        return Err(("tls.client_certificate", why.to_owned()));
    }
    if identity.has_unix() && file.listen_unix.is_none() {
        return Err(("listen_unix", "is needed for [[identity.unix]]: name a socket".to_owned()));
    }
    if file.listen_unix.is_some() && !identity.has_unix() && !identity.has_tokens() {
        let why = "nobody is known there: add [[identity.unix]] or [[identity.token]]";
        return Err(("listen_unix", why.to_owned()));
    }
    Ok(())
}

fn initial(section: &InitialSection) -> Result<GlobalInfo, Error> {
    let accounts = |part: &str, texts: &[String]| {
        Accounts::parse(texts)
            .map_err(|error| Error::new(error.reason, format!("{part}: {}", error.message)))
    };
    let initial = GlobalInfo {
        trusted_hosts: accounts("trusted_hosts", &section.trusted_hosts)?,
        configuration_readers: accounts("configuration_readers", &section.configuration_readers)?,
        auditors: accounts("auditors", &section.auditors)?,
        ..GlobalInfo::initial(
            accounts("sso_administrators", &section.sso_administrators)?,
            accounts("affiliate_administrators", &section.affiliate_administrators)?,
        )
    };
    initial.check()?;
    Ok(initial)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 1
name = "sso-server-1"
listen = "127.0.0.1:7400"
[tls]
certificate = "tls/server.crt"
key = "tls/server.key"
ca = "tls/ca.crt"
[database]
url = "sqlite:sso.db"
[master]
url = "https://127.0.0.1:7410"
[identity]
domains = ["DEV"]
[[identity.certificate]]
san_uri = "sso://DEV/*"
account = 'DEV\*'
[initial]
sso_administrators = ['DEV\SSO Administrators']
"#;

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sso-server.toml");
        std::fs::write(&path, text).unwrap();
        Settings::load(&path)
    }

    #[test]
    fn good_settings_have_the_documented_defaults() {
        let settings = load(GOOD).unwrap();
        assert_eq!(settings.master.poll_seconds, 30);
        assert_eq!(settings.master.read_lease_seconds, 43_200);
        assert!(settings.migrate && !settings.reflection);
        assert!(settings.tls.certificate.is_absolute());
    }

    #[test]
    fn a_new_system_begins_with_the_accounts_of_the_settings() {
        let initial = "[initial]\ntrusted_hosts = ['DEV\\host']\nauditors = ['DEV\\Audit']\n\
                       configuration_readers = ['DEV\\Readers']";
        let settings = load(&GOOD.replace("[initial]", initial)).unwrap().initial;
        assert_eq!(settings.trusted_hosts.to_texts(), ["DEV\\host"]);
        assert_eq!(settings.configuration_readers.to_texts(), ["DEV\\Readers"]);
        assert_eq!(settings.auditors.to_texts(), ["DEV\\Audit"]);
        assert_eq!(load(GOOD).unwrap().initial.trusted_hosts, Accounts::default());
    }

    #[test]
    fn each_fault_is_named() {
        for (from, to, named) in [
            ("listen =", "listn =", "listn"),
            ("name = \"sso-server-1\"", "name = \"a b\"", "name"),
            ("https://127", "http://127", "master.url"),
            ("sqlite:sso.db", "mysql://x", "database.url"),
            ("account = 'DEV\\*'", "account = 'CORP\\*'", "identity.certificate[0].account"),
            ("san_uri = \"sso://DEV/*\"", "san_uri = \"*\"", "identity.certificate[0]"),
            ("['DEV\\SSO Administrators']", "['Everyone']", "initial"),
            ("['DEV\\SSO Administrators']", "[]", "initial"),
            ("[initial]", "[initial]\ntrusted_hosts = ['Everyone']", "initial: trusted_hosts"),
            ("[initial]", "[initial]\nauditor = ['DEV\\A']", "auditor"),
            ("version = 1", "version = 9", "version"),
            ("[tls]", "[tls]\nclient_certificate = \"optional\"", "tls.client_certificate"),
            ("[tls]", "[tls]\nclient_certificate = \"maybe\"", "maybe"),
            ("[tls]", "listen_unix = \"run/sso.sock\"\n[tls]", "listen_unix"),
            ("[initial]", "[[identity.unix]]\ndomain = \"HOST\"\n[initial]", "listen_unix"),
            ("[tls]", "listen_unix_mode = 0o1777\n[tls]", "listen_unix_mode"),
            ("[database]", "[database]\npassword = 'x'", "password"),
            ("[database]", "[reseal]\nbatch_rows = 0\n[database]", "reseal.batch_rows"),
            ("[database]", "[reseal]\nrows = 1\n[database]", "rows"),
            ("[database]", "[audit]\njournal_max_mb = 0\n[database]", "audit.journal_max_mb"),
            ("[database]", "[audit]\nmode = 'never'\n[database]", "never"),
            ("[database]", "[cache]\nmegabytes = 0\n[database]", "cache.megabytes"),
            (
                "[database]",
                "[assertion]\nissuer = 'x'\naudiences = []\n[database]",
                "assertion.audiences",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
