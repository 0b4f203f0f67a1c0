//! Creating an application: one step, with everything it begins with.

use std::sync::Arc;

use super::Applications;
use crate::{
    access::{Access, Action, Call},
    announce::{self, Individual},
    audit::Subject,
    error::Error,
    model::Application,
};

impl Applications {
    /// Creates an application with its fields (ESSO.md 3.6), and says what an administrator should
    /// know about it.
    ///
    /// # Errors
    /// A missing role, `TICKET_FLAGS_PROTECTED`, `TICKET_TIMEOUT_PROTECTED`, `APPLICATION_EXISTS`, or
    /// what [`Application::check`] refuses.
    pub async fn create(
        &self,
        call: &Call,
        new: Application,
    ) -> Result<(Application, Vec<Error>), Error> {
        self.access.require(call, Action::ApplicationCreate)?;
        self.require_for_flags(call, &new)?;
        self.check(&new)?;
        let mut transaction = self.storage.begin().await?;
        // What this server remembers of the administrators may be older than what the database says.
        let access = Arc::new(Access::held(&mut transaction).await?);
        access.require(call, Action::ApplicationCreate)?;
        Self { access, ..self.clone() }.require_for_flags(call, &new)?;
        transaction.insert_application(&new).await?;
        let detail = format!(
            "{}, {} fields, {}",
            new.kind.as_str(),
            new.fields.count(),
            if new.enabled { "enabled" } else { "disabled" }
        );
        let subject = Subject { application: new.name.as_str(), object: "", detail: &detail };
        self.audit.record(&mut transaction, call, Action::ApplicationCreate, subject).await?;
        self.commit(transaction, call, new.id).await?;
        announce::application(call, None, &new);
        let mut warnings = self.individuals(&new.users, Individual::User, &new.name);
        warnings.extend(self.individuals(
            &new.administrators,
            Individual::Administrator,
            &new.name,
        ));
        warnings.extend(super::flags::warnings(&new));
        Ok((new, warnings))
    }
}
