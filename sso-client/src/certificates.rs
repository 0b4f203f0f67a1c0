//! The certificates of a small installation: an authority of its own, and what it issues.
//!
//! Shared by `sso cert` (by hand, for real hosts) and `sso dev` (throw-away, marked as such). Keys are
//! ECDSA P-256, serial numbers are 126 random bits, and every certificate starts a few minutes in the
//! past so that hosts whose clocks differ a little accept it.

mod authority;
mod description;
mod request;

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

pub use authority::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY, Authority, Issued};
pub use description::{Description, describe};
pub use request::{Request, Role};

/// Why a certificate could not be made, read or shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// What was asked for makes no sense; the text says what to give instead.
    #[error("{0}")]
    Request(String),
    /// A file that exists already and is not overwritten.
    #[error("{} exists; nothing was overwritten", .0.display())]
    Exists(PathBuf),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that holds no certificate or key of the expected kind.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The library refused to build the certificate.
    #[error("cannot make the certificate: {0}")]
    Build(#[from] rcgen::Error),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers")]
    Randomness,
}

fn refuse_existing(paths: &[&Path]) -> Result<(), CertificateError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertificateError::Exists(path.to_path_buf())),
        None => Ok(()),
    }
}

fn write_public(path: &Path, text: &str, overwrite: bool) -> Result<(), CertificateError> {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| file_error(path, source))
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> CertificateError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return CertificateError::Exists(path.to_owned());
    }
    CertificateError::File { path: path.to_owned(), source }
}

fn content_error(path: &Path, what: &dyn ToString) -> CertificateError {
    CertificateError::Content { path: path.to_owned(), what: what.to_string() }
}
