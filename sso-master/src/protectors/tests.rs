use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sso_core::clock::Clock;
use sso_protector::{KeyFile, KeyFileSource};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::custody::Custody;

/// A folder with a keystore that the key file `a` unlocks.
struct Place {
    folder: TempDir,
}

fn key() -> LockedKey {
    LockedKey::from_bytes(&[5; 32]).unwrap()
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
            place.key_file(name, &[byte; 32]);
        }
        let (id, now) = (Uuid::new_v4(), Clock::System.now());
        let stanza = place.protector("a").wrap(id, &key()).unwrap();
        let first = LockedKey::from_bytes(&[9; 32]).unwrap();
        let keystore =
            Keystore::create(id, Uuid::new_v4(), &first, &key(), vec![stanza], now).unwrap();
        keystore.write_new(&place.path("keystore.json")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_file(&self, name: &str, content: &[u8]) {
        private(&self.path(name), content);
    }

    fn protector(&self, name: &str) -> KeyFile {
        KeyFile::new(KeyFileSource { file: Some(self.path(name)), credential: None })
    }

    fn keystore(&self) -> Keystore {
        Keystore::read(&self.path("keystore.json")).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path("keystore.json")).unwrap()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.keystore().stanzas().iter().map(Stanza::kind).collect()
    }

    /// Settings with key files of these names, then what else `more` says.
    fn settings(&self, key_files: &[&str], more: &str) -> Settings {
        let mut text = "version = 1\nname = 'm'\nkeystore = 'keystore.json'\n\
                        listen = '127.0.0.1:0'\n[tls]\ncertificate = 'x'\nkey = 'x'\nca = 'x'\n"
            .to_owned();
        for name in key_files {
            text += &format!("[[protector]]\nkind = 'key-file'\nkey_file = '{name}'\n");
        }
        let path = self.path("settings.toml");
        fs::write(&path, text + more).unwrap();
        Settings::load(&path).unwrap()
    }

    /// Whether the key file `name` alone opens the keystore.
    fn opens_with(&self, name: &str) -> bool {
        let settings = self.settings(&[name], "");
        let protectors = settings.protectors(false).unwrap();
        let keystore = self.keystore();
        unlock(&protectors, keystore.id(), keystore.stanzas())
            .is_ok_and(|key| keystore.open(&key).is_ok())
    }
}

fn private(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

const PASSPHRASE: &str = "[[protector]]\nkind = 'passphrase'\npassphrase_file = 'passphrase'\n";
const NO_TOKEN: &str = "[[protector]]\nkind = 'pkcs11'\nmodule = '/nowhere/lib.so'\n\
                        token = 't'\nkey = 'k'\n";

#[test]
fn what_the_settings_name_and_the_keystore_lacks_is_added() {
    let place = Place::new();
    let before = place.keystore();
    private(&place.path("passphrase"), b"correct horse");
    let settings = place.settings(&["a", "b"], PASSPHRASE);
    let added = add(&settings, &[]).unwrap();
    let b = place.path("b").display().to_string();
    let passphrase = place.path("passphrase").display().to_string();
    assert_eq!(added, [(Kind::KeyFile, b), (Kind::Passphrase, passphrase)]);
    assert_eq!(place.kinds(), [Kind::KeyFile, Kind::KeyFile, Kind::Passphrase]);
    assert!(place.opens_with("a") && place.opens_with("b") && !place.opens_with("c"));

    let after = place.keystore();
    assert_eq!((after.id(), after.change()), (before.id(), before.change()));
    assert_eq!(after.generations(), before.generations());
    assert_eq!(after.stanzas()[0], before.stanzas()[0]);
    let mode = fs::metadata(place.path("keystore.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The second time there is nothing to do.
    let bytes = place.bytes();
    assert_eq!(add(&settings, &[]).unwrap(), []);
    assert_eq!(add(&settings, &[Kind::KeyFile]).unwrap(), []);
    assert_eq!(place.bytes(), bytes);
}

#[test]
fn only_the_kinds_asked_for_are_added() {
    let place = Place::new();
    private(&place.path("passphrase"), b"correct horse");
    let settings = place.settings(&["a", "b"], PASSPHRASE);
    add(&settings, &[Kind::Passphrase]).unwrap();
    assert_eq!(place.kinds(), [Kind::KeyFile, Kind::Passphrase]);
    let error = add(&settings, &[Kind::Keyutils]).unwrap_err();
    assert!(error.to_string().contains("no [[protector]] of the kind keyutils"), "{error}");
}

#[test]
fn nothing_is_added_that_cannot_be_used_and_nothing_without_a_key() {
    let place = Place::new();
    let bytes = place.bytes();
    place.key_file("b", &[2; 31]);
    let error = add(&place.settings(&["a", "b"], ""), &[]).unwrap_err().to_string();
    assert!(error.contains("31 bytes"), "{error}");
    let error = add(&place.settings(&["a"], NO_TOKEN), &[]).unwrap_err().to_string();
    assert!(error.contains("/nowhere/lib.so"), "{error}");
    // One that works does not go in with one that does not.
    let error = add(&place.settings(&["a", "c", "b"], ""), &[]).unwrap_err().to_string();
    assert!(error.contains("31 bytes"), "{error}");
    // Nobody opens the keystore.
    let error = add(&place.settings(&["c"], ""), &[]).unwrap_err();
    assert!(
        matches!(error, MasterError::Protector(ProtectorError::WrongKeyFile { .. })),
        "{error}"
    );
    assert_eq!(place.bytes(), bytes);
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 5, "no file is left over");
}

#[test]
fn a_running_master_goes_on_and_keeps_what_was_added() {
    let place = Place::new();
    let custody = Custody::begin(&place.path("keystore.json"), key(), Clock::System).unwrap();
    add(&place.settings(&["a", "b"], ""), &[]).unwrap();
    custody.change(|draft| draft.prepare(Clock::System.now(), 0)).unwrap();
    assert_eq!(place.kinds(), [Kind::KeyFile, Kind::KeyFile]);
    assert_eq!(place.keystore().generations().len(), 2);
    assert_eq!(remove(&place.settings(&["a", "b"], ""), Which::Number(1)).unwrap(), Kind::KeyFile);
    assert!(place.opens_with("b") && !place.opens_with("a"));
    assert_eq!(place.keystore().generations().len(), 2);
}

#[test]
fn the_last_one_stays_and_one_of_several_has_to_be_named() {
    let place = Place::new();
    let one = place.settings(&["a"], "");
    let bytes = place.bytes();
    for which in ["key-file", "1"] {
        let error = remove(&one, which.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("only protector"), "{error}");
    }
    for (which, words) in [("passphrase", "no protector passphrase"), ("2", "no protector 2")] {
        let error = remove(&one, which.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("1 key-file"), "{error}");
    }
    assert!("pin".parse::<Which>().is_err());
    assert_eq!(place.bytes(), bytes);

    let both = place.settings(&["a", "b"], "");
    add(&both, &[]).unwrap();
    let error = remove(&both, Which::Kind(Kind::KeyFile)).unwrap_err().to_string();
    assert!(error.contains("1 key-file, 2 key-file"), "{error}");
    remove(&both, Which::Number(2)).unwrap();
    assert!(place.opens_with("a") && !place.opens_with("b"));
}

#[test]
fn none_is_removed_before_another_one_opened_the_keystore() {
    let place = Place::new();
    add(&place.settings(&["a", "b"], ""), &[]).unwrap();
    let bytes = place.bytes();
    // Named, and no longer what it was.
    place.key_file("b", &[7; 32]);
    let error = remove(&place.settings(&["a", "b"], ""), Which::Number(1)).unwrap_err();
    assert!(matches!(error, MasterError::Protectors(ProtectorsError::NoOther { .. })), "{error}");
    // Not named.
    let error = remove(&place.settings(&["a"], ""), Which::Number(1)).unwrap_err();
    assert!(matches!(error, MasterError::Protectors(ProtectorsError::NoOther { .. })), "{error}");
    assert_eq!(place.bytes(), bytes);
    assert!(place.opens_with("a"));
}

#[test]
fn the_kernels_keyring_is_never_left_alone() {
    let place = Place::new();
    let keystore = place.keystore();
    let stanza = format!(
        r#"{{"kind":"keyutils","keystore":"{}","fingerprint":"0123456789abcdef"}}"#,
        keystore.id()
    );
    let mut stanzas = keystore.stanzas().to_vec();
    stanzas.push(serde_json::from_str(&stanza).unwrap());
    fs::remove_file(place.path("keystore.json")).unwrap();
    keystore.with_stanzas(stanzas).unwrap().write_new(&place.path("keystore.json")).unwrap();
    let error = remove(&place.settings(&["a"], ""), Which::Kind(Kind::KeyFile)).unwrap_err();
    assert!(
        matches!(error, MasterError::Protectors(ProtectorsError::Forgetful(Kind::KeyFile))),
        "{error}"
    );
    // The other way round all is well.
    remove(&place.settings(&["a"], ""), Which::Kind(Kind::Keyutils)).unwrap();
    assert_eq!(place.kinds(), [Kind::KeyFile]);
}

#[test]
fn the_list_says_what_opens_and_what_was_not_added() {
    let place = Place::new();
    add(&place.settings(&["a", "b"], ""), &[]).unwrap();
    place.key_file("b", &[7; 32]);
    let settings = place.settings(&["a", "b"], NO_TOKEN);
    let bytes = place.bytes();
    let listed = list(&settings, true).unwrap();
    let seen: Vec<_> =
        listed.iter().map(|it| (it.number, it.kind, it.in_settings, it.opens)).collect();
    assert_eq!(
        seen,
        [
            (Some(1), Kind::KeyFile, true, Some(true)),
            (Some(2), Kind::KeyFile, true, Some(false)),
            (None, Kind::Pkcs11, true, None),
        ]
    );
    assert_eq!(listed[0].label, place.path("a").display().to_string());
    let problem = listed[1].problem.as_deref().unwrap();
    assert!(problem.contains("does not open keystore"), "{problem}");
    let problem = listed[2].problem.as_deref().unwrap();
    assert!(problem.contains("/nowhere/lib.so"), "{problem}");
    let text = table(&listed);
    assert!(text.contains("not added") && text.lines().count() == 4, "{text}");
    let read: serde_json::Value = serde_json::from_str(&json(&listed)).unwrap();
    assert_eq!(read[0]["kind"], "key-file");
    assert_eq!(read[0]["opens"], true);

    // Untried nothing is asked for.
    let listed = list(&place.settings(&["a"], ""), false).unwrap();
    assert!(listed.iter().all(|it| it.opens.is_none() && it.problem.is_none()), "{listed:?}");
    assert_eq!(place.bytes(), bytes);
}
