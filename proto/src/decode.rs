//! Decoding of messages that contain keys.

use prost::{
    DecodeError, Message,
    bytes::{Buf, Bytes},
};
use zeroize::Zeroizing;

/// The message that was encoded. The decoder copies every field of bytes before it puts it into the
/// message, and lets go of the copy as it is; here the copies wipe themselves.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode_keys<M: Message + Default>(encoded: &[u8]) -> Result<M, DecodeError> {
    M::decode(Wiping(encoded))
}

/// Bytes whose copies wipe themselves.
struct Wiping<'a>(&'a [u8]);

impl Buf for Wiping<'_> {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        self.0
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        // The decoder has checked that so many are there.
        let (copied, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        Bytes::from_owner(Zeroizing::new(copied.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::v1::{GenerationKey, KeyRingTransfer};

    #[test]
    fn it_decodes_as_ever_and_refuses_what_is_cut() {
        let generations =
            (1..=3).map(|byte| GenerationKey { generation: byte.into(), key: vec![byte; 32] });
        let transfer = KeyRingTransfer { generations: generations.collect(), active_generation: 3 };
        let encoded = transfer.encode_to_vec();
        assert!(decode_keys::<KeyRingTransfer>(&encoded).unwrap() == transfer);
        for length in 1..encoded.len() {
            let cut = decode_keys::<KeyRingTransfer>(&encoded[..length]);
            assert!(cut.is_err() || cut.unwrap() != transfer, "{length}");
        }
    }

    #[test]
    fn copies_are_taken_through_the_wiping_hands() {
        let mut bytes = Wiping(b"abcdef");
        assert_eq!(&*bytes.copy_to_bytes(4), b"abcd");
        assert_eq!((bytes.remaining(), bytes.chunk()), (2, &b"ef"[..]));
    }
}
