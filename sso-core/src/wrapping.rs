//! Wrapping of keys for files and for the wire. A key that wraps never seals data.

use crate::{
    derive::{DerivedKey, append, derive},
    memory::LockedKey,
    seal::{RecordError, SealError, open_record, seal_record},
    secret::SecretBytes,
};

const VERSION: u8 = 1;

/// A key that wraps other keys: derived for this purpose alone from the key of a protector, of a
/// passphrase or of a key agreement.
///
/// What it wraps is `version 1 ‖ salt 24 ‖ ciphertext ‖ tag 16`, with a key for each wrapping as in
/// [`crate::seal`], bound to a context that has to be given again to unwrap.
#[derive(Debug)]
pub struct WrappingKey(DerivedKey);

/// Why wrapped bytes do not unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// The bytes are not of this format.
    #[error("not a wrapped key: {0}")]
    Malformed(&'static str),
    /// Another key wrapped them, or they or their context were changed.
    #[error("wrapped under another key, or changed since")]
    NotAuthentic,
}

impl WrappingKey {
    /// The wrapping key that belongs to `key`.
    #[must_use]
    pub fn new(key: &LockedKey) -> Self {
        Self(derive(key, "wrap", &[]))
    }

    pub(crate) fn from_derived(key: DerivedKey) -> Self {
        Self(key)
    }

    /// `secret`, wrapped and bound to `context`.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn wrap(&self, context: &[&[u8]], secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut wrapped = vec![VERSION];
        seal_record(self.0.expose(), &associated_data(context), secret, &mut wrapped)?;
        Ok(wrapped)
    }

    /// What was wrapped by this key for `context`.
    ///
    /// # Errors
    /// When the bytes are malformed, or key or context are others. Never panics.
    pub fn unwrap(&self, context: &[&[u8]], wrapped: &[u8]) -> Result<SecretBytes, UnwrapError> {
        let (&version, record) =
            wrapped.split_first().ok_or(UnwrapError::Malformed("it is empty"))?;
        if version != VERSION {
            return Err(UnwrapError::Malformed("unknown format version"));
        }
        open_record(self.0.expose(), &associated_data(context), record).map_err(|error| match error
        {
            RecordError::TooShort => UnwrapError::Malformed("too short"),
            RecordError::NotAuthentic => UnwrapError::NotAuthentic,
        })
    }
}

fn associated_data(context: &[&[u8]]) -> Vec<u8> {
    let mut data = vec![VERSION];
    for part in context {
        append(&mut data, part);
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> WrappingKey {
        WrappingKey::new(&LockedKey::from_bytes(&[byte; 32]).unwrap())
    }

    #[test]
    fn unwraps_only_with_its_key_and_context() {
        let wrapped = key(1).wrap(&[b"keystore", b"1"], &[5; 32]).unwrap();
        let unwrapped = key(1).unwrap(&[b"keystore", b"1"], &wrapped).unwrap();
        assert_eq!(unwrapped.expose(), [5; 32]);
        let other = UnwrapError::NotAuthentic;
        assert_eq!(key(2).unwrap(&[b"keystore", b"1"], &wrapped), Err(other));
        for context in
            [&[b"keystore".as_slice(), b"2"][..], &[b"keystore1"], &[b"keystor", b"e1"], &[]]
        {
            assert_eq!(key(1).unwrap(context, &wrapped), Err(other), "{context:?}");
        }
    }

    /// Keystores and backups are kept for years.
    #[test]
    fn a_key_wrapped_long_ago_unwraps() {
        let hex = "014f20daeb6905258080f6e9ad45c4b614606a3d7dca24c3451147c2661a186b817a8dcf82818e18\
                   df47efb55d472ed967541bee277e1e4f9018ba0ddd36532008ec31a9d04ceb03e6";
        let wrapped: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(key(1).unwrap(&[b"keystore", b"1"], &wrapped).unwrap().expose(), [5; 32]);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_fails() {
        let wrapped = key(1).wrap(&[], &[5; 32]).unwrap();
        for length in 0..wrapped.len() {
            assert!(key(1).unwrap(&[], &wrapped[..length]).is_err(), "{length}");
        }
        for bit in 0..8 * wrapped.len() {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key(1).unwrap(&[], &changed).is_err(), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_unwrap(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(key(1).unwrap(&[], &bytes).is_err());
        }
    }
}
