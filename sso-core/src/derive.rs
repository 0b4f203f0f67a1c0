//! Keys derived from keys: HKDF-SHA256 (RFC 5869), and the fingerprint that names a key.

use std::{fmt, str::FromStr};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::memory::{KEY_BYTES, LockedKey};

/// A 32-byte key derived for one purpose, wiped when dropped. It lives for one operation only,
/// which is why it does not take a locked page.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DerivedKey([u8; KEY_BYTES]);

impl DerivedKey {
    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(redacted)")
    }
}

/// The key that `key` gives for `purpose` and `parts`; the same for the same input.
///
/// Purpose and parts go into the info of HKDF each with its length before it, so that no two
/// different lists spell the same info. Expansion without extraction is enough: a [`LockedKey`] is
/// uniformly random already (RFC 5869, 3.3).
#[must_use]
pub fn derive(key: &LockedKey, purpose: &str, parts: &[&[u8]]) -> DerivedKey {
    let mut info = Vec::with_capacity(64);
    append(&mut info, purpose.as_bytes());
    for part in parts {
        append(&mut info, part);
    }
    let mut derived = DerivedKey([0; KEY_BYTES]);
    // Expose: the key keys the HMAC inside HKDF.
    expand(key.expose(), &info, &mut derived.0);
    derived
}

/// The 32-byte key extracted from `material` that is secret but not uniformly random, such as the
/// result of a key agreement.
pub(crate) fn extract(salt: &[u8], material: &[u8]) -> DerivedKey {
    let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), material);
    let derived = DerivedKey(prk.into());
    prk.zeroize();
    derived
}

/// HKDF-Expand.
///
/// The output is at most 64 bytes everywhere in this product, far below HKDF's 255 blocks.
pub(crate) fn expand(key: &[u8; KEY_BYTES], info: &[u8], output: &mut [u8]) {
    expand_unwiped(key, info, output);
    wipe_stack();
}

/// Overwrites the stack below its caller. HMAC and the ciphers keep blocks with the key there and leave
/// them behind, where they would outlive the key.
#[inline(never)]
pub(crate) fn wipe_stack() {
    // One fill, which the compiler must not leave out because somebody might look at it.
    let below = [0_u8; 8192];
    zeroize::optimization_barrier(&below);
}

/// As [`expand`]; the caller wipes the stack when it has done the rest of its work.
///
/// In a frame of its own, below the one that wipes.
#[inline(never)]
pub(crate) fn expand_unwiped(key: &[u8; KEY_BYTES], info: &[u8], output: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "lengths are constants of this crate, not input")]
    Hkdf::<Sha256>::from_prk(key)
        .expect("32 bytes are one output of SHA-256")
        .expand(info, output)
        .expect("the output is a few blocks");
}

/// Appends `part` with its length before it (8 bytes, big-endian): the only way this crate joins
/// byte strings, because a separator could occur inside a part.
pub(crate) fn append(joined: &mut Vec<u8>, part: &[u8]) {
    joined.extend_from_slice(&(part.len() as u64).to_be_bytes());
    joined.extend_from_slice(part);
}

/// The short public name of a key: 8 bytes derived from it, shown in hexadecimal. It tells keys
/// apart and reveals nothing of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// Bytes of a fingerprint.
    pub const BYTES: usize = 8;

    /// The fingerprint of this key.
    #[must_use]
    pub fn of(key: &LockedKey) -> Self {
        let derived = derive(key, "fingerprint", &[]);
        let mut bytes = [0; Self::BYTES];
        // Expose: what is shown is the derived value, cut to 8 bytes; the key cannot be found from it.
        for (to, from) in bytes.iter_mut().zip(derived.expose()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The fingerprint of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 16 lower-case hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 2 * Self::BYTES || !text.as_bytes().iter().all(digits) {
            return Err(NotAFingerprint);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| NotAFingerprint)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// RFC 5869, appendix A, test cases 1 to 3: input, salt, info, PRK, OKM.
    #[test]
    fn rfc_5869() {
        let long = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        let cases = [
            (
                vec![0x0b; 22],
                long(0x00, 0x0c),
                long(0xf0, 0xf9),
                "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                long(0x00, 0x4f),
                long(0x60, 0xaf),
                long(0xb0, 0xff),
                "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                vec![0x0b; 22],
                vec![],
                vec![],
                "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (material, salt, info, prk, okm) in cases {
            let extracted = extract(&salt, &material);
            assert_eq!(extracted.expose().as_slice(), bytes(prk));
            let mut output = vec![0; okm.len() / 2];
            expand(extracted.expose(), &info, &mut output);
            assert_eq!(output, bytes(okm));
        }
    }

    #[test]
    fn purpose_and_parts_are_never_confused() {
        let key = LockedKey::from_bytes(&[9; 32]).unwrap();
        let derived = [
            derive(&key, "a", &[]),
            derive(&key, "a", &[b""]),
            derive(&key, "", &[b"a"]),
            derive(&key, "a", &[b"bc", b"d"]),
            derive(&key, "a", &[b"b", b"cd"]),
            derive(&key, "a", &[b"bcd"]),
            derive(&key, "abcd", &[]),
            derive(&LockedKey::from_bytes(&[8; 32]).unwrap(), "a", &[]),
        ];
        for (at, one) in derived.iter().enumerate() {
            for other in &derived[at + 1..] {
                assert_ne!(one.expose(), other.expose());
            }
        }
        assert_eq!(derive(&key, "a", &[b"b"]).expose(), derive(&key, "a", &[b"b"]).expose());
        assert_eq!(format!("{:?}", derived[0]), "DerivedKey(redacted)");
    }

    #[test]
    fn a_fingerprint_names_a_key_and_parses_back() {
        let key = LockedKey::from_bytes(&[1; 32]).unwrap();
        let shown = Fingerprint::of(&key).to_string();
        assert_eq!(shown.len(), 16);
        assert_eq!(shown.parse(), Ok(Fingerprint::of(&key)));
        assert_ne!(Fingerprint::of(&LockedKey::from_bytes(&[2; 32]).unwrap()).to_string(), shown);
        for wrong in [
            "",
            "12",
            "+123456789abcdef",
            "0123456789ABCDEF",
            "0123456789abcdefff",
            "ä123456789abcde",
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NotAFingerprint), "{wrong}");
        }
    }
}
