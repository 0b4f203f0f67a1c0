//! What a server remembers of mappings: their rows with the credentials as they are sealed, never in
//! clear (ESSO.md 4.5).
//!
//! An entry lives under the epoch of its application, and every invalidation begins a new epoch. A
//! reader takes the epoch *before* it reads the database and keeps what it read under that epoch:
//! - what was committed before the read is in what was read;
//! - what is committed after it is told of later, by the writer here or by the change feed, which
//!   begins a new epoch then, and nobody looks under the old one any more.
//!
//! So however reads, commits and news interleave, a row that was read before its invalidation is not
//! served after it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use sso_core::clock::Clock;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use crate::{
    access::Access,
    changes::{Changes, News},
    error::Error,
    model::{Application, ApplicationFlag, ApplicationId, MappingKey},
    storage::{Storage, StoredMapping},
    vault::Vault,
};

/// Weight of everything kept; an entry weighs one for each KiB begun. So there are at most this many
/// entries, and about 100 MB of sealed bytes.
const MOST: u64 = 100_000;

/// Remembers mappings. Reads through to the database.
#[derive(Debug)]
pub struct CredentialCache {
    storage: Storage,
    access: Arc<Access>,
    vault: Vault,
    clock: Clock,
    kept: Kept,
    news: Mutex<Receiver<Arc<News>>>,
}

impl CredentialCache {
    /// An empty cache that takes in the news of these changes.
    #[must_use]
    pub fn new(
        storage: Storage,
        access: Arc<Access>,
        vault: Vault,
        changes: &Changes,
        clock: Clock,
    ) -> Self {
        let news = Mutex::new(changes.subscribe());
        Self { storage, access, vault, clock, kept: Kept::new(), news }
    }

    /// The mapping of this key with its sealed credentials; `None` where there is none, which is never
    /// remembered. With `refresh`, and in applications that do not want the cache, the database is read.
    ///
    /// # Errors
    /// As the storage.
    pub async fn mapping(
        &self,
        application: &Application,
        key: &MappingKey,
        refresh: bool,
    ) -> Result<Option<Arc<StoredMapping>>, Error> {
        let minutes = self.access.global().credential_cache_timeout;
        if minutes == 0 || application.has(ApplicationFlag::DisableCredentialCache) {
            return Ok(self.storage.mapping(application.id, key).await?.map(Arc::new));
        }
        self.take_in_news();
        let place = self.kept.place(application.id, key);
        let now = self.clock.instant();
        if !refresh
            && let Some(kept) = self.kept.find(&place, now)
            && self.opens(&kept)
        {
            metrics::counter!("sso_credential_cache_hits_total").increment(1);
            return Ok(Some(kept));
        }
        metrics::counter!("sso_credential_cache_misses_total").increment(1);
        let Some(read) = self.storage.mapping(application.id, key).await? else {
            return Ok(None);
        };
        let read = Arc::new(read);
        let until = now.saturating_add(Duration::from_secs(u64::from(minutes) * 60));
        self.kept.keep(place, Arc::clone(&read), until);
        Ok(Some(read))
    }

    /// Sealing again is told to nobody: what is kept opens as well, until its generation goes.
    fn opens(&self, kept: &StoredMapping) -> bool {
        kept.credentials.as_ref().is_none_or(|sealed| self.vault.may_open(sealed.generation))
    }

    /// Forgets the mappings of an application: a change to them was committed here just now.
    pub fn forget(&self, application: ApplicationId) {
        self.kept.forget(application);
    }

    /// Takes in what was told since the last time. Whoever was not told everything forgets everything.
    fn take_in_news(&self) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match news.try_recv() {
                Ok(news) => self.kept.learn(&news),
                Err(TryRecvError::Lagged(_)) => self.kept.forget_all(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

/// The entries and the epochs they live under.
#[derive(Debug)]
struct Kept {
    entries: Cache<Place, Entry>,
    epochs: Mutex<Epochs>,
}

#[derive(Debug, Default)]
struct Epochs {
    /// Of everything.
    all: u64,
    /// Of applications, since `all` last changed; 0 for those that are not there.
    applications: HashMap<ApplicationId, u64>,
}

/// Where an entry lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    application: ApplicationId,
    all: u64,
    epoch: u64,
    side: Side,
}

/// A key by its canonical text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Side {
    Account(String),
    ExternalUser(String),
}

#[derive(Clone, Debug)]
struct Entry {
    stored: Arc<StoredMapping>,
    /// By the clock of leases.
    until: Duration,
}

impl Kept {
    fn new() -> Self {
        let entries = Cache::builder()
            .max_capacity(MOST)
            .weigher(|_: &Place, entry: &Entry| {
                let sealed = entry.stored.credentials.as_ref().map_or(0, |it| it.sealed.len());
                u32::try_from(sealed / 1024).map_or(u32::MAX, |kib| kib.saturating_add(1))
            })
            .build();
        Self { entries, epochs: Mutex::default() }
    }

    /// Where a mapping of this key lives from now until its next invalidation.
    fn place(&self, application: ApplicationId, key: &MappingKey) -> Place {
        let side = match key {
            MappingKey::Account(account) => Side::Account(account.key().to_owned()),
            MappingKey::ExternalUser(user) => Side::ExternalUser(user.key().to_owned()),
        };
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = epochs.applications.get(&application).copied().unwrap_or_default();
        Place { application, all: epochs.all, epoch, side }
    }

    fn find(&self, place: &Place, now: Duration) -> Option<Arc<StoredMapping>> {
        let entry = self.entries.get(place)?;
        if now >= entry.until {
            self.entries.invalidate(place);
            return None;
        }
        Some(entry.stored)
    }

    fn keep(&self, place: Place, stored: Arc<StoredMapping>, until: Duration) {
        self.entries.insert(place, Entry { stored, until });
    }

    fn learn(&self, news: &News) {
        if news.everything || news.system {
            self.forget_all();
        }
        for &application in news.mappings.iter().chain(&news.applications) {
            self.forget(application);
        }
    }

    fn forget(&self, application: ApplicationId) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        *epochs.applications.entry(application).or_default() += 1;
    }

    fn forget_all(&self) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.all += 1;
        epochs.applications.clear();
        drop(epochs);
        self.entries.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::model::{Account, ExternalUser, Mapping, MappingId, MappingState};

    const LATER: Duration = Duration::from_secs(60);

    fn stored(application: ApplicationId, external_user: &str) -> Arc<StoredMapping> {
        let at = OffsetDateTime::UNIX_EPOCH;
        Arc::new(StoredMapping {
            mapping: Mapping {
                id: MappingId::generate(),
                application,
                account: Account::parse("D\\ann").unwrap(),
                external_user: ExternalUser::parse(external_user).unwrap(),
                state: MappingState::Enabled,
                credentials_at: None,
                created_at: at,
                updated_at: at,
                updated_by: String::new(),
            },
            credentials: None,
        })
    }

    fn ann() -> MappingKey {
        MappingKey::Account(Account::parse("d\\ANN").unwrap())
    }

    /// What a reader finds now.
    fn found(kept: &Kept, application: ApplicationId) -> Option<String> {
        let stored = kept.find(&kept.place(application, &ann()), Duration::ZERO)?;
        Some(stored.mapping.external_user.to_string())
    }

    #[test]
    fn a_row_read_before_its_invalidation_is_not_served_after_it() {
        let application = ApplicationId::generate();
        type Invalidate = fn(&Kept, ApplicationId);
        let invalidations: [Invalidate; 5] = [
            |kept, application| kept.forget(application),
            |kept, _| kept.forget_all(),
            |kept, application| {
                kept.learn(&News { mappings: [application].into(), ..News::default() });
            },
            |kept, application| {
                kept.learn(&News { applications: [application].into(), ..News::default() });
            },
            |kept, _| kept.learn(&News { system: true, ..News::default() }),
        ];
        for invalidate in invalidations {
            let kept = Kept::new();
            // The slow reader reads the old row; the change is committed and told; a quick reader reads
            // the new row and keeps it; only now the slow one keeps what it has.
            let slow = kept.place(application, &ann());
            invalidate(&kept, application);
            assert_eq!(found(&kept, application), None);
            let quick = kept.place(application, &ann());
            kept.keep(quick, stored(application, "new"), LATER);
            kept.keep(slow, stored(application, "old"), LATER);
            assert_eq!(found(&kept, application).as_deref(), Some("new"));
            // The other order, and an invalidation of what was kept in time.
            let slow = kept.place(application, &ann());
            kept.keep(slow.clone(), stored(application, "old"), LATER);
            assert_eq!(found(&kept, application).as_deref(), Some("old"));
            invalidate(&kept, application);
            kept.keep(slow, stored(application, "old"), LATER);
            assert_eq!(found(&kept, application), None);
        }
    }

    fn application() -> Application {
        use crate::model::{
            Accounts, ApplicationFlags, ApplicationName, ApplicationType, FieldUpdate, Fields,
        };
        let id = FieldUpdate { label: "id".into(), ..FieldUpdate::default() };
        Application {
            id: ApplicationId::generate(),
            name: ApplicationName::parse("App").unwrap(),
            kind: ApplicationType::Individual,
            description: String::new(),
            contact: String::new(),
            users: Accounts::default(),
            administrators: Accounts::default(),
            administrators_same: false,
            allow_local_accounts: false,
            windows_account: None,
            flags: ApplicationFlags::default(),
            ticket_timeout: 0,
            enabled: true,
            fields: Fields::parse(ApplicationType::Individual, vec![id]).unwrap().0,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// A cache over an empty database, on a server that holds these generations.
    async fn cache(folder: &std::path::Path, numbers: &[u32]) -> CredentialCache {
        use crate::{
            master::MasterSecret,
            model::{Accounts, GlobalInfo},
            storage::{DatabaseSettings, DatabaseUrl},
        };
        use sso_core::{
            key_ring::{Generation, KeyRing},
            memory::LockedKey,
        };
        let url = format!("sqlite:{}", folder.join("sso.db").display());
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
        let storage = Storage::open(&settings, clock.clone()).await.unwrap();
        storage.migrate().await.unwrap();
        let generation = |number| Generation::new(number).unwrap();
        let key = |number| LockedKey::from_bytes(&[u8::try_from(number).unwrap(); 32]).unwrap();
        let keys = numbers.iter().map(|&number| (generation(number), key(number)));
        let ring = KeyRing::new(keys, generation(*numbers.last().unwrap())).unwrap();
        let vault = Vault::new(MasterSecret::holding(ring, clock.clone()));
        let global = GlobalInfo::initial(Accounts::default(), Accounts::default());
        let access = Arc::new(Access::new(global));
        let stop = tokio_util::sync::CancellationToken::new();
        let (changes, _) =
            Changes::begin(storage.clone(), Arc::clone(&access), stop).await.unwrap();
        CredentialCache::new(storage, access, vault, &changes, clock)
    }

    #[tokio::test]
    async fn a_row_under_a_generation_that_is_gone_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let application = application();
        for (numbers, served) in [(&[1, 2][..], true), (&[2, 3], false)] {
            let cache = cache(folder.path(), numbers).await;
            let mut row = StoredMapping::clone(&stored(application.id, "kept"));
            let sealed = crate::storage::SealedCredentials { generation: 1, sealed: vec![1] };
            row.credentials = Some(sealed);
            cache.kept.keep(cache.kept.place(application.id, &ann()), Arc::new(row), LATER);
            // The database has none.
            let found = cache.mapping(&application, &ann(), false).await.unwrap();
            assert_eq!(found.is_some(), served, "{numbers:?}");
        }
    }

    #[test]
    fn forgetting_everything_does_not_bring_old_epochs_back() {
        let (kept, application) = (Kept::new(), ApplicationId::generate());
        let first = kept.place(application, &ann());
        kept.forget(application);
        kept.forget_all();
        kept.keep(first, stored(application, "old"), LATER);
        assert_eq!(found(&kept, application), None);
    }

    #[test]
    fn entries_end_and_other_applications_are_not_touched() {
        let (kept, application) = (Kept::new(), ApplicationId::generate());
        let place = kept.place(application, &ann());
        kept.keep(place.clone(), stored(application, "one"), LATER);
        kept.forget(ApplicationId::generate());
        assert_eq!(found(&kept, application).as_deref(), Some("one"));
        assert!(kept.find(&place, LATER).is_none());
        assert!(found(&kept, application).is_none(), "it is gone for good");
        let other = MappingKey::ExternalUser(ExternalUser::parse("D\\ann").unwrap());
        assert_ne!(kept.place(application, &ann()), kept.place(application, &other));
    }
}
