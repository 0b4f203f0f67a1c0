//! Answers of both systems: JSON, also where they refuse.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Bytes of the largest body that is read.
pub(crate) const BODY_MAX: usize = 16 * 1024;

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, content: &impl Serialize) -> Response {
    // What is answered here is made of texts, numbers and lists of them.
    let text = serde_json::to_string(content).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

/// Why a request is refused: a word for programs, a sentence for people.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) message: String,
}

/// A refusal as it is written.
#[derive(Serialize)]
struct Written<'a> {
    error: &'a str,
    message: &'a str,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        error: &'static str,
        message: impl std::fmt::Display,
    ) -> Self {
        Self { status, error, message: message.to_string() }
    }

    pub(crate) fn bad_request(error: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, message)
    }

    /// The file of the program does not take or give what it should; worth trying again.
    pub(crate) fn store(error: &sqlx::Error) -> Self {
        tracing::error!(%error, "the database fails");
        let message = "the database fails; nothing was changed, try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "DATABASE_UNAVAILABLE", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &Written { error: self.error, message: &self.message })
    }
}
