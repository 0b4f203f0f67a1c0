//! What a check found, step by step.

use serde::{Serialize, Serializer};
use sso_core::tls::TlsReason;
use time::OffsetDateTime;

use crate::certificates::Tree;

/// The steps of a check, in their order. A step that an earlier one makes senseless is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StepKind {
    /// The name is looked up.
    Resolve,
    /// The port is connected to.
    Connect,
    /// TLS 1.3 is offered alone.
    #[serde(rename = "tls-1.3")]
    Tls13,
    /// TLS 1.2 is offered alone.
    #[serde(rename = "tls-1.2")]
    Tls12,
    /// TLS 1.1 is offered, which must be refused.
    #[serde(rename = "tls-1.1")]
    Tls11,
    /// TLS 1.0 is offered, which must be refused.
    #[serde(rename = "tls-1.0")]
    Tls10,
    /// Cipher, key exchange and application protocol.
    Protocol,
    /// What the server shows.
    Certificate,
    /// From the server's certificate to a trusted authority.
    Chain,
    /// Whether the certificate is made for the name.
    Name,
    /// Whether the certificates are valid now.
    Validity,
    /// Whether the certificate is made for servers.
    Purpose,
    /// Whether a certificate of the chain is revoked.
    Revocation,
    /// Whether the server asks for a certificate, and takes the one shown.
    ClientCertificate,
}

impl StepKind {
    /// As in JSON, and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls13 => "tls-1.3",
            Self::Tls12 => "tls-1.2",
            Self::Tls11 => "tls-1.1",
            Self::Tls10 => "tls-1.0",
            Self::Protocol => "protocol",
            Self::Certificate => "certificate",
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Validity => "validity",
            Self::Purpose => "purpose",
            Self::Revocation => "revocation",
            Self::ClientCertificate => "client-certificate",
        }
    }
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// A client goes on, and an administrator should look at it.
    Warning,
    /// A client does not go on.
    Failed,
    /// Not done, because an earlier step failed.
    NotDone,
}

impl Outcome {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotDone => "not-done",
        }
    }
}

/// One step, in words for an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: StepKind,
    /// How it went.
    pub outcome: Outcome,
    /// Why, where it did not go well and the reason has a name.
    #[serde(serialize_with = "reason")]
    pub reason: Option<TlsReason>,
    /// What was seen.
    pub words: String,
    /// What to do, where something is to be done.
    pub advice: Option<String>,
}

impl Step {
    pub(super) fn ok(step: StepKind, words: impl Into<String>) -> Self {
        Self { step, outcome: Outcome::Ok, reason: None, words: words.into(), advice: None }
    }

    pub(super) fn not_done(step: StepKind, words: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotDone, ..Self::ok(step, words) }
    }

    pub(super) fn warning(
        step: StepKind,
        words: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { outcome: Outcome::Warning, advice, ..Self::ok(step, words) }
    }

    pub(super) fn failed(
        step: StepKind,
        reason: Option<TlsReason>,
        words: impl Into<String>,
    ) -> Self {
        let advice = reason.map(|reason| reason.advice().to_owned());
        Self { outcome: Outcome::Failed, reason, advice, ..Self::ok(step, words) }
    }

    pub(super) fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

fn reason<S: Serializer>(reason: &Option<TlsReason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(TlsReason::as_str).serialize(serializer)
}

/// What becomes of a client with the settings of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is served.
    Served,
    /// One side refuses the other, which trying again does not cure.
    Refused,
    /// There is no talking with the server now.
    Unreachable,
}

/// What was agreed on in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// `TLS 1.3` or `TLS 1.2`.
    pub version: String,
    /// By its name in the standards.
    pub cipher_suite: String,
    /// The group of the key exchange.
    pub key_exchange: Option<String>,
    /// `h2` or `http/1.1`; `None`: the server chose no application protocol.
    pub application_protocol: Option<String>,
}

/// A revocation list that the check used, or a source that gave none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UsedList {
    /// The file or URL.
    pub source: String,
    /// The authority that it is of.
    pub issuer: Option<String>,
    /// When it was issued.
    #[serde(with = "time::serde::rfc3339::option")]
    pub this_update: Option<OffsetDateTime>,
    /// Until when it holds.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_update: Option<OffsetDateTime>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `HOST:PORT`
    pub address: String,
    /// The name that the certificate has to have.
    pub name: String,
    /// What becomes of a client.
    pub verdict: Verdict,
    /// Why it is not served, where that has a name.
    #[serde(serialize_with = "reason")]
    pub reason: Option<TlsReason>,
    /// Every step that was taken.
    pub steps: Vec<Step>,
    /// What was agreed on; `None` when no handshake came so far.
    pub agreement: Option<Agreement>,
    /// The certificates that the server shows, whether they are trusted or not.
    #[serde(flatten)]
    pub chain: Tree,
    /// The revocation lists.
    pub lists: Vec<UsedList>,
}

impl Report {
    /// The step, if it was come to.
    #[must_use]
    pub fn step(&self, step: StepKind) -> Option<&Step> {
        self.steps.iter().find(|found| found.step == step)
    }
}
