//! The backup file: every generation of the master secret under a password, in one text file.
//!
//! The header is in the clear, so that a file can be told from others and its reminder read without
//! the password, and it is authenticated with the keys: a changed reminder or date does not open.
//! Stretching the password costs four times the memory of an unlock, because whoever takes the file
//! home has all the time in the world.

use std::path::Path;

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing, KeyRingError},
    memory::{KEY_BYTES, KeyError, LockedKey},
    passphrase::{Argon2Params, PassphraseError, SALT_BYTES, canonical, stretch},
    seal::SealError,
    secret::SecretText,
    wrapping::{UnwrapError, WrappingKey},
};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    TOOL,
    encoding::{self, Base64, canonical as spelled, checksum},
    file::{self, FileError, FormatError},
    keystore::whole_seconds,
    prompt::{PromptError, check_length},
};

const FORMAT: &str = "sso-backup";
const VERSION: u64 = 1;
/// The most characters of a reminder.
pub const REMINDER_LONGEST: usize = 512;
/// How a password is called in messages.
pub const PASSWORD: &str = "the backup password";
/// Number and key of one generation in the plaintext.
const RECORD: usize = 4 + KEY_BYTES;

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
    /// What was read back is not what was written.
    #[error("backup: the file was written and does not give the same keys back; check the disk")]
    Different,
}

/// What stands in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    keystore: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    tool: String,
    reminder: String,
    #[serde(with = "encoding::generation")]
    active: Generation,
    generations: Vec<Named>,
    work: Argon2Params,
    salt: Base64,
}

/// A generation by number and fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(with = "encoding::generation")]
    generation: Generation,
    #[serde(with = "encoding::fingerprint")]
    fingerprint: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u64,
    header: Header,
    sealed: Base64,
    checksum: String,
}

/// A backup as it is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    header: Header,
    sealed: Base64,
}

impl Backup {
    /// A backup of `ring`, which belongs to the keystore with the id `keystore`.
    ///
    /// # Errors
    /// When password or reminder break the rules.
    pub fn seal(
        keystore: Uuid,
        ring: &KeyRing,
        password: &SecretText,
        reminder: &str,
        now: OffsetDateTime,
    ) -> Result<Self, BackupError> {
        Self::seal_with(Argon2Params::BACKUP, keystore, ring, password, reminder, now)
    }

    fn seal_with(
        work: Argon2Params,
        keystore: Uuid,
        ring: &KeyRing,
        password: &SecretText,
        reminder: &str,
        now: OffsetDateTime,
    ) -> Result<Self, BackupError> {
        check_password(password)?;
        check_reminder(reminder, password)?;
        let mut salt = [0; SALT_BYTES];
        SysRng.try_fill_bytes(&mut salt).map_err(|error| KeyError::Random(error.to_string()))?;
        let named = |(generation, fingerprint)| Named { generation, fingerprint };
        let header = Header {
            keystore,
            created: whole_seconds(now),
            tool: TOOL.to_owned(),
            reminder: reminder.to_owned(),
            active: ring.active(),
            generations: ring.generations().map(named).collect(),
            work,
            salt: Base64(salt.to_vec()),
        };
        let sealed = header.wrapping(password)?.wrap(&[&spelled(&header)], &records(ring))?;
        Ok(Self { header, sealed: Base64(sealed) })
    }

    /// The keys in it. This proves that the file can be restored.
    ///
    /// # Errors
    /// When the password is another one, or the file was changed.
    pub fn open(&self, password: &SecretText) -> Result<KeyRing, BackupError> {
        let wrapping = self.header.wrapping(password)?;
        let records = wrapping.unwrap(&[&spelled(&self.header)], &self.sealed.0);
        let records = records.map_err(|error| match error {
            UnwrapError::Malformed(what) => FormatError::damaged(what).into(),
            UnwrapError::NotAuthentic => {
                BackupError::WrongPassword { reminder: self.reminder().to_owned() }
            }
        })?;
        // Expose: each key goes into locked memory.
        let keys = parse_records(records.expose())?;
        let ring = KeyRing::new(keys, self.header.active)?;
        let named = |(generation, fingerprint)| Named { generation, fingerprint };
        if !ring.generations().map(named).eq(self.header.generations.iter().copied()) {
            return Err(FormatError::damaged("its keys are not the ones it names").into());
        }
        Ok(ring)
    }

    /// Writes the file (mode 0600, never over another), reads it again and opens it.
    ///
    /// # Errors
    /// When the file exists, cannot be written, or does not give `ring` back.
    pub fn write_and_prove(
        &self,
        path: &Path,
        password: &SecretText,
        ring: &KeyRing,
    ) -> Result<(), BackupError> {
        file::create(path, &self.to_text())?;
        if Self::read(path)?.open(password)? == *ring {
            Ok(())
        } else {
            Err(BackupError::Different)
        }
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
        let document: Document = file::parse(content, FORMAT, VERSION)?;
        let backup = Self { header: document.header, sealed: document.sealed };
        if document.checksum != backup.checksum() {
            return Err(FormatError::damaged("its checksum does not match its contents"));
        }
        Ok(backup)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            header: self.header.clone(),
            sealed: self.sealed.clone(),
            checksum: self.checksum(),
        };
        // Nothing in a document can fail to be spelled.
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The keystore that the keys belong to.
    #[must_use]
    pub fn keystore(&self) -> Uuid {
        self.header.keystore
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> OffsetDateTime {
        self.header.created
    }

    /// What its maker left to remember the password by; may be empty. Only [`Backup::open`] proves
    /// that nobody changed it.
    #[must_use]
    pub fn reminder(&self) -> &str {
        &self.header.reminder
    }

    /// The generations it says it holds.
    pub fn generations(&self) -> impl Iterator<Item = (Generation, Fingerprint)> + '_ {
        self.header.generations.iter().map(|named| (named.generation, named.fingerprint))
    }

    fn checksum(&self) -> String {
        checksum(&(FORMAT, VERSION, &self.header, &self.sealed))
    }
}

impl Header {
    fn wrapping(&self, password: &SecretText) -> Result<WrappingKey, BackupError> {
        let salt = self.salt.0.as_slice().try_into();
        let salt = salt.map_err(|_| FormatError::damaged("its salt"))?;
        Ok(WrappingKey::new(&stretch(&canonical(password), salt, &self.work)?))
    }
}

/// Number and key of every generation, one after the other.
fn records(ring: &KeyRing) -> Zeroizing<Vec<u8>> {
    let mut records = Zeroizing::new(Vec::with_capacity(RECORD * ring.generations().count()));
    for (generation, _) in ring.generations() {
        if let Some(key) = ring.key(generation) {
            records.extend_from_slice(&generation.number().to_be_bytes());
            // Expose: into a buffer that wipes itself, to be wrapped.
            records.extend_from_slice(key.expose());
        }
    }
    records
}

fn parse_records(records: &[u8]) -> Result<Vec<(Generation, LockedKey)>, BackupError> {
    let damaged = || FormatError::damaged("its keys are not of the right length");
    let (whole, rest) = records.as_chunks::<RECORD>();
    if !rest.is_empty() {
        return Err(damaged().into());
    }
    let parse = |record: &[u8; RECORD]| {
        let (number, key) = record.split_first_chunk().ok_or_else(damaged)?;
        let generation = Generation::new(u32::from_be_bytes(*number)).ok_or_else(damaged)?;
        Ok((generation, LockedKey::from_bytes(key)?))
    };
    whole.iter().map(parse).collect()
}

/// Refuses passwords that are too short or too long.
///
/// # Errors
/// Says how many characters there are.
pub fn check_password(password: &SecretText) -> Result<(), BackupError> {
    Ok(check_length(PASSWORD, password)?)
}

/// A reminder is one line of at most 512 characters that does not give the password away.
///
/// # Errors
/// Says what is wrong.
pub fn check_reminder(reminder: &str, password: &SecretText) -> Result<(), BackupError> {
    if reminder.chars().count() > REMINDER_LONGEST {
        return Err(BackupError::Reminder("must have at most 512 characters"));
    }
    if reminder.chars().any(char::is_control) {
        return Err(BackupError::Reminder("must be one line without control characters"));
    }
    // Expose: to compare it with what anyone may read.
    if reminder.to_lowercase().contains(&*Zeroizing::new(password.expose().to_lowercase())) {
        return Err(BackupError::Reminder(
            "contains the password, and anyone who has the file can read it",
        ));
    }
    Ok(())
}

fn hint(reminder: &str) -> String {
    if reminder.is_empty() { String::new() } else { format!("; its reminder is: {reminder}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    fn ring() -> KeyRing {
        let key = |byte| LockedKey::from_bytes(&[byte; 32]).unwrap();
        let generation = |number| Generation::new(number).unwrap();
        KeyRing::new([(generation(1), key(1)), (generation(2), key(2))], generation(2)).unwrap()
    }

    fn made(password: &str, reminder: &str) -> Result<Backup, BackupError> {
        let now = datetime!(2030-01-02 03:04:05 UTC);
        let id = Uuid::from_u128(7);
        Backup::seal_with(Argon2Params::FLOOR, id, &ring(), &text(password), reminder, now)
    }

    fn backup() -> Backup {
        made("correct horse", "which animal?").unwrap()
    }

    #[test]
    fn the_password_gives_every_generation_back() {
        let backup = Backup::parse(backup().to_text().as_bytes()).unwrap();
        assert_eq!(backup.open(&text("correct horse")).unwrap(), ring());
        assert_eq!(backup.keystore(), Uuid::from_u128(7));
        assert_eq!(
            backup.generations().collect::<Vec<_>>(),
            ring().generations().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_wrong_password_shows_the_reminder() {
        let error = backup().open(&text("correct house")).unwrap_err();
        assert!(matches!(error, BackupError::WrongPassword { .. }), "{error}");
        assert!(error.to_string().contains("which animal?"), "{error}");
        let error = made("correct horse", "").unwrap().open(&text("another")).unwrap_err();
        assert_eq!(error.to_string(), "backup: wrong password");
    }

    #[test]
    fn the_work_of_real_backups_is_that_of_backups() {
        let now = datetime!(2030-01-02 03:04:05 UTC);
        let password = text("correct horse");
        let backup = Backup::seal(Uuid::nil(), &ring(), &password, "", now).unwrap();
        assert_eq!(backup.header.work, Argon2Params::BACKUP);
        assert_eq!(backup.open(&password).unwrap(), ring());
    }

    #[test]
    fn passwords_and_reminders_keep_the_rules() {
        for (password, reminder, why) in [
            ("short", "", "7 to 256"),
            (&*"x".repeat(257), "", "7 to 256"),
            ("correct horse", &*"x".repeat(513), "512"),
            ("correct horse", "two\nlines", "one line"),
            ("correct horse", "it is Correct Horse!", "contains the password"),
        ] {
            let error = made(password, reminder).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(made("seven c", &"ä".repeat(512)).is_ok());
    }

    #[test]
    fn a_header_that_was_changed_does_not_open() {
        let changed = [
            Header { reminder: "another".into(), ..backup().header },
            Header { keystore: Uuid::nil(), ..backup().header },
            Header { created: datetime!(2031-01-02 03:04:05 UTC), ..backup().header },
            Header { active: Generation::FIRST, ..backup().header },
        ];
        let sealed = backup().sealed;
        for header in changed {
            let backup = Backup { header, sealed: sealed.clone() };
            assert!(backup.open(&text("correct horse")).is_err(), "{:?}", backup.header);
        }
    }

    #[test]
    fn greedy_files_are_refused_before_any_work() {
        let work = Argon2Params { memory_kib: u32::MAX, ..Argon2Params::CAP };
        let greedy = Backup { header: Header { work, ..backup().header }, ..backup() };
        let error = greedy.open(&text("correct horse")).unwrap_err();
        assert!(matches!(error, BackupError::Stretch(PassphraseError::Work(_))), "{error}");
    }

    #[test]
    fn the_file_is_proved_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.backup");
        let password = text("correct horse");
        backup().write_and_prove(&path, &password, &ring()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = backup().write_and_prove(&path, &password, &ring()).unwrap_err();
        assert!(matches!(error, BackupError::File(FileError::Exists(_))), "{error}");
        let key = LockedKey::from_bytes(&[9; 32]).unwrap();
        let other = KeyRing::new([(Generation::FIRST, key)], Generation::FIRST).unwrap();
        let error =
            backup().write_and_prove(&folder.path().join("other"), &password, &other).unwrap_err();
        assert!(matches!(error, BackupError::Different), "{error}");
    }

    #[test]
    fn damage_and_other_files_are_told_from_a_wrong_password() {
        let whole = backup().to_text();
        for length in [1, 20, 100, whole.len() / 2, whole.len() - 2] {
            let error = Backup::parse(&whole.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, FormatError::Damaged(_) | FormatError::Other(_)), "{error}");
        }
        let changed = whole.replace("which animal", "which planet");
        assert!(matches!(Backup::parse(changed.as_bytes()), Err(FormatError::Damaged(_))));
        assert_eq!(Backup::parse(b"hello").unwrap_err(), FormatError::Other(FORMAT));
        // As copied by a program for another system.
        assert!(Backup::parse(whole.replace('\n', "\r\n").as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Backup::parse(&bytes).is_err());
        }

        #[test]
        fn records_of_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_records(&bytes);
        }
    }
}
