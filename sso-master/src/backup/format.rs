//! How a backup is spelled. Version 1 has one password and nothing else; it is read for ever and
//! written no more.

use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    memory::{KEY_BYTES, LockedKey},
    passphrase::Argon2Params,
};
use sso_protector::encoding::{self, Base64, checksum};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{BackupError, locks::Lock};
use crate::file::{self, FormatError};

pub(super) const FORMAT: &str = "sso-backup";
/// What is written.
pub(super) const NEWEST: u64 = 2;
/// Locks of a backup at most: sixteen officers, a password and shares.
const LOCKS_MAX: usize = 18;
/// Number and key of one generation in the plaintext.
const RECORD: usize = 4 + KEY_BYTES;

/// What stands in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Names this backup.
    pub(super) backup: Uuid,
    pub(super) keystore: Uuid,
    pub(super) epoch: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: OffsetDateTime,
    pub(super) tool: String,
    pub(super) reminder: String,
    #[serde(with = "encoding::generation")]
    pub(super) active: Generation,
    pub(super) generations: Vec<Named>,
    /// Names the backup key, so that a wrong one is told from a changed file.
    #[serde(with = "encoding::fingerprint")]
    pub(super) key: Fingerprint,
    pub(super) locks: Vec<Lock>,
    /// A proof by each generation, in their order; none in the backups of earlier programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) proofs: Vec<Base64>,
}

/// What stood in the clear in version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderV1 {
    pub(super) keystore: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: OffsetDateTime,
    pub(super) tool: String,
    pub(super) reminder: String,
    #[serde(with = "encoding::generation")]
    pub(super) active: Generation,
    pub(super) generations: Vec<Named>,
    pub(super) work: Argon2Params,
    pub(super) salt: Base64,
}

/// A generation by number and fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    #[serde(with = "encoding::generation")]
    pub(super) generation: Generation,
    #[serde(with = "encoding::fingerprint")]
    pub(super) fingerprint: Fingerprint,
}

impl From<(Generation, Fingerprint)> for Named {
    fn from((generation, fingerprint): (Generation, Fingerprint)) -> Self {
        Self { generation, fingerprint }
    }
}

/// The header of either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    V1(HeaderV1),
    V2(Header),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<H> {
    format: String,
    version: u64,
    header: H,
    sealed: Base64,
    checksum: String,
}

impl<H: Serialize> Document<H> {
    fn new(version: u64, header: H, sealed: Base64) -> Self {
        let checksum = checksum(&(FORMAT, version, &header, &sealed));
        Self { format: FORMAT.to_owned(), version, header, sealed, checksum }
    }

    /// Header and sealed keys, if they are what the checksum was made over.
    fn whole(self) -> Result<(H, Base64), FormatError> {
        let Self { version, header, sealed, checksum: found, .. } = self;
        if found != checksum(&(FORMAT, version, &header, &sealed)) {
            return Err(FormatError::damaged("its checksum does not match its contents"));
        }
        Ok((header, sealed))
    }

    fn text(&self) -> String {
        // Nothing in a document can fail to be spelled.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The backup that `content` spells.
pub(super) fn parse(content: &[u8]) -> Result<(Body, Base64), FormatError> {
    if file::version(content, FORMAT, &[1, NEWEST])? == 1 {
        let document: Document<HeaderV1> = file::body(content)?;
        let (header, sealed) = document.whole()?;
        return Ok((Body::V1(header), sealed));
    }
    let document: Document<Header> = file::body(content)?;
    let (header, sealed) = document.whole()?;
    if header.locks.is_empty() || header.locks.len() > LOCKS_MAX {
        return Err(FormatError::damaged("it has no locks, or too many"));
    }
    if !header.proofs.is_empty() && header.proofs.len() != header.generations.len() {
        return Err(FormatError::damaged("it has not one proof for each generation"));
    }
    Ok((Body::V2(header), sealed))
}

/// The text of the file.
pub(super) fn to_text(body: &Body, sealed: &Base64) -> String {
    match body {
        Body::V1(header) => Document::new(1, header, sealed.clone()).text(),
        Body::V2(header) => Document::new(NEWEST, header, sealed.clone()).text(),
    }
}

/// Number and key of every generation, one after the other.
pub(super) fn records(ring: &KeyRing) -> Zeroizing<Vec<u8>> {
    let mut records = Zeroizing::new(Vec::with_capacity(RECORD * ring.generations().count()));
    for (generation, _) in ring.generations() {
        if let Some(key) = ring.key(generation) {
            records.extend_from_slice(&generation.number().to_be_bytes());
            // Expose: into a buffer that wipes itself, to be wrapped.
            records.extend_from_slice(key.expose());
        }
    }
    records
}

/// The keys of such records.
pub(super) fn parse_records(records: &[u8]) -> Result<Vec<(Generation, LockedKey)>, BackupError> {
    let damaged = || FormatError::damaged("its keys are not of the right length");
    let (whole, rest) = records.as_chunks::<RECORD>();
    if !rest.is_empty() {
        return Err(damaged().into());
    }
    let parse = |record: &[u8; RECORD]| {
        let (number, key) = record.split_first_chunk().ok_or_else(damaged)?;
        let generation = Generation::new(u32::from_be_bytes(*number)).ok_or_else(damaged)?;
        Ok((generation, LockedKey::from_bytes(key)?))
    };
    whole.iter().map(parse).collect()
}
