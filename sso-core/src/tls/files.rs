//! The files of TLS: what each must hold, and nothing else.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};
use zeroize::Zeroizing;

use super::TlsError;
use crate::{
    clock::Clock,
    peer::{has_development_mark, parse_x509},
    settings::refuse_lax,
};

/// Bytes of the largest certificate, key or revocation file that is read.
const FILE_MAX: u64 = 64 * 1024 * 1024;

const CERTIFICATE: &str = "certificate";
const AUTHORITY: &str = "certificate authority";
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

/// What to say about the first certificate of the chain that has expired.
pub(super) fn expired(
    path: &Path,
    clock: &Clock,
    chain: &[CertificateDer<'_>],
) -> Result<Option<TlsError>, TlsError> {
    for certificate in chain {
        let parsed =
            parse_x509(certificate).map_err(|error| bad(path, CERTIFICATE, error.to_string()))?;
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after < clock.now() {
            let problem = format!("expired on {}: issue a new one", shown(not_after));
            return Ok(Some(bad(path, CERTIFICATE, problem)));
        }
    }
    Ok(None)
}

/// The authorities of the file, which may hold nothing else.
pub(super) fn load_roots(path: &Path, allow_development: bool) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
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
        roots.add(certificate).map_err(|error| bad(path, AUTHORITY, error.to_string()))?;
    }
    Ok(roots)
}

/// Lists that are out of date are put to use all the same: they refuse every peer of their authority,
/// which is what a list that was not renewed has to do.
pub(super) fn load_revocation(
    path: &Path,
    clock: &Clock,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = load_pem::<CertificateRevocationListDer<'_>>(path, REVOCATION)?;
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|_| bad(path, REVOCATION, "cannot be read"))?;
        let next = parsed.next_update().map(|time| time.to_datetime());
        if next.is_none_or(|next| next < clock.now()) {
            tracing::error!(
                file = %path.display(),
                authority = %parsed.issuer(),
                "the revocation list is out of date: all certificates of this authority are refused \
                 until there is a new one"
            );
        }
    }
    Ok(lists)
}

/// A private key that nobody else may read.
pub(super) fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = File::open(path).map_err(|source| read_error(path, KEY, source))?;
    refuse_lax(path, &file).map_err(TlsError::Lax)?;
    let content = read_all(file).map_err(|source| read_error(path, KEY, source))?;
    PrivateKeyDer::from_pem_slice(&content)
        .map_err(|_| bad(path, KEY, "holds no PEM private key (PKCS #8, SEC 1 or PKCS #1)"))
}

/// Every PEM section of the file, all of which must be of the wanted kind.
fn load_pem<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let content =
        File::open(path).and_then(read_all).map_err(|source| read_error(path, what, source))?;
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
    file.take(FILE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn read_error(path: &Path, what: &'static str, source: io::Error) -> TlsError {
    TlsError::Read { path: path.to_owned(), what, source }
}

pub(super) fn bad(path: &Path, what: &'static str, problem: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, problem: problem.into() }
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
