//! Why something is allowed or denied: thin and typed over `sso.v1.Access`.

use sso_proto::v1::{ExplainRequest, ExplainResponse, access_client::AccessClient};

use crate::{Client, ClientError};

/// Explains decisions.
#[derive(Clone, Debug)]
pub struct Access {
    client: Client,
}

impl Access {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Goes through the checks of an action as if the account asked for it. Nothing is revealed and
    /// nothing is changed. An empty action is what the application is for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn explain(&self, question: ExplainRequest) -> Result<ExplainResponse, ClientError> {
        self.client
            .read(question, |channel, request| async move {
                AccessClient::new(channel).explain(request).await
            })
            .await
    }
}
