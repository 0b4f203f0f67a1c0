//! Mappings, look-ups, tickets and explanations of the fake.

use std::sync::Mutex;

use sso_client::v1::{
    self, access_server::Access, lookup_server::Lookup, mapping_key::Side,
    mappings_server::Mappings, tickets_server::Tickets,
};
use sso_proto::{Reason, Refusal};
use tonic::{Request, Response, Status};

use super::Service;

/// The ticket that the fake issues.
pub(crate) const TICKET: &str = "sso1.ticket-4711";
/// How many mappings every application has.
const MAPPINGS: usize = 250;

/// What arrived, the last of each kind.
#[derive(Default)]
pub(crate) struct Asked {
    /// Every mapping that was to be created, of a batch too.
    pub(crate) created: Mutex<Vec<v1::CreateMappingRequest>>,
    /// Sizes of batches, and whether they were dry.
    pub(crate) batches: Mutex<Vec<(usize, bool)>>,
    pub(crate) deleted: Mutex<Vec<v1::Mapping>>,
    pub(crate) key: Mutex<Option<v1::MappingKey>>,
    pub(crate) credentials: Mutex<Option<v1::SetCredentialsRequest>>,
    pub(crate) listed: Mutex<Option<v1::ListMappingsRequest>>,
    pub(crate) looked_up: Mutex<Option<v1::GetCredentialsRequest>>,
    pub(crate) logon: Mutex<Option<v1::LogonExternalUserRequest>>,
    pub(crate) issued: Mutex<Option<v1::IssueTicketRequest>>,
    pub(crate) redeemed: Mutex<Option<v1::RedeemTicketRequest>>,
    pub(crate) explained: Mutex<Option<v1::ExplainRequest>>,
}

fn put<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap() = Some(value);
}

/// External users that start with BAD are refused.
fn refusals<'m>(mappings: impl Iterator<Item = &'m v1::Mapping>) -> Vec<v1::MappingOutcome> {
    (0..)
        .zip(mappings)
        .filter(|(_, mapping)| mapping.external_user.starts_with("BAD"))
        .map(|(index, mapping)| v1::MappingOutcome {
            index,
            reason: Reason::ExternalUserMapped.as_str().to_owned(),
            event: Reason::ExternalUserMapped.event().unwrap_or_default(),
            message: format!("'{}' is mapped already", mapping.external_user),
        })
        .collect()
}

fn mapping(number: usize) -> v1::Mapping {
    v1::Mapping {
        application: "Mainframe".into(),
        account: format!(r"DEV\user{number}"),
        external_user: format!("X{number}"),
        enabled: true,
        credentials_set: true,
        ..Default::default()
    }
}

impl Service {
    fn keyed(&self, key: Option<v1::MappingKey>) -> v1::Mapping {
        let key = key.unwrap_or_default();
        put(&self.state.asked.key, key.clone());
        let (account, external_user) = match key.side {
            Some(Side::Account(account)) => (account, "X1".to_owned()),
            Some(Side::ExternalUser(user)) => (r"DEV\service".to_owned(), user),
            None => (r"DEV\test".to_owned(), "X1".to_owned()),
        };
        v1::Mapping { application: key.application, account, external_user, ..mapping(1) }
    }
}

fn credentials(application: String) -> v1::Credentials {
    v1::Credentials {
        application,
        external_user: "X1".into(),
        credentials: Some(v1::CredentialValues {
            values: vec!["secret-0815".into(), "pin\u{1b}\u{e4}".into()],
        }),
    }
}

#[tonic::async_trait]
impl Mappings for Service {
    async fn create(
        &self,
        request: Request<v1::CreateMappingRequest>,
    ) -> Result<Response<v1::CreateMappingResponse>, Status> {
        let request = request.into_inner();
        let mapping = v1::Mapping {
            enabled: request.enable,
            credentials_set: request.credentials.is_some(),
            ..request.mapping.clone().unwrap_or_default()
        };
        self.state.asked.created.lock().unwrap().push(request);
        let answer = v1::CreateMappingResponse { mapping: Some(mapping), ..Default::default() };
        self.reply(answer).await
    }

    async fn batch_create(
        &self,
        request: Request<v1::BatchCreateMappingsRequest>,
    ) -> Result<Response<v1::BatchCreateMappingsResponse>, Status> {
        let request = request.into_inner();
        let count = request.mappings.len();
        self.state.asked.batches.lock().unwrap().push((count, request.dry_run));
        let refused = refusals(request.mappings.iter().filter_map(|one| one.mapping.as_ref()));
        self.state.asked.created.lock().unwrap().extend(request.mappings);
        let created = u32::try_from(count - refused.len()).unwrap();
        self.reply(v1::BatchCreateMappingsResponse { refused, created }).await
    }

    async fn get(
        &self,
        request: Request<v1::GetMappingRequest>,
    ) -> Result<Response<v1::GetMappingResponse>, Status> {
        let mapping = Some(self.keyed(request.into_inner().key));
        self.reply(v1::GetMappingResponse { mapping }).await
    }

    /// 250 mappings, in pages of 100 at most.
    async fn list(
        &self,
        request: Request<v1::ListMappingsRequest>,
    ) -> Result<Response<v1::ListMappingsResponse>, Status> {
        let request = request.into_inner();
        let first: usize = request.page_token.parse().unwrap_or_default();
        put(&self.state.asked.listed, request);
        let last = (first + 100).min(MAPPINGS);
        let next_page_token = if last < MAPPINGS { last.to_string() } else { String::new() };
        let mappings = (first..last).map(mapping).collect();
        self.reply(v1::ListMappingsResponse { mappings, next_page_token }).await
    }

    async fn set_credentials(
        &self,
        request: Request<v1::SetCredentialsRequest>,
    ) -> Result<Response<v1::SetCredentialsResponse>, Status> {
        let request = request.into_inner();
        let mapping = Some(self.keyed(request.key.clone()));
        let created = !request.external_user.is_empty();
        put(&self.state.asked.credentials, request);
        let answer = v1::SetCredentialsResponse { mapping, created, ..Default::default() };
        self.reply(answer).await
    }

    async fn enable(
        &self,
        request: Request<v1::EnableMappingRequest>,
    ) -> Result<Response<v1::EnableMappingResponse>, Status> {
        let mapping = Some(self.keyed(request.into_inner().key));
        self.reply(v1::EnableMappingResponse { mapping }).await
    }

    async fn disable(
        &self,
        request: Request<v1::DisableMappingRequest>,
    ) -> Result<Response<v1::DisableMappingResponse>, Status> {
        let mapping = v1::Mapping {
            enabled: false,
            disabled_by_administrator: true,
            ..self.keyed(request.into_inner().key)
        };
        self.reply(v1::DisableMappingResponse { mapping: Some(mapping) }).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteMappingRequest>,
    ) -> Result<Response<v1::DeleteMappingResponse>, Status> {
        self.keyed(request.into_inner().key);
        self.reply(v1::DeleteMappingResponse { existed: true }).await
    }

    async fn batch_delete(
        &self,
        request: Request<v1::BatchDeleteMappingsRequest>,
    ) -> Result<Response<v1::BatchDeleteMappingsResponse>, Status> {
        let request = request.into_inner();
        let count = request.mappings.len();
        self.state.asked.batches.lock().unwrap().push((count, request.dry_run));
        let refused = refusals(request.mappings.iter());
        self.state.asked.deleted.lock().unwrap().extend(request.mappings);
        let deleted = u32::try_from(count - refused.len()).unwrap();
        self.reply(v1::BatchDeleteMappingsResponse { refused, deleted }).await
    }

    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let accounts = [r"DEV\Anna.Smith", r"DEV\Bo", r"TEST\Bo", r"DEV\user7"];
        let accounts = accounts.map(str::to_owned).to_vec();
        self.reply(v1::ListMembersResponse { accounts, ..Default::default() }).await
    }
}

#[tonic::async_trait]
impl Lookup for Service {
    async fn get_credentials(
        &self,
        request: Request<v1::GetCredentialsRequest>,
    ) -> Result<Response<v1::GetCredentialsResponse>, Status> {
        let request = request.into_inner();
        let credentials = Some(credentials(request.application.clone()));
        put(&self.state.asked.looked_up, request);
        self.reply(v1::GetCredentialsResponse { credentials }).await
    }

    async fn logon_external_user(
        &self,
        request: Request<v1::LogonExternalUserRequest>,
    ) -> Result<Response<v1::LogonExternalUserResponse>, Status> {
        put(&self.state.asked.logon, request.into_inner());
        let answer = v1::LogonExternalUserResponse {
            account: r"DEV\service".into(),
            ticket: Some(v1::Ticket { text: TICKET.into() }),
            ticket_expires_at: None,
            assertion: Some(v1::Assertion { text: "head.body.signature".into() }),
        };
        self.reply(answer).await
    }

    async fn get_assertion_keys(
        &self,
        _: Request<v1::GetAssertionKeysRequest>,
    ) -> Result<Response<v1::GetAssertionKeysResponse>, Status> {
        self.reply(v1::GetAssertionKeysResponse { jwks: r#"{"keys":[]}"#.into() }).await
    }
}

#[tonic::async_trait]
impl Tickets for Service {
    async fn issue(
        &self,
        request: Request<v1::IssueTicketRequest>,
    ) -> Result<Response<v1::IssueTicketResponse>, Status> {
        put(&self.state.asked.issued, request.into_inner());
        let ticket = Some(v1::Ticket { text: TICKET.into() });
        let account = r"DEV\test".to_owned();
        self.reply(v1::IssueTicketResponse { ticket, account, ..Default::default() }).await
    }

    /// Takes its own ticket only.
    async fn redeem(
        &self,
        request: Request<v1::RedeemTicketRequest>,
    ) -> Result<Response<v1::RedeemTicketResponse>, Status> {
        let request = request.into_inner();
        let own = request.ticket.as_ref().is_some_and(|ticket| ticket.text == TICKET);
        let credentials = Some(credentials(request.application.clone()));
        put(&self.state.asked.redeemed, request);
        if !own {
            return Err(Refusal::new(Reason::TicketMalformed, "this is no ticket").into());
        }
        let account = r"DEV\test".to_owned();
        self.reply(v1::RedeemTicketResponse { credentials, account, ticket_id: "7".into() }).await
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectTicketRequest>,
    ) -> Result<Response<v1::InspectTicketResponse>, Status> {
        let ticket = request.into_inner().ticket.unwrap_or_default();
        assert_eq!(ticket.text, TICKET);
        let account = r"DEV\test".to_owned();
        self.reply(v1::InspectTicketResponse { account, expired: true, ..Default::default() }).await
    }
}

#[tonic::async_trait]
impl Access for Service {
    /// Allows everything to everybody but `DEV\nobody`.
    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        let allowed = request.account != r"DEV\nobody";
        let step = |check: &str, passed, reason: &str| v1::ExplainStep {
            check: check.into(),
            passed,
            detail: "as it is".into(),
            reason: reason.into(),
        };
        let role = if allowed { "" } else { Reason::NotApplicationUser.as_str() };
        let answer = v1::ExplainResponse {
            allowed,
            account: request.account.clone(),
            application: request.application.clone(),
            action: "credentials.reveal".into(),
            steps: vec![step("the application is enabled", true, ""), step("user", allowed, role)],
            accounts_expected: vec![r"DEV\Application Users".into()],
            mapping_account: request.account.clone(),
            external_user: "X1".into(),
            ..Default::default()
        };
        put(&self.state.asked.explained, request);
        self.reply(answer).await
    }
}
