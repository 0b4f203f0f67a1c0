//! The rules of reading the audit: who may see which records.

use std::sync::Arc;

use crate::{
    access::{Access, Action, Call},
    audit::Audit,
    error::Error,
    model::{ApplicationName, AuditFilter, AuditRecord, Page, PageRequest},
    storage::Storage,
};

/// Reads audit records.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Keeps.
    pub storage: Storage,
}

impl AuditTrail {
    /// Lists records, newest first: to an SSO administrator all of them, deleted applications
    /// included; to others those of one application that they administer.
    ///
    /// # Errors
    /// A missing role, `APPLICATION_NOT_FOUND`.
    pub async fn list(
        &self,
        call: &Call,
        application: Option<ApplicationName>,
        mut filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRecord>, Error> {
        filter.application_key = application.as_ref().map(|name| name.key().to_owned());
        if let Some(name) = application
            && self.access.require(call, Action::AuditListAll).is_err()
        {
            let found = self.storage.application(&name).await?;
            let found = self.access.require_in(call, Action::AuditList, &name, found)?;
            // Records of an earlier application of this name are not this administrator's.
            filter.since = filter.since.max(Some(found.created_at));
        } else {
            self.access.require(call, Action::AuditListAll)?;
        }
        self.audit.list(&filter, &page).await
    }
}
