//! Values that were sealed and keys that were wrapped long ago open for ever.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;

use sso_core::{
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    seal::{Place, sealed_under},
    wrapping::WrappingKey,
};

const GOLDEN: &str = include_str!("golden/sealed.txt");

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn ring() -> KeyRing {
    let keys = [(generation(1), key(0x11)), (generation(2), key(0x12))];
    KeyRing::new(keys, generation(2)).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Kind, version, context and bytes of each line.
fn golden() -> Vec<(&'static str, u8, Vec<&'static str>, Vec<u8>)> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<_> = line.split_whitespace().collect();
            let [kind, version, context, hex] = parts[..] else { panic!("{line}") };
            (kind, version.parse().unwrap(), context.split('/').collect(), bytes(hex))
        })
        .collect()
}

#[test]
fn what_was_sealed_long_ago_opens() {
    let plaintexts = [("configurations", &b"golden value"[..]), ("mappings", b"")];
    let mut opened = 0;
    for (_, version, context, sealed) in golden().into_iter().filter(|it| it.0 == "sealed") {
        let [table, column, row, application] = context[..] else { panic!("{context:?}") };
        let (row, application) = (bytes(row).repeat(16), bytes(application).repeat(16));
        let place = Place { table, column, row: &row, application: &application };
        let plaintext = plaintexts.iter().find(|(of, _)| *of == table).unwrap().1;
        assert_eq!(ring().open(&place, &sealed).unwrap().expose(), plaintext);
        assert_eq!(sealed[0], version);
        assert_eq!(sealed_under(&sealed).unwrap(), (generation(2), ring().active_fingerprint()));
        let elsewhere = Place { row: &application, ..place };
        assert!(ring().open(&elsewhere, &sealed).is_err());
        opened += 1;
    }
    assert!(opened >= plaintexts.len());
}

#[test]
fn keys_that_were_wrapped_long_ago_unwrap() {
    for (_, version, context, wrapped) in golden().into_iter().filter(|it| it.0 == "wrapped") {
        let context: Vec<_> = context.iter().map(|part| part.as_bytes()).collect();
        let unwrapped = WrappingKey::new(&key(0x22)).unwrap(&context, &wrapped).unwrap();
        assert_eq!(unwrapped.expose(), [0x33; 32]);
        assert_eq!(wrapped[0], version);
    }
}

/// Who writes a new version checks in what it writes.
#[test]
fn every_version_of_the_formats_is_checked_in() {
    let newest = |kind| match kind {
        "sealed" => {
            let place = Place { table: "t", column: "c", row: b"r", application: b"a" };
            ring().seal(&place, b"").unwrap()[0]
        }
        _ => WrappingKey::new(&key(0x22)).wrap(&[], b"").unwrap()[0],
    };
    for kind in ["sealed", "wrapped"] {
        let found: BTreeSet<_> = golden().iter().filter(|it| it.0 == kind).map(|it| it.1).collect();
        assert_eq!(found, (1..=newest(kind)).collect(), "{kind}");
    }
}
