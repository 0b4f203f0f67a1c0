//! The keys of the master secret servers: fetched, kept in locked memory, confirmed, forgotten.
//!
//! Every word from a master extends two leases. While the *read lease* lasts, values are opened;
//! while the much shorter *write lease* lasts, values are sealed. So reads go on when every master is
//! away, and nothing is sealed under a generation that the masters may have replaced.
//!
//! There may be several masters. One leads, the *primary* of an *epoch*; the others have copies, and
//! their word is as good while they follow. The database remembers the highest epoch and is asked
//! before a changed key ring is used, so that whoever lost the leadership is not obeyed anywhere.

mod cache;
mod error;
mod facts;
mod lease;
mod link;
mod notes;
mod report;
mod settings;
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
use sso_core::{clock::Clock, connector::ClientTls, key_ring::KeyRing, tls::TlsError};
use sso_proto::Event;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use self::link::key_ring;
pub use self::{
    cache::{CacheOwner, CachedKeys, LeaseCache},
    error::MasterError,
    facts::{
        DatabaseFacts, KnownGeneration, OfferedGeneration, OfferedKeyRing, Orders, ResealProgress,
    },
    link::MasterLink,
    settings::{CacheSettings, MasterSettings},
    status::{KnownMaster, MasterState, MasterStatus},
};
use self::{
    lease::Leases,
    notes::{Failure, Held, MasterNote, Notes, Verdict, Word},
};
use crate::error::Error;

/// Asks the database whether the keys of this ring may be used (`generations::admit`). Refused with
/// `MASTER_SECRET_FOREIGN` or `MASTER_OUTDATED`, they are not; any other error says that the database
/// cannot answer now.
pub type AdmitKeyRing =
    Box<dyn Fn(OfferedKeyRing) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// What a server has of its keys when it starts.
#[derive(Debug, Default)]
pub struct Beginning {
    /// The keystore that the database is bound to.
    pub keystore: Option<Uuid>,
    /// Where the keys are kept beyond this process.
    pub cache: Option<LeaseCache>,
    /// What was kept there.
    pub cached: Option<CachedKeys>,
}

/// The keys of this server and how long they may be used.
pub struct MasterSecret {
    /// Of this process.
    instance: Uuid,
    clock: Clock,
    keys: ArcSwapOption<KeyRing>,
    leases: Leases,
    /// Keys were held at some time since the start.
    held: AtomicBool,
    notes: Mutex<Notes>,
    orders: watch::Sender<Orders>,
    facts: watch::Sender<DatabaseFacts>,
    /// Rises when the masters shall hear of something.
    stirred: watch::Sender<u64>,
}

impl MasterSecret {
    /// No keys yet but those of the cache, and the task that must be run to obtain them by mutual TLS.
    /// Keys are used only when `admit` allows it.
    ///
    /// # Errors
    /// The address of a master is not usable.
    pub fn new(
        settings: &MasterSettings,
        tls: &ClientTls,
        clock: Clock,
        beginning: Beginning,
        admit: AdmitKeyRing,
    ) -> Result<(Arc<Self>, MasterLink), TlsError> {
        let secret = Arc::new(Self::empty(settings, clock));
        secret.notes().expected = beginning.keystore;
        if let Some(cached) = beginning.cached {
            secret.resume(cached);
        }
        let link = MasterLink::new(settings, tls, Arc::clone(&secret), beginning.cache, admit)?;
        Ok((secret, link))
    }

    /// Keys that need no master, confirmed for as long as `clock` stands.
    #[cfg(test)]
    pub(crate) fn holding(keys: KeyRing, clock: Clock) -> Arc<Self> {
        let settings = MasterSettings::with_urls(&["https://master.example:7410"]);
        let secret = Self::empty(&settings, clock);
        let now = secret.clock.instant();
        let word = Word::of(tests::beat_of(&keys, 1)).expect("a word");
        let _ = secret.adopt(0, keys, &word, now);
        Arc::new(secret)
    }

    fn empty(settings: &MasterSettings, clock: Clock) -> Self {
        let read = Duration::from_secs(settings.read_lease_seconds);
        let write = Duration::from_secs(settings.write_lease_seconds);
        let note = |url| MasterNote { url, ..MasterNote::default() };
        let masters = settings.addresses().into_iter().map(note).collect();
        Self {
            instance: Uuid::new_v4(),
            clock,
            keys: ArcSwapOption::empty(),
            leases: Leases::new(read, write),
            held: AtomicBool::new(false),
            notes: Mutex::new(Notes { masters, ..Notes::default() }),
            orders: watch::Sender::default(),
            facts: watch::Sender::default(),
            stirred: watch::Sender::default(),
        }
    }

    /// What the masters want of this server, as it changes.
    #[must_use]
    pub fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Takes over what the database says; the masters are told at once.
    pub fn tell(&self, facts: DatabaseFacts) {
        self.notes().see(facts.epoch, facts.primary);
        let changed = self.facts.send_if_modified(|known| {
            let changed = *known != facts;
            *known = facts;
            changed
        });
        if changed {
            self.stir();
        }
    }

    /// Asks the masters at once, as when a value is sealed under a generation that is not held.
    pub fn ask_now(&self) {
        self.stir();
    }

    fn stir(&self) {
        self.stirred.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Keys to open stored values with.
    ///
    /// # Errors
    /// `Missing`, `Expired`, `Revoked`; `Foreign` or `Outdated` when no master answers but with keys of
    /// another system, or with keys that the database does not allow.
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
    /// As [`Self::keys_for_read`], and `Unreachable` when the write lease is over.
    pub fn keys_for_write(&self) -> Result<Arc<KeyRing>, MasterError> {
        let keys = self.keys_for_read()?;
        if self.leases.may_write(self.clock.instant()) {
            return Ok(keys);
        }
        let notes = self.notes();
        let wrong = foreign(&notes).or_else(|| outdated(&notes));
        Err(wrong.unwrap_or_else(|| MasterError::Unreachable {
            url: notes.addresses(),
            last_error: notes.last_error().unwrap_or_default(),
        }))
    }

    /// Forgets the keys when the read lease is over, used or not.
    pub(crate) fn forget_expired(&self) {
        if self.leases.may_read(self.clock.instant()) {
            return;
        }
        let mut notes = self.notes();
        // Once more, now that nobody else changes anything.
        if !self.leases.may_read(self.clock.instant()) && self.keys.swap(None).is_some() {
            notes.held = None;
            self.order(&notes, None);
            tracing::error!(master = %notes.addresses(), "the read lease is over, the keys are forgotten");
        }
    }

    fn no_keys(&self) -> MasterError {
        let notes = self.notes();
        if let Some(revoked) = &notes.revoked {
            let url = notes.masters.get(revoked.by).map(|master| master.url.clone());
            let url = url.unwrap_or_default();
            return MasterError::Revoked { url, why: revoked.why.clone() };
        }
        if let Some(foreign) = foreign(&notes) {
            return foreign;
        }
        let url = notes.addresses();
        let last_error = notes.last_error().unwrap_or_default();
        if self.was_held() {
            return MasterError::Expired { url, last_error };
        }
        outdated(&notes).unwrap_or(MasterError::Missing { url, last_error })
    }

    fn was_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key ring, while its read lease lasts.
    fn lasting(&self) -> Option<Arc<KeyRing>> {
        self.keys.load_full().filter(|_| self.leases.may_read(self.clock.instant()))
    }
}

impl MasterSecret {
    /// What a word of the master at this place is worth; one that confirms what is held counts from
    /// the instant `at`.
    fn hear(&self, place: usize, word: &Word, at: Duration) -> Result<Verdict, Failure> {
        let mut notes = self.notes();
        let keys = self.lasting();
        let verdict = notes.judge(place, word, keys.as_deref(), at)?;
        if verdict == Verdict::Confirms {
            self.confirm(&mut notes, place, word, at);
        }
        Ok(verdict)
    }

    /// Puts the key ring of a word to use, which the database admitted and the master confirmed at the
    /// instant `at`.
    fn adopt(&self, place: usize, keys: KeyRing, word: &Word, at: Duration) -> Result<(), Failure> {
        let keys = Arc::new(keys);
        let mut notes = self.notes();
        notes.expected = Some(word.keystore);
        // Another master may have been faster with a newer one.
        let before = self.lasting();
        let verdict = notes.judge(place, word, before.as_deref(), at)?;
        match verdict {
            Verdict::Overtaken => return Ok(()),
            Verdict::Confirms => {}
            Verdict::New => {
                // The lease first: keys without one would be forgotten by the timer in between.
                self.held.store(true, Ordering::Relaxed);
                self.leases.confirm(at);
                self.keys.store(Some(Arc::clone(&keys)));
                notes.see(word.epoch, Some(word.primary));
                notes.held = Some(Held {
                    version: word.version,
                    epoch: word.epoch,
                    primary: word.primary,
                    admitted: true,
                    adopted_at: self.clock.instant(),
                });
                let master = notes.masters.get(place).map(|master| master.url.as_str());
                tell_obtained(master.unwrap_or_default(), word, &keys);
            }
        }
        self.confirm(&mut notes, place, word, at);
        drop(notes);
        self.stir();
        Ok(())
    }

    /// Puts the keys of the cache to use, for reading.
    fn resume(&self, cached: CachedKeys) {
        let now = self.clock.instant();
        let mut notes = self.notes();
        self.held.store(true, Ordering::Relaxed);
        self.leases.resume_read(now, cached.left);
        notes.see(cached.epoch, Some(cached.primary));
        notes.held = Some(Held {
            version: cached.version,
            epoch: cached.epoch,
            primary: cached.primary,
            admitted: false,
            adopted_at: now,
        });
        self.keys.store(Some(Arc::new(cached.keys)));
        self.order(&notes, None);
    }

    /// The master at this place was there at the instant `at`, and what is held is what it had.
    fn confirm(&self, notes: &mut Notes, place: usize, word: &Word, at: Duration) {
        self.leases.confirm(at);
        notes.revoked = None;
        notes.last_confirmed_at = Some(self.clock.now());
        notes.confirmed_by = Some(place);
        if let Some(master) = notes.masters.get_mut(place) {
            master.good = true;
            if master.failure.take().is_some() {
                tracing::info!(event = Event::MasterBack.number(), master = %master.url, "the master secret server is reachable again");
            }
        }
        if word.from_primary {
            notes.closing_from = Some(place);
        }
        self.order(notes, Some(word));
    }

    /// Publishes what the masters want: closing is the matter of the primary alone.
    fn order(&self, notes: &Notes, word: Option<&Word>) {
        let keys = self.keys.load();
        self.orders.send_if_modified(|orders| {
            let mut wanted = orders.clone();
            wanted.active = keys.as_ref().map(|keys| keys.active().number());
            wanted.version = notes.held.map(|held| held.version);
            wanted.leader = notes.held.map(|held| (held.epoch, held.primary));
            if let Some(word) = word {
                wanted.reseal_rows_per_second = word.reseal_rows_per_second;
                if word.from_primary {
                    wanted.closing.clone_from(&word.closing);
                }
            }
            if notes.closing_from.is_none() {
                wanted.closing.clear();
            }
            let changed = *orders != wanted;
            *orders = wanted;
            changed
        });
    }

    /// The master at this place cannot be reached or relied on. Where no other is good, nothing new is
    /// sealed from now on.
    fn fail(&self, place: usize, failure: Failure) {
        let mut notes = self.notes();
        if let Failure::Revoked(why) = &failure
            && notes.revoked.is_none()
            && let Some(revocation) = notes.revocation(place, why)
        {
            self.revoke(&mut notes, revocation);
        }
        let waits = matches!(failure, Failure::Waiting(_));
        if let Some(master) = notes.masters.get_mut(place) {
            if master.failure.as_ref() != Some(&failure) {
                let error = failure.words();
                tracing::warn!(event = Event::MasterLost.number(), master = %master.url, error, "the master secret server does not serve");
            }
            master.reached = !matches!(failure, Failure::Away(_));
            // New keys wait for the database, and so does every write: those held go on.
            master.good = master.good && waits;
            master.failure = Some(failure);
        }
        if !waits && notes.closing_from == Some(place) {
            notes.closing_from = None;
            self.order(&notes, None);
        }
        if !notes.any_good() && !waits {
            self.leases.end_write();
        }
    }

    /// The master at this place was there at the instant `at` with new keys that wait for the database:
    /// those held may still be read with.
    fn wait(&self, at: Duration) {
        let _notes = self.notes();
        if self.lasting().is_some() {
            self.leases.confirm_read(at);
        }
    }

    /// Forgets the keys at once.
    fn revoke(&self, notes: &mut Notes, revocation: notes::Revocation) {
        self.leases.end_both();
        self.keys.store(None);
        notes.held = None;
        for master in &mut notes.masters {
            master.good = false;
        }
        notes.closing_from = None;
        self.order(notes, None);
        let why = &revocation.why;
        tracing::warn!(
            event = Event::MasterSecretRefused.number(),
            why,
            "the right of this server to the master secret was revoked, the keys are forgotten"
        );
        notes.revoked = Some(revocation);
        self.stir();
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterSecret").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// The first master with the keys of another system, where none is good.
fn foreign(notes: &Notes) -> Option<MasterError> {
    let mut masters = notes.masters.iter().filter(|_| !notes.any_good());
    masters.find_map(|master| match &master.failure {
        Some(Failure::Foreign(why)) => {
            Some(MasterError::Foreign { url: master.url.clone(), why: why.clone() })
        }
        Some(
            Failure::Away(_) | Failure::Outdated(_) | Failure::Revoked(_) | Failure::Waiting(_),
        )
        | None => None,
    })
}

/// The first master that is outdated, where none is good.
fn outdated(notes: &Notes) -> Option<MasterError> {
    let mut masters = notes.masters.iter().filter(|_| !notes.any_good());
    masters.find_map(|master| match &master.failure {
        Some(Failure::Outdated(why)) => {
            Some(MasterError::Outdated { url: master.url.clone(), why: why.clone() })
        }
        Some(
            Failure::Away(_) | Failure::Foreign(_) | Failure::Revoked(_) | Failure::Waiting(_),
        )
        | None => None,
    })
}

fn tell_obtained(master: &str, word: &Word, keys: &KeyRing) {
    tracing::info!(
        event = Event::MasterSecretObtained.number(),
        master,
        version = word.version,
        epoch = word.epoch,
        active = %keys.active(),
        fingerprint = %keys.active_fingerprint(),
        "keys obtained from the master secret server"
    );
    let older = keys.generations().count().saturating_sub(1);
    if older > 0 {
        tracing::info!(event = Event::OlderGenerationsObtained.number(), older, "and older keys");
    }
}

#[cfg(test)]
mod tests;
