//! Secrets on the wire: sealed to a key pair that lives for one call.
//!
//! Both ends speak over mutual TLS already. This layer keeps the secret out of the buffers of the
//! TLS, HTTP/2 and gRPC libraries, which are not wiped. X25519, HKDF-SHA256 over the shared secret
//! with both public keys, then the wrapping of [`crate::wrapping`]. The other end is authenticated
//! by TLS, not here.
//!
//! A sealed message is `version 1 ‖ sender's public key 32 ‖ wrapped`.

use aws_lc_rs::{
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    rand::SystemRandom,
};

use crate::{
    derive::{DerivedKey, extract},
    seal::SealError,
    secret::SecretBytes,
    wrapping::{UnwrapError, WrappingKey},
};

const VERSION: u8 = 1;
const PUBLIC: usize = 32;
const DOMAIN: &[u8] = b"sso transit 1";

/// The context of the call that hands out the key ring: what the master seals with and what a server
/// opens with.
pub const FETCH: &[&[u8]] = &[b"sso.v1.MasterSecret/Fetch"];

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
        let (&version, rest) =
            sealed.split_first().ok_or(TransitError::Malformed("it is empty"))?;
        if version != VERSION {
            return Err(TransitError::Malformed("unknown format version"));
        }
        let (sender, wrapped) =
            rest.split_first_chunk::<PUBLIC>().ok_or(TransitError::Malformed("too short"))?;
        let key = agree(self.private, sender, sender, &self.public)?;
        Ok(key.unwrap(context, wrapped)?)
    }
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
    let key = agree(sender.private, recipient, &sender.public, recipient)?;
    let mut sealed = vec![VERSION];
    sealed.extend_from_slice(&sender.public);
    sealed.extend_from_slice(&key.wrap(context, plaintext)?);
    Ok(sealed)
}

/// The wrapping key both ends agree on. The library refuses public keys that give a shared secret
/// of zeros.
fn agree(
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

    #[test]
    fn unusable_public_keys_are_refused() {
        for public in [vec![], vec![9; 31], vec![9; 33], vec![0; 32]] {
            assert_eq!(seal_to(&public, &[], b"secret"), Err(TransitError::PublicKey));
        }
    }
}
