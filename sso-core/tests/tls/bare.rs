//! Clients of the bare TLS library: what the server does to those that do not behave as ours.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};
use sso_core::tls::TlsSettings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    /// The server answered.
    Served,
    /// The number of the alert.
    Alert(u8),
    /// Anything else, in words.
    Other(String),
}

/// Shows whatever it is given, whether it fits or not.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes every server, but not one that does not hold its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A client that shows the certificates of these files, if any, and would resume sessions if it could.
pub(crate) fn client(
    identity: Option<&TlsSettings>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anybody);
    let mut config = match identity {
        Some(files) => {
            let shown = Shown(Arc::new(certified(&files.certificate, &files.key)));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn certified(certificate: &Path, key: &Path) -> CertifiedKey {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    CertifiedKey::new(chain, rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap())
}

pub(crate) async fn connect(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = "127.0.0.1".try_into().unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
}

/// Shakes hands and speaks HTTP/2 until the server answers or says no.
pub(crate) async fn ask(addr: SocketAddr, config: &Arc<ClientConfig>) -> Saw {
    let mut io = match connect(addr, config).await {
        Ok(io) => io,
        Err(error) => return saw(&error),
    };
    match first_byte(&mut io).await {
        Ok(()) => Saw::Served,
        Err(error) => saw(&error),
    }
}

/// The first byte of the server's HTTP/2 settings, which come after any ticket it would send.
pub(crate) async fn first_byte(io: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    // With TLS 1.3 the server's alert may be there already: reading it is what counts.
    let _ = io.write_all(PREFACE).await;
    io.read_u8().await.map(drop)
}

fn saw(error: &std::io::Error) -> Saw {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Saw::Alert(u8::from(*alert)),
        _ => Saw::Other(error.to_string()),
    }
}
