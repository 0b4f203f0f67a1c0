//! The receive side: HTTPS that takes messages from peers with certificates.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::serve::Listener;
use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    tls::TlsStatus,
};
use tokio::{net::TcpListener, sync::mpsc, time::sleep};
use tokio_stream::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    CertificateStore, Followed, HttpsStream, ReceiveLocation, SetupError,
    material::{Material, Wanted},
    store::Stamp,
};

/// How often the store is looked at for a change, and how often something wrong is tried again.
const POLL: Duration = Duration::from_secs(1);
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Connections that are accepted and not yet served.
const WAITING: usize = 64;

/// Takes messages over HTTPS for a receive location, with the location's certificate, authorities and
/// revocation lists. For [`axum::serve()`]; every request says who sent it by [`HttpsPeer`](super::HttpsPeer).
///
/// Handshakes are bounded in number and in time, and whoever does not get through one harms nobody
/// else. A refusal stands in the log with its reason, and the thumbprint and serial number of the
/// certificate. Neither errors of the system nor what peers send ends the listener.
///
/// Certificate, authorities, lists and the location in the config store are followed while it listens;
/// what is new holds for new connections. Connections go on, unless their peers are no longer to be
/// trusted: these are closed. Where the file of the certificate was replaced by another one, that is
/// shown from then on, and [`ListenerControl::problem`] says so until the location names it. Where the
/// address changes, the old one is given up when the new one works.
/// Only the [`path`](ReceiveLocation::path) is for the router, which does not change by itself.
#[derive(Debug)]
pub struct HttpsListener {
    incoming: mpsc::Receiver<HttpsStream>,
    control: ListenerControl,
    _stop: DropGuard,
}

/// Says how a [`HttpsListener`] is, and has it reload, while `axum` serves it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ListenerControl {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    locations: Followed<ReceiveLocation>,
    store: CertificateStore,
    place: ArcSwap<Place>,
    problem: Mutex<Option<String>>,
    /// Held by the one change at a time.
    changing: tokio::sync::Mutex<Vec<Stamp>>,
    /// The same socket under every place with the same address, so that no connection is lost; `None`
    /// after the end.
    socket: Mutex<Option<Arc<std::net::TcpListener>>>,
    accepted: mpsc::Sender<HttpsStream>,
}

/// Where and how new connections are taken.
#[derive(Debug)]
struct Place {
    location: Arc<ReceiveLocation>,
    material: Arc<Material>,
    addr: SocketAddr,
    /// Ends the taking of connections here, not the connections.
    stop: CancellationToken,
}

impl HttpsListener {
    /// Loads what the location names, fetches its lists, listens, and follows all of it in a task until
    /// `shutdown`, which also ends the taking of connections.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn bind(
        locations: Followed<ReceiveLocation>,
        store: CertificateStore,
        shutdown: CancellationToken,
    ) -> Result<Self, SetupError> {
        let stop = shutdown.child_token();
        let stamp = store.stamp();
        let location = locations.current();
        let material = Material::load(Wanted::from(&*location), &store).await?;
        let socket = Arc::new(listen(&location, &material.wanted).await?);
        let (accepted, incoming) = mpsc::channel(WAITING);
        let place = Place::open(location, material, &socket, &accepted)?;
        let inner = Arc::new(Inner {
            locations,
            store,
            place: ArcSwap::from_pointee(place),
            problem: Mutex::default(),
            changing: tokio::sync::Mutex::new(stamp),
            socket: Mutex::new(Some(socket)),
            accepted,
        });
        let control = ListenerControl { inner };
        tokio::spawn(control.clone().follow(stop.clone()));
        Ok(Self { incoming, control, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.control.inner.place.load().addr
    }

    /// What stays at hand when the listener is given to `axum`.
    #[must_use]
    pub fn control(&self) -> ListenerControl {
        self.control.clone()
    }
}

impl Listener for HttpsListener {
    type Io = HttpsStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (HttpsStream, SocketAddr) {
        match self.incoming.recv().await {
            Some(stream) => {
                let addr = stream.peer().addr();
                (stream, addr)
            }
            // Does not happen: `control` holds a sender.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }
}

impl ListenerControl {
    /// The location that new connections are taken for.
    #[must_use]
    pub fn location(&self) -> Arc<ReceiveLocation> {
        Arc::clone(&self.inner.place.load().location)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.place.load().addr
    }

    /// Certificates and lists in use.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        self.inner.place.load().material.tls.status()
    }

    /// What an administrator should look at soon, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.inner.place.load().material.tls.warnings();
        warnings.extend(self.problem());
        warnings.extend(self.inner.locations.problem());
        warnings
    }

    /// Why something newer is kept out; `None`: what is in use is what the location names.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.inner.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at location, store and lists now instead of at the next occasion, and puts to use what is
    /// new. For a program that wants to do so at a signal: the library leaves signals alone.
    ///
    /// # Errors
    /// See [`SetupError`]; what was in use stays in use.
    pub async fn reload(&self) -> Result<(), SetupError> {
        let mut stamp = self.inner.changing.lock().await;
        *stamp = self.inner.store.stamp();
        let material = Arc::clone(&self.inner.place.load().material);
        let reloaded = material.tls.reload_all().await;
        self.inner.change().await?;
        match reloaded {
            Err(error) if Arc::ptr_eq(&material, &self.inner.place.load().material) => {
                Err(material.wanted.tls_error(error))
            }
            _ => Ok(()),
        }
    }

    /// Until `stop`, and then takes no more connections.
    async fn follow(self, stop: CancellationToken) {
        let mut locations = self.inner.locations.clone();
        let mut troubled = Duration::ZERO;
        loop {
            let mut told = tokio::select! {
                () = stop.cancelled() => break,
                _ = locations.changed() => true,
                () = sleep(POLL) => false,
            };
            troubled = if self.problem().is_some() { troubled + POLL } else { Duration::ZERO };
            if troubled >= TRY_AGAIN {
                (told, troubled) = (true, Duration::ZERO);
            }
            let mut stamp = self.inner.changing.lock().await;
            let seen = self.inner.store.stamp();
            if told || *stamp != seen {
                *stamp = seen;
                // An error is in the log.
                let _ = self.inner.change().await;
            }
        }
        let _held = self.inner.changing.lock().await;
        *self.inner.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.inner.place.load().stop.cancel();
    }
}

impl Inner {
    /// Puts to use what has changed since.
    async fn change(&self) -> Result<(), SetupError> {
        let result = self.next().await;
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let words = result.as_ref().err().map(ToString::to_string);
        if let Some(words) = words.as_ref().filter(|words| problem.as_ref() != Some(words)) {
            tracing::error!(error = words, "what was loaded before stays in use");
        }
        *problem = words;
        match result? {
            Some(place) => {
                tracing::info!(
                    location = place.location.name,
                    addr = %place.addr,
                    "new connections use what has changed"
                );
                self.place.swap(Arc::new(place)).stop.cancel();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What to use from now on; `None`: what is in use.
    async fn next(&self) -> Result<Option<Place>, SetupError> {
        let place = self.place.load_full();
        let location = self.locations.current();
        let wanted = Wanted::from(&*location);
        if *location == *place.location && !self.has_moved(&place) {
            return place.material.check_own().map(|()| None);
        }
        let material = match wanted == place.material.wanted && !self.has_moved(&place) {
            true => Arc::clone(&place.material),
            false => Material::load(wanted.clone(), &self.store).await?,
        };
        let Some(mut socket) = self.socket() else { return Ok(None) };
        if location.listen != place.location.listen {
            socket = Arc::new(listen(&location, &wanted).await?);
        }
        let next = Place::open(location, material, &socket, &self.accepted)?;
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        Ok(Some(next))
    }

    fn socket(&self) -> Option<Arc<std::net::TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the certificate in use is not where it was.
    fn has_moved(&self, place: &Place) -> bool {
        let chosen = place.material.chosen.as_ref();
        let found = self.store.find(&place.location.certificate);
        match (found, chosen) {
            (Ok(found), Some(chosen)) => found.certificate != chosen.certificate,
            _ => true,
        }
    }
}

impl Place {
    fn open(
        location: Arc<ReceiveLocation>,
        material: Arc<Material>,
        socket: &std::net::TcpListener,
        accepted: &mpsc::Sender<HttpsStream>,
    ) -> Result<Self, SetupError> {
        let failed = |source| SetupError::Listen {
            port: material.wanted.port.clone(),
            address: location.listen,
            source,
        };
        let addr = socket.local_addr().map_err(failed)?;
        let listener = socket.try_clone().and_then(TcpListener::from_std).map_err(failed)?;
        let limits = AcceptLimits {
            handshake_timeout: location.handshake_timeout,
            ..AcceptLimits::default()
        };
        let stop = CancellationToken::new();
        let tls = Arc::clone(&material.tls);
        let mut incoming = mtls_incoming(listener, tls, limits, stop.clone());
        let (accepted, kept, idle) =
            (accepted.clone(), Arc::clone(&material), location.idle_timeout);
        // Goes on with handshakes that were begun before the end.
        tokio::spawn(async move {
            while let Some(connection) = incoming.next().await {
                let Ok(connection) = connection else { continue };
                let stream = HttpsStream::new(connection, Arc::clone(&kept), idle);
                if accepted.send(stream).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { location, material, addr, stop })
    }
}

async fn listen(
    location: &ReceiveLocation,
    wanted: &Wanted,
) -> Result<std::net::TcpListener, SetupError> {
    let bound = TcpListener::bind(location.listen).await.and_then(TcpListener::into_std);
    bound.map_err(|source| SetupError::Listen {
        port: wanted.port.clone(),
        address: location.listen,
        source,
    })
}
