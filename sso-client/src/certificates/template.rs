//! What every certificate starts from: serial number, validity, subject, purposes.

use rand::TryRng as _;
use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SerialNumber,
};
use sso_core::peer::DEVELOPMENT_OID;
use time::{Duration, OffsetDateTime};

use super::{CertificateError, Role};

/// How far before "now" a certificate starts to be valid.
pub(super) const BACKDATED: Duration = Duration::minutes(5);

/// What a certificate may be used for in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Usage {
    /// To serve: listeners, HTTPS servers.
    Server,
    /// To call: the client side of mutual TLS.
    Client,
}

impl From<Usage> for ExtendedKeyUsagePurpose {
    fn from(usage: Usage) -> Self {
        match usage {
            Usage::Server => Self::ServerAuth,
            Usage::Client => Self::ClientAuth,
        }
    }
}

impl Role {
    /// What certificates of this role may be used for: servers and masters serve and call.
    #[must_use]
    pub fn usages(self) -> &'static [Usage] {
        match self {
            Self::Server | Self::Master => &[Usage::Server, Usage::Client],
            Self::Client => &[Usage::Client],
        }
    }
}

/// A subject that is nothing but a common name.
pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Serial number, validity, subject and the mark of development.
pub(super) fn certificate(
    subject: DistinguishedName,
    lifetime: Duration,
    development: bool,
    now: OffsetDateTime,
) -> Result<CertificateParams, CertificateError> {
    if lifetime < Duration::DAY {
        return Err(CertificateError::Request("a certificate lasts at least 1 day".into()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(random_serial()?);
    params.not_before = now - BACKDATED;
    params.not_after = now.checked_add(lifetime).ok_or_else(|| {
        CertificateError::Request("the certificate would end after the year 9999".into())
    })?;
    if development {
        // NULL in DER; the extension says all by being there.
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(DEVELOPMENT_OID, vec![0x05, 0x00])];
    }
    Ok(params)
}

/// Makes it that of a leaf for these purposes.
pub(super) fn make_leaf(params: &mut CertificateParams, usages: &[Usage]) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.iter().copied().map(Into::into).collect();
    params.extended_key_usages.dedup();
}

/// Names the address where the authority puts its revocation lists.
pub(super) fn point_to_list(
    params: &mut CertificateParams,
    address: Option<&str>,
) -> Result<(), CertificateError> {
    let Some(address) = address else { return Ok(()) };
    let plain = address.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !(address.starts_with("http://") || address.starts_with("https://")) {
        return Err(CertificateError::Request(format!(
            "the address of revocation lists {address:?} is no http or https URL"
        )));
    }
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![address.to_owned()] }];
    Ok(())
}

/// 16 bytes with the top bit clear and the next one set: positive, and always of the same length.
pub(super) fn random_serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0_u8; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| CertificateError::Randomness)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_differ() {
        let serials: std::collections::HashSet<_> =
            (0..100).map(|_| random_serial().unwrap().to_bytes()).collect();
        assert_eq!(serials.len(), 100);
    }
}
