use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::model::{ConfigurationId, MappingId};

const APPLICATIONS: usize = 2;
const ROWS: usize = 5;

/// Something that happens while servers share a database.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A reader takes its tick, then reads, then keeps, with other things between.
    Begin(usize, usize),
    Read(usize),
    Keep(usize),
    /// Rows change in the database: here, or on another server that is not heard of yet.
    Commit(Scope, bool),
    /// News of the change that waits at this place arrives, in whatever order.
    Hear(usize),
    /// The feed may have lost changes: everything that waits is told as one.
    Lost,
    Look(usize),
}

#[derive(Clone, Copy, Debug)]
enum Scope {
    Row(usize),
    RowsOf(usize),
    Application(usize),
    System,
}

impl Scope {
    fn has(self, row: usize) -> bool {
        match self {
            Self::Row(of) => of == row,
            Self::RowsOf(application) | Self::Application(application) => {
                application_of(row) == application
            }
            Self::System => true,
        }
    }
}

fn application_of(row: usize) -> usize {
    row % APPLICATIONS
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let scope = prop_oneof![
        6 => (0..ROWS).prop_map(Scope::Row),
        1 => (0..APPLICATIONS).prop_map(Scope::RowsOf),
        1 => (0..APPLICATIONS).prop_map(Scope::Application),
        1 => Just(Scope::System),
    ];
    let step = prop_oneof![
        3 => (0..3_usize, 0..ROWS).prop_map(|(reader, row)| Step::Begin(reader, row)),
        3 => (0..3_usize).prop_map(Step::Read),
        3 => (0..3_usize).prop_map(Step::Keep),
        3 => (scope, any::<bool>()).prop_map(|(scope, here)| Step::Commit(scope, here)),
        2 => (0..4_usize).prop_map(Step::Hear),
        1 => Just(Step::Lost),
        4 => (0..ROWS).prop_map(Step::Look),
    ];
    prop::collection::vec(step, 0..80)
}

/// The same in every run, so that none has two of one place by chance.
fn id(number: usize) -> Uuid {
    Uuid::from_u64_pair(number as u64, 0x5eed)
}

struct World {
    ticks: Ticks,
    applications: [ApplicationId; APPLICATIONS],
    ids: [Uuid; ROWS],
    /// Versions in the database.
    stored: [u64; ROWS],
    /// The version below which no row may be served any more.
    told: [u64; ROWS],
    /// Changes that this server has not heard of.
    unheard: Vec<(Scope, [u64; ROWS])>,
    readers: [Option<(usize, Tick, Option<u64>)>; 3],
    kept: [Option<(Tick, u64)>; ROWS],
}

impl World {
    fn new(ticks: Ticks) -> Self {
        Self {
            ticks,
            applications: std::array::from_fn(|number| ApplicationId(id(number))),
            ids: std::array::from_fn(id),
            stored: [0; ROWS],
            told: [0; ROWS],
            unheard: Vec::new(),
            readers: [None; 3],
            kept: [None; ROWS],
        }
    }

    fn tell(&mut self, scope: Scope, versions: [u64; ROWS]) {
        let change = match scope {
            Scope::Row(row) => {
                let (application, id) = (self.applications[application_of(row)], self.ids[row]);
                match row % 2 {
                    0 => Change::Mapping(application, MappingId(id)),
                    _ => Change::Configuration(application, ConfigurationId(id)),
                }
            }
            Scope::RowsOf(of) => Change::Mappings(self.applications[of]),
            Scope::Application(of) => Change::Application(self.applications[of]),
            Scope::System => Change::System,
        };
        self.ticks.changed(change);
        self.raise(scope, versions);
    }

    fn raise(&mut self, scope: Scope, versions: [u64; ROWS]) {
        for (row, version) in versions.into_iter().enumerate().filter(|(row, _)| scope.has(*row)) {
            self.told[row] = self.told[row].max(version);
        }
    }

    /// The version that is served from memory.
    fn served(&self, row: usize) -> Option<u64> {
        let (tick, version) = self.kept[row]?;
        let application = self.applications[application_of(row)];
        self.ticks.row_stands(application, self.ids[row], tick).then_some(version)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(reader, row) => self.readers[reader] = Some((row, self.ticks.now(), None)),
            Step::Read(reader) => {
                if let Some((row, _, read)) = &mut self.readers[reader] {
                    *read = Some(self.stored[*row]);
                }
            }
            Step::Keep(reader) => {
                if let Some((row, tick, Some(version))) = self.readers[reader].take() {
                    self.kept[row] = Some((tick, version));
                }
            }
            Step::Commit(scope, here) => {
                for row in (0..ROWS).filter(|row| scope.has(*row)) {
                    self.stored[row] += 1;
                }
                match here {
                    true => self.tell(scope, self.stored),
                    false => self.unheard.push((scope, self.stored)),
                }
            }
            Step::Hear(place) if place < self.unheard.len() => {
                let (scope, versions) = self.unheard.remove(place);
                self.tell(scope, versions);
            }
            Step::Hear(_) => {}
            Step::Lost => {
                self.ticks.everything_changed();
                for (scope, versions) in std::mem::take(&mut self.unheard) {
                    self.raise(scope, versions);
                }
            }
            Step::Look(row) => {
                if let Some(version) = self.served(row) {
                    assert!(version >= self.told[row], "row {row} at version {version}");
                }
            }
        }
    }
}

proptest! {
    /// However slow readers, commits here and elsewhere, and news that come late and in another order
    /// than the commits interleave.
    #[test]
    fn a_row_read_before_its_invalidation_is_not_served_after_it(
        steps in steps(),
        places in prop::sample::select(vec![1_usize, 2, 1 << 10]),
    ) {
        let mut world = World::new(Ticks::with_places(places, places));
        for step in steps {
            world.step(step);
            for row in 0..ROWS {
                world.step(Step::Look(row));
            }
        }
    }

    /// What is read while nothing is under way is served, whatever was before.
    #[test]
    fn what_nothing_touched_since_it_was_read_stands(steps in steps(), row in 0..ROWS) {
        let mut world = World::new(Ticks::new());
        for step in steps {
            world.step(step);
        }
        for step in [Step::Begin(0, row), Step::Read(0), Step::Keep(0)] {
            world.step(step);
        }
        prop_assert_eq!(world.served(row), Some(world.stored[row]));
        // News of one row are no news of the others, of another application least of all.
        world.step(Step::Commit(Scope::Row((row + 1) % ROWS), true));
        world.step(Step::Commit(Scope::Application(1 - application_of(row)), true));
        prop_assert_eq!(world.served(row), Some(world.stored[row]));
        world.step(Step::Commit(Scope::Row(row), true));
        prop_assert_eq!(world.served(row), None);
    }
}

/// The same on several threads at once: a writer says what it wrote, readers remember.
#[test]
fn readers_and_writers_on_many_threads_agree() {
    const TURNS: u64 = 20_000;
    let ticks = Ticks::with_places(2, 2);
    let application = ApplicationId::generate();
    let ids: [Uuid; 2] = std::array::from_fn(|_| Uuid::now_v7());
    let stored: [AtomicU64; 2] = Default::default();
    let told: [AtomicU64; 2] = Default::default();
    let kept: [Mutex<Option<(Tick, u64)>>; 2] = Default::default();
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..TURNS {
                let row = usize::from(turn % 3 == 0);
                let version = stored[row].fetch_add(1, Ordering::AcqRel) + 1;
                ticks.changed(Change::Mapping(application, MappingId(ids[row])));
                told[row].store(version, Ordering::Release);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for turn in 0..TURNS {
                    let row = usize::from(turn % 2 == 0);
                    let least = told[row].load(Ordering::Acquire);
                    let known = *kept[row].lock().unwrap();
                    match known {
                        Some((tick, version)) if ticks.row_stands(application, ids[row], tick) => {
                            assert!(version >= least, "{version} after {least} was told");
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            let tick = ticks.now();
                            let version = stored[row].load(Ordering::Acquire);
                            *kept[row].lock().unwrap() = Some((tick, version));
                        }
                    }
                }
            });
        }
    });
    assert!(served.into_inner() > 0);
}

#[test]
fn what_stands_is_fresh_for_a_while() {
    let ticks = Ticks::new();
    let second = Duration::from_secs(1);
    ticks.complete_until(10 * second);
    assert!(ticks.are_fresh(10 * second));
    assert!(ticks.are_fresh(10 * second + FRESH - second / 1000));
    assert!(!ticks.are_fresh(10 * second + FRESH));
    ticks.complete_until(11 * second);
    assert!(ticks.are_fresh(10 * second + FRESH));
    // Nothing makes it older again.
    ticks.complete_until(9 * second);
    assert!(ticks.are_fresh(10 * second + FRESH));
}

#[test]
fn applications_and_the_system_stand_by_their_own_changes() {
    let ticks = Ticks::new();
    let (one, other) = (ApplicationId::generate(), ApplicationId::generate());
    let since = ticks.now();
    ticks.changed(Change::Mappings(one));
    ticks.changed(Change::Mapping(one, MappingId::generate()));
    ticks.changed(Change::Configuration(one, ConfigurationId::generate()));
    assert!(ticks.application_stands(one, since) && ticks.system_stands(since));
    ticks.changed(Change::Application(one));
    assert!(!ticks.application_stands(one, since));
    assert!(ticks.application_stands(other, since) && ticks.system_stands(since));
    assert!(ticks.application_stands(one, ticks.now()));
    ticks.changed(Change::System);
    assert!(!ticks.application_stands(other, since) && !ticks.system_stands(since));
}

#[test]
fn ids_spread_over_the_places() {
    let table = Table::new(1 << 12);
    for _ in 0..1 << 12 {
        table.place(Uuid::now_v7()).unwrap().store(1, Ordering::Relaxed);
    }
    let taken = table.0.iter().filter(|place| place.load(Ordering::Relaxed) > 0).count();
    // As many as by chance: 1 - 1/e of them.
    assert!(taken > 2300, "{taken}");
}

#[test]
fn what_was_seen_goes_on_with_the_feed_and_with_what_is_made_here() {
    let ticks = Ticks::with_places(1 << 4, 1 << 4);
    ticks.saw(10);
    assert!(ticks.have_seen(10) && !ticks.have_seen(11));
    // In the order of numbers and not: up to the first that is missing.
    ticks.made(11);
    assert!(ticks.have_seen(11) && ticks.was_made_here(11) && !ticks.was_made_here(10));
    ticks.made(14);
    ticks.made(13);
    assert!(!ticks.have_seen(12) && !ticks.have_seen(14));
    ticks.saw(12);
    assert!(ticks.have_seen(12));
    ticks.made(15);
    assert!(ticks.have_seen(15) && !ticks.have_seen(16));
    // A look that began before does not take anything back.
    ticks.saw(13);
    assert!(ticks.have_seen(15));
    // More than there are places for wait for the feed, and are not taken for others.
    let far = 16 + 3 * MADE as u64;
    ticks.made(far);
    assert!(!ticks.have_seen(16) && !ticks.was_made_here(16));
    ticks.saw(far);
    assert!(ticks.have_seen(far));
    // Of another database the numbers mean nothing.
    ticks.everything_changed();
    assert!(!ticks.have_seen(1) && !ticks.was_made_here(far) && ticks.have_seen(0));
}

#[test]
fn what_was_written_here_is_kept_where_nothing_else_changed() {
    let ticks = Ticks::with_places(1 << 8, 1 << 8);
    let (application, id) = (ApplicationId::generate(), ConfigurationId::generate());
    let changes = [
        Change::Configuration(application, id),
        Change::Mappings(application),
        Change::Application(application),
        Change::System,
    ];
    let since = ticks.now();
    let tick = ticks.changed_row(application, id.0, since).unwrap();
    assert!(!ticks.row_stands(application, id.0, since), "what was read before");
    assert!(ticks.row_stands(application, id.0, tick), "what was written");
    for change in changes {
        let since = ticks.now();
        ticks.changed(change);
        assert_eq!(ticks.changed_row(application, id.0, since), None, "{change:?} came between");
        let tick = ticks.changed_row(application, id.0, ticks.now()).unwrap();
        ticks.changed(change);
        assert!(!ticks.row_stands(application, id.0, tick), "{change:?} came after");
    }
}

/// Of two who change a row, the one that commits first may begin the later tick, and is not remembered over
/// the other, however the steps of both come between each other.
#[test]
fn of_two_who_write_a_row_the_older_one_is_not_kept() {
    let (application, id) = (ApplicationId::generate(), ConfigurationId::generate());
    for _ in 0..20_000 {
        let ticks = Ticks::with_places(1, 1);
        let start = std::sync::Barrier::new(2);
        let since = ticks.now();
        let older = std::thread::scope(|scope| {
            let older = scope.spawn(|| {
                start.wait();
                ticks.changed_row(application, id.0, since)
            });
            start.wait();
            ticks.changed(Change::Configuration(application, id));
            older.join().unwrap()
        });
        let kept = older.is_some_and(|tick| ticks.row_stands(application, id.0, tick));
        // Kept and standing it is only where the other had ended before this one began.
        assert!(!kept, "{older:?}");
    }
}

/// Two who wrote a row and began at the same tick do not know who of them is the younger.
#[test]
fn of_two_who_write_a_row_at_once_neither_is_kept() {
    let (application, id) = (ApplicationId::generate(), ConfigurationId::generate());
    for _ in 0..20_000 {
        let ticks = Ticks::with_places(1, 1);
        let start = std::sync::Barrier::new(2);
        let write = |since| {
            start.wait();
            ticks.changed_row(application, id.0, since)
        };
        let since = ticks.now();
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| write(since));
            let other = write(since);
            (one.join().unwrap(), other)
        });
        let stands = |tick: Option<Tick>| {
            usize::from(tick.is_some_and(|tick| ticks.row_stands(application, id.0, tick)))
        };
        assert_eq!(stands(one) + stands(other), 0, "{one:?} {other:?}");
    }
}

/// The same with the steps of the other one at the worst moment.
#[test]
fn a_change_that_puts_its_tick_down_late_is_noticed() {
    let ticks = Ticks::with_places(1 << 4, 1 << 4);
    let (application, id) = (ApplicationId::generate(), ConfigurationId::generate());
    let since = ticks.now();
    // Another one has begun its tick, and has not put it down yet.
    let begun = ticks.next();
    let tick = ticks.changed_row(application, id.0, since);
    // What it does now is what `raise` does from there on.
    let place = ticks.rows.place(id.0).unwrap();
    place.fetch_max(begun, Ordering::SeqCst);
    assert_ne!(ticks.last.load(Ordering::SeqCst), begun);
    place.fetch_max(ticks.next(), Ordering::SeqCst);
    assert!(!tick.is_some_and(|tick| ticks.row_stands(application, id.0, tick)));
}
