//! Everything TLS needs at one time: loaded together, checked, and never changed.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::sign::any_supported_type},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use time::OffsetDateTime;
use zeroize::Zeroize as _;

use super::{
    Notices, Revocation, TlsError, TlsReason,
    files::{KEY, REVOCATION, bad, load_chain, load_key, load_revocation, load_roots},
    lists::RevocationList,
    own::OwnChain,
    report::certificate_statuses,
    settings::{
        Application, ClientCertificate, ListSource, RevocationPolicy, TlsSettings, TrustSettings,
    },
    sources::{Signers, Sources},
    status::CertificateStatus,
    trust::provider,
};
use crate::{
    clock::Clock,
    peer::parse_x509,
    verifier::{PeerVerifier, Refusal, VerifierTime, no_certificate, printable},
};

/// What a program does with TLS: everything that stays the same over reloads.
#[derive(Debug)]
pub(super) struct Shape {
    /// `None`: a caller without a certificate of its own.
    pub(super) identity: Option<IdentityFiles>,
    pub(super) trust: TrustSettings,
    pub(super) client_certificate: ClientCertificate,
    pub(super) application: Application,
    /// Whether the own certificate has to do for a server.
    pub(super) listens: bool,
}

/// The files that prove who the program is.
#[derive(Debug)]
pub(super) struct IdentityFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) key_passphrase: Option<PathBuf>,
}

impl Shape {
    pub(super) fn of(settings: &TlsSettings, application: Application, listens: bool) -> Self {
        Self {
            identity: Some(IdentityFiles {
                certificate: settings.certificate.clone(),
                key: settings.key.clone(),
                key_passphrase: settings.key_passphrase_file.clone(),
            }),
            trust: settings.trust(),
            client_certificate: settings.client_certificate,
            application,
            listens,
        }
    }

    pub(super) fn caller(trust: &TrustSettings, application: Application) -> Self {
        Self {
            identity: None,
            trust: trust.clone(),
            client_certificate: ClientCertificate::default(),
            application,
            listens: false,
        }
    }

    pub(super) fn policy(&self) -> RevocationPolicy {
        self.trust.revocation_policy()
    }

    fn list_files(&self) -> impl Iterator<Item = &PathBuf> {
        let in_use = self.policy() != RevocationPolicy::Off;
        self.trust.crl.iter().filter_map(move |source| match source {
            ListSource::File(path) if in_use => Some(path),
            ListSource::File(_) | ListSource::Url(_) => None,
        })
    }

    /// Every file whose change is a reason to load them all again.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let identity = self.identity.iter().flat_map(|identity| {
            [Some(&identity.certificate), Some(&identity.key), identity.key_passphrase.as_ref()]
        });
        identity.flatten().chain([&self.trust.ca]).chain(self.list_files())
    }
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Material {
    identity: Option<Arc<SingleCertAndKey>>,
    /// The own chain; empty without a certificate.
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    pub(super) lists: Vec<Arc<RevocationList>>,
    pub(super) certificates: Vec<CertificateStatus>,
    /// What the program's peers may stumble over.
    pub(super) gap: Option<String>,
    pub(super) loaded_at: OffsetDateTime,
}

/// Who the program is.
struct Identity {
    own: Option<Arc<SingleCertAndKey>>,
    chain: Vec<CertificateDer<'static>>,
    gap: Option<String>,
}

impl Material {
    /// Loads the files for the first time.
    pub(super) fn load(shape: &Shape, clock: &Clock) -> Result<Self, TlsError> {
        let (roots, authorities) = load_trusted(shape)?;
        let identity = Identity::load(shape, &roots, clock, None)?;
        let lists = load_lists(shape, signers(&roots), false)?;
        Ok(Self::of(identity, (roots, authorities), lists, clock))
    }

    /// Loads the files again. Some faults are better than no start, and no reason to give up what is in
    /// use. Certificate and key that are no good do not keep news about authorities and revocations out:
    /// those of `self` go on, and what is wrong comes second.
    pub(super) fn load_again(
        &self,
        shape: &Shape,
        clock: &Clock,
    ) -> Result<(Self, Option<TlsError>), TlsError> {
        let (roots, authorities) = load_trusted(shape)?;
        let lists = load_lists(shape, signers(&roots), true)?;
        let (identity, problem) = match Identity::load(shape, &roots, clock, Some(self)) {
            Ok(identity) => (identity, None),
            Err(problem) => (Identity::of(self), Some(problem)),
        };
        // The certificate is the one in use: it is the authorities that do not fit it.
        if let Some(problem @ TlsError::Unusable { reason: TlsReason::UntrustedIssuer, .. }) =
            problem
        {
            let is_unchanged = shape.identity.as_ref().is_some_and(|files| {
                load_chain(&files.certificate, shape.trust.allow_development)
                    .is_ok_and(|chain| chain == self.chain)
            });
            if is_unchanged {
                return Err(problem);
            }
            let problem = Some(problem);
            return Ok((Self::of(identity, (roots, authorities), lists, clock), problem));
        }
        Ok((Self::of(identity, (roots, authorities), lists, clock), problem))
    }

    fn of(
        identity: Identity,
        (roots, authorities): (RootCertStore, Vec<CertificateDer<'static>>),
        lists: Vec<Arc<RevocationList>>,
        clock: &Clock,
    ) -> Self {
        Self {
            certificates: certificate_statuses(&identity.chain, &authorities),
            identity: identity.own,
            chain: identity.chain,
            gap: identity.gap,
            lists,
            loaded_at: clock.now(),
            roots: Arc::new(roots),
        }
    }

    /// Whether both trust the same authorities and know the same lists.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        let has_all = |these: &[Arc<RevocationList>], those: &[Arc<RevocationList>]| {
            these.iter().all(|this| those.iter().any(|that| that.is_same(this)))
        };
        self.roots.roots == other.roots.roots
            && has_all(&self.lists, &other.lists)
            && has_all(&other.lists, &self.lists)
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    pub(super) fn signers(&self) -> Signers<'_> {
        signers(&self.roots)
    }
}

impl Identity {
    /// The one in use.
    fn of(material: &Material) -> Self {
        Self {
            own: material.identity.clone(),
            chain: material.chain.clone(),
            gap: material.gap.clone(),
        }
    }

    fn load(
        shape: &Shape,
        roots: &RootCertStore,
        clock: &Clock,
        last: Option<&Material>,
    ) -> Result<Self, TlsError> {
        let Some(files) = &shape.identity else {
            return Ok(Self { own: None, chain: Vec::new(), gap: None });
        };
        let path = files.certificate.as_path();
        let chain = load_chain(path, shape.trust.allow_development)?;
        let checked = OwnChain { path, chain: &chain, roots, algorithms: algorithms() };
        if let Err(error) = checked.check_time(clock) {
            if last.is_none_or(|last| last.chain != chain) {
                return Err(error);
            }
            tracing::error!(%error, "peers refuse this program");
        }
        checked.check_use(shape.listens, clock)?;
        let gap = checked.gap(clock).map(|words| format!("{}: {words}", path.display()));
        let own = Some(Arc::new(load_pair(files, &chain)?));
        Ok(Self { own, chain, gap })
    }
}

fn signers(roots: &RootCertStore) -> Signers<'_> {
    Signers { roots, algorithms: algorithms() }
}

/// The authorities, and a warning of those that nobody looks after.
fn load_trusted(shape: &Shape) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let (roots, authorities) = load_roots(&shape.trust.ca, shape.trust.allow_development)?;
    if shape.policy() != RevocationPolicy::Off {
        for authority in &authorities {
            let Ok(parsed) = parse_x509(authority) else { continue };
            if parsed.subject() != parsed.issuer() {
                tracing::warn!(
                    file = %shape.trust.ca.display(),
                    authority = %printable(&parsed.subject().to_string()),
                    issuer = %printable(&parsed.issuer().to_string()),
                    "an authority that is trusted itself is not looked up in the list of its issuer: \
                     should it be revoked, take it out of the file"
                );
            }
        }
    }
    Ok((roots, authorities))
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

fn load_pair(
    files: &IdentityFiles,
    chain: &[CertificateDer<'static>],
) -> Result<SingleCertAndKey, TlsError> {
    let mut key = load_key(&files.key, files.key_passphrase.as_deref())?;
    let signing = any_supported_type(&key);
    key.zeroize();
    let does_not_fit = |error: rustls::Error| {
        let problem = format!(
            "does not go with the certificate in {}: {error}; name the key that the certificate was \
             issued for",
            files.certificate.display()
        );
        bad(&files.key, KEY, problem)
    };
    let certified = CertifiedKey::new(chain.to_vec(), signing.map_err(does_not_fit)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(SingleCertAndKey::from(certified))
        }
        Err(error) => Err(does_not_fit(error)),
    }
}

fn load_lists(
    shape: &Shape,
    signers: Signers<'_>,
    is_reload: bool,
) -> Result<Vec<Arc<RevocationList>>, TlsError> {
    let mut lists = Vec::new();
    for path in shape.list_files() {
        for list in load_revocation(path)? {
            if signers.disown(&list) {
                let problem = format!(
                    "the list of {} is not signed by the authority of that name in {}: fetch the \
                     authority's own",
                    list.issuer,
                    shape.trust.ca.display()
                );
                let error = bad(path, REVOCATION, problem);
                if is_reload {
                    return Err(error);
                }
                tracing::error!(%error, "the list says nothing about anybody");
            }
            lists.push(list);
        }
    }
    Ok(lists)
}

/// Everything TLS needs, loaded together and checked.
#[derive(Debug)]
pub struct TlsGeneration {
    number: u64,
    pub(super) material: Arc<Material>,
    /// `None` without a certificate of its own.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
    clients: Arc<PeerVerifier<dyn ClientCertVerifier>>,
    servers: Arc<PeerVerifier<WebPkiServerVerifier>>,
}

/// What goes into a generation beside the files.
pub(super) struct Surroundings<'s> {
    pub(super) shape: &'s Shape,
    pub(super) clock: &'s Clock,
    pub(super) sources: &'s Arc<Sources>,
    pub(super) notices: &'s Arc<Notices>,
}

impl TlsGeneration {
    pub(super) fn build(
        number: u64,
        material: Arc<Material>,
        with: &Surroundings<'_>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let mut lists = material.lists.clone();
        lists.extend(with.sources.lists());
        let revocation = Arc::new(Revocation {
            policy: with.shape.policy(),
            lists,
            sources: Arc::clone(with.sources),
            roots: Arc::clone(&material.roots),
            algorithms: provider.signature_verification_algorithms,
        });
        let clients = Arc::new(PeerVerifier {
            inner: client_verifier(&material, with.shape, &provider)?,
            allow_development: with.shape.trust.allow_development,
            revocation: Arc::clone(&revocation),
            notices: Arc::clone(with.notices),
        });
        let roots = Arc::clone(&material.roots);
        let inner =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let servers = Arc::new(PeerVerifier {
            inner: inner.map_err(|error| unbuilt(with.shape, &error))?,
            allow_development: with.shape.trust.allow_development,
            revocation,
            notices: Arc::clone(with.notices),
        });
        let server = match &material.identity {
            Some(own) => Some(server_config(with, &provider, Arc::clone(&clients), own)?),
            None => None,
        };
        let client = client_config(with, &provider, Arc::clone(&servers), &material)?;
        Ok(Self { number, server, client, clients, servers, material })
    }

    /// Counts what was put to use, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.server.clone()
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Verifies the chain of a connected client again, its own certificate first. `Ok(Some(_))`: what
    /// the policy lets pass.
    pub(crate) fn verify_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Option<Refusal>, Refusal> {
        let (own, others) = chain.split_first().ok_or_else(no_certificate)?;
        self.clients.judge(own, others, now)
    }

    /// Tells about a peer that is let through although the lists say nothing of it.
    pub(crate) fn tell_of_leniency(&self, own: &CertificateDer<'_>, trouble: Refusal) {
        self.servers.tell_of_leniency(own, trouble);
    }

    /// Verifies the chain of a connected server again, its own certificate first. `Ok(Some(_))`: what
    /// the policy lets pass.
    pub(crate) fn verify_server(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Option<Refusal>, Refusal> {
        let (own, others) = chain.split_first().ok_or_else(no_certificate)?;
        self.servers.judge(own, others, name, now)
    }
}

fn client_verifier(
    material: &Material,
    shape: &Shape,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::clone(&material.roots);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = match shape.client_certificate {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| unbuilt(shape, &error))
}

fn unbuilt(shape: &Shape, error: &rustls::server::VerifierBuilderError) -> TlsError {
    bad(&shape.trust.ca, super::files::AUTHORITY, error.to_string())
}

fn server_config(
    with: &Surroundings<'_>,
    provider: &Arc<CryptoProvider>,
    clients: Arc<PeerVerifier<dyn ClientCertVerifier>>,
    own: &Arc<SingleCertAndKey>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let time = Arc::new(VerifierTime(with.clock.clone()));
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&with.shape.trust.minimum_version.allowed())
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::clone(own) as _);
    config.alpn_protocols = with.shape.application.protocols();
    // Sessions that are resumed skip the verifier: none is remembered here, and no ticket issued, which
    // in TLS 1.2 is the default (`ServerConfig::ticketer`).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.require_ems = true;
    Ok(Arc::new(config))
}

fn client_config(
    with: &Surroundings<'_>,
    provider: &Arc<CryptoProvider>,
    servers: Arc<PeerVerifier<WebPkiServerVerifier>>,
    material: &Material,
) -> Result<Arc<ClientConfig>, TlsError> {
    let time = Arc::new(VerifierTime(with.clock.clone()));
    let builder = ClientConfig::builder_with_details(Arc::clone(provider), time)
        .with_protocol_versions(&with.shape.trust.minimum_version.allowed())
        .map_err(TlsError::Protocol)?
        // "Dangerous" is any verifier but the built-in one; ours adds checks around that.
        .dangerous()
        .with_custom_certificate_verifier(servers);
    let mut config = match &material.identity {
        Some(own) => builder.with_client_cert_resolver(Arc::clone(own) as _),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = with.shape.application.protocols();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.require_ems = true;
    Ok(Arc::new(config))
}
