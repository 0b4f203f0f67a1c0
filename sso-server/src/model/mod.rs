//! Plain nouns. A value of one of these types is valid: it was parsed, not checked later.

mod account;
mod application;
mod audit;
mod caller;
mod configuration;
mod global_info;
mod name;
mod page;
mod server_entry;

pub use account::{Account, Accounts};
pub use application::{
    Application, ApplicationId, ApplicationType, Field, FieldUpdate, Fields, MAX_FIELDS,
};
pub use audit::{AuditFilter, AuditOutcome, AuditRecord};
pub use caller::Caller;
pub use configuration::{
    Bag, ConfigurationHead, ConfigurationId, HISTORY_LENGTH, MAX_VALUE_BYTES, Revision,
    RevisionEntry,
};
pub use global_info::GlobalInfo;
pub(crate) use name::canonical;
pub use name::{ApplicationName, Identifier, Label};
pub use page::{Page, PageRequest};
pub use server_entry::ServerEntry;
