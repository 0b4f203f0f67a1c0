use tokio::task::JoinHandle;

use super::*;
use crate::storage::{DatabaseSettings, DatabaseUrl, Storage, Writers};

/// A database of two tables; the second is checked when it commits.
struct Scene {
    storage: Storage,
    group: Group,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(folder.path().join("sso.db"));
        let storage = Storage::open(&DatabaseSettings::new(url), Clock::System).await.unwrap();
        let Writers::Sqlite(group, pool) = &storage.writers else { panic!("not SQLite") };
        let tables = "CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT; \
             CREATE TABLE late (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED) STRICT";
        sqlx::raw_sql(tables).execute(pool).await.unwrap();
        let group = group.clone();
        Self { storage, group, _folder: folder }
    }

    /// What a reader sees.
    async fn rows(&self) -> Vec<i64> {
        let mut reader = self.storage.reader().await.unwrap();
        sqlx::query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut *reader).await.unwrap()
    }

    /// A writer, when its turn comes.
    fn begin(&self) -> JoinHandle<Result<Member, StorageError>> {
        let group = self.group.clone();
        tokio::spawn(async move { group.begin(false).await })
    }

    async fn until_waiting(&self, count: usize) {
        while self.group.shared.queue().waiting.len() < count {
            tokio::task::yield_now().await;
        }
    }
}

async fn insert(member: &mut Member, n: i64) {
    sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(member.connection()).await.unwrap();
}

async fn raw(member: &mut Member, text: &'static str) {
    sqlx::query(text).execute(member.connection()).await.unwrap();
}

/// A writer that has finished and waits, and the one behind it that is at work.
async fn two(scene: &Scene) -> (JoinHandle<Result<(), StorageError>>, Member) {
    let mut first = scene.group.begin(false).await.unwrap();
    let second = scene.begin();
    scene.until_waiting(1).await;
    insert(&mut first, 1).await;
    let first = tokio::spawn(first.commit());
    let second = second.await.unwrap().unwrap();
    assert!(!first.is_finished());
    assert_eq!(scene.rows().await, [0_i64; 0]);
    (first, second)
}

#[tokio::test]
async fn a_writer_alone_commits_at_once() {
    let scene = Scene::new().await;
    for n in 1..4 {
        let mut member = scene.group.begin(n == 3).await.unwrap();
        insert(&mut member, n).await;
        member.commit().await.unwrap();
    }
    assert_eq!(scene.rows().await, [1, 2, 3]);
}

#[tokio::test]
async fn one_commit_serves_all_and_undoes_nobody_else() {
    let scene = Scene::new().await;
    let (first, mut second) = two(&scene).await;
    let third = scene.begin();
    scene.until_waiting(1).await;
    insert(&mut second, 2).await;
    // Dropped in the middle of its work.
    drop(second);
    let mut third = third.await.unwrap().unwrap();
    let fourth = scene.begin();
    scene.until_waiting(1).await;
    insert(&mut third, 3).await;
    let third = tokio::spawn(third.rollback());
    let mut fourth = fourth.await.unwrap().unwrap();
    insert(&mut fourth, 4).await;
    assert!(!first.is_finished() && !third.is_finished());
    fourth.commit().await.unwrap();
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(scene.rows().await, [1, 4]);
}

#[tokio::test]
async fn the_last_one_ends_the_group_even_if_it_is_dropped() {
    let scene = Scene::new().await;
    let (first, mut second) = two(&scene).await;
    insert(&mut second, 2).await;
    drop(second);
    first.await.unwrap().unwrap();
    assert_eq!(scene.rows().await, [1]);
    // One that was waiting is gone when its turn comes.
    let mut first = scene.group.begin(false).await.unwrap();
    let gone = scene.begin();
    scene.until_waiting(1).await;
    insert(&mut first, 3).await;
    gone.abort();
    assert!(gone.await.is_err_and(|error| error.is_cancelled()));
    first.commit().await.unwrap();
    assert_eq!(scene.rows().await, [1, 3]);
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_all() {
    let scene = Scene::new().await;
    let (first, mut second) = two(&scene).await;
    raw(&mut second, "INSERT INTO late VALUES (77)").await;
    assert!(second.commit().await.is_err());
    assert!(first.await.unwrap().is_err());
    assert_eq!(scene.rows().await, [0_i64; 0]);
    // The next one writes as if nothing had been.
    let mut next = scene.group.begin(false).await.unwrap();
    insert(&mut next, 5).await;
    next.commit().await.unwrap();
    assert_eq!(scene.rows().await, [5]);
}

#[tokio::test]
async fn what_sqlite_ends_by_itself_is_told_to_all() {
    let scene = Scene::new().await;
    for at_the_end in [true, false] {
        // As when the disk is full: the transaction is gone in the middle of it.
        let (first, mut second) = two(&scene).await;
        raw(&mut second, "ROLLBACK").await;
        if at_the_end {
            assert!(second.commit().await.is_err());
        } else {
            drop(second);
        }
        assert!(first.await.unwrap().is_err());
        // Found by the next one only.
        let (first, mut second) = two(&scene).await;
        let third = scene.begin();
        scene.until_waiting(1).await;
        raw(&mut second, "ROLLBACK").await;
        let second = tokio::spawn(second.commit());
        let third = third.await.unwrap().unwrap();
        assert!(first.await.unwrap().is_err());
        assert!(second.await.unwrap().is_err());
        third.rollback().await.unwrap();
        assert_eq!(scene.rows().await, [0_i64; 0]);
    }
}

#[tokio::test]
async fn a_long_writer_keeps_nobody_waiting_who_has_finished() {
    let scene = Scene::new().await;
    let mut first = scene.group.begin(false).await.unwrap();
    let group = scene.group.clone();
    let long = tokio::spawn(async move { group.begin(true).await });
    scene.until_waiting(1).await;
    insert(&mut first, 1).await;
    first.commit().await.unwrap();
    assert_eq!(scene.rows().await, [1]);
    let mut long = long.await.unwrap().unwrap();
    let behind = scene.begin();
    scene.until_waiting(1).await;
    insert(&mut long, 2).await;
    // It is told before the one behind it has worked.
    long.commit().await.unwrap();
    assert_eq!(scene.rows().await, [1, 2]);
    drop(behind.await.unwrap().unwrap());
}

#[tokio::test]
async fn too_many_who_wait_are_refused_at_once() {
    let scene = Scene::new().await;
    let member = scene.group.begin(false).await.unwrap();
    let waiting: Vec<_> = (0..MOST_WAITING).map(|_| scene.begin()).collect();
    scene.until_waiting(MOST_WAITING).await;
    let refused = scene.group.begin(false).await.err();
    assert_eq!(refused, Some(StorageError::Overloaded));
    // Those who gave up do not count.
    for waiting in &waiting[1..] {
        waiting.abort();
    }
    for waiting in waiting.into_iter().skip(1) {
        assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    }
    let next = scene.begin();
    drop(member);
    drop(next.await.unwrap().unwrap());
}
