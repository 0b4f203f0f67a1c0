//! A client that looks at what a server shows and judges nothing.
//!
//! Only this probing code uses it: such a handshake proves nothing, is followed by no data, and shows
//! no certificate of ours. Whether the server is to be trusted is asked afterwards, of the code that
//! every client of the product uses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, X509Name};

/// Authorities that a server may name; further ones are not kept.
const AUTHORITIES_MAX: usize = 32;
/// Certificates that a server may show; further ones are not kept.
pub(super) const CHAIN_MAX: usize = 16;

/// What a server has shown so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The authorities whose client certificates it takes, where it asks for one. A server may ask
    /// without naming any.
    pub(super) asked: Option<Vec<String>>,
}

#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    seen: Arc<Mutex<Seen>>,
}

/// What a handshake with the configuration beside it has seen; readable when the handshake is over,
/// however it ended.
#[derive(Clone, Debug)]
pub(super) struct Record(Arc<Mutex<Seen>>);

impl Record {
    pub(super) fn read(&self) -> Seen {
        lock(&self.0).clone()
    }
}

/// A configuration for one handshake in one version.
///
/// # Errors
/// The cryptography does not speak the version.
pub(super) fn recording_client(
    version: &'static SupportedProtocolVersion,
) -> Result<(Arc<ClientConfig>, Record), Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let recorder = Arc::new(Recorder { provider: Arc::clone(&provider), seen: Arc::clone(&seen) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(recorder);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((Arc::new(config), Record(seen)))
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(CHAIN_MAX);
        lock(&self.seen).chain =
            chain.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Recorder {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let names = authorities.iter().take(AUTHORITIES_MAX).map(|name| distinguished(name));
        lock(&self.seen).asked = Some(names.collect());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A distinguished name in words.
fn distinguished(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) => name.to_string(),
        Err(_) => "(a name that cannot be read)".to_owned(),
    }
}
