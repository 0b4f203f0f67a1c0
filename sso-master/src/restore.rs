//! Making a whole keystore from a backup: on a new host, or over a keystore that was lost or cannot
//! be unlocked any more. The master does not run meanwhile.
//!
//! ```text
//! look at the place ─► open the backup ─► wrap a new keystore key ─► prove ─► keep the old file aside ─► write
//!        └ refused          └ refused              └ refused            └ refused: the place is what it was
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sso_core::{
    clock::Clock, derive::Fingerprint, key_ring::Generation, memory::LockedKey,
    revocations::Revocations,
};
use sso_protector::Protector;
use sso_proto::Event;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    backup::{Backup, Opener},
    custody::{EditLock, KeystoreLock, aside},
    error::MasterError,
    file::FileError,
    keystore::{FromBackup, Keystore, KeystoreError, State},
    stanzas::{Given, prove},
};

/// Why nothing is restored, beyond what files, backups and protectors say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Restoring would lose keys.
    #[error(
        "the keystore {} has {missing}, which the backup lacks; nothing was changed. Use a newer \
         backup. If those keys are lost for good, move the keystore away yourself",
        path.display()
    )]
    Newer {
        /// The keystore.
        path: PathBuf,
        /// Its generations that the backup lacks.
        missing: String,
    },
    /// The keystore that is there is that of another system.
    #[error(
        "the keystore {} belongs to another system ({found}) than the backup ({wanted}); nothing \
         was changed. `--set-aside` keeps it beside the new one",
        path.display()
    )]
    Foreign {
        /// The keystore.
        path: PathBuf,
        /// Its id.
        found: Uuid,
        /// The id that the backup is for.
        wanted: Uuid,
    },
    /// What is there cannot be read.
    #[error("{0}; nothing was changed. `--set-aside` keeps the file beside the new one")]
    Unusable(KeystoreError),
    /// The old file cannot get another name.
    #[error("the keystore {} cannot be kept aside: {source}; nothing was changed", path.display())]
    Aside {
        /// The keystore.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// The epoch that begins.
    pub epoch: u64,
    /// Every generation.
    pub generations: Vec<(Generation, Fingerprint)>,
    /// The one that is active.
    pub active: Generation,
    /// Where the keystore of before was kept.
    pub kept_aside: Option<PathBuf>,
}

/// What is at the place of the keystore.
enum Found {
    Nothing,
    /// The same keystore; the backup has everything in it.
    Same(Box<Keystore>),
    /// Something that is kept aside because somebody said so.
    Other,
}

/// Refuses a backup for which the keystore `path` has no place; to be called before anybody is asked
/// for a password.
///
/// # Errors
/// When restoring would lose keys; when another keystore or a damaged one is there, unless `set_aside`.
pub fn require_place(path: &Path, backup: &Backup, set_aside: bool) -> Result<(), MasterError> {
    look(path, backup, set_aside).map(drop)
}

/// Makes the keystore `path` from `backup`, for `protectors` and with a new keystore key. The file of
/// before is kept aside. On failure it is byte for byte what it was.
///
/// # Errors
/// When a master runs, the place is not free (see [`require_place`]), the backup does not open, or a
/// protector or the disk cannot be used.
pub fn restore(
    path: &Path,
    protectors: &[Box<dyn Protector>],
    backup: &Backup,
    opener: &Opener,
    set_aside: bool,
    clock: &Clock,
) -> Result<Restored, MasterError> {
    let restored = restore_quietly(path, protectors, backup, opener, set_aside, clock);
    match &restored {
        Ok(restored) => tracing::info!(
            event = Event::MasterSecretRestored.number(),
            keystore = %restored.keystore,
            active = restored.active.number(),
            epoch = restored.epoch,
            "master secret restored"
        ),
        Err(error) => tracing::error!(
            event = Event::MasterSecretNotRestored.number(),
            keystore = %path.display(),
            %error,
            "nothing was restored"
        ),
    }
    restored
}

fn restore_quietly(
    path: &Path,
    protectors: &[Box<dyn Protector>],
    backup: &Backup,
    opener: &Opener,
    set_aside: bool,
    clock: &Clock,
) -> Result<Restored, MasterError> {
    let _lock = KeystoreLock::take(path)?;
    let found = look(path, backup, set_aside)?;
    // First of all: what does not open replaces nothing.
    let ring = backup.open(opener)?;
    // The backup of a rotation was made before its generation became active, and the ones before may
    // have been closed since.
    let ring = ring.with_active(ring.newest()).map_err(KeystoreError::from)?;
    let key = LockedKey::generate().map_err(KeystoreError::from)?;
    let now = clock.now();
    // Servers refuse an epoch below one that they know.
    let (known, revocations) = match &found {
        Found::Same(keystore) => (keystore.epoch(), keystore.revocations().clone()),
        // The servers tell what their database remembers.
        Found::Nothing | Found::Other => (0, Revocations::default()),
    };
    let origin = FromBackup {
        keystore: backup.keystore(),
        member: Uuid::new_v4(),
        epoch: backup.epoch().max(known).saturating_add(1),
        created: backup.created(),
        revocations,
    };
    let mut given = match &found {
        Found::Nothing => Given::for_new(origin.keystore, protectors, path),
        Found::Same(old) => Given::for_successor(old, protectors),
        Found::Other => Given::for_another(origin.keystore, protectors),
    };
    let stanzas = given.wrap_all(&key)?;
    let keystore = Keystore::from_backup(origin, &ring, &key, stanzas, now)?;
    prove(&keystore, protectors, &ring)?;
    let kept_aside = match found {
        Found::Nothing => {
            keystore.write_new(path)?;
            None
        }
        Found::Same(_) | Found::Other => Some(replace(path, &keystore, now)?),
    };
    given.keep();
    Ok(Restored {
        keystore: keystore.id(),
        epoch: keystore.epoch(),
        generations: ring.generations().collect(),
        active: ring.active(),
        kept_aside,
    })
}

fn look(path: &Path, backup: &Backup, set_aside: bool) -> Result<Found, MasterError> {
    let keystore = match Keystore::read(path) {
        Ok(keystore) => keystore,
        Err(KeystoreError::File(FileError::Missing(_))) if path.symlink_metadata().is_err() => {
            return Ok(Found::Nothing);
        }
        Err(_) if set_aside => return Ok(Found::Other),
        Err(error) => return Err(RestoreError::Unusable(error).into()),
    };
    if keystore.id() != backup.keystore() {
        if set_aside {
            return Ok(Found::Other);
        }
        let (found, wanted) = (keystore.id(), backup.keystore());
        return Err(RestoreError::Foreign { path: path.to_owned(), found, wanted }.into());
    }
    let lost = keystore.generations().iter().filter(|entry| {
        let in_backup = (entry.generation, entry.fingerprint);
        entry.state != State::Destroyed && !backup.generations().any(|it| it == in_backup)
    });
    let lost: Vec<_> = lost
        .map(|it| format!("generation {} (fingerprint {})", it.generation, it.fingerprint))
        .collect();
    if lost.is_empty() {
        return Ok(Found::Same(Box::new(keystore)));
    }
    Err(RestoreError::Newer { path: path.to_owned(), missing: lost.join(", ") }.into())
}

/// Gives the old file another name as well, and puts the new one in its place.
fn replace(path: &Path, keystore: &Keystore, now: OffsetDateTime) -> Result<PathBuf, MasterError> {
    let lock = EditLock::take(path)?;
    // A second name of the same file: it costs no space and cannot be half done.
    let aside = aside(path, now, |aside| fs::hard_link(path, aside))
        .map_err(|source| RestoreError::Aside { path: path.to_owned(), source })?;
    if let Err(error) = lock.replace(keystore, |_| Ok(())) {
        // The file still has its own name.
        let _ = fs::remove_file(&aside);
        return Err(error.into());
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
