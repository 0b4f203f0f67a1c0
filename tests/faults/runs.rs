//! The runs: as many seeds as wanted on each database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use sso_tests::{history::History, system::eventually};
use tokio::runtime::Runtime;

use crate::{
    administrator::Desk,
    amid::{self, one_primary},
    leaders::Watch,
    load::{self, Load},
    nemesis::{faults, kill_master, start_master, strike},
    place::{Kind, Place, SERVERS},
};

/// How long a run is broken when nothing else is said.
const SECONDS: u64 = 25;
/// After the end of a fault, callers may still see it for so long: leases, reconnection, a database
/// that recovers. Everybody has to have succeeded again within this after the last one.
const RECOVERY: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "the settings of the tests are in the environment")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Not two runs at once: the bounds are for a machine that has time.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// What is broken.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Anything, for a time.
    Everything,
    /// Each death in the middle of a promotion and of a restore, one time.
    Amid,
}

fn run_all(kind: Kind, plan: Plan) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let given = setting("SSO_FAULT_SEED");
    for _ in 0..setting("SSO_FAULT_RUNS").unwrap_or(1) {
        let seed = given.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
        println!("SSO_FAULT_SEED={seed} on {kind:?}: {plan:?}");
        if !run(kind, plan, seed) {
            return;
        }
    }
}

/// One run; `false` where there is no such database.
fn run(kind: Kind, plan: Plan, seed: u64) -> bool {
    let Some(mut place) = Place::start(kind) else { return false };
    let runtime = Runtime::new().expect("a runtime");
    load::prepare(&place.system, &runtime, SERVERS);
    let (desk, history) = (Desk::of(&place.system), Arc::new(History::default()));
    let load = Load::start(&place.system, &runtime, SERVERS, &history);
    let stop = Arc::new(AtomicBool::new(false));
    let administrator = desk.work(&history, &stop);

    let mut random = StdRng::seed_from_u64(seed);
    let watch = Watch::start(place.keystores());
    match plan {
        Plan::Everything => {
            let choice = faults(kind, &place);
            let until = Duration::from_secs(setting("SSO_FAULT_SECONDS").unwrap_or(SECONDS));
            let began = Instant::now();
            while began.elapsed() < until {
                thread::sleep(Duration::from_millis(random.random_range(300..1500)));
                let fault = *choice.choose(&mut random).expect("a fault");
                strike(fault, &mut place, &desk, &history, &mut random);
            }
        }
        Plan::Amid => {
            // Something has to be retired before it can be destroyed and restored.
            whole_rotation(&desk);
            let mut all = amid::all(&place);
            all.shuffle(&mut random);
            for fault in all {
                strike(fault, &mut place, &desk, &history, &mut random);
            }
        }
    }
    place.mend();
    let mended = history.now();
    let idle = |worker: &&String| !history.has_succeeded(worker, mended);
    while load.workers().iter().any(|worker| idle(&worker)) {
        if history.now().saturating_sub(mended) > RECOVERY {
            let idle = load.workers().iter().filter(idle);
            let last: Vec<_> = idle.map(|worker| history.last_of(worker)).collect();
            let logs = (1..=SERVERS).map(|number| tail(&place.system.log_of_server(number)));
            let logs: Vec<_> = logs.collect();
            panic!("seed {seed}: not within {RECOVERY:?}: {last:#?}\n{}", logs.join("\n"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let recovered = history.now().saturating_sub(mended);
    stop.store(true, Ordering::Relaxed);
    administrator.join().expect("an administrator who ended");

    // Whatever was left half done comes to its end, under the same load, and every row opens.
    whole_rotation(&desk);
    one_primary(&desk);
    let restored = desk.restore_all().unwrap_or_else(|said| panic!("seed {seed}: {said}"));
    load.end(&runtime);
    // The keystore opens with everything in it, and has the keys of every row.
    one_primary(&desk);
    for master in [0, 1] {
        restart_master(&mut place, master);
    }
    one_primary(&desk);
    desk.prove().unwrap_or_else(|said| panic!("seed {seed}: {said}"));
    let leaders = watch.end();
    let status = desk.status().expect("a status");
    let generations = status["generations"].as_array().map_or(0, Vec::len);
    println!(
        "  seed {seed} on {kind:?}: {}; recovered in {recovered:?}; {generations} generations, \
         {restored} times one was destroyed and restored; {} epochs, {} changes of the keystore; {}; \
         {:?} in all",
        history.figures(),
        leaders.epochs(),
        leaders.changes(),
        desk.came(),
        history.now(),
    );
    let mut faulty = history.faulty(RECOVERY);
    faulty.extend(leaders.faulty());
    assert!(faulty.is_empty(), "seed {seed}: {:#?}", &faulty[..faulty.len().min(20)]);
    true
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn whole_rotation(desk: &Desk) {
    eventually("a whole rotation", Duration::from_secs(180), || {
        desk.rotate().inspect_err(|said| println!("  not yet: {said}")).ok()
    });
}

fn restart_master(place: &mut Place, which: usize) {
    kill_master(place, which);
    start_master(place, which);
}

#[test]
fn sqlite_with_everything_that_can_break() {
    run_all(Kind::Sqlite, Plan::Everything);
}

#[test]
fn postgresql_with_everything_that_can_break() {
    run_all(Kind::Postgres, Plan::Everything);
}

#[test]
fn sqlite_with_deaths_amid_promotion_and_restore() {
    run_all(Kind::Sqlite, Plan::Amid);
}

#[test]
fn postgresql_with_deaths_amid_promotion_and_restore() {
    run_all(Kind::Postgres, Plan::Amid);
}
