//! `sso.v1.Lookup`.

use sso_proto::{
    Reason,
    v1::{self, lookup_server::Lookup},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{credentials, secrets, ticket, timestamp},
    entry::call_of,
};
use crate::{
    access::Action,
    error::Error,
    host_initiated::{LoggedOn, LogonRequest},
    model::{ApplicationName, ApplicationType, ExternalUser, MAX_VALUE_BYTES},
};

#[tonic::async_trait]
impl Lookup for Handlers {
    async fn get_credentials(
        &self,
        request: Request<v1::GetCredentialsRequest>,
    ) -> Result<Response<v1::GetCredentialsResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::CredentialsReveal, &message.application, async {
            let name = ApplicationName::parse(&message.application)?;
            let found = self.house.lookup.get_credentials(&call, &name, message.refresh).await?;
            Ok(v1::GetCredentialsResponse { credentials: Some(credentials(&found)) })
        })
        .await
    }

    async fn logon_external_user(
        &self,
        request: Request<v1::LogonExternalUserRequest>,
    ) -> Result<Response<v1::LogonExternalUserResponse>, Status> {
        let (call, message) = call_of(request)?;
        let application = message.application.clone();
        self.respond(&call, Action::CredentialsLogon, &application, async {
            let logged_on = self.house.host_initiated.logon(&call, &logon(message)?).await?;
            Ok(logged_on_response(&logged_on))
        })
        .await
    }

    async fn get_assertion_keys(
        &self,
        request: Request<v1::GetAssertionKeysRequest>,
    ) -> Result<Response<v1::GetAssertionKeysResponse>, Status> {
        let (call, _) = call_of(request)?;
        self.respond(&call, Action::AssertionKeys, "", async {
            self.house.access.require(&call, Action::AssertionKeys)?;
            Ok(v1::GetAssertionKeysResponse { jwks: self.house.assertions.key_set()? })
        })
        .await
    }
}

fn logon(message: v1::LogonExternalUserRequest) -> Result<LogonRequest, Error> {
    let credentials = message.credentials.map(secrets).unwrap_or_default();
    // No application that compares any has more fields behind field 0.
    let most = ApplicationType::HostGroup.max_fields() - 1;
    if credentials.len() > most {
        let why = format!("at most {most} credentials are compared");
        return Err(Error::new(Reason::InvalidRequest, why));
    }
    // Before anything is looked up: no answer to it depends on what is stored.
    if credentials.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
        let why = format!("a credential has more than {MAX_VALUE_BYTES} bytes, and none is kept");
        return Err(Error::new(Reason::ValueTooLarge, why));
    }
    Ok(LogonRequest {
        application: ApplicationName::parse(&message.application)?,
        external_user: ExternalUser::parse(&message.external_user)?,
        credentials,
        refresh: message.refresh,
        audience: message.assertion_audience,
    })
}

fn logged_on_response(logged_on: &LoggedOn) -> v1::LogonExternalUserResponse {
    let LoggedOn { account, ticket: issued, assertion } = logged_on;
    v1::LogonExternalUserResponse {
        account: account.as_str().to_owned(),
        ticket: issued.as_ref().map(ticket),
        ticket_expires_at: issued.as_ref().map(|issued| timestamp(issued.ticket.expires_at)),
        // Expose: into the answer, which wipes itself once it is sent.
        assertion: assertion
            .as_ref()
            .map(|assertion| v1::Assertion { text: assertion.text.expose().to_owned() }),
    }
}
