//! Closing a generation in the database, and what the database says of one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sso_core::{derive::Fingerprint, key_ring::Generation};
use sso_proto::{Reason, Refusal};

use crate::{custody::Unlocked, house::House, keystore::State};

/// How long somebody who retires a generation waits for the servers to close it.
const CLOSING: Duration = Duration::from_secs(30);
/// A refusal that a server repeats from an earlier attempt goes away within this, and a key ring that
/// was changed a moment ago is taken.
const STALE: Duration = Duration::from_secs(5);

/// Has the servers close a draining generation, and waits until it is retired; or one that is retired,
/// as after a restore, and that the database has open again.
///
/// # Errors
/// `GENERATION_NOT_FOUND`, `GENERATION_STATE_WRONG`; `GENERATION_IN_USE` with what a server says;
/// `SERVERS_UNREACHABLE` when none is there or none answers in time.
pub async fn close(house: &Arc<House>, generation: Generation) -> Result<(), Refusal> {
    let unlocked = house.require_primary()?;
    let fingerprint = require_closable(&unlocked, generation)?;
    if !house.roster.any_server(&unlocked.revocations) {
        let message = "no SSO server is there that could look into the database: start one";
        return Err(Refusal::new(Reason::ServersUnreachable, message));
    }
    let order = Order::give(house, generation, fingerprint);
    let closing = order.wait();
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(closed) => closed,
        Err(_) => {
            let message = format!(
                "no SSO server answered within {} s whether generation {generation} can be closed; \
                 look at their logs and try again",
                CLOSING.as_secs()
            );
            Err(Refusal::new(Reason::ServersUnreachable, message))
        }
    }
}

/// The fingerprint of a generation that can be closed.
fn require_closable(unlocked: &Unlocked, generation: Generation) -> Result<Fingerprint, Refusal> {
    let entry = unlocked.entry(generation).ok_or_else(|| {
        let message = format!("the keystore has no generation {generation}");
        Refusal::new(Reason::GenerationNotFound, message)
    })?;
    let why = match entry.state {
        State::Draining | State::Retired => return Ok(entry.fingerprint),
        State::Active => "is active: rotate first",
        State::Prepared | State::Distributed => "is not active yet",
        State::Destroyed => "is destroyed already",
    };
    let message = format!("generation {generation} {why}");
    Err(Refusal::new(Reason::GenerationStateWrong, message))
}

/// The order to close a generation, in the heartbeats while the value lives.
struct Order<'h> {
    house: &'h House,
    generation: Generation,
    fingerprint: Fingerprint,
    given: Duration,
    /// Servers that refused an earlier order, and may still say so.
    stale: BTreeSet<String>,
}

impl<'h> Order<'h> {
    fn give(house: &'h House, generation: Generation, fingerprint: Fingerprint) -> Self {
        let number = generation.number();
        let earlier = house.roster.close_refusals(number, Duration::ZERO);
        let stale = earlier.into_iter().map(|(server, _)| server).collect();
        house.closing.send_modify(|closing| {
            closing.insert(number);
        });
        Self { house, generation, fingerprint, given: house.clock.instant(), stale }
    }

    /// Until the database has it closed and the rotation retired it, or a server refused.
    async fn wait(&self) -> Result<(), Refusal> {
        let house = self.house;
        let mut keystore = house.custody.subscribe();
        let mut reports = house.roster.subscribe();
        loop {
            keystore.mark_unchanged();
            reports.mark_unchanged();
            let unlocked = house.require_primary()?;
            let known = in_database(house, self.generation, self.fingerprint);
            match unlocked.entry(self.generation).map(|entry| entry.state) {
                Some(State::Destroyed) => return Ok(()),
                Some(State::Retired) if known == InDatabase::Closed => return Ok(()),
                _ => {}
            }
            if let Some(refusal) = self.refused(&known) {
                return Err(refusal);
            }
            tokio::select! {
                _ = keystore.changed() => {}
                _ = reports.changed() => {}
                () = tokio::time::sleep(house.interval()) => {}
                () = house.draining.cancelled() => {
                    let message = "the master secret server stops; try again";
                    return Err(Refusal::new(Reason::ServerStopping, message));
                }
            }
        }
    }

    fn refused(&self, known: &InDatabase) -> Option<Refusal> {
        let (house, generation) = (self.house, self.generation);
        let fresh = self.given + STALE;
        match known {
            InDatabase::OtherKey(_) => return known.require_closed(generation).err(),
            // A server that is about to take the key says that its database has never seen it.
            InDatabase::Unknown if house.clock.instant() < fresh => return None,
            InDatabase::Unsaid | InDatabase::Unknown | InDatabase::Open | InDatabase::Closed => {}
        }
        let answers = house.roster.close_refusals(generation.number(), self.given);
        let late = house.roster.close_refusals(generation.number(), fresh);
        let first = answers.into_iter().find(|(server, _)| !self.stale.contains(server));
        let (server, message) = first.or_else(|| late.into_iter().next())?;
        let rows = house
            .roster
            .facts()
            .counted_rows(generation.number(), &self.fingerprint.to_string())
            .map(|rows| format!("; {rows} rows by the last count"))
            .unwrap_or_default();
        let message =
            format!("generation {generation} cannot be closed: {server} says: {message}{rows}");
        Some(Refusal::new(Reason::GenerationInUse, message))
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        self.house.closing.send_modify(|closing| {
            closing.remove(&self.generation.number());
        });
    }
}

/// How the database has a generation of the keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
enum InDatabase {
    /// No server has said what its database knows.
    Unsaid,
    /// Not at all, such as one that came from a backup and that no server has taken yet.
    Unknown,
    /// With another key, which has this fingerprint.
    OtherKey(String),
    /// Values may be sealed under it.
    Open,
    /// Nothing is sealed under it, and nothing can be.
    Closed,
}

impl InDatabase {
    fn require_closed(&self, generation: Generation) -> Result<(), Refusal> {
        let (reason, message) = match self {
            Self::Closed => return Ok(()),
            Self::Unsaid => (
                Reason::ServersUnreachable,
                format!(
                    "no SSO server is there that could say whether anything is sealed under \
                     generation {generation}: start one"
                ),
            ),
            Self::Unknown => (
                Reason::GenerationInUse,
                format!(
                    "the database does not know generation {generation} yet, so nothing proves that \
                     nothing is sealed under it: a server that takes the keys makes it known, and \
                     then `sso secret retire {generation}` closes it"
                ),
            ),
            Self::OtherKey(other) => (
                Reason::GenerationInUse,
                format!(
                    "the database knows generation {generation} with another key (fingerprint \
                     {other}), so nothing proves that nothing is sealed under this one: keep it, and \
                     look whether database and keystore belong together"
                ),
            ),
            Self::Open => (
                Reason::GenerationInUse,
                format!(
                    "the database has generation {generation} open: `sso secret retire \
                     {generation}` proves that nothing is sealed under it, and closes it"
                ),
            ),
        };
        Err(Refusal::new(reason, message))
    }
}

/// By the servers that are there and go by the present epoch and primary: what others said, somebody
/// else decides about.
fn in_database(house: &House, generation: Generation, fingerprint: Fingerprint) -> InDatabase {
    let unlocked = house.current();
    let facts = house.roster.facts_of(unlocked.epoch, unlocked.primary);
    if !facts.known {
        return InDatabase::Unsaid;
    }
    let (number, own) = (generation.number(), fingerprint.to_string());
    let mut others = facts.generations.keys().filter(|(it, key)| *it == number && *key != own);
    if let Some((_, other)) = others.next() {
        return InDatabase::OtherKey(other.clone());
    }
    match facts.generations.get(&(number, own)) {
        Some(counted) if counted.closed => InDatabase::Closed,
        Some(_) => InDatabase::Open,
        None => InDatabase::Unknown,
    }
}

/// Whether the database knows the generation with this key and has it closed. Nobody having said so
/// is not enough.
#[must_use]
pub fn is_closed(house: &House, generation: Generation, fingerprint: Fingerprint) -> bool {
    in_database(house, generation, fingerprint) == InDatabase::Closed
}

/// Refuses what needs [`is_closed`], and says what to do next. A generation that came back from a
/// backup is open in the database again as soon as a server has taken it, and may have rows; servers
/// would take no key ring without it.
///
/// # Errors
/// `GENERATION_IN_USE`; `SERVERS_UNREACHABLE` when no server has said what its database knows.
pub fn require_closed(
    house: &House,
    generation: Generation,
    fingerprint: Fingerprint,
) -> Result<(), Refusal> {
    in_database(house, generation, fingerprint).require_closed(generation)?;
    let rows = house.roster.facts().rows(generation.number(), &fingerprint.to_string());
    if rows == 0 {
        return Ok(());
    }
    let message = format!(
        "the database has generation {generation} closed, and {rows} rows sealed under it, which were put \
         there by hand: they are being sealed again; try again when `sso secret status` shows none"
    );
    Err(Refusal::new(Reason::GenerationInUse, message))
}
