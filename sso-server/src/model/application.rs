//! Affiliate applications and their fields (ESSO.md 3).

use sso_proto::Reason;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Accounts, ApplicationName, Label};
use crate::error::Error;

/// A config store application has at most this many fields (ESSO.md 3.5).
pub const MAX_FIELDS: usize = 256;
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
    /// Encrypted configurations under identifiers.
    ConfigStore,
}

impl ApplicationType {
    /// The word stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigStore => "config-store",
        }
    }

    /// The type of this word; `None` for one this version does not keep.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        (word == Self::ConfigStore.as_str()).then_some(Self::ConfigStore)
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
}

/// A field as given by a caller, before it stands in an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldUpdate {
    /// The place the caller wants it at.
    pub ordinal: u32,
    /// Its label, not yet parsed.
    pub label: String,
    /// Whether it is to be masked.
    pub masked: bool,
}

/// The fields of one application: at least one, contiguous from 0, labels unique, field 0 unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Orders and checks the fields given. The mask of field 0 is ignored (ESSO.md 3.5); the flag
    /// returned says that this happened.
    ///
    /// # Errors
    /// `INVALID_FIELDS` for none, too many, gaps or repeated labels; `INVALID_NAME` for a bad label.
    pub fn parse(given: Vec<FieldUpdate>) -> Result<(Self, bool), Error> {
        if given.is_empty() || given.len() > MAX_FIELDS {
            let message =
                format!("an application has 1 to {MAX_FIELDS} fields, not {}", given.len());
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
            fields.push(Field { ordinal, label, masked: field.masked && ordinal != 0 });
        }
        Ok((Self(fields), mask_ignored))
    }

    /// Fields as they are stored.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_stored(fields: Vec<Field>) -> Result<Self, Error> {
        let given = fields
            .into_iter()
            .map(|field| FieldUpdate {
                ordinal: u32::from(field.ordinal),
                label: field.label.as_str().to_owned(),
                masked: field.masked,
            })
            .collect();
        Self::parse(given).map(|(fields, _)| fields)
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

    /// Adds a field behind the last one; `None` where there are [`MAX_FIELDS`] already. The caller
    /// has made sure that the label is new.
    pub fn add(&mut self, label: Label, masked: bool) -> Option<Field> {
        if self.0.len() >= MAX_FIELDS {
            return None;
        }
        let field = Field { ordinal: u16::try_from(self.0.len()).ok()?, label, masked };
        self.0.push(field.clone());
        Some(field)
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
    /// The application users, in order.
    pub users: Accounts,
    /// The application administrators; empty where `administrators_same`.
    pub administrators: Accounts,
    /// The application administrators are the affiliate administrators.
    pub administrators_same: bool,
    /// Accounts without a domain are accepted.
    pub allow_local_accounts: bool,
    /// Run-time use is served.
    pub enabled: bool,
    /// Its fields.
    pub fields: Fields,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

impl Application {
    /// Checks what spans several parts: texts, local accounts, who administers (ESSO.md 3.4).
    ///
    /// # Errors
    /// `LOCAL_ACCOUNT_NOT_ALLOWED`, `ADMINISTRATORS_SAME`, `INVALID_REQUEST`.
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
        let mut accounts = self.users.iter().chain(self.administrators.iter());
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
            .map(|&(ordinal, label, masked)| FieldUpdate { ordinal, label: label.into(), masked })
            .collect()
    }

    #[test]
    fn fields_are_ordered_and_field_0_is_never_masked() {
        let (fields, ignored) =
            Fields::parse(given(&[(1, "Key", true), (0, "reserved", true)])).unwrap();
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
            assert_eq!(Fields::parse(bad).unwrap_err().reason, Reason::InvalidFields);
        }
        let many = |n: u32| {
            (0..n).map(|i| FieldUpdate { ordinal: i, label: format!("f{i}"), masked: false })
        };
        assert!(Fields::parse(many(256).collect()).is_ok());
        let refused = Fields::parse(many(257).collect()).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidFields);
        assert!(refused.message.contains("257"));
    }
}
