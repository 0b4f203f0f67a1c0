//! Whom a program trusts: authorities and revocation lists, and the verifiers made of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier,
    client::{WantsClientCert, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::CertificateRevocationListDer,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    ClientCertificate, TlsError,
    files::{REVOCATION, bad, load_revocation, load_roots},
    for_grpc,
};
use crate::{
    clock::Clock,
    verifier::{PeerVerifier, VerifierTime},
};

/// Whom to trust: all that a caller without a certificate of its own needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// The authorities that servers' certificates must come from.
    pub ca: PathBuf,
    /// Revocation lists, one of every authority; `None`: nothing is checked for revocation.
    pub crl: Option<PathBuf>,
    /// Whether certificates of development are good enough. Never in production.
    pub allow_development: bool,
}

impl TrustSettings {
    /// For gRPC without a client certificate.
    pub(crate) fn grpc_client(&self, clock: &Clock) -> Result<ClientConfig, TlsError> {
        let config = Trusted::load(self, provider(), clock)?
            .client_builder(clock, &[&rustls::version::TLS13])?
            .with_no_client_auth();
        Ok(for_grpc(config))
    }

    /// For requests to a service that is not one of ours, like an identity provider: TLS 1.2 too where
    /// it is compiled in, any application protocol, no client certificate.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn web_client(&self, clock: &Clock) -> Result<ClientConfig, TlsError> {
        let trusted = Trusted::load(self, provider(), clock)?;
        Ok(trusted.client_builder(clock, rustls::DEFAULT_VERSIONS)?.with_no_client_auth())
    }
}

/// A configuration that trusts nobody, for requests that must not use TLS at all.
///
/// # Errors
/// See [`TlsError`].
pub fn web_client_without_trust() -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The loaded files of [`TrustSettings`].
pub(super) struct Trusted {
    settings: TrustSettings,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

impl Trusted {
    pub(super) fn load(
        settings: &TrustSettings,
        provider: Arc<CryptoProvider>,
        clock: &Clock,
    ) -> Result<Self, TlsError> {
        let roots = Arc::new(load_roots(&settings.ca, settings.allow_development)?);
        let crls = match &settings.crl {
            Some(path) => load_revocation(path, clock)?,
            None => Vec::new(),
        };
        Ok(Self { settings: settings.clone(), provider, roots, crls })
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(super) fn client_verifier(
        &self,
        wanted: ClientCertificate,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        // By default the whole chain is checked and an unknown status is a refusal; an expired list
        // is accepted unless told otherwise.
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), self.provider())
                .with_crls(self.crls.clone())
                .enforce_revocation_expiration();
        let builder = match wanted {
            ClientCertificate::Required => builder,
            ClientCertificate::Optional => builder.allow_unauthenticated(),
        };
        let inner = builder.build().map_err(|error| self.bad_revocation(&error))?;
        let allow_development = self.settings.allow_development;
        Ok(Arc::new(PeerVerifier { inner, allow_development }))
    }

    /// A client that verifies servers; what it shows of itself is left to say.
    pub(super) fn client_builder(
        &self,
        clock: &Clock,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), self.provider())
                .with_crls(self.crls.clone())
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| self.bad_revocation(&error))?;
        let allow_development = self.settings.allow_development;
        let time = Arc::new(VerifierTime(clock.clone()));
        let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
            ClientConfig::builder_with_details(self.provider(), time)
                .with_protocol_versions(versions)
                .map_err(TlsError::Protocol)?;
        // "Dangerous" is any verifier but the built-in one; ours adds checks in front of that.
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier { inner, allow_development })))
    }

    fn bad_revocation(&self, error: &VerifierBuilderError) -> TlsError {
        let path: &Path = self.settings.crl.as_deref().unwrap_or(&self.settings.ca);
        bad(path, REVOCATION, error.to_string())
    }
}
