//! Writes that are one statement.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use futures_util::future::join_all;
use sqlx::Connection as _;
use sso_core::clock::Clock;
use sso_server::{
    model::{Application, ConfigurationId, Revision},
    storage::{CloseOutcome, NewRevision, Storage, StorageError},
};
use sso_tests::postgres;
use time::Duration;
use tokio::sync::Barrier;
use uuid::Uuid;

use super::{
    GENERATIONS, NOW, application,
    generations::{close, led},
    group::record,
    identifier, insert, new_revision, on_each, open, write,
};

/// Writes the next revision after this one.
async fn write_on(
    storage: &Storage,
    app: &Application,
    id: ConfigurationId,
    after: u64,
    generation: u32,
) -> Result<bool, StorageError> {
    let new = NewRevision { generation, ..new_revision(id, Revision(after + 1), b"next") };
    let number = storage.write_on(app, new, record(Uuid::now_v7())).await?;
    Ok(number.is_some())
}

#[tokio::test]
async fn a_revision_goes_on_from_the_newest_with_its_record_and_its_news() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("i");
        let (id, _) = write(storage, app.id, &key, b"one").await.unwrap();
        for after in 1..13 {
            assert_eq!(write_on(storage, &app, id, after, 1).await, Ok(true));
        }
        let read = storage.configuration(app.id, &key).await.unwrap().unwrap();
        assert_eq!((read.head.revision, &*read.sealed), (Revision(13), &b"next"[..]));
        assert_eq!((read.head.updated_at, &*read.head.updated_by), (NOW, "DEV\\admin"));
        let history = storage.history(id).await.unwrap();
        let numbers: Vec<_> = history.iter().map(|entry| entry.revision.0).collect();
        assert_eq!(numbers, (4..=13).rev().collect::<Vec<_>>());
        assert_eq!(history[0].changed, ["Url", "Quote \" and , comma"]);
        assert_eq!(history[0].rolled_back_to, None);
        assert_eq!(scene.count("SELECT COUNT(*) FROM audit").await, 12);
        let changes = "SELECT COUNT(*) FROM changes WHERE kind = 'configuration' \
                       AND application_id IS NOT NULL AND configuration_id IS NOT NULL";
        assert_eq!(scene.count(changes).await, 12);
        // The number is that of the news, by which others know that they have seen it.
        let mut feed = storage.change_feed().await.unwrap();
        let new = new_revision(id, Revision(14), b"last");
        let record = record(Uuid::now_v7());
        let number = storage.write_on(&app, new, record).await.unwrap().unwrap();
        let news = feed.poll(storage, true).await.unwrap().records;
        assert_eq!(news.iter().map(|record| record.number).collect::<Vec<_>>(), [number]);
        assert_eq!((feed.highest(), feed.position()), (number, number));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_on_what_is_not_the_newest() {
    on_each(async |scene| {
        let storage = &scene.storage;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let key = identifier("i");
        let (id, _) = write(storage, app.id, &key, b"one").await.unwrap();
        assert_eq!(close(storage, 2).await, CloseOutcome::Closed);
        let changed = Application { updated_at: NOW + Duration::microseconds(1), ..app.clone() };
        let other = application("b");
        for (app, id, after, generation) in [
            (&app, id, 0, 1),
            (&app, id, 2, 1),
            (&app, id, 1, 2),
            (&app, id, 1, 5),
            (&app, ConfigurationId::generate(), 1, 1),
            (&changed, id, 1, 1),
            (&other, id, 1, 1),
        ] {
            assert_eq!(write_on(storage, app, id, after, generation).await, Ok(false));
        }
        // Nor on what another is about to write: nobody waits for that.
        if scene.is_postgres() {
            let mut holder = storage.begin().await.unwrap();
            holder.bump_revision(app.id, &key, "DEV\\x", NOW).await.unwrap().unwrap();
            assert_eq!(write_on(storage, &app, id, 1, 1).await, Ok(false));
            holder.rollback().await.unwrap();
        }
        let mut transaction = storage.begin().await.unwrap();
        transaction.delete_configuration(id, "DEV\\x", NOW).await.unwrap().unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(write_on(storage, &app, id, 2, 1).await, Ok(false));
        for table in ["audit", "changes", "configuration_revisions"] {
            let text = format!("SELECT COUNT(*) FROM {table}");
            assert_eq!(scene.count(text.leak()).await, 0, "{table}");
        }
    })
    .await;
}

/// They come while others are under way, and so are a few statements; what one of them finds is nothing to
/// the others.
#[tokio::test]
async fn each_of_those_that_come_together_is_written_for_itself() {
    on_each(async |scene| {
        let storage = &scene.storage;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let changed = Application { updated_at: NOW + Duration::microseconds(1), ..app.clone() };
        let mut ids = Vec::new();
        for number in 0..60 {
            let key = identifier(&format!("c{number}"));
            ids.push(write(storage, app.id, &key, b"one").await.unwrap().0);
        }
        let mut refused = 0;
        for round in 1..=3 {
            // Every fifth is stale, every seventh of an application as it was, and every eleventh hits upon a row
            // that must not be there, which ends its statement.
            let damaged = |number: usize| number.is_multiple_of(11);
            let expected = |number: usize| {
                !(number.is_multiple_of(5) || number.is_multiple_of(7) || damaged(number))
            };
            if round == 1 {
                for (_, id) in ids.iter().enumerate().filter(|(number, _)| damaged(*number)) {
                    let text = format!(
                        "INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, \
                         changed, written_at, written_by) SELECT configuration_id, 2, sealed, generation, changed, \
                         written_at, written_by FROM configuration_revisions WHERE configuration_id = '{id}'"
                    );
                    scene.sql(text.leak()).await;
                }
            }
            let writes = ids.iter().enumerate().map(async |(number, id)| {
                let after = if number.is_multiple_of(5) { round + 7 } else { round };
                let app = if number.is_multiple_of(7) { &changed } else { &app };
                let written = write_on(storage, app, *id, after, 1).await;
                (number, written)
            });
            for (number, written) in join_all(writes).await {
                let others_way = number.is_multiple_of(5) || number.is_multiple_of(7);
                match written {
                    // A statement that failed may still be about to let go of what it held.
                    Ok(false) if round == 1 && expected(number) => {
                        let again = write_on(storage, &app, ids[number], round, 1).await;
                        assert_eq!(again, Ok(true), "{number}");
                    }
                    Ok(written) => assert_eq!(written, expected(number), "{number}"),
                    Err(StorageError::Statement(_)) => {
                        assert!(damaged(number) && !others_way && round == 1, "{number}");
                        refused += 1;
                    }
                    Err(error) => panic!("{number}: {error}"),
                }
            }
        }
        assert!(refused > 0, "no statement ended for the sake of one");
        for (number, id) in ids.iter().enumerate() {
            let expected = !(number.is_multiple_of(5) || number.is_multiple_of(7) || number.is_multiple_of(11));
            let newest = storage.history(*id).await.unwrap()[0].revision.0;
            let head = storage.configuration_head(app.id, &identifier(&format!("c{number}"))).await;
            let head = head.unwrap().unwrap().revision.0;
            let damaged = number.is_multiple_of(11);
            let wanted = if expected { (4, 4) } else { (1, if damaged { 2 } else { 1 }) };
            assert_eq!((head, newest), wanted, "{number}");
        }
        let written = 3 * (0..60).filter(|n| n % 5 != 0 && n % 7 != 0 && n % 11 != 0).count();
        for table in ["audit", "changes"] {
            let count = scene.count(format!("SELECT COUNT(*) FROM {table}").leak()).await;
            assert_eq!(usize::try_from(count), Ok(written), "{table}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_write_the_same_revision_one_does() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let (id, _) = write(&scene.storage, app.id, &identifier("i"), b"one").await.unwrap();
        // Two servers on one database.
        let servers =
            [open(&scene.url, &Clock::System).await, open(&scene.url, &Clock::System).await];
        for after in 1..5 {
            let start = Arc::new(Barrier::new(32));
            let tasks: Vec<_> = (0..32)
                .map(|number| {
                    let (storage, start) = (servers[number % 2].clone(), Arc::clone(&start));
                    let app = app.clone();
                    tokio::spawn(async move {
                        start.wait().await;
                        write_on(&storage, &app, id, after, 1).await
                    })
                })
                .collect();
            let mut written = 0;
            for task in tasks {
                written += u32::from(task.await.unwrap().unwrap());
            }
            assert_eq!(written, 1);
        }
        assert_eq!(scene.count("SELECT COUNT(*) FROM audit").await, 4);
        assert_eq!(scene.count("SELECT COUNT(*) FROM configuration_revisions").await, 5);
        for server in servers {
            server.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_they_race_nothing_is_written_under_a_closed_generation() {
    on_each(async |scene| {
        // Whatever the database does by default.
        if scene.is_postgres() {
            scene
                .sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$")
                .await;
        }
        let storage = &open(&scene.url, &scene.clock).await;
        led(scene).await;
        let app = application("a");
        insert(storage, &app).await.unwrap();
        let mut ids = Vec::new();
        for number in 0..12 {
            let key = identifier(&format!("c{number}"));
            ids.push(write(storage, app.id, &key, b"one").await.unwrap().0);
        }
        for round in 0..10_usize {
            scene.sql("UPDATE configurations SET revision = 1; UPDATE generations SET closed_at = NULL; \
                 DELETE FROM configuration_revisions WHERE revision > 1").await;
            let mut tasks = Vec::new();
            for (number, id) in ids.iter().copied().enumerate() {
                if number == round {
                    let storage = storage.clone();
                    tasks.push(tokio::spawn(async move {
                        (false, close(&storage, 3).await == CloseOutcome::Closed)
                    }));
                }
                let (storage, app) = (storage.clone(), app.clone());
                tasks.push(tokio::spawn(async move {
                    (write_on(&storage, &app, id, 1, 3).await.unwrap(), false)
                }));
            }
            let (mut written, mut closed) = (0, false);
            for task in tasks {
                let (wrote, did_close) = task.await.unwrap();
                written += i64::from(wrote);
                closed |= did_close;
            }
            let under = "SELECT COUNT(*) FROM configuration_revisions WHERE generation = 3";
            assert_eq!(scene.count(under).await, written);
            assert!(!closed || written == 0, "{written}");
        }
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ticket_that_many_redeem_at_once_is_redeemed_once() {
    on_each(async |scene| {
        let app = application("a");
        insert(&scene.storage, &app).await.unwrap();
        let other = open(&scene.url, &Clock::System).await;
        for _ in 0..5 {
            let ticket = Uuid::now_v7();
            let start = Arc::new(Barrier::new(64));
            let tasks: Vec<_> = (0..64)
                .map(|number| {
                    let storage = if number % 2 == 0 { &scene.storage } else { &other }.clone();
                    let (start, by) = (Arc::clone(&start), app.id);
                    tokio::spawn(async move {
                        start.wait().await;
                        storage.redeem_ticket(ticket, by, (NOW, NOW)).await
                    })
                })
                .collect();
            let mut first = 0;
            for task in tasks {
                first += u32::from(task.await.unwrap().unwrap());
            }
            assert_eq!(first, 1);
        }
        assert_eq!(scene.count("SELECT COUNT(*) FROM redeemed_tickets").await, 5);
        let unknown = application("b").id;
        let gone = other.redeem_ticket(Uuid::now_v7(), unknown, (NOW, NOW)).await;
        assert_eq!(gone, Err(StorageError::Gone));
        other.close().await;
    })
    .await;
}

/// Passes everything on to a database, and counts the statements that are executed.
struct Counter {
    url: String,
    executed: Arc<AtomicU32>,
}

impl Counter {
    fn before(url: &str) -> Self {
        let (start, rest) = url.split_once('@').unwrap();
        let (target, name) = rest.split_once('/').unwrap();
        let target = target.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let executed = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&executed);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let database = TcpStream::connect(&target).unwrap();
                let (mut from, mut to) =
                    (database.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let counted = Arc::clone(&counted);
                thread::spawn(move || count(client, database, &counted));
            }
        });
        Self { url: format!("{start}@{address}/{name}"), executed }
    }

    /// How many statements `work` executes.
    async fn of<T>(&self, work: impl Future<Output = T>) -> (T, u32) {
        let before = self.executed.load(Ordering::SeqCst);
        let done = work.await;
        (done, self.executed.load(Ordering::SeqCst) - before)
    }
}

/// Messages of the PostgreSQL protocol, version 3: a length and what follows; all but the first ones of a
/// connection have a letter before it.
fn count(mut client: TcpStream, mut database: TcpStream, executed: &AtomicU32) -> Option<()> {
    let mut started = false;
    loop {
        let mut head = vec![0; if started { 5 } else { 4 }];
        client.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).ok()?;
        // A statement by itself, and one that was prepared.
        if started && matches!(head[0], b'Q' | b'E') {
            executed.fetch_add(1, Ordering::SeqCst);
        }
        // What asks for TLS comes before the real start.
        started |= body.get(..4) != Some(&80_877_103_u32.to_be_bytes());
        database.write_all(&[head, body].concat()).ok()?;
    }
}

#[tokio::test]
async fn hot_writes_of_postgresql_are_one_statement() {
    let options = postgres::Options { tcp: true, ..postgres::Options::default() };
    let Some(server) = postgres::Server::start(options) else { return };
    let counter = Counter::before(&server.database());
    let storage = open(&counter.url, &Clock::manual(NOW)).await;
    storage.migrate().await.unwrap();
    let mut stranger = sqlx::AnyConnection::connect(&counter.url).await.unwrap();
    sqlx::raw_sql(GENERATIONS).execute(&mut stranger).await.unwrap();
    let app = application("a");
    insert(&storage, &app).await.unwrap();
    let (id, _) = write(&storage, app.id, &identifier("i"), b"one").await.unwrap();
    // At first statements are prepared, and whenever the pool opens a connection it is told a few things: the
    // fewest of many times are what the work itself executes.
    let mut fewest = [u32::MAX; 3];
    for turn in 0..12 {
        let redeem = storage.redeem_ticket(Uuid::now_v7(), app.id, (NOW, NOW));
        let (redeemed, by_redeem) = counter.of(redeem).await;
        assert_eq!(redeemed, Ok(true));
        let (written, by_write) = counter.of(write_on(&storage, &app, id, turn + 1, 1)).await;
        assert_eq!(written, Ok(true));
        let key = identifier("i");
        let (read, by_read) = counter.of(storage.configuration(app.id, &key)).await;
        assert_eq!(read.unwrap().unwrap().head.revision, Revision(turn + 2));
        for (fewest, executed) in fewest.iter_mut().zip([by_redeem, by_write, by_read]) {
            *fewest = executed.min(*fewest);
        }
    }
    assert_eq!(fewest, [1; 3]);
    storage.close().await;
}
