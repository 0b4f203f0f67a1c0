//! How a refusal travels: gRPC status, `google.rpc.ErrorInfo` with a stable reason, and metadata.

use std::{collections::HashMap, error::Error, fmt};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

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
}

impl Refusal {
    /// A refusal that is not yet tied to a request.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), request_id: String::new() }
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
        let details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        // A warning is no refusal; answering with one is a fault of ours.
        let code = self.reason.code();
        let code = if code == Code::Ok { Code::Internal } else { code };
        Status::with_error_details(code, self.message, details)
    }
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
                Refusal { reason, message: "what was wrong".into(), request_id: "0190-77".into() };
            let status = refusal.clone().into_status();
            assert_ne!(status.code(), Code::Ok);
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
        assert_eq!(Refusal::from_status(&Status::internal("foreign")), None);
    }
}
