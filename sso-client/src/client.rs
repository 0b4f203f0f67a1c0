//! The connection: one channel, deadlines, retries of reads.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sso_core::{
    connector::{ClientTls, ConnectOptions, connect_channel, connect_local, local_path},
    settings::secret_file,
    tls::TlsError,
};
use sso_proto::{AT_LEAST_CHANGE_HEADER, CHANGE_HEADER, Reason};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, metadata::AsciiMetadataValue, transport::Channel};
use tonic_types::StatusExt as _;
use zeroize::Zeroizing;

use crate::{
    Access, Applications, Audit, ClientError, ConfigStore, Lookup, Mappings, Principals, Profile,
    RetryPolicy, System, Tickets, secret::Secret,
};

/// How long a call may take when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the first calls wait for revocation lists that have a URL; then what is at hand decides.
const LISTS: Duration = Duration::from_secs(5);

/// A connection to the service. Cheap to clone; clones share one connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    /// None at a socket.
    files: Option<Arc<Files>>,
    addr: Arc<str>,
    token_file: Option<Arc<Path>>,
    deadline: Duration,
    retry: RetryPolicy,
    /// The number of the last change known to this client and those it shares this with; 0 before.
    last_change: Arc<AtomicU64>,
}

/// What keeps certificates and revocation lists fresh while a clone of the client lives.
#[derive(Debug)]
struct Files {
    /// Cancelled when every list that has a URL was asked for once.
    fetched: CancellationToken,
    since: Instant,
    _end: DropGuard,
}

impl Files {
    /// Fetches lists, then follows files and lists until the value is dropped.
    fn follow(tls: ClientTls) -> Arc<Self> {
        let (fetched, end) = (CancellationToken::new(), CancellationToken::new());
        let (done, until) = (fetched.clone(), end.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tls.fetch_lists() => done.cancel(),
                () = until.cancelled() => return,
            }
            tls.watch(until).await;
        });
        Arc::new(Self { fetched, since: Instant::now(), _end: end.drop_guard() })
    }

    async fn ready(&self) {
        let _ = timeout_at(self.since + LISTS, self.fetched.cancelled()).await;
    }
}

impl Client {
    /// A client for the server of the profile. Loads the certificate files; the first call opens
    /// the connection, and a lost one is opened again by the next call. Files that change, and lists
    /// that have a URL, are loaded again by themselves. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Settings`] when the address or a file of the profile is not usable, also when
    /// others than its owner may read the key file.
    pub fn connect(profile: &Profile) -> Result<Self, ClientError> {
        let options = ConnectOptions::default();
        let (channel, files) = match local_path(&profile.addr) {
            Some(path) => (connect_local(&path, options), None),
            None => {
                let tls = profile.tls()?;
                let channel = connect_channel(&profile.addr, tls.clone(), options)?;
                (channel, Some(Files::follow(tls)))
            }
        };
        Ok(Self {
            channel,
            files,
            token_file: profile.token_file.as_deref().map(Arc::from),
            addr: profile.addr.as_str().into(),
            deadline: DEADLINE,
            retry: RetryPolicy::default(),
            last_change: Arc::default(),
        })
    }

    /// The same connection with another deadline for each call, retries included (10 s at first).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same connection with another policy for repeating reads.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same connection, for the same changes: what the other client wrote, this one reads, though it may
    /// talk to another server. By itself a client reads only what it wrote itself, on whichever server it
    /// ends up.
    #[must_use]
    pub fn sharing_changes_with(mut self, other: &Self) -> Self {
        other.last_change.fetch_max(self.last_change(), Ordering::Relaxed);
        self.last_change = Arc::clone(&other.last_change);
        self
    }

    /// The number of the last change that this client knows of: of those that it made, and those that it was
    /// told of; 0 before the first one. Whoever is told of it reads what is no older with
    /// [`Self::at_least`].
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.last_change.load(Ordering::Relaxed)
    }

    /// From now on reads of this client and its clones are no older than the change of this number, made by
    /// anybody on any server of the same database.
    #[must_use]
    pub fn at_least(self, change: u64) -> Self {
        self.last_change.fetch_max(change, Ordering::Relaxed);
        self
    }

    /// Applications and their fields.
    #[must_use]
    pub fn applications(&self) -> Applications {
        Applications::new(self.clone())
    }

    /// Configurations of config-store applications.
    #[must_use]
    pub fn config_store(&self) -> ConfigStore {
        ConfigStore::new(self.clone())
    }

    /// Mappings and the credentials that belong to them.
    #[must_use]
    pub fn mappings(&self) -> Mappings {
        Mappings::new(self.clone())
    }

    /// Look-ups of credentials and of external users.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        Lookup::new(self.clone())
    }

    /// Tickets: issue, redeem, inspect.
    #[must_use]
    pub fn tickets(&self) -> Tickets {
        Tickets::new(self.clone())
    }

    /// Why something is allowed or denied.
    #[must_use]
    pub fn access(&self) -> Access {
        Access::new(self.clone())
    }

    /// The system as a whole and its servers.
    #[must_use]
    pub fn system(&self) -> System {
        System::new(self.clone())
    }

    /// The life of the master secret, where the profile is that of a master secret server
    /// ([`Profile::resolve_master`]).
    #[must_use]
    pub fn secret(&self) -> Secret {
        Secret::new(self.clone())
    }

    /// Who had which account name first.
    #[must_use]
    pub fn principals(&self) -> Principals {
        Principals::new(self.clone())
    }

    /// The record of changes and reveals.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::new(self.clone())
    }

    /// The address that is called.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Sends a read, and sends it again when the connection failed before an answer came, or when the
    /// server is busy and says when to come back.
    pub(crate) async fn read<Q, A, F>(
        &self,
        message: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        self.ready(until).await;
        let mut attempt = 0;
        loop {
            let sent = self.last_change();
            let request = self.request(message.clone(), sent, until)?;
            let call = call(self.channel.clone(), request);
            let status = match self.wait(until, call, (sent, false)).await? {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match self.retry.pause_after(&status, attempt) {
                Some(pause) if Instant::now() + pause < until => {
                    sleep(pause).await;
                    attempt += 1;
                }
                _ => return Err(self.error(&status)),
            }
        }
    }

    /// Sends a change, once.
    pub(crate) async fn write<Q, A, F>(
        &self,
        message: Q,
        call: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        self.ready(until).await;
        let sent = self.last_change();
        let request = self.request(message, sent, until)?;
        self.wait(until, call(self.channel.clone(), request), (sent, true))
            .await?
            .map_err(|status| ClientError::from_status(&status, &self.addr, true))
    }

    /// Opens a stream: the deadline holds for its beginning, not for its length.
    pub(crate) async fn open<Q, A, F>(
        &self,
        message: Q,
        call: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        self.ready(until).await;
        let sent = self.last_change();
        let request = self
            .identified(message, sent)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let opening = call(self.channel.clone(), request);
        match timeout_at(until, opening).await {
            Ok(answer) => self.noted(answer, sent),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Waits until it is known whom the lists refuse, for some seconds at most.
    async fn ready(&self, until: Instant) {
        if let Some(files) = &self.files {
            let _ = timeout_at(until, files.ready()).await;
        }
    }

    /// The error of a call that changes nothing.
    pub(crate) fn error(&self, status: &Status) -> ClientError {
        ClientError::from_status(status, &self.addr, false)
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    fn request<Q>(
        &self,
        message: Q,
        change: u64,
        until: Instant,
    ) -> Result<Request<Q>, ClientError> {
        let mut request = self.identified(message, change)?;
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        Ok(request)
    }

    /// A request for what is no older than this change, with the token of the moment, where there is one: it
    /// may have been replaced.
    fn identified<Q>(&self, message: Q, change: u64) -> Result<Request<Q>, TlsError> {
        let mut request = Request::new(message);
        if change > 0 {
            request.metadata_mut().insert(AT_LEAST_CHANGE_HEADER, change.into());
        }
        let Some(file) = &self.token_file else { return Ok(request) };
        let token = secret_file(file).map_err(TlsError::Lax)?;
        let unusable = |problem: &str| TlsError::Content {
            path: file.to_path_buf(),
            what: "bearer token",
            problem: problem.to_owned(),
        };
        // Expose: into the header of the one request.
        let text = std::str::from_utf8(token.expose()).map_err(|_| unusable("is no text"))?;
        let header = Zeroizing::new(format!("Bearer {}", text.trim()));
        let mut header = AsciiMetadataValue::try_from(header.as_str())
            .map_err(|_| unusable("has characters that no token has"))?;
        header.set_sensitive(true);
        request.metadata_mut().insert("authorization", header);
        Ok(request)
    }

    /// The answer, whose number is noted. Where the number that was `sent` is gone, as after a restore, one
    /// call is told so, and the next ones take the database as it is.
    fn noted<A>(&self, answer: Result<Response<A>, Status>, sent: u64) -> Result<A, Status> {
        match answer {
            Ok(answer) => {
                let value = answer.metadata().get(CHANGE_HEADER);
                let value = value.and_then(|value| value.to_str().ok());
                if let Some(change) = value.and_then(|text| text.parse().ok()) {
                    self.last_change.fetch_max(change, Ordering::Relaxed);
                }
                Ok(answer.into_inner())
            }
            Err(status) => {
                let info = status.get_details_error_info();
                if info.is_some_and(|info| info.reason == Reason::ChangeNotSeen.as_str()) {
                    // A lower one may have been noted since.
                    let (order, otherwise) = (Ordering::Relaxed, Ordering::Relaxed);
                    let _ = self.last_change.compare_exchange(sent, 0, order, otherwise);
                }
                Err(status)
            }
        }
    }

    /// Waits for the answer no longer than the deadline, however long connecting takes.
    async fn wait<A>(
        &self,
        until: Instant,
        call: impl Future<Output = Result<Response<A>, Status>>,
        (sent, change): (u64, bool),
    ) -> Result<Result<A, Status>, ClientError> {
        match timeout_at(until, call).await {
            Ok(answer) => Ok(self.noted(answer, sent)),
            Err(_) => Err(ClientError::Unreachable {
                addr: self.addr.to_string(),
                reason: format!("no answer within {:?}", self.deadline),
                trust: false,
                outcome_unknown: change,
            }),
        }
    }
}
