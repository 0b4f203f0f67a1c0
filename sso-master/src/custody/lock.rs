//! The two locks beside a keystore. A lock is a file that its holder removes again; what counts is the
//! lock of the operating system on it, which ends with the process however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    file::FileError,
    keystore::{Keystore, KeystoreError},
};

/// How often and how long apart somebody asks for the lock of editing, which is held for a moment.
const TRIES: u32 = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// Bytes of a lock file that are read: who holds it.
const HOLDER_MAX: u64 = 200;

/// Says that a process lives by the keystore: `run`, `init` and `restore` hold it.
#[derive(Debug)]
pub struct KeystoreLock {
    keystore: PathBuf,
    _held: Held,
}

impl KeystoreLock {
    /// Takes the lock of the keystore `path`, which need not exist.
    ///
    /// # Errors
    /// When another process holds it, which is named, or the folder cannot be written.
    pub fn take(path: &Path) -> Result<Self, KeystoreError> {
        match Held::take(&beside(path, ".lock"))? {
            Ok(held) => Ok(Self { keystore: path.to_owned(), _held: held }),
            Err(by) => Err(KeystoreError::Held { path: path.to_owned(), by }),
        }
    }

    /// The keystore.
    #[must_use]
    pub fn keystore(&self) -> &Path {
        &self.keystore
    }
}

/// Held from reading a keystore to having written it: by every change of a running master, and by
/// whoever adds or removes a protector.
#[derive(Debug)]
pub struct EditLock {
    keystore: PathBuf,
    _held: Held,
}

impl EditLock {
    /// Takes the lock of the keystore `path`; waits a few seconds for another holder.
    ///
    /// # Errors
    /// When another process does not let go of it, or the folder cannot be written.
    pub fn take(path: &Path) -> Result<Self, KeystoreError> {
        Self::take_within(path, TRIES)
    }

    pub(super) fn take_within(path: &Path, tries: u32) -> Result<Self, KeystoreError> {
        let file = beside(path, ".edit-lock");
        let mut holder = String::new();
        for _ in 0..tries {
            match Held::take(&file)? {
                Ok(held) => return Ok(Self { keystore: path.to_owned(), _held: held }),
                Err(by) => holder = by,
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        Err(KeystoreError::Held { path: path.to_owned(), by: holder })
    }

    /// The keystore.
    #[must_use]
    pub fn keystore(&self) -> &Path {
        &self.keystore
    }

    /// Puts `keystore` in the place of the file, all of it or nothing: it is written beside it, read
    /// back, compared and shown to `prove`, and only then takes the name.
    ///
    /// # Errors
    /// When it cannot be written, does not read back, or `prove` fails; the file is what it was.
    pub fn replace(
        &self,
        keystore: &Keystore,
        prove: impl FnOnce(&Keystore) -> Result<(), KeystoreError>,
    ) -> Result<(), KeystoreError> {
        super::write::replace(self, keystore, prove)
    }
}

/// A locked file that is removed when it is dropped.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: File,
}

impl Held {
    /// `Err` inside says who holds it.
    fn take(path: &Path) -> Result<Result<Self, String>, FileError> {
        let refused = |source| FileError::Write { path: path.to_owned(), source };
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(path).map_err(refused)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
                Err(TryLockError::Error(error)) => return Err(refused(error)),
            }
            // The one who held it before may have removed the file that was opened.
            if is_at(&file, path).map_err(refused)? {
                // For people: the lock itself says nothing.
                let _ = file.set_len(0);
                let _ = file.write_all(this_process().as_bytes());
                return Ok(Ok(Self { path: path.to_owned(), file }));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Still locked: whoever opened it meanwhile finds out that it is gone.
        if is_at(&self.file, &self.path).unwrap_or_default() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` names this open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match path.symlink_metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn this_process() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    format!("{program} (process {})", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_MAX).read_to_string(&mut text);
    if read.is_err() || text.is_empty() { "another process".to_owned() } else { text }
}

/// The file beside the keystore whose name ends like that.
pub(super) fn beside(keystore: &Path, ending: &str) -> PathBuf {
    let mut name = keystore.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
