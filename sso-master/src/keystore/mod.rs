//! The keystore: one master's copy of the master secret on disk, every generation wrapped.
//!
//! It is a JSON file of mode 0600. A random *keystore key* wraps each generation and seals the
//! header, so that nobody without it can change a state, a number or a date. The keystore key itself
//! is not in the file: each *stanza* says how one [protector](sso_protector) gives it back.
//!
//! This room is pure: it parses, spells, opens and changes. [`crate::custody`] keeps the file.

mod draft;
mod error;
mod format;
mod state;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing, KeyRingError},
    memory::LockedKey,
    revocations::Revocations,
    wrapping::WrappingKey,
};
use sso_protector::{
    Stanza,
    encoding::{self, Base64, canonical},
};
use sso_proto::Refusal;
use time::OffsetDateTime;
use uuid::Uuid;

use self::format::{Header, Parsed, Sealed};
pub use self::{
    draft::{Adopted, Draft, Edited},
    error::KeystoreError,
    state::State,
};
use crate::{
    TOOL,
    file::{self, FormatError},
};

/// What the keystore says about one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationEntry {
    /// Its number.
    #[serde(with = "encoding::generation")]
    pub generation: Generation,
    /// Where it is in its life.
    pub state: State,
    /// When it was generated; of a restored one, when it came here.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When it became active; of one that came with a whole backup, when the backup was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub activated: Option<OffsetDateTime>,
    /// When a backup that has it was last opened.
    #[serde(with = "time::serde::rfc3339::option")]
    pub backed_up: Option<OffsetDateTime>,
    /// The fingerprint of its key.
    #[serde(with = "encoding::fingerprint")]
    pub fingerprint: Fingerprint,
    /// The wrapped key; absent exactly when the key was destroyed.
    wrapped: Option<Base64>,
}

/// What a backup says of the keystore that is made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromBackup {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// The id of the copy that is made.
    pub member: Uuid,
    /// The epoch that begins, above that of the backup.
    pub epoch: u64,
    /// When the backup was made: no generation in it is younger.
    pub created: OffsetDateTime,
    /// Which servers may not have the master secret, as the keystore says that it replaces.
    pub revocations: Revocations,
}

/// A keystore as it is in its file: its keys are still wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    header: Header,
    sealed: Sealed,
    stanzas: Vec<Stanza>,
    seal: Base64,
}

impl Keystore {
    /// A new keystore with the id `id`, whose first generation `first` is active and in no backup.
    /// It is the copy of `member`, which is the primary of epoch 1.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn create(
        id: Uuid,
        member: Uuid,
        first: &LockedKey,
        keystore_key: &LockedKey,
        stanzas: Vec<Stanza>,
        now: OffsetDateTime,
    ) -> Result<Self, KeystoreError> {
        let now = whole_seconds(now);
        let wrapping = WrappingKey::new(keystore_key);
        let entry = GenerationEntry {
            generation: Generation::FIRST,
            state: State::Active,
            created: now,
            activated: Some(now),
            backed_up: None,
            fingerprint: Fingerprint::of(first),
            wrapped: Some(Header::wrap(id, Generation::FIRST, first, &wrapping)?),
        };
        Self::seal(Header::new(id, member, 1, now, vec![entry]), stanzas, &wrapping)
    }

    /// A whole keystore with the generations `ring` of an opened backup: its active one is active, the
    /// others are draining, because something may be sealed under any of them.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn from_backup(
        origin: FromBackup,
        ring: &KeyRing,
        keystore_key: &LockedKey,
        stanzas: Vec<Stanza>,
        now: OffsetDateTime,
    ) -> Result<Self, KeystoreError> {
        let (created, now) = (whole_seconds(origin.created), whole_seconds(now));
        let wrapping = WrappingKey::new(keystore_key);
        let mut entries = Vec::new();
        for (generation, fingerprint) in ring.generations() {
            let key = ring.key(generation).ok_or(KeyRingError::ActiveMissing(generation))?;
            let active = generation == ring.active();
            entries.push(GenerationEntry {
                generation,
                state: if active { State::Active } else { State::Draining },
                created,
                activated: Some(created),
                backed_up: Some(now),
                fingerprint,
                wrapped: Some(Header::wrap(origin.keystore, generation, key, &wrapping)?),
            });
        }
        let mut header = Header::new(origin.keystore, origin.member, origin.epoch, now, entries);
        header.revocations = origin.revocations;
        Self::seal(header, stanzas, &wrapping)
    }

    /// The copy that the new standby `member` makes of what another master sent: the header of its
    /// keystore (JSON), and every key.
    ///
    /// # Errors
    /// When header and keys do not fit, or the operating system has no random bytes.
    pub fn from_transfer(
        header_json: &str,
        keys: Vec<(Generation, LockedKey)>,
        member: Uuid,
        keystore_key: &LockedKey,
        stanzas: Vec<Stanza>,
    ) -> Result<Self, Refusal> {
        let wrapping = WrappingKey::new(keystore_key);
        let header = draft::taken_over(header_json, keys, member, &wrapping)?;
        Self::seal(header, stanzas, &wrapping).map_err(draft::internal)
    }

    /// The keystore in the file `path`.
    ///
    /// # Errors
    /// When other users may read the file, or it is no whole keystore of a known version.
    pub fn read(path: &Path) -> Result<Self, KeystoreError> {
        Self::parse(&file::read(path, true)?)
            .map_err(|source| KeystoreError::Damaged { path: path.to_owned(), source })
    }

    /// Makes the file `path` with mode 0600, whole or not at all, never over another.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), KeystoreError> {
        Ok(file::create(path, &self.to_text())?)
    }

    /// The keystore that `content` spells.
    ///
    /// # Errors
    /// When it is something else, of an unknown version, or damaged.
    pub fn parse(content: &[u8]) -> Result<Self, FormatError> {
        let Parsed { header, sealed, stanzas, seal } = format::parse(content)?;
        Ok(Self { header, sealed, stanzas, seal })
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format::to_text(&self.header, &self.sealed, &self.stanzas, &self.seal)
    }

    /// The id: names the system whose keys these are.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.header.keystore
    }

    /// Counts the changes of the keystore, from 1.
    #[must_use]
    pub fn change(&self) -> u64 {
        self.header.change
    }

    /// Names this copy among those of the other masters.
    #[must_use]
    pub fn member(&self) -> Uuid {
        self.header.member
    }

    /// Rises with each promotion, from 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.header.epoch
    }

    /// The member that is the primary of the epoch.
    #[must_use]
    pub fn primary(&self) -> Uuid {
        self.header.primary
    }

    /// Whether this copy is the primary's.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.header.primary == self.header.member
    }

    /// What is known of each generation.
    #[must_use]
    pub fn generations(&self) -> &[GenerationEntry] {
        &self.header.generations
    }

    /// Which servers may not have the master secret any more.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.header.revocations
    }

    /// Names of the servers and masters that the rotation which goes on does not wait for.
    #[must_use]
    pub fn left_behind(&self) -> &BTreeSet<String> {
        &self.header.left_behind
    }

    /// Rows a second that sealing again may take from the database; 0 is as many as it gives.
    #[must_use]
    pub fn reseal_rows_per_second(&self) -> u32 {
        self.header.reseal_rows_per_second
    }

    /// The change with which the generation that is distributed was handed out.
    #[must_use]
    pub fn distributed_in(&self) -> Option<u64> {
        self.header.distributed_in
    }

    /// How protectors give the keystore key back.
    #[must_use]
    pub fn stanzas(&self) -> &[Stanza] {
        &self.stanzas
    }

    /// The same keystore with other stanzas; header and seal stay, so nobody need unlock it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn with_stanzas(&self, stanzas: Vec<Stanza>) -> Result<Self, FormatError> {
        format::check_stanzas(&stanzas)?;
        Ok(Self { stanzas, ..self.clone() })
    }

    /// The same keystore, with a backup of its active generation on record; for the one that makes
    /// keystore and backup together, before there is a file.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn with_backup(
        &self,
        keystore_key: &LockedKey,
        now: OffsetDateTime,
    ) -> Result<Self, KeystoreError> {
        let mut header = self.header.clone();
        for entry in &mut header.generations {
            entry.backed_up = Some(whole_seconds(now));
        }
        Self::seal(header, self.stanzas.clone(), &WrappingKey::new(keystore_key))
    }

    /// The keys of all generations that were not destroyed.
    ///
    /// # Errors
    /// When `keystore_key` is that of another keystore, or the header or a key was changed.
    pub fn open(&self, keystore_key: &LockedKey) -> Result<KeyRing, KeystoreError> {
        let wrapping = WrappingKey::new(keystore_key);
        let spelled = self.sealed.canonical(&self.header);
        let sealed = wrapping.unwrap(&[b"header", &spelled], &self.seal.0);
        if sealed.is_err() {
            // A header that was changed, or another key: the wrapped generations tell which.
            let mut entries = self.header.generations.iter();
            return Err(if entries.any(|entry| self.header.key(&wrapping, entry).is_ok()) {
                FormatError::damaged("its header was changed").into()
            } else {
                KeystoreError::Foreign { keystore: self.id() }
            });
        }
        self.header.keys(&wrapping)
    }

    /// Makes one change of the keystore, all of it or nothing. This keystore stays what it is.
    ///
    /// # Errors
    /// What `edit` refuses; or the keystore does not open, or there are no random bytes.
    pub fn edit<T>(
        &self,
        keystore_key: &LockedKey,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<Edited<T>, Refusal> {
        let wrapping = WrappingKey::new(keystore_key);
        let mut draft = Draft::begin(&self.header, &wrapping);
        let value = edit(&mut draft)?;
        let Some((header, keep_aside)) = draft.finish()? else {
            return Ok(Edited { value, keystore: None, keep_aside: false });
        };
        let keystore =
            Self::seal(header, self.stanzas.clone(), &wrapping).map_err(draft::internal)?;
        Ok(Edited { value, keystore: Some(keystore), keep_aside })
    }

    /// The header as another master gets it (JSON), without any key.
    pub(crate) fn header_for_transfer(&self) -> String {
        String::from_utf8(canonical(&self.header.without_keys())).unwrap_or_default()
    }

    /// Whether the file at hand has another header than this one: somebody else wrote it.
    pub(crate) fn has_other_header(&self, other: &Self) -> bool {
        self.header != other.header || self.sealed != other.sealed
    }

    fn seal(
        header: Header,
        stanzas: Vec<Stanza>,
        wrapping: &WrappingKey,
    ) -> Result<Self, KeystoreError> {
        header.check()?;
        let seal = Base64(wrapping.wrap(&[b"header", &canonical(&header)], b"")?);
        Ok(Self { header, sealed: Sealed::V2, stanzas, seal })
    }
}

impl Header {
    /// Of a primary at its first change.
    fn new(
        keystore: Uuid,
        member: Uuid,
        epoch: u64,
        created: OffsetDateTime,
        generations: Vec<GenerationEntry>,
    ) -> Self {
        Self {
            keystore,
            member,
            epoch,
            primary: member,
            change: 1,
            created,
            tool: TOOL.to_owned(),
            revocations: Revocations::default(),
            left_behind: BTreeSet::new(),
            reseal_rows_per_second: 0,
            distributed_in: None,
            generations,
        }
    }
}

impl GenerationEntry {
    /// The same without its key, as it is shown.
    pub(crate) fn bare(&self) -> Self {
        Self { wrapped: None, ..self.clone() }
    }
}

/// Dates in files are for people; fractions of a second only make them longer.
pub(crate) fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}
