//! The files of TLS: what each must hold, and nothing else.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use pkcs8::{
    EncryptedPrivateKeyInfoRef, SecretDocument,
    pkcs5::{EncryptionScheme, pbes2::Kdf},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use zeroize::Zeroizing;

use super::{
    TlsError,
    lists::{FILED_MAX, ListProblem, RevocationList, read_lists},
    settings::ListSource,
};
use crate::{
    peer::{has_development_mark, parse_x509},
    settings::{refuse_lax, secret_file},
};

/// Bytes of the largest file of certificates or of a key that is read.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Rounds of PBKDF2 that an encrypted key may ask for.
const ROUNDS_MAX: u32 = 20_000_000;
/// Bytes of memory that scrypt may ask for.
const MEMORY_MAX: u64 = 1 << 30;
const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// Header of keys that OpenSSL encrypted before PKCS #8.
const LEGACY: &[u8] = b"Proc-Type: 4,ENCRYPTED";

pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const AUTHORITY: &str = "certificate authority";
pub(super) const KEY: &str = "private key";
pub(super) const REVOCATION: &str = "revocation list";

/// The program's own certificate and its intermediates.
pub(super) fn load_chain(
    path: &Path,
    allow_development: bool,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = load_pem::<CertificateDer<'_>>(path, CERTIFICATE)?;
    for certificate in &chain {
        let parsed =
            parse_x509(certificate).map_err(|error| bad(path, CERTIFICATE, error.to_string()))?;
        if has_development_mark(&parsed) && !allow_development {
            return Err(TlsError::Development { path: path.to_owned(), what: CERTIFICATE });
        }
    }
    Ok(chain)
}

/// The authorities of the file, which may hold nothing else.
pub(super) fn load_roots(
    path: &Path,
    allow_development: bool,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in load_pem::<CertificateDer<'_>>(path, AUTHORITY)? {
        let parsed =
            parse_x509(&certificate).map_err(|error| bad(path, AUTHORITY, error.to_string()))?;
        if has_development_mark(&parsed) && !allow_development {
            return Err(TlsError::Development { path: path.to_owned(), what: AUTHORITY });
        }
        if !parsed.is_ca() {
            let problem = format!(
                "{} is not an authority's certificate: leave only authorities in the file",
                parsed.subject()
            );
            return Err(bad(path, AUTHORITY, problem));
        }
        let added = roots.add(certificate.clone());
        added.map_err(|error| bad(path, AUTHORITY, error.to_string()))?;
        certificates.push(certificate);
    }
    Ok((roots, certificates))
}

/// The lists of a file. Those that are out of date, or that nobody trusted here signed, are put to use
/// all the same: they refuse every peer of their authority, which is what such a list has to do.
pub(super) fn load_revocation(path: &Path) -> Result<Vec<Arc<RevocationList>>, TlsError> {
    let source = ListSource::File(path.to_owned());
    let lists = read_lists(path, &source, FILED_MAX)
        .map_err(|source| read_error(path, REVOCATION, source))?;
    lists.map_err(|ListProblem(problem)| bad(path, REVOCATION, problem))
}

/// A private key that nobody else may read, with its passphrase where it has one.
pub(super) fn load_key(
    path: &Path,
    passphrase_file: Option<&Path>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = File::open(path).map_err(|source| read_error(path, KEY, source))?;
    refuse_lax(path, &file).map_err(TlsError::Lax)?;
    let content = read_all(file).map_err(|source| read_error(path, KEY, source))?;
    match (encrypted_section(&content), passphrase_file) {
        (Some(section), Some(passphrase_file)) => decrypt(path, section, passphrase_file),
        (Some(_), None) => Err(bad(
            path,
            KEY,
            "is encrypted: name the file with its passphrase as tls.key_passphrase_file",
        )),
        (None, Some(_)) => Err(bad(
            path,
            KEY,
            "is not encrypted: leave tls.key_passphrase_file out, or encrypt it (PKCS #8)",
        )),
        (None, None) if content.windows(LEGACY.len()).any(|window| window == LEGACY) => Err(bad(
            path,
            KEY,
            "is encrypted in an old way that is not supported: write it anew with `openssl pkcs8 \
             -topk8`",
        )),
        (None, None) => PrivateKeyDer::from_pem_slice(&content)
            .map_err(|_| bad(path, KEY, "holds no PEM private key (PKCS #8, SEC 1 or PKCS #1)")),
    }
}

/// The PEM section of an encrypted PKCS #8 key.
fn encrypted_section(content: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content).ok()?;
    let start = text.find(ENCRYPTED_BEGIN)?;
    let length = text.get(start..)?.find(ENCRYPTED_END)? + ENCRYPTED_END.len();
    text.get(start..start + length)
}

/// Whether trying a passphrase on a key that is encrypted like this takes no more work and memory than
/// a file of somebody else may ask for.
#[must_use]
pub fn is_bearable(scheme: &EncryptionScheme) -> bool {
    let Some(parameters) = scheme.pbes2() else { return true };
    match &parameters.kdf {
        Kdf::Pbkdf2(work) => work.iteration_count <= ROUNDS_MAX,
        Kdf::Scrypt(work) => work
            .cost_parameter
            .checked_mul(u64::from(work.block_size))
            .and_then(|blocks| blocks.checked_mul(128))
            .is_some_and(|memory| memory <= MEMORY_MAX && work.parallelization <= 16),
        _ => false,
    }
}

fn decrypt(
    path: &Path,
    section: &str,
    passphrase_file: &Path,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let passphrase = secret_file(passphrase_file).map_err(TlsError::Lax)?;
    let unreadable = || bad(path, KEY, "is no encrypted PKCS #8 key that can be read");
    let (_, sealed) = SecretDocument::from_pem(section).map_err(|_| unreadable())?;
    let sealed =
        EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|_| unreadable())?;
    if !is_bearable(&sealed.encryption_algorithm) {
        return Err(bad(path, KEY, "takes too much work to decrypt: encrypt it anew"));
    }
    // Expose: the passphrase opens the key, here and nowhere else.
    let opened = sealed.decrypt(passphrase.expose()).map_err(|_| {
        let problem = format!(
            "cannot be decrypted: is the passphrase in {} the right one?",
            passphrase_file.display()
        );
        bad(path, KEY, problem)
    })?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}

/// Every PEM section of the file, all of which must be of the wanted kind.
fn load_pem<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let content =
        File::open(path).and_then(read_all).map_err(|source| read_error(path, what, source))?;
    if content.len() as u64 > FILE_MAX {
        return Err(bad(path, what, format!("is larger than {} MiB", FILE_MAX >> 20)));
    }
    let objects = T::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(path, what, format!("is not PEM: {error}")))?;
    let sections = content.windows(11).filter(|window| window == b"-----BEGIN ").count();
    if objects.is_empty() {
        return Err(bad(path, what, "holds none: a PEM file is expected"));
    }
    if objects.len() != sections {
        return Err(bad(path, what, "holds PEM sections of another kind: remove them"));
    }
    Ok(objects)
}

fn read_all(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(file.metadata()?.len().min(FILE_MAX)).unwrap_or_default();
    // Room for everything at once: a buffer that grows leaves copies of a key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn read_error(path: &Path, what: &'static str, source: io::Error) -> TlsError {
    TlsError::Read { path: path.to_owned(), what, source }
}

pub(super) fn bad(path: &Path, what: &'static str, problem: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, problem: problem.into() }
}

#[cfg(test)]
mod tests;
