//! Why a connection does not work, in words that say what to do.

use std::{error::Error, io};

use rustls::AlertDescription;
use tonic::Status;

use crate::{tls::TlsReason, verifier::words_of};

/// Why the transport failed, in words that say what to do, behind the reason where TLS has one
/// (`CERTIFICATE_REVOKED: …`); `None` when the status did not come from
/// the transport. With TLS 1.3 the server refuses a client only after the client's own handshake is
/// complete, so the reason lies deep inside the first call's error.
#[must_use]
pub fn transport_reason(status: &Status) -> Option<String> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(reason) = reason_of(error) {
            return Some(reason);
        }
        next = error.source();
    }
    None
}

/// Whether the transport failed because one side refuses the other, which trying again at once does not
/// cure.
#[must_use]
pub fn is_trust_failure(status: &Status) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if tls_error(error).is_some() || alert_in(error).is_some() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Why one side refuses the other; `None` when the transport failed for another reason, or not at
/// all.
#[must_use]
pub fn tls_reason(status: &Status) -> Option<TlsReason> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        let reason = tls_error(error).and_then(TlsReason::of);
        if let Some(reason) = reason.or_else(|| alert_in(error).and_then(TlsReason::of_alert)) {
            return Some(reason);
        }
        next = error.source();
    }
    None
}

fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref::<rustls::Error>().or_else(|| {
        // The source of an I/O error is that of its inner error, which would be passed over.
        error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()
    })
}

/// The alert that the HTTP/2 library saw while reading: it keeps the text of errors alone.
fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let text = error.downcast_ref::<io::Error>()?.to_string();
    let name = text.strip_prefix("received fatal alert: ")?;
    (0..=u8::MAX).map(AlertDescription::from).find(|alert| format!("{alert:?}") == name)
}

fn reason_of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = tls_error(error) {
        return Some(tls_words(error));
    }
    if let Some(alert) = alert_in(error) {
        return Some(alert_words(alert));
    }
    let io = error.downcast_ref::<io::Error>()?;
    let known = [
        (
            io::ErrorKind::NotFound,
            "there is no such socket: is the server running, is the path right?",
        ),
        (io::ErrorKind::PermissionDenied, "the permissions of the socket keep this user out"),
        (
            io::ErrorKind::ConnectionRefused,
            "nothing listens at the address: is the server running, is the port right?",
        ),
        (io::ErrorKind::TimedOut, "the server did not answer in time"),
        (io::ErrorKind::UnexpectedEof, "the server closed the connection during the handshake"),
    ];
    let words = known.iter().find(|(kind, _)| *kind == io.kind());
    Some(words.map_or_else(|| io.to_string(), |(_, words)| (*words).to_owned()))
}

/// The reason, if there is one, in front of the words.
fn with_reason(reason: Option<TlsReason>, words: &str) -> String {
    match reason {
        Some(reason) if reason != TlsReason::Other => format!("{reason}: {words}"),
        Some(_) | None => words.to_owned(),
    }
}

/// What an error of the TLS library means to a caller: who refuses whom and what to do, behind the
/// reason where there is one.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds variants; its text serves")]
pub fn tls_words(error: &rustls::Error) -> String {
    let reason = TlsReason::of(error);
    let words = match error {
        rustls::Error::AlertReceived(alert) => return alert_words(*alert),
        rustls::Error::InvalidCertificate(_) => {
            let problem = words_of(error, "serverAuth");
            match reason {
                Some(reason) if reason != TlsReason::Other => {
                    let advice = reason.advice();
                    format!("the server's certificate is refused: {problem} ({advice})")
                }
                Some(_) | None => format!("the server's certificate is refused: {problem}"),
            }
        }
        rustls::Error::PeerIncompatible(problem) => match reason {
            Some(TlsReason::ProtocolVersion) => format!(
                "the server does not speak the TLS version that is needed ({problem:?}): TLS 1.3, or \
                 1.2 where minimum_version allows it"
            ),
            _ => format!("the server does not speak TLS as needed ({problem:?})"),
        },
        rustls::Error::InvalidMessage(_) => {
            "the server does not speak TLS: is the port right?".to_owned()
        }
        rustls::Error::General(words) => words.clone(),
        other => other.to_string(),
    };
    with_reason(reason, &words)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "alerts without advice are named as they are")]
fn alert_words(alert: AlertDescription) -> String {
    let advice = match alert {
        AlertDescription::CertificateRevoked => "it is revoked: have a new one issued",
        AlertDescription::CertificateExpired => {
            "it has expired, or is not valid yet: renew it, compare the clocks"
        }
        AlertDescription::UnknownCA => {
            "its authority is not one that the server trusts: use a certificate of this system, and \
             send its intermediates along"
        }
        AlertDescription::CertificateRequired => {
            "none was sent: the server wants a client certificate"
        }
        AlertDescription::DecryptError | AlertDescription::BadCertificate => {
            "it was not signed by the authority that it names, or cannot be read"
        }
        AlertDescription::UnsupportedCertificate => {
            "it is not meant for clients: its extended key usage lacks clientAuth"
        }
        AlertDescription::CertificateUnknown => {
            "it breaks a rule of the server (made for development, chain too long, key too large): the \
             server's log says which"
        }
        AlertDescription::BadCertificateStatusResponse => {
            let words = "the server cannot tell whether the certificate is revoked: its revocation \
                         list is missing, expired or not signed by the authority; the server's log \
                         says which — this is not a refusal of the certificate itself";
            return with_reason(TlsReason::of_alert(alert), &format!("{words} ({alert:?})"));
        }
        AlertDescription::ProtocolVersion => {
            let words = "the server and this program have no TLS version in common \
                         (ProtocolVersion): TLS 1.3 is needed, or 1.2 where both sides allow it";
            return with_reason(TlsReason::of_alert(alert), words);
        }
        other => return format!("the server broke off the handshake ({other:?})"),
    };
    let words = format!("the server refused the client certificate ({alert:?}): {advice}");
    with_reason(TlsReason::of_alert(alert), &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_has_words() {
        for number in 0..=u8::MAX {
            assert!(!alert_words(AlertDescription::from(number)).is_empty());
        }
        let words = alert_words(AlertDescription::CertificateRevoked);
        assert!(words.starts_with("CERTIFICATE_REVOKED: "), "{words}");
        assert!(words.contains("(CertificateRevoked)"), "{words}");
    }
}
