//! How a refusal travels: gRPC status, `google.rpc.ErrorInfo` with a stable reason, and metadata.

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RetryInfo, StatusExt as _};

use crate::Reason;

/// `ErrorInfo.domain` of everything this product answers.
const DOMAIN: &str = "sso.v1";
const EVENT: &str = "event";
const REQUEST_ID: &str = "request_id";

/// A refusal: why, in words, and for which request. The message never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What was wrong, which object, what to do.
    pub message: String,
    /// The id under which the server logged and audited the request; empty where there is none.
    pub request_id: String,
    /// After what time the same request may be sent again (`google.rpc.RetryInfo`); `None` where time
    /// alone cures nothing, or where nobody knows how much of it.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that is not yet tied to a request.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let (message, request_id) = (message.into(), String::new());
        Self { reason, message, request_id, retry_after: reason.retry_after() }
    }

    /// The refusal that a status carries; `None` when it carries none of this product's.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.domain != DOMAIN {
            return None;
        }
        Some(Self {
            reason: Reason::parse(&info.reason)?,
            message: status.message().to_owned(),
            request_id: info.metadata.get(REQUEST_ID).cloned().unwrap_or_default(),
            retry_after: retry_after(status),
        })
    }

    /// The status to answer with.
    #[must_use]
    pub fn into_status(self) -> Status {
        let mut metadata = HashMap::new();
        if let Some(event) = self.reason.event() {
            metadata.insert(EVENT.to_owned(), event.to_string());
        }
        if !self.request_id.is_empty() {
            metadata.insert(REQUEST_ID.to_owned(), self.request_id);
        }
        let mut details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        // A warning is no refusal; answering with one is a fault of ours.
        let code = self.reason.code();
        let code = if code == Code::Ok { Code::Internal } else { code };
        Status::with_error_details(code, self.message, details)
    }
}

/// After what time the server wants to hear the same request again, where it says so.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    let RetryInfo { retry_delay, .. } = status.get_details_retry_info()?;
    retry_delay
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.into_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_wire() {
        for &reason in Reason::ALL {
            let refusal =
                Refusal { request_id: "0190-77".into(), ..Refusal::new(reason, "what was wrong") };
            let status = refusal.clone().into_status();
            assert_ne!(status.code(), Code::Ok);
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
        assert_eq!(Refusal::from_status(&Status::internal("foreign")), None);
    }

    #[test]
    fn who_is_refused_for_the_moment_hears_when_to_come_back() {
        let busy = Refusal::new(Reason::Overloaded, "busy");
        assert_eq!(retry_after(&busy.clone().into_status()), Reason::Overloaded.retry_after());
        let later = Some(Duration::from_secs(7));
        let quota = Refusal { retry_after: later, ..busy };
        assert_eq!(retry_after(&quota.into_status()), later);
        let never = Refusal::new(Reason::ApplicationNotFound, "none").into_status();
        assert_eq!(retry_after(&never), None);
    }
}
