//! Tickets: what is inside one, and the text that stands for it (ESSO.md 5.2, 5.6).
//!
//! The text is `sso1.` and base64url (RFC 4648, without padding) of the sealed payload. Every ticket
//! has exactly one text, so that whoever keeps texts apart keeps tickets apart.
//!
//! The payload is
//!
//! ```text
//! version 1 ‖ flags u8 ‖ id 16 ‖ issued i64 BE ‖ expires i64 BE ‖ [audience 16]
//!   ‖ account ‖ server ‖ [subject] ‖ [account that logged on] ‖ [count u16 BE ‖ groups]
//! ```
//!
//! with times in microseconds since 1970, and texts with their length (u16, big-endian) before them.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sso_core::secret::{SecretBytes, SecretText};
use sso_proto::Reason;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, ApplicationId};
use crate::error::Error;

/// The most characters of a ticket.
pub const MAX_TICKET_CHARACTERS: usize = 4096;
/// What every ticket begins with.
const PREFIX: &str = "sso1.";
const VERSION: u8 = 1;

const VALIDATION_REQUIRED: u8 = 1;
const HAS_AUDIENCE: u8 = 2;
const HAS_GROUPS: u8 = 4;
const HAS_SUBJECT: u8 = 8;
const HAS_LOGON: u8 = 16;
const FLAGS: u8 = VALIDATION_REQUIRED | HAS_AUDIENCE | HAS_GROUPS | HAS_SUBJECT | HAS_LOGON;

/// What a ticket says, as it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Names it for ever.
    pub id: Uuid,
    /// Whom it was issued to.
    pub account: Account,
    /// What the identity source calls the account for ever; `None` where it has no such name.
    pub subject: Option<String>,
    /// Who logged the external user on that the ticket is of; `None` for one that was issued to the
    /// account itself.
    pub by_logon: Option<Account>,
    /// Canonical keys of the groups that came with the token of the account; `None` where the groups
    /// are looked up when the ticket is redeemed.
    pub token_groups: Option<BTreeSet<String>>,
    /// The server that issued it.
    pub server: String,
    /// When, to the microsecond.
    pub issued_at: OffsetDateTime,
    /// When it ends by the system's ticket timeout at that time, to the microsecond.
    pub expires_at: OffsetDateTime,
    /// The only application that takes it; `None` = any that asks for no audience.
    pub audience: Option<ApplicationId>,
    /// It must be validated against a sender.
    pub validation_required: bool,
}

impl Ticket {
    /// The payload; `None` when a text in it is longer than 65535 bytes.
    #[must_use]
    pub fn encode(&self) -> Option<SecretBytes> {
        let mut bytes = Vec::with_capacity(128);
        let flag = |on, flag| if on { flag } else { 0 };
        bytes.push(VERSION);
        bytes.push(
            flag(self.validation_required, VALIDATION_REQUIRED)
                | flag(self.audience.is_some(), HAS_AUDIENCE)
                | flag(self.token_groups.is_some(), HAS_GROUPS)
                | flag(self.subject.is_some(), HAS_SUBJECT)
                | flag(self.by_logon.is_some(), HAS_LOGON),
        );
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&micros(self.issued_at)?.to_be_bytes());
        bytes.extend_from_slice(&micros(self.expires_at)?.to_be_bytes());
        if let Some(audience) = self.audience {
            bytes.extend_from_slice(audience.as_bytes());
        }
        append(&mut bytes, self.account.as_str())?;
        append(&mut bytes, &self.server)?;
        if let Some(subject) = &self.subject {
            append(&mut bytes, subject)?;
        }
        if let Some(by_logon) = &self.by_logon {
            append(&mut bytes, by_logon.as_str())?;
        }
        if let Some(groups) = &self.token_groups {
            bytes.extend_from_slice(&u16::try_from(groups.len()).ok()?.to_be_bytes());
            groups.iter().try_for_each(|group| append(&mut bytes, group))?;
        }
        Some(SecretBytes::new(bytes))
    }

    /// The ticket of a payload; `None` for bytes that [`Self::encode`] does not give.
    #[must_use]
    pub fn decode(payload: &SecretBytes) -> Option<Self> {
        // Expose: what a ticket says is known to whoever may open it.
        let mut rest = Rest(payload.expose());
        let [version, flags] = rest.take()?;
        if version != VERSION || flags & !FLAGS != 0 {
            return None;
        }
        let id = Uuid::from_bytes(rest.take()?);
        let (issued_at, expires_at) = (rest.time()?, rest.time()?);
        let audience = match flags & HAS_AUDIENCE {
            0 => None,
            _ => Some(ApplicationId(Uuid::from_bytes(rest.take()?))),
        };
        let account = Account::parse(rest.text()?).ok()?;
        let server = rest.text()?.to_owned();
        let subject = match flags & HAS_SUBJECT {
            0 => None,
            _ => Some(rest.text()?.to_owned()),
        };
        let by_logon = match flags & HAS_LOGON {
            0 => None,
            _ => Some(Account::parse(rest.text()?).ok()?),
        };
        let token_groups = match flags & HAS_GROUPS {
            0 => None,
            _ => Some(rest.groups()?),
        };
        let validation_required = flags & VALIDATION_REQUIRED != 0;
        rest.0.is_empty().then_some(Self {
            id,
            account,
            subject,
            by_logon,
            token_groups,
            server,
            issued_at,
            expires_at,
            audience,
            validation_required,
        })
    }
}

/// The text of a sealed payload; `None` when it would be longer than [`MAX_TICKET_CHARACTERS`].
#[must_use]
pub fn ticket_text(sealed: &[u8]) -> Option<SecretText> {
    let mut text = PREFIX.to_owned();
    URL_SAFE_NO_PAD.encode_string(sealed, &mut text);
    let text = SecretText::new(text);
    (text.len() <= MAX_TICKET_CHARACTERS).then_some(text)
}

/// The sealed payload of a text. Takes one text only for each: no padding, no white space, no set
/// bits behind the last byte.
///
/// # Errors
/// `TICKET_MALFORMED`, before anything is decoded where the text is too long. The text is not
/// repeated.
pub fn ticket_bytes(text: &str) -> Result<Vec<u8>, Error> {
    let refuse = |why: &str| {
        let message = format!("the text is not a ticket: {why}");
        Error::new(Reason::TicketMalformed, message)
    };
    if text.len() > MAX_TICKET_CHARACTERS {
        return Err(refuse(&format!("it has more than {MAX_TICKET_CHARACTERS} characters")));
    }
    let encoded = text
        .strip_prefix(PREFIX)
        .ok_or_else(|| refuse(&format!("it does not begin with \"{PREFIX}\"")))?;
    URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| refuse("what follows the dot is not base64url without padding"))
}

/// The time cut to what a ticket keeps of it.
#[must_use]
pub fn to_micros(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(time.nanosecond() / 1000 * 1000).unwrap_or(time)
}

fn micros(time: OffsetDateTime) -> Option<i64> {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).ok()
}

fn append(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

/// What is left of a payload.
struct Rest<'p>(&'p [u8]);

impl<'p> Rest<'p> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn time(&mut self) -> Option<OffsetDateTime> {
        let micros = i64::from_be_bytes(self.take()?);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
    }

    fn text(&mut self) -> Option<&'p str> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// In ascending order and each once, as they are written.
    fn groups(&mut self) -> Option<BTreeSet<String>> {
        let mut groups = BTreeSet::new();
        for _ in 0..self.number()? {
            let group = self.text()?;
            if groups.last().is_some_and(|last: &String| last.as_str() >= group) {
                return None;
            }
            groups.insert(group.to_owned());
        }
        Some(groups)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            id: Uuid::from_u128(7),
            account: Account::parse("DEV\\Ann").unwrap(),
            subject: None,
            by_logon: None,
            token_groups: None,
            server: "sso-server-1".into(),
            issued_at: datetime!(2030-05-01 12:00:00.000_001 UTC),
            expires_at: datetime!(2030-05-01 12:02:00.000_001 UTC),
            audience: None,
            validation_required: true,
        }
    }

    fn tickets() -> impl Strategy<Value = Ticket> {
        let groups = proptest::option::of(proptest::collection::btree_set("[a-z\\\\ä]{0,9}", 0..5));
        let name = "[A-Za-z]{1,9}";
        (any::<u128>(), name, groups, name, any::<Option<u128>>(), any::<bool>(), 0_i64..1 << 50)
            .prop_map(|(id, name, token_groups, server, audience, validation_required, at)| {
                let time = |at: i64| {
                    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000).unwrap()
                };
                Ticket {
                    id: Uuid::from_u128(id),
                    account: Account::parse(&format!("D\\x{name}")).unwrap(),
                    subject: token_groups.as_ref().map(|_| server.clone()),
                    by_logon: validation_required
                        .then(|| Account::parse(&format!("D\\h{server}")).unwrap()),
                    token_groups,
                    server,
                    issued_at: time(at),
                    expires_at: time(at / 2),
                    audience: audience.map(|id| ApplicationId(Uuid::from_u128(id))),
                    validation_required,
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(ticket in tickets()) {
            let decoded = Ticket::decode(&ticket.encode().unwrap()).unwrap();
            prop_assert_eq!(decoded.account.as_str(), ticket.account.as_str());
            prop_assert_eq!(decoded, ticket);
        }

        #[test]
        fn any_bytes_decode_to_nothing_or_to_what_encodes_to_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some(ticket) = Ticket::decode(&SecretBytes::new(bytes.clone())) {
                let again = ticket.encode().unwrap();
                prop_assert_eq!(again.expose(), bytes);
            }
        }

        #[test]
        fn damaged_payloads_decode_to_nothing_or_to_what_encodes_to_them(
            ticket in tickets(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = ticket.encode().unwrap().expose().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(ticket) = Ticket::decode(&SecretBytes::new(bytes.clone())) {
                let again = ticket.encode().unwrap();
                prop_assert_eq!(again.expose(), bytes);
            }
        }

        #[test]
        fn a_text_stands_for_the_bytes_it_decodes_to_and_no_other_does(text in "sso1\\.[A-Za-z0-9_=+/ -]{0,40}") {
            if let Ok(bytes) = ticket_bytes(&text) {
                let again = ticket_text(&bytes).unwrap();
                prop_assert_eq!(again.expose(), text);
            }
        }

        #[test]
        fn any_text_is_refused_or_decoded(text in "\\PC{0,60}") {
            if let Err(error) = ticket_bytes(&text) {
                prop_assert_eq!(error.reason, Reason::TicketMalformed);
            }
        }
    }

    #[test]
    fn truncated_or_longer_payloads_are_none() {
        let mut whole = ticket();
        whole.token_groups = Some(["dev\\a".to_owned(), "dev\\b".to_owned()].into());
        whole.subject = Some("https://idp.example|8f".into());
        whole.by_logon = Some(Account::parse("DEV\\Host").unwrap());
        whole.audience = Some(ApplicationId::generate());
        let bytes = whole.encode().unwrap().expose().to_vec();
        for length in 0..bytes.len() {
            assert_eq!(Ticket::decode(&bytes[..length].to_vec().into()), None, "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Ticket::decode(&longer.into()), None);
        for (at, byte) in [(0, 2), (0, 0), (1, 0xff), (1, 32)] {
            let mut other = bytes.clone();
            other[at] = byte;
            assert_eq!(Ticket::decode(&other.into()), None, "{at} {byte}");
        }
    }

    #[test]
    fn other_spellings_of_a_text_are_refused() {
        // One byte: two characters, of which the second has four bits that must be zero.
        let text = ticket_text(&[0xff]).unwrap();
        assert_eq!(text.expose(), "sso1._w");
        assert_eq!(ticket_bytes("sso1._w").unwrap(), [0xff]);
        for other in [
            "sso1._x",
            "sso1._w==",
            "sso1._w=",
            "sso1./w",
            "sso1._w\n",
            " sso1._w",
            "sso1._w ",
            "sso1. _w",
            "SSO1._w",
            "sso1_w",
            "sso2._w",
            "_w",
            "",
            "sso1",
            "sso1.sso1._w",
            "sso1._",
            "sso1._w\0",
            "sso1._ẃ",
        ] {
            assert_eq!(ticket_bytes(other).unwrap_err().reason, Reason::TicketMalformed, "{other}");
        }
    }

    #[test]
    fn the_size_is_checked_before_anything_is_decoded() {
        let most = MAX_TICKET_CHARACTERS;
        let text = |length: usize| format!("sso1.{}", "A".repeat(length - 5));
        assert!(ticket_bytes(&text(most - 1)).is_ok());
        let refused = ticket_bytes(&text(most + 1)).unwrap_err();
        assert!(refused.message.contains("4096"), "{refused}");
        assert!(ticket_text(&[0; 3068]).is_some());
        assert!(ticket_text(&[0; 3069]).is_none());
    }

    #[test]
    fn a_refused_text_is_not_repeated() {
        let refused = ticket_bytes("sso1.canary-ticket!").unwrap_err();
        assert!(!refused.message.contains("canary"), "{refused}");
    }

    #[test]
    fn times_are_cut_to_microseconds() {
        let time = datetime!(2030-05-01 12:00:00.123_456_789 UTC);
        assert_eq!(to_micros(time), datetime!(2030-05-01 12:00:00.123_456 UTC));
    }
}
