//! What every room of the running master shares.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sso_core::{clock::Clock, tls::TlsReloader};
use sso_proto::{Reason, Refusal, v1::Heartbeat};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backup::schedule::Schedule,
    custody::{Custody, Unlocked},
    keystore::Draft,
    peers::Peers,
    roster::{Facts, Kind, Roster},
    settings::Settings,
};

/// The running master. Shared by all of its tasks.
#[derive(Debug)]
pub struct House {
    /// As they were at the start.
    pub settings: Settings,
    /// The keystore.
    pub custody: Arc<Custody>,
    /// Who holds what.
    pub roster: Arc<Roster>,
    /// The other masters, as this one sees them.
    pub peers: Peers,
    /// The highest epoch heard of.
    pub leadership: Leadership,
    /// Backups that are made by themselves.
    pub schedule: Option<Arc<Schedule>>,
    /// Generations that servers shall close in the database.
    pub closing: watch::Sender<BTreeSet<u32>>,
    /// Own certificate, and whom to trust.
    pub tls: Arc<TlsReloader>,
    /// The time.
    pub clock: Clock,
    /// This process.
    pub instance: Uuid,
    /// Ends streams and tasks.
    pub draining: CancellationToken,
    /// Cancelled when the other masters were asked whether another one was promoted meanwhile: nothing
    /// is administered before.
    pub asked: CancellationToken,
    /// See [`Self::desk`].
    desk: Arc<tokio::sync::Mutex<()>>,
}

impl House {
    /// The house of this keystore.
    #[must_use]
    pub fn new(
        settings: Settings,
        custody: Arc<Custody>,
        tls: Arc<TlsReloader>,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let clock = Clock::System;
        let servers = settings.server.iter().map(|server| server.name.clone());
        let masters = settings.peer.iter().map(|peer| peer.name.clone());
        let roster = Roster::new(clock.clone(), settings.heartbeat(), servers, masters);
        let peers = Peers::new(settings.peer.iter().map(|peer| peer.name.clone()));
        let schedule = Schedule::new(Arc::clone(&custody), &settings.backup, clock.clone());
        Arc::new(Self {
            schedule,
            settings,
            custody,
            roster: Arc::new(roster),
            peers,
            leadership: Leadership::default(),
            closing: watch::Sender::new(BTreeSet::new()),
            tls,
            clock,
            instance: Uuid::new_v4(),
            draining,
            asked: CancellationToken::new(),
            desk: Arc::default(),
        })
    }

    /// The keystore at this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Unlocked> {
        self.custody.current()
    }

    /// Whether this master is the primary, as far as it has heard.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.leadership.is_primary(&self.current())
    }

    /// Refuses what only the primary does, and names it.
    ///
    /// # Errors
    /// `NOT_PRIMARY`.
    pub fn require_primary(&self) -> Result<Arc<Unlocked>, Refusal> {
        let unlocked = self.current();
        if self.leadership.is_primary(&unlocked) {
            return Ok(unlocked);
        }
        let primary = self.leadership.primary(&unlocked);
        let who = match self.peers.name_of(primary) {
            Some(name) => format!("the primary is {name}"),
            None => format!("the primary is the master with the id {primary}"),
        };
        let message = format!("{} is on standby: {who}", self.settings.name);
        Err(Refusal::new(Reason::NotPrimary, message))
    }

    /// Here one thing is done at a time: whatever changes a generation, a right or who leads, and every
    /// password that is stretched for an administrator. Scheduled backups alone do without it, because
    /// their folder may be slow: all that they change is the date of the last backup.
    pub async fn desk(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.desk).lock_owned().await
    }

    /// Does work that takes long, or that waits for a disk, beside the tasks; alone.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn at_desk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (house, desk) = (Arc::clone(self), self.desk().await);
        let working = tokio::task::spawn_blocking(move || {
            let _desk = desk;
            work(&house)
        });
        working.await.unwrap_or_else(|error| {
            tracing::error!(%error, "work on the master secret failed");
            Err(Refusal::new(Reason::Internal, "the work failed; the log says more"))
        })
    }

    /// One change of the keystore, at the desk.
    ///
    /// # Errors
    /// Those of the edit, or `KEYSTORE_NOT_WRITTEN`.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        edit: impl FnOnce(&Self, &mut Draft<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.at_desk(|house| house.custody.change(|draft| edit(house, draft))).await
    }

    /// What a heartbeat says now.
    #[must_use]
    pub fn heartbeat(&self, unlocked: &Unlocked) -> Heartbeat {
        let now = self.clock.now().unix_timestamp_nanos() / 1_000_000;
        let primary = self.leadership.is_primary(unlocked);
        let closing =
            if primary { self.closing.borrow().iter().copied().collect() } else { Vec::new() };
        Heartbeat {
            keystore_id: unlocked.keystore.to_string(),
            version: unlocked.change,
            active_generation: unlocked.ring.active().number(),
            active_fingerprint: unlocked.ring.active_fingerprint().to_string(),
            interval_ms: u32::try_from(self.settings.heartbeat().as_millis()).unwrap_or(u32::MAX),
            master_time_ms: i64::try_from(now).unwrap_or(i64::MAX),
            epoch: unlocked.epoch,
            primary: unlocked.primary.to_string(),
            member: unlocked.member.to_string(),
            name: self.settings.name.clone(),
            closing_generations: closing,
            reseal_rows_per_second: unlocked.reseal_rows_per_second,
            revocations: unlocked
                .revocations
                .iter()
                .map(|(name, number)| (name.to_owned(), number))
                .collect(),
        }
    }

    /// Notes an epoch that somebody goes by; says so when it ends the leadership of this master. Which
    /// of two primaries of one epoch leads, the database decides: servers know, masters do not.
    pub fn hear(&self, kind: Kind, epoch: u64, primary: Option<Uuid>, from: &str) {
        let unlocked = self.current();
        if kind == Kind::Master && epoch <= unlocked.epoch {
            return;
        }
        let was = self.leadership.is_primary(&unlocked);
        self.leadership.hear(&unlocked, epoch, primary);
        if was && !self.leadership.is_primary(&unlocked) {
            tracing::warn!(
                event = sso_proto::Event::MasterChanged.number(),
                from,
                epoch,
                own_epoch = unlocked.epoch,
                "another master was promoted: this one steps down and follows"
            );
        }
    }

    /// What the servers that are there say of the database, as soon as it is what somebody waits for.
    pub async fn facts_when(
        &self,
        accept: impl Fn(&Facts) -> bool,
        within: Duration,
    ) -> Option<Facts> {
        let mut reports = self.roster.subscribe();
        let accepted = async {
            loop {
                reports.mark_unchanged();
                let facts = self.roster.live_facts();
                if accept(&facts) {
                    return facts;
                }
                // Others may have been forgotten meanwhile, which is no report.
                let _ = tokio::time::timeout(self.interval(), reports.changed()).await;
            }
        };
        tokio::time::timeout(within, accepted).await.ok()
    }

    /// Between heartbeats.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.settings.heartbeat()
    }
}

/// Who leads, as far as this master has heard: a keystore that says it is the primary's is believed
/// only until a higher epoch, or another primary of the same epoch, is heard of.
#[derive(Debug, Default)]
pub struct Leadership(Mutex<Heard>);

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    epoch: u64,
    primary: Option<Uuid>,
}

impl Leadership {
    /// Whether the master with this keystore leads.
    #[must_use]
    pub fn is_primary(&self, unlocked: &Unlocked) -> bool {
        unlocked.is_primary() && self.superseded(unlocked).is_none()
    }

    /// The primary, as far as is known.
    #[must_use]
    pub fn primary(&self, unlocked: &Unlocked) -> Uuid {
        self.superseded(unlocked).and_then(|heard| heard.primary).unwrap_or(unlocked.primary)
    }

    /// The highest epoch of all.
    #[must_use]
    pub fn highest_epoch(&self, unlocked: &Unlocked) -> u64 {
        self.heard().epoch.max(unlocked.epoch)
    }

    /// Notes an epoch and its primary.
    pub fn hear(&self, unlocked: &Unlocked, epoch: u64, primary: Option<Uuid>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let foreign = primary.is_some_and(|primary| primary != unlocked.primary);
        let news = epoch > heard.epoch.max(unlocked.epoch)
            || (epoch == unlocked.epoch && epoch > heard.epoch && foreign);
        if news {
            *heard = Heard { epoch, primary };
        } else if epoch == heard.epoch && heard.primary.is_none() {
            heard.primary = primary;
        }
    }

    fn superseded(&self, unlocked: &Unlocked) -> Option<Heard> {
        let heard = self.heard();
        let another = heard.primary.is_some_and(|primary| primary != unlocked.primary);
        let newer = heard.epoch > unlocked.epoch || (heard.epoch == unlocked.epoch && another);
        newer.then_some(heard)
    }

    fn heard(&self) -> Heard {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
