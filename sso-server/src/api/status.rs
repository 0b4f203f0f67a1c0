//! How an error leaves the house: status, reason, request id, and the audit of denials.

use std::sync::Arc;

use sso_proto::{Event, Reason, Refusal};
use tonic::{Code, Response, Status};

use super::{
    Handlers,
    convert::cut,
    trail::{About, is_wanted},
};
use crate::{
    access::{Action, Call},
    audit::Subject,
    error::Error,
};

/// Characters of what administrators may know of an error.
const LONGEST_DETAIL: usize = 1000;

/// The status that `error` is answered with.
pub(super) fn status(error: Error, call: &Call) -> Status {
    let request_id = call.request_id.to_string();
    Refusal { request_id, ..Refusal::new(error.reason, error.message) }.into_status()
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
        let answer = self.answer(call, action, application, work).await?;
        let answer = Response::new(answer);
        // What it is about is for the line in the log alone.
        let settings = self.house.access.server_settings();
        if is_wanted(settings, Some(action), Code::Ok) {
            return Ok(about(answer, action, application));
        }
        Ok(answer)
    }

    /// Does the work of a handler. A denial is audited before it is answered.
    pub(super) async fn answer<T>(
        &self,
        call: &Call,
        action: Action,
        application: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        let mut error = match work.await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if matches!(error.reason, Reason::GenerationClosed | Reason::GenerationMissing) {
            // The masters have moved on: the next try is to work.
            self.house.system.master.ask_now();
        }
        let application = cut(application);
        self.note(call, action, application, &error).await;
        if !error.for_administrators.is_empty()
            && self.house.access.is_affiliate_administrator(&call.caller)
        {
            // They may read all of it elsewhere, and are the ones to mend it.
            error.message = format!("{} ({})", error.message, for_administrators(&error));
        }
        let mut status = status(error, call);
        status.set_source(Arc::new(About::new(action, application)));
        Err(status)
    }

    /// Logs an error; audits it where it is a denial.
    async fn note(&self, call: &Call, action: Action, application: &str, error: &Error) {
        let (action_name, reason) = (action.as_str(), error.reason.as_str());
        let (event, code) = (error.reason.event(), error.reason.code());
        if error.reason.is_denial() {
            tracing::warn!(event, %call, action = action_name, application, reason, "denied");
            let detail = for_administrators(error);
            let of_accounts = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            if of_accounts && !detail.is_empty() {
                tracing::warn!(event = Event::AccountsAccepted.number(), %call, action = action_name, application, detail, "what would have been accepted");
            }
            if error.reason == Reason::CredentialsMismatch {
                // Recorded already, with the external user.
                return;
            }
            let subject = Subject { application, object: "", detail };
            self.house.audit.denied(call, action, subject, error.reason).await;
        } else if matches!(code, Code::Internal | Code::DataLoss | Code::Unavailable) {
            tracing::error!(event, %call, action = action_name, application, %error, "failed");
        } else {
            tracing::info!(event, %call, action = action_name, application, reason, "refused");
        }
    }
}

/// The answer with what it is about, for the door.
pub(super) fn about<T>(mut answer: Response<T>, action: Action, application: &str) -> Response<T> {
    answer.extensions_mut().insert(About::new(action, application));
    answer
}

/// What only administrators may know of the error, as much as a header or an audit record bears.
fn for_administrators(error: &Error) -> &str {
    let whole = error.for_administrators.as_str();
    whole.char_indices().nth(LONGEST_DETAIL).and_then(|(end, _)| whole.get(..end)).unwrap_or(whole)
}
