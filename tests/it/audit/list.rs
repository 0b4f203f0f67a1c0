//! One list of rows and batches, on every database.

use std::{cmp::Reverse, collections::BTreeMap};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sso_core::clock::Clock;
use sso_server::{
    access::{Action, Call},
    audit::{Audit, AuditSettings, AuditWriter, Subject, Writer},
    model::{Account, AuditFilter, AuditOutcome, AuditRecord, Caller, PageRequest, Proof},
    storage::{DatabaseSettings, DatabaseUrl, Storage},
};
use sso_tests::postgres;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime, macros::datetime};
use tokio::runtime::Runtime;
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
const CALLERS: [&str; 3] = ["DEV\\Ann", "DEV\\bob", "DEV\\c_%"];
const APPLICATIONS: [&str; 4] = ["Orders", "orders_%", "", "Ör!"];
const REVEALS: [Action; 2] = [Action::ConfigurationReveal, Action::CredentialsReveal];

/// One thing that happens at one of two servers.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A reveal, a denial or an order, by a caller, of an application.
    Record(usize, usize, usize, usize),
    /// The time goes on by so many microseconds.
    Wait(i64),
    /// What was recorded goes to the database.
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0..2_usize, 0..4_usize, 0..3_usize, 0..4_usize);
    let step = prop_oneof![
        8 => record.prop_map(|(server, kind, caller, of)| Step::Record(server, kind, caller, of)),
        2 => (0..3_i64).prop_map(Step::Wait),
        // Longer than a batch may span.
        1 => (0..90_000_000_i64).prop_map(Step::Wait),
        1 => (0..2_usize).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..80)
}

fn filters() -> impl Strategy<Value = AuditFilter> {
    let key = |names: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(names))
            .prop_map(|name| name.map(str::to_lowercase))
    };
    let actions = ["configuration.reveal", "configuration.", "credentials.", "server.", "conf"];
    let action = prop::option::weighted(0.3, prop::sample::select(actions.to_vec()));
    let time = || prop::option::weighted(0.2, 0..100_000_000_i64);
    let outcomes = prop::sample::select(vec![AuditOutcome::Done, AuditOutcome::Denied]);
    let outcome = prop::option::weighted(0.2, outcomes);
    (key(&APPLICATIONS), key(&CALLERS), action, time(), time(), outcome).prop_map(
        |(application_key, caller_key, action, since, until, outcome)| AuditFilter {
            application_key,
            caller_key,
            action: action.map(str::to_owned),
            since: since.map(|micros| NOW + Duration::microseconds(micros)),
            until: until.map(|micros| NOW + Duration::microseconds(micros)),
            outcome,
        },
    )
}

struct Place {
    audits: Vec<(Audit, AuditWriter, TempDir)>,
    storage: Storage,
    clock: Clock,
}

impl Place {
    async fn open(url: &str) -> Self {
        let clock = Clock::manual(NOW);
        let settings = DatabaseSettings::new(DatabaseUrl::parse(url).unwrap());
        let storage = Storage::open(&settings, clock.clone()).await.unwrap();
        storage.migrate().await.unwrap();
        let open = |server| {
            let folder = tempfile::tempdir().unwrap();
            let by = Writer { system: Uuid::nil(), server };
            let settings = AuditSettings::in_folder(folder.path());
            let opened = Audit::open(by, &settings, clock.clone(), storage.clone());
            let (audit, writer) = opened.unwrap();
            (audit, writer, folder)
        };
        let audits = ["one", "two"].map(open).into();
        Self { audits, storage, clock }
    }

    async fn step(&self, step: Step, number: usize) {
        match step {
            Step::Wait(micros) => self.clock.advance(std::time::Duration::from_micros(
                u64::try_from(micros).unwrap_or_default(),
            )),
            Step::Settle(server) => self.audits[server].0.settle().await,
            Step::Record(server, kind, caller, of) => {
                let (audit, ..) = &self.audits[server];
                let account = Account::parse(CALLERS[caller]).unwrap();
                let caller = Caller::new(account, BTreeMap::new(), Proof::Certificate).into();
                let call = Call { caller, request_id: Uuid::now_v7(), local: true, change: None };
                let object = number.to_string();
                let subject =
                    Subject { application: APPLICATIONS[of], object: &object, detail: "" };
                match REVEALS.get(kind) {
                    Some(action) => audit.reveal(&call, *action, subject).await.unwrap(),
                    None if kind == 2 => {
                        let reason = sso_proto::Reason::NotApplicationUser;
                        audit.denied(&call, Action::ConfigurationReveal, subject, reason).await;
                    }
                    None => audit.order(&call, Action::ServerReloadTls, subject).await.unwrap(),
                }
            }
        }
    }

    async fn list(&self, filter: &AuditFilter, size: u32) -> Vec<AuditRecord> {
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = PageRequest { size, after };
            let page = self.audits[0].0.list(filter, &page).await.unwrap();
            assert!(page.entries.len() <= usize::try_from(size).unwrap());
            records.extend(page.entries);
            after = page.next;
            if after.is_none() {
                return records;
            }
        }
    }
}

fn matches(filter: &AuditFilter, record: &AuditRecord) -> bool {
    let is = |wanted: &Option<String>, name: &str| {
        wanted.as_ref().is_none_or(|wanted| *wanted == name.to_lowercase())
    };
    let action = filter.action.as_ref().is_none_or(|action| match action.strip_suffix('.') {
        Some(noun) => record.action.split_once('.').is_some_and(|(it, _)| it == noun),
        None => record.action == *action,
    });
    action
        && is(&filter.application_key, &record.application)
        && is(&filter.caller_key, &record.caller)
        && filter.since.is_none_or(|since| record.at >= since)
        && filter.until.is_none_or(|until| record.at < until)
        && filter.outcome.is_none_or(|outcome| outcome == record.outcome)
}

#[test]
fn pages_over_rows_and_batches_of_two_servers_equal_one_list() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    let cases = (steps(), prop::collection::vec((filters(), 1..30_u32), 4));
    let ran = runner.run(&cases, |(steps, queries)| {
        for database in postgres::databases() {
            runtime.block_on(async {
                let place = Place::open(&database.url).await;
                for (number, step) in steps.iter().enumerate() {
                    place.step(*step, number).await;
                }
                for (audit, ..) in &place.audits {
                    audit.settle().await;
                }
                let mut all = place.list(&AuditFilter::default(), 1000).await;
                let recorded = |step: &Step| matches!(step, Step::Record(..));
                let expected: Vec<_> = steps
                    .iter()
                    .enumerate()
                    .filter(|(_, step)| recorded(step))
                    .map(|(number, _)| number.to_string())
                    .collect();
                let mut found: Vec<_> = all.iter().map(|record| record.object.clone()).collect();
                found.sort_by_key(|object| object.parse::<usize>().unwrap());
                assert_eq!(found, expected, "{}", database.name);
                all.sort_by_key(|record| Reverse((record.at, record.id)));
                for (filter, size) in &queries {
                    let expected: Vec<_> =
                        all.iter().filter(|record| matches(filter, record)).cloned().collect();
                    let found = place.list(filter, *size).await;
                    assert_eq!(found, expected, "{}: {filter:?} by {size}", database.name);
                }
                place.storage.close().await;
            });
        }
        Ok(())
    });
    ran.unwrap();
}

#[tokio::test]
async fn what_a_batch_of_many_applications_holds_is_found() {
    for database in postgres::databases() {
        let place = Place::open(&database.url).await;
        let caller = |number: usize| {
            let account = Account::parse(&format!("DEV\\User {number}")).unwrap();
            Caller::new(account, BTreeMap::new(), Proof::Certificate).into()
        };
        let (audit, ..) = &place.audits[0];
        for number in 0..60 {
            let call = Call {
                caller: caller(number),
                request_id: Uuid::now_v7(),
                local: true,
                change: None,
            };
            let application = format!("App {}", number % 30);
            let subject = Subject { application: &application, object: "", detail: "" };
            audit.reveal(&call, Action::ConfigurationReveal, subject).await.unwrap();
        }
        let key = |key: &str| Some(key.to_owned());
        let application = AuditFilter { application_key: key("app 7"), ..AuditFilter::default() };
        assert_eq!(place.list(&application, 10).await.len(), 2, "{}", database.name);
        let caller = AuditFilter { caller_key: key("dev\\user 37"), ..application };
        assert_eq!(place.list(&caller, 10).await.len(), 1, "{}", database.name);
        assert_eq!(place.list(&AuditFilter::default(), 7).await.len(), 60, "{}", database.name);
        place.storage.close().await;
    }
}
