//! Section `[master]` of the settings.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sso_core::{connector::check_address, peer::CertificateRule, settings::resolve};
use sso_protector::ProtectorSettings;

/// Section `[master]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterSettings {
    /// `https://HOST:PORT` of the only master secret server.
    url: Option<String>,
    /// The addresses of several: each of them may hand out and confirm the keys.
    #[serde(default)]
    urls: Vec<String>,
    /// Whose certificate a master has, as one of these rules; without any, whoever has one of its host.
    #[serde(default)]
    pub certificates: Vec<CertificateRule>,
    /// How often a master is asked when it does not tell by itself, in seconds.
    #[serde(default = "default_poll")]
    pub poll_seconds: u64,
    /// How long keys open values after the last confirmation, in seconds.
    #[serde(default = "default_read_lease")]
    pub read_lease_seconds: u64,
    /// How long keys seal values after the last confirmation, in seconds.
    #[serde(default = "default_write_lease")]
    pub write_lease_seconds: u64,
    /// Where the keys outlive a restart of this server; nowhere by default.
    pub cache: Option<CacheSettings>,
}

/// Section `[master.cache]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// The file with the sealed keys.
    pub file: PathBuf,
    /// Who keeps the key that they are sealed under; exactly one.
    pub protector: Vec<ProtectorSettings>,
}

fn default_poll() -> u64 {
    30
}

fn default_read_lease() -> u64 {
    12 * 60 * 60
}

fn default_write_lease() -> u64 {
    15
}

impl MasterSettings {
    /// Defaults with these addresses.
    #[cfg(test)]
    pub(super) fn with_urls(urls: &[&str]) -> Self {
        Self {
            url: None,
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            poll_seconds: default_poll(),
            read_lease_seconds: default_read_lease(),
            write_lease_seconds: default_write_lease(),
            cache: None,
            certificates: Vec::new(),
        }
    }

    /// The addresses of the masters, first the one that is named first.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.url.iter().chain(&self.urls).cloned().collect()
    }

    /// Lets relative paths start at the folder of the settings file.
    pub fn resolve(&mut self, base: &Path) {
        if let Some(cache) = &mut self.cache {
            cache.file = resolve(base, &cache.file);
            for protector in &mut cache.protector {
                protector.resolve(base);
            }
        }
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// The key and, in words, what is wrong with its value.
    pub fn check(&self) -> Result<(), (String, String)> {
        let refused = |key: &str, why: String| Err((key.to_owned(), why));
        if self.url.is_some() && !self.urls.is_empty() {
            return refused("urls", "not together with url: keep one of them".into());
        }
        let key = if self.url.is_some() { "url" } else { "urls" };
        let addresses = self.addresses();
        if addresses.is_empty() {
            return refused("url", "name the master secret server".into());
        }
        for (at, address) in addresses.iter().enumerate() {
            if let Err(problem) = check_address(address) {
                return refused(key, format!("{address}: {problem}"));
            }
            if addresses.iter().take(at).any(|other| other == address) {
                return refused(key, format!("{address} is there twice"));
            }
        }
        let ranges = [
            ("poll_seconds", self.poll_seconds, 3600),
            ("read_lease_seconds", self.read_lease_seconds, 30 * 86_400),
            ("write_lease_seconds", self.write_lease_seconds, 3600),
        ];
        for (key, value, most) in ranges {
            if !(1..=most).contains(&value) {
                return refused(key, format!("{value} is outside its range, 1 to {most}"));
            }
        }
        if self.write_lease_seconds > self.read_lease_seconds {
            let why = "must not be longer than read_lease_seconds";
            return refused("write_lease_seconds", why.into());
        }
        self.cache.as_ref().map_or(Ok(()), CacheSettings::check)
    }
}

impl CacheSettings {
    fn check(&self) -> Result<(), (String, String)> {
        let [protector] = self.protector.as_slice() else {
            let why = "name exactly one [[master.cache.protector]]";
            return Err(("cache.protector".into(), why.into()));
        };
        protector.check().map_err(|(key, why)| (format!("cache.protector.{key}"), why))?;
        if protector.prompts() {
            let why = "this server starts with nobody there: name a file or a credential";
            return Err(("cache.protector".into(), why.into()));
        }
        Ok(())
    }
}
