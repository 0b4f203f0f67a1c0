//! Watching configurations: the revision numbers now, and every newer one as it is written on any
//! server. What is sent is read from the database, so a piece of news that comes twice, late or
//! together with others does no harm.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::Stream;
use sso_proto::Reason;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::ConfigStore;
use crate::{
    access::{Action, Call},
    changes::News,
    error::Error,
    model::{
        Application, ApplicationId, ApplicationName, ConfigurationHead, ConfigurationId,
        Identifier, PageRequest, Revision,
    },
};

/// How often the watcher's roles are looked at again when nothing else happens.
const RECHECK: Duration = Duration::from_secs(5);
/// Changes that may wait for a slow client; then the watch waits too, and sends the newest.
const WAITING: usize = 64;
/// Heads read at a time.
const PAGE: u32 = 1000;

/// What to watch: one configuration, or all of an application.
#[derive(Clone, Debug)]
pub struct WatchTarget {
    /// The application.
    pub application: ApplicationName,
    /// `None` = every identifier.
    pub identifier: Option<Identifier>,
}

/// A revision that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationChange {
    /// Name of the application.
    pub application: String,
    /// The identifier.
    pub identifier: String,
    /// The newest revision.
    pub revision: Revision,
    /// It is the deletion.
    pub deleted: bool,
}

type Sender = mpsc::Sender<Result<ConfigurationChange, Error>>;

struct Watcher {
    store: ConfigStore,
    call: Call,
    targets: Vec<(WatchTarget, ApplicationId)>,
    sent: HashMap<ConfigurationId, ConfigurationHead>,
    sender: Sender,
}

/// The client went away.
struct Gone;

impl ConfigStore {
    /// The newest revision of each target now, then each newer one. The stream ends with an error
    /// when the caller loses its role, the application is deleted or the server stops.
    ///
    /// # Errors
    /// A missing role, `APPLICATION_NOT_FOUND`, what the storage refuses.
    pub async fn watch(
        &self,
        call: &Call,
        targets: Vec<WatchTarget>,
    ) -> Result<impl Stream<Item = Result<ConfigurationChange, Error>> + use<>, Error> {
        // Before anything is read: what changes meanwhile is then news.
        let mut news = self.changes.subscribe();
        let mut watched = Vec::with_capacity(targets.len());
        for target in targets {
            let application =
                self.enter(call, Action::ConfigurationWatch, &target.application).await?;
            watched.push((target, application.id));
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut watcher = Watcher {
            store: self.clone(),
            call: call.clone(),
            targets: watched,
            sent: HashMap::new(),
            sender: sender.clone(),
        };
        tokio::spawn(async move {
            let mut latest = Arc::new(News { everything: true, ..News::default() });
            loop {
                match watcher.look(&latest).await {
                    Ok(Ok(())) => {}
                    Ok(Err(Gone)) => return,
                    Err(error) => {
                        // The client may be gone as well.
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                }
                latest = tokio::select! {
                    () = sender.closed() => return,
                    () = watcher.store.changes.stopping() => {
                        let why = "this server is stopping; watch again to go on at another";
                        let _ = sender.send(Err(Error::new(Reason::ServerStopping, why))).await;
                        return;
                    }
                    received = news.recv() => match received {
                        Ok(news) => news,
                        Err(RecvError::Lagged(_)) => Arc::new(News { everything: true, ..News::default() }),
                        Err(RecvError::Closed) => return,
                    },
                    () = tokio::time::sleep(RECHECK) => Arc::new(News { system: true, ..News::default() }),
                };
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

impl Watcher {
    /// Looks at what the news is about, and sends what is newer than what was sent. Roles are looked
    /// at again when the application or the system changed.
    async fn look(&mut self, news: &News) -> Result<Result<(), Gone>, Error> {
        if news.system || news.everything {
            self.call.caller = self.store.identity.again(&self.call.caller);
        }
        for (target, id) in self.targets.clone() {
            if news.concerns(id) {
                let name = &target.application;
                let application =
                    self.store.enter(&self.call, Action::ConfigurationWatch, name).await?;
                require_same(&application, id)?;
            }
            let heads = if news.everything {
                self.heads(&target, id).await?
            } else {
                let wanted = |head: &ConfigurationHead| {
                    target
                        .identifier
                        .as_ref()
                        .is_none_or(|identifier| *identifier == head.identifier)
                };
                let of_target =
                    news.configurations.iter().filter(|(of, head)| *of == id && wanted(head));
                of_target.map(|(_, head)| head.clone()).collect()
            };
            for head in heads {
                if let Err(gone) = self.send(&target.application, head).await {
                    return Ok(Err(gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Everything the target stands for.
    async fn heads(
        &self,
        target: &WatchTarget,
        application: ApplicationId,
    ) -> Result<Vec<ConfigurationHead>, Error> {
        let storage = &self.store.storage;
        if let Some(identifier) = &target.identifier {
            let head = storage.configuration_head(application, identifier).await?;
            return Ok(head.into_iter().collect());
        }
        let mut heads = Vec::new();
        let mut page = PageRequest { size: PAGE, after: None };
        loop {
            let read = storage.identifiers(application, &page).await?;
            heads.extend(read.entries);
            match read.next {
                Some(after) => page.after = Some(after),
                None => break,
            }
        }
        // What was sent before and is not among them was deleted meanwhile.
        let missed: Vec<_> = self
            .sent
            .iter()
            .filter(|(id, _)| !heads.iter().any(|head| head.id == **id))
            .map(|(_, sent)| sent.identifier.clone())
            .collect();
        for identifier in missed {
            heads.extend(storage.configuration_head(application, &identifier).await?);
        }
        Ok(heads)
    }

    async fn send(&mut self, name: &ApplicationName, head: ConfigurationHead) -> Result<(), Gone> {
        let known = self.sent.insert(head.id, head.clone());
        if known.is_some_and(|known| known.revision >= head.revision) {
            return Ok(());
        }
        let change = ConfigurationChange {
            application: name.as_str().to_owned(),
            identifier: head.identifier.as_str().to_owned(),
            revision: head.revision,
            deleted: head.deleted,
        };
        self.sender.send(Ok(change)).await.map_err(|_| Gone)
    }
}

/// An application of the same name that is not the one watched has nothing to do with it.
fn require_same(application: &Application, watched: ApplicationId) -> Result<(), Error> {
    if application.id == watched {
        return Ok(());
    }
    let message = format!(
        "application \"{}\" was deleted and created anew; watch it again",
        application.name
    );
    Err(Error::new(Reason::ApplicationNotFound, message))
}
