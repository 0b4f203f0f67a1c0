//! The backup file: every generation of the master secret in one text file that its locks alone open.
//!
//! ```text
//! password ── Argon2id ── wraps ─┐
//! officers ── X25519 ── envelope ┼─ backup key ── wraps ── one key per generation, bound to the header
//! shares ──── M of N ──── give ──┘
//! ```
//!
//! The header is in the clear, so that a file can be told from others and its reminder read by
//! anyone, and it is authenticated with the keys: a changed reminder, date or lock does not open.
//! An envelope can be made by anyone, so the header also has a proof by each generation (`proof`).
//! Stretching the password costs four times the memory of an unlock, because whoever takes the file
//! home has all the time in the world.

use std::path::Path;

use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing, KeyRingError},
    memory::{KeyError, LockedKey},
    officer::{OfficerError, open_envelope, public_key},
    passphrase::{Argon2Params, PassphraseError},
    seal::SealError,
    secret::{SecretBytes, SecretText},
    wrapping::{UnwrapError, WrappingKey},
};
use sso_protector::{
    encoding::{Base64, canonical as spelled},
    prompt::PromptError,
};
use sso_proto::{Reason, Refusal};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    TOOL,
    file::{self, FileError, FormatError},
    keystore::whole_seconds,
};
use format::{Body, Header, HeaderV1, Named};
use locks::Lock;

mod format;
pub mod health;
mod locks;
mod proof;
pub mod schedule;
mod shares;
#[cfg(test)]
mod tests;

pub use locks::{Locks, OFFICERS_MOST, Officer, SHARES_MOST, check_password, check_reminder};

/// The most characters of a reminder.
pub const REMINDER_LONGEST: usize = 512;
/// Clocks are apart by this much at most; a date that is further ahead comes from a wrong clock.
const CLOCKS_APART: time::Duration = time::Duration::minutes(5);
/// How a password is called in messages.
pub const PASSWORD: &str = "the backup password";

/// Why a backup cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file cannot be used, whatever is in it.
    #[error("backup {0}")]
    File(#[from] FileError),
    /// The contents cannot be used.
    #[error("backup: {0}; use another copy of the file")]
    Format(#[from] FormatError),
    /// The password is another one.
    #[error("backup: wrong password{}", hint(reminder))]
    WrongPassword {
        /// What its maker left to remember it by.
        reminder: String,
    },
    /// The backup key, or the officer's key, is that of another backup.
    #[error("backup: the key does not open it: {0}")]
    WrongKey(String),
    /// It has no lock of the kind that was tried.
    #[error("backup: it has no {tried}; it opens with {locks}")]
    NoLock {
        /// What it was tried with.
        tried: &'static str,
        /// What it opens with.
        locks: String,
    },
    /// The shares are too few, mixed or changed.
    #[error("backup: {0}")]
    Shares(String),
    /// Nobody could open it, or not who shall.
    #[error("the backup cannot be locked so: {0}")]
    Locks(String),
    /// The reminder is too long, has line breaks, or gives the password away.
    #[error("the reminder {0}")]
    Reminder(&'static str),
    /// The password is too short or too long.
    #[error(transparent)]
    Password(#[from] PromptError),
    /// The password cannot be stretched.
    #[error("backup: {0}")]
    Stretch(#[from] PassphraseError),
    /// The keys make no key ring.
    #[error("backup: {0}")]
    KeyRing(#[from] KeyRingError),
    /// A key cannot be held in memory.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys cannot be wrapped.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It belongs to another keystore, or has another key for a generation.
    #[error("backup: {0}")]
    Foreign(String),
    /// What was read back is not what was written.
    #[error("backup: the file was written and does not give the same keys back; check the disk")]
    Different,
}

impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Self {
        let reason = match &error {
            BackupError::Format(_)
            | BackupError::Stretch(PassphraseError::Work(_))
            | BackupError::KeyRing(_) => Reason::BackupMalformed,
            BackupError::WrongPassword { .. }
            | BackupError::WrongKey(_)
            | BackupError::NoLock { .. } => Reason::BackupPasswordWrong,
            BackupError::Shares(_) => Reason::BackupSharesInvalid,
            BackupError::Locks(_) => Reason::BackupLocksInvalid,
            BackupError::Reminder(_) => Reason::BackupReminderInvalid,
            BackupError::Password(_) => Reason::BackupPasswordLength,
            BackupError::Foreign(_) => Reason::BackupForeign,
            BackupError::File(_)
            | BackupError::Stretch(_)
            | BackupError::Key(_)
            | BackupError::Seal(_)
            | BackupError::Different => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

/// What a backup is opened with.
#[derive(Debug)]
pub enum Opener {
    /// The password.
    Password(SecretText),
    /// The backup key, as an officer's private key gave it.
    BackupKey(LockedKey),
    /// Texts of shares.
    Shares(Vec<SecretText>),
}

/// A backup as it is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    body: Body,
    sealed: Base64,
}

impl Backup {
    /// A backup of `ring`, which belongs to the keystore with the id `keystore`, and the texts of
    /// its shares. Stretches a password: never to be called on a thread that serves requests.
    ///
    /// # Errors
    /// When the locks break the rules.
    pub fn seal(
        keystore: Uuid,
        epoch: u64,
        ring: &KeyRing,
        locks: &Locks,
        now: OffsetDateTime,
    ) -> Result<(Self, Vec<SecretText>), BackupError> {
        Self::seal_with(Argon2Params::BACKUP, keystore, epoch, ring, locks, now)
    }

    pub(crate) fn seal_with(
        work: Argon2Params,
        keystore: Uuid,
        epoch: u64,
        ring: &KeyRing,
        locks: &Locks,
        now: OffsetDateTime,
    ) -> Result<(Self, Vec<SecretText>), BackupError> {
        let backup = Uuid::new_v4();
        let key = LockedKey::generate()?;
        let (made, texts) = locks::lock(work, keystore, backup, &key, locks)?;
        let header = Header {
            backup,
            keystore,
            epoch,
            created: whole_seconds(now),
            tool: TOOL.to_owned(),
            reminder: locks.reminder.clone(),
            active: ring.active(),
            generations: ring.generations().map(Named::from).collect(),
            key: Fingerprint::of(&key),
            locks: made,
            proofs: Vec::new(),
        };
        let header = header.proved(ring);
        let sealed = WrappingKey::new(&key).wrap(&header.context().parts(), &format::records(ring));
        Ok((Self { body: Body::V2(header), sealed: Base64(sealed?) }, texts))
    }

    /// The keys in it. This proves that the file can be restored. Stretches a password: never to be
    /// called on a thread that serves requests.
    ///
    /// # Errors
    /// When password, key or shares are others, or the file was changed.
    pub fn open(&self, opener: &Opener) -> Result<KeyRing, BackupError> {
        let records = match &self.body {
            Body::V1(header) => self.open_v1(header, opener)?,
            Body::V2(header) => {
                let key = self.backup_key(header, opener)?;
                let records =
                    WrappingKey::new(&key).unwrap(&header.context().parts(), &self.sealed.0);
                // The key is the right one, so it is the file that is not.
                records.map_err(|_| FormatError::damaged("it was changed since it was made"))?
            }
        };
        // Expose: each key goes into locked memory.
        let keys = format::parse_records(records.expose())?;
        let ring = KeyRing::new(keys, self.active())?;
        if !ring.generations().eq(self.generations()) {
            return Err(FormatError::damaged("its keys are not the ones it names").into());
        }
        Ok(ring)
    }

    fn open_v1(&self, header: &HeaderV1, opener: &Opener) -> Result<SecretBytes, BackupError> {
        let password = match opener {
            Opener::Password(password) => password,
            Opener::BackupKey(_) => return Err(self.no_lock("officers")),
            Opener::Shares(_) => return Err(self.no_lock("shares")),
        };
        let wrapping = locks::stretched(password, &header.work, &header.salt)?;
        wrapping.unwrap(&[&spelled(header)], &self.sealed.0).map_err(|error| match error {
            UnwrapError::Malformed(what) => FormatError::damaged(what).into(),
            UnwrapError::NotAuthentic => self.wrong_password(),
        })
    }

    fn backup_key(&self, header: &Header, opener: &Opener) -> Result<LockedKey, BackupError> {
        let own = |key: &LockedKey| Fingerprint::of(key) == header.key;
        match opener {
            Opener::Password(password) => {
                for lock in &header.locks {
                    if let Lock::Password { work, salt, wrapped } = lock {
                        let key =
                            locks::open_password(header.backup, password, work, salt, wrapped)?;
                        return key.ok_or_else(|| self.wrong_password());
                    }
                }
                Err(self.no_lock("password"))
            }
            Opener::BackupKey(key) if own(key) => {
                // Expose: a copy, because the opener is only lent.
                Ok(LockedKey::from_bytes(key.expose())?)
            }
            Opener::BackupKey(_) => {
                Err(BackupError::WrongKey("it is the key of another backup".into()))
            }
            Opener::Shares(texts) => {
                for lock in &header.locks {
                    if let Lock::Shares { needed, .. } = lock {
                        let key = shares::combine(header.keystore, header.backup, *needed, texts)?;
                        return if own(&key) {
                            Ok(key)
                        } else {
                            Err(BackupError::Shares("a share was changed".into()))
                        };
                    }
                }
                Err(self.no_lock("shares"))
            }
        }
    }

    /// The backup key in the envelope for the officer with this private key.
    ///
    /// # Errors
    /// When there is no envelope for this officer, or it was changed.
    pub fn open_envelope(&self, private: &LockedKey) -> Result<LockedKey, BackupError> {
        let wrong = |error: OfficerError| BackupError::WrongKey(error.to_string());
        let own = public_key(private).map_err(wrong)?;
        if let Body::V2(header) = &self.body {
            let mut officers = false;
            for lock in &header.locks {
                if let Lock::Officer { public_key, envelope, .. } = lock {
                    officers = true;
                    if public_key.0 == own {
                        let id = header.backup.as_bytes();
                        return open_envelope(private, id, &envelope.0).map_err(wrong);
                    }
                }
            }
            if officers {
                let what =
                    format!("it is no officer's of this backup, which opens with {}", self.locks());
                return Err(BackupError::WrongKey(what));
            }
        }
        Err(self.no_lock("officers"))
    }

    /// Writes the file (mode 0600, never over another), reads it again and opens it.
    ///
    /// # Errors
    /// When the file exists, cannot be written, or does not give `ring` back.
    pub fn write_and_prove(
        &self,
        path: &Path,
        opener: &Opener,
        ring: &KeyRing,
    ) -> Result<(), BackupError> {
        file::create(path, &self.to_text())?;
        if Self::read(path)?.open(opener)? == *ring { Ok(()) } else { Err(BackupError::Different) }
    }

    /// The backup in the file `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or is no whole backup of a known version.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        // It may lie on a medium that has no modes.
        Ok(Self::parse(&file::read(path, false)?)?)
    }

    /// The backup that `content` spells.
    ///
    /// # Errors
    /// When it is something else, of another version, or damaged.
    pub fn parse(content: &[u8]) -> Result<Self, FormatError> {
        let (body, sealed) = format::parse(content)?;
        Ok(Self { body, sealed })
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format::to_text(&self.body, &self.sealed)
    }

    /// The keystore that the keys belong to.
    #[must_use]
    pub fn keystore(&self) -> Uuid {
        match &self.body {
            Body::V1(header) => header.keystore,
            Body::V2(header) => header.keystore,
        }
    }

    /// The epoch it was made in; the first one for backups that do not say it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        match &self.body {
            Body::V1(_) => 1,
            Body::V2(header) => header.epoch,
        }
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> OffsetDateTime {
        match &self.body {
            Body::V1(header) => header.created,
            Body::V2(header) => header.created,
        }
    }

    /// The program that made it.
    #[must_use]
    pub fn tool(&self) -> &str {
        match &self.body {
            Body::V1(header) => &header.tool,
            Body::V2(header) => &header.tool,
        }
    }

    /// What its maker left to remember the password by; may be empty. Only [`Backup::open`] proves
    /// that nobody changed it.
    #[must_use]
    pub fn reminder(&self) -> &str {
        match &self.body {
            Body::V1(header) => &header.reminder,
            Body::V2(header) => &header.reminder,
        }
    }

    /// The generation that was active when it was made.
    #[must_use]
    pub fn active(&self) -> Generation {
        match &self.body {
            Body::V1(header) => header.active,
            Body::V2(header) => header.active,
        }
    }

    /// The generations it says it holds.
    pub fn generations(&self) -> impl Iterator<Item = (Generation, Fingerprint)> + '_ {
        let generations = match &self.body {
            Body::V1(header) => &header.generations,
            Body::V2(header) => &header.generations,
        };
        generations.iter().map(|named| (named.generation, named.fingerprint))
    }

    /// What it opens with, in the middle of a sentence.
    #[must_use]
    pub fn locks(&self) -> String {
        let locks = match &self.body {
            Body::V1(_) => return "a password".to_owned(),
            Body::V2(header) => header.locks.iter().map(|lock| match lock {
                Lock::Password { .. } => "a password".to_owned(),
                Lock::Officer { name, .. } => format!("the key of {name:?}"),
                Lock::Shares { needed, total } => format!("{needed} of {total} shares"),
            }),
        };
        locks.collect::<Vec<_>>().join(", or ")
    }

    fn wrong_password(&self) -> BackupError {
        BackupError::WrongPassword { reminder: self.reminder().to_owned() }
    }

    fn no_lock(&self, tried: &'static str) -> BackupError {
        BackupError::NoLock { tried, locks: self.locks() }
    }
}

impl Header {
    /// What the keys are bound to: every field, locks and proofs included.
    fn context(&self) -> Context {
        Context(spelled(self))
    }
}

struct Context(Vec<u8>);

impl Context {
    fn parts(&self) -> [&[u8]; 2] {
        [b"backup 2", &self.0]
    }
}

fn hint(reminder: &str) -> String {
    if reminder.is_empty() { String::new() } else { format!("; its reminder is: {reminder}") }
}
