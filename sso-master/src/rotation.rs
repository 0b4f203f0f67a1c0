//! Rotation goes on by itself: the primary activates what is handed out as soon as nobody is waited
//! for, and retires what the servers have closed. It all stands in the keystore, so that a restart
//! loses nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sso_core::key_ring::Generation;
use sso_proto::{Reason, Refusal};

use crate::{
    custody::Unlocked,
    house::House,
    keystore::{GenerationEntry, State},
    roster::{Facts, Kind},
};

/// How long somebody who retires a generation waits for the servers to close it.
const CLOSING: Duration = Duration::from_secs(30);
/// How long a generation that is to be prepared waits for a server to say what its database knows.
const FACTS: Duration = Duration::from_secs(3);
/// A refusal that a server repeats from an earlier attempt goes away within this.
const STALE: Duration = Duration::from_secs(5);
/// After a change of the keystore failed, until the next attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// Activates, retires and counts until the house closes.
pub async fn drive(house: Arc<House>) {
    let mut keystore = house.custody.subscribe();
    let mut reports = house.roster.subscribe();
    tokio::select! {
        () = house.asked.cancelled() => {}
        () = house.draining.cancelled() => return,
    }
    loop {
        keystore.mark_unchanged();
        reports.mark_unchanged();
        let done = step(&house).await;
        measure(&house);
        let failed = done.is_err();
        if let Err(refusal) = done {
            tracing::error!(event = refusal.reason.event(), error = %refusal, "the rotation does not go on");
        }
        tokio::select! {
            () = tokio::time::sleep(if failed { PAUSE } else { house.interval() }) => {}
            changed = keystore.changed(), if !failed => if changed.is_err() { return },
            changed = reports.changed(), if !failed => if changed.is_err() { return },
            () = house.draining.cancelled() => return,
        }
    }
}

/// What can be done now.
async fn step(house: &Arc<House>) -> Result<(), Refusal> {
    if !house.is_primary() {
        return Ok(());
    }
    let unlocked = house.current();
    if let Some(generation) = in_state(&unlocked, State::Distributed)
        && house.roster.waiting_for(&unlocked).is_empty()
    {
        activate(house, generation).await?;
    }
    for generation in closed(house, &house.current()) {
        retire(house, generation).await?;
    }
    Ok(())
}

/// The generation that is in this state.
#[must_use]
pub fn in_state(unlocked: &Unlocked, state: State) -> Option<Generation> {
    let found = unlocked.generations.iter().find(|entry| entry.state == state);
    found.map(|entry| entry.generation)
}

async fn activate(house: &Arc<House>, generation: Generation) -> Result<(), Refusal> {
    let done = house
        .at_desk(move |house| {
            let unlocked = house.require_primary()?;
            // At the desk nothing changes any more; until here it may have.
            if !house.roster.waiting_for(&unlocked).is_empty() {
                return Ok(false);
            }
            let now = house.clock.now();
            house.custody.change(|draft| draft.activate(generation, now))?;
            Ok(true)
        })
        .await?;
    if done {
        let unlocked = house.current();
        tracing::info!(
            generation = generation.number(),
            fingerprint = %unlocked.ring.active_fingerprint(),
            change = unlocked.change,
            "activated: new values are sealed under this generation"
        );
        metrics::counter!("sso_master_rotations_total").increment(1);
    }
    Ok(())
}

/// Draining generations under which nothing is sealed and nothing can be, as the servers say.
fn closed(house: &House, unlocked: &Unlocked) -> Vec<Generation> {
    let facts = house.roster.facts();
    // Of another epoch is what somebody else decides about.
    if facts.epoch != unlocked.epoch || facts.primary != Some(unlocked.primary) {
        return Vec::new();
    }
    let is_closed = |entry: &&GenerationEntry| {
        let key = (entry.generation.number(), entry.fingerprint.to_string());
        entry.state == State::Draining && facts.generations.get(&key).is_some_and(|it| it.closed)
    };
    unlocked.generations.iter().filter(is_closed).map(|entry| entry.generation).collect()
}

async fn retire(house: &Arc<House>, generation: Generation) -> Result<(), Refusal> {
    house.change(move |_, draft| draft.retire(generation)).await?;
    tracing::info!(generation = generation.number(), "retired: nothing is sealed under it");
    Ok(())
}

/// Has the servers close a draining generation, and waits until it is retired; or one that is retired,
/// as after a restore, and that the database has open again.
///
/// # Errors
/// `GENERATION_NOT_FOUND`, `GENERATION_STATE_WRONG`; `GENERATION_IN_USE` with what a server says;
/// `SERVERS_UNREACHABLE` when none is there or none answers in time.
pub async fn close(house: &Arc<House>, generation: Generation) -> Result<(), Refusal> {
    let unlocked = house.require_primary()?;
    require_closable(&unlocked, generation)?;
    if !house.roster.any_server(&unlocked.revoked_servers) {
        let message = "no SSO server is there that could look into the database: start one";
        return Err(Refusal::new(Reason::ServersUnreachable, message));
    }
    let number = generation.number();
    let order = Order::give(house, number);
    let closing = order.wait(house, generation);
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(closed) => closed,
        Err(_) => {
            let message = format!(
                "no SSO server answered within {} s whether generation {number} can be closed; \
                 look at their logs and try again",
                CLOSING.as_secs()
            );
            Err(Refusal::new(Reason::ServersUnreachable, message))
        }
    }
}

fn require_closable(unlocked: &Unlocked, generation: Generation) -> Result<(), Refusal> {
    let entry = unlocked.entry(generation).ok_or_else(|| {
        let message = format!("the keystore has no generation {generation}");
        Refusal::new(Reason::GenerationNotFound, message)
    })?;
    let why = match entry.state {
        State::Draining | State::Retired => return Ok(()),
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
    number: u32,
    given: Duration,
    /// Servers that refused an earlier order, and may still say so.
    stale: BTreeSet<String>,
}

impl<'h> Order<'h> {
    fn give(house: &'h House, number: u32) -> Self {
        let earlier = house.roster.close_refusals(number, Duration::ZERO);
        let stale = earlier.into_iter().map(|(server, _)| server).collect();
        house.closing.send_modify(|closing| {
            closing.insert(number);
        });
        Self { house, number, given: house.clock.instant(), stale }
    }

    /// Until the rotation retired it, or a server refused.
    async fn wait(&self, house: &House, generation: Generation) -> Result<(), Refusal> {
        let mut keystore = house.custody.subscribe();
        let mut reports = house.roster.subscribe();
        loop {
            keystore.mark_unchanged();
            reports.mark_unchanged();
            let unlocked = house.require_primary()?;
            match unlocked.entry(generation).map(|entry| entry.state) {
                Some(State::Destroyed) => return Ok(()),
                Some(State::Retired) if is_open(house, self.number) == Some(false) => return Ok(()),
                _ => {}
            }
            if let Some(refusal) = self.refused(house) {
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

    fn refused(&self, house: &House) -> Option<Refusal> {
        let fresh = self.given + STALE;
        let answers = house.roster.close_refusals(self.number, self.given);
        let late = house.roster.close_refusals(self.number, fresh);
        let first = answers.into_iter().find(|(server, _)| !self.stale.contains(server));
        let (server, message) = first.or_else(|| late.into_iter().next())?;
        let rows = rows_under(house, self.number)
            .map(|rows| format!("; {rows} rows by the last count"))
            .unwrap_or_default();
        let message =
            format!("generation {} cannot be closed: {server} says: {message}{rows}", self.number);
        Some(Refusal::new(Reason::GenerationInUse, message))
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        self.house.closing.send_modify(|closing| {
            closing.remove(&self.number);
        });
    }
}

/// What the servers say of the database by the present leader; waited for a moment, because a new primary
/// has not heard of everybody yet.
///
/// # Errors
/// `SERVERS_UNREACHABLE` when no server has reported.
pub async fn facts_of_now(house: &House) -> Result<Facts, Refusal> {
    let led_by = |facts: &Facts| {
        let unlocked = house.current();
        facts.epoch == unlocked.epoch && facts.primary == Some(unlocked.primary)
    };
    house.facts_when(led_by, FACTS).await.ok_or_else(|| {
        let message = "no SSO server is there that says which generations its database knows: \
                       start one, or repair the way to it";
        Refusal::new(Reason::ServersUnreachable, message)
    })
}

/// Whether the database has a generation open, so that values may be sealed under it; `None` when no
/// server has said what its database knows.
#[must_use]
pub fn is_open(house: &House, number: u32) -> Option<bool> {
    let facts = house.roster.facts();
    let mut own = facts.generations.values().filter(|it| it.generation == number);
    facts.known.then(|| own.any(|it| !it.closed))
}

/// Rows sealed under a generation by the last count; `None` when nobody counted.
#[must_use]
pub fn rows_under(house: &House, number: u32) -> Option<u64> {
    let facts = house.roster.facts();
    facts.counted_at?;
    let own = facts.generations.values().filter(|it| it.generation == number);
    Some(own.map(|it| it.rows).sum())
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn measure(house: &House) {
    let unlocked = house.current();
    metrics::gauge!("sso_master_epoch").set(unlocked.epoch as f64);
    metrics::gauge!("sso_master_is_primary").set(f64::from(u8::from(house.is_primary())));
    for server in house.roster.standings(Kind::Server) {
        metrics::gauge!("sso_master_server_version", "server" => server.name)
            .set(server.version as f64);
    }
    let facts = house.roster.facts();
    if facts.counted_at.is_some() {
        for entry in &unlocked.generations {
            let number = entry.generation.number();
            let own = facts.generations.values().filter(|it| it.generation == number);
            let rows: u64 = own.map(|it| it.rows).sum();
            metrics::gauge!("sso_master_generation_rows", "generation" => number.to_string())
                .set(rows as f64);
        }
    }
    let left = facts.reseal.map_or(0, |(_, status)| status.rows_left);
    metrics::gauge!("sso_master_reseal_rows_left").set(left as f64);
}
