use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
const KEYSTORE: Uuid = Uuid::from_u128(7);

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

fn password(password: &str) -> Opener {
    Opener::Password(text(password))
}

fn ring() -> KeyRing {
    let key = |byte| LockedKey::from_bytes(&[byte; 32]).unwrap();
    let generation = |number| Generation::new(number).unwrap();
    KeyRing::new([(generation(1), key(1)), (generation(2), key(2))], generation(2)).unwrap()
}

fn private(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn officer(name: &str, byte: u8) -> Officer {
    Officer { name: name.into(), public_key: public_key(&private(byte)).unwrap() }
}

fn sealed(locks: &Locks) -> (Backup, Vec<SecretText>) {
    Backup::seal_with(Argon2Params::FLOOR, KEYSTORE, 3, &ring(), locks, NOW).unwrap()
}

fn backup() -> Backup {
    sealed(&Locks::password(text("correct horse"), "which animal?")).0
}

/// Everything at once.
fn all() -> (Backup, Vec<SecretText>) {
    sealed(&Locks {
        officers: vec![officer("Ada", 1), officer("Grace", 2)],
        shares: Some((2, 3)),
        ..Locks::password(text("correct horse"), "which animal?")
    })
}

/// Every way that opens the backup of [`all`], without the slow one.
fn openers(backup: &Backup, shares: &[SecretText]) -> Vec<Opener> {
    let mut openers = vec![Opener::Shares(shares[1..].to_vec())];
    openers.extend(backup.open_envelope(&private(2)).map(Opener::BackupKey));
    openers
}

fn header(backup: &Backup) -> Header {
    match &backup.body {
        Body::V2(header) => header.clone(),
        Body::V1(_) => panic!("this is the old version"),
    }
}

#[test]
fn each_lock_alone_gives_every_generation_back() {
    let (made, shares) = all();
    let backup = Backup::parse(made.to_text().as_bytes()).unwrap();
    assert_eq!(backup, made);
    assert_eq!(backup.open(&password("correct horse")).unwrap(), ring());
    for byte in [1, 2] {
        let key = backup.open_envelope(&private(byte)).unwrap();
        assert_eq!(backup.open(&Opener::BackupKey(key)).unwrap(), ring());
    }
    for some in [&shares[..2], &shares[1..], &shares[..]] {
        assert_eq!(backup.open(&Opener::Shares(some.to_vec())).unwrap(), ring());
    }
    assert_eq!((backup.keystore(), backup.epoch(), backup.created()), (KEYSTORE, 3, NOW));
    assert_eq!((backup.tool(), backup.reminder()), (TOOL, "which animal?"));
    assert_eq!(backup.active(), ring().active());
    assert!(backup.generations().eq(ring().generations()));
    let locks = r#"a password, or the key of "Ada", or the key of "Grace", or 2 of 3 shares"#;
    assert_eq!(backup.locks(), locks);
}

#[test]
fn a_wrong_password_shows_the_reminder() {
    let error = backup().open(&password("correct house")).unwrap_err();
    assert!(matches!(error, BackupError::WrongPassword { .. }), "{error}");
    assert!(error.to_string().contains("which animal?"), "{error}");
    let (bare, _) = sealed(&Locks::password(text("correct horse"), ""));
    let error = bare.open(&password("another")).unwrap_err();
    assert_eq!(error.to_string(), "backup: wrong password");
}

#[test]
fn what_a_backup_has_no_lock_for_names_those_it_has() {
    let (shared, _) = sealed(&Locks { shares: Some((2, 3)), ..Locks::default() });
    let error = shared.open(&password("correct horse")).unwrap_err().to_string();
    assert_eq!(error, "backup: it has no password; it opens with 2 of 3 shares");
    let error = shared.open_envelope(&private(1)).unwrap_err().to_string();
    assert!(error.contains("no officers"), "{error}");
    let error = backup().open(&Opener::Shares(Vec::new())).unwrap_err().to_string();
    assert!(error.contains("no shares; it opens with a password"), "{error}");
}

#[test]
fn the_key_of_another_backup_or_officer_is_refused() {
    let (backup, _) = all();
    let error = backup.open(&Opener::BackupKey(private(1))).unwrap_err();
    assert!(matches!(error, BackupError::WrongKey(_)), "{error}");
    let error = backup.open_envelope(&private(3)).unwrap_err().to_string();
    assert!(error.contains("\"Ada\"") && error.contains("\"Grace\""), "{error}");
    // The envelope of another backup for the same officer.
    let mut moved = header(&backup);
    moved.locks.clone_from(&header(&all().0).locks);
    let moved = Backup { body: Body::V2(moved), sealed: backup.sealed };
    assert!(matches!(moved.open_envelope(&private(1)), Err(BackupError::WrongKey(_))));
}

#[test]
fn mixed_and_few_shares_are_refused() {
    let (backup, shares) = all();
    let (_, others) = all();
    let error = backup.open(&Opener::Shares(shares[..1].to_vec())).unwrap_err().to_string();
    assert_eq!(error, "backup: 2 different shares are needed and 1 are here");
    let mixed = Opener::Shares(vec![shares[0].clone(), others[1].clone()]);
    let error = backup.open(&mixed).unwrap_err().to_string();
    assert!(error.contains("share 2 belongs to another backup"), "{error}");
}

/// As a holder would who makes up a share, checksum and all.
#[test]
fn a_share_that_was_made_up_gives_no_key() {
    let (backup, shares) = all();
    let id = header(&backup).backup;
    let made_up = shares::split(KEYSTORE, id, &private(9), 2, 3).unwrap();
    let error =
        backup.open(&Opener::Shares(vec![shares[0].clone(), made_up[1].clone()])).unwrap_err();
    assert_eq!(error.to_string(), "backup: a share was changed");
}

#[test]
fn the_work_of_real_backups_is_that_of_backups() {
    let locks = Locks::password(text("correct horse"), "");
    let (backup, _) = Backup::seal(Uuid::nil(), 1, &ring(), &locks, NOW).unwrap();
    let Some(Lock::Password { work, .. }) = header(&backup).locks.pop() else { panic!() };
    assert_eq!(work, Argon2Params::BACKUP);
    assert_eq!(backup.open(&password("correct horse")).unwrap(), ring());
}

#[test]
fn a_header_that_was_changed_does_not_open() {
    let (whole, shares) = all();
    let own = || header(&whole);
    let mut fewer = own();
    fewer.locks.remove(1);
    let mut shorter = own();
    shorter.generations.truncate(1);
    shorter.proofs.truncate(1);
    let mut renamed = own();
    if let Some(Lock::Officer { name, .. }) = renamed.locks.get_mut(1) {
        "Eve".clone_into(name);
    }
    let changed = [
        Header { reminder: "another".into(), ..own() },
        Header { keystore: Uuid::nil(), ..own() },
        Header { backup: Uuid::nil(), ..own() },
        Header { epoch: 4, ..own() },
        Header { tool: "another".into(), ..own() },
        Header { created: datetime!(2031-01-02 03:04:05 UTC), ..own() },
        Header { active: Generation::FIRST, ..own() },
        shorter,
        Header { key: Fingerprint::from_bytes([1; 8]), ..own() },
        Header { proofs: Vec::new(), ..own() },
        fewer,
        renamed,
    ];
    for header in changed {
        let changed = Backup { body: Body::V2(header), sealed: whole.sealed.clone() };
        // With a checksum that fits, as somebody would who edits on purpose.
        let changed = Backup::parse(changed.to_text().as_bytes()).unwrap();
        for opener in openers(&whole, &shares) {
            let error = changed.open(&opener).unwrap_err();
            let known = matches!(
                error,
                BackupError::Format(_) | BackupError::Shares(_) | BackupError::WrongKey(_)
            );
            assert!(known, "{error}: {:?}", changed.body);
        }
        assert!(changed.open(&password("correct horse")).is_err(), "{:?}", changed.body);
    }
}

/// As the first version of this program made them.
#[test]
fn a_backup_of_the_first_version_opens() {
    let header = HeaderV1 {
        keystore: KEYSTORE,
        created: NOW,
        tool: "sso-master 0.1.0".into(),
        reminder: "which animal?".into(),
        active: ring().active(),
        generations: ring().generations().map(Named::from).collect(),
        work: Argon2Params::FLOOR,
        salt: Base64(vec![5; 16]),
    };
    let wrapping = locks::stretched(&text("correct horse"), &header.work, &header.salt).unwrap();
    let sealed = wrapping.wrap(&[&spelled(&header)], &format::records(&ring())).unwrap();
    let old = Backup { body: Body::V1(header.clone()), sealed: Base64(sealed.clone()) };
    let read = Backup::parse(old.to_text().as_bytes()).unwrap();
    assert_eq!(read, old);
    assert_eq!(read.open(&password("correct horse")).unwrap(), ring());
    assert_eq!((read.epoch(), read.locks()), (1, "a password".to_owned()));
    let error = read.open(&password("correct house")).unwrap_err().to_string();
    assert_eq!(error, "backup: wrong password; its reminder is: which animal?");
    let error = read.open(&Opener::Shares(Vec::new())).unwrap_err().to_string();
    assert!(error.contains("opens with a password"), "{error}");
    for changed in [
        HeaderV1 { reminder: "another".into(), ..header.clone() },
        HeaderV1 { keystore: Uuid::nil(), ..header.clone() },
        HeaderV1 { active: Generation::FIRST, ..header },
    ] {
        let changed = Backup { body: Body::V1(changed), sealed: Base64(sealed.clone()) };
        assert!(changed.open(&password("correct horse")).is_err());
    }
    let greedy = old.to_text().replace("\"iterations\": 2", "\"iterations\": 17");
    assert!(matches!(Backup::parse(greedy.as_bytes()), Err(FormatError::Damaged(_))));
}

#[test]
fn greedy_files_are_refused_before_any_work() {
    let whole = backup();
    let mut greedy = header(&whole);
    if let Some(Lock::Password { work, .. }) = greedy.locks.first_mut() {
        *work = Argon2Params { memory_kib: u32::MAX, ..Argon2Params::CAP };
    }
    let greedy = Backup { body: Body::V2(greedy), ..whole };
    let error = greedy.open(&password("correct horse")).unwrap_err();
    assert!(matches!(error, BackupError::Stretch(PassphraseError::Work(_))), "{error}");
    assert_eq!(Refusal::from(error).reason, Reason::BackupMalformed);
    let mut many = header(&backup());
    many.locks = vec![many.locks[0].clone(); 19];
    let many = Backup { body: Body::V2(many), sealed: Base64(Vec::new()) };
    assert!(Backup::parse(many.to_text().as_bytes()).is_err());
}

#[test]
fn the_file_is_proved_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.backup");
    let (backup, shares) = sealed(&Locks { shares: Some((2, 2)), ..Locks::default() });
    let opener = Opener::Shares(shares);
    backup.write_and_prove(&path, &opener, &ring()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let error = backup.write_and_prove(&path, &opener, &ring()).unwrap_err();
    assert!(matches!(error, BackupError::File(FileError::Exists(_))), "{error}");
    let other = KeyRing::new([(Generation::FIRST, private(9))], Generation::FIRST).unwrap();
    let path = folder.path().join("other");
    let error = backup.write_and_prove(&path, &opener, &other).unwrap_err();
    assert!(matches!(error, BackupError::Different), "{error}");
}

#[test]
fn damage_and_other_files_are_told_from_a_wrong_password() {
    let whole = backup().to_text();
    for length in [1, 20, 100, whole.len() / 2, whole.len() - 2] {
        let error = Backup::parse(&whole.as_bytes()[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Damaged(_) | FormatError::Other(_)), "{error}");
    }
    let changed = whole.replace("which animal", "which planet");
    assert!(matches!(Backup::parse(changed.as_bytes()), Err(FormatError::Damaged(_))));
    for other in ["hello", r#"{"format":"sso-keystore","version":1}"#] {
        let error = Backup::parse(other.as_bytes()).unwrap_err();
        assert_eq!(error, FormatError::Other(format::FORMAT));
    }
    let newer = whole.replace("\"version\": 2", "\"version\": 3");
    let error = Backup::parse(newer.as_bytes()).unwrap_err();
    assert_eq!(error, FormatError::Version { found: 3, known: 2 });
    // As copied by a program for another system.
    assert!(Backup::parse(whole.replace('\n', "\r\n").as_bytes()).is_ok());
}

#[test]
fn every_error_of_a_caller_has_a_reason() {
    let locks = |locks: Locks| Refusal::from(locks.check().unwrap_err()).reason;
    assert_eq!(locks(Locks::default()), Reason::BackupLocksInvalid);
    assert_eq!(locks(Locks::password(text("short"), "")), Reason::BackupPasswordLength);
    assert_eq!(
        locks(Locks::password(text("correct horse"), "a\nb")),
        Reason::BackupReminderInvalid
    );
    let (backup, shares) = all();
    let opened = |opener: Opener| Refusal::from(backup.open(&opener).unwrap_err());
    assert_eq!(opened(password("correct house")).reason, Reason::BackupPasswordWrong);
    assert_eq!(opened(Opener::BackupKey(private(3))).reason, Reason::BackupPasswordWrong);
    assert_eq!(opened(Opener::Shares(shares[..1].to_vec())).reason, Reason::BackupSharesInvalid);
    let malformed = BackupError::from(Backup::parse(b"hello").unwrap_err());
    assert_eq!(Refusal::from(malformed).reason, Reason::BackupMalformed);
    let foreign = Refusal::from(BackupError::Foreign("of another system".into()));
    assert_eq!(foreign.reason, Reason::BackupForeign);
}

/// Opens with each of the fast ways; the keys are the right ones or there are none.
fn never_other_keys(content: &[u8], shares: &[SecretText]) -> Result<(), TestCaseError> {
    let Ok(backup) = Backup::parse(content) else { return Ok(()) };
    for opener in openers(&backup, shares) {
        if let Ok(opened) = backup.open(&opener) {
            prop_assert_eq!(opened, ring());
        }
    }
    Ok(())
}

fn fixture() -> &'static (Backup, Vec<SecretText>, String) {
    static MADE: std::sync::OnceLock<(Backup, Vec<SecretText>, String)> =
        std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let (backup, shares) = all();
        let text = backup.to_text();
        (backup, shares, text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Backup::parse(&bytes).is_err());
    }

    #[test]
    fn records_of_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = format::parse_records(&bytes);
    }

    #[test]
    fn a_byte_that_was_flipped_is_found(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (backup, shares, whole) = fixture();
        let mut changed = whole.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        let space = |byte: u8| byte.is_ascii_whitespace();
        if !space(changed[at]) && !space(whole.as_bytes()[at]) {
            // Ids and dates can be spelled with small letters and with capitals.
            prop_assert!(Backup::parse(&changed).map_or(true, |same| same == *backup));
        }
        never_other_keys(&changed, shares)?;
    }

    #[test]
    fn a_file_that_was_cut_is_found(length in any::<prop::sample::Index>()) {
        let (_, _, whole) = fixture();
        // Without its last line break it is whole.
        let length = length.index(whole.len() - 1);
        prop_assert!(Backup::parse(&whole.as_bytes()[..length]).is_err());
    }

    /// As somebody edits on purpose, who makes the checksum fit.
    #[test]
    fn sealed_keys_that_were_flipped_do_not_open(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (backup, shares, _) = fixture();
        let mut changed = backup.clone();
        let at = at.index(changed.sealed.0.len());
        changed.sealed.0[at] ^= 1 << bit;
        let changed = Backup::parse(changed.to_text().as_bytes()).unwrap();
        for opener in openers(backup, shares) {
            let error = changed.open(&opener).unwrap_err();
            prop_assert!(matches!(error, BackupError::Format(_)), "{error}");
        }
    }
}
