//! Shares of a backup key: M of N of them give it back, fewer tell nothing of it (Shamir, over
//! GF(256), by crate vsss-rs).
//!
//! A share is one line of text, to be printed or kept in a safe:
//! `sso-share-1:` and the Base64 (for addresses, without padding) of
//! `keystore 16 ‖ backup 16 ‖ needed 1 ‖ index 1 ‖ data 32 ‖ checksum 8`. The checksum is the
//! beginning of the SHA-256 of what stands before it: it finds a letter that was typed wrongly.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{
    SeedableRng as _,
    rngs::{StdRng, SysRng},
};
use sha2::{Digest as _, Sha256};
use sso_core::{
    memory::{KEY_BYTES, KeyError, LockedKey},
    secret::SecretText,
};
use uuid::Uuid;
use vsss_rs::Gf256;
use zeroize::{Zeroize as _, Zeroizing};

use super::BackupError;

const PREFIX: &str = "sso-share-1:";
const CHECKSUM: usize = 8;
const BODY: usize = 16 + 16 + 1 + 1 + KEY_BYTES;
/// Characters of the Base64 of a share.
const DIGITS: usize = (BODY + CHECKSUM) * 4 / 3 + 1;

/// One share as its text says it.
struct Share {
    keystore: Uuid,
    backup: Uuid,
    needed: u8,
    index: u8,
    data: Zeroizing<[u8; KEY_BYTES]>,
}

/// The texts of `total` shares of `key`, of which `needed` give it back.
pub(super) fn split(
    keystore: Uuid,
    backup: Uuid,
    key: &LockedKey,
    needed: u8,
    total: u8,
) -> Result<Vec<SecretText>, BackupError> {
    let random =
        StdRng::try_from_rng(&mut SysRng).map_err(|error| KeyError::Random(error.to_string()))?;
    // Expose: into the shares.
    let split = Gf256::split_bytes(needed.into(), total.into(), key.expose(), random)
        .map_err(|error| BackupError::Locks(format!("the key cannot be split: {error}")))?;
    let spell = |mut share: Vec<u8>| {
        let text = spell(keystore, backup, needed, &share);
        share.zeroize();
        text
    };
    Ok(split.into_iter().map(spell).collect())
}

/// The backup key that the shares of these texts give back, for the backup at hand. Whether it is the
/// right one the caller has to see: shares that were changed on purpose give another key.
pub(super) fn combine(
    keystore: Uuid,
    backup: Uuid,
    needed: u8,
    texts: &[SecretText],
) -> Result<LockedKey, BackupError> {
    let mut shares: Vec<Share> = Vec::new();
    for (at, text) in (1..).zip(texts) {
        let share = parse(text).map_err(|what| invalid(format!("share {at} {what}")))?;
        if share.keystore != keystore {
            return Err(invalid(format!("share {at} belongs to a backup of another system")));
        }
        if share.backup != backup {
            return Err(invalid(format!("share {at} belongs to another backup of this system")));
        }
        if share.needed != needed {
            return Err(invalid(format!("share {at} was changed")));
        }
        match shares.iter().find(|earlier| earlier.index == share.index) {
            Some(earlier) if earlier.data == share.data => {}
            Some(_) => return Err(invalid(format!("share {at} was changed"))),
            None => shares.push(share),
        }
    }
    let found = shares.len();
    if found < needed.into() {
        let what = format!("{needed} different shares are needed and {found} are here");
        return Err(invalid(what));
    }
    let mut input: Vec<Vec<u8>> = shares.iter().map(Share::to_bytes).collect();
    let key = Gf256::combine_bytes(&input).map(Zeroizing::new);
    input.zeroize();
    let key = key.map_err(|error| invalid(format!("the shares give no key: {error}")))?;
    Ok(LockedKey::from_bytes(&key)?)
}

impl Share {
    /// As the crate takes it.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + KEY_BYTES);
        bytes.push(self.index);
        bytes.extend_from_slice(self.data.as_slice());
        bytes
    }
}

/// `share` is the index and the data.
fn spell(keystore: Uuid, backup: Uuid, needed: u8, share: &[u8]) -> SecretText {
    let mut bytes = Zeroizing::new(Vec::with_capacity(BODY + CHECKSUM));
    bytes.extend_from_slice(keystore.as_bytes());
    bytes.extend_from_slice(backup.as_bytes());
    bytes.push(needed);
    bytes.extend_from_slice(share);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + DIGITS));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
    SecretText::new(std::mem::take(&mut *text))
}

fn parse(text: &SecretText) -> Result<Share, &'static str> {
    const DAMAGED: &str = "is damaged: read it again from its holder";
    // A mail program may have broken the line. The room is that of the text: nothing is copied on.
    let mut joined = Zeroizing::new(String::with_capacity(text.len()));
    // Expose: into a buffer that wipes itself too.
    joined.extend(text.expose().chars().filter(|letter| !letter.is_whitespace()));
    let digits = joined.strip_prefix(PREFIX).ok_or("is no share: it begins with `sso-share-1:`")?;
    let mut bytes = Zeroizing::new([0; BODY + CHECKSUM]);
    // The decoder asks for room for whole groups of four letters.
    let mut room = Zeroizing::new([0; BODY + CHECKSUM + 3]);
    let length = URL_SAFE_NO_PAD.decode_slice(digits, room.as_mut_slice()).map_err(|_| DAMAGED)?;
    let decoded = room.get(..length).ok_or(DAMAGED)?;
    if decoded.len() != bytes.len() {
        return Err(DAMAGED);
    }
    bytes.copy_from_slice(decoded);
    let (body, sum) = bytes.split_first_chunk::<BODY>().ok_or(DAMAGED)?;
    if sum != checksum(body) {
        return Err(DAMAGED);
    }
    let (keystore, rest) = body.split_first_chunk().ok_or(DAMAGED)?;
    let (backup, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
    let ([needed, index], data) = rest.split_first_chunk().ok_or(DAMAGED)?;
    let data = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(data).map_err(|_| DAMAGED)?);
    if *index == 0 {
        return Err(DAMAGED);
    }
    let (keystore, backup) = (Uuid::from_bytes(*keystore), Uuid::from_bytes(*backup));
    Ok(Share { keystore, backup, needed: *needed, index: *index, data })
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    for (to, from) in sum.iter_mut().zip(Sha256::digest(body)) {
        *to = from;
    }
    sum
}

fn invalid(what: String) -> BackupError {
    BackupError::Shares(what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYSTORE: Uuid = Uuid::from_u128(7);
    const BACKUP: Uuid = Uuid::from_u128(9);

    fn key() -> LockedKey {
        LockedKey::from_bytes(&[5; 32]).unwrap()
    }

    fn shares(needed: u8, total: u8) -> Vec<SecretText> {
        split(KEYSTORE, BACKUP, &key(), needed, total).unwrap()
    }

    fn combined(needed: u8, texts: &[SecretText]) -> Result<LockedKey, String> {
        combine(KEYSTORE, BACKUP, needed, texts).map_err(|error| {
            assert!(matches!(error, BackupError::Shares(_)), "{error}");
            error.to_string()
        })
    }

    #[test]
    fn any_needed_shares_in_any_order_give_the_key_back() {
        let texts = shares(3, 5);
        assert_eq!(texts.len(), 5);
        for (one, two, three) in [(0, 1, 2), (4, 2, 0), (3, 1, 4)] {
            let some = [one, two, three].map(|at: usize| texts[at].clone());
            assert_eq!(combined(3, &some).unwrap(), key());
        }
        assert_eq!(combined(3, &texts).unwrap(), key());
    }

    #[test]
    fn too_few_shares_are_counted_and_the_same_one_counts_once() {
        let texts = shares(3, 5);
        let twice = [texts[0].clone(), texts[1].clone(), texts[1].clone()];
        for some in [&twice[..], &texts[..2]] {
            let error = combined(3, some).unwrap_err();
            assert!(error.contains("3 different shares are needed and 2 are here"), "{error}");
        }
        assert!(combined(3, &[]).unwrap_err().contains("0 are here"));
    }

    #[test]
    fn shares_of_another_backup_are_named() {
        let own = shares(2, 3);
        let other = split(KEYSTORE, Uuid::from_u128(1), &key(), 2, 3).unwrap();
        let error = combined(2, &[own[0].clone(), other[1].clone()]).unwrap_err();
        assert!(error.contains("share 2 belongs to another backup of this system"), "{error}");
        let other = split(Uuid::nil(), BACKUP, &key(), 2, 3).unwrap();
        let error = combined(2, &[other[0].clone(), own[1].clone()]).unwrap_err();
        assert!(error.contains("share 1 belongs to a backup of another system"), "{error}");
    }

    #[test]
    fn every_letter_counts() {
        let texts = shares(2, 3);
        let whole = texts[0].expose();
        for at in 0..whole.len() {
            let mut changed = whole.to_owned().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            for text in [String::from_utf8(changed).unwrap(), whole[..at].to_owned()] {
                assert!(combined(2, &[SecretText::new(text), texts[1].clone()]).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn broken_lines_are_joined() {
        let texts = shares(2, 2);
        let (start, end) = texts[0].expose().split_at(40);
        let broken = SecretText::new(format!("  {start}\r\n{end}\n"));
        assert_eq!(combined(2, &[broken, texts[1].clone()]).unwrap(), key());
    }

    #[test]
    fn the_most_shares_there_can_be() {
        assert_eq!(combined(255, &shares(255, 255)).unwrap(), key());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(sso-share-1:)?[A-Za-z0-9_-]{0,120}") {
            prop_assert!(parse(&SecretText::new(text)).is_err());
        }
    }
}
