//! `sso.v1.MasterSecret`: hands the key ring to the SSO servers of the settings and the keystore to
//! the other masters, and tells them that this master lives.

use std::sync::Arc;

use prost::Message as _;
use sso_core::{
    acceptor::Peer,
    key_ring::KeyRing,
    peer::{CertificateRule, PeerCertificate, RuleMatch},
    transit,
};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        FetchRequest, FetchResponse, GenerationKey, Heartbeat, KeyRingTransfer, KeystoreTransfer,
        ReplicateRequest, ReplicateResponse, ReportRequest, ReportResponse, WatchRequest,
        master_secret_server::MasterSecret,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    custody::Unlocked,
    house::House,
    roster::{Kind, Report},
};

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
        let (admitted, _) = self.admit(&request, None, "Report")?;
        let (instance, report) = Report::parse(request.into_inner())?;
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
        let needed = || Refusal::new(Reason::NotAuthenticated, "a client certificate is needed");
        let peer = request.extensions().get::<Peer>().ok_or_else(needed)?;
        let certificate = peer.certificate.as_deref().ok_or_else(needed)?;
        let wanted = wanted.into();
        let named = named(&self.0, certificate);
        let Some((kind, name)) = named.filter(|it| wanted.is_none_or(|wanted| it.0 == wanted))
        else {
            return Err(not_listed(peer, certificate, wanted, method));
        };
        let fingerprint = certificate.fingerprint_sha256.clone();
        let name = name.to_owned();
        let admitted = Admitted { kind, name, fingerprint, peer: peer.clone() };
        let unlocked = self.0.current();
        require_not_revoked(&admitted, &unlocked)?;
        Ok((admitted, unlocked))
    }
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
        certificate = certificate.fingerprint_sha256,
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

/// What stands beside the first rule that the certificate fits; `None` when that rule, or one before,
/// cannot say whose it is.
pub(crate) fn first_match<'r, T>(
    rules: impl Iterator<Item = (T, &'r CertificateRule)>,
    certificate: &PeerCertificate,
) -> Option<T> {
    let mut decided = rules.map(|(what, rule)| (what, rule.matches(certificate)));
    let decided = decided.find(|(_, found)| *found != RuleMatch::No);
    decided.filter(|(_, found)| *found != RuleMatch::Ambiguous).map(|(what, _)| what)
}

fn require_not_revoked(admitted: &Admitted, unlocked: &Unlocked) -> Result<(), Refusal> {
    if admitted.kind != Kind::Server || !unlocked.revoked_servers.contains(&admitted.name) {
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
    let event = Event::MasterSecretRefused.number();
    tracing::warn!(event, caller = admitted.name, error = %refusal, "refused");
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

/// The keys, sealed to `recipient_key` for `context`. Every copy outside of locked memory is wiped.
///
/// # Errors
/// When the recipient's key is none.
pub(crate) fn seal_ring(
    ring: &KeyRing,
    recipient_key: &[u8],
    context: &[&[u8]],
) -> Result<Vec<u8>, Refusal> {
    let transfer =
        KeyRingTransfer { generations: keys(ring), active_generation: ring.active().number() };
    // Long enough from the start: a buffer that grows would leave copies behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(transfer.encoded_len()));
    transfer.encode(&mut *plaintext).map_err(internal)?;
    seal_to(recipient_key, context, &plaintext)
}

/// The whole keystore without its wrappings, sealed to `recipient_key`.
fn seal_keystore(unlocked: &Unlocked, recipient_key: &[u8]) -> Result<Vec<u8>, Refusal> {
    let transfer = KeystoreTransfer { header: unlocked.header.clone(), keys: keys(&unlocked.ring) };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(transfer.encoded_len()));
    transfer.encode(&mut *plaintext).map_err(internal)?;
    seal_to(recipient_key, transit::REPLICATE, &plaintext)
}

fn seal_to(recipient_key: &[u8], context: &[&[u8]], plaintext: &[u8]) -> Result<Vec<u8>, Refusal> {
    transit::seal_to(recipient_key, context, plaintext).map_err(|error| {
        let own = error != transit::TransitError::PublicKey;
        let reason = if own { Reason::Internal } else { Reason::InvalidRequest };
        Refusal::new(reason, error.to_string())
    })
}

/// Each of them wipes itself when it is dropped.
fn keys(ring: &KeyRing) -> Vec<GenerationKey> {
    ring.generations()
        .filter_map(|(generation, _)| Some((generation, ring.key(generation)?)))
        .map(|(generation, key)| GenerationKey {
            generation: generation.number(),
            // Expose: into the message that is sealed to the recipient.
            key: key.expose().to_vec(),
        })
        .collect()
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
