//! Secrets on the wire: sealed to a key pair that lives for one call.
//!
//! Both ends speak over mutual TLS already. This layer keeps the secret out of the buffers of the
//! TLS, HTTP/2 and gRPC libraries, which are not wiped. X25519, HKDF-SHA256 over the shared secret
//! with both public keys, then the wrapping of [`crate::wrapping`]. The other end is authenticated
//! by TLS, not here.
//!
//! A sealed message is `version 1 ‖ sender's public key 32 ‖ wrapped`.
//!
//! The same message sealed to a [`StaticKeyPair`] is an envelope that is kept: the holder of the
//! private key opens it years later. Its context says what it is for.

use aws_lc_rs::{
    agreement::{
        EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519, agree, agree_ephemeral,
    },
    rand::SystemRandom,
};

use crate::{
    derive::{DerivedKey, extract},
    memory::LockedKey,
    seal::SealError,
    secret::SecretBytes,
    wrapping::{UnwrapError, WrappingKey},
};

const VERSION: u8 = 1;
const PUBLIC: usize = 32;
const DOMAIN: &[u8] = b"sso transit 1";
const OFFICER: &[u8] = b"sso backup officer 1";

/// The context of the call that hands out the key ring: what the master seals with and what a server
/// opens with.
pub const FETCH: &[&[u8]] = &[b"sso.v1.MasterSecret/Fetch"];

/// The context of the call that hands a whole keystore to another master.
pub const REPLICATE: &[&[u8]] = &[b"sso.v1.MasterSecret/Replicate"];
/// The context of the keys of a backup, which the master seals to a server that is to open every row
/// with them.
pub const CHECK: &[&[u8]] = &[b"sso.v1.System/CheckSealedRows"];

/// The context of the envelope with the key of one backup that is made for an officer. `backup` is
/// the id of the backup, so that an envelope moved to another file does not open.
#[must_use]
pub const fn officer_context(backup: &[u8; 16]) -> [&[u8]; 2] {
    [OFFICER, backup]
}

/// Why a secret cannot be sealed or opened in transit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitError {
    /// No key pair could be made.
    #[error("no key pair could be made")]
    KeyPair,
    /// The other end's public key is unusable.
    #[error("the public key is not a usable X25519 key of 32 bytes")]
    PublicKey,
    /// The message is not of this format.
    #[error("not a message in transit: {0}")]
    Malformed(&'static str),
    /// The message is for another key pair or context, or was changed.
    #[error("the message is for another call, or was changed")]
    NotAuthentic,
    /// The secret could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<UnwrapError> for TransitError {
    fn from(error: UnwrapError) -> Self {
        match error {
            UnwrapError::Malformed(what) => Self::Malformed(what),
            UnwrapError::NotAuthentic => Self::NotAuthentic,
        }
    }
}

/// The recipient's key pair for one call.
#[derive(Debug)]
pub struct TransitKeyPair {
    private: EphemeralPrivateKey,
    public: [u8; PUBLIC],
}

impl TransitKeyPair {
    /// A fresh key pair.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn generate() -> Result<Self, TransitError> {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())
            .map_err(|_| TransitError::KeyPair)?;
        let public = private.compute_public_key().map_err(|_| TransitError::KeyPair)?;
        let public = public.as_ref().try_into().map_err(|_| TransitError::KeyPair)?;
        Ok(Self { private, public })
    }

    /// The public half, 32 bytes, to be sent with the call.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.public.to_vec()
    }

    /// What was sealed to this key pair for `context`. Consumes it: one key pair, one message.
    ///
    /// # Errors
    /// When the message is malformed, meant for another key pair or context, or changed.
    pub fn open(self, sealed: &[u8], context: &[&[u8]]) -> Result<SecretBytes, TransitError> {
        let (sender, wrapped) = parse(sealed)?;
        let key = wrapping(self.private, sender, sender, &self.public)?;
        Ok(key.unwrap(context, wrapped)?)
    }
}

/// A key pair that is kept: its private half is a key of 32 random bytes.
#[derive(Debug)]
pub struct StaticKeyPair {
    private: PrivateKey,
    public: [u8; PUBLIC],
}

impl StaticKeyPair {
    /// The key pair whose private half is `private`.
    ///
    /// # Errors
    /// When the library does not take the key.
    pub fn from_private(private: &LockedKey) -> Result<Self, TransitError> {
        // Expose: into the key object of the library, which wipes it when it is freed.
        let private = PrivateKey::from_private_key(&X25519, private.expose())
            .map_err(|_| TransitError::KeyPair)?;
        let public = private.compute_public_key().map_err(|_| TransitError::KeyPair)?;
        let public = public.as_ref().try_into().map_err(|_| TransitError::KeyPair)?;
        Ok(Self { private, public })
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; PUBLIC] {
        &self.public
    }

    /// What was sealed to this key pair for `context`.
    ///
    /// # Errors
    /// When the message is malformed, meant for another key pair or context, or changed.
    pub fn open(&self, sealed: &[u8], context: &[&[u8]]) -> Result<SecretBytes, TransitError> {
        let (sender, wrapped) = parse(sealed)?;
        let peer = UnparsedPublicKey::new(&X25519, sender.as_slice());
        let salt = [DOMAIN, sender, &self.public].concat();
        let key = agree(&self.private, peer, TransitError::PublicKey, |shared| {
            Ok(WrappingKey::from_derived(extract(&salt, shared)))
        })?;
        Ok(key.unwrap(context, wrapped)?)
    }
}

/// The sender's public key and the wrapped bytes.
fn parse(sealed: &[u8]) -> Result<(&[u8; PUBLIC], &[u8]), TransitError> {
    let (&version, rest) = sealed.split_first().ok_or(TransitError::Malformed("it is empty"))?;
    if version != VERSION {
        return Err(TransitError::Malformed("unknown format version"));
    }
    rest.split_first_chunk::<PUBLIC>().ok_or(TransitError::Malformed("too short"))
}

/// `plaintext`, sealed to the recipient's `public` key (32 bytes) for `context`.
///
/// # Errors
/// When the public key is unusable or the operating system has no random bytes.
pub fn seal_to(
    public: &[u8],
    context: &[&[u8]],
    plaintext: &[u8],
) -> Result<Vec<u8>, TransitError> {
    let recipient: &[u8; PUBLIC] = public.try_into().map_err(|_| TransitError::PublicKey)?;
    let sender = TransitKeyPair::generate()?;
    let key = wrapping(sender.private, recipient, &sender.public, recipient)?;
    let mut sealed = vec![VERSION];
    sealed.extend_from_slice(&sender.public);
    sealed.extend_from_slice(&key.wrap(context, plaintext)?);
    Ok(sealed)
}

/// The wrapping key both ends agree on. The library refuses public keys that give a shared secret
/// of zeros.
fn wrapping(
    own: EphemeralPrivateKey,
    peer: &[u8; PUBLIC],
    sender: &[u8; PUBLIC],
    recipient: &[u8; PUBLIC],
) -> Result<WrappingKey, TransitError> {
    let peer = UnparsedPublicKey::new(&X25519, peer.as_slice());
    let salt = [DOMAIN, sender, recipient].concat();
    agree_ephemeral(own, peer, TransitError::PublicKey, |shared| {
        let key: DerivedKey = extract(&salt, shared);
        Ok(WrappingKey::from_derived(key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recipient_opens_and_only_for_the_context() {
        let pair = || TransitKeyPair::generate().unwrap();
        let (mine, foreign, again) = (pair(), pair(), pair());
        let sealed = seal_to(&mine.public_key(), &[b"fetch"], b"secret").unwrap();
        assert_eq!(mine.open(&sealed, &[b"fetch"]).unwrap().expose(), b"secret");
        assert_eq!(foreign.open(&sealed, &[b"fetch"]), Err(TransitError::NotAuthentic));
        let sealed = seal_to(&again.public_key(), &[b"fetch"], b"secret").unwrap();
        assert_eq!(again.open(&sealed, &[b"watch"]), Err(TransitError::NotAuthentic));
    }

    #[test]
    fn two_messages_of_the_same_secret_have_nothing_in_common() {
        let pair = TransitKeyPair::generate().unwrap();
        let one = seal_to(&pair.public_key(), &[], b"secret").unwrap();
        let two = seal_to(&pair.public_key(), &[], b"secret").unwrap();
        assert_ne!(one[1..33], two[1..33]);
        assert_ne!(one[33..], two[33..]);
    }

    #[test]
    fn damaged_messages_are_refused() {
        let length = seal_to(&TransitKeyPair::generate().unwrap().public_key(), &[], b"secret")
            .unwrap()
            .len();
        for at in 0..length {
            let pair = TransitKeyPair::generate().unwrap();
            let sealed = seal_to(&pair.public_key(), &[], b"secret").unwrap();
            assert!(pair.open(&sealed[..at], &[]).is_err(), "cut at {at}");
            let pair = TransitKeyPair::generate().unwrap();
            let mut sealed = seal_to(&pair.public_key(), &[], b"secret").unwrap();
            sealed[at] ^= 1;
            assert!(pair.open(&sealed, &[]).is_err(), "changed at {at}");
        }
    }

    fn officer() -> StaticKeyPair {
        StaticKeyPair::from_private(&LockedKey::from_bytes(&[7; 32]).unwrap()).unwrap()
    }

    #[test]
    fn an_envelope_opens_again_and_again_for_its_context_alone() {
        let context = officer_context(&[1; 16]);
        let sealed = seal_to(officer().public_key(), &context, b"secret").unwrap();
        for _ in 0..2 {
            assert_eq!(officer().open(&sealed, &context).unwrap().expose(), b"secret");
        }
        let other = officer().open(&sealed, &officer_context(&[2; 16]));
        assert_eq!(other, Err(TransitError::NotAuthentic));
        let foreign = StaticKeyPair::from_private(&LockedKey::generate().unwrap()).unwrap();
        assert_eq!(foreign.open(&sealed, &context), Err(TransitError::NotAuthentic));
    }

    #[test]
    fn damaged_envelopes_are_refused() {
        let sealed = seal_to(officer().public_key(), &[], b"secret").unwrap();
        for at in 0..sealed.len() {
            assert!(officer().open(&sealed[..at], &[]).is_err(), "cut at {at}");
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(officer().open(&changed, &[]).is_err(), "changed at {at}");
        }
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn the_public_key_is_that_of_the_rfc() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let private = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let private = LockedKey::from_bytes(&bytes(private)).unwrap();
        let pair = StaticKeyPair::from_private(&private).unwrap();
        assert_eq!(pair.public_key().as_slice(), bytes(public));
    }

    #[test]
    fn unusable_public_keys_are_refused() {
        for public in [vec![], vec![9; 31], vec![9; 33], vec![0; 32]] {
            assert_eq!(seal_to(&public, &[], b"secret"), Err(TransitError::PublicKey));
        }
    }
}
