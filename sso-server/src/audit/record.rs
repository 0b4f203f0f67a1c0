//! The form of a record in the journal and in a batch: a length, a checksum, then a body whose first
//! byte says its version. Encoded from borrowed fields into a buffer, decoded as views of the bytes.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{AuditOutcome, AuditRecord};

/// Bytes before the body: its length and its checksum (CRC-32), each four bytes, the lowest first.
const HEAD: usize = 8;
const VERSION: u8 = 1;
/// Bytes of a field; what is longer is cut.
const LONGEST_FIELD: usize = u16::MAX as usize;
/// No record is longer: six fields, and what has a fixed size.
pub(super) const LONGEST: usize = 512 * 1024;

/// A record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) id: Uuid,
    /// Microseconds since the Unix epoch.
    pub(super) at: i64,
    pub(super) request_id: Uuid,
    pub(super) outcome: AuditOutcome,
    pub(super) caller: &'a str,
    pub(super) action: &'a str,
    pub(super) application: &'a str,
    pub(super) object: &'a str,
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
}

/// What stands at a place where a record may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A record of so many bytes.
    Record(Record<'a>, usize),
    /// Nothing: no bytes, or zeros.
    End,
    /// Part of a record, as the bytes end too early.
    Cut,
    /// Something else, or a record that was changed.
    Damaged(&'static str),
}

impl Record<'_> {
    /// Appends it to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        out.push(VERSION);
        out.push(match self.outcome {
            AuditOutcome::Done => 0,
            AuditOutcome::Denied => 1,
        });
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.request_id.as_bytes());
        for field in self.fields() {
            let field = cut(field);
            let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        let (_, record) = out.split_at_mut(start);
        if let Some((head, body)) = record.split_first_chunk_mut::<HEAD>() {
            *head = head_of(body);
        }
    }

    fn fields(&self) -> [&str; 6] {
        [self.caller, self.action, self.application, self.object, self.reason, self.detail]
    }

    /// The record as it is listed, written by this server.
    pub(super) fn to_owned(self, server: &str) -> AuditRecord {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at) * 1000);
        AuditRecord {
            id: self.id,
            at: at.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            server: server.to_owned(),
            request_id: self.request_id.to_string(),
            caller: self.caller.to_owned(),
            action: self.action.to_owned(),
            application: self.application.to_owned(),
            object: self.object.to_owned(),
            outcome: self.outcome,
            reason: self.reason.to_owned(),
            detail: self.detail.to_owned(),
        }
    }
}

/// What stands before these bytes, so that a change of them is noticed.
pub(super) fn head_of(body: &[u8]) -> [u8; HEAD] {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_le_bytes();
    let [e, f, g, h] = crc32fast::hash(body).to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// The bytes behind their head, as [`head_of`] made it; and how many bytes both are. `None` where the
/// given ones end too early.
pub(super) fn body_of(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [a, b, c, d, _, _, _, _] = *head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length == 0 || length > LONGEST {
        return Err("its length is none of a record");
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    if head_of(body) != *head {
        return Err("its checksum is another one");
    }
    Ok(Some((body, HEAD + length)))
}

/// Reads the record that begins where `bytes` begin.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    if bytes.is_empty() || bytes.first_chunk::<HEAD>() == Some(&[0; HEAD]) {
        return Next::End;
    }
    match body_of(bytes) {
        Ok(None) => Next::Cut,
        Ok(Some((body, size))) => match parse(body) {
            Some(record) => Next::Record(record, size),
            None => Next::Damaged("it is of a version that this program does not know"),
        },
        Err(why) => Next::Damaged(why),
    }
}

fn parse(body: &[u8]) -> Option<Record<'_>> {
    let (version, rest) = body.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (outcome, rest) = rest.split_first()?;
    let outcome = match outcome {
        0 => AuditOutcome::Done,
        1 => AuditOutcome::Denied,
        _ => return None,
    };
    let (at, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (request_id, mut rest) = rest.split_first_chunk()?;
    let mut field = || {
        let (length, behind) = rest.split_first_chunk()?;
        let (field, behind) = behind.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = behind;
        std::str::from_utf8(field).ok()
    };
    let record = Record {
        id: Uuid::from_bytes(*id),
        at: i64::from_le_bytes(*at),
        request_id: Uuid::from_bytes(*request_id),
        outcome,
        caller: field()?,
        action: field()?,
        application: field()?,
        object: field()?,
        reason: field()?,
        detail: field()?,
    };
    rest.is_empty().then_some(record)
}

fn cut(field: &str) -> &str {
    if field.len() <= LONGEST_FIELD {
        return field;
    }
    field.get(..field.floor_char_boundary(LONGEST_FIELD)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(texts: &[String; 6], at: i64, denied: bool) -> Record<'_> {
        let [caller, action, application, object, reason, detail] = texts;
        let outcome = if denied { AuditOutcome::Denied } else { AuditOutcome::Done };
        let (id, request_id) = (Uuid::from_u128(7), Uuid::from_u128(u128::MAX));
        Record { id, at, request_id, outcome, caller, action, application, object, reason, detail }
    }

    fn texts() -> impl Strategy<Value = [String; 6]> {
        prop::array::uniform6(".{0,40}")
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(texts in texts(), at: i64, denied: bool, more: Vec<u8>) {
            let record = record(&texts, at, denied);
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let size = bytes.len();
            bytes.extend(more);
            prop_assert_eq!(next(&bytes), Next::Record(record, size));
        }

        #[test]
        fn cut_and_changed_records_are_noticed(
            texts in texts(), at: i64, place: prop::sample::Index, bit in 0_u8..8
        ) {
            let record = record(&texts, at, false);
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let place = place.index(bytes.len());
            prop_assert_eq!(next(&bytes[..place]), if place == 0 { Next::End } else { Next::Cut });
            bytes[place] ^= 1 << bit;
            prop_assert!(matches!(next(&bytes), Next::Cut | Next::Damaged(_)), "{:?}", next(&bytes));
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            prop_assert!(!matches!(next(&bytes), Next::Record(..)));
            // Nor behind a head that fits them.
            let mut framed = head_of(&bytes).to_vec();
            framed.extend(&bytes);
            let _ = next(&framed);
        }
    }

    #[test]
    fn zeros_end_a_file() {
        assert_eq!(next(&[0; 100]), Next::End);
        assert_eq!(next(&[0; 3]), Next::Cut);
        assert_eq!(next(&[]), Next::End);
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        let texts = std::array::from_fn(|_| "ö".repeat(50_000));
        let record = record(&texts, 0, false);
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert!(bytes.len() < LONGEST);
        let Next::Record(read, _) = next(&bytes) else { panic!("no record") };
        assert_eq!(read.detail.len(), 65_534);
    }
}
