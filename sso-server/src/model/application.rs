//! Affiliate applications and their fields (ESSO.md 3).

use sso_proto::Reason;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, Accounts, ApplicationFlag, ApplicationFlags, ApplicationName, Caller, Label};
use crate::error::Error;

/// Minutes of a year: no ticket lasts longer (ESSO.md 5.1).
const MAX_TICKET_TIMEOUT: u32 = 525_600;
const MAX_DESCRIPTION: usize = 4096;
const MAX_CONTACT: usize = 255;

/// Names one application for ever: deleting and creating again under the same name gives another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApplicationId(pub Uuid);

impl ApplicationId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes that seals are bound to.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What an application keeps (ESSO.md 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationType {
    /// One mapping for each user.
    Individual,
    /// One mapping for each of its user accounts, which may be groups.
    Group,
    /// Encrypted configurations under identifiers.
    ConfigStore,
    /// Many external users, one account.
    HostGroup,
}

impl ApplicationType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Individual, Self::Group, Self::ConfigStore, Self::HostGroup];

    /// The word stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Individual => "individual",
            Self::Group => "group",
            Self::ConfigStore => "config-store",
            Self::HostGroup => "host-group",
        }
    }

    /// The type of this word; `None` for one this version does not keep.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether credentials are sealed to the account of their mapping; not in a host group application,
    /// whose windows account may change.
    #[must_use]
    pub fn seals_account(self) -> bool {
        self != Self::HostGroup
    }

    /// How many fields an application of this type has at most (ESSO.md 3.5).
    #[must_use]
    pub fn max_fields(self) -> usize {
        match self {
            Self::ConfigStore => 256,
            Self::Individual | Self::Group | Self::HostGroup => 64,
        }
    }

    /// Whether it keeps mappings.
    #[must_use]
    pub fn has_mappings(self) -> bool {
        self != Self::ConfigStore
    }
}

/// One field of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// 0-based place; 0 is the slot of the external user id.
    pub ordinal: u16,
    /// Shown to people and used as the key of values.
    pub label: Label,
    /// Withheld in admin mode.
    pub masked: bool,
    /// Holds the password that password synchronisation changes.
    pub synchronized: bool,
}

/// A field as given by a caller, before it stands in an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldUpdate {
    /// The place the caller wants it at.
    pub ordinal: u32,
    /// Its label, not yet parsed.
    pub label: String,
    /// Whether it is to be masked.
    pub masked: bool,
    /// Whether password synchronisation changes it.
    pub synchronized: bool,
}

/// The fields of one application: at least one, contiguous from 0, labels unique, field 0 unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Orders and checks the fields given. The mask of field 0 is ignored (ESSO.md 3.5); the flag
    /// returned says that this happened.
    ///
    /// # Errors
    /// `INVALID_FIELDS` for none, too many, gaps, repeated labels or several synchronized ones;
    /// `INVALID_NAME` for a bad label.
    pub fn parse(kind: ApplicationType, given: Vec<FieldUpdate>) -> Result<(Self, bool), Error> {
        let most = kind.max_fields();
        if given.is_empty() || given.len() > most {
            let message = format!(
                "an application of type {} has 1 to {most} fields, not {}",
                kind.as_str(),
                given.len()
            );
            return Err(Error::new(Reason::InvalidFields, message));
        }
        if given.iter().filter(|field| field.synchronized).count() > 1 {
            let message = "at most one field of an application is synchronized";
            return Err(Error::new(Reason::InvalidFields, message));
        }
        let mut given = given;
        given.sort_by_key(|field| field.ordinal);
        let mask_ignored = given.first().is_some_and(|field| field.masked);
        let mut fields: Vec<Field> = Vec::with_capacity(given.len());
        for (ordinal, field) in (0_u16..).zip(given) {
            if field.ordinal != u32::from(ordinal) {
                return Err(Error::new(
                    Reason::InvalidFields,
                    format!(
                        "field ordinals must run from 0 without gaps; {ordinal} is missing or given twice"
                    ),
                ));
            }
            let label = Label::parse(&field.label)?;
            if fields.iter().any(|other| other.label == label) {
                return Err(Error::new(
                    Reason::InvalidFields,
                    format!("the label \"{label}\" is given to two fields"),
                ));
            }
            if field.synchronized && ordinal == 0 {
                let message = "field 0 is the external user and holds no password to synchronize";
                return Err(Error::new(Reason::InvalidFields, message));
            }
            let (masked, synchronized) = (field.masked && ordinal != 0, field.synchronized);
            fields.push(Field { ordinal, label, masked, synchronized });
        }
        Ok((Self(fields), mask_ignored))
    }

    /// Fields as they are stored.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_stored(kind: ApplicationType, fields: Vec<Field>) -> Result<Self, Error> {
        let given = fields
            .into_iter()
            .map(|field| FieldUpdate {
                ordinal: u32::from(field.ordinal),
                label: field.label.as_str().to_owned(),
                masked: field.masked,
                synchronized: field.synchronized,
            })
            .collect();
        Self::parse(kind, given).map(|(fields, _)| fields)
    }

    /// The fields by ordinal.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds a field behind the last one; `None` where there are `most` already. The caller has made
    /// sure that the label is new.
    pub fn add(&mut self, label: Label, masked: bool, most: usize) -> Option<Field> {
        if self.0.len() >= most {
            return None;
        }
        let ordinal = u16::try_from(self.0.len()).ok()?;
        let field = Field { ordinal, label, masked, synchronized: false };
        self.0.push(field.clone());
        Some(field)
    }

    /// How many credentials a mapping has: one for each field behind field 0.
    #[must_use]
    pub fn credential_count(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// Whether it is clear which field holds the password: there are exactly two fields, or one is
    /// marked (ESSO.md 3.5).
    #[must_use]
    pub fn password_is_clear(&self) -> bool {
        self.0.len() == 2 || self.0.iter().any(|field| field.synchronized)
    }

    /// The field of this label, in any case.
    #[must_use]
    pub fn by_label(&self, label: &Label) -> Option<&Field> {
        self.0.iter().find(|field| field.label == *label)
    }

    /// The field at this place.
    #[must_use]
    pub fn by_ordinal(&self, ordinal: u16) -> Option<&Field> {
        self.0.get(usize::from(ordinal))
    }
}

/// An affiliate application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Names it for ever.
    pub id: ApplicationId,
    /// Unique over all types.
    pub name: ApplicationName,
    /// What it keeps.
    pub kind: ApplicationType,
    /// Free text, at most 4096 characters.
    pub description: String,
    /// Free text, often an address, at most 255 characters.
    pub contact: String,
    /// The application users, in order; none in a host group application.
    pub users: Accounts,
    /// The one account of a host group application.
    pub windows_account: Option<Account>,
    /// The application administrators; empty where `administrators_same`.
    pub administrators: Accounts,
    /// The application administrators are the affiliate administrators.
    pub administrators_same: bool,
    /// Accounts without a domain are accepted.
    pub allow_local_accounts: bool,
    /// Run-time use is served.
    pub enabled: bool,
    /// What it is told to do.
    pub flags: ApplicationFlags,
    /// Minutes; 0 = as the system says.
    pub ticket_timeout: u32,
    /// Its fields.
    pub fields: Fields,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

impl Application {
    /// Whether this flag is on.
    #[must_use]
    pub fn has(&self, flag: ApplicationFlag) -> bool {
        self.flags.has(flag)
    }

    /// Whether the caller is one of its users; the windows account is the only user of a host group
    /// application.
    #[must_use]
    pub fn has_user(&self, caller: &Caller) -> bool {
        caller.is_in(&self.users)
            || self.windows_account.as_ref().is_some_and(|account| *account == caller.account)
    }

    /// Refuses what only config store applications have.
    ///
    /// # Errors
    /// `APPLICATION_TYPE_WRONG`.
    pub fn require_config_store(&self) -> Result<(), Error> {
        if self.kind == ApplicationType::ConfigStore {
            return Ok(());
        }
        let message = format!(
            "application \"{}\" is of type {}; only applications of type config-store have this",
            self.name,
            self.kind.as_str()
        );
        Err(Error::new(Reason::ApplicationTypeWrong, message))
    }

    /// Whether it serves external users who log on.
    #[must_use]
    pub fn is_host_initiated(&self) -> bool {
        self.kind == ApplicationType::HostGroup || self.has(ApplicationFlag::HostInitiated)
    }

    /// Checks what spans several parts: texts, accounts, who administers, timeout, password
    /// synchronisation (ESSO.md 3.4).
    ///
    /// # Errors
    /// `LOCAL_ACCOUNT_NOT_ALLOWED`, `ADMINISTRATORS_SAME`, `WINDOWS_ACCOUNT_INVALID`,
    /// `TICKET_TIMEOUT_OUT_OF_RANGE`, `FIELDS_AMBIGUOUS`, `INVALID_REQUEST`.
    pub fn check(&self) -> Result<(), Error> {
        check_text("description", &self.description, MAX_DESCRIPTION)?;
        check_text("contact", &self.contact, MAX_CONTACT)?;
        if self.administrators_same && !self.administrators.is_empty() {
            return Err(Error::new(
                Reason::AdministratorsSame,
                format!(
                    "application \"{}\" takes the affiliate administrators as its own; leave administrator_accounts empty",
                    self.name
                ),
            ));
        }
        self.check_windows_account()?;
        if self.ticket_timeout > MAX_TICKET_TIMEOUT {
            let message = format!(
                "ticket_timeout (minutes) is {}; it must be 0 (as the system says) to {MAX_TICKET_TIMEOUT}",
                self.ticket_timeout
            );
            return Err(Error::new(Reason::TicketTimeoutOutOfRange, message));
        }
        if self.has(ApplicationFlag::DirectPasswordSync) && !self.fields.password_is_clear() {
            let message = format!(
                "it is not clear which field of application \"{}\" holds the password; it needs exactly two fields, or one that is synchronized",
                self.name
            );
            return Err(Error::new(Reason::FieldsAmbiguous, message));
        }
        let mut accounts =
            self.users.iter().chain(self.administrators.iter()).chain(&self.windows_account);
        if !self.allow_local_accounts
            && let Some(local) = accounts.find(|account| account.domain().is_none())
        {
            return Err(Error::new(
                Reason::LocalAccountNotAllowed,
                format!(
                    "account \"{local}\" has no domain; write DOMAIN\\name or set allow_local_accounts"
                ),
            ));
        }
        Ok(())
    }
}

impl Application {
    fn check_windows_account(&self) -> Result<(), Error> {
        let refuse = |what: &str| {
            let message = format!("application \"{}\" {what}", self.name);
            Err(Error::new(Reason::WindowsAccountInvalid, message))
        };
        let is_host_group = self.kind == ApplicationType::HostGroup;
        match (&self.windows_account, is_host_group) {
            (None, true) => refuse("is a host group application and needs its windows_account"),
            (Some(_), false) => refuse("is no host group application and has no windows_account"),
            (Some(_), true) if !self.users.is_empty() => {
                refuse("is a host group application: its windows_account is its only user")
            }
            (Some(_), true) | (None, false) => Ok(()),
        }
    }
}

fn check_text(part: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.chars().count() > most {
        let message = format!("{part} is longer than {most} characters");
        return Err(Error::new(Reason::InvalidRequest, message));
    }
    if text.chars().any(|c| c == '\0' || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))) {
        let message = format!("{part} holds control characters");
        return Err(Error::new(Reason::InvalidRequest, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(labels: &[(u32, &str, bool)]) -> Vec<FieldUpdate> {
        labels
            .iter()
            .map(|&(ordinal, label, masked)| FieldUpdate {
                ordinal,
                label: label.into(),
                masked,
                synchronized: false,
            })
            .collect()
    }

    #[test]
    fn fields_are_ordered_and_field_0_is_never_masked() {
        let (fields, ignored) = Fields::parse(
            ApplicationType::ConfigStore,
            given(&[(1, "Key", true), (0, "reserved", true)]),
        )
        .unwrap();
        assert!(ignored);
        let shown: Vec<_> = fields.iter().map(|f| (f.label.as_str(), f.masked)).collect();
        assert_eq!(shown, [("reserved", false), ("Key", true)]);
        assert_eq!(fields.by_label(&Label::parse("KEY").unwrap()).unwrap().ordinal, 1);
    }

    #[test]
    fn impossible_fields_are_refused() {
        for bad in [
            given(&[]),
            given(&[(1, "a", false)]),
            given(&[(0, "a", false), (2, "b", false)]),
            given(&[(0, "a", false), (0, "b", false)]),
            given(&[(0, "a", false), (1, "A", false)]),
        ] {
            assert_eq!(
                Fields::parse(ApplicationType::ConfigStore, bad).unwrap_err().reason,
                Reason::InvalidFields
            );
        }
        let many = |n: u32| {
            let field = |i| FieldUpdate {
                ordinal: i,
                label: format!("f{i}"),
                masked: false,
                synchronized: false,
            };
            (0..n).map(field)
        };
        assert!(Fields::parse(ApplicationType::ConfigStore, many(256).collect()).is_ok());
        assert!(Fields::parse(ApplicationType::Group, many(65).collect()).is_err());
        let refused = Fields::parse(ApplicationType::ConfigStore, many(257).collect()).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidFields);
        assert!(refused.message.contains("257"));
    }
}
