//! Random lives: whatever is called in whatever order, the rules hold.

use std::collections::BTreeMap;

use super::*;

/// One call, with numbers that mostly mean something.
#[derive(Clone, Debug)]
enum Call {
    Prepare(u32),
    Backup,
    Distribute(u32, bool),
    LeaveBehind,
    Activate(u32),
    Retire(u32),
    Destroy(u32, bool),
    Restore,
    Promote(u64),
    Revoke(u8),
    Readmit(u8),
    /// The second master takes over what the first has, or the other way round.
    Adopt,
}

fn calls() -> impl Strategy<Value = Vec<(bool, Call)>> {
    let number = 0u32..7;
    let call = prop_oneof![
        4 => (0u32..5).prop_map(Call::Prepare),
        4 => Just(Call::Backup),
        4 => (number.clone(), any::<bool>()).prop_map(|(it, named)| Call::Distribute(it, named)),
        1 => Just(Call::LeaveBehind),
        4 => number.clone().prop_map(Call::Activate),
        3 => number.clone().prop_map(Call::Retire),
        3 => (number, prop::bool::weighted(0.8)).prop_map(|(it, right)| Call::Destroy(it, right)),
        1 => Just(Call::Restore),
        1 => (0u64..6).prop_map(Call::Promote),
        1 => (0u8..3).prop_map(Call::Revoke),
        1 => (0u8..3).prop_map(Call::Readmit),
        2 => Just(Call::Adopt),
    ];
    prop::collection::vec((prop::bool::weighted(0.8), call), 1..40)
}

/// Everything that ever was a key, as backups of the whole time have it.
type Ever = BTreeMap<Generation, LockedKey>;

fn perform(
    own: &Keystore,
    call: &Call,
    ever: &Ever,
    other: &Keystore,
) -> Result<Edited<()>, Refusal> {
    let seen = all(own);
    let at = |number: u32| generation(number.max(1));
    let named = |right: bool, number: u32| {
        let found = seen.iter().find(|(it, _)| right && *it == at(number));
        found.map_or_else(|| "0000000000000000".to_owned(), |(_, it)| it.to_string())
    };
    let names = |named: bool| if named { vec!["away".to_owned()] } else { vec![] };
    own.edit(&key(2), |draft| {
        let before = draft.header.clone();
        let done = match call {
            Call::Prepare(highest) => draft.prepare(NOW, *highest).map(drop),
            Call::Backup => {
                draft.record_backup(&seen, NOW);
                Ok(())
            }
            Call::Distribute(number, named) => {
                draft.distribute(at(*number), &names(*named), *number)
            }
            Call::LeaveBehind => draft.leave_behind(&names(true)),
            Call::Activate(number) => draft.activate(at(*number), NOW),
            Call::Retire(number) => draft.retire(at(*number)),
            Call::Destroy(number, right) => draft.destroy(at(*number), &named(*right, *number)),
            Call::Restore => {
                let copied = |key: &LockedKey| LockedKey::from_bytes(key.expose()).unwrap();
                let keys = ever.iter().map(|(generation, key)| (*generation, copied(key)));
                draft.restore(&KeyRing::new(keys, Generation::FIRST).unwrap(), NOW).map(drop)
            }
            Call::Promote(known) => draft.promote(*known).map(drop),
            Call::Revoke(name) => draft.revoke(&name.to_string()).map(drop),
            Call::Readmit(name) => draft.readmit(&name.to_string()),
            Call::Adopt => {
                let (header, keys) = transfer(other);
                draft.adopt(&header, keys).map(drop)
            }
        };
        // Who refuses has changed nothing.
        assert!(done.is_ok() || draft.header == before, "{call:?}");
        done
    })
}

/// What has to hold from one keystore to the next.
fn check(before: &Keystore, after: &Keystore, call: &Call, edited: &Edited<()>) {
    assert_eq!(after.header.check(), Ok(()), "{call:?}");
    assert_eq!(Keystore::parse(after.to_text().as_bytes()).as_ref(), Ok(after));
    let (old, new) = (before.open(&key(2)).unwrap(), after.open(&key(2)).unwrap());
    let adopted = matches!(call, Call::Adopt);
    let mut gone = 0;
    for (generation, fingerprint) in old.generations() {
        if new.fingerprint(generation) == Some(fingerprint) {
            continue;
        }
        gone += 1;
        let entry = after.generations().iter().find(|it| it.generation == generation);
        let destroyed = entry.is_some_and(|it| {
            it.state == State::Destroyed && it.fingerprint == fingerprint && it.backed_up.is_some()
        });
        assert!(destroyed || (adopted && edited.keep_aside), "{call:?} lost {generation}");
    }
    assert!(gone == 0 || adopted || (gone == 1 && matches!(call, Call::Destroy(_, true))));
    assert!((after.epoch(), after.change()) > (before.epoch(), before.change()), "{call:?}");
    assert_eq!((after.id(), after.member()), (before.id(), before.member()));
    if new.active() != old.active() && !adopted {
        let active = after.generations().iter().find(|it| it.state == State::Active).unwrap();
        assert!(active.backed_up.is_some() && active.generation > old.active());
        let was = before.generations().iter().find(|it| it.generation == active.generation);
        assert_eq!(was.unwrap().state, State::Distributed);
    }
    for entry in after.generations() {
        let was = before.generations().iter().find(|it| it.generation == entry.generation);
        // Servers get nothing that no backup has, but the first generation of a keystore.
        let handed_out = entry.state.is_handed_out() && entry.generation > Generation::FIRST;
        assert!(!handed_out || entry.backed_up.is_some(), "{call:?}");
        // A number means one key for ever, as long as nobody else is followed.
        assert!(adopted || was.is_none_or(|was| was.fingerprint == entry.fingerprint), "{call:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn random_lives_keep_every_rule(calls in calls()) {
        let mut masters = [keystore(), standby(&keystore(), 9)];
        let first = || Ever::from([(Generation::FIRST, key(1))]);
        let mut ever = [first(), first()];
        for (of_first, call) in calls {
            let at = usize::from(!of_first);
            let before = masters[at].clone();
            let result = perform(&before, &call, &ever[at], &masters[1 - at]);
            prop_assert_eq!(&masters[at], &before);
            let Ok(edited) = result else { continue };
            let Some(after) = edited.keystore.clone() else { continue };
            check(&before, &after, &call, &edited);
            for (generation, key) in transfer(&after).1 {
                ever[at].insert(generation, key);
            }
            masters[at] = after;
        }
    }
}

/// The random lives are worth something only if they get far.
#[test]
fn a_chosen_life_goes_all_the_way() {
    let calls = [
        Call::Prepare(0),
        Call::Backup,
        Call::Distribute(2, true),
        Call::LeaveBehind,
        Call::Activate(2),
        Call::Retire(1),
        Call::Destroy(1, true),
        Call::Restore,
        Call::Revoke(1),
        Call::Readmit(1),
        Call::Promote(3),
    ];
    let mut own = keystore();
    let ever = Ever::from([(Generation::FIRST, key(1))]);
    for call in &calls {
        let edited = perform(&own, call, &ever, &keystore()).unwrap();
        let Some(after) = edited.keystore.clone() else { continue };
        check(&own, &after, call, &edited);
        own = after;
    }
    assert_eq!(states(&own), [(1, State::Retired), (2, State::Active)]);
    assert_eq!(own.epoch(), 4);
}
