//! Watching configurations: a stream of revision numbers that survives lost connections.

use std::{collections::HashMap, time::Duration};

use sso_proto::v1::{self, ConfigurationChange, WatchConfigurationsRequest};
use tokio::time::sleep;
use tonic::Streaming;

use crate::{Client, ClientError, ConfigurationKey, RetryPolicy, config_store::stub, retry};

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchTarget {
    /// Name of the application.
    pub application: String,
    /// One identifier; `None` = all of the application.
    pub identifier: Option<String>,
}

/// A revision number that is new to this watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which configuration.
    pub key: ConfigurationKey,
    /// Its revision now.
    pub revision: u64,
    /// Whether the configuration was deleted with this revision.
    pub deleted: bool,
}

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    targets: Vec<WatchTarget>,
    stream: Streaming<ConfigurationChange>,
    reconnect: bool,
    attempt: u32,
    seen: HashMap<ConfigurationKey, (u64, bool)>,
}

impl Watch {
    pub(crate) async fn open(
        client: Client,
        targets: Vec<WatchTarget>,
    ) -> Result<Self, ClientError> {
        let policy = client.retry_policy();
        let mut attempt = 0;
        let stream = loop {
            match subscribe(&client, &targets).await {
                Ok(stream) => break stream,
                Err(status) => match policy.pause(attempt) {
                    Some(pause) if retry::is_connection_failure(&status) => {
                        sleep(pause).await;
                        attempt += 1;
                    }
                    _ => return Err(client.error(&status)),
                },
            }
        };
        let seen = HashMap::new();
        Ok(Self { client, targets, stream, reconnect: false, attempt: 0, seen })
    }

    /// Whether a lost connection is opened again, for as long as it takes. What changed meanwhile
    /// is then told once, what did not is not repeated. Off at first.
    #[must_use]
    pub fn reconnecting(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Waits for the next change; the first ones tell the revisions of now. `None`: the server ended
    /// the stream, which happens only without reconnecting.
    ///
    /// Safe to cancel: a change is not lost by dropping the future.
    ///
    /// # Errors
    /// The connection is lost and reconnecting is off, or the service refuses: no longer allowed,
    /// no such application. Such a refusal is final.
    pub async fn next(&mut self) -> Result<Option<Change>, ClientError> {
        loop {
            match self.stream.message().await {
                Ok(Some(change)) => {
                    self.attempt = 0;
                    if let Some(change) = self.news(change) {
                        return Ok(Some(change));
                    }
                }
                Ok(None) if self.reconnect => self.reopen().await?,
                Ok(None) => return Ok(None),
                Err(status) if self.reconnect && is_lost(&status) => self.reopen().await?,
                Err(status) => return Err(self.client.error(&status)),
            }
        }
    }

    /// Filters out what was told before.
    fn news(&mut self, change: ConfigurationChange) -> Option<Change> {
        let key = ConfigurationKey::new(change.application, change.identifier);
        let state = (change.revision, change.deleted);
        // Names are told as they were created, so they are the same every time.
        if self.seen.insert(key.clone(), state) == Some(state) {
            return None;
        }
        Some(Change { key, revision: change.revision, deleted: change.deleted })
    }

    async fn reopen(&mut self) -> Result<(), ClientError> {
        loop {
            sleep(pause(self.attempt)).await;
            self.attempt = self.attempt.saturating_add(1);
            match subscribe(&self.client, &self.targets).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(status) if is_lost(&status) => {}
                Err(status) => return Err(self.client.error(&status)),
            }
        }
    }
}

/// Whether opening the stream again may help: no answer, or a server that is on its way down or up.
fn is_lost(status: &tonic::Status) -> bool {
    use tonic::Code;
    let for_now = matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted
    );
    (for_now && !sso_core::connector::is_trust_failure(status))
        || retry::is_connection_failure(status)
}

/// From a tenth of a second to some seconds, with jitter, without end.
fn pause(attempt: u32) -> Duration {
    let policy = RetryPolicy { retries: u32::MAX, ..RetryPolicy::default() };
    policy.pause(attempt.min(16)).unwrap_or(policy.longest_pause)
}

async fn subscribe(
    client: &Client,
    targets: &[WatchTarget],
) -> Result<Streaming<ConfigurationChange>, tonic::Status> {
    let targets = targets.iter().map(|target| v1::WatchTarget {
        application: target.application.clone(),
        identifier: target.identifier.clone().unwrap_or_default(),
    });
    let message = WatchConfigurationsRequest { targets: targets.collect() };
    client.open(message, |channel, request| async move { stub(channel).watch(request).await }).await
}

#[cfg(test)]
mod tests {
    use sso_proto::{Reason, Refusal};
    use tonic::Status;

    use super::*;

    #[test]
    fn refusals_end_a_watch_and_outages_do_not() {
        assert!(is_lost(&Status::unavailable("going down")));
        assert!(is_lost(&Refusal::new(Reason::DatabaseUnavailable, "x").into_status()));
        assert!(!is_lost(&Refusal::new(Reason::NotApplicationUser, "x").into_status()));
        assert!(!is_lost(&Refusal::new(Reason::ApplicationNotFound, "x").into_status()));
    }

    #[test]
    fn pauses_stay_bounded() {
        for attempt in [0, 1, 10, u32::MAX] {
            assert!(pause(attempt) <= RetryPolicy::default().longest_pause);
        }
    }
}
