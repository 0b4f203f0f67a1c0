use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::{super::plans::storage, *};

/// Reads that end one by one, when they are let.
static GATE: Semaphore = Semaphore::const_new(0);
static READS: AtomicUsize = AtomicUsize::new(0);
static KEYS: AtomicUsize = AtomicUsize::new(0);

fn gated(_: Storage, keys: Vec<u32>) -> BoxFuture<'static, FoundMany<u32>> {
    Box::pin(async move {
        READS.fetch_add(1, Ordering::SeqCst);
        KEYS.fetch_add(keys.len(), Ordering::SeqCst);
        assert!(keys.len() <= MOST);
        assert!(!keys.contains(&2000), "on purpose");
        GATE.acquire().await.unwrap().forget();
        if keys.contains(&1000) {
            return Err(StorageError::Unavailable("for all of them".to_owned()));
        }
        let one = |key: u32| match key % 7 {
            0 => Err(StorageError::Gone),
            1 => Ok(None),
            _ => Ok(Some(key * 2)),
        };
        Ok(keys.into_iter().map(one).collect())
    })
}

fn expected(key: u32) -> Found<u32> {
    match key % 7 {
        0 => Err(StorageError::Gone),
        1 => Ok(None),
        _ => Ok(Some(key * 2)),
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come about");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_come_together_are_few_statements_and_each_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let storage = storage(folder.path()).await;
    let queue: Arc<Queue<u32, u32>> = Queue::of_reads(gated);
    let ask = |key: u32| {
        let (queue, storage) = (Arc::clone(&queue), storage.clone());
        tokio::spawn(async move { queue.ask(&storage, key).await })
    };
    let alone = async |key: u32| {
        let reads = READS.load(Ordering::SeqCst);
        let task = ask(key);
        until(|| READS.load(Ordering::SeqCst) > reads).await;
        (key, task)
    };
    // The first two are alone; all others come while these are under way.
    let first = [alone(2).await, alone(3).await];
    // Each key twice: read once. And some of those who ask go away.
    let waiting: Vec<_> = (10..74).chain(10..74).map(|key| (key, ask(key))).collect();
    let leaving: Vec<_> = (200..240).map(&ask).collect();
    until(|| queue.waiting().asked.len() == 128 + 40).await;
    assert_eq!(READS.load(Ordering::SeqCst), 2, "nothing more is read meanwhile");
    for task in leaving {
        task.abort();
        let _ = task.await;
    }
    GATE.add_permits(2);
    for (key, task) in first {
        assert_eq!(task.await.unwrap(), expected(key));
    }
    until(|| READS.load(Ordering::SeqCst) == 4).await;
    GATE.add_permits(100);
    for (key, task) in waiting {
        assert_eq!(task.await.unwrap(), expected(key));
    }
    // 64 keys that were asked for twice in a row: those that wait are not in the order of keys.
    assert!(READS.load(Ordering::SeqCst) <= 2 + 6, "{READS:?}");
    assert!(KEYS.load(Ordering::SeqCst) <= 2 + 2 * 64, "{KEYS:?}");
    until(|| queue.waiting().under_way == 0).await;

    // Whoever is first goes away in the middle of its read: those behind it get their turn.
    GATE.forget_permits(1000);
    let first = [alone(4).await, alone(5).await];
    let behind = ask(6);
    until(|| queue.waiting().asked.len() == 1).await;
    for (_, task) in first {
        task.abort();
        let _ = task.await;
    }
    GATE.add_permits(100);
    assert_eq!(behind.await.unwrap(), expected(6));

    // A statement that fails is told to all.
    GATE.forget_permits(1000);
    let _first = [alone(4).await, alone(5).await];
    let together = [1000, 1001, 1002].map(&ask);
    until(|| queue.waiting().asked.len() == 3).await;
    GATE.add_permits(100);
    for outcome in join_all(together).await {
        assert!(matches!(outcome.unwrap(), Err(StorageError::Unavailable(_))));
    }
    until(|| queue.waiting().under_way == 0).await;

    // One that panics answers nobody, and those behind it get their turn.
    GATE.forget_permits(1000);
    let first = [alone(4).await, alone(5).await];
    let broken = ask(2000);
    until(|| queue.waiting().asked.len() == 1).await;
    GATE.add_permits(2);
    assert!(matches!(broken.await.unwrap(), Err(StorageError::Unavailable(_))));
    GATE.add_permits(100);
    for (key, task) in first {
        assert_eq!(task.await.unwrap(), expected(key));
    }
    assert_eq!(ask(6).await.unwrap(), expected(6));
    until(|| queue.waiting().under_way == 0).await;
    storage.close().await;
}

#[test]
fn keys_stand_in_their_places() {
    assert_eq!(values(2), "(0, $1, $2), (1, $3, $4)");
    let text = one_of_several(mappings::BY_ACCOUNT, 8);
    assert!(text.starts_with("WITH k(place, application_id, side) AS (VALUES (0, $1, $2), "));
    assert!(text.contains("SELECT k.place, m.id,"), "{text}");
    assert!(text.contains(" FROM k CROSS JOIN mappings m ON m.id = (SELECT m.id FROM mappings m WHERE m.application_id = k.application_id AND m.account_key = k.side ORDER BY m.id LIMIT 1)"), "{text}");
}

/// Ends when the gate of this test is opened.
static SHUT: Semaphore = Semaphore::const_new(0);

fn shut<'a>(
    _: &'a Storage,
    keys: &'a [u32],
) -> BoxFuture<'a, Result<Vec<Option<u32>>, StorageError>> {
    Box::pin(async move {
        SHUT.acquire().await.unwrap().forget();
        Ok(keys.iter().copied().map(Some).collect())
    })
}

#[tokio::test]
async fn writers_beyond_those_that_may_wait_are_refused_and_those_of_a_server_that_stops_are_told()
{
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::runtime::Runtime::new().unwrap();
    let path = folder.path().to_owned();
    let storage = server.spawn(async move { storage(&path).await }).await.unwrap();
    let queue: Arc<Queue<u32, u32>> = Queue::of_writes(shut);
    let ask = |key: u32| {
        let (queue, storage) = (Arc::clone(&queue), storage.clone());
        async move { queue.ask(&storage, key).await }
    };
    // The second turn is taken where a batch is full.
    let mut under_way = vec![tokio::spawn(ask(1))];
    until(|| queue.waiting().under_way == 1 && queue.waiting().asked.is_empty()).await;
    let number = u32::try_from(MOST).unwrap();
    under_way.extend((100..100 + number - 1).map(|key| tokio::spawn(ask(key))));
    until(|| queue.waiting().asked.len() == MOST - 1).await;
    assert_eq!(queue.waiting().under_way, 1);
    under_way.push(tokio::spawn(ask(2)));
    until(|| queue.waiting().under_way == 2 && queue.waiting().asked.is_empty()).await;
    let number = u32::try_from(MOST_WAITING).unwrap();
    let waiting: Vec<_> = (1000..1000 + number).map(|key| tokio::spawn(ask(key))).collect();
    until(|| queue.waiting().asked.len() == MOST_WAITING).await;
    assert!(queue.is_full());
    assert_eq!(ask(3).await, Err(StorageError::Overloaded));
    // Who went away leaves room.
    waiting[0].abort();
    let (room, mut later) = (Arc::clone(&queue), Box::pin(ask(4)));
    until(|| waiting[0].is_finished()).await;
    assert!(!queue.is_full());
    assert!(futures_util::poll!(&mut later).is_pending());
    assert_eq!(room.waiting().asked.len(), MOST_WAITING);
    server.shutdown_background();
    assert!(matches!(later.await, Err(StorageError::Unavailable(_))));
    for asked in under_way.into_iter().chain(waiting.into_iter().skip(1)) {
        assert!(matches!(asked.await.unwrap(), Err(StorageError::Unavailable(_))));
    }
    assert_eq!(queue.waiting().under_way, 0);
    assert!(matches!(ask(5).await, Err(StorageError::Unavailable(_))));
}

static AJAR: Semaphore = Semaphore::const_new(0);

fn ajar<'a>(
    _: &'a Storage,
    keys: &'a [u32],
) -> BoxFuture<'a, Result<Vec<Option<u32>>, StorageError>> {
    Box::pin(async move {
        AJAR.acquire().await.unwrap().forget();
        Ok(keys.iter().copied().map(Some).collect())
    })
}

#[tokio::test]
async fn few_who_wait_are_left_to_the_write_beside_unless_that_is_late() {
    let folder = tempfile::tempdir().unwrap();
    let storage = storage(folder.path()).await;
    tokio::time::pause();
    let queue: Arc<Queue<u32, u32>> = Queue::of_writes(ajar);
    let ask = |key: u32| {
        let (queue, storage) = (Arc::clone(&queue), storage.clone());
        tokio::spawn(async move { queue.ask(&storage, key).await })
    };
    let waiting = || queue.waiting().asked.len();
    let under_way = || queue.waiting().under_way;
    let mut asked = vec![ask(1)];
    until(|| under_way() == 1 && waiting() == 0).await;
    let number = u32::try_from(MOST).unwrap();
    asked.extend((100..100 + number).map(&ask));
    until(|| under_way() == 2 && waiting() == 0).await;
    asked.extend([5, 6, 7].map(&ask));
    until(|| waiting() == 3).await;
    AJAR.add_permits(1);
    until(|| under_way() == 1).await;
    assert_eq!(waiting(), 3);
    tokio::time::advance(LATE).await;
    until(|| under_way() == 2 && waiting() == 0).await;
    // Whoever comes later does not wait for the late one either, as soon as there is room.
    assert_eq!(queue.waiting().late, 1);
    asked.push(ask(8));
    AJAR.add_permits(100);
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Ok(Some(_))));
    }
    until(|| under_way() == 0).await;
    assert_eq!(queue.waiting().late, 0);
    tokio::time::resume();
    storage.close().await;
}
