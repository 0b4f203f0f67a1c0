use futures_util::FutureExt as _;
use sso_core::clock::Clock;
use time::macros::datetime;

use super::*;
use crate::{
    model::{Accounts, GlobalInfo},
    storage::{DatabaseSettings, DatabaseUrl},
};

/// Two servers on one database; the feed of the first is read.
struct Scene {
    changes: Changes,
    other: Storage,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("sso.db").display());
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
        let storage = Storage::open(&settings, Clock::System).await.unwrap();
        storage.migrate().await.unwrap();
        let other = Storage::open(&settings, Clock::System).await.unwrap();
        let global = GlobalInfo::initial(Accounts::default(), Accounts::default());
        let stop = CancellationToken::new();
        let access = Arc::new(Access::new(global));
        let (changes, reader) = Changes::begin(storage, access, stop.clone()).await.unwrap();
        tokio::spawn(reader.run(stop.clone()));
        Self { changes, other, stop, _folder: folder }
    }

    /// Another server, whose feed is not read by itself.
    async fn unread(&self) -> (Changes, ChangeReader) {
        let access =
            Arc::new(Access::new(GlobalInfo::initial(Accounts::default(), Accounts::default())));
        Changes::begin(self.other.clone(), access, CancellationToken::new()).await.unwrap()
    }

    /// Somebody else makes a change; its number.
    async fn change(&self, change: Change) -> u64 {
        let mut transaction = self.other.begin().await.unwrap();
        let at = datetime!(2026-03-01 12:00 UTC);
        let number = transaction.insert_change(change, at).await.unwrap();
        transaction.commit().await.unwrap();
        number
    }
}

#[tokio::test]
async fn whoever_waits_for_a_change_of_another_server_finds_it_taken_in() {
    let scene = Scene::new().await;
    let application = ApplicationId::generate();
    for _ in 0..20 {
        let since = scene.changes.ticks().now();
        let number = scene.change(Change::Application(application)).await;
        scene.changes.wait_for(number).await.unwrap();
        assert!(!scene.changes.ticks().application_stands(application, since));
        // From now on nobody waits for it.
        assert!(scene.changes.ticks().have_seen(number));
    }
    scene.stop.cancel();
}

#[tokio::test]
async fn a_change_that_is_not_there_is_refused() {
    let scene = Scene::new().await;
    let number = scene.change(Change::System).await;
    let refused = scene.changes.wait_for(number + 1000).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ChangeNotSeen, "{}", refused.message);
    scene.changes.wait_for(number).await.unwrap();
    // The feed is not read any more.
    scene.stop.cancel();
    let unread = async {
        loop {
            let reason = scene.changes.wait_for(number + 1000).await.unwrap_err().reason;
            if reason != Reason::ChangeNotSeen {
                break reason;
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(30), unread).await.unwrap();
    assert_eq!(reason, Reason::DatabaseUnavailable);
}

/// Who begins to watch while the feed is read without what watchers need is told to look at everything.
#[tokio::test]
async fn whoever_begins_to_watch_during_a_look_misses_nothing() {
    let scene = Scene::new().await;
    let (_changes, mut reader) = scene.unread().await;
    let (application, configuration) = (ApplicationId::generate(), ConfigurationId::generate());
    for (watched, everything) in
        [([false, false], false), ([false, true], true), ([true, true], false)]
    {
        scene.change(Change::Configuration(application, configuration)).await;
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let next = || watched[asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)];
        let news = reader.read(next).await.unwrap();
        assert_eq!(news.everything, everything, "{watched:?}");
    }
    scene.stop.cancel();
}

/// What was made here was taken in when it was made: the feed is read past it, unless it is for watchers or to be
/// adopted. What others made between comes all the same.
#[tokio::test]
async fn what_was_made_here_is_not_read_again_where_nobody_watches() {
    let scene = Scene::new().await;
    let (changes, mut reader) = scene.unread().await;
    let (here, elsewhere) = (ApplicationId::generate(), ApplicationId::generate());
    for (watched, told) in [(false, &[][..]), (true, &[here]), (false, &[])] {
        let number = scene.change(Change::Application(here)).await;
        changes.made(Change::Application(here), number);
        let news = reader.read(|| watched).await.unwrap();
        assert_eq!(news.applications, told.iter().copied().collect(), "watched: {watched}");
        reader.looked();
        assert_eq!(reader.feed.highest(), number);
    }
    let since = changes.ticks().now();
    let between = scene.change(Change::Application(elsewhere)).await;
    let number = scene.change(Change::Application(here)).await;
    changes.made(Change::Application(here), number);
    assert!(changes.ticks().application_stands(elsewhere, since));
    let news = reader.read(|| false).await.unwrap();
    assert!(news.applications.contains(&elsewhere) && !changes.ticks().have_seen(between));
    assert!(!changes.ticks().application_stands(elsewhere, since));
    reader.looked();
    assert!(changes.ticks().have_seen(number));
    let number = scene.change(Change::System).await;
    changes.made(Change::System, number);
    assert!(reader.read(|| false).await.unwrap().system);
    scene.stop.cancel();
}

/// The reader is woken for those who watch, and for what is to be adopted.
#[tokio::test]
async fn what_is_made_here_wakes_the_reader_where_somebody_watches() {
    let scene = Scene::new().await;
    let (changes, _reader) = scene.unread().await;
    let woken = || changes.wake.notified().now_or_never().is_some();
    let (application, row) = (ApplicationId::generate(), ConfigurationId::generate());
    let make = |number| {
        changes.made(Change::Application(application), number);
        changes.wrote(application, row, number + 1, changes.ticks().now());
    };
    make(1);
    assert!(!woken());
    changes.made(Change::System, 3);
    assert!(woken() && !woken());
    let watcher = changes.subscribe();
    make(4);
    assert!(woken());
    drop(watcher);
    make(6);
    assert!(!woken());
    scene.stop.cancel();
}
