//! `sso.v1.MasterSecret`: hands the key ring to the SSO servers of the settings and the keystore to
//! the other masters, and tells them that this master lives.

use std::sync::Arc;

use sso_core::{acceptor::Peer, peer::PeerCertificate, transit};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        FetchRequest, FetchResponse, Heartbeat, ReplicateRequest, ReplicateResponse, ReportRequest,
        ReportResponse, WatchRequest, master_secret_server::MasterSecret,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};
use uuid::Uuid;

use crate::{
    custody::Unlocked,
    house::House,
    roster::{Kind, Report},
    settings::first_match,
    transfer::{seal_keystore, seal_ring},
};

/// How far above what is known here an epoch or a generation may be.
const AHEAD_MAX: u64 = 1000;

/// The service. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Distribution(pub Arc<House>);

/// A server or master that may call, for one call.
struct Admitted {
    kind: Kind,
    name: String,
    /// Of the certificate.
    fingerprint: String,
    peer: Peer,
}

#[tonic::async_trait]
impl MasterSecret for Distribution {
    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let (admitted, unlocked) = self.admit(&request, Kind::Server, "Fetch")?;
        let ring = unlocked.handed_out().map_err(internal)?;
        let sealed = seal_ring(&ring, &request.get_ref().recipient_key, transit::FETCH)
            .inspect_err(|refusal| refused(&admitted, refusal))?;
        tracing::info!(
            event = Event::MasterSecretGranted.number(),
            server = admitted.name,
            addr = %admitted.peer.addr,
            certificate = admitted.fingerprint,
            active = ring.active().number(),
            change = unlocked.change,
            "master secret handed out"
        );
        metrics::counter!("sso_master_fetches_total", "result" => "granted").increment(1);
        Ok(Response::new(FetchResponse { sealed, state: Some(self.0.heartbeat(&unlocked)) }))
    }

    type WatchStream = ReceiverStream<Result<Heartbeat, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (admitted, _) = self.admit(&request, None, "Watch")?;
        let instance = instance(&request.get_ref().instance)?;
        let (beats, stream) = mpsc::channel(1);
        tokio::spawn(beat(Arc::clone(&self.0), admitted, instance, beats));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let (admitted, unlocked) = self.admit(&request, None, "Report")?;
        let (instance, report) = Report::parse(request.into_inner())?;
        require_credible(&unlocked, &report).inspect_err(|refusal| refused(&admitted, refusal))?;
        self.0.hear(admitted.kind, report.epoch, report.primary, &admitted.name);
        self.0.roster.report(admitted.kind, &admitted.name, instance, report);
        // What it says may have changed how this master stands.
        let state = self.0.heartbeat(&self.0.current());
        Ok(Response::new(ReportResponse { state: Some(state) }))
    }

    async fn replicate(
        &self,
        request: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        let (admitted, unlocked) = self.admit(&request, Kind::Master, "Replicate")?;
        let sealed = seal_keystore(&unlocked, &request.get_ref().recipient_key)
            .inspect_err(|refusal| refused(&admitted, refusal))?;
        tracing::info!(
            event = Event::MasterSecretGranted.number(),
            master = admitted.name,
            addr = %admitted.peer.addr,
            certificate = admitted.fingerprint,
            change = unlocked.change,
            "keystore handed to another master"
        );
        Ok(Response::new(ReplicateResponse { sealed, state: Some(self.0.heartbeat(&unlocked)) }))
    }
}

impl Distribution {
    /// Who calls, if the settings name it for this, and the keystore at this moment.
    fn admit<T>(
        &self,
        request: &Request<T>,
        wanted: impl Into<Option<Kind>>,
        method: &'static str,
    ) -> Result<(Admitted, Arc<Unlocked>), Refusal> {
        let (peer, certificate) = caller(request.extensions())?;
        let wanted = wanted.into();
        let named = named(&self.0, certificate);
        let Some((kind, name)) = named.filter(|it| wanted.is_none_or(|wanted| it.0 == wanted))
        else {
            return Err(not_listed(peer, certificate, wanted, method));
        };
        let fingerprint = certificate.thumbprint_sha256.clone();
        let name = name.to_owned();
        let admitted = Admitted { kind, name, fingerprint, peer: peer.clone() };
        let unlocked = self.0.current();
        require_not_revoked(&admitted, &unlocked)?;
        Ok((admitted, unlocked))
    }
}

/// Epochs and generations are counted one by one: nobody knows of one far above, and to believe in it would
/// use up the numbers for ever.
fn require_credible(unlocked: &Unlocked, report: &Report) -> Result<(), Refusal> {
    let newest = unlocked.generations.last().map_or(0, |entry| entry.generation.number());
    let reported = report.generations.iter().map(|it| it.generation).max().unwrap_or(0);
    let (what, told, known) = if report.epoch > unlocked.epoch.saturating_add(AHEAD_MAX) {
        ("epoch", report.epoch, unlocked.epoch)
    } else if u64::from(reported) > u64::from(newest).saturating_add(AHEAD_MAX) {
        ("generation", reported.into(), newest.into())
    } else {
        return Ok(());
    };
    let message = format!(
        "a report of {what} {told} is not believed where {known} is the highest known: look at that \
         server and its database"
    );
    Err(Refusal::new(Reason::InvalidRequest, message))
}

/// Whether the settings name the caller at all, by the head of a request.
///
/// # Errors
/// `SERVER_NOT_LISTED`; `NOT_AUTHENTICATED` without a certificate.
pub fn admit(house: &House, extensions: &Extensions) -> Result<(), Refusal> {
    let (peer, certificate) = caller(extensions)?;
    match named(house, certificate) {
        Some(_) => Ok(()),
        None => Err(not_listed(peer, certificate, None, "distribution")),
    }
}

fn caller(extensions: &Extensions) -> Result<(&Peer, &PeerCertificate), Refusal> {
    let needed = || Refusal::new(Reason::NotAuthenticated, "a client certificate is needed");
    let peer = extensions.get::<Peer>().ok_or_else(needed)?;
    Ok((peer, peer.certificate.as_deref().ok_or_else(needed)?))
}

fn not_listed(
    peer: &Peer,
    certificate: &PeerCertificate,
    wanted: Option<Kind>,
    method: &'static str,
) -> Refusal {
    tracing::warn!(
        event = Event::MasterSecretRefused.number(),
        method,
        addr = %peer.addr,
        certificate = certificate.thumbprint_sha256,
        uris = ?certificate.uris,
        subject = ?certificate.subject_common_name,
        "the settings name nobody with this certificate who may do that"
    );
    metrics::counter!("sso_master_fetches_total", "result" => "refused").increment(1);
    let message = match wanted {
        Some(Kind::Master) => {
            "the settings of the master secret server name no other master with this certificate: \
             add a [[peer]] there"
        }
        Some(Kind::Server) | None => {
            "the settings of the master secret server name no SSO server with this certificate: \
             add a [[server]] there"
        }
    };
    Refusal::new(Reason::ServerNotListed, message)
}

/// The first server of the settings that has this certificate, or else the first other master; nobody,
/// when one of the rules before cannot say whose it is.
fn named<'h>(house: &'h House, certificate: &PeerCertificate) -> Option<(Kind, &'h str)> {
    let servers = house.settings.server.iter();
    let peers = house.settings.peer.iter();
    let listed = servers
        .map(|it| ((Kind::Server, it.name.as_str()), &it.certificate))
        .chain(peers.map(|it| ((Kind::Master, it.name.as_str()), &it.certificate)));
    first_match(listed, certificate)
}

fn require_not_revoked(admitted: &Admitted, unlocked: &Unlocked) -> Result<(), Refusal> {
    if admitted.kind != Kind::Server || !unlocked.revocations.is_revoked(&admitted.name) {
        return Ok(());
    }
    tracing::warn!(
        event = Event::MasterSecretRefused.number(),
        server = admitted.name,
        addr = %admitted.peer.addr,
        "its right to the master secret was revoked"
    );
    let message = format!(
        "the right of {} to the master secret was revoked: `sso server readmit {}` gives it back",
        admitted.name, admitted.name
    );
    Err(Refusal::new(Reason::ServerRevoked, message))
}

fn refused(admitted: &Admitted, refusal: &Refusal) {
    tracing::warn!(event = Event::MasterSecretRefused.number(), caller = admitted.name, error = %refusal, "refused");
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Internal, error.to_string())
}

/// Servers of an earlier version do not say which process they are.
fn instance(text: &str) -> Result<Uuid, Refusal> {
    if text.is_empty() {
        return Ok(Uuid::nil());
    }
    Uuid::try_parse(text).map_err(|_| Refusal::new(Reason::InvalidRequest, "instance is no UUID"))
}

/// Sends a heartbeat now, at every interval and at every change, while the peer is trusted.
async fn beat(
    house: Arc<House>,
    admitted: Admitted,
    instance: Uuid,
    beats: mpsc::Sender<Result<Heartbeat, Status>>,
) {
    let name = admitted.name.clone();
    tracing::info!(caller = name, addr = %admitted.peer.addr, "watching");
    let _watching = Watching::begin();
    let _listed = house.roster.watch(admitted.kind, &admitted.name, instance);
    let mut keystore = house.custody.subscribe();
    let mut closing = house.closing.subscribe();
    loop {
        let unlocked = Arc::clone(&keystore.borrow_and_update());
        closing.mark_unchanged();
        if let Err(refusal) = may_stay(&house, &admitted, &unlocked) {
            let _ = beats.send(Err(refusal.into_status())).await;
            return;
        }
        let sent = tokio::select! {
            sent = beats.send(Ok(house.heartbeat(&unlocked))) => sent.is_ok(),
            () = house.draining.cancelled() => false,
        };
        let goes_on = sent
            && tokio::select! {
                () = tokio::time::sleep(house.interval()) => true,
                changed = keystore.changed() => changed.is_ok(),
                changed = closing.changed() => changed.is_ok(),
                () = beats.closed() => false,
                () = house.draining.cancelled() => false,
            };
        if !goes_on {
            tracing::info!(caller = name, addr = %admitted.peer.addr, "no longer watching");
            return;
        }
    }
}

/// Certificates go bad and rights are revoked while a stream is open.
fn may_stay(house: &House, admitted: &Admitted, unlocked: &Unlocked) -> Result<(), Refusal> {
    require_not_revoked(admitted, unlocked)?;
    admitted.peer.still_trusted(&house.tls).map_err(|reason| {
        tracing::warn!(
            event = Event::MasterSecretRefused.number(),
            server = admitted.name,
            reason,
            "no longer trusted"
        );
        Refusal::new(Reason::CertificateRefused, reason)
    })
}

/// Counts a watcher while it lives.
struct Watching;

impl Watching {
    fn begin() -> Self {
        metrics::gauge!("sso_master_watchers").increment(1);
        Self
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        metrics::gauge!("sso_master_watchers").decrement(1);
    }
}
