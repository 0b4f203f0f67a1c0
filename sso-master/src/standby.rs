//! The other masters. Every master watches every other one: who is not the primary takes over what
//! the primary has, and a primary that hears of a higher epoch steps down.

use std::{sync::Arc, time::Duration};

use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel, transport_reason},
    key_ring::Generation,
    memory::LockedKey,
    tls::{TlsError, TlsReloader},
    transit::{self, TransitKeyPair},
};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        Heartbeat, KeystoreTransfer, ReplicateRequest, ReportRequest, WatchRequest,
        master_secret_client::MasterSecretClient,
    },
};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::{
    custody::Unlocked,
    house::House,
    keystore::State,
    roster::{Facts, Kind},
    settings::PeerEntry,
};

/// A dead connection is given up after twice this time, also when no byte flows.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Time for one connection and for one call.
const CONNECT: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(5);
/// Within this a server has noticed that its master is gone and reports to another one.
const SERVERS_COME: Duration = Duration::from_secs(10);
/// Time that a start waits for all of the other masters together.
const FIRST_QUESTION: Duration = Duration::from_secs(2);
/// Pauses between attempts: a master is found again within the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A heartbeat may be late by so much.
const LATE: Duration = Duration::from_millis(500);
/// Bytes of the largest answer that is taken.
const LARGEST_ANSWER: usize = 4 << 20;

/// A way to another master.
pub(crate) type Client = MasterSecretClient<Channel>;

/// Why this master is on standby and does not follow; `None` when it follows, or is the primary.
#[must_use]
pub fn not_following(house: &House) -> Option<String> {
    let unlocked = house.current();
    if house.leadership.is_primary(&unlocked) {
        return None;
    }
    let primary = house.leadership.primary(&unlocked);
    let peers = house.peers.all();
    let Some((name, known)) = peers.iter().find(|(_, known)| known.member == Some(primary)) else {
        return Some("not following: the primary was not heard of".to_owned());
    };
    if known.is_silent(house.clock.instant()) || !known.last_error.is_empty() {
        let why = if known.last_error.is_empty() { "it is silent" } else { &known.last_error };
        return Some(format!("not following {name}: {why}"));
    }
    ((known.epoch, known.version) > (unlocked.epoch, unlocked.change))
        .then(|| format!("not following {name}: its keystore is newer"))
}

/// A channel to another master; it connects at the first call.
///
/// # Errors
/// The address of the settings is none.
pub(crate) fn client(peer: &PeerEntry, tls: &Arc<TlsReloader>) -> Result<Client, TlsError> {
    let options = ConnectOptions {
        connect_timeout: CONNECT,
        keepalive_interval: KEEPALIVE,
        keepalive_timeout: KEEPALIVE,
    };
    // The rule by which its calls are known is also the one by which its answers are.
    let tls = ClientTls::from(Arc::clone(tls)).only([peer.certificate.clone()]);
    let channel = connect_channel(&peer.url, tls, options)?;
    Ok(MasterSecretClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
}

/// Asks every other master once how it stands: who was the primary and was away for a while learns
/// here that another one was promoted. Who does not answer does not hold this up.
pub async fn ask_all(house: &Arc<House>) {
    let mut asking = tokio::task::JoinSet::new();
    for peer in house.settings.peer.clone() {
        let house = Arc::clone(house);
        asking.spawn(async move {
            let asked = tokio::time::timeout(FIRST_QUESTION, ask(&house, &peer)).await;
            if let Ok(Err(error)) = asked {
                tracing::info!(peer = peer.name, error, "the other master does not answer");
            }
        });
    }
    while asking.join_next().await.is_some() {}
}

async fn ask(house: &Arc<House>, peer: &PeerEntry) -> Result<(), String> {
    let mut client = client(peer, &house.tls).map_err(|error| error.to_string())?;
    let answer = client.report(own_report(house)).await.map_err(|status| words(&status))?;
    match answer.into_inner().state {
        Some(state) => note(house, peer, &state),
        None => Ok(()),
    }
}

/// Watches another master until the house closes, and comes back after every failure.
pub async fn follow(house: Arc<House>, peer: PeerEntry) {
    let client = match client(&peer, &house.tls) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(peer = peer.name, %error, "the other master cannot be watched");
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let mut heard = false;
        let ended = tokio::select! {
            ended = watch(&house, &peer, &client, &mut heard) => ended,
            () = house.draining.cancelled() => return,
        };
        let why = ended.err().unwrap_or_else(|| "the other master ended the watch".to_owned());
        let mut news = false;
        house.peers.edit(&peer.name, |known| {
            news = known.last_error != why;
            known.last_error.clone_from(&why);
        });
        if news {
            tracing::warn!(peer = peer.name, error = why, "the other master is away");
        }
        pause = if heard { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = house.draining.cancelled() => return,
        }
    }
}

/// One stream to its end. Sets `heard` when the other master has said something good.
async fn watch(
    house: &Arc<House>,
    peer: &PeerEntry,
    client: &Client,
    heard: &mut bool,
) -> Result<(), String> {
    let mut watching = client.clone();
    let request = WatchRequest { instance: house.instance.to_string() };
    let opened = in_time(CALL, watching.watch(request)).await?;
    let mut beats = opened.map_err(|status| words(&status))?.into_inner();
    let mut keystore = house.custody.subscribe();
    let mut patience = CALL;
    loop {
        // A message that is on its way is not lost when the other branch is taken.
        let beat = tokio::select! {
            beat = in_time(patience, beats.message()) => beat?.map_err(|status| words(&status))?,
            changed = keystore.changed() => {
                changed.map_err(|error| error.to_string())?;
                report(house, peer, client).await?;
                continue;
            }
        };
        let Some(beat) = beat else { return Ok(()) };
        patience = patience_for(&beat);
        note(house, peer, &beat)?;
        take_over(house, peer, client, &beat).await?;
        *heard = true;
        house.peers.edit(&peer.name, |known| known.last_error.clear());
        keystore.mark_unchanged();
        report(house, peer, client).await?;
    }
}

async fn report(house: &Arc<House>, peer: &PeerEntry, client: &Client) -> Result<(), String> {
    let mut client = client.clone();
    let answer = in_time(CALL, client.report(own_report(house))).await?;
    match answer.map_err(|status| words(&status))?.into_inner().state {
        Some(state) => note(house, peer, &state),
        None => Ok(()),
    }
}

fn own_report(house: &House) -> ReportRequest {
    let unlocked = house.current();
    ReportRequest {
        instance: house.instance.to_string(),
        version: unlocked.change,
        epoch: unlocked.epoch,
        held_epoch: unlocked.epoch,
        primary: unlocked.primary.to_string(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        held_fingerprints: unlocked
            .generations
            .iter()
            .filter(|entry| entry.state != State::Destroyed)
            .map(|entry| entry.fingerprint.to_string())
            .collect(),
        ..ReportRequest::default()
    }
}

/// How long whoever sent this heartbeat may be silent from then on.
fn patience_for(beat: &Heartbeat) -> Duration {
    Duration::from_millis(u64::from(beat.interval_ms)) * 3 + LATE
}

/// Notes what another master says of itself.
fn note(house: &House, peer: &PeerEntry, beat: &Heartbeat) -> Result<(), String> {
    let own = house.current().keystore;
    if Uuid::try_parse(&beat.keystore_id) != Ok(own) {
        return Err(format!(
            "it holds the keystore {:?} of another system: correct the [[peer]] of the settings",
            beat.keystore_id
        ));
    }
    let primary = Uuid::try_parse(&beat.primary).ok();
    house.peers.edit(&peer.name, |known| {
        known.member = Uuid::try_parse(&beat.member).ok();
        known.primary = primary;
        known.epoch = beat.epoch;
        known.version = beat.version;
        known.heard_from(&house.clock, patience_for(beat));
    });
    house.hear(Kind::Master, beat.epoch, primary, &peer.name);
    Ok(())
}

/// Takes over the keystore of the primary, when it is newer than the own one.
async fn take_over(
    house: &Arc<House>,
    peer: &PeerEntry,
    client: &Client,
    beat: &Heartbeat,
) -> Result<(), String> {
    let unlocked = house.current();
    let newer = (beat.epoch, beat.version) > (unlocked.epoch, unlocked.change);
    let leads = !beat.member.is_empty() && beat.member == beat.primary;
    if !newer || !leads || house.leadership.is_primary(&unlocked) {
        return Ok(());
    }
    let (header, keys) = in_time(CALL, replicate(client)).await??;
    let adopted = house.change(move |_, draft| draft.adopt(&header, keys)).await;
    let adopted = adopted.map_err(|refusal| refusal.message)?;
    let now = house.current();
    if adopted.newer {
        tracing::info!(
            primary = peer.name,
            epoch = now.epoch,
            change = now.change,
            active = now.active.number(),
            "took over the keystore of the primary"
        );
    }
    if now.epoch != unlocked.epoch {
        tracing::info!(
            event = Event::MasterChanged.number(),
            primary = peer.name,
            epoch = now.epoch,
            "follows another primary"
        );
    }
    for (generation, fingerprint) in adopted.lost {
        tracing::warn!(
            generation = generation.number(),
            %fingerprint,
            "the primary does not have this key; the keystore that has it was kept aside"
        );
    }
    Ok(())
}

/// The header of a keystore, and its keys.
type Taken = (String, Vec<(Generation, LockedKey)>);

async fn replicate(client: &Client) -> Result<Taken, String> {
    replicate_state(client).await.map(|(_, header, keys)| (header, keys))
}

/// The whole keystore of another master, and how that one stands.
pub(crate) async fn replicate_state(
    client: &Client,
) -> Result<(Heartbeat, String, Vec<(Generation, LockedKey)>), String> {
    let pair = TransitKeyPair::generate().map_err(|error| error.to_string())?;
    let mut client = client.clone();
    let request = ReplicateRequest { recipient_key: pair.public_key() };
    let answer = client.replicate(request).await.map_err(|status| words(&status))?.into_inner();
    let opened =
        pair.open(&answer.sealed, transit::REPLICATE).map_err(|error| error.to_string())?;
    // Expose: to be decoded; every key in the message wipes itself.
    let mut transfer = sso_proto::decode_keys::<KeystoreTransfer>(opened.expose())
        .map_err(|_| "the other master sent a keystore that cannot be decoded")?;
    let mut keys = Vec::with_capacity(transfer.keys.len());
    for entry in &transfer.keys {
        let generation = Generation::new(entry.generation)
            .ok_or("the other master sent a generation with number 0")?;
        let key = LockedKey::from_bytes(&entry.key).map_err(|error| error.to_string())?;
        keys.push((generation, key));
    }
    let state = answer.state.ok_or("the other master sent a keystore without a state")?;
    Ok((state, std::mem::take(&mut transfer.header), keys))
}

/// Makes this master the primary of a new epoch.
///
/// # Errors
/// `PROMOTION_REFUSED` unless `force`, when it lacks what the database uses or nobody can say what
/// that is; always when it leads already.
pub async fn promote(house: &Arc<House>, force: bool) -> Result<u64, Refusal> {
    if !force && !house.is_primary() {
        // The servers have only begun to come over when the primary has just gone. What they say, or
        // that they say nothing, is judged below.
        let _ = house.facts_when(|facts| facts.known, SERVERS_COME).await;
    }
    house
        .at_desk(move |house| {
            let unlocked = house.current();
            if house.leadership.is_primary(&unlocked) {
                let message = format!("{} is the primary already", house.settings.name);
                return Err(Refusal::new(Reason::PromotionRefused, message));
            }
            let facts = house.roster.live_facts();
            if !force {
                require_complete(&unlocked, &facts)?;
            }
            let heard = house.leadership.highest_epoch(&unlocked);
            let known = heard.max(facts.epoch).max(house.peers.highest_epoch());
            house.custody.change(|draft| draft.promote(known))
        })
        .await
}

/// Whoever leads has every key that something in the database may be sealed under.
fn require_complete(unlocked: &Unlocked, facts: &Facts) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(Reason::PromotionRefused, message));
    if !facts.known {
        return refused(
            "no SSO server has reported what its database uses: wait until one reaches this master, \
             or use --force when there is none"
                .to_owned(),
        );
    }
    let held = |number: u32, fingerprint: &str| {
        unlocked.generations.iter().any(|entry| {
            entry.generation.number() == number
                && entry.fingerprint.to_string() == fingerprint
                && entry.state.is_handed_out()
        })
    };
    let open = facts.generations.values().filter(|it| !it.closed);
    let missing: Vec<_> = open
        .filter(|it| !held(it.generation, &it.fingerprint))
        .map(|it| format!("{} (fingerprint {})", it.generation, it.fingerprint))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    refused(format!(
        "the database uses generations that this master does not have: {}; promote one that has \
         them, or --force it: then `sso secret restore` brings them back from a backup, and `sso secret \
         rotate --continue` hands out one that is only prepared here",
        missing.join(", ")
    ))
}

async fn in_time<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(time, work)
        .await
        .map_err(|_| format!("the other master said nothing for {} ms", time.as_millis()))
}

/// What the other master refused, or why it was not reached.
pub(crate) fn words(status: &Status) -> String {
    Refusal::from_status(status)
        .map(|refusal| refusal.message)
        .or_else(|| transport_reason(status))
        .unwrap_or_else(|| format!("{}: {}", status.code(), status.message()))
}

/// Between half and all of `pause`, so that masters do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = Uuid::new_v4().into_bytes();
    pause / 2 + pause / 2 * u32::from(random) / 255
}
