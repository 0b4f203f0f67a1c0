//! What a process says of itself and of its database.

use std::time::Duration;

use sso_core::revocations::Revocations;
use sso_proto::{
    Reason, Refusal,
    v1::{ReportRequest, ResealStatus},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Wanted;

/// What a process last said of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Of the key ring held; 0 = none.
    pub version: u64,
    /// Of that key ring; `None` when it was not said.
    pub held_epoch: Option<u64>,
    /// The epoch that the database knows; of a master, the one it holds.
    pub epoch: u64,
    /// The primary of that epoch.
    pub primary: Option<Uuid>,
    /// Every generation that the database knows; of a master, none.
    pub generations: Vec<Counted>,
    /// Which servers lost their right to the master secret, as the database remembers; of a master, none.
    pub revocations: Revocations,
    /// Of every generation held, hexadecimal.
    pub held_fingerprints: Vec<String>,
    /// When the rows were counted; `None` = not by this server.
    pub counted_at: Option<OffsetDateTime>,
    /// Sealing again.
    pub reseal: ResealStatus,
    /// What was left of the read lease.
    pub read_lease: Duration,
    /// What was left of the write lease.
    pub write_lease: Duration,
    /// Of the program.
    pub program_version: String,
    /// Why generations could not be closed.
    pub close_refusals: Vec<(u32, String)>,
}

/// A generation that the database knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its number.
    pub generation: u32,
    /// Hexadecimal.
    pub fingerprint: String,
    /// Rows sealed under it, by the last count.
    pub rows: u64,
    /// Nothing can be sealed under it any more.
    pub closed: bool,
}

impl Report {
    /// The process and what it says.
    ///
    /// # Errors
    /// When an id in it is none.
    pub fn parse(request: ReportRequest) -> Result<(Uuid, Self), Refusal> {
        let bad = |what: &str| Refusal::new(Reason::InvalidRequest, format!("{what} is no UUID"));
        let instance = Uuid::try_parse(&request.instance).map_err(|_| bad("instance"))?;
        let primary = match request.primary.as_str() {
            "" => None,
            text => Some(Uuid::try_parse(text).map_err(|_| bad("primary"))?),
        };
        let counted = |rows: sso_proto::v1::GenerationRows| Counted {
            generation: rows.generation,
            fingerprint: rows.fingerprint,
            rows: rows.rows,
            closed: rows.closed,
        };
        let refusals = request.close_refusals.into_iter();
        Ok((
            instance,
            Self {
                version: request.version,
                held_epoch: Some(request.held_epoch).filter(|&epoch| epoch != 0),
                epoch: request.epoch,
                primary,
                generations: request.generations.into_iter().map(counted).collect(),
                revocations: request.revocations.into_iter().collect(),
                held_fingerprints: request.held_fingerprints,
                counted_at: from_ms(request.counted_at_ms),
                reseal: request.reseal.unwrap_or_default(),
                read_lease: Duration::from_millis(request.read_lease_left_ms),
                write_lease: Duration::from_millis(request.write_lease_left_ms),
                program_version: request.program_version,
                close_refusals: refusals.map(|it| (it.generation, it.message)).collect(),
            },
        ))
    }

    /// Why the process does not hold what is wanted; `None` when it does.
    pub(super) fn lacks(&self, wanted: &Wanted<'_>) -> Option<String> {
        if self.version == 0 {
            return Some("holds no keys".to_owned());
        }
        if self.epoch != wanted.epoch || self.primary != Some(wanted.primary) {
            return Some(format!("goes by epoch {}, this is epoch {}", self.epoch, wanted.epoch));
        }
        if let Some(held) = self.held_epoch.filter(|&held| held != wanted.epoch) {
            return Some(format!("holds keys of epoch {held}, this is epoch {}", wanted.epoch));
        }
        if self.version < wanted.version {
            return Some(format!("holds version {}, not yet {}", self.version, wanted.version));
        }
        // A keystore that was put back to an earlier time counts its versions again.
        let fingerprint = wanted.fingerprint.as_ref();
        fingerprint
            .filter(|wanted| !self.held_fingerprints.contains(wanted))
            .map(|wanted| format!("does not hold the key with fingerprint {wanted}"))
    }
}

/// The moment that Unix milliseconds name; `None` for 0 and what no calendar has.
pub(super) fn from_ms(ms: i64) -> Option<OffsetDateTime> {
    let nanoseconds = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok().filter(|_| ms != 0)
}
