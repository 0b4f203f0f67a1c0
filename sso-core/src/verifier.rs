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

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
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

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CertifiedIssuer, CustomExtension, KeyPair, PKCS_RSA_SHA256,
        PublicKeyData, SignatureAlgorithm,
    };

    use super::*;
    use crate::peer::DEVELOPMENT_OID;

    /// A public key of any size that nobody has the private one of.
    struct Large(Vec<u8>);

    impl PublicKeyData for Large {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_RSA_SHA256
        }
    }

    fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        edit(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn with_key(bytes: usize) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), key).unwrap();
        let large = Large(vec![1; bytes]);
        CertificateParams::default().signed_by(&large, &issuer).unwrap().der().clone()
    }

    fn content(bytes: usize) -> impl FnOnce(&mut CertificateParams) {
        move |params| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0; bytes]);
            params.custom_extensions.push(extension);
        }
    }

    fn why(result: Result<(), Error>) -> Option<String> {
        match result {
            Ok(()) => None,
            Err(Error::InvalidCertificate(CertificateError::Other(why))) => Some(why.to_string()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn work_that_strangers_can_ask_for_is_bounded() {
        let verifier = PeerVerifier { inner: Arc::new(()), allow_development: false };
        let inspect = |own: &CertificateDer<'_>, others: &[CertificateDer<'_>]| {
            why(verifier.inspect(own, others))
        };
        let good = certificate(|_| {});
        assert_eq!(inspect(&good, &vec![good.clone(); 4]), None);
        let long = inspect(&good, &vec![good.clone(); 100]).unwrap();
        assert!(long.contains("more than 4 intermediate"), "{long}");

        assert_eq!(inspect(&with_key(526), &[]), None);
        let large = inspect(&good, &[with_key(1038)]).unwrap();
        assert!(large.contains("public key is larger"), "{large}");

        assert_eq!(inspect(&certificate(content(10_000)), &[]), None);
        let large = inspect(&certificate(content(20_000)), &[]).unwrap();
        assert!(large.contains("larger than 16384 bytes"), "{large}");
    }

    #[test]
    fn development_is_refused_anywhere_in_the_chain() {
        let marked = certificate(|params| {
            let mark = CustomExtension::from_oid_content(DEVELOPMENT_OID, vec![5, 0]);
            params.custom_extensions.push(mark);
        });
        let good = certificate(|_| {});
        let strict = PeerVerifier { inner: Arc::new(()), allow_development: false };
        let lenient = PeerVerifier { inner: Arc::new(()), allow_development: true };
        for (own, others) in [(&marked, vec![]), (&good, vec![marked.clone()])] {
            let refused = why(strict.inspect(own, &others)).unwrap();
            assert!(refused.contains("development"), "{refused}");
            assert_eq!(why(lenient.inspect(own, &others)), None);
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let verifier = PeerVerifier { inner: Arc::new(()), allow_development: true };
        let bytes = CertificateDer::from(vec![0x30, 3, 2, 1, 1]);
        assert!(matches!(
            verifier.inspect(&bytes, &[]),
            Err(Error::InvalidCertificate(CertificateError::BadEncoding))
        ));
    }
}
