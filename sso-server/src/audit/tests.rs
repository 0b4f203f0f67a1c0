use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::*;
use crate::{
    model::{Account, Caller, Proof},
    storage::{DatabaseSettings, DatabaseUrl},
};

fn call(account: &str) -> Call {
    let account = Account::parse(account).unwrap();
    let caller = Caller::new(account, BTreeMap::new(), Proof::Certificate).into();
    Call { caller, request_id: Uuid::now_v7(), local: true, change: None }
}

async fn storage(folder: &Path) -> Storage {
    let url = DatabaseUrl::Sqlite(folder.join("sso.db"));
    let storage = Storage::open(&DatabaseSettings::new(url), Clock::System).await.unwrap();
    storage.migrate().await.unwrap();
    storage
}

fn settings(folder: &Path, mode: AuditMode) -> AuditSettings {
    AuditSettings { mode, ..AuditSettings::in_folder(&folder.join("audit")) }
}

async fn open(folder: &Path, mode: AuditMode) -> (Audit, AuditWriter) {
    let by = Writer { system: Uuid::nil(), server: "one" };
    Audit::open(by, &settings(folder, mode), Clock::System, storage(folder).await).unwrap()
}

async fn reveal(audit: &Audit, object: &str) -> Result<(), Error> {
    let subject = Subject { application: "App", object, detail: "" };
    audit.reveal(&call("DEV\\user"), Action::ConfigurationReveal, subject).await
}

async fn all(audit: &Audit) -> Vec<AuditRecord> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = PageRequest { size: 100, after };
        let page = audit.list(&AuditFilter::default(), &page).await.unwrap();
        records.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}

/// Bytes of records that the operating system has.
fn written(audit: &Audit) -> u64 {
    audit.journal.segments().iter().map(|it| it.written() - it.shipped()).sum()
}

/// Before an answer that rests on everything taken until now.
fn hand_over(records: &dyn Records) -> std::io::Result<()> {
    records.hand_over(records.taken())
}

#[tokio::test]
async fn what_answers_depend_on_is_written_before_they_leave() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _writer) = open(folder.path(), AuditMode::Journal).await;
    audit.journal.end_keeper();
    // A thread that writes nothing before its answers leave: at once.
    reveal(&audit, "1").await.unwrap();
    let one = written(&audit);
    assert!(one > 0);
    let records = audit.records();
    hand_over(&*records).unwrap();
    for object in ["2", "3", "4"] {
        reveal(&audit, object).await.unwrap();
    }
    assert_eq!(written(&audit), one, "they wait in the buffer");
    hand_over(&*records).unwrap();
    assert_eq!(written(&audit), 4 * one);
    hand_over(&*records).unwrap();
    assert_eq!(written(&audit), 4 * one);
    // What was handed over is not waited for again, and who comes with less writes nothing for others.
    let before = records.taken();
    reveal(&audit, "5").await.unwrap();
    records.hand_over(before).unwrap();
    assert_eq!(written(&audit), 4 * one);
    hand_over(&*records).unwrap();
    assert_eq!(written(&audit), 5 * one);
    // A list has what waits in a buffer.
    audit.denied(&call("DEV\\user"), Action::AuditList, Subject::default(), Reason::Internal).await;
    let records = all(&audit).await;
    let objects: Vec<_> = records.iter().map(|record| &*record.object).collect();
    assert_eq!(objects, ["", "5", "4", "3", "2", "1"]);
    assert_eq!((records[0].outcome, &*records[0].reason), (AuditOutcome::Denied, "INTERNAL"));
    assert_eq!(records[1].id.get_version_num(), 7);
    assert_eq!((&*records[1].server, &*records[1].caller), ("one", "DEV\\user"));
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_stops_answers_and_takes_nothing_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _writer) = open(folder.path(), AuditMode::Journal).await;
    audit.journal.end_keeper();
    let records = audit.records();
    hand_over(&*records).unwrap();
    reveal(&audit, "before").await.unwrap();
    let file = audit.journal.take_file();
    assert!(hand_over(&*records).is_err(), "its record is not written");
    let refused = reveal(&audit, "meanwhile").await.unwrap_err();
    assert_eq!(refused.reason, Reason::AuditUnavailable);
    assert!(refused.message.contains(&*folder.path().to_string_lossy()), "{}", refused.message);
    assert!(hand_over(&*records).is_err());
    audit.journal.put_file(file);
    hand_over(&*records).unwrap();
    reveal(&audit, "after").await.unwrap();
    let records = all(&audit).await;
    let objects: Vec<_> = records.iter().map(|record| &*record.object).collect();
    assert_eq!(objects, ["after", "before"]);
}

#[tokio::test]
async fn without_room_records_are_refused_until_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let journal_max = 1 << 20;
    let settings = AuditSettings { journal_max, ..settings(folder.path(), AuditMode::Journal) };
    let by = Writer { system: Uuid::nil(), server: "one" };
    let storage = storage(folder.path()).await;
    let (audit, _writer) = Audit::open(by, &settings, Clock::System, storage).unwrap();
    let object = "x".repeat(10_000);
    let mut taken = 0;
    let refused = loop {
        match reveal(&audit, &object).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason, Reason::AuditUnavailable);
    let folder = settings.journal.display().to_string();
    assert!(refused.message.contains(&folder), "{}", refused.message);
    assert!(refused.message.contains("audit.journal_max_mb"), "{}", refused.message);
    assert!((40..=104).contains(&taken), "{taken}");
    // What is brought gives room.
    audit.settle().await;
    while reveal(&audit, &object).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(all(&audit).await.len(), taken + 1);
}

#[tokio::test]
async fn in_durable_mode_the_disk_has_a_record_when_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _writer) = open(folder.path(), AuditMode::Durable).await;
    let records = audit.records();
    hand_over(&*records).unwrap();
    let names: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    futures_util::future::join_all(names.iter().map(|name| reveal(&audit, name)))
        .await
        .into_iter()
        .collect::<Result<(), _>>()
        .unwrap();
    assert!(audit.journal.segments().iter().all(|segment| segment.is_safe()));
    assert_eq!(all(&audit).await.len(), 50);
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_refused_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, _writer) = open(folder.path(), AuditMode::Durable).await;
    audit.journal.end_keeper();
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let late = reveal(&audit, "1").await.unwrap_err();
    assert_eq!(late.reason, Reason::AuditUnavailable);
    assert!((PATIENCE..PATIENCE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_callers_at_once_each_has_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, writer) = open(folder.path(), AuditMode::Journal).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(stop.clone()));
    let lanes = sso_core::lanes::Lanes::start(std::num::NonZeroUsize::new(4)).unwrap();
    let mut tasks = Vec::new();
    for caller in 0..64 {
        let audit = audit.clone();
        // Half of them on lanes that write before they answer, half where all else runs.
        let (runtime, own) = match lanes.handles().get(caller % 8) {
            Some(lane) => (lane.clone(), true),
            None => (tokio::runtime::Handle::current(), false),
        };
        tasks.push(runtime.spawn(async move {
            let records = audit.records();
            for number in 0..100 {
                reveal(&audit, &format!("{caller} {number}")).await.unwrap();
                if own {
                    hand_over(&*records).unwrap();
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let records = all(&audit).await;
    let expected: BTreeSet<_> =
        (0..64).flat_map(|caller| (0..100).map(move |n| format!("{caller} {n}"))).collect();
    let found: Vec<_> = records.iter().map(|record| record.object.clone()).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    let ids: BTreeSet<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), records.len());
    assert!(records.is_sorted_by_key(|record| std::cmp::Reverse((record.at, record.id))));
    stop.cancel();
    running.await.unwrap();
    let left = std::fs::read_dir(folder.path().join("audit")).unwrap().count();
    assert_eq!(left, 0, "the database has everything");
}

#[tokio::test]
async fn what_a_process_left_is_brought_once_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, writer) = open(folder.path(), AuditMode::Journal).await;
    reveal(&audit, "brought").await.unwrap();
    audit.settle().await;
    reveal(&audit, "left").await.unwrap();
    // It ends with no chance to do anything.
    audit.journal.end_keeper();
    drop((audit, writer));
    let (audit, writer) = open(folder.path(), AuditMode::Journal).await;
    assert_eq!(all(&audit).await.len(), 1);
    let stop = CancellationToken::new();
    stop.cancel();
    // One that is stopped at once brings nothing that it did not look for.
    writer.run(stop).await;
    let (audit, writer) = open(folder.path(), AuditMode::Journal).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(writer.run(stop.clone()));
    while all(&audit).await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(all(&audit).await.len(), 2);
    let left = std::fs::read_dir(folder.path().join("audit")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("audit"), "a file").unwrap();
    let by = Writer { system: Uuid::nil(), server: "one" };
    let storage = storage(folder.path()).await;
    let settings = settings(folder.path(), AuditMode::Journal);
    let refused = Audit::open(by, &settings, Clock::System, storage).unwrap_err();
    assert_eq!(refused.reason, Reason::AuditUnavailable);
    assert!(refused.message.contains("/audit") && refused.message.contains("audit.journal"));
}
