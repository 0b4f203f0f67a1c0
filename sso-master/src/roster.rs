//! Who holds which version of the key ring: every SSO server and every other master of the settings,
//! with what its processes last reported.
//!
//! A new generation is activated only when nobody is left to wait for ([`Roster::waiting_for`]). Who
//! is silent is waited for too: it may hold keys and serve.

mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sso_core::{clock::Clock, revocations::Revocations};
use sso_proto::v1::ResealStatus;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

pub use self::report::{Counted, Report};
use crate::{custody::Unlocked, keystore::State};

/// How often a server reports when nothing changes.
const REPORT: Duration = Duration::from_secs(2);
/// Processes of one name that are remembered: more are a fault of whoever has the name.
const INSTANCES: usize = 16;
/// A read lease is low when less than one of so many parts is left.
const LOW: u32 = 5;

/// What somebody is to this master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An SSO server.
    Server,
    /// Another master.
    Master,
}

/// What everybody has to hold, and who is excused.
#[derive(Clone, Debug)]
struct Wanted<'a> {
    version: u64,
    epoch: u64,
    primary: Uuid,
    left_behind: &'a BTreeSet<String>,
    revoked: &'a Revocations,
    /// Of the generation that is handed out, hexadecimal.
    fingerprint: Option<String>,
}

impl<'a> From<&'a Unlocked> for Wanted<'a> {
    fn from(unlocked: &'a Unlocked) -> Self {
        Self {
            version: unlocked.distributed_in.unwrap_or(unlocked.change),
            epoch: unlocked.epoch,
            primary: unlocked.primary,
            left_behind: &unlocked.left_behind,
            revoked: &unlocked.revocations,
            fingerprint: unlocked
                .generations
                .iter()
                .find(|entry| entry.state == State::Distributed)
                .map(|entry| entry.fingerprint.to_string()),
        }
    }
}

/// A process of a server or master.
#[derive(Clone, Debug)]
struct Instance {
    heard: Duration,
    watches: usize,
    report: Option<Report>,
    /// When the report was made.
    reported: Duration,
    /// The most that was ever left of its read lease.
    longest_lease: Duration,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    instances: BTreeMap<Uuid, Instance>,
    last_heard: Option<(Duration, OffsetDateTime)>,
}

type Book = BTreeMap<(Kind, String), Entry>;

/// Everybody of the settings, and what is known of them.
#[derive(Debug)]
pub struct Roster {
    clock: Clock,
    /// Who says nothing for longer is away.
    silence: Duration,
    book: Mutex<Book>,
    news: watch::Sender<()>,
}

/// How somebody stands, for people.
#[derive(Clone, Debug)]
pub struct Standing {
    /// As in the settings.
    pub name: String,
    /// A process of this name watches, or said something a moment ago.
    pub live: bool,
    /// When any process of this name last said something.
    pub last_heard: Option<OffsetDateTime>,
    /// The oldest version that its live processes hold; 0 = none.
    pub version: u64,
    /// The epoch that goes with it.
    pub epoch: u64,
    /// When the read lease ends: the first of its processes.
    pub read_lease_until: Option<OffsetDateTime>,
    /// When the write lease ends.
    pub write_lease_until: Option<OffsetDateTime>,
    /// Of a read lease less than a fifth is left.
    pub read_lease_low: bool,
    /// Of the program.
    pub program_version: String,
}

/// What the servers counted in the database.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether any server reported for its database.
    pub known: bool,
    /// The highest epoch that was reported, and its primary.
    pub epoch: u64,
    /// The primary of that epoch.
    pub primary: Option<Uuid>,
    /// Every generation, by number and fingerprint, as last counted.
    pub generations: BTreeMap<(u32, String), Counted>,
    /// When the rows were counted.
    pub counted_at: Option<OffsetDateTime>,
    /// Sealing again, and who does it or did it last.
    pub reseal: Option<(String, ResealStatus)>,
}

impl Facts {
    /// Rows sealed under a generation, as they were told last.
    #[must_use]
    pub fn rows(&self, generation: u32, fingerprint: &str) -> u64 {
        let key = (generation, fingerprint.to_owned());
        self.generations.get(&key).map_or(0, |told| told.rows)
    }

    /// The same by the last count, where nothing is sealed under a generation that the database does not know;
    /// `None` when nobody counted.
    #[must_use]
    pub fn counted_rows(&self, generation: u32, fingerprint: &str) -> Option<u64> {
        self.counted_at.map(|_| self.rows(generation, fingerprint))
    }
}

impl Roster {
    /// The roster of these servers and other masters.
    #[must_use]
    pub fn new(
        clock: Clock,
        heartbeat: Duration,
        servers: impl IntoIterator<Item = String>,
        masters: impl IntoIterator<Item = String>,
    ) -> Self {
        let servers = servers.into_iter().map(|name| (Kind::Server, name));
        let masters = masters.into_iter().map(|name| (Kind::Master, name));
        let book = servers.chain(masters).map(|key| (key, Entry::default())).collect();
        let silence = heartbeat.max(REPORT) * 3;
        Self { clock, silence, book: Mutex::new(book), news: watch::Sender::new(()) }
    }

    /// Wakes whoever waits for something to be reported.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether the settings name a server or master like this.
    #[must_use]
    pub fn lists(&self, kind: Kind, name: &str) -> bool {
        self.book().contains_key(&(kind, name.to_owned()))
    }

    /// Notes what a process says of itself.
    pub fn report(&self, kind: Kind, name: &str, instance: Uuid, report: Report) {
        let now = self.clock.instant();
        self.touch(kind, name, instance, |known| {
            known.longest_lease = known.longest_lease.max(report.read_lease);
            known.report = Some(report);
            known.reported = now;
        });
    }

    /// Notes that a process watches; until the value is dropped.
    pub fn watch(
        self: &std::sync::Arc<Self>,
        kind: Kind,
        name: &str,
        instance: Uuid,
    ) -> WatchedGuard {
        self.touch(kind, name, instance, |known| known.watches += 1);
        WatchedGuard { roster: std::sync::Arc::clone(self), kind, name: name.to_owned(), instance }
    }

    /// Everybody of this kind, by name.
    #[must_use]
    pub fn standings(&self, kind: Kind) -> Vec<Standing> {
        let now = (self.clock.instant(), self.clock.now());
        let book = self.book();
        let own = book.iter().filter(|((known, _), _)| *known == kind);
        own.map(|((_, name), entry)| self.standing(name, entry, now)).collect()
    }

    /// Who watches under this name at this moment.
    #[must_use]
    pub fn watches(&self, kind: Kind, name: &str) -> usize {
        let book = self.book();
        let entry = book.get(&(kind, name.to_owned()));
        entry.map_or(0, |entry| entry.instances.values().map(|it| it.watches).sum())
    }

    /// Whether a server that may have keys is there.
    #[must_use]
    pub fn any_server(&self, revoked: &Revocations) -> bool {
        let now = self.clock.instant();
        self.book().iter().any(|((kind, name), entry)| {
            *kind == Kind::Server
                && !revoked.is_revoked(name)
                && entry.instances.values().any(|it| self.is_live(it, now))
        })
    }

    /// For whom the generation that is handed out has to wait before it is activated, each with why.
    #[must_use]
    pub fn waiting_for(&self, unlocked: &Unlocked) -> Vec<String> {
        self.missing(&Wanted::from(unlocked))
    }

    /// What the servers say of the database, the newest count of each generation.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts_where(false, |_, _| true)
    }

    /// The same of those servers alone that are there.
    #[must_use]
    pub fn live_facts(&self) -> Facts {
        let now = self.clock.instant();
        self.facts_where(true, |instance, _| self.is_live(instance, now))
    }

    /// The same of those servers alone that are there, and whose database goes by this epoch and its
    /// primary; a generation is closed where all of them say so. What was said before is of a database
    /// that may have been put back to an earlier time, and one of them may have a copy of it.
    #[must_use]
    pub fn facts_of(&self, epoch: u64, primary: Uuid) -> Facts {
        let now = self.clock.instant();
        self.facts_where(true, |instance, report| {
            self.is_live(instance, now) && (report.epoch, report.primary) == (epoch, Some(primary))
        })
    }

    fn facts_where(
        &self,
        closed_by_all: bool,
        counts: impl Fn(&Instance, &Report) -> bool,
    ) -> Facts {
        let mut facts = Facts::default();
        let book = self.book();
        let mut newest: BTreeMap<(u32, String), (Option<OffsetDateTime>, Duration)> =
            BTreeMap::new();
        let reports = server_reports(&book);
        for (name, instance, report) in reports.filter(|(_, it, report)| counts(it, report)) {
            facts.known |= report.epoch != 0 || !report.generations.is_empty();
            if report.epoch > facts.epoch {
                facts.epoch = report.epoch;
                facts.primary = report.primary;
            }
            let stamp = (report.counted_at, instance.reported);
            for counted in &report.generations {
                let key = (counted.generation, counted.fingerprint.clone());
                let closed = match facts.generations.get(&key) {
                    None => counted.closed,
                    Some(other) if closed_by_all => counted.closed && other.closed,
                    // What is closed stays closed, whoever has not noticed yet.
                    Some(other) => counted.closed || other.closed,
                };
                if newest.get(&key).is_none_or(|earlier| *earlier <= stamp) {
                    newest.insert(key.clone(), stamp);
                    facts.generations.insert(key.clone(), counted.clone());
                }
                if let Some(kept) = facts.generations.get_mut(&key) {
                    kept.closed = closed;
                }
            }
            facts.counted_at = facts.counted_at.max(report.counted_at);
            let better = facts
                .reseal
                .as_ref()
                .is_none_or(|(_, earlier)| rank(&report.reseal) > rank(earlier));
            if better && rank(&report.reseal) > (false, 0) {
                facts.reseal = Some((name.to_owned(), report.reseal.clone()));
            }
        }
        facts
    }

    /// Revocations of servers of the settings, as the databases of the servers remember them.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        let book = self.book();
        let mut told = Revocations::default();
        for (_, _, report) in server_reports(&book) {
            let _ = told.take_revoked(&report.revocations);
        }
        told.iter()
            .filter(|(name, _)| book.contains_key(&(Kind::Server, (*name).to_owned())))
            .map(|(name, number)| (name.to_owned(), number))
            .collect()
    }

    /// Names of the other masters that have not this version of this epoch.
    #[must_use]
    pub fn masters_without(&self, epoch: u64, version: u64) -> Vec<String> {
        let behind = |it: &Standing| !it.live || it.epoch != epoch || it.version < version;
        self.standings(Kind::Master).into_iter().filter(behind).map(|it| it.name).collect()
    }

    /// Notes that every process of a server has forgotten its keys: nothing is left of their leases.
    pub fn note_forgotten(&self, name: &str) {
        if let Some(entry) = self.book().get_mut(&(Kind::Server, name.to_owned())) {
            entry.instances.retain(|_, instance| instance.watches > 0);
        }
    }

    /// Why servers could not close this generation, of those who reported at `since` or later.
    #[must_use]
    pub fn close_refusals(&self, generation: u32, since: Duration) -> Vec<(String, String)> {
        let book = self.book();
        server_reports(&book)
            .filter(|(_, instance, _)| instance.reported >= since)
            .flat_map(|(name, _, report)| {
                let own = report.close_refusals.iter().filter(move |it| it.0 == generation);
                own.map(move |(_, message)| (name.to_owned(), message.clone()))
            })
            .collect()
    }

    /// When the last read lease of this server's processes ends; `None` when nothing is known of any.
    #[must_use]
    pub fn keys_until(&self, name: &str) -> Option<OffsetDateTime> {
        let (now, wall) = (self.clock.instant(), self.clock.now());
        let book = self.book();
        let entry = book.get(&(Kind::Server, name.to_owned()))?;
        let ends = entry.instances.values().filter_map(|instance| {
            let report = instance.report.as_ref()?;
            let gone = now.saturating_sub(instance.reported);
            Some(wall + report.read_lease.saturating_sub(gone))
        });
        ends.max()
    }

    /// However many are left behind, one server has to have it: servers take keys only from who leads
    /// by what the database says, so that nobody else gets as far as this.
    fn missing(&self, wanted: &Wanted<'_>) -> Vec<String> {
        let now = self.clock.instant();
        let book = self.book();
        let (mut missing, mut acknowledged) = (Vec::new(), false);
        for ((kind, name), entry) in book.iter() {
            if *kind == Kind::Server && wanted.revoked.is_revoked(name) {
                continue;
            }
            let why = self.why_not(entry, wanted, now);
            acknowledged |= *kind == Kind::Server && why.is_none();
            if let Some(why) = why.filter(|_| !wanted.left_behind.contains(name)) {
                missing.push(format!("{name}: {why}"));
            }
        }
        if !acknowledged && missing.is_empty() {
            missing.push("an SSO server: none has reported that it holds it".to_owned());
        }
        missing
    }

    /// A process that fell silent beside a live one of the same name was followed by it.
    fn why_not(&self, entry: &Entry, wanted: &Wanted<'_>, now: Duration) -> Option<String> {
        let mut live = entry.instances.values().filter(|it| self.is_live(it, now)).peekable();
        if live.peek().is_none() {
            return Some(match entry.last_heard {
                Some((at, _)) => {
                    format!("silent for {} s", now.saturating_sub(at).as_secs())
                }
                None => "not heard of since this master started".to_owned(),
            });
        }
        live.find_map(|instance| match &instance.report {
            Some(report) => report.lacks(wanted),
            None => Some("has not reported yet".to_owned()),
        })
    }

    fn is_live(&self, instance: &Instance, now: Duration) -> bool {
        instance.watches > 0 || now.saturating_sub(instance.heard) <= self.silence
    }

    fn standing(
        &self,
        name: &str,
        entry: &Entry,
        (now, wall): (Duration, OffsetDateTime),
    ) -> Standing {
        let live: Vec<_> = entry.instances.values().filter(|it| self.is_live(it, now)).collect();
        let newest = entry.instances.values().max_by_key(|instance| instance.heard);
        let report = newest.and_then(|instance| instance.report.as_ref());
        let oldest = live.iter().map(|it| it.report.as_ref().map_or((0, 0), held)).min();
        let (epoch, version) = oldest.or(report.map(held)).unwrap_or_default();
        let until = |lease: fn(&Report) -> Duration| {
            let ends = entry.instances.values().filter_map(|instance| {
                let left = lease(instance.report.as_ref()?);
                let left = left.checked_sub(now.saturating_sub(instance.reported))?;
                (!left.is_zero()).then(|| wall + left)
            });
            ends.min()
        };
        let low = entry.instances.values().any(|instance| {
            let Some(report) = &instance.report else { return false };
            let left = report.read_lease.saturating_sub(now.saturating_sub(instance.reported));
            !left.is_zero() && left * LOW < instance.longest_lease
        });
        Standing {
            name: name.to_owned(),
            live: !live.is_empty(),
            last_heard: entry.last_heard.map(|(_, at)| at),
            version,
            epoch,
            read_lease_until: until(|report| report.read_lease),
            write_lease_until: until(|report| report.write_lease),
            read_lease_low: low,
            program_version: report.map(|it| it.program_version.clone()).unwrap_or_default(),
        }
    }

    fn touch(&self, kind: Kind, name: &str, instance: Uuid, edit: impl FnOnce(&mut Instance)) {
        let (heard, heard_at) = (self.clock.instant(), self.clock.now());
        let mut book = self.book();
        let Some(entry) = book.get_mut(&(kind, name.to_owned())) else { return };
        entry.last_heard = Some((heard, heard_at));
        let fresh = Instance {
            heard,
            watches: 0,
            report: None,
            reported: heard,
            longest_lease: Duration::ZERO,
        };
        let known = entry.instances.entry(instance).or_insert(fresh);
        known.heard = heard;
        edit(known);
        self.forget(entry, heard);
        drop(book);
        self.news.send_replace(());
    }

    /// Lets go of processes that are away and whose leases ended, and of those beyond the bound.
    fn forget(&self, entry: &mut Entry, now: Duration) {
        let kept = |instance: &Instance| {
            let lease = instance.report.as_ref().map_or(Duration::ZERO, |it| it.read_lease);
            instance.watches > 0
                || now.saturating_sub(instance.heard) <= self.silence.saturating_add(lease)
        };
        entry.instances.retain(|_, instance| kept(instance));
        while entry.instances.len() > INSTANCES {
            let idle = entry.instances.iter().filter(|(_, it)| it.watches == 0);
            let longest = idle.min_by_key(|(_, it)| it.heard).map(|(id, _)| *id);
            match longest {
                Some(id) => entry.instances.remove(&id),
                None => return,
            };
        }
    }

    fn unwatch(&self, kind: Kind, name: &str, instance: Uuid) {
        self.touch(kind, name, instance, |known| known.watches = known.watches.saturating_sub(1));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held(report: &Report) -> (u64, u64) {
    (report.epoch, report.version)
}

/// Who works goes before who did, and of those who did, the last.
fn rank(status: &ResealStatus) -> (bool, i64) {
    (status.working, status.began_at_ms.max(status.finished_at_ms))
}

fn server_reports(book: &Book) -> impl Iterator<Item = (&str, &Instance, &Report)> {
    let servers = book.iter().filter(|((kind, _), _)| *kind == Kind::Server);
    servers.flat_map(|((_, name), entry)| {
        let instances = entry.instances.values();
        instances.filter_map(|it| Some((name.as_str(), it, it.report.as_ref()?)))
    })
}

/// A stream that somebody watches on.
#[derive(Debug)]
pub struct WatchedGuard {
    roster: std::sync::Arc<Roster>,
    kind: Kind,
    name: String,
    instance: Uuid,
}

impl Drop for WatchedGuard {
    fn drop(&mut self) {
        self.roster.unwatch(self.kind, &self.name, self.instance);
    }
}
