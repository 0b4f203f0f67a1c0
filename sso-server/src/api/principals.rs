//! `sso.v1.Principals`.

use sso_proto::v1::{self, principals_server::Principals};
use tonic::{Request, Response, Status};

use super::{Handlers, convert::timestamp, entry::call_of};
use crate::{
    access::Action,
    model::{Account, PageRequest, Principal},
};

/// The list that page tokens are of.
const LIST: &str = "principals";

#[tonic::async_trait]
impl Principals for Handlers {
    async fn list(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::PrincipalList, "", async {
            let page = PageRequest::parse(LIST, message.page_size, &message.page_token)?;
            let page = self.house.principals.list(&call, message.replaced, page).await?;
            Ok(v1::ListPrincipalsResponse {
                next_page_token: page.next_token(LIST),
                principals: page.entries.into_iter().map(principal).collect(),
            })
        })
        .await
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetPrincipalRequest>,
    ) -> Result<Response<v1::ForgetPrincipalResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::PrincipalForget, "", async {
            let account = Account::parse(&message.account)?;
            let existed = self.house.principals.forget(&call, &account).await?;
            Ok(v1::ForgetPrincipalResponse { existed })
        })
        .await
    }
}

fn principal(principal: Principal) -> v1::Principal {
    let (refused_subject, refused_at) = principal.refused.unzip();
    v1::Principal {
        account: principal.account.as_str().to_owned(),
        subject: principal.subject,
        first_seen_at: Some(timestamp(principal.first_seen_at)),
        refused_subject: refused_subject.unwrap_or_default(),
        refused_at: refused_at.map(timestamp),
    }
}
