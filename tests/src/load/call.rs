//! Requests as bytes that are made once, and calls that give and take nothing but bytes: what the load
//! generator spends is missing to the server on the same machine.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// Digits of a number in a template: up to ten million different requests.
pub const DIGITS: usize = 7;

/// What a template says in place of a number.
pub const NUMBER: &str = "#######";

/// What is sent to a method.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The same each time.
    Same(Bytes),
    /// A message in which [`NUMBER`] stands for a random number below `below`.
    Numbered {
        /// The message.
        template: Bytes,
        /// Where the number stands in it.
        at: Arc<[usize]>,
        /// How many different ones there are.
        below: u64,
    },
    /// Any of these.
    Any(Arc<[Bytes]>),
    /// Each of these once; then there is nothing left to send.
    Once(Arc<Pool>),
}

/// Messages that are sent once each.
#[derive(Debug)]
pub struct Pool {
    messages: Vec<Bytes>,
    next: AtomicUsize,
}

impl Payload {
    /// A message with [`NUMBER`] in it, for a number below `below`.
    #[must_use]
    pub fn numbered(message: Vec<u8>, below: u64) -> Self {
        let at: Vec<_> = message
            .windows(DIGITS)
            .enumerate()
            .filter_map(|(at, window)| (window == NUMBER.as_bytes()).then_some(at))
            .collect();
        Self::Numbered { template: message.into(), at: at.into(), below: below.max(1) }
    }

    /// Each of these messages once.
    #[must_use]
    pub fn once(messages: Vec<Bytes>) -> Self {
        Self::Once(Arc::new(Pool { messages, next: AtomicUsize::new(0) }))
    }

    /// The next message; `None` when nothing is left.
    #[must_use]
    pub fn next(&self, random: &Random) -> Option<Bytes> {
        match self {
            Self::Same(message) => Some(message.clone()),
            Self::Numbered { template, at, below } => {
                let mut message = BytesMut::from(&template[..]);
                let digits = digits(random.below(*below));
                for at in at.iter() {
                    message.get_mut(*at..at + DIGITS)?.copy_from_slice(&digits);
                }
                Some(message.freeze())
            }
            Self::Any(messages) => {
                let count = u64::try_from(messages.len()).ok()?;
                messages.get(usize::try_from(random.below(count)).ok()?).cloned()
            }
            Self::Once(pool) => {
                pool.messages.get(pool.next.fetch_add(1, Ordering::Relaxed)).cloned()
            }
        }
    }

    /// How long a message is.
    #[must_use]
    pub fn length(&self) -> usize {
        let first = match self {
            Self::Same(message) | Self::Numbered { template: message, .. } => Some(message),
            Self::Any(messages) => messages.first(),
            Self::Once(pool) => pool.messages.first(),
        };
        first.map_or(0, Bytes::len)
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    digits
}

/// Cheap random numbers (xorshift64*), each thread with its own seed: for the choice of keys alone.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        let number = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        // The upper half of the product is even enough, and needs no division.
        u64::try_from((u128::from(number) * u128::from(limit)) >> 64).unwrap_or_default()
    }
}

/// How many bytes the answer to a unary call has.
///
/// # Errors
/// What the server answers.
pub async fn call(channel: &Channel, path: &PathAndQuery, message: Bytes) -> Result<usize, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc.unary(Request::new(message), path.clone(), Opaque).await?.into_inner())
}

/// Sends bytes, and counts those that come.
#[derive(Clone, Copy, Debug)]
struct Opaque;

impl Codec for Opaque {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Opaque {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Opaque {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = from.remaining();
        from.advance(length);
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_number_of_a_template_is_another_one_each_time_and_below_the_limit() {
        let message = format!("a C{NUMBER} b U{NUMBER}").into_bytes();
        let payload = Payload::numbered(message, 1000);
        assert_eq!(payload.length(), 21);
        let random = Random::new(7);
        let mut seen = BTreeSet::new();
        for _ in 0..5000 {
            let text = String::from_utf8(payload.next(&random).unwrap().to_vec()).unwrap();
            let (one, two) = (&text[3..10], &text[14..21]);
            assert_eq!(one, two);
            let number: u64 = one.parse().unwrap();
            assert!(number < 1000);
            seen.insert(number);
        }
        assert!(seen.len() > 980, "{} of 1000 in 5000 draws", seen.len());
    }

    #[test]
    fn what_is_sent_once_is_never_sent_again() {
        let messages = (0..100_u8).map(|byte| Bytes::from(vec![byte]));
        let payload = Payload::once(messages.collect());
        let random = Random::new(1);
        let threads: Vec<Vec<Bytes>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..4)
                .map(|seed| {
                    let payload = payload.clone();
                    scope.spawn(move || {
                        let random = Random::new(seed);
                        std::iter::from_fn(|| payload.next(&random)).collect()
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sent: Vec<_> = threads.into_iter().flatten().collect();
        assert_eq!((sent.len(), sent.iter().collect::<BTreeSet<_>>().len()), (100, 100));
        assert!(payload.next(&random).is_none());
    }

    #[test]
    fn random_numbers_reach_every_part_of_the_range() {
        let random = Random::new(3);
        let mut tenths = [0_u32; 10];
        for _ in 0..100_000 {
            tenths[usize::try_from(random.below(1_000_000) / 100_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (9_000..11_000).contains(count)), "{tenths:?}");
        assert_eq!(random.below(1), 0);
    }
}
