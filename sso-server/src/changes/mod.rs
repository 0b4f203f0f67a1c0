//! News of changes made on any server: read from the change feed of the database, told to whoever
//! watches here, and taken in by what is remembered here.

mod ticks;

use std::{collections::HashSet, sync::Arc, time::Duration};

use sso_proto::{Event, Reason};
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, Call},
    error::Error,
    model::{ApplicationId, ConfigurationHead, ConfigurationId},
    storage::{ChangeFeed, Storage, Transaction},
};

pub use crate::storage::Change;
pub use ticks::{FRESH, Tick, Ticks};

/// How long a change made on another server may stay unnoticed here, when nothing wakes the reader.
const INTERVAL: Duration = Duration::from_millis(250);
/// From the end of one look at the feed, or of one word to the other servers, to the next: however many
/// changes there are, they are taken in and told of in groups.
const PAUSE: Duration = Duration::from_millis(5);
/// A read that asks for a change waits at the most so long for it to be taken in.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// Before it is listened again for the words of other servers after that failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// News that a slow watcher may be behind before it is told to look at everything again.
const BACKLOG: usize = 256;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// It is not known what: look at everything again.
    pub everything: bool,
    /// The settings of the system.
    pub system: bool,
    /// Applications: created, changed or deleted.
    pub applications: HashSet<ApplicationId>,
    /// Configurations that were written or deleted, as they are now.
    pub configurations: Vec<(ApplicationId, ConfigurationHead)>,
}

impl News {
    /// News that says only: look at everything again.
    #[must_use]
    pub fn of_everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether this is about the application itself.
    #[must_use]
    pub fn concerns(&self, application: ApplicationId) -> bool {
        self.everything || self.system || self.applications.contains(&application)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where news is told. Clones tell the same watchers.
#[derive(Clone, Debug)]
pub struct Changes {
    wake: Arc<Notify>,
    /// Something was changed here that other servers are to be told of.
    tell: Arc<Notify>,
    ticks: Arc<Ticks>,
    stopping: CancellationToken,
    news: broadcast::Sender<Arc<News>>,
    looks: watch::Sender<Looks>,
}

/// Looks at the feed that found its end.
#[derive(Clone, Copy, Debug)]
struct Looks {
    count: u64,
    /// The highest number that the last of them saw.
    highest: u64,
}

/// The task that reads the change feed.
#[derive(Debug)]
pub struct ChangeReader {
    changes: Changes,
    storage: Storage,
    access: Arc<Access>,
    feed: ChangeFeed,
    /// Whose settings are adopted.
    server: String,
}

impl Changes {
    /// A place for news, and the task that must be run for it; `stopping` ends every watch. The feed begins at what the database
    /// holds now, so it is made before anything is read that must not become stale.
    ///
    /// # Errors
    /// As the storage.
    pub async fn begin(
        storage: Storage,
        access: Arc<Access>,
        stopping: CancellationToken,
    ) -> Result<(Self, ChangeReader), Error> {
        let feed = storage.change_feed().await?;
        let (news, _) = broadcast::channel(BACKLOG);
        let ticks = Arc::new(Ticks::new());
        ticks.complete_until(feed.complete_until());
        ticks.saw(feed.position());
        let (looks, _) = watch::channel(Looks { count: 0, highest: feed.highest() });
        let (wake, tell) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let changes = Self { wake, tell, ticks, stopping, news, looks };
        let reader =
            ChangeReader { changes: changes.clone(), storage, access, feed, server: String::new() };
        Ok((changes, reader))
    }

    /// A change of this number was committed here.
    pub(crate) fn made(&self, change: Change, number: u64) {
        self.ticks.changed(change);
        match change {
            // The feed hands it out, and what it says is adopted then.
            Change::System => self.wake.notify_one(),
            Change::Application(_)
            | Change::Configuration(..)
            | Change::Mappings(_)
            | Change::Mapping(..) => self.took_in(number),
        }
        self.tell.notify_one();
    }

    /// The values of a configuration that was read at `since` were written by a change of this number: the
    /// tick to keep under what was written, where nothing else changed meanwhile.
    pub fn wrote(
        &self,
        application: ApplicationId,
        configuration: ConfigurationId,
        number: u64,
        since: Tick,
    ) -> Option<Tick> {
        let tick = self.ticks.changed_row(application, configuration.0, since);
        self.took_in(number);
        self.tell.notify_one();
        tick
    }

    /// The feed need not hand it out, unless somebody here watches.
    fn took_in(&self, number: u64) {
        self.ticks.made(number);
        if self.are_watched() {
            self.wake.notify_one();
        }
    }

    fn are_watched(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// Commits a transaction with the news of its change: this server remembers nothing older from here on,
    /// its watchers and the other servers are told, and the answer to the call has the number.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn commit(
        &self,
        mut transaction: Transaction,
        call: Option<&Call>,
        change: Change,
        at: OffsetDateTime,
    ) -> Result<(), Error> {
        let number = transaction.insert_change(change, at).await?;
        transaction.commit().await?;
        if let Some(call) = call {
            call.note_change(number);
        }
        self.made(change, number);
        Ok(())
    }

    /// Waits until a change of this number, which was committed before, is taken in here: what is read
    /// afterwards is no older.
    ///
    /// # Errors
    /// `CHANGE_NOT_SEEN` when the database has no such change; `DATABASE_UNAVAILABLE` when it cannot be asked
    /// within 5 s.
    pub async fn wait_for(&self, number: u64) -> Result<(), Error> {
        if self.ticks.have_seen(number) {
            return Ok(());
        }
        let mut looks = self.looks.subscribe();
        // One may have begun before the change was committed; the one after that did not.
        let enough = looks.borrow_and_update().count.saturating_add(2);
        let seen = async {
            loop {
                self.wake.notify_one();
                // Never an error: who tells of looks lives as long as this.
                let _ = looks.changed().await;
                let Looks { count, highest } = *looks.borrow_and_update();
                if self.ticks.have_seen(number) || (count >= enough && highest >= number) {
                    return Ok(());
                }
                if count >= enough {
                    let message = format!(
                        "the database of this server has no change {number}: it is that of another \
                         installation, or was restored from a backup"
                    );
                    return Err(Error::new(Reason::ChangeNotSeen, message));
                }
            }
        };
        let late = |_| {
            let message =
                format!("change {number} cannot be looked for: the database does not answer");
            Err(Error::new(Reason::DatabaseUnavailable, message))
        };
        tokio::time::timeout(SEEN_WITHIN, seen).await.unwrap_or_else(late)
    }

    /// When what last changed, as far as this server knows.
    #[must_use]
    pub fn ticks(&self) -> &Arc<Ticks> {
        &self.ticks
    }

    /// Returns when this server begins to stop.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// News from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }
}

impl ChangeReader {
    /// The same for the server of this name: what administrators set for it is adopted, too.
    #[must_use]
    pub fn of_server(mut self, name: &str) -> Self {
        name.clone_into(&mut self.server);
        self
    }

    /// Reads and tells until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let listening = listen(self.storage.clone(), Arc::clone(&self.changes.wake));
        let telling = tell_others(self.storage.clone(), Arc::clone(&self.changes.tell));
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.read_on() => {}
            () = listening => {}
            () = telling => {}
        }
    }

    async fn read_on(mut self) {
        let mut blind = false;
        loop {
            tokio::select! {
                () = self.changes.wake.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let changes = self.changes.clone();
            match self.read(|| changes.are_watched()).await {
                Ok(mut news) => {
                    // After looks that failed the settings are read again, whatever the feed says.
                    news.everything |= blind;
                    blind = false;
                    match self.tell(news).await {
                        Ok(()) => self.looked(),
                        Err(error) => {
                            tracing::error!(event = Event::DatabaseError.number(), %error, "the settings of the system could not be read");
                            blind = true;
                        }
                    }
                }
                Err(error) => {
                    if !blind {
                        tracing::error!(event = Event::DatabaseLost.number(), %error, "changes of other servers cannot be read");
                    }
                    blind = true;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The feed was read to its end, and everything in it taken in.
    fn looked(&self) {
        self.changes.ticks.complete_until(self.feed.complete_until());
        self.changes.ticks.saw(self.feed.position());
        let highest = self.feed.highest();
        self.changes.looks.send_modify(|looks| {
            *looks = Looks { count: looks.count.saturating_add(1), highest };
        });
    }

    /// What is new; `watched` says whether anybody watches configurations.
    async fn read(&mut self, watched: impl Fn() -> bool) -> Result<News, Error> {
        let heads = watched();
        if !heads {
            self.feed.pass(self.changes.ticks.seen());
        }
        let new = self.feed.poll(&self.storage, heads).await?;
        // The feed does not hand them out again: they are taken in before anything can fail.
        if new.everything {
            self.changes.ticks.everything_changed();
        }
        // Who began to watch meanwhile has not seen what this look does not show.
        let unseen = !heads && watched();
        let mut news = News { everything: new.everything || unseen, ..News::default() };
        for record in new.records {
            // What was made here was taken in when it was made, and perhaps remembered since; but for changes
            // of the system, which are adopted below.
            if !self.changes.ticks.was_made_here(record.number) {
                self.changes.ticks.changed(record.change);
            }
            match (record.change, record.head) {
                (Change::System, _) => news.system = true,
                (Change::Application(application), _) => {
                    news.applications.insert(application);
                }
                // What is remembered of them was told above; nobody watches them.
                (Change::Mappings(_) | Change::Mapping(..), _) => {}
                (Change::Configuration(application, _), Some(head)) => {
                    news.configurations.push((application, head));
                }
                // It went with its application, which is news of its own; or nobody watches.
                (Change::Configuration(..), None) => {}
            }
        }
        Ok(news)
    }

    async fn tell(&self, news: News) -> Result<(), Error> {
        if news.is_empty() {
            return Ok(());
        }
        if (news.system || news.everything)
            && let Some(system) = self.storage.system().await?
        {
            self.access.adopt_server_settings(self.storage.server_settings(&self.server).await?);
            self.access.adopt(system.global, system.updated_at);
        }
        // Nobody may be listening, which is no error.
        let _ = self.changes.news.send(Arc::new(news));
        Ok(())
    }
}

/// Wakes the reader whenever another server says that it changed something. Where nothing can be heard
/// the reader looks by itself.
async fn listen(storage: Storage, wake: Arc<Notify>) {
    loop {
        if let Err(error) = storage.listen(|| wake.notify_one()).await {
            tracing::debug!(%error, "words of other servers are not heard");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Says to the other servers that something was changed here.
async fn tell_others(storage: Storage, tell: Arc<Notify>) {
    loop {
        tell.notified().await;
        if let Err(error) = storage.notify().await {
            tracing::debug!(%error, "the other servers are not told; they look by themselves");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
