//! The protector in the kernel's keyring, against the kernel of this machine.
//!
//! Where the kernel denies keyrings, as the default profile of some container engines does, these
//! tests fail and say so; `SSO_WITHOUT_KEYUTILS=1` excuses them.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "helpers of tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use sso_core::{clock::Clock, memory::LockedKey, secret::SecretText};
use sso_master::{
    init::{Target, init},
    keystore::Keystore,
};
use sso_protector::{
    Kind, OsKeyring, Passphrase, PassphraseSource, Protector, ProtectorError, Stanza, unlock,
};
use uuid::Uuid;

/// What `work` gives in a thread that has a session keyring of its own, as a new process would.
fn in_new_session<T: Send + 'static>(
    work: impl FnOnce(OsKeyring) -> T + Send + 'static,
) -> Option<T> {
    let worker = thread::spawn(|| match OsKeyring::keyutils() {
        Ok(keyring) => Some(work(keyring)),
        Err(error) => {
            eprintln!("this kernel gives no keyring: {error}");
            #[expect(clippy::disallowed_methods, reason = "read by a test")]
            let excused = std::env::var_os("SSO_WITHOUT_KEYUTILS").is_some();
            assert!(excused, "not tested: {error}. SSO_WITHOUT_KEYUTILS=1 excuses this");
            None
        }
    });
    worker.join().expect("no panic")
}

fn key() -> LockedKey {
    LockedKey::from_bytes(&[5; 32]).expect("32 bytes")
}

/// The kernel takes a moment to forget.
fn forgotten(keystore: Uuid, stanza: &Stanza) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stanza = stanza.clone();
        let result = in_new_session(move |keyring| keyring.unwrap(keystore, &stanza));
        if matches!(result, Some(Err(ProtectorError::EntryMissing { .. }))) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::yield_now();
    }
}

#[test]
fn a_key_outlives_the_session_that_stored_it() {
    let id = Uuid::new_v4();
    let Some(stanza) = in_new_session(move |keyring| keyring.wrap(id, &key()).expect("stored"))
    else {
        return;
    };
    assert_eq!(stanza.kind(), Kind::Keyutils);
    let again = stanza.clone();
    let found = in_new_session(move |keyring| keyring.unwrap(id, &again).expect("found"));
    assert_eq!(found, Some(Some(key())));

    let other = Uuid::new_v4();
    let again = stanza.clone();
    let error = in_new_session(move |keyring| keyring.unwrap(other, &again).expect_err("foreign"));
    assert!(matches!(error, Some(ProtectorError::Foreign { .. })), "{error:?}");

    in_new_session(move |keyring| keyring.forget(id).expect("forgotten"));
    assert!(forgotten(id, &stanza));
}

#[test]
fn what_the_kernel_forgot_the_passphrase_puts_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passphrase");
    fs::write(&path, "correct horse").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
    let target = Target {
        keystore: folder.path().join("keystore.json"),
        backup: folder.path().join("master.backup"),
    };
    let keystore_file = target.keystore.clone();
    let both = move |keyring: OsKeyring| -> Vec<Box<dyn Protector>> {
        let passphrase = Passphrase::new(PassphraseSource::File(path.clone()));
        vec![Box::new(keyring), Box::new(passphrase)]
    };
    let protectors = both.clone();
    let made = in_new_session(move |keyring| {
        let password = SecretText::new("battery staple".into());
        init(&target, &protectors(keyring), &password, "", &Clock::System).expect("made")
    });
    let Some(made) = made else { return };
    let keystore = Keystore::read(&keystore_file).expect("a keystore");
    let kinds: Vec<_> = keystore.stanzas().iter().map(Stanza::kind).collect();
    assert_eq!(kinds, [Kind::Keyutils, Kind::Passphrase]);

    let alone = |keystore: Keystore| {
        in_new_session(move |keyring| {
            let protectors: [Box<dyn Protector>; 1] = [Box::new(keyring)];
            unlock(&protectors, keystore.id(), keystore.stanzas())
                .map(|key| keystore.open(&key).expect("opens"))
        })
        .expect("the kernel gave a keyring before")
    };
    let ring = alone(keystore.clone()).expect("the kernel has the key");
    assert_eq!(ring.active_fingerprint(), made.fingerprint);

    in_new_session(move |keyring| keyring.forget(made.keystore).expect("forgotten"));
    let stanza = keystore.stanzas()[0].clone();
    assert!(forgotten(made.keystore, &stanza));
    let error = alone(keystore.clone()).expect_err("the kernel forgot");
    assert!(error.to_string().contains("reboot"), "{error}");

    let restarted = keystore.clone();
    let protectors = both;
    in_new_session(move |keyring| {
        unlock(&protectors(keyring), restarted.id(), restarted.stanzas()).expect("passphrase")
    });
    let ring = alone(keystore).expect("the kernel has the key again");
    assert_eq!(ring.active_fingerprint(), made.fingerprint);
    in_new_session(move |keyring| keyring.forget(made.keystore).expect("cleaned up"));
}
