//! The way to the master secret server: fetches the keys, watches for news, polls where watching does
//! not work, and comes back after every failure.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel, transport_reason},
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    tls::TlsError,
    transit::{self, TransitKeyPair},
};
use sso_proto::{
    Refusal,
    v1::{
        FetchRequest, Heartbeat, KeyRingTransfer, WatchRequest,
        master_secret_client::MasterSecretClient,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use super::{BindKeystore, MasterSecret, MasterSettings};

/// A dead connection is given up after twice this time, also when no byte flows.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Time for one connection and for one call.
const CONNECT: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(5);
/// Pauses between attempts: the master is found again within the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the leases are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Bytes of the largest answer that is taken.
const LARGEST_ANSWER: usize = 1 << 20;

/// Keeps a [`MasterSecret`] supplied.
pub struct MasterLink {
    secret: Arc<MasterSecret>,
    client: MasterSecretClient<Channel>,
    /// Between two questions where watching does not work: never so long that the write lease ends.
    poll: Duration,
    bind: BindKeystore,
}

impl MasterLink {
    /// Nothing is sent before [`MasterLink::run`].
    pub(super) fn new(
        settings: &MasterSettings,
        tls: ClientTls,
        secret: Arc<MasterSecret>,
        bind: BindKeystore,
    ) -> Result<Self, TlsError> {
        let options = ConnectOptions {
            connect_timeout: CONNECT,
            keepalive_interval: KEEPALIVE,
            keepalive_timeout: KEEPALIVE,
        };
        let channel = connect_channel(&settings.url, tls, options)?;
        let client = MasterSecretClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        let poll = Duration::from_secs(settings.poll_seconds)
            .min(Duration::from_secs(settings.write_lease_seconds) / 2);
        Ok(Self { secret, client, poll, bind })
    }

    /// Watches, polls and forgets until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch_for_ever() => {}
            () = self.tick_for_ever() => {}
        }
    }

    async fn watch_for_ever(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut heard = false;
            let ended = match self.watch(&mut heard).await {
                Ok(()) => "the master secret server ended the watch".to_owned(),
                Err(error) => error,
            };
            if heard {
                // The stream is gone, and with it what confirmed that nothing changed.
                self.secret.fail(ended);
                pause = FIRST_PAUSE;
            }
            match self.fetch().await {
                // Not every network lets a stream live: ask now and then instead.
                Ok(()) if !heard => pause = self.poll,
                Ok(()) => {}
                Err(error) => {
                    self.secret.fail(error);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// One watch stream to its end. Sets `heard` when the master has said something good.
    async fn watch(&self, heard: &mut bool) -> Result<(), String> {
        let mut client = self.client.clone();
        let mut since = self.secret.clock.instant();
        let opened = in_time(CALL, client.watch(WatchRequest {})).await?;
        let mut beats = opened.map_err(|status| words(&status))?.into_inner();
        since = self.in_order(since, CALL)?;
        let mut patience = CALL;
        loop {
            let Some(beat) =
                in_time(patience, beats.message()).await?.map_err(|status| words(&status))?
            else {
                return Ok(());
            };
            since = self.in_order(since, patience)?;
            // A heartbeat may be late, but not by more than two others.
            patience = Duration::from_millis(u64::from(beat.interval_ms)) * 3 + TICK;
            self.heed(&beat, since).await?;
            *heard = true;
        }
    }

    /// The instant now, unless more than `patience` passed since the instant `since`. The timers of
    /// the runtime stand still while the machine is suspended, and what the master said before waits
    /// in a buffer: it says nothing about the time since.
    fn in_order(&self, since: Duration, patience: Duration) -> Result<Duration, String> {
        let now = self.secret.clock.instant();
        if now.saturating_sub(since) > patience {
            return Err("the machine was suspended, or had no time for this server".to_owned());
        }
        Ok(now)
    }

    /// Makes what is held what the master has, by its word heard at the instant `at`.
    async fn heed(&self, beat: &Heartbeat, at: Duration) -> Result<(), String> {
        self.require_own(&beat.keystore_id).await?;
        if self.secret.version() == Some(beat.version) && self.holds(beat) {
            self.secret.confirm(at);
            return Ok(());
        }
        self.fetch().await
    }

    fn holds(&self, beat: &Heartbeat) -> bool {
        self.secret.keys.load().as_ref().is_some_and(|keys| {
            keys.active().number() == beat.active_generation
                && keys.active_fingerprint().to_string() == beat.active_fingerprint
        })
    }

    async fn tick_for_ever(&self) {
        loop {
            self.secret.forget_expired();
            let (read, write) = self.secret.leases.left(self.secret.clock.instant());
            let gauge = |lease: Option<Duration>| lease.unwrap_or_default().as_secs_f64();
            metrics::gauge!("sso_master_read_lease_left_seconds").set(gauge(read));
            metrics::gauge!("sso_master_write_lease_left_seconds").set(gauge(write));
            tokio::time::sleep(TICK).await;
        }
    }

    /// Fetches every generation, sealed to a key pair made for this call.
    async fn fetch(&self) -> Result<(), String> {
        let pair = TransitKeyPair::generate().map_err(|error| error.to_string())?;
        let mut client = self.client.clone();
        // What is answered holds from now: how long the answer takes is not known to the master.
        let began = self.secret.clock.instant();
        let call = client.fetch(FetchRequest { recipient_key: pair.public_key() });
        let answer = in_time(CALL, call).await?.map_err(|status| words(&status))?.into_inner();
        let state = answer.state.ok_or("the master sent keys without a state")?;
        self.require_own(&state.keystore_id).await?;
        self.secret.require_not_older(state.version)?;
        let opened =
            pair.open(&answer.sealed, transit::FETCH).map_err(|error| error.to_string())?;
        // Expose: to be decoded; every key in the message wipes itself.
        let transfer = KeyRingTransfer::decode(opened.expose())
            .map_err(|_| "the master sent keys that cannot be decoded")?;
        let keys = key_ring(&transfer)?;
        if keys.active().number() != state.active_generation
            || keys.active_fingerprint().to_string() != state.active_fingerprint
        {
            return Err("the master sent keys that are not the ones it announces".to_owned());
        }
        self.secret.adopt(keys, state.version, began);
        Ok(())
    }

    /// Refuses a master with the keys of another system.
    async fn require_own(&self, keystore_id: &str) -> Result<(), String> {
        let found = Uuid::try_parse(keystore_id)
            .map_err(|_| "the master sent no id of its keystore".to_owned())?;
        let known = self.secret.notes().expected;
        let expected = match known {
            Some(expected) => expected,
            None => {
                let bound = (self.bind)(found).await.map_err(|error| error.to_string())?;
                self.secret.notes().expected = Some(bound);
                bound
            }
        };
        let mut notes = self.secret.notes();
        if expected == found {
            notes.foreign = None;
            return Ok(());
        }
        notes.foreign = Some(found);
        Err(format!("the master holds keystore {found}, expected is {expected}"))
    }
}

impl std::fmt::Debug for MasterLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterLink").field("secret", &self.secret).finish_non_exhaustive()
    }
}

fn key_ring(transfer: &KeyRingTransfer) -> Result<KeyRing, String> {
    let generation =
        |number| Generation::new(number).ok_or("the master sent a generation with number 0");
    let mut keys = Vec::with_capacity(transfer.generations.len());
    for entry in &transfer.generations {
        let key = LockedKey::from_bytes(&entry.key).map_err(|error| error.to_string())?;
        keys.push((generation(entry.generation)?, key));
    }
    KeyRing::new(keys, generation(transfer.active_generation)?).map_err(|error| error.to_string())
}

async fn in_time<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(time, work)
        .await
        .map_err(|_| format!("the master secret server said nothing for {} ms", time.as_millis()))
}

/// What the master refused, or why it was not reached.
fn words(status: &Status) -> String {
    Refusal::from_status(status)
        .map(|refusal| refusal.message)
        .or_else(|| transport_reason(status))
        .unwrap_or_else(|| format!("{}: {}", status.code(), status.message()))
}

/// Between half and all of `pause`, so that servers do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = Uuid::new_v4().into_bytes();
    pause / 2 + pause / 2 * u32::from(random) / 255
}
