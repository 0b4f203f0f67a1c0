//! An authority of a test, with certificates that are good or bad in one way each.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sso_client::integration::Thumbprint;
use sso_core::{clock::Clock, peer::PeerCertificate};
use time::{Duration, OffsetDateTime};

pub(crate) use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    numbers: Mutex<u64>,
}

/// A certificate that was issued, and is in the files `NAME.crt` and `NAME.key`.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) serial: u64,
    pub(crate) thumbprint: Thumbprint,
}

pub(crate) fn now() -> OffsetDateTime {
    Clock::System.now()
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = parameters(name, Duration::days(30));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate, numbers: Mutex::new(0x4000) }
    }

    /// Writes the certificate of the authority.
    pub(crate) fn write(&self, path: &Path) {
        replace(path, self.certificate.as_bytes());
    }

    /// Issues a certificate and writes it with its key, both over what is there.
    pub(crate) fn issue(
        &self,
        folder: &Path,
        name: &str,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Leaf {
        self.issue_for(folder, name, usages, Duration::days(1))
    }

    pub(crate) fn issue_for(
        &self,
        folder: &Path,
        name: &str,
        usages: &[ExtendedKeyUsagePurpose],
        lifetime: Duration,
    ) -> Leaf {
        let serial = {
            let mut numbers = self.numbers.lock().unwrap();
            *numbers += 1;
            *numbers
        };
        let mut params = parameters(name, lifetime);
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        // The key first: a certificate is found only with its key.
        replace(&folder.join(format!("{name}.key")), key.serialize_pem().as_bytes());
        replace(&folder.join(format!("{name}.crt")), pem.as_bytes());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let thumbprint = Thumbprint::of(&PeerCertificate::parse(&der).unwrap());
        Leaf { serial, thumbprint }
    }

    /// Writes a revocation list that names these certificates and ends after `lifetime`.
    pub(crate) fn write_list(&self, path: &Path, revoked: &[&Leaf], lifetime: Duration) {
        let revoked = revoked.iter().map(|leaf| RevokedCertParams {
            serial_number: SerialNumber::from(leaf.serial),
            revocation_time: now(),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now() - Duration::days(2),
            next_update: now() + lifetime,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        replace(path, params.signed_by(&self.issuer).unwrap().pem().unwrap().as_bytes());
    }
}

fn parameters(name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now() - Duration::days(1);
    params.not_after = now() + lifetime;
    params
}

/// As tools of administrators do it: written beside, then renamed.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    let beside: PathBuf = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    std::io::Write::write_all(&mut options.open(&beside).unwrap(), content).unwrap();
    fs::rename(beside, path).unwrap();
}
