//! Whether the program's own certificate will do for its peers: found out before they refuse it.

use std::path::Path;

use rustls::{
    RootCertStore,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, TrustAnchor},
};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};

use super::{TlsError, TlsReason, files::CERTIFICATE};
use crate::{clock::Clock, peer::parse_x509, verifier::unix_time};

/// The program's own chain, and what it is judged by.
pub(super) struct OwnChain<'c> {
    pub(super) path: &'c Path,
    pub(super) chain: &'c [CertificateDer<'static>],
    pub(super) roots: &'c RootCertStore,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl OwnChain<'_> {
    /// Whether every certificate of it is valid now.
    pub(super) fn check_time(&self, clock: &Clock) -> Result<(), TlsError> {
        let now = clock.now();
        for certificate in self.chain {
            let parsed =
                parse_x509(certificate).map_err(|error| self.not_one(&error.to_string()))?;
            let not_after = parsed.validity().not_after.to_datetime();
            let not_before = parsed.validity().not_before.to_datetime();
            let subject = parsed.subject();
            if not_after < now {
                return Err(self.unusable(
                    TlsReason::CertificateExpired,
                    format!("{subject} expired on {}: issue a new one", shown(not_after)),
                ));
            }
            if now < not_before {
                return Err(self.unusable(
                    TlsReason::CertificateNotYetValid,
                    format!(
                        "{subject} is valid from {} on, and here it is {}: wait, or set the clock",
                        shown(not_before),
                        shown(now)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether it is good for anything, and, where the program listens, for that.
    pub(super) fn check_use(&self, listens: bool, clock: &Clock) -> Result<(), TlsError> {
        if !listens {
            // What else is unusual about it is for the others to judge.
            let lacks = |usage| matches!(self.verify(usage, clock), Err(Found::Purpose));
            if lacks(KeyUsage::client_auth()) && lacks(KeyUsage::server_auth()) {
                return Err(self.unusable(
                    TlsReason::WrongPurpose,
                    "is made for neither servers nor clients: have one issued whose extended key \
                     usage has serverAuth, clientAuth or both",
                ));
            }
            return Ok(());
        }
        match self.verify(KeyUsage::server_auth(), clock) {
            Ok(()) => Ok(()),
            Err(Found::Incomplete) => {
                Err(self.unusable(TlsReason::UntrustedIssuer, self.missing()))
            }
            Err(Found::Purpose) => Err(self.unusable(
                TlsReason::WrongPurpose,
                "is not made for servers: have one issued whose extended key usage has serverAuth",
            )),
            Err(Found::Other(error)) => Err(self.other(&error)),
        }
    }

    /// For a program that only calls: what to say when peers may not find the way to an authority. They
    /// may know more authorities than this program does.
    pub(super) fn gap(&self, clock: &Clock) -> Option<String> {
        let incomplete = |usage| matches!(self.verify(usage, clock), Err(Found::Incomplete));
        (incomplete(KeyUsage::client_auth()) && incomplete(KeyUsage::server_auth()))
            .then(|| self.missing())
    }

    fn missing(&self) -> String {
        let issuer = self
            .chain
            .last()
            .and_then(|last| parse_x509(last).ok().map(|it| it.issuer().to_string()))
            .unwrap_or_default();
        format!(
            "the chain is incomplete: it ends with a certificate of {issuer}, which is neither in the \
             file (in its order, each signed by the next) nor among the authorities of this program: \
             append the certificates of the authorities"
        )
    }

    /// Everything in the file behind the first certificate counts as trusted here: the question is not
    /// who trusts it, but whether it hangs together.
    fn verify(&self, usage: KeyUsage, clock: &Clock) -> Result<(), Found> {
        let (own, others) = self.chain.split_first().ok_or(Found::Incomplete)?;
        let own = EndEntityCert::try_from(own).map_err(Found::Other)?;
        let mut anchors: Vec<TrustAnchor<'_>> = self.roots.roots.clone();
        anchors.extend(others.iter().filter_map(|it| webpki::anchor_from_trusted_cert(it).ok()));
        let now = unix_time(clock).ok_or(Found::Incomplete)?;
        let verified =
            own.verify_for_usage(self.algorithms.all, &anchors, others, now, usage, None, None);
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                Err(Found::Incomplete)
            }
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(Found::Purpose),
            // Time has been looked at already, and may be over when lists are reloaded.
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                Ok(())
            }
            Err(other) => Err(Found::Other(other)),
        }
    }

    fn other(&self, error: &webpki::Error) -> TlsError {
        let problem = if matches!(error, webpki::Error::CaUsedAsEndEntity) {
            "is the certificate of an authority: the program's own has to come first".to_owned()
        } else {
            format!("peers will refuse it ({error}): have another one issued")
        };
        self.unusable(TlsReason::CertificateUnusable, problem)
    }

    fn not_one(&self, problem: &str) -> TlsError {
        self.unusable(TlsReason::CertificateUnusable, problem)
    }

    fn unusable(&self, reason: TlsReason, problem: impl Into<String>) -> TlsError {
        let problem = problem.into();
        TlsError::Unusable { path: self.path.to_owned(), what: CERTIFICATE, reason, problem }
    }
}

enum Found {
    Incomplete,
    Purpose,
    Other(webpki::Error),
}

pub(crate) fn shown(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
