//! Where the service is and who calls: profiles. The only room of this crate that reads the
//! environment.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sso_core::{
    connector::{ClientTls, local_path},
    settings::{self, SettingsError},
    tls::{
        ListSource, ListSourceError, RevocationPolicy, TlsError, TlsSettings, TlsVersion,
        TrustSettings, one_or_more,
    },
};

use crate::certificates::probe::Target;

/// The folder of what holds for everybody on this machine.
const MACHINE_CONFIG: &str = "/etc/sso";

/// An address and the files that prove who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `https://HOST:PORT`, or `unix:///PATH` of a socket on this machine.
    pub addr: String,
    /// PEM file of the authorities the server's certificate may come from. A socket needs none.
    pub ca: Option<PathBuf>,
    /// PEM file of the caller's certificate chain; `None` for a caller with a token or at a socket.
    pub cert: Option<PathBuf>,
    /// PEM file of the caller's private key; no other user may read it.
    pub key: Option<PathBuf>,
    /// File with a bearer token, read again for every call; no other user may read it.
    pub token_file: Option<PathBuf>,
    /// The passphrase of an encrypted private key; no other user may read the file.
    pub key_passphrase_file: Option<PathBuf>,
    /// Revocation lists, one of every authority. Without any nothing is checked for revocation.
    pub crl: Vec<ListSource>,
    /// What becomes of a server of which nobody can say whether its certificate is revoked; `None`: it is
    /// refused where there are lists.
    pub revocation: Option<RevocationPolicy>,
    /// The oldest version of TLS spoken.
    pub minimum_version: TlsVersion,
    /// Folder for the last good list of each URL.
    pub crl_cache: Option<PathBuf>,
    /// Whether certificates made by `sso dev` are accepted. Only for development.
    pub allow_development: bool,
}

/// What stands on the command line; it goes before everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Name of a profile.
    pub profile: Option<String>,
    /// `https://HOST:PORT`
    pub addr: Option<String>,
    /// PEM file.
    pub ca: Option<PathBuf>,
    /// PEM file.
    pub cert: Option<PathBuf>,
    /// PEM file.
    pub key: Option<PathBuf>,
    /// Revocation lists.
    pub crl: Vec<ListSource>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// `unix:///PATH` or `https://HOST:PORT` of a master secret server.
    pub master: Option<String>,
}

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `SSO_PROFILE`
    pub profile: Option<String>,
    /// `SSO_ADDR`
    pub addr: Option<String>,
    /// `SSO_CA`
    pub ca: Option<PathBuf>,
    /// `SSO_CERT`
    pub cert: Option<PathBuf>,
    /// `SSO_KEY`
    pub key: Option<PathBuf>,
    /// `SSO_CRL`: one file or URL.
    pub crl: Option<PathBuf>,
    /// `SSO_TOKEN_FILE`
    pub token_file: Option<PathBuf>,
    /// `SSO_MASTER`
    pub master: Option<String>,
    /// `SSO_CONFIG`: the profiles file.
    pub config: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `SSO_MACHINE_CONFIG`, else `/etc/sso`: what holds for everybody on this machine.
    pub machine_config: Option<PathBuf>,
    /// Whether `NO_COLOR` is set to anything.
    pub no_color: bool,
}

/// Why no profile could be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The profiles file is missing although it is needed, or malformed.
    #[error(transparent)]
    File(#[from] SettingsError),
    /// A profile was named, but no profiles file is to be found.
    #[error(
        "profile '{name}' was named, but there is no profiles file{}: set SSO_CONFIG to yours; 'sso dev' \
         prints the line that sets it to that of its system",
        at.as_ref().map(|at| format!(" {}", at.display())).unwrap_or_default()
    )]
    NoFile {
        /// The profile that was asked for.
        name: String,
        /// Where it was looked for; `None` where there is no home either.
        at: Option<PathBuf>,
    },
    /// The profiles file has no such profile.
    #[error("{}: there is no profile '{name}'; there are: {known}", file.display())]
    Unknown {
        /// The profiles file.
        file: PathBuf,
        /// The profile that was asked for.
        name: String,
        /// The names it has.
        known: String,
    },
    /// Nothing says where the master secret server is.
    #[error(
        "no address of a master secret server: give --master, the key 'master' in a profile \
         (--profile or SSO_PROFILE), or SSO_MASTER; on its own machine that is unix:// and the path of \
         [administration] socket in its settings"
    )]
    MasterMissing,
    /// Nothing says this.
    #[error(
        "no {what}: give --{option}, a profile (--profile or SSO_PROFILE) that has it, or {variable}"
    )]
    Missing {
        /// What is missing, in words.
        what: &'static str,
        /// The option that gives it.
        option: &'static str,
        /// The environment variable that gives it.
        variable: &'static str,
    },
    /// The file that remembers a server is not usable.
    #[error("{}: {problem}; it holds the address of a server: set it anew with ssomanage -server", file.display())]
    Remembered {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, in words.
        problem: String,
    },
    /// A variable of the environment is not text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// What `SSO_CRL` says is no revocation list.
    #[error("SSO_CRL: {0}")]
    List(#[from] ListSourceError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfilesFile {
    default: Option<String>,
    #[serde(default)]
    profile: BTreeMap<String, ProfileEntry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileEntry {
    addr: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    key_passphrase_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "one_or_more")]
    crl: Vec<ListSource>,
    revocation: Option<RevocationPolicy>,
    minimum_version: Option<TlsVersion>,
    crl_cache: Option<PathBuf>,
    token_file: Option<PathBuf>,
    master: Option<String>,
    #[serde(default)]
    allow_development: bool,
}

impl Profile {
    /// A profile from its parts.
    #[must_use]
    pub fn new(
        addr: impl Into<String>,
        ca: impl Into<PathBuf>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        Self {
            addr: addr.into(),
            ca: Some(ca.into()),
            cert: Some(cert.into()),
            key: Some(key.into()),
            key_passphrase_file: None,
            token_file: None,
            crl: Vec::new(),
            revocation: None,
            minimum_version: TlsVersion::default(),
            crl_cache: None,
            allow_development: false,
        }
    }

    /// The profile of this name, or the one that the environment chooses, exactly as the `sso`
    /// command does it.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn load(name: Option<&str>) -> Result<Self, ProfileError> {
        let overrides = Overrides { profile: name.map(str::to_owned), ..Overrides::default() };
        Self::resolve(&overrides, &Environment::read())
    }

    /// Puts a profile together. For each item the first that has it wins: the command line, the
    /// profile named there or by `SSO_PROFILE`, the `SSO_…` variables, the default profile; for the
    /// address at last the server that is remembered for the user or for the machine.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn resolve(overrides: &Overrides, environment: &Environment) -> Result<Self, ProfileError> {
        Self::put_together(overrides, environment, environment.entries(overrides)?)?.checked()
    }

    fn put_together(
        overrides: &Overrides,
        environment: &Environment,
        (named, default): (ProfileEntry, ProfileEntry),
    ) -> Result<Self, ProfileError> {
        let path = |flag: &Option<PathBuf>, named: Option<PathBuf>, variable: &Option<PathBuf>| {
            flag.clone().or(named).or_else(|| variable.clone())
        };
        let missing = |what, option, variable| ProfileError::Missing { what, option, variable };
        let (certificate_from, token_from) = (
            first([
                overrides.cert.is_some() || overrides.key.is_some(),
                named.cert.is_some() || named.key.is_some(),
                environment.cert.is_some() || environment.key.is_some(),
                default.cert.is_some() || default.key.is_some(),
            ]),
            first([
                overrides.token_file.is_some(),
                named.token_file.is_some(),
                environment.token_file.is_some(),
                default.token_file.is_some(),
            ]),
        );
        let key_from = first([
            overrides.key.is_some(),
            named.key.is_some(),
            environment.key.is_some(),
            default.key.is_some(),
        ]);
        let from_variable = environment.crl.as_deref().map(list_source).transpose()?;
        let crl = [overrides.crl.clone(), named.crl, Vec::from_iter(from_variable), default.crl]
            .into_iter()
            .find(|lists| !lists.is_empty())
            .unwrap_or_default();
        let profile = Self {
            addr: overrides
                .addr
                .clone()
                .or(named.addr)
                .or_else(|| environment.addr.clone())
                .or(default.addr)
                .map_or_else(|| environment.remembered_by_anybody(), |addr| Ok(Some(addr)))?
                .ok_or_else(|| missing("address of a server", "addr", "SSO_ADDR"))?,
            ca: path(&overrides.ca, named.ca, &environment.ca).or(default.ca),
            cert: path(&overrides.cert, named.cert, &environment.cert).or(default.cert),
            key: path(&overrides.key, named.key, &environment.key).or(default.key),
            token_file: path(&overrides.token_file, named.token_file, &environment.token_file)
                .or(default.token_file),
            // The passphrase goes with the key; another key may have another one, or none.
            key_passphrase_file: match key_from {
                NAMED => named.key_passphrase_file,
                DEFAULT => default.key_passphrase_file,
                _ => None,
            },
            crl,
            revocation: named.revocation.or(default.revocation),
            minimum_version: named.minimum_version.or(default.minimum_version).unwrap_or_default(),
            crl_cache: named.crl_cache.or(default.crl_cache),
            allow_development: named.allow_development || default.allow_development,
        };
        Ok(profile.with_one_identity(certificate_from, token_from))
    }

    /// The same for a look at the server at `addr`, wherever the profile itself points to: it takes
    /// authorities to trust, and nothing else has to be there.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn resolve_check(
        addr: &Target,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ProfileError> {
        let addr = Some(format!("https://{addr}"));
        let overrides = Overrides { addr, ..overrides.clone() };
        let profile =
            Self::put_together(&overrides, environment, environment.entries(&overrides)?)?;
        match (&profile.ca, &profile.cert, &profile.key) {
            (None, ..) => Err(CA_MISSING),
            (_, Some(_), None) => Err(KEY_MISSING),
            (_, None, Some(_)) => Err(CERTIFICATE_MISSING),
            (_, Some(_), Some(_)) | (_, None, None) => Ok(profile),
        }
    }

    /// The same for a master secret server, whose address is on the command line, in the named profile
    /// (key `master`), in `SSO_MASTER` or in the default profile. It knows certificates and the users
    /// of its machine; tokens mean nothing to it and are not sent.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn resolve_master(
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ProfileError> {
        let (mut named, mut default) = environment.entries(overrides)?;
        let master = overrides
            .master
            .clone()
            .or_else(|| named.master.take())
            .or_else(|| environment.master.clone())
            .or_else(|| default.master.take())
            .ok_or(ProfileError::MasterMissing)?;
        let overrides = Overrides { addr: Some(master), token_file: None, ..overrides.clone() };
        let environment = Environment { token_file: None, ..environment.clone() };
        (named.token_file, default.token_file) = (None, None);
        Self::put_together(&overrides, &environment, (named, default))?.checked()
    }

    /// Without the certificate where a token was named before it, and the other way round: a request
    /// with both would be refused.
    fn with_one_identity(mut self, certificate: usize, token: usize) -> Self {
        match certificate.cmp(&token) {
            Ordering::Less => self.token_file = None,
            Ordering::Greater => (self.cert, self.key) = (None, None),
            Ordering::Equal => {}
        }
        self
    }

    /// The same, if it has what its address needs.
    fn checked(self) -> Result<Self, ProfileError> {
        let has_certificate = self.cert.is_some() || self.key.is_some();
        if local_path(&self.addr).is_some() {
            return Ok(self);
        }
        if self.ca.is_none() {
            return Err(CA_MISSING);
        }
        if self.cert.is_none() && (has_certificate || self.token_file.is_none()) {
            return Err(CERTIFICATE_MISSING);
        }
        if self.key.is_none() && has_certificate {
            return Err(KEY_MISSING);
        }
        Ok(self)
    }

    /// The certificates as the TLS room wants them.
    pub(crate) fn tls(&self) -> Result<ClientTls, TlsError> {
        let trust = self.trust();
        match (self.cert.clone(), self.key.clone()) {
            (Some(certificate), Some(key)) => ClientTls::load(&TlsSettings {
                key_passphrase_file: self.key_passphrase_file.clone(),
                ..TlsSettings::with_trust(certificate, key, trust)
            }),
            _ => ClientTls::without_certificate(&trust),
        }
    }

    /// Whom a caller with this profile trusts.
    #[must_use]
    pub fn trust(&self) -> TrustSettings {
        TrustSettings {
            crl: self.crl.clone(),
            revocation: self.revocation,
            minimum_version: self.minimum_version,
            crl_cache: self.crl_cache.clone(),
            allow_development: self.allow_development,
            ..TrustSettings::new(self.ca.clone().unwrap_or_default())
        }
    }
}

/// A path as it is, where it is no address.
fn list_source(text: &Path) -> Result<ListSource, ListSourceError> {
    text.to_str().map_or_else(|| Ok(ListSource::File(text.to_owned())), str::parse)
}

/// The places of [`first`] that are a profile.
const NAMED: usize = 1;
const DEFAULT: usize = 3;

const CA_MISSING: ProfileError =
    ProfileError::Missing { what: "certificate authority", option: "ca", variable: "SSO_CA" };
const CERTIFICATE_MISSING: ProfileError =
    ProfileError::Missing { what: "client certificate", option: "cert", variable: "SSO_CERT" };
const KEY_MISSING: ProfileError =
    ProfileError::Missing { what: "private key", option: "key", variable: "SSO_KEY" };

/// Which of the places has it first; behind all of them where none has.
fn first(places: [bool; 4]) -> usize {
    places.iter().position(|has| *has).unwrap_or(places.len())
}

impl Environment {
    /// What the environment of this process says. Empty variables count as unset.
    #[must_use]
    pub fn read() -> Self {
        Self::from_lookup(variable)
    }

    fn from_lookup(lookup: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let text = |name| lookup(name).map(|value: OsString| value.to_string_lossy().into_owned());
        let path = |name| lookup(name).map(PathBuf::from);
        Self {
            profile: text("SSO_PROFILE"),
            addr: text("SSO_ADDR"),
            ca: path("SSO_CA"),
            cert: path("SSO_CERT"),
            key: path("SSO_KEY"),
            crl: path("SSO_CRL"),
            token_file: path("SSO_TOKEN_FILE"),
            master: text("SSO_MASTER"),
            config: path("SSO_CONFIG"),
            config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
            machine_config: path("SSO_MACHINE_CONFIG").or_else(|| Some(MACHINE_CONFIG.into())),
            no_color: lookup("NO_COLOR").is_some(),
        }
    }

    /// The profiles file, whether it exists or not.
    #[must_use]
    pub fn profiles_file(&self) -> Option<PathBuf> {
        let file = || self.user_folder().map(|folder| folder.join("profiles.toml"));
        self.config.clone().or_else(file)
    }

    /// The folder of the user's own settings, whether it exists or not.
    pub(crate) fn user_folder(&self) -> Option<PathBuf> {
        let home = || self.home.as_deref().map(|home| home.join(".config"));
        let folder = self.config_home.clone().filter(|path| path.is_absolute()).or_else(home);
        folder.map(|folder| folder.join("sso"))
    }

    /// The profiles file; `None` where it does not exist, unless `SSO_CONFIG` points to it.
    fn profiles_to_read(&self) -> Option<PathBuf> {
        // Of one that may not be looked at, reading says so.
        let there = |file: &PathBuf| self.config.is_some() || file.try_exists().unwrap_or(true);
        self.profiles_file().filter(there)
    }

    fn named(&self, name: &str) -> Result<ProfileEntry, ProfileError> {
        let Some(file) = self.profiles_to_read() else {
            return Err(ProfileError::NoFile { name: name.to_owned(), at: self.profiles_file() });
        };
        entry(&file, settings::load(&file)?, name)
    }

    /// The entry of the profile that is named, and that of the default one; at most one of them says
    /// anything.
    fn entries(&self, overrides: &Overrides) -> Result<(ProfileEntry, ProfileEntry), ProfileError> {
        Ok(match overrides.profile.as_ref().or(self.profile.as_ref()) {
            Some(name) => (self.named(name)?, ProfileEntry::default()),
            None => (ProfileEntry::default(), self.default_profile()?),
        })
    }

    /// What the file says without being asked for a name; a missing file says nothing, unless
    /// `SSO_CONFIG` points to it.
    fn default_profile(&self) -> Result<ProfileEntry, ProfileError> {
        let Some(file) = self.profiles_to_read() else { return Ok(ProfileEntry::default()) };
        let profiles: ProfilesFile = settings::load(&file)?;
        match profiles.default.clone() {
            Some(name) => entry(&file, profiles, &name),
            None => Ok(ProfileEntry::default()),
        }
    }
}

fn entry(
    file: &Path,
    mut profiles: ProfilesFile,
    name: &str,
) -> Result<ProfileEntry, ProfileError> {
    let Some(entry) = profiles.profile.remove(name) else {
        let known: Vec<_> = profiles.profile.keys().map(String::as_str).collect();
        return Err(ProfileError::Unknown {
            file: file.to_owned(),
            name: name.to_owned(),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
        });
    };
    let base = settings::base_of(file);
    let resolve = |path: Option<PathBuf>| path.map(|path| settings::resolve(&base, &path));
    Ok(ProfileEntry {
        addr: entry.addr,
        ca: resolve(entry.ca),
        cert: resolve(entry.cert),
        key: resolve(entry.key),
        key_passphrase_file: resolve(entry.key_passphrase_file),
        crl: entry.crl.iter().map(|source| source.resolve(&base)).collect(),
        revocation: entry.revocation,
        minimum_version: entry.minimum_version,
        crl_cache: resolve(entry.crl_cache),
        token_file: resolve(entry.token_file),
        master: entry.master,
        allow_development: entry.allow_development,
    })
}

#[expect(clippy::disallowed_methods, reason = "the room of this crate that reads the environment")]
fn variable(name: &'static str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
