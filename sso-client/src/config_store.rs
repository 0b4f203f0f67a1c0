//! Configurations: thin and typed over `sso.v1.ConfigStore`; values are secret texts.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
};

use prost_types::Timestamp;
use sso_core::secret::SecretText;
use sso_proto::v1::{
    self, BatchGetConfigurationsRequest, DeleteConfigurationRequest, DeleteConfigurationResponse,
    GetConfigurationRequest, HistoryRequest, IdentifierEntry, ListIdentifiersRequest, NewValue,
    RevisionEntry, RollbackConfigurationRequest, SetConfigurationRequest, SetConfigurationResponse,
    batch_get_configurations_result, config_store_client::ConfigStoreClient,
};
use tonic::{Code, transport::Channel};

use crate::{Client, ClientError, Refusal, Watch, WatchTarget};

/// 256 fields of 64 KiB fit, with their labels.
const MAX_ANSWER: usize = 24 * 1024 * 1024;
/// Largest page the service gives.
const PAGE: u32 = 1000;

/// Reads and writes configurations.
#[derive(Clone, Debug)]
pub struct ConfigStore {
    client: Client,
}

/// Names one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigurationKey {
    /// Name of the application.
    pub application: String,
    /// Identifier within it.
    pub identifier: String,
}

impl ConfigurationKey {
    /// The configuration `identifier` of `application`; both regardless of case.
    pub fn new(application: impl Into<String>, identifier: impl Into<String>) -> Self {
        Self { application: application.into(), identifier: identifier.into() }
    }
}

/// As whom to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// As an administrator of the application: masked values are withheld.
    #[default]
    Admin,
    /// As a user of the application: every value, and the read is recorded as a reveal.
    Runtime,
}

/// What a write does with fields it does not name or that have a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetMode {
    /// Writes what is named, keeps the rest.
    #[default]
    Merge,
    /// Writes only fields without a value.
    Add,
    /// Clears what is not named.
    Replace,
}

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetOptions {
    /// Only when this is the current revision; 0 = only when nothing is there.
    pub if_revision: Option<u64>,
    /// What happens to the other fields.
    pub mode: SetMode,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// Values to write by field label. `None` keeps the stored value.
pub type Values = BTreeMap<String, Option<SecretText>>;

/// What a write did, or dry would do.
pub type SetOutcome = SetConfigurationResponse;

/// One configuration as it was read.
#[derive(Clone)]
pub struct Configuration {
    /// Name of the application, as it was created.
    pub application: String,
    /// Identifier, as it was first written.
    pub identifier: String,
    /// Counts the writes; never goes back.
    pub revision: u64,
    /// By field label.
    pub values: BTreeMap<String, SecretText>,
    /// Labels of fields whose value was withheld because it is masked.
    pub masked: Vec<String>,
    /// When this revision was written.
    pub updated_at: Option<Timestamp>,
    /// Who wrote it; empty for application users.
    pub updated_by: String,
}

impl Configuration {
    /// The value of the field of this label, regardless of case.
    #[must_use]
    pub fn value(&self, label: &str) -> Option<&SecretText> {
        self.values.get(label).or_else(|| {
            let label = label.to_lowercase();
            self.values.iter().find(|(known, _)| known.to_lowercase() == label).map(|(_, v)| v)
        })
    }
}

/// Labels, never values.
impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration")
            .field("application", &self.application)
            .field("identifier", &self.identifier)
            .field("revision", &self.revision)
            .field("labels", &self.values.keys().collect::<Vec<_>>())
            .field("masked", &self.masked)
            .finish_non_exhaustive()
    }
}

impl From<v1::Configuration> for Configuration {
    fn from(mut message: v1::Configuration) -> Self {
        let values = mem::take(&mut message.values);
        Self {
            application: mem::take(&mut message.application),
            identifier: mem::take(&mut message.identifier),
            revision: message.revision,
            values: values
                .into_iter()
                .map(|(label, value)| (label, SecretText::new(value)))
                .collect(),
            masked: mem::take(&mut message.masked),
            updated_at: message.updated_at.take(),
            updated_by: mem::take(&mut message.updated_by),
        }
    }
}

impl ConfigStore {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Writes values. The first write of an identifier names every field but field 0.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn set(
        &self,
        key: &ConfigurationKey,
        values: &Values,
        options: SetOptions,
    ) -> Result<SetOutcome, ClientError> {
        let mode = match options.mode {
            SetMode::Merge => v1::SetMode::Merge,
            SetMode::Add => v1::SetMode::Add,
            SetMode::Replace => v1::SetMode::Replace,
        };
        let message = SetConfigurationRequest {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
            values: new_values(values),
            if_revision: options.if_revision,
            mode: mode.into(),
            dry_run: options.dry_run,
        };
        self.client
            .write(message, |channel, request| async move { stub(channel).set(request).await })
            .await
    }

    /// Reads a whole configuration.
    pub async fn get(
        &self,
        key: &ConfigurationKey,
        mode: ReadMode,
    ) -> Result<Configuration, ClientError> {
        self.get_fields(key, mode, &[]).await
    }

    /// Reads the fields of these labels; none = all.
    pub async fn get_fields(
        &self,
        key: &ConfigurationKey,
        mode: ReadMode,
        fields: &[&str],
    ) -> Result<Configuration, ClientError> {
        let message = GetConfigurationRequest {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
            mode: read_mode(mode).into(),
            fields: fields.iter().map(|&field| field.to_owned()).collect(),
        };
        let answer = self
            .client
            .read(message, |channel, request| async move { stub(channel).get(request).await })
            .await?;
        answer
            .configuration
            .map(Configuration::from)
            .ok_or_else(|| ClientError::incomplete("configuration"))
    }

    /// Reads up to 100 configurations; each has its own result, in the order of the keys.
    pub async fn batch_get(
        &self,
        keys: &[ConfigurationKey],
        mode: ReadMode,
    ) -> Result<Vec<Result<Configuration, ClientError>>, ClientError> {
        let message = BatchGetConfigurationsRequest {
            keys: keys
                .iter()
                .map(|key| v1::ConfigurationKey {
                    application: key.application.clone(),
                    identifier: key.identifier.clone(),
                })
                .collect(),
            mode: read_mode(mode).into(),
        };
        let answer = self
            .client
            .read(message, |channel, request| async move { stub(channel).batch_get(request).await })
            .await?;
        Ok(answer.results.into_iter().map(|result| result.result).map(single).collect())
    }

    /// Deletes a configuration with its history.
    pub async fn delete(
        &self,
        key: &ConfigurationKey,
        if_revision: Option<u64>,
    ) -> Result<DeleteConfigurationResponse, ClientError> {
        let message = DeleteConfigurationRequest {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
            if_revision,
        };
        self.client
            .write(message, |channel, request| async move { stub(channel).delete(request).await })
            .await
    }

    /// The identifiers of an application, all pages.
    pub async fn identifiers(
        &self,
        application: &str,
    ) -> Result<Vec<IdentifierEntry>, ClientError> {
        let mut identifiers = Vec::new();
        let mut page_token = String::new();
        loop {
            let message = ListIdentifiersRequest {
                application: application.to_owned(),
                page_size: PAGE,
                page_token,
            };
            let answer = self
                .client
                .read(message, |channel, request| async move {
                    stub(channel).list_identifiers(request).await
                })
                .await?;
            identifiers.extend(answer.identifiers);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(identifiers);
            }
        }
    }

    /// The last revisions, newest first, without values.
    pub async fn history(&self, key: &ConfigurationKey) -> Result<Vec<RevisionEntry>, ClientError> {
        let message = HistoryRequest {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
        };
        let answer = self
            .client
            .read(message, |channel, request| async move { stub(channel).history(request).await })
            .await?;
        Ok(answer.revisions)
    }

    /// Writes the values of an earlier revision as a new one, whose number is returned.
    pub async fn rollback(
        &self,
        key: &ConfigurationKey,
        revision: u64,
        if_revision: Option<u64>,
    ) -> Result<u64, ClientError> {
        let message = RollbackConfigurationRequest {
            application: key.application.clone(),
            identifier: key.identifier.clone(),
            revision,
            if_revision,
        };
        let answer = self
            .client
            .write(message, |channel, request| async move { stub(channel).rollback(request).await })
            .await?;
        Ok(answer.revision)
    }

    /// A stream of revision numbers: those of now, then one for each change on any server.
    pub async fn watch(&self, targets: Vec<WatchTarget>) -> Result<Watch, ClientError> {
        Watch::open(self.client.clone(), targets).await
    }
}

pub(crate) fn stub(channel: Channel) -> ConfigStoreClient<Channel> {
    ConfigStoreClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

fn read_mode(mode: ReadMode) -> v1::ReadMode {
    match mode {
        ReadMode::Admin => v1::ReadMode::Admin,
        ReadMode::Runtime => v1::ReadMode::Runtime,
    }
}

fn new_values(values: &Values) -> HashMap<String, NewValue> {
    values
        .iter()
        .map(|(label, value)| {
            // Expose: into a message that wipes itself when it has been sent.
            let value = value.as_ref().map(|value| value.expose().to_owned());
            (label.clone(), NewValue { value })
        })
        .collect()
}

fn single(
    result: Option<batch_get_configurations_result::Result>,
) -> Result<Configuration, ClientError> {
    use batch_get_configurations_result::Result as One;
    match result {
        Some(One::Configuration(configuration)) => Ok(configuration.into()),
        Some(One::Refusal(refusal)) => Err(ClientError::from_refusal(
            Code::from_i32(refusal.code),
            Refusal {
                reason: refusal.reason,
                event: (refusal.event != 0).then_some(refusal.event),
                message: refusal.message,
                request_id: String::new(),
            },
        )),
        None => Err(ClientError::incomplete("result")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-77f0";

    fn sample() -> Configuration {
        v1::Configuration {
            application: "App".into(),
            identifier: "Id".into(),
            revision: 3,
            values: HashMap::from([("ApiKey".to_owned(), CANARY.to_owned())]),
            masked: vec!["Other".into()],
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn values_are_found_regardless_of_case() {
        let configuration = sample();
        // Expose: compared with what was put in.
        assert_eq!(configuration.value("apikey").map(SecretText::expose), Some(CANARY));
        assert!(configuration.value("Other").is_none());
    }

    #[test]
    fn debug_shows_labels_only() {
        let text = format!("{:#?}", sample());
        assert!(text.contains("ApiKey") && text.contains("Other"), "{text}");
        assert!(!text.contains(CANARY), "{text}");
    }

    #[test]
    fn null_is_sent_as_an_absent_value() {
        let values = Values::from([
            ("a".to_owned(), Some(SecretText::new(String::new()))),
            ("b".to_owned(), None),
        ]);
        let sent = new_values(&values);
        assert_eq!(sent["a"].value.as_deref(), Some(""));
        assert_eq!(sent["b"].value, None);
    }

    #[test]
    fn a_batch_has_a_result_for_each() {
        use batch_get_configurations_result::Result as One;
        let refusal = v1::Refusal { code: 5, reason: "X".into(), event: 0, message: "m".into() };
        let error = single(Some(One::Refusal(refusal))).unwrap_err();
        assert!(matches!(&error, ClientError::NotFound(refusal) if refusal.event.is_none()));
        assert!(matches!(single(None), Err(ClientError::Fault(_))));
    }
}
