//! Making the first generation of the master secret: backup first, keystore last.

use std::path::{Path, PathBuf};

use sso_core::{
    clock::Clock,
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    secret::SecretText,
};
use sso_protector::Protector;
use sso_proto::Event;
use uuid::Uuid;

use crate::{
    backup::{Backup, BackupError, Locks, Opener},
    custody::KeystoreLock,
    error::MasterError,
    file::{FileError, may_exist},
    keystore::{Keystore, KeystoreError},
    stanzas::{Given, prove},
};

/// The epoch that every keystore begins with.
const FIRST_EPOCH: u64 = 1;

/// Why no keystore is made, beyond what files and protectors say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// Nobody may rely on keys that are nowhere else.
    #[error("name the backup file to make: --backup FILE")]
    NoBackup,
    /// One file cannot be both.
    #[error("the backup must be another file than the keystore, best on another machine")]
    SamePath,
}

/// Where the two files go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The keystore of the settings.
    pub keystore: PathBuf,
    /// The backup.
    pub backup: PathBuf,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// The generation that is active.
    pub generation: Generation,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// Refuses to go on where a file exists; to be called before anybody is asked for anything.
///
/// # Errors
/// Names the file that exists.
pub fn require_new(target: &Target) -> Result<(), MasterError> {
    if std::path::absolute(&target.keystore)? == std::path::absolute(&target.backup)? {
        return Err(InitError::SamePath.into());
    }
    if exists(&target.keystore) {
        return Err(KeystoreError::from(FileError::Exists(target.keystore.clone())).into());
    }
    if exists(&target.backup) {
        let exists = FileError::Exists(target.backup.clone());
        return Err(MasterError::Backup(exists.into()));
    }
    Ok(())
}

/// Generates generation 1, writes its backup and opens it again, and only then makes the keystore,
/// which was unlocked once before. On failure nothing is left: no file and no entry in a keyring,
/// unless there is a keystore by then.
///
/// # Errors
/// When a file exists or cannot be written, or a protector cannot be used.
pub fn init(
    target: &Target,
    protectors: &[Box<dyn Protector>],
    password: &SecretText,
    reminder: &str,
    clock: &Clock,
) -> Result<Made, MasterError> {
    require_new(target)?;
    let locks = Locks::password(password.clone(), reminder);
    locks.check()?;
    let _lock = KeystoreLock::take(&target.keystore)?;
    let now = clock.now();
    let id = Uuid::new_v4();
    let secret = LockedKey::generate().map_err(KeystoreError::from)?;
    let copy = LockedKey::from_bytes(secret.expose()).map_err(KeystoreError::from)?;
    let ring = KeyRing::new([(Generation::FIRST, copy)], Generation::FIRST)
        .map_err(KeystoreError::from)?;

    let mut given = Given::for_new(id, protectors, &target.keystore);
    let keystore_key = LockedKey::generate().map_err(KeystoreError::from)?;
    // Before the backup: here somebody may be asked, and may give up.
    let stanzas = given.wrap_all(&keystore_key)?;
    let (backup, _) = Backup::seal(id, FIRST_EPOCH, &ring, &locks, now)?;
    let opener = Opener::Password(password.clone());
    let proved = backup.write_and_prove(&target.backup, &opener, &ring).inspect_err(|error| {
        tracing::error!(event = Event::BackupNotWritten.number(), %error, "no backup");
    });
    let own = !matches!(proved, Err(BackupError::File(FileError::Exists(_))));
    let written =
        Written { keystore: &target.keystore, backup: own.then_some(target.backup.as_path()) };
    proved?;
    tracing::info!(event = Event::BackupWritten.number(), backup = %target.backup.display(), "backup written and opened");

    let keystore = Keystore::create(id, Uuid::new_v4(), &secret, &keystore_key, stanzas, now)?
        .with_backup(&keystore_key, now)?;
    prove(&keystore, protectors, &ring)?;
    keystore.write_new(&target.keystore)?;
    given.keep();
    written.keep();
    let fingerprint = ring.active_fingerprint();
    tracing::info!(event = Event::MasterSecretGenerated.number(), generation = 1, %fingerprint, "master secret generated");
    Ok(Made { keystore: id, generation: Generation::FIRST, fingerprint })
}

/// Removes the backup again, unless it is kept, or a keystore is there that may need it.
struct Written<'a> {
    /// Where the keystore goes.
    keystore: &'a Path,
    backup: Option<&'a Path>,
}

impl Written<'_> {
    fn keep(mut self) {
        self.backup = None;
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let Some(backup) = self.backup else { return };
        if may_exist(self.keystore) {
            let keystore = self.keystore.display();
            tracing::warn!(%keystore, "there is a keystore: its backup stays");
            return;
        }
        if let Err(error) = std::fs::remove_file(backup)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %backup.display(), "a backup without a keystore is left");
        }
    }
}

/// Whether anything has this name, a dangling link included.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::LazyLock};

    use sso_core::passphrase::Argon2Params;

    use super::*;
    use sso_protector::{
        Kind, Passphrase, PassphraseSource, ProtectorError, RingStanza, Stanza, unlock,
    };

    fn target(folder: &tempfile::TempDir) -> Target {
        Target {
            keystore: folder.path().join("keystore.json"),
            backup: folder.path().join("master.backup"),
        }
    }

    fn passphrase() -> Vec<Box<dyn Protector>> {
        static FILE: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
            // Private, as all of them.
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "correct horse").unwrap();
            file
        });
        let source = PassphraseSource::File(FILE.path().to_owned());
        vec![Box::new(Passphrase::with_work(source, Argon2Params::FLOOR))]
    }

    fn password() -> SecretText {
        SecretText::new("battery staple".into())
    }

    fn files(folder: &tempfile::TempDir) -> Vec<String> {
        let names = std::fs::read_dir(folder.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn both_files_hold_the_same_master_secret() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(&folder);
        let made = init(&target, &passphrase(), &password(), "staples", &Clock::System).unwrap();

        let keystore = Keystore::read(&target.keystore).unwrap();
        assert_eq!(keystore.id(), made.keystore);
        let ring = keystore
            .open(&unlock(&passphrase(), keystore.id(), keystore.stanzas()).unwrap())
            .unwrap();
        let backup = Backup::read(&target.backup).unwrap();
        assert_eq!(backup.open(&Opener::Password(password())).unwrap(), ring);
        assert_eq!((backup.keystore(), backup.reminder()), (made.keystore, "staples"));
        assert_eq!(ring.active_fingerprint(), made.fingerprint);
        // The backup was opened again, so it counts; this copy is the primary's.
        let first = &keystore.generations()[0];
        assert_eq!(first.backed_up, Some(first.created));
        assert!(keystore.is_primary() && keystore.member() != keystore.id());
        assert_eq!((keystore.epoch(), keystore.change()), (1, 1));
        assert_eq!(files(&folder).len(), 2);
    }

    #[test]
    fn nothing_is_overwritten() {
        for existing in ["keystore.json", "master.backup"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(existing), "mine").unwrap();
            let error =
                init(&target(&folder), &passphrase(), &password(), "", &Clock::System).unwrap_err();
            assert!(error.to_string().contains(existing), "{error}");
            assert_eq!(error.exit(), sso_core::exit::Exit::Refused);
            assert_eq!(files(&folder), [existing]);
            assert_eq!(std::fs::read(folder.path().join(existing)).unwrap(), b"mine");
        }
    }

    #[test]
    fn whoever_lives_by_the_keystore_keeps_others_from_making_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(&folder);
        let _lock = KeystoreLock::take(&target.keystore).unwrap();
        let error = init(&target, &passphrase(), &password(), "", &Clock::System).unwrap_err();
        assert!(error.to_string().contains("in use by"), "{error}");
        assert_eq!(error.exit(), sso_core::exit::Exit::Refused);
        assert_eq!(files(&folder), ["keystore.json.lock"]);
    }

    #[test]
    fn keystore_and_backup_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        let target = Target { keystore: one.clone(), backup: one };
        let error = init(&target, &passphrase(), &password(), "", &Clock::System).unwrap_err();
        assert!(matches!(error, MasterError::Init(InitError::SamePath)), "{error}");
    }

    /// Keeps the key, and fails where it is told to.
    struct Forgetful {
        key: RefCell<Option<LockedKey>>,
        refuses_to_wrap: bool,
    }

    impl Protector for Forgetful {
        fn kind(&self) -> Kind {
            Kind::Keyutils
        }

        fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
            if self.refuses_to_wrap {
                let kind = Kind::Keyutils;
                return Err(ProtectorError::EntryMissing { kind, keystore, advice: "" });
            }
            *self.key.borrow_mut() = Some(LockedKey::from_bytes(key.expose()).unwrap());
            Ok(Stanza::Keyutils(RingStanza::new(keystore, key)))
        }

        fn unwrap(&self, _: Uuid, _: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
            // Another key than the one it took.
            Ok(Some(LockedKey::generate().unwrap()))
        }

        fn forget(&self, _: Uuid) -> Result<(), ProtectorError> {
            self.key.borrow_mut().take();
            Ok(())
        }
    }

    #[test]
    fn a_failure_leaves_nothing() {
        for refuses_to_wrap in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let protectors: Vec<Box<dyn Protector>> =
                vec![Box::new(Forgetful { key: RefCell::new(None), refuses_to_wrap })];
            let result = init(&target(&folder), &protectors, &password(), "", &Clock::System);
            assert!(result.is_err());
            assert_eq!(files(&folder), Vec::<String>::new());
        }
    }

    #[test]
    fn what_a_keystore_may_need_is_never_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(&folder);
        let written = || Written { keystore: &target.keystore, backup: Some(&target.backup) };
        std::fs::write(&target.backup, "backup").unwrap();
        std::fs::write(&target.keystore, "keystore").unwrap();
        drop(written());
        assert!(target.backup.exists());
        std::fs::remove_file(&target.keystore).unwrap();
        written().keep();
        assert!(target.backup.exists());
        drop(written());
        assert!(!target.backup.exists());
    }

    #[test]
    fn a_keystore_that_cannot_be_written_leaves_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = folder.path().join("nowhere").join("keystore.json");
        let target = Target { keystore, ..target(&folder) };
        let error = init(&target, &passphrase(), &password(), "", &Clock::System).unwrap_err();
        assert_eq!(error.exit(), sso_core::exit::Exit::Unavailable, "{error}");
        assert_eq!(files(&folder), Vec::<String>::new());
    }
}
