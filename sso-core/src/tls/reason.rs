//! Why a peer is refused, in words that are the same everywhere: logs, metrics, commands.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::verifier::Refusal;

/// Why TLS refuses a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsReason {
    /// A revocation list names the certificate.
    CertificateRevoked,
    /// No list of the certificate's authority is at hand.
    RevocationListUnavailable,
    /// The list of the certificate's authority is out of date.
    RevocationListExpired,
    /// The list has the name of the certificate's authority, and somebody else signed it.
    RevocationListUntrusted,
    /// The certificate's time is over.
    CertificateExpired,
    /// The certificate's time has not come.
    CertificateNotYetValid,
    /// The certificate comes from no authority that is trusted.
    UntrustedIssuer,
    /// The certificate is not made for what it is used for.
    WrongPurpose,
    /// The certificate is not made for the address.
    WrongName,
    /// The server has a certificate of another program than the one that the settings name.
    WrongServer,
    /// A certificate is required and none was shown.
    NoClientCertificate,
    /// The certificate was made for development.
    DevelopmentCertificate,
    /// The certificate cannot be read, or is larger than what is looked at.
    CertificateUnusable,
    /// The key does not belong to the certificate.
    KeyMismatch,
    /// The peers have no protocol version in common.
    ProtocolVersion,
    /// The peer speaks something else than TLS.
    NotTls,
    /// The peer speaks another protocol inside of TLS.
    ApplicationProtocol,
    /// The handshake was not complete in time.
    HandshakeTimeout,
    /// The peer went away in the handshake.
    Disconnected,
    /// There are as many connections as are allowed.
    TooManyConnections,
    /// Anything else.
    Other,
}

impl TlsReason {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::CertificateRevoked,
        Self::RevocationListUnavailable,
        Self::RevocationListExpired,
        Self::RevocationListUntrusted,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::UntrustedIssuer,
        Self::WrongPurpose,
        Self::WrongName,
        Self::WrongServer,
        Self::NoClientCertificate,
        Self::DevelopmentCertificate,
        Self::CertificateUnusable,
        Self::KeyMismatch,
        Self::ProtocolVersion,
        Self::NotTls,
        Self::ApplicationProtocol,
        Self::HandshakeTimeout,
        Self::Disconnected,
        Self::TooManyConnections,
        Self::Other,
    ];

    /// The word for logs, metrics and scripts, such as `CERTIFICATE_REVOKED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateRevoked => "CERTIFICATE_REVOKED",
            Self::RevocationListUnavailable => "REVOCATION_LIST_UNAVAILABLE",
            Self::RevocationListExpired => "REVOCATION_LIST_EXPIRED",
            Self::RevocationListUntrusted => "REVOCATION_LIST_UNTRUSTED",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::CertificateNotYetValid => "CERTIFICATE_NOT_YET_VALID",
            Self::UntrustedIssuer => "UNTRUSTED_ISSUER",
            Self::WrongPurpose => "WRONG_PURPOSE",
            Self::WrongName => "WRONG_NAME",
            Self::WrongServer => "WRONG_SERVER",
            Self::NoClientCertificate => "NO_CLIENT_CERTIFICATE",
            Self::DevelopmentCertificate => "DEVELOPMENT_CERTIFICATE",
            Self::CertificateUnusable => "CERTIFICATE_UNUSABLE",
            Self::KeyMismatch => "KEY_MISMATCH",
            Self::ProtocolVersion => "PROTOCOL_VERSION",
            Self::NotTls => "NOT_TLS",
            Self::ApplicationProtocol => "APPLICATION_PROTOCOL",
            Self::HandshakeTimeout => "HANDSHAKE_TIMEOUT",
            Self::Disconnected => "DISCONNECTED",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Self::Other => "OTHER",
        }
    }

    /// What to do about it, as a clause without a full stop.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::CertificateRevoked => "have a new certificate issued",
            Self::RevocationListUnavailable => {
                "bring the revocation list of the authority to the place that the settings name, or \
                 make its address reachable; this is no refusal of the certificate itself"
            }
            Self::RevocationListExpired => {
                "have the authority issue a new revocation list; this is no refusal of the \
                 certificate itself"
            }
            Self::RevocationListUntrusted => {
                "replace the revocation list by the one that the authority itself signed; this is no \
                 refusal of the certificate itself"
            }
            Self::CertificateExpired => "renew the certificate, compare the clocks",
            Self::CertificateNotYetValid => "compare the clocks, or wait until it is valid",
            Self::UntrustedIssuer => {
                "use a certificate of an authority that the other side trusts, or add the authority \
                 to its CA file; send intermediates along"
            }
            Self::WrongPurpose => {
                "use a certificate whose extended key usage has clientAuth (for those who connect) \
                 or serverAuth (for those who listen)"
            }
            Self::WrongName => {
                "use the name that the certificate is made for, or have one issued for this name"
            }
            Self::WrongServer => {
                "check who listens at the address, or correct the certificate that the settings name"
            }
            Self::NoClientCertificate => "configure a client certificate and its key",
            Self::DevelopmentCertificate => "use a certificate that is not made for development",
            Self::CertificateUnusable => {
                "have it issued anew: at most 4 intermediates, 16 KiB a certificate, RSA up to 4096 \
                 bits"
            }
            Self::KeyMismatch => "name the key that the certificate was issued for",
            Self::ProtocolVersion => {
                "let the older side speak TLS 1.3, or allow TLS 1.2 by minimum_version = \"1.2\"; \
                 nothing older can be enabled"
            }
            Self::NotTls => "check the port: what is there does not speak TLS",
            Self::ApplicationProtocol => "check the port: another kind of service listens there",
            Self::HandshakeTimeout => {
                "check the network between the two, and whether the peer stalls"
            }
            Self::Disconnected => "look into the log of the other side, it has broken off",
            Self::TooManyConnections => "try again later, or raise the limit",
            Self::Other => "look into the log of the other side",
        }
    }

    /// Whether it is about the other side's revocation list and not about the certificate.
    #[must_use]
    pub const fn is_list_trouble(self) -> bool {
        matches!(
            self,
            Self::RevocationListUnavailable
                | Self::RevocationListExpired
                | Self::RevocationListUntrusted
        )
    }

    /// The reason in an error of the TLS library; `None` when it has none that is known here. An alert
    /// that a server sent counts: it says why the *other* side refuses. The alert about revocation
    /// lists does not say what is wrong with them, and counts as
    /// [`TlsReason::RevocationListUnavailable`].
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library adds variants; they are unknown"
    )]
    pub fn of(error: &Error) -> Option<Self> {
        match error {
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::InvalidCertificate(problem) => Some(Self::of_certificate(problem)),
            Error::NoCertificatesPresented => Some(Self::NoClientCertificate),
            Error::InvalidCertRevocationList(_) => Some(Self::RevocationListUntrusted),
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // What those of TLS 1.1 and older lack, and is noticed before their version.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Some(Self::ProtocolVersion),
            Error::InvalidMessage(_) => Some(Self::NotTls),
            Error::NoApplicationProtocol => Some(Self::ApplicationProtocol),
            Error::InconsistentKeys(_) => Some(Self::KeyMismatch),
            Error::Other(inner) => Refusal::in_error(inner).map(|refusal| refusal.reason),
            _ => None,
        }
    }

    /// What an alert says; `None` for alerts that are not about trust.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "alerts without a reason are none")]
    pub fn of_alert(alert: AlertDescription) -> Option<Self> {
        match alert {
            AlertDescription::CertificateRevoked => Some(Self::CertificateRevoked),
            AlertDescription::CertificateExpired => Some(Self::CertificateExpired),
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                Some(Self::UntrustedIssuer)
            }
            AlertDescription::CertificateRequired => Some(Self::NoClientCertificate),
            AlertDescription::UnsupportedCertificate => Some(Self::WrongPurpose),
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                Some(Self::CertificateUnusable)
            }
            AlertDescription::BadCertificateStatusResponse => Some(Self::RevocationListUnavailable),
            AlertDescription::ProtocolVersion => Some(Self::ProtocolVersion),
            AlertDescription::NoApplicationProtocol => Some(Self::ApplicationProtocol),
            _ => None,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library adds variants")]
    pub(crate) fn of_certificate(problem: &CertificateError) -> Self {
        match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::CertificateNotYetValid
            }
            CertificateError::Revoked => Self::CertificateRevoked,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UntrustedIssuer
            }
            CertificateError::UnknownRevocationStatus | CertificateError::InvalidOcspResponse => {
                Self::RevocationListUnavailable
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::RevocationListExpired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            CertificateError::Other(inner) => {
                Refusal::in_error(inner).map_or(Self::CertificateUnusable, |it| it.reason)
            }
            _ => Self::CertificateUnusable,
        }
    }
}

impl fmt::Display for TlsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
