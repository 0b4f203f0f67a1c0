//! Scheduled backups: written into a folder of their own, opened again, and pruned.
//!
//! One is due when the newest is older than the interval, and also when it lacks a generation or
//! names another active one: after a rotation nobody has to wait for the next night. A backup that is
//! dated in the future was made while the clock was wrong: it is kept, and makes no other one wait.

use std::{
    collections::BTreeSet,
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

use super::{Backup, BackupError, CLOCKS_APART, Locks, Opener, PASSWORD};
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
        // A clock that was set back since makes nobody wait for longer than usual.
        let waits = |next: OffsetDateTime| now < next && next - now <= RETRY;
        if retry.error.is_some() && retry.next_at.is_some_and(waits) {
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
        let (ahead, mut kept): (Vec<_>, Vec<_>) =
            self.kept(&current)?.into_iter().partition(|it| it.made > now + CLOCKS_APART);
        let interval = time::Duration::hours(self.settings.every_hours.into());
        let good = |it: &&Kept| now - it.made < interval && covers(&it.backup, &current);
        let same_second = |it: &&Kept| it.path == self.path(now);
        if let Some(found) = kept.iter().find(|it| good(it) || same_second(it)) {
            return Ok((false, found.made));
        }
        let (path, backup) = self.make(&current, now)?;
        for it in &ahead {
            let path = it.path.display();
            tracing::warn!(%path, "this backup is dated in the future: the clock is or was wrong");
        }
        let made = backup.created();
        kept.insert(0, Kept { path, made, backup });
        self.prune(&kept);
        Ok((true, made))
    }

    /// Removes old backups, which come last in `kept`; never one that has a key which no newer one has
    /// that stays.
    fn prune(&self, kept: &[Kept]) {
        let most = self.settings.keep.try_into().unwrap_or(usize::MAX);
        let mut held = BTreeSet::new();
        for (at, it) in kept.iter().enumerate() {
            if at < most || it.backup.generations().any(|found| !held.contains(&found)) {
                held.extend(it.backup.generations());
            } else if let Err(error) = fs::remove_file(&it.path) {
                tracing::warn!(%error, path = %it.path.display(), "an old backup stays");
            }
        }
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
mod tests;
