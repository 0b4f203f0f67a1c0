//! Everything there is to know about the master secret, without a key.

use sso_proto::v1::{
    BackupStatus, GetSecretStatusResponse, MasterEntry, MasterRole, SecretGeneration, SecretServer,
};
use time::OffsetDateTime;

use super::{
    convert::{self, timestamp},
    tls::tls,
};
use crate::{
    backup::health::health,
    custody::Unlocked,
    house::House,
    keystore::{GenerationEntry, State},
    peers::KnownMaster,
    roster::{Facts, Kind, Standing},
    standby,
};

/// How this master and everybody it knows stand now.
pub(super) fn of(house: &House) -> GetSecretStatusResponse {
    let (unlocked, now) = (house.current(), house.clock.now());
    let facts = house.roster.facts();
    let servers = house.roster.standings(Kind::Server);
    let backup = backup(house, &unlocked, now);
    let distributing = unlocked.generations.iter().any(|it| it.state == State::Distributed);
    let waiting_for = if distributing { house.roster.waiting_for(&unlocked) } else { Vec::new() };
    let warnings = warnings(house, (&unlocked, &facts), &servers, &backup, now);
    let (reseal_server, reseal) = facts.reseal.clone().unzip();
    GetSecretStatusResponse {
        keystore_id: unlocked.keystore.to_string(),
        version: unlocked.change,
        epoch: unlocked.epoch,
        role: role(house.is_primary()).into(),
        name: house.settings.name.clone(),
        generations: unlocked.generations.iter().map(|it| generation(it, &facts)).collect(),
        masters: masters(house, &unlocked, now),
        servers: servers.into_iter().map(|it| server(it, &unlocked)).collect(),
        backup: Some(backup),
        reseal,
        reseal_server: reseal_server.unwrap_or_default(),
        waiting_for,
        warnings,
        rows_counted_at: facts.counted_at.map(timestamp),
        master_time: Some(timestamp(now)),
        tls: Some(tls(house.tls.status(), house.tls.warnings())),
    }
}

fn role(primary: bool) -> MasterRole {
    if primary { MasterRole::Primary } else { MasterRole::Standby }
}

fn generation(entry: &GenerationEntry, facts: &Facts) -> SecretGeneration {
    let fingerprint = entry.fingerprint.to_string();
    let rows = facts.counted_rows(entry.generation.number(), &fingerprint);
    SecretGeneration {
        generation: entry.generation.number(),
        fingerprint,
        state: convert::state(entry.state).into(),
        created_at: Some(timestamp(entry.created)),
        activated_at: entry.activated.map(timestamp),
        backed_up_at: entry.backed_up.map(timestamp),
        rows,
    }
}

fn masters(house: &House, unlocked: &Unlocked, now: OffsetDateTime) -> Vec<MasterEntry> {
    let peers = house.peers.all();
    let own = (unlocked.epoch, unlocked.change);
    let newest = peers.values().map(|it| (it.epoch, it.version)).max().unwrap_or(own).max(own);
    let itself = MasterEntry {
        name: house.settings.name.clone(),
        member: unlocked.member.to_string(),
        role: role(house.is_primary()).into(),
        epoch: unlocked.epoch,
        version: unlocked.change,
        self_: true,
        last_heard_at: Some(timestamp(now)),
        up_to_date: own == newest,
        last_error: standby::not_following(house).unwrap_or_default(),
    };
    let leader = house.leadership.primary(unlocked);
    let other = |(name, known): (String, KnownMaster)| MasterEntry {
        name,
        member: known.member.map(|it| it.to_string()).unwrap_or_default(),
        role: match known.member {
            None => MasterRole::Unspecified,
            member => role(member == Some(leader)),
        }
        .into(),
        epoch: known.epoch,
        version: known.version,
        self_: false,
        last_heard_at: known.heard_at.map(timestamp),
        up_to_date: (known.epoch, known.version) == newest,
        last_error: known.last_error,
    };
    std::iter::once(itself).chain(peers.into_iter().map(other)).collect()
}

fn server(standing: Standing, unlocked: &Unlocked) -> SecretServer {
    let revoked = unlocked.revocations.is_revoked(&standing.name);
    let newest = (standing.epoch, standing.version) == (unlocked.epoch, unlocked.change);
    SecretServer {
        revoked,
        left_behind: unlocked.left_behind.contains(&standing.name),
        live: standing.live,
        last_heard_at: standing.last_heard.map(timestamp),
        version: standing.version,
        up_to_date: newest && standing.live && !revoked,
        read_lease_until: standing.read_lease_until.map(timestamp),
        write_lease_until: standing.write_lease_until.map(timestamp),
        program_version: standing.program_version,
        name: standing.name,
    }
}

fn backup(house: &House, unlocked: &Unlocked, now: OffsetDateTime) -> BackupStatus {
    let health = health(unlocked, &house.settings.backup, now);
    let scheduled = house.schedule.as_ref().map(|it| it.status()).unwrap_or_default();
    BackupStatus {
        verified_at: health.verified_at.map(timestamp),
        warning: health.warning.unwrap_or_default(),
        scheduled_last_at: scheduled.last_at.map(timestamp),
        scheduled_next_at: scheduled.next_at.map(timestamp),
        scheduled_error: scheduled.error.unwrap_or_default(),
    }
}

/// What somebody should look at.
fn warnings(
    house: &House,
    (unlocked, facts): (&Unlocked, &Facts),
    servers: &[Standing],
    backup: &BackupStatus,
    now: OffsetDateTime,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !backup.warning.is_empty() {
        warnings.push(backup.warning.clone());
    }
    if !backup.scheduled_error.is_empty() {
        warnings.push(format!("no scheduled backup: {}", backup.scheduled_error));
    }
    for standing in servers.iter().filter(|it| it.read_lease_low) {
        let until = standing.read_lease_until.map(|it| (it - now).whole_seconds());
        let left = until.unwrap_or_default().max(0);
        warnings.push(format!(
            "{}: its keys end in {left} s, because no master confirms them",
            standing.name
        ));
    }
    for (name, known) in house.peers.all() {
        if !known.last_error.is_empty() {
            warnings.push(format!("the master {name} is away: {}", known.last_error));
        } else if known.heard_at.is_none() {
            warnings.push(format!("the master {name} was not heard of since this one started"));
        }
    }
    let active = (unlocked.active.number(), unlocked.ring.active_fingerprint().to_string());
    if house.is_primary() && facts.generations.get(&active).is_some_and(|it| it.closed) {
        warnings.push(format!(
            "the active generation {} is closed in the database, so nothing new is sealed: rotate now",
            active.0
        ));
    }
    warnings.extend(standby::not_following(house));
    warnings
}
