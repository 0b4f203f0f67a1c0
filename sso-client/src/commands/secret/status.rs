//! `sso secret status`: what there is to know of the master secret, as a document with stable names.

use serde::Serialize;
use sso_client::v1::{
    BackupStatus, GenerationState, GetSecretStatusResponse, MasterRole, ResealStatus,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Master, status_shown, wait::seconds_left};
use crate::{
    commands::{
        shown::time,
        tls_shown::{self, TlsDocument},
    },
    failure::Failure,
    output::Output,
};

#[derive(Debug, Serialize)]
pub(super) struct SecretDocument {
    pub(super) keystore_id: String,
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) generations: Vec<GenerationDocument>,
    pub(super) masters: Vec<MasterDocument>,
    pub(super) servers: Vec<ServerDocument>,
    pub(super) backup: BackupDocument,
    pub(super) reseal: ResealDocument,
    pub(super) waiting_for: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) rows_counted_at: Option<String>,
    pub(super) master_time: Option<String>,
    pub(super) tls: Option<TlsDocument>,
}

#[derive(Debug, Serialize)]
pub(super) struct GenerationDocument {
    pub(super) generation: u32,
    pub(super) fingerprint: String,
    pub(super) state: &'static str,
    pub(super) created_at: Option<String>,
    pub(super) activated_at: Option<String>,
    pub(super) backed_up_at: Option<String>,
    pub(super) rows: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct MasterDocument {
    pub(super) name: String,
    pub(super) member: String,
    pub(super) role: &'static str,
    pub(super) epoch: u64,
    pub(super) version: u64,
    #[serde(rename = "self")]
    pub(super) own: bool,
    pub(super) up_to_date: bool,
    pub(super) last_heard_at: Option<String>,
    pub(super) last_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ServerDocument {
    pub(super) name: String,
    pub(super) live: bool,
    pub(super) version: u64,
    pub(super) up_to_date: bool,
    pub(super) revoked: bool,
    pub(super) left_behind: bool,
    pub(super) last_heard_at: Option<String>,
    pub(super) read_lease_until: Option<String>,
    pub(super) write_lease_until: Option<String>,
    pub(super) program_version: String,
}

#[derive(Debug, Serialize)]
pub(super) struct BackupDocument {
    pub(super) verified_at: Option<String>,
    pub(super) age_seconds: Option<i64>,
    pub(super) warning: Option<String>,
    pub(super) scheduled_last_at: Option<String>,
    pub(super) scheduled_next_at: Option<String>,
    pub(super) scheduled_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ResealDocument {
    pub(super) server: Option<String>,
    pub(super) working: bool,
    pub(super) rows_left: u64,
    pub(super) rows_done: u64,
    pub(super) rows_per_second: f64,
    pub(super) seconds_left: Option<u64>,
    pub(super) failed_rows: u64,
    pub(super) failed: Vec<String>,
    pub(super) waiting_for: Option<String>,
    pub(super) began_at: Option<String>,
    pub(super) finished_at: Option<String>,
}

pub(super) async fn run(master: &Master<'_>, output: &Output) -> Result<(), Failure> {
    let document = document(master.connect()?.status().await?);
    output.document(&document, |output| status_shown::show(&document, output))?;
    if !output.is_json() {
        for warning in &document.warnings {
            output.warn(None, warning);
        }
    }
    Ok(())
}

pub(super) fn document(status: GetSecretStatusResponse) -> SecretDocument {
    let master_time = status.master_time;
    SecretDocument {
        role: role(status.role),
        generations: status
            .generations
            .into_iter()
            .map(|one| GenerationDocument {
                state: state(one.state),
                created_at: time(one.created_at.as_ref()),
                activated_at: time(one.activated_at.as_ref()),
                backed_up_at: time(one.backed_up_at.as_ref()),
                generation: one.generation,
                fingerprint: one.fingerprint,
                rows: one.rows,
            })
            .collect(),
        masters: status
            .masters
            .into_iter()
            .map(|one| MasterDocument {
                role: role(one.role),
                last_heard_at: time(one.last_heard_at.as_ref()),
                last_error: filled(one.last_error),
                name: one.name,
                member: one.member,
                epoch: one.epoch,
                version: one.version,
                own: one.self_,
                up_to_date: one.up_to_date,
            })
            .collect(),
        servers: status
            .servers
            .into_iter()
            .map(|one| ServerDocument {
                last_heard_at: time(one.last_heard_at.as_ref()),
                read_lease_until: time(one.read_lease_until.as_ref()),
                write_lease_until: time(one.write_lease_until.as_ref()),
                name: one.name,
                live: one.live,
                version: one.version,
                up_to_date: one.up_to_date,
                revoked: one.revoked,
                left_behind: one.left_behind,
                program_version: one.program_version,
            })
            .collect(),
        backup: backup(status.backup.unwrap_or_default(), master_time.map(|now| now.seconds)),
        reseal: reseal(status.reseal.unwrap_or_default(), status.reseal_server),
        keystore_id: status.keystore_id,
        name: status.name,
        epoch: status.epoch,
        version: status.version,
        waiting_for: status.waiting_for,
        warnings: status.warnings,
        rows_counted_at: time(status.rows_counted_at.as_ref()),
        master_time: time(master_time.as_ref()),
        tls: status.tls.map(tls_shown::document),
    }
}

fn backup(backup: BackupStatus, now: Option<i64>) -> BackupDocument {
    let verified = backup.verified_at.map(|at| at.seconds);
    BackupDocument {
        verified_at: time(backup.verified_at.as_ref()),
        age_seconds: now.zip(verified).map(|(now, then)| now.saturating_sub(then).max(0)),
        warning: filled(backup.warning),
        scheduled_last_at: time(backup.scheduled_last_at.as_ref()),
        scheduled_next_at: time(backup.scheduled_next_at.as_ref()),
        scheduled_error: filled(backup.scheduled_error),
    }
}

fn reseal(reseal: ResealStatus, server: String) -> ResealDocument {
    ResealDocument {
        server: filled(server),
        seconds_left: seconds_left(&reseal),
        working: reseal.working,
        rows_left: reseal.rows_left,
        rows_done: reseal.rows_done,
        rows_per_second: if reseal.rows_per_second.is_finite() {
            reseal.rows_per_second
        } else {
            0.0
        },
        failed_rows: reseal.failed_rows,
        failed: reseal.failed,
        waiting_for: filled(reseal.waiting_for),
        began_at: milliseconds(reseal.began_at_ms),
        finished_at: milliseconds(reseal.finished_at_ms),
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A time in milliseconds since the Unix epoch; 0 is never.
fn milliseconds(at: i64) -> Option<String> {
    let nanos = i128::from(at).checked_mul(1_000_000).filter(|_| at != 0)?;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}

fn role(role: i32) -> &'static str {
    match MasterRole::try_from(role) {
        Ok(MasterRole::Primary) => "primary",
        Ok(MasterRole::Standby) => "standby",
        Ok(MasterRole::Unspecified) | Err(_) => "unknown",
    }
}

fn state(state: i32) -> &'static str {
    match GenerationState::try_from(state) {
        Ok(GenerationState::Prepared) => "prepared",
        Ok(GenerationState::Distributed) => "distributed",
        Ok(GenerationState::Active) => "active",
        Ok(GenerationState::Draining) => "draining",
        Ok(GenerationState::Retired) => "retired",
        Ok(GenerationState::Destroyed) => "destroyed",
        Ok(GenerationState::Unspecified) | Err(_) => "unknown",
    }
}
