//! The settings of an SSO server: one strict TOML file, read and checked before anything is bound.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sso_core::{
    peer::CertificateRule,
    process::ProcessSettings,
    secret::SecretText,
    settings::{self, SettingsError, resolve},
    telemetry::TelemetrySettings,
    tls::TlsSettings,
};

use crate::{
    error::Error,
    groups::Groups,
    identity::{AccountRule, Identity},
    master::MasterSettings,
    model::{Accounts, GlobalInfo},
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
    /// What other servers and clients are told as its address; the one listened on if absent.
    pub address: Option<String>,
    /// Where `/livez`, `/readyz` and `/metrics` are served; nowhere if absent.
    pub operations_listen: Option<SocketAddr>,
    /// Serve `grpc.reflection`.
    pub reflection: bool,
    /// Requests in work at once; more are refused.
    pub max_requests: usize,
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
    /// Who clients are.
    pub identity: Identity,
    /// The administrators of a new system.
    pub initial: GlobalInfo,
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
    address: Option<String>,
    operations_listen: Option<SocketAddr>,
    #[serde(default)]
    reflection: bool,
    #[serde(default = "default_max_requests")]
    max_requests: usize,
    #[serde(default = "default_stop_grace")]
    stop_grace_seconds: u64,
    tls: TlsSettings,
    database: DatabaseSection,
    master: MasterSettings,
    identity: IdentitySection,
    initial: InitialSection,
    #[serde(default)]
    telemetry: TelemetrySettings,
    #[serde(default)]
    process: ProcessSettings,
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
struct IdentitySection {
    domains: Vec<String>,
    groups_file: Option<PathBuf>,
    #[serde(default)]
    certificate: Vec<RuleSection>,
}

// `deny_unknown_fields` and `flatten` do not go together, so the parts of a rule stand here again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    san_uri: Option<String>,
    san_email: Option<String>,
    san_dns: Option<String>,
    subject_common_name: Option<String>,
    fingerprint: Option<String>,
    account: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InitialSection {
    sso_administrators: Vec<String>,
    #[serde(default)]
    affiliate_administrators: Vec<String>,
}

impl Settings {
    /// Reads and checks the file, and what it names: the password and the groups.
    ///
    /// # Errors
    /// Names the file, the key and what to do.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let file: File = settings::load(path)?;
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
        let database = database(&file.database, &base, path)?;
        let migrate = file.database.migrate;
        let identity = identity(file.identity, &base, path)?;
        let initial = initial(&file.initial).map_err(|error| refused("initial", error.message))?;
        Ok(Self {
            path: path.to_owned(),
            name: file.name,
            listen: file.listen,
            address: file.address,
            operations_listen: file.operations_listen,
            reflection: file.reflection,
            max_requests: file.max_requests.max(1),
            stop_grace: Duration::from_secs(file.stop_grace_seconds),
            tls: file.tls.resolve(&base),
            database,
            migrate,
            master: file.master,
            identity,
            initial,
            telemetry: file.telemetry,
            process: file.process,
        })
    }
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

fn identity(section: IdentitySection, base: &Path, path: &Path) -> Result<Identity, SettingsError> {
    let refused = |key: String, why: String| SettingsError::refused(path, key, why);
    let mut domains = BTreeSet::new();
    for domain in &section.domains {
        // A domain is what stands before the backslash of an account.
        let account = crate::model::Account::parse(&format!("{domain}\\x"))
            .map_err(|error| refused("identity.domains".to_owned(), error.message))?;
        domains.extend(account.domain().map(str::to_owned));
    }
    let mut rules = Vec::with_capacity(section.certificate.len());
    for (number, rule) in section.certificate.into_iter().enumerate() {
        let key = format!("identity.certificate[{number}]");
        let (account, rule) =
            rule.split().map_err(|error| refused(key.clone(), error.to_string()))?;
        let rule = AccountRule::new(rule, &account, &domains)
            .map_err(|error| refused(format!("{key}.account"), error.message))?;
        rules.push(rule);
    }
    let file = section.groups_file.map(|file| resolve(base, &file));
    let groups = Groups::load(file.as_deref())?;
    Ok(Identity::new(rules, domains, groups))
}

impl RuleSection {
    fn split(self) -> Result<(String, CertificateRule), sso_core::peer::RuleError> {
        use sso_core::peer::CertificatePart as Part;
        let rule = CertificateRule::new([
            (Part::SanUri, self.san_uri),
            (Part::SanEmail, self.san_email),
            (Part::SanDns, self.san_dns),
            (Part::SubjectCommonName, self.subject_common_name),
            (Part::Fingerprint, self.fingerprint),
        ])?;
        Ok((self.account, rule))
    }
}

fn initial(section: &InitialSection) -> Result<GlobalInfo, Error> {
    let initial = GlobalInfo::initial(
        Accounts::parse(&section.sso_administrators)?,
        Accounts::parse(&section.affiliate_administrators)?,
    );
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
            ("version = 1", "version = 9", "version"),
            ("[database]", "[database]\npassword = 'x'", "password"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
