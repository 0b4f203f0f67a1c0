//! What a server remembers of the database, so that what is asked for again and again is answered from
//! memory: applications, and the rows of mappings and configurations with their values as they are
//! sealed, never in clear (ESSO.md 4.5).
//!
//! What is remembered is served while it stands, by the ticks of [`crate::changes::Ticks`], where the
//! reasoning is, and while this server is known to have heard of all changes until
//! [`crate::changes::FRESH`] ago; otherwise the database is read, and answers or is missed. What is not
//! there is never remembered.
//!
//! The timeout of the credential cache, 0 = off, the flag of applications that want none and `purge`
//! are about rows: those of mappings, and alike those of configurations. Applications are not sealed
//! values, and stay as long as they stand.

mod row;
mod settings;
mod store;

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge};
use sso_core::clock::Clock;

use row::Row;
pub use row::{FoundConfiguration, FoundMapping, Sealed};
pub use settings::CacheSettings;
pub(crate) use store::{Store, Weigh};

use crate::{
    access::Access,
    changes::{Tick, Ticks},
    error::Error,
    model::{Application, ApplicationFlag, ApplicationId, ApplicationName, Identifier, MappingKey},
    storage::{Storage, StoredConfiguration},
    vault::Vault,
};

/// One part in so many of the memory is for applications.
const APPLICATIONS: u64 = 8;
/// About what an application and a row take.
const APPLICATION: u64 = 4096;
const ROW: u64 = 384;

/// Reads through to the database, and remembers.
#[derive(Debug)]
pub struct Cache {
    storage: Storage,
    access: Arc<Access>,
    vault: Vault,
    clock: Clock,
    ticks: Arc<Ticks>,
    applications: Store<KeptApplication>,
    rows: Store<Row>,
    counted: Counted,
}

/// An application, and the tick it was read under.
#[derive(Clone, Debug)]
struct KeptApplication(Arc<Application>, Tick);

impl Weigh for KeptApplication {
    fn weight(&self) -> u64 {
        let Self(application, _) = self;
        let accounts = application.users.iter().chain(application.administrators.iter());
        let names = accounts.map(|account| account.as_str().len() * 2 + size_of_val(account));
        let fields = application.fields.iter();
        let labels = fields.map(|field| field.label.as_str().len() * 2 + size_of_val(field));
        let texts = application.description.len() + application.contact.len();
        let bytes = size_of::<Application>() + texts + names.chain(labels).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl Weigh for Row {
    fn weight(&self) -> u64 {
        Self::weight(self)
    }
}

/// What a row is looked up by: its kind, its application, its canonical name.
#[derive(Hash)]
enum Name<'a> {
    Account(ApplicationId, &'a str),
    ExternalUser(ApplicationId, &'a str),
    Identifier(ApplicationId, &'a str),
}

impl<'a> Name<'a> {
    fn of_mapping(application: ApplicationId, key: &'a MappingKey) -> Self {
        match key {
            MappingKey::Account(account) => Self::Account(application, account.key()),
            MappingKey::ExternalUser(user) => Self::ExternalUser(application, user.key()),
        }
    }

    /// Whether the row is the one of this name, and not another one of the same hash.
    fn is_of(&self, row: &Row) -> bool {
        match *self {
            Self::Account(application, key) => row.is_of_account(application, key),
            Self::ExternalUser(application, key) => row.is_of_external_user(application, key),
            Self::Identifier(application, key) => row.is_of_identifier(application, key),
        }
    }
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(
        storage: Storage,
        access: Arc<Access>,
        vault: Vault,
        ticks: Arc<Ticks>,
        clock: Clock,
        settings: CacheSettings,
    ) -> Self {
        let bound = settings.bytes();
        let for_applications = bound / APPLICATIONS;
        Self {
            storage,
            access,
            vault,
            clock,
            ticks,
            applications: Store::new(for_applications, APPLICATION),
            rows: Store::new(bound - for_applications, ROW),
            counted: Counted::new(),
        }
    }

    /// The application of this name; with `refresh` as the database has it.
    ///
    /// # Errors
    /// As the storage.
    pub async fn application(
        &self,
        name: &ApplicationName,
        refresh: bool,
    ) -> Result<Option<Arc<Application>>, Error> {
        let hash = self.applications.hash(name.key());
        if !refresh
            && let Some(KeptApplication(kept, read)) = self.applications.find(hash)
            && kept.name == *name
            && self.ticks.application_stands(kept.id, read)
            && self.ticks.are_fresh(self.clock.instant())
        {
            self.counted.applications.hits.increment(1);
            return Ok(Some(kept));
        }
        self.counted.applications.misses.increment(1);
        let tick = self.ticks.now();
        let found = self.storage.application(name).await?;
        if let Some(found) = &found {
            self.applications.keep(hash, KeptApplication(Arc::clone(found), tick));
            self.counted.of_applications.set(&self.applications);
        }
        Ok(found)
    }

    /// The mapping of this key with its sealed credentials; `None` where there is none. With `refresh`,
    /// and in applications that do not want the cache, the database is read.
    ///
    /// # Errors
    /// As the storage.
    pub async fn mapping(
        &self,
        application: &Application,
        key: &MappingKey,
        refresh: bool,
    ) -> Result<Option<FoundMapping>, Error> {
        let id = application.id;
        let now = self.clock.instant();
        let until = self.until(now);
        let until = until.filter(|_| !application.has(ApplicationFlag::DisableCredentialCache));
        let Some(until) = until else {
            return Ok(self.storage.mapping(id, key).await?.map(FoundMapping::from));
        };
        let name = Name::of_mapping(id, key);
        let hash = self.rows.hash(&name);
        if !refresh
            && let Some(kept) = self.rows.find(hash)
            && name.is_of(&kept)
            && self.serves(&kept, now)
            && let Some(found) = kept.mapping()
        {
            self.counted.mappings.hits.increment(1);
            return Ok(Some(found));
        }
        self.counted.mappings.misses.increment(1);
        let tick = self.ticks.now();
        let Some(stored) = self.storage.mapping(id, key).await? else { return Ok(None) };
        self.keep(hash, Row::of_mapping(&stored, tick, until));
        Ok(Some(stored.into()))
    }

    /// The configuration of this identifier with its sealed values; `None` where there is none.
    ///
    /// # Errors
    /// As the storage.
    pub async fn configuration(
        &self,
        application: ApplicationId,
        identifier: &Identifier,
    ) -> Result<Option<FoundConfiguration>, Error> {
        let now = self.clock.instant();
        let Some(until) = self.until(now) else {
            let stored = self.storage.configuration(application, identifier).await?;
            return Ok(stored.map(FoundConfiguration::from));
        };
        let name = Name::Identifier(application, identifier.key());
        let hash = self.rows.hash(&name);
        if let Some(kept) = self.rows.find(hash)
            && name.is_of(&kept)
            && self.serves(&kept, now)
            && let Some(found) = kept.configuration()
        {
            self.counted.configurations.hits.increment(1);
            return Ok(Some(found));
        }
        self.counted.configurations.misses.increment(1);
        let tick = self.ticks.now();
        let stored = self.storage.configuration(application, identifier).await?;
        let Some(stored) = stored else { return Ok(None) };
        self.keep(hash, Row::of_configuration(application, &stored, tick, until));
        Ok(Some(stored.into()))
    }

    /// Remembers a configuration as it was just written, under the tick of its change.
    pub fn keep_written(
        &self,
        application: ApplicationId,
        written: &StoredConfiguration,
        tick: Tick,
    ) {
        if let Some(until) = self.until(self.clock.instant()) {
            let hash = self.rows.hash(Name::Identifier(application, written.head.identifier.key()));
            self.keep(hash, Row::of_configuration(application, written, tick, until));
        }
    }

    /// Until when a row that is read now is served, in seconds; `None` = rows are not remembered.
    fn until(&self, now: Duration) -> Option<u32> {
        let minutes = self.access.credential_cache_timeout();
        let until = now.as_secs().saturating_add(u64::from(minutes) * 60);
        (minutes > 0).then(|| u32::try_from(until).unwrap_or(u32::MAX))
    }

    fn serves(&self, kept: &Row, now: Duration) -> bool {
        now.as_secs() < u64::from(kept.until())
            && self.ticks.row_stands(kept.application(), kept.id(), kept.read())
            && self.ticks.are_fresh(now)
            // Sealing again is told to nobody: what is kept opens as well, until its generation goes.
            && kept.generation().is_none_or(|generation| self.vault.may_open(generation))
    }

    fn keep(&self, hash: u64, row: Option<Row>) {
        if let Some(row) = row {
            self.rows.keep(hash, row);
            self.counted.of_rows.set(&self.rows);
        }
    }
}

/// What metrics tell.
#[derive(Debug)]
struct Counted {
    applications: Looked,
    mappings: Looked,
    configurations: Looked,
    of_applications: Size,
    of_rows: Size,
}

/// How look-ups ended.
#[derive(Debug)]
struct Looked {
    hits: Counter,
    misses: Counter,
}

/// What is there.
#[derive(Debug)]
struct Size {
    entries: Gauge,
    bytes: Gauge,
}

impl Counted {
    fn new() -> Self {
        let looked = |of: &'static str| Looked {
            hits: metrics::counter!("sso_cache_hits_total", "of" => of),
            misses: metrics::counter!("sso_cache_misses_total", "of" => of),
        };
        let size = |of: &'static str| Size {
            entries: metrics::gauge!("sso_cache_entries", "of" => of),
            bytes: metrics::gauge!("sso_cache_bytes", "of" => of),
        };
        Self {
            applications: looked("applications"),
            mappings: looked("mappings"),
            configurations: looked("configurations"),
            of_applications: size("applications"),
            of_rows: size("rows"),
        }
    }
}

impl Size {
    fn set<V: Weigh>(&self, store: &Store<V>) {
        self.entries.set(f64::from(u32::try_from(store.count()).unwrap_or(u32::MAX)));
        // Beyond 2^53 bytes it is told less exactly.
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.bytes.set(store.weight() as f64);
    }
}

#[cfg(test)]
mod tests;
