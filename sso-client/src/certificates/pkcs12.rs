//! PKCS #12: certificates and their key in one encrypted file, as Windows and Java keep them.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, Pkcs12Archive,
    PrivateKeyChain, error::Error,
};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{CertificateError, Description, PrivateKey, private_key::KeyFault};
use crate::SecretText;

/// Rounds of each of the three derivations of a file that is written: Windows refuses files that take
/// more than 600 000 in all.
const ROUNDS: u32 = 150_000;

/// Bytes of the largest file: a key with its chain has some thousands, a Java store of all public
/// authorities some 200 000.
const MAX_FILE: usize = 1024 * 1024;
/// The most parts that are encrypted each by itself. Every one takes the work of a derivation, which
/// the library bounds.
const MOST_ENCRYPTED: usize = 64;
/// DER of the names of encryptions: PBES2, and all of PKCS #12 but their last number.
const PBES2: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBES1: &[u8] = &[0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];

/// What a file holds: its key, if it has one, and its certificates, that of the key first.
pub(super) struct Contents {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: Option<PrivateKey>,
}

/// Whether these bytes start as a PKCS #12 file does: a sequence whose first number is 3.
pub(super) fn is_pkcs12(bytes: &[u8]) -> bool {
    let behind_header = match bytes {
        [0x30, length, rest @ ..] if *length <= 0x80 => rest,
        [0x30, length, rest @ ..] => rest.get(usize::from(*length & 0x7f)..).unwrap_or(&[]),
        _ => &[],
    };
    behind_header.starts_with(&[0x02, 0x01, 0x03])
}

/// Opens a file, also one with the old encryption of Windows and Java.
pub(super) fn read(bytes: &[u8], passphrase: Option<&SecretText>) -> Result<Contents, KeyFault> {
    refuse_much_work(bytes)?;
    let passphrase = passphrase.ok_or(KeyFault::PassphraseMissing)?;
    // Expose: the keys of the encryption are derived from it.
    let archive =
        Pkcs12Archive::from_pkcs12(bytes, passphrase.expose()).map_err(|error| fault(&error))?;
    let mut certificates: Vec<CertificateDer<'static>> =
        archive.certs.iter().map(|it| CertificateDer::from(it.cert.as_der().to_vec())).collect();
    let key = match archive.keys.as_slice() {
        [] => None,
        [key] => Some(PrivateKey::from_pkcs8(key.key.as_der())?),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|key| key.friendly_name.as_deref().unwrap_or("without a name"))
                .collect();
            return Err(KeyFault::content(format!(
                "holds several private keys ({}): export each to a file of its own",
                names.join(", ")
            )));
        }
    };
    if let Some(key) = &key {
        // Stable: the others keep their order.
        certificates.sort_by_key(|der| !is_of(der, key));
    }
    Ok(Contents { certificates, key })
}

/// Refuses what would keep the processor busy for longer than anybody waits. Parts inside of encrypted
/// ones are not seen here; the size of the file bounds them.
fn refuse_much_work(bytes: &[u8]) -> Result<(), KeyFault> {
    if bytes.len() > MAX_FILE {
        return Err(KeyFault::content(format!(
            "is far too large for a PKCS #12 file with a key: {} bytes, and {MAX_FILE} are the most",
            bytes.len()
        )));
    }
    let count = |name: &[u8]| bytes.windows(name.len()).filter(|it| *it == name).count();
    let encrypted = count(PBES2) + count(PBES1);
    match encrypted > MOST_ENCRYPTED {
        true => Err(KeyFault::content(format!(
            "has {encrypted} encrypted parts, and {MOST_ENCRYPTED} are the most: export the key that \
             is needed to a file of its own"
        ))),
        false => Ok(()),
    }
}

/// Makes a file with AES-256, PBKDF2 and HMAC-SHA-256. The certificate of the key comes first.
pub(super) fn write(
    certificates: &[CertificateDer<'_>],
    key: &PrivateKey,
    name: &str,
    passphrase: &SecretText,
) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed =
        |error: Error| CertificateError::Request(format!("cannot make the PKCS #12 file: {error}"));
    if passphrase.is_empty() {
        let text = "the passphrase of a PKCS #12 file is not empty: it holds the private key";
        return Err(CertificateError::Request(text.into()));
    }
    let chain = certificates
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let leaf = certificates.first().and_then(|der| Description::read(der).ok());
    // What others put here, too: the SHA-1 of the certificate.
    let identifier = leaf.map(|leaf| leaf.thumbprint_sha1).unwrap_or_default();
    let key = p12_keystore::PrivateKey::from_der(key.der()).map_err(failed)?;
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(identifier, key, chain);
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(entry));
    // Expose: the keys of the encryption are derived from it.
    let file = store
        .writer(passphrase.expose())
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ROUNDS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ROUNDS)
        .write()
        .map_err(failed)?;
    Ok(Zeroizing::new(file))
}

fn is_of(der: &CertificateDer<'_>, key: &PrivateKey) -> bool {
    Description::read(der).is_ok_and(|it| it.has_public_key(key.public_key()))
}

fn fault(error: &Error) -> KeyFault {
    match error {
        Error::MacError(_) | Error::Pkcs5Error(_) | Error::UnpadError => KeyFault::PassphraseWrong,
        Error::UnsupportedContentType
        | Error::UnsupportedEncryptionScheme
        | Error::UnsupportedMacAlgorithm
        | Error::UnsupportedCertificateType => KeyFault::content(format!(
            "is a PKCS #12 file of a kind that is not supported: {error}"
        )),
        Error::InvalidParameters => {
            KeyFault::content("is a PKCS #12 file whose passphrase takes too much work to try")
        }
        Error::IoError(_)
        | Error::DerError(_)
        | Error::InvalidVersion
        | Error::X509Error(_)
        | Error::InvalidLength
        | Error::InvalidData
        | Error::InvalidPrivateKey => {
            KeyFault::content(format!("is a damaged PKCS #12 file: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, KeyType, Request, Role, pem};

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    fn file(passphrase: &str) -> (Zeroizing<Vec<u8>>, PrivateKey, Vec<CertificateDer<'static>>) {
        let now = datetime!(2030-01-02 03:04:05 UTC);
        let root = Authority::create("Root", Duration::days(3650), false, now).unwrap();
        let below =
            root.create_intermediate("Below", KeyType::P256, Duration::days(900), now).unwrap();
        let request = Request::new("gateway", Role::Client, Duration::days(30));
        let issued = below.issue(&request, now).unwrap();
        let certificates: Vec<_> = pem::sections(issued.certificate.as_bytes())
            .unwrap()
            .iter()
            .map(|section| CertificateDer::from(section.content.to_vec()))
            .collect();
        let keys = pem::sections(issued.key.as_bytes()).unwrap();
        let key = PrivateKey::from_pkcs8(&keys[0].content).unwrap();
        let made = write(&certificates, &key, "gateway", &text(passphrase)).unwrap();
        (made, key, certificates)
    }

    #[test]
    fn a_file_is_opened_with_its_passphrase_alone() {
        let (bytes, key, certificates) = file("canary ä€");
        assert!(is_pkcs12(&bytes));
        let contents = read(&bytes, Some(&text("canary ä€"))).unwrap();
        assert_eq!(contents.certificates, certificates);
        assert_eq!(contents.key.unwrap().public_key(), key.public_key());
        assert!(matches!(read(&bytes, Some(&text("canary"))), Err(KeyFault::PassphraseWrong)));
        assert!(matches!(read(&bytes, None), Err(KeyFault::PassphraseMissing)));
        let refused = write(&certificates, &key, "x", &text("")).unwrap_err();
        assert!(matches!(refused, CertificateError::Request(_)), "{refused}");
    }

    #[test]
    fn a_file_that_takes_too_much_work_is_refused_before_any() {
        let (bytes, _, _) = file("x");
        // The certificates and the key.
        let parts = bytes.windows(PBES2.len()).filter(|it| *it == PBES2).count();
        assert_eq!(parts, 2);
        let refused = |bytes: &[u8], words: &str| {
            // Without a passphrase, too: nobody types one for nothing.
            for passphrase in [None, Some(&text("x"))] {
                let Err(KeyFault::Content(what)) = read(bytes, passphrase) else {
                    panic!("{words}")
                };
                assert!(what.contains(words), "{what}");
            }
        };
        for name in [PBES2, PBES1] {
            let most = [bytes.as_slice(), &name.repeat(MOST_ENCRYPTED - parts)].concat();
            let fault = read(&most, None).err().unwrap();
            assert!(matches!(fault, KeyFault::PassphraseMissing), "{fault:?}");
            refused(&[most.as_slice(), name].concat(), "65 encrypted parts");
        }
        refused(&[bytes.as_slice(), &vec![0; MAX_FILE]].concat(), "too large");
    }

    #[test]
    fn a_cut_file_is_damaged_and_nothing_worse() {
        let (bytes, _, _) = file("x");
        for length in [0, 1, 10, bytes.len() / 2, bytes.len() - 1] {
            let fault = read(&bytes[..length], Some(&text("x"))).err().unwrap();
            assert!(matches!(fault, KeyFault::Content(_)), "{length}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = is_pkcs12(&bytes);
            let _ = read(&bytes, Some(&text("x")));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            // Made once: its derivations take their time.
            static MADE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = MADE.get_or_init(|| file("x").0.to_vec()).clone();
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = read(&bytes, Some(&text("x")));
        }
    }
}
