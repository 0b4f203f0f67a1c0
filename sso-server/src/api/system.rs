//! `sso.v1.System`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use sso_proto::{
    Reason,
    v1::{self, system_server::System},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{cut, global_info, missing, timestamp},
    entry::call_of,
    status::{about, status},
    tls::tls,
};
use crate::{
    access::{Action, Call},
    error::Error,
    master::{KnownMaster, MasterState, MasterStatus},
    model::{Accounts, ServerEntry, ServerSettings},
    sealed_rows::CheckProgress,
    system::{GlobalInfoChange, ServerSettingsChange, ServerStatus},
};

#[tonic::async_trait]
impl System for Handlers {
    async fn get_global_info(
        &self,
        request: Request<v1::GetGlobalInfoRequest>,
    ) -> Result<Response<v1::GetGlobalInfoResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::SystemRead, "", async {
            let info = self.house.system.global_info(&call).await?;
            Ok(v1::GetGlobalInfoResponse { global_info: Some(global_info(&info)) })
        })
        .await
    }

    async fn update_global_info(
        &self,
        request: Request<v1::UpdateGlobalInfoRequest>,
    ) -> Result<Response<v1::UpdateGlobalInfoResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::SystemUpdate, "", async {
            let given = message.global_info.unwrap_or_default();
            let paths = message.update_mask.unwrap_or_default().paths;
            let info = self.house.system.update(&call, change(&given, &paths)?).await?;
            Ok(v1::UpdateGlobalInfoResponse { global_info: Some(global_info(&info)) })
        })
        .await
    }

    async fn enable(
        &self,
        request: Request<v1::EnableSystemRequest>,
    ) -> Result<Response<v1::EnableSystemResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::SystemEnable, "", async {
            self.house.system.set_enabled(&call, true).await?;
            Ok(v1::EnableSystemResponse {})
        })
        .await
    }

    async fn disable(
        &self,
        request: Request<v1::DisableSystemRequest>,
    ) -> Result<Response<v1::DisableSystemResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::SystemDisable, "", async {
            self.house.system.set_enabled(&call, false).await?;
            Ok(v1::DisableSystemResponse {})
        })
        .await
    }

    async fn get_server_status(
        &self,
        request: Request<v1::GetServerStatusRequest>,
    ) -> Result<Response<v1::GetServerStatusResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::ServerStatus, "", async {
            Ok(server_status(self.house.system.status(&call)?, &call))
        })
        .await
    }

    async fn list_servers(
        &self,
        request: Request<v1::ListServersRequest>,
    ) -> Result<Response<v1::ListServersResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::ServerList, "", async {
            let servers = self.house.system.servers(&call).await?;
            Ok(v1::ListServersResponse { servers: servers.into_iter().map(server).collect() })
        })
        .await
    }

    async fn get_server_settings(
        &self,
        request: Request<v1::GetServerSettingsRequest>,
    ) -> Result<Response<v1::GetServerSettingsResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ServerSettingsRead, "", async {
            let (server, settings) =
                self.house.system.server_settings(&call, &message.server).await?;
            let settings = Some(server_settings(settings));
            Ok(v1::GetServerSettingsResponse { server, settings })
        })
        .await
    }

    async fn update_server_settings(
        &self,
        request: Request<v1::UpdateServerSettingsRequest>,
    ) -> Result<Response<v1::UpdateServerSettingsResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ServerSettingsUpdate, "", async {
            let given = message.settings.unwrap_or_default();
            let paths = message.update_mask.unwrap_or_default().paths;
            let change = server_settings_change(given, &paths)?;
            let (server, settings) =
                self.house.system.update_server_settings(&call, &message.server, change).await?;
            let settings = Some(server_settings(settings));
            Ok(v1::UpdateServerSettingsResponse { server, settings })
        })
        .await
    }

    async fn begin_sealed_rows_check(
        &self,
        request: Request<v1::BeginSealedRowsCheckRequest>,
    ) -> Result<Response<v1::BeginSealedRowsCheckResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::SecretCheckRows, "", async {
            let (check, recipient_key) = self.house.sealed_rows.begin(&call)?;
            Ok(v1::BeginSealedRowsCheckResponse { check: check.to_string(), recipient_key })
        })
        .await
    }

    async fn reload_tls(
        &self,
        request: Request<v1::ReloadTlsRequest>,
    ) -> Result<Response<v1::ReloadTlsResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::ServerReloadTls, "", async {
            let (name, status, warnings) = self.house.system.reload_tls(&call).await?;
            Ok(v1::ReloadTlsResponse { name: name.to_owned(), tls: Some(tls(status, warnings)) })
        })
        .await
    }

    type CheckSealedRowsStream =
        Pin<Box<dyn Stream<Item = Result<v1::CheckSealedRowsResponse, Status>> + Send + 'static>>;

    async fn check_sealed_rows(
        &self,
        request: Request<v1::CheckSealedRowsRequest>,
    ) -> Result<Response<Self::CheckSealedRowsStream>, Status> {
        let (call, message) = call_of(request)?;
        let checking = self.house.sealed_rows.check(&call, &message.check, &message.sealed);
        let news = self.answer(&call, Action::SecretCheckRows, "", checking).await?;
        let messages = ReceiverStream::new(news)
            .map(move |news| news.map(check_progress).map_err(|error| status(error, &call)));
        let answer: Response<Self::CheckSealedRowsStream> = Response::new(Box::pin(messages));
        Ok(about(answer, Action::SecretCheckRows, ""))
    }
}

fn check_progress(progress: CheckProgress) -> v1::CheckSealedRowsResponse {
    v1::CheckSealedRowsResponse {
        rows_total: progress.total,
        rows_opened: progress.opened,
        rows_failed: progress.failed,
        failed: progress.names,
        done: progress.done,
    }
}

fn server_status(status: ServerStatus, call: &Call) -> v1::GetServerStatusResponse {
    v1::GetServerStatusResponse {
        server: status.server,
        version: status.version,
        started_at: Some(timestamp(status.started_at)),
        database: status.database.to_owned(),
        schema_version: status.schema_version,
        system_enabled: status.enabled,
        master_secret: Some(master_secret(status.master)),
        caller: Some(v1::CallerStatus {
            account: call.caller.account.as_str().to_owned(),
            groups: call.caller.groups.values().cloned().collect(),
            sso_administrator: status.sso_administrator,
            affiliate_administrator: status.affiliate_administrator,
            configuration_reader: status.configuration_reader,
            auditor: status.auditor,
            trusted_host: status.trusted_host,
            source: call.caller.proof.as_str().to_owned(),
        }),
        server_time: Some(timestamp(status.now)),
        settings: Some(server_settings(status.settings)),
        tickets_allowed: status.tickets_allowed,
        host_initiated_allowed: status.host_initiated_allowed,
        tls: Some(tls(status.tls, status.tls_warnings)),
    }
}

fn server_settings(settings: ServerSettings) -> v1::ServerSettings {
    v1::ServerSettings {
        positive_audit_level: settings.positive_audit_level.into(),
        negative_audit_level: settings.negative_audit_level.into(),
        remote_lookup: settings.remote_lookup,
    }
}

fn server_settings_change(
    given: v1::ServerSettings,
    paths: &[String],
) -> Result<ServerSettingsChange, Error> {
    if paths.is_empty() {
        return Err(missing("update_mask"));
    }
    // A level that no byte holds is out of range as well.
    let level = |level: u32| u8::try_from(level).unwrap_or(u8::MAX);
    let mut change = ServerSettingsChange::default();
    for path in paths {
        match path.as_str() {
            "positive_audit_level" => {
                change.positive_audit_level = Some(level(given.positive_audit_level));
            }
            "negative_audit_level" => {
                change.negative_audit_level = Some(level(given.negative_audit_level));
            }
            "remote_lookup" => change.remote_lookup = Some(given.remote_lookup),
            other => {
                let message =
                    format!("the update mask names `{}`, which a server does not have", cut(other));
                return Err(Error::new(Reason::InvalidRequest, message));
            }
        }
    }
    Ok(change)
}

fn server((server, online): (ServerEntry, bool)) -> v1::ServerEntry {
    v1::ServerEntry {
        name: server.name,
        address: server.address,
        version: server.version,
        started_at: Some(timestamp(server.started_at)),
        last_seen_at: Some(timestamp(server.last_seen_at)),
        online,
        master_secret_state: MasterState::parse(&server.master_state)
            .map_or(v1::MasterSecretState::Unspecified, state)
            .into(),
    }
}

fn state(state: MasterState) -> v1::MasterSecretState {
    match state {
        MasterState::Current => v1::MasterSecretState::Current,
        MasterState::ReadOnly => v1::MasterSecretState::ReadOnly,
        MasterState::NeverFetched => v1::MasterSecretState::NeverFetched,
        MasterState::Expired => v1::MasterSecretState::Expired,
        MasterState::Foreign => v1::MasterSecretState::Foreign,
        MasterState::Revoked => v1::MasterSecretState::Revoked,
    }
}

fn master_secret(status: MasterStatus) -> v1::MasterSecretStatus {
    let generation = |(generation, fingerprint): (u32, String)| v1::GenerationStatus {
        generation,
        fingerprint,
        active: Some(generation) == status.active,
    };
    v1::MasterSecretStatus {
        state: state(status.state).into(),
        master: status.master,
        generations: status.generations.into_iter().map(generation).collect(),
        last_confirmed_at: status.last_confirmed_at.map(timestamp),
        read_lease_until: status.read_lease_until.map(timestamp),
        write_lease_until: status.write_lease_until.map(timestamp),
        last_error: status.last_error.unwrap_or_default(),
        masters: status.masters.into_iter().map(known_master).collect(),
        version: status.version,
        epoch: status.epoch,
        from_cache: status.from_cache,
    }
}

fn known_master(known: KnownMaster) -> v1::KnownMaster {
    v1::KnownMaster {
        master: known.master,
        name: known.name,
        reached: known.reached,
        primary: known.primary,
        epoch: known.epoch,
        version: known.version,
        last_error: known.last_error.unwrap_or_default(),
    }
}

fn change(given: &v1::GlobalInfo, paths: &[String]) -> Result<GlobalInfoChange, Error> {
    if paths.is_empty() {
        return Err(missing("update_mask"));
    }
    let mut change = GlobalInfoChange::default();
    for path in paths {
        match path.as_str() {
            "sso_administrators" => {
                change.sso_administrators = Some(Accounts::parse(&given.sso_administrators)?);
            }
            "affiliate_administrators" => {
                change.affiliate_administrators =
                    Some(Accounts::parse(&given.affiliate_administrators)?);
            }
            "audit_deleted_applications" => {
                change.audit_deleted_applications = Some(given.audit_deleted_applications);
            }
            "audit_deleted_mappings" => {
                change.audit_deleted_mappings = Some(given.audit_deleted_mappings);
            }
            "audit_credential_lookups" => {
                change.audit_credential_lookups = Some(given.audit_credential_lookups);
            }
            "ticket_timeout" => change.ticket_timeout = Some(given.ticket_timeout),
            "credential_cache_timeout" => {
                change.credential_cache_timeout = Some(given.credential_cache_timeout);
            }
            "tickets_allowed" => change.tickets_allowed = Some(given.tickets_allowed),
            "tickets_validated" => change.tickets_validated = Some(given.tickets_validated),
            "host_initiated_allowed" => {
                change.host_initiated_allowed = Some(given.host_initiated_allowed);
            }
            "trusted_hosts" => {
                change.trusted_hosts = Some(Accounts::parse(&given.trusted_hosts)?);
            }
            "configuration_readers" => {
                change.configuration_readers = Some(Accounts::parse(&given.configuration_readers)?);
            }
            "auditors" => change.auditors = Some(Accounts::parse(&given.auditors)?),
            "enabled" => {
                let message = "`enabled` is changed with System.Enable and System.Disable";
                return Err(Error::new(Reason::Immutable, message));
            }
            "secret_server" => {
                let message = "`secret_server` is learnt from the master; point the servers' [master] url elsewhere";
                return Err(Error::new(Reason::Immutable, message));
            }
            other => {
                let message = format!(
                    "the update mask names `{}`, which global info does not have",
                    cut(other)
                );
                return Err(Error::new(Reason::InvalidRequest, message));
            }
        }
    }
    Ok(change)
}
