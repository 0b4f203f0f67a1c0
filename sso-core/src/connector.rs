//! The calling side: channels to a server by TLS, mutual or not, or by a socket on this machine, and
//! why one does not work.

mod guarded;
mod listening;
mod reasons;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

pub use self::reasons::{is_trust_failure, tls_reason, tls_words, transport_reason};
use self::{guarded::Guarded, listening::Listening};
use crate::{
    clock::Clock,
    peer::{CertificateRule, PeerCertificate, RuleMatch},
    tls::{Application, TlsError, TlsReason, TlsReloader, TlsSettings, TrustSettings},
    verifier::{Refusal, noted},
};

/// What is wrong with an address that is none.
const FORM: &str = "is no address: write https://HOST:PORT";
const HOST: &str = "the host is neither a name nor an address";

/// What stands before the path in the address of a socket on this machine.
const LOCAL: &str = "unix://";

/// The TLS files of a caller. Channels made with it use the files in force at each new connection, and
/// end a connection whose server is not trusted any more.
#[derive(Clone, Debug)]
pub struct ClientTls {
    files: Arc<TlsReloader>,
    /// Who may answer; empty = whoever has a certificate of the host from a trusted authority.
    only: Arc<[CertificateRule]>,
}

impl ClientTls {
    /// Loads the files that `settings` (with paths resolved) name.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        TlsReloader::load(settings).map(Self::from)
    }

    /// For a caller that shows no certificate, of servers that ask for none.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn without_certificate(trust: &TrustSettings) -> Result<Self, TlsError> {
        TlsReloader::load_trust(trust, Application::Grpc, Clock::System).map(Self::from)
    }

    /// The same, and besides the certificate of the server has to fit one of the rules, where there are
    /// any: another program of the same host, or of the same authority, is not spoken to.
    #[must_use]
    pub fn only(self, rules: impl IntoIterator<Item = CertificateRule>) -> Self {
        Self { only: rules.into_iter().collect(), ..self }
    }

    /// The files and lists in use, their status and their reload.
    #[must_use]
    pub fn reloader(&self) -> &Arc<TlsReloader> {
        &self.files
    }

    /// See [`TlsReloader::fetch_lists`].
    pub async fn fetch_lists(&self) {
        self.files.fetch_lists().await;
    }

    /// See [`TlsReloader::watch_without_signals`]: without it the files and lists of the start stay in
    /// use.
    pub async fn watch(self, shutdown: CancellationToken) {
        self.files.watch_without_signals(shutdown).await;
    }

    fn check(&self, chain: Option<&[CertificateDer<'_>]>) -> io::Result<()> {
        if self.only.is_empty() {
            return Ok(());
        }
        let certificate = chain
            .and_then(|chain| PeerCertificate::parse(chain.first()?).ok())
            .ok_or_else(|| io::Error::other("the server shows no certificate that can be read"))?;
        let fits = |rule: &CertificateRule| matches!(rule.matches(&certificate), RuleMatch::Yes(_));
        if self.only.iter().any(fits) {
            return Ok(());
        }
        let words = format!(
            "another program answers there: its certificate (SHA-256 {}) is not the one that the \
             settings name",
            certificate.thumbprint_sha256
        );
        Err(io::Error::other(Refusal::new(TlsReason::WrongServer, words).error()))
    }
}

impl From<Arc<TlsReloader>> for ClientTls {
    fn from(files: Arc<TlsReloader>) -> Self {
        Self { files, only: Arc::new([]) }
    }
}

/// How a channel behaves towards the network.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Time for name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A connection is asked for a sign of life this often, also when idle.
    pub keepalive_interval: Duration,
    /// Without one for this long the connection is given up.
    pub keepalive_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
        }
    }
}

/// A channel to the server at `url`, `https://HOST:PORT`. It connects at the first call, and again
/// whenever the connection is lost. Call it inside a tokio runtime.
///
/// # Errors
/// The address is not of that form.
pub fn connect_channel(
    url: &str,
    tls: ClientTls,
    options: ConnectOptions,
) -> Result<Channel, TlsError> {
    let bad =
        |problem: &str| TlsError::Address { url: url.to_owned(), problem: problem.to_owned() };
    let (host, port) = host_and_port(url).map_err(bad)?;
    let name = ServerName::try_from(host.clone()).map_err(|_| bad(HOST))?;
    let authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    // The connector does the TLS, so the endpoint itself is told nothing of it.
    let origin = Uri::try_from(url).map_err(|_| bad(FORM))?;
    let endpoint =
        Endpoint::from_shared(format!("http://{authority}:{port}")).map_err(|_| bad(FORM))?;
    let endpoint = kept_alive(endpoint.origin(origin), options);
    let connector = service_fn(move |_: Uri| {
        let patience = options.connect_timeout / 2;
        let connecting = connect(host.clone(), port, name.clone(), tls.clone(), patience);
        async move {
            match tokio::time::timeout(options.connect_timeout, connecting).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The path in `unix:///PATH`, the address of a socket on this machine; `None` when it is of another
/// form.
#[must_use]
pub fn local_path(url: &str) -> Option<PathBuf> {
    url.strip_prefix(LOCAL).filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// A channel to the server that listens on the socket at `path`. It connects at the first call, and
/// again whenever the connection is lost; never to a listener that is run by another user than root,
/// the caller's own or the owner of the folder of the socket. Call it inside a tokio runtime.
#[must_use]
pub fn connect_local(path: &Path, options: ConnectOptions) -> Channel {
    let path = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            match tokio::time::timeout(options.connect_timeout, connect_socket(&path)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
    });
    // The name is never looked up: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://localhost");
    kept_alive(endpoint, options).connect_with_connector_lazy(connector)
}

async fn connect_socket(path: &Path) -> io::Result<UnixStream> {
    let folder = fs::metadata(path.parent().unwrap_or(path))?.uid();
    let io = UnixStream::connect(path).await?;
    let listener = io.peer_cred()?.uid();
    if is_trusted_listener(listener, rustix::process::geteuid().as_raw(), folder) {
        return Ok(io);
    }
    Err(io::Error::other(format!(
        "the socket is listened on by user {listener}, who is neither root, nor this user, nor the \
         owner of its folder: is it the server's?"
    )))
}

/// Others may have put a socket of their own in the place of the server's.
fn is_trusted_listener(listener: u32, own: u32, folder: u32) -> bool {
    [0, own, folder].contains(&listener)
}

fn kept_alive(endpoint: Endpoint, options: ConnectOptions) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
}

/// Whether `url` is an address that [`connect_channel`] takes.
///
/// # Errors
/// In words: what is wrong with it.
pub fn check_address(url: &str) -> Result<(), &'static str> {
    let (host, _) = host_and_port(url)?;
    ServerName::try_from(host).map(drop).map_err(|_| HOST)
}

fn host_and_port(url: &str) -> Result<(String, u16), &'static str> {
    let uri = Uri::try_from(url).map_err(|_| FORM)?;
    if uri.scheme_str() != Some("https") {
        return Err("has to start with https:// (or be unix:/// and the path of a socket)");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("must not have a path: write https://HOST:PORT");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not have a user: the client certificate says who calls");
    }
    let port = uri.port_u16().ok_or("has no port: write https://HOST:PORT")?;
    let host = uri.host().ok_or("has no host: write https://HOST:PORT")?;
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// With TLS 1.3 this side is done before the server has judged its certificate, and what is sent
/// before the server refuses it may make the refusal unreadable. So the server has the first word: its
/// settings, which every one of ours sends at once, or why it does not want this caller. One that
/// waits for the client instead is spoken to after `patience`.
async fn connect(
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: ClientTls,
    patience: Duration,
) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let generation = tls.files.current();
    let tcp = Listening(tcp);
    let handshake = TlsConnector::from(generation.client()).connect(name.clone(), tcp);
    let (io, note) = noted(handshake).await;
    let io = io?;
    let is_lenient = note.is_some_and(|note| note.is_lenient);
    if !tls.files.application().takes(io.get_ref().1.alpn_protocol()) {
        return Err(io::Error::other("the server does not speak HTTP/2"));
    }
    tls.check(io.get_ref().1.peer_certificates())?;
    let mut io = Guarded::new(io, Arc::clone(&tls.files), name, (generation.number(), is_lenient));
    let mut first = Vec::new();
    match tokio::time::timeout(patience, io.read_buf(&mut first)).await {
        Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) | Err(_) => {}
    }
    let (reader, writer) = tokio::io::split(io);
    Ok(tokio::io::join(io::Cursor::new(first).chain(reader), writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_one_form() {
        assert_eq!(host_and_port("https://a.example:7400"), Ok(("a.example".into(), 7400)));
        assert_eq!(host_and_port("https://127.0.0.1:1/"), Ok(("127.0.0.1".into(), 1)));
        assert_eq!(host_and_port("https://[::1]:7400"), Ok(("::1".into(), 7400)));
        assert_eq!(local_path("unix:///run/sso.sock"), Some("/run/sso.sock".into()));
        for url in ["unix://run/sso.sock", "unix:/run/sso.sock", "/run/sso.sock", "https://a:1"] {
            assert_eq!(local_path(url), None, "{url}");
        }
        for url in [
            "http://a:1",
            "a:1",
            "https://a",
            "https://a:1/path",
            "https://a:1?q",
            "https://u@a:1",
            "https://a:99999",
            "",
        ] {
            assert!(host_and_port(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_socket_of_somebody_else_is_not_spoken_to() {
        for (listener, own, folder, trusted) in
            [(0, 7, 8, true), (7, 7, 0, true), (8, 7, 8, true), (9, 7, 8, false), (9, 0, 0, false)]
        {
            assert_eq!(is_trusted_listener(listener, own, folder), trusted, "{listener}");
        }
    }

    #[tokio::test]
    async fn the_own_socket_is_spoken_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sso.sock");
        let missing = connect_socket(&path).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(connect_socket(&path).await.is_ok());
    }
}
