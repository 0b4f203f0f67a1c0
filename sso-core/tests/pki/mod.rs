//! A certificate authority for tests, with its files in a folder that goes with it.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    PublicKeyData, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
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
        let mut params = authority_params("Test Authority");
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
        self.write_list("ca.crl", &self.list(numbers, |list| list.next_update = year(until)))
    }

    /// A revocation list of this authority, from 2020 to 2200 unless `edit` changes it.
    pub(crate) fn list(
        &self,
        numbers: &[u64],
        edit: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> CertificateRevocationList {
        list_params(numbers, edit).signed_by(&self.authority).unwrap()
    }

    pub(crate) fn write_list(&self, name: &str, list: &CertificateRevocationList) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, list.pem().unwrap()).unwrap();
        path
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Intermediate<'_> {
        let mut params = authority_params(name);
        params.serial_number = Some(SerialNumber::from(self.next_number()));
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.authority).unwrap();
        Intermediate { above: self, issuer }
    }

    /// The number of the next certificate that is issued.
    pub(crate) fn upcoming(&self) -> u64 {
        *self.issued.borrow() + 1
    }

    /// A certificate for a public key of `bytes` bytes that nobody has the private one of; the key file
    /// holds another.
    pub(crate) fn issue_for_large_key(&self, name: &str, bytes: usize) -> TlsSettings {
        let params = self.leaf(name, |_| {});
        let certificate = params.signed_by(&LargeKey(vec![1; bytes]), &self.authority).unwrap();
        self.write(name, &certificate.pem(), &KeyPair::generate().unwrap())
    }

    fn next_number(&self) -> u64 {
        self.issued.replace_with(|issued| *issued + 1) + 1
    }

    fn leaf(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from(self.next_number()));
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
        let settings = TlsSettings::new(
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
            self.path("ca.crt"),
        );
        fs::write(&settings.certificate, certificate).unwrap();
        write_private(Path::new(&settings.key), key.serialize_pem().as_bytes(), true).unwrap();
        settings
    }
}

/// An authority below another.
pub(crate) struct Intermediate<'p> {
    above: &'p Pki,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Intermediate<'_> {
    /// As [`Pki::issue`], with this authority's certificate behind the new one.
    pub(crate) fn issue(&self, name: &str) -> TlsSettings {
        let key = KeyPair::generate().unwrap();
        let certificate = self.above.leaf(name, |_| {}).signed_by(&key, &self.issuer).unwrap();
        self.above.write(name, &(certificate.pem() + &self.issuer.pem()), &key)
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn list(
        &self,
        numbers: &[u64],
        edit: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> CertificateRevocationList {
        list_params(numbers, edit).signed_by(&self.issuer).unwrap()
    }
}

struct LargeKey(Vec<u8>);

impl PublicKeyData for LargeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// The first day of the year.
pub(crate) fn year(year: i32) -> time::OffsetDateTime {
    date_time_ymd(year, 1, 1)
}

fn list_params(
    numbers: &[u64],
    edit: impl FnOnce(&mut CertificateRevocationListParams),
) -> CertificateRevocationListParams {
    let revoked = |&number: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(number),
        revocation_time: date_time_ymd(2020, 2, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let mut list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 2, 1),
        next_update: year(2200),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: numbers.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    edit(&mut list);
    list
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
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
