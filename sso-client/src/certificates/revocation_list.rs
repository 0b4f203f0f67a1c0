//! Revocation lists: which certificates of an authority are no longer good.

use std::path::Path;

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason as Code,
    RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    certificate::X509Certificate,
    prelude::FromDer as _,
    revocation_list::{CertificateRevocationList, RevokedCertificate},
};
use zeroize::Zeroizing;

use super::{
    CertificateError,
    authority::authority_certificate,
    content_error,
    files::{self, write_public},
    pem::{self, REVOCATION_LIST},
    template::BACKDATED,
};

/// Why a certificate is revoked, in the words of RFC 5280.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// Nothing is said.
    #[default]
    Unspecified,
    /// Somebody else has the private key, or may have it.
    KeyCompromise,
    /// Somebody else has the key of the authority that the certificate is of.
    CaCompromise,
    /// The name or another part of the subject changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// What it was for is no longer run.
    CessationOfOperation,
    /// Its owner may no longer do what it allowed.
    PrivilegeWithdrawn,
}

impl From<RevocationReason> for Code {
    fn from(reason: RevocationReason) -> Self {
        match reason {
            RevocationReason::Unspecified => Self::Unspecified,
            RevocationReason::KeyCompromise => Self::KeyCompromise,
            RevocationReason::CaCompromise => Self::CaCompromise,
            RevocationReason::AffiliationChanged => Self::AffiliationChanged,
            RevocationReason::Superseded => Self::Superseded,
            RevocationReason::CessationOfOperation => Self::CessationOfOperation,
            RevocationReason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

/// A certificate that is no longer good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Its serial number in hexadecimal, without zeros in front.
    pub serial: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// Why.
    pub reason: RevocationReason,
    /// Its subject, for people; empty where it is not known.
    pub name: String,
}

/// A signed list.
#[derive(Clone, Debug)]
pub struct RevocationList {
    der: Vec<u8>,
    /// Its number; a newer list has a higher one.
    pub number: u64,
    /// When it was made.
    pub this_update: OffsetDateTime,
    /// When there will be a newer one; nobody uses this one for longer.
    pub next_update: OffsetDateTime,
    /// How many certificates it names.
    pub entries: usize,
}

impl RevocationList {
    /// The list in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The list in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode(REVOCATION_LIST, &self.der).to_string()
    }

    /// Writes the list in PEM, in the place of an older one; a program that reads it at this moment gets
    /// the old one or the new one, nothing between.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn write(&self, path: &Path) -> Result<(), CertificateError> {
        write_public(path, self.pem().as_bytes(), true)
    }

    /// The same in DER.
    ///
    /// # Errors
    /// As [`RevocationList::write`].
    pub fn write_der(&self, path: &Path) -> Result<(), CertificateError> {
        write_public(path, &self.der, true)
    }
}

/// A list that was made earlier, read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierList {
    /// Its number; 0 where it has none.
    pub number: u64,
    /// What it names; the names of the subjects are not in a list.
    pub revoked: Vec<Revoked>,
}

impl EarlierList {
    /// Reads the list in a file, in PEM or DER, that the authority in the folder signed.
    ///
    /// # Errors
    /// The file cannot be read, holds anything but one list, or another authority signed it.
    pub fn read(path: &Path, authority: &Path) -> Result<Self, CertificateError> {
        let der = only_list(path)?;
        let (authority, _) = authority_certificate(authority)?;
        let malformed = || content_error(path, &"holds no revocation list");
        let Ok(([], list)) = CertificateRevocationList::from_der(&der) else {
            return Err(malformed());
        };
        let (_, authority) = X509Certificate::from_der(&authority).map_err(|_| malformed())?;
        if list.issuer().as_raw() != authority.subject().as_raw()
            || list.verify_signature(authority.public_key()).is_err()
        {
            return Err(content_error(path, &"holds the revocation list of another authority"));
        }
        let digits = list.crl_number().map(|number| number.to_u64_digits());
        Ok(Self {
            number: digits.and_then(|digits| digits.first().copied()).unwrap_or_default(),
            revoked: list.iter_revoked_certificates().map(read_entry).collect(),
        })
    }
}

fn only_list(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let bytes = files::read(path)?;
    if !pem::is_pem(&bytes) {
        return Ok(bytes);
    }
    let sections = pem::sections(&bytes).map_err(|what| content_error(path, &what))?;
    match <[_; 1]>::try_from(sections) {
        Ok([only]) if only.label == REVOCATION_LIST => Ok(only.content),
        Ok(_) | Err(_) => Err(content_error(path, &"does not hold one revocation list alone")),
    }
}

fn read_entry(entry: &RevokedCertificate<'_>) -> Revoked {
    let reason = match entry.reason_code().map(|(_, code)| code.0) {
        Some(1) => RevocationReason::KeyCompromise,
        Some(2) => RevocationReason::CaCompromise,
        Some(3) => RevocationReason::AffiliationChanged,
        Some(4) => RevocationReason::Superseded,
        Some(5) => RevocationReason::CessationOfOperation,
        Some(9) => RevocationReason::PrivilegeWithdrawn,
        Some(_) | None => RevocationReason::Unspecified,
    };
    Revoked {
        serial: entry.serial().to_str_radix(16),
        time: entry.revocation_date.to_datetime(),
        reason,
        name: String::new(),
    }
}

/// Signs a list. It starts a few minutes in the past, as certificates do.
pub(super) fn sign(
    issuer: &Issuer<'static, KeyPair>,
    key_identifier: Option<&[u8]>,
    number: u64,
    revoked: &[Revoked],
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<RevocationList, CertificateError> {
    if lifetime < Duration::minutes(1) {
        return Err(CertificateError::Request("a revocation list lasts at least 1 minute".into()));
    }
    // Lists tell whole seconds.
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let this_update = now - BACKDATED;
    let next_update = now.checked_add(lifetime).ok_or_else(|| {
        CertificateError::Request("the revocation list would end after the year 9999".into())
    })?;
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let list = CertificateRevocationListParams {
        this_update,
        next_update,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: entries,
        key_identifier_method: match key_identifier {
            Some(identifier) => KeyIdMethod::PreSpecified(identifier.to_vec()),
            None => KeyIdMethod::Sha256,
        },
    };
    let der = list.signed_by(issuer)?.der().to_vec();
    Ok(RevocationList { der, number, this_update, next_update, entries: revoked.len() })
}

fn entry(revoked: &Revoked) -> Result<RevokedCertParams, CertificateError> {
    let serial = serial_bytes(&revoked.serial).ok_or_else(|| {
        CertificateError::Request(format!("{:?} is no serial number", revoked.serial))
    })?;
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: revoked.time,
        reason_code: Some(revoked.reason.into()),
        invalidity_date: None,
    })
}

/// The bytes that hexadecimal digits spell; `None` for anything else.
fn serial_bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.trim_start_matches('0');
    if digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let padded = match digits.len() % 2 {
        0 => digits.to_owned(),
        _ => format!("0{digits}"),
    };
    if padded.is_empty() {
        return Some(vec![0]);
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    padded.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers() {
        assert_eq!(serial_bytes("0a01"), Some(vec![10, 1]));
        assert_eq!(serial_bytes("a01"), Some(vec![10, 1]));
        assert_eq!(serial_bytes("00"), Some(vec![0]));
        for bad in ["x", "0x1", "1 2", "+1", "é"] {
            assert_eq!(serial_bytes(bad), None, "{bad}");
        }
    }
}
