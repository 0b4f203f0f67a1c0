//! When a read is tried again: the connection failed and no answer came, or the server is busy and says
//! when to come back.

use std::{error::Error, time::Duration};

use sso_core::connector;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How often and after what pause reads are tried again. Writes never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// Mean pause before the second attempt; each further one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// One attempt only.
    pub const NEVER: Self =
        Self { retries: 0, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// The pause before a read that ended with this status is sent again; `None` when it is not.
    pub(crate) fn pause_after(&self, status: &Status, attempt: u32) -> Option<Duration> {
        let pause = self.pause(attempt)?;
        match sso_proto::retry_after(status) {
            // Not before the server wants to hear of it, and not all clients at once.
            Some(wanted) => Some(pause.max(wanted.mul_f64(rand::random_range(1.0..1.5)))),
            None => is_connection_failure(status).then_some(pause),
        }
    }

    /// The pause before attempt `attempt` + 2 (0 = before the second), between half and one and a
    /// half of the mean so that many clients do not come back at once; `None` after the last.
    pub(crate) fn pause(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.retries {
            return None;
        }
        let mean = self.first_pause.saturating_mul(2_u32.saturating_pow(attempt));
        let mean = mean.min(self.longest_pause);
        Some(mean.mul_f64(rand::random_range(0.5..1.5)).min(self.longest_pause))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 3,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
        }
    }
}

/// Whether the connection failed before an answer came, so that a read may be sent again. An answer
/// of the service (it carries a reason) and a refused certificate are final.
pub(crate) fn is_connection_failure(status: &Status) -> bool {
    let no_answer = match status.code() {
        Code::Unavailable | Code::Unknown => status.source().is_some(),
        // What a call gets that races with the closing of its connection.
        Code::Cancelled | Code::Internal => is_going_away(status),
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    };
    no_answer && status.get_details_error_info().is_none() && !connector::is_trust_failure(status)
}

/// Whether the connection was closing in good order: what was not sent any more, or came after the last
/// request that the server takes (RFC 9113, 6.8).
fn is_going_away(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        let not_sent = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(|it| it.is_canceled() || it.is_closed());
        let not_taken = error
            .downcast_ref::<h2::Error>()
            .is_some_and(|it| it.is_go_away() && it.reason() == Some(h2::Reason::NO_ERROR));
        if not_sent || not_taken {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use sso_proto::{Reason, Refusal};

    use super::*;

    fn transport(error: io::Error) -> Status {
        Status::from_error(Box::new(error))
    }

    #[test]
    fn only_failed_connections_are_tried_again() {
        assert!(is_connection_failure(&transport(io::ErrorKind::ConnectionRefused.into())));
        assert!(is_connection_failure(&transport(io::ErrorKind::ConnectionReset.into())));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked);
        assert!(!is_connection_failure(&transport(io::Error::other(alert))));
        for status in [
            Refusal::new(Reason::MasterUnreachable, "x").into_status(),
            Refusal::new(Reason::Internal, "x").into_status(),
            Refusal::new(Reason::NotSsoAdministrator, "x").into_status(),
            Status::unavailable("no source: the server said so"),
            Status::cancelled("Timeout expired"),
            Status::deadline_exceeded("late"),
        ] {
            assert!(!is_connection_failure(&status), "{status:?}");
        }
    }

    #[test]
    fn a_busy_server_is_asked_again_when_it_says_so() {
        let policy = RetryPolicy::default();
        let wanted = Some(Duration::from_secs(5));
        let busy = Refusal { retry_after: wanted, ..Refusal::new(Reason::Overloaded, "busy") };
        let busy = busy.into_status();
        let pause = policy.pause_after(&busy, 0).unwrap();
        assert!(Some(pause) >= wanted && pause < Duration::from_millis(7500), "{pause:?}");
        assert_eq!(policy.pause_after(&busy, policy.retries), None);
        let refused = Refusal::new(Reason::ApplicationNotFound, "none").into_status();
        assert_eq!(policy.pause_after(&refused, 0), None);
    }

    #[test]
    fn pauses_grow_vary_and_end() {
        let policy = RetryPolicy::default();
        for attempt in 0..3 {
            let mean = policy.first_pause * 2_u32.pow(attempt);
            for _ in 0..100 {
                let pause = policy.pause(attempt).unwrap();
                assert!(pause >= mean / 2 && pause <= mean * 3 / 2, "{pause:?}");
            }
        }
        assert_eq!(policy.pause(3), None);
        assert_eq!(RetryPolicy::NEVER.pause(0), None);
        let many = RetryPolicy { retries: 100, ..policy };
        assert!(many.pause(99).unwrap() <= policy.longest_pause);
    }
}
