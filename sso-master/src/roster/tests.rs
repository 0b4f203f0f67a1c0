use std::sync::Arc;

use sso_proto::{Reason, v1::ReportRequest};
use time::macros::datetime;

use super::{report::from_ms, *};

const PRIMARY: Uuid = Uuid::from_u128(1);

fn roster() -> (Clock, Arc<Roster>) {
    let clock = Clock::manual(datetime!(2030-01-01 0:00 UTC));
    let names = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    let (servers, masters) = (names(&["a", "b"]), names(&["standby"]));
    let roster = Roster::new(clock.clone(), Duration::from_secs(2), servers, masters);
    (clock, Arc::new(roster))
}

fn report(version: u64, epoch: u64) -> Report {
    let request = ReportRequest {
        instance: Uuid::nil().to_string(),
        version,
        epoch,
        primary: PRIMARY.to_string(),
        read_lease_left_ms: 60_000,
        ..ReportRequest::default()
    };
    Report::parse(request).unwrap().1
}

fn missing(roster: &Roster, revoked: &[&str], left_behind: &[&str]) -> Vec<String> {
    let set = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    let left_behind: BTreeSet<_> = set(left_behind);
    let revoked = revoked.iter().map(|&it| (it.to_owned(), 1)).collect();
    roster.missing(&Wanted {
        version: 5,
        epoch: 2,
        primary: PRIMARY,
        left_behind: &left_behind,
        revoked: &revoked,
        fingerprint: None,
    })
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

#[test]
fn everybody_of_the_settings_is_waited_for_by_name() {
    let (_, roster) = roster();
    assert_eq!(missing(&roster, &[], &[]).len(), 3);
    assert!(missing(&roster, &[], &[])[0].starts_with("a: not heard of"));
    roster.report(Kind::Server, "a", id(1), report(5, 2));
    roster.report(Kind::Server, "b", id(2), report(4, 2));
    roster.report(Kind::Master, "standby", id(3), report(6, 2));
    assert_eq!(missing(&roster, &[], &[]), ["b: holds version 4, not yet 5"]);
    assert_eq!(missing(&roster, &["b"], &[]), [""; 0]);
    assert_eq!(missing(&roster, &[], &["b"]), [""; 0]);
    let nobody = missing(&roster, &["a"], &["b"]);
    assert!(nobody[0].starts_with("an SSO server"), "{nobody:?}");
    roster.report(Kind::Server, "b", id(2), report(5, 2));
    assert_eq!(missing(&roster, &[], &[]), [""; 0]);
}

#[test]
fn another_epoch_or_primary_does_not_count() {
    let (_, roster) = roster();
    roster.report(Kind::Server, "a", id(1), report(9, 1));
    let other = Report { primary: Some(id(9)), ..report(9, 2) };
    roster.report(Kind::Server, "b", id(2), other);
    let older = Report { held_epoch: Some(1), ..report(9, 2) };
    roster.report(Kind::Master, "standby", id(3), older);
    let missing = missing(&roster, &[], &[]);
    assert_eq!(missing.len(), 3, "{missing:?}");
    assert!(missing[2].contains("keys of epoch 1"), "{missing:?}");
}

#[test]
fn every_live_process_of_a_name_counts_and_silent_ones_are_followed() {
    let (clock, roster) = roster();
    roster.report(Kind::Server, "b", id(2), report(5, 2));
    roster.report(Kind::Master, "standby", id(3), report(5, 2));
    roster.report(Kind::Server, "a", id(1), report(4, 2));
    roster.report(Kind::Server, "a", id(4), report(5, 2));
    assert_eq!(missing(&roster, &[], &[]), ["a: holds version 4, not yet 5"]);
    clock.advance(Duration::from_secs(5));
    roster.report(Kind::Server, "a", id(4), report(5, 2));
    roster.report(Kind::Server, "b", id(2), report(5, 2));
    roster.report(Kind::Master, "standby", id(3), report(5, 2));
    clock.advance(Duration::from_secs(2));
    assert_eq!(missing(&roster, &[], &[]), [""; 0]);
    clock.advance(Duration::from_secs(5));
    let names = missing(&roster, &[], &[]);
    assert_eq!(names.len(), 3);
    assert_eq!(names[0], "a: silent for 7 s");
}

#[test]
fn who_watches_is_live_however_long_it_says_nothing() {
    let (clock, roster) = roster();
    let none = Revocations::default();
    assert!(!roster.any_server(&none));
    let watching = roster.watch(Kind::Server, "a", id(1));
    clock.advance(Duration::from_secs(600));
    assert!(roster.any_server(&none) && roster.watches(Kind::Server, "a") == 1);
    assert!(!roster.any_server(&[("a".to_owned(), 1)].into_iter().collect()));
    assert!(missing(&roster, &[], &[])[0].contains("has not reported yet"));
    drop(watching);
    assert_eq!(roster.watches(Kind::Server, "a"), 0);
    clock.advance(Duration::from_secs(7));
    assert!(!roster.any_server(&none));
}

#[test]
fn processes_are_forgotten_after_their_leases() {
    let (clock, roster) = roster();
    roster.report(Kind::Server, "a", id(1), report(5, 2));
    assert_eq!(roster.keys_until("a"), Some(datetime!(2030-01-01 0:01 UTC)));
    clock.advance(Duration::from_secs(66));
    roster.report(Kind::Server, "a", id(2), report(5, 2));
    assert_eq!(roster.book()[&(Kind::Server, "a".to_owned())].instances.len(), 2);
    clock.advance(Duration::from_secs(1));
    roster.report(Kind::Server, "a", id(2), report(5, 2));
    assert_eq!(roster.book()[&(Kind::Server, "a".to_owned())].instances.len(), 1);
    for number in 10..100 {
        roster.report(Kind::Server, "a", id(number), report(5, 2));
    }
    assert_eq!(roster.book()[&(Kind::Server, "a".to_owned())].instances.len(), INSTANCES);
    roster.report(Kind::Server, "nobody", id(1), report(5, 2));
    assert!(!roster.lists(Kind::Server, "nobody"));
}

#[test]
fn facts_are_the_newest_count_and_what_is_closed_stays_closed() {
    let (_, roster) = roster();
    assert!(!roster.facts().known);
    let counted =
        |rows, closed| Counted { generation: 1, fingerprint: "aa".to_owned(), rows, closed };
    let at = |ms, it| Report { generations: vec![it], counted_at: from_ms(ms), ..report(5, 3) };
    roster.report(Kind::Server, "a", id(1), at(2000, counted(7, true)));
    roster.report(Kind::Server, "b", id(2), at(1000, counted(9, false)));
    let facts = roster.facts();
    assert!(facts.known && facts.epoch == 3 && facts.primary == Some(PRIMARY));
    let kept = &facts.generations[&(1, "aa".to_owned())];
    assert_eq!((kept.rows, kept.closed), (7, true));
    assert_eq!(facts.counted_at, from_ms(2000));
}

#[test]
fn facts_of_an_epoch_are_what_live_servers_say_by_it() {
    let (clock, roster) = roster();
    let counted = |closed| Counted { generation: 1, fingerprint: "aa".to_owned(), rows: 0, closed };
    let says = |epoch, closed| Report { generations: vec![counted(closed)], ..report(5, epoch) };
    let closed = |roster: &Roster| {
        let facts = roster.facts_of(3, PRIMARY);
        facts.generations.get(&(1, "aa".to_owned())).map(|it| it.closed)
    };
    roster.report(Kind::Server, "a", id(1), says(2, true));
    assert!(!roster.facts_of(3, PRIMARY).known);
    let rival = Report { primary: Some(id(9)), ..says(3, true) };
    roster.report(Kind::Server, "a", id(2), rival);
    assert_eq!(closed(&roster), None);
    roster.report(Kind::Server, "b", id(3), says(3, false));
    assert_eq!(closed(&roster), Some(false));
    // One of them may have a copy of the database.
    roster.report(Kind::Server, "b", id(4), says(3, true));
    assert_eq!(closed(&roster), Some(false));
    roster.report(Kind::Server, "b", id(3), says(3, true));
    assert_eq!(closed(&roster), Some(true));
    // The process is gone, and its database may have been put back since.
    clock.advance(Duration::from_secs(7));
    roster.report(Kind::Server, "b", id(3), says(3, false));
    assert_eq!(closed(&roster), Some(false));
    assert!(roster.facts().generations.values().all(|it| it.closed));
}

#[test]
fn refusals_to_close_count_from_a_moment_on() {
    let (clock, roster) = roster();
    let refused = Report { close_refusals: vec![(1, "7 rows".to_owned())], ..report(5, 2) };
    roster.report(Kind::Server, "a", id(1), refused.clone());
    clock.advance(Duration::from_secs(1));
    let since = clock.instant();
    assert!(roster.close_refusals(1, since).is_empty());
    roster.report(Kind::Server, "a", id(1), refused);
    assert_eq!(roster.close_refusals(1, since), [("a".to_owned(), "7 rows".to_owned())]);
    assert!(roster.close_refusals(2, since).is_empty());
}

#[test]
fn ids_that_are_none_are_refused() {
    for (instance, primary) in [("", ""), ("x", ""), ("00000000-0000-0000-0000-000000000001", "x")]
    {
        let request = ReportRequest {
            instance: instance.to_owned(),
            primary: primary.to_owned(),
            ..ReportRequest::default()
        };
        assert_eq!(Report::parse(request).unwrap_err().reason, Reason::InvalidRequest);
    }
}

#[test]
fn what_databases_remember_of_revocations_is_told_for_servers_of_the_settings() {
    let (_, roster) = roster();
    let says = |numbers: &[(&str, u32)]| Report {
        revocations: numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
        ..report(5, 2)
    };
    roster.report(Kind::Server, "a", id(1), says(&[("a", 1), ("b", 2), ("stranger", 1)]));
    roster.report(Kind::Server, "b", id(2), says(&[("a", 2), ("b", 3)]));
    let told = roster.revocations();
    assert_eq!(told.iter().collect::<Vec<_>>(), [("a", 1), ("b", 3)]);
}

#[test]
fn who_has_the_version_but_not_the_key_is_waited_for() {
    let holds = Report { held_fingerprints: vec!["aa".to_owned()], ..report(5, 2) };
    let (left_behind, revoked) = (BTreeSet::new(), Revocations::default());
    let lacks = |fingerprint: &str| {
        holds.lacks(&Wanted {
            version: 5,
            epoch: 2,
            primary: PRIMARY,
            left_behind: &left_behind,
            revoked: &revoked,
            fingerprint: Some(fingerprint.to_owned()),
        })
    };
    assert_eq!(lacks("aa"), None);
    assert!(lacks("bb").unwrap().contains("fingerprint bb"));
}
