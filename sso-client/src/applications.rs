//! Applications: thin and typed over `sso.v1.Applications`.

use prost_types::FieldMask;
use sso_proto::v1::{
    AddFieldRequest, Application, ApplicationType, CreateApplicationRequest,
    DeleteApplicationRequest, DisableApplicationRequest, EnableApplicationRequest, Field,
    GetApplicationRequest, ListApplicationsRequest, PurgeCacheRequest, UpdateApplicationRequest,
    Warning, applications_client::ApplicationsClient,
};

use crate::{Client, ClientError};

/// Largest page the service gives.
const PAGE: u32 = 1000;

/// Creates, reads and changes applications.
#[derive(Clone, Debug)]
pub struct Applications {
    client: Client,
}

/// Which applications to list; the default is all.
#[derive(Clone, Debug, Default)]
pub struct ApplicationFilter {
    /// Only names that contain this text, regardless of case.
    pub name_contains: String,
    /// Only this type.
    pub kind: Option<ApplicationType>,
    /// Only this contact, regardless of case.
    pub contact: String,
}

impl Applications {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates an application with its fields, and returns it with warnings.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn create(
        &self,
        application: Application,
    ) -> Result<(Application, Vec<Warning>), ClientError> {
        let message = CreateApplicationRequest { application: Some(application) };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).create(request).await
            })
            .await?;
        Ok((present(answer.application)?, answer.warnings))
    }

    /// Reads one application.
    pub async fn show(&self, name: &str) -> Result<Application, ClientError> {
        let message = GetApplicationRequest { name: name.to_owned() };
        let answer = self
            .client
            .read(message, |channel, request| async move {
                ApplicationsClient::new(channel).get(request).await
            })
            .await?;
        present(answer.application)
    }

    /// Lists the applications the caller has a role in, by name, all pages.
    pub async fn list(&self, filter: &ApplicationFilter) -> Result<Vec<Application>, ClientError> {
        let mut applications = Vec::new();
        let mut page_token = String::new();
        loop {
            let message = ListApplicationsRequest {
                name_contains: filter.name_contains.clone(),
                r#type: filter.kind.unwrap_or_default().into(),
                contact: filter.contact.clone(),
                page_size: PAGE,
                page_token,
            };
            let answer = self
                .client
                .read(message, |channel, request| async move {
                    ApplicationsClient::new(channel).list(request).await
                })
                .await?;
            applications.extend(answer.applications);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(applications);
            }
        }
    }

    /// Changes the parts named by `paths`: description, contact, user_accounts,
    /// administrator_accounts, windows_account, enabled, allow_local_accounts, ticket_timeout and the
    /// names of the flags.
    pub async fn update(
        &self,
        application: Application,
        paths: &[&str],
    ) -> Result<(Application, Vec<Warning>), ClientError> {
        let message = UpdateApplicationRequest {
            application: Some(application),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
        };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).update(request).await
            })
            .await?;
        Ok((present(answer.application)?, answer.warnings))
    }

    /// Enables an application.
    pub async fn enable(&self, name: &str) -> Result<Application, ClientError> {
        let message = EnableApplicationRequest { name: name.to_owned() };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).enable(request).await
            })
            .await?;
        present(answer.application)
    }

    /// Disables an application; its data are kept.
    pub async fn disable(&self, name: &str) -> Result<Application, ClientError> {
        let message = DisableApplicationRequest { name: name.to_owned() };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).disable(request).await
            })
            .await?;
        present(answer.application)
    }

    /// Deletes an application with everything kept under it. `false`: there was none.
    pub async fn delete(&self, name: &str) -> Result<bool, ClientError> {
        let message = DeleteApplicationRequest { name: name.to_owned() };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).delete(request).await
            })
            .await?;
        Ok(answer.existed)
    }

    /// Adds a field behind the last one.
    pub async fn add_field(
        &self,
        application: &str,
        label: &str,
        masked: bool,
    ) -> Result<Field, ClientError> {
        let message = AddFieldRequest {
            application: application.to_owned(),
            label: label.to_owned(),
            masked,
        };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).add_field(request).await
            })
            .await?;
        answer.field.ok_or_else(|| ClientError::incomplete("field"))
    }

    /// Makes every server forget what it has cached of an application, within one poll.
    pub async fn purge_cache(&self, name: &str) -> Result<(), ClientError> {
        let message = PurgeCacheRequest { name: name.to_owned() };
        self.client
            .write(message, |channel, request| async move {
                ApplicationsClient::new(channel).purge_cache(request).await
            })
            .await
            .map(|_| ())
    }
}

fn present(application: Option<Application>) -> Result<Application, ClientError> {
    application.ok_or_else(|| ClientError::incomplete("application"))
}
