//! `sso.v1.Secret`: the life of the master secret, for SSO administrators.

mod convert;
pub mod gate;
mod status;
mod tls;
mod work;

use std::{sync::Arc, time::Duration};

use sso_proto::{
    Event, Reason, Refusal,
    v1::{
        BackupRequest, BackupResponse, DestroyRequest, DestroyResponse, GetSecretStatusRequest,
        GetSecretStatusResponse, PrepareRequest, PrepareResponse, PromoteRequest, PromoteResponse,
        ReadmitServerRequest, ReadmitServerResponse, ReloadTlsRequest, ReloadTlsResponse,
        RestoreRequest, RestoreResponse, RetireRequest, RetireResponse, RevokeServerRequest,
        RevokeServerResponse, RotateRequest, RotateResponse, VerifyBackupRequest,
        VerifyBackupResponse, secret_server::Secret,
    },
};
use tonic::{Request, Response, Status};

use self::{
    gate::{Administrator, Attempts},
    work::Desk,
};
use crate::{house::House, roster::Kind, rotation, standby};

/// How long a revocation waits for the streams of the server to end.
const TOLD: Duration = Duration::from_secs(3);

/// The service. A clone shares everything.
#[derive(Clone, Debug)]
pub struct SecretService {
    house: Arc<House>,
    attempts: Arc<Attempts>,
}

impl SecretService {
    /// The service of this house.
    #[must_use]
    pub fn new(house: Arc<House>) -> Self {
        Self { house, attempts: Arc::default() }
    }

    /// Does what an administrator asks for at the desk, and logs who, what and what came of it.
    async fn perform<M: Send + 'static, T: Send + 'static>(
        &self,
        request: Request<M>,
        method: &'static str,
        work: fn(&Desk<'_>, M) -> Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        let (administrator, message) = self.admit(request, method).await?;
        let (attempts, caller) = (Arc::clone(&self.attempts), administrator.clone());
        let at_desk = self.house.at_desk(move |house| {
            work(&Desk { house, administrator: &caller, attempts: &attempts }, message)
        });
        let done = at_desk.await;
        log(&administrator, method, &done);
        Ok(Response::new(done?))
    }

    async fn admit<M>(
        &self,
        request: Request<M>,
        method: &'static str,
    ) -> Result<(Administrator, M), Refusal> {
        let (_, extensions, message) = request.into_parts();
        let administrator = gate::admit(&self.house.settings, &extensions, method)?;
        // A primary of yesterday learns first whether it is one still.
        self.house.asked.cancelled().await;
        Ok((administrator, message))
    }

    /// Names of the other masters that have not heard of the last change soon after it: until they have,
    /// they may hand out keys by what they knew before.
    async fn unaware_masters(&self) -> Vec<String> {
        let unlocked = self.house.current();
        let without = || self.house.roster.masters_without(unlocked.epoch, unlocked.change);
        let mut reports = self.house.roster.subscribe();
        let heard = async {
            while !without().is_empty() {
                if reports.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(TOLD, heard).await;
        without()
    }

    /// Whether every stream of the server ended soon after its revocation.
    async fn told(&self, name: &str) -> bool {
        let mut reports = self.house.roster.subscribe();
        let ended = async {
            while self.house.roster.watches(Kind::Server, name) > 0 {
                if reports.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(TOLD, ended).await.is_ok()
    }
}

fn log<T>(administrator: &Administrator, method: &'static str, done: &Result<T, Refusal>) {
    match done {
        Ok(_) => tracing::info!(%administrator, method, "done"),
        Err(refusal) => {
            let (event, reason) = (refusal.reason.event(), refusal.reason.as_str());
            tracing::warn!(event, %administrator, method, reason, detail = refusal.message, "refused");
        }
    }
    let result = if done.is_ok() { "done" } else { "refused" };
    metrics::counter!("sso_master_administration_total", "method" => method, "result" => result)
        .increment(1);
}

#[tonic::async_trait]
impl Secret for SecretService {
    async fn get_status(
        &self,
        request: Request<GetSecretStatusRequest>,
    ) -> Result<Response<GetSecretStatusResponse>, Status> {
        let (administrator, _) = self.admit(request, "GetStatus").await?;
        let done = Ok(status::of(&self.house));
        log(&administrator, "GetStatus", &done);
        Ok(Response::new(done?))
    }

    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<PrepareResponse>, Status> {
        self.perform(request, "Prepare", work::prepare).await
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BackupResponse>, Status> {
        self.perform(request, "Backup", work::backup).await
    }

    async fn verify_backup(
        &self,
        request: Request<VerifyBackupRequest>,
    ) -> Result<Response<VerifyBackupResponse>, Status> {
        self.perform(request, "VerifyBackup", work::verify).await
    }

    async fn rotate(
        &self,
        request: Request<RotateRequest>,
    ) -> Result<Response<RotateResponse>, Status> {
        self.perform(request, "Rotate", work::rotate).await
    }

    async fn retire(
        &self,
        request: Request<RetireRequest>,
    ) -> Result<Response<RetireResponse>, Status> {
        let (administrator, message) = self.admit(request, "Retire").await?;
        let retired = match convert::generation(message.generation) {
            // Not at the desk: it waits for servers, and the rotation retires what they closed.
            Ok(generation) => rotation::close(&self.house, generation).await,
            Err(refusal) => Err(refusal),
        };
        log(&administrator, "Retire", &retired);
        retired?;
        Ok(Response::new(RetireResponse {}))
    }

    async fn destroy(
        &self,
        request: Request<DestroyRequest>,
    ) -> Result<Response<DestroyResponse>, Status> {
        self.perform(request, "Destroy", work::destroy).await
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<RestoreResponse>, Status> {
        self.perform(request, "Restore", work::restore).await
    }

    async fn promote(
        &self,
        request: Request<PromoteRequest>,
    ) -> Result<Response<PromoteResponse>, Status> {
        let (administrator, message) = self.admit(request, "Promote").await?;
        let promoted = standby::promote(&self.house, message.force).await;
        if let Ok(epoch) = promoted {
            tracing::info!(event = Event::MasterChanged.number(), %administrator, epoch, force = message.force, "this master is the primary from now on");
        }
        log(&administrator, "Promote", &promoted);
        Ok(Response::new(PromoteResponse { epoch: promoted? }))
    }

    async fn revoke_server(
        &self,
        request: Request<RevokeServerRequest>,
    ) -> Result<Response<RevokeServerResponse>, Status> {
        let watched = self.house.roster.watches(Kind::Server, &request.get_ref().name) > 0;
        let name = request.get_ref().name.clone();
        let revoke =
            |desk: &Desk<'_>, message: RevokeServerRequest| work::revoke(desk, &message.name);
        self.perform(request, "RevokeServer", revoke).await?;
        let told = watched && self.told(&name).await;
        if told {
            self.house.roster.note_forgotten(&name);
        }
        let unaware = self.unaware_masters().await;
        let until =
            if told { Some(self.house.clock.now()) } else { self.house.roster.keys_until(&name) };
        Ok(Response::new(RevokeServerResponse {
            told,
            forgotten_by: until.map(convert::timestamp),
            unaware_masters: unaware,
        }))
    }

    async fn readmit_server(
        &self,
        request: Request<ReadmitServerRequest>,
    ) -> Result<Response<ReadmitServerResponse>, Status> {
        self.perform(request, "ReadmitServer", work::readmit).await
    }

    async fn reload_tls(
        &self,
        request: Request<ReloadTlsRequest>,
    ) -> Result<Response<ReloadTlsResponse>, Status> {
        // Other masters need not have been asked before: what is wrong may be the way to them.
        let administrator = gate::admit(&self.house.settings, request.extensions(), "ReloadTls")?;
        let (name, own) = (self.house.settings.name.clone(), &self.house.tls);
        // Not at the desk: it waits for the network, and touches no key of the keystore.
        let done = own.reload_all().await;
        let done = done.map_err(|error| Refusal::new(Reason::TlsNotReloaded, error.to_string()));
        log(&administrator, "ReloadTls", &done);
        let tls = Some(tls::tls(done?, own.warnings()));
        Ok(Response::new(ReloadTlsResponse { name, tls }))
    }
}
