//! What is known of each master, and what a word of one is worth.

use std::time::Duration;

use sso_core::{derive::Fingerprint, key_ring::KeyRing, revocations::Revocations};
use sso_proto::v1::Heartbeat;
use time::OffsetDateTime;
use uuid::Uuid;

/// A word of a change before the one held counts for nothing, and against nobody, so shortly after the
/// change: it was on its way, or its master follows in a moment.
const CROSSING: Duration = Duration::from_secs(2);

/// A heartbeat, or what answers like one.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) keystore: Uuid,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) primary: Uuid,
    pub(super) from_primary: bool,
    pub(super) name: String,
    pub(super) active: u32,
    fingerprint: String,
    pub(super) closing: Vec<u32>,
    pub(super) reseal_rows_per_second: u32,
    pub(super) revocations: Revocations,
}

impl Word {
    pub(super) fn of(beat: Heartbeat) -> Result<Self, Failure> {
        let id = |text: &str, what: &str| {
            Uuid::try_parse(text)
                .map_err(|_| Failure::Away(format!("the master sent no id of {what}")))
        };
        // A master of an earlier version of this program has neither epoch nor members.
        let optional =
            |text: &str, what: &str| if text.is_empty() { Ok(Uuid::nil()) } else { id(text, what) };
        let keystore = id(&beat.keystore_id, "its keystore")?;
        let primary = optional(&beat.primary, "its primary")?;
        let member = optional(&beat.member, "itself")?;
        Ok(Self {
            keystore,
            version: beat.version,
            epoch: beat.epoch,
            primary,
            from_primary: member == primary,
            name: beat.name,
            active: beat.active_generation,
            fingerprint: beat.active_fingerprint,
            closing: beat.closing_generations,
            reseal_rows_per_second: beat.reseal_rows_per_second,
            revocations: beat.revocations.into_iter().collect(),
        })
    }

    /// Whether new values are sealed under what this word says.
    pub(super) fn fits(&self, keys: &KeyRing) -> bool {
        keys.active().number() == self.active && self.is_named(keys.active_fingerprint())
    }

    fn is_named(&self, fingerprint: Fingerprint) -> bool {
        fingerprint.to_string() == self.fingerprint
    }
}

/// What a word says of the keys that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are what the master has.
    Confirms,
    /// The master has others, which may be fetched.
    New,
    /// It was overtaken by a later word.
    Overtaken,
}

/// Why a master is of no use at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not reached, or says nothing that makes sense.
    Away(String),
    /// It is behind another master, or behind the database.
    Outdated(String),
    /// It belongs to another system.
    Foreign(String),
    /// It refuses this server.
    Revoked(String),
    /// It has new keys, and the database cannot say whether they may be used.
    Waiting(String),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Away(words)
            | Self::Outdated(words)
            | Self::Foreign(words)
            | Self::Revoked(words)
            | Self::Waiting(words) => words,
        }
    }
}

/// One master of the settings.
#[derive(Debug, Default)]
pub(super) struct MasterNote {
    pub(super) url: String,
    pub(super) name: String,
    /// It answers, whatever it says.
    pub(super) reached: bool,
    /// Its last word confirmed what is held.
    pub(super) good: bool,
    pub(super) primary: bool,
    /// `None` until it was heard.
    pub(super) epoch: Option<u64>,
    pub(super) version: u64,
    /// When it was heard last.
    pub(super) heard_at: Option<Duration>,
    pub(super) failure: Option<Failure>,
}

/// The key ring held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) primary: Uuid,
    /// The database and a master agreed to it since this server started.
    pub(super) admitted: bool,
    pub(super) adopted_at: Duration,
}

/// The right to the keys that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revocation {
    /// Place of the master among the masters.
    pub(super) by: usize,
    epoch: u64,
    version: u64,
    pub(super) why: String,
}

/// What only the judgement of words, the status and errors need.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) masters: Vec<MasterNote>,
    /// Keystore that the database is bound to.
    pub(super) expected: Option<Uuid>,
    pub(super) held: Option<Held>,
    /// The highest epoch that the database agreed to, and its primary.
    pub(super) seen: (u64, Option<Uuid>),
    pub(super) revoked: Option<Revocation>,
    pub(super) last_confirmed_at: Option<OffsetDateTime>,
    pub(super) confirmed_by: Option<usize>,
    /// Whose order it is to close generations.
    pub(super) closing_from: Option<usize>,
}

impl Notes {
    pub(super) fn any_good(&self) -> bool {
        self.masters.iter().any(|master| master.good)
    }

    /// Takes over the epoch that the database knows.
    pub(super) fn see(&mut self, epoch: u64, primary: Option<Uuid>) {
        if epoch > self.seen.0 || (epoch == self.seen.0 && self.seen.1.is_none()) {
            self.seen = (epoch, primary);
        }
    }

    /// What a word of the master at this place is worth, heard at the instant `at`. Notes what it says
    /// of the master.
    pub(super) fn judge(
        &mut self,
        place: usize,
        word: &Word,
        keys: Option<&KeyRing>,
        at: Duration,
    ) -> Result<Verdict, Failure> {
        if let Some(master) = self.masters.get_mut(place) {
            master.reached = true;
            master.name.clone_from(&word.name);
            master.primary = word.from_primary;
            master.epoch = Some(word.epoch);
            master.version = word.version;
            master.heard_at = Some(at);
        }
        self.require_own(word)?;
        self.require_leader(word)?;
        self.require_after_revocation(place, word)?;
        let (Some(held), Some(keys)) = (self.held, keys) else { return Ok(Verdict::New) };
        if !held.admitted || (held.epoch, held.primary) != (word.epoch, word.primary) {
            return Ok(Verdict::New);
        }
        if word.version < held.version {
            if at.saturating_sub(held.adopted_at) < CROSSING {
                return Ok(Verdict::Overtaken);
            }
            return Err(Failure::Outdated(format!(
                "the master has change {} of its keystore and had change {} before, as after an old \
                 copy was put back, or as on a standby that is behind; put the newest copy back, or \
                 restart this server if the older one is right",
                word.version, held.version
            )));
        }
        let same = word.version == held.version && word.fits(keys);
        Ok(if same { Verdict::Confirms } else { Verdict::New })
    }

    fn require_own(&self, word: &Word) -> Result<(), Failure> {
        match self.expected {
            Some(expected) if expected != word.keystore => Err(Failure::Foreign(format!(
                "the master holds keystore {}, and the database belongs to keystore {expected}",
                word.keystore
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses who is not led by the primary of the highest epoch.
    fn require_leader(&self, word: &Word) -> Result<(), Failure> {
        let (epoch, primary) = self.seen;
        if word.epoch < epoch {
            return Err(Failure::Outdated(format!(
                "the master is of epoch {}, and another was promoted in epoch {epoch}",
                word.epoch
            )));
        }
        match primary {
            Some(primary) if word.epoch == epoch && primary != word.primary => {
                Err(Failure::Outdated(format!(
                    "the master follows the primary {} in epoch {epoch}, and the database follows \
                     {primary}",
                    word.primary
                )))
            }
            _ => Ok(()),
        }
    }

    /// After a revocation the word of who may not have heard of it counts for nothing.
    fn require_after_revocation(&self, place: usize, word: &Word) -> Result<(), Failure> {
        match &self.revoked {
            Some(revoked)
                if revoked.by != place
                    && (word.epoch, word.version) <= (revoked.epoch, revoked.version) =>
            {
                Err(Failure::Outdated(
                    "the master has not heard yet that another one revoked the right of this server"
                        .to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The revocation that the master at this place tells of; `None` where its word does not count:
    /// it is of an earlier epoch, or nobody knows of which, while another is good.
    pub(super) fn revocation(&self, place: usize, why: &str) -> Option<Revocation> {
        let master = self.masters.get(place)?;
        let others_good =
            (0..).zip(&self.masters).any(|(other, master)| other != place && master.good);
        let counts = master.epoch.map_or(!others_good, |epoch| epoch >= self.seen.0);
        counts.then(|| Revocation {
            by: place,
            epoch: master.epoch.unwrap_or(self.seen.0),
            version: master.version,
            why: why.to_owned(),
        })
    }

    /// The failures of all masters in words; `None` while one is good or nothing failed.
    pub(super) fn last_error(&self) -> Option<String> {
        if self.any_good() {
            return None;
        }
        let several = self.masters.len() > 1;
        let failures: Vec<_> = self
            .masters
            .iter()
            .filter_map(|master| {
                let words = master.failure.as_ref()?.words();
                Some(if several { format!("{}: {words}", master.url) } else { words.to_owned() })
            })
            .collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    /// The addresses, first the one that confirmed last.
    pub(super) fn addresses(&self) -> String {
        let last = self.confirmed_by.unwrap_or_default();
        let (first, others): (Vec<_>, Vec<_>) =
            (0..).zip(&self.masters).partition(|(place, _)| *place == last);
        let urls: Vec<_> =
            first.into_iter().chain(others).map(|(_, master)| master.url.as_str()).collect();
        urls.join(", ")
    }
}
