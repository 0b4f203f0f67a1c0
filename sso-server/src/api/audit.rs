//! `sso.v1.Audit`.

use sso_proto::v1::{self, audit_server::Audit};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{known, time, timestamp},
    entry::call_of,
};
use crate::{
    access::Action,
    error::Error,
    model::{Account, ApplicationName, AuditFilter, AuditOutcome, AuditRecord, PageRequest},
};

/// The list that page tokens are of.
const LIST: &str = "audit";

#[tonic::async_trait]
impl Audit for Handlers {
    async fn list(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::AuditList, &message.application, async {
            let page = PageRequest::parse(LIST, message.page_size, &message.page_token)?;
            let application = match message.application.as_str() {
                "" => None,
                name => Some(ApplicationName::parse(name)?),
            };
            let filter = filter(&message)?;
            let page = self.house.audit_trail.list(&call, application, filter, page).await?;
            Ok(v1::ListAuditResponse {
                next_page_token: page.next_token(LIST),
                records: page.entries.into_iter().map(record).collect(),
            })
        })
        .await
    }
}

fn filter(message: &v1::ListAuditRequest) -> Result<AuditFilter, Error> {
    let caller_key = match message.caller.as_str() {
        "" => None,
        caller => Some(Account::parse(caller)?.key().to_owned()),
    };
    Ok(AuditFilter {
        application_key: None,
        caller_key,
        action: (!message.action.is_empty()).then(|| message.action.clone()),
        since: message.since.as_ref().map(time).transpose()?,
        until: message.until.as_ref().map(time).transpose()?,
        outcome: match known("outcome", message.outcome)? {
            v1::AuditOutcome::Unspecified => None,
            v1::AuditOutcome::Done => Some(AuditOutcome::Done),
            v1::AuditOutcome::Denied => Some(AuditOutcome::Denied),
        },
    })
}

fn record(record: AuditRecord) -> v1::AuditRecord {
    v1::AuditRecord {
        id: record.id.to_string(),
        at: Some(timestamp(record.at)),
        server: record.server,
        request_id: record.request_id,
        caller: record.caller,
        action: record.action,
        application: record.application,
        object: record.object,
        outcome: match record.outcome {
            AuditOutcome::Done => v1::AuditOutcome::Done,
            AuditOutcome::Denied => v1::AuditOutcome::Denied,
        }
        .into(),
        reason: record.reason,
        detail: record.detail,
    }
}
