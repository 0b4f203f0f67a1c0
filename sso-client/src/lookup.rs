//! Look-ups in both directions: thin and typed over `sso.v1.Lookup`.

use std::{fmt, mem};

use prost_types::Timestamp;
use sso_core::secret::SecretText;
use sso_proto::v1::{
    self, GetAssertionKeysRequest, GetCredentialsRequest, LogonExternalUserRequest,
    lookup_client::LookupClient,
};
use tonic::transport::Channel;

use crate::{Client, ClientError, mappings::credential_values};

/// 63 values of 64 KiB fit.
pub(crate) const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Looks up credentials, and who an external user is.
#[derive(Clone, Debug)]
pub struct Lookup {
    client: Client,
}

/// Credentials as they were looked up.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the application, as it was created.
    pub application: String,
    /// Whom they belong to in the external system.
    pub external_user: String,
    /// In the order of the fields, from field 1 on.
    pub values: Vec<SecretText>,
}

/// Names and numbers, never values.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("application", &self.application)
            .field("external_user", &self.external_user)
            .field("values", &format_args!("{} redacted", self.values.len()))
            .finish()
    }
}

impl From<v1::Credentials> for Credentials {
    fn from(message: v1::Credentials) -> Self {
        let mut values = message.credentials.unwrap_or_default();
        Self {
            application: message.application,
            external_user: message.external_user,
            values: mem::take(&mut values.values).into_iter().map(SecretText::new).collect(),
        }
    }
}

/// An external user who logs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogonRequest {
    /// Name of the application.
    pub application: String,
    /// Name in the external system.
    pub external_user: String,
    /// What they proved who they are with, from field 1 on; compared where the application validates.
    pub credentials: Option<Vec<SecretText>>,
    /// Read the database, whatever is cached.
    pub refresh: bool,
    /// Who the assertion is for; empty = the first audience in the settings of the server.
    pub assertion_audience: String,
}

/// Who an external user is here. The secrets in it are redacted in `Debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logon {
    /// `DOMAIN\name`.
    pub account: String,
    /// For the account; `None` where the system does not allow tickets.
    pub ticket: Option<SecretText>,
    /// When the ticket ends.
    pub ticket_expires_at: Option<Timestamp>,
    /// A signed JSON Web Token; `None` where the server signs none.
    pub assertion: Option<SecretText>,
}

impl Lookup {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The credentials mapped to the caller's own account. `refresh` reads the database, whatever is
    /// cached.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn credentials(
        &self,
        application: &str,
        refresh: bool,
    ) -> Result<Credentials, ClientError> {
        let message = GetCredentialsRequest { application: application.to_owned(), refresh };
        let answer = self
            .client
            .read(message, |channel, request| async move {
                stub(channel).get_credentials(request).await
            })
            .await?;
        present(answer.credentials)
    }

    /// The account that an external user is mapped to, with a ticket and an assertion for it.
    pub async fn logon_external_user(&self, logon: &LogonRequest) -> Result<Logon, ClientError> {
        let message = LogonExternalUserRequest {
            application: logon.application.clone(),
            external_user: logon.external_user.clone(),
            credentials: logon.credentials.as_deref().map(credential_values),
            refresh: logon.refresh,
            assertion_audience: logon.assertion_audience.clone(),
        };
        let answer = self
            .client
            .read(message, |channel, request| async move {
                stub(channel).logon_external_user(request).await
            })
            .await?;
        Ok(Logon {
            account: answer.account,
            ticket: answer.ticket.map(|mut ticket| SecretText::new(mem::take(&mut ticket.text))),
            ticket_expires_at: answer.ticket_expires_at,
            assertion: answer
                .assertion
                .map(|mut assertion| SecretText::new(mem::take(&mut assertion.text))),
        })
    }

    /// The public keys that assertions are verified with: a JSON Web Key Set.
    pub async fn assertion_keys(&self) -> Result<String, ClientError> {
        let answer = self
            .client
            .read(GetAssertionKeysRequest {}, |channel, request| async move {
                stub(channel).get_assertion_keys(request).await
            })
            .await?;
        Ok(answer.jwks)
    }
}

/// Credentials that an answer has to have.
pub(crate) fn present(credentials: Option<v1::Credentials>) -> Result<Credentials, ClientError> {
    credentials.map(Credentials::from).ok_or_else(|| ClientError::incomplete("credentials"))
}

fn stub(channel: Channel) -> LookupClient<Channel> {
    LookupClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let credentials = Credentials::from(v1::Credentials {
            application: "App".into(),
            external_user: "X1".into(),
            credentials: Some(v1::CredentialValues { values: vec!["canary-3ab1".into()] }),
        });
        let text = format!("{credentials:?}");
        assert!(text.contains("X1") && text.contains("1 redacted"), "{text}");
        assert!(!text.contains("canary"), "{text}");
        // Expose: compared with what was put in.
        assert_eq!(credentials.values[0].expose(), "canary-3ab1");
    }
}
