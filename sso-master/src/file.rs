//! Reading and writing of the two files with wrapped keys.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

/// Bytes of the largest file that is read; real ones have a few KiB.
const FILE_MAX: u64 = 1024 * 1024;

/// Why a file with wrapped keys cannot be used, whatever is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such file.
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It exists already and is never overwritten.
    #[error("{}: exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// Other users may read or write it.
    #[error("{}: mode {mode:04o} lets other users at it: run `chmod 600` on the file", path.display())]
    Lax {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why the contents of a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It is something else.
    #[error("this is no file of the kind {0}")]
    Other(&'static str),
    /// A newer program wrote it.
    #[error(
        "it has format version {found}; this program reads version {known}: use a newer program"
    )]
    Version {
        /// What the file says.
        found: u64,
        /// What this program reads.
        known: u64,
    },
    /// It is of the right kind but not whole.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl FormatError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

/// The contents of `path`, at most 1 MiB.
pub(crate) fn read(path: &Path, private: bool) -> Result<Vec<u8>, FileError> {
    let unreadable = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing(path.to_owned())
        } else {
            FileError::Read { path: path.to_owned(), source }
        }
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(FileError::Lax { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > FILE_MAX {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB");
        return Err(FileError::Read { path: path.to_owned(), source });
    }
    Ok(content)
}

/// Makes a file of mode 0600, whole or not at all; never over another.
pub(crate) fn create(path: &Path, content: &str) -> Result<(), FileError> {
    let written = sso_core::settings::write_private(path, content.as_bytes(), false);
    written.map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            FileError::Exists(path.to_owned())
        } else {
            FileError::Write { path: path.to_owned(), source }
        }
    })
}

/// Whether it is not certain that nothing has this name.
pub(crate) fn may_exist(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let found = path.symlink_metadata();
    !found.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u64,
}

/// The version of the JSON in `content`, one of those that are `known`, the newest of which comes last.
pub(crate) fn version(
    content: &[u8],
    format: &'static str,
    known: &[u64],
) -> Result<u64, FormatError> {
    match serde_json::from_slice::<Kind>(content) {
        Ok(kind) if kind.format != format => Err(FormatError::Other(format)),
        Ok(kind) if !known.contains(&kind.version) => {
            let known = known.last().copied().unwrap_or_default();
            Err(FormatError::Version { found: kind.version, known })
        }
        Ok(kind) => Ok(kind.version),
        // A file of this format that was cut off still begins with its name.
        Err(error) if content.windows(format.len()).any(|part| part == format.as_bytes()) => {
            Err(place(&error))
        }
        Err(_) => Err(FormatError::Other(format)),
    }
}

/// Parses JSON strictly; to be called when the version is known.
pub(crate) fn body<T: DeserializeOwned>(content: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(content).map_err(|error| place(&error))
}

fn place(error: &serde_json::Error) -> FormatError {
    FormatError::damaged(format!("line {}, column {}: {error}", error.line(), error.column()))
}
