//! A call to an outside system, and its answer.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::{Serialize, de::DeserializeOwned};
use sso_core::secret::SecretText;
use zeroize::Zeroizing;

use super::HttpsError;
use crate::Credentials;

/// A request to make through a [`HttpsClient`](super::HttpsClient). What cannot be sent is said by
/// [`HttpsClient::send`](super::HttpsClient::send).
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) problem: Option<String>,
}

impl Call {
    /// A call without headers and body. The path is appended to the address of the port; it may have a
    /// query.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        let problem = path
            .contains(|c: char| c.is_control() || c.is_whitespace() || c == '#')
            .then(|| "the path has white space, control characters or a fragment".to_owned());
        Self { method, path, headers: HeaderMap::new(), body: Vec::new(), problem }
    }

    /// Reads something.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Brings something.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => {
                self.problem = Some(format!("the header {name:?} or its value has bad characters"));
            }
        }
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE.as_str(), content_type)
    }

    /// The same with a body in JSON.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body("application/json", bytes),
            Err(_) => {
                self.problem = Some("the body cannot be written as JSON".to_owned());
                self
            }
        }
    }

    /// The same with a user and a password (HTTP basic).
    #[must_use]
    pub fn basic(mut self, user: &str, password: &SecretText) -> Self {
        if user.contains(|c: char| c == ':' || c.is_control()) {
            self.problem =
                Some("the name of the user has a colon or a control character".to_owned());
            return self;
        }
        // Expose: into the header of the one call, which is marked as sensitive.
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        let text = Zeroizing::new(format!("Basic {}", &*Zeroizing::new(STANDARD.encode(&*pair))));
        self.authorization(&text)
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn bearer(self, token: &SecretText) -> Self {
        // Expose: into the header of the one call, which is marked as sensitive.
        let text = Zeroizing::new(format!("Bearer {}", token.expose()));
        self.authorization(&text)
    }

    /// The same with credentials that a ticket was redeemed for: the external user, and the first value
    /// as the password (HTTP basic).
    #[must_use]
    pub fn credentials(mut self, credentials: &Credentials) -> Self {
        match credentials.values.first() {
            Some(password) => self.basic(&credentials.external_user, password),
            None => {
                self.problem = Some("the credentials have no values, so no password".to_owned());
                self
            }
        }
    }

    fn authorization(mut self, text: &str) -> Self {
        match HeaderValue::try_from(text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(header::AUTHORIZATION, value);
            }
            Err(_) => {
                self.problem =
                    Some("the credentials have characters that no header takes".to_owned());
            }
        }
        self
    }
}

/// What an outside system answered. `Debug` shows no body.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// The port, for words.
    pub(super) at: Arc<str>,
}

impl Answer {
    /// The body, which is JSON.
    ///
    /// # Errors
    /// [`HttpsError::Answer`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpsError> {
        serde_json::from_slice(&self.body).map_err(|error| HttpsError::Answer {
            at: Arc::clone(&self.at),
            problem: format!(
                "is not the JSON that is expected (line {}, column {})",
                error.line(),
                error.column()
            ),
        })
    }

    /// The value of a header, where there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden() {
        let secret = SecretText::new("canary".to_owned());
        let call = Call::post("/bills").basic("ann", &secret);
        assert_eq!(call.headers[header::AUTHORIZATION], "Basic YW5uOmNhbmFyeQ==");
        let shown = format!("{call:?}");
        assert!(!shown.contains("YW5u") && !shown.contains("canary"), "{shown}");
        let call = Call::get("/bills").bearer(&secret);
        assert_eq!(call.headers[header::AUTHORIZATION], "Bearer canary");
        assert!(!format!("{call:?}").contains("canary"));
    }

    #[test]
    fn what_cannot_be_sent_is_noted() {
        let secret = SecretText::new("canary\n".to_owned());
        let credentials = Credentials {
            application: "App".into(),
            external_user: "ann".into(),
            values: Vec::new(),
        };
        for call in [
            Call::get("/a b"),
            Call::get("/a#b"),
            Call::get("/").header("a b", "x"),
            Call::get("/").header("x", "a\nb"),
            Call::get("/").basic("a:b", &SecretText::new("x".into())),
            Call::get("/").bearer(&secret),
            Call::get("/").credentials(&credentials),
        ] {
            let problem = call.problem.unwrap();
            assert!(!problem.contains("canary"), "{problem}");
        }
    }
}
