//! The id of a request: in its log lines, its audit record and its answer.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use uuid::{Builder, Uuid, fmt::Hyphenated};

/// Header of a request id, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

thread_local! {
    static NEXT: Cell<Option<Stream>> = const { Cell::new(None) };
}

/// Numbers that nobody else draws: where a thread begins is random, and it never comes back there. They
/// are no secret, and nothing depends on their not being guessed.
#[derive(Clone, Copy)]
struct Stream {
    fixed: u64,
    next: u64,
}

impl Stream {
    fn begin() -> Self {
        let (fixed, next) = Uuid::new_v4().as_u64_pair();
        Self { fixed, next }
    }

    /// Ten bytes, of which the last are scattered so that ids differ at a glance (splitmix64).
    fn draw(&mut self) -> [u8; 10] {
        self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.next;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let [a, b, ..] = self.fixed.to_le_bytes();
        let [c, d, e, f, g, h, i, j] = mixed.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j]
    }
}

/// The id the client sent, where it is a UUID, or a new one of this time.
pub(super) fn request_id(headers: &HeaderMap, now: impl FnOnce() -> OffsetDateTime) -> Uuid {
    headers
        .get(REQUEST_ID)
        .and_then(|value| Uuid::try_parse_ascii(value.as_bytes()).ok())
        .unwrap_or_else(|| new(now()))
}

/// A UUID of version 7: the time in milliseconds, and then what no other has.
fn new(now: OffsetDateTime) -> Uuid {
    let mut stream = NEXT.take().unwrap_or_else(Stream::begin);
    let random = stream.draw();
    NEXT.set(Some(stream));
    let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Puts the id into the headers of an answer.
pub(super) fn answer_with(headers: &mut HeaderMap, id: Uuid) {
    let mut text = [0; Hyphenated::LENGTH];
    let text = id.as_hyphenated().encode_lower(&mut text);
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    #[test]
    fn no_two_ids_are_the_same_whoever_makes_them() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..10_000).map(|_| new(at(5))).collect::<Vec<_>>()))
            .collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|made| made.join().unwrap()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 40_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(new(at(6)) > ids[0] && ids[0] > new(at(4)), "they sort by time");
    }

    #[test]
    fn the_id_of_the_client_is_kept_where_it_is_one() {
        let mut headers = HeaderMap::new();
        let own = request_id(&headers, || at(5));
        assert_eq!(own.get_version_num(), 7);
        answer_with(&mut headers, own);
        assert_eq!(headers.get("x-request-id").unwrap(), &own.to_string());
        assert_eq!(request_id(&headers, || at(6)), own);
        headers.insert(REQUEST_ID, HeaderValue::from_static("not-an-id"));
        assert_ne!(request_id(&headers, || at(6)), own);
    }
}
