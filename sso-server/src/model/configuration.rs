//! Configurations: one bag of values per identifier, kept by field ordinal (ESSO.md 8).

use std::{collections::BTreeMap, fmt};

use sso_core::secret::{SecretBytes, SecretText};
use sso_proto::Reason;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Identifier;
use crate::error::Error;

/// The largest value, in bytes of UTF-8 (ESSO.md 3.5).
pub const MAX_VALUE_BYTES: usize = 65_536;
/// How many revisions of a configuration are kept.
pub const HISTORY_LENGTH: u64 = 10;

/// Names one configuration for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigurationId(pub Uuid);

impl ConfigurationId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The row that the bag of `revision` is sealed to: 16 bytes of id, 8 of the number, then the
    /// canonical identifier, so that configurations cannot trade their names.
    #[must_use]
    pub fn row(&self, revision: Revision, identifier: &Identifier) -> Vec<u8> {
        [&self.0.as_bytes()[..], &revision.0.to_be_bytes(), identifier.key().as_bytes()].concat()
    }
}

impl fmt::Display for ConfigurationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a change to one configuration: 1, 2, … and on through deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A configuration without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationHead {
    /// Names it for ever.
    pub id: ConfigurationId,
    /// Its identifier, as first written.
    pub identifier: Identifier,
    /// Its newest revision.
    pub revision: Revision,
    /// The newest revision is its deletion: no values are stored.
    pub deleted: bool,
    /// When the newest revision was written.
    pub updated_at: OffsetDateTime,
    /// Who wrote it.
    pub updated_by: String,
}

/// One revision of a configuration, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionEntry {
    /// Its number.
    pub revision: Revision,
    /// When it was written.
    pub written_at: OffsetDateTime,
    /// Who wrote it.
    pub written_by: String,
    /// Labels whose value differs from the revision before.
    pub changed: Vec<String>,
    /// Written by a rollback: the revision whose values it took.
    pub rolled_back_to: Option<Revision>,
}

/// The values of one configuration by field ordinal; a field without an entry has no value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bag(BTreeMap<u16, SecretText>);

impl Bag {
    /// The value of a field.
    #[must_use]
    pub fn value(&self, ordinal: u16) -> Option<&SecretText> {
        self.0.get(&ordinal)
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// `VALUE_TOO_LARGE` over [`MAX_VALUE_BYTES`]; the message names the size, never the value.
    pub fn put(&mut self, ordinal: u16, label: &str, value: SecretText) -> Result<(), Error> {
        let bytes = value.expose().len();
        if bytes > MAX_VALUE_BYTES {
            return Err(Error::new(
                Reason::ValueTooLarge,
                format!(
                    "the value of \"{label}\" has {bytes} bytes; at most {MAX_VALUE_BYTES} are kept"
                ),
            ));
        }
        self.0.insert(ordinal, value);
        Ok(())
    }

    /// Takes a value out; whether there was one.
    pub fn clear(&mut self, ordinal: u16) -> bool {
        self.0.remove(&ordinal).is_some()
    }

    /// Takes the value of a field out, to hand it on.
    pub fn take(&mut self, ordinal: u16) -> Option<SecretText> {
        self.0.remove(&ordinal)
    }

    /// The ordinals that have a value.
    pub fn ordinals(&self) -> impl Iterator<Item = u16> {
        self.0.keys().copied()
    }

    /// The ordinals whose value differs between the two bags.
    pub fn differing(&self, other: &Self) -> Vec<u16> {
        let mut ordinals: Vec<u16> = self.ordinals().chain(other.ordinals()).collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals.retain(|&ordinal| self.value(ordinal) != other.value(ordinal));
        ordinals
    }

    /// The bytes that are sealed: per value its ordinal (u16), its length (u32), its bytes; numbers
    /// big-endian, in ascending order of ordinals.
    #[must_use]
    pub fn encode(&self) -> SecretBytes {
        let size = self.0.values().map(|value| 6 + value.expose().len()).sum();
        let mut bytes = Vec::with_capacity(size);
        for (ordinal, value) in &self.0 {
            let value = value.expose().as_bytes();
            bytes.extend_from_slice(&ordinal.to_be_bytes());
            // `put` keeps values far below 4 GiB.
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(value);
        }
        SecretBytes::new(bytes)
    }

    /// The bag that `bytes` encode; `None` where they encode none.
    #[must_use]
    pub fn decode(bytes: &SecretBytes) -> Option<Self> {
        let mut rest = bytes.expose();
        let mut values = BTreeMap::new();
        let mut last = None;
        while !rest.is_empty() {
            let (ordinal, after) = rest.split_first_chunk::<2>()?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, after) = after.split_at_checked(length)?;
            let ordinal = u16::from_be_bytes(*ordinal);
            if last.is_some_and(|last| last >= ordinal) || length > MAX_VALUE_BYTES {
                return None;
            }
            let value = std::str::from_utf8(value).ok()?;
            values.insert(ordinal, SecretText::new(value.to_owned()));
            last = Some(ordinal);
            rest = after;
        }
        Some(Self(values))
    }
}

impl fmt::Debug for Bag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bags_survive_encoding(values in prop::collection::btree_map(0_u16..300, ".{0,40}", 0..8)) {
            let mut bag = Bag::default();
            for (ordinal, value) in values {
                bag.put(ordinal, "label", SecretText::new(value)).unwrap();
            }
            prop_assert_eq!(Bag::decode(&bag.encode()), Some(bag));
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Bag::decode(&SecretBytes::new(bytes));
        }
    }

    #[test]
    fn a_value_over_the_limit_is_refused_without_showing_it() {
        let mut bag = Bag::default();
        assert!(bag.put(1, "Blob", SecretText::new("x".repeat(MAX_VALUE_BYTES))).is_ok());
        let error =
            bag.put(1, "Blob", SecretText::new("x".repeat(MAX_VALUE_BYTES + 1))).unwrap_err();
        assert_eq!(error.reason, Reason::ValueTooLarge);
        assert!(error.message.contains("65537") && !error.message.contains("xxx"));
    }

    #[test]
    fn debug_shows_ordinals_only() {
        let mut bag = Bag::default();
        bag.put(3, "Key", SecretText::new("canary".into())).unwrap();
        assert_eq!(format!("{bag:?}"), "{3}");
    }
}
