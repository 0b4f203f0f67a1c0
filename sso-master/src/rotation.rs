//! Rotation goes on by itself: the primary activates what is handed out as soon as nobody is waited
//! for, and retires what the servers have closed. It all stands in the keystore, so that a restart
//! loses nothing.

mod closing;

use std::{sync::Arc, time::Duration};

use sso_core::key_ring::Generation;
use sso_proto::{Reason, Refusal};

pub use self::closing::{close, is_closed, require_closed};
use crate::{
    custody::Unlocked,
    house::House,
    keystore::State,
    roster::{Facts, Kind},
};

/// How long a generation that is to be prepared waits for a server to say what its database knows.
const FACTS: Duration = Duration::from_secs(3);
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
    learn_revocations(house).await?;
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

/// A primary that was promoted or restored may not have heard of a revocation that the databases
/// remember.
async fn learn_revocations(house: &Arc<House>) -> Result<(), Refusal> {
    let told = house.roster.revocations();
    let mut known = house.current().revocations.clone();
    if !known.take_revoked(&told) {
        return Ok(());
    }
    let revoked: Vec<_> = known.revoked().map(str::to_owned).collect();
    house.change(move |_, draft| draft.learn_revocations(&told)).await?;
    tracing::warn!(
        ?revoked,
        "the servers told of a revocation that this keystore had not heard of"
    );
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
            // At the desk no generation changes any more; until here it may have.
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
    let draining = unlocked.generations.iter().filter(|entry| entry.state == State::Draining);
    let closed = draining.filter(|it| is_closed(house, it.generation, it.fingerprint));
    closed.map(|entry| entry.generation).collect()
}

async fn retire(house: &Arc<House>, generation: Generation) -> Result<(), Refusal> {
    house.change(move |_, draft| draft.retire(generation)).await?;
    tracing::info!(generation = generation.number(), "retired: nothing is sealed under it");
    Ok(())
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
