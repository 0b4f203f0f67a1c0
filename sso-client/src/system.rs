//! The system as a whole: thin and typed over `sso.v1.System`.

use prost_types::FieldMask;
use sso_proto::v1::{
    BeginSealedRowsCheckRequest, BeginSealedRowsCheckResponse, CheckSealedRowsRequest,
    CheckSealedRowsResponse, DisableSystemRequest, EnableSystemRequest, GetGlobalInfoRequest,
    GetServerSettingsRequest, GetServerStatusRequest, GetServerStatusResponse, GlobalInfo,
    ListServersRequest, ReloadTlsRequest, ReloadTlsResponse, ServerEntry, ServerSettings,
    UpdateGlobalInfoRequest, UpdateServerSettingsRequest, system_client::SystemClient,
};

use crate::{Client, ClientError};

/// Global information, the switch of the whole system, its servers.
#[derive(Clone, Debug)]
pub struct System {
    client: Client,
}

impl System {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The state of the server that answers, its keys, and who the caller is to it.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn status(&self) -> Result<GetServerStatusResponse, ClientError> {
        self.client
            .read(GetServerStatusRequest {}, |channel, request| async move {
                SystemClient::new(channel).get_server_status(request).await
            })
            .await
    }

    /// The servers that share the database.
    pub async fn servers(&self) -> Result<Vec<ServerEntry>, ClientError> {
        let answer = self
            .client
            .read(ListServersRequest {}, |channel, request| async move {
                SystemClient::new(channel).list_servers(request).await
            })
            .await?;
        Ok(answer.servers)
    }

    /// The global information.
    pub async fn info(&self) -> Result<GlobalInfo, ClientError> {
        let answer = self
            .client
            .read(GetGlobalInfoRequest {}, |channel, request| async move {
                SystemClient::new(channel).get_global_info(request).await
            })
            .await?;
        answer.global_info.ok_or_else(|| ClientError::incomplete("global_info"))
    }

    /// Changes the parts of the global information named by `paths` (names of its fields).
    pub async fn update(
        &self,
        info: GlobalInfo,
        paths: &[&str],
    ) -> Result<GlobalInfo, ClientError> {
        let message = UpdateGlobalInfoRequest {
            global_info: Some(info),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
        };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                SystemClient::new(channel).update_global_info(request).await
            })
            .await?;
        answer.global_info.ok_or_else(|| ClientError::incomplete("global_info"))
    }

    /// Enables the whole system.
    pub async fn enable(&self) -> Result<(), ClientError> {
        self.client
            .write(EnableSystemRequest {}, |channel, request| async move {
                SystemClient::new(channel).enable(request).await
            })
            .await
            .map(|_| ())
    }

    /// Disables the whole system: everything but its administration is refused, data are kept.
    pub async fn disable(&self) -> Result<(), ClientError> {
        self.client
            .write(DisableSystemRequest {}, |channel, request| async move {
                SystemClient::new(channel).disable(request).await
            })
            .await
            .map(|_| ())
    }

    /// The settings of one server that are kept in the database, with its name. An empty name is the
    /// server that answers.
    pub async fn server_settings(
        &self,
        server: &str,
    ) -> Result<(String, ServerSettings), ClientError> {
        let message = GetServerSettingsRequest { server: server.to_owned() };
        let answer = self
            .client
            .read(message, |channel, request| async move {
                SystemClient::new(channel).get_server_settings(request).await
            })
            .await?;
        let settings = answer.settings.ok_or_else(|| ClientError::incomplete("settings"))?;
        Ok((answer.server, settings))
    }

    /// Changes the settings of one server named by `paths` (names of their fields); it follows within
    /// one poll.
    pub async fn update_server_settings(
        &self,
        server: &str,
        settings: ServerSettings,
        paths: &[&str],
    ) -> Result<(String, ServerSettings), ClientError> {
        let message = UpdateServerSettingsRequest {
            server: server.to_owned(),
            settings: Some(settings),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
        };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                SystemClient::new(channel).update_server_settings(request).await
            })
            .await?;
        let settings = answer.settings.ok_or_else(|| ClientError::incomplete("settings"))?;
        Ok((answer.server, settings))
    }

    /// Has the server that answers load its certificate, key, authorities and revocation lists again;
    /// what is not good enough changes nothing.
    pub async fn reload_tls(&self) -> Result<ReloadTlsResponse, ClientError> {
        self.client
            .write(ReloadTlsRequest {}, |channel, request| async move {
                SystemClient::new(channel).reload_tls(request).await
            })
            .await
    }

    /// A key pair of the server that answers, for one [`System::check_sealed_rows`] within ten minutes.
    pub async fn begin_sealed_rows_check(
        &self,
    ) -> Result<BeginSealedRowsCheckResponse, ClientError> {
        self.client
            .write(BeginSealedRowsCheckRequest {}, |channel, request| async move {
                SystemClient::new(channel).begin_sealed_rows_check(request).await
            })
            .await
    }

    /// Has the server open every sealed row of the database with the keys of a backup, which
    /// [`Secret::verify`](crate::secret::Secret::verify) sealed to its key. `progress` hears each
    /// message; the last one is given back.
    pub async fn check_sealed_rows(
        &self,
        check: &str,
        sealed: Vec<u8>,
        mut progress: impl FnMut(&CheckSealedRowsResponse),
    ) -> Result<CheckSealedRowsResponse, ClientError> {
        let message = CheckSealedRowsRequest { check: check.to_owned(), sealed };
        let opening = self.client.open(message, |channel, request| async move {
            SystemClient::new(channel).check_sealed_rows(request).await
        });
        let mut answers = opening.await.map_err(|status| self.client.error(&status))?;
        while let Some(answer) =
            answers.message().await.map_err(|status| self.client.error(&status))?
        {
            progress(&answer);
            if answer.done {
                return Ok(answer);
            }
        }
        Err(ClientError::incomplete("done"))
    }
}
