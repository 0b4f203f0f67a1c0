//! `sso.v1.MasterSecret`: hands the key ring to the SSO servers of the settings, and tells them that
//! this server lives.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use sso_core::{
    acceptor::Peer,
    clock::Clock,
    key_ring::KeyRing,
    peer::{PeerCertificate, RuleMatch},
    tls::TlsReloader,
    transit,
};
use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        FetchRequest, FetchResponse, GenerationKey, Heartbeat, KeyRingTransfer, WatchRequest,
        master_secret_server::MasterSecret,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::settings::ServerEntry;

/// The key ring as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// The id of the keystore.
    pub keystore: Uuid,
    /// Counts the changes of the key ring.
    pub change: u64,
    /// The keys.
    pub ring: KeyRing,
}

/// The service. A clone shares everything.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// What to hand out; a change is told to every watcher at once.
    pub unlocked: watch::Receiver<Arc<Unlocked>>,
    /// Who may have it.
    pub servers: Arc<[ServerEntry]>,
    /// Judges whether a connected server may still be trusted.
    pub tls: Arc<TlsReloader>,
    /// For the time in heartbeats.
    pub clock: Clock,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Ends the streams.
    pub draining: CancellationToken,
}

/// A server that may have the master secret, for one call.
struct Admitted {
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
        let admitted = self.admit(&request, "Fetch")?;
        let unlocked = Arc::clone(&self.unlocked.borrow());
        let sealed =
            seal(&unlocked.ring, &request.get_ref().recipient_key).inspect_err(|refusal| {
                tracing::warn!(event = Event::MasterSecretRefused.number(), server = admitted.name, error = %refusal, "refused");
            })?;
        tracing::info!(
            event = Event::MasterSecretGranted.number(),
            server = admitted.name,
            addr = %admitted.peer.addr,
            certificate = admitted.fingerprint,
            active = unlocked.ring.active().number(),
            change = unlocked.change,
            "master secret handed out"
        );
        metrics::counter!("sso_master_fetches_total", "result" => "granted").increment(1);
        Ok(Response::new(FetchResponse { sealed, state: Some(self.state(&unlocked)) }))
    }

    type WatchStream = ReceiverStream<Result<Heartbeat, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let admitted = self.admit(&request, "Watch")?;
        let (beats, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().beat(admitted, beats));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Distribution {
    /// Who calls, if the settings name it.
    fn admit<T>(&self, request: &Request<T>, method: &'static str) -> Result<Admitted, Refusal> {
        let needed = || Refusal::new(Reason::NotAuthenticated, "a client certificate is needed");
        let peer = request.extensions().get::<Peer>().ok_or_else(needed)?;
        let certificate = peer.certificate.as_deref().ok_or_else(needed)?;
        let server = named(&self.servers, certificate).ok_or_else(|| {
            tracing::warn!(
                event = Event::MasterSecretRefused.number(),
                method,
                addr = %peer.addr,
                certificate = certificate.fingerprint_sha256,
                uris = ?certificate.uris,
                subject = ?certificate.subject_common_name,
                "no [[server]] of the settings has this certificate"
            );
            metrics::counter!("sso_master_fetches_total", "result" => "refused").increment(1);
            let message = "the settings of the master secret server name no SSO server with this \
                           certificate: add a [[server]] there";
            Refusal::new(Reason::ServerNotListed, message)
        })?;
        let fingerprint = certificate.fingerprint_sha256.clone();
        Ok(Admitted { name: server.name.clone(), fingerprint, peer: peer.clone() })
    }

    /// Sends a heartbeat now, at every interval and at every change, while the peer is trusted.
    async fn beat(self, admitted: Admitted, beats: mpsc::Sender<Result<Heartbeat, Status>>) {
        let Admitted { name, peer, .. } = admitted;
        tracing::info!(server = name, addr = %peer.addr, "watching");
        let _watching = Watching::begin();
        let mut unlocked = self.unlocked.clone();
        loop {
            if let Err(reason) = peer.still_trusted(&self.tls) {
                tracing::warn!(
                    event = Event::MasterSecretRefused.number(),
                    server = name,
                    reason,
                    "no longer trusted"
                );
                let refusal = Refusal::new(Reason::CertificateRefused, reason);
                let _ = beats.send(Err(refusal.into_status())).await;
                return;
            }
            let state = self.state(&unlocked.borrow_and_update());
            let sent = tokio::select! {
                sent = beats.send(Ok(state)) => sent.is_ok(),
                () = self.draining.cancelled() => false,
            };
            let goes_on = sent
                && tokio::select! {
                    () = tokio::time::sleep(self.heartbeat) => true,
                    changed = unlocked.changed() => changed.is_ok(),
                    () = beats.closed() => false,
                    () = self.draining.cancelled() => false,
                };
            if !goes_on {
                tracing::info!(server = name, addr = %peer.addr, "no longer watching");
                return;
            }
        }
    }

    fn state(&self, unlocked: &Unlocked) -> Heartbeat {
        let now = self.clock.now().unix_timestamp_nanos() / 1_000_000;
        Heartbeat {
            keystore_id: unlocked.keystore.to_string(),
            version: unlocked.change,
            active_generation: unlocked.ring.active().number(),
            active_fingerprint: unlocked.ring.active_fingerprint().to_string(),
            interval_ms: u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX),
            master_time_ms: i64::try_from(now).unwrap_or_default(),
        }
    }
}

/// The first server of the settings that has this certificate; nobody, when one of the rules before
/// cannot say whose it is.
fn named<'a>(servers: &'a [ServerEntry], certificate: &PeerCertificate) -> Option<&'a ServerEntry> {
    let decided = servers
        .iter()
        .map(|server| (server, server.certificate.matches(certificate)))
        .find(|(_, found)| *found != RuleMatch::No);
    decided.filter(|(_, found)| *found != RuleMatch::Ambiguous).map(|(server, _)| server)
}

/// The whole key ring, sealed to the key pair of the call.
fn seal(ring: &KeyRing, recipient: &[u8]) -> Result<Vec<u8>, Refusal> {
    let keys = ring.generations().filter_map(|(generation, _)| {
        // Expose: into messages that wipe themselves, to be sealed at once.
        let key = ring.key(generation)?.expose().to_vec();
        Some(GenerationKey { generation: generation.number(), key })
    });
    let transfer =
        KeyRingTransfer { generations: keys.collect(), active_generation: ring.active().number() };
    let plaintext = Zeroizing::new(transfer.encode_to_vec());
    transit::seal_to(recipient, transit::FETCH, &plaintext).map_err(|error| {
        let own = error != transit::TransitError::PublicKey;
        let reason = if own { Reason::Internal } else { Reason::InvalidRequest };
        Refusal::new(reason, error.to_string())
    })
}

/// Counts the open watch streams.
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
