//! What the checker is asked.

use std::collections::BTreeSet;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use stateright::{Checker, HasDiscoveries, Model as _, Property};

use crate::{
    properties::{
        ACKNOWLEDGED, ADMITTED, ALWAYS, BACKED_UP, COMPLETE, KEPT, ONE_PRIMARY, READABLE,
        REPLICATED, RESTORABLE, WRITABLE,
    },
    system::{Bounds, Broken, Life},
};

/// One master, two servers, one row that is written twice and sealed again by whoever has the work.
const ONE_MASTER: Bounds = Bounds {
    masters: 1,
    servers: 2,
    rows: 1,
    keys: 2,
    writes: 2,
    crashes: 0,
    promotions: 0,
    works: 1,
    left_behind: false,
    destroy: true,
    leases: false,
    primary_lost: false,
    standby_behind: false,
};
/// A primary, a standby that may be promoted at any time, and one server.
const STANDBY: Bounds = Bounds { masters: 2, servers: 1, writes: 1, promotions: 1, ..ONE_MASTER };

/// The most states that a search of a large configuration looks at.
const MOST: usize = 200_000;
/// How many runs at random, and how many steps are tried in each.
const WALKS: u64 = 400;
const STEPS: usize = 600;

/// Every order of the steps: all of `ALWAYS` hold, and all of `sometimes` happen.
fn holds_everywhere(bounds: Bounds, sometimes: &[&'static str]) {
    let checker = Life { bounds, broken: None }.checker().spawn_bfs().join();
    report(&checker);
    assert!(checker.is_done());
    assert_holds(&checker);
    for name in sometimes {
        assert!(checker.discovery(name).is_some(), "nothing ever {name}");
    }
}

/// Every order of so many steps as fit into the bound, then long ones at random.
fn holds_where_looked(bounds: Bounds, sometimes: &[&'static str]) {
    let near = Life { bounds, broken: None }.checker().target_state_count(MOST).spawn_bfs().join();
    report(&near);
    assert_holds(&near);
    let mut seen: BTreeSet<_> = near.discoveries().into_keys().collect();
    for seed in 1..=WALKS {
        seen.extend(walk(bounds, seed));
    }
    for name in sometimes {
        assert!(seen.contains(name), "nothing ever {name}");
    }
}

/// One long run of steps at random; the names of what happened in it.
fn walk(bounds: Bounds, seed: u64) -> BTreeSet<&'static str> {
    let model = Life { bounds, broken: None };
    let properties = model.properties();
    let mut random = StdRng::seed_from_u64(seed);
    let mut state = model.init_states().remove(0);
    let (mut taken, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..STEPS {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        if actions.is_empty() {
            break;
        }
        let action = actions[random.random_range(0..actions.len())];
        let Some(next) = model.next_state(&state, action) else { continue };
        state = next;
        taken.push(format!("\n  {action:?}"));
        for Property { name, condition, .. } in &properties {
            let holds = condition(&model, &state);
            let always = ALWAYS.contains(name);
            assert!(holds || !always, "broken: {name}, seed {seed}{}", taken.concat());
            if holds && !always {
                seen.insert(*name);
            }
        }
    }
    seen
}

/// With this rule left out, the property breaks, and the checker says how. With it, it holds in the
/// tests above.
fn is_needed(broken: Broken, bounds: Bounds, property: &'static str) {
    let model = Life { bounds, broken: Some(broken) };
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
        .spawn_bfs()
        .join();
    report(&checker);
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{property}: holds without {broken:?}"));
    println!("{broken:?}: {:?}", path.into_actions());
}

fn report(checker: &impl Checker<Life>) {
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{states} states, depth {depth}");
}

fn assert_holds(checker: &impl Checker<Life>) {
    for name in ALWAYS {
        if let Some(path) = checker.discovery(name) {
            let steps: Vec<_> =
                path.into_actions().iter().map(|action| format!("\n  {action:?}")).collect();
            panic!("broken: {name}{}", steps.concat());
        }
    }
}

#[test]
fn a_rotation_under_writes_by_two_servers() {
    let sometimes = ["rotated", "destroyed", "sealed again", "late write refused"];
    holds_everywhere(ONE_MASTER, &sometimes);
}

#[test]
fn a_rotation_with_kills_and_leases_that_end() {
    let bounds = Bounds { writes: 1, crashes: 1, leases: true, servers: 1, ..ONE_MASTER };
    holds_everywhere(bounds, &["rotated", "destroyed"]);
}

#[test]
fn two_servers_that_seal_again_at_once() {
    let bounds = Bounds { works: 2, writes: 1, destroy: false, ..ONE_MASTER };
    holds_everywhere(bounds, &["sealed again", "rotated"]);
}

#[test]
fn a_promotion_at_any_moment_of_a_rotation() {
    let sometimes =
        ["promoted", "stepped down", "rotated after a promotion", "destroyed", "sealed again"];
    holds_everywhere(STANDBY, &sometimes);
}

#[test]
fn a_promotion_with_kills_and_leases_that_end() {
    let bounds = Bounds { crashes: 1, leases: true, ..STANDBY };
    holds_where_looked(bounds, &["promoted", "stepped down"]);
}

#[test]
fn two_rotations_of_which_the_second_begins_while_the_first_drains() {
    let bounds = Bounds { keys: 3, servers: 1, writes: 1, rows: 2, ..ONE_MASTER };
    holds_where_looked(bounds, &["rotated twice"]);
}

#[test]
fn servers_and_masters_that_are_left_behind_or_revoked() {
    let bounds = Bounds { left_behind: true, keys: 3, servers: 2, ..STANDBY };
    holds_where_looked(bounds, &["promoted", "stepped down"]);
}

#[test]
fn two_that_are_promoted_after_the_primary_was_lost() {
    let bounds = Bounds { primary_lost: true, promotions: 2, keys: 3, ..STANDBY };
    holds_where_looked(bounds, &["promoted", "stepped down"]);
}

#[test]
fn a_promotion_with_two_servers() {
    let bounds = Bounds { servers: 2, works: 0, destroy: false, ..STANDBY };
    holds_where_looked(bounds, &["promoted", "stepped down"]);
}

#[test]
fn a_standby_that_was_left_behind_is_promoted() {
    let bounds = Bounds { standby_behind: true, ..STANDBY };
    holds_everywhere(bounds, &["rotated after a promotion", "stepped down", "sealed again"]);
}

#[test]
fn writes_must_hold_their_generation() {
    is_needed(Broken::HoldGeneration, ONE_MASTER, KEPT);
}

#[test]
fn a_count_must_come_before_the_close() {
    is_needed(Broken::Count, ONE_MASTER, KEPT);
}

#[test]
fn every_server_must_have_acknowledged() {
    is_needed(Broken::Acknowledgements, ONE_MASTER, READABLE);
}

#[test]
fn a_backup_must_come_first() {
    is_needed(Broken::Backup, ONE_MASTER, BACKED_UP);
}

#[test]
fn sealing_again_must_compare_and_swap() {
    is_needed(Broken::CompareAndSwap, ONE_MASTER, ACKNOWLEDGED);
}

#[test]
fn key_rings_must_be_admitted_by_the_database() {
    is_needed(Broken::Admission, STANDBY, ONE_PRIMARY);
}

#[test]
fn the_standby_must_have_what_is_activated() {
    is_needed(Broken::Replication, STANDBY, REPLICATED);
}

#[test]
fn only_who_the_database_follows_may_take_a_number() {
    let bounds = Bounds { keys: 3, ..STANDBY };
    is_needed(Broken::Numbers, bounds, RESTORABLE);
}

#[test]
fn only_what_the_database_has_closed_may_be_destroyed() {
    is_needed(Broken::OpenDestroyed, STANDBY, ADMITTED);
}

#[test]
fn the_active_generation_must_not_be_closed() {
    is_needed(Broken::Closable, Bounds { servers: 1, ..ONE_MASTER }, WRITABLE);
}

#[test]
fn what_another_keystore_lacks_must_be_kept_aside() {
    is_needed(Broken::Aside, Bounds { standby_behind: true, ..STANDBY }, KEPT);
}

#[test]
fn a_backup_must_not_be_restored_over_other_keys() {
    let bounds = Bounds { keys: 3, works: 0, writes: 0, destroy: false, ..STANDBY };
    is_needed(Broken::Foreign, bounds, ADMITTED);
}

/// What it spares is a promotion that no server follows; keys are kept without it.
#[test]
fn a_standby_that_lacks_a_key_in_use_must_not_be_promoted() {
    is_needed(Broken::PromotionCheck, STANDBY, COMPLETE);
}

/// The fencing number spares double work; what keeps values is the comparison.
#[test]
fn a_stale_work_lease_does_no_harm() {
    let bounds = Bounds { works: 2, writes: 1, destroy: false, ..ONE_MASTER };
    let model = Life { bounds, broken: Some(Broken::Fencing) };
    let checker = model.checker().spawn_bfs().join();
    report(&checker);
    assert_holds(&checker);
    assert!(checker.discovery("sealed again").is_some());
}
