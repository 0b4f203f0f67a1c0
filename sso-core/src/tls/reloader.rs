//! The files and lists in use, and putting others in their place.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    Notices, TlsError, TlsNotice, TlsReason,
    fetch::{client, fetch},
    generation::{Material, Shape, Surroundings, TlsGeneration},
    lists::{ANSWERED_MAX, ListProblem, RevocationList, parse_lists},
    report::Report,
    settings::{
        Application, ClientCertificate, ListSource, RevocationPolicy, TlsSettings, TrustSettings,
    },
    sources::Sources,
    status::TlsStatus,
    trust::provider,
};
use crate::{
    clock::Clock,
    verifier::{VerifierTime, unix_time},
};

/// How often the files are looked at for a change.
const FILES_POLL: Duration = Duration::from_secs(5);
/// How often it is looked whether a list is due.
const LISTS_POLL: Duration = Duration::from_secs(1);
/// How often it is looked whether something ends.
const ENDS_POLL: Duration = Duration::from_secs(60);
/// How soon files that could not be loaded are tried again although they have not changed.
const RETRY: Duration = Duration::from_secs(30);
/// A list of more bytes is parsed where it holds nobody up.
const LARGE: usize = 1024 * 1024;
/// The number of what is loaded first.
const FIRST_NUMBER: u64 = 1;

/// The generation of TLS files and lists in use, for both ends of connections.
#[derive(Debug)]
pub struct TlsReloader {
    pub(super) shape: Shape,
    clock: Clock,
    current: ArcSwap<TlsGeneration>,
    /// The last attempt to load the files; one reload at a time holds it.
    attempt: Mutex<Attempt>,
    /// One `reload_all` at a time holds it.
    whole: tokio::sync::Mutex<()>,
    pub(super) sources: Arc<Sources>,
    pub(super) notices: Arc<Notices>,
    pub(super) report: Mutex<Report>,
    /// The number of the generation in use, for connections that wait for the next.
    changes: watch::Sender<u64>,
}

/// An attempt to load the files.
#[derive(Debug)]
struct Attempt {
    /// What they looked like.
    seen: Stamps,
    /// If it failed, when, on the clock that never goes back: what kept them from being loaded may pass
    /// without a change of theirs.
    failed: Option<Duration>,
}

/// Of every file: inode, size, times of change; `None` where there is no file.
type Stamps = Vec<Option<(u64, u64, i64, i64, i64)>>;

impl TlsReloader {
    /// Loads the files that `settings` (with paths resolved) name, for gRPC. Lists with a URL are there
    /// only as far as the folder of `crl_cache` has them: call [`TlsReloader::fetch_lists`] before the
    /// first connection.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        Self::load_for(settings, Application::Grpc, Clock::System)
    }

    /// As [`TlsReloader::load`], for what is spoken inside of TLS, with validity judged by `clock`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load_for(
        settings: &TlsSettings,
        application: Application,
        clock: Clock,
    ) -> Result<Arc<Self>, TlsError> {
        Self::of(Shape::of(settings, application, false), clock)
    }

    /// As [`TlsReloader::load_for`], for a program that listens: its certificate has to be one that
    /// clients can take.
    ///
    /// # Errors
    /// See [`TlsError`]; also a certificate that is not made for servers, or an incomplete chain.
    pub fn load_listener(
        settings: &TlsSettings,
        application: Application,
        clock: Clock,
    ) -> Result<Arc<Self>, TlsError> {
        Self::of(Shape::of(settings, application, true), clock)
    }

    /// For a caller without a certificate of its own.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load_trust(
        trust: &TrustSettings,
        application: Application,
        clock: Clock,
    ) -> Result<Arc<Self>, TlsError> {
        Self::of(Shape::caller(trust, application), clock)
    }

    fn of(shape: Shape, clock: Clock) -> Result<Arc<Self>, TlsError> {
        shape.trust.check()?;
        // Stamps first: a change during the load is then seen at the next look.
        let attempt = Mutex::new(Attempt { seen: stamps(&shape), failed: None });
        let sources = Arc::new(Sources::new(&shape.trust, clock.now()));
        let notices = Arc::new(Notices::default());
        let material = Arc::new(Material::load(&shape, &clock)?);
        let with =
            Surroundings { shape: &shape, clock: &clock, sources: &sources, notices: &notices };
        let first = TlsGeneration::build(FIRST_NUMBER, material, &with)?;
        let tls = Self {
            shape,
            clock,
            current: ArcSwap::from_pointee(first),
            attempt,
            whole: tokio::sync::Mutex::default(),
            sources,
            notices,
            report: Mutex::default(),
            changes: watch::Sender::new(FIRST_NUMBER),
        };
        tls.measure();
        Ok(Arc::new(tls))
    }

    /// From now on `hear` is told what is worth a line in the log, instead of the log.
    pub fn announce(&self, hear: fn(&TlsNotice)) {
        self.notices.announce(hear);
    }

    /// Fetches every list that has a URL, all at once, and puts to use what came. Takes 10 s at the
    /// most and never fails: what is missing is in the status and in the log.
    pub async fn fetch_lists(&self) {
        self.fetch(self.sources.all()).await;
    }

    /// Loads the files again and puts them to use. Connections that exist are checked
    /// again soon. An own certificate that has expired in use is an error in the log alone: it must not
    /// keep news about authorities and revocations out.
    ///
    /// # Errors
    /// See [`TlsError`]; what was in use stays in use. With [`TlsError::Identity`] that is the own
    /// certificate and key alone.
    pub fn reload(&self) -> Result<(), TlsError> {
        let reloaded = self.load_again();
        match &reloaded {
            Ok(()) => self.lock_report().last_failure = None,
            Err(error) => {
                self.lock_report().last_failure = Some((self.clock.now(), error.to_string()));
                metrics::counter!("sso_tls_reload_failures_total").increment(1);
            }
        }
        self.measure();
        reloaded
    }

    /// Loads the files again, then fetches every list that has a URL, and puts to use what is good.
    ///
    /// # Errors
    /// See [`TlsError`]: the files in use stay in use; lists that came are put to use all the same. A
    /// list that cannot be fetched is no error: it is in the status.
    pub async fn reload_all(&self) -> Result<TlsStatus, TlsError> {
        let _alone = self.whole.lock().await;
        let reloaded = self.reload();
        self.fetch_lists().await;
        self.tell_of(&reloaded);
        reloaded.map(|()| self.status())
    }

    /// What is in use now.
    #[must_use]
    pub fn current(&self) -> Arc<TlsGeneration> {
        self.current.load_full()
    }

    /// The configuration of the calling side in use now.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.current().client()
    }

    /// Judges the chain of the server `name`, its own certificate first, as connections of this program
    /// do now.
    ///
    /// # Errors
    /// Why it is refused, and in words what is wrong with "it", the certificate.
    pub fn judge_server(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), (TlsReason, String)> {
        let now = unix_time(&self.clock)
            .ok_or((TlsReason::Other, "the clock shows a time before 1970".to_owned()))?;
        let judged = self.current().verify_server(chain, name, now);
        judged.map(drop).map_err(|refusal| (refusal.reason, refusal.words))
    }

    pub(crate) fn current_number(&self) -> u64 {
        self.current.load().number()
    }

    /// Says when another generation is in use.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn requires_certificates(&self) -> bool {
        self.shape.client_certificate == ClientCertificate::Required
    }

    pub(crate) fn application(&self) -> Application {
        self.shape.application
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn lock_report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For programs, until `shutdown`: reloads at every SIGHUP and within 5 s of a change of a file,
    /// fetches lists again when they are due, and warns of what ends. What cannot be loaded leaves in
    /// use what was.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        self.watch_with(signal(SignalKind::hangup()).ok(), shutdown).await;
    }

    /// As [`TlsReloader::watch`], without a hand on the signals of the process: for libraries.
    pub async fn watch_without_signals(self: Arc<Self>, shutdown: CancellationToken) {
        self.watch_with(None, shutdown).await;
    }

    async fn watch_with(&self, hangup: Option<Signal>, shutdown: CancellationToken) {
        self.tell_policy();
        self.tell_news();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.watch_files(hangup) => {}
            () = self.watch_lists() => {}
            () = self.watch_ends() => {}
        }
    }

    async fn watch_files(&self, mut hangup: Option<Signal>) {
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let forced = tokio::select! {
                _ = asked => true,
                () = tokio::time::sleep(FILES_POLL) => false,
            };
            if forced || self.is_due() {
                let last = self.lock_report().last_failure.as_ref().map(|(_, words)| words.clone());
                let reloaded = self.reload();
                // A fault that stays is told once.
                let is_old = reloaded.as_ref().err().map(ToString::to_string) == last;
                if forced || reloaded.is_ok() || !is_old {
                    self.tell_of(&reloaded);
                }
            }
            if forced {
                self.fetch_lists().await;
            }
        }
    }

    async fn watch_lists(&self) {
        loop {
            self.fetch(self.sources.due(self.clock.instant())).await;
            tokio::time::sleep(LISTS_POLL).await;
        }
    }

    async fn watch_ends(&self) {
        loop {
            tokio::time::sleep(ENDS_POLL).await;
            self.tell_news();
        }
    }

    fn tell_policy(&self) {
        let ca = self.shape.trust.ca.display();
        if self.shape.trust.crl.is_empty() {
            tracing::warn!(
                %ca,
                "no revocation lists are named (tls.crl): certificates that were revoked are accepted"
            );
        } else if let Some(words) = self.leniency() {
            tracing::warn!(%ca, "{words}");
        }
    }

    /// What the policy lets pass although lists are named.
    pub(super) fn leniency(&self) -> Option<&'static str> {
        match self.shape.policy() {
            RevocationPolicy::HardFail => None,
            RevocationPolicy::Off if self.shape.trust.crl.is_empty() => None,
            RevocationPolicy::Off => Some(
                "tls.revocation = \"off\": the revocation lists are not looked at, certificates that \
                 were revoked are accepted",
            ),
            RevocationPolicy::SoftFail => Some(
                "tls.revocation = \"soft-fail\": where no revocation list tells, certificates that were \
                 revoked are accepted",
            ),
        }
    }

    fn tell_of(&self, reloaded: &Result<(), TlsError>) {
        self.notices.give(&match reloaded {
            Ok(()) => TlsNotice::Reloaded { generation: self.current_number() },
            Err(error) => TlsNotice::NotReloaded { error: error.to_string() },
        });
        self.tell_news();
    }

    /// Whether the files have to be loaded again.
    fn is_due(&self) -> bool {
        let attempt = self.lock_attempt();
        let is_over = |failed: Duration| self.clock.instant().saturating_sub(failed) >= RETRY;
        attempt.seen != stamps(&self.shape) || attempt.failed.is_some_and(is_over)
    }

    fn lock_attempt(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_again(&self) -> Result<(), TlsError> {
        let mut attempt = self.lock_attempt();
        attempt.seen = stamps(&self.shape);
        attempt.failed = Some(self.clock.instant());
        let current = self.current();
        let (material, problem) = current.material.load_again(&self.shape, &self.clock)?;
        if let Some(problem) = problem {
            if material.trusts_as(&current.material) {
                return Err(problem);
            }
            self.put_to_use(Arc::new(material))?;
            return Err(TlsError::Identity(Box::new(problem)));
        }
        self.put_to_use(Arc::new(material))?;
        attempt.failed = None;
        Ok(())
    }

    /// Only for who holds the lock of `attempt`.
    fn put_to_use(&self, material: Arc<Material>) -> Result<(), TlsError> {
        let number = self.current_number() + 1;
        let with = Surroundings {
            shape: &self.shape,
            clock: &self.clock,
            sources: &self.sources,
            notices: &self.notices,
        };
        let next = TlsGeneration::build(number, material, &with)?;
        self.current.store(Arc::new(next));
        self.changes.send_replace(number);
        Ok(())
    }

    async fn fetch(&self, urls: Vec<String>) {
        if urls.is_empty() {
            return;
        }
        let client = self.fetching().and_then(client);
        let current = self.current();
        let fetched = join_all(urls.iter().map(async |url| match &client {
            Ok(client) => {
                let content = fetch(client, url).await?;
                parse(url, content, Arc::clone(&current.material)).await
            }
            Err(problem) => Err(problem.clone()),
        }))
        .await;
        let mut has_changed = false;
        for (url, came) in urls.iter().zip(fetched) {
            let time = (self.clock.now(), self.clock.instant());
            has_changed |= self.sources.take(url, came, current.material.signers(), time);
        }
        if has_changed {
            let _work = self.lock_attempt();
            let material = Arc::clone(&self.current().material);
            if let Err(error) = self.put_to_use(material) {
                tracing::error!(%error, "the fetched revocation lists cannot be put to use");
            }
        }
        self.tell_news();
    }

    /// How lists are fetched: from servers of the same authorities. Who could check whether those are
    /// revoked, as long as there are no lists?
    fn fetching(&self) -> Result<ClientConfig, String> {
        let time = Arc::new(VerifierTime(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(provider(), time)
            .with_protocol_versions(&self.shape.trust.minimum_version.allowed())
            .map_err(|error| error.to_string())?;
        let roots = self.current().material.roots();
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The lists in what a distribution point answered, and whether the authorities known here signed them.
async fn parse(
    url: &str,
    content: Vec<u8>,
    material: Arc<Material>,
) -> Result<Vec<Arc<RevocationList>>, String> {
    let source = ListSource::Url(url.to_owned());
    let is_large = content.len() > LARGE;
    let work = move || {
        let lists =
            parse_lists(&source, &content, ANSWERED_MAX).map_err(|ListProblem(problem)| problem)?;
        for list in &lists {
            // Remembered by the list.
            material.signers().disown(list);
        }
        Ok(lists)
    };
    if !is_large {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("cannot be read".to_owned()))
}

fn stamps(shape: &Shape) -> Stamps {
    let stamp = |path: &PathBuf| {
        let file = fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
    };
    shape.files().map(stamp).collect()
}
