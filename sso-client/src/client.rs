//! The connection: one channel, deadlines, retries of reads.

use std::{future::Future, sync::Arc, time::Duration};

use sso_core::connector::{ClientTls, ConnectOptions, connect_channel};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{Applications, Audit, ClientError, ConfigStore, Profile, RetryPolicy, System, retry};

/// How long a call may take when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection to the service. Cheap to clone; clones share one connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    addr: Arc<str>,
    deadline: Duration,
    retry: RetryPolicy,
}

impl Client {
    /// A client for the server of the profile. Loads the certificate files; the first call opens
    /// the connection, and a lost one is opened again by the next call. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Settings`] when the address or a file of the profile is not usable, also when
    /// others than its owner may read the key file.
    pub fn connect(profile: &Profile) -> Result<Self, ClientError> {
        let tls = ClientTls::load(&profile.tls())?;
        let channel = connect_channel(&profile.addr, tls, ConnectOptions::default())?;
        Ok(Self {
            channel,
            addr: profile.addr.as_str().into(),
            deadline: DEADLINE,
            retry: RetryPolicy::default(),
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

    /// The system as a whole and its servers.
    #[must_use]
    pub fn system(&self) -> System {
        System::new(self.clone())
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

    /// Sends a read, and sends it again when the connection failed before an answer came.
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
        let mut attempt = 0;
        loop {
            let request = self.request(message.clone(), until);
            let call = call(self.channel.clone(), request);
            let status = match self.wait(until, call, false).await? {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match self.retry.pause(attempt) {
                Some(pause)
                    if retry::is_connection_failure(&status) && Instant::now() + pause < until =>
                {
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
        let request = self.request(message, until);
        self.wait(until, call(self.channel.clone(), request), true)
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
        let opening = call(self.channel.clone(), Request::new(message));
        match timeout_at(until, opening).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// The error of a call that changes nothing.
    pub(crate) fn error(&self, status: &Status) -> ClientError {
        ClientError::from_status(status, &self.addr, false)
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    fn request<Q>(&self, message: Q, until: Instant) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        request
    }

    /// Waits for the answer no longer than the deadline, however long connecting takes.
    async fn wait<A>(
        &self,
        until: Instant,
        call: impl Future<Output = Result<Response<A>, Status>>,
        change: bool,
    ) -> Result<Result<A, Status>, ClientError> {
        match timeout_at(until, call).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(ClientError::Unreachable {
                addr: self.addr.to_string(),
                reason: format!("no answer within {:?}", self.deadline),
                trust: false,
                outcome_unknown: change,
            }),
        }
    }
}
