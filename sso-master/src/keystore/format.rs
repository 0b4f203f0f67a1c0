//! How the file of a keystore is spelled: version 2, and version 1, which is read for ever.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    revocations::Revocations,
    seal::SealError,
    wrapping::{UnwrapError, WrappingKey},
};
use sso_protector::{
    Stanza,
    encoding::{self, Base64, canonical, checksum},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{GenerationEntry, KeystoreError, State};
use crate::file::{self, FormatError};

pub(super) const FORMAT: &str = "sso-keystore";
/// Every version that is read; the last one is written.
pub(super) const VERSIONS: [u64; 2] = [V1, V2];
const V1: u64 = 1;
const V2: u64 = 2;
/// Stanzas of a keystore at most: each may cost a whole stretching of a passphrase.
const STANZAS_MAX: usize = 8;
/// Names of servers and masters that a header has at most, and bytes of each.
const NAMES_MAX: usize = 1024;
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Everything of a keystore that its seal covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) keystore: Uuid,
    /// Whose copy this is.
    pub(super) member: Uuid,
    pub(super) epoch: u64,
    /// The member that is the primary of the epoch.
    pub(super) primary: Uuid,
    pub(super) change: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: OffsetDateTime,
    pub(super) tool: String,
    pub(super) revocations: Revocations,
    pub(super) left_behind: BTreeSet<String>,
    pub(super) reseal_rows_per_second: u32,
    /// The change with which the one generation that is distributed was handed out.
    pub(super) distributed_in: Option<u64>,
    pub(super) generations: Vec<GenerationEntry>,
}

/// The header of version 1: one master, which never changed anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderV1 {
    keystore: Uuid,
    change: u64,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    tool: String,
    generations: Vec<GenerationV1>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationV1 {
    #[serde(with = "encoding::generation")]
    generation: Generation,
    state: State,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    #[serde(with = "encoding::fingerprint")]
    fingerprint: Fingerprint,
    wrapped: Option<Base64>,
}

/// A header as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    /// Kept as it was read, because its seal is over this spelling.
    V1(HeaderV1),
    V2,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<H> {
    format: String,
    version: u64,
    header: H,
    stanzas: Vec<Stanza>,
    seal: Base64,
    checksum: String,
}

/// What a document of any version says.
pub(super) struct Parsed {
    pub(super) header: Header,
    pub(super) sealed: Sealed,
    pub(super) stanzas: Vec<Stanza>,
    pub(super) seal: Base64,
}

pub(super) fn parse(content: &[u8]) -> Result<Parsed, FormatError> {
    let parsed = match file::version(content, FORMAT, &VERSIONS)? {
        V1 => {
            let (header, stanzas, seal) = whole::<HeaderV1>(content)?;
            Parsed { header: Header::from(&header), sealed: Sealed::V1(header), stanzas, seal }
        }
        _ => {
            let (header, stanzas, seal) = whole::<Header>(content)?;
            Parsed { header, sealed: Sealed::V2, stanzas, seal }
        }
    };
    check_stanzas(&parsed.stanzas)?;
    parsed.header.check()?;
    Ok(parsed)
}

/// The parts of a document whose checksum is right.
fn whole<H: Serialize + for<'de> Deserialize<'de>>(
    content: &[u8],
) -> Result<(H, Vec<Stanza>, Base64), FormatError> {
    let document: Document<H> = file::body(content)?;
    let Document { version, header, stanzas, seal, checksum: found, .. } = document;
    if found != checksum(&(FORMAT, version, &header, &stanzas, &seal)) {
        return Err(FormatError::damaged("its checksum does not match its contents"));
    }
    Ok((header, stanzas, seal))
}

pub(super) fn check_stanzas(stanzas: &[Stanza]) -> Result<(), FormatError> {
    if stanzas.len() > STANZAS_MAX {
        let found = stanzas.len();
        let what = format!("it has {found} stanzas, more than {STANZAS_MAX}");
        return Err(FormatError::damaged(what));
    }
    Ok(())
}

pub(super) fn to_text(
    header: &Header,
    sealed: &Sealed,
    stanzas: &[Stanza],
    seal: &Base64,
) -> String {
    match sealed {
        Sealed::V1(header) => spelled(V1, header, stanzas, seal),
        Sealed::V2 => spelled(V2, header, stanzas, seal),
    }
}

fn spelled<H: Serialize>(version: u64, header: &H, stanzas: &[Stanza], seal: &Base64) -> String {
    let checksum = checksum(&(FORMAT, version, header, stanzas, seal));
    let (stanzas, seal) = (stanzas.to_vec(), seal.clone());
    let document = Document { format: FORMAT.to_owned(), version, header, stanzas, seal, checksum };
    // Nothing in a document can fail to be spelled.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

impl Sealed {
    /// What the seal is made over.
    pub(super) fn canonical(&self, header: &Header) -> Vec<u8> {
        match self {
            Self::V1(header) => canonical(header),
            Self::V2 => canonical(header),
        }
    }
}

/// The one master of version 1 is the primary, and its backup was opened before the file was made.
impl From<&HeaderV1> for Header {
    fn from(old: &HeaderV1) -> Self {
        let distributed = |entry: &GenerationV1| entry.state == State::Distributed;
        let was_active = |state| match state {
            State::Active | State::Draining | State::Retired | State::Destroyed => true,
            State::Prepared | State::Distributed => false,
        };
        let entry = |old: &GenerationV1| GenerationEntry {
            generation: old.generation,
            state: old.state,
            created: old.created,
            fingerprint: old.fingerprint,
            activated: was_active(old.state).then_some(old.created),
            backed_up: Some(old.created),
            wrapped: old.wrapped.clone(),
        };
        Self {
            keystore: old.keystore,
            member: old.keystore,
            epoch: 1,
            primary: old.keystore,
            change: old.change,
            created: old.created,
            tool: old.tool.clone(),
            revocations: Revocations::default(),
            left_behind: BTreeSet::new(),
            reseal_rows_per_second: 0,
            distributed_in: old.generations.iter().any(distributed).then_some(old.change),
            generations: old.generations.iter().map(entry).collect(),
        }
    }
}

impl Header {
    /// Whether what the header says can be at all.
    pub(super) fn check(&self) -> Result<(), FormatError> {
        let damaged = |what: &str| Err(FormatError::damaged(what));
        if self.epoch == 0 || self.change == 0 {
            return damaged("epochs and changes are counted from 1");
        }
        let active = self.active()?;
        let mut earlier = None;
        for entry in &self.generations {
            if earlier.is_some_and(|earlier| earlier >= entry.generation) {
                return damaged("its generations are not in ascending order");
            }
            earlier = Some(entry.generation);
            self.check_entry(entry, active)?;
        }
        let coming = self.generations.iter().filter(|entry| entry.state.is_coming());
        if coming.count() > 1 {
            return damaged("more than one generation is on its way to become active");
        }
        let distributed = self.generations.iter().any(|entry| entry.state == State::Distributed);
        if self.distributed_in.is_some() != distributed {
            return damaged("a generation is distributed exactly when the header says since when");
        }
        if self.distributed_in.is_some_and(|change| change == 0 || change > self.change) {
            return damaged("a generation was distributed in a change that never was");
        }
        if !distributed && !self.left_behind.is_empty() {
            return damaged("names are left behind, but no generation is distributed");
        }
        let left_behind = || self.left_behind.iter().map(String::as_str);
        let names = || self.revocations.iter().map(|(name, _)| name).chain(left_behind());
        if names().count() > NAMES_MAX || names().any(|name| !is_name(name)) {
            return damaged("names of servers are too many, too long or empty");
        }
        Ok(())
    }

    /// Whether state, dates and key of one generation fit.
    fn check_entry(&self, entry: &GenerationEntry, active: Generation) -> Result<(), FormatError> {
        let generation = entry.generation;
        let damaged = |what: String| Err(FormatError::damaged(what));
        if entry.wrapped.is_none() != (entry.state == State::Destroyed) {
            return damaged(format!("state and key of generation {generation} do not fit"));
        }
        let (activated, backed_up) = (entry.activated.is_some(), entry.backed_up.is_some());
        let fits = match entry.state {
            State::Prepared => !activated && generation > active,
            State::Distributed => !activated && backed_up && generation > active,
            State::Active | State::Draining => activated,
            // One that was restored may never have been active here.
            State::Retired => activated || backed_up,
            State::Destroyed => backed_up,
        };
        if !fits {
            let state = entry.state;
            return damaged(format!("generation {generation} cannot be {state} with these dates"));
        }
        Ok(())
    }

    pub(super) fn active(&self) -> Result<Generation, FormatError> {
        let mut active = self.generations.iter().filter(|entry| entry.state == State::Active);
        match (active.next(), active.next()) {
            (Some(entry), None) => Ok(entry.generation),
            _ => Err(FormatError::damaged("not exactly one generation is active")),
        }
    }

    /// The header without any key, as another master gets it.
    pub(super) fn without_keys(&self) -> Self {
        let mut bare = self.clone();
        bare.generations.iter_mut().for_each(|entry| entry.wrapped = None);
        bare
    }

    /// The keys of all generations that are not destroyed.
    pub(super) fn keys(&self, wrapping: &WrappingKey) -> Result<KeyRing, KeystoreError> {
        let kept = self.generations.iter().filter(|entry| entry.wrapped.is_some());
        let keys = kept
            .map(|entry| Ok((entry.generation, self.key(wrapping, entry)?)))
            .collect::<Result<Vec<_>, KeystoreError>>()?;
        Ok(KeyRing::new(keys, self.active()?)?)
    }

    pub(super) fn key(
        &self,
        wrapping: &WrappingKey,
        entry: &GenerationEntry,
    ) -> Result<LockedKey, KeystoreError> {
        let GenerationEntry { generation, fingerprint, wrapped, .. } = entry;
        let damaged = || FormatError::damaged(format!("the key of generation {generation}"));
        let wrapped = wrapped.as_ref().ok_or_else(damaged)?;
        let unwrapped: Result<_, UnwrapError> =
            bound(self.keystore, *generation, *fingerprint, |context| {
                wrapping.unwrap(context, &wrapped.0)
            });
        // Expose: from the wrapping into locked memory.
        let key = LockedKey::from_bytes(unwrapped.map_err(|_| damaged())?.expose())?;
        if Fingerprint::of(&key) != *fingerprint {
            return Err(damaged().into());
        }
        Ok(key)
    }

    /// `key`, as the header keeps that of `generation`.
    pub(super) fn wrap(
        keystore: Uuid,
        generation: Generation,
        key: &LockedKey,
        wrapping: &WrappingKey,
    ) -> Result<Base64, SealError> {
        // Expose: into the wrapping, for the file.
        bound(keystore, generation, Fingerprint::of(key), |context| {
            wrapping.wrap(context, key.expose())
        })
        .map(Base64)
    }
}

/// Whether this can be the name of a server or a master.
pub(super) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX
}

/// Calls `use_it` with what a wrapped generation is bound to.
fn bound<R>(
    id: Uuid,
    generation: Generation,
    fingerprint: Fingerprint,
    use_it: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    let number = generation.number().to_be_bytes();
    use_it(&[b"generation", id.as_bytes(), &number, fingerprint.as_bytes()])
}
