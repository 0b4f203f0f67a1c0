//! What of TLS is worth a line in the log: certificates and lists that end, reloads, peers that were let
//! through unchecked. Programs log them under numbers of their own.

use std::sync::OnceLock;

use time::OffsetDateTime;

use super::TlsReason;

/// Something to tell whoever operates the program. Each is given when it begins, not again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsNotice {
    /// Files or lists were loaded again and are in use.
    Reloaded {
        /// What was put to use since the start is counted from 1.
        generation: u64,
    },
    /// What was in use stays in use.
    NotReloaded {
        /// Names the file and what is wrong with it.
        error: String,
    },
    /// A certificate that is shown or trusted ends before long; given at 30, 7 and 1 days.
    CertificateEndsSoon {
        /// Which one, in words: its role and subject.
        certificate: String,
        /// The last second of its validity.
        not_after: OffsetDateTime,
        /// Whole days until then.
        days_left: i64,
    },
    /// A certificate that is shown or trusted has ended.
    CertificateEnded {
        /// Which one, in words: its role and subject.
        certificate: String,
        /// The last second of its validity.
        not_after: OffsetDateTime,
    },
    /// A list cannot be read or fetched, or is not one that counts.
    ListUnavailable {
        /// File or URL.
        source: String,
        /// What is wrong, in words.
        problem: String,
    },
    /// A list has ended and there is no newer one.
    ListExpired {
        /// File or URL.
        source: String,
        /// The end.
        next_update: OffsetDateTime,
    },
    /// A peer was let through although nobody can say whether it is revoked.
    SoftFailed {
        /// Why nobody can.
        reason: TlsReason,
        /// SHA-256 of the peer's certificate, hexadecimal.
        thumbprint: String,
        /// Hexadecimal.
        serial: String,
        /// Of the peer's certificate.
        subject: String,
        /// The same in words.
        words: String,
    },
}

impl TlsNotice {
    /// Logs it without a number: for programs that have none.
    fn log(&self) {
        match self {
            Self::Reloaded { generation } => tracing::info!(generation, "TLS files reloaded"),
            Self::NotReloaded { error } => {
                tracing::error!(error, "TLS files are not usable, those loaded before stay in use");
            }
            Self::CertificateEndsSoon { certificate, not_after, days_left } => {
                tracing::warn!(certificate, %not_after, days_left, "a certificate ends soon");
            }
            Self::CertificateEnded { certificate, not_after } => {
                tracing::error!(certificate, %not_after, "a certificate has expired");
            }
            Self::ListUnavailable { source, problem } => {
                tracing::warn!(source, problem, "a revocation list is not to be had");
            }
            Self::ListExpired { source, next_update } => {
                tracing::error!(source, %next_update, "a revocation list has expired");
            }
            Self::SoftFailed { reason, thumbprint, serial, subject, words } => {
                let reason = reason.as_str();
                tracing::warn!(
                    reason,
                    thumbprint,
                    serial,
                    subject,
                    words,
                    "a peer is let through unchecked"
                );
            }
        }
    }
}

/// Who is told; the log, until the program says otherwise.
#[derive(Debug, Default)]
pub(crate) struct Notices(OnceLock<fn(&TlsNotice)>);

impl Notices {
    /// From now on the program hears of them itself. Whoever came first stays.
    pub(super) fn announce(&self, hear: fn(&TlsNotice)) {
        let _ = self.0.set(hear);
    }

    pub(crate) fn give(&self, notice: &TlsNotice) {
        match self.0.get() {
            Some(hear) => hear(notice),
            None => notice.log(),
        }
    }
}
