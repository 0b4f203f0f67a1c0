//! Seals and opens what the nouns keep secret, each value bound to its own place.

use std::sync::Arc;

use sso_core::seal::{OpenError, Place};
use sso_proto::Reason;

use crate::{
    error::Error,
    master::MasterSecret,
    model::{ApplicationId, Bag, ConfigurationId, Identifier, Revision},
};

/// Table and column of the bag of a configuration.
const TABLE: &str = "configuration_revisions";
const COLUMN: &str = "sealed";

/// A bag as it is stored.
#[derive(Clone, Debug)]
pub struct SealedBag {
    /// Names the generation it was sealed under.
    pub generation: u32,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// Where the bag of one revision belongs.
#[derive(Clone, Copy, Debug)]
pub struct BagPlace<'a> {
    /// The application.
    pub application: ApplicationId,
    /// The configuration.
    pub configuration: ConfigurationId,
    /// Its identifier.
    pub identifier: &'a Identifier,
    /// The revision.
    pub revision: Revision,
}

/// Seals and opens with the keys that the master secret server handed out.
#[derive(Clone, Debug)]
pub struct Vault {
    master: Arc<MasterSecret>,
}

impl Vault {
    /// A vault over these keys.
    #[must_use]
    pub fn new(master: Arc<MasterSecret>) -> Self {
        Self { master }
    }

    /// Refuses at once where nothing new may be sealed, so that a write changes nothing.
    ///
    /// # Errors
    /// `MASTER_UNREACHABLE` and its kin.
    pub fn require_sealing(&self) -> Result<(), Error> {
        self.master.keys_for_write()?;
        Ok(())
    }

    /// Refuses at once where nothing can be opened.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin.
    pub fn require_opening(&self) -> Result<(), Error> {
        self.master.keys_for_read()?;
        Ok(())
    }

    /// Seals a bag to its place under the active generation.
    ///
    /// # Errors
    /// `MASTER_UNREACHABLE` and its kin while the write lease is over.
    pub fn seal(&self, place: BagPlace<'_>, bag: &Bag) -> Result<SealedBag, Error> {
        let keys = self.master.keys_for_write()?;
        let row = place.configuration.row(place.revision, place.identifier);
        let bytes = keys
            .seal(&place.of(&row), bag.encode().expose())
            .map_err(|error| Error::new(Reason::Internal, format!("sealing failed: {error}")))?;
        Ok(SealedBag { generation: keys.active().number(), bytes })
    }

    /// Opens the bag of one place.
    ///
    /// # Errors
    /// `SEALED_VALUE_DAMAGED` for bytes that were changed, truncated or moved here;
    /// `GENERATION_MISSING` naming the generation; `MASTER_SECRET_EXPIRED` and its kin.
    pub fn open(&self, place: BagPlace<'_>, sealed: &[u8]) -> Result<Bag, Error> {
        let keys = self.master.keys_for_read()?;
        let row = place.configuration.row(place.revision, place.identifier);
        let opened = keys.open(&place.of(&row), sealed).map_err(|error| place.damaged(&error))?;
        Bag::decode(&opened).ok_or_else(|| {
            Error::new(Reason::SealedValueDamaged, format!("{place} opens to no bag of values"))
        })
    }
}

impl BagPlace<'_> {
    fn of<'r>(&'r self, row: &'r [u8]) -> Place<'r> {
        Place { table: TABLE, column: COLUMN, row, application: self.application.as_bytes() }
    }

    fn damaged(&self, error: &OpenError) -> Error {
        let reason = match error {
            OpenError::UnknownGeneration { .. } => Reason::GenerationMissing,
            OpenError::Malformed(_) | OpenError::NotAuthentic { .. } => Reason::SealedValueDamaged,
        };
        tracing::error!(%error, place = %self, "a stored value does not open");
        Error::new(
            reason,
            format!(
                "{self} does not open: {error}; restore this row from a backup of the database or roll back"
            ),
        )
    }
}

impl std::fmt::Display for BagPlace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "configuration {} revision {}", self.configuration, self.revision)
    }
}
