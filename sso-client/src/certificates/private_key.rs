//! Private keys: made, read in any of the usual forms, kept as PKCS #8, encrypted where asked for.

use std::path::Path;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
    },
};
use pkcs8::{
    EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef,
    pkcs5::{self, pbes2},
};
use rand::TryRng as _;
use rcgen::KeyPair;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sso_core::tls::is_bearable;
use zeroize::Zeroizing;

use super::{
    CertificateError, content_error,
    files::{self, write_secret},
    pem::{self, Section},
};
use crate::SecretText;

/// Rounds of PBKDF2 when a key is encrypted.
pub(super) const ROUNDS: u32 = 600_000;

/// Which kind of key is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyType {
    /// ECDSA on the curve P-256: every TLS library has it.
    #[default]
    P256,
    /// ECDSA on the curve P-384.
    P384,
    /// Ed25519: browsers and older libraries do not have it.
    Ed25519,
}

/// A private key, wiped when dropped.
pub struct PrivateKey {
    /// PKCS #8.
    der: Zeroizing<Vec<u8>>,
    /// DER of the `SubjectPublicKeyInfo`.
    public: Vec<u8>,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// [`CertificateError::Randomness`].
    pub fn generate(kind: KeyType) -> Result<Self, CertificateError> {
        let made = match kind {
            KeyType::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .and_then(|key| key.to_pkcs8v1()),
            KeyType::P384 => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)
                .and_then(|key| key.to_pkcs8v1()),
            // Version 1: OpenSSL 3 does not read keys with the public half inside.
            KeyType::Ed25519 => Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1()),
        };
        let document = made.map_err(|_| CertificateError::Randomness)?;
        Self::from_pkcs8(document.as_ref()).map_err(|_| CertificateError::Randomness)
    }

    /// Reads a PEM or DER file: PKCS #8, plain or encrypted, and the older forms of RSA and elliptic
    /// curve keys.
    ///
    /// # Errors
    /// [`CertificateError::PassphraseMissing`] for an encrypted key without a passphrase,
    /// [`CertificateError::PassphraseWrong`] for one that does not open it; otherwise what is wrong with
    /// the file.
    pub fn read(path: &Path, passphrase: Option<&SecretText>) -> Result<Self, CertificateError> {
        let bytes = files::read(path)?;
        if !pem::is_pem(&bytes) {
            return Self::from_pkcs8(&bytes)
                .or_else(|_| from_rsa(&bytes))
                .or_else(|_| from_elliptic_curve(&bytes))
                .or_else(|_| open(&bytes, passphrase).map_err(|fault| fault.of(path)));
        }
        let sections = pem::sections(&bytes).map_err(|what| content_error(path, &what))?;
        match Self::among(&sections, passphrase).map_err(|fault| fault.of(path))? {
            Some(key) => Ok(key),
            None => Err(content_error(path, &"holds no private key")),
        }
    }

    /// The one key among the sections of a file, if there is one.
    pub(super) fn among(
        sections: &[Section],
        passphrase: Option<&SecretText>,
    ) -> Result<Option<Self>, KeyFault> {
        let mut keys = sections.iter().filter(|section| section.is_key());
        let Some(section) = keys.next() else { return Ok(None) };
        if keys.next().is_some() {
            return Err(KeyFault::content("holds several private keys: keep one"));
        }
        Self::from_section(section, passphrase).map(Some)
    }

    fn from_section(section: &Section, passphrase: Option<&SecretText>) -> Result<Self, KeyFault> {
        if section.has_headers {
            return Err(KeyFault::content(
                "holds a key that is encrypted in the old way of OpenSSL, which is weak: convert it \
                 with `openssl pkcs8 -topk8 -in OLD -out NEW`",
            ));
        }
        match section.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&section.content),
            "ENCRYPTED PRIVATE KEY" => open(&section.content, passphrase),
            "RSA PRIVATE KEY" => from_rsa(&section.content),
            "EC PRIVATE KEY" => from_elliptic_curve(&section.content),
            other => Err(KeyFault::content(format!("holds a {other}, which is not supported"))),
        }
    }

    /// Takes over a key in PKCS #8.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyFault> {
        let unusable =
            || KeyFault::content("holds no private key that TLS can use: RSA, ECDSA or Ed25519");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
        let signer = any_supported_type(&key).map_err(|_| unusable())?;
        let public = signer.public_key().ok_or_else(unusable)?.as_ref().to_vec();
        Ok(Self { der: Zeroizing::new(der.to_vec()), public })
    }

    /// The public half: DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// PKCS #8 in DER.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// PKCS #8 in PEM, without a passphrase.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.der)
    }

    /// PKCS #8 in PEM, encrypted with AES-256 under a key that PBKDF2 derives from the passphrase.
    ///
    /// # Errors
    /// [`CertificateError::Request`] for an empty passphrase; no random numbers.
    pub fn encrypted_pem(
        &self,
        passphrase: &SecretText,
    ) -> Result<Zeroizing<String>, CertificateError> {
        if passphrase.is_empty() {
            return Err(CertificateError::Request("the passphrase of a key is not empty".into()));
        }
        let (mut salt, mut start) = ([0_u8; 16], [0_u8; 16]);
        let mut random = rand::rngs::SysRng;
        random
            .try_fill_bytes(&mut salt)
            .and_then(|()| random.try_fill_bytes(&mut start))
            .map_err(|_| CertificateError::Randomness)?;
        let failed = |what: &str| CertificateError::Request(format!("the key cannot be {what}"));
        let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, start)
            .map_err(|_| failed("encrypted"))?;
        let key =
            PrivateKeyInfoRef::try_from(self.der.as_slice()).map_err(|_| failed("read again"))?;
        // Expose: the key of the encryption is derived from it.
        let sealed = key
            .encrypt_with_params(parameters, passphrase.expose())
            .map_err(|_| failed("encrypted"))?;
        Ok(pem::encode("ENCRYPTED PRIVATE KEY", sealed.as_bytes()))
    }

    /// Writes it to a file that only its owner may read, encrypted where there is a passphrase.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] unless `overwrite`; as [`PrivateKey::encrypted_pem`].
    pub fn write(
        &self,
        path: &Path,
        passphrase: Option<&SecretText>,
        overwrite: bool,
    ) -> Result<(), CertificateError> {
        let text = match passphrase {
            Some(passphrase) => self.encrypted_pem(passphrase)?,
            None => self.pem(),
        };
        write_secret(path, text.as_bytes(), overwrite)
    }

    /// What signs requests and certificates.
    pub(super) fn signer(&self) -> Result<KeyPair, CertificateError> {
        Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.der.as_slice()))?)
    }
}

/// What is wrong with a key, before the name of its file is known.
#[derive(Debug)]
pub(super) enum KeyFault {
    Content(String),
    PassphraseMissing,
    PassphraseWrong,
}

impl KeyFault {
    pub(super) fn content(what: impl Into<String>) -> Self {
        Self::Content(what.into())
    }

    pub(super) fn of(self, path: &Path) -> CertificateError {
        match self {
            Self::Content(what) => content_error(path, &what),
            Self::PassphraseMissing => CertificateError::PassphraseMissing(path.to_owned()),
            Self::PassphraseWrong => CertificateError::PassphraseWrong(path.to_owned()),
        }
    }
}

/// Opens an encrypted PKCS #8 key.
fn open(der: &[u8], passphrase: Option<&SecretText>) -> Result<PrivateKey, KeyFault> {
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| {
        KeyFault::content("holds no private key, or one encrypted in a way that is not supported")
    })?;
    if !is_bearable(&sealed.encryption_algorithm) {
        return Err(KeyFault::content("holds a key whose passphrase takes too much work to try"));
    }
    let passphrase = passphrase.ok_or(KeyFault::PassphraseMissing)?;
    // Expose: the key of the encryption is derived from it.
    match sealed.decrypt(passphrase.expose()) {
        // What a wrong passphrase opens is garbage, which now and then ends like something whole.
        Ok(plain) => {
            PrivateKey::from_pkcs8(plain.as_bytes()).map_err(|_| KeyFault::PassphraseWrong)
        }
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::UnsupportedAlgorithm { .. })) => {
            Err(KeyFault::content("holds a key encrypted in a way that is not supported"))
        }
        Err(_) => Err(KeyFault::PassphraseWrong),
    }
}

fn from_rsa(der: &[u8]) -> Result<PrivateKey, KeyFault> {
    let damaged = || KeyFault::content("holds a damaged RSA key, or one of fewer than 2048 bits");
    let key = RsaKeyPair::from_der(der).map_err(|_| damaged())?;
    let document: Pkcs8V1Der<'_> = key.as_der().map_err(|_| damaged())?;
    PrivateKey::from_pkcs8(document.as_ref())
}

fn from_elliptic_curve(der: &[u8]) -> Result<PrivateKey, KeyFault> {
    let curves = [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
        &ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    let document = curves
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
        .and_then(|key| key.to_pkcs8v1().ok())
        .ok_or_else(|| KeyFault::content("holds a damaged key, or one of another curve"))?;
    PrivateKey::from_pkcs8(document.as_ref())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn every_kind_of_key_is_written_privately_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
            let key = PrivateKey::generate(kind).unwrap();
            let plain = folder.path().join(format!("{kind:?}.key"));
            key.write(&plain, None, false).unwrap();
            assert_eq!(std::fs::metadata(&plain).unwrap().permissions().mode() & 0o777, 0o600);
            let read = PrivateKey::read(&plain, None).unwrap();
            assert_eq!(read.public_key(), key.public_key(), "{kind:?}");
            assert!(matches!(key.write(&plain, None, false), Err(CertificateError::Exists(_))));

            let sealed = folder.path().join(format!("{kind:?}.sealed"));
            key.write(&sealed, Some(&text("canary ü")), false).unwrap();
            let file = std::fs::read_to_string(&sealed).unwrap();
            assert!(file.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{file}");
            let opened = PrivateKey::read(&sealed, Some(&text("canary ü"))).unwrap();
            assert_eq!(opened.public_key(), key.public_key(), "{kind:?}");
            let wrong = PrivateKey::read(&sealed, Some(&text("canary u"))).unwrap_err();
            assert!(matches!(wrong, CertificateError::PassphraseWrong(_)), "{wrong}");
            let missing = PrivateKey::read(&sealed, None).unwrap_err();
            assert!(matches!(missing, CertificateError::PassphraseMissing(_)), "{missing}");
            assert!(!format!("{wrong:?} {key:?}").contains("canary"));
        }
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        assert!(key.encrypted_pem(&text("")).is_err(), "an empty passphrase protects nothing");
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.key");
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for (content, words) in [
            ("", "holds no private key"),
            ("nonsense", "holds no private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "that TLS can use"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END X-----\n", "damaged PEM"),
            (old, "openssl pkcs8"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = PrivateKey::read(&path, Some(&text("x"))).unwrap_err();
            assert!(error.to_string().contains(words), "{content:?}: {error}");
        }
        let two = format!(
            "{}{}",
            *PrivateKey::generate(KeyType::P256).unwrap().pem(),
            *PrivateKey::generate(KeyType::P256).unwrap().pem()
        );
        std::fs::write(&path, two).unwrap();
        let error = PrivateKey::read(&path, None).unwrap_err();
        assert!(error.to_string().contains("several private keys"), "{error}");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let passphrase = text("x");
            let _ = open(&bytes, Some(&passphrase));
            let _ = from_rsa(&bytes);
            let _ = from_elliptic_curve(&bytes);
            let _ = PrivateKey::from_pkcs8(&bytes);
            let _ = pem::sections(&bytes);
        }

        #[test]
        fn a_damaged_key_never_panics(at in 0_usize..138, bit in 0_u8..8) {
            let mut der = PrivateKey::generate(KeyType::P256).unwrap().der.to_vec();
            if let Some(byte) = der.get_mut(at) {
                *byte ^= 1 << bit;
            }
            let _ = PrivateKey::from_pkcs8(&der);
            let _ = open(&der, None);
        }
    }
}
