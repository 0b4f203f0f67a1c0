//! Audit records: who did what to which object, when, through which server.

use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

/// How an audited request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused for want of a role.
    Denied,
}

impl AuditOutcome {
    /// The word stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
        }
    }

    /// The outcome of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Done, Self::Denied].into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// One audit record. No part of it ever holds a secret value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Version 7: its order is the order of time on one server.
    pub id: Uuid,
    /// When.
    pub at: OffsetDateTime,
    /// The server that wrote it.
    pub server: String,
    /// The request id the caller got.
    pub request_id: String,
    /// The account, as written.
    pub caller: String,
    /// A noun and a verb.
    pub action: String,
    /// Name of the application at the time; empty where there is none.
    pub application: String,
    /// What of the application: an identifier, a label.
    pub object: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Stable reason of a denial.
    pub reason: String,
    /// Short text: labels, revision numbers.
    pub detail: String,
}

/// A place in the list of audit records, which begins with the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditPosition {
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// Of records of the same time, the one with the higher id comes first.
    pub id: Uuid,
}

impl AuditPosition {
    /// The place of a record.
    #[must_use]
    pub fn of(record: &AuditRecord) -> Self {
        let micros = record.at.unix_timestamp_nanos().div_euclid(1000);
        Self { at: i64::try_from(micros).unwrap_or(i64::MAX), id: record.id }
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (at, id) = text.split_once(',')?;
        Some(Self { at: at.parse().ok()?, id: Uuid::try_parse(id).ok()? })
    }
}

impl fmt::Display for AuditPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.at, self.id)
    }
}

/// Which audit records are wanted; what is absent does not narrow.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Canonical key of an application name.
    pub application_key: Option<String>,
    /// Canonical key of an account.
    pub caller_key: Option<String>,
    /// Exact action, or a noun with a dot behind it.
    pub action: Option<String>,
    /// From this time on.
    pub since: Option<OffsetDateTime>,
    /// Before this time.
    pub until: Option<OffsetDateTime>,
    /// Only this outcome.
    pub outcome: Option<AuditOutcome>,
}
