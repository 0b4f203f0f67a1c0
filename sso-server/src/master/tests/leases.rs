//! Leases by a clock that the test moves, without a network.

use super::*;
use crate::master::{
    DatabaseFacts,
    link::Warned,
    notes::{Failure, Verdict, Word},
};

/// Of the first master.
fn word(epoch: u64, version: u64) -> Word {
    Word::of(Heartbeat { epoch, ..beat_of(&ring(&[1], 1), version) }).unwrap()
}

#[test]
fn leases_decide_who_gets_keys() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    assert!(secret.keys_for_write().is_ok());
    assert_eq!(secret.status().state, MasterState::Current);
    assert_eq!(secret.status().active, Some(1));

    clock.advance(Duration::from_secs(15));
    assert!(matches!(secret.keys_for_write(), Err(MasterError::Unreachable { .. })));
    assert!(secret.keys_for_read().is_ok());
    let status = secret.status();
    assert_eq!(status.state, MasterState::ReadOnly);
    assert!(status.write_lease_until.is_none() && status.read_lease_until.is_some());

    clock.advance(Duration::from_secs(43_200));
    assert!(matches!(secret.keys_for_read(), Err(MasterError::Expired { .. })));
    assert!(matches!(secret.keys_for_write(), Err(MasterError::Expired { .. })));
    let status = secret.status();
    assert_eq!((status.state, status.active), (MasterState::Expired, None));
    assert!(status.generations.is_empty() && status.read_lease_until.is_none());
}

#[test]
fn keys_are_forgotten_without_being_asked_for() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    secret.forget_expired();
    assert!(secret.keys.load().is_some());
    clock.advance(Duration::from_secs(43_200));
    secret.forget_expired();
    assert!(secret.keys.load().is_none());
    assert_eq!(secret.status().version, 0);
    assert_eq!(secret.orders().borrow().active, None);
}

#[test]
fn a_failure_ends_writing_at_once_and_a_word_brings_it_back() {
    let secret = MasterSecret::holding(ring(&[1], 1), manual());
    secret.fail(0, Failure::Away("connection refused".into()));
    let error = Error::from(secret.keys_for_write().unwrap_err());
    assert_eq!(error.reason, Reason::MasterUnreachable);
    assert!(error.message.contains("connection refused"), "{error}");
    assert!(secret.keys_for_read().is_ok());
    let word = word(1, 1);
    assert_eq!(secret.hear(0, &word, secret.clock.instant()), Ok(Verdict::Confirms));
    assert!(secret.keys_for_write().is_ok());
    assert_eq!(secret.status().last_error, None);
}

#[test]
fn a_confirmation_holds_from_its_own_instant() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    let asked = clock.instant();
    clock.advance(Duration::from_secs(20));
    assert_eq!(secret.hear(0, &word(1, 1), asked), Ok(Verdict::Confirms));
    assert!(secret.keys_for_write().is_err());
    assert!(secret.keys_for_read().is_ok());
}

#[test]
fn an_older_version_counts_while_a_newer_one_is_held() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    secret.adopt(0, ring(&[1], 1), &word(1, 3), clock.instant()).unwrap();
    // On its way when the newer one was taken.
    assert_eq!(secret.hear(0, &word(1, 2), clock.instant()), Ok(Verdict::Overtaken));
    clock.advance(Duration::from_secs(2));
    let refused = secret.hear(0, &word(1, 2), clock.instant()).unwrap_err();
    assert!(matches!(&refused, Failure::Outdated(why) if why.contains("change 2")), "{refused:?}");
    assert_eq!(secret.hear(0, &word(1, 3), clock.instant()), Ok(Verdict::Confirms));
    clock.advance(Duration::from_secs(43_200));
    assert_eq!(secret.hear(0, &word(1, 2), clock.instant()), Ok(Verdict::New));
}

#[test]
fn a_later_epoch_counts_more_than_a_later_version() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    secret.adopt(0, ring(&[1], 1), &word(1, 9), clock.instant()).unwrap();
    assert_eq!(secret.hear(0, &word(2, 3), clock.instant()), Ok(Verdict::New));
    secret.adopt(0, ring(&[1], 1), &word(2, 3), clock.instant()).unwrap();
    assert_eq!((secret.status().epoch, secret.status().version), (2, 3));
    let refused = secret.hear(0, &word(1, 9), clock.instant()).unwrap_err();
    assert!(matches!(&refused, Failure::Outdated(why) if why.contains("epoch 1")), "{refused:?}");
}

#[test]
fn the_epoch_of_the_database_binds_whoever_speaks() {
    let clock = manual();
    let secret = MasterSecret::holding(ring(&[1], 1), clock.clone());
    let facts = |epoch, primary| DatabaseFacts { epoch, primary, ..DatabaseFacts::default() };
    secret.tell(facts(1, Some(FIRST)));
    assert_eq!(secret.hear(0, &word(1, 1), clock.instant()), Ok(Verdict::Confirms));
    secret.tell(facts(2, Some(SECOND)));
    assert!(matches!(secret.hear(0, &word(1, 1), clock.instant()), Err(Failure::Outdated(_))));
    // Two masters cannot lead the same epoch.
    assert!(matches!(secret.hear(0, &word(2, 1), clock.instant()), Err(Failure::Outdated(_))));
    // What was true before is not true again.
    secret.tell(facts(1, Some(FIRST)));
    assert!(matches!(secret.hear(0, &word(1, 1), clock.instant()), Err(Failure::Outdated(_))));
}

#[test]
fn warnings_come_once_at_half_and_once_at_a_fifth() {
    let mut warned = Warned::default();
    for (left, expected) in [
        (100, Warned::Not),
        (51, Warned::Not),
        (50, Warned::AtHalf),
        (21, Warned::AtHalf),
        (20, Warned::AtFifth),
        (1, Warned::AtFifth),
        (100, Warned::Not),
        (10, Warned::AtFifth),
    ] {
        warned.warn(Duration::from_secs(left), Duration::from_secs(100));
        assert_eq!(warned, expected, "{left}");
    }
}

#[test]
fn states_have_words() {
    for state in MasterState::ALL {
        assert_eq!(MasterState::parse(state.as_str()), Some(state));
    }
    assert_eq!(MasterState::parse("other"), None);
}
