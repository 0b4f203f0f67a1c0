//! What a certificate says, in words.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Serialize;
use sso_core::peer::DEVELOPMENT_OID;
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{DistributionPointName, GeneralName, KeyUsage, ParsedExtension},
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{CertificateError, content_error, files};

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
    /// SHA-1 of the DER form, 40 lower case hexadecimal digits. Other systems know certificates by it.
    pub thumbprint_sha1: String,
    /// SHA-256 of the DER form, 64 lower case hexadecimal digits: what a rule `thumbprint = …` names.
    pub thumbprint_sha256: String,
    /// Lower case hexadecimal.
    pub serial: String,
    /// Extended key usages: `server`, `client`, `any`, or the dotted number of another one. Empty: the
    /// certificate names none, and may be used for all.
    pub usages: Vec<String>,
    /// What the key may do: `signature`, `certificates`, `revocation lists` and so on. Empty: no limit.
    pub key_usages: Vec<String>,
    /// Kind and size of the public key, such as `ECDSA P-256` or `RSA 2048`.
    pub key: String,
    /// It may issue certificates.
    pub authority: bool,
    /// So many intermediate authorities may stand below an authority; `None` for any number.
    pub path_length: Option<u32>,
    /// Where its authority says that revocation lists are. Nothing is fetched from there.
    pub revocation_lists: Vec<String>,
    /// It was made by `sso dev` and is refused everywhere else.
    pub development: bool,
    #[serde(skip)]
    public_key: Vec<u8>,
    /// The key identifiers, of its issuer and its own.
    #[serde(skip)]
    authority_key: Option<Vec<u8>>,
    #[serde(skip)]
    own_key: Option<Vec<u8>>,
    #[serde(skip)]
    names: Names,
}

/// Subject and issuer in DER, as they are compared.
#[derive(Clone, Debug)]
struct Names {
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

impl Description {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// What is wrong with it, in words that fit behind the name of its file.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| format!("holds a damaged certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("holds a certificate with something behind it".to_owned());
        }
        let constraints = certificate.basic_constraints().ok().flatten();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            alternative_names: alternative_names(&certificate),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            thumbprint_sha1: hexadecimal(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            thumbprint_sha256: hexadecimal(digest::digest(&SHA256, der).as_ref()),
            serial: hexadecimal(certificate.raw_serial()),
            usages: usages(&certificate),
            key_usages: key_usages(&certificate),
            key: key_kind(certificate.public_key()),
            authority: certificate.is_ca(),
            path_length: constraints.and_then(|it| it.value.path_len_constraint),
            revocation_lists: revocation_lists(&certificate),
            development: is_development(&certificate),
            authority_key: authority_key(&certificate),
            own_key: own_key(&certificate),
            public_key: certificate.public_key().raw.to_vec(),
            names: Names {
                subject: certificate.subject().as_raw().to_vec(),
                issuer: certificate.issuer().as_raw().to_vec(),
            },
        })
    }

    /// Whether the certificate is about this public key (DER of its `SubjectPublicKeyInfo`).
    #[must_use]
    pub fn has_public_key(&self, key: &[u8]) -> bool {
        self.public_key == key
    }

    /// Whether the certificate names this authority, by name and by key, as its issuer. Says nothing
    /// about the signature.
    #[must_use]
    pub fn is_issued_by(&self, authority: &Self) -> bool {
        self.names.issuer == authority.names.subject
            && (self.authority_key.is_none()
                || authority.own_key.is_none()
                || self.authority_key == authority.own_key)
    }

    /// Whether it names itself as its issuer. Says nothing about the signature.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.is_issued_by(self)
    }

    /// Its own key identifier, by which what it issues names it.
    pub(super) fn key_identifier(&self) -> Option<&[u8]> {
        self.own_key.as_deref()
    }

    /// Whether TLS servers may use it.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.is_for("server")
    }

    /// Whether TLS clients may use it.
    #[must_use]
    pub fn may_call(&self) -> bool {
        self.is_for("client")
    }

    /// Refuses it outside of its validity.
    ///
    /// # Errors
    /// [`CertificateError::Expired`], [`CertificateError::NotYetValid`].
    pub fn require_valid(&self, now: OffsetDateTime) -> Result<(), CertificateError> {
        let subject = self.subject.clone();
        if now < self.not_before {
            return Err(CertificateError::NotYetValid { subject, starts: self.not_before });
        }
        if now > self.not_after {
            return Err(CertificateError::Expired { subject, ended: self.not_after });
        }
        Ok(())
    }

    /// Whether its key is an RSA key of fewer bits than are safe.
    #[must_use]
    pub fn has_short_rsa_key(&self) -> bool {
        let bits = self.key.strip_prefix("RSA ").and_then(|bits| bits.parse::<usize>().ok());
        bits.is_some_and(|bits| bits < 2048)
    }

    fn is_for(&self, purpose: &str) -> bool {
        let usages = &self.usages;
        usages.is_empty() || usages.iter().any(|usage| usage == purpose || usage == "any")
    }
}

/// Reads the first certificate of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds no X.509 certificate.
pub fn describe(path: &Path) -> Result<Description, CertificateError> {
    let pem = files::read(path)?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| {
        content_error(path, &format!("holds no certificate in PEM form: {error}"))
    })?;
    Description::read(&der).map_err(|what| content_error(path, &what))
}

/// Lower case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Kind and size of a public key.
pub(super) fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = key.algorithm.algorithm.to_id_string();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA P-384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA P-521".to_owned(),
                Some(other) => format!("elliptic curve {other}"),
                None => "elliptic curve of its own".to_owned(),
            }
        }
        _ if algorithm == "1.3.101.112" => "Ed25519".to_owned(),
        _ if algorithm == "1.2.840.113549.1.1.10" => "RSA-PSS".to_owned(),
        _ => format!("kind {algorithm}"),
    }
}

fn is_development(certificate: &X509Certificate<'_>) -> bool {
    certificate.iter_extensions().any(|extension| {
        extension.oid.iter().is_some_and(|arcs| arcs.eq(DEVELOPMENT_OID.iter().copied()))
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

fn revocation_lists(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut uris = Vec::new();
    for extension in certificate.iter_extensions() {
        let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() else {
            continue;
        };
        for point in points.iter() {
            let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
                continue;
            };
            uris.extend(names.iter().filter_map(|name| {
                if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
            }));
        }
    }
    uris
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().map(name_text).collect()
}

/// A name with its kind in front.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of names that this product never makes are shown as the parser writes them"
)]
pub(super) fn name_text(name: &GeneralName<'_>) -> String {
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
    let known = [
        (usage.server_auth, "server"),
        (usage.client_auth, "client"),
        (usage.any, "any"),
        (usage.code_signing, "code signing"),
        (usage.email_protection, "email"),
        (usage.time_stamping, "time stamping"),
        (usage.ocsp_signing, "OCSP signing"),
    ];
    known
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| name.to_owned())
        .chain(usage.other.iter().map(ToString::to_string))
        .collect()
}

fn key_usages(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.key_usage() else { return Vec::new() };
    key_usage_words(extension.value)
}

fn key_usage_words(usage: &KeyUsage) -> Vec<String> {
    let known = [
        (usage.digital_signature(), "signature"),
        (usage.non_repudiation(), "non-repudiation"),
        (usage.key_encipherment(), "key encipherment"),
        (usage.data_encipherment(), "data encipherment"),
        (usage.key_agreement(), "key agreement"),
        (usage.key_cert_sign(), "certificates"),
        (usage.crl_sign(), "revocation lists"),
    ];
    known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect()
}
