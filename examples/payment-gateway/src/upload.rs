//! What goes over the wire when a bill is uploaded.

use serde::{Deserialize, Serialize};

use crate::bill::PaymentNumber;

/// Where bills are posted to at the gateway.
pub const PATH: &str = "/v1/bills";
/// The header with the key of the bill.
pub const KEY_HEADER: &str = "idempotency-key";

/// What a bill gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What the customer pays it under.
    pub payment_number: PaymentNumber,
    /// How long that is good for, RFC 3339.
    pub valid_until: String,
}

/// How a merchant proves who it is, beside the certificate of the system that speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// User name and password.
    Basic,
    /// A token.
    Bearer,
}

impl Scheme {
    /// The word in settings and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        }
    }

    /// The scheme of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Basic, Self::Bearer].into_iter().find(|scheme| scheme.as_str() == text)
    }
}
