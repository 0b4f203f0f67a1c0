//! Connections outlive what made them acceptable: certificates expire, revocation lists and
//! authorities change. Here the peer of a live connection is verified again.

use std::{
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::Either;
use tonic::Status;
use tower::{Layer, Service};

use crate::{acceptor::Peer, tls::TlsReloader, verifier::unix_time};

/// A verdict is good for this long; certificates and lists that expire are noticed then.
const RECHECK: Duration = Duration::from_secs(60);
/// After a refusal the connection still carries answers for this long, so that the peer learns why.
const GRACE: Duration = Duration::from_secs(2);

/// Whether the certificates of a connection were good, under which generation and when.
#[derive(Debug)]
pub(crate) struct Verdict(ArcSwap<Judged>);

#[derive(Clone, Debug)]
struct Judged {
    generation: u64,
    at: Duration,
    refused: Option<Refusal>,
}

#[derive(Clone, Debug)]
struct Refusal {
    since: Duration,
    reason: Arc<str>,
}

impl Verdict {
    pub(crate) fn trusted(generation: u64, at: Duration) -> Self {
        Self(ArcSwap::from_pointee(Judged { generation, at, refused: None }))
    }
}

impl Peer {
    /// Whether the certificates of this peer are good under what `tls` has in use now.
    ///
    /// # Errors
    /// In words: what is wrong with them.
    pub fn still_trusted(&self, tls: &TlsReloader) -> Result<(), String> {
        match &self.judge(tls).refused {
            None => Ok(()),
            Some(refusal) => Err(refusal.reason.to_string()),
        }
    }

    /// Whether the time for telling the peer about a refusal is over, too.
    pub(crate) fn is_cut_off(&self, tls: &TlsReloader) -> bool {
        self.judge(tls)
            .refused
            .as_ref()
            .is_some_and(|refusal| tls.clock().instant().saturating_sub(refusal.since) > GRACE)
    }

    /// The verdict, renewed when it is of an older generation or too old.
    fn judge(&self, tls: &TlsReloader) -> Arc<Judged> {
        let last = self.verdict.0.load();
        // Who shows no certificate proves with every request who they are; nothing here goes bad.
        if self.chain.is_empty() && !tls.requires_certificates() {
            return Arc::clone(&last);
        }
        let now = tls.clock().instant();
        if last.generation == tls.current_number() && now.saturating_sub(last.at) < RECHECK {
            return Arc::clone(&last);
        }
        let generation = tls.current();
        let result = match unix_time(tls.clock()) {
            Some(time) => generation.verify_client(&self.chain, time),
            None => Err(rustls::Error::FailedToGetCurrentTime),
        };
        let refused = result.err().map(|error| {
            let reason: Arc<str> = error.to_string().into();
            let since = last.refused.as_ref().map_or(now, |earlier| earlier.since);
            if last.refused.is_none() {
                tracing::warn!(addr = %self.addr, %reason, "a connected peer is no longer trusted");
            }
            Refusal { since, reason }
        });
        let judged = Arc::new(Judged { generation: generation.number(), at: now, refused });
        self.verdict.0.store(Arc::clone(&judged));
        judged
    }
}

/// Lets a request through only while the certificates of its connection are good: verified again
/// after every change of the TLS files and at least every minute.
#[derive(Clone)]
pub struct RecheckPeerLayer {
    tls: Arc<TlsReloader>,
    refuse: fn(String) -> Status,
}

impl RecheckPeerLayer {
    /// A layer that answers with what `refuse` makes of the reason.
    #[must_use]
    pub fn new(tls: Arc<TlsReloader>, refuse: fn(String) -> Status) -> Self {
        Self { tls, refuse }
    }
}

impl fmt::Debug for RecheckPeerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecheckPeerLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RecheckPeerLayer {
    type Service = RecheckPeer<S>;

    fn layer(&self, inner: S) -> RecheckPeer<S> {
        RecheckPeer { inner, layer: self.clone() }
    }
}

/// A service behind a [`RecheckPeerLayer`].
#[derive(Clone, Debug)]
pub struct RecheckPeer<S> {
    inner: S,
    layer: RecheckPeerLayer,
}

impl<S, B> Service<http::Request<B>> for RecheckPeer<S>
where
    S: Service<http::Request<B>, Response = http::Response<tonic::body::Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let verdict = match request.extensions().get::<Peer>() {
            Some(peer) => peer.still_trusted(&self.layer.tls),
            None => Err("the connection has no verified peer".to_owned()),
        };
        match verdict {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(reason) => {
                let message = format!("the client certificate is no longer valid: {reason}");
                Either::Right(ready(Ok((self.layer.refuse)(message).into_http())))
            }
        }
    }
}
