//! What a certificate file says, in words.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Serialize;
use sso_core::peer::PeerCertificate;
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use super::{CertificateError, content_error, file_error};

/// What `sso cert show` tells of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Distinguished name of the subject.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Each with its kind in front: `DNS:`, `IP:`, `URI:`, `email:`.
    pub alternative_names: Vec<String>,
    /// Start of the validity.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// End of the validity.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// SHA-256 of the DER form, lower case hexadecimal: what a rule `fingerprint = …` names.
    pub fingerprint_sha256: String,
    /// Hexadecimal.
    pub serial: String,
    /// Extended key usages: `server`, `client`, or the dotted number of another one.
    pub usages: Vec<String>,
    /// It may issue certificates.
    pub authority: bool,
    /// It was made by `sso dev` and is refused everywhere else.
    pub development: bool,
    #[serde(skip)]
    public_key: Vec<u8>,
    /// The key identifiers, of its issuer and its own.
    #[serde(skip)]
    authority_key: Option<Vec<u8>>,
    #[serde(skip)]
    own_key: Option<Vec<u8>>,
}

impl Description {
    /// Whether the certificate is about this public key (DER of its `SubjectPublicKeyInfo`).
    #[must_use]
    pub fn has_public_key(&self, key: &[u8]) -> bool {
        self.public_key == key
    }

    /// Whether the certificate names this authority, by name and by key, as its issuer. Says nothing
    /// about the signature.
    #[must_use]
    pub fn is_issued_by(&self, authority: &Self) -> bool {
        self.issuer == authority.subject
            && (self.authority_key.is_none() || self.authority_key == authority.own_key)
    }
}

/// Reads the first certificate of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds no X.509 certificate.
pub fn describe(path: &Path) -> Result<Description, CertificateError> {
    let pem = fs::read(path).map_err(|source| file_error(path, source))?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| {
        content_error(path, &format!("holds no certificate in PEM form: {error}"))
    })?;
    let (_, certificate) = X509Certificate::from_der(&der)
        .map_err(|error| content_error(path, &format!("holds a damaged certificate: {error}")))?;
    let peer = PeerCertificate::parse(&der).map_err(|error| content_error(path, &error))?;
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        alternative_names: alternative_names(&certificate),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        fingerprint_sha256: peer.fingerprint_sha256,
        serial: peer.serial,
        usages: usages(&certificate),
        authority: certificate.is_ca(),
        development: peer.development,
        authority_key: authority_key(&certificate),
        own_key: own_key(&certificate),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

fn authority_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(found) = extension.parsed_extension() else {
            return None;
        };
        found.key_identifier.as_ref().map(|key| key.0.to_vec())
    })
}

fn own_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(key) = extension.parsed_extension() else {
            return None;
        };
        Some(key.0.to_vec())
    })
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().map(name_text).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of names that this product never makes are shown as the parser writes them"
)]
fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(dns) => format!("DNS:{dns}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(email) => format!("email:{email}"),
        GeneralName::IPAddress(bytes) => {
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => format!("IP:{}", Ipv4Addr::from(v4)),
                (_, Ok(v6)) => format!("IP:{}", Ipv6Addr::from(v6)),
                _ => "IP:malformed".to_owned(),
            }
        }
        other => other.to_string(),
    }
}

fn usages(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.extended_key_usage() else { return Vec::new() };
    let usage = extension.value;
    let known = [(usage.server_auth, "server"), (usage.client_auth, "client"), (usage.any, "any")];
    known
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| name.to_owned())
        .chain(usage.other.iter().map(ToString::to_string))
        .collect()
}
