//! The sealed lease cache: what it gives back, and when it does not.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use sso_core::settings::write_private;
use tempfile::TempDir;

use super::*;
use crate::master::{
    CacheOwner, CacheSettings, CachedKeys, LeaseCache,
    cache::{CacheError, open},
};

/// A folder with the wrapping key of a machine.
struct Machine(TempDir);

impl Machine {
    fn new(byte: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_private(&folder.path().join("wrapping"), &[byte; 32], false).unwrap();
        Self(folder)
    }

    fn settings(&self) -> CacheSettings {
        let text = "file = 'lease'\n[[protector]]\nkind = 'key-file'\nkey_file = 'wrapping'";
        let mut cache: CacheSettings = toml::from_str(text).unwrap();
        cache.file = self.0.path().join(cache.file);
        cache.protector.iter_mut().for_each(|protector| protector.resolve(self.0.path()));
        cache
    }

    fn file(&self) -> std::path::PathBuf {
        self.settings().file
    }

    fn begin(&self, clock: &Clock) -> (LeaseCache, Option<CachedKeys>) {
        let (cache, cached) = LeaseCache::begin(&self.settings(), &owner(), clock.clone());
        (cache.unwrap(), cached)
    }

    fn open(&self, owner: &CacheOwner, clock: &Clock) -> Result<CachedKeys, CacheError> {
        let settings = self.settings();
        let protectors = sso_protector::protectors(&settings.protector, false).unwrap();
        open(&settings.file, &protectors, owner, clock).1
    }

    /// With the keys of generations 1 and 2 in its cache.
    async fn with_cache(clock: &Clock) -> Self {
        let machine = Self::new(1);
        let secret = MasterSecret::holding(ring(&[1, 2], 2), clock.clone());
        machine.begin(clock).0.keep(&secret).await;
        machine
    }

    fn edit(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut document = serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap();
        edit(&mut document);
        fs::write(self.file(), serde_json::to_vec(&document).unwrap()).unwrap();
    }
}

fn owner() -> CacheOwner {
    CacheOwner { server: "sso-server-1".into(), keystore: Some(KEYSTORE), revoked: false }
}

fn copied(from: &Machine, to: &Path) {
    fs::copy(from.file(), to).unwrap();
}

#[tokio::test]
async fn keys_outlive_a_restart_for_reading_until_a_master_confirms() {
    let (machine, clock) = (Machine::new(1), manual());
    let (cache, cached) = machine.begin(&clock);
    assert!(cached.is_none());
    let beginning = || Beginning { keystore: Some(KEYSTORE), ..Beginning::default() };
    let first = Beginning { cache: Some(cache), ..beginning() };
    let mut scene = Scene::beginning(1, first, clock.clone()).await;
    scene.say(Says::rotate);
    scene.up();
    scene.until_current().await;
    scene.until("kept", |_| machine.file().exists()).await;
    assert_eq!(fs::metadata(machine.file()).unwrap().permissions().mode() & 0o777, 0o600);
    drop(scene);

    clock.advance(Duration::from_secs(100));
    let (cache, cached) = machine.begin(&clock);
    let restarted = Beginning { cache: Some(cache), cached, ..beginning() };
    let mut scene = Scene::beginning(1, restarted, clock.clone()).await;
    let keys = scene.secret.keys_for_read().unwrap();
    assert!(*keys == ring(&[1, 2], 2));
    assert!(matches!(scene.secret.keys_for_write(), Err(MasterError::Unreachable { .. })));
    let status = scene.secret.status();
    assert_eq!((status.state, status.from_cache), (MasterState::ReadOnly, true));
    // What is left of the old lease, and not a new one.
    assert_eq!(status.read_lease_until, Some(clock.now() + Duration::from_secs(500)));
    // A master counts only after the database was asked.
    scene.say(Says::rotate);
    scene.up();
    scene.until_current().await;
    assert!(!scene.secret.status().from_cache);
    assert_eq!(scene.database.lock().unwrap().admitted.len(), 1);
}

#[tokio::test]
async fn what_is_left_of_the_lease_ends_without_a_master() {
    let clock = manual();
    let machine = Machine::with_cache(&clock).await;
    clock.advance(Duration::from_secs(43_000));
    let (_, cached) = machine.begin(&clock);
    let restarted = Beginning { keystore: Some(KEYSTORE), cached, ..Beginning::default() };
    let scene = Scene::beginning(1, restarted, clock.clone()).await;
    assert!(scene.secret.keys_for_read().is_ok());
    clock.advance(Duration::from_secs(200));
    assert!(matches!(scene.secret.keys_for_read(), Err(MasterError::Expired { .. })));
    scene.until("forgotten", |secret| secret.keys.load().is_none()).await;
}

#[tokio::test]
async fn the_file_holds_no_key_in_clear() {
    let machine = Machine::with_cache(&manual()).await;
    let bytes = fs::read(machine.file()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for byte in [1_u8, 2] {
        let key = [byte; 24];
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = if byte == 1 { "AQEBAQEBAQEB" } else { "AgICAgICAgIC" };
        assert!(!text.contains(&hex) && !text.contains(base64), "{text}");
    }
}

#[tokio::test]
async fn a_cache_of_another_server_keystore_or_machine_is_refused() {
    let clock = manual();
    let machine = Machine::with_cache(&clock).await;
    assert!(machine.open(&owner(), &clock).is_ok());
    let other = CacheOwner { server: "sso-server-2".into(), ..owner() };
    assert!(matches!(machine.open(&other, &clock), Err(CacheError::OtherServer(_))));
    for keystore in [None, Some(Uuid::from_u128(8))] {
        let other = CacheOwner { keystore, ..owner() };
        let refused = machine.open(&other, &clock);
        assert!(matches!(refused, Err(CacheError::OtherKeystore { .. })), "{refused:?}");
    }
    let elsewhere = Machine::new(2);
    copied(&machine, &elsewhere.file());
    let refused = elsewhere.open(&owner(), &clock);
    assert!(matches!(refused, Err(CacheError::Protector(_))), "{refused:?}");
    // The server there does without, and begins its own.
    let (mut cache, cached) = elsewhere.begin(&clock);
    assert!(cached.is_none());
    cache.keep(&MasterSecret::holding(ring(&[3], 1), clock.clone())).await;
    assert!(elsewhere.open(&owner(), &clock).unwrap().keys == ring(&[3], 1));
}

#[tokio::test]
async fn an_edited_cache_is_refused() {
    let clock = manual();
    let machine = Machine::with_cache(&clock).await;
    let good = fs::read(machine.file()).unwrap();
    for (part, value) in [
        ("read_lease_until_ms", serde_json::json!(i64::MAX / 2_000_000)),
        ("saved_at_ms", serde_json::json!(0)),
        ("epoch", serde_json::json!(9)),
        ("change", serde_json::json!(9)),
        ("primary", serde_json::json!(SECOND)),
    ] {
        machine.edit(|document| document["header"][part] = value);
        let refused = machine.open(&owner(), &clock);
        assert!(matches!(refused, Err(CacheError::NotAuthentic)), "{part}: {refused:?}");
        fs::write(machine.file(), &good).unwrap();
    }
    machine.edit(|document| document["keys"] = serde_json::json!("AAAA"));
    assert!(matches!(machine.open(&owner(), &clock), Err(CacheError::NotAuthentic)));
    for text in ["", "{}", "[", &"9".repeat(100)] {
        fs::write(machine.file(), text).unwrap();
        assert!(matches!(machine.open(&owner(), &clock), Err(CacheError::Damaged(_))), "{text}");
    }
    for length in (0..good.len()).step_by(97) {
        fs::write(machine.file(), &good[..length]).unwrap();
        assert!(machine.open(&owner(), &clock).is_err(), "{length}");
    }
    fs::write(machine.file(), &good).unwrap();
    assert!(machine.open(&owner(), &clock).is_ok());
}

#[tokio::test]
async fn the_clock_decides_how_long_it_is_good() {
    let clock = manual();
    let machine = Machine::with_cache(&clock).await;
    let at = |seconds: i64| Clock::manual(clock.now() + time::Duration::seconds(seconds));
    let left = |seconds| machine.open(&owner(), &at(seconds)).map(|cached| cached.left);
    assert_eq!(left(43_199).unwrap(), Duration::from_secs(1));
    assert!(matches!(left(43_200), Err(CacheError::Expired(_))));
    assert!(left(-60).is_ok());
    assert!(matches!(left(-61), Err(CacheError::SetBack(_))));
}

#[tokio::test]
async fn it_is_written_anew_with_every_change_and_every_tenth_of_the_lease() {
    let clock = manual();
    let machine = Machine::new(1);
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    let (mut cache, _) = machine.begin(&clock);
    cache.keep(&secret).await;
    let first = fs::read(machine.file()).unwrap();
    clock.advance(Duration::from_secs(4_319));
    cache.keep(&secret).await;
    assert_eq!(fs::read(machine.file()).unwrap(), first);
    clock.advance(Duration::from_secs(1));
    cache.keep(&secret).await;
    let second = fs::read(machine.file()).unwrap();
    assert_ne!(second, first);
    let word = crate::master::notes::Word::of(beat_of(&ring(&[1, 2], 2), 2)).unwrap();
    secret.adopt(0, ring(&[1, 2], 2), &word, clock.instant()).unwrap();
    cache.keep(&secret).await;
    assert_eq!(machine.open(&owner(), &clock).unwrap().version, 2);
}

#[tokio::test]
async fn a_revocation_deletes_it_and_a_readmission_brings_it_back() {
    let (machine, clock) = (Machine::new(1), manual());
    let beginning = Beginning { cache: Some(machine.begin(&clock).0), ..Beginning::default() };
    let mut scene = Scene::beginning(1, beginning, clock.clone()).await;
    scene.up();
    scene.until_current().await;
    scene.until("kept", |_| machine.file().exists()).await;
    scene.say(|says| says.refuse = Some(Reason::ServerRevoked));
    scene.until("deleted", |_| !machine.file().exists()).await;
    scene.say(|says| says.refuse = None);
    scene.until_current().await;
    scene.until("kept again", |_| machine.file().exists()).await;
    assert!(machine.open(&owner(), &clock).is_ok());
}

#[tokio::test]
async fn the_cache_of_a_revoked_server_is_refused_and_deleted() {
    let clock = manual();
    let machine = Machine::with_cache(&clock).await;
    let revoked = CacheOwner { revoked: true, ..owner() };
    assert!(matches!(machine.open(&revoked, &clock), Err(CacheError::Revoked)));
    let (cache, cached) = LeaseCache::begin(&machine.settings(), &revoked, clock);
    assert!(cache.is_some() && cached.is_none() && !machine.file().exists());
}

#[test]
fn without_a_usable_protector_the_server_does_without_a_cache() {
    let machine = Machine::new(1);
    fs::remove_file(machine.0.path().join("wrapping")).unwrap();
    let (cache, cached) = LeaseCache::begin(&machine.settings(), &owner(), manual());
    assert!(cache.is_none() && cached.is_none());
}
