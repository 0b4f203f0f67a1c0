//! Writers at the same time, on SQLite sharing commits: what was acknowledged is there, what was undone
//! is not, and everybody gets an answer.

use std::{collections::BTreeSet, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use sso_server::{
    model::{ApplicationId, AuditOutcome, AuditRecord, ServerSettings},
    storage::{Storage, StorageError},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{NOW, application, insert, on_each};

const IN_TWO_MINUTES: OffsetDateTime = NOW.saturating_add(Duration::minutes(2));

/// What became of the ticket that a writer marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    Undone,
    /// The writer was dropped, perhaps when its commit was under way.
    Unknown,
}

pub(super) fn record(ticket: Uuid) -> AuditRecord {
    AuditRecord {
        id: ticket,
        at: NOW,
        server: "sso-server-1".to_owned(),
        request_id: ticket.to_string(),
        caller: "DEV\\host".to_owned(),
        action: "ticket.redeem".to_owned(),
        application: "a".to_owned(),
        object: "user".to_owned(),
        outcome: AuditOutcome::Done,
        reason: String::new(),
        detail: "ticket".to_owned(),
    }
}

/// Numbers that look random and are the same in every run.
fn scatter(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
}

/// One write of one of the kinds there are.
async fn write(
    storage: &Storage,
    by: ApplicationId,
    ticket: Uuid,
    kind: u64,
) -> Result<Fate, StorageError> {
    if kind == 0 {
        let first = storage.redeem_ticket(ticket, by, (NOW, IN_TWO_MINUTES)).await?;
        assert!(first);
        return Ok(Fate::Acknowledged);
    }
    let mut transaction = storage.begin().await?;
    transaction.write_server_settings(&ticket.to_string(), &ServerSettings::default(), NOW).await?;
    transaction.insert_audit(&[record(ticket)]).await?;
    match kind {
        1 => {
            transaction.rollback().await?;
            return Ok(Fate::Undone);
        }
        2 => return Ok(Fate::Undone),
        // A statement that fails, after one that did something.
        3 => {
            assert!(transaction.insert_audit(&[record(ticket)]).await.is_err());
            return Ok(Fate::Undone);
        }
        _ => transaction.commit().await?,
    }
    Ok(Fate::Acknowledged)
}

/// Runs a future until it was asked so often.
async fn at_most<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writers_exactly_what_was_acknowledged_is_there() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let start = Arc::new(tokio::sync::Barrier::new(64));
        let tasks: Vec<_> = (0..64_u64)
            .map(|writer| {
                let (storage, start, by) = (scene.storage.clone(), Arc::clone(&start), app.id);
                tokio::spawn(async move {
                    start.wait().await;
                    let mut fates = Vec::new();
                    for turn in 0..20 {
                        let random = scatter(writer * 1000 + turn + 1);
                        let ticket = Uuid::now_v7();
                        let kind = random % 6;
                        let writing = write(&storage, by, ticket, kind);
                        // One of four is dropped at some point.
                        let polls =
                            if random.is_multiple_of(4) { random / 64 % 12 } else { u64::MAX };
                        let fate = match at_most(polls, writing).await {
                            Some(fate) => fate.unwrap(),
                            None => Fate::Unknown,
                        };
                        fates.push((ticket.to_string(), kind, fate));
                    }
                    fates
                })
            })
            .collect();
        let mut fates = Vec::new();
        for task in tasks {
            fates.extend(task.await.unwrap());
        }
        // Behind all of them: what was dropped last is undone by now.
        insert(&scene.storage, &application("b")).await.unwrap();
        let mut stranger = scene.stranger().await;
        // One statement: what a dropped writer left under way may commit between two.
        let text = "SELECT 'm' || ticket_id FROM redeemed_tickets UNION ALL SELECT 'm' || server \
             FROM server_settings UNION ALL SELECT 'r' || id FROM audit";
        let rows: Vec<String> = sqlx::query_scalar(text).fetch_all(&mut stranger).await.unwrap();
        let of = |letter| rows.iter().filter_map(|row| row.strip_prefix(letter)).collect();
        let (marked, recorded): (BTreeSet<&str>, BTreeSet<&str>) = (of('m'), of('r'));
        let alone = fates.iter().filter(|(_, kind, _)| *kind == 0).map(|(ticket, ..)| &**ticket);
        let with_record = marked.difference(&alone.collect()).copied().collect::<BTreeSet<_>>();
        assert_eq!(with_record, recorded, "a mark and its record are one");
        let mut counts = [0; 3];
        for (ticket, _, fate) in fates {
            counts[fate as usize] += 1;
            match fate {
                Fate::Acknowledged => assert!(marked.contains(&*ticket), "{ticket} was lost"),
                Fate::Undone => assert!(!marked.contains(&*ticket), "{ticket} was not undone"),
                Fate::Unknown => {}
            }
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    })
    .await;
}
