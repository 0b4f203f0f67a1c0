//! A zoo of certificates: one of every kind that a client may show, and the authorities behind them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use sso_core::settings::write_private;
use tempfile::TempDir;
use time::OffsetDateTime;

/// The account that every client of the zoo is.
const ACCOUNT: &str = "user";

pub(crate) const ROOT: &str = "Zoo Root";
const INTERMEDIATES: [&str; 2] = ["Zoo Intermediate", "Zoo Intermediate, revoked"];

/// The first and the last moment of certificates and lists that are good.
pub(crate) fn always() -> (OffsetDateTime, OffsetDateTime) {
    (date_time_ymd(2020, 1, 1), date_time_ymd(2200, 1, 1))
}

/// Of those that have ended.
pub(crate) fn once() -> (OffsetDateTime, OffsetDateTime) {
    (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1))
}

/// Of those that have not begun.
pub(crate) fn some_day() -> (OffsetDateTime, OffsetDateTime) {
    (date_time_ymd(2190, 1, 1), date_time_ymd(2200, 1, 1))
}

/// What a peer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nothing,
    Good,
    /// Good, by an intermediate authority that is shown too.
    ByIntermediate,
    Expired,
    NotYetValid,
    Revoked,
    /// Good, by an intermediate authority that is revoked.
    ByRevokedIntermediate,
    OtherAuthority,
    /// By an authority with the name of a trusted one and a key of its own.
    Namesake,
    /// Made for the other side.
    WrongPurpose,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Good,
        Self::ByIntermediate,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::ByRevokedIntermediate,
        Self::OtherAuthority,
        Self::Namesake,
        Self::WrongPurpose,
    ];
}

/// A certificate on disk.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The certificate, followed by its intermediates.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The intermediates alone, where there are any.
    pub(crate) chain: Option<PathBuf>,
    /// SHA-256 in lower-case hexadecimal.
    pub(crate) thumbprint: String,
    /// Lower-case hexadecimal.
    pub(crate) serial: String,
}

/// A certificate and its key before they are written.
pub(crate) struct Leaf {
    params: CertificateParams,
    certificate: rcgen::Certificate,
    key: KeyPair,
    serial: SerialNumber,
    chain: String,
}

impl Leaf {
    /// The same, shown together with these certificates (PEM).
    pub(crate) fn with_chain(self, chain: &str) -> Self {
        Self { chain: chain.to_owned(), ..self }
    }

    pub(crate) fn serial(&self) -> SerialNumber {
        self.serial.clone()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// Its key, to sign with as if it were an authority's.
    pub(crate) fn into_authority(self) -> Authority {
        let pem = self.certificate.pem();
        Authority { issuer: Issuer::new(self.params, self.key), pem, serial: self.serial }
    }

    /// Writes `NAME.crt` and `NAME.key`, and `NAME.chain` where there is one; each appears whole.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Files {
        let path = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        let (certificate, key) = (path("crt"), path("key"));
        self.write_certificate(&certificate);
        self.write_key(&key);
        let chain = (!self.chain.is_empty()).then(|| {
            let chain = path("chain");
            replace(&chain, self.chain.as_bytes());
            chain
        });
        let thumbprint = hexadecimal(&Sha256::digest(self.certificate.der()));
        let serial = hexadecimal(&self.serial.to_bytes());
        Files { certificate, key, chain, thumbprint, serial }
    }

    /// Puts the certificate, followed by its intermediates, in the place of the file.
    pub(crate) fn write_certificate(&self, path: &Path) {
        replace(path, (self.certificate.pem() + &self.chain).as_bytes());
    }

    /// Puts the key in the place of the file, for its owner alone.
    pub(crate) fn write_key(&self, path: &Path) {
        write_private(path, self.key.serialize_pem().as_bytes(), true).expect("a key");
    }
}

/// An authority with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    serial: SerialNumber,
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        let (params, key, serial) = Self::params(name);
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self { issuer: Issuer::new(params, key), pem, serial }
    }

    /// An intermediate authority of this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        self.below_with(name, BasicConstraints::Unconstrained)
    }

    /// The same, with a bound on the authorities below it.
    pub(crate) fn below_with(&self, name: &str, constraints: BasicConstraints) -> Self {
        let (mut params, key, serial) = Self::params(name);
        params.is_ca = IsCa::Ca(constraints);
        let pem = params.signed_by(&key, &self.issuer).expect("an authority").pem();
        Self { issuer: Issuer::new(params, key), pem, serial }
    }

    /// What the files of an authority hold.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Self {
        let pem = fs::read_to_string(certificate).expect("the certificate of an authority");
        let key = fs::read_to_string(key).expect("its key");
        let key = KeyPair::from_pem(&key).expect("a key");
        let issuer = Issuer::from_ca_cert_pem(&pem, key).expect("an authority");
        Self { issuer, pem, serial: next_serial() }
    }

    fn params(name: &str) -> (CertificateParams, KeyPair, SerialNumber) {
        let serial = next_serial();
        let mut params = named(name);
        params.serial_number = Some(serial.clone());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params, KeyPair::generate().expect("a key"), serial)
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The serial number of its own certificate; not of one that was loaded.
    pub(crate) fn serial(&self) -> SerialNumber {
        self.serial.clone()
    }

    /// A certificate for what `params` say, with a new key.
    pub(crate) fn issue(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let serial = params.serial_number.clone().expect("a serial number");
        Leaf { params, certificate, key, serial, chain: String::new() }
    }

    /// A certificate of an authority with the public key of somebody else.
    pub(crate) fn issue_for(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
    ) -> rcgen::Certificate {
        params.signed_by(key, &self.issuer).expect("a certificate")
    }

    /// Its revocation list.
    pub(crate) fn list(
        &self,
        revoked: &[SerialNumber],
        (this_update, next_update): (OffsetDateTime, OffsetDateTime),
    ) -> CertificateRevocationList {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: next_serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list")
    }
}

/// What a certificate of a client says that is the account `DEV\\ACCOUNT`.
pub(crate) fn client(name: &str, account: &str) -> CertificateParams {
    let mut params = leaf(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = format!("sso://DEV/{account}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
    params
}

/// What the certificate of a program of the system says: it listens on the loopback address.
pub(crate) fn program(uri: &str) -> CertificateParams {
    let mut params = leaf(uri);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![
        SanType::URI(uri.try_into().expect("a URI")),
        SanType::DnsName("localhost".try_into().expect("a name")),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
    ];
    params
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.serial_number = Some(next_serial());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = always();
    params
}

pub(crate) fn lasting(
    mut params: CertificateParams,
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
) -> CertificateParams {
    (params.not_before, params.not_after) = (not_before, not_after);
    params
}

fn next_serial() -> SerialNumber {
    static LAST: AtomicU64 = AtomicU64::new(0x4a00_0000_0000_0000);
    SerialNumber::from(LAST.fetch_add(1, Ordering::Relaxed))
}

/// Puts a file in the place of another: nobody reads a part of it.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    let mut other = path.as_os_str().to_owned();
    other.push(".new");
    fs::write(&other, content).expect("written");
    fs::rename(&other, path).expect("renamed");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The authorities, and a certificate of every kind in a folder that ends with the value.
pub(crate) struct Zoo {
    folder: TempDir,
    pub(crate) root: Authority,
    pub(crate) intermediate: Authority,
    pub(crate) revoked_intermediate: Authority,
    /// With the name of the root and a key of its own.
    pub(crate) namesake: Authority,
    /// Named like the intermediate authorities.
    namesake_intermediates: [Authority; 2],
    pub(crate) other: Authority,
    files: BTreeMap<Kind, Files>,
    serials: BTreeMap<Kind, SerialNumber>,
}

impl Zoo {
    /// Certificates of clients.
    pub(crate) fn of_clients() -> Self {
        Self::new(|name| client(name, ACCOUNT), &ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Certificates of servers.
    pub(crate) fn of_servers() -> Self {
        let says = |name: &str| program(&format!("sso-server://{name}"));
        Self::new(says, &ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn new(
        says: impl Fn(&str) -> CertificateParams,
        wrong_purpose: &ExtendedKeyUsagePurpose,
    ) -> Self {
        let [root, namesake] = [ROOT, ROOT].map(Authority::root);
        let mut zoo = Self {
            folder: tempfile::Builder::new().prefix("sso-zoo-").tempdir().expect("a folder"),
            intermediate: root.below(INTERMEDIATES[0]),
            revoked_intermediate: root.below(INTERMEDIATES[1]),
            namesake_intermediates: INTERMEDIATES.map(|name| namesake.below(name)),
            other: Authority::root("Another Root"),
            root,
            namesake,
            files: BTreeMap::new(),
            serials: BTreeMap::new(),
        };
        for kind in Kind::ALL {
            let mut params = says(&format!("{kind:?}"));
            if kind == Kind::WrongPurpose {
                params.extended_key_usages = vec![wrong_purpose.clone()];
            }
            let Some(leaf) = zoo.issue(kind, params) else { continue };
            zoo.files.insert(kind, leaf.write(zoo.folder(), &format!("{kind:?}")));
            zoo.serials.insert(kind, leaf.serial());
        }
        zoo
    }

    fn issue(&self, kind: Kind, params: CertificateParams) -> Option<Leaf> {
        let leaf = match kind {
            Kind::Nothing => return None,
            Kind::Good | Kind::Revoked | Kind::WrongPurpose => self.root.issue(params),
            Kind::ByIntermediate => {
                self.intermediate.issue(params).with_chain(self.intermediate.pem())
            }
            Kind::Expired => self.root.issue(lasting(params, once())),
            Kind::NotYetValid => self.root.issue(lasting(params, some_day())),
            Kind::ByRevokedIntermediate => {
                let issuer = &self.revoked_intermediate;
                issuer.issue(params).with_chain(issuer.pem())
            }
            Kind::OtherAuthority => self.other.issue(params),
            Kind::Namesake => self.namesake.issue(params),
        };
        Some(leaf)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The authorities with the name of a trusted one and a key of their own.
    pub(crate) fn namesakes(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.namesake).chain(&self.namesake_intermediates)
    }

    /// The files of what is shown; none of nothing.
    pub(crate) fn files(&self, kind: Kind) -> Option<&Files> {
        self.files.get(&kind)
    }

    /// The serial numbers of these kinds, where they have one.
    pub(crate) fn serials(&self, kinds: &[Kind]) -> Vec<SerialNumber> {
        kinds.iter().filter_map(|kind| self.serials.get(kind).cloned()).collect()
    }
}
