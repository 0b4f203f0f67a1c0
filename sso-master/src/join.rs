//! Making the keystore of a standby: what another master has, wrapped under protectors of its own.
//! There is nothing new in it, so it needs no backup.

use std::{sync::Arc, time::Duration};

use sso_core::{key_ring::Generation, memory::LockedKey, tls::TlsReloader};
use sso_protector::Protector;
use sso_proto::Refusal;
use uuid::Uuid;

use crate::{
    custody::{KeystoreLock, Unlocked},
    error::MasterError,
    file::FileError,
    keystore::{Keystore, KeystoreError},
    settings::{PeerEntry, Settings},
    standby::{self, replicate_state},
    stanzas::{Given, prove},
};

/// Time for one master to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why there is nothing to make a standby of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No `[[peer]]` is the primary, or none answers.
    #[error(
        "no [[peer]] of the settings gives its keystore: {0}; the primary has to run, and to have this master as a [[peer]]"
    )]
    NoPrimary(String),
    /// What was given is no keystore.
    #[error("{0}")]
    Refused(Refusal),
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// The master it came from.
    pub primary: String,
    /// Its epoch.
    pub epoch: u64,
    /// The generation that is active.
    pub active: Generation,
    /// How many generations there are keys of.
    pub keys: usize,
}

/// Takes the keystore over from the first `[[peer]]` that is the primary, wraps it anew, proves that
/// every protector opens it, and writes it. On failure nothing is left. Blocks: it starts its own
/// runtime.
///
/// # Errors
/// When the file exists or cannot be written, no primary answers, or a protector cannot be used.
pub fn join(settings: &Settings, protectors: &[Box<dyn Protector>]) -> Result<Joined, MasterError> {
    if settings.keystore.symlink_metadata().is_ok() {
        return Err(KeystoreError::from(FileError::Exists(settings.keystore.clone())).into());
    }
    let _lock = KeystoreLock::take(&settings.keystore)?;
    let tls = TlsReloader::load(&settings.tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = runtime.block_on(async {
        tls.fetch_lists().await;
        ask(&settings.peer, &tls).await
    })?;
    // A desktop keyring brings a runtime of its own.
    drop(runtime);
    make(settings, protectors, taken)
}

/// What the primary gave.
struct Taken {
    primary: String,
    keystore: Uuid,
    header: String,
    keys: Vec<(Generation, LockedKey)>,
}

async fn ask(peers: &[PeerEntry], tls: &Arc<TlsReloader>) -> Result<Taken, MasterError> {
    let mut why = Vec::new();
    for peer in peers {
        let client = standby::client(peer, tls)?;
        match tokio::time::timeout(ANSWER, replicate_state(&client)).await {
            Ok(Ok((state, header, keys))) if state.member == state.primary => {
                let keystore = Uuid::try_parse(&state.keystore_id).unwrap_or_default();
                return Ok(Taken { primary: peer.name.clone(), keystore, header, keys });
            }
            Ok(Ok(_)) => why.push(format!("{} is on standby", peer.name)),
            Ok(Err(error)) => why.push(format!("{}: {error}", peer.name)),
            Err(_) => why.push(format!("{} does not answer", peer.name)),
        }
    }
    Err(JoinError::NoPrimary(why.join("; ")).into())
}

fn make(
    settings: &Settings,
    protectors: &[Box<dyn Protector>],
    taken: Taken,
) -> Result<Joined, MasterError> {
    let Taken { primary, keystore: id, header, keys } = taken;
    let key = LockedKey::generate().map_err(KeystoreError::from)?;
    let mut given = Given::for_new(id, protectors, &settings.keystore);
    let stanzas = given.wrap_all(&key)?;
    let keystore = Keystore::from_transfer(&header, keys, Uuid::new_v4(), &key, stanzas)
        .map_err(JoinError::Refused)?;
    let unlocked = Unlocked::open(&keystore, &key)?;
    prove(&keystore, protectors, &unlocked.ring)?;
    keystore.write_new(&settings.keystore)?;
    given.keep();
    tracing::info!(
        primary,
        keystore = %unlocked.keystore,
        epoch = unlocked.epoch,
        change = unlocked.change,
        "the keystore of a standby was made"
    );
    Ok(Joined {
        keystore: unlocked.keystore,
        primary,
        epoch: unlocked.epoch,
        active: unlocked.active,
        keys: unlocked.kept().len(),
    })
}
