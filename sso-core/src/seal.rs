//! Sealing of values to their place: AES-256-GCM under a key that is derived for each record.
//!
//! A sealed value is
//!
//! ```text
//! version 1 ‖ generation u32 BE ‖ fingerprint 8 ‖ salt 24 ‖ ciphertext ‖ tag 16
//! ```
//!
//! Everything before the salt is associated data, followed by table, column, row and application,
//! each with its length before it. A sealed value therefore opens only where it was sealed.
//! Generation and fingerprint are in the clear so that a missing or foreign key is *named*.
//!
//! # Why a key for each record
//!
//! Under one key, AES-GCM bears about 2³² random 96-bit nonces before a repetition becomes likely
//! enough to matter, and one repetition gives away the authentication key. Counting seals across
//! servers that share a database, crash, and are restored from snapshots cannot be made safe. So
//! each seal draws 192 random bits, and HKDF turns the key of the application and these bits into
//! a key *and* a nonce of this record alone, the construction Kubernetes calls an extended nonce.
//! A repetition needs about 2⁹⁶ records, and then only these two suffer. No function here takes a
//! nonce, and a restored copy of a machine cannot repeat one: the bits come from the operating
//! system for each call. The price is one HKDF expansion, because the key of the application is kept
//! (`application_keys`), and a key schedule: half of the 1.2 µs that opening 512 bytes takes
//! (measured, x86-64 with SHA and AES extensions). A key per application with a counted bound would
//! save it and need a counter that survives everything.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::{
    derive::{Fingerprint, append, expand_unwiped, wipe_stack},
    key_ring::{Generation, KeyRing, Listed},
    memory::KEY_BYTES,
    secret::SecretBytes,
};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4 + Fingerprint::BYTES;
const TAG: usize = 16;
const NONCE: usize = 12;
pub(crate) const SALT: usize = 24;

/// Bytes that a sealed value is longer than its plaintext.
pub const OVERHEAD: usize = HEADER + SALT + TAG;

/// Where a value is kept. It opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// What names the row for ever, such as its id.
    pub row: &'a [u8],
    /// The application that the row belongs to, by its id.
    pub application: &'a [u8],
}

/// Why a value cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(String),
    /// The plaintext is longer than the cipher allows (64 GiB).
    #[error("the value is too long to be sealed")]
    TooLong,
    /// The library took no key, which it does where there is no memory left.
    #[error("the cipher cannot be made ready")]
    Refused,
}

/// Why a sealed value does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not a sealed value.
    #[error("not a sealed value: {0}")]
    Malformed(&'static str),
    /// It was sealed under a key that is not held.
    #[error(
        "sealed under generation {generation} (fingerprint {fingerprint}); this server holds {}",
        Listed(held)
    )]
    UnknownGeneration {
        /// The generation it names.
        generation: Generation,
        /// The fingerprint it names.
        fingerprint: Fingerprint,
        /// What is held instead.
        held: Vec<(Generation, Fingerprint)>,
    },
    /// The key is the right one, but the bytes or their place were changed.
    #[error(
        "the value sealed under generation {generation} was changed, or moved from another place"
    )]
    NotAuthentic {
        /// The generation it was sealed under.
        generation: Generation,
    },
}

impl KeyRing {
    /// `plaintext`, sealed to `place` under the active generation.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn seal(&self, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = self.seal_here(place, plaintext);
        wipe_stack();
        sealed
    }

    #[inline(never)]
    fn seal_here(&self, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let active = self.active_key();
        let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.active().number().to_be_bytes());
        sealed.extend_from_slice(active.fingerprint.as_bytes());
        let associated = associated_data(&sealed, place);
        active.applications.with(&active.key, place.application, |key| {
            seal_unwiped(key, &associated, plaintext, &mut sealed)
        })?;
        Ok(sealed)
    }

    /// What was sealed to `place`, under any generation held.
    ///
    /// # Errors
    /// When the bytes are not a sealed value, their key is not held, or they or their place were
    /// changed. Never panics, whatever the bytes are.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        let opened = self.open_here(place, sealed);
        wipe_stack();
        opened
    }

    #[inline(never)]
    fn open_here(&self, place: &Place<'_>, sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        let (header, record) =
            sealed.split_at_checked(HEADER).ok_or(OpenError::Malformed("too short"))?;
        let (generation, fingerprint) = parse_header(header)?;
        let held = self.held(generation).filter(|held| held.fingerprint == fingerprint);
        let Some(held) = held else {
            let held = self.generations().collect();
            return Err(OpenError::UnknownGeneration { generation, fingerprint, held });
        };
        let associated = associated_data(header, place);
        let opened = held
            .applications
            .with(&held.key, place.application, |key| open_unwiped(key, &associated, record));
        opened.map_err(|error| match error {
            RecordError::TooShort => OpenError::Malformed("too short"),
            RecordError::NotAuthentic => OpenError::NotAuthentic { generation },
        })
    }
}

impl KeyRing {
    /// Bytes of the form of a value of this length that was sealed under the active generation. They
    /// open nowhere, and it takes as long to learn that as to open such a value.
    #[must_use]
    pub fn decoy(&self, length: usize) -> Vec<u8> {
        let mut decoy = vec![VERSION];
        decoy.extend_from_slice(&self.active().number().to_be_bytes());
        decoy.extend_from_slice(self.active_key().fingerprint.as_bytes());
        decoy.resize(OVERHEAD.saturating_add(length), 0);
        decoy
    }
}

/// The generation and fingerprint a sealed value names, without opening it.
///
/// # Errors
/// When the bytes are not a sealed value.
pub fn sealed_under(sealed: &[u8]) -> Result<(Generation, Fingerprint), OpenError> {
    let (header, _) = sealed.split_at_checked(HEADER).ok_or(OpenError::Malformed("too short"))?;
    parse_header(header)
}

fn parse_header(header: &[u8]) -> Result<(Generation, Fingerprint), OpenError> {
    let malformed = OpenError::Malformed("too short");
    let (&version, rest) = header.split_first().ok_or(malformed.clone())?;
    if version != VERSION {
        return Err(OpenError::Malformed("unknown format version"));
    }
    let (number, rest) = rest.split_first_chunk().ok_or(malformed.clone())?;
    let (fingerprint, _) = rest.split_first_chunk().ok_or(malformed)?;
    let generation =
        Generation::new(u32::from_be_bytes(*number)).ok_or(OpenError::Malformed("generation 0"))?;
    Ok((generation, Fingerprint::from_bytes(*fingerprint)))
}

fn associated_data(header: &[u8], place: &Place<'_>) -> Vec<u8> {
    let Place { table, column, row, application } = place;
    let parts = [table.as_bytes(), column.as_bytes(), row, application];
    let length = parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    let mut data = Vec::with_capacity(header.len() + length);
    data.extend_from_slice(header);
    for part in parts {
        append(&mut data, part);
    }
    data
}

/// Appends salt ‖ ciphertext ‖ tag to `output`.
pub(crate) fn seal_record(
    key: &[u8; KEY_BYTES],
    associated: &[u8],
    plaintext: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), SealError> {
    let sealed = seal_unwiped(key, associated, plaintext, output);
    wipe_stack();
    sealed
}

#[inline(never)]
fn seal_unwiped(
    key: &[u8; KEY_BYTES],
    associated: &[u8],
    plaintext: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), SealError> {
    let mut salt = [0; SALT];
    SysRng.try_fill_bytes(&mut salt).map_err(|error| SealError::Random(error.to_string()))?;
    output.reserve_exact(SALT + plaintext.len() + TAG);
    output.extend_from_slice(&salt);
    let start = output.len();
    output.extend_from_slice(plaintext);
    let (_, body) = output.split_at_mut(start);
    let sealed = record_cipher(key, &salt).and_then(|(cipher, nonce)| {
        let sealed = cipher.seal_in_place_separate_tag(nonce, Aad::from(associated), body);
        sealed.map_err(|_| SealError::TooLong)
    });
    let tag = sealed.inspect_err(|_| {
        // Nothing was encrypted: the buffer still holds the plaintext.
        zeroize::Zeroize::zeroize(body);
    })?;
    output.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Why a record does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    TooShort,
    NotAuthentic,
}

/// Opens salt ‖ ciphertext ‖ tag. The plaintext only ever stands in a buffer that wipes itself.
pub(crate) fn open_record(
    key: &[u8; KEY_BYTES],
    associated: &[u8],
    record: &[u8],
) -> Result<SecretBytes, RecordError> {
    let opened = open_unwiped(key, associated, record);
    wipe_stack();
    opened
}

#[inline(never)]
fn open_unwiped(
    key: &[u8; KEY_BYTES],
    associated: &[u8],
    record: &[u8],
) -> Result<SecretBytes, RecordError> {
    let (salt, rest) = record.split_first_chunk::<SALT>().ok_or(RecordError::TooShort)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(RecordError::TooShort)?;
    let (cipher, nonce) = record_cipher(key, salt).map_err(|_| RecordError::NotAuthentic)?;
    let mut plaintext = SecretBytes::new(vec![0; body.len()]);
    cipher
        .open_separate_gather(nonce, Aad::from(associated), body, tag, plaintext.as_mut())
        .map_err(|_| RecordError::NotAuthentic)?;
    Ok(plaintext)
}

/// Cipher and nonce of one record. The library wipes the expanded key when the cipher is dropped.
///
/// # Errors
/// The library has no memory for it.
fn record_cipher(
    key: &[u8; KEY_BYTES],
    salt: &[u8; SALT],
) -> Result<(LessSafeKey, Nonce), SealError> {
    let mut material = Zeroizing::new([0; KEY_BYTES + NONCE]);
    // The key of the application keys the HMAC inside HKDF.
    expand_unwiped(key, salt, material.as_mut_slice());
    let (key, nonce) = material.split_at(KEY_BYTES);
    let refused = |_| SealError::Refused;
    let cipher = UnboundKey::new(&AES_256_GCM, key).map_err(refused)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(refused)?;
    Ok((LessSafeKey::new(cipher), nonce))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{derive::derive, memory::LockedKey};

    const PLACE: Place<'static> =
        Place { table: "revisions", column: "sealed", row: b"row-1", application: b"app-1" };

    fn generation(number: u32) -> Generation {
        Generation::new(number).unwrap()
    }

    #[test]
    fn a_decoy_looks_like_a_sealed_value_and_opens_nowhere() {
        let ring = ring(2);
        let decoy = ring.decoy(10);
        assert_eq!(decoy.len(), ring.seal(&PLACE, &[0; 10]).unwrap().len());
        assert_eq!(sealed_under(&decoy).unwrap(), (generation(2), ring.active_fingerprint()));
        assert_eq!(
            ring.open(&PLACE, &decoy),
            Err(OpenError::NotAuthentic { generation: generation(2) })
        );
    }

    /// A ring of generations 1 to `active` with fixed keys.
    fn ring(active: u32) -> KeyRing {
        let key = |number: u32| LockedKey::from_bytes(&[number as u8; 32]).unwrap();
        let keys = (1..=active).map(|number| (generation(number), key(number)));
        KeyRing::new(keys, generation(active)).unwrap()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    struct Vector {
        key: &'static str,
        nonce: &'static str,
        plaintext: &'static str,
        associated: &'static str,
        ciphertext: &'static str,
        tag: &'static str,
    }

    /// Test cases 13 to 16 of the GCM specification, then three of NIST's CAVP
    /// (gcmEncryptExtIV256: empty, plaintext only, plaintext with associated data).
    const NIST: &[Vector] = &[
        Vector {
            key: "0000000000000000000000000000000000000000000000000000000000000000",
            nonce: "000000000000000000000000",
            plaintext: "",
            associated: "",
            ciphertext: "",
            tag: "530f8afbc74536b9a963b4f1c4cb738b",
        },
        Vector {
            key: "0000000000000000000000000000000000000000000000000000000000000000",
            nonce: "000000000000000000000000",
            plaintext: "00000000000000000000000000000000",
            associated: "",
            ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
            tag: "d0d1c8a799996bf0265b98b5d48ab919",
        },
        Vector {
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
            associated: "",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
            tag: "b094dac5d93471bdec1a502270e3cc6c",
        },
        Vector {
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            associated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b",
        },
        Vector {
            key: "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4",
            nonce: "516c33929df5a3284ff463d7",
            plaintext: "",
            associated: "",
            ciphertext: "",
            tag: "bdc1ac884d332457a1d2664f168c76f0",
        },
        Vector {
            key: "31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22",
            nonce: "0d18e06c7c725ac9e362e1ce",
            plaintext: "2db5168e932556f8089a0622981d017d",
            associated: "",
            ciphertext: "fa4362189661d163fcd6a56d8bf0405a",
            tag: "d636ac1bbedd5cc3ee727dc2ab4a9489",
        },
        Vector {
            key: "92e11dcdaa866f5ce790fd24501f92509aacf4cb8b1339d50c9c1240935dd08b",
            nonce: "ac93a1a6145299bde902f21a",
            plaintext: "2d71bcfa914e4ac045b2aa60955fad24",
            associated: "1e0889016f67601c8ebea4943bc23ad6",
            ciphertext: "8995ae2e6df3dbf96fac7b7137bae67f",
            tag: "eca5aa77d51d4a0a14d9c51e1da474ab",
        },
    ];

    #[test]
    fn nist_vectors() {
        for vector in NIST {
            let nonce: [u8; NONCE] = bytes(vector.nonce).try_into().unwrap();
            let key = UnboundKey::new(&AES_256_GCM, &bytes(vector.key)).unwrap();
            let cipher = LessSafeKey::new(key);
            let mut body = bytes(vector.plaintext);
            let associated = bytes(vector.associated);
            let (aad, of_record) = (|| Aad::from(&associated), Nonce::assume_unique_for_key);
            let tag =
                cipher.seal_in_place_separate_tag(of_record(nonce), aad(), &mut body).unwrap();
            assert_eq!(body, bytes(vector.ciphertext), "{}", vector.tag);
            assert_eq!(tag.as_ref(), bytes(vector.tag));
            let mut opened = vec![0; body.len()];
            cipher
                .open_separate_gather(of_record(nonce), aad(), &body, tag.as_ref(), &mut opened)
                .unwrap();
            assert_eq!(opened, bytes(vector.plaintext), "{}", vector.tag);
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let sealed = ring(2).seal(&PLACE, b"abc").unwrap();
        assert_eq!(sealed.len(), OVERHEAD + 3);
        assert_eq!(OVERHEAD, 53);
        assert_eq!(sealed[..5], [1, 0, 0, 0, 2]);
        assert_eq!(sealed[5..13], *ring(2).active_fingerprint().as_bytes());
        assert_eq!(sealed_under(&sealed), Ok((generation(2), ring(2).active_fingerprint())));
        assert_eq!(ring(2).open(&PLACE, &sealed).unwrap().expose(), b"abc");
    }

    /// The format is stored for years: what this version sealed has to open for ever.
    #[test]
    fn a_value_sealed_long_ago_opens() {
        let sealed = bytes(
            "0100000001e6aadcaef50eb7207d43bc15def6de366dacfe4a23dbccff5bacec20d52a043c\
             1ac1eb0a36c640b06afca43d87bf98e547fa4fa298697b607e58f32b",
        );
        assert_eq!(ring(1).active_fingerprint().to_string(), "e6aadcaef50eb720");
        assert_eq!(ring(1).open(&PLACE, &sealed).unwrap().expose(), b"golden value");
    }

    #[test]
    fn older_generations_still_open() {
        let sealed = ring(1).seal(&PLACE, b"abc").unwrap();
        assert_eq!(ring(3).open(&PLACE, &sealed).unwrap().expose(), b"abc");
    }

    #[test]
    fn a_generation_that_is_not_held_is_named() {
        let sealed = ring(3).seal(&PLACE, b"abc").unwrap();
        let error = ring(2).open(&PLACE, &sealed).unwrap_err();
        let print = |number| ring(3).fingerprint(generation(number)).unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "sealed under generation 3 (fingerprint {}); this server holds \
                 1 (fingerprint {}), 2 (fingerprint {})",
                print(3),
                print(1),
                print(2),
            )
        );
    }

    #[test]
    fn the_same_generation_of_another_system_is_named() {
        let sealed = ring(1).seal(&PLACE, b"abc").unwrap();
        let foreign = LockedKey::from_bytes(&[99; 32]).unwrap();
        let foreign = KeyRing::new([(generation(1), foreign)], generation(1)).unwrap();
        let error = foreign.open(&PLACE, &sealed).unwrap_err();
        assert!(matches!(error, OpenError::UnknownGeneration { .. }), "{error}");
    }

    #[test]
    fn nothing_opens_in_another_place() {
        let ring = ring(1);
        let sealed = ring.seal(&PLACE, b"abc").unwrap();
        let others = [
            Place { table: "revision", ..PLACE },
            Place { column: "seale", ..PLACE },
            Place { row: b"row-2", ..PLACE },
            Place { application: b"app-2", ..PLACE },
            Place { table: "revisionss", column: "ealed", ..PLACE },
            Place { row: b"row-1app-1", application: b"", ..PLACE },
            Place { table: "sealed", column: "revisions", ..PLACE },
        ];
        for place in others {
            let error = ring.open(&place, &sealed).unwrap_err();
            assert_eq!(error, OpenError::NotAuthentic { generation: generation(1) }, "{place:?}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let ring = ring(1);
        for plaintext in [&b""[..], b"a", &[7; 100]] {
            let sealed = ring.seal(&PLACE, plaintext).unwrap();
            for length in 0..sealed.len() {
                let error = ring.open(&PLACE, &sealed[..length]).unwrap_err();
                let short = length < OVERHEAD;
                assert_eq!(matches!(error, OpenError::Malformed(_)), short, "{length}: {error}");
            }
            let longer = [sealed.as_slice(), &[0]].concat();
            assert!(ring.open(&PLACE, &longer).is_err());
        }
    }

    #[test]
    fn salts_never_repeat() {
        let ring = ring(1);
        let seals = 1_000_000;
        let salts: HashSet<[u8; SALT]> = (0..seals)
            .map(|_| ring.seal(&PLACE, b"").unwrap()[HEADER..HEADER + SALT].try_into().unwrap())
            .collect();
        assert_eq!(salts.len(), seals);
    }

    #[test]
    fn each_record_has_its_own_key_and_nonce() {
        let key = derive(&LockedKey::from_bytes(&[1; 32]).unwrap(), "seal", &[b"app"]);
        let (mut one, mut two) = ([0; SALT], [0; SALT]);
        one[0] = 1;
        two[SALT - 1] = 1;
        let streams = [one, two].map(|salt| {
            let (cipher, nonce) = record_cipher(key.expose(), &salt).unwrap();
            let (shown, mut body) = (*nonce.as_ref(), [0; 64]);
            let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), &mut body);
            assert!(tag.is_ok());
            (shown, body)
        });
        assert_ne!(streams[0].0, streams[1].0);
        assert_ne!(streams[0].1, streams[1].1);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            plaintext in prop::collection::vec(any::<u8>(), 0..300),
            table in ".{0,20}", column in ".{0,20}",
            row in prop::collection::vec(any::<u8>(), 0..40),
            application in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let place = Place { table: &table, column: &column, row: &row, application: &application };
            let sealed = ring(2).seal(&place, &plaintext).unwrap();
            let opened = ring(2).open(&place, &sealed).unwrap();
            prop_assert_eq!(opened.expose(), plaintext.as_slice());
        }

        #[test]
        fn any_flipped_bit_fails(
            plaintext in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
        ) {
            let mut sealed = ring(2).seal(&PLACE, &plaintext).unwrap();
            let bit = at.index(8 * sealed.len());
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ring(2).open(&PLACE, &sealed).is_err(), "bit {}", bit);
        }

        #[test]
        fn opening_random_bytes_is_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            header in any::<bool>(),
        ) {
            let ring = ring(1);
            let mut sealed = bytes;
            if header {
                // Half of the cases get past the header and into the cipher.
                let good = ring.seal(&PLACE, b"").unwrap();
                sealed.splice(0..0, good[..HEADER].iter().copied());
            }
            prop_assert!(ring.open(&PLACE, &sealed).is_err());
            let _ = sealed_under(&sealed);
        }
    }
}
