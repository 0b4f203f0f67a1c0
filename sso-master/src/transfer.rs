//! Keys on their way to another process: sealed to the key pair that it made for one call.

use prost::Message as _;
use sso_core::{key_ring::KeyRing, transit};
use sso_proto::{
    Reason, Refusal,
    v1::{GenerationKey, KeyRingTransfer, KeystoreTransfer},
};
use zeroize::Zeroizing;

use crate::custody::Unlocked;

/// The keys, sealed to `recipient_key` for `context`. Every copy outside of locked memory is wiped.
///
/// # Errors
/// When the recipient's key is none.
pub(crate) fn seal_ring(
    ring: &KeyRing,
    recipient_key: &[u8],
    context: &[&[u8]],
) -> Result<Vec<u8>, Refusal> {
    let transfer =
        KeyRingTransfer { generations: keys(ring), active_generation: ring.active().number() };
    // Long enough from the start: a buffer that grows would leave copies behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(transfer.encoded_len()));
    transfer.encode(&mut *plaintext).map_err(internal)?;
    seal_to(recipient_key, context, &plaintext)
}

/// The whole keystore without its wrappings, sealed to `recipient_key`.
///
/// # Errors
/// When the recipient's key is none.
pub(crate) fn seal_keystore(unlocked: &Unlocked, recipient_key: &[u8]) -> Result<Vec<u8>, Refusal> {
    let transfer = KeystoreTransfer { header: unlocked.header.clone(), keys: keys(&unlocked.ring) };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(transfer.encoded_len()));
    transfer.encode(&mut *plaintext).map_err(internal)?;
    seal_to(recipient_key, transit::REPLICATE, &plaintext)
}

fn seal_to(recipient_key: &[u8], context: &[&[u8]], plaintext: &[u8]) -> Result<Vec<u8>, Refusal> {
    transit::seal_to(recipient_key, context, plaintext).map_err(|error| {
        let own = error != transit::TransitError::PublicKey;
        let reason = if own { Reason::Internal } else { Reason::InvalidRequest };
        Refusal::new(reason, error.to_string())
    })
}

/// Each of them wipes itself when it is dropped.
fn keys(ring: &KeyRing) -> Vec<GenerationKey> {
    ring.generations()
        .filter_map(|(generation, _)| Some((generation, ring.key(generation)?)))
        .map(|(generation, key)| GenerationKey {
            generation: generation.number(),
            // Expose: into the message that is sealed to the recipient.
            key: key.expose().to_vec(),
        })
        .collect()
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Internal, error.to_string())
}
