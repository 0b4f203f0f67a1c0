//! Log lines of certificates and revocation lists, with their event numbers.

use sso_core::tls::TlsNotice;
use sso_proto::Event;

/// Says what came of certificates and revocation lists.
pub fn tls(notice: &TlsNotice) {
    match notice {
        TlsNotice::Reloaded { generation } => {
            tracing::info!(event = Event::TlsReloaded.number(), generation, "TLS files reloaded");
        }
        TlsNotice::NotReloaded { error } => {
            tracing::error!(
                event = Event::TlsNotReloaded.number(),
                error,
                "TLS files are not usable, those loaded before stay in use"
            );
        }
        TlsNotice::CertificateEndsSoon { certificate, not_after, days_left } => {
            tracing::warn!(event = Event::CertificateEndsSoon.number(), certificate, %not_after, days_left, "a certificate ends soon");
        }
        TlsNotice::CertificateEnded { certificate, not_after } => {
            tracing::error!(event = Event::CertificateEnded.number(), certificate, %not_after, "a certificate has expired");
        }
        TlsNotice::ListUnavailable { source, problem } => {
            tracing::warn!(
                event = Event::RevocationListUnavailable.number(),
                source,
                problem,
                "a revocation list is not to be had"
            );
        }
        TlsNotice::ListExpired { source, next_update } => {
            tracing::error!(event = Event::RevocationListExpired.number(), source, %next_update, "a revocation list has expired");
        }
        TlsNotice::SoftFailed { reason, thumbprint, serial, subject, words } => {
            let reason = reason.as_str();
            tracing::warn!(
                event = Event::RevocationNotChecked.number(),
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
