//! A certificate authority for tests, with its files in a folder that goes with it.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use sso_core::{peer::DEVELOPMENT_OID, settings::write_private, tls::TlsSettings};
use tempfile::TempDir;

/// An authority and the folder of its files.
pub(crate) struct Pki {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    issued: RefCell<u64>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// An authority whose own certificate `edit` changes.
    pub(crate) fn with(edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = params("Test Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        edit(&mut params);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        Self { folder, authority, issued: RefCell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings with a new certificate for both ends: host 127.0.0.1 and URI `sso://DEV/<name>`.
    pub(crate) fn issue(&self, name: &str) -> TlsSettings {
        self.issue_with(name, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        name: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> TlsSettings {
        let params = self.leaf(name, edit);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(name, &certificate.pem(), &key)
    }

    /// As [`Pki::issue`], but signed by the key of `signer`, itself only a leaf of this authority.
    pub(crate) fn issue_by_leaf(&self, name: &str) -> TlsSettings {
        let leaf = CertifiedIssuer::signed_by(
            self.leaf("signer", |_| {}),
            KeyPair::generate().unwrap(),
            &self.authority,
        )
        .unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = self.leaf(name, |_| {}).signed_by(&key, &leaf).unwrap();
        self.write(name, &(certificate.pem() + &leaf.pem()), &key)
    }

    /// A self-signed certificate that says the same as the one `issue` made first for `name`.
    pub(crate) fn forge(&self, name: &str) -> TlsSettings {
        let mut params = self.leaf(name, |_| {});
        params.serial_number = Some(SerialNumber::from(1_u64));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(name, &certificate.pem(), &key)
    }

    /// Writes the revocation list of this authority: certificates by the number of their issue, from
    /// 1. The list is valid until the year `until`.
    pub(crate) fn revoke(&self, numbers: &[u64], until: i32) -> PathBuf {
        let revoked = |&number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(number),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 2, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("ca.crl");
        fs::write(&path, list.signed_by(&self.authority).unwrap().pem().unwrap()).unwrap();
        path
    }

    fn leaf(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let number = self.issued.replace_with(|issued| *issued + 1) + 1;
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from(number));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::URI(format!("sso://DEV/{name}").try_into().unwrap()),
        ];
        edit(&mut params);
        params
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> TlsSettings {
        let settings = TlsSettings {
            certificate: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            ca: self.path("ca.crt"),
            crl: None,
            allow_development: false,
            client_certificate: sso_core::tls::ClientCertificate::Required,
        };
        fs::write(&settings.certificate, certificate).unwrap();
        write_private(Path::new(&settings.key), key.serialize_pem().as_bytes(), true).unwrap();
        settings
    }
}

/// Marks a certificate as one of development.
pub(crate) fn development(params: &mut CertificateParams) {
    params.custom_extensions.push(CustomExtension::from_oid_content(DEVELOPMENT_OID, vec![5, 0]));
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2200, 1, 1);
    params
}
