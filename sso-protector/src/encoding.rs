//! How files with wrapped keys spell bytes, keys' names and numbers in JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Bytes as Base64 with padding; exactly one spelling is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("this is not Base64"))
    }
}

/// A fingerprint as its 16 digits.
pub mod fingerprint {
    use sso_core::derive::Fingerprint;

    use super::{Deserialize as _, Deserializer, Serializer};

    /// For serde.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        fingerprint: &Fingerprint,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(fingerprint)
    }

    /// For serde.
    ///
    /// # Errors
    /// When the text is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A generation as its number.
pub mod generation {
    use sso_core::key_ring::Generation;

    use super::{Deserialize as _, Deserializer, Serializer};

    /// For serde.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        generation: &Generation,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(generation.number())
    }

    /// For serde.
    ///
    /// # Errors
    /// When the text is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Generation, D::Error> {
        Generation::new(u32::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("generations are counted from 1"))
    }
}

/// The one spelling of `value` that checksums and seals are made over.
#[must_use]
pub fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    // The types spelled here have no maps and no numbers that JSON lacks, so nothing can fail; if it
    // ever did, an empty spelling would match no checksum and no seal.
    serde_json::to_vec(value).unwrap_or_default()
}

/// SHA-256 of the canonical spelling, in hexadecimal: tells damage by accident from a wrong
/// passphrase. It proves nothing against an attacker; the seals do that.
#[must_use]
pub fn checksum<T: Serialize>(value: &T) -> String {
    Sha256::digest(canonical(value)).iter().map(|byte| format!("{byte:02x}")).collect()
}
