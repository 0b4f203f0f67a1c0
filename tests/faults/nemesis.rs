//! Who breaks things: one at a time, and mends them again.

use std::{thread, time::Duration};

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use sso_tests::{history::History, postgres, proxy::Flow};

use crate::{
    administrator::Desk,
    amid::{self, Victim},
    place::{Kind, LEASES, Place, SERVERS, set_clock},
};

/// A master that is busy with something else may refuse at first.
const TRIES: u32 = 2;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillPrimary,
    KillStandby,
    KillServer,
    KillDatabase,
    /// A server reaches no master, or is not reached.
    Partition,
    /// The masters do not reach one another.
    Split,
    SlowDatabase,
    CutDatabase,
    FullDisk,
    ClockJump,
    /// The primary dies, and the standby takes over.
    Promotion,
    /// Somebody dies while the standby takes over; who, follows from the seed where it is not said.
    AmidPromotion(Option<Victim>),
    /// The same while the primary restores a generation that was destroyed.
    AmidRestore(Option<Victim>),
}

/// What can be broken there.
pub(crate) fn faults(kind: Kind, place: &Place) -> Vec<Fault> {
    let mut faults = vec![
        Fault::KillPrimary,
        Fault::KillStandby,
        Fault::KillServer,
        Fault::Partition,
        Fault::Split,
        Fault::Promotion,
        Fault::AmidPromotion(None),
        Fault::AmidRestore(None),
    ];
    if kind == Kind::Postgres {
        faults.extend([Fault::KillDatabase, Fault::SlowDatabase, Fault::CutDatabase]);
    }
    if !place.disks().is_empty() {
        faults.push(Fault::FullDisk);
    }
    if !place.clocks.is_empty() {
        faults.push(Fault::ClockJump);
    }
    faults
}

fn wait(random: &mut StdRng, from_ms: u64, to_ms: u64) {
    thread::sleep(Duration::from_millis(random.random_range(from_ms..to_ms)));
}

/// Breaks one thing for a while.
pub(crate) fn strike(
    fault: Fault,
    place: &mut Place,
    desk: &Desk,
    history: &History,
    random: &mut StdRng,
) {
    println!("  {:>6.1} s {fault:?}", history.now().as_secs_f64());
    // Nobody else destroys meanwhile.
    let restores = matches!(fault, Fault::AmidRestore(_));
    let _alone = restores.then(|| desk.destroys_alone());
    let lost = if restores { (0..TRIES).find_map(|_| desk.lose(history)) } else { None };
    history.fault_begins(&format!("{fault:?}"));
    match fault {
        Fault::KillPrimary => {
            kill_master(place, desk.primary());
            wait(random, 100, 3000);
            start_master(place, desk.primary());
        }
        Fault::KillStandby => {
            let standby = 1 - desk.primary();
            kill_master(place, standby);
            wait(random, 100, 2000);
            start_master(place, standby);
        }
        Fault::KillServer => {
            let number = random.random_range(1..=SERVERS);
            place.system.kill_server(number);
            wait(random, 50, 1000);
            place.system.start_server(number);
        }
        Fault::KillDatabase => place.database.as_ref().expect("PostgreSQL").crash(),
        Fault::Partition => {
            let ways = place.of_server.choose(random).expect("a server").clone();
            let flows = [
                (Flow::BlackHole, Flow::BlackHole),
                (Flow::BlackHole, Flow::Pass),
                (Flow::Pass, Flow::BlackHole),
            ];
            let (there, back) = *flows.choose(random).expect("a flow");
            let cut = random.random_bool(0.3);
            for way in ways {
                match cut {
                    true => place.ways[way].cut(),
                    false => place.ways[way].flow(there, back),
                }
            }
            let leases = u64::try_from(LEASES.as_millis()).expect("a time");
            wait(random, 300, leases + 2000);
            place.mend();
        }
        Fault::Split => {
            for &way in &place.of_masters {
                place.ways[way].flow(Flow::BlackHole, Flow::BlackHole);
            }
            wait(random, 300, 4000);
            place.mend();
        }
        Fault::SlowDatabase => {
            let time = Duration::from_millis(random.random_range(10..80));
            let proxy = place.before_database.as_ref().expect("PostgreSQL");
            proxy.flow(Flow::Delay(time), Flow::Delay(time));
            wait(random, 500, 4000);
            proxy.heal();
        }
        Fault::CutDatabase => {
            let proxy = place.before_database.as_ref().expect("PostgreSQL");
            proxy.cut();
            wait(random, 100, 3000);
            proxy.heal();
        }
        Fault::FullDisk => {
            let (name, disk) = *place.disks().choose(random).expect("a disk");
            println!("           of {name}");
            disk.fill();
            wait(random, 300, 3000);
            disk.free();
            // PostgreSQL dies of it, sooner or later, and its keeper starts it again.
            place.database.iter().for_each(postgres::Server::wait_until_ready);
        }
        Fault::ClockJump => {
            let (name, clock) = place.clocks.choose(random).expect("a clock");
            // Certificates begin five minutes before they are made.
            let seconds = *[-240, -30, 45, 600, 86_400].choose(random).expect("a time");
            println!("           of {name} by {seconds} s");
            set_clock(clock, seconds);
            wait(random, 500, 3000);
            set_clock(clock, 0);
        }
        Fault::Promotion => {
            let (old, new) = (desk.primary(), 1 - desk.primary());
            kill_master(place, old);
            amid::finish_promotion(desk, new);
            start_master(place, old);
        }
        Fault::AmidPromotion(victim) => amid::promotion(place, desk, victim, random),
        Fault::AmidRestore(victim) => match lost {
            Some(backup) => amid::restore(place, desk, &backup, victim, random),
            None => println!("           nothing was destroyed that could be restored"),
        },
    }
    history.faults_end();
}

pub(crate) fn kill_master(place: &mut Place, which: usize) {
    match which {
        0 => place.system.kill_master(),
        number => place.system.kill_standby(number),
    }
}

pub(crate) fn start_master(place: &mut Place, which: usize) {
    match which {
        0 => place.system.start_master(),
        number => place.system.start_standby(number),
    }
}
