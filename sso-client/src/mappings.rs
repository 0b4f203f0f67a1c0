//! Mappings: thin and typed over `sso.v1.Mappings`; credentials are secret texts.

use sso_core::secret::SecretText;
use sso_proto::v1::{
    self, BatchCreateMappingsRequest, BatchDeleteMappingsRequest, CreateMappingRequest,
    CredentialValues, DeleteMappingRequest, DisableMappingRequest, EnableMappingRequest,
    GetMappingRequest, ListMappingsRequest, ListMembersRequest, Mapping, MappingOutcome,
    SetCredentialsRequest, Warning, mapping_key::Side, mappings_client::MappingsClient,
};

use crate::{Client, ClientError, Refusal};

/// Largest page the service gives.
const PAGE: u32 = 1000;

/// Creates, reads and changes mappings and the credentials that belong to them.
#[derive(Clone, Debug)]
pub struct Mappings {
    client: Client,
}

/// Names one mapping of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingKey {
    /// Name of the application.
    pub application: String,
    /// By what the mapping is found in it.
    pub side: MappingSide,
}

/// By what a mapping is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingSide {
    /// The caller's own.
    Own,
    /// `DOMAIN\name`: of a user, or in a group application one of its accounts.
    Account(String),
    /// The external user; always so in a host group application.
    ExternalUser(String),
}

impl MappingKey {
    /// The caller's own mapping.
    pub fn own(application: impl Into<String>) -> Self {
        Self { application: application.into(), side: MappingSide::Own }
    }

    /// The mapping of an account.
    pub fn account(application: impl Into<String>, account: impl Into<String>) -> Self {
        Self { application: application.into(), side: MappingSide::Account(account.into()) }
    }

    /// The mapping of an external user.
    pub fn external_user(application: impl Into<String>, external_user: impl Into<String>) -> Self {
        let side = MappingSide::ExternalUser(external_user.into());
        Self { application: application.into(), side }
    }
}

impl From<&MappingKey> for v1::MappingKey {
    fn from(key: &MappingKey) -> Self {
        let side = match &key.side {
            MappingSide::Own => None,
            MappingSide::Account(account) => Some(Side::Account(account.clone())),
            MappingSide::ExternalUser(user) => Some(Side::ExternalUser(user.clone())),
        };
        Self { application: key.application.clone(), side }
    }
}

/// A mapping that is to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMapping {
    /// Name of the application.
    pub application: String,
    /// `DOMAIN\name`; may be empty in a host group application.
    pub account: String,
    /// 1 to 256 characters.
    pub external_user: String,
    /// One for each field from field 1 on; `None`: none yet.
    pub credentials: Option<Vec<SecretText>>,
    /// Enable it in the same step.
    pub enable: bool,
}

impl From<&NewMapping> for CreateMappingRequest {
    fn from(mapping: &NewMapping) -> Self {
        Self {
            mapping: Some(named(&mapping.application, &mapping.account, &mapping.external_user)),
            credentials: mapping.credentials.as_deref().map(credential_values),
            enable: mapping.enable,
        }
    }
}

/// Which mappings to list; the default is the caller's own in every application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingFilter {
    /// Only of this application.
    pub application: String,
    /// Only of this account.
    pub account: String,
    /// Only of this external user; needs an application.
    pub external_user: String,
    /// Only those whose account is not among the users of the application.
    pub orphaned: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchOutcome {
    /// How many were created or deleted (dry: would be).
    pub done: u32,
    /// The others, by their place in the batch, and why.
    pub refused: Vec<(usize, Refusal)>,
}

/// What setting credentials did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsSet {
    /// The mapping they belong to now.
    pub mapping: Mapping,
    /// It was missing.
    pub created: bool,
    /// What an administrator should know.
    pub warnings: Vec<Warning>,
}

impl Mappings {
    /// Longest batch that the service takes.
    pub const MAX_BATCH: usize = 1000;

    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a mapping, and returns it with warnings.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn create(
        &self,
        mapping: &NewMapping,
    ) -> Result<(Mapping, Vec<Warning>), ClientError> {
        let answer = self
            .client
            .write(CreateMappingRequest::from(mapping), |channel, request| async move {
                MappingsClient::new(channel).create(request).await
            })
            .await?;
        Ok((present(answer.mapping)?, answer.warnings))
    }

    /// Creates up to [`Mappings::MAX_BATCH`] mappings; one that is refused stops no other.
    pub async fn create_batch(
        &self,
        mappings: &[NewMapping],
        dry_run: bool,
    ) -> Result<BatchOutcome, ClientError> {
        let mappings = mappings.iter().map(CreateMappingRequest::from).collect();
        let message = BatchCreateMappingsRequest { mappings, dry_run };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                MappingsClient::new(channel).batch_create(request).await
            })
            .await?;
        Ok(outcome(answer.created, answer.refused))
    }

    /// Reads one mapping.
    pub async fn show(&self, key: &MappingKey) -> Result<Mapping, ClientError> {
        let answer = self
            .client
            .read(GetMappingRequest { key: Some(key.into()) }, |channel, request| async move {
                MappingsClient::new(channel).get(request).await
            })
            .await?;
        present(answer.mapping)
    }

    /// Lists mappings, all pages.
    pub async fn list(&self, filter: &MappingFilter) -> Result<Vec<Mapping>, ClientError> {
        let mut mappings = Vec::new();
        let mut page_token = String::new();
        loop {
            let (page, next) = self.page(filter, page_token).await?;
            mappings.extend(page);
            if next.is_empty() {
                return Ok(mappings);
            }
            page_token = next;
        }
    }

    /// One page of at most 1000 mappings, and the token of the next; the first and the one behind the
    /// last page have the empty token.
    pub async fn page(
        &self,
        filter: &MappingFilter,
        page_token: String,
    ) -> Result<(Vec<Mapping>, String), ClientError> {
        let message = ListMappingsRequest {
            application: filter.application.clone(),
            account: filter.account.clone(),
            external_user: filter.external_user.clone(),
            orphaned: filter.orphaned,
            page_size: PAGE,
            page_token,
        };
        let answer = self
            .client
            .read(message, |channel, request| async move {
                MappingsClient::new(channel).list(request).await
            })
            .await?;
        Ok((answer.mappings, answer.next_page_token))
    }

    /// Stores credentials, one for each field from field 1 on. With `external_user` a mapping that is
    /// missing is created for it and enabled; without, it must exist.
    pub async fn set_credentials(
        &self,
        key: &MappingKey,
        credentials: &[SecretText],
        external_user: Option<&str>,
    ) -> Result<CredentialsSet, ClientError> {
        let message = SetCredentialsRequest {
            key: Some(key.into()),
            credentials: Some(credential_values(credentials)),
            external_user: external_user.unwrap_or_default().to_owned(),
        };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                MappingsClient::new(channel).set_credentials(request).await
            })
            .await?;
        Ok(CredentialsSet {
            mapping: present(answer.mapping)?,
            created: answer.created,
            warnings: answer.warnings,
        })
    }

    /// Enables a mapping.
    pub async fn enable(&self, key: &MappingKey) -> Result<Mapping, ClientError> {
        let answer = self
            .client
            .write(EnableMappingRequest { key: Some(key.into()) }, |channel, request| async move {
                MappingsClient::new(channel).enable(request).await
            })
            .await?;
        present(answer.mapping)
    }

    /// Disables a mapping; its credentials are kept.
    pub async fn disable(&self, key: &MappingKey) -> Result<Mapping, ClientError> {
        let answer = self
            .client
            .write(DisableMappingRequest { key: Some(key.into()) }, |channel, request| async move {
                MappingsClient::new(channel).disable(request).await
            })
            .await?;
        present(answer.mapping)
    }

    /// Deletes a mapping with its credentials. `false`: there was none.
    pub async fn delete(&self, key: &MappingKey) -> Result<bool, ClientError> {
        let answer = self
            .client
            .write(DeleteMappingRequest { key: Some(key.into()) }, |channel, request| async move {
                MappingsClient::new(channel).delete(request).await
            })
            .await?;
        Ok(answer.existed)
    }

    /// Deletes up to [`Mappings::MAX_BATCH`] mappings; one that is refused stops no other. Where account
    /// and external user are both given, both must fit.
    pub async fn delete_batch(
        &self,
        mappings: &[NewMapping],
        dry_run: bool,
    ) -> Result<BatchOutcome, ClientError> {
        let mappings = mappings
            .iter()
            .map(|one| named(&one.application, &one.account, &one.external_user))
            .collect();
        let message = BatchDeleteMappingsRequest { mappings, dry_run };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                MappingsClient::new(channel).batch_delete(request).await
            })
            .await?;
        Ok(outcome(answer.deleted, answer.refused))
    }

    /// The individual accounts among the users of an application, as far as the server knows the
    /// members of groups; all pages.
    pub async fn members(&self, application: &str) -> Result<Vec<String>, ClientError> {
        let mut accounts = Vec::new();
        let mut page_token = String::new();
        loop {
            let message = ListMembersRequest {
                application: application.to_owned(),
                page_size: PAGE,
                page_token,
            };
            let answer = self
                .client
                .read(message, |channel, request| async move {
                    MappingsClient::new(channel).list_members(request).await
                })
                .await?;
            accounts.extend(answer.accounts);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(accounts);
            }
        }
    }
}

pub(crate) fn credential_values(values: &[SecretText]) -> CredentialValues {
    // Expose: into a message that wipes itself when it has been sent.
    CredentialValues { values: values.iter().map(|value| value.expose().to_owned()).collect() }
}

fn named(application: &str, account: &str, external_user: &str) -> Mapping {
    Mapping {
        application: application.to_owned(),
        account: account.to_owned(),
        external_user: external_user.to_owned(),
        ..Mapping::default()
    }
}

fn present(mapping: Option<Mapping>) -> Result<Mapping, ClientError> {
    mapping.ok_or_else(|| ClientError::incomplete("mapping"))
}

fn outcome(done: u32, refused: Vec<MappingOutcome>) -> BatchOutcome {
    let refused = refused.into_iter().map(|one| {
        let refusal = Refusal {
            reason: one.reason,
            event: (one.event != 0).then_some(one.event),
            message: one.message,
            request_id: String::new(),
        };
        (usize::try_from(one.index).unwrap_or(usize::MAX), refusal)
    });
    BatchOutcome { done, refused: refused.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_one_side_or_none() {
        let sent = |key: &MappingKey| v1::MappingKey::from(key).side;
        assert_eq!(sent(&MappingKey::own("App")), None);
        assert_eq!(sent(&MappingKey::account("App", r"D\a")), Some(Side::Account(r"D\a".into())));
        let key = MappingKey::external_user("App", "X1");
        assert_eq!(sent(&key), Some(Side::ExternalUser("X1".into())));
    }

    #[test]
    fn no_credentials_are_not_empty_credentials() {
        let sent = |credentials: Option<Vec<SecretText>>| {
            CreateMappingRequest::from(&NewMapping { credentials, ..Default::default() })
        };
        assert!(sent(None).credentials.is_none());
        assert_eq!(sent(Some(Vec::new())).credentials.map(|sent| sent.values.len()), Some(0));
        let mapping = NewMapping {
            credentials: Some(vec![SecretText::new("canary-20d7".into())]),
            ..Default::default()
        };
        assert!(!format!("{mapping:?}").contains("canary"));
    }
}
