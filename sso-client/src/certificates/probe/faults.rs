//! Why a connection came to nothing, in words for an administrator.

use rustls::AlertDescription;
use sso_core::tls::TlsReason;

use super::{handshake::Fault, report::Verdict};

/// The reason, the words, and what it means for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) reason: Option<TlsReason>,
    pub(super) words: String,
    /// What to do, where that of the reason does not fit.
    pub(super) advice: Option<&'static str>,
    pub(super) verdict: Verdict,
}

/// What went wrong before a certificate of ours was in the game.
pub(super) fn of_server(fault: &Fault) -> Told {
    match fault {
        Fault::NoConnection(error) => {
            told(None, format!("the connection cannot be made: {error}"), Verdict::Unreachable)
        }
        Fault::Silent { shaken: false } => told(
            Some(TlsReason::HandshakeTimeout),
            "the server takes the connection and does not finish the handshake in time",
            Verdict::Unreachable,
        )
        .advise(
            "check whether the port is one of TLS, and whether the server or a proxy before it \
             hangs; --timeout waits longer",
        ),
        Fault::Silent { shaken: true } => told(
            Some(TlsReason::HandshakeTimeout),
            "after the handshake the server neither goes on nor refuses",
            Verdict::Unreachable,
        ),
        Fault::Closed => told(
            Some(TlsReason::Disconnected),
            "the server closes the connection in the handshake and does not say why",
            Verdict::Unreachable,
        ),
        Fault::Reset => told(
            Some(TlsReason::Disconnected),
            "the connection is reset in the handshake: by the server, or by a firewall",
            Verdict::Unreachable,
        ),
        Fault::NotTls(what) => {
            let what = what.map_or_else(
                || "what answers is not TLS".to_owned(),
                |what| format!("what answers is not TLS but seems to be {what}"),
            );
            told(Some(TlsReason::NotTls), what, Verdict::Refused)
        }
        Fault::Alert(alert) => of_alert(*alert),
        Fault::Tls(error) => told(
            TlsReason::of(error).or(Some(TlsReason::Other)),
            format!("this side breaks off: {error}"),
            Verdict::Refused,
        ),
        Fault::Other(error) => {
            told(None, format!("the connection breaks: {error}"), Verdict::Unreachable)
        }
    }
}

/// What went wrong when the server had been shown a certificate of ours, or none although it `asked`.
pub(super) fn of_client(fault: &Fault, shown: bool, asked: bool) -> Told {
    match fault {
        Fault::Alert(
            AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied,
        ) if asked && !shown => none_shown(fault),
        Fault::Alert(AlertDescription::CertificateRequired) if !shown => none_shown(fault),
        Fault::Alert(alert) if shown => refused_client(*alert),
        // Some servers have no alert for those they refuse.
        Fault::Closed | Fault::Reset if asked => told(
            Some(TlsReason::Disconnected),
            match shown {
                true => {
                    "the server breaks off when it is shown the client certificate, and does not say why"
                }
                false => "the server breaks off when it is shown no client certificate",
            },
            Verdict::Refused,
        ),
        Fault::NoConnection(_)
        | Fault::Silent { .. }
        | Fault::Closed
        | Fault::Reset
        | Fault::NotTls(_)
        | Fault::Alert(_)
        | Fault::Tls(_)
        | Fault::Other(_) => of_server(fault),
    }
}

fn none_shown(fault: &Fault) -> Told {
    let alert = match fault {
        Fault::Alert(alert) => format!(" ({})", alert_name(*alert)),
        Fault::NoConnection(_)
        | Fault::Silent { .. }
        | Fault::Closed
        | Fault::Reset
        | Fault::NotTls(_)
        | Fault::Tls(_)
        | Fault::Other(_) => String::new(),
    };
    told(
        Some(TlsReason::NoClientCertificate),
        format!("the server requires a client certificate{alert}, and there is none to show"),
        Verdict::Refused,
    )
}

/// An alert that says what the server has against a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other reasons have their own advice")]
fn refused_client(alert: AlertDescription) -> Told {
    let name = alert_name(alert);
    let reason = TlsReason::of_alert(alert);
    if alert == AlertDescription::BadCertificateStatusResponse {
        return told(
            reason,
            format!(
                "the server cannot tell whether the client certificate is revoked ({name}): its \
                 revocation list is missing, expired or not signed by the authority; its log says \
                 which. This is no refusal of the certificate itself"
            ),
            Verdict::Refused,
        );
    }
    let Some(reason) = reason else { return of_alert(alert) };
    let told = told(
        Some(reason),
        format!("the server refuses the client certificate ({name})"),
        Verdict::Refused,
    );
    match reason {
        TlsReason::UntrustedIssuer => told.advise(
            "use a certificate of an authority that the server trusts, with its intermediates in the \
             file; servers of others say the same when they have no revocation list of the authority: \
             look into the server's log",
        ),
        TlsReason::CertificateUnusable => told.advise(
            "the alert is a general one (made for development, chain too long, key too large, name \
             not known): the server's log says which",
        ),
        _ => told,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "alerts without advice are named as they are")]
fn of_alert(alert: AlertDescription) -> Told {
    let name = alert_name(alert);
    let refused = |reason, words: &str| {
        told(Some(reason), format!("the server refuses ({name}): {words}"), Verdict::Refused)
    };
    match alert {
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => refused(
            TlsReason::Other,
            "it has no cipher, key exchange or kind of signature in common with this product",
        )
        .advise("let the server offer AES-GCM or ChaCha20-Poly1305 with an ECDHE key exchange"),
        AlertDescription::ProtocolVersion => {
            refused(TlsReason::ProtocolVersion, "it does not speak this version of TLS")
        }
        AlertDescription::UnrecognisedName => {
            refused(TlsReason::WrongName, "it serves no host of this name")
        }
        AlertDescription::NoApplicationProtocol => {
            refused(TlsReason::ApplicationProtocol, "it speaks neither HTTP/2 nor HTTP/1.1")
        }
        AlertDescription::InternalError => {
            refused(TlsReason::Other, "it has a fault of its own; its log says which")
        }
        _ => refused(TlsReason::of_alert(alert).unwrap_or(TlsReason::Other), "it says no more"),
    }
}

/// The name of an alert in this product, and its number in the standards.
pub(super) fn alert_name(alert: AlertDescription) -> String {
    format!("{alert:?}, alert {}", u8::from(alert))
}

fn told(reason: Option<TlsReason>, words: impl Into<String>, verdict: Verdict) -> Told {
    Told { reason, words: words.into(), advice: None, verdict }
}

impl Told {
    fn advise(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alert_says_what_the_server_has_against_the_client() {
        for (alert, reason) in [
            (AlertDescription::CertificateRevoked, TlsReason::CertificateRevoked),
            (AlertDescription::CertificateExpired, TlsReason::CertificateExpired),
            (AlertDescription::UnknownCA, TlsReason::UntrustedIssuer),
            (AlertDescription::UnsupportedCertificate, TlsReason::WrongPurpose),
            (AlertDescription::BadCertificate, TlsReason::CertificateUnusable),
            (AlertDescription::BadCertificateStatusResponse, TlsReason::RevocationListUnavailable),
        ] {
            let told = of_client(&Fault::Alert(alert), true, true);
            assert_eq!(told.reason, Some(reason), "{told:?}");
            assert!(told.words.contains(&u8::from(alert).to_string()), "{told:?}");
            assert_eq!(told.verdict, Verdict::Refused);
        }
        let list =
            of_client(&Fault::Alert(AlertDescription::BadCertificateStatusResponse), true, true);
        assert!(list.words.contains("no refusal of the certificate itself"), "{list:?}");
    }

    #[test]
    fn whoever_shows_none_is_told_that_one_is_wanted() {
        for alert in [
            AlertDescription::CertificateRequired,
            AlertDescription::HandshakeFailure,
            AlertDescription::BadCertificate,
        ] {
            let told = of_client(&Fault::Alert(alert), false, true);
            assert_eq!(told.reason, Some(TlsReason::NoClientCertificate), "{told:?}");
        }
        let unasked = of_client(&Fault::Alert(AlertDescription::HandshakeFailure), false, false);
        assert_eq!(unasked.reason, Some(TlsReason::Other), "{unasked:?}");
    }

    #[test]
    fn every_alert_has_words() {
        for number in 0..=u8::MAX {
            let fault = Fault::Alert(AlertDescription::from(number));
            for (shown, asked) in [(true, true), (false, true), (false, false)] {
                assert!(!of_client(&fault, shown, asked).words.is_empty());
            }
        }
    }
}
