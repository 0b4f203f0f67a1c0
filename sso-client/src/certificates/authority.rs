//! An authority and what it issues.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::TryRng as _;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SerialNumber,
};
use sso_core::{peer::DEVELOPMENT_OID, settings::write_private};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{
    CertificateError, Request, Role, content_error, describe, file_error, read, refuse_existing,
    request::{alternative_names, check},
    write_public,
};

/// How far before "now" a certificate starts to be valid.
const BACKDATED: Duration = Duration::minutes(5);
/// The authority's certificate inside its folder.
pub const AUTHORITY_CERTIFICATE: &str = "ca.crt";
/// The authority's private key, mode 0600.
pub const AUTHORITY_KEY: &str = "ca.key";

/// A certificate with its private key, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// PKCS#8; wiped when dropped.
    pub key: Zeroizing<String>,
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
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
        if !overwrite {
            refuse_existing(&[&certificate, &key])?;
        }
        // Expose: into a file that only its owner may read.
        write_private(&key, self.key.as_bytes(), overwrite)
            .map_err(|source| file_error(&key, source))?;
        write_public(&certificate, &self.certificate, overwrite)?;
        Ok((certificate, key))
    }
}

/// A certificate authority with its private key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: Zeroizing<String>,
    not_after: OffsetDateTime,
    development: bool,
}

impl Authority {
    /// A new self-signed authority that may issue leaves but no further authorities. With
    /// `development`, it and everything it issues carry the mark that the programs refuse outside of
    /// `sso dev`.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for an empty name or a lifetime of less than a day.
    pub fn create(
        name: &str,
        lifetime: Duration,
        development: bool,
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        if name.trim().is_empty() {
            return Err(CertificateError::Request("the authority needs a name".into()));
        }
        let mut params = parameters(name, lifetime, development, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = params.not_after;
        let pair = KeyPair::generate()?;
        let key = Zeroizing::new(pair.serialize_pem());
        let certificate = params.self_signed(&pair)?.pem();
        let issuer = Issuer::new(params, pair);
        Ok(Self { issuer, certificate, key, not_after, development })
    }

    /// The authority whose `ca.crt` and `ca.key` are in the folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the certificate is not that of an authority.
    pub fn load(folder: &Path) -> Result<Self, CertificateError> {
        let certificate_path = folder.join(AUTHORITY_CERTIFICATE);
        let key_path = folder.join(AUTHORITY_KEY);
        let description = describe(&certificate_path)?;
        if !description.authority {
            return Err(content_error(
                &certificate_path,
                &"is not the certificate of an authority",
            ));
        }
        let certificate = read(&certificate_path)?;
        let key = Zeroizing::new(read(&key_path)?);
        let pair = KeyPair::from_pem(&key).map_err(|error| content_error(&key_path, &error))?;
        if !description.has_public_key(&pair.subject_public_key_info()) {
            return Err(content_error(&key_path, &"is not the key of the ca.crt beside it"));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate, pair)
            .map_err(|error| content_error(&certificate_path, &error))?;
        let (not_after, development) = (description.not_after, description.development);
        Ok(Self { issuer, certificate, key, not_after, development })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The end of the authority's own validity; nothing it issues outlives it.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600) into the folder, which is made where missing.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] when one of them is there already and `overwrite` is not set: a
    /// lost authority key cannot be made again.
    pub fn write(&self, folder: &Path, overwrite: bool) -> Result<(), CertificateError> {
        let (certificate, key) = (folder.join(AUTHORITY_CERTIFICATE), folder.join(AUTHORITY_KEY));
        fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
        if !overwrite {
            refuse_existing(&[&certificate, &key])?;
        }
        // Expose: into a file that only its owner may read.
        write_private(&key, self.key.as_bytes(), overwrite)
            .map_err(|source| file_error(&key, source))?;
        write_public(&certificate, &self.certificate, overwrite)
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
        check(request)?;
        let mut params = parameters(&request.name, request.lifetime, self.development, now)?;
        if params.not_after > self.not_after {
            let days = (self.not_after - now).whole_days();
            return Err(CertificateError::Request(format!(
                "the authority itself ends on {}: at most {days} days",
                self.not_after.date()
            )));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.role {
            Role::Server | Role::Master => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.subject_alt_names = alternative_names(request)?;
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, &self.issuer)?.pem();
        Ok(Issued { certificate, key: Zeroizing::new(pair.serialize_pem()) })
    }
}

fn parameters(
    name: &str,
    lifetime: Duration,
    development: bool,
    now: OffsetDateTime,
) -> Result<CertificateParams, CertificateError> {
    if lifetime < Duration::DAY {
        return Err(CertificateError::Request("a certificate lasts at least 1 day".into()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
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

/// 16 bytes with the top bit clear and the next one set: positive, and always of the same length.
fn random_serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0_u8; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| CertificateError::Randomness)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use time::macros::datetime;

    use super::{super::Description, *};

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

    #[test]
    fn serial_numbers_differ() {
        let serials: std::collections::HashSet<_> =
            (0..100).map(|_| random_serial().unwrap().to_bytes()).collect();
        assert_eq!(serials.len(), 100);
    }
}
