//! Reading configurations: values, identifiers, history.

use super::{ConfigStore, Configuration, ReadMode, field, not_found};
use crate::{
    access::{Action, Call},
    audit::Subject,
    cache::FoundConfiguration,
    error::Error,
    model::{
        Application, ApplicationName, Bag, ConfigurationHead, Identifier, Label, Page, PageRequest,
        RevisionEntry,
    },
    vault::BagPlace,
};

impl ConfigStore {
    /// Reads a configuration, or of it the fields named. In runtime mode the application must be
    /// enabled, and the reveal is recorded before any value leaves.
    ///
    /// # Errors
    /// A missing role, `REMOTE_LOOKUP_NOT_ALLOWED`, `APPLICATION_DISABLED`, `CONFIGURATION_NOT_FOUND`, `UNKNOWN_FIELD`, what the
    /// vault refuses, `AUDIT_UNAVAILABLE`.
    pub async fn get(
        &self,
        call: &Call,
        name: &ApplicationName,
        identifier: &Identifier,
        mode: ReadMode,
        fields: &[Label],
    ) -> Result<Configuration, Error> {
        let application = self.enter(call, mode.action(), name).await?;
        for label in fields {
            field(&application, label)?;
        }
        self.vault.require_opening()?;
        let missing = || not_found(&application.name, identifier);
        let (found, updated_by) = match mode {
            ReadMode::Runtime => {
                let found = self.cache.configuration(application.id, identifier).await?;
                (found.ok_or_else(missing)?, String::new())
            }
            ReadMode::Admin => {
                let stored = self.storage.configuration(application.id, identifier).await?;
                let mut stored = stored.ok_or_else(missing)?;
                let updated_by = std::mem::take(&mut stored.head.updated_by);
                (stored.into(), updated_by)
            }
        };
        let place = BagPlace::configuration(application.id, found.id, identifier, found.revision);
        let bag = self.vault.open(&place, found.sealed.as_ref())?;
        let read = Configuration { updated_by, ..select(&application, &found, &bag, mode, fields) };
        if mode == ReadMode::Runtime {
            let detail = format!("revision {}", read.revision);
            let subject = Subject {
                application: &read.application,
                object: &read.identifier,
                detail: &detail,
            };
            self.audit.reveal(call, Action::ConfigurationReveal, subject).await?;
        }
        Ok(read)
    }

    /// Lists the identifiers of an application.
    ///
    /// # Errors
    /// A missing role.
    pub async fn list(
        &self,
        call: &Call,
        name: &ApplicationName,
        page: PageRequest,
    ) -> Result<Page<ConfigurationHead>, Error> {
        let application = self.enter(call, Action::ConfigurationList, name).await?;
        Ok(self.storage.identifiers(application.id, &page).await?)
    }

    /// The revisions kept, newest first.
    ///
    /// # Errors
    /// A missing role, `CONFIGURATION_NOT_FOUND`.
    pub async fn history(
        &self,
        call: &Call,
        name: &ApplicationName,
        identifier: &Identifier,
    ) -> Result<Vec<RevisionEntry>, Error> {
        let application = self.enter(call, Action::ConfigurationHistory, name).await?;
        let head = self
            .storage
            .configuration_head(application.id, identifier)
            .await?
            .filter(|head| !head.deleted)
            .ok_or_else(|| not_found(&application.name, identifier))?;
        Ok(self.storage.history(head.id).await?)
    }
}

/// What of the bag is handed out in this mode.
fn select(
    application: &Application,
    found: &FoundConfiguration,
    bag: &Bag,
    mode: ReadMode,
    fields: &[Label],
) -> Configuration {
    let mut values = Vec::new();
    let mut masked = Vec::new();
    for field in application.fields.iter() {
        if !fields.is_empty() && !fields.contains(&field.label) {
            continue;
        }
        let Some(value) = bag.value(field.ordinal) else { continue };
        let label = field.label.as_str().to_owned();
        if field.masked && mode == ReadMode::Admin {
            masked.push(label);
        } else {
            values.push((label, value.clone()));
        }
    }
    Configuration {
        application: application.name.as_str().to_owned(),
        identifier: found.identifier.as_str().to_owned(),
        revision: found.revision,
        values,
        masked,
        updated_at: found.updated_at,
        updated_by: String::new(),
    }
}
