//! What a server says of its keys.

use std::time::Duration;

use sso_proto::Reason;
use time::OffsetDateTime;

use super::{
    MasterSecret,
    link::Warned,
    notes::{Failure, MasterNote},
};
use crate::error::Error;

/// The state of the keys, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterState {
    /// Keys are held and confirmed: reads and writes are served.
    Current,
    /// Keys are held, the master is not reachable: reads are served.
    ReadOnly,
    /// No keys were obtained since the start.
    NeverFetched,
    /// The read lease ended and the keys were forgotten.
    Expired,
    /// The master answers with the keys of another system.
    Foreign,
    /// The right of this server to the keys was revoked, and they are forgotten.
    Revoked,
}

impl MasterState {
    pub(super) const ALL: [Self; 6] = [
        Self::Current,
        Self::ReadOnly,
        Self::NeverFetched,
        Self::Expired,
        Self::Foreign,
        Self::Revoked,
    ];

    /// The word, as in the list of servers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::ReadOnly => "read-only",
            Self::NeverFetched => "never-fetched",
            Self::Expired => "expired",
            Self::Foreign => "foreign",
            Self::Revoked => "revoked",
        }
    }

    /// The state with this word; `None` for one that another version of this program wrote.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The state of the keys in full. Holds fingerprints, no keys.
#[derive(Clone, Debug)]
pub struct MasterStatus {
    /// In one word.
    pub state: MasterState,
    /// Addresses of the master secret servers, first the one that confirmed last.
    pub master: String,
    /// Generations held, with their fingerprints in hexadecimal.
    pub generations: Vec<(u32, String)>,
    /// The generation that seals; `None` without keys.
    pub active: Option<u32>,
    /// When the master last confirmed the keys.
    pub last_confirmed_at: Option<OffsetDateTime>,
    /// Values can be opened until then, should the master stay away; `None` when it is over.
    pub read_lease_until: Option<OffsetDateTime>,
    /// Values can be sealed until then, should the master stay away; `None` when it is over.
    pub write_lease_until: Option<OffsetDateTime>,
    /// The last failure to reach a master; `None` while one is good.
    pub last_error: Option<String>,
    /// Each master of the settings.
    pub masters: Vec<KnownMaster>,
    /// Of the key ring held; 0 = none.
    pub version: u64,
    /// The highest epoch known.
    pub epoch: u64,
    /// The keys came from the sealed cache, and no master has confirmed them yet.
    pub from_cache: bool,
}

/// How one master stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMaster {
    /// Its address.
    pub master: String,
    /// As it says; empty while it was not reached.
    pub name: String,
    /// It answers, whatever it says.
    pub reached: bool,
    /// It is the primary of its epoch, as it says.
    pub primary: bool,
    /// Of its keystore; 0 until it was heard.
    pub epoch: u64,
    /// Of its keystore.
    pub version: u64,
    /// Why its word does not count; `None` while it does.
    pub last_error: Option<String>,
}

impl KnownMaster {
    fn of(note: &MasterNote) -> Self {
        Self {
            master: note.url.clone(),
            name: note.name.clone(),
            reached: note.reached,
            primary: note.primary,
            epoch: note.epoch.unwrap_or_default(),
            version: note.version,
            last_error: note.failure.as_ref().map(|failure| failure.words().to_owned()),
        }
    }
}

impl MasterSecret {
    /// The state at this moment.
    #[must_use]
    pub fn status(&self) -> MasterStatus {
        let notes = self.notes();
        let (read, write) = self.leases.left(self.clock.instant());
        let keys = self.keys.load_full().filter(|_| read.is_some());
        let is_foreign = |master: &MasterNote| matches!(master.failure, Some(Failure::Foreign(_)));
        let foreign = !notes.any_good() && notes.masters.iter().any(is_foreign);
        let held = notes.held.filter(|_| keys.is_some());
        let state = match &keys {
            _ if notes.revoked.is_some() => MasterState::Revoked,
            _ if foreign => MasterState::Foreign,
            Some(_) if write.is_some() => MasterState::Current,
            Some(_) => MasterState::ReadOnly,
            None if self.was_held() => MasterState::Expired,
            None => MasterState::NeverFetched,
        };
        let at = |left: Duration| self.clock.now() + left;
        MasterStatus {
            state,
            master: notes.addresses(),
            generations: keys
                .iter()
                .flat_map(|keys| keys.generations())
                .map(|(generation, print)| (generation.number(), print.to_string()))
                .collect(),
            active: keys.as_ref().map(|keys| keys.active().number()),
            last_confirmed_at: notes.last_confirmed_at,
            read_lease_until: read.filter(|_| keys.is_some()).map(at),
            write_lease_until: write.filter(|_| keys.is_some()).map(at),
            last_error: notes.last_error(),
            masters: notes.masters.iter().map(KnownMaster::of).collect(),
            version: held.map_or(0, |held| held.version),
            epoch: notes.seen.0,
            from_cache: held.is_some_and(|held| !held.admitted),
        }
    }

    /// What ends before long, or has ended already, while values can be read: nothing is sealed, or
    /// much of the read lease is gone. Each line begins with its reason.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let line = |reason: Reason, words: &str| format!("{}: {words}", reason.as_str());
        let (Some(left), Ok(_)) = (self.leases.left(self.clock.instant()).0, self.keys_for_read())
        else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        if let Err(error) = self.keys_for_write() {
            let error = Error::from(error);
            warnings.push(line(error.reason, &error.message));
        }
        let low = Warned::of(left, self.leases.read());
        if low != Warned::Not {
            let words = format!("{}; {} s are left", low.words(), left.as_secs());
            warnings.push(line(Reason::MasterUnreachable, &words));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use sso_core::{
        clock::Clock,
        key_ring::{Generation, KeyRing},
        memory::LockedKey,
    };

    use super::*;

    #[test]
    fn warnings_come_long_before_the_keys_go() {
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000));
        let first = Generation::new(1).unwrap();
        let key = LockedKey::from_bytes(&[1; 32]).unwrap();
        let secret =
            MasterSecret::holding(KeyRing::new([(first, key)], first).unwrap(), clock.clone());
        let after = |seconds| {
            clock.advance(Duration::from_secs(seconds));
            secret.warnings()
        };
        assert_eq!(after(14), [""; 0]);
        // The write lease has ended.
        let warnings = after(1);
        let [nothing_is_sealed] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(nothing_is_sealed.starts_with("MASTER_UNREACHABLE: "), "{nothing_is_sealed}");
        assert!(nothing_is_sealed.contains("nothing new is sealed"), "{nothing_is_sealed}");
        // A half of the read lease, of 43200 s, is gone; then all but a fifth.
        assert_eq!(after(43_200 / 2 - 16).len(), 1);
        let half = after(1);
        assert!(half[1].contains("less than half") && half[1].contains("21600 s"), "{half:?}");
        assert!(after(43_200 * 3 / 10 - 1)[1].contains("less than half"));
        let fifth = after(1);
        assert!(fifth[1].contains("less than a fifth") && fifth[1].contains("8640 s"), "{fifth:?}");
        assert!(fifth[1].contains("the keys are forgotten"), "{fifth:?}");
        // Without keys there is a reason instead, and never both.
        assert!(secret.keys_for_read().is_ok());
        assert_eq!(after(8640), [""; 0]);
        assert!(secret.keys_for_read().is_err());
    }
}
