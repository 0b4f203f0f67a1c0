//! Why a keystore cannot be used, and what helps.

use std::path::PathBuf;

use sso_core::{key_ring::KeyRingError, memory::KeyError, seal::SealError};
use uuid::Uuid;

use crate::file::{FileError, FormatError};

/// Why a keystore cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The file cannot be used, whatever is in it.
    #[error("keystore {error}{advice}", error = .0, advice = way_out(.0))]
    File(#[from] FileError),
    /// The contents cannot be used.
    #[error(
        "keystore: {0}; put back a copy of the file, or restore the master secret from its backup"
    )]
    Format(#[from] FormatError),
    /// The file is no keystore, or a damaged one.
    #[error(
        "keystore {}: {source}; put back a copy of the file, or restore the master secret from its \
         backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The keystore key belongs to another keystore.
    #[error(
        "keystore {keystore}: the protector gave the key of another keystore; check that settings, \
         keystore and protector belong together"
    )]
    Foreign {
        /// The keystore at hand.
        keystore: Uuid,
    },
    /// The keys make no key ring.
    #[error("keystore: {0}")]
    KeyRing(#[from] KeyRingError),
    /// A key cannot be held in memory.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be wrapped.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Another process holds the keystore.
    #[error("keystore {}: in use by {by}; stop that first", path.display())]
    Held {
        /// The keystore.
        path: PathBuf,
        /// Who holds it.
        by: String,
    },
    /// Somebody else wrote the file while it was in custody.
    #[error(
        "keystore {}: another program wrote the file; start this one again, so that it reads it",
        .0.display()
    )]
    Replaced(PathBuf),
    /// What was written is not what was to be written.
    #[error(
        "keystore {}: what was written does not read back; the file is what it was. Check the disk",
        .0.display()
    )]
    NotProved(PathBuf),
}

fn way_out(error: &FileError) -> &'static str {
    match error {
        FileError::Missing(_) => {
            "; correct `keystore` in the settings, make a first one with `sso-master init`, or where it was \
             lost, restore it with `sso-master restore`"
        }
        FileError::Read { .. }
        | FileError::Write { .. }
        | FileError::Exists(_)
        | FileError::Lax { .. } => "",
    }
}
