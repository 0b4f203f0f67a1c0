//! Mappings between accounts and external users (ESSO.md 4).

use std::fmt;

use sso_core::secret::SecretText;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, Application, ApplicationId, ApplicationName, ApplicationType, ExternalUser};

/// Names one mapping for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MappingId(pub Uuid);

impl MappingId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The row that its credentials are sealed to: 16 bytes of id, the length of the canonical account
    /// (u32, big-endian), the canonical account, the canonical external user; so that mappings cannot
    /// trade their sides. Without an account its length is 0, which no account has.
    #[must_use]
    pub fn row(&self, account: Option<&Account>, external_user: &ExternalUser) -> Vec<u8> {
        let account = account.map_or(&[][..], |account| account.key().as_bytes());
        let length = u32::try_from(account.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&self.0.as_bytes()[..], &length, account, external_user.key().as_bytes()].concat()
    }
}

impl fmt::Display for MappingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a mapping serves (ESSO.md 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingState {
    /// It serves.
    Enabled,
    /// It does not, and whoever it is of may enable it.
    Disabled,
    /// It does not, until an administrator enables it.
    DisabledByAdministrator,
}

impl MappingState {
    /// The word stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::DisabledByAdministrator => "disabled-by-administrator",
        }
    }

    /// The state of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Enabled, Self::Disabled, Self::DisabledByAdministrator]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// A mapping without its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Names it for ever.
    pub id: MappingId,
    /// The application it belongs to.
    pub application: ApplicationId,
    /// The account: of a user, of a group among the application's users, or the application's windows
    /// account.
    pub account: Account,
    /// Who that is in the other system.
    pub external_user: ExternalUser,
    /// Whether it serves.
    pub state: MappingState,
    /// When credentials were last stored; `None` = there are none.
    pub credentials_at: Option<OffsetDateTime>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it, or its credentials, last changed.
    pub updated_at: OffsetDateTime,
    /// Who changed it last.
    pub updated_by: String,
}

/// What of a mapping it takes to serve by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingMapping {
    /// Names it for ever.
    pub id: MappingId,
    /// The application it belongs to.
    pub application: ApplicationId,
    /// The account.
    pub account: Account,
    /// Who that is in the other system.
    pub external_user: ExternalUser,
    /// Whether it serves.
    pub state: MappingState,
    /// When it was created.
    pub created_at: OffsetDateTime,
}

impl From<Mapping> for ServingMapping {
    fn from(mapping: Mapping) -> Self {
        let Mapping { id, application, account, external_user, state, created_at, .. } = mapping;
        Self { id, application, account, external_user, state, created_at }
    }
}

/// What checks and messages go by, of a mapping or of what it takes to serve by it.
#[derive(Clone, Copy, Debug)]
pub struct MappingView<'a> {
    /// Names it for ever.
    pub id: MappingId,
    /// The account.
    pub account: &'a Account,
    /// Who that is in the other system.
    pub external_user: &'a ExternalUser,
    /// Whether it serves.
    pub state: MappingState,
}

impl<'a> From<&'a Mapping> for MappingView<'a> {
    fn from(mapping: &'a Mapping) -> Self {
        let Mapping { id, account, external_user, state, .. } = mapping;
        Self { id: *id, account, external_user, state: *state }
    }
}

impl<'a> From<&'a ServingMapping> for MappingView<'a> {
    fn from(mapping: &'a ServingMapping) -> Self {
        let ServingMapping { id, account, external_user, state, .. } = mapping;
        Self { id: *id, account, external_user, state: *state }
    }
}

impl ServingMapping {
    /// As [`Mapping::within`].
    #[must_use]
    pub fn within(mut self, application: &Application) -> Self {
        if application.kind == ApplicationType::HostGroup
            && let Some(account) = &application.windows_account
        {
            self.account = account.clone();
        }
        self
    }

    /// As [`Mapping::sealed_account`].
    #[must_use]
    pub fn sealed_account(&self, kind: ApplicationType) -> Option<&Account> {
        kind.seals_account().then_some(&self.account)
    }
}

impl Mapping {
    /// The mapping as its application has it now: in a host group application every one is of the
    /// windows account, whichever that was when it was written.
    #[must_use]
    pub fn within(mut self, application: &Application) -> Self {
        if application.kind == ApplicationType::HostGroup
            && let Some(account) = &application.windows_account
        {
            self.account = account.clone();
        }
        self
    }

    /// The account that its credentials are sealed to in an application of this type; `None` in a host
    /// group application, whose windows account may change.
    #[must_use]
    pub fn sealed_account(&self, kind: ApplicationType) -> Option<&Account> {
        kind.seals_account().then_some(&self.account)
    }
}

/// How one mapping of an application is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingKey {
    /// Individual and group applications: by its account.
    Account(Account),
    /// Host group applications, and individual ones in the other direction.
    ExternalUser(ExternalUser),
}

impl fmt::Display for MappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account) => account.fmt(f),
            Self::ExternalUser(user) => write!(f, "external user {user}"),
        }
    }
}

/// What a look-up gives: who the caller is in the other system, and with what to prove it.
#[derive(Debug)]
pub struct Credentials {
    /// The application.
    pub application: ApplicationName,
    /// Field 0.
    pub external_user: ExternalUser,
    /// Fields 1, 2, …; empty where the application has none.
    pub values: Vec<SecretText>,
}
