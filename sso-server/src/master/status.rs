//! What a server says of its keys.

use std::time::Duration;

use time::OffsetDateTime;

use super::MasterSecret;

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
}

impl MasterState {
    pub(super) const ALL: [Self; 5] =
        [Self::Current, Self::ReadOnly, Self::NeverFetched, Self::Expired, Self::Foreign];

    /// The word, as in the list of servers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::ReadOnly => "read-only",
            Self::NeverFetched => "never-fetched",
            Self::Expired => "expired",
            Self::Foreign => "foreign",
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
    /// Address of the master secret server.
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
    /// The last failure to reach the master; `None` while it is reached.
    pub last_error: Option<String>,
}

impl MasterSecret {
    /// The state at this moment.
    #[must_use]
    pub fn status(&self) -> MasterStatus {
        let now = self.clock.instant();
        let (read, write) = self.leases.left(now);
        let keys = self.keys.load_full().filter(|_| read.is_some());
        let notes = self.notes();
        let state = match &keys {
            _ if notes.foreign.is_some() => MasterState::Foreign,
            Some(_) if write.is_some() => MasterState::Current,
            Some(_) => MasterState::ReadOnly,
            None if self.was_held() => MasterState::Expired,
            None => MasterState::NeverFetched,
        };
        let at = |left: Duration| self.clock.now() + left;
        MasterStatus {
            state,
            master: self.url.clone(),
            generations: keys
                .iter()
                .flat_map(|keys| keys.generations())
                .map(|(generation, print)| (generation.number(), print.to_string()))
                .collect(),
            active: keys.as_ref().map(|keys| keys.active().number()),
            last_confirmed_at: notes.last_confirmed_at,
            read_lease_until: read.filter(|_| keys.is_some()).map(at),
            write_lease_until: write.filter(|_| keys.is_some()).map(at),
            last_error: notes.last_error.clone(),
        }
    }

    fn was_held(&self) -> bool {
        self.held.load(std::sync::atomic::Ordering::Relaxed)
    }
}
