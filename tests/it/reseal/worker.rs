//! The work, step by step under a clock that the test moves.

use super::*;

/// A server that seals again, with what its masters say to it and hear of it.
struct Worker {
    resealer: Resealer,
    orders: watch::Sender<Orders>,
    facts: Arc<Mutex<DatabaseFacts>>,
    keys: Arc<Mutex<Option<KeyRing>>>,
    clock: Clock,
    _journal: TempDir,
}

impl Worker {
    fn new(scene: &Scene, name: &str, batch_rows: u32) -> Self {
        let settings = ResealSettings { batch_rows, ..ResealSettings::default() };
        Self::with(scene, name, settings)
    }

    fn with(scene: &Scene, name: &str, settings: ResealSettings) -> Self {
        let (audit, _, journal) = scene.open_audit(name);
        let orders = watch::Sender::new(Orders::default());
        let facts = Arc::new(Mutex::new(DatabaseFacts::default()));
        let keys = Arc::new(Mutex::new(None::<KeyRing>));
        let (told, held) = (Arc::clone(&facts), Arc::clone(&keys));
        let resealer = Resealer::new(Foundations {
            busy: Box::new(|| Duration::ZERO),
            storage: scene.storage.clone(),
            audit,
            clock: scene.clock.clone(),
            settings,
            holder: name.to_owned(),
            keys: Box::new(move || {
                let keys = held.lock().unwrap().clone();
                let away = || Error::new(Reason::MasterUnreachable, "the master is away");
                keys.map(|keys| Resealing::new(Arc::new(keys))).ok_or_else(away)
            }),
            orders: orders.subscribe(),
            tell: Box::new(move |facts| *told.lock().unwrap() = facts),
        });
        Self { resealer, orders, facts, keys, clock: scene.clock.clone(), _journal: journal }
    }

    /// The masters hand out these generations, the last one active.
    fn hand_out(&mut self, numbers: &[u32]) -> &mut Self {
        *self.keys.lock().unwrap() = Some(ring(numbers));
        self.orders.send_modify(|orders| {
            orders.active = numbers.last().copied();
            orders.leader = Some(LEADER);
        });
        self
    }

    fn facts(&self) -> DatabaseFacts {
        self.facts.lock().unwrap().clone()
    }

    /// One step, and the pause behind it.
    async fn step(&mut self) {
        let pause = self.resealer.step().await;
        self.clock.advance(pause);
    }

    /// Steps until it is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&DatabaseFacts) -> bool) {
        for _ in 0..10_000 {
            if is_so(&self.facts()) {
                return;
            }
            self.step().await;
        }
        panic!("never: {what}; {:?}", self.facts());
    }

    async fn until_done(&mut self) {
        let before = self.facts().reseal.finished_at;
        self.until("done", |facts| {
            facts.reseal.finished_at.is_some() && facts.reseal.finished_at != before
        })
        .await;
    }
}

#[tokio::test]
async fn every_value_is_sealed_again_history_and_host_groups_included() {
    on_each(async |scene| {
        let first = ring(&[1]);
        mappings(scene, "Single", ApplicationType::Individual, 60, &first).await;
        mappings(scene, "Host", ApplicationType::HostGroup, 15, &first).await;
        configuration(scene, "Settings", 7, &first).await;
        configuration(scene, "Others", 2, &ring(&[2])).await;
        let mut worker = Worker::new(scene, "one", 20);
        worker.hand_out(&[1]);
        worker.step().await;
        // Everybody tells what there is, once.
        let facts = worker.facts();
        let told: Vec<_> = facts.generations.iter().map(|it| (it.number, it.rows)).collect();
        assert_eq!(told, [(1, 82), (2, 2), (3, 0), (4, 0)]);
        assert!(!facts.reseal.working && facts.counted_at == Some(NOW));

        worker.hand_out(&[1, 2, 3]).until_done().await;
        assert_eq!(scene.counts().await, [(3, 84)]);
        scene.check(3).await;
        let facts = worker.facts();
        assert_eq!((facts.reseal.rows_done, facts.reseal.rows_left), (84, 0));
        assert!(!facts.reseal.working && facts.reseal.began_at.is_some());
        let told: Vec<_> = facts.generations.iter().map(|it| (it.number, it.rows)).collect();
        assert_eq!(told, [(1, 0), (2, 0), (3, 84), (4, 0)]);
        let audited = ["one: begun, under generation 3", "one: done, under generation 3: 84 rows"];
        assert_eq!(scene.audited().await, audited);
        // Nothing is left to do.
        for _ in 0..5 {
            worker.step().await;
        }
        assert_eq!(scene.audited().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn after_a_crash_between_two_batches_another_goes_on_where_it_was() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 50, &ring(&[1])).await;
        let mut one = Worker::new(scene, "one", 7);
        one.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        one.step().await;
        one.step().await;
        drop(one);
        let before = scene.counts().await;
        assert_eq!(before, [(1, 36), (2, 14)]);
        let mut two = Worker::new(scene, "two", 7);
        two.hand_out(&[1, 2]);
        for _ in 0..5 {
            two.step().await;
        }
        assert_eq!(scene.counts().await, before, "the lease lasts");
        two.until_done().await;
        scene.check(2).await;
        assert_eq!(two.facts().reseal.rows_done, 36);
    })
    .await;
}

#[tokio::test]
async fn what_one_does_after_it_lost_the_lease_is_undone() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 50, &ring(&[1])).await;
        let (mut one, mut two) = (Worker::new(scene, "one", 7), Worker::new(scene, "two", 7));
        one.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        one.step().await;
        // As if it had slept.
        scene.clock.advance(Duration::from_secs(11));
        two.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        // PostgreSQL goes through what is done once more.
        while scene.counts().await[0].1 > 36 {
            two.step().await;
        }
        let before = scene.counts().await;
        assert_eq!(before, [(1, 36), (2, 14)]);
        one.step().await;
        assert_eq!(scene.counts().await, before);
        assert!(!one.facts().reseal.working);
        two.until_done().await;
        scene.check(2).await;
        assert_eq!(two.facts().reseal.rows_done, 43);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_while_values_are_still_being_sealed_again_is_followed() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 50, &ring(&[1])).await;
        configuration(scene, "Settings", 3, &ring(&[1])).await;
        let mut worker = Worker::new(scene, "one", 7);
        worker.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        for _ in 0..3 {
            worker.step().await;
        }
        assert!(scene.counts().await.iter().any(|count| count.0 == 2));
        worker.hand_out(&[1, 2, 3]).until_done().await;
        scene.check(3).await;
        // The keys may be ahead of the orders for a moment.
        *worker.keys.lock().unwrap() = Some(ring(&[1, 2, 3, 4]));
        worker.orders.send_modify(|orders| orders.active = Some(4));
        worker.until_done().await;
        scene.check(4).await;
    })
    .await;
}

#[tokio::test]
async fn rows_that_do_not_open_are_named_and_tried_again_until_they_are_mended() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 30, &ring(&[1])).await;
        scene.sql("UPDATE mappings SET external_user = 'moved', external_user_key = 'moved', unique_external_user_key = 'moved' WHERE account = 'DEV\\user7'").await;
        scene.sql("UPDATE mappings SET account = ' ' WHERE account = 'DEV\\user8'").await;
        let mut worker = Worker::new(scene, "one", 4);
        worker.hand_out(&[1, 2]);
        let resting = |facts: &DatabaseFacts| !facts.reseal.waiting_for.is_empty();
        worker.until("resting", resting).await;
        let progress = worker.facts().reseal;
        assert_eq!((progress.rows_left, progress.failed_rows, progress.rows_done), (2, 2, 28));
        let mut failed = progress.failed.clone();
        failed.sort();
        assert_eq!(failed, ["mapping App/ ", "mapping App/DEV\\user7"]);
        assert!(progress.working);
        // The masters want the generation closed: no, and why.
        worker.orders.send_modify(|orders| orders.closing = vec![1]);
        worker.until("refused", |facts| !facts.close_refusals.is_empty()).await;
        let refusals = worker.facts().close_refusals;
        let (number, why) = &refusals[0];
        assert_eq!(*number, 1);
        assert!(why.contains("2 rows of mappings") && why.contains("2 rows do not open"), "{why}");

        // Tried again after a while, and kept from others meanwhile.
        let mut two = Worker::new(scene, "two", 4);
        two.hand_out(&[1, 2]);
        for _ in 0..120 {
            worker.step().await;
            two.step().await;
        }
        assert!(!two.facts().reseal.working);
        assert_eq!(worker.facts().reseal.failed_rows, 2);
        // One is deleted, one mended.
        scene.sql("DELETE FROM mappings WHERE account = ' '").await;
        scene.sql("UPDATE mappings SET external_user = 'App 7', external_user_key = 'app 7', unique_external_user_key = 'app 7' WHERE account = 'DEV\\user7'").await;
        worker.until_done().await;
        scene.check(2).await;
        worker
            .until("closed", |facts| facts.generations[0].closed && facts.close_refusals.is_empty())
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_generation_is_closed_when_the_masters_say_so_and_nothing_is_left() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 9, &ring(&[1])).await;
        let mut worker = Worker::new(scene, "one", 4);
        worker.hand_out(&[1, 2]);
        worker.orders.send_modify(|orders| orders.closing = vec![1, 2, 77]);
        worker.until_done().await;
        worker.until("closed", |facts| facts.generations[0].closed).await;
        worker.until("refused", |facts| facts.close_refusals.len() == 2).await;
        let refusals = worker.facts().close_refusals;
        assert!(refusals[0].1.contains("active"), "{refusals:?}");
        assert!(refusals[1].1.contains("never seen generation 77"), "{refusals:?}");
        worker.orders.send_modify(|orders| orders.closing.clear());
        worker.until("forgotten", |facts| facts.close_refusals.is_empty()).await;
        assert!(!worker.facts().generations[1].closed);
    })
    .await;
}

#[tokio::test]
async fn without_keys_it_waits_and_then_goes_on() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 20, &ring(&[1])).await;
        let mut worker = Worker::new(scene, "one", 4);
        worker.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        worker.step().await;
        *worker.keys.lock().unwrap() = None;
        worker.until("waiting", |facts| facts.reseal.waiting_for.contains("away")).await;
        *worker.keys.lock().unwrap() = Some(ring(&[1, 2]));
        worker.until_done().await;
        scene.check(2).await;
        // Without orders there is nothing to do, and no failure.
        worker.orders.send_modify(|orders| orders.active = None);
        worker.step().await;
        worker.step().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_may_not_work_tells_all_the_same() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1])).await;
        let settings = ResealSettings { enabled: false, ..ResealSettings::default() };
        let mut worker = Worker::with(scene, "one", settings);
        worker.hand_out(&[1, 2]);
        for _ in 0..10 {
            worker.step().await;
        }
        assert_eq!(scene.counts().await, [(1, 5)]);
        assert_eq!(worker.facts().generations[0].rows, 5);
    })
    .await;
}

/// Where all is under one generation: else somebody is about to count.
#[tokio::test]
async fn a_server_that_starts_takes_what_others_counted_for_an_hour() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1])).await;
        let mut one = Worker::new(scene, "one", 20);
        one.hand_out(&[1]).step().await;
        assert_eq!(one.facts().counted_at, Some(NOW));
        mappings(scene, "Later", ApplicationType::Individual, 2, &ring(&[1])).await;
        scene.clock.advance(Duration::from_secs(3500));
        let mut two = Worker::new(scene, "two", 20);
        two.hand_out(&[1]).step().await;
        let counted = |facts: DatabaseFacts| (facts.counted_at, facts.generations[0].rows);
        assert_eq!(counted(two.facts()), (Some(NOW), 5));
        scene.clock.advance(Duration::from_secs(100));
        two.step().await;
        let fresh = two.facts().counted_at.unwrap();
        assert!(fresh > NOW && counted(two.facts()).1 == 7, "{fresh}");
        one.step().await;
        assert_eq!(counted(one.facts()), (Some(fresh), 7));
    })
    .await;
}

/// A row of a backup of the database, put back by hand.
#[tokio::test]
async fn what_is_restored_under_a_closed_generation_is_sealed_again_within_an_hour() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1])).await;
        scene.sql("CREATE TABLE kept AS SELECT * FROM mappings").await;
        let mut worker = Worker::new(scene, "one", 20);
        worker.hand_out(&[1, 2]).until_done().await;
        worker.orders.send_modify(|orders| orders.closing = vec![1]);
        worker.until("closed", |facts| facts.generations[0].closed).await;
        scene.sql("DELETE FROM mappings; INSERT INTO mappings SELECT * FROM kept").await;
        assert_eq!(scene.counts().await, [(1, 5)]);
        let before = worker.facts().counted_at;
        scene.clock.advance(Duration::from_secs(3600));
        worker.until("counted", |facts| facts.counted_at > before).await;
        worker.until_done().await;
        assert_eq!(scene.counts().await, [(2, 5)]);
        scene.check(2).await;
    })
    .await;
}

/// A clock that was far ahead for a while hides nothing.
#[tokio::test]
async fn a_count_of_the_future_is_made_again() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1])).await;
        let mut worker = Worker::new(scene, "one", 20);
        worker.hand_out(&[1]).step().await;
        let ahead = "UPDATE sealed_counts SET counted_at = 9000000000000000, credentials = 0";
        scene.sql(ahead).await;
        drop(worker);
        let mut worker = Worker::new(scene, "two", 20);
        worker.hand_out(&[1, 2]).until_done().await;
        assert_eq!(scene.counts().await, [(2, 5)]);
        assert!(worker.facts().counted_at.unwrap() < NOW + Duration::from_secs(3600));
    })
    .await;
}

/// A server that has not heard of the rotation writes on, and what it writes is not forgotten.
#[tokio::test]
async fn what_is_written_under_an_old_generation_afterwards_is_sealed_again_too() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1])).await;
        let mut worker = Worker::new(scene, "one", 20);
        worker.hand_out(&[1, 2]).until_done().await;
        for round in 1..=3 {
            let name = format!("Late{round}");
            mappings(scene, &name, ApplicationType::Individual, 3, &ring(&[1])).await;
            worker.until_done().await;
            assert_eq!(scene.counts().await, [(2, 5 + 3 * round)]);
        }
        scene.check(2).await;
    })
    .await;
}

#[tokio::test]
async fn the_rate_that_masters_or_settings_allow_is_kept() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 120, &ring(&[1])).await;
        let settings = ResealSettings { rows_per_second: 10, ..ResealSettings::default() };
        let mut worker = Worker::with(scene, "one", settings);
        worker.hand_out(&[1, 2]).until("begun", |facts| facts.reseal.working).await;
        let began = scene.clock.instant();
        worker.until("half", |facts| facts.reseal.rows_done >= 60).await;
        let half = scene.clock.instant() - began;
        assert!((5.0..8.0).contains(&half.as_secs_f64()), "{half:?}");
        let shown = worker.facts().reseal.rows_per_second;
        assert!((8.0..=13.0).contains(&shown), "{shown}");
        // The master has the last word.
        worker.orders.send_modify(|orders| orders.reseal_rows_per_second = 60);
        let began = scene.clock.instant();
        worker.until_done().await;
        let rest = scene.clock.instant() - began;
        assert!((1.0..4.0).contains(&rest.as_secs_f64()), "{rest:?}");
        scene.check(2).await;
    })
    .await;
}

#[tokio::test]
async fn values_above_the_active_generation_wait_until_nobody_can_be_ahead() {
    on_each(async |scene| {
        mappings(scene, "App", ApplicationType::Individual, 5, &ring(&[1, 3])).await;
        let mut worker = Worker::new(scene, "one", 4);
        worker.hand_out(&[1, 2, 3, 2][..3]);
        *worker.keys.lock().unwrap() = Some(ring(&[1, 3, 2]));
        worker.orders.send_modify(|orders| orders.active = Some(2));
        let began = scene.clock.instant();
        while scene.clock.instant() - began < Duration::from_secs(55) {
            worker.step().await;
        }
        assert_eq!(scene.counts().await, [(3, 5)]);
        worker.until_done().await;
        scene.check(2).await;
    })
    .await;
}

/// Writers that set credentials and delete mappings while everything is sealed again: what was written
/// last is what is there, and nobody waits for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_beside_it_lose_nothing_and_do_not_starve() {
    for database in postgres::databases() {
        eprintln!("on {}", database.name);
        let scene = Scene::open(&database, Clock::System).await;
        mappings(&scene, "App", ApplicationType::Individual, 1500, &ring(&[1])).await;
        let rows = scene.rows().await;
        let mut worker = Worker::new(&scene, "one", 500);
        worker.hand_out(&[1, 2]);
        let storage = scene.storage.clone();
        let writing = tokio::spawn(async move {
            let (mut longest, mut written) = (Duration::ZERO, Vec::new());
            for row in rows.iter().rev().step_by(10) {
                let SealedOwner::Mapping { application, mapping, account, external_user, kind } =
                    &row.owner
                else {
                    continue;
                };
                let changed = SealedOwner::Mapping {
                    application: *application,
                    mapping: *mapping,
                    account: account.clone(),
                    external_user: external_user.clone(),
                    kind: *kind,
                };
                let sealed = with_place(&changed, |place| {
                    ring(&[1, 2]).seal(place, &bag("written meanwhile")).unwrap()
                });
                let began = Clock::System.instant();
                let mut transaction = storage.begin().await.unwrap();
                let key = sso_server::model::MappingKey::Account(account.clone());
                let stored =
                    transaction.lock_mapping(*application, &key).await.unwrap().unwrap().mapping;
                let credentials = SealedCredentials { generation: 2, sealed };
                assert!(transaction.set_credentials(&stored, &credentials).await.unwrap());
                transaction.commit().await.unwrap();
                longest = longest.max(Clock::System.instant() - began);
                written.push(row.name());
            }
            (longest, written)
        });
        for _ in 0..10_000 {
            if worker.facts().reseal.finished_at.is_some() && writing.is_finished() {
                break;
            }
            let pause = worker.resealer.step().await;
            tokio::time::sleep(pause.min(Duration::from_millis(50))).await;
        }
        let (longest, written) = writing.await.unwrap();
        eprintln!("the longest write took {longest:?}");
        assert!(longest < Duration::from_secs(3), "{longest:?}");
        let ring = ring(&[2]);
        for row in scene.rows().await {
            let opened = open(&ring, &row).unwrap();
            let expected = match written.contains(&row.name()) {
                true => bag("written meanwhile"),
                false => bag(&value_of(&row.owner)),
            };
            assert_eq!(opened, expected, "{}", row.name());
        }
        scene.storage.close().await;
    }
}

/// Rows that are sealed again for the figure printed.
const MANY: u32 = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_are_sealed_again_with_few_statements() {
    for database in postgres::databases() {
        let scene = Scene::open(&database, Clock::System).await;
        mappings(&scene, "App", ApplicationType::Individual, MANY, &ring(&[1])).await;
        let mut worker = Worker::new(&scene, "one", 500);
        worker.hand_out(&[1, 2]);
        let began = Clock::System.instant();
        let (mut steps, mut slept) = (0, Duration::ZERO);
        while worker.facts().reseal.finished_at.is_none() {
            let pause = worker.resealer.step().await;
            steps += 1;
            slept += pause;
            tokio::time::sleep(pause).await;
        }
        let took = Clock::System.instant() - began;
        let rate = f64::from(MANY) / took.as_secs_f64();
        eprintln!(
            "{}: {rate:.0} rows/s in {steps} steps, {slept:?} of {took:?} for others",
            database.name
        );
        assert!(steps < MANY / 100);
        assert_eq!(scene.counts().await, [(2, u64::from(MANY))]);
        scene.storage.close().await;
    }
}
