//! A file with certificates, whatever its form.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest,
    prelude::FromDer as _, revocation_list::CertificateRevocationList,
};
use zeroize::Zeroizing;

use super::{CertificateError, Description, PrivateKey, content_error, files, pem, pkcs12};
use crate::SecretText;

/// The certificates of a file, and its private key where it holds one.
#[derive(Debug)]
pub struct Bundle {
    /// At least one, in the order of the file; of a PKCS #12 file that of the key first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The private key, where the file holds one.
    pub key: Option<PrivateKey>,
    /// The file holds an encrypted key, for which no passphrase was given.
    pub has_closed_key: bool,
}

impl Bundle {
    /// Reads a file in PEM, DER or PKCS #12. An encrypted key in a PEM file stays closed without a
    /// passphrase; a PKCS #12 file cannot be read without one.
    ///
    /// # Errors
    /// The file cannot be read, holds no certificate (the text says what it holds instead), or the
    /// passphrase is missing or wrong.
    pub fn read(path: &Path, passphrase: Option<&SecretText>) -> Result<Self, CertificateError> {
        let bytes = files::read(path)?;
        if pem::is_pem(&bytes) {
            return Self::from_pem(path, &bytes, passphrase);
        }
        if pkcs12::is_pkcs12(&bytes) {
            let contents = pkcs12::read(&bytes, passphrase).map_err(|fault| fault.of(path))?;
            if contents.certificates.is_empty() {
                return Err(content_error(path, &"is a PKCS #12 file without a certificate"));
            }
            let (certificates, key) = (contents.certificates, contents.key);
            return Ok(Self { certificates, key, has_closed_key: false });
        }
        match X509Certificate::from_der(&bytes) {
            Ok(([], _)) => Ok(Self {
                certificates: vec![CertificateDer::from(bytes.to_vec())],
                key: None,
                has_closed_key: false,
            }),
            Ok(_) | Err(_) => Err(content_error(path, &instead_of_certificate(&bytes))),
        }
    }

    fn from_pem(
        path: &Path,
        bytes: &Zeroizing<Vec<u8>>,
        passphrase: Option<&SecretText>,
    ) -> Result<Self, CertificateError> {
        let sections = pem::sections(bytes).map_err(|what| content_error(path, &what))?;
        let certificates: Vec<_> = sections
            .iter()
            .filter(|section| section.is_certificate())
            .map(|section| CertificateDer::from(section.content.to_vec()))
            .collect();
        if certificates.is_empty() {
            let labels: Vec<_> = sections.iter().map(|section| section.label.as_str()).collect();
            return Err(content_error(path, &pem_without_certificate(&labels)));
        }
        let closed =
            |section: &pem::Section| section.has_headers || section.label.starts_with("ENCRYPTED ");
        let has_closed_key = passphrase.is_none()
            && sections.iter().any(|section| section.is_key() && closed(section));
        let key = match has_closed_key {
            true => None,
            false => PrivateKey::among(&sections, passphrase).map_err(|fault| fault.of(path))?,
        };
        Ok(Self { certificates, key, has_closed_key })
    }

    /// What every certificate says, in the order of [`Bundle::certificates`].
    ///
    /// # Errors
    /// A damaged certificate; `path` is named in the error.
    pub fn describe(&self, path: &Path) -> Result<Vec<Description>, CertificateError> {
        self.certificates
            .iter()
            .map(|der| Description::read(der).map_err(|what| content_error(path, &what)))
            .collect()
    }
}

fn pem_without_certificate(labels: &[&str]) -> String {
    let instead = match labels.first() {
        Some(label) if pem::REQUEST.contains(label) => "a certificate request",
        Some(&pem::REVOCATION_LIST) => "a revocation list",
        Some(label) if label.ends_with("PRIVATE KEY") => "a private key",
        Some(label) => return format!("holds no certificate, but a {label}"),
        None => return "holds no certificate".to_owned(),
    };
    format!("holds no certificate, but {instead}")
}

fn instead_of_certificate(bytes: &[u8]) -> String {
    if X509CertificationRequest::from_der(bytes).is_ok() {
        return "holds no certificate, but a certificate request".to_owned();
    }
    if CertificateRevocationList::from_der(bytes).is_ok() {
        return "holds no certificate, but a revocation list".to_owned();
    }
    "holds no certificate in PEM, DER or PKCS #12".to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, KeyType, Tree, Wanted};

    fn read(content: &[u8]) -> Result<Bundle, CertificateError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, content).unwrap();
        Bundle::read(&path, None)
    }

    #[test]
    fn pem_and_der_with_anything_between() {
        let now = datetime!(2030-01-02 03:04:05 UTC);
        let root = Authority::create("Root", Duration::days(30), false, now).unwrap();
        let pem = format!("subject=CN=Root\r\n{}\nthe end\n", root.certificate());
        let from_pem = read(pem.as_bytes()).unwrap();
        let from_der = read(&from_pem.certificates[0]).unwrap();
        assert_eq!(from_pem.certificates, from_der.certificates);
        assert!(from_pem.key.is_none() && !from_pem.has_closed_key);

        let key = PrivateKey::generate(KeyType::P256).unwrap();
        let with_key = read(format!("{}{pem}", *key.pem()).as_bytes()).unwrap();
        assert_eq!(with_key.key.unwrap().public_key(), key.public_key());
        let sealed = key.encrypted_pem(&SecretText::new("x".into())).unwrap();
        let closed = read(format!("{}{pem}", *sealed).as_bytes()).unwrap();
        assert!(closed.key.is_none() && closed.has_closed_key);
    }

    #[test]
    fn what_a_file_holds_instead_is_named() {
        let now = datetime!(2030-01-02 03:04:05 UTC);
        let root = Authority::create("Root", Duration::days(30), false, now).unwrap();
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        let request = Wanted { name: "x".into(), ..Wanted::default() }.sign(&key).unwrap();
        let list = root.revocation_list(1, &[], Duration::DAY, now).unwrap();
        let request_der = pem::sections(request.as_bytes()).unwrap().remove(0).content;
        for (content, words) in [
            (request.as_bytes(), "a certificate request"),
            (&request_der, "a certificate request"),
            (list.pem().as_bytes(), "a revocation list"),
            (list.der(), "a revocation list"),
            (key.pem().as_bytes(), "a private key"),
            (b"", "in PEM, DER or PKCS #12"),
            (b"nonsense", "in PEM, DER or PKCS #12"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA", "damaged PEM"),
        ] {
            let error = read(content).unwrap_err();
            assert!(matches!(error, CertificateError::Content { .. }), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let damaged = read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(damaged.unwrap().describe(Path::new("x")).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let der = CertificateDer::from(bytes);
            let tree = Tree::build(std::slice::from_ref(&der));
            prop_assert!(tree.certificates.is_empty() && tree.unreadable.len() == 1);
        }

        #[test]
        fn a_damaged_certificate_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let now = datetime!(2030-01-02 03:04:05 UTC);
            let root = Authority::create("Root", Duration::days(30), false, now).unwrap();
            let mut der = pem::sections(root.certificate().as_bytes()).unwrap().remove(0).content;
            let at = at.index(der.len());
            der[at] = value;
            let tree = Tree::build(&[CertificateDer::from(der.to_vec())]);
            prop_assert_eq!(tree.certificates.len() + tree.unreadable.len(), 1);
        }
    }
}
