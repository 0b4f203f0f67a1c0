//! The rules of configurations: who may write, read, go back and watch (ESSO.md 8).

mod read;
mod watch;
mod write;

use std::sync::Arc;

use sso_core::{clock::Clock, secret::SecretText};
use sso_proto::Reason;
use time::OffsetDateTime;

pub use watch::{ConfigurationChange, WatchTarget};

use crate::{
    access::{Access, Action, Call},
    audit::Audit,
    cache::Cache,
    changes::Changes,
    error::Error,
    gates::Entry,
    identity::Identity,
    model::{Application, ApplicationName, Field, Identifier, Label, Revision},
    storage::Storage,
    vault::Vault,
};

/// How a write treats fields that it does not name, or that have a value already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Writes what is named, keeps the rest.
    Merge,
    /// Writes only fields without a value.
    Add,
    /// The configuration becomes exactly what is named.
    Replace,
}

/// What a caller writes.
#[derive(Debug)]
pub struct Write {
    /// Per label the new value; `None` keeps the stored one.
    pub values: Vec<(Label, Option<SecretText>)>,
    /// The revision the caller last saw; 0 = there must be none.
    pub if_revision: Option<Revision>,
    /// How the rest is treated.
    pub mode: SetMode,
    /// Say what would happen, change nothing.
    pub dry_run: bool,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision written, or the current one where nothing was left to write.
    pub revision: Revision,
    /// There was no configuration before.
    pub created: bool,
    /// Labels written.
    pub written: Vec<String>,
    /// Labels whose stored value was kept.
    pub kept: Vec<String>,
    /// Labels whose value was cleared.
    pub cleared: Vec<String>,
}

/// Which values a read hands out (ESSO.md 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// To administrators: masked values are absent.
    Admin,
    /// To application users: all values, recorded.
    Runtime,
}

impl ReadMode {
    /// The row of the access table.
    #[must_use]
    pub fn action(self) -> Action {
        match self {
            Self::Admin => Action::ConfigurationRead,
            Self::Runtime => Action::ConfigurationReveal,
        }
    }
}

/// A configuration as it is handed out.
#[derive(Debug)]
pub struct Configuration {
    /// Name of the application.
    pub application: String,
    /// The identifier, as first written.
    pub identifier: String,
    /// The revision read.
    pub revision: Revision,
    /// Label and value, by ordinal.
    pub values: Vec<(String, SecretText)>,
    /// Labels of values that were withheld.
    pub masked: Vec<String>,
    /// When it was written.
    pub updated_at: OffsetDateTime,
    /// Who wrote it; empty for application users.
    pub updated_by: String,
}

/// The rules of configurations.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Seals and opens.
    pub vault: Vault,
    /// Keeps.
    pub storage: Storage,
    /// Remembers.
    pub cache: Arc<Cache>,
    /// Tells of changes.
    pub changes: Changes,
    /// Knows who is in which group.
    pub identity: Arc<Identity>,
    /// Tells the time.
    pub clock: Clock,
}

impl ConfigStore {
    /// The application, if the caller may do this to it and it keeps configurations. Administrators who
    /// read see it as the database has it; whoever writes is looked at again in the transaction.
    async fn enter(
        &self,
        call: &Call,
        action: Action,
        name: &ApplicationName,
    ) -> Result<Arc<Application>, Error> {
        let afresh = matches!(
            action,
            Action::ConfigurationRead | Action::ConfigurationList | Action::ConfigurationHistory
        );
        let found = self.cache.application(name, afresh).await?;
        Entry { call, action, name }.pass(&self.access, found)
    }
}

fn field<'a>(application: &'a Application, label: &Label) -> Result<&'a Field, Error> {
    application.fields.by_label(label).ok_or_else(|| {
        Error::new(
            Reason::UnknownField,
            format!(
                "application \"{}\" has no field \"{label}\"; `sso app show` lists its fields, `sso app add-field` adds one",
                application.name
            ),
        )
    })
}

fn not_found(application: &ApplicationName, identifier: &Identifier) -> Error {
    Error::new(
        Reason::ConfigurationNotFound,
        format!("nothing has been set under \"{identifier}\" of application \"{application}\""),
    )
}

/// Refuses a change that was made on sight of another revision than the current one.
fn require_revision(
    expected: Option<Revision>,
    current: Revision,
    deleted: bool,
    identifier: &Identifier,
) -> Result<(), Error> {
    match expected {
        None => Ok(()),
        Some(expected) if expected == current => Ok(()),
        Some(Revision(0)) if deleted => Ok(()),
        Some(expected) => Err(Error::new(
            Reason::RevisionStale,
            format!(
                "\"{identifier}\" is {}, not at revision {expected}; read it again and decide anew",
                match (current, deleted) {
                    (Revision(0), _) => "not written yet".to_owned(),
                    (current, true) => format!("deleted, at revision {current}"),
                    (current, false) => format!("at revision {current}"),
                }
            ),
        )),
    }
}
