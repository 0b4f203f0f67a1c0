//! Whether the master secret could be restored today, and who is told when it could not.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use sso_core::{clock::Clock, key_ring::Generation};
use sso_proto::Event;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::CLOCKS_APART;
use crate::{
    custody::{Custody, Unlocked},
    keystore::State,
    settings::BackupSettings,
};

/// Between two lines of the log about the same.
const NAG: Duration = Duration::from_secs(3600);
/// Between two looks at the time.
const LOOK: Duration = Duration::from_secs(60);

/// How well the master secret is backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupHealth {
    /// When a backup was last opened that has every generation; `None` when there is none.
    pub verified_at: Option<OffsetDateTime>,
    /// Generations that are in no backup that was opened.
    pub missing: Vec<Generation>,
    /// Seconds since `verified_at`, or since the first of `missing` was generated.
    pub age_seconds: i64,
    /// Seconds since the active generation became active.
    pub secret_age_seconds: i64,
    /// What an administrator should do and why; `None` when all is well.
    pub warning: Option<String>,
}

/// How well `unlocked` is backed up at the time `now`.
#[must_use]
pub fn health(unlocked: &Unlocked, settings: &BackupSettings, now: OffsetDateTime) -> BackupHealth {
    let kept = || unlocked.generations.iter().filter(|it| it.state != State::Destroyed);
    let lacking = || kept().filter(|it| it.backed_up.is_none());
    let missing: Vec<_> = lacking().map(|it| it.generation).collect();
    let verified_at = kept().filter_map(|it| it.backed_up).min().filter(|_| missing.is_empty());
    let since = verified_at.or_else(|| lacking().map(|it| it.created).min()).unwrap_or(now);
    let active = unlocked.entry(unlocked.active);
    let active_since = active.map_or(now, |it| it.activated.unwrap_or(it.created));
    let (age, secret_age) = (now - since, now - active_since);

    let mut warnings = Vec::new();
    if !missing.is_empty() {
        let numbers = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        warnings.push(format!(
            "generation {numbers} is in no backup that was opened again: `sso secret backup FILE`"
        ));
    } else if age > time::Duration::days(settings.warn_after_days.into()) {
        warnings.push(format!(
            "the last backup was opened {} days ago: `sso secret backup FILE` makes a new one, \
             `sso secret verify FILE` opens the old one again",
            age.whole_days()
        ));
    }
    let ahead = kept().find(|it| it.backed_up.is_some_and(|at| at - now > CLOCKS_APART));
    if let Some(entry) = ahead {
        warnings.push(format!(
            "the last backup of generation {} is dated in the future, so the clock is or was wrong: \
             `sso secret backup FILE` when it is right",
            entry.generation
        ));
    }
    if secret_age < -CLOCKS_APART {
        warnings.push(format!(
            "generation {} has been active since a date in the future, so the clock is or was wrong: \
             `sso secret rotate` when it is right",
            unlocked.active
        ));
    }
    if secret_age > time::Duration::days(settings.rotate_after_days.into()) {
        warnings.push(format!(
            "generation {} has been active for {} days: `sso secret rotate`",
            unlocked.active,
            secret_age.whole_days()
        ));
    }
    BackupHealth {
        verified_at,
        missing,
        age_seconds: age.whole_seconds().max(0),
        secret_age_seconds: secret_age.whole_seconds().max(0),
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
    }
}

/// Keeps the figures of backups current, and writes a warning to the log at once and then every hour
/// for as long as it stands. Ends with `draining`.
pub async fn watch(
    custody: Arc<Custody>,
    settings: BackupSettings,
    clock: Clock,
    draining: CancellationToken,
) {
    let mut changes = custody.subscribe();
    let mut nag = Nag::default();
    loop {
        let health = health(&custody.current(), &settings, clock.now());
        health.publish();
        if let Some(warning) = health.warning
            && nag.is_due(clock.instant())
        {
            tracing::error!(event = Event::BackupNeeded.number(), "{warning}");
        }
        tokio::select! {
            () = draining.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// When a warning was last written to the log.
#[derive(Debug, Default)]
struct Nag(Option<Duration>);

impl Nag {
    fn is_due(&mut self, now: Duration) -> bool {
        let due = self.0.is_none_or(|last| now.saturating_sub(last) >= NAG);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

impl BackupHealth {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
    fn publish(&self) {
        gauge!("sso_master_backup_age_seconds").set(self.age_seconds as f64);
        gauge!("sso_master_backup_missing_generations").set(self.missing.len() as f64);
        gauge!("sso_master_secret_age_seconds").set(self.secret_age_seconds as f64);
    }
}

#[cfg(test)]
mod tests {
    use sso_core::memory::LockedKey;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::keystore::Keystore;

    const START: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);

    fn custody() -> (tempfile::TempDir, Arc<Custody>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystore.json");
        let key = LockedKey::generate().unwrap();
        let first = LockedKey::generate().unwrap();
        let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let keystore = Keystore::create(id, member, &first, &key, Vec::new(), START).unwrap();
        keystore.write_new(&path).unwrap();
        (folder, Custody::begin(&path, key, Clock::manual(START)).unwrap())
    }

    fn after(custody: &Custody, days: i64) -> BackupHealth {
        health_at(custody, START + time::Duration::days(days))
    }

    fn health_at(custody: &Custody, now: OffsetDateTime) -> BackupHealth {
        health(&custody.current(), &BackupSettings::default(), now)
    }

    fn record(custody: &Custody, days: i64) {
        let (kept, now) = (custody.current().kept(), START + time::Duration::days(days));
        custody.change(|draft| Ok(draft.record_backup(&kept, now))).unwrap();
    }

    #[test]
    fn a_generation_that_no_backup_has_is_named() {
        let (_folder, custody) = custody();
        let health = after(&custody, 1);
        assert_eq!(health.missing, [Generation::FIRST]);
        assert_eq!((health.verified_at, health.age_seconds), (None, 86_400));
        let warning = health.warning.unwrap();
        assert!(warning.contains("generation 1 is in no backup"), "{warning}");
        record(&custody, 1);
        assert_eq!(after(&custody, 1).warning, None);
        custody.change(|draft| draft.prepare(START, 0)).unwrap();
        let health = after(&custody, 2);
        assert!(health.warning.unwrap().contains("generation 2"));
        assert_eq!(health.verified_at, None);
    }

    #[test]
    fn backups_and_secrets_grow_old() {
        let (_folder, custody) = custody();
        record(&custody, 0);
        let health = after(&custody, 35);
        assert_eq!((health.verified_at, health.warning), (Some(START), None));
        assert_eq!((health.age_seconds, health.secret_age_seconds), (3_024_000, 3_024_000));
        let warning = after(&custody, 36).warning.unwrap();
        assert!(warning.contains("opened 36 days ago"), "{warning}");
        record(&custody, 360);
        assert_eq!(after(&custody, 365).warning, None);
        let warning = after(&custody, 366).warning.unwrap();
        assert!(warning.contains("generation 1 has been active for 366 days"), "{warning}");
        assert!(warning.contains("sso secret rotate"), "{warning}");
    }

    #[test]
    fn a_date_in_the_future_is_no_young_backup() {
        let (_folder, custody) = custody();
        record(&custody, 400);
        let health = after(&custody, 1);
        assert_eq!(health.age_seconds, 0);
        let warning = health.warning.unwrap();
        assert!(warning.contains("backup of generation 1 is dated in the future"), "{warning}");
        // A clock that is a little behind is no matter.
        let now = START + time::Duration::days(400) - CLOCKS_APART;
        let warning = health_at(&custody, now).warning.unwrap();
        assert!(!warning.contains("future"), "{warning}");
        record(&custody, 1);
        assert_eq!(after(&custody, 1).warning, None);
        let warning = after(&custody, -1).warning.unwrap();
        assert!(warning.contains("active since a date in the future"), "{warning}");
    }

    #[test]
    fn the_log_hears_of_it_at_once_and_every_hour() {
        let mut nag = Nag::default();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(nag.is_due(minutes(5)));
        assert!(!nag.is_due(minutes(64)));
        assert!(nag.is_due(minutes(65)));
        assert!(!nag.is_due(minutes(66)));
    }
}
