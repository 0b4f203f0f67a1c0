//! Deaths at a random moment of a promotion or a restore, which are brought to their end afterwards.

use std::{
    path::Path,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use sso_tests::system::eventually;

use crate::{
    administrator::{Desk, reason, said},
    nemesis::{Fault, kill_master, start_master},
    place::{Place, SERVERS},
};

/// How long a standby may take to be promoted: it has to have heard of the database.
const PROMOTED_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take until one master leads and the other one follows again, or until what was
/// restored is there.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Of a promotion while nothing is broken. Without a primary it waits until the servers have come over.
const PROMOTION: Duration = Duration::from_millis(500);
const PROMOTION_ALONE: Duration = Duration::from_millis(2500);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The master that is being promoted, or that restores.
    Actor,
    /// The other master.
    Other,
    Server,
    Database,
}

/// Who can die there.
pub(crate) fn victims(place: &Place) -> Vec<Victim> {
    let mut victims = vec![Victim::Actor, Victim::Other, Victim::Server];
    victims.extend(place.database.as_ref().map(|_| Victim::Database));
    victims
}

/// Each of them in the middle of a promotion, and of a restore whoever restores and one more: a backup
/// takes its time.
pub(crate) fn all(place: &Place) -> Vec<Fault> {
    let promotions = victims(place).into_iter().map(|it| Fault::AmidPromotion(Some(it)));
    let restores = [Fault::AmidRestore(Some(Victim::Actor)), Fault::AmidRestore(None)];
    promotions.chain(restores).collect()
}

/// What follows from the seed.
struct Blow {
    victim: Victim,
    /// The part of the time that the work takes.
    moment: f64,
    server: usize,
}

impl Blow {
    fn draw(victim: Option<Victim>, place: &Place, random: &mut StdRng) -> Self {
        let drawn = *victims(place).choose(random).expect("a victim");
        // What is done is written at the end.
        let from = if random.random_bool(0.5) { 0.0 } else { 0.8 };
        Self {
            victim: victim.unwrap_or(drawn),
            moment: random.random_range(from..1.1),
            server: random.random_range(1..=SERVERS),
        }
    }

    /// Kills in the middle of what takes so long.
    fn strike(&self, time: Duration, place: &mut Place, actor: usize) {
        let moment = time.mul_f64(self.moment);
        println!("           {:?} dies after {moment:?}", self.victim);
        thread::sleep(moment);
        match self.victim {
            Victim::Actor => kill_master(place, actor),
            Victim::Other => kill_master(place, 1 - actor),
            Victim::Server => place.system.kill_server(self.server),
            Victim::Database => place.database.as_ref().expect("PostgreSQL").crash(),
        }
    }
}

fn told(output: &Output) {
    println!("           it came to: {}", reason(output).as_deref().unwrap_or("done"));
}

/// Somebody dies while the standby is promoted, whose primary is dead or alive.
pub(crate) fn promotion(
    place: &mut Place,
    desk: &Desk,
    victim: Option<Victim>,
    random: &mut StdRng,
) {
    let (old, new) = (desk.primary(), 1 - desk.primary());
    let blow = Blow::draw(victim, place, random);
    let alone = random.random_bool(0.5) && blow.victim != Victim::Other;
    if alone {
        kill_master(place, old);
    }
    let promoting = desk.begin(new, &["promote", "--yes"]);
    blow.strike(if alone { PROMOTION_ALONE } else { PROMOTION }, place, new);
    told(&promoting.join().expect("a command that ended"));
    if blow.victim == Victim::Actor {
        start_master(place, new);
    }
    finish_promotion(desk, new);
    if alone || blow.victim == Victim::Other {
        start_master(place, old);
    }
    if blow.victim == Victim::Server {
        place.system.start_server(blow.server);
    }
    one_primary(desk);
}

/// Promotes that master, whatever became of it before. Refused promotions are right where it lacks what
/// the database uses: then the primary has to come back.
pub(crate) fn finish_promotion(desk: &Desk, new: usize) {
    let began = Instant::now();
    while began.elapsed() < PROMOTED_WITHIN {
        if desk.leads(new) {
            desk.follow(new);
            break;
        }
        let output = desk.secret_at(new, "10s", &["promote", "--yes"]);
        if output.status.success() {
            desk.follow(new);
            break;
        }
        let said = said(&output);
        assert!(said.contains("PROMOTION_REFUSED"), "promote: {said}");
        thread::sleep(Duration::from_millis(500));
    }
    println!("           to {}", desk.primary());
}

/// Somebody dies while the primary restores this backup.
pub(crate) fn restore(
    place: &mut Place,
    desk: &Desk,
    backup: &Path,
    victim: Option<Victim>,
    random: &mut StdRng,
) {
    let blow = Blow::draw(victim, place, random);
    let actor = desk.primary();
    let restoring = desk.begin_restore(backup);
    blow.strike(desk.restoring(), place, actor);
    let output = restoring.join().expect("a command that ended");
    told(&output);
    match blow.victim {
        Victim::Actor => start_master(place, actor),
        Victim::Other => start_master(place, 1 - actor),
        Victim::Server => place.system.start_server(blow.server),
        Victim::Database => {}
    }
    // What was acknowledged is kept; and without an answer it may be there as well.
    if !output.status.success() {
        eventually("it is restored", SETTLED_WITHIN, || desk.restore(backup).ok());
    }
    let there = eventually("a status", SETTLED_WITHIN, || desk.has(backup).ok());
    assert!(there, "it is not there; {}", desk.came());
}

/// One of the masters leads, the other one follows it with everything it has.
pub(crate) fn one_primary(desk: &Desk) {
    eventually("one leads and the other follows", SETTLED_WITHIN, || {
        let (leads, follows) = (desk.primary(), 1 - desk.primary());
        let (leading, following) = (desk.status_at(leads)?, desk.status_at(follows)?);
        let same = ["epoch", "version"].iter().all(|part| leading[part] == following[part]);
        (leading["role"] == "primary" && following["role"] == "standby" && same).then_some(())
    });
}
