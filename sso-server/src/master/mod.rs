//! The keys of the master secret server: fetched, kept in locked memory, confirmed, forgotten.
//!
//! Every word from the master extends two leases. While the *read lease* lasts, values are opened;
//! while the much shorter *write lease* lasts, values are sealed. So reads go on when the master is
//! away, and nothing is sealed under a generation that the master may have replaced.

mod lease;
mod link;
mod status;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use sso_core::{
    clock::Clock,
    connector::{ClientTls, check_address},
    key_ring::KeyRing,
    tls::TlsError,
};
use sso_proto::{Event, Reason};
use time::OffsetDateTime;
use uuid::Uuid;

use self::lease::Leases;
pub use self::{
    link::MasterLink,
    status::{MasterState, MasterStatus},
};
use crate::error::Error;

/// Section `[master]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterSettings {
    /// `https://HOST:PORT` of the master secret server.
    pub url: String,
    /// How often the master is asked when it does not tell by itself, in seconds.
    #[serde(default = "default_poll")]
    pub poll_seconds: u64,
    /// How long keys open values after the last confirmation, in seconds.
    #[serde(default = "default_read_lease")]
    pub read_lease_seconds: u64,
    /// How long keys seal values after the last confirmation, in seconds.
    #[serde(default = "default_write_lease")]
    pub write_lease_seconds: u64,
}

fn default_poll() -> u64 {
    30
}

fn default_read_lease() -> u64 {
    12 * 60 * 60
}

fn default_write_lease() -> u64 {
    15
}

impl MasterSettings {
    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// The key and, in words, what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        check_address(&self.url).map_err(|problem| ("url", problem.to_owned()))?;
        let ranges = [
            ("poll_seconds", self.poll_seconds, 3600),
            ("read_lease_seconds", self.read_lease_seconds, 30 * 86_400),
            ("write_lease_seconds", self.write_lease_seconds, 3600),
        ];
        for (key, value, most) in ranges {
            if !(1..=most).contains(&value) {
                return Err((key, format!("{value} is outside its range, 1 to {most}")));
            }
        }
        if self.write_lease_seconds > self.read_lease_seconds {
            return Err((
                "write_lease_seconds",
                "must not be longer than read_lease_seconds".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Binds the database to the keystore with this id unless it is bound already, and says which one it
/// is bound to: keys of another are not used.
pub type BindKeystore = Box<dyn Fn(Uuid) -> BoxFuture<'static, Result<Uuid, Error>> + Send + Sync>;

/// Why there are no keys to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterError {
    /// Keys are held, but the master has not confirmed them for the length of the write lease.
    #[error(
        "the master secret server {url} is not reachable, so nothing new is sealed; stored values \
         can be read{}; start the master or repair the way to it, this server recovers by itself",
        because(last_error)
    )]
    Unreachable {
        /// Address of the master.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// The read lease ended and the keys were forgotten.
    #[error(
        "the keys of the master secret server {url} were forgotten, because it was away for longer \
         than read_lease_seconds{}; start the master or repair the way to it, this server recovers \
         by itself",
        because(last_error)
    )]
    Expired {
        /// Address of the master.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// No keys were obtained since this server started.
    #[error(
        "this server has not obtained any key from the master secret server {url} since it \
         started{}; start the master or repair the way to it, this server recovers by itself",
        because(last_error)
    )]
    Missing {
        /// Address of the master.
        url: String,
        /// The last failure; empty when there was none.
        last_error: String,
    },
    /// The master holds the keys of another system.
    #[error(
        "the master secret server {url} holds keystore {found}, and the database belongs to keystore \
         {expected}: point master.url at the right master, or restore its keystore from the backup"
    )]
    Foreign {
        /// Address of the master.
        url: String,
        /// What the database is bound to.
        expected: Uuid,
        /// What the master has.
        found: Uuid,
    },
}

impl From<MasterError> for Error {
    fn from(error: MasterError) -> Self {
        let reason = match &error {
            MasterError::Unreachable { .. } => Reason::MasterUnreachable,
            MasterError::Expired { .. } => Reason::MasterSecretExpired,
            MasterError::Missing { .. } => Reason::MasterSecretMissing,
            MasterError::Foreign { .. } => Reason::MasterSecretForeign,
        };
        Self::new(reason, error.to_string())
    }
}

/// The keys of this server and how long they may be used.
pub struct MasterSecret {
    url: String,
    clock: Clock,
    keys: ArcSwapOption<KeyRing>,
    leases: Leases,
    /// Keys were held at some time since the start.
    held: AtomicBool,
    notes: Mutex<Notes>,
}

/// What only status and errors need.
#[derive(Debug, Default)]
struct Notes {
    /// Keystore that the database is bound to.
    expected: Option<Uuid>,
    /// Another keystore that the master has now.
    foreign: Option<Uuid>,
    /// Version of the key ring held.
    version: Option<u64>,
    last_confirmed_at: Option<OffsetDateTime>,
    last_error: Option<String>,
}

impl MasterSecret {
    /// No keys yet, and the task that must be run to obtain them by mutual TLS. Keys are used only
    /// when `bind` says that the database belongs to their keystore.
    ///
    /// # Errors
    /// The address of the master is not usable.
    pub fn new(
        settings: &MasterSettings,
        tls: ClientTls,
        clock: Clock,
        bind: BindKeystore,
    ) -> Result<(Arc<Self>, MasterLink), TlsError> {
        let secret = Arc::new(Self::empty(settings, clock));
        let link = MasterLink::new(settings, tls, Arc::clone(&secret), bind)?;
        Ok((secret, link))
    }

    /// Keys that need no master, confirmed for as long as `clock` stands.
    #[cfg(test)]
    pub(crate) fn holding(keys: KeyRing, clock: Clock) -> Arc<Self> {
        let url = "https://master.example:7410".to_owned();
        let settings = MasterSettings {
            url,
            poll_seconds: default_poll(),
            read_lease_seconds: default_read_lease(),
            write_lease_seconds: default_write_lease(),
        };
        let secret = Self::empty(&settings, clock);
        let now = secret.clock.instant();
        secret.adopt(keys, 1, now);
        Arc::new(secret)
    }

    fn empty(settings: &MasterSettings, clock: Clock) -> Self {
        let read = Duration::from_secs(settings.read_lease_seconds);
        let write = Duration::from_secs(settings.write_lease_seconds);
        Self {
            url: settings.url.clone(),
            clock,
            keys: ArcSwapOption::empty(),
            leases: Leases::new(read, write),
            held: AtomicBool::new(false),
            notes: Mutex::default(),
        }
    }

    /// Keys to open stored values with.
    ///
    /// # Errors
    /// `Missing`, `Expired`; `Foreign` when the master answers with the keys of another system.
    pub fn keys_for_read(&self) -> Result<Arc<KeyRing>, MasterError> {
        let keys = self.keys.load_full();
        match keys {
            Some(keys) if self.leases.may_read(self.clock.instant()) => Ok(keys),
            _ => Err(self.no_keys()),
        }
    }

    /// Keys to seal new values with.
    ///
    /// # Errors
    /// As [`Self::keys_for_read`], and `Unreachable` or `Foreign` when the write lease is over.
    pub fn keys_for_write(&self) -> Result<Arc<KeyRing>, MasterError> {
        let keys = self.keys_for_read()?;
        if self.leases.may_write(self.clock.instant()) {
            return Ok(keys);
        }
        let notes = self.notes();
        Err(self.foreign(&notes).unwrap_or_else(|| MasterError::Unreachable {
            url: self.url.clone(),
            last_error: notes.last_error.clone().unwrap_or_default(),
        }))
    }

    /// Forgets the keys when the read lease is over, used or not.
    pub(crate) fn forget_expired(&self) {
        if !self.leases.may_read(self.clock.instant()) && self.keys.swap(None).is_some() {
            self.notes().version = None;
            tracing::error!(master = %self.url, "the read lease is over, the keys are forgotten");
        }
    }

    fn no_keys(&self) -> MasterError {
        let notes = self.notes();
        if let Some(foreign) = self.foreign(&notes) {
            return foreign;
        }
        let url = self.url.clone();
        let last_error = notes.last_error.clone().unwrap_or_default();
        if self.held.load(Ordering::Relaxed) {
            MasterError::Expired { url, last_error }
        } else {
            MasterError::Missing { url, last_error }
        }
    }

    fn foreign(&self, notes: &Notes) -> Option<MasterError> {
        let (expected, found) = (notes.expected?, notes.foreign?);
        Some(MasterError::Foreign { url: self.url.clone(), expected, found })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the key ring held, while its read lease lasts.
    fn version(&self) -> Option<u64> {
        self.notes().version.filter(|_| self.leases.may_read(self.clock.instant()))
    }

    /// Refuses a key ring of a lower version than the one held: the master had its keystore replaced
    /// by an older copy, which may lack generations.
    fn require_not_older(&self, version: u64) -> Result<(), String> {
        match self.version() {
            Some(held) if version < held => Err(format!(
                "the master has change {version} of its keystore and had change {held} before, as \
                 after an old copy was put back; put the newest copy back, or restart this server \
                 if the older one is right"
            )),
            _ => Ok(()),
        }
    }

    /// Puts a key ring of this version to use, confirmed at the instant `at`.
    fn adopt(&self, keys: KeyRing, version: u64, at: Duration) {
        let keys = Arc::new(keys);
        tracing::info!(
            event = Event::MasterSecretObtained.number(),
            master = %self.url,
            version,
            active = %keys.active(),
            fingerprint = %keys.active_fingerprint(),
            "keys obtained from the master secret server"
        );
        let older = keys.generations().count().saturating_sub(1);
        if older > 0 {
            tracing::info!(
                event = Event::OlderGenerationsObtained.number(),
                older,
                "and older keys"
            );
        }
        // The lease first: keys without one would be forgotten by the timer in between.
        self.held.store(true, Ordering::Relaxed);
        self.confirm(at);
        self.keys.store(Some(keys));
        self.notes().version = Some(version);
    }

    /// The master was there at the instant `at`, and what is held is what it had.
    fn confirm(&self, at: Duration) {
        self.leases.confirm(at);
        let mut notes = self.notes();
        notes.last_confirmed_at = Some(self.clock.now());
        notes.foreign = None;
        if notes.last_error.take().is_some() {
            tracing::info!(event = Event::MasterBack.number(), master = %self.url, "the master secret server is reachable again");
        }
    }

    /// The master cannot be reached or relied on: nothing new is sealed from now on.
    fn fail(&self, error: String) {
        self.leases.end_write();
        let mut notes = self.notes();
        if notes.last_error.as_ref() != Some(&error) {
            tracing::warn!(event = Event::MasterLost.number(), master = %self.url, error, "the master secret server does not serve");
        }
        notes.last_error = Some(error);
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterSecret").field("url", &self.url).finish_non_exhaustive()
    }
}

fn because(last_error: &str) -> String {
    if last_error.is_empty() { String::new() } else { format!(" ({last_error})") }
}

#[cfg(test)]
mod tests;
