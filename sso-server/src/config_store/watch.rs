//! Watching configurations: the revision numbers now, and every newer one as it is written on any
//! server. What is sent is read from the database, so a piece of news that comes twice, late or
//! together with others does no harm.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::Stream;
use sso_proto::Reason;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::MissedTickBehavior,
};
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

/// How often the watcher's roles are looked at again, whatever else happens.
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
    sent: HashMap<ConfigurationId, (ApplicationId, ConfigurationHead)>,
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
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recheck.reset();
        tokio::spawn(async move {
            let mut latest = Arc::new(News::of_everything());
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
                        Err(RecvError::Lagged(_)) => Arc::new(News::of_everything()),
                        Err(RecvError::Closed) => return,
                    },
                    // Runs on whatever else happens: on a busy system there is always other news.
                    _ = recheck.tick() => Arc::new(News { system: true, ..News::default() }),
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
            let caller = &self.call.caller;
            self.call.caller = Arc::new(self.store.identity.again(caller)?);
        }
        let mut allowed = HashSet::new();
        for (target, id) in self.targets.clone() {
            if news.concerns(id) && allowed.insert(id) {
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
                if let Err(gone) = self.send(&target.application, id, head).await {
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
        let there: HashSet<_> = heads.iter().map(|head| head.id).collect();
        let missed: Vec<_> = self
            .sent
            .values()
            .filter(|(of, sent)| *of == application && !there.contains(&sent.id))
            .map(|(_, sent)| sent.identifier.clone())
            .collect();
        for identifier in missed {
            heads.extend(storage.configuration_head(application, &identifier).await?);
        }
        Ok(heads)
    }

    async fn send(
        &mut self,
        name: &ApplicationName,
        of: ApplicationId,
        head: ConfigurationHead,
    ) -> Result<(), Gone> {
        let known = self.sent.insert(head.id, (of, head.clone()));
        if known.is_some_and(|(_, known)| known.revision >= head.revision) {
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use futures_util::StreamExt as _;
    use sso_core::{
        clock::Clock,
        key_ring::{Generation, KeyRing},
        memory::LockedKey,
        secret::SecretText,
    };
    use tokio_util::sync::CancellationToken;
    use uuid::Uuid;

    use super::*;
    use crate::{
        access::Access,
        audit::{Audit, AuditSettings, Writer},
        cache::{Cache, CacheSettings},
        changes::Changes,
        config_store::{ReadMode, SetMode, Write},
        groups::Groups,
        identity::Identity,
        master::MasterSecret,
        model::{
            Account, Accounts, ApplicationFlags, ApplicationType, Caller, FieldUpdate, Fields,
            GlobalInfo, Label, ServerSettings,
        },
        storage::{DatabaseSettings, DatabaseUrl, Storage},
        vault::Vault,
    };

    fn call(account: &str, groups: BTreeMap<String, String>) -> Call {
        let account = Account::parse(account).unwrap();
        Call {
            caller: Arc::new(Caller::new(account, groups, crate::model::Proof::Certificate)),
            request_id: Uuid::nil(),
            local: true,
            change: None,
        }
    }

    fn application() -> Application {
        let label = |ordinal, label: &str| FieldUpdate {
            ordinal,
            label: label.into(),
            ..FieldUpdate::default()
        };
        let now = time::OffsetDateTime::UNIX_EPOCH;
        Application {
            id: ApplicationId::generate(),
            name: ApplicationName::parse("Orders").unwrap(),
            kind: ApplicationType::ConfigStore,
            description: String::new(),
            contact: String::new(),
            users: Accounts::parse(&["D\\readers"]).unwrap(),
            administrators: Accounts::parse(&["D\\writer"]).unwrap(),
            administrators_same: false,
            allow_local_accounts: false,
            windows_account: None,
            flags: ApplicationFlags::default(),
            ticket_timeout: 0,
            enabled: true,
            fields: {
                let labels = vec![label(0, "id"), label(1, "url")];
                Fields::parse(ApplicationType::ConfigStore, labels).unwrap().0
            },
            created_at: now,
            updated_at: now,
        }
    }

    /// A store with one application, whose readers are the group in the file.
    async fn store(folder: &std::path::Path, groups: Arc<Groups>) -> ConfigStore {
        let clock = Clock::System;
        let url = DatabaseUrl::Sqlite(folder.join("sso.db"));
        let storage = Storage::open(&DatabaseSettings::new(url), clock.clone()).await.unwrap();
        storage.migrate().await.unwrap();
        let global = GlobalInfo::initial(Accounts::default(), Accounts::default());
        let mut transaction = storage.begin().await.unwrap();
        transaction.initialise_system(&global, clock.now()).await.unwrap();
        transaction.insert_application(&application()).await.unwrap();
        let offered = crate::master::OfferedKeyRing {
            keystore: Uuid::nil(),
            epoch: 1,
            primary: Uuid::nil(),
            master: String::new(),
            generations: vec![crate::master::OfferedGeneration {
                number: 1,
                fingerprint: "1".into(),
                active: true,
            }],
            revocations: Default::default(),
        };
        transaction.admit_key_ring(&offered, clock.now()).await.unwrap();
        transaction.commit().await.unwrap();
        let access = Arc::new(Access::new(global));
        let stop = CancellationToken::new();
        let (changes, reader) =
            Changes::begin(storage.clone(), Arc::clone(&access), stop.clone()).await.unwrap();
        tokio::spawn(reader.run(stop.clone()));
        tokio::spawn(Arc::clone(&groups).watch(stop));
        let key = LockedKey::from_bytes(&[1; 32]).unwrap();
        let keys = KeyRing::new([(Generation::FIRST, key)], Generation::FIRST).unwrap();
        let held = Clock::manual(time::OffsetDateTime::UNIX_EPOCH);
        let vault = Vault::new(MasterSecret::holding(keys, held));
        let cache = Cache::new(
            storage.clone(),
            Arc::clone(&access),
            vault.clone(),
            Arc::clone(changes.ticks()),
            clock.clone(),
            CacheSettings::default(),
        );
        let by = Writer { system: Uuid::nil(), server: "sso-server-1" };
        let journal = AuditSettings::in_folder(&folder.join("audit"));
        let (audit, _) = Audit::open(by, &journal, clock.clone(), storage.clone()).unwrap();
        ConfigStore {
            access,
            audit,
            vault,
            storage,
            cache: Arc::new(cache),
            changes,
            identity: Arc::new(Identity::new(Vec::new(), BTreeSet::new(), groups)),
            clock,
        }
    }

    #[tokio::test]
    async fn a_lost_role_ends_a_watch_that_always_has_news() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("groups.toml");
        std::fs::write(&file, "version = 1\n[groups]\n'D\\readers' = ['D\\ann']\n").unwrap();
        let groups = Groups::load(Some(&file)).unwrap();
        let store = store(folder.path(), Arc::clone(&groups)).await;
        let name = ApplicationName::parse("Orders").unwrap();
        let ann = Account::parse("D\\ann").unwrap();
        let reader = call("D\\ann", groups.of(&ann));
        let targets = vec![WatchTarget { application: name.clone(), identifier: None }];
        let mut changes = store.watch(&reader, targets).await.unwrap();

        std::fs::write(&file, "version = 1\n").unwrap();
        let writing = async {
            let identifier = Identifier::parse("Main").unwrap();
            let writer = call("D\\writer", BTreeMap::new());
            for number in 0.. {
                let value = Some(SecretText::new(number.to_string()));
                let values = vec![(Label::parse("url").unwrap(), value)];
                let mode = SetMode::Merge;
                let write = Write { values, if_revision: None, mode, dry_run: false };
                store.set(&writer, &name, &identifier, write).await.unwrap();
                tokio::time::sleep(RECHECK / 20).await;
            }
        };
        let watching = async {
            loop {
                match changes.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.reason,
                    None => panic!("the watch ends with a reason"),
                }
            }
        };
        tokio::select! {
            () = writing => {}
            reason = watching => assert_eq!(reason, Reason::NotApplicationUser),
            () = tokio::time::sleep(3 * RECHECK) => panic!("a watch outlives the role"),
        }
    }

    #[tokio::test]
    async fn runtime_reads_are_for_the_own_machine_where_an_administrator_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), Groups::load(None).unwrap()).await;
        let (name, main) =
            (ApplicationName::parse("Orders").unwrap(), Identifier::parse("Main").unwrap());
        let near = call("D\\writer", BTreeMap::new());
        let far = Call { local: false, ..near.clone() };
        let read = async |call: &Call, mode| {
            store.get(call, &name, &main, mode, &[]).await.unwrap_err().reason
        };
        assert_eq!(read(&far, ReadMode::Runtime).await, Reason::NotApplicationUser);
        let settings = ServerSettings { remote_lookup: false, ..ServerSettings::default() };
        store.access.adopt_server_settings(settings);
        assert_eq!(read(&far, ReadMode::Runtime).await, Reason::RemoteLookupNotAllowed);
        assert_eq!(read(&near, ReadMode::Runtime).await, Reason::NotApplicationUser);
        assert_eq!(read(&far, ReadMode::Admin).await, Reason::ConfigurationNotFound);
    }
}
