//! The protector in the Secret Service, against a real gnome-keyring-daemon on a session bus of its
//! own.
//!
//! Without `gnome-keyring-daemon` and `dbus-run-session` the test says that it did not run;
//! `SSO_REQUIRE_SECRET_SERVICE=1` makes that a failure.

#![cfg(feature = "secret-service")]
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::{path::Path, process::Command};

use sso_core::{clock::Clock, memory::LockedKey};
use sso_master::keystore::Keystore;
use sso_protector::{Kind, OsKeyring, Protector, ProtectorError, unlock};
use uuid::Uuid;

/// Set for the process inside the session bus.
const INSIDE: &str = "SSO_TEST_INSIDE_SECRET_SERVICE";

#[expect(clippy::disallowed_methods, reason = "a test asks how it is run")]
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

fn installed(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|at| Path::new(at).join(program).exists())
}

#[test]
fn a_session_with_a_login_keyring() {
    if is_set(INSIDE) {
        return inside();
    }
    let missing: Vec<_> = ["dbus-run-session", "gnome-keyring-daemon"]
        .into_iter()
        .filter(|program| !installed(program))
        .collect();
    if !missing.is_empty() {
        assert!(!is_set("SSO_REQUIRE_SECRET_SERVICE"), "not installed: {missing:?}");
        eprintln!("NOT TESTED: the Secret Service, because {missing:?} is not installed");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let script = "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null \
                  && exec \"$0\" --exact a_session_with_a_login_keyring --nocapture";
    let output = Command::new("dbus-run-session")
        .args(["--", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn inside() {
    let key = |byte| LockedKey::from_bytes(&[byte; 32]).unwrap();
    let keyring = OsKeyring::secret_service().unwrap();
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    let stanza = keyring.wrap(id, &key(1)).unwrap();
    assert_eq!(stanza.kind(), Kind::SecretService);
    let other_stanza = keyring.wrap(other, &key(2)).unwrap();

    let now = Clock::System.now();
    let stanzas = vec![stanza.clone()];
    let keystore = Keystore::create(id, Uuid::new_v4(), &key(9), &key(1), stanzas, now).unwrap();
    let keystore = Keystore::parse(keystore.to_text().as_bytes()).unwrap();
    let protectors: [Box<dyn Protector>; 1] = [Box::new(OsKeyring::secret_service().unwrap())];
    let ring =
        keystore.open(&unlock(&protectors, keystore.id(), keystore.stanzas()).unwrap()).unwrap();
    assert_eq!(ring.key(ring.active()), Some(&key(9)));

    // Overwritten by the key of another copy of the keystore, then gone.
    keyring.put_back(id, &key(3)).unwrap();
    let error = keyring.unwrap(id, &stanza).unwrap_err();
    assert!(matches!(error, ProtectorError::OtherKey { .. }), "{error}");
    keyring.forget(id).unwrap();
    let error = keyring.unwrap(id, &stanza).unwrap_err();
    assert!(matches!(error, ProtectorError::EntryMissing { .. }), "{error}");
    assert_eq!(keyring.unwrap(other, &other_stanza).unwrap(), Some(key(2)));

    // Where blocking is allowed it works beside a runtime as well.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let blocking = move || OsKeyring::secret_service()?.unwrap(other, &other_stanza);
        tokio::task::spawn_blocking(blocking).await.unwrap()
    });
    assert_eq!(found.unwrap(), Some(key(2)));
}
