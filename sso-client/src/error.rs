//! Errors by what the caller can do about them.

use sso_core::{connector, exit::Exit, tls::TlsError};
use sso_proto::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why the service refused, as it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable name, such as `APPLICATION_NOT_FOUND`; the gRPC code where the answer has no reason.
    pub reason: String,
    /// Event number of the reference product, where there is one.
    pub event: Option<u32>,
    /// What was wrong, in words.
    pub message: String,
    /// Names the request in the server's log and audit; may be empty.
    pub request_id: String,
}

impl Refusal {
    /// The reason, where this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<Reason> {
        Reason::parse(&self.reason)
    }
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The caller may not do this. Ask for the role, or call as somebody else.
    #[error("{}", .0.message)]
    Denied(Refusal),
    /// There is no such thing. Check the name.
    #[error("{}", .0.message)]
    NotFound(Refusal),
    /// The request makes no sense to the service. Change it.
    #[error("{}", .0.message)]
    Invalid(Refusal),
    /// Somebody was there before: it exists, or it changed meanwhile. Read again, then decide.
    #[error("{}", .0.message)]
    Conflict(Refusal),
    /// The state does not allow it: disabled, or of another type. Change the state first.
    #[error("{}", .0.message)]
    Precondition(Refusal),
    /// The service answers, but cannot do this now. Try again later.
    #[error("{}", .0.message)]
    Unavailable(Refusal),
    /// A stored value does not open. Restore it from a backup or write it anew.
    #[error("{}", .0.message)]
    Damaged(Refusal),
    /// A fault of the service. Report it with the request id.
    #[error("{}", .0.message)]
    Fault(Refusal),
    /// No answer came: no connection, refused certificate, deadline.
    #[error("{addr}: {reason}")]
    Unreachable {
        /// The address that was called.
        addr: String,
        /// What happened, in words.
        reason: String,
        /// Whether one side refuses the other's certificate; trying again does not cure that.
        trust: bool,
        /// Whether a change was on its way, so that it may have been made. Read before repeating it.
        outcome_unknown: bool,
    },
    /// Address or certificate files of the profile are not usable.
    #[error(transparent)]
    Settings(#[from] TlsError),
}

impl ClientError {
    /// Sorts what a call came back with; `change` says whether it would have changed something.
    pub(crate) fn from_status(status: &Status, addr: &str, change: bool) -> Self {
        if let Some(refusal) = refusal_of(status) {
            return Self::from_refusal(status.code(), refusal);
        }
        let reason = connector::transport_reason(status);
        if reason.is_some() || std::error::Error::source(status).is_some() || is_cut(status) {
            let trust = connector::is_trust_failure(status);
            return Self::Unreachable {
                addr: addr.to_owned(),
                reason: reason.unwrap_or_else(|| without_reason(status)),
                trust,
                outcome_unknown: change && !trust && !is_connect_failure(status),
            };
        }
        let refusal = Refusal {
            reason: code_name(status.code()).to_owned(),
            event: None,
            message: match status.message() {
                "" => format!("the server answered {} without a message", code_name(status.code())),
                message => message.to_owned(),
            },
            request_id: String::new(),
        };
        Self::from_refusal(status.code(), refusal)
    }

    /// Sorts a refusal by its gRPC code.
    pub(crate) fn from_refusal(code: Code, refusal: Refusal) -> Self {
        match code {
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(refusal),
            Code::NotFound => Self::NotFound(refusal),
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(refusal),
            Code::AlreadyExists | Code::Aborted => Self::Conflict(refusal),
            Code::FailedPrecondition | Code::Unimplemented => Self::Precondition(refusal),
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Cancelled => Self::Unavailable(refusal),
            Code::DataLoss => Self::Damaged(refusal),
            Code::Internal | Code::Unknown | Code::Ok => Self::Fault(refusal),
        }
    }

    /// An answer that lacks a part the contract promises.
    pub(crate) fn incomplete(part: &str) -> Self {
        Self::Fault(Refusal {
            reason: "INCOMPLETE_ANSWER".to_owned(),
            event: None,
            message: format!("the server's answer lacks '{part}'"),
            request_id: String::new(),
        })
    }

    /// What the service said; `None` when no answer of the service came.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Denied(refusal)
            | Self::NotFound(refusal)
            | Self::Invalid(refusal)
            | Self::Conflict(refusal)
            | Self::Precondition(refusal)
            | Self::Unavailable(refusal)
            | Self::Damaged(refusal)
            | Self::Fault(refusal) => Some(refusal),
            Self::Unreachable { .. } | Self::Settings(_) => None,
        }
    }

    /// Stable word for this kind of error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Conflict(_) => "conflict",
            Self::Precondition(_) => "precondition",
            Self::Unavailable(_) => "unavailable",
            Self::Damaged(_) => "damaged",
            Self::Fault(_) => "fault",
            Self::Unreachable { .. } => "unreachable",
            Self::Settings(_) => "settings",
        }
    }

    /// The exit code of a program that ends with this error: 1 refused, 64 settings, 69 unavailable,
    /// 77 denied.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Denied(_) => Exit::Denied.code(),
            Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Conflict(_)
            | Self::Precondition(_)
            | Self::Damaged(_)
            | Self::Fault(_) => Exit::Refused.code(),
            Self::Unavailable(_) | Self::Unreachable { .. } => Exit::Unavailable.code(),
            Self::Settings(_) => Exit::Settings.code(),
        }
    }

    /// What to do next, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { trust: true, .. } => {
                Some("check --ca, --cert and --key; both sides must use the same authority")
            }
            Self::Unreachable { outcome_unknown: true, .. } => Some(
                "the change may have been made or not: read before you repeat it; check that the \
                 server runs",
            ),
            Self::Unreachable { .. } => Some("check the address, and that the server runs"),
            Self::Settings(_) => None,
            Self::Denied(_)
            | Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Conflict(_)
            | Self::Precondition(_)
            | Self::Unavailable(_)
            | Self::Damaged(_)
            | Self::Fault(_) => self.refusal().and_then(Refusal::known).and_then(hint),
        }
    }
}

fn refusal_of(status: &Status) -> Option<Refusal> {
    let info = status.get_details_error_info()?;
    Some(Refusal {
        event: info.metadata.get("event").and_then(|event| event.parse().ok()),
        request_id: info.metadata.get("request_id").cloned().unwrap_or_default(),
        reason: info.reason,
        message: status.message().to_owned(),
    })
}

/// Codes that the transport itself answers with when a call is cut off or too late.
fn is_cut(status: &Status) -> bool {
    matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
}

/// Whether the request never left, because there was no connection to send it on.
fn is_connect_failure(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn without_reason(status: &Status) -> String {
    // The second is what tonic says of its own timer.
    if status.code() == Code::DeadlineExceeded || status.message() == "Timeout expired" {
        "the deadline passed before an answer came".to_owned()
    } else if is_cut(status) {
        format!("the call was cut off ({})", innermost(status))
    } else {
        format!("the connection failed ({})", innermost(status))
    }
}

/// The deepest cause in words; the outer ones only say "transport error".
fn innermost(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        words = error.to_string();
        next = error.source();
    }
    words
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What the words of the server do not say themselves: they name the command that helps where one does.
#[expect(clippy::wildcard_enum_match_arm, reason = "most reasons need no hint")]
fn hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NotAuthenticated => {
            "the server's settings ([[identity.certificate]]) must turn this certificate into an account"
        }
        Reason::NotSsoAdministrator
        | Reason::NotAffiliateAdministrator
        | Reason::NotApplicationUser => "'sso status' shows your account and groups",
        Reason::NotApplicationAdministrator => {
            "'sso status' shows your account and groups; to read a configuration as a user of the \
             application, add --reveal"
        }
        Reason::ConfigurationNotFound => "'sso config list APP' shows the identifiers that are set",
        Reason::MappingNotFound => {
            "'sso mapping list APP' shows the mappings; 'sso mapping create APP ACCOUNT EXTERNAL' makes one"
        }
        Reason::CredentialsIncomplete | Reason::ValuesIncomplete => {
            "'sso app show APP' lists the fields; give a value for each but field 0"
        }
        Reason::TicketValidationRequiredBySystem
        | Reason::TicketValidationRequiredByApplication
        | Reason::TicketValidationRequiredByTicket => "name the sender: --sender ACCOUNT",
        Reason::TicketSenderMismatch => {
            "the sender must be the account the ticket was issued to; only the word of a trusted host is \
             taken for it ('sso status' shows whether you are one)"
        }
        Reason::TicketExpired => {
            "ask for a new ticket; 'sso app update APP --ticket-timeout MINUTES' gives them more time"
        }
        Reason::Immutable => "what cannot change: export, delete and create the application again",
        Reason::MasterUnreachable | Reason::MasterSecretExpired | Reason::MasterSecretMissing => {
            "'sso status' shows what the server knows of its master; start sso-master or the network to it"
        }
        Reason::MasterAdministrationLocal => {
            "call it on its own machine, with --master unix:///PATH of its socket; or let its settings say \
             [administration] remote = true"
        }
        Reason::NotMasterAdministrator => {
            "the settings of the master name its administrators, by user and certificate: [[administrator]]"
        }
        Reason::NotPrimary => {
            "'sso secret status' names the primary; --master says which one is asked"
        }
        Reason::BackupMissing => {
            "'sso secret backup FILE' makes a backup with it, and 'sso secret verify FILE' proves one"
        }
        Reason::BackupPasswordWrong => {
            "'sso secret reminder FILE' shows what its maker left to remember it by"
        }
        Reason::BackupForeign => {
            "use a backup of this system; 'sso secret status' names its keystore"
        }
        Reason::ServersUnreachable => {
            "start a server, or repair the way to it, and repeat the command"
        }
        Reason::GenerationInUse => {
            "'sso secret status' shows how many rows are left; they are sealed again first"
        }
        Reason::GenerationStateWrong
        | Reason::GenerationNotFound
        | Reason::GenerationFingerprintWrong => {
            "'sso secret status' shows the generations, their states and fingerprints"
        }
        Reason::PromotionRefused => {
            "'sso secret restore FILE' brings generations back; 'sso secret promote --force' goes without them"
        }
        Reason::ServerRevoked | Reason::MasterSecretRevoked => {
            "'sso server readmit NAME' takes a server back"
        }
        Reason::MasterOutdated => {
            "'sso secret status' shows which master is the primary, and in which epoch"
        }
        Reason::MasterSecretForeign => "the server's settings name the master of another system",
        Reason::Overloaded
        | Reason::QuotaExceeded
        | Reason::DatabaseUnavailable
        | Reason::AuditUnavailable => "nothing was done; try again later",
        Reason::ChangeNotSeen => "nothing was done; the same again takes the database as it is",
        Reason::SealedValueDamaged | Reason::GenerationMissing => {
            "write the value anew, or restore the database or the master secret from a backup"
        }
        Reason::TlsNotReloaded => {
            "'sso cert show FILE' shows what is in a file; nothing was changed, so correct it and repeat"
        }
        Reason::Internal => "the server's log has more under this request id",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_kind_and_an_exit_code() {
        for &reason in Reason::ALL {
            let refusal = sso_proto::Refusal {
                request_id: "id-1".into(),
                ..sso_proto::Refusal::new(reason, "words")
            };
            let error = ClientError::from_status(&refusal.into_status(), "https://a:1", true);
            let refusal = error.refusal().unwrap();
            assert_eq!(refusal.reason, reason.as_str());
            assert_eq!(refusal.event, reason.event());
            assert_eq!((refusal.message.as_str(), refusal.request_id.as_str()), ("words", "id-1"));
            let code = reason.code();
            let denied = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            let unavailable = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            let expected = if denied {
                77
            } else if unavailable {
                69
            } else {
                1
            };
            assert_eq!(error.exit_code(), expected, "{reason:?}");
        }
    }

    #[test]
    fn every_code_without_a_reason_has_a_kind() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let error = ClientError::from_status(&Status::new(code, ""), "https://a:1", false);
            assert!(!error.to_string().is_empty());
            if matches!(code, Code::Cancelled | Code::DeadlineExceeded) {
                assert_eq!(error.kind(), "unreachable");
            } else {
                assert_eq!(error.refusal().unwrap().reason, code_name(code));
            }
        }
    }

    #[test]
    fn whoever_may_only_reveal_is_told_how() {
        let hint = hint(Reason::NotApplicationAdministrator).unwrap();
        assert!(hint.contains("'sso status'") && hint.contains("--reveal"), "{hint}");
    }

    #[test]
    fn a_transport_failure_is_unreachable() {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(cause));
        let error = ClientError::from_status(&status, "https://a:1", true);
        assert!(
            matches!(error, ClientError::Unreachable { trust: false, outcome_unknown: true, .. }),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("read before you repeat"));
        assert_eq!(error.exit_code(), 69);
        assert!(error.to_string().starts_with("https://a:1: "), "{error}");
    }
}
