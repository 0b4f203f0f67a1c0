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
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
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

/// Generation 1 is destroyed when a backup has it; later backups lack it.
#[test]
fn the_last_file_with_a_key_is_never_pruned() {
    let fixture = Fixture::new();
    assert!(fixture.schedule.step());
    let first = fixture.files();
    let custody = &fixture.schedule.custody;
    let (second, _) = custody.change(|draft| draft.prepare(START, 0)).unwrap();
    fixture.clock.advance(HOUR);
    assert!(fixture.schedule.step());
    let both = fixture.files()[1].clone();
    let fingerprint = custody.current().ring.fingerprint(Generation::FIRST).unwrap().to_string();
    custody
        .change(|draft| {
            draft.distribute(second, &[], 0)?;
            draft.activate(second, START)?;
            draft.retire(Generation::FIRST)?;
            draft.destroy(Generation::FIRST, &fingerprint)
        })
        .unwrap();
    for _ in 0..5 {
        fixture.clock.advance(24 * HOUR);
        assert!(fixture.schedule.step());
    }
    // Of the two that have generation 1 the newer one stays, beside the two that are kept anyway.
    let files = fixture.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.contains(&both) && !files.contains(&first[0]), "{files:?}");
}

/// The clock was years ahead, and was set right.
#[test]
fn a_backup_from_the_future_makes_no_other_one_wait() {
    let fixture = Fixture::new();
    let home = fixture.folder();
    let ahead = START + time::Duration::days(3650);
    let ring = fixture.schedule.custody.current().ring.clone();
    let locks = Locks::password(SecretText::new("correct horse".into()), "");
    let keystore = fixture.schedule.custody.current().keystore;
    let made = Backup::seal_with(Argon2Params::FLOOR, keystore, 1, &ring, &locks, ahead);
    let future = path_of(&home, ahead);
    fs::write(&future, made.unwrap().0.to_text()).unwrap();
    for _ in 0..4 {
        assert!(fixture.schedule.step());
        assert!(!fixture.schedule.step());
        fixture.clock.advance(24 * HOUR);
    }
    let status = fixture.schedule.status();
    assert_eq!(status.last_at, Some(START + time::Duration::days(3)));
    // It is not counted and not pruned.
    let files = fixture.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(future.exists());
}

#[test]
fn clocks_that_are_a_little_behind_make_no_other_backup() {
    let fixture = Fixture::new();
    assert!(fixture.schedule.step());
    let behind = START - time::Duration::minutes(2);
    assert!(!fixture.schedule.make_if_due(behind).unwrap().0);
    // A rotation is backed up all the same, once.
    fixture.schedule.custody.change(|draft| draft.prepare(START, 0)).unwrap();
    assert!(fixture.schedule.make_if_due(behind).unwrap().0);
    let later = behind + time::Duration::MINUTE;
    assert!(!fixture.schedule.make_if_due(later).unwrap().0);
    assert_eq!(fixture.files().len(), 2);
}

/// A failure while the clock was ahead is not waited for.
#[test]
fn a_failure_from_the_future_is_tried_again_at_once() {
    let fixture = Fixture::new();
    let status = ScheduleStatus {
        next_at: Some(START + time::Duration::days(3650)),
        error: Some("the disk was full".into()),
        ..ScheduleStatus::default()
    };
    *fixture.schedule.locked() = status;
    assert!(fixture.schedule.step());
    assert_eq!(fixture.schedule.status().error, None);
}
