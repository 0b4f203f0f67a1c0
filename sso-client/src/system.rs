//! The system as a whole: thin and typed over `sso.v1.System`.

use prost_types::FieldMask;
use sso_proto::v1::{
    DisableSystemRequest, EnableSystemRequest, GetGlobalInfoRequest, GetServerStatusRequest,
    GetServerStatusResponse, GlobalInfo, ListServersRequest, ServerEntry, UpdateGlobalInfoRequest,
    system_client::SystemClient,
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
}
