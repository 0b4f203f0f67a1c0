//! The host's certificates, found by thumbprint.

use std::{
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sso_core::peer::PeerCertificate;

use super::Thumbprint;

/// The endings of a certificate and of its key.
const CERTIFICATE: &str = "crt";
const KEY: &str = "key";
/// Bytes of the largest certificate file that is looked at.
const FILE_MAX: u64 = 1024 * 1024;

/// The folder with the certificates of a host: `NAME.crt` (its own certificate first, intermediates
/// after it) and `NAME.key` (no other user may read it), as `sso cert install` writes them. The
/// counterpart of the Windows certificate store that BizTalk's ports name certificates in.
///
/// Nothing is kept in memory: what is found is what is there at that moment.
#[derive(Clone, Debug)]
pub struct CertificateStore {
    folder: PathBuf,
    list_cache: Option<PathBuf>,
    allow_development: bool,
}

/// A certificate of the store with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The name of the files without their endings.
    pub name: String,
    /// PEM: the certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// What the certificate says.
    pub own: PeerCertificate,
}

/// Why a certificate is not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder is not there or cannot be read.
    #[error("{}: the certificate store cannot be read: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no such certificate.
    #[error(
        "no certificate in {} has the thumbprint {wanted}; there {}: install it ('sso cert install'), \
         or correct the thumbprint in the config store",
        looked_in.display(),
        shown(known)
    )]
    NotFound {
        /// What was looked for.
        wanted: Thumbprint,
        /// Where.
        looked_in: PathBuf,
        /// What is there instead: name, thumbprint of the same kind and last day of each.
        known: Vec<String>,
    },
    /// The certificate is there more than once.
    #[error(
        "the certificate with the thumbprint {wanted} is in several files ({}): leave it in one",
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Ambiguous {
        /// What was looked for.
        wanted: Thumbprint,
        /// Where it was found.
        files: Vec<PathBuf>,
    },
    /// The key is not beside the certificate.
    #[error(
        "{}: the key of this certificate is missing: put it into {}",
        certificate.display(),
        key.display()
    )]
    KeyMissing {
        /// The file that has the thumbprint.
        certificate: PathBuf,
        /// Where the key has to be.
        key: PathBuf,
    },
}

fn shown(known: &[String]) -> String {
    match known {
        [] => "is none with a key".to_owned(),
        [one] => format!("is {one}"),
        several => format!("are {}", several.join(", ")),
    }
}

impl CertificateStore {
    /// The store in this folder.
    ///
    /// # Errors
    /// [`StoreError::Folder`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { folder: folder.into(), list_cache: None, allow_development: false };
        store.files().map(|_| store)
    }

    /// The same, where certificates made for development are good enough. Never in production.
    #[must_use]
    pub fn allow_development(mut self, allow: bool) -> Self {
        self.allow_development = allow;
        self
    }

    /// The same with a folder for the last good revocation list of each URL, so that a restart while
    /// one cannot be fetched goes on.
    #[must_use]
    pub fn with_list_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.list_cache = Some(folder.into());
        self
    }

    /// Where it is; relative paths in ports start here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn development_is_allowed(&self) -> bool {
        self.allow_development
    }

    pub(super) fn list_cache(&self) -> Option<&Path> {
        self.list_cache.as_deref()
    }

    /// The certificate with this thumbprint, and its key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn find(&self, wanted: &Thumbprint) -> Result<StoredCertificate, StoreError> {
        let all = self.certificates()?;
        let found: Vec<_> = all.iter().filter(|it| wanted.matches(&it.own)).collect();
        match found.as_slice() {
            [] => Err(StoreError::NotFound {
                wanted: wanted.clone(),
                looked_in: self.folder.clone(),
                known: all.iter().filter(|it| it.key.exists()).map(|it| it.shown(wanted)).collect(),
            }),
            [one] if one.key.exists() => Ok((*one).clone()),
            [one] => Err(StoreError::KeyMissing {
                certificate: one.certificate.clone(),
                key: one.key.clone(),
            }),
            several => Err(StoreError::Ambiguous {
                wanted: wanted.clone(),
                files: several.iter().map(|it| it.certificate.clone()).collect(),
            }),
        }
    }

    /// Every certificate that has its key beside it, by name.
    ///
    /// # Errors
    /// [`StoreError::Folder`].
    pub fn list(&self) -> Result<Vec<StoredCertificate>, StoreError> {
        let mut all = self.certificates()?;
        all.retain(|it| it.key.exists());
        Ok(all)
    }

    fn certificates(&self) -> Result<Vec<StoredCertificate>, StoreError> {
        Ok(self.files()?.iter().filter_map(|path| read(path)).collect())
    }

    /// The certificate files, in the order of their names.
    fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |source| StoreError::Folder { folder: self.folder.clone(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == CERTIFICATE) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// What the files look like from outside: differs when one of them was replaced.
    pub(super) fn stamp(&self) -> Vec<Stamp> {
        let files = self.files().unwrap_or_default();
        let files = files.iter().flat_map(|path| [path.clone(), path.with_extension(KEY)]);
        files
            .filter_map(|path| {
                let file = fs::metadata(&path).ok()?;
                let times = (file.mtime(), file.mtime_nsec(), file.ctime_nsec());
                Some((path, file.ino(), file.size(), times))
            })
            .collect()
    }
}

/// Path, inode, size and times of change of a file.
pub(super) type Stamp = (PathBuf, u64, u64, (i64, i64, i64));

impl StoredCertificate {
    /// In a line, with the thumbprint of the kind of `wanted`.
    fn shown(&self, wanted: &Thumbprint) -> String {
        let thumbprint = match wanted.is_sha256() {
            true => &self.own.thumbprint_sha256,
            false => &self.own.thumbprint_sha1,
        };
        format!("{} ({thumbprint}, until {})", self.name, self.own.not_after.date())
    }
}

/// `None` for what holds no certificate that can be read: it has no thumbprint to be found by.
fn read(path: &Path) -> Option<StoredCertificate> {
    let mut content = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut content));
    if let Err(error) = read {
        tracing::warn!(file = %path.display(), %error, "a file of the certificate store cannot be read");
        return None;
    }
    let own = CertificateDer::pem_slice_iter(&content).next()?.ok()?;
    Some(StoredCertificate {
        name: path.file_stem()?.to_string_lossy().into_owned(),
        certificate: path.to_owned(),
        key: path.with_extension(KEY),
        own: PeerCertificate::parse(&own).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::certificates::{Authority, Request, Role};

    fn store() -> (tempfile::TempDir, CertificateStore) {
        let folder = tempfile::tempdir().unwrap();
        let now = sso_core::clock::Clock::System.now();
        let authority = Authority::create("CA", Duration::days(30), false, now).unwrap();
        fs::write(folder.path().join("ca.crt"), authority.certificate()).unwrap();
        for name in ["one", "two"] {
            let request = Request::new(name, Role::Client, Duration::days(1));
            authority.issue(&request, now).unwrap().write(folder.path(), name, false).unwrap();
        }
        fs::write(folder.path().join("damaged.crt"), "no PEM").unwrap();
        fs::write(folder.path().join("readme.txt"), "no certificate").unwrap();
        let store = CertificateStore::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn a_certificate_is_found_by_either_thumbprint() {
        let (_folder, store) = store();
        let all = store.list().unwrap();
        let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["one", "two"], "the authority has no key here");
        for it in &all {
            let sha256 = Thumbprint::of(&it.own);
            let sha1: Thumbprint = it.own.thumbprint_sha1.parse().unwrap();
            assert!(sha256.is_sha256() && !sha1.is_sha256());
            assert_eq!(&store.find(&sha256).unwrap(), it);
            assert_eq!(&store.find(&sha1).unwrap(), it);
        }
    }

    #[test]
    fn what_is_missing_or_twice_is_named() {
        let (folder, store) = store();
        let all = store.list().unwrap();
        let error = store.find(&"0".repeat(64).parse().unwrap()).unwrap_err().to_string();
        for it in &all {
            assert!(error.contains(&it.own.thumbprint_sha256), "{error}");
        }
        assert!(error.contains("one (") && !error.contains("ca ("), "{error}");
        let error = store.find(&"0".repeat(40).parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(&all[0].own.thumbprint_sha1), "{error}");

        let one = Thumbprint::of(&all[0].own);
        fs::copy(&all[0].certificate, folder.path().join("copy.crt")).unwrap();
        let error = store.find(&one).unwrap_err();
        assert!(matches!(&error, StoreError::Ambiguous { files, .. } if files.len() == 2));
        assert!(error.to_string().contains("copy.crt"), "{error}");

        fs::remove_file(&all[0].certificate).unwrap();
        let error = store.find(&one).unwrap_err();
        assert!(matches!(&error, StoreError::KeyMissing { key, .. } if key.ends_with("copy.key")));

        let error = CertificateStore::open(folder.path().join("none")).unwrap_err();
        assert!(matches!(error, StoreError::Folder { .. }));
    }

    #[test]
    fn the_stamp_shows_a_replacement() {
        let (folder, store) = store();
        let before = store.stamp();
        assert_eq!(store.stamp(), before);
        let other = folder.path().join("two.key");
        fs::rename(&other, folder.path().join("moved.key")).unwrap();
        assert_ne!(store.stamp(), before);
    }
}
