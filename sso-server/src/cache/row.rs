//! A row of the database as it is remembered: a mapping or a configuration, in one piece of memory.
//! Values are sealed in it.

use time::OffsetDateTime;
use triomphe::ThinArc;
use uuid::Uuid;

use crate::{
    changes::Tick,
    model::{
        Account, ApplicationId, ConfigurationId, ExternalUser, Identifier, MappingId, MappingState,
        Revision, ServingMapping,
    },
    storage::{StoredConfiguration, StoredMapping},
};

/// What a row takes beside its piece of memory, about: its place in the cache, and what the allocator
/// adds.
const BESIDE: u64 = 64;

/// One remembered row. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Row(ThinArc<Head, u8>);

/// Of fixed size, before the texts and the sealed bytes.
#[derive(Debug)]
struct Head {
    application: ApplicationId,
    /// Of the mapping or the configuration.
    id: Uuid,
    read: Tick,
    /// Microseconds since the epoch: a mapping was created, a configuration written then.
    at: i64,
    /// Seconds by the clock of leases; it is not served from then on.
    until: u32,
    /// The generation the values are sealed under; 0 = there are none.
    generation: u32,
    /// The account of a mapping, the identifier of a configuration.
    name: Spelled,
    /// The external user of a mapping; of a configuration the number of its revision.
    other: Spelled,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mapping(MappingState),
    Configuration,
}

/// How long a text and its canonical form are.
#[derive(Clone, Copy, Debug)]
struct Spelled {
    text: u16,
    /// 0 = the text in lower case of ASCII, as nearly all are.
    key: u16,
}

/// Sealed bytes, remembered or just read.
#[derive(Debug)]
pub enum Sealed {
    /// As they were read.
    Read(Vec<u8>),
    /// Within a remembered row.
    Kept(KeptSealed),
}

/// The sealed bytes of a remembered row.
#[derive(Debug)]
pub struct KeptSealed(Row);

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Kept(KeptSealed(row)) => row.parts().sealed,
        }
    }
}

/// A mapping that is about to serve.
#[derive(Debug)]
pub struct FoundMapping {
    /// The mapping.
    pub mapping: ServingMapping,
    /// Its credentials; `None` where none were set.
    pub sealed: Option<Sealed>,
}

impl From<StoredMapping> for FoundMapping {
    fn from(stored: StoredMapping) -> Self {
        let sealed = stored.credentials.map(|credentials| Sealed::Read(credentials.sealed));
        Self { mapping: stored.mapping.into(), sealed }
    }
}

/// A configuration that is about to be handed out.
#[derive(Debug)]
pub struct FoundConfiguration {
    /// Names it for ever.
    pub id: ConfigurationId,
    /// As first written.
    pub identifier: Identifier,
    /// The newest.
    pub revision: Revision,
    /// When that was written.
    pub updated_at: OffsetDateTime,
    /// Its values.
    pub sealed: Sealed,
}

impl From<StoredConfiguration> for FoundConfiguration {
    fn from(StoredConfiguration { head, sealed, .. }: StoredConfiguration) -> Self {
        Self {
            id: head.id,
            identifier: head.identifier,
            revision: head.revision,
            updated_at: head.updated_at,
            sealed: Sealed::Read(sealed),
        }
    }
}

/// The bytes of a row, taken apart.
struct Parts<'a> {
    name: &'a [u8],
    name_key: &'a [u8],
    other: &'a [u8],
    other_key: &'a [u8],
    sealed: &'a [u8],
}

impl Row {
    /// A mapping that was read under this tick; `None` for what does not fit in a row.
    pub(super) fn of_mapping(stored: &StoredMapping, read: Tick, until: u32) -> Option<Self> {
        let (mapping, credentials) = (&stored.mapping, stored.credentials.as_ref());
        let mut bytes = Vec::new();
        let account = &mapping.account;
        let name = put(&mut bytes, account.as_str(), account.key())?;
        let user = &mapping.external_user;
        let other = put(&mut bytes, user.as_str(), user.key())?;
        bytes.extend_from_slice(credentials.map_or(&[], |it| &it.sealed));
        let head = Head {
            application: mapping.application,
            id: mapping.id.0,
            read,
            at: micros(mapping.created_at)?,
            until,
            generation: credentials.map_or(0, |credentials| credentials.generation),
            name,
            other,
            kind: Kind::Mapping(mapping.state),
        };
        Some(Self(ThinArc::from_header_and_slice(head, &bytes)))
    }

    /// A configuration of this application that was read under this tick.
    pub(super) fn of_configuration(
        application: ApplicationId,
        stored: &StoredConfiguration,
        read: Tick,
        until: u32,
    ) -> Option<Self> {
        let of = &stored.head;
        let mut bytes = Vec::new();
        let name = put(&mut bytes, of.identifier.as_str(), of.identifier.key())?;
        let revision = of.revision.0.to_le_bytes();
        bytes.extend_from_slice(&revision);
        bytes.extend_from_slice(&stored.sealed);
        let head = Head {
            application,
            id: of.id.0,
            read,
            at: micros(of.updated_at)?,
            until,
            generation: stored.generation,
            name,
            other: Spelled { text: u16::try_from(revision.len()).ok()?, key: 0 },
            kind: Kind::Configuration,
        };
        Some(Self(ThinArc::from_header_and_slice(head, &bytes)))
    }

    pub(super) fn application(&self) -> ApplicationId {
        self.0.header.header.application
    }

    pub(super) fn id(&self) -> Uuid {
        self.0.header.header.id
    }

    pub(super) fn read(&self) -> Tick {
        self.0.header.header.read
    }

    pub(super) fn until(&self) -> u32 {
        self.0.header.header.until
    }

    /// The generation of the values, where there are any.
    pub(super) fn generation(&self) -> Option<u32> {
        Some(self.0.header.header.generation).filter(|generation| *generation != 0)
    }

    /// Whether this is the mapping of the account with this canonical name.
    pub(super) fn is_of_account(&self, application: ApplicationId, key: &str) -> bool {
        let head = &self.0.header.header;
        let parts = self.parts();
        head.application == application
            && matches!(head.kind, Kind::Mapping(_))
            && is_key(head.name, parts.name, parts.name_key, key)
    }

    /// Whether this is a mapping of the external user with this canonical name.
    pub(super) fn is_of_external_user(&self, application: ApplicationId, key: &str) -> bool {
        let head = &self.0.header.header;
        let parts = self.parts();
        head.application == application
            && matches!(head.kind, Kind::Mapping(_))
            && is_key(head.other, parts.other, parts.other_key, key)
    }

    /// Whether this is the configuration of this canonical identifier.
    pub(super) fn is_of_identifier(&self, application: ApplicationId, key: &str) -> bool {
        let head = &self.0.header.header;
        let parts = self.parts();
        head.application == application
            && head.kind == Kind::Configuration
            && is_key(head.name, parts.name, parts.name_key, key)
    }

    /// The mapping; `None` where this is none.
    pub(super) fn mapping(&self) -> Option<FoundMapping> {
        let (head, parts) = (&self.0.header.header, self.parts());
        let Kind::Mapping(state) = head.kind else { return None };
        let account = spelled(parts.name, parts.name_key, Account::from_parts)?;
        let external_user = spelled(parts.other, parts.other_key, ExternalUser::from_parts)?;
        let mapping = ServingMapping {
            id: MappingId(head.id),
            application: head.application,
            account,
            external_user,
            state,
            created_at: moment(head.at)?,
        };
        let sealed = (head.generation != 0).then(|| Sealed::Kept(KeptSealed(self.clone())));
        Some(FoundMapping { mapping, sealed })
    }

    /// The configuration; `None` where this is none.
    pub(super) fn configuration(&self) -> Option<FoundConfiguration> {
        let (head, parts) = (&self.0.header.header, self.parts());
        if head.kind != Kind::Configuration {
            return None;
        }
        Some(FoundConfiguration {
            id: ConfigurationId(head.id),
            identifier: spelled(parts.name, parts.name_key, Identifier::from_parts)?,
            revision: Revision(u64::from_le_bytes(parts.other.try_into().ok()?)),
            updated_at: moment(head.at)?,
            sealed: Sealed::Kept(KeptSealed(self.clone())),
        })
    }

    /// Bytes of memory that it takes.
    pub(super) fn weight(&self) -> u64 {
        let bytes = size_of::<Head>() + 2 * size_of::<usize>() + self.0.slice.len();
        u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(BESIDE)
    }

    fn parts(&self) -> Parts<'_> {
        let head = &self.0.header.header;
        let mut rest = &self.0.slice;
        let mut next = |length: u16| {
            let (part, behind) = rest.split_at_checked(length.into()).unwrap_or((&[], rest));
            rest = behind;
            part
        };
        let (name, name_key) = (next(head.name.text), next(head.name.key));
        let (other, other_key) = (next(head.other.text), next(head.other.key));
        Parts { name, name_key, other, other_key, sealed: rest }
    }
}

/// Puts a text and, where it is not the text in lower case, its canonical form.
fn put(bytes: &mut Vec<u8>, text: &str, key: &str) -> Option<Spelled> {
    bytes.extend_from_slice(text.as_bytes());
    let text_length = u16::try_from(text.len()).ok()?;
    if is_lower_case_of(key.as_bytes(), text.as_bytes()) {
        return Some(Spelled { text: text_length, key: 0 });
    }
    bytes.extend_from_slice(key.as_bytes());
    Some(Spelled { text: text_length, key: u16::try_from(key.len()).ok()? })
}

fn is_lower_case_of(key: &[u8], text: &[u8]) -> bool {
    key.len() == text.len()
        && key.iter().zip(text).all(|(key, text)| *key == text.to_ascii_lowercase())
}

fn is_key(spelled: Spelled, text: &[u8], key: &[u8], asked: &str) -> bool {
    match spelled.key {
        0 => is_lower_case_of(asked.as_bytes(), text),
        _ => key == asked.as_bytes(),
    }
}

/// The noun of a text and its canonical form.
fn spelled<T>(text: &[u8], key: &[u8], noun: impl Fn(&str, &str) -> T) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    if key.is_empty() {
        return Some(noun(text, &text.to_ascii_lowercase()));
    }
    Some(noun(text, std::str::from_utf8(key).ok()?))
}

fn micros(at: OffsetDateTime) -> Option<i64> {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).ok()
}

fn moment(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}
