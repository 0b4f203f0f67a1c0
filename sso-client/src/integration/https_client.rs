//! The send side: HTTPS with the certificate that the port names.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use reqwest::redirect;
use rustls::client::ResolvesClientCert;
use sso_core::tls::TlsStatus;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Call, CertificateStore, Followed, HttpsError, SendPort, SetupError, Thumbprint,
    diagnosis::diagnose,
    https_error::{deepest, refused, tls_error},
    material::{Material, Wanted},
    store::Stamp,
};

/// How often the store is looked at for a change.
const POLL: Duration = Duration::from_secs(1);
/// Connections are judged when they are made: after this long new calls make new ones, so that what has
/// ended meanwhile, a certificate or a list, is noticed without a change of any file.
const RENEW: Duration = Duration::from_secs(60);
/// How often something that is wrong is tried again although no file has changed.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Connections that nobody uses are closed earlier than servers do it, so that a call does not meet
/// one that is being closed.
const IDLE: Duration = Duration::from_secs(20);
/// Bytes of the largest answer, and of what is kept of one that is no success.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
const FAILURE_MAX: usize = 64 * 1024;

/// HTTPS to the system that a send port names, with the port's client certificate, authorities and
/// revocation lists. Cheap to clone; clones share connections.
///
/// Everything is followed while it is in use: the port in the config store, the files of certificate,
/// key, authorities and lists, and lists at their addresses. What is new is loaded and checked first;
/// then new calls use it on new connections while calls on their way finish on the old ones, so that no
/// call fails for a change. What is not usable is logged, kept out, and tried again. Connections are used
/// for a minute at most, so that a server whose certificate or list has ended is not spoken to for long.
///
/// The certificate that is shown is always the one that the port names. Where its file was replaced by
/// another certificate, the one in memory is shown until the port names the new one, so either may be
/// done first. No proxy, no redirects, no cookies; only HTTP/1.1.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ports: Followed<SendPort>,
    store: CertificateStore,
    route: ArcSwap<Route>,
    problem: Mutex<Option<String>>,
    /// Held by the one change at a time.
    changing: tokio::sync::Mutex<Vec<Stamp>>,
    renew: Duration,
}

/// What calls use that begin now.
#[derive(Debug)]
struct Route {
    port: Arc<SendPort>,
    /// The port and its address, for words.
    at: Arc<str>,
    material: Arc<Material>,
    /// The generation of the material that is in use here.
    generation: u64,
    resolver: Arc<dyn ResolvesClientCert>,
    tls: Arc<rustls::ClientConfig>,
    web: reqwest::Client,
    made: Instant,
}

impl HttpsClient {
    /// Loads what the port names, fetches its lists, and follows both in a task until `shutdown`, or
    /// until the last clone is dropped.
    ///
    /// # Errors
    /// See [`SetupError`]: without a first good state there is nothing to go on with.
    pub async fn open(
        ports: Followed<SendPort>,
        store: CertificateStore,
        shutdown: CancellationToken,
    ) -> Result<Self, SetupError> {
        let stamp = store.stamp();
        let port = ports.current();
        let material = Material::load(Wanted::from(&*port), &store).await?;
        let resolver = material.resolver();
        let route = Route::new(port, material, resolver)?;
        let inner = Arc::new(Inner {
            ports,
            store,
            route: ArcSwap::from_pointee(route),
            problem: Mutex::default(),
            changing: tokio::sync::Mutex::new(stamp),
            renew: RENEW,
        });
        let following = follow(Arc::downgrade(&inner), inner.ports.clone());
        tokio::spawn(shutdown.run_until_cancelled_owned(following));
        Ok(Self { inner })
    }

    /// The port that calls of now use.
    #[must_use]
    pub fn port(&self) -> Arc<SendPort> {
        Arc::clone(&self.inner.route.load().port)
    }

    /// Certificates and lists in use.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        self.inner.route.load().material.tls.status()
    }

    /// What an administrator should look at soon, a sentence each: what ends, what is missing, what was
    /// kept out.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.inner.route.load().material.tls.warnings();
        warnings.extend(self.problem());
        warnings.extend(self.inner.ports.problem());
        warnings
    }

    /// Why something newer is kept out; `None`: what is in use is what the port names.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.inner.problem()
    }

    /// Looks at port, store and lists now instead of at the next occasion, and puts to use what is new.
    /// For a program that wants to do so at a signal: the library leaves signals alone.
    ///
    /// # Errors
    /// See [`SetupError`]; what was in use stays in use.
    pub async fn reload(&self) -> Result<(), SetupError> {
        let mut stamp = self.inner.changing.lock().await;
        *stamp = self.inner.store.stamp();
        let route = self.inner.route.load_full();
        // Not of a file that holds another certificate by now: it may be a new one's turn.
        let reloaded = route.material.tls.reload_all().await;
        let changed = self.inner.change(true).await;
        match (changed, reloaded) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error))
                if Arc::ptr_eq(&self.inner.route.load().material, &route.material) =>
            {
                Err(route.material.wanted.tls_error(error))
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// Makes a call; the answer has a status of success (2xx).
    ///
    /// # Errors
    /// See [`HttpsError`], which says whether trying again helps.
    pub async fn send(&self, call: Call) -> Result<Answer, HttpsError> {
        let route = self.inner.route.load_full();
        if let Some(problem) = call.problem {
            return Err(HttpsError::Call { at: Arc::clone(&route.at), problem });
        }
        let url = format!("{}/{}", route.port.address, call.path.trim_start_matches('/'));
        let request = route.web.request(call.method, url).headers(call.headers).body(call.body);
        match request.send().await {
            Ok(response) => route.answer(response).await,
            Err(error) => Err(route.failure(&error).await),
        }
    }
}

/// Until nobody holds the client any more.
async fn follow(inner: Weak<Inner>, mut ports: Followed<SendPort>) {
    let mut troubled = Duration::ZERO;
    loop {
        let told = tokio::select! {
            _ = ports.changed() => true,
            () = sleep(POLL) => false,
        };
        let Some(inner) = inner.upgrade() else { return };
        troubled = if inner.problem().is_some() { troubled + POLL } else { Duration::ZERO };
        let again = troubled >= TRY_AGAIN;
        if again {
            troubled = Duration::ZERO;
        }
        let mut stamp = inner.changing.lock().await;
        let seen = inner.store.stamp();
        let moved = *stamp != seen;
        *stamp = seen;
        // An error is in the log.
        let _ = inner.change(told || again || moved).await;
    }
}

impl Inner {
    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts to use what has changed since. `look`: port and store may have changed too.
    async fn change(&self, look: bool) -> Result<(), SetupError> {
        let route = self.route.load_full();
        let (next, complaint) = self.next(&route, look).await;
        let next = next.transpose();
        let (next, complaint) = match next {
            Ok(next) => (next, complaint),
            Err(error) => (None, Some(error)),
        };
        if let Some(next) = next {
            if next.generation != route.generation
                || next.port != route.port
                || !Arc::ptr_eq(&next.material, &route.material)
            {
                tracing::info!(
                    at = &*next.at,
                    generation = next.generation,
                    certificate = next.shown(),
                    "new calls use what has changed"
                );
            }
            self.route.store(Arc::new(next));
        }
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if look || complaint.is_some() {
            note(&mut problem, complaint.as_ref());
        }
        complaint.map_or(Ok(()), Err)
    }

    /// What to use from now on, where it is not what is in use; and what is wrong all the same.
    async fn next(
        &self,
        route: &Arc<Route>,
        look: bool,
    ) -> (Option<Result<Route, SetupError>>, Option<SetupError>) {
        let mut port = self.ports.current();
        let wanted = Wanted::from(&*port);
        let mut complaint = None;
        if look && (wanted != route.material.wanted || self.has_moved(route)) {
            match Material::load(wanted.clone(), &self.store).await {
                Ok(material) => {
                    let resolver = material.resolver();
                    return (Some(Route::new(port, material, resolver)), None);
                }
                Err(error) => complaint = Some(error),
            }
        }
        if wanted != route.material.wanted {
            port = Arc::clone(&route.port);
        }
        // Authorities and lists are those of now, whatever has become of certificate and port.
        let material = Arc::clone(&route.material);
        let mut resolver = Arc::clone(&route.resolver);
        let renewed = material.tls.current().number() != route.generation;
        if renewed {
            match material.check_own() {
                Ok(()) => resolver = material.resolver(),
                Err(error) => complaint = complaint.or(Some(error)),
            }
        }
        let due = renewed || *port != *route.port || route.made.elapsed() >= self.renew;
        let next = due.then(|| Route::new(port, material, resolver));
        (next, complaint)
    }

    /// Whether the certificate in use is not where it was.
    fn has_moved(&self, route: &Route) -> bool {
        match &route.material.chosen {
            Some(chosen) => {
                let found = self.store.find(&Thumbprint::of(&chosen.own));
                found.map_or(true, |found| found.certificate != chosen.certificate)
            }
            None => false,
        }
    }
}

/// Tells a problem once.
fn note(problem: &mut Option<String>, error: Option<&SetupError>) {
    let words = error.map(ToString::to_string);
    if let Some(words) = words.as_ref().filter(|words| problem.as_ref() != Some(words)) {
        tracing::error!(error = words, "what was loaded before stays in use");
    }
    *problem = words;
}

impl Route {
    fn new(
        port: Arc<SendPort>,
        material: Arc<Material>,
        resolver: Arc<dyn ResolvesClientCert>,
    ) -> Result<Self, SetupError> {
        let generation = material.tls.current().number();
        let mut tls = (*material.tls.client_config()).clone();
        tls.client_auth_cert_resolver = Arc::clone(&resolver);
        let web = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            .http1_only()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(port.connect_timeout)
            .timeout(port.timeout)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(|error| SetupError::Library {
                port: material.wanted.port.clone(),
                problem: deepest(&error),
            })?;
        let at = format!("{} ({})", material.wanted.port, port.address).into();
        Ok(Self {
            port,
            at,
            material,
            generation,
            resolver,
            tls: Arc::new(tls),
            web,
            made: Instant::now(),
        })
    }

    fn shown(&self) -> &str {
        let chosen = self.material.chosen.as_ref();
        chosen.map_or("none", |chosen| &chosen.own.thumbprint_sha256)
    }

    async fn answer(&self, mut response: reqwest::Response) -> Result<Answer, HttpsError> {
        let status = response.status();
        let mut answer = Answer {
            status: status.as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body: Vec::new(),
            at: Arc::clone(&self.at),
        };
        let most = if status.is_success() { ANSWER_MAX } else { FAILURE_MAX };
        loop {
            match response.chunk().await {
                Ok(Some(part)) if answer.body.len() + part.len() <= most => {
                    answer.body.extend_from_slice(&part);
                }
                Ok(None) => break,
                // The status says enough.
                Ok(Some(_)) | Err(_) if !status.is_success() => break,
                Ok(Some(_)) => {
                    let problem = format!("is larger than {most} bytes");
                    return Err(HttpsError::Answer { at: Arc::clone(&self.at), problem });
                }
                Err(error) => return Err(self.failure(&error).await),
            }
        }
        match status.is_success() {
            true => Ok(answer),
            false => Err(HttpsError::Status { answer: Box::new(answer) }),
        }
    }

    async fn failure(&self, error: &reqwest::Error) -> HttpsError {
        let at = Arc::clone(&self.at);
        if let Some(error) = tls_error(error) {
            return refused(&at, error);
        }
        if error.is_timeout() {
            let connecting = error.is_connect();
            let after = if connecting { self.port.connect_timeout } else { self.port.timeout };
            return HttpsError::Timeout { at, after, connecting };
        }
        if error.is_builder() {
            return HttpsError::Call { at, problem: deepest(error) };
        }
        let words = deepest(error);
        if error.is_connect() {
            return HttpsError::Unreachable { at, words };
        }
        // A server that refuses a certificate closes the connection while it is being written to, which
        // may swallow its reason.
        match diagnose(&self.port, &self.tls).await {
            Some(error) => refused(&at, &error),
            None => HttpsError::Broken { at, words },
        }
    }
}

#[cfg(test)]
mod tests {
    use sso_core::{clock::Clock, tls::TlsVersion};

    use super::{super::RetryPlan, *};
    use crate::certificates::{Authority, Request, Role};

    async fn client(folder: &std::path::Path) -> HttpsClient {
        let now = Clock::System.now();
        let authority = Authority::create("CA", time::Duration::days(30), false, now).unwrap();
        std::fs::write(folder.join("ca.crt"), authority.certificate()).unwrap();
        let request = Request::new("client", Role::Client, time::Duration::days(1));
        authority.issue(&request, now).unwrap().write(folder, "client", false).unwrap();
        let store = CertificateStore::open(folder).unwrap();
        let port = SendPort {
            name: "Bills".into(),
            address: "https://localhost:1".into(),
            certificate: Some(Thumbprint::of(&store.list().unwrap()[0].own)),
            ca: "ca.crt".into(),
            crl: Vec::new(),
            revocation: None,
            list_refresh: None,
            minimum_version: TlsVersion::V1_3,
            application: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retry: RetryPlan::default(),
        };
        HttpsClient::open(Followed::fixed(port), store, CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn connections_are_made_anew_from_time_to_time() {
        let folder = tempfile::tempdir().unwrap();
        let client = client(folder.path()).await;
        let first = client.inner.route.load_full();
        client.inner.change(true).await.unwrap();
        assert!(Arc::ptr_eq(&first, &client.inner.route.load()), "not before their time");

        let HttpsClient { inner } = client;
        // The task that follows holds it for moments only.
        let mut inner = inner;
        let inner = loop {
            match Arc::try_unwrap(inner) {
                Ok(inner) => break inner,
                Err(shared) => inner = shared,
            }
            tokio::task::yield_now().await;
        };
        let inner = Inner { renew: Duration::ZERO, ..inner };
        inner.change(false).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &inner.route.load()));
        assert_eq!(first.generation, inner.route.load().generation);
    }
}
