//! An authority and what it issues.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{
    CertificateError, Description, KeyType, PrivateKey, Request, RevocationList, Revoked, Usage,
    content_error,
    files::{make_folder, read, refuse_existing, write_public},
    pem,
    request::{Names, alternative_names, check},
    revocation_list, template,
};
use crate::SecretText;

/// The authority's certificate inside its folder.
pub const AUTHORITY_CERTIFICATE: &str = "ca.crt";
/// The authority's private key, mode 0600.
pub const AUTHORITY_KEY: &str = "ca.key";
/// Of an intermediate authority: its own certificate and those above it, without the root.
pub const AUTHORITY_CHAIN: &str = "chain.crt";
/// Of an intermediate authority: the root, which is what others have to trust.
pub const AUTHORITY_ROOT: &str = "root.crt";

/// A certificate with its private key, both PEM.
pub struct Issued {
    /// The certificate, and behind it those of intermediate authorities.
    pub certificate: String,
    /// PKCS#8; wiped when dropped.
    pub key: Zeroizing<String>,
    pair: PrivateKey,
}

impl Issued {
    /// Writes `NAME.crt` and `NAME.key` (mode 0600) into the folder, which is made where missing.
    /// Gives the two paths.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] when one of them is there already and `overwrite` is not set.
    pub fn write(
        &self,
        folder: &Path,
        name: &str,
        overwrite: bool,
    ) -> Result<(PathBuf, PathBuf), CertificateError> {
        self.write_encrypted(folder, name, None, overwrite)
    }

    /// The same with the key encrypted where there is a passphrase.
    ///
    /// # Errors
    /// As [`Issued::write`]; an empty passphrase.
    pub fn write_encrypted(
        &self,
        folder: &Path,
        name: &str,
        passphrase: Option<&SecretText>,
        overwrite: bool,
    ) -> Result<(PathBuf, PathBuf), CertificateError> {
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        make_folder(folder)?;
        if !overwrite {
            refuse_existing(&[&certificate, &key])?;
        }
        self.pair.write(&key, passphrase, overwrite)?;
        write_public(&certificate, self.certificate.as_bytes(), overwrite)?;
        Ok((certificate, key))
    }
}

/// A certificate authority with its private key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    description: Description,
    certificate: String,
    /// Its own certificate and those above it without the root; empty for a root.
    chain: String,
    /// Empty for a root.
    root: String,
    key: PrivateKey,
}

impl Authority {
    /// A new self-signed authority that may issue leaves and one level of intermediate authorities.
    /// With `development`, it and everything it issues carry the mark that the programs refuse outside
    /// of `sso dev`.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for an empty name or a lifetime of less than a day.
    pub fn create(
        name: &str,
        lifetime: Duration,
        development: bool,
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        Self::create_with(name, KeyType::default(), lifetime, development, now)
    }

    /// The same with a choice of the key.
    ///
    /// # Errors
    /// As [`Authority::create`].
    pub fn create_with(
        name: &str,
        kind: KeyType,
        lifetime: Duration,
        development: bool,
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        let params = authority_template(name, 1, lifetime, development, now)?;
        let key = PrivateKey::generate(kind)?;
        let made = params.self_signed(&key.signer()?)?;
        Self::assemble(made.der(), key, String::new(), String::new())
    }

    /// A new authority below this one, which issues leaves only.
    ///
    /// # Errors
    /// As [`Authority::create`]; this one may issue leaves only, or ends earlier.
    pub fn create_intermediate(
        &self,
        name: &str,
        kind: KeyType,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        if self.description.path_length == Some(0) {
            return Err(CertificateError::Request(format!(
                "the authority {} may issue leaves only: make the new one below a root that allows \
                 intermediate authorities",
                self.description.subject
            )));
        }
        let mut params = authority_template(name, 0, lifetime, self.is_development(), now)?;
        params.use_authority_key_identifier_extension = true;
        let key = PrivateKey::generate(kind)?;
        let made = self.sign(&params, &key.signer()?, now)?;
        let own = pem::encode("CERTIFICATE", &made);
        let chain = format!("{}{}", *own, self.chain);
        let root = if self.is_root() { self.certificate.clone() } else { self.root.clone() };
        Self::assemble(&made, key, chain, root)
    }

    fn assemble(
        certificate: &CertificateDer<'_>,
        key: PrivateKey,
        chain: String,
        root: String,
    ) -> Result<Self, CertificateError> {
        let description = Description::read(certificate).map_err(CertificateError::Request)?;
        let issuer = Issuer::from_ca_cert_der(certificate, key.signer()?)?;
        let certificate = pem::encode("CERTIFICATE", certificate).to_string();
        Ok(Self { issuer, description, certificate, chain, root, key })
    }

    /// The authority whose `ca.crt` and `ca.key` are in the folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, the certificate is not that of an authority, or the key is
    /// encrypted.
    pub fn load(folder: &Path) -> Result<Self, CertificateError> {
        Self::open(folder, None)
    }

    /// The same where the key may be encrypted.
    ///
    /// # Errors
    /// As [`Authority::load`] and [`PrivateKey::read`].
    pub fn open(folder: &Path, passphrase: Option<&SecretText>) -> Result<Self, CertificateError> {
        let path = folder.join(AUTHORITY_CERTIFICATE);
        let (der, description) = authority_certificate(folder)?;
        let key_path = folder.join(AUTHORITY_KEY);
        let key = PrivateKey::read(&key_path, passphrase)?;
        if !description.has_public_key(key.public_key()) {
            return Err(content_error(&key_path, &"is not the key of the ca.crt beside it"));
        }
        let (chain, root) = match description.is_self_issued() {
            true => (String::new(), String::new()),
            false => above(folder, &der)?,
        };
        let in_file = |error: CertificateError| content_error(&path, &error);
        Self::assemble(&der, key, chain, root).map_err(in_file)
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What its certificate says.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The end of the authority's own validity; nothing it issues outlives it.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.description.not_after
    }

    fn is_root(&self) -> bool {
        self.chain.is_empty()
    }

    fn is_development(&self) -> bool {
        self.description.development
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600), and for an intermediate authority `chain.crt` and
    /// `root.crt`, into the folder, which is made where missing.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] when one of them is there already and `overwrite` is not set: a
    /// lost authority key cannot be made again.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<(), CertificateError> {
        self.write_encrypted(folder, None, overwrite)
    }

    /// The same with the key encrypted where there is a passphrase.
    ///
    /// # Errors
    /// As [`Authority::write`]; an empty passphrase.
    pub fn write_encrypted(
        &self,
        folder: &Path,
        passphrase: Option<&SecretText>,
        overwrite: bool,
    ) -> Result<(), CertificateError> {
        let path = |name: &str| folder.join(name);
        let key = path(AUTHORITY_KEY);
        make_folder(folder)?;
        let mut texts = vec![(path(AUTHORITY_CERTIFICATE), &self.certificate)];
        if !self.is_root() {
            texts.push((path(AUTHORITY_CHAIN), &self.chain));
            texts.push((path(AUTHORITY_ROOT), &self.root));
        }
        if !overwrite {
            refuse_existing(&[&key])?;
            refuse_existing(&texts.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>())?;
        }
        self.key.write(&key, passphrase, overwrite)?;
        texts.iter().try_for_each(|(path, text)| write_public(path, text.as_bytes(), overwrite))
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for a name that makes no file name, a server without an address,
    /// an account that is not `DOMAIN\name`, or a lifetime beyond that of the authority.
    pub fn issue(
        &self,
        request: &Request,
        now: OffsetDateTime,
    ) -> Result<Issued, CertificateError> {
        let names = Names::from(request);
        check(&names)?;
        let subject = template::common_name(&request.name);
        let mut params =
            template::certificate(subject, request.lifetime, self.is_development(), now)?;
        template::make_leaf(&mut params, request.role.usages());
        params.subject_alt_names = alternative_names(&names)?;
        template::point_to_list(&mut params, request.revocation_list.as_deref())?;
        let pair = PrivateKey::generate(request.key_type)?;
        let made = self.sign(&params, &pair.signer()?, now)?;
        Ok(Issued { certificate: self.with_chain(&made), key: pair.pem(), pair })
    }

    /// Issues a certificate for a key that somebody else has, and gives it with its chain in PEM.
    pub(super) fn issue_for(
        &self,
        mut params: CertificateParams,
        usages: &[Usage],
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<String, CertificateError> {
        template::make_leaf(&mut params, usages);
        Ok(self.with_chain(&self.sign(&params, key, now)?))
    }

    /// A signed list of certificates that are no longer good. `number` has to be higher than that of
    /// every earlier list of this authority.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for a lifetime of less than a minute or a serial number that is
    /// none; [`CertificateError::Build`] when the authority may not issue lists.
    pub fn revocation_list(
        &self,
        number: u64,
        revoked: &[Revoked],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<RevocationList, CertificateError> {
        let key = self.description.key_identifier();
        revocation_list::sign(&self.issuer, key, number, revoked, lifetime, now)
    }

    fn with_chain(&self, certificate: &CertificateDer<'_>) -> String {
        format!("{}{}", *pem::encode("CERTIFICATE", certificate), self.chain)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let own = &self.description;
        own.require_valid(now)?;
        if params.not_after > own.not_after {
            let days = (own.not_after - now).whole_days();
            return Err(CertificateError::Request(format!(
                "the authority itself ends on {}: at most {days} days",
                own.not_after.date()
            )));
        }
        let der = params.signed_by(key, &self.issuer)?.der().clone();
        let made = Description::read(&der).map_err(CertificateError::Request)?;
        // The library keeps one value of each kind in a name: another name would be no chain.
        if !made.is_issued_by(own) {
            return Err(CertificateError::Request(format!(
                "the name of the authority {} has parts that this product cannot write: several of \
                 one kind, or one of a rare kind",
                own.subject
            )));
        }
        Ok(der)
    }
}

fn authority_template(
    name: &str,
    levels: u8,
    lifetime: Duration,
    development: bool,
    now: OffsetDateTime,
) -> Result<CertificateParams, CertificateError> {
    if name.trim().is_empty() {
        return Err(CertificateError::Request("the authority needs a name".into()));
    }
    let subject = template::common_name(name);
    let mut params = template::certificate(subject, lifetime, development, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(levels));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The `ca.crt` of a folder, and what it says.
pub(super) fn authority_certificate(
    folder: &Path,
) -> Result<(CertificateDer<'static>, Description), CertificateError> {
    let path = folder.join(AUTHORITY_CERTIFICATE);
    let (der, _) = first_certificate(&path)?;
    let description = Description::read(&der).map_err(|what| content_error(&path, &what))?;
    if !description.authority {
        return Err(content_error(&path, &"is not the certificate of an authority"));
    }
    Ok((der, description))
}

/// The chain and the root in the folder of an intermediate authority.
fn above(folder: &Path, own: &CertificateDer<'_>) -> Result<(String, String), CertificateError> {
    let chain_path = folder.join(AUTHORITY_CHAIN);
    let (first, chain) = first_certificate(&chain_path)?;
    if first != *own {
        return Err(content_error(&chain_path, &"does not start with the ca.crt beside it"));
    }
    let (_, root) = first_certificate(&folder.join(AUTHORITY_ROOT))?;
    Ok((chain, root))
}

/// The first certificate of a PEM file, and all of them as text without what stands between.
fn first_certificate(path: &Path) -> Result<(CertificateDer<'static>, String), CertificateError> {
    let sections = pem::sections(&read(path)?).map_err(|what| content_error(path, &what))?;
    let mut found = sections.iter().filter(|section| section.is_certificate()).peekable();
    let Some(first) = found.peek() else {
        return Err(content_error(path, &"holds no certificate in PEM form"));
    };
    let first = CertificateDer::from(first.content.to_vec());
    let text = found.map(|it| pem::encode("CERTIFICATE", &it.content).to_string()).collect();
    Ok((first, text))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use time::macros::datetime;

    use super::{
        super::{Role, describe, template::BACKDATED},
        *,
    };

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn authority(development: bool) -> Authority {
        Authority::create("Test CA", Duration::days(3650), development, NOW).unwrap()
    }

    fn issued(authority: &Authority, request: &Request) -> Description {
        let folder = tempfile::tempdir().unwrap();
        let issued = authority.issue(request, NOW).unwrap();
        let (certificate, key) = issued.write(folder.path(), &request.name, false).unwrap();
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        describe(&certificate).unwrap()
    }

    #[test]
    fn a_server_serves_and_calls_the_master() {
        let mut request = Request::new("sso-server-1", Role::Server, Duration::days(397));
        request.dns = vec!["sso-1.corp.example".into()];
        request.addresses = vec!["10.0.0.7".parse().unwrap()];
        let found = issued(&authority(false), &request);
        assert_eq!(found.subject, "CN=sso-server-1");
        assert_eq!(found.issuer, "CN=Test CA");
        assert_eq!(
            found.alternative_names,
            ["DNS:sso-1.corp.example", "IP:10.0.0.7", "URI:sso-server://sso-server-1"]
        );
        assert_eq!(found.usages, ["server", "client"]);
        assert_eq!(found.not_before, NOW - BACKDATED);
        assert_eq!(found.not_after, NOW + Duration::days(397));
        assert!(!found.authority && !found.development);
    }

    #[test]
    fn a_client_carries_its_account_and_serves_nothing() {
        let mut request = Request::new("alice", Role::Client, Duration::days(30));
        request.account = Some(r"CORP\alice".into());
        request.emails = vec!["alice@corp.example".into()];
        let found = issued(&authority(true), &request);
        assert_eq!(found.alternative_names, ["URI:sso://CORP/alice", "email:alice@corp.example"]);
        assert_eq!(found.usages, ["client"]);
        assert!(found.development, "the mark of the authority is on every leaf");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let authority = authority(false);
        let client = |name: &str| Request::new(name, Role::Client, Duration::days(30));
        let mut requests = vec![
            client("../x"),
            client(""),
            Request::new("server", Role::Server, Duration::days(30)),
            Request::new("late", Role::Client, Duration::days(3651)),
            Request::new("short", Role::Client, Duration::hours(1)),
        ];
        for account in ["alice", r"CORP\", r"\alice", r"CORP\a b", r"A\B\C"] {
            requests.push(Request { account: Some(account.into()), ..client("alice") });
        }
        let mut server = Request::new("server", Role::Server, Duration::days(30));
        server.dns = vec!["localhost".into()];
        server.account = Some(r"CORP\alice".into());
        requests.push(server);
        for request in requests {
            let result = authority.issue(&request, NOW);
            assert!(matches!(result, Err(CertificateError::Request(_))), "{request:?}");
        }
    }

    #[test]
    fn a_written_authority_issues_again_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        authority(true).write(folder.path(), false).unwrap();
        let key = folder.path().join(AUTHORITY_KEY);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let again = authority(true).write(folder.path(), false);
        assert!(matches!(again, Err(CertificateError::Exists(_))));

        let loaded = Authority::load(folder.path()).unwrap();
        let found = issued(&loaded, &Request::new("bob", Role::Client, Duration::days(1)));
        assert!(found.development);

        let other = tempfile::tempdir().unwrap();
        authority(true).write(other.path(), false).unwrap();
        fs::copy(other.path().join(AUTHORITY_KEY), &key).unwrap();
        let Err(error) = Authority::load(folder.path()) else { panic!("another key was accepted") };
        assert!(error.to_string().contains("is not the key of"), "{error}");
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let issued = authority(false)
            .issue(&Request::new("ca", Role::Client, Duration::days(1)), NOW)
            .unwrap();
        issued.write(folder.path(), "ca", false).unwrap();
        assert!(Authority::load(folder.path()).is_err());
    }
}
