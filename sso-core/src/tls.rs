//! Mutual TLS of every program: which files, what they must be, and their replacement without a
//! restart.
//!
//! TLS 1.3 alone, one crypto provider, `h2` by ALPN, no resumption (a resumed session would skip the
//! verifier). Everything is checked before it takes the place of what was in use.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject,
    },
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    peer::{has_development_mark, parse_x509},
    settings::{SettingsError, refuse_lax, resolve},
    verifier::{PeerVerifier, VerifierTime},
};

/// How often the files are looked at for a change.
const POLL: Duration = Duration::from_secs(5);
/// The number of what is loaded first.
const FIRST_NUMBER: u64 = 1;
/// Bytes of the largest certificate, key or revocation file that is read.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// Section `[tls]` of every program: PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The program's own certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key; no other user may read the file.
    pub key: PathBuf,
    /// The authorities that peers' certificates must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority. Without the key nothing is checked for revocation;
    /// with it a certificate whose authority has no list, or an expired one, is refused.
    pub crl: Option<PathBuf>,
    /// Whether certificates of development are good enough. Never in production.
    #[serde(default)]
    pub allow_development: bool,
}

impl TlsSettings {
    /// The same with relative paths starting at the folder `base`.
    #[must_use]
    pub fn resolve(&self, base: &Path) -> Self {
        Self {
            certificate: resolve(base, &self.certificate),
            key: resolve(base, &self.key),
            ca: resolve(base, &self.ca),
            crl: self.crl.as_ref().map(|crl| resolve(base, crl)),
            allow_development: self.allow_development,
        }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key, &self.ca].into_iter().chain(&self.crl).map(PathBuf::as_path)
    }
}

/// Why TLS cannot be set up. Every text names the file and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot read the {what}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// Others may read the private key.
    #[error(transparent)]
    Lax(SettingsError),
    /// A file does not hold what it should.
    #[error("{}: {what}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A certificate of development where none may be.
    #[error(
        "{}: the {what} was made for development: issue a real one, or set allow_development = true \
         on a machine that holds no real secrets",
        path.display()
    )]
    Development {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        what: &'static str,
    },
    /// The address of a server is not usable.
    #[error("{url}: {problem}")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The cryptography refuses the protocol settings.
    #[error("TLS cannot be configured: {0}")]
    Protocol(rustls::Error),
}

/// Makes the one crypto provider the default of the process. Call it first in `main`: libraries ask
/// for the default.
pub fn install_provider() {
    // An error only says that there is a default already, and no other provider is linked.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Everything TLS needs, loaded together and checked.
#[derive(Debug)]
pub struct TlsGeneration {
    number: u64,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl TlsGeneration {
    /// Counts reloads, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Verifies the chain of a connected client again, its own certificate first.
    pub(crate) fn verify_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (own, intermediates) = chain
            .split_first()
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        self.verifier.verify_client_cert(own, intermediates, now).map(drop)
    }
}

/// The generation of TLS files in use, for both ends of connections.
#[derive(Debug)]
pub struct TlsReloader {
    settings: TlsSettings,
    clock: Clock,
    current: ArcSwap<TlsGeneration>,
    /// What the files looked like when they were last loaded; one reload at a time holds it.
    seen: Mutex<Stamps>,
}

/// Of every file: inode, size, times of change; `None` where there is no file.
type Stamps = Vec<Option<(u64, u64, i64, i64, i64)>>;

impl TlsReloader {
    /// Loads the files that `settings` (with paths resolved) name.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        Self::load_with_clock(settings, Clock::System)
    }

    /// As [`TlsReloader::load`], with validity judged by `clock`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load_with_clock(settings: &TlsSettings, clock: Clock) -> Result<Arc<Self>, TlsError> {
        // Stamps first: a change during the load is then seen at the next look.
        let seen = Mutex::new(stamps(settings));
        let first = load_generation(settings, &clock, FIRST_NUMBER)?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            clock,
            current: ArcSwap::from_pointee(first),
            seen,
        }))
    }

    /// Loads the files again and puts them to use, all or none. Connections that exist are checked
    /// again at their next request. An own certificate that has expired is an error in the log
    /// alone: it must not keep news about authorities and revocations out.
    ///
    /// # Errors
    /// See [`TlsError`]; what was in use stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = stamps(&self.settings);
        let number = self.current().number + 1;
        self.current.store(Arc::new(load_generation(&self.settings, &self.clock, number)?));
        Ok(())
    }

    /// What is in use now.
    #[must_use]
    pub fn current(&self) -> Arc<TlsGeneration> {
        self.current.load_full()
    }

    pub(crate) fn current_number(&self) -> u64 {
        self.current.load().number
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reloads at every SIGHUP, and within 5 s of a change of a file, until `shutdown`. What cannot
    /// be loaded is logged and leaves the old generation in use.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let forced = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = asked => true,
                () = tokio::time::sleep(POLL) => false,
            };
            if forced || self.has_changed() {
                self.reload_and_tell();
            }
        }
    }

    fn reload_and_tell(&self) {
        match self.reload() {
            Ok(()) => tracing::info!(generation = self.current_number(), "TLS files reloaded"),
            Err(error) => tracing::error!(
                %error,
                "TLS files are not usable, those loaded before stay in use"
            ),
        }
    }

    fn has_changed(&self) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != stamps(&self.settings)
    }
}

fn stamps(settings: &TlsSettings) -> Stamps {
    let stamp = |path| {
        let file = fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
    };
    settings.files().map(stamp).collect()
}

fn load_generation(
    settings: &TlsSettings,
    clock: &Clock,
    number: u64,
) -> Result<TlsGeneration, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = load_chain(settings)?;
    if let Some(expired) = expired(settings, clock, &chain)? {
        if number == FIRST_NUMBER {
            return Err(expired);
        }
        tracing::error!(error = %expired, "peers refuse this program");
    }
    let key = load_key(&settings.key)?;
    let roots = Arc::new(load_roots(settings)?);
    let crls = match &settings.crl {
        Some(path) => load_revocation(path, clock)?,
        None => Vec::new(),
    };
    let verifier = client_verifier(settings, &provider, &roots, crls.clone())?;
    let servers = server_verifier(settings, &provider, roots, crls)?;
    Ok(TlsGeneration {
        number,
        server: server_config(settings, &provider, clock, Arc::clone(&verifier), (&chain, &key))?,
        client: client_config(settings, provider, clock, servers, (chain, key))?,
        verifier,
    })
}

fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    // By default the whole chain is checked and an unknown status is a refusal; an expired list is
    // accepted unless told otherwise.
    let inner =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(crls)
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| bad_revocation(settings, &error))?;
    Ok(Arc::new(PeerVerifier { inner, allow_development: settings.allow_development }))
}

fn server_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(crls)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| bad_revocation(settings, &error))?;
    Ok(Arc::new(PeerVerifier { inner, allow_development: settings.allow_development }))
}

fn server_config(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    clock: &Clock,
    verifier: Arc<dyn ClientCertVerifier>,
    (chain, key): (&[CertificateDer<'static>], &PrivateKeyDer<'static>),
) -> Result<Arc<ServerConfig>, TlsError> {
    let time = Arc::new(VerifierTime(clock.clone()));
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|error| bad_pair(settings, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn client_config(
    settings: &TlsSettings,
    provider: Arc<CryptoProvider>,
    clock: &Clock,
    verifier: Arc<dyn ServerCertVerifier>,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<Arc<ClientConfig>, TlsError> {
    let time = Arc::new(VerifierTime(clock.clone()));
    // "Dangerous" is any verifier but the built-in one; ours adds checks in front of that.
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad_pair(settings, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

const CERTIFICATE: &str = "certificate";
const AUTHORITY: &str = "certificate authority";
const KEY: &str = "private key";
const REVOCATION: &str = "revocation list";

fn load_chain(settings: &TlsSettings) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = &settings.certificate;
    let chain = load_pem::<CertificateDer<'_>>(path, CERTIFICATE)?;
    for certificate in &chain {
        let parsed =
            parse_x509(certificate).map_err(|error| bad(path, CERTIFICATE, error.to_string()))?;
        if has_development_mark(&parsed) && !settings.allow_development {
            return Err(TlsError::Development { path: path.clone(), what: CERTIFICATE });
        }
    }
    Ok(chain)
}

/// What to say about the first certificate of the chain that has expired.
fn expired(
    settings: &TlsSettings,
    clock: &Clock,
    chain: &[CertificateDer<'_>],
) -> Result<Option<TlsError>, TlsError> {
    let path = &settings.certificate;
    for certificate in chain {
        let parsed =
            parse_x509(certificate).map_err(|error| bad(path, CERTIFICATE, error.to_string()))?;
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after < clock.now() {
            let problem = format!("expired on {}: issue a new one", shown(not_after));
            return Ok(Some(bad(path, CERTIFICATE, problem)));
        }
    }
    Ok(None)
}

fn load_roots(settings: &TlsSettings) -> Result<RootCertStore, TlsError> {
    let path = &settings.ca;
    let mut roots = RootCertStore::empty();
    for certificate in load_pem::<CertificateDer<'_>>(path, AUTHORITY)? {
        let parsed =
            parse_x509(&certificate).map_err(|error| bad(path, AUTHORITY, error.to_string()))?;
        if has_development_mark(&parsed) && !settings.allow_development {
            return Err(TlsError::Development { path: path.clone(), what: AUTHORITY });
        }
        if !parsed.is_ca() {
            let problem = format!(
                "{} is not an authority's certificate: leave only authorities in the file",
                parsed.subject()
            );
            return Err(bad(path, AUTHORITY, problem));
        }
        roots.add(certificate).map_err(|error| bad(path, AUTHORITY, error.to_string()))?;
    }
    Ok(roots)
}

/// Lists that are out of date are put to use all the same: they refuse every peer of their authority,
/// which is what a list that was not renewed has to do.
fn load_revocation(
    path: &Path,
    clock: &Clock,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = load_pem::<CertificateRevocationListDer<'_>>(path, REVOCATION)?;
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|_| bad(path, REVOCATION, "cannot be read"))?;
        let next = parsed.next_update().map(|time| time.to_datetime());
        if next.is_none_or(|next| next < clock.now()) {
            tracing::error!(
                file = %path.display(),
                authority = %parsed.issuer(),
                "the revocation list is out of date: all certificates of this authority are refused \
                 until there is a new one"
            );
        }
    }
    Ok(lists)
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = File::open(path).map_err(|source| read_error(path, KEY, source))?;
    refuse_lax(path, &file).map_err(TlsError::Lax)?;
    let content = read_all(file).map_err(|source| read_error(path, KEY, source))?;
    PrivateKeyDer::from_pem_slice(&content)
        .map_err(|_| bad(path, KEY, "holds no PEM private key (PKCS #8, SEC 1 or PKCS #1)"))
}

/// Every PEM section of the file, all of which must be of the wanted kind.
fn load_pem<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let content =
        File::open(path).and_then(read_all).map_err(|source| read_error(path, what, source))?;
    let objects = T::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(path, what, format!("is not PEM: {error}")))?;
    let sections = content.windows(11).filter(|window| window == b"-----BEGIN ").count();
    if objects.is_empty() {
        return Err(bad(path, what, "holds none: a PEM file is expected"));
    }
    if objects.len() != sections {
        return Err(bad(path, what, "holds PEM sections of another kind: remove them"));
    }
    Ok(objects)
}

fn read_all(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(file.metadata()?.len().min(FILE_MAX)).unwrap_or_default();
    // Room for everything at once: a buffer that grows leaves copies of a key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn read_error(path: &Path, what: &'static str, source: io::Error) -> TlsError {
    TlsError::Read { path: path.to_owned(), what, source }
}

fn bad(path: &Path, what: &'static str, problem: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, problem: problem.into() }
}

fn bad_revocation(settings: &TlsSettings, error: &VerifierBuilderError) -> TlsError {
    bad(settings.crl.as_ref().unwrap_or(&settings.ca), REVOCATION, error.to_string())
}

fn bad_pair(settings: &TlsSettings, error: &rustls::Error) -> TlsError {
    let problem = format!(
        "does not go with the certificate in {}: {error}; name the key that the certificate was \
         issued for",
        settings.certificate.display()
    );
    bad(&settings.key, KEY, problem)
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
