//! Reading and writing of files, each with the name of the file in its error.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use sso_core::settings::write_private;
use zeroize::Zeroizing;

use super::CertificateError;

/// Bytes of the largest file that is read: a chain and a key are a few thousand.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Mode of files that anybody may read.
const PUBLIC: u32 = 0o644;

pub(super) fn refuse_existing(paths: &[&Path]) -> Result<(), CertificateError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertificateError::Exists(path.to_path_buf())),
        None => Ok(()),
    }
}

/// A file that anybody may read: all of it or nothing, in the place of an older one if `overwrite`.
pub(super) fn write_public(
    path: &Path,
    content: &[u8],
    overwrite: bool,
) -> Result<(), CertificateError> {
    use std::os::unix::fs::PermissionsExt as _;
    if !overwrite {
        refuse_existing(&[path])?;
    }
    let folder = folder_of(path);
    let written = tempfile::Builder::new()
        .prefix(".sso-cert-")
        .permissions(fs::Permissions::from_mode(PUBLIC))
        .tempfile_in(folder)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.as_file().sync_all()?;
            let placed = match overwrite {
                true => file.persist(path),
                false => file.persist_noclobber(path),
            };
            placed.map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        });
    written.map_err(|source| file_error(path, source))
}

/// A file that only its owner may read: all of it or nothing.
pub(super) fn write_secret(
    path: &Path,
    content: &[u8],
    overwrite: bool,
) -> Result<(), CertificateError> {
    write_private(path, content, overwrite).map_err(|source| file_error(path, source))
}

pub(super) fn make_folder(folder: &Path) -> Result<(), CertificateError> {
    fs::create_dir_all(folder).map_err(|source| file_error(folder, source))
}

/// The whole file, which may hold a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| file_error(path, source))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(content_error(path, &"is far too large for a certificate or a key"));
    }
    Ok(bytes)
}

/// The folder a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn file_error(path: &Path, source: io::Error) -> CertificateError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return CertificateError::Exists(path.to_owned());
    }
    CertificateError::File { path: path.to_owned(), source }
}

pub(super) fn content_error(path: &Path, what: &dyn ToString) -> CertificateError {
    CertificateError::Content { path: path.to_owned(), what: what.to_string() }
}
