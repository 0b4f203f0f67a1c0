//! Scheduled backups: written into a folder of their own, opened again, and pruned.
//!
//! One is due when the newest is older than the interval, and also when it lacks a generation or
//! names another active one: after a rotation nobody has to wait for the next night.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sso_core::{
    clock::Clock,
    passphrase::Argon2Params,
    secret::SecretText,
    settings::{SettingsError, credential_or_file},
};
use sso_protector::prompt::{PromptError, as_text};
use sso_proto::{Event, Refusal};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};
use tokio_util::sync::CancellationToken;

use super::{Backup, BackupError, Locks, Opener, PASSWORD};
use crate::{
    custody::{Custody, Unlocked},
    settings::BackupSettings,
};

const PREFIX: &str = "sso-master-secret-";
const ENDING: &str = ".backup";
/// Before a backup that failed is tried again.
const RETRY: time::Duration = time::Duration::HOUR;
/// Between two looks at the time.
const LOOK: Duration = Duration::from_secs(30);

/// Why a scheduled backup was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The folder cannot be used.
    #[error("the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Other users may look into the folder.
    #[error(
        "the folder {}: mode {mode:04o} lets other users at it: run `chmod 700` on it", path.display()
    )]
    Lax {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The password cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The password is no text.
    #[error(transparent)]
    Password(#[from] PromptError),
    /// It cannot be made or does not open again.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is good, but the keystore cannot say so.
    #[error("the backup was written and opened, but not put on record: {}", .0.message)]
    NotRecorded(Refusal),
}

/// How scheduled backups fare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// When the newest was made.
    pub last_at: Option<OffsetDateTime>,
    /// When the next one is due.
    pub next_at: Option<OffsetDateTime>,
    /// Why the last try failed; `None` when it did not.
    pub error: Option<String>,
}

/// Makes scheduled backups.
#[derive(Debug)]
pub struct Schedule {
    custody: Arc<Custody>,
    settings: BackupSettings,
    folder: PathBuf,
    clock: Clock,
    work: Argon2Params,
    status: Mutex<ScheduleStatus>,
}

/// A scheduled backup that is in the folder.
struct Kept {
    path: PathBuf,
    made: OffsetDateTime,
    backup: Backup,
}

impl Schedule {
    /// The schedule of the settings; `None` when they name no folder.
    #[must_use]
    pub fn new(
        custody: Arc<Custody>,
        settings: &BackupSettings,
        clock: Clock,
    ) -> Option<Arc<Self>> {
        let made = Self::with_work(custody, settings, clock, Argon2Params::BACKUP);
        made.map(Arc::new)
    }

    fn with_work(
        custody: Arc<Custody>,
        settings: &BackupSettings,
        clock: Clock,
        work: Argon2Params,
    ) -> Option<Self> {
        let folder = settings.folder.clone()?;
        let (settings, status) = (settings.clone(), Mutex::default());
        Some(Self { custody, settings, folder, clock, work, status })
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> ScheduleStatus {
        self.locked().clone()
    }

    /// Makes backups whenever one is due. Ends with `draining`.
    pub async fn run(self: Arc<Self>, draining: CancellationToken) {
        let mut changes = self.custody.subscribe();
        loop {
            let schedule = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || schedule.step()).await {
                tracing::error!(%error, "scheduled backups failed");
            }
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Makes a backup if one is due; whether one was made. Blocks, and stretches a password.
    pub fn step(&self) -> bool {
        let now = self.clock.now();
        let retry = self.locked().clone();
        if retry.error.is_some() && retry.next_at.is_some_and(|next| now < next) {
            return false;
        }
        let made = self.make_if_due(now);
        let mut status = self.locked();
        match made {
            Ok((made, last)) => {
                let next = last + time::Duration::hours(self.settings.every_hours.into());
                *status = ScheduleStatus { last_at: Some(last), next_at: Some(next), error: None };
                made
            }
            Err(error) => {
                tracing::error!(
                    event = Event::BackupNotWritten.number(),
                    folder = %self.folder.display(),
                    %error,
                    "no scheduled backup; it is tried again in an hour"
                );
                status.next_at = Some(now + RETRY);
                status.error = Some(error.to_string());
                false
            }
        }
    }

    /// Whether a backup was made, and when the newest was.
    fn make_if_due(&self, now: OffsetDateTime) -> Result<(bool, OffsetDateTime), ScheduleError> {
        self.require_private()?;
        let current = self.custody.current();
        let mut kept = self.kept(&current)?;
        if let Some(newest) = kept.first() {
            let interval = time::Duration::hours(self.settings.every_hours.into());
            let same_second = newest.path == self.path(now);
            if same_second || (now - newest.made < interval && covers(&newest.backup, &current)) {
                return Ok((false, newest.made));
            }
        }
        let (path, backup) = self.make(&current, now)?;
        let made = backup.created();
        kept.insert(0, Kept { path, made, backup });
        for old in kept.iter().skip(self.settings.keep.try_into().unwrap_or(usize::MAX)) {
            if let Err(error) = fs::remove_file(&old.path) {
                tracing::warn!(%error, path = %old.path.display(), "an old backup stays");
            }
        }
        Ok((true, made))
    }

    fn make(
        &self,
        current: &Unlocked,
        now: OffsetDateTime,
    ) -> Result<(PathBuf, Backup), ScheduleError> {
        let password = self.password()?;
        let locks = Locks::password(password.clone(), &self.settings.reminder);
        let Unlocked { keystore, epoch, ring, .. } = current;
        let (backup, _) = Backup::seal_with(self.work, *keystore, *epoch, ring, &locks, now)?;
        let path = self.path(now);
        if let Err(error) = backup.write_and_prove(&path, &Opener::Password(password), ring) {
            if !matches!(error, BackupError::File(crate::file::FileError::Exists(_))) {
                // What does not open is no backup.
                let _ = fs::remove_file(&path);
            }
            return Err(error.into());
        }
        tracing::info!(
            event = Event::BackupWritten.number(),
            backup = %path.display(),
            "scheduled backup written and opened"
        );
        let found = current.kept();
        let recorded = self.custody.change(|draft| Ok(draft.record_backup(&found, now)));
        recorded.map_err(ScheduleError::NotRecorded)?;
        Ok((path, backup))
    }

    fn password(&self) -> Result<SecretText, ScheduleError> {
        let BackupSettings { credential, password_file, .. } = &self.settings;
        let secret = credential_or_file(credential.as_deref(), password_file.as_deref())?;
        // The settings are refused without one of them; an empty password is refused by its length.
        let secret = secret.unwrap_or_else(|| Vec::new().into());
        Ok(as_text(PASSWORD, &secret)?)
    }

    fn require_private(&self) -> Result<(), ScheduleError> {
        let path = || self.folder.clone();
        let folder = |source| ScheduleError::Folder { path: path(), source };
        let metadata = fs::metadata(&self.folder).map_err(folder)?;
        if !metadata.is_dir() {
            return Err(folder(io::ErrorKind::NotADirectory.into()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 == 0 { Ok(()) } else { Err(ScheduleError::Lax { path: path(), mode }) }
    }

    /// The scheduled backups of this keystore, the newest first. A file is one of them by its name
    /// and by what is in it; nothing else is ever touched.
    fn kept(&self, current: &Unlocked) -> Result<Vec<Kept>, ScheduleError> {
        let unreadable = |source| ScheduleError::Folder { path: self.folder.clone(), source };
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (name, path) = (entry.file_name(), entry.path());
            let Some(made) = name.to_str().and_then(time_of) else { continue };
            if !entry.file_type().is_ok_and(|it| it.is_file()) {
                continue;
            }
            if let Ok(backup) = Backup::read(&path)
                && backup.keystore() == current.keystore
            {
                kept.push(Kept { path, made, backup });
            }
        }
        kept.sort_by_key(|it| std::cmp::Reverse(it.made));
        Ok(kept)
    }

    fn path(&self, now: OffsetDateTime) -> PathBuf {
        path_of(&self.folder, now)
    }

    fn locked(&self) -> MutexGuard<'_, ScheduleStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the backup says what the keystore is now.
fn covers(backup: &Backup, current: &Unlocked) -> bool {
    backup.active() == current.active && backup.generations().eq(current.ring.generations())
}

fn path_of(folder: &Path, made: OffsetDateTime) -> PathBuf {
    let time = made
        .to_offset(time::UtcOffset::UTC)
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .unwrap_or_default();
    folder.join(format!("{PREFIX}{time}{ENDING}"))
}

/// The time in the name of a scheduled backup; `None` for any other file.
fn time_of(name: &str) -> Option<OffsetDateTime> {
    let time = name.strip_prefix(PREFIX)?.strip_suffix(ENDING)?;
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    Some(PrimitiveDateTime::parse(time, format).ok()?.assume_utc())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sso_core::{key_ring::Generation, memory::LockedKey};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::keystore::Keystore;

    const START: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
    const HOUR: Duration = Duration::from_secs(3600);

    struct Fixture {
        home: tempfile::TempDir,
        clock: Clock,
        schedule: Schedule,
    }

    impl Fixture {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let at = |name: &str| home.path().join(name);
            fs::create_dir(at("backups")).unwrap();
            fs::set_permissions(at("backups"), fs::Permissions::from_mode(0o700)).unwrap();
            sso_core::settings::write_private(&at("password"), b"correct horse\n", false).unwrap();
            let (key, first) = (LockedKey::generate().unwrap(), LockedKey::generate().unwrap());
            let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
            let keystore = Keystore::create(id, member, &first, &key, Vec::new(), START).unwrap();
            keystore.write_new(&at("keystore.json")).unwrap();
            let clock = Clock::manual(START);
            let custody = Custody::begin(&at("keystore.json"), key, clock.clone()).unwrap();
            let settings = BackupSettings {
                folder: Some(at("backups")),
                password_file: Some(at("password")),
                reminder: "which animal?".into(),
                keep: 2,
                ..BackupSettings::default()
            };
            let work = Argon2Params::FLOOR;
            let schedule = Schedule::with_work(custody, &settings, clock.clone(), work).unwrap();
            Self { home, clock, schedule }
        }

        fn folder(&self) -> PathBuf {
            self.home.path().join("backups")
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder()).unwrap();
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
            let mut names: Vec<_> =
                entries.map(|entry| name(entry).into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn backed_up(&self) -> Option<OffsetDateTime> {
            self.schedule.custody.current().entry(Generation::FIRST).unwrap().backed_up
        }
    }

    #[test]
    fn the_first_is_made_at_the_start_and_the_next_when_it_is_due() {
        let fixture = Fixture::new();
        assert_eq!(fixture.backed_up(), None);
        assert!(fixture.schedule.step());
        assert_eq!(fixture.files(), ["sso-master-secret-20300102T030405Z.backup"]);
        assert_eq!(fixture.backed_up(), Some(START));
        let path = fixture.folder().join(&fixture.files()[0]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let backup = Backup::read(&path).unwrap();
        assert_eq!(backup.reminder(), "which animal?");
        let opened = backup.open(&Opener::Password(SecretText::new("correct horse".into())));
        assert_eq!(opened.unwrap(), fixture.schedule.custody.current().ring);
        let status = fixture.schedule.status();
        assert_eq!(status.last_at, Some(START));
        assert_eq!(status.next_at, Some(START + time::Duration::hours(24)));
        assert_eq!(status.error, None);

        fixture.clock.advance(23 * HOUR);
        assert!(!fixture.schedule.step());
        fixture.clock.advance(HOUR);
        assert!(fixture.schedule.step());
        assert_eq!(fixture.files().len(), 2);
    }

    #[test]
    fn a_rotation_does_not_wait_for_the_night() {
        let fixture = Fixture::new();
        assert!(fixture.schedule.step());
        fixture.clock.advance(HOUR);
        fixture.schedule.custody.change(|draft| draft.prepare(START, 0)).unwrap();
        assert!(fixture.schedule.step());
        assert!(!fixture.schedule.step());
        assert_eq!(fixture.files().len(), 2);
    }

    #[test]
    fn old_ones_are_pruned_and_nothing_else_ever_is() {
        let fixture = Fixture::new();
        let other = |name: &str| fixture.folder().join(name);
        let foreign = {
            let ring = fixture.schedule.custody.current().ring.clone();
            let locks = Locks::password(SecretText::new("correct horse".into()), "");
            Backup::seal_with(Argon2Params::FLOOR, Uuid::nil(), 1, &ring, &locks, START).unwrap().0
        };
        let strangers = [
            ("sso-master-secret-20200102T030405Z.backup", foreign.to_text()),
            ("sso-master-secret-20200103T030405Z.backup", "no backup".to_owned()),
            ("sso-master-secret-20200104T030405Z.backup.txt", "mine".to_owned()),
            ("master.backup", foreign.to_text()),
        ];
        for (name, content) in &strangers {
            fs::write(other(name), content).unwrap();
        }
        for _ in 0..4 {
            assert!(fixture.schedule.step());
            fixture.clock.advance(24 * HOUR);
        }
        let files = fixture.files();
        assert_eq!(files.len(), strangers.len() + 2, "{files:?}");
        for (name, content) in &strangers {
            assert_eq!(&fs::read_to_string(other(name)).unwrap(), content);
        }
        for kept in ["20300104T030405Z", "20300105T030405Z"] {
            assert!(other(&format!("sso-master-secret-{kept}.backup")).exists(), "{files:?}");
        }
    }

    #[test]
    fn a_failure_is_told_kept_and_tried_again_in_an_hour() {
        let fixture = Fixture::new();
        assert!(fixture.schedule.step());
        let before = fixture.files();
        fs::set_permissions(fixture.folder(), fs::Permissions::from_mode(0o750)).unwrap();
        fixture.clock.advance(24 * HOUR);
        assert!(!fixture.schedule.step());
        let status = fixture.schedule.status();
        assert!(status.error.unwrap().contains("chmod 700"));
        assert_eq!(status.last_at, Some(START));
        assert_eq!(status.next_at, Some(START + time::Duration::hours(25)));
        // Nothing is pruned where nothing new was proved.
        assert_eq!(fixture.files(), before);

        fs::set_permissions(fixture.folder(), fs::Permissions::from_mode(0o700)).unwrap();
        fixture.clock.advance(HOUR / 2);
        assert!(!fixture.schedule.step());
        fixture.clock.advance(HOUR / 2);
        assert!(fixture.schedule.step());
        assert_eq!(fixture.schedule.status().error, None);
    }

    #[test]
    fn a_password_that_is_too_short_or_missing_is_an_error_of_its_own() {
        let fixture = Fixture::new();
        let password = fixture.home.path().join("password");
        fs::write(&password, "short").unwrap();
        assert!(!fixture.schedule.step());
        let error = fixture.schedule.status().error.unwrap();
        assert!(error.contains("7 to 256 characters"), "{error}");
        fs::remove_file(&password).unwrap();
        fixture.clock.advance(HOUR);
        assert!(!fixture.schedule.step());
        let error = fixture.schedule.status().error.unwrap();
        assert!(error.contains(password.to_str().unwrap()), "{error}");
        assert!(fixture.files().is_empty());
        assert_eq!(fixture.backed_up(), None);
    }

    #[test]
    fn only_names_of_ours_have_a_time() {
        assert_eq!(time_of("sso-master-secret-20300102T030405Z.backup"), Some(START));
        for name in ["", "sso-master-secret-.backup", "sso-master-secret-20301302T030405Z.backup"] {
            assert_eq!(time_of(name), None, "{name}");
        }
    }
}
