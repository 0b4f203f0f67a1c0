//! What administrators have done, at the desk of the house: one thing at a time, and never on a
//! thread that serves.

use std::sync::Arc;

use sso_core::{
    key_ring::{Generation, KeyRing},
    transit,
};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        BackupGeneration, BackupRequest, BackupResponse, DestroyRequest, DestroyResponse,
        PrepareRequest, PrepareResponse, ReadmitServerRequest, ReadmitServerResponse,
        RestoreRequest, RestoreResponse, RotateRequest, RotateResponse, VerifyBackupRequest,
        VerifyBackupResponse,
    },
};

use super::{
    convert::{self, timestamp},
    gate::{Administrator, Attempts},
};
use crate::{
    backup::{Backup, Locks, Opener},
    house::House,
    keystore::State,
    roster::Kind,
    rotation,
    transfer::seal_ring,
};

/// Bytes of the largest backup that is taken.
const DOCUMENT_MAX: usize = 1 << 20;

/// Who has something done, and where.
pub(super) struct Desk<'a> {
    pub(super) house: &'a Arc<House>,
    pub(super) administrator: &'a Administrator,
    pub(super) attempts: &'a Attempts,
}

pub(super) fn prepare(
    desk: &Desk<'_>,
    message: PrepareRequest,
) -> Result<PrepareResponse, Refusal> {
    let house = desk.house;
    house.require_primary()?;
    let locks = convert::locks(message.locks)?;
    // The number must be one that no server has seen, whoever handed it out.
    let facts = tokio::runtime::Handle::current().block_on(rotation::facts_of_now(house))?;
    let known = facts.generations.keys().map(|(number, _)| *number).max().unwrap_or_default();
    let now = house.clock.now();
    let (generation, fingerprint) = house
        .custody
        .change(|draft| draft.prepare(now, known))
        .inspect_err(|error| {
            tracing::error!(event = Event::MasterSecretNotGenerated.number(), administrator = %desk.administrator, %error, "no generation was prepared");
        })?;
    tracing::info!(
        event = Event::MasterSecretGenerated.number(),
        administrator = %desk.administrator,
        generation = generation.number(),
        %fingerprint,
        "generation prepared"
    );
    let (document, shares) = sealed_backup(desk, &locks)?;
    let (generation, fingerprint) = (generation.number(), fingerprint.to_string());
    Ok(PrepareResponse { generation, fingerprint, document, shares })
}

pub(super) fn backup(desk: &Desk<'_>, message: BackupRequest) -> Result<BackupResponse, Refusal> {
    desk.house.require_primary()?;
    let locks = convert::locks(message.locks)?;
    let (document, shares) = sealed_backup(desk, &locks)?;
    Ok(BackupResponse { document, shares })
}

/// A backup of everything that is kept.
fn sealed_backup(desk: &Desk<'_>, locks: &Locks) -> Result<(String, Vec<String>), Refusal> {
    let (house, unlocked) = (desk.house, desk.house.current());
    let now = house.clock.now();
    let made = Backup::seal(unlocked.keystore, unlocked.epoch, &unlocked.ring, locks, now);
    let (backup, shares) = made.inspect_err(|error| {
        tracing::error!(event = Event::BackupNotWritten.number(), administrator = %desk.administrator, %error, "no backup");
    })?;
    // Expose: to their holders, in the answer to the administrator who asked for shares.
    let shares = shares.iter().map(|share| share.expose().to_owned()).collect();
    Ok((backup.to_text(), shares))
}

pub(super) fn verify(
    desk: &Desk<'_>,
    message: VerifyBackupRequest,
) -> Result<VerifyBackupResponse, Refusal> {
    let house = desk.house;
    let (backup, _, ring) = opened(desk, &message.document, message.opener)?;
    let found: Vec<_> = ring.generations().collect();
    if house.is_primary() {
        let now = house.clock.now();
        let recorded = house.custody.change(|draft| Ok(draft.record_backup(&found, now)))?;
        let generations: Vec<_> = recorded.iter().map(|it| it.number()).collect();
        tracing::info!(event = Event::BackupWritten.number(), administrator = %desk.administrator, ?generations, "backup opened again");
    }
    let unlocked = house.current();
    let sealed = match message.recipient_key.as_slice() {
        [] => Vec::new(),
        key => seal_ring(&ring, key, transit::CHECK)?,
    };
    let kept = |generation: Generation| unlocked.ring.fingerprint(generation);
    Ok(VerifyBackupResponse {
        keystore_id: backup.keystore().to_string(),
        created_at: Some(timestamp(backup.created())),
        tool: backup.tool().to_owned(),
        active_generation: ring.active().number(),
        generations: found
            .iter()
            .map(|(generation, fingerprint)| BackupGeneration {
                generation: generation.number(),
                fingerprint: fingerprint.to_string(),
                in_keystore: kept(*generation) == Some(*fingerprint),
            })
            .collect(),
        missing: unlocked
            .ring
            .generations()
            .filter(|own| !found.contains(own))
            .map(|(generation, _)| generation.number())
            .collect(),
        sealed,
    })
}

/// The backup and the keys in it. Wrong passwords, keys and shares are counted.
fn opened(
    desk: &Desk<'_>,
    document: &str,
    opener: Option<sso_proto::v1::BackupOpener>,
) -> Result<(Backup, Opener, KeyRing), Refusal> {
    if document.len() > DOCUMENT_MAX {
        let message = "the document is larger than 1 MiB, which no backup is";
        return Err(Refusal::new(Reason::BackupMalformed, message));
    }
    let malformed = |error| Refusal::new(Reason::BackupMalformed, format!("backup: {error}"));
    let backup = Backup::parse(document.as_bytes()).map_err(malformed)?;
    let own = desk.house.current().keystore;
    if backup.keystore() != own {
        let message = format!(
            "the backup belongs to keystore {}, this is keystore {own}: take a backup of this \
             system",
            backup.keystore()
        );
        return Err(Refusal::new(Reason::BackupForeign, message));
    }
    let opener = convert::opener(opener)?;
    let ring = try_open(desk, &backup, &opener)?;
    Ok((backup, opener, ring))
}

fn try_open(desk: &Desk<'_>, backup: &Backup, opener: &Opener) -> Result<KeyRing, Refusal> {
    let began = desk.house.clock.instant();
    desk.attempts.begin(&desk.administrator.name, began)?;
    let opened = backup.open(opener).map_err(Refusal::from);
    let wrong = opened.as_ref().is_err_and(|refusal| {
        matches!(refusal.reason, Reason::BackupPasswordWrong | Reason::BackupSharesInvalid)
    });
    if !wrong {
        desk.attempts.forgive(&desk.administrator.name, began);
    }
    opened
}

pub(super) fn rotate(desk: &Desk<'_>, message: RotateRequest) -> Result<RotateResponse, Refusal> {
    let house = desk.house;
    let unlocked = house.require_primary()?;
    let generation = convert::generation(message.generation)?;
    require_listed(house, &message.leave_behind)?;
    let (names, rate) = (message.leave_behind, message.reseal_rows_per_second);
    match unlocked.entry(generation).map(|entry| entry.state) {
        Some(State::Active) => {}
        Some(State::Distributed) if names.is_empty() => {}
        Some(State::Distributed) => house.custody.change(|draft| draft.leave_behind(&names))?,
        Some(State::Prepared | State::Draining | State::Retired | State::Destroyed) | None => {
            if !house.roster.any_server(&unlocked.revocations) {
                let message = "no SSO server is there that could take the new generation: start \
                               one, or look why none reaches this master";
                return Err(Refusal::new(Reason::ServersUnreachable, message));
            }
            house.custody.change(|draft| draft.distribute(generation, &names, rate))?;
        }
    }
    let unlocked = house.current();
    let active = unlocked.active == generation;
    let waiting_for = if active { Vec::new() } else { house.roster.waiting_for(&unlocked) };
    Ok(RotateResponse { waiting_for, active })
}

fn require_listed(house: &House, names: &[String]) -> Result<(), Refusal> {
    let listed = |name: &&String| {
        house.roster.lists(Kind::Server, name) || house.roster.lists(Kind::Master, name)
    };
    match names.iter().find(|name| !listed(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("the settings of the master name no server and no peer {name:?}");
            Err(Refusal::new(Reason::ServerNotFound, message))
        }
    }
}

pub(super) fn destroy(
    desk: &Desk<'_>,
    message: DestroyRequest,
) -> Result<DestroyResponse, Refusal> {
    desk.house.require_primary()?;
    let DestroyRequest { generation, fingerprint } = message;
    let generation = convert::generation(generation)?;
    let house = desk.house;
    // Servers come to a master that has just begun. What they say, or that they say nothing, is judged
    // after the generation itself.
    let _ = tokio::runtime::Handle::current().block_on(rotation::facts_of_now(house));
    house.custody.change(|draft| {
        draft.destroy(generation, &fingerprint)?;
        rotation::require_closed(house, generation, draft.entry(generation)?.fingerprint)
    })?;
    tracing::warn!(administrator = %desk.administrator, %generation, fingerprint, "destroyed: its key is gone");
    Ok(DestroyResponse {})
}

pub(super) fn restore(
    desk: &Desk<'_>,
    message: RestoreRequest,
) -> Result<RestoreResponse, Refusal> {
    let restored = put_back(desk, message);
    match &restored {
        Ok(done) => {
            let (generations, aside) = (&done.generations, &done.kept_aside);
            tracing::info!(event = Event::MasterSecretRestored.number(), administrator = %desk.administrator, ?generations, aside, "restored from a backup");
        }
        Err(error) => {
            tracing::error!(event = Event::MasterSecretNotRestored.number(), administrator = %desk.administrator, %error, "not restored");
        }
    }
    restored
}

fn put_back(desk: &Desk<'_>, message: RestoreRequest) -> Result<RestoreResponse, Refusal> {
    desk.house.require_primary()?;
    let (backup, opener, ring) = opened(desk, &message.document, message.opener)?;
    backup.require_origin(&opener, &desk.house.current())?;
    let now = desk.house.clock.now();
    let changed = desk.house.custody.change_and_keep(|draft| draft.restore(&ring, now))?;
    Ok(RestoreResponse {
        generations: changed.value.iter().map(|it| it.number()).collect(),
        kept_aside: changed.kept_aside.map(|it| it.display().to_string()).unwrap_or_default(),
    })
}

/// Whether it was not revoked before.
pub(super) fn revoke(desk: &Desk<'_>, name: &str) -> Result<bool, Refusal> {
    desk.house.require_primary()?;
    require_server(desk.house, name)?;
    desk.house.custody.change(|draft| draft.revoke(name))
}

pub(super) fn readmit(
    desk: &Desk<'_>,
    message: ReadmitServerRequest,
) -> Result<ReadmitServerResponse, Refusal> {
    desk.house.require_primary()?;
    let ReadmitServerRequest { name } = message;
    require_server(desk.house, &name)?;
    desk.house.custody.change(|draft| draft.readmit(&name))?;
    Ok(ReadmitServerResponse {})
}

fn require_server(house: &House, name: &str) -> Result<(), Refusal> {
    if house.roster.lists(Kind::Server, name) {
        return Ok(());
    }
    let message = format!("the settings of the master name no [[server]] {name:?}");
    Err(Refusal::new(Reason::ServerNotFound, message))
}
