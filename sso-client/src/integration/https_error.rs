//! Why a call to an outside system failed, and whether trying again helps.

use std::{error::Error, io, sync::Arc, time::Duration};

use sso_core::{connector::tls_words, tls::TlsReason};

use super::{Again, Answer, again};

/// Why a call failed. Every text names the port and its address.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpsError {
    /// The call itself cannot be sent.
    #[error("{at}: the call cannot be sent: {problem}")]
    Call {
        /// The port and its address.
        at: Arc<str>,
        /// What is wrong with the call.
        problem: String,
    },
    /// One side refuses the other in TLS; nothing was taken by the other side.
    #[error("{at}: {words}")]
    Tls {
        /// The port and its address.
        at: Arc<str>,
        /// Why.
        reason: TlsReason,
        /// Who refuses whom and what to do, the reason in front.
        words: String,
    },
    /// There is no connection; nothing was taken by the other side.
    #[error("{at}: no connection: {words}")]
    Unreachable {
        /// The port and its address.
        at: Arc<str>,
        /// What the operating system said.
        words: String,
    },
    /// No connection, or no whole answer, in time.
    #[error("{at}: no {} within {after:?}", if *.connecting { "connection" } else { "answer" })]
    Timeout {
        /// The port and its address.
        at: Arc<str>,
        /// The timeout of the port.
        after: Duration,
        /// Whether there was no connection yet.
        connecting: bool,
    },
    /// The connection broke before the whole answer was there.
    #[error("{at}: the connection broke: {words}")]
    Broken {
        /// The port and its address.
        at: Arc<str>,
        /// What happened.
        words: String,
    },
    /// The other side answered with a status that is no success.
    #[error("{}: answered with status {}", answer.at, answer.status)]
    Status {
        /// What it said besides.
        answer: Box<Answer>,
    },
    /// The answer is a success, and not what is expected.
    #[error("{at}: the answer {problem}")]
    Answer {
        /// The port and its address.
        at: Arc<str>,
        /// What is wrong with it.
        problem: String,
    },
}

impl HttpsError {
    /// Whether trying again with the same message helps.
    ///
    /// Of statuses: 408, 425, 429 and 5xx cure themselves; 3xx, 401, 403, 404, 405, 407, 410, 501 and
    /// 505 need other credentials or another address; the rest of 4xx is about the message itself.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self::Call { .. } => Again::Never,
            Self::Tls { reason, .. } => again::of_tls(*reason),
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Broken { .. } => Again::Later,
            Self::Status { answer } => of_status(answer.status),
            Self::Answer { .. } => Again::AfterRepair,
        }
    }

    /// Why one side refuses the other in TLS.
    #[must_use]
    pub fn reason(&self) -> Option<TlsReason> {
        match self {
            Self::Tls { reason, .. } => Some(*reason),
            Self::Call { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Answer { .. } => None,
        }
    }

    /// The HTTP status, where there was an answer with one that is no success.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status)
    }

    /// The answer with a status that is no success.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Status { answer } => Some(answer),
            Self::Call { .. }
            | Self::Tls { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Answer { .. } => None,
        }
    }

    /// How long the other side asks to be left alone (`Retry-After` in seconds), a day at most.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.answer()?.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds.min(86_400)))
    }

    /// Whether the message may have arrived although there is no good answer. Send it again only under
    /// a key that the other side knows repetitions by.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Call { .. } | Self::Tls { .. } | Self::Unreachable { .. } => false,
            Self::Timeout { connecting, .. } => !connecting,
            Self::Broken { .. } | Self::Status { .. } | Self::Answer { .. } => true,
        }
    }
}

fn of_status(status: u16) -> Again {
    match status {
        408 | 425 | 429 => Again::Later,
        501 | 505 => Again::AfterRepair,
        500.. => Again::Later,
        0..=399 | 401 | 403 | 404 | 405 | 407 | 410 => Again::AfterRepair,
        _ => Again::Never,
    }
}

/// The error of the TLS library somewhere below an error of the HTTP library.
pub(super) fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    causes(error).find_map(|error| {
        error.downcast_ref::<rustls::Error>().or_else(|| {
            // The source of an I/O error is that of its inner error, which would be passed over; and
            // the library puts one I/O error into another.
            tls_error(error.downcast_ref::<io::Error>()?.get_ref()?)
        })
    })
}

/// The error with its deepest cause: the outer ones only say that something failed.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// An error of TLS, with who refuses whom.
pub(super) fn refused(at: &Arc<str>, error: &rustls::Error) -> HttpsError {
    let reason = TlsReason::of(error).unwrap_or(TlsReason::Other);
    HttpsError::Tls { at: Arc::clone(at), reason, words: tls_words(error) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    fn status(status: u16, retry_after: Option<&'static str>) -> HttpsError {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert("retry-after", HeaderValue::from_static(text));
        }
        HttpsError::Status {
            answer: Box::new(Answer { status, headers, body: Vec::new(), at: "port".into() }),
        }
    }

    #[test]
    fn statuses_are_sorted_by_what_cures_them() {
        for (number, again) in [
            (301, Again::AfterRepair),
            (304, Again::AfterRepair),
            (400, Again::Never),
            (401, Again::AfterRepair),
            (403, Again::AfterRepair),
            (404, Again::AfterRepair),
            (408, Again::Later),
            (409, Again::Never),
            (413, Again::Never),
            (422, Again::Never),
            (429, Again::Later),
            (500, Again::Later),
            (501, Again::AfterRepair),
            (503, Again::Later),
            (599, Again::Later),
        ] {
            assert_eq!(status(number, None).again(), again, "{number}");
            assert_eq!(status(number, None).status(), Some(number));
        }
    }

    #[test]
    fn the_other_side_says_when() {
        assert_eq!(status(429, Some("7")).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(
            status(429, Some("99999999999")).retry_after(),
            Some(Duration::from_secs(86_400))
        );
        assert_eq!(status(429, Some("-1")).retry_after(), None);
        assert_eq!(status(429, None).retry_after(), None);
    }

    #[test]
    fn the_reason_is_found_below() {
        let inner = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        let error = io::Error::new(io::ErrorKind::InvalidData, inner);
        let error = io::Error::other(Wrapped(error));
        // Two levels of wrapping, as the HTTP library does it.
        let found = tls_error(error.get_ref().unwrap()).unwrap();
        let refused = refused(&"the port".into(), found);
        assert_eq!(refused.reason(), Some(TlsReason::CertificateRevoked));
        assert_eq!(refused.again(), Again::AfterRepair);
        let words = refused.to_string();
        assert!(words.contains("CERTIFICATE_REVOKED: the server refused the client"), "{words}");
        assert!(!refused.may_have_arrived());
        let own = rustls::Error::InvalidCertificate(CertificateError::Revoked);
        let words = super::refused(&"the port".into(), &own).to_string();
        assert!(words.contains("CERTIFICATE_REVOKED: the server's certificate"), "{words}");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Wrapped(#[source] io::Error);
}
