//! Certificates put where programs read them, and taken out to where others do.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    Bundle, CertificateError, Chain, Description, PrivateKey, Usage,
    files::{make_folder, refuse_existing, write_public, write_secret},
    pem, pkcs12,
    request::check_file_name,
};
use crate::SecretText;

/// A certificate with its key and its chain, checked to belong together.
#[derive(Debug)]
pub struct Identity {
    /// The leaf first, then each with its issuer behind it; without a root.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What the leaf says.
    pub leaf: Description,
    key: PrivateKey,
}

/// Where an identity was written.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// Leaf and chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whether older files were in their place.
    pub replaced: bool,
}

/// Where the parts of an identity are found.
#[derive(Clone, Debug)]
pub struct Parts<'p> {
    /// File with the certificate; it may have its chain and its key, too.
    pub certificate: &'p Path,
    /// File with the key, where it is another one.
    pub key: Option<&'p Path>,
    /// Files with further certificates.
    pub chain: &'p [PathBuf],
    /// File with the authorities that are trusted.
    pub authorities: &'p Path,
    /// What the certificate has to be good for; either will do where this is empty.
    pub usages: &'p [Usage],
}

impl Identity {
    /// Reads the parts and checks that they are one: the key is that of the certificate, the chain ends
    /// at a trusted authority, everything in it is valid at `now`, and the purpose fits.
    ///
    /// # Errors
    /// [`CertificateError::KeyMismatch`]; as [`Chain::build`], [`Bundle::read`] and [`PrivateKey::read`].
    pub fn gather(
        parts: &Parts<'_>,
        passphrase: Option<&SecretText>,
        now: OffsetDateTime,
    ) -> Result<Self, CertificateError> {
        let (key, bundle) = key_and_bundle(parts.certificate, parts.key, passphrase)?;
        let (leaf, mut others) = split(&bundle, &key, parts.certificate, parts.key)?;
        for file in parts.chain {
            others.extend(Bundle::read(file, None)?.certificates);
        }
        let authorities = Bundle::read(parts.authorities, None)?.certificates;
        let chain = Chain::build(&leaf, &others, &authorities, parts.usages, now)?;
        let certificates = chain.certificates.into_iter().filter(is_no_root).collect();
        Ok(Self { certificates, leaf: chain.leaf, key })
    }

    /// The same without judging the chain: certificate and key have to fit, and everything else that is
    /// in the files comes along, ordered from the leaf upwards as far as it goes. Roots stay out.
    ///
    /// # Errors
    /// [`CertificateError::KeyMismatch`]; as [`Bundle::read`] and [`PrivateKey::read`].
    pub fn read(
        certificate: &Path,
        key: Option<&Path>,
        chain: &[PathBuf],
        passphrase: Option<&SecretText>,
    ) -> Result<Self, CertificateError> {
        let (private, bundle) = key_and_bundle(certificate, key, passphrase)?;
        let (leaf_der, mut others) = split(&bundle, &private, certificate, key)?;
        for file in chain {
            others.extend(Bundle::read(file, None)?.certificates);
        }
        let read = |der: &CertificateDer<'_>| {
            Description::read(der).map_err(|what| super::content_error(certificate, &what))
        };
        let leaf = read(&leaf_der)?;
        let mut certificates = vec![leaf_der];
        let mut last = leaf.clone();
        while let Some(at) = position_of_issuer(&last, &others) {
            let issuer = others.remove(at);
            last = read(&issuer)?;
            certificates.push(issuer);
        }
        Ok(Self { certificates, leaf, key: private })
    }

    /// Writes `NAME.crt` (leaf and chain) and `NAME.key` (mode 0600, encrypted where there is a
    /// passphrase) into the folder, each at once or not at all.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] unless `replace`; a name that makes no file name.
    pub fn write(
        &self,
        folder: &Path,
        name: &str,
        passphrase: Option<&SecretText>,
        replace: bool,
    ) -> Result<Installed, CertificateError> {
        check_file_name(name)?;
        make_folder(folder)?;
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        let replaced = certificate.exists() || key.exists();
        if !replace {
            refuse_existing(&[&certificate, &key])?;
        }
        // The key first: a program that looks between the two sees that they do not fit, stays with what
        // it has, and looks again when the second file changes.
        self.key.write(&key, passphrase, replace)?;
        write_public(&certificate, self.pem().as_bytes(), replace)?;
        Ok(Installed { certificate, key, replaced })
    }

    /// The certificates in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificates.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect()
    }

    /// All of it as a PKCS #12 file: AES-256, PBKDF2 and HMAC-SHA-256.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for an empty passphrase.
    pub fn pkcs12(
        &self,
        name: &str,
        passphrase: &SecretText,
    ) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
        pkcs12::write(&self.certificates, &self.key, name, passphrase)
    }

    /// Writes [`Identity::pkcs12`] to a file that only its owner may read.
    ///
    /// # Errors
    /// As [`Identity::pkcs12`]; [`CertificateError::Exists`] unless `replace`.
    pub fn export(
        &self,
        file: &Path,
        name: &str,
        passphrase: &SecretText,
        replace: bool,
    ) -> Result<(), CertificateError> {
        write_secret(file, &self.pkcs12(name, passphrase)?, replace)
    }
}

fn key_and_bundle(
    certificate: &Path,
    key: Option<&Path>,
    passphrase: Option<&SecretText>,
) -> Result<(PrivateKey, Bundle), CertificateError> {
    // The passphrase is that of the file with the key, which is to be tried on that one alone.
    let mut bundle = Bundle::read(certificate, passphrase.filter(|_| key.is_none()))?;
    let private = match (key, bundle.key.take()) {
        (Some(file), _) => PrivateKey::read(file, passphrase)?,
        (None, Some(private)) => private,
        (None, None) if bundle.has_closed_key => {
            return Err(CertificateError::PassphraseMissing(certificate.to_owned()));
        }
        (None, None) => {
            return Err(super::content_error(certificate, &"holds no private key: give a --key"));
        }
    };
    Ok((private, bundle))
}

/// The certificate of the key, and the others. A chain may come in any order, but the key has to be
/// that of a certificate in the file of the certificate.
fn split(
    bundle: &Bundle,
    private: &PrivateKey,
    certificate: &Path,
    key: Option<&Path>,
) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), CertificateError> {
    let descriptions = bundle.describe(certificate)?;
    let Some(at) = descriptions.iter().position(|it| it.has_public_key(private.public_key()))
    else {
        return Err(CertificateError::KeyMismatch {
            certificate: certificate.to_owned(),
            key: key.unwrap_or(certificate).to_owned(),
        });
    };
    let mut others = bundle.certificates.clone();
    let leaf = others.remove(at);
    Ok((leaf, others))
}

fn is_no_root(der: &CertificateDer<'_>) -> bool {
    !Description::read(der).is_ok_and(|it| it.authority && it.is_self_issued())
}

fn position_of_issuer(last: &Description, others: &[CertificateDer<'_>]) -> Option<usize> {
    others.iter().position(|der| {
        is_no_root(der)
            && Description::read(der).is_ok_and(|it| it.authority && last.is_issued_by(&it))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use time::{Duration, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, KeyType, Request, Role};

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    struct Files {
        folder: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
        root: PathBuf,
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let root = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let below =
            root.create_intermediate("Below", KeyType::P256, Duration::days(900), NOW).unwrap();
        root.write(&folder.path().join("root"), false).unwrap();
        let request = Request::new("gateway", Role::Client, Duration::days(30));
        let issued = below.issue(&request, NOW).unwrap();
        let (certificate, key) = issued.write(folder.path(), "gateway", false).unwrap();
        let root = folder.path().join("root/ca.crt");
        Files { folder, certificate, key, root }
    }

    fn parts<'f>(files: &'f Files, key: &'f Path) -> Parts<'f> {
        Parts {
            certificate: &files.certificate,
            key: Some(key),
            chain: &[],
            authorities: &files.root,
            usages: &[],
        }
    }

    #[test]
    fn what_belongs_together_is_installed() {
        let files = files();
        let identity = Identity::gather(&parts(&files, &files.key), None, NOW).unwrap();
        let out = files.folder.path().join("out");
        let installed = identity.write(&out, "gw", None, false).unwrap();
        assert!(!installed.replaced);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&installed.key), mode(&installed.certificate)), (0o600, 0o644));
        assert_eq!(
            fs::read_to_string(&installed.certificate).unwrap(),
            fs::read_to_string(&files.certificate).unwrap(),
            "leaf and intermediate authority, without the root"
        );
        let again = identity.write(&out, "gw", None, false).unwrap_err();
        assert!(matches!(again, CertificateError::Exists(_)), "{again}");
        assert!(identity.write(&out, "gw", None, true).unwrap().replaced);
        assert!(identity.write(&out, "../gw", None, true).is_err());
    }

    #[test]
    fn a_foreign_key_and_a_missing_one() {
        let files = files();
        let other = files.folder.path().join("other.key");
        PrivateKey::generate(KeyType::P256).unwrap().write(&other, None, false).unwrap();
        let error = Identity::gather(&parts(&files, &other), None, NOW).unwrap_err();
        assert!(matches!(error, CertificateError::KeyMismatch { .. }), "{error}");
        let without = Parts { key: None, ..parts(&files, &other) };
        let error = Identity::gather(&without, None, NOW).unwrap_err();
        assert!(error.to_string().contains("--key"), "{error}");
    }

    #[test]
    fn out_and_in_again() {
        let files = files();
        let passphrase = SecretText::new("canary".into());
        let identity = Identity::read(&files.certificate, Some(&files.key), &[], None).unwrap();
        let file = files.folder.path().join("gw.p12");
        identity.export(&file, "gw", &passphrase, false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Identity::read(&file, None, &[], Some(&passphrase)).unwrap();
        assert_eq!(read.certificates, identity.certificates);
        assert_eq!(read.leaf.subject, "CN=gateway");
        // Installed from the file as it is.
        let parts = Parts {
            certificate: &file,
            key: None,
            chain: &[],
            authorities: &files.root,
            usages: &[Usage::Client],
        };
        Identity::gather(&parts, Some(&passphrase), NOW).unwrap();
        let missing = Identity::gather(&parts, None, NOW).unwrap_err();
        assert!(matches!(missing, CertificateError::PassphraseMissing(_)), "{missing}");
    }
}
