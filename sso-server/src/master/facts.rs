//! What masters and this server tell one another beside the keys.

use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    revocations::Revocations,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// A key ring that a master offers, as the database is asked about it before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedKeyRing {
    /// The keystore it comes from.
    pub keystore: Uuid,
    /// The epoch of the master.
    pub epoch: u64,
    /// The primary of that epoch.
    pub primary: Uuid,
    /// The address of the master that offers it.
    pub master: String,
    /// Number and fingerprint of every generation in it, and whether it is the active one.
    pub generations: Vec<OfferedGeneration>,
    /// Which servers lost their right to the master secret, as this master says.
    pub revocations: Revocations,
}

/// One generation of an offered key ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedGeneration {
    /// Its number.
    pub number: u32,
    /// Its fingerprint in hexadecimal.
    pub fingerprint: String,
    /// Whether new values are sealed under it.
    pub active: bool,
}

impl OfferedGeneration {
    /// Every generation of this ring.
    pub(super) fn all(keys: &KeyRing) -> Vec<Self> {
        let generation = |(generation, fingerprint)| {
            let (number, active) = (Generation::number(generation), generation == keys.active());
            Self { number, fingerprint: Fingerprint::to_string(&fingerprint), active }
        };
        keys.generations().map(generation).collect()
    }
}

/// What a master wants of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The generation that new values are sealed under; `None` without keys.
    pub active: Option<u32>,
    /// The version of the key ring held.
    pub version: Option<u64>,
    /// Epoch and primary of the key ring held: it is they who want generations closed.
    pub leader: Option<(u64, Uuid)>,
    /// Generations to be closed in the database, if nothing is sealed under them.
    pub closing: Vec<u32>,
    /// Rows a second that sealing again may take; 0 = as many as the database gives.
    pub reseal_rows_per_second: u32,
}

/// What this server knows from the database, for the masters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseFacts {
    /// The highest epoch the database has seen, and the primary of it; 0 = none.
    pub epoch: u64,
    /// That primary.
    pub primary: Option<Uuid>,
    /// Every generation that the database knows.
    pub generations: Vec<KnownGeneration>,
    /// Which servers lost their right to the master secret, as the database remembers.
    pub revocations: Revocations,
    /// When the rows were counted; `None` = nobody has.
    pub counted_at: Option<OffsetDateTime>,
    /// Sealing again.
    pub reseal: ResealProgress,
    /// Why generations could not be closed.
    pub close_refusals: Vec<(u32, String)>,
}

/// A generation that the database knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownGeneration {
    /// Its number.
    pub number: u32,
    /// Its fingerprint in hexadecimal.
    pub fingerprint: String,
    /// Rows sealed under it, by the last count.
    pub rows: u64,
    /// Nothing may be sealed under it any more.
    pub closed: bool,
}

/// How far sealing again is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResealProgress {
    /// This server has the work.
    pub working: bool,
    /// Rows of generations that are not the active one.
    pub rows_left: u64,
    /// Since the work began.
    pub rows_done: u64,
    /// Over the last seconds.
    pub rows_per_second: f64,
    /// Rows that do not open, by name; a few of them.
    pub failed: Vec<String>,
    /// How many there are.
    pub failed_rows: u64,
    /// Why it waits; empty when it does not.
    pub waiting_for: String,
    /// When this server began.
    pub began_at: Option<OffsetDateTime>,
    /// When it was done.
    pub finished_at: Option<OffsetDateTime>,
}
