//! Authorities and certificates of every kind, good and bad, in files.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sso_core::clock::Clock;
use time::{Duration, OffsetDateTime};

pub(crate) const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
pub(crate) const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

/// An authority, of a folder that goes away with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates above it, without the root.
    chain: Vec<CertificateDer<'static>>,
    folder: tempfile::TempDir,
}

/// A certificate with its key.
pub(crate) struct Issued {
    /// Its own first, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

pub(crate) fn now() -> OffsetDateTime {
    Clock::System.now()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = now() - Duration::days(100);
    params.not_after = now() + Duration::days(1000);
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key).unwrap();
        Self { issuer, chain: Vec::new(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(authority_params(name), key, &self.issuer).unwrap();
        let mut chain = vec![issuer.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self { issuer, chain, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its own certificate in a file.
    pub(crate) fn file(&self) -> PathBuf {
        let path = self.path("ca.crt");
        fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    /// A certificate for `localhost` and 127.0.0.1, valid for a year and 90 days old, changed by
    /// `edit`.
    pub(crate) fn issue(
        &self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(name));
        params.not_before = now() - Duration::days(90);
        params.not_after = now() + Duration::days(365);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![own.der().clone()];
        chain.extend(self.chain.iter().cloned());
        let pem: String = std::iter::once(own.pem())
            .chain(self.chain.iter().map(|der| pem("CERTIFICATE", der)))
            .collect();
        let key_pem = key.serialize_pem();
        let issued = Issued {
            chain,
            key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap(),
            certificate_file: self.path(&format!("{name}.crt")),
            key_file: self.path(&format!("{name}.key")),
        };
        fs::write(&issued.certificate_file, pem).unwrap();
        write_key(&issued.key_file, &key_pem);
        issued
    }

    /// Its revocation list in PEM: issued `age` ago, valid for `validity`, naming the certificates that
    /// were issued under these names.
    pub(crate) fn list(&self, age: Duration, validity: Duration, revoked: &[&str]) -> String {
        let this_update = now() - age;
        let revoked_certs = revoked
            .iter()
            .map(|name| RevokedCertParams {
                serial_number: serial(name),
                revocation_time: this_update,
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            })
            .collect();
        CertificateRevocationListParams {
            this_update,
            next_update: this_update + validity,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }

    /// The list of [`Authority::list`], in force, in a file.
    pub(crate) fn list_file(&self, revoked: &[&str]) -> PathBuf {
        self.write("ca.crl", &self.list(Duration::hours(1), Duration::days(30), revoked))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(&[b"\x01", name.as_bytes()].concat())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|it| str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn write_key(path: &Path, pem: &str) {
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
