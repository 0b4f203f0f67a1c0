//! Locks, changes of the file, and what is left of those that fail.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use sso_protector::Stanza;
use time::{OffsetDateTime, macros::datetime};

use super::{
    write::{copy_aside, replace_and_sync},
    *,
};
use crate::{file::FileError, keystore::State};

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn stanza() -> Stanza {
    let json = serde_json::json!({
        "kind": "keyutils", "keystore": Uuid::from_u128(7), "fingerprint": "0123456789abcdef"
    });
    serde_json::from_value(json).unwrap()
}

fn made() -> Keystore {
    let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let made = Keystore::create(id, member, &key(1), &key(2), vec![stanza()], NOW).unwrap();
    made.with_backup(&key(2), NOW).unwrap()
}

struct Fixture {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystore.json");
        made().write_new(&path).unwrap();
        Self { folder, path }
    }

    fn begin(&self) -> Arc<Custody> {
        Custody::begin(&self.path, key(2), Clock::manual(NOW)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        files(self.folder.path())
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_change_is_in_the_file_before_anybody_sees_it() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let mut seen = custody.subscribe();
    assert_eq!(custody.current().change, 1);
    let (generation, fingerprint) = custody.change(|draft| draft.prepare(NOW, 0)).unwrap();

    let read = Keystore::read(&fixture.path).unwrap();
    assert_eq!(fs::metadata(&fixture.path).unwrap().permissions().mode() & 0o7777, 0o600);
    let current = custody.current();
    assert_eq!(*current, Unlocked::open(&read, &key(2)).unwrap());
    assert!(seen.has_changed().unwrap());
    assert_eq!(*seen.borrow_and_update(), current);
    assert_eq!((current.change, current.member), (2, Uuid::from_u128(8)));
    let entry = current.entry(generation).unwrap();
    assert_eq!((entry.state, entry.fingerprint), (State::Prepared, fingerprint));
    // Kept, but nobody's until it is distributed.
    assert_eq!(current.ring.fingerprint(generation), Some(fingerprint));
    assert!(!current.handed_out().unwrap().contains(generation));
    assert_eq!(current.kept().len(), 2);
    assert_eq!(fixture.files(), ["keystore.json", "keystore.json.lock"]);

    // Nothing changes: nothing is written, nobody is told.
    let before = fs::read(&fixture.path).unwrap();
    assert_eq!(custody.change(|draft| draft.prepare(NOW, 0)).unwrap().0, generation);
    assert!(!seen.has_changed().unwrap());
    assert_eq!(fs::read(&fixture.path).unwrap(), before);

    custody
        .change(|draft| {
            draft.record_backup(&current.kept(), NOW);
            draft.distribute(generation, &["away".to_owned()], 9)
        })
        .unwrap();
    let current = custody.current();
    assert!(current.handed_out().unwrap().contains(generation));
    assert_eq!((current.change, current.distributed_in), (3, Some(3)));
    assert_eq!((current.left_behind.len(), current.reseal_rows_per_second), (1, 9));
    drop(custody);
    assert_eq!(fixture.files(), ["keystore.json"]);
}

#[test]
fn a_refused_change_touches_nothing() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let (before, seen) = (fs::read(&fixture.path).unwrap(), custody.subscribe());
    let error = custody
        .change(|draft| {
            draft.prepare(NOW, 0)?;
            draft.retire(Generation::FIRST)
        })
        .unwrap_err();
    assert_eq!(error.reason, Reason::GenerationStateWrong);
    assert_eq!(fs::read(&fixture.path).unwrap(), before);
    assert!(!seen.has_changed().unwrap());
    assert_eq!(custody.current().change, 1);
}

#[test]
fn what_another_master_gets_makes_its_copy() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
    let current = custody.current();
    let copied = |(generation, _)| {
        (generation, LockedKey::from_bytes(current.ring.key(generation).unwrap().expose()).unwrap())
    };
    let (header, keys) = (&current.header, current.kept().into_iter().map(copied).collect());
    let member = Uuid::from_u128(9);
    let copy = Keystore::from_transfer(header, keys, member, &key(5), vec![]);
    let copy = Unlocked::open(&copy.unwrap(), &key(5)).unwrap();
    assert!(current.is_primary() && !copy.is_primary());
    assert_eq!((&copy.ring, copy.change, copy.member), (&current.ring, 2, member));
}

#[test]
fn one_process_at_a_time_lives_by_a_keystore() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let error = Custody::begin(&fixture.path, key(2), Clock::System).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
    assert!(message.contains("in use by") && message.contains("keystore.json"), "{message}");
    assert!(KeystoreLock::take(&fixture.path).is_err());
    drop(custody);

    // A lock file without a lock is what a killed process leaves.
    fs::write(fixture.folder.path().join("keystore.json.lock"), "nobody").unwrap();
    let lock = KeystoreLock::take(&fixture.path).unwrap();
    assert!(KeystoreLock::take(&fixture.path).is_err());
    drop(lock);
    assert_eq!(fixture.files(), ["keystore.json"]);
}

#[test]
fn many_that_want_a_lock_get_it_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    // Without waiting, so that the file comes and goes as often as it can.
                    let Ok(_held) = EditLock::take_within(&path, 1) else { continue };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_protector_that_was_added_meanwhile_stays() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    {
        let lock = EditLock::take(&fixture.path).unwrap();
        let two = Keystore::read(&fixture.path).unwrap().with_stanzas(vec![stanza(), stanza()]);
        lock.replace(&two.unwrap(), |_| Ok(())).unwrap();
        assert!(EditLock::take_within(&fixture.path, 2).is_err());
    }
    custody.change(|draft| draft.revoke("a")).unwrap();
    let read = Keystore::read(&fixture.path).unwrap();
    assert_eq!((read.stanzas().len(), read.change()), (2, 2));
    custody.change(|draft| draft.revoke("b")).unwrap();
    assert_eq!(Keystore::read(&fixture.path).unwrap().stanzas().len(), 2);
}

/// A change that has to fail: nothing may be different afterwards, and the next one works again.
fn fails(custody: &Custody, path: &Path, what: &str) {
    let (before, seen) = (fs::read(path).ok(), custody.subscribe());
    let names = path.parent().filter(|it| it.exists()).map(files);
    let current = custody.current();
    let error = custody.change(|draft| draft.prepare(NOW, 0)).unwrap_err();
    assert_eq!(error.reason, Reason::KeystoreNotWritten, "{error}");
    assert!(error.message.contains(what), "{what}: {error}");
    assert_eq!(fs::read(path).ok(), before);
    assert_eq!(path.parent().filter(|it| it.exists()).map(files), names);
    assert!(!seen.has_changed().unwrap() && custody.current() == current);
}

#[test]
fn a_folder_that_vanished_changes_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, away) = (outer.path().join("folder"), outer.path().join("away"));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("keystore.json");
    made().write_new(&path).unwrap();
    let custody = Custody::begin(&path, key(2), Clock::manual(NOW)).unwrap();
    fs::rename(&folder, &away).unwrap();
    fails(&custody, &path, "cannot be written");
    fs::rename(&away, &folder).unwrap();
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
}

#[test]
fn a_keystore_that_somebody_else_wrote_is_left_alone() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let other = made().edit(&key(2), |draft| draft.revoke("a")).unwrap().keystore.unwrap();
    EditLock::take(&fixture.path).unwrap().replace(&other, |_| Ok(())).unwrap();
    fails(&custody, &fixture.path, "another program wrote");
    fs::write(&fixture.path, "{}").unwrap();
    fails(&custody, &fixture.path, "no file of the kind");
    fs::remove_file(&fixture.path).unwrap();
    fails(&custody, &fixture.path, "no such file");
}

#[test]
fn what_cannot_be_proved_or_made_safe_is_taken_back() {
    let fixture = Fixture::new();
    let before = fs::read(&fixture.path).unwrap();
    let other = made().edit(&key(2), |draft| draft.revoke("a")).unwrap().keystore.unwrap();
    let lock = EditLock::take(&fixture.path).unwrap();
    let unchanged = || {
        assert_eq!(fs::read(&fixture.path).unwrap(), before);
        assert_eq!(fixture.files(), ["keystore.json", "keystore.json.edit-lock"]);
    };
    let foreign = KeystoreError::Foreign { keystore: Uuid::nil() };
    assert!(lock.replace(&other, |_| Err(foreign)).is_err());
    unchanged();
    let fails = |_: &Path| Err(io::Error::from(io::ErrorKind::Other));
    let error = replace_and_sync(&lock, &other, |_| Ok(()), fails).unwrap_err();
    assert!(matches!(error, KeystoreError::File(FileError::Write { .. })), "{error}");
    unchanged();
    lock.replace(&other, |_| Ok(())).unwrap();
    assert_eq!(fs::read(&fixture.path).unwrap(), other.to_text().as_bytes());
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let fixture = Fixture::new();
    let left = [
        "keystore.json.new",
        "keystore.json.old",
        "keystore.json.edit-lock",
        ".keystore.json.77-0.tmp",
        ".keystore.json.aside-20300102T030405Z.77-1.tmp",
    ];
    let others = [".other.json.77-0.tmp", "keystore.json.aside-20300102T030405Z"];
    for name in left.iter().chain(&others) {
        fs::write(fixture.folder.path().join(name), "half").unwrap();
    }
    let custody = fixture.begin();
    let stays = [others[0], "keystore.json", others[1], "keystore.json.lock"];
    assert_eq!(fixture.files(), stays);
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
}

#[test]
fn copies_are_private_named_by_time_and_never_over_another() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let before = fs::read(&fixture.path).unwrap();
    let copy = || copy_aside(&EditLock::take(&fixture.path).unwrap(), NOW);
    let first = copy().unwrap();
    assert!(first.ends_with("keystore.json.aside-20300102T030405Z"), "{first:?}");
    assert_eq!(fs::read(&first).unwrap(), before);
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o7777, 0o600);
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
    let second = copy().unwrap();
    assert!(second.ends_with("keystore.json.aside-20300102T030405Z-1"), "{second:?}");
    assert_eq!(fs::read(&first).unwrap(), before);

    let keys = [(Generation::FIRST, key(1)), (Generation::new(40).unwrap(), key(40))];
    let ring = KeyRing::new(keys, Generation::FIRST).unwrap();
    let before = fs::read(&fixture.path).unwrap();
    let restored = custody.change_and_keep(|draft| draft.restore(&ring, NOW)).unwrap();
    assert_eq!(restored.value, [Generation::new(40).unwrap()]);
    let kept = restored.kept_aside.unwrap();
    assert!(kept.ends_with("keystore.json.aside-20300102T030405Z-2"), "{kept:?}");
    assert_eq!(fs::read(&kept).unwrap(), before);
    let kept = custody.change_and_keep(|draft| draft.revoke("a")).unwrap().kept_aside;
    assert_eq!(kept, None);
}

/// Until it is dropped, the folder is something else than it was.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// `None` when this user may not mount.
    fn new(folder: &'a Path, arguments: &[&str]) -> Option<Self> {
        let done = Command::new("mount").args(arguments).arg(folder).output().ok()?;
        done.status.success().then(|| Self(folder))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) =
        Mounted::new(folder.path(), &["-t", "tmpfs", "-o", "size=64k,mode=700", "full"])
    else {
        // Whoever may not mount may not write into a folder that is not theirs to write either.
        return a_read_only_folder(folder.path());
    };
    let path = folder.path().join("keystore.json");
    made().write_new(&path).unwrap();
    let custody = Custody::begin(&path, key(2), Clock::manual(NOW)).unwrap();
    let filler = folder.path().join("filler");
    assert!(fs::write(&filler, vec![b'x'; 1024 * 1024]).is_err());
    fails(&custody, &path, "No space left");
    copy_aside(&EditLock::take(&path).unwrap(), NOW).unwrap_err();
    assert_eq!(files(folder.path()), ["filler", "keystore.json", "keystore.json.lock"]);

    // Room for the copy that is kept aside, but none for the keystore itself.
    fs::remove_file(&filler).unwrap();
    for number in 0..16 {
        let _ = fs::write(folder.path().join(format!("filler-{number}")), [b'x'; 4096]);
    }
    fs::remove_file(folder.path().join("filler-1")).unwrap();
    fs::remove_file(folder.path().join("filler-2")).unwrap();
    let keys = [(Generation::FIRST, key(1)), (Generation::new(40).unwrap(), key(40))];
    let ring = KeyRing::new(keys, Generation::FIRST).unwrap();
    let (names, before) = (files(folder.path()), fs::read(&path).unwrap());
    let error = custody.change(|draft| draft.restore(&ring, NOW)).unwrap_err();
    assert_eq!(error.reason, Reason::KeystoreNotWritten, "{error}");
    assert_eq!((files(folder.path()), fs::read(&path).unwrap()), (names, before));

    for number in 3..16 {
        let _ = fs::remove_file(folder.path().join(format!("filler-{number}")));
    }
    custody.change(|draft| draft.restore(&ring, NOW)).unwrap();
    assert_eq!(custody.current().change, 2);
    drop(custody);
}

/// For a user whom permissions stop.
fn a_read_only_folder(folder: &Path) {
    let path = folder.join("keystore.json");
    made().write_new(&path).unwrap();
    let custody = Custody::begin(&path, key(2), Clock::manual(NOW)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
    // Root of a container that may not mount is stopped by nothing; the vanished folder is left then.
    let stopped = fs::write(folder.join("probe"), "").is_err();
    if !stopped {
        fs::remove_file(folder.join("probe")).unwrap();
        return;
    }
    fails(&custody, &path, "Permission denied");
    assert!(Custody::begin(&path, key(2), Clock::System).is_err());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
}

#[test]
fn a_file_system_that_became_read_only_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    made().write_new(&path).unwrap();
    let custody = Custody::begin(&path, key(2), Clock::manual(NOW)).unwrap();
    let itself = folder.path().to_str().unwrap();
    // Who may not mount is stopped by the permissions of the other test.
    if let Some(bound) = Mounted::new(folder.path(), &["--bind", itself]) {
        let mut remount = Command::new("mount");
        let remounted = remount.args(["-o", "remount,bind,ro"]).arg(folder.path()).status();
        assert!(remounted.unwrap().success());
        fails(&custody, &path, "Read-only file system");
        drop(bound);
    }
    custody.change(|draft| draft.prepare(NOW, 0)).unwrap();
}

#[test]
fn debug_shows_no_key() {
    let fixture = Fixture::new();
    let custody = fixture.begin();
    let shown = format!("{custody:?} {:?}", custody.current());
    assert!(!shown.contains("[1, 1") && !shown.contains("[2, 2"), "{shown}");
    assert!(shown.contains("change: 1"), "{shown}");
}
