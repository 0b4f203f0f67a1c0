//! How an error leaves the house: status, reason, request id, and the audit of denials.

use sso_proto::Refusal;
use tonic::{Code, Response, Status};

use super::{Handlers, convert::cut};
use crate::{
    access::{Action, Call},
    audit::Subject,
    error::Error,
};

/// The status that `error` is answered with.
pub(super) fn status(error: Error, call: &Call) -> Status {
    Refusal {
        reason: error.reason,
        message: error.message,
        request_id: call.request_id.to_string(),
    }
    .into_status()
}

impl Handlers {
    /// Does the work of a handler and answers with the message it makes.
    pub(super) async fn respond<T>(
        &self,
        call: &Call,
        action: Action,
        application: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        self.answer(call, action, application, work).await.map(Response::new)
    }

    /// Does the work of a handler. A denial is audited before it is answered.
    pub(super) async fn answer<T>(
        &self,
        call: &Call,
        action: Action,
        application: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        let error = match work.await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let application = cut(application);
        let (action_name, reason) = (action.as_str(), error.reason.as_str());
        let code = error.reason.code();
        if code == Code::PermissionDenied {
            tracing::warn!(%call, action = action_name, application, reason, "denied");
            let subject = Subject { application, ..Subject::default() };
            if let Err(lost) = self.house.audit.denied(call, action, subject, error.reason).await {
                tracing::error!(%call, error = %lost, "a denial could not be audited");
            }
        } else if matches!(code, Code::Internal | Code::DataLoss | Code::Unavailable) {
            tracing::error!(%call, action = action_name, application, %error, "failed");
        } else {
            tracing::info!(%call, action = action_name, application, reason, "refused");
        }
        Err(status(error, call))
    }
}
