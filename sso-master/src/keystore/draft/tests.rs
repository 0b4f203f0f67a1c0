//! Every rule as a refusal, and random lives.

use proptest::prelude::*;
use time::{Duration, macros::datetime};
use uuid::Uuid;

use super::*;

mod lives;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

fn key(byte: u8) -> LockedKey {
    LockedKey::from_bytes(&[byte; 32]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

/// The first generation is the key of ones, in a backup.
fn keystore() -> Keystore {
    let (id, member) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let made = Keystore::create(id, member, &key(1), &key(2), vec![], NOW).unwrap();
    made.with_backup(&key(2), NOW).unwrap()
}

/// The keystore after an edit that is not refused.
fn after<T>(
    keystore: &Keystore,
    edit: impl FnOnce(&mut Draft<'_>) -> Result<T, Refusal>,
) -> Keystore {
    let edited = keystore.edit(&key(2), edit).unwrap();
    edited.keystore.expect("a change")
}

/// Why an edit is refused; whatever it was, the keystore stays what it was and edits again.
fn refused<T>(
    keystore: &Keystore,
    edit: impl Fn(&mut Draft<'_>) -> Result<T, Refusal>,
) -> (Reason, String) {
    let changed_nothing = keystore
        .edit(&key(2), |draft| {
            let before = draft.header.clone();
            assert!(edit(draft).is_err());
            assert_eq!(draft.header, before);
            assert!(!draft.keep_aside && !draft.adopted);
            Ok(())
        })
        .unwrap();
    assert!(changed_nothing.keystore.is_none());
    let refusal = keystore.edit(&key(2), edit).err().expect("a refusal");
    (refusal.reason, refusal.message)
}

fn all(keystore: &Keystore) -> Vec<(Generation, Fingerprint)> {
    keystore.generations().iter().map(|entry| (entry.generation, entry.fingerprint)).collect()
}

fn prepared(keystore: &Keystore) -> Keystore {
    after(keystore, |draft| draft.prepare(NOW, 0))
}

fn backed_up(keystore: &Keystore) -> Keystore {
    after(keystore, |draft| Ok(draft.record_backup(&all(keystore), NOW + Duration::DAY)))
}

fn distributed(keystore: &Keystore) -> Keystore {
    let ready = backed_up(&prepared(keystore));
    let coming = ready.generations().last().unwrap().generation;
    after(&ready, |draft| draft.distribute(coming, &[], 0))
}

fn rotated(keystore: &Keystore) -> Keystore {
    let ready = distributed(keystore);
    let coming = ready.generations().last().unwrap().generation;
    after(&ready, |draft| draft.activate(coming, NOW + Duration::WEEK))
}

fn retired(keystore: &Keystore) -> Keystore {
    after(&rotated(keystore), |draft| draft.retire(generation(1)))
}

fn destroyed(keystore: &Keystore) -> Keystore {
    without_first(&retired(keystore))
}

fn without_first(keystore: &Keystore) -> Keystore {
    let fingerprint = Fingerprint::of(&key(1)).to_string();
    after(keystore, |draft| draft.destroy(generation(1), &fingerprint))
}

/// A copy that another master made of it.
fn standby(keystore: &Keystore, member: u128) -> Keystore {
    let (header, keys) = transfer(keystore);
    Keystore::from_transfer(&header, keys, Uuid::from_u128(member), &key(2), vec![]).unwrap()
}

fn transfer(keystore: &Keystore) -> (String, Vec<(Generation, LockedKey)>) {
    let ring = keystore.open(&key(2)).unwrap();
    let copied = |generation| LockedKey::from_bytes(ring.key(generation).unwrap().expose());
    let keys = ring.generations().map(|(it, _)| (it, copied(it).unwrap())).collect();
    (keystore.header_for_transfer(), keys)
}

fn states(keystore: &Keystore) -> Vec<(u32, State)> {
    keystore.generations().iter().map(|it| (it.generation.number(), it.state)).collect()
}

#[test]
fn a_generation_lives_from_preparing_to_destroying() {
    let first = keystore();
    let second = prepared(&first);
    assert_eq!(states(&second), [(1, State::Active), (2, State::Prepared)]);
    assert_eq!((second.change(), second.distributed_in()), (2, None));
    assert_eq!(second.open(&key(2)).unwrap().active(), generation(1));

    let second = backed_up(&second);
    let names = ["away".to_owned()];
    let second = after(&second, |draft| draft.distribute(generation(2), &names, 50));
    assert_eq!(states(&second), [(1, State::Active), (2, State::Distributed)]);
    assert_eq!((second.change(), second.distributed_in()), (4, Some(4)));
    assert_eq!(second.reseal_rows_per_second(), 50);
    let second = after(&second, |draft| draft.leave_behind(&["off".to_owned()]));
    assert_eq!(second.left_behind().len(), 2);
    assert_eq!(second.distributed_in(), Some(4));

    let second = after(&second, |draft| draft.activate(generation(2), NOW + Duration::WEEK));
    assert_eq!(states(&second), [(1, State::Draining), (2, State::Active)]);
    assert!(second.left_behind().is_empty() && second.distributed_in().is_none());
    assert_eq!(second.generations()[1].activated, Some(NOW + Duration::WEEK));
    let ring = second.open(&key(2)).unwrap();
    assert_eq!((ring.active(), ring.key(generation(1))), (generation(2), Some(&key(1))));

    let second = after(&second, |draft| draft.retire(generation(1)));
    let fingerprint = Fingerprint::of(&key(1)).to_string();
    let second = after(&second, |draft| draft.destroy(generation(1), &fingerprint));
    assert_eq!(states(&second), [(1, State::Destroyed), (2, State::Active)]);
    assert!(!second.open(&key(2)).unwrap().contains(generation(1)));
    assert!(Keystore::parse(second.to_text().as_bytes()).unwrap().open(&key(2)).is_ok());
}

#[test]
fn the_number_is_above_all_that_were_ever_heard_of() {
    for (highest_known, expected) in [(0, 2), (1, 2), (7, 8)] {
        let found = after(&keystore(), |draft| {
            assert_eq!(draft.prepare(NOW, highest_known)?.0, generation(expected));
            Ok(())
        });
        // Prepared already: it is that one again, and nothing is written.
        let again = found.edit(&key(2), |draft| draft.prepare(NOW, 100)).unwrap();
        assert_eq!(again.value.0, generation(expected));
        assert!(again.keystore.is_none());
    }
    let (reason, _) = refused(&keystore(), |draft| draft.prepare(NOW, u32::MAX));
    assert_eq!(reason, Reason::OutOfRange);
    // A destroyed generation keeps its number.
    let next = prepared(&destroyed(&keystore()));
    assert_eq!(next.generations().last().unwrap().generation, generation(3));
}

#[test]
fn what_a_state_does_not_allow_is_refused_with_name_state_and_advice() {
    type Edit = fn(&mut Draft<'_>) -> Result<(), Refusal>;
    let fingerprint = || Fingerprint::of(&key(1)).to_string();
    let (first, coming) = (keystore(), prepared(&keystore()));
    let ready = backed_up(&coming);
    let cases: Vec<(&Keystore, Edit, Reason, &str)> = vec![
        (
            &coming,
            |draft| draft.distribute(generation(2), &[], 0),
            Reason::BackupMissing,
            "`sso secret backup",
        ),
        (&first, |draft| draft.leave_behind(&["a".into()]), Reason::GenerationStateWrong, "nobody"),
        (
            &first,
            |draft| draft.distribute(generation(1), &[], 0),
            Reason::GenerationStateWrong,
            "is active: only a prepared",
        ),
        (
            &first,
            |draft| draft.distribute(generation(9), &[], 0),
            Reason::GenerationNotFound,
            "generation 9",
        ),
        (
            &ready,
            |draft| draft.distribute(generation(2), &[" ".into()], 0),
            Reason::InvalidRequest,
            "no name",
        ),
        (
            &ready,
            |draft| draft.activate(generation(2), NOW),
            Reason::GenerationStateWrong,
            "is prepared: only a generation that every server has",
        ),
        (
            &first,
            |draft| draft.activate(generation(1), NOW),
            Reason::GenerationStateWrong,
            "is active",
        ),
        (&first, |draft| draft.retire(generation(1)), Reason::GenerationStateWrong, "rotate first"),
        (&ready, |draft| draft.retire(generation(2)), Reason::GenerationStateWrong, "is prepared"),
        (&first, |draft| draft.retire(generation(2)), Reason::GenerationNotFound, "status"),
        (
            &first,
            |draft| draft.destroy(generation(1), "0123456789abcdef"),
            Reason::GenerationFingerprintWrong,
            "0123456789abcdef",
        ),
        (
            &first,
            |draft| draft.destroy(generation(1), &Fingerprint::of(&key(1)).to_string()),
            Reason::GenerationStateWrong,
            "is active: only a retired",
        ),
        (&first, |draft| draft.readmit(""), Reason::InvalidRequest, "no name"),
        (&first, |draft| draft.revoke("").map(drop), Reason::InvalidRequest, "no name"),
        (
            &first,
            |draft| draft.promote(u64::MAX).map(drop),
            Reason::PromotionRefused,
            "who reports",
        ),
    ];
    for (keystore, edit, reason, what) in cases {
        let (found, message) = refused(keystore, edit);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(what), "{what}: {message}");
    }
    let on_its_way = distributed(&keystore());
    let (reason, message) = refused(&on_its_way, |draft| draft.prepare(NOW, 0));
    assert_eq!(reason, Reason::GenerationStateWrong);
    let second = on_its_way.generations()[1].fingerprint.to_string();
    assert!(message.contains(&second) && message.contains("generation 2"), "{message}");
    assert!(message.contains("is distributed") && message.contains("leave"), "{message}");
    let (reason, _) = refused(&on_its_way, |draft| draft.distribute(generation(2), &[], 0));
    assert_eq!(reason, Reason::GenerationStateWrong);

    let (reason, message) =
        refused(&rotated(&keystore()), |draft| draft.destroy(generation(1), &fingerprint()));
    assert_eq!(reason, Reason::GenerationStateWrong);
    assert!(message.contains("is draining") && message.contains(&fingerprint()), "{message}");
    let (reason, _) =
        refused(&destroyed(&keystore()), |draft| draft.destroy(generation(1), &fingerprint()));
    assert_eq!(reason, Reason::GenerationStateWrong);
}

#[test]
fn a_key_that_is_in_no_backup_is_not_destroyed() {
    // Only the second generation was ever seen in a backup.
    let made =
        Keystore::create(Uuid::from_u128(7), Uuid::from_u128(8), &key(1), &key(2), vec![], NOW);
    let ready = prepared(&made.unwrap());
    let second: Vec<_> = all(&ready).into_iter().skip(1).collect();
    let ready = after(&ready, |draft| Ok(draft.record_backup(&second, NOW)));
    let ready = after(&ready, |draft| draft.distribute(generation(2), &[], 0));
    let ready = after(&ready, |draft| draft.activate(generation(2), NOW));
    let ready = after(&ready, |draft| draft.retire(generation(1)));
    let fingerprint = Fingerprint::of(&key(1)).to_string();
    let (reason, message) = refused(&ready, |draft| draft.destroy(generation(1), &fingerprint));
    assert_eq!(reason, Reason::BackupMissing);
    assert!(message.contains(&fingerprint) && message.contains("is retired"), "{message}");
}

#[test]
fn only_what_is_kept_with_the_same_key_counts_as_backed_up() {
    let ready = prepared(&destroyed(&keystore()));
    let foreign = Fingerprint::of(&key(77));
    let mut found = all(&ready);
    assert_eq!(found.len(), 3);
    found[1].1 = foreign;
    found.push((generation(40), foreign));
    let later = NOW + Duration::days(50);
    let edited = ready.edit(&key(2), |draft| Ok(draft.record_backup(&found, later))).unwrap();
    assert_eq!(edited.value, [generation(3)]);
    let recorded = edited.keystore.unwrap();
    let dates: Vec<_> = recorded.generations().iter().map(|entry| entry.backed_up).collect();
    assert_eq!(dates, [Some(NOW + Duration::DAY), Some(NOW + Duration::DAY), Some(later)]);
}

#[test]
fn a_standby_refuses_what_the_primary_does() {
    type Edit = fn(&mut Draft<'_>) -> Result<(), Refusal>;
    let standby = standby(&retired(&keystore()), 9);
    assert!(!standby.is_primary());
    let edits: [Edit; 9] = [
        |draft| draft.prepare(NOW, 0).map(drop),
        |draft| draft.distribute(generation(1), &[], 0),
        |draft| draft.leave_behind(&[]),
        |draft| draft.activate(generation(1), NOW),
        |draft| draft.retire(generation(1)),
        |draft| draft.destroy(generation(1), ""),
        |draft| {
            let ring = KeyRing::new([(generation(1), key(1))], generation(1)).unwrap();
            draft.restore(&ring, NOW).map(drop)
        },
        |draft| draft.revoke("a").map(drop),
        |draft| draft.readmit("a"),
    ];
    for edit in edits {
        let (reason, message) = refused(&standby, edit);
        assert_eq!(reason, Reason::NotPrimary);
        assert!(message.contains("sso secret promote"), "{message}");
        assert!(message.contains(&Uuid::from_u128(8).to_string()), "{message}");
    }
    // A backup that opens is compared all the same, and nothing is on record.
    let seen = all(&standby);
    let edited = standby.edit(&key(2), |draft| Ok(draft.record_backup(&seen, NOW))).unwrap();
    assert_eq!((edited.value.len(), edited.keystore.is_none()), (2, true));
}

#[test]
fn promotion_goes_above_every_epoch() {
    let second = standby(&keystore(), 9);
    for (known, expected) in [(0, 2), (1, 2), (6, 7)] {
        let promoted = after(&second, |draft| draft.promote(known));
        assert_eq!((promoted.epoch(), promoted.is_primary()), (expected, true));
        assert_eq!(promoted.change(), second.change() + 1);
        assert_eq!(promoted.primary(), Uuid::from_u128(9));
    }
    let last = after(&second, |draft| draft.promote(EPOCH_END - 2));
    assert_eq!(last.epoch(), EPOCH_END - 1);
    let (reason, _) = refused(&last, |draft| draft.promote(0));
    assert_eq!(reason, Reason::PromotionRefused);
}

#[test]
fn a_restored_generation_comes_in_as_retired_and_nothing_is_removed() {
    let now = NOW + Duration::days(9);
    let own = destroyed(&keystore());
    let second = own.open(&key(2)).unwrap();
    let copy = || LockedKey::from_bytes(second.key(generation(2)).unwrap().expose()).unwrap();
    let ring = |keys: Vec<(u32, LockedKey)>| {
        KeyRing::new(keys.into_iter().map(|(it, key)| (generation(it), key)), generation(2))
    };
    let whole = ring(vec![(1, key(1)), (2, copy()), (5, key(5))]).unwrap();
    let edited = own.edit(&key(2), |draft| draft.restore(&whole, now)).unwrap();
    assert_eq!(edited.value, [generation(1), generation(5)]);
    assert!(edited.keep_aside);
    let restored = edited.keystore.unwrap();
    let found = [(1, State::Retired), (2, State::Active), (5, State::Retired)];
    assert_eq!(states(&restored), found);
    assert_eq!(restored.open(&key(2)).unwrap(), whole);
    let [first, _, fifth] = restored.generations() else { panic!("three") };
    assert_eq!((first.created, first.backed_up), (NOW, Some(now)));
    assert_eq!((fifth.created, fifth.activated, fifth.backed_up), (now, None, Some(now)));

    let (reason, _) = refused(&restored, |draft| draft.restore(&whole, now));
    assert_eq!(reason, Reason::BackupHasNothingNew);
    for wrong in [vec![(1, key(66)), (2, copy())], vec![(1, key(1)), (2, key(66)), (6, key(6))]] {
        let wrong = ring(wrong).unwrap();
        let (reason, message) = refused(&own, |draft| draft.restore(&wrong, now));
        assert_eq!(reason, Reason::BackupForeign);
        assert!(message.contains("another key"), "{message}");
    }
}

#[test]
fn a_server_is_revoked_once_and_readmitted() {
    let revoked = after(&keystore(), |draft| {
        assert!(draft.revoke("b")?);
        assert!(!draft.revoke("b")?);
        draft.revoke("a")
    });
    assert_eq!(revoked.revocations().revoked().collect::<Vec<_>>(), ["a", "b"]);
    let readmitted = after(&revoked, |draft| draft.readmit("a"));
    assert_eq!(readmitted.revocations().revoked().collect::<Vec<_>>(), ["b"]);
    // Somebody else may have revoked it, of which this keystore has not heard.
    let unheard = after(&keystore(), |draft| draft.readmit("a"));
    assert_eq!(unheard.revocations().iter().collect::<Vec<_>>(), [("a", 2)]);
    let told = [("a".to_owned(), 3), ("b".to_owned(), 2)].into_iter().collect();
    let learnt = after(&unheard, |draft| draft.learn_revocations(&told));
    assert_eq!(learnt.revocations().revoked().collect::<Vec<_>>(), ["a"]);
    let same = readmitted.edit(&key(2), |draft| draft.revoke("b")).unwrap();
    assert!(!same.value && same.keystore.is_none() && same.value == same.keep_aside);
}

fn adopt(own: &Keystore, other: &Keystore) -> Result<Edited<Adopted>, Refusal> {
    let (header, keys) = transfer(other);
    own.edit(&key(2), |draft| draft.adopt(&header, keys))
}

#[test]
fn a_follower_takes_over_what_is_newer_and_stays_who_it_is() {
    let primary = keystore();
    let follower = standby(&primary, 9);
    assert_eq!((follower.member(), follower.primary()), (Uuid::from_u128(9), primary.member()));
    assert_eq!((follower.change(), follower.epoch()), (primary.change(), 1));
    let same = adopt(&follower, &primary).unwrap();
    assert_eq!(same.value, Adopted { newer: false, lost: vec![] });
    assert!(same.keystore.is_none());

    let retired = retired(&primary);
    let newer = after(&without_first(&retired), |draft| draft.revoke("a"));
    let adopted = adopt(&follower, &newer).unwrap();
    // It was away while the first one was retired and destroyed, and knows no reason for that.
    let first = (generation(1), primary.generations()[0].fingerprint);
    assert_eq!(adopted.value, Adopted { newer: true, lost: vec![first] });
    assert!(adopted.keep_aside);
    let then = adopt(&follower, &retired).unwrap();
    assert!(!then.keep_aside);
    assert!(!adopt(&then.keystore.unwrap(), &newer).unwrap().keep_aside);
    let adopted = adopted.keystore.unwrap();
    assert_eq!((adopted.member(), adopted.change()), (Uuid::from_u128(9), newer.change()));
    assert_eq!(states(&adopted), states(&newer));
    assert_eq!(adopted.revocations(), newer.revocations());
    assert_eq!(adopted.open(&key(2)).unwrap(), newer.open(&key(2)).unwrap());
    assert_eq!(
        adopted.header_for_transfer(),
        newer.header_for_transfer().replace(
            &format!("\"member\":\"{}\"", newer.member()),
            &format!("\"member\":\"{}\"", adopted.member()),
        )
    );
    // What is older, of the same primary, is left alone.
    assert!(!adopt(&adopted, &primary).unwrap().value.newer);
}

#[test]
fn who_lost_the_leadership_keeps_aside_what_it_alone_has() {
    let old_primary = keystore();
    let new_primary = after(&standby(&old_primary, 9), |draft| draft.promote(0));
    // Two keys for the number 2.
    let (old_primary, new_primary) = (prepared(&old_primary), prepared(&new_primary));
    let diverged = all(&old_primary)[1];
    let adopted = adopt(&old_primary, &new_primary).unwrap();
    assert_eq!(adopted.value, Adopted { newer: true, lost: vec![diverged] });
    assert!(adopted.keep_aside);
    let adopted = adopted.keystore.unwrap();
    assert!(!adopted.is_primary());
    assert_eq!((adopted.epoch(), all(&adopted)), (2, all(&new_primary)));

    // The other way round it is refused.
    let error = adopt(&new_primary, &old_primary).unwrap_err();
    assert_eq!(error.reason, Reason::MasterOutdated);
    // The same epoch promoted twice: nobody gives way by itself.
    let third = after(&standby(&keystore(), 10), |draft| draft.promote(0));
    let error = adopt(&new_primary, &prepared(&third)).unwrap_err();
    assert_eq!(error.reason, Reason::MasterOutdated);
    assert!(error.message.contains("two primaries"), "{error}");
}

#[test]
fn what_is_no_keystore_of_this_system_is_not_adopted() {
    let own = keystore();
    let foreign =
        Keystore::create(Uuid::from_u128(70), Uuid::from_u128(8), &key(1), &key(2), vec![], NOW);
    let error = adopt(&own, &prepared(&foreign.unwrap())).unwrap_err();
    assert_eq!(error.reason, Reason::MasterSecretForeign);

    let newer = prepared(&own);
    let (header, _) = transfer(&newer);
    type Keys = Vec<(Generation, LockedKey)>;
    type Change = fn(Keys) -> Keys;
    let changes: [(&str, Change, String); 5] = [
        (
            "no key came with generation 2",
            |keys| keys.into_iter().take(1).collect(),
            header.clone(),
        ),
        (
            "another key came with generation 2",
            |keys| keys.into_iter().map(|(it, _)| (it, key(1))).collect(),
            header.clone(),
        ),
        (
            "a key of generation 9 came",
            |keys| keys.into_iter().chain([(generation(9), key(1))]).collect(),
            header.clone(),
        ),
        ("not exactly one", |keys| keys, header.replace("\"active\"", "\"draining\"")),
        ("EOF", |keys| keys, header[..40].to_owned()),
    ];
    for (what, change, header) in changes {
        let (_, keys) = transfer(&newer);
        let error = own.edit(&key(2), |draft| draft.adopt(&header, change(keys))).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidRequest, "{error}");
        assert!(error.message.contains(what), "{what}: {error}");
    }
    let far = header.replace("\"epoch\":1", &format!("\"epoch\":{}", u64::MAX));
    let error = own.edit(&key(2), |draft| draft.adopt(&far, transfer(&newer).1)).unwrap_err();
    assert!(error.message.contains("no epoch"), "{error}");
}

proptest! {
    #[test]
    fn adopting_anything_never_panics(header in any::<String>()) {
        let adopted = keystore().edit(&key(2), |draft| draft.adopt(&header, vec![]));
        prop_assert!(adopted.is_err());
    }
}
