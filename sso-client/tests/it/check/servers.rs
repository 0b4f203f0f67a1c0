//! Servers to look at: real TLS ones of every setting, and listeners that speak no TLS.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::pki::{Authority, Issued, now};

/// An empty SETTINGS frame, with which every HTTP/2 server begins.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// How a TLS server is set up.
pub(crate) struct Served<'s> {
    issued: &'s Issued,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) alpn: Vec<&'static [u8]>,
    clients: Option<Clients>,
    /// How far its clock is ahead.
    pub(crate) ahead: Duration,
    /// Resumption tickets after each handshake.
    pub(crate) tickets: usize,
}

/// Whose certificates clients must have.
enum Clients {
    Of { roots: Vec<CertificateDer<'static>>, lists: String },
    Nobodys(Arc<Refusing>),
}

/// Refuses every client certificate for one reason, and counts them.
#[derive(Debug)]
pub(crate) struct Refusing {
    reason: CertificateError,
    pub(crate) shown: AtomicUsize,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Refusing {
    pub(crate) fn for_reason(reason: CertificateError) -> Arc<Self> {
        let algorithms =
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Self { reason, shown: AtomicUsize::new(0), algorithms })
    }
}

impl ClientCertVerifier for Refusing {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.shown.fetch_add(1, Ordering::SeqCst);
        Err(self.reason.clone().into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Ahead(Duration);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(now().unix_timestamp()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds) + self.0))
    }
}

impl<'s> Served<'s> {
    pub(crate) fn with(issued: &'s Issued) -> Self {
        Self {
            issued,
            versions: vec![&TLS13],
            alpn: vec![b"h2"],
            clients: None,
            ahead: Duration::ZERO,
            tickets: 0,
        }
    }

    pub(crate) fn versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    pub(crate) fn old_only(self) -> Self {
        self.versions(&[&TLS12])
    }

    pub(crate) fn alpn(mut self, alpn: &[&'static [u8]]) -> Self {
        self.alpn = alpn.to_vec();
        self
    }

    /// Clients must have a certificate of this authority that the lists, if there are any, do not name.
    pub(crate) fn requiring(mut self, authority: &Authority, lists: &str) -> Self {
        self.clients = Some(Clients::Of { roots: vec![authority.der()], lists: lists.to_owned() });
        self
    }

    /// No client certificate is good enough.
    pub(crate) fn refusing(mut self, verifier: &Arc<Refusing>) -> Self {
        self.clients = Some(Clients::Nobodys(Arc::clone(verifier)));
        self
    }

    fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let time = Arc::new(Ahead(self.ahead));
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(Clients::Nobodys(verifier)) => {
                builder.with_client_cert_verifier(Arc::clone(verifier) as _)
            }
            Some(Clients::Of { roots: trusted, lists }) => {
                let mut roots = RootCertStore::empty();
                for root in trusted {
                    roots.add(root.clone()).unwrap();
                }
                let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes())
                    .collect::<Result<_, _>>()
                    .unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .with_crls(lists)
                        .enforce_revocation_expiration()
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(self.issued.chain.clone(), self.issued.key.clone_key())
            .unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config.send_tls13_tickets = self.tickets;
        config
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::new(self.config()))
    }

    /// Serves for as long as the test runs.
    pub(crate) async fn start(self) -> SocketAddr {
        let acceptor = self.acceptor();
        listen(move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                // HTTP/2 servers have the first word, HTTP/1.1 servers wait for the client.
                if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let _ = tls.write_all(&SETTINGS).await;
                    let _ = tls.flush().await;
                }
                let mut space = [0; 1024];
                while matches!(tls.read(&mut space).await, Ok(1..)) {}
                let _ = tls.shutdown().await;
            }
        })
        .await
    }
}

/// Runs `serve` with every connection to the address that comes back.
pub(crate) async fn listen<S>(serve: impl Fn(TcpStream) -> S + Send + 'static) -> SocketAddr
where
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

/// Answers the first bytes with `answer`, and then closes or stays silent.
pub(crate) async fn answering(answer: &'static [u8], close: bool) -> SocketAddr {
    listen(move |mut tcp| async move {
        let mut space = [0; 4096];
        let _ = tcp.read(&mut space).await;
        let _ = tcp.write_all(answer).await;
        if !close {
            while matches!(tcp.read(&mut space).await, Ok(1..)) {}
        }
    })
    .await
}

/// Breaks every connection off once the client has spoken.
pub(crate) async fn resetting() -> SocketAddr {
    listen(|tcp| async move {
        let _ = tcp.readable().await;
        // Closing with unread data resets the connection.
        drop(tcp);
    })
    .await
}
