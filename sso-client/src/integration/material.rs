//! What a port needs for TLS, loaded from the host's store and watched while it is in use.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::client::ResolvesClientCert;
use sso_core::{
    clock::Clock,
    settings::resolve,
    tls::{
        Application, CertificateRole, ClientCertificate, ListSource, RevocationPolicy, TlsError,
        TlsReloader, TlsSettings, TlsVersion, TrustSettings,
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Again, CertificateStore, ReceiveLocation, SendPort, StoreError, StoredCertificate, Thumbprint,
};

/// Why a port cannot be opened, or a change of it cannot be put to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The certificate is not in the store as it should be.
    #[error("{port}: {source}")]
    Store {
        /// The port, by kind and name.
        port: String,
        /// What is wrong.
        source: StoreError,
    },
    /// Certificate, key, authorities or lists are not usable.
    #[error("{port}: {source}")]
    Tls {
        /// The port, by kind and name.
        port: String,
        /// What is wrong.
        source: TlsError,
    },
    /// The file of the certificate was replaced by one with another thumbprint.
    #[error(
        "{port}: {} now holds the certificate with the thumbprint {found}, and the port names \
         {wanted}: write the new one into the config store, or put the old one back",
        file.display()
    )]
    Replaced {
        /// The port, by kind and name.
        port: String,
        /// The file.
        file: PathBuf,
        /// What the port names.
        wanted: Thumbprint,
        /// What the file holds.
        found: String,
    },
    /// The address cannot be listened at.
    #[error("{port}: cannot listen at {address}: {source}")]
    Listen {
        /// The port, by kind and name.
        port: String,
        /// The address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The HTTP library refuses what was loaded.
    #[error("{port}: {problem}")]
    Library {
        /// The port, by kind and name.
        port: String,
        /// What it said.
        problem: String,
    },
}

impl SetupError {
    /// Whether trying again helps: files and addresses change only by somebody's hand.
    #[must_use]
    pub fn again(&self) -> Again {
        Again::AfterRepair
    }
}

/// The part of a port that is about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The port, by kind and name: for words.
    pub(super) port: String,
    listens: bool,
    certificate: Option<Thumbprint>,
    ca: PathBuf,
    crl: Vec<ListSource>,
    revocation: Option<RevocationPolicy>,
    list_refresh: Option<Duration>,
    minimum_version: TlsVersion,
    client_certificate: ClientCertificate,
}

impl From<&SendPort> for Wanted {
    fn from(port: &SendPort) -> Self {
        Self {
            port: format!("send port '{}'", port.name),
            listens: false,
            certificate: port.certificate.clone(),
            ca: port.ca.clone(),
            crl: port.crl.clone(),
            revocation: port.revocation,
            list_refresh: port.list_refresh,
            minimum_version: port.minimum_version,
            client_certificate: ClientCertificate::default(),
        }
    }
}

impl From<&ReceiveLocation> for Wanted {
    fn from(location: &ReceiveLocation) -> Self {
        Self {
            port: format!("receive location '{}'", location.name),
            listens: true,
            certificate: Some(location.certificate.clone()),
            ca: location.ca.clone(),
            crl: location.crl.clone(),
            revocation: location.revocation,
            list_refresh: location.list_refresh,
            minimum_version: location.minimum_version,
            client_certificate: location.client_certificate,
        }
    }
}

impl Wanted {
    fn trust(&self, store: &CertificateStore) -> TrustSettings {
        let mut trust = TrustSettings::new(resolve(store.folder(), &self.ca));
        trust.crl = self.crl.iter().map(|source| source.resolve(store.folder())).collect();
        trust.revocation = self.revocation;
        trust.minimum_version = self.minimum_version;
        trust.crl_refresh = self.list_refresh.unwrap_or(trust.crl_refresh);
        trust.crl_cache = store.list_cache().map(PathBuf::from);
        trust.allow_development = store.development_is_allowed();
        trust
    }

    fn settings(&self, store: &CertificateStore, chosen: &StoredCertificate) -> TlsSettings {
        let trust = self.trust(store);
        let mut settings = TlsSettings::with_trust(&chosen.certificate, &chosen.key, trust);
        settings.client_certificate = self.client_certificate;
        settings
    }

    pub(super) fn store_error(&self, source: StoreError) -> SetupError {
        SetupError::Store { port: self.port.clone(), source }
    }

    pub(super) fn tls_error(&self, source: TlsError) -> SetupError {
        SetupError::Tls { port: self.port.clone(), source }
    }
}

/// Certificate, key, authorities and lists of a port, loaded and watched until this is dropped.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) wanted: Wanted,
    /// The certificate that the port names; `None` where it names none.
    pub(super) chosen: Option<StoredCertificate>,
    pub(super) tls: Arc<TlsReloader>,
    _watch: DropGuard,
}

impl Material {
    /// Finds and loads what is wanted, fetches the lists, and begins to watch.
    pub(super) async fn load(
        wanted: Wanted,
        store: &CertificateStore,
    ) -> Result<Arc<Self>, SetupError> {
        let (chosen, tls) = match &wanted.certificate {
            Some(thumbprint) => {
                let chosen = store.find(thumbprint).map_err(|error| wanted.store_error(error))?;
                let settings = wanted.settings(store, &chosen);
                let load = match wanted.listens {
                    true => TlsReloader::load_listener,
                    false => TlsReloader::load_for,
                };
                (Some(chosen), load(&settings, Application::Http, Clock::System))
            }
            None => {
                let trust = wanted.trust(store);
                (None, TlsReloader::load_trust(&trust, Application::Http, Clock::System))
            }
        };
        let tls = tls.map_err(|error| wanted.tls_error(error))?;
        tls.fetch_lists().await;
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&tls).watch_without_signals(stop.clone()));
        let material = Self { wanted, chosen, tls, _watch: stop.drop_guard() };
        // The file may have been replaced since it was found.
        material.check_own()?;
        Ok(Arc::new(material))
    }

    /// Whether what is loaded is still the certificate that the port names.
    pub(super) fn check_own(&self) -> Result<(), SetupError> {
        let Some(chosen) = &self.chosen else { return Ok(()) };
        let status = self.tls.status();
        let own = status.certificates.iter().find(|it| it.role == CertificateRole::Own);
        match own {
            Some(own) if own.thumbprint_sha256 == chosen.own.thumbprint_sha256 => Ok(()),
            other => Err(SetupError::Replaced {
                port: self.wanted.port.clone(),
                file: chosen.certificate.clone(),
                wanted: Thumbprint::of(&chosen.own),
                found: other.map(|own| own.thumbprint_sha256.clone()).unwrap_or_default(),
            }),
        }
    }

    /// What answers a server that asks for the client certificate.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.tls.client_config().client_auth_cert_resolver)
    }
}
