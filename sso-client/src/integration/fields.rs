//! Reading the values of a configuration: one key, one value, and every bad one named at once.

use std::{
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Component, PathBuf},
    str::FromStr,
    time::Duration,
};

use sso_core::tls::{ClientCertificate, ListSource, RevocationPolicy, TlsVersion};

use super::Thumbprint;
use crate::Configuration;

/// A configuration that makes no port, or no list of parties. Every bad key is named; no text repeats
/// a value, as what stands in a wrong key may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError {
    /// What was to be read, by kind and name, such as `the send port 'Bills'`.
    pub port: String,
    /// Where from: application, identifier, revision.
    pub configuration: String,
    /// Every key that is missing or bad, in the order of the documentation.
    pub problems: Vec<FieldProblem>,
}

/// A key of a configuration that is missing or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The label of the field.
    pub key: String,
    /// What is wrong and what to write.
    pub problem: String,
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) is not usable:", self.port, self.configuration)?;
        for (number, FieldProblem { key, problem }) in self.problems.iter().enumerate() {
            let separator = if number == 0 { "" } else { ";" };
            write!(f, "{separator} {key} {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PortError {}

/// The values of one configuration, and what is wrong with those looked at so far.
pub(super) struct Fields<'c> {
    values: &'c Configuration,
    problems: Vec<FieldProblem>,
}

impl<'c> Fields<'c> {
    pub(super) fn new(values: &'c Configuration) -> Self {
        Self { values, problems: Vec::new() }
    }

    /// What was read, unless something was wrong on the way.
    pub(super) fn finish<T>(self, kind: &str, name: &str, read: Option<T>) -> Result<T, PortError> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(PortError {
                port: format!("the {kind} '{name}'"),
                configuration: format!(
                    "configuration {}/{}, revision {}",
                    self.values.application, self.values.identifier, self.values.revision
                ),
                problems: self.problems,
            }),
        }
    }

    pub(super) fn problem(&mut self, key: &str, problem: impl Into<String>) {
        self.problems.push(FieldProblem { key: key.to_owned(), problem: problem.into() });
    }

    /// The text under the key without white space around it; an empty one is as good as none, because
    /// the first write of a configuration names every field.
    pub(super) fn text(&mut self, key: &str) -> Option<&'c str> {
        if self.values.masked.iter().any(|masked| masked.eq_ignore_ascii_case(key)) {
            self.problem(key, "is masked: this is no place for a secret");
            return None;
        }
        // Expose: a setting, not a secret; the field is not masked.
        let text = self.values.value(key)?.expose().trim();
        (!text.is_empty()).then_some(text)
    }

    /// What `parse` makes of the text; its error says what to write.
    pub(super) fn optional<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text(key)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problem(key, problem.to_string());
                None
            }
        }
    }

    /// The same for a key that must be there.
    pub(super) fn required<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let before = self.problems.len();
        let value = self.optional(key, parse);
        if value.is_none() && self.problems.len() == before {
            self.problem(key, "is missing");
        }
        value
    }

    /// Seconds, a fraction allowed.
    pub(super) fn seconds(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
        default: Duration,
    ) -> Duration {
        self.optional(key, |text| parse_seconds(text, range)).unwrap_or(default)
    }

    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.optional(key, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("has to be a whole number from {} to {}", range.start(), range.end())),
        })
    }
}

pub(super) fn parse_seconds(text: &str, range: RangeInclusive<f64>) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if range.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("has to be seconds from {} to {}", range.start(), range.end())),
    }
}

/// A file of the host that somebody who writes the config store may name: below the folder of the
/// store, where the host's own administrator put what may be named.
pub(super) fn parse_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    let below = path.components().all(|part| matches!(part, Component::Normal(_)));
    match below && !text.contains(char::is_control) {
        true => Ok(path),
        false => {
            Err("has to be a file below the folder of the certificate store: a relative path \
                      without '..'")
        }
    }
}

pub(super) fn parse_socket(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "has to be ADDRESS:PORT, such as 0.0.0.0:8443 or [::]:8443")
}

pub(super) fn parse_thumbprint(text: &str) -> Result<Thumbprint, String> {
    Thumbprint::from_str(text).map_err(|error| format!("is no thumbprint: {error}"))
}

/// One or more of something, separated by commas, semicolons or new lines.
pub(super) fn several(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', '\n', '\r']).map(str::trim).filter(|part| !part.is_empty())
}

/// The keys that say how far the other side's certificates are trusted: the same in every port.
pub(super) struct Trust {
    pub(super) ca: Option<PathBuf>,
    pub(super) crl: Vec<ListSource>,
    pub(super) revocation: Option<RevocationPolicy>,
    pub(super) list_refresh: Option<Duration>,
    pub(super) minimum_version: TlsVersion,
}

pub(super) const AUTHORITY_FILE: &str = "AuthorityFile";
pub(super) const REVOCATION_LISTS: &str = "RevocationLists";
pub(super) const REVOCATION_POLICY: &str = "RevocationPolicy";
pub(super) const REVOCATION_REFRESH: &str = "RevocationRefreshSeconds";
pub(super) const MINIMUM_TLS_VERSION: &str = "MinimumTlsVersion";
pub(super) const CERTIFICATE_THUMBPRINT: &str = "CertificateThumbprint";

impl Trust {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let ca = fields.required(AUTHORITY_FILE, parse_path);
        let crl = fields.optional(REVOCATION_LISTS, parse_lists).unwrap_or_default();
        let revocation = fields.optional(REVOCATION_POLICY, |text| {
            RevocationPolicy::from_str(text).map_err(|_| "has to be hard-fail, soft-fail or off")
        });
        if revocation.is_some_and(|policy| policy != RevocationPolicy::Off) && crl.is_empty() {
            fields.problem(
                REVOCATION_POLICY,
                format!("needs revocation lists: name them under {REVOCATION_LISTS}"),
            );
        }
        let list_refresh =
            fields.optional(REVOCATION_REFRESH, |text| parse_seconds(text, 10.0..=604_800.0));
        let minimum_version = fields.optional(MINIMUM_TLS_VERSION, |text| {
            TlsVersion::from_str(text)
                .map_err(|_| "has to be 1.3 or 1.2; nothing older can be enabled")
        });
        let minimum_version = minimum_version.unwrap_or_default();
        Self { ca, crl, revocation, list_refresh, minimum_version }
    }
}

fn parse_lists(text: &str) -> Result<Vec<ListSource>, String> {
    let mut lists: Vec<ListSource> = Vec::new();
    for (number, part) in several(text).enumerate() {
        let wrong = || {
            format!(
                "names no list in place {}: a relative path without '..' below the folder of the \
                 certificate store, or an address that starts with http:// or https:// and has no \
                 user",
                number + 1
            )
        };
        let source = part.parse().map_err(|_| wrong())?;
        if matches!(&source, ListSource::File(_)) {
            parse_path(part).map_err(|_| wrong())?;
        }
        if lists.contains(&source) {
            return Err(format!("names the list in place {} twice", number + 1));
        }
        lists.push(source);
    }
    Ok(lists)
}

pub(super) fn parse_client_certificate(text: &str) -> Result<ClientCertificate, &'static str> {
    [ClientCertificate::Required, ClientCertificate::Optional]
        .into_iter()
        .find(|wanted| wanted.as_str() == text)
        .ok_or("has to be required or optional")
}
