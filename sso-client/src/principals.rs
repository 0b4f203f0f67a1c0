//! Who had which account name first: thin and typed over `sso.v1.Principals`.

use sso_proto::v1::{
    ForgetPrincipalRequest, ListPrincipalsRequest, Principal, principals_client::PrincipalsClient,
};

use crate::{Client, ClientError};

/// Largest page the service gives.
const PAGE: u32 = 1000;

/// Lists and forgets principals.
#[derive(Clone, Debug)]
pub struct Principals {
    client: Client,
}

impl Principals {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Lists principals by account, all pages; with `replaced`, only those whose name somebody else
    /// came with.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn list(&self, replaced: bool) -> Result<Vec<Principal>, ClientError> {
        let mut principals = Vec::new();
        let mut page_token = String::new();
        loop {
            let message = ListPrincipalsRequest { replaced, page_size: PAGE, page_token };
            let answer = self
                .client
                .read(message, |channel, request| async move {
                    PrincipalsClient::new(channel).list(request).await
                })
                .await?;
            principals.extend(answer.principals);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(principals);
            }
        }
    }

    /// Forgets whom a name belongs to. `false`: nobody was remembered.
    pub async fn forget(&self, account: &str) -> Result<bool, ClientError> {
        let message = ForgetPrincipalRequest { account: account.to_owned() };
        let answer = self
            .client
            .write(message, |channel, request| async move {
                PrincipalsClient::new(channel).forget(request).await
            })
            .await?;
        Ok(answer.existed)
    }
}
