//! What is asked of a peer's certificates before and beside the checks of the TLS library.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    time_provider::TimeProvider,
};

use crate::{
    clock::Clock,
    peer::{has_development_mark, parse_x509},
};

/// Intermediate certificates that a peer may send.
const INTERMEDIATES_MAX: usize = 4;
/// Bytes of one certificate.
const CERTIFICATE_MAX: usize = 16 * 1024;
/// Bytes of a public key: RSA of 4096 bits just fits. Verifying larger ones is work that a peer
/// could demand before it has proved anything.
const PUBLIC_KEY_MAX: usize = 600;

/// Why a certificate is refused here although it could be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("certificates of development are refused here")]
    Development,
    #[error("the chain has more than {INTERMEDIATES_MAX} intermediate certificates")]
    ChainTooLong,
    #[error("a certificate is larger than {CERTIFICATE_MAX} bytes")]
    CertificateTooLarge,
    #[error("a public key is larger than RSA with 4096 bits")]
    KeyTooLarge,
}

/// The verifier of the library behind checks that bound the work and refuse development.
#[derive(Debug)]
pub(crate) struct PeerVerifier<V: ?Sized> {
    pub(crate) inner: Arc<V>,
    pub(crate) allow_development: bool,
}

impl<V: ?Sized> PeerVerifier<V> {
    fn inspect(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if others.len() > INTERMEDIATES_MAX {
            return Err(refused(Refused::ChainTooLong));
        }
        std::iter::once(own).chain(others).try_for_each(|certificate| self.inspect_one(certificate))
    }

    fn inspect_one(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if certificate.len() > CERTIFICATE_MAX {
            return Err(refused(Refused::CertificateTooLarge));
        }
        let parsed = parse_x509(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if parsed.public_key().subject_public_key.data.len() > PUBLIC_KEY_MAX {
            return Err(refused(Refused::KeyTooLarge));
        }
        if has_development_mark(&parsed) && !self.allow_development {
            return Err(refused(Refused::Development));
        }
        Ok(())
    }
}

impl ClientCertVerifier for PeerVerifier<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inspect(end_entity, intermediates)?;
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inspect(end_entity, intermediates)?;
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The time that validity is judged by.
#[derive(Debug)]
pub(crate) struct VerifierTime(pub(crate) Clock);

impl TimeProvider for VerifierTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(&self.0)
    }
}

/// The clock's time as the verifiers take it; `None` before 1970.
pub(crate) fn unix_time(clock: &Clock) -> Option<UnixTime> {
    let seconds = u64::try_from(clock.now().unix_timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

fn refused(why: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
