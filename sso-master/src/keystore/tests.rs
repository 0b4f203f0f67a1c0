//! Parsing, opening and the checks of headers.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use sso_protector::encoding::checksum;
use time::macros::datetime;

use super::{format::FORMAT, *};
use crate::file::FileError;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05.678 UTC);

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

/// A stanza as a file has it; who made it matters to nobody here.
fn stanza() -> Stanza {
    let json = serde_json::json!({
        "kind": "keyutils", "keystore": Uuid::from_u128(7), "fingerprint": "0123456789abcdef"
    });
    serde_json::from_value(json).unwrap()
}

fn keystore() -> Keystore {
    let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
    Keystore::create(id, member, &key(1), &key(2), vec![stanza()], NOW).unwrap()
}

/// The keystore with `from` in its text replaced by `to` and the checksum made right again.
fn forged(from: &str, to: &str) -> Result<Keystore, FormatError> {
    let text = keystore().to_text();
    assert!(text.contains(from), "{text}");
    let changed: serde_json::Value = serde_json::from_str(&text.replace(from, to)).unwrap();
    let header: Header = serde_json::from_value(changed["header"].clone()).unwrap();
    let stanzas: Vec<Stanza> = serde_json::from_value(changed["stanzas"].clone()).unwrap();
    let seal: Base64 = serde_json::from_value(changed["seal"].clone()).unwrap();
    let right = checksum(&(FORMAT, changed["version"].as_u64().unwrap(), header, stanzas, seal));
    let old = changed["checksum"].as_str().unwrap();
    Keystore::parse(text.replace(from, to).replace(old, &right).as_bytes())
}

#[test]
fn what_is_created_is_read_again_and_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    keystore().write_new(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

    let read = Keystore::read(&path).unwrap();
    assert_eq!(read, keystore_like(&read));
    assert_eq!((read.id(), read.change(), read.epoch()), (Uuid::from_u128(7), 1, 1));
    assert_eq!((read.member(), read.primary()), (Uuid::from_u128(8), Uuid::from_u128(8)));
    assert!(read.is_primary());
    let first = &read.generations()[0];
    assert_eq!(first.state, State::Active);
    assert_eq!(first.created, datetime!(2030-01-02 03:04:05 UTC));
    assert_eq!((first.activated, first.backed_up), (Some(first.created), None));
    let ring = read.open(&key(2)).unwrap();
    assert_eq!(ring.active(), Generation::FIRST);
    assert_eq!(ring.key(Generation::FIRST), Some(&key(1)));

    let error = read.write_new(&path).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

/// The same by its text.
fn keystore_like(read: &Keystore) -> Keystore {
    Keystore::parse(read.to_text().as_bytes()).unwrap()
}

#[test]
fn a_backup_on_record_is_no_change() {
    let recorded = keystore().with_backup(&key(2), NOW).unwrap();
    assert_eq!(recorded.change(), 1);
    assert_eq!(recorded.generations()[0].backed_up, Some(datetime!(2030-01-02 03:04:05 UTC)));
    assert!(recorded.open(&key(2)).is_ok());
}

#[test]
fn other_stanzas_leave_header_and_seal() {
    let other = keystore().with_stanzas(vec![stanza(), stanza()]).unwrap();
    assert_eq!(other.stanzas().len(), 2);
    assert!(!other.has_other_header(&keystore_like(&other)));
    assert!(keystore_like(&other).open(&key(2)).is_ok());
    let error = keystore().with_stanzas(vec![stanza(); 9]).unwrap_err().to_string();
    assert!(error.contains("9 stanzas"), "{error}");
}

#[test]
fn too_many_stanzas_are_refused() {
    let mut keystore = keystore();
    keystore.stanzas = vec![stanza(); 8];
    assert!(Keystore::parse(keystore.to_text().as_bytes()).is_ok());
    keystore.stanzas.push(stanza());
    let error = Keystore::parse(keystore.to_text().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("9 stanzas"), "{error}");
}

#[test]
fn neither_file_nor_transfer_nor_debug_shows_a_key() {
    let keystore = keystore();
    let header = keystore.header_for_transfer();
    assert!(header.contains("\"wrapped\":null"), "{header}");
    for shown in [keystore.to_text(), header, format!("{keystore:?}")] {
        for key in [key(1), key(2)] {
            let spelled = serde_json::to_string(&Base64(key.expose().to_vec())).unwrap();
            assert!(!shown.contains(spelled.trim_matches('"').trim_end_matches('=')));
            assert!(!shown.contains(&format!("{:?}", &key.expose()[..4]).replace(']', "")));
        }
    }
}

#[test]
fn a_file_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keystore.json");
    keystore().write_new(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Keystore::read(&path).unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    let missing = Keystore::read(&folder.path().join("other")).unwrap_err();
    assert!(matches!(missing, KeystoreError::File(FileError::Missing(_))), "{missing}");
    assert!(missing.to_string().contains("sso-master init"), "{missing}");
}

#[test]
fn the_key_of_another_keystore_is_named_as_such() {
    let error = keystore().open(&key(3)).unwrap_err();
    assert!(matches!(error, KeystoreError::Foreign { .. }), "{error}");
}

#[test]
fn every_change_of_the_header_is_damage() {
    let first = format!("\"fingerprint\": \"{}\"", Fingerprint::of(&key(1)));
    let changes = [
        ("\"change\": 1", "\"change\": 2"),
        ("\"epoch\": 1", "\"epoch\": 2"),
        ("00000008\",\n    \"epoch\"", "00000009\",\n    \"epoch\""),
        ("00000008\",\n    \"change\"", "00000009\",\n    \"change\""),
        ("2030-01-02", "2031-01-02"),
        ("sso-master ", "sso-mastex "),
        ("\"revocations\": {}", "\"revocations\": {\"a\": 1}"),
        ("\"reseal_rows_per_second\": 0", "\"reseal_rows_per_second\": 1"),
        ("\"backed_up\": null", "\"backed_up\": \"2030-01-02T03:04:05Z\""),
        ("\"generation\": 1", "\"generation\": 2"),
        (first.as_str(), "\"fingerprint\": \"0123456789abcdef\""),
    ];
    for (from, to) in changes {
        let error = forged(from, to).unwrap().open(&key(2)).unwrap_err();
        let known = matches!(
            error,
            KeystoreError::Format(FormatError::Damaged(_)) | KeystoreError::Foreign { .. }
        );
        assert!(known, "{from}: {error}");
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_damage() {
    let text = keystore().to_text().into_bytes();
    // The last byte is the newline after the document.
    for length in 0..text.len() - 1 {
        let error = Keystore::parse(&text[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Damaged(_) | FormatError::Other(_)), "{error}");
    }
    let original = keystore_like(&Keystore::parse(&text).unwrap());
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1;
        // Another spelling of the same is no change: space is any space, and a date may have any
        // sign for its `T`.
        let same = |parsed: Keystore| parsed == original;
        assert!(Keystore::parse(&changed).map_or(true, same), "{at}");
    }
}

#[test]
fn files_of_other_kinds_and_versions_are_named() {
    assert_eq!(Keystore::parse(b"").unwrap_err(), FormatError::Other(FORMAT));
    assert_eq!(Keystore::parse(b"[tls]\n").unwrap_err(), FormatError::Other(FORMAT));
    let backup = br#"{"format": "sso-backup", "version": 1}"#;
    assert_eq!(Keystore::parse(backup).unwrap_err(), FormatError::Other(FORMAT));
    let newer = keystore().to_text().replace("\"version\": 2", "\"version\": 3");
    assert_eq!(
        Keystore::parse(newer.as_bytes()).unwrap_err(),
        FormatError::Version { found: 3, known: 2 }
    );
    let unknown = keystore().to_text().replacen('{', "{\"more\": 1,", 1);
    let error = Keystore::parse(unknown.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field"), "{error}");
    let older = keystore().to_text().replace("\"version\": 2", "\"version\": 1");
    let error = Keystore::parse(older.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field"), "{error}");
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let sensible = keystore().header;
    let active = sensible.generations[0].clone();
    let at = |number, state| GenerationEntry {
        generation: generation(number),
        state,
        activated: (!State::is_coming(state)).then_some(NOW),
        backed_up: Some(NOW),
        wrapped: active.wrapped.clone().filter(|_| state != State::Destroyed),
        ..active.clone()
    };
    let never_active = |entry| GenerationEntry { activated: None, ..entry };
    let never_backed_up = |entry| GenerationEntry { backed_up: None, ..entry };
    let without_key = |entry| GenerationEntry { wrapped: None, ..entry };
    let cases = [
        (vec![], "not exactly one"),
        (vec![at(1, State::Retired)], "not exactly one"),
        (vec![at(1, State::Active), at(2, State::Active)], "not exactly one"),
        (vec![at(1, State::Active), at(1, State::Retired)], "ascending"),
        (vec![at(2, State::Active), at(1, State::Retired)], "ascending"),
        (vec![without_key(at(1, State::Active))], "do not fit"),
        (
            vec![
                GenerationEntry { wrapped: active.wrapped.clone(), ..at(1, State::Destroyed) },
                at(2, State::Active),
            ],
            "do not fit",
        ),
        (vec![never_active(at(1, State::Active))], "cannot be active"),
        (vec![never_active(at(1, State::Draining)), at(2, State::Active)], "cannot be draining"),
        (
            vec![never_backed_up(never_active(at(1, State::Retired))), at(2, State::Active)],
            "cannot be retired",
        ),
        (vec![never_backed_up(at(1, State::Destroyed)), at(2, State::Active)], "be destroyed"),
        (vec![at(1, State::Prepared), at(2, State::Active)], "cannot be prepared"),
        (
            vec![
                at(1, State::Active),
                GenerationEntry { activated: Some(NOW), ..at(2, State::Prepared) },
            ],
            "cannot be prepared",
        ),
        (vec![at(1, State::Active), never_backed_up(at(2, State::Distributed))], "distributed"),
        (
            vec![at(1, State::Active), at(2, State::Prepared), at(3, State::Prepared)],
            "more than one",
        ),
        (vec![at(1, State::Active), at(2, State::Distributed)], "since when"),
    ];
    for (generations, why) in cases {
        let error = Header { generations, ..sensible.clone() }.check().unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let names = || BTreeSet::from(["a".to_owned()]);
    let revoked = |name: &str| Revocations::from_iter([(name.to_owned(), 1)]);
    let headers = [
        (Header { epoch: 0, ..sensible.clone() }, "from 1"),
        (Header { change: 0, ..sensible.clone() }, "from 1"),
        (Header { distributed_in: Some(1), ..sensible.clone() }, "since when"),
        (Header { left_behind: names(), ..sensible.clone() }, "left behind"),
        (Header { revocations: revoked(""), ..sensible.clone() }, "names"),
        (Header { revocations: revoked(&"n".repeat(256)), ..sensible.clone() }, "names"),
        (
            Header {
                generations: vec![at(1, State::Active), at(2, State::Distributed)],
                distributed_in: Some(2),
                ..sensible.clone()
            },
            "never was",
        ),
    ];
    for (header, why) in headers {
        let error = header.check().unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let good = [
        at(1, State::Destroyed),
        never_active(at(2, State::Retired)),
        at(3, State::Draining),
        at(4, State::Active),
        never_active(at(5, State::Retired)),
        at(6, State::Distributed),
    ];
    let header = Header {
        generations: good.to_vec(),
        change: 9,
        distributed_in: Some(8),
        left_behind: names(),
        ..sensible
    };
    assert_eq!(header.check(), Ok(()));
}

#[test]
fn a_whole_backup_makes_a_keystore_of_a_new_epoch() {
    let keys = [(generation(1), key(11)), (generation(3), key(13)), (generation(4), key(14))];
    let ring = KeyRing::new(keys, generation(3)).unwrap();
    let origin = FromBackup {
        keystore: Uuid::from_u128(7),
        member: Uuid::from_u128(9),
        epoch: 5,
        created: datetime!(2029-05-06 07:08:09.1 UTC),
        revocations: [("a".to_owned(), 1)].into_iter().collect(),
    };
    let made = Keystore::from_backup(origin, &ring, &key(2), vec![stanza()], NOW).unwrap();
    let made = keystore_like(&made);
    assert_eq!(made.open(&key(2)).unwrap(), ring);
    assert_eq!((made.epoch(), made.change(), made.is_primary()), (5, 1, true));
    assert!(made.revocations().is_revoked("a"));
    let states: Vec<_> = made.generations().iter().map(|entry| entry.state).collect();
    assert_eq!(states, [State::Draining, State::Active, State::Draining]);
    let active = &made.generations()[1];
    assert_eq!(active.created, datetime!(2029-05-06 07:08:09 UTC));
    assert_eq!(active.backed_up, Some(datetime!(2030-01-02 03:04:05 UTC)));
}

#[test]
fn states_say_who_gets_the_key() {
    let states = [
        (State::Prepared, true, false),
        (State::Distributed, true, true),
        (State::Active, false, true),
        (State::Draining, false, true),
        (State::Retired, false, true),
        (State::Destroyed, false, false),
    ];
    for (state, coming, handed_out) in states {
        assert_eq!((state.is_coming(), state.is_handed_out()), (coming, handed_out), "{state}");
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Keystore::parse(&bytes).is_err());
    }

    #[test]
    fn a_document_with_any_header_never_panics(version in 0u64..4, header in any::<String>()) {
        let document = serde_json::json!({
            "format": FORMAT, "version": version, "header": {"keystore": header, "change": 1},
            "stanzas": [], "seal": "", "checksum": "",
        });
        prop_assert!(Keystore::parse(&serde_json::to_vec(&document).unwrap()).is_err());
    }
}
