//! Keys from passphrases: Argon2id (RFC 9106), with work that is never too little and never more
//! than a file from a stranger may ask for.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::{
    memory::{KeyError, LockedKey},
    secret::{SecretBytes, SecretText},
};

/// Bytes of the salt, random for every stretch.
pub const SALT_BYTES: usize = 16;

/// How much work a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Argon2Params {
    /// For the passphrase that unlocks a keystore at start: 64 MiB.
    pub const UNLOCK: Self = Self { memory_kib: 64 * 1024, iterations: 3, parallelism: 1 };
    /// For a backup file, which an attacker may take home: 256 MiB.
    pub const BACKUP: Self = Self { memory_kib: 256 * 1024, iterations: 4, parallelism: 1 };
    /// The least that is accepted.
    pub const FLOOR: Self = Self { memory_kib: 19_456, iterations: 2, parallelism: 1 };
    /// The most that is accepted, so that a forged file cannot exhaust the machine.
    pub const CAP: Self = Self { memory_kib: 1024 * 1024, iterations: 16, parallelism: 4 };

    /// Accepts what lies between floor and cap.
    ///
    /// # Errors
    /// Names the first value that does not.
    pub fn check(&self) -> Result<(), WorkError> {
        let (floor, cap) = (Self::FLOOR, Self::CAP);
        let values = [
            ("memory_kib", self.memory_kib, floor.memory_kib, cap.memory_kib),
            ("iterations", self.iterations, floor.iterations, cap.iterations),
            ("parallelism", self.parallelism, floor.parallelism, cap.parallelism),
        ];
        for (name, value, floor, cap) in values {
            if !(floor..=cap).contains(&value) {
                return Err(WorkError { name, value, floor, cap });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Argon2Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, iterations, parallelism } = self;
        write!(f, "Argon2id {memory_kib} KiB, {iterations} passes, {parallelism} lanes")
    }
}

/// A work parameter outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value} is outside {floor} to {cap}")]
pub struct WorkError {
    /// Which parameter.
    pub name: &'static str,
    /// What it says.
    pub value: u32,
    /// The least accepted.
    pub floor: u32,
    /// The most accepted.
    pub cap: u32,
}

/// Why a passphrase gives no key.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The parameters are outside their range.
    #[error("refused Argon2id parameters: {0}")]
    Work(#[from] WorkError),
    /// The computation failed.
    #[error("Argon2id failed: {0}")]
    Argon2(String),
    /// No memory for the key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The key that this passphrase gives with this salt and this much work. Takes a second or so of
/// one core: never call it on a thread that serves requests.
///
/// # Errors
/// When the parameters are outside their range, before any work; when memory is short.
pub fn stretch(
    passphrase: &SecretBytes,
    salt: &[u8; SALT_BYTES],
    params: &Argon2Params,
) -> Result<LockedKey, PassphraseError> {
    params.check()?;
    let Argon2Params { memory_kib, iterations, parallelism } = *params;
    let params = Params::new(memory_kib, iterations, parallelism, Some(32)).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // Expose: the passphrase is hashed into the key.
    run(&argon2, passphrase.expose(), salt)
}

/// The text as it is hashed: Unicode NFC, so that the passphrase typed on another machine, which
/// may compose its letters differently, is the same passphrase.
#[must_use]
pub fn canonical(text: &SecretText) -> SecretBytes {
    // NFC never takes more than three times the bytes; a growing buffer would leave copies behind.
    let mut canonical = Zeroizing::new(String::with_capacity(3 * text.len()));
    // Expose: into a buffer that wipes itself too.
    canonical.extend(text.expose().nfc());
    SecretBytes::new(std::mem::take(&mut *canonical).into_bytes())
}

/// Argon2 with its work memory wiped: the crate's shorter call frees it as it is.
fn run(argon2: &Argon2<'_>, passphrase: &[u8], salt: &[u8]) -> Result<LockedKey, PassphraseError> {
    let mut memory = Zeroizing::new(vec![Block::default(); argon2.params().block_count()]);
    let mut failure = None;
    let key = LockedKey::fill(|key| {
        failure = argon2
            .hash_password_into_with_memory(passphrase, salt, key, memory.as_mut_slice())
            .err();
        Ok(())
    })?;
    match failure {
        None => Ok(key),
        Some(error) => Err(failed(error)),
    }
}

fn failed(error: argon2::Error) -> PassphraseError {
    PassphraseError::Argon2(error.to_string())
}

#[cfg(test)]
mod tests {
    use argon2::{AssociatedData, ParamsBuilder};

    use super::*;

    /// RFC 9106, section 5.3. Its 32 KiB are below the floor, so the test enters below it.
    #[test]
    fn rfc_9106() {
        let params = ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .data(AssociatedData::new(&[4; 12]).unwrap())
            .output_len(32)
            .build()
            .unwrap();
        let secret = [3; 8];
        let argon2 =
            Argon2::new_with_secret(&secret, Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let key = run(&argon2, &[1; 32], &[2; 16]).unwrap();
        let shown: String = key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
    }

    #[test]
    fn the_key_depends_on_everything() {
        let stretch = |passphrase: &str, salt: u8, iterations: u32| {
            let params = Argon2Params { iterations, ..Argon2Params::FLOOR };
            stretch(&passphrase.as_bytes().to_vec().into(), &[salt; 16], &params).unwrap()
        };
        let key = stretch("correct horse", 1, 2);
        assert_eq!(key, stretch("correct horse", 1, 2));
        assert_ne!(key, stretch("correct horsf", 1, 2));
        assert_ne!(key, stretch("correct horse", 2, 2));
        assert_ne!(key, stretch("correct horse", 1, 3));
    }

    #[test]
    fn work_outside_the_range_is_refused_by_name() {
        let floor = Argon2Params::FLOOR;
        let cap = Argon2Params::CAP;
        for good in [floor, cap, Argon2Params::UNLOCK, Argon2Params::BACKUP] {
            assert_eq!(good.check(), Ok(()));
        }
        let bad = [
            ("memory_kib", Argon2Params { memory_kib: floor.memory_kib - 1, ..floor }),
            ("memory_kib", Argon2Params { memory_kib: cap.memory_kib + 1, ..cap }),
            ("memory_kib", Argon2Params { memory_kib: u32::MAX, ..cap }),
            ("iterations", Argon2Params { iterations: 1, ..floor }),
            ("iterations", Argon2Params { iterations: 17, ..cap }),
            ("parallelism", Argon2Params { parallelism: 0, ..floor }),
            ("parallelism", Argon2Params { parallelism: 5, ..cap }),
        ];
        for (name, params) in bad {
            assert_eq!(params.check().unwrap_err().name, name);
            let result = stretch(&vec![1].into(), &[0; 16], &params);
            let error = result.unwrap_err();
            assert!(matches!(error, PassphraseError::Work(_)), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn letters_composed_differently_are_the_same_passphrase() {
        let composed = canonical(&SecretText::new("Zürich".into()));
        assert_eq!(composed, canonical(&SecretText::new("Zu\u{308}rich".into())));
        assert_ne!(composed, canonical(&SecretText::new("Zurich".into())));
    }
}
