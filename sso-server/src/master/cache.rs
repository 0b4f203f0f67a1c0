//! The sealed lease cache: the keys outlive a restart of this server for what is left of their read
//! lease, when an administrator wants that.
//!
//! It is a JSON file of mode 0600. A random *cache key* seals the keys, and one protector keeps the
//! cache key, so that the file is of use on this machine alone. Everything that limits its use stands
//! in the header, to which the keys are bound. While the program runs the cache key is in locked
//! memory, and the protector is not asked again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use sso_core::{
    clock::Clock, key_ring::KeyRing, memory::LockedKey, secret::SecretBytes,
    settings::write_private, wrapping::WrappingKey,
};
use sso_protector::{Protector, ProtectorError, Stanza, encoding::Base64, protectors, unlock};
use sso_proto::{
    decode_keys,
    v1::{GenerationKey, KeyRingTransfer},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    CacheSettings, MasterSecret, OfferedGeneration, OfferedKeyRing, link::key_ring, notes::Held,
};

const FORMAT: &str = "sso-lease-cache";
const VERSION: u64 = 1;
/// Bytes of the largest file that is read.
const LARGEST_FILE: u64 = 1 << 20;
/// How far this machine's clock may have been set back since the file was written.
const SET_BACK: Duration = Duration::from_secs(60);

/// Whose cache it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOwner {
    /// The name of this server.
    pub server: String,
    /// The keystore that the database is bound to; without one nothing is taken.
    pub keystore: Option<Uuid>,
    /// The masters revoked the right of this server, as the database remembers.
    pub revoked: bool,
}

/// What was in the cache.
#[derive(Debug)]
pub struct CachedKeys {
    pub(super) keys: KeyRing,
    pub(super) keystore: Uuid,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) primary: Uuid,
    /// Of the read lease.
    pub(super) left: Duration,
}

impl CachedKeys {
    /// What the database is asked about them before they are used.
    #[must_use]
    pub fn offered(&self) -> OfferedKeyRing {
        OfferedKeyRing {
            keystore: self.keystore,
            epoch: self.epoch,
            primary: self.primary,
            master: "of the sealed cache".to_owned(),
            generations: OfferedGeneration::all(&self.keys),
            revocations: Default::default(),
        }
    }
}

/// The file, and the key to it.
pub struct LeaseCache {
    file: PathBuf,
    server: String,
    id: Uuid,
    key: LockedKey,
    stanzas: Vec<Stanza>,
    clock: Clock,
    /// What was saved last and when.
    saved: Option<(Held, Duration)>,
    /// The last failure, to be logged once.
    failed: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    header: Header,
    stanzas: Vec<Stanza>,
    /// What `KeyRingTransfer` encodes to, wrapped and bound to the header.
    keys: Base64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u64,
    /// Names the cache key at its protector.
    cache: Uuid,
    keystore: Uuid,
    server: String,
    epoch: u64,
    primary: Uuid,
    /// Version of the key ring.
    change: u64,
    /// Milliseconds since the Unix epoch.
    saved_at_ms: i64,
    read_lease_until_ms: i64,
}

impl Header {
    /// What the keys are bound to.
    fn bytes(&self) -> Result<Vec<u8>, CacheError> {
        serde_json::to_vec(self).map_err(|error| CacheError::Damaged(error.to_string()))
    }
}

/// Why a cache is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("there is no such file")]
    None,
    #[error("it cannot be read or written: {0}")]
    File(io::Error),
    #[error("it is no lease cache, or a damaged one: {0}")]
    Damaged(String),
    #[error("its protector does not open it, as on another machine: {0}")]
    Protector(#[from] ProtectorError),
    #[error("it was changed, or sealed under another key")]
    NotAuthentic,
    #[error("it belongs to the server {0:?}")]
    OtherServer(String),
    #[error("it belongs to keystore {found}, and the database to {}", bound(.expected))]
    OtherKeystore { found: Uuid, expected: Option<Uuid> },
    #[error("the masters revoked the right of this server to the master secret")]
    Revoked,
    #[error("its read lease ended at {0}")]
    Expired(OffsetDateTime),
    #[error("the clock of this machine was set back: the file was written at {0}")]
    SetBack(OffsetDateTime),
}

fn bound(keystore: &Option<Uuid>) -> String {
    keystore.map_or_else(|| "none yet".to_owned(), |keystore| format!("keystore {keystore}"))
}

impl LeaseCache {
    /// Opens the cache that the settings name and says what may be used of it. `None` where the
    /// protector cannot be used: the server does without. May block.
    #[must_use]
    pub fn begin(
        settings: &CacheSettings,
        owner: &CacheOwner,
        clock: Clock,
    ) -> (Option<Self>, Option<CachedKeys>) {
        let file = settings.file.display();
        let protectors = match protectors(&settings.protector, false) {
            Ok(protectors) => protectors,
            Err(error) => {
                tracing::error!(%file, %error, "the sealed cache of the keys is not used: its protector cannot be");
                return (None, None);
            }
        };
        let (known, cached) = match open(&settings.file, &protectors, owner, &clock) {
            (known, Ok(cached)) => {
                tracing::info!(%file, seconds = cached.left.as_secs(), change = cached.version, "keys taken from the sealed cache, for reading until a master is reached");
                (known, Some(cached))
            }
            (known, Err(CacheError::None)) => {
                tracing::info!(%file, "there is no sealed cache of the keys yet");
                (known, None)
            }
            (known, Err(why)) => {
                tracing::warn!(%file, %why, "the sealed cache of the keys is not used");
                if matches!(why, CacheError::Revoked) {
                    remove(&settings.file);
                }
                (known, None)
            }
        };
        let known = match known {
            Some(known) => Ok(known),
            None => Known::new(&protectors),
        };
        match known {
            Ok(Known { id, key, stanzas }) => {
                let (file, server) = (settings.file.clone(), owner.server.clone());
                let cache =
                    Self { file, server, id, key, stanzas, clock, saved: None, failed: None };
                (Some(cache), cached)
            }
            Err(error) => {
                tracing::error!(%file, %error, "the sealed cache of the keys is not used: its protector takes no key");
                (None, None)
            }
        }
    }

    /// Writes the cache after every change of the keys and with every tenth of the read lease, and
    /// deletes it when the right to them is lost.
    pub(super) async fn keep(&mut self, secret: &MasterSecret) {
        let (revoked, held, keystore) = {
            let notes = secret.notes();
            (notes.revoked.is_some(), notes.held, notes.expected)
        };
        if revoked {
            self.saved = None;
            if remove(&self.file) {
                tracing::warn!(file = %self.file.display(), "the sealed cache of the keys is deleted");
            }
            return;
        }
        let now = self.clock.instant();
        let (Some(held), Some(keystore)) = (held.filter(|held| held.admitted), keystore) else {
            return;
        };
        let period = secret.leases.read() / 10;
        let fresh = |(saved, at): (Held, Duration)| saved == held && now < at + period;
        if self.saved.is_some_and(fresh) {
            return;
        }
        let (Some(keys), (Some(left), _)) = (secret.lasting(), secret.leases.left(now)) else {
            return;
        };
        let written = self.document(&keys, held, keystore, left).map(|document| {
            let file = self.file.clone();
            tokio::task::spawn_blocking(move || write_private(&file, &document, true))
        });
        let written = match written {
            Ok(writing) => match writing.await {
                Ok(written) => written.map_err(CacheError::File),
                Err(error) => Err(CacheError::File(io::Error::other(error))),
            },
            Err(error) => Err(error),
        };
        // What cannot be written now is tried again with the next tenth.
        self.saved = Some((held, now));
        self.failed = match written.map_err(|error| error.to_string()) {
            Ok(()) => None,
            Err(error) => {
                if self.failed.as_ref() != Some(&error) {
                    tracing::error!(file = %self.file.display(), error, "the sealed cache of the keys is not written");
                }
                Some(error)
            }
        };
    }

    fn document(
        &self,
        keys: &KeyRing,
        held: Held,
        keystore: Uuid,
        left: Duration,
    ) -> Result<Vec<u8>, CacheError> {
        let now = self.clock.now();
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            cache: self.id,
            keystore,
            server: self.server.clone(),
            epoch: held.epoch,
            primary: held.primary,
            change: held.version,
            saved_at_ms: milliseconds(now),
            read_lease_until_ms: milliseconds(now + left),
        };
        let generations = keys.generations().filter_map(|(generation, _)| {
            // Expose: into a message that wipes itself.
            let key = keys.key(generation)?.expose().to_vec();
            Some(GenerationKey { generation: generation.number(), key })
        });
        let active_generation = keys.active().number();
        let transfer = KeyRingTransfer { generations: generations.collect(), active_generation };
        let plain = SecretBytes::new(transfer.encode_to_vec());
        let bytes = header.bytes()?;
        // Expose: to be wrapped.
        let sealed = WrappingKey::new(&self.key)
            .wrap(&[FORMAT.as_bytes(), &bytes], plain.expose())
            .map_err(|error| CacheError::File(io::Error::other(error)))?;
        let stanzas = self.stanzas.clone();
        serde_json::to_vec_pretty(&Document { header, stanzas, keys: Base64(sealed) })
            .map_err(|error| CacheError::File(io::Error::other(error)))
    }
}

impl std::fmt::Debug for LeaseCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseCache").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A cache key that its protector keeps.
pub(super) struct Known {
    id: Uuid,
    key: LockedKey,
    stanzas: Vec<Stanza>,
}

impl Known {
    fn new(protectors: &[Box<dyn Protector>]) -> Result<Self, ProtectorError> {
        let (id, key) = (Uuid::new_v4(), LockedKey::generate()?);
        let stanzas = protectors.iter().map(|protector| protector.wrap(id, &key));
        let stanzas = stanzas.collect::<Result<_, _>>()?;
        Ok(Self { id, key, stanzas })
    }
}

/// What may be used of the file, and the cache key, which may be of use also where nothing else is.
pub(super) fn open(
    file: &Path,
    protectors: &[Box<dyn Protector>],
    owner: &CacheOwner,
    clock: &Clock,
) -> (Option<Known>, Result<CachedKeys, CacheError>) {
    match unlocked(file, protectors, owner) {
        Ok((document, known)) => {
            let cached = cached(&document, &known.key, owner, clock);
            let changed = matches!(cached, Err(CacheError::NotAuthentic));
            ((!changed).then_some(known), cached)
        }
        Err(error) => (None, Err(error)),
    }
}

fn unlocked(
    file: &Path,
    protectors: &[Box<dyn Protector>],
    owner: &CacheOwner,
) -> Result<(Document, Known), CacheError> {
    let document = read(file)?;
    require_own(&document.header, owner)?;
    let id = document.header.cache;
    let key = unlock(protectors, id, &document.stanzas)?;
    let stanzas = document.stanzas.clone();
    Ok((document, Known { id, key, stanzas }))
}

fn cached(
    document: &Document,
    key: &LockedKey,
    owner: &CacheOwner,
    clock: &Clock,
) -> Result<CachedKeys, CacheError> {
    let header = &document.header;
    // First, so that nothing is believed of a header that was changed.
    let keys = keys(document, key)?;
    let left = left(header, clock.now())?;
    if owner.revoked {
        return Err(CacheError::Revoked);
    }
    let Header { keystore, change: version, epoch, primary, .. } = *header;
    Ok(CachedKeys { keys, keystore, version, epoch, primary, left })
}

fn read(file: &Path) -> Result<Document, CacheError> {
    let size = match fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CacheError::None),
        Err(error) => return Err(CacheError::File(error)),
    };
    if size > LARGEST_FILE {
        return Err(CacheError::Damaged(format!("it has {size} bytes")));
    }
    let bytes = fs::read(file).map_err(CacheError::File)?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| CacheError::Damaged(error.to_string()))?;
    let Header { format, version, .. } = &document.header;
    if format != FORMAT || *version != VERSION {
        let found =
            format!("it is {format:?} version {version}, this program reads {FORMAT} {VERSION}");
        return Err(CacheError::Damaged(found));
    }
    Ok(document)
}

fn require_own(header: &Header, owner: &CacheOwner) -> Result<(), CacheError> {
    if header.server != owner.server {
        return Err(CacheError::OtherServer(header.server.chars().take(64).collect()));
    }
    if owner.keystore != Some(header.keystore) {
        let (found, expected) = (header.keystore, owner.keystore);
        return Err(CacheError::OtherKeystore { found, expected });
    }
    Ok(())
}

fn keys(document: &Document, key: &LockedKey) -> Result<KeyRing, CacheError> {
    let header = document.header.bytes()?;
    let plain = WrappingKey::new(key)
        .unwrap(&[FORMAT.as_bytes(), &header], &document.keys.0)
        .map_err(|_| CacheError::NotAuthentic)?;
    // Expose: to be decoded; every key in the message wipes itself.
    let transfer = decode_keys::<KeyRingTransfer>(plain.expose())
        .map_err(|error| CacheError::Damaged(error.to_string()))?;
    key_ring(&transfer).map_err(CacheError::Damaged)
}

/// What is left of the read lease.
fn left(header: &Header, now: OffsetDateTime) -> Result<Duration, CacheError> {
    let (saved_at, until) = (at(header.saved_at_ms)?, at(header.read_lease_until_ms)?);
    if now < saved_at - SET_BACK {
        return Err(CacheError::SetBack(saved_at));
    }
    let left = Duration::try_from(until - now).unwrap_or_default();
    if left.is_zero() { Err(CacheError::Expired(until)) } else { Ok(left) }
}

fn at(milliseconds: i64) -> Result<OffsetDateTime, CacheError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .map_err(|error| CacheError::Damaged(error.to_string()))
}

fn milliseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// Deletes the file, and says whether it was there.
fn remove(file: &Path) -> bool {
    match fs::remove_file(file) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "the sealed cache of the keys cannot be deleted; delete it by hand");
            false
        }
    }
}
