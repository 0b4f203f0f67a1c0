//! Plain nouns. A value of one of these types is valid: it was parsed, not checked later.

mod account;
mod application;
mod audit;
mod caller;
mod configuration;
mod flags;
mod global_info;
mod mapping;
mod name;
mod page;
mod principal;
mod role_memo;
mod server_entry;
mod server_settings;
mod ticket;

pub use account::{Account, Accounts};
pub use application::{Application, ApplicationId, ApplicationType, Field, FieldUpdate, Fields};
pub use audit::{AuditFilter, AuditOutcome, AuditPosition, AuditRecord};
pub use caller::{Caller, Proof};
pub use configuration::{
    Bag, ConfigurationHead, ConfigurationId, HISTORY_LENGTH, MAX_VALUE_BYTES, Revision,
    RevisionEntry,
};
pub use flags::{ApplicationFlag, ApplicationFlags};
pub use global_info::GlobalInfo;
pub use mapping::{
    Credentials, Mapping, MappingId, MappingKey, MappingState, MappingView, ServingMapping,
};
pub(crate) use name::canonical;
pub use name::{ApplicationName, ExternalUser, Identifier, Label};
pub use page::{Page, PageRequest};
pub use principal::Principal;
pub use role_memo::RoleMemo;
pub use server_entry::ServerEntry;
pub use server_settings::ServerSettings;
pub use ticket::{MAX_TICKET_CHARACTERS, Ticket, ticket_bytes, ticket_text, to_micros};
