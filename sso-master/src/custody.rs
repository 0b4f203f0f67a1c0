//! The keystore while the program runs: who may change its file, and everyone who looks at it.
//!
//! ```text
//! change ─► draft ─► sealed header ─► temporary file ─► read back and opened ─► renamed ─► published
//!            └ refused: nothing happened      └ failed: the file is what it was, nothing is published
//! ```
//!
//! Two locks stand beside the keystore. [`KeystoreLock`] (`<keystore>.lock`) says that a process
//! lives by it; [`EditLock`] (`<keystore>.edit-lock`) is held for the moment of writing.

mod lock;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use sso_core::{
    clock::Clock,
    derive::Fingerprint,
    key_ring::{Generation, KeyRing, KeyRingError},
    memory::LockedKey,
    revocations::Revocations,
};
use sso_proto::{Reason, Refusal};
use tokio::sync::watch;
use uuid::Uuid;

pub use self::lock::{EditLock, KeystoreLock};
pub(crate) use self::write::aside;
use crate::{
    error::MasterError,
    keystore::{Draft, Edited, GenerationEntry, Keystore, KeystoreError},
};

/// An opened keystore. Its keys are shared by all who hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// Counts the changes of the keystore.
    pub change: u64,
    /// Names this copy among those of the other masters.
    pub member: Uuid,
    /// Rises with each promotion.
    pub epoch: u64,
    /// The member that is the primary of the epoch.
    pub primary: Uuid,
    /// What is known of each generation, without its key.
    pub generations: Vec<GenerationEntry>,
    /// The generation under which new values are sealed.
    pub active: Generation,
    /// Every key that is kept, prepared ones included.
    pub ring: KeyRing,
    /// Names of the servers that may not have the master secret any more.
    pub revocations: Revocations,
    /// Names of the servers and masters that the rotation which goes on does not wait for.
    pub left_behind: BTreeSet<String>,
    /// Rows a second that sealing again may take from the database; 0 is as many as it gives.
    pub reseal_rows_per_second: u32,
    /// The change with which the generation that is distributed was handed out.
    pub distributed_in: Option<u64>,
    /// Everything but the keys, for other masters (JSON).
    pub header: String,
}

impl Unlocked {
    /// The keystore, opened with its key.
    ///
    /// # Errors
    /// When `keystore_key` is that of another keystore, or the keystore was changed.
    pub fn open(keystore: &Keystore, keystore_key: &LockedKey) -> Result<Self, KeystoreError> {
        let ring = keystore.open(keystore_key)?;
        Ok(Self {
            keystore: keystore.id(),
            change: keystore.change(),
            member: keystore.member(),
            epoch: keystore.epoch(),
            primary: keystore.primary(),
            generations: keystore.generations().iter().map(GenerationEntry::bare).collect(),
            active: ring.active(),
            ring,
            revocations: keystore.revocations().clone(),
            left_behind: keystore.left_behind().clone(),
            reseal_rows_per_second: keystore.reseal_rows_per_second(),
            distributed_in: keystore.distributed_in(),
            header: keystore.header_for_transfer(),
        })
    }

    /// Whether this master is the primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.primary == self.member
    }

    /// The keys that servers get: of every generation that is neither prepared nor destroyed.
    ///
    /// # Errors
    /// Never: the active generation is among them.
    pub fn handed_out(&self) -> Result<KeyRing, KeyRingError> {
        self.ring.only(|generation| {
            self.entry(generation).is_some_and(|entry| entry.state.is_handed_out())
        })
    }

    /// What is known of a generation.
    #[must_use]
    pub fn entry(&self, generation: Generation) -> Option<&GenerationEntry> {
        self.generations.iter().find(|entry| entry.generation == generation)
    }

    /// The generations and fingerprints of every key that is kept.
    #[must_use]
    pub fn kept(&self) -> Vec<(Generation, Fingerprint)> {
        self.ring.generations().collect()
    }
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// What the change gave.
    pub value: T,
    /// Where the keystore of before was kept, when the change asked for it.
    pub kept_aside: Option<PathBuf>,
}

/// The keystore of a running master: one at a time changes it, everyone sees it.
pub struct Custody {
    path: PathBuf,
    keystore_key: LockedKey,
    clock: Clock,
    keystore: Mutex<Keystore>,
    unlocked: watch::Sender<Arc<Unlocked>>,
    _lock: KeystoreLock,
}

impl fmt::Debug for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = self.unlocked.borrow().change;
        f.debug_struct("Custody")
            .field("path", &self.path)
            .field("change", &change)
            .finish_non_exhaustive()
    }
}

impl Custody {
    /// Takes the keystore in the file `path` into custody, until it is dropped.
    ///
    /// # Errors
    /// When another process holds it, it cannot be read, or `keystore_key` does not open it.
    pub fn begin(
        path: &Path,
        keystore_key: LockedKey,
        clock: Clock,
    ) -> Result<Arc<Self>, MasterError> {
        Ok(Self::begin_under(KeystoreLock::take(path)?, keystore_key, clock)?)
    }

    /// The same under a lock that was taken before.
    ///
    /// # Errors
    /// When the keystore cannot be read, or `keystore_key` does not open it.
    pub fn begin_under(
        lock: KeystoreLock,
        keystore_key: LockedKey,
        clock: Clock,
    ) -> Result<Arc<Self>, KeystoreError> {
        let path = lock.keystore().to_owned();
        {
            let lock = EditLock::take(&path)?;
            write::remove_leftovers(&lock);
            write::remove_unnamed(&lock);
        }
        let keystore = Keystore::read(&path)?;
        let (unlocked, _) = watch::channel(Arc::new(Unlocked::open(&keystore, &keystore_key)?));
        let keystore = Mutex::new(keystore);
        Ok(Arc::new(Self { path, keystore_key, clock, keystore, unlocked, _lock: lock }))
    }

    /// The keystore as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Unlocked> {
        Arc::clone(&self.unlocked.borrow())
    }

    /// The keystore as it is now and after every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Unlocked>> {
        self.unlocked.subscribe()
    }

    /// Makes one change, in the file and then for everyone who looks, all of it or nothing. Blocks for
    /// as long as the disk takes.
    ///
    /// # Errors
    /// What `edit` refuses; `KEYSTORE_NOT_WRITTEN` when the file cannot be written.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.change_and_keep(edit).map(|changed| changed.value)
    }

    /// The same, and says where the keystore of before was kept.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn change_and_keep<T>(
        &self,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<Changed<T>, Refusal> {
        let mut current = self.keystore.lock().unwrap_or_else(PoisonError::into_inner);
        let Edited { value, keystore, keep_aside } = current.edit(&self.keystore_key, edit)?;
        let Some(changed) = keystore else {
            return Ok(Changed { value, kept_aside: None });
        };
        let (written, unlocked, kept_aside) =
            self.write(&current, &changed, keep_aside).map_err(|error| not_written(&error))?;
        *current = written;
        self.unlocked.send_replace(Arc::new(unlocked));
        Ok(Changed { value, kept_aside })
    }

    fn write(
        &self,
        before: &Keystore,
        changed: &Keystore,
        keep_aside: bool,
    ) -> Result<(Keystore, Unlocked, Option<PathBuf>), KeystoreError> {
        let lock = EditLock::take(&self.path)?;
        // Protectors may have been added to the file since it was read.
        let found = Keystore::read(&self.path)?;
        if found.has_other_header(before) {
            return Err(KeystoreError::Replaced(self.path.clone()));
        }
        let changed = changed.with_stanzas(found.stanzas().to_vec())?;
        let kept =
            if keep_aside { Some(write::copy_aside(&lock, self.clock.now())?) } else { None };
        let mut opened = None;
        let written = lock.replace(&changed, |again| {
            opened = Some(Unlocked::open(again, &self.keystore_key)?);
            Ok(())
        });
        match (written, opened) {
            (Ok(()), Some(unlocked)) => Ok((changed, unlocked, kept)),
            (written, _) => {
                if let Some(kept) = kept {
                    let _ = std::fs::remove_file(kept);
                }
                Err(written.err().unwrap_or(KeystoreError::NotProved(self.path.clone())))
            }
        }
    }
}

fn not_written(error: &KeystoreError) -> Refusal {
    let message = format!("the keystore is what it was: {error}");
    tracing::error!(%error, "the keystore was not changed");
    Refusal::new(Reason::KeystoreNotWritten, message)
}
