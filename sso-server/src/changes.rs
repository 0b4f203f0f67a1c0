//! News of changes made on any server: read from the change feed of the database, told to whoever
//! watches here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sso_proto::Event;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    error::Error,
    model::{ApplicationId, ConfigurationHead},
    storage::{ChangeFeed, Storage},
};

pub use crate::storage::Change;

/// How long a change made on another server may stay unnoticed here, when nothing wakes the reader.
const INTERVAL: Duration = Duration::from_millis(250);
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
    /// Applications whose mappings or credentials changed, or whose cache is to be forgotten.
    pub mappings: HashSet<ApplicationId>,
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
    stopping: CancellationToken,
    news: broadcast::Sender<Arc<News>>,
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
        let changes = Self { wake: Arc::new(Notify::new()), stopping, news };
        let reader =
            ChangeReader { changes: changes.clone(), storage, access, feed, server: String::new() };
        Ok((changes, reader))
    }

    /// Makes the reader look at once: something was changed here.
    pub fn wake(&self) {
        self.wake.notify_one();
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
    pub async fn run(mut self, stop: CancellationToken) {
        let mut blind = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changes.wake.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.read().await {
                Ok(mut news) => {
                    // After an outage the settings are read again, whatever the feed says.
                    news.everything |= blind;
                    blind = false;
                    if let Err(error) = self.tell(news).await {
                        tracing::error!(event = Event::DatabaseError.number(), %error, "the settings of the system could not be read");
                        blind = true;
                    }
                }
                Err(error) => {
                    if !blind {
                        tracing::error!(event = Event::DatabaseLost.number(), %error, "changes of other servers cannot be read");
                    }
                    blind = true;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<News, Error> {
        let new = self.feed.poll(&self.storage).await?;
        let mut news = News { everything: new.everything, ..News::default() };
        for record in new.records {
            match (record.change, record.head) {
                (Change::System, _) => news.system = true,
                (Change::Application(application), _) => {
                    news.applications.insert(application);
                }
                (Change::Mappings(application), _) => {
                    news.mappings.insert(application);
                }
                (Change::Configuration(application, _), Some(head)) => {
                    news.configurations.push((application, head));
                }
                // It went with its application, which is news of its own.
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
