//! Mutual TLS of every program: which files, what they must be, and their replacement without a
//! restart.
//!
//! TLS 1.3 alone, one crypto provider, `h2` by ALPN, no resumption (a resumed session would skip the
//! verifier). Everything is checked before it takes the place of what was in use.

mod files;
mod trust;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::trust::{TrustSettings, web_client_without_trust};
use self::{
    files::{KEY, bad, expired, load_chain, load_key},
    trust::Trusted,
};
use crate::{
    clock::Clock,
    settings::{SettingsError, resolve},
    verifier::VerifierTime,
};

/// How often the files are looked at for a change.
const POLL: Duration = Duration::from_secs(5);
/// The number of what is loaded first.
const FIRST_NUMBER: u64 = 1;

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
    /// Whether those who connect have to show a certificate.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
}

/// Whether those who connect to a program have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Without one there is no connection.
    #[default]
    Required,
    /// Whoever shows none may still prove in another way who they are. One that is shown is verified
    /// as ever: a bad one is refused, not ignored.
    Optional,
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
            client_certificate: self.client_certificate,
        }
    }

    /// Whom the program trusts.
    fn trust(&self) -> TrustSettings {
        TrustSettings {
            ca: self.ca.clone(),
            crl: self.crl.clone(),
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
    /// Others may read the private key, or another file that proves who calls.
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

    pub(crate) fn requires_certificates(&self) -> bool {
        self.settings.client_certificate == ClientCertificate::Required
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
    let chain = load_chain(&settings.certificate, settings.allow_development)?;
    if let Some(expired) = expired(&settings.certificate, clock, &chain)? {
        if number == FIRST_NUMBER {
            return Err(expired);
        }
        tracing::error!(error = %expired, "peers refuse this program");
    }
    let key = load_key(&settings.key)?;
    let trusted = Trusted::load(&settings.trust(), provider, clock)?;
    let verifier = trusted.client_verifier(settings.client_certificate)?;
    Ok(TlsGeneration {
        number,
        server: server_config(settings, &trusted, clock, Arc::clone(&verifier), (&chain, &key))?,
        client: client_config(settings, &trusted, clock, (chain, key))?,
        verifier,
    })
}

fn server_config(
    settings: &TlsSettings,
    trusted: &Trusted,
    clock: &Clock,
    verifier: Arc<dyn ClientCertVerifier>,
    (chain, key): (&[CertificateDer<'static>], &PrivateKeyDer<'static>),
) -> Result<Arc<ServerConfig>, TlsError> {
    let time = Arc::new(VerifierTime(clock.clone()));
    let mut config = ServerConfig::builder_with_details(trusted.provider(), time)
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
    trusted: &Trusted,
    clock: &Clock,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = trusted
        .client_builder(clock, &[&rustls::version::TLS13])?
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad_pair(settings, &error))?;
    Ok(Arc::new(for_grpc(config)))
}

/// `h2` alone, and nothing that skips the verifier.
fn for_grpc(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

fn bad_pair(settings: &TlsSettings, error: &rustls::Error) -> TlsError {
    let problem = format!(
        "does not go with the certificate in {}: {error}; name the key that the certificate was \
         issued for",
        settings.certificate.display()
    );
    bad(&settings.key, KEY, problem)
}
