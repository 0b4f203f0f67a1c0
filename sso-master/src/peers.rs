//! What this master has heard of the other ones.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sso_core::clock::Clock;
use time::OffsetDateTime;
use uuid::Uuid;

/// Another master, as its heartbeats say.
#[derive(Clone, Debug, Default)]
pub struct KnownMaster {
    /// Its copy of the keystore.
    pub member: Option<Uuid>,
    /// Whom it takes for the primary.
    pub primary: Option<Uuid>,
    /// Its epoch.
    pub epoch: u64,
    /// The version of its keystore.
    pub version: u64,
    /// When it last said something.
    pub heard_at: Option<OffsetDateTime>,
    heard: Option<Duration>,
    /// How long it may be silent.
    patience: Duration,
    /// Why it is not reached, or not followed; empty while all is well.
    pub last_error: String,
}

impl KnownMaster {
    /// Whether it takes itself for the primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.member.is_some() && self.member == self.primary
    }

    /// Whether it has said nothing for longer than it may.
    #[must_use]
    pub fn is_silent(&self, now: Duration) -> bool {
        self.heard.is_none_or(|at| now.saturating_sub(at) > self.patience)
    }

    /// Notes that it said something, and how long it may be silent from now on.
    pub fn heard_from(&mut self, clock: &Clock, patience: Duration) {
        self.heard = Some(clock.instant());
        self.heard_at = Some(clock.now());
        self.patience = patience;
    }
}

/// The other masters of the settings, by name.
#[derive(Debug)]
pub struct Peers(Mutex<BTreeMap<String, KnownMaster>>);

impl Peers {
    /// Nothing was heard of any of them.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Mutex::new(names.into_iter().map(|name| (name, KnownMaster::default())).collect()))
    }

    /// What is known of each.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, KnownMaster> {
        self.known().clone()
    }

    /// The name of the master with this copy of the keystore.
    #[must_use]
    pub fn name_of(&self, member: Uuid) -> Option<String> {
        let known = self.known();
        known.iter().find(|(_, it)| it.member == Some(member)).map(|(name, _)| name.clone())
    }

    /// The highest epoch that any of them has.
    #[must_use]
    pub fn highest_epoch(&self) -> u64 {
        self.known().values().map(|it| it.epoch).max().unwrap_or_default()
    }

    /// Notes something of the master of this name, if the settings have it.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut KnownMaster)) {
        if let Some(known) = self.known().get_mut(name) {
            edit(known);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, KnownMaster>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
