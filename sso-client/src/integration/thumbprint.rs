//! Thumbprints: how certificates are named in ports and in lists of parties.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sso_core::peer::PeerCertificate;

/// Hexadecimal digits of a SHA-1 and of a SHA-256.
const SHA1: usize = 40;
const SHA256: usize = 64;

/// The hash of a certificate: SHA-256 (64 hexadecimal digits) or SHA-1 (40).
///
/// Read with colons, spaces and in any case, as tools show it; also with the invisible mark that the
/// Windows certificate dialog puts in front when it is copied from there. Shown as lower-case digits.
/// In a text of others (JSON, TOML) it is a string.
///
/// SHA-1 is taken because other products show nothing else. It finds a certificate that the TLS
/// handshake has verified; it does not vouch for it. Prefer SHA-256.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(Box<str>);

/// A text that is no thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThumbprintError {
    /// There are other characters than hexadecimal digits, colons and spaces.
    #[error(
        "a thumbprint is of hexadecimal digits alone; colons and spaces between them do not matter"
    )]
    Digits,
    /// The number of digits is that of no known hash.
    #[error("a thumbprint has 64 hexadecimal digits (SHA-256) or 40 (SHA-1), not {0}")]
    Length(usize),
}

impl Thumbprint {
    /// The SHA-256 thumbprint of a certificate.
    #[must_use]
    pub fn of(certificate: &PeerCertificate) -> Self {
        Self(certificate.thumbprint_sha256.as_str().into())
    }

    /// Whether it is a SHA-256, not a SHA-1.
    #[must_use]
    pub fn is_sha256(&self) -> bool {
        self.0.len() == SHA256
    }

    /// 64 or 40 lower-case hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the thumbprint of this certificate.
    #[must_use]
    pub fn matches(&self, certificate: &PeerCertificate) -> bool {
        let own = match self.is_sha256() {
            true => &certificate.thumbprint_sha256,
            false => &certificate.thumbprint_sha1,
        };
        own.as_str() == self.as_str()
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        // U+200E and U+200F: what the Windows dialog copies along.
        let ignored =
            |c: char| c == ':' || c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}');
        let digits: String =
            text.chars().filter(|&c| !ignored(c)).map(|c| c.to_ascii_lowercase()).collect();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ThumbprintError::Digits);
        }
        match digits.len() {
            SHA1 | SHA256 => Ok(Self(digits.into())),
            other => Err(ThumbprintError::Length(other)),
        }
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1_TEXT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn is_read_as_tools_show_it() {
        let expected: Thumbprint = SHA1_TEXT.parse().unwrap();
        assert!(!expected.is_sha256());
        for text in [
            "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67",
            " 01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67\n",
            "\u{200e}0123456789abcdef0123456789abcdef01234567",
            "0123456789ABCDEF0123456789ABCDEF01234567",
        ] {
            assert_eq!(text.parse::<Thumbprint>().unwrap(), expected, "{text:?}");
        }
        let long = "AB".repeat(32).parse::<Thumbprint>().unwrap();
        assert!(long.is_sha256());
        assert_eq!(long.to_string(), "ab".repeat(32));
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, expected) in [
            ("", ThumbprintError::Length(0)),
            ("abc", ThumbprintError::Length(3)),
            (&"a".repeat(63), ThumbprintError::Length(63)),
            (&"a".repeat(65), ThumbprintError::Length(65)),
            (&"g".repeat(40), ThumbprintError::Digits),
            ("sha1=0123", ThumbprintError::Digits),
            (&"\u{e4}".repeat(40), ThumbprintError::Digits),
        ] {
            assert_eq!(text.parse::<Thumbprint>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn is_a_string_elsewhere() {
        let thumbprint: Thumbprint = SHA1_TEXT.parse().unwrap();
        let json = serde_json::to_string(&thumbprint).unwrap();
        assert_eq!(json, format!("\"{SHA1_TEXT}\""));
        assert_eq!(serde_json::from_str::<Thumbprint>(&json).unwrap(), thumbprint);
        assert!(serde_json::from_str::<Thumbprint>("\"12\"").is_err());
    }
}
