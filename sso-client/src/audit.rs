//! The record of changes and reveals: thin and typed over `sso.v1.Audit`.

use prost_types::Timestamp;
use sso_proto::v1::{AuditOutcome, AuditRecord, ListAuditRequest, audit_client::AuditClient};
use time::OffsetDateTime;

use crate::{Client, ClientError};

/// Largest page the service gives.
const PAGE: u32 = 1000;

/// Reads the audit records.
#[derive(Clone, Debug)]
pub struct Audit {
    client: Client,
}

/// Which records; the default is all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this application.
    pub application: String,
    /// Only by this caller, `DOMAIN\name`.
    pub caller: String,
    /// Only this action, or with a dot behind a noun every action of it (`configuration.`).
    pub action: String,
    /// Not older than this.
    pub since: Option<OffsetDateTime>,
    /// Older than this.
    pub until: Option<OffsetDateTime>,
    /// Only done or only denied.
    pub outcome: Option<AuditOutcome>,
}

impl Audit {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The newest `limit` records that the filter lets through, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, ClientError> {
        let mut records: Vec<AuditRecord> = Vec::new();
        let mut page_token = String::new();
        while records.len() < limit {
            let missing = u32::try_from(limit - records.len()).unwrap_or(PAGE);
            let message = ListAuditRequest {
                application: filter.application.clone(),
                caller: filter.caller.clone(),
                action: filter.action.clone(),
                since: filter.since.map(timestamp),
                until: filter.until.map(timestamp),
                outcome: filter.outcome.unwrap_or_default().into(),
                page_size: missing.min(PAGE),
                page_token,
            };
            let answer = self
                .client
                .read(message, |channel, request| async move {
                    AuditClient::new(channel).list(request).await
                })
                .await?;
            records.extend(answer.records);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        records.truncate(limit);
        Ok(records)
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}
