//! Officers of backups: the two lines of text that their key pairs are kept in, and what they do
//! with the private one.
//!
//! Each line ends in a checksum, so that a line that was typed or cut wrongly is not taken for a key
//! that nobody has.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    memory::{KEY_BYTES, KeyError, LockedKey},
    secret::SecretText,
    transit::{StaticKeyPair, TransitError, officer_context},
};

const PRIVATE: &str = "sso-officer-key-1:";
const PUBLIC: &str = "sso-officer-public-1:";
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// Why an officer's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OfficerError {
    /// The text is something else.
    #[error("this is no {0} of an officer: it begins with `{1}`")]
    Other(&'static str, &'static str),
    /// The text was cut or changed.
    #[error("the {0} of the officer is damaged: use another copy of it")]
    Damaged(&'static str),
    /// The key cannot be held in memory.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The envelope is for another officer or another backup, or was changed.
    #[error("the envelope does not open with this key: {0}")]
    Envelope(#[from] TransitError),
}

/// The line of text that `private` is kept in.
#[must_use]
pub fn private_text(private: &LockedKey) -> SecretText {
    // Expose: into text that wipes itself, for a private file.
    spell(PRIVATE, private.expose())
}

/// The private key that such a line spells.
///
/// # Errors
/// When it is something else, or damaged.
pub fn parse_private(text: &SecretText) -> Result<LockedKey, OfficerError> {
    // Expose: its digits go into locked memory.
    let key = parse(PRIVATE, "private key", text.expose())?;
    Ok(LockedKey::from_bytes(key.as_slice())?)
}

/// The line of text that a public key is given away in.
#[must_use]
pub fn public_text(public: &[u8; KEY_BYTES]) -> String {
    // Expose: a public key is no secret.
    spell(PUBLIC, public).expose().to_owned()
}

/// The public key that such a line spells.
///
/// # Errors
/// When it is something else, or damaged.
pub fn parse_public(text: &str) -> Result<[u8; KEY_BYTES], OfficerError> {
    Ok(*parse(PUBLIC, "public key", text)?)
}

/// The public half of `private`.
///
/// # Errors
/// When the library does not take the key.
pub fn public_key(private: &LockedKey) -> Result<[u8; KEY_BYTES], OfficerError> {
    Ok(*StaticKeyPair::from_private(private)?.public_key())
}

/// The backup key in the envelope that the backup with the id `backup` has for this officer.
///
/// # Errors
/// When the envelope is for another officer or another backup, or was changed.
pub fn open_envelope(
    private: &LockedKey,
    backup: &[u8; 16],
    envelope: &[u8],
) -> Result<LockedKey, OfficerError> {
    let pair = StaticKeyPair::from_private(private)?;
    let key = pair.open(envelope, &officer_context(backup))?;
    // Expose: from the envelope into locked memory.
    Ok(LockedKey::from_bytes(key.expose())?)
}

fn spell(kind: &str, key: &[u8; KEY_BYTES]) -> SecretText {
    let length = kind.len() + 2 * (KEY_BYTES + CHECKSUM);
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.push_str(kind);
    for byte in key.iter().chain(&checksum(kind, key)) {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(half.into(), 16));
        }
    }
    SecretText::new(std::mem::take(&mut *text))
}

fn parse(
    kind: &'static str,
    called: &'static str,
    text: &str,
) -> Result<Zeroizing<[u8; KEY_BYTES]>, OfficerError> {
    let other = || OfficerError::Other(called, kind);
    let damaged = || OfficerError::Damaged(called);
    let digits = text.trim().strip_prefix(kind).ok_or_else(other)?.as_bytes();
    let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECKSUM]);
    if digits.len() != 2 * bytes.len() {
        return Err(damaged());
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        for digit in pair {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(damaged()),
            };
            *byte = *byte << 4 | digit;
        }
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let (first, sum) = bytes.split_first_chunk::<KEY_BYTES>().ok_or_else(damaged)?;
    key.copy_from_slice(first);
    if sum == checksum(kind, &key) { Ok(key) } else { Err(damaged()) }
}

fn checksum(kind: &str, key: &[u8; KEY_BYTES]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(kind).chain_update(key).finalize();
    let mut sum = [0; CHECKSUM];
    for (to, from) in sum.iter_mut().zip(digest) {
        *to = from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transit::seal_to;

    fn key() -> LockedKey {
        LockedKey::from_bytes(&[7; 32]).unwrap()
    }

    #[test]
    fn both_halves_are_kept_as_text() {
        let text = private_text(&key());
        assert_eq!(parse_private(&text).unwrap(), key());
        let public = public_key(&key()).unwrap();
        assert_eq!(parse_public(&format!("{}\n", public_text(&public))).unwrap(), public);
        let error = parse_public(text.expose()).unwrap_err();
        assert!(matches!(error, OfficerError::Other("public key", _)), "{error}");
        assert!(!format!("{text:?}").contains("0707"));
    }

    /// Officers keep their keys for years.
    #[test]
    fn a_key_that_was_kept_long_ago_is_read() {
        let text = "sso-officer-key-1:\
                    07070707070707070707070707070707070707070707070707070707070707075bbdcddf";
        assert_eq!(private_text(&key()).expose(), text);
        assert_eq!(parse_private(&SecretText::new(text.into())).unwrap(), key());
    }

    #[test]
    fn damage_is_not_taken_for_a_key() {
        let whole = public_text(&public_key(&key()).unwrap());
        for at in 0..whole.len() {
            assert!(parse_public(&whole[..at]).is_err(), "cut at {at}");
            let mut changed = whole.clone().into_bytes();
            changed[at] ^= 1;
            assert!(parse_public(&String::from_utf8(changed).unwrap()).is_err(), "{at}");
        }
    }

    #[test]
    fn the_envelope_opens_for_its_officer_and_backup_alone() {
        let public = public_key(&key()).unwrap();
        let sealed = seal_to(&public, &officer_context(&[1; 16]), &[9; 32]).unwrap();
        assert_eq!(open_envelope(&key(), &[1; 16], &sealed).unwrap().expose(), &[9; 32]);
        assert!(open_envelope(&key(), &[2; 16], &sealed).is_err());
        assert!(open_envelope(&LockedKey::generate().unwrap(), &[1; 16], &sealed).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(sso-officer-public-1:)?.{0,80}") {
            prop_assert!(parse_public(&text).is_err());
        }
    }
}
