//! What the settings of a program say about TLS: files, lists, and how strict to be.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use super::TlsError;
use crate::settings::resolve;

/// How often revocation lists are fetched again unless the settings say otherwise.
const CRL_REFRESH: Duration = Duration::from_secs(3600);
/// The least and the most of it.
const CRL_REFRESH_SECONDS: std::ops::RangeInclusive<u64> = 1..=7 * 86_400;

/// Section `[tls]` of every program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TlsKeys")]
pub struct TlsSettings {
    /// PEM: the program's own certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// PEM: its private key; no other user may read the file.
    pub key: PathBuf,
    /// The passphrase of an encrypted PKCS #8 key; no other user may read the file.
    pub key_passphrase_file: Option<PathBuf>,
    /// PEM: the authorities that peers' certificates must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority. Without any nothing is checked for revocation.
    pub crl: Vec<ListSource>,
    /// What becomes of certificates whose revocation cannot be determined; `None`: hard-fail where
    /// there are lists, else off. See [`TlsSettings::revocation_policy`].
    pub revocation: Option<RevocationPolicy>,
    /// The oldest protocol version spoken.
    pub minimum_version: TlsVersion,
    /// Whether those who connect have to show a certificate.
    pub client_certificate: ClientCertificate,
    /// How often lists with a URL are fetched again.
    pub crl_refresh: Duration,
    /// Folder for the last good list of each URL, so that a restart while it cannot be fetched goes on.
    pub crl_cache: Option<PathBuf>,
    /// Whether certificates of development are good enough. Never in production.
    pub allow_development: bool,
}

/// Whom to trust: all that a caller without a certificate of its own needs. The fields are those of
/// [`TlsSettings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// PEM: the authorities that servers' certificates must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority.
    pub crl: Vec<ListSource>,
    /// What becomes of certificates whose revocation cannot be determined.
    pub revocation: Option<RevocationPolicy>,
    /// The oldest protocol version spoken.
    pub minimum_version: TlsVersion,
    /// How often lists with a URL are fetched again.
    pub crl_refresh: Duration,
    /// Folder for the last good list of each URL.
    pub crl_cache: Option<PathBuf>,
    /// Whether certificates of development are good enough. Never in production.
    pub allow_development: bool,
}

/// Where a revocation list comes from: a file (PEM or DER) or an `http://` or `https://` URL. In
/// settings, text; whatever starts with a scheme and `://` is a URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListSource {
    /// A file with one or more lists.
    File(PathBuf),
    /// Fetched, and again at intervals.
    Url(String),
}

/// What becomes of a certificate whose revocation cannot be determined. One that is known to be revoked
/// is refused under both policies that look at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationPolicy {
    /// It is refused.
    HardFail,
    /// It is let through, with a warning in the log and a metric.
    SoftFail,
    /// No list is looked at, so that revoked certificates are let through too.
    Off,
}

/// The oldest protocol version spoken. There is none below 1.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.3 alone.
    #[default]
    V1_3,
    /// TLS 1.2 as well, for peers that know nothing newer.
    V1_2,
}

/// Whether those who connect to a program have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Without one there is no connection.
    #[default]
    Required,
    /// Whoever shows none may still prove in another way who they are. One that is shown is verified
    /// as ever: a bad one is refused, not ignored.
    Optional,
}

/// What is spoken inside of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Application {
    /// gRPC: HTTP/2, and both sides have to say so (ALPN `h2`).
    #[default]
    Grpc,
    /// HTTP/1.1 (ALPN `http/1.1`, or no ALPN at all).
    Http,
}

impl TlsSettings {
    /// These files, and otherwise what holds when the settings say nothing.
    #[must_use]
    pub fn new(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        ca: impl Into<PathBuf>,
    ) -> Self {
        Self::with_trust(certificate, key, TrustSettings::new(ca))
    }

    /// The same with relative paths starting at the folder `base`.
    #[must_use]
    pub fn resolve(&self, base: &Path) -> Self {
        Self {
            key_passphrase_file: self.key_passphrase_file.as_ref().map(|it| resolve(base, it)),
            client_certificate: self.client_certificate,
            ..Self::with_trust(
                resolve(base, &self.certificate),
                resolve(base, &self.key),
                self.trust().resolve(base),
            )
        }
    }

    /// Whom the program trusts.
    #[must_use]
    pub fn trust(&self) -> TrustSettings {
        TrustSettings {
            ca: self.ca.clone(),
            crl: self.crl.clone(),
            revocation: self.revocation,
            minimum_version: self.minimum_version,
            crl_refresh: self.crl_refresh,
            crl_cache: self.crl_cache.clone(),
            allow_development: self.allow_development,
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn revocation_policy(&self) -> RevocationPolicy {
        policy(self.revocation, &self.crl)
    }

    /// These files of a program that trusts like this, and otherwise what holds when the settings say
    /// nothing.
    #[must_use]
    pub fn with_trust(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        trust: TrustSettings,
    ) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            key_passphrase_file: None,
            ca: trust.ca,
            crl: trust.crl,
            revocation: trust.revocation,
            minimum_version: trust.minimum_version,
            client_certificate: ClientCertificate::default(),
            crl_refresh: trust.crl_refresh,
            crl_cache: trust.crl_cache,
            allow_development: trust.allow_development,
        }
    }
}

impl TrustSettings {
    /// These authorities, and otherwise what holds when the settings say nothing.
    #[must_use]
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        Self {
            ca: ca.into(),
            crl: Vec::new(),
            revocation: None,
            minimum_version: TlsVersion::default(),
            crl_refresh: CRL_REFRESH,
            crl_cache: None,
            allow_development: false,
        }
    }

    /// The same with relative paths starting at the folder `base`.
    #[must_use]
    pub fn resolve(&self, base: &Path) -> Self {
        Self {
            ca: resolve(base, &self.ca),
            crl: self.crl.iter().map(|source| source.resolve(base)).collect(),
            crl_cache: self.crl_cache.as_ref().map(|cache| resolve(base, cache)),
            ..self.clone()
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn revocation_policy(&self) -> RevocationPolicy {
        policy(self.revocation, &self.crl)
    }

    /// Refuses what makes no sense together.
    pub(super) fn check(&self) -> Result<(), TlsError> {
        let wrong = |key, problem: String| Err(TlsError::Setting { key, problem });
        match self.revocation {
            Some(asked @ (RevocationPolicy::HardFail | RevocationPolicy::SoftFail))
                if self.crl.is_empty() =>
            {
                return wrong(
                    "revocation",
                    format!("{asked} needs revocation lists: name them in crl, or leave it out"),
                );
            }
            Some(_) | None => {}
        }
        if !CRL_REFRESH_SECONDS.contains(&self.crl_refresh.as_secs()) {
            let (least, most) = (CRL_REFRESH_SECONDS.start(), CRL_REFRESH_SECONDS.end());
            return wrong("crl_refresh_seconds", format!("has to be from {least} to {most}"));
        }
        if let Some(source) = repeated(&self.crl) {
            return wrong("crl", format!("{source} is named twice"));
        }
        Ok(())
    }
}

fn policy(asked: Option<RevocationPolicy>, lists: &[ListSource]) -> RevocationPolicy {
    match asked {
        Some(policy) => policy,
        None if lists.is_empty() => RevocationPolicy::Off,
        None => RevocationPolicy::HardFail,
    }
}

fn repeated(sources: &[ListSource]) -> Option<&ListSource> {
    sources.iter().enumerate().find_map(|(at, source)| {
        sources.iter().take(at).any(|earlier| earlier == source).then_some(source)
    })
}

/// What is wrong with the source of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}: {problem}")]
pub struct ListSourceError {
    text: String,
    problem: &'static str,
}

impl ListSource {
    /// The same with a relative path starting at the folder `base`.
    #[must_use]
    pub fn resolve(&self, base: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(resolve(base, path)),
            Self::Url(_) => self.clone(),
        }
    }
}

impl From<PathBuf> for ListSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl FromStr for ListSource {
    type Err = ListSourceError;

    fn from_str(text: &str) -> Result<Self, ListSourceError> {
        let wrong = |problem| Err(ListSourceError { text: text.to_owned(), problem });
        if text.trim().is_empty() || text.contains('\0') {
            return wrong("name a file, or an address that starts with http:// or https://");
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return wrong("lists are fetched from http:// and https:// alone");
        }
        match http::Uri::try_from(text) {
            Ok(uri) if uri.host().is_none_or(str::is_empty) => wrong("has no host"),
            Ok(uri) if uri.authority().is_some_and(|it| it.as_str().contains('@')) => {
                wrong("must not have a user or a password: lists are public")
            }
            Ok(_) => Ok(Self::Url(text.to_owned())),
            Err(_) => wrong("is no address"),
        }
    }
}

impl fmt::Display for ListSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl<'de> Deserialize<'de> for ListSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl RevocationPolicy {
    /// As settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HardFail => "hard-fail",
            Self::SoftFail => "soft-fail",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for RevocationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RevocationPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::HardFail, Self::SoftFail, Self::Off]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| format!("'{text}' is no policy: write hard-fail, soft-fail or off"))
    }
}

impl TlsVersion {
    /// As settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_3 => "1.3",
            Self::V1_2 => "1.2",
        }
    }

    /// The versions that may be negotiated, the newest first.
    pub(crate) fn allowed(self) -> Vec<&'static rustls::SupportedProtocolVersion> {
        match self {
            Self::V1_3 => vec![&rustls::version::TLS13],
            Self::V1_2 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.3" => Ok(Self::V1_3),
            "1.2" => Ok(Self::V1_2),
            other => Err(format!(
                "TLS {other:?} is not to be had: write \"1.3\" or \"1.2\"; nothing older can be \
                 enabled"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl ClientCertificate {
    /// As settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

impl Application {
    pub(crate) fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Http => vec![b"http/1.1".to_vec()],
        }
    }

    /// Whether this outcome of ALPN will do.
    pub(crate) fn takes(self, negotiated: Option<&[u8]>) -> bool {
        match self {
            Self::Grpc => negotiated == Some(b"h2"),
            Self::Http => matches!(negotiated, None | Some(b"http/1.1")),
        }
    }
}

/// The keys as they stand in settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsKeys {
    certificate: PathBuf,
    key: PathBuf,
    key_passphrase_file: Option<PathBuf>,
    ca: PathBuf,
    #[serde(default, deserialize_with = "one_or_more")]
    crl: Vec<ListSource>,
    revocation: Option<RevocationPolicy>,
    #[serde(default)]
    minimum_version: TlsVersion,
    #[serde(default)]
    client_certificate: ClientCertificate,
    crl_refresh_seconds: Option<u64>,
    crl_cache: Option<PathBuf>,
    #[serde(default)]
    allow_development: bool,
}

impl TryFrom<TlsKeys> for TlsSettings {
    type Error = TlsError;

    fn try_from(keys: TlsKeys) -> Result<Self, TlsError> {
        let settings = Self {
            certificate: keys.certificate,
            key: keys.key,
            key_passphrase_file: keys.key_passphrase_file,
            ca: keys.ca,
            crl: keys.crl,
            revocation: keys.revocation,
            minimum_version: keys.minimum_version,
            client_certificate: keys.client_certificate,
            crl_refresh: keys.crl_refresh_seconds.map_or(CRL_REFRESH, Duration::from_secs),
            crl_cache: keys.crl_cache,
            allow_development: keys.allow_development,
        };
        settings.trust().check()?;
        Ok(settings)
    }
}

/// One source, or a list of them: what a key `crl` of settings may hold.
///
/// # Errors
/// It is neither, a source makes no sense, or the list is empty (leave the key out instead).
pub fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<ListSource>, D::Error> {
    struct Sources;

    impl<'de> de::Visitor<'de> for Sources {
        type Value = Vec<ListSource>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a file or URL of a revocation list, or a list of them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.parse().map(|source| vec![source]).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut sources = Vec::new();
            while let Some(source) = items.next_element()? {
                sources.push(source);
            }
            if sources.is_empty() {
                return Err(de::Error::custom("is empty: leave it out, or name a list"));
            }
            Ok(sources)
        }
    }

    deserializer.deserialize_any(Sources)
}

#[cfg(test)]
mod tests;
