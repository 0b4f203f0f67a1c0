//! Puts a new keystore in the place of the old one, or leaves everything as it was.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use sso_core::settings::base_of;
use time::{OffsetDateTime, macros::format_description};

use super::lock::{EditLock, beside};
use crate::{
    file::{self, FileError},
    keystore::{Keystore, KeystoreError},
};

/// The new file, until it has the name.
const NEW: &str = ".new";
/// Another name of the old file, until the new one is safe.
const OLD: &str = ".old";
/// Copies of one second at most.
const ASIDE_MAX: u32 = 100;

/// See [`EditLock::replace`].
pub(super) fn replace(
    lock: &EditLock,
    keystore: &Keystore,
    prove: impl FnOnce(&Keystore) -> Result<(), KeystoreError>,
) -> Result<(), KeystoreError> {
    replace_and_sync(lock, keystore, prove, |folder| File::open(folder)?.sync_all())
}

pub(super) fn replace_and_sync(
    lock: &EditLock,
    keystore: &Keystore,
    prove: impl FnOnce(&Keystore) -> Result<(), KeystoreError>,
    sync_folder: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), KeystoreError> {
    let path = lock.keystore();
    remove_leftovers(lock);
    let new = Temporary(beside(path, NEW));
    let old = Temporary(beside(path, OLD));
    let refused = |source| FileError::Write { path: path.to_owned(), source };

    let text = keystore.to_text();
    write(&new.0, text.as_bytes()).map_err(refused)?;
    let again = file::read(&new.0, true)?;
    let read = Keystore::parse(&again)
        .map_err(|source| KeystoreError::Damaged { path: path.to_owned(), source })?;
    if again != text.as_bytes() || read != *keystore {
        return Err(KeystoreError::NotProved(path.to_owned()));
    }
    prove(&read)?;

    fs::hard_link(path, &old.0).map_err(refused)?;
    fs::rename(&new.0, path).map_err(refused)?;
    if let Err(error) = sync_folder(&base_of(path)) {
        // The new name may not outlast a power failure, so nobody is told of it.
        fs::rename(&old.0, path).map_err(refused)?;
        return Err(refused(error).into());
    }
    Ok(())
}

/// Copies the keystore to a name with the time in it.
pub(super) fn copy_aside(lock: &EditLock, now: OffsetDateTime) -> Result<PathBuf, KeystoreError> {
    let path = lock.keystore();
    let content = file::read(path, true)?;
    aside(path, now, |aside| sso_core::settings::write_private(aside, &content, false))
        .map_err(|source| FileError::Write { path: path.to_owned(), source }.into())
}

/// Makes a file beside `path` by `make`, under the first name with the time in it that is free.
///
/// # Errors
/// What `make` says, but `AlreadyExists`; that one when a hundred names of this second are taken.
pub(crate) fn aside(
    path: &Path,
    now: OffsetDateTime,
    mut make: impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let time = now
        .to_offset(time::UtcOffset::UTC)
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .unwrap_or_default();
    for number in 0..ASIDE_MAX {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        let aside = beside(path, &format!(".aside-{time}{more}"));
        match make(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what a process that was killed while it wrote left behind. The keystore itself is whole: it
/// has either name before or after the renaming.
pub(super) fn remove_leftovers(lock: &EditLock) {
    for ending in [NEW, OLD] {
        remove_leftover(&beside(lock.keystore(), ending));
    }
}

/// The same for files that were to get a new name: a first keystore, or a copy that is kept aside.
pub(super) fn remove_unnamed(lock: &EditLock) {
    let path = lock.keystore();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let is_left = |found: &str| found.starts_with(&format!(".{name}.")) && found.ends_with(".tmp");
    // A folder that cannot be listed hides nothing from anybody.
    for entry in fs::read_dir(base_of(path)).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_left) {
            remove_leftover(&entry.path());
        }
    }
}

fn remove_leftover(left: &Path) {
    match fs::remove_file(left) {
        Ok(()) => {
            tracing::warn!(path = %left.display(), "removed what an interrupted change left");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, path = %left.display(), "a leftover stays"),
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A name that is gone in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
