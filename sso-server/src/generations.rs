//! What the database says to the key rings that masters offer: whether they may be used, which
//! generations values may be sealed under, and which servers lost their right to them.

use sso_core::clock::{CLOCKS_APART, Clock};
use sso_proto::{Event, Reason};

use uuid::Uuid;

use crate::{
    error::Error,
    master::OfferedKeyRing,
    storage::{Admission, Change, CloseOutcome, Storage, StorageError, Transaction},
};

/// Asks the database whether this server may use a key ring, and has it remember what the ring brings:
/// the keystore, the epoch, new generations, revocations. All of that or nothing.
///
/// # Errors
/// `MASTER_SECRET_FOREIGN`, `MASTER_OUTDATED`; `MASTER_SECRET_REVOKED` where the database remembers a
/// revocation that the master has not heard of; others when the database cannot answer now.
pub async fn admit(
    storage: &Storage,
    clock: &Clock,
    server: &str,
    offered: &OfferedKeyRing,
) -> Result<(), Error> {
    let mut transaction = storage.begin().await?;
    let new = admitted(&mut transaction, clock, offered).await?;
    let now = clock.now();
    let known = transaction.note_revocations(&offered.revocations, now).await?;
    if known.is_revoked(server) {
        return Err(revoked(server));
    }
    let mut system = transaction.lock_system().await?.ok_or_else(no_system)?;
    let moved = system.global.secret_server != offered.master;
    if moved {
        offered.master.clone_into(&mut system.global.secret_server);
        // Servers tell newer settings from older ones by the time.
        let later = system.updated_at.saturating_add(time::Duration::MICROSECOND);
        transaction.update_system(&system.global, now.max(later)).await?;
        transaction.insert_change(Change::System, now).await?;
    }
    transaction.commit().await?;
    if moved {
        tracing::info!(
            event = Event::MasterChanged.number(),
            master = offered.master,
            "another master secret server"
        );
    }
    new.tell(offered);
    Ok(())
}

/// The same for keys that this server kept over its restart, which no master vouches for now: besides,
/// its clock must not have been set back.
///
/// # Errors
/// As [`admit`]; `MASTER_SECRET_EXPIRED` when the clock is behind the reports of the servers.
pub async fn admit_kept(
    storage: &Storage,
    clock: &Clock,
    server: &str,
    offered: &OfferedKeyRing,
) -> Result<(), Error> {
    if storage.revocations().await?.is_revoked(server) {
        return Err(revoked(server));
    }
    // Whoever sets the clock back would make the lease of the kept keys longer.
    let servers = storage.servers().await?;
    let (now, known) = (clock.now(), servers.iter().map(|server| server.last_seen_at).max());
    if let Some(known) = known.filter(|known| *known > now + CLOCKS_APART) {
        let message = format!(
            "the clock of this server says {now}, and the database knows a report of {known}: the kept \
             keys are not used before the clock is right"
        );
        return Err(Error::new(Reason::MasterSecretExpired, message));
    }
    let mut transaction = storage.begin().await?;
    let new = admitted(&mut transaction, clock, offered).await?;
    transaction.commit().await?;
    new.tell(offered);
    Ok(())
}

/// Closes a generation where nothing is sealed under it.
///
/// # Errors
/// When the database cannot answer now, also because somebody holds the generation.
pub async fn close(
    storage: &Storage,
    clock: &Clock,
    generation: u32,
    wanted_by: (u64, Uuid),
) -> Result<CloseOutcome, StorageError> {
    let mut transaction = storage.begin_long().await?;
    let outcome = transaction.close_generation(generation, wanted_by, clock.now()).await?;
    match outcome {
        CloseOutcome::Closed | CloseOutcome::InUse { .. } => transaction.commit().await?,
        CloseOutcome::WasClosed | CloseOutcome::Unknown | CloseOutcome::LedByAnother => {
            transaction.rollback().await?;
        }
    }
    Ok(outcome)
}

/// What an admission brought that is worth a line in the log.
struct New {
    bound: bool,
    leader: bool,
    generations: Vec<u32>,
}

impl New {
    fn tell(&self, offered: &OfferedKeyRing) {
        if self.bound {
            let keystore = offered.keystore;
            tracing::info!(%keystore, "the database now belongs to this keystore");
        }
        if self.leader {
            let (epoch, primary) = (offered.epoch, offered.primary);
            tracing::info!(epoch, %primary, "the database follows this master secret server");
        }
        if !self.generations.is_empty() {
            let generations = &self.generations;
            tracing::info!(?generations, "the database knows new generations");
        }
    }
}

async fn admitted(
    transaction: &mut Transaction,
    clock: &Clock,
    offered: &OfferedKeyRing,
) -> Result<New, Error> {
    match transaction.admit_key_ring(offered, clock.now()).await? {
        Admission::Admitted { bound, new_leader, new } => {
            Ok(New { bound, leader: new_leader, generations: new })
        }
        Admission::Foreign(expected) => {
            let message = format!(
                "the master {} holds keystore {}, and the database belongs to keystore {expected}: \
                 name the right master in the settings, or restore its keystore from the backup",
                offered.master, offered.keystore
            );
            Err(Error::new(Reason::MasterSecretForeign, message))
        }
        Admission::Outdated(why) => Err(Error::new(Reason::MasterOutdated, why)),
    }
}

fn revoked(server: &str) -> Error {
    let message = format!(
        "the right of {server} to the master secret was revoked, as the database remembers; `sso server \
         readmit {server}` gives it back"
    );
    Error::new(Reason::MasterSecretRevoked, message)
}

fn no_system() -> Error {
    Error::new(Reason::Internal, "the row of the system cannot be read back")
}
