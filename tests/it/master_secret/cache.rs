//! Restart while the master is away: the sealed cache of the lease, and what bounds it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use sso_client::development::Probe;
use sso_proto::v1::ReadMode;
use sso_tests::{
    raw,
    system::{Database, System, Timing, eventually, programs},
};
use tokio::runtime::Runtime;

use super::{Filled, SOON, get, get_at, password, path, secret_ok, set};

/// A system whose server 1 keeps a sealed cache, under a key of 32 bytes in a private file.
fn with_cache(timing: Timing) -> System {
    let mut system = System::prepare(Database::Sqlite, 1, timing);
    let key = system.folder().join("cache.key");
    fs::write(&key, [7; 32]).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("private");
    let settings = system.installation().server_settings(1);
    let text = fs::read_to_string(&settings).expect("settings");
    let text = format!(
        "{text}\n[master.cache]\nfile = \"lease.cache\"\n[[master.cache.protector]]\n\
         kind = \"key-file\"\nkey_file = \"cache.key\"\n"
    );
    fs::write(&settings, text).expect("written");
    system.start_master();
    system.start_server(1);
    system
}

fn cached(system: &System) {
    eventually("the cache is there", SOON, || {
        system.folder().join("lease.cache").exists().then_some(())
    });
}

#[test]
fn a_server_that_restarts_while_the_master_is_away_reads_on_and_writes_nothing() {
    let runtime = Runtime::new().expect("a runtime");
    let mut system = with_cache(Timing::default());
    let _filled = runtime.block_on(Filled::prepare(&system));
    cached(&system);
    let mode = fs::metadata(system.folder().join("lease.cache")).expect("a file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    system.kill_master();
    system.kill_server(1);
    system.start_server(1);
    assert_eq!(runtime.block_on(get(&system, "One")).expect("a value"), "One-3");
    let refused = runtime.block_on(set(&system, "One", "too late")).expect_err("no write lease");
    assert!(refused.contains("MasterUnreachable"), "{refused}");
    let shown = system.sso_json("admin", &["status"]);
    assert_eq!(shown["master_secret"]["from_cache"], true, "{shown:#}");
    // The master is back: everything goes on by itself.
    system.start_master();
    eventually("writes go on", SOON, || runtime.block_on(set(&system, "One", "again")).ok());
}

#[test]
fn the_cache_ends_with_the_lease_and_opens_for_nobody_else() {
    let runtime = Runtime::new().expect("a runtime");
    let timing = Timing { read_lease_seconds: 20, write_lease_seconds: 5, ..Timing::default() };
    let mut system = with_cache(timing);
    let _filled = runtime.block_on(Filled::prepare(&system));
    cached(&system);
    system.kill_master();
    system.kill_server(1);
    let cache = system.folder().join("lease.cache");
    let whole = fs::read(&cache).expect("a cache");
    // Neither key stands in it.
    let keys = crate::sign_on::master_keys(&system);
    for (generation, _) in keys.generations() {
        let key = keys.key(generation).expect("a key").expose();
        assert!(!whole.windows(key.len()).any(|part| part == key));
    }
    let no_keys = |system: &mut System, why: &str| {
        system.start_server_until(1, Probe::Live);
        let channel = {
            let _guard = runtime.enter();
            raw::channel(system, 1, "user")
        };
        let refused =
            runtime.block_on(get_at(&channel, "One", ReadMode::Runtime)).expect_err("no keys");
        assert!(refused.contains("MasterSecretMissing"), "{why}: {refused}");
        system.kill_server(1);
    };
    // Edited anywhere.
    let text = String::from_utf8(whole.clone()).expect("text");
    let edited = text.replacen("sso-server-1", "sso-server-2", 1);
    assert_ne!(edited, text);
    fs::write(&cache, edited).expect("written");
    no_keys(&mut system, "for another server");
    fs::write(&cache, &whole[..whole.len() / 2]).expect("written");
    no_keys(&mut system, "cut");
    fs::write(&cache, &whole).expect("written");
    // Another key of the machine.
    fs::write(system.folder().join("cache.key"), [8; 32]).expect("written");
    no_keys(&mut system, "on another machine");
    fs::write(system.folder().join("cache.key"), [7; 32]).expect("written");
    fs::write(&cache, &whole).expect("written");
    // Its time is over: no waiting for a clock, the lease is short.
    eventually("the lease is over", SOON, || {
        system.start_server_until(1, Probe::Live);
        let channel = {
            let _guard = runtime.enter();
            raw::channel(&system, 1, "user")
        };
        let refused = runtime.block_on(get_at(&channel, "One", ReadMode::Runtime)).err();
        system.kill_server(1);
        refused
            .filter(|it| it.contains("MasterSecretMissing") || it.contains("MasterSecretExpired"))
    });
}

/// threat-model.md, case 28, for every file that the life of the master secret makes: caches,
/// shares, officers' keys, backups, keystores kept aside.
#[test]
fn every_file_of_the_master_secret_is_private() {
    let mut system = with_cache(Timing::default());
    cached(&system);
    let (shares, key) = (system.folder().join("shares"), system.folder().join("ann.key"));
    fs::create_dir(&shares).expect("a folder");
    let _ = secret_ok(&system, &["officer-key", path(&key)]);
    let officer = format!("ann={}.pub", key.display());
    let shared = ["--officer", &officer, "--shares", "2/3", "--share-folder", path(&shares)];
    let password = password(&system);
    let backup = system.folder().join("shared.backup");
    let arguments = ["backup", path(&backup), "--password-file", path(&password)];
    let _ = secret_ok(&system, &[&arguments[..], &shared].concat());
    system.stop_master();
    let restored = Command::new(&programs().master)
        .arg("restore")
        .arg(&backup)
        .arg("--settings")
        .arg(system.installation().master_settings())
        .arg("--password-file")
        .arg(&password)
        .output()
        .expect("sso-master runs");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let mut seen = String::new();
    for (path, _) in system.files() {
        let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
        let public = path.extension().is_some_and(|it| it == "crt" || it == "crl" || it == "pub");
        assert!(public || mode & 0o077 == 0, "{}: {mode:o}", path.display());
        seen.push_str(&path.display().to_string());
    }
    for name in ["lease.cache", "shared.backup", "ann.key", "shares/", "keystore.json."] {
        assert!(seen.contains(name), "no {name} in {seen}");
    }
}
