//! Secrets as types: they wipe themselves, never show up in `Debug`, and compare in constant time.
//!
//! A secret becomes a plain value only through `expose`; a line `// Expose:` above each such call
//! says where the value goes.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Secret bytes of any length, wiped when dropped.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

/// Overwrites a buffer, what is behind its end included: with one fill, where volatile writes byte by
/// byte would cost more than opening the value that was in it.
fn wipe(buffer: &mut Vec<u8>) {
    buffer.fill(0);
    buffer.resize(buffer.capacity(), 0);
    zeroize::optimization_barrier(buffer.as_slice());
    buffer.clear();
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl SecretBytes {
    /// Takes over the buffer; no copy is made.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be written in place.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(std::mem::take(&mut *bytes))
    }
}

/// Takes the same time wherever the difference is; the length is not hidden.
impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(redacted)")
    }
}

/// Secret text, wiped when dropped.
#[derive(Clone)]
pub struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        wipe(&mut std::mem::take(&mut self.0).into_bytes());
    }
}

impl ZeroizeOnDrop for SecretText {}

/// The bytes are not UTF-8; they are not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is not text in UTF-8")]
pub struct NotText;

impl SecretText {
    /// Takes over the buffer; no copy is made.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text that these bytes spell.
    ///
    /// # Errors
    /// When they are not UTF-8.
    pub fn from_utf8(bytes: &SecretBytes) -> Result<Self, NotText> {
        // Expose: copied into a buffer that wipes itself too.
        std::str::from_utf8(bytes.expose())
            .map(|text| Self::new(text.to_owned()))
            .map_err(|_| NotText)
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Number of bytes in UTF-8.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// Takes the same time wherever the difference is; the length is not hidden.
impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for SecretText {}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-51ab";

    #[test]
    fn debug_shows_nothing() {
        let bytes = SecretBytes::new(CANARY.into());
        let text = SecretText::new(CANARY.into());
        for shown in [format!("{bytes:?}"), format!("{bytes:#?}"), format!("{text:?}")] {
            assert!(!shown.contains(CANARY), "{shown}");
            assert!(shown.contains("redacted"), "{shown}");
        }
    }

    #[test]
    fn equality_is_that_of_the_contents() {
        let one = SecretBytes::new(vec![1, 2, 3]);
        assert_eq!(one, one.clone());
        assert_ne!(one, SecretBytes::new(vec![1, 2, 4]));
        assert_ne!(one, SecretBytes::new(vec![1, 2]));
        assert_eq!(SecretText::from("ä".to_owned()), SecretText::new("ä".into()));
        assert_ne!(SecretText::from("ä".to_owned()), SecretText::new("a".into()));
    }

    #[test]
    fn text_must_be_utf8() {
        assert_eq!(
            SecretText::from_utf8(&CANARY.as_bytes().to_vec().into()),
            Ok(SecretText::new(CANARY.into()))
        );
        assert_eq!(SecretText::from_utf8(&vec![0xff, 0xfe].into()), Err(NotText));
    }
}
