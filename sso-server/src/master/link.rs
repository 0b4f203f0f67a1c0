//! The way to the master secret servers: fetches the keys, watches for news, polls where watching does
//! not work, reports, and comes back after every failure. Every master has a task of its own for each.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel, transport_reason},
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    tls::TlsError,
    transit::{self, TransitKeyPair},
};
use sso_proto::{
    Reason, Refusal, decode_keys,
    v1::{
        FetchRequest, FetchResponse, KeyRingTransfer, WatchRequest,
        master_secret_client::MasterSecretClient,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use super::{
    AdmitKeyRing, MasterSecret, MasterSettings, OfferedGeneration, OfferedKeyRing,
    cache::LeaseCache,
    notes::{Failure, Verdict, Word},
    report,
};
use crate::error::Error;

/// A dead connection is given up after twice this time, also when no byte flows.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Time for one connection and for one call.
const CONNECT: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(5);
/// Pauses between attempts: the master is found again within the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two questions whether a right that was revoked is back.
const REVOKED_PAUSE: Duration = Duration::from_secs(2);
/// How often the leases are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Between two reports to one master at most, and at least.
const REPORT: Duration = Duration::from_secs(2);
const REPORTS_APART: Duration = Duration::from_millis(100);
/// Bytes of the largest answer that is taken.
const LARGEST_ANSWER: usize = 1 << 20;

/// Keeps a [`MasterSecret`] supplied.
pub struct MasterLink {
    secret: Arc<MasterSecret>,
    ways: Vec<Way>,
    cache: Option<LeaseCache>,
}

/// The way to one master.
struct Way {
    secret: Arc<MasterSecret>,
    /// Its place among the masters of the settings.
    place: usize,
    url: String,
    client: MasterSecretClient<Channel>,
    /// Between two questions where watching does not work: never so long that the write lease ends.
    poll: Duration,
    admit: Arc<AdmitKeyRing>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

impl MasterLink {
    /// Nothing is sent before [`MasterLink::run`].
    pub(super) fn new(
        settings: &MasterSettings,
        tls: &ClientTls,
        secret: Arc<MasterSecret>,
        cache: Option<LeaseCache>,
        admit: AdmitKeyRing,
    ) -> Result<Self, TlsError> {
        let admit = Arc::new(admit);
        let poll = Duration::from_secs(settings.poll_seconds)
            .min(Duration::from_secs(settings.write_lease_seconds) / 2);
        let mut ways = Vec::new();
        for (place, url) in settings.addresses().into_iter().enumerate() {
            let options = ConnectOptions {
                connect_timeout: CONNECT,
                keepalive_interval: KEEPALIVE,
                keepalive_timeout: KEEPALIVE,
            };
            let channel =
                connect_channel(&url, tls.clone().only(settings.certificates.clone()), options)?;
            let client = MasterSecretClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
            ways.push(Way {
                secret: Arc::clone(&secret),
                place,
                url,
                client,
                poll,
                admit: Arc::clone(&admit),
                fetching: tokio::sync::Mutex::default(),
            });
        }
        Ok(Self { secret, ways, cache })
    }

    /// Watches, polls, reports and forgets until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self { secret, ways, cache } = self;
        let watching = join_all(ways.iter().map(Way::watch_for_ever));
        let reporting = join_all(ways.iter().map(Way::report_for_ever));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = watching => {}
            _ = reporting => {}
            () = secret.tick_for_ever(cache) => {}
        }
    }
}

impl std::fmt::Debug for MasterLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterLink").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Way {
    async fn watch_for_ever(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut heard = false;
            let ended = match self.watch(&mut heard).await {
                Ok(()) => Failure::Away("the master secret server ended the watch".to_owned()),
                Err(error) => error,
            };
            if heard {
                // The stream is gone, and with it what confirmed that nothing changed.
                self.secret.fail(self.place, ended);
                pause = FIRST_PAUSE;
            }
            match self.fetch().await {
                // Not every network lets a stream live: ask now and then instead.
                Ok(()) if !heard => pause = self.poll,
                Ok(()) => {}
                Err(failure) => {
                    let longest = match &failure {
                        Failure::Revoked(_) => REVOKED_PAUSE,
                        Failure::Away(_)
                        | Failure::Outdated(_)
                        | Failure::Foreign(_)
                        | Failure::Waiting(_) => LONGEST_PAUSE,
                    };
                    self.secret.fail(self.place, failure);
                    pause = (pause * 2).min(longest);
                }
            }
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// One watch stream to its end. Sets `heard` when the master has said something good.
    async fn watch(&self, heard: &mut bool) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let mut since = self.secret.clock.instant();
        let instance = self.secret.instance.to_string();
        let opened = in_time(CALL, client.watch(WatchRequest { instance })).await?;
        let mut beats = opened.map_err(|status| refused(&status))?.into_inner();
        since = self.in_order(since, CALL)?;
        let mut patience = CALL;
        loop {
            let Some(beat) =
                in_time(patience, beats.message()).await?.map_err(|status| refused(&status))?
            else {
                return Ok(());
            };
            since = self.in_order(since, patience)?;
            // A heartbeat may be late, but not by more than two others.
            patience = Duration::from_millis(u64::from(beat.interval_ms)) * 3 + TICK;
            match self.heed(&Word::of(beat)?, since).await {
                Ok(()) => *heard = true,
                Err(failure @ Failure::Away(_)) => return Err(failure),
                // It speaks, and may say something better soon.
                Err(failure) => self.secret.fail(self.place, failure),
            }
        }
    }

    /// The instant now, unless more than `patience` passed since the instant `since`. The timers of
    /// the runtime stand still while the machine is suspended, and what the master said before waits
    /// in a buffer: it says nothing about the time since.
    fn in_order(&self, since: Duration, patience: Duration) -> Result<Duration, Failure> {
        let now = self.secret.clock.instant();
        if now.saturating_sub(since) > patience {
            let why = "the machine was suspended, or had no time for this server";
            return Err(Failure::Away(why.to_owned()));
        }
        Ok(now)
    }

    /// Makes what is held what the master has, by its word heard at the instant `at`.
    async fn heed(&self, word: &Word, at: Duration) -> Result<(), Failure> {
        match self.secret.hear(self.place, word, at)? {
            Verdict::Confirms | Verdict::Overtaken => return Ok(()),
            Verdict::New => {}
        }
        let fetched = self.fetch().await;
        if matches!(fetched, Err(Failure::Waiting(_))) {
            self.secret.wait(at);
        }
        fetched
    }

    /// Fetches every generation, and once more when the database refuses them: another server may have
    /// brought a newer key ring to it in between.
    async fn fetch(&self) -> Result<(), Failure> {
        let _alone = self.fetching.lock().await;
        match self.fetch_once().await {
            Err(Failure::Outdated(_)) => self.fetch_once().await,
            fetched => fetched,
        }
    }

    /// Fetches every generation, sealed to a key pair made for this call.
    async fn fetch_once(&self) -> Result<(), Failure> {
        let pair = TransitKeyPair::generate().map_err(unusable)?;
        let mut client = self.client.clone();
        // What is answered holds from now: how long the answer takes is not known to the master.
        let began = self.secret.clock.instant();
        let call = client.fetch(FetchRequest { recipient_key: pair.public_key() });
        let answer = in_time(CALL, call).await?.map_err(|status| refused(&status))?.into_inner();
        let FetchResponse { sealed, state } = answer;
        let word =
            Word::of(state.ok_or_else(|| unusable("the master sent keys without a state"))?)?;
        match self.secret.hear(self.place, &word, began)? {
            Verdict::Confirms | Verdict::Overtaken => return Ok(()),
            Verdict::New => {}
        }
        let keys = opened(pair, &sealed)?;
        if !word.fits(&keys) {
            return Err(unusable("the master sent keys that are not the ones it announces"));
        }
        let asked = tokio::time::timeout(CALL, (self.admit)(self.offered(&word, &keys))).await;
        let silent = || Error::new(Reason::DatabaseUnavailable, "the database does not answer");
        asked.unwrap_or_else(|_| Err(silent())).map_err(not_admitted)?;
        self.secret.adopt(self.place, keys, &word, began)
    }

    fn offered(&self, word: &Word, keys: &KeyRing) -> OfferedKeyRing {
        OfferedKeyRing {
            keystore: word.keystore,
            epoch: word.epoch,
            primary: word.primary,
            master: self.url.clone(),
            generations: OfferedGeneration::all(keys),
            revocations: word.revocations.clone(),
        }
    }

    /// Tells the master how this server stands, whenever that changes and now and then.
    async fn report_for_ever(&self) {
        let mut stirred = self.secret.stirred.subscribe();
        loop {
            tokio::select! {
                // The sender lives as long as this.
                _ = stirred.changed() => {}
                () = tokio::time::sleep(REPORT) => {}
            }
            if self.secret.reaches(self.place) {
                if let Err(failure) = self.report().await {
                    self.secret.fail(self.place, failure);
                }
                tokio::time::sleep(REPORTS_APART).await;
            }
        }
    }

    async fn report(&self) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let began = self.secret.clock.instant();
        let request = report::request(&self.secret);
        let Ok(answered) = in_time(CALL, client.report(request)).await else { return Ok(()) };
        let state = match answered {
            Ok(answer) => answer.into_inner().state,
            Err(status) => {
                let failure = refused(&status);
                // Of anything else the watch hears itself, and knows better whether it lasts.
                return if matches!(failure, Failure::Revoked(_)) { Err(failure) } else { Ok(()) };
            }
        };
        let Some(state) = state else { return Ok(()) };
        let word = Word::of(state)?;
        // What the master said since counts more, unless this says the same.
        if self.secret.heard_after(self.place, &word, began) {
            return Ok(());
        }
        self.heed(&word, began).await
    }
}

/// The key ring that was sealed to the pair. What is in between wipes itself.
fn opened(pair: TransitKeyPair, sealed: &[u8]) -> Result<KeyRing, Failure> {
    let opened = pair.open(sealed, transit::FETCH).map_err(unusable)?;
    // Expose: to be decoded; every key in the message wipes itself.
    let transfer = decode_keys::<KeyRingTransfer>(opened.expose())
        .map_err(|_| unusable("the master sent keys that cannot be decoded"))?;
    key_ring(&transfer).map_err(Failure::Away)
}

/// The key ring that the message spells.
pub(crate) fn key_ring(transfer: &KeyRingTransfer) -> Result<KeyRing, String> {
    let generation =
        |number| Generation::new(number).ok_or("the master sent a generation with number 0");
    let mut keys = Vec::with_capacity(transfer.generations.len());
    for entry in &transfer.generations {
        let key = LockedKey::from_bytes(&entry.key).map_err(|error| error.to_string())?;
        keys.push((generation(entry.generation)?, key));
    }
    KeyRing::new(keys, generation(transfer.active_generation)?).map_err(|error| error.to_string())
}

fn not_admitted(error: Error) -> Failure {
    if error.reason == Reason::MasterSecretForeign {
        Failure::Foreign(error.message)
    } else if error.reason == Reason::MasterOutdated {
        Failure::Outdated(error.message)
    } else if error.reason == Reason::MasterSecretRevoked {
        Failure::Revoked(error.message)
    } else {
        Failure::Waiting(format!("its new keys wait for the database: {error}"))
    }
}

fn unusable(why: impl std::fmt::Display) -> Failure {
    Failure::Away(why.to_string())
}

async fn in_time<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(time, work).await.map_err(|_| {
        let milliseconds = time.as_millis();
        Failure::Away(format!("the master secret server said nothing for {milliseconds} ms"))
    })
}

/// What the master refused, or why it was not reached.
fn refused(status: &Status) -> Failure {
    match Refusal::from_status(status) {
        Some(refusal) if refusal.reason == Reason::ServerRevoked => {
            Failure::Revoked(refusal.message)
        }
        Some(refusal) => Failure::Away(refusal.message),
        None => Failure::Away(
            transport_reason(status)
                .unwrap_or_else(|| format!("{}: {}", status.code(), status.message())),
        ),
    }
}

/// Between half and all of `pause`, so that servers do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = Uuid::new_v4().into_bytes();
    pause / 2 + pause / 2 * u32::from(random) / 255
}

impl MasterSecret {
    /// Whether the master at this place answers.
    fn reaches(&self, place: usize) -> bool {
        self.notes().masters.get(place).is_some_and(|master| master.reached)
    }

    /// Whether the master at this place said something else since the instant `since`.
    fn heard_after(&self, place: usize, word: &Word, since: Duration) -> bool {
        self.notes().masters.get(place).is_some_and(|master| {
            let same = (master.epoch, master.version) == (Some(word.epoch), word.version);
            !same && master.heard_at.is_some_and(|heard| heard > since)
        })
    }

    /// Forgets what expired, shows what is left, and keeps the cache.
    async fn tick_for_ever(&self, mut cache: Option<LeaseCache>) {
        let mut stirred = self.stirred.subscribe();
        let mut warned = Warned::default();
        let mut state = None;
        loop {
            stirred.mark_unchanged();
            self.forget_expired();
            let (read, write) = self.leases.left(self.clock.instant());
            let gauge = |lease: Option<Duration>| lease.unwrap_or_default().as_secs_f64();
            metrics::gauge!("sso_master_read_lease_left_seconds").set(gauge(read));
            metrics::gauge!("sso_master_write_lease_left_seconds").set(gauge(write));
            self.show_masters();
            if let Some(left) = read {
                warned.warn(left, self.leases.read());
            }
            let now = self.status().state;
            if state.replace(now) != Some(now) {
                self.stir();
            }
            if let Some(cache) = &mut cache {
                cache.keep(self).await;
            }
            tokio::select! {
                _ = stirred.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn show_masters(&self) {
        let notes = self.notes();
        for master in &notes.masters {
            let reached = if master.reached { 1.0 } else { 0.0 };
            metrics::gauge!("sso_master_reached", "master" => master.url.clone()).set(reached);
        }
        #[expect(clippy::cast_precision_loss, reason = "nobody promotes so often")]
        let epoch = notes.seen.0 as f64;
        metrics::gauge!("sso_master_epoch").set(epoch);
    }
}

/// How far down the read lease is, and was when that was logged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Warned {
    #[default]
    Not,
    AtHalf,
    AtFifth,
}

impl Warned {
    /// For this rest of a read lease that is so long as a whole.
    pub(super) fn of(left: Duration, whole: Duration) -> Self {
        if left > whole / 2 {
            Self::Not
        } else if left > whole / 5 {
            Self::AtHalf
        } else {
            Self::AtFifth
        }
    }

    /// What an administrator should know; nothing while most of the lease is left.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Not => "",
            Self::AtHalf => "less than half of the read lease is left: no master confirms the keys",
            Self::AtFifth => {
                "less than a fifth of the read lease is left: the keys are forgotten at its end, and \
                 nothing can be read then"
            }
        }
    }

    /// Logs it once for each step down.
    pub(super) fn warn(&mut self, left: Duration, whole: Duration) {
        let (seconds, now) = (left.as_secs(), Self::of(left, whole));
        match now {
            Self::Not => *self = now,
            _ if now <= *self => {}
            Self::AtHalf => {
                *self = now;
                tracing::warn!(seconds, "{}", now.words());
            }
            Self::AtFifth => {
                *self = now;
                tracing::error!(seconds, "{}", now.words());
            }
        }
    }
}
