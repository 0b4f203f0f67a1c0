//! What this server tells the masters of itself and of the database.

use std::time::Duration;

use sso_proto::v1::{CloseRefusal, GenerationRows, ReportRequest, ResealStatus};
use time::OffsetDateTime;

use super::{DatabaseFacts, MasterSecret, ResealProgress};

/// The report at this moment.
pub(super) fn request(secret: &MasterSecret) -> ReportRequest {
    let facts = secret.facts.borrow().clone();
    let notes = secret.notes();
    let (read, write) = secret.leases.left(secret.clock.instant());
    let held = notes.held.filter(|held| held.admitted && read.is_some());
    // What this process agreed with the database may be later than what it counted.
    let (epoch, primary) = notes.seen;
    let DatabaseFacts {
        epoch: _,
        primary: _,
        generations,
        revocations,
        counted_at,
        reseal,
        close_refusals,
    } = facts;
    let rows = generations.into_iter().map(|known| GenerationRows {
        generation: known.number,
        fingerprint: known.fingerprint,
        rows: known.rows,
        closed: known.closed,
    });
    let refusals = close_refusals.into_iter();
    ReportRequest {
        instance: secret.instance.to_string(),
        version: held.map_or(0, |held| held.version),
        epoch,
        primary: primary.map(|primary| primary.to_string()).unwrap_or_default(),
        generations: rows.collect(),
        counted_at_ms: milliseconds(counted_at),
        reseal: Some(reseal_status(reseal)),
        read_lease_left_ms: left(read),
        write_lease_left_ms: left(write),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        close_refusals: refusals
            .map(|(generation, message)| CloseRefusal { generation, message })
            .collect(),
        held_epoch: held.map_or(0, |held| held.epoch),
        revocations: revocations.iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        held_fingerprints: held.map_or_else(Vec::new, |_| fingerprints(secret)),
    }
}

/// Of every generation held.
fn fingerprints(secret: &MasterSecret) -> Vec<String> {
    let keys = secret.lasting();
    let generations = keys.iter().flat_map(|keys| keys.generations());
    generations.map(|(_, fingerprint)| fingerprint.to_string()).collect()
}

fn reseal_status(progress: ResealProgress) -> ResealStatus {
    ResealStatus {
        working: progress.working,
        rows_left: progress.rows_left,
        rows_done: progress.rows_done,
        rows_per_second: progress.rows_per_second,
        failed: progress.failed,
        failed_rows: progress.failed_rows,
        waiting_for: progress.waiting_for,
        began_at_ms: milliseconds(progress.began_at),
        finished_at_ms: milliseconds(progress.finished_at),
    }
}

/// Since the Unix epoch; 0 = never.
fn milliseconds(at: Option<OffsetDateTime>) -> i64 {
    let milliseconds = at.map_or(0, |at| at.unix_timestamp_nanos() / 1_000_000);
    i64::try_from(milliseconds).unwrap_or_default()
}

fn left(lease: Option<Duration>) -> u64 {
    u64::try_from(lease.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
