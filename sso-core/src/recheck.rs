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
use rustls::pki_types::{CertificateDer, UnixTime};
use tonic::Status;
use tower::{Layer, Service};

use crate::{
    acceptor::Peer,
    quiet::Quiet,
    tls::{TlsGeneration, TlsReason, TlsReloader},
    verifier::{CertificateSummary, Refusal, unix_time},
};

/// A verdict is good for this long; certificates and lists that expire are noticed then.
const RECHECK: Duration = Duration::from_secs(60);
/// After a refusal the connection still carries answers for this long, so that the peer learns why.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Whether the certificates of a connection were good, under which generation and when.
#[derive(Debug)]
pub(crate) struct Verdict(ArcSwap<Judged>);

#[derive(Clone, Debug)]
pub(crate) struct Judged {
    generation: u64,
    at: Duration,
    refused: Option<Refused>,
    /// Whether it has been told that nobody knows whether the peer is revoked.
    is_lenient: bool,
}

#[derive(Clone, Debug)]
struct Refused {
    since: Duration,
    why: Arc<Refusal>,
}

impl Verdict {
    /// Of a peer that has just been let in; `is_lenient`: although nobody knows whether it is revoked.
    pub(crate) fn trusted(generation: u64, at: Duration, is_lenient: bool) -> Self {
        Self(ArcSwap::from_pointee(Judged { generation, at, refused: None, is_lenient }))
    }

    /// The verdict, renewed by `verify` when it is of an older generation or too old; `tell` hears of
    /// the first refusal. That the policy lets the peer pass is told once, too.
    pub(crate) fn judge(
        &self,
        tls: &TlsReloader,
        own: Option<&CertificateDer<'_>>,
        verify: impl FnOnce(&TlsGeneration, UnixTime) -> Result<Option<Refusal>, Refusal>,
        tell: impl FnOnce(&Refusal),
    ) -> Arc<Judged> {
        let last = self.0.load();
        let now = tls.clock().instant();
        if last.generation == tls.current_number() && now.saturating_sub(last.at) < RECHECK {
            return Arc::clone(&last);
        }
        let generation = tls.current();
        let result = match unix_time(tls.clock()) {
            Some(time) => verify(&generation, time),
            None => Err(Refusal::new(TlsReason::Other, "the clock shows a time before 1970")),
        };
        let mut is_lenient = last.is_lenient;
        let refused = match result {
            Ok(None) => None,
            Ok(Some(trouble)) => {
                if let (false, Some(own)) = (is_lenient, own) {
                    generation.tell_of_leniency(own, trouble);
                }
                is_lenient = true;
                None
            }
            Err(why) => {
                let since = last.refused.as_ref().map_or(now, |earlier| earlier.since);
                if last.refused.is_none() {
                    tell(&why);
                }
                Some(Refused { since, why: Arc::new(why) })
            }
        };
        let judged =
            Arc::new(Judged { generation: generation.number(), at: now, refused, is_lenient });
        self.0.store(Arc::clone(&judged));
        judged
    }
}

impl Judged {
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refused.as_ref().map(|refused| refused.why.as_ref())
    }
}

impl Peer {
    /// Whether the certificates of this peer are good under what `tls` has in use now.
    ///
    /// # Errors
    /// The reason, a colon, and what to do: for the peer, so that nothing of this machine is in it. The
    /// log has the rest.
    pub fn still_trusted(&self, tls: &TlsReloader) -> Result<(), String> {
        match self.judge(tls).refusal() {
            None => Ok(()),
            Some(why) => Err(format!("{}: {}", why.reason, why.reason.advice())),
        }
    }

    /// Whether the time for telling the peer about a refusal is over, too.
    pub(crate) fn is_cut_off(&self, tls: &TlsReloader) -> bool {
        self.judge(tls)
            .refused
            .as_ref()
            .is_some_and(|refused| tls.clock().instant().saturating_sub(refused.since) > GRACE)
    }

    pub(crate) fn judge(&self, tls: &TlsReloader) -> Arc<Judged> {
        let verify = |generation: &TlsGeneration, time| {
            // Who shows no certificate proves with every request who they are; nothing goes bad.
            if self.chain.is_empty() && !tls.requires_certificates() {
                return Ok(None);
            }
            generation.verify_client(&self.chain, time)
        };
        self.verdict.judge(tls, self.chain.first(), verify, |why| {
            let certificate = self.chain.first().map(CertificateSummary::of).unwrap_or_default();
            tracing::warn!(
                addr = %self.addr,
                reason = why.reason.as_str(),
                thumbprint = certificate.thumbprint,
                serial = certificate.serial,
                subject = certificate.subject,
                words = why.words,
                "a connected peer is no longer trusted"
            );
        })
    }
}

/// Goes off when the peer of a connection has not been trusted for some time: after every change of
/// files and lists, and at least every minute, it is looked whether it still is. So connections end,
/// too, on which nobody says anything.
pub(crate) struct Tripwire(Quiet);

impl Tripwire {
    /// One that goes off when `is_trusted` says no and says so again after `grace`.
    pub(crate) fn new(
        tls: Arc<TlsReloader>,
        grace: Duration,
        is_trusted: impl Fn(&TlsReloader) -> bool + Send + 'static,
    ) -> Self {
        Self(Quiet::new(async move {
            let mut changes = tls.changes();
            loop {
                if !is_trusted(&tls) {
                    tokio::time::sleep(grace).await;
                    if !is_trusted(&tls) {
                        return;
                    }
                }
                // An error is not to be had while the reloader is held here.
                let _ = tokio::time::timeout(RECHECK, changes.changed()).await;
            }
        }))
    }

    /// Whether it has gone off. Not to be asked again after that.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context)
    }
}

impl fmt::Debug for Tripwire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tripwire").finish_non_exhaustive()
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
