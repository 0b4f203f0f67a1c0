//! Following a configuration of the config store while it changes.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Again, PortError, RetryPlan, again};
use crate::{Client, ClientError, Configuration, ConfigurationKey, ReadMode, Watch, WatchTarget};

/// How a configuration becomes what the host works with.
type Reader<T> = fn(&str, &Configuration) -> Result<T, PortError>;

/// What a configuration says, kept up to date: a [`SendPort`](super::SendPort), a
/// [`ReceiveLocation`](super::ReceiveLocation), [`Parties`](super::Parties), or what the host makes of
/// one itself.
///
/// The last good value stays in use whatever happens afterwards: a new one that is not usable is
/// logged and kept out, and so is the news that the configuration was deleted. Restarts of the SSO
/// server, lost connections and lost rights end nothing; what changed meanwhile is read as soon as it
/// can be. Where BizTalk restarts its host instances to have them read their ports again, nothing has
/// to be restarted here.
///
/// Cheap to clone; clones follow the same configuration.
pub struct Followed<T> {
    current: watch::Receiver<Revision<T>>,
    problem: Arc<Mutex<Option<String>>>,
    /// Keeps the channel of a value that never changes open.
    _fixed: Option<Arc<watch::Sender<Revision<T>>>>,
}

struct Revision<T> {
    number: u64,
    value: Arc<T>,
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        let (current, problem) = (self.current.clone(), Arc::clone(&self.problem));
        Self { current, problem, _fixed: self._fixed.clone() }
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

/// Why there is no first value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The configuration cannot be read.
    #[error("the configuration {application}/{identifier} cannot be read: {source}")]
    Read {
        /// Its application.
        application: String,
        /// Its identifier.
        identifier: String,
        /// What came back.
        source: ClientError,
    },
    /// It can be read, and makes no port.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl FollowError {
    /// Whether a host that starts should wait and try again, or say what is to be repaired.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self::Read { source, .. } => again::of_call(source),
            Self::Port(_) => Again::AfterRepair,
        }
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Reads the configuration as a user of its application, and follows it in a task of its own until
    /// `shutdown`. `name` is what the host calls it; `read` is [`SendPort::read`](super::SendPort::read)
    /// or one like it.
    ///
    /// # Errors
    /// See [`FollowError`]: without a first good value there is nothing to follow.
    pub async fn start(
        client: &Client,
        key: ConfigurationKey,
        name: impl Into<String>,
        read: fn(&str, &Configuration) -> Result<T, PortError>,
        shutdown: CancellationToken,
    ) -> Result<Self, FollowError> {
        let name = name.into();
        let read_error = |source| FollowError::Read {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
            source,
        };
        let values =
            client.config_store().get(&key, ReadMode::Runtime).await.map_err(read_error)?;
        let value = Arc::new(read(&name, &values)?);
        let (sender, current) = watch::channel(Revision { number: values.revision, value });
        let problem = Arc::default();
        let follower = Follower {
            client: client.clone(),
            key,
            name,
            read,
            sender,
            problem: Arc::clone(&problem),
            seen: Some(values.revision),
        };
        tokio::spawn(shutdown.run_until_cancelled_owned(follower.run()));
        Ok(Self { current, problem, _fixed: None })
    }

    /// A value that never changes, for ports that do not come from a config store.
    #[must_use]
    pub fn fixed(value: T) -> Self {
        Self::settable(value).0
    }

    /// A value that changes when the returned function is called with another one.
    pub fn settable(value: T) -> (Self, impl Fn(T) + Clone + Send + Sync) {
        let (sender, current) = watch::channel(Revision { number: 0, value: Arc::new(value) });
        let sender = Arc::new(sender);
        let followed = Self { current, problem: Arc::default(), _fixed: Some(Arc::clone(&sender)) };
        let set = move |value| {
            sender.send_modify(|revision| {
                revision.number += 1;
                revision.value = Arc::new(value);
            });
        };
        (followed, set)
    }

    /// Waits for a newer good value than the last one that this clone was given by this method; those in
    /// between are skipped. Waits for ever once the following was shut down. Safe to cancel.
    pub async fn changed(&mut self) -> Arc<T> {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.current.borrow_and_update().value)
    }
}

impl<T> Followed<T> {
    /// The last good value.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow().value)
    }

    /// The revision of the last good value.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.current.borrow().number
    }

    /// Why a newer value is kept out, or cannot be read; `None`: the value is that of now, as far as is
    /// known.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The task behind a [`Followed`].
struct Follower<T> {
    client: Client,
    key: ConfigurationKey,
    name: String,
    read: Reader<T>,
    sender: watch::Sender<Revision<T>>,
    problem: Arc<Mutex<Option<String>>>,
    /// The revision that was looked at last, good or bad; `None` after a deletion.
    seen: Option<u64>,
}

/// Between attempts at what the server refuses or does not answer.
const PATIENCE: RetryPlan = RetryPlan {
    first: std::time::Duration::from_millis(200),
    factor: 2,
    most: std::time::Duration::from_secs(30),
    attempts: None,
};

impl<T> Follower<T> {
    async fn run(mut self) {
        let mut failed = 0;
        loop {
            match self.watch().await {
                Ok(mut watch) => {
                    // A refusal ends the stream; rights and applications come back.
                    let error = self.follow(&mut watch, &mut failed).await;
                    self.complain(&error);
                }
                Err(error) => self.complain(&error),
            }
            self.pause(&mut failed).await;
        }
    }

    async fn watch(&self) -> Result<Watch, ClientError> {
        let target = WatchTarget {
            application: self.key.application.clone(),
            identifier: Some(self.key.identifier.clone()),
        };
        Ok(self.client.config_store().watch(vec![target]).await?.reconnecting(true))
    }

    /// Until the watch ends, and why.
    async fn follow(&mut self, watch: &mut Watch, failed: &mut u32) -> String {
        loop {
            match watch.next().await {
                Ok(Some(change)) if change.deleted => {
                    *failed = 0;
                    self.seen = None;
                    self.complain(&"it was deleted");
                }
                Ok(Some(change)) if self.seen == Some(change.revision) => {
                    *failed = 0;
                    self.unreachable_no_more();
                }
                Ok(Some(_)) => {
                    *failed = 0;
                    self.renew().await;
                }
                Ok(None) => return "the server ended the watch".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Reads the new revision, however long the server refuses it. A configuration that is gone again
    /// is told by the watch when it comes back.
    async fn renew(&mut self) {
        let mut failed = 0;
        loop {
            match self.client.config_store().get(&self.key, ReadMode::Runtime).await {
                Ok(values) => return self.take(&values),
                Err(error @ ClientError::NotFound(_)) => {
                    self.seen = None;
                    return self.complain(&error);
                }
                Err(error) => {
                    self.complain(&error);
                    self.pause(&mut failed).await;
                }
            }
        }
    }

    fn take(&mut self, values: &Configuration) {
        self.seen = Some(values.revision);
        match (self.read)(&self.name, values) {
            Ok(value) => {
                let (application, identifier) = (&self.key.application, &self.key.identifier);
                let number = values.revision;
                tracing::info!(application, identifier, revision = number, "configuration changed");
                *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.sender.send_replace(Revision { number, value: Arc::new(value) });
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Once for each new problem.
    fn complain(&self, problem: &dyn fmt::Display) {
        let problem = problem.to_string();
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(&problem) {
            let (application, identifier) = (&self.key.application, &self.key.identifier);
            tracing::error!(
                application,
                identifier,
                problem,
                "the configuration is not usable now; what was read before stays in use"
            );
            *last = Some(problem);
        }
    }

    /// What is known is the newest there is, so that only a bad value is still a problem.
    fn unreachable_no_more(&self) {
        if Some(self.sender.borrow().number) == self.seen {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    async fn pause(&self, failed: &mut u32) {
        *failed = failed.saturating_add(1);
        sleep(PATIENCE.pause(*failed).unwrap_or(PATIENCE.most)).await;
    }
}
