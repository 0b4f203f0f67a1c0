//! `sso.v1.Mappings`.

use std::collections::BTreeSet;

use sso_proto::{
    Reason,
    v1::{self, mapping_key::Side, mappings_server::Mappings},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    applications::warning,
    convert::{cut, missing, optional, secrets, timestamp},
    entry::call_of,
};
use crate::{
    access::{Action, Call},
    audit::Subject,
    error::Error,
    mappings::{
        BatchOutcome, ListWanted, MappingToDelete, Mappings as Rules, NewCredentials, NewMapping,
        Shown,
    },
    model::{Account, ApplicationName, ExternalUser, MappingKey, MappingState, PageRequest},
};

/// Mappings of one batch.
const BATCH: usize = 1000;
/// The lists that page tokens are of.
const LIST: &str = "mappings";
const ORPHANS: &str = "orphaned mappings";
const MEMBERS: &str = "members";

/// Each with its place in the request.
type Placed<T> = Vec<(u32, T)>;

#[tonic::async_trait]
impl Mappings for Handlers {
    async fn create(
        &self,
        request: Request<v1::CreateMappingRequest>,
    ) -> Result<Response<v1::CreateMappingResponse>, Status> {
        let (call, message) = call_of(request)?;
        let name = message.mapping.as_ref().map(|it| it.application.clone()).unwrap_or_default();
        self.respond(&call, Action::MappingCreate, &name, async {
            let (created, warnings) = self.house.mappings.create(&call, new(message)?).await?;
            Ok(v1::CreateMappingResponse {
                mapping: Some(mapping(created)),
                warnings: warnings.into_iter().map(warning).collect(),
            })
        })
        .await
    }

    async fn batch_create(
        &self,
        request: Request<v1::BatchCreateMappingsRequest>,
    ) -> Result<Response<v1::BatchCreateMappingsResponse>, Status> {
        let (call, message) = call_of(request)?;
        let action = Action::MappingCreate;
        let names = message
            .mappings
            .iter()
            .map(|it| it.mapping.as_ref().map(|it| it.application.clone()).unwrap_or_default());
        let names: Vec<_> = names.collect();
        self.respond(&call, action, "", async {
            counted(message.mappings.len())?;
            let (new, refused) = sorted_out(message.mappings, new);
            let outcome = self.house.mappings.create_batch(&call, new, message.dry_run).await?;
            let (refused, created) = self.outcomes(&call, action, &names, refused, outcome).await;
            Ok(v1::BatchCreateMappingsResponse { refused, created })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<v1::GetMappingRequest>,
    ) -> Result<Response<v1::GetMappingResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.key.unwrap_or_default();
        self.respond(&call, Action::MappingRead, &given.application, async {
            let (name, key) = key(&given)?;
            let read = self.house.mappings.read(&call, &name, key).await?;
            Ok(v1::GetMappingResponse { mapping: Some(mapping(read)) })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<v1::ListMappingsRequest>,
    ) -> Result<Response<v1::ListMappingsResponse>, Status> {
        let (call, message) = call_of(request)?;
        let wanted = list_wanted(&message);
        let action =
            wanted.as_ref().map_or(Action::MappingList, |it| Rules::action_of_list(&call, it));
        self.respond(&call, action, &message.application, async {
            let list = if message.orphaned { ORPHANS } else { LIST };
            let page = PageRequest::parse(list, message.page_size, &message.page_token)?;
            let page = self.house.mappings.list(&call, &wanted?, page).await?;
            Ok(v1::ListMappingsResponse {
                next_page_token: page.next_token(list),
                mappings: page.entries.into_iter().map(mapping).collect(),
            })
        })
        .await
    }

    async fn set_credentials(
        &self,
        request: Request<v1::SetCredentialsRequest>,
    ) -> Result<Response<v1::SetCredentialsResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.key.unwrap_or_default();
        self.respond(&call, Action::MappingSetCredentials, &given.application, async {
            let (application, key) = key(&given)?;
            let values = message.credentials.ok_or_else(|| missing("credentials"))?;
            let new = NewCredentials {
                application,
                key,
                values: secrets(values),
                external_user: optional(&message.external_user, ExternalUser::parse)?,
            };
            let (set, created, warnings) = self.house.mappings.set_credentials(&call, new).await?;
            Ok(v1::SetCredentialsResponse {
                mapping: Some(mapping(set)),
                created,
                warnings: warnings.into_iter().map(warning).collect(),
            })
        })
        .await
    }

    async fn enable(
        &self,
        request: Request<v1::EnableMappingRequest>,
    ) -> Result<Response<v1::EnableMappingResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.key.unwrap_or_default();
        self.respond(&call, Action::MappingEnable, &given.application, async {
            let (name, key) = key(&given)?;
            let enabled = self.house.mappings.set_enabled(&call, &name, key, true).await?;
            Ok(v1::EnableMappingResponse { mapping: Some(mapping(enabled)) })
        })
        .await
    }

    async fn disable(
        &self,
        request: Request<v1::DisableMappingRequest>,
    ) -> Result<Response<v1::DisableMappingResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.key.unwrap_or_default();
        self.respond(&call, Action::MappingDisable, &given.application, async {
            let (name, key) = key(&given)?;
            let disabled = self.house.mappings.set_enabled(&call, &name, key, false).await?;
            Ok(v1::DisableMappingResponse { mapping: Some(mapping(disabled)) })
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteMappingRequest>,
    ) -> Result<Response<v1::DeleteMappingResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.key.unwrap_or_default();
        self.respond(&call, Action::MappingDelete, &given.application, async {
            let (name, key) = key(&given)?;
            let existed = self.house.mappings.delete(&call, &name, key).await?;
            Ok(v1::DeleteMappingResponse { existed })
        })
        .await
    }

    async fn batch_delete(
        &self,
        request: Request<v1::BatchDeleteMappingsRequest>,
    ) -> Result<Response<v1::BatchDeleteMappingsResponse>, Status> {
        let (call, message) = call_of(request)?;
        let action = Action::MappingDelete;
        let names: Vec<_> = message.mappings.iter().map(|it| it.application.clone()).collect();
        self.respond(&call, action, "", async {
            counted(message.mappings.len())?;
            let (unwanted, refused) = sorted_out(message.mappings, |it| to_delete(&it));
            let outcome =
                self.house.mappings.delete_batch(&call, unwanted, message.dry_run).await?;
            let (refused, deleted) = self.outcomes(&call, action, &names, refused, outcome).await;
            Ok(v1::BatchDeleteMappingsResponse { refused, deleted })
        })
        .await
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::MappingListMembers, &message.application, async {
            let name = ApplicationName::parse(&message.application)?;
            let page = PageRequest::parse(MEMBERS, message.page_size, &message.page_token)?;
            let page = self.house.mappings.members(&call, &name, &page).await?;
            Ok(v1::ListMembersResponse {
                next_page_token: page.next_token(MEMBERS),
                accounts: page.entries,
            })
        })
        .await
    }
}

impl Handlers {
    /// How the batch is answered: all refusals in the order of the request. Denials among them are
    /// audited, once for each application and reason.
    async fn outcomes(
        &self,
        call: &Call,
        action: Action,
        names: &[String],
        unreadable: Placed<Error>,
        outcome: BatchOutcome,
    ) -> (Vec<v1::MappingOutcome>, u32) {
        let mut refused: Vec<_> = unreadable.into_iter().chain(outcome.refused).collect();
        refused.sort_by_key(|(index, _)| *index);
        let mut told = BTreeSet::new();
        for (index, error) in &refused {
            let place = usize::try_from(*index).unwrap_or(usize::MAX);
            let application = names.get(place).map_or("", |name| cut(name));
            if error.reason.is_denial() && told.insert((application, error.reason.as_str())) {
                self.audit_denial(call, action, application, error.reason).await;
            }
        }
        (refused.into_iter().map(outcome_of).collect(), outcome.done)
    }

    async fn audit_denial(&self, call: &Call, action: Action, application: &str, reason: Reason) {
        let (name, text) = (action.as_str(), reason.as_str());
        tracing::warn!(%call, action = name, application, reason = text, "denied in a batch");
        let subject = Subject { application, ..Subject::default() };
        self.house.audit.denied(call, action, subject, reason).await;
    }
}

/// What of a batch can be read, and the refusals of the rest; each with its place.
fn sorted_out<M, N>(
    messages: Vec<M>,
    read: impl Fn(M) -> Result<N, Error>,
) -> (Placed<N>, Placed<Error>) {
    let (mut good, mut refused) = (Vec::with_capacity(messages.len()), Vec::new());
    for (index, message) in (0_u32..).zip(messages) {
        match read(message) {
            Ok(noun) => good.push((index, noun)),
            Err(error) => refused.push((index, error)),
        }
    }
    (good, refused)
}

fn counted(count: usize) -> Result<(), Error> {
    if (1..=BATCH).contains(&count) {
        return Ok(());
    }
    let message = format!("a batch has 1 to {BATCH} mappings, not {count}");
    Err(Error::new(Reason::InvalidRequest, message))
}

fn outcome_of((index, error): (u32, Error)) -> v1::MappingOutcome {
    v1::MappingOutcome {
        index,
        reason: error.reason.as_str().to_owned(),
        event: error.reason.event().unwrap_or_default(),
        message: error.message,
    }
}

fn new(message: v1::CreateMappingRequest) -> Result<NewMapping, Error> {
    let given = message.mapping.ok_or_else(|| missing("mapping"))?;
    Ok(NewMapping {
        application: ApplicationName::parse(&given.application)?,
        account: optional(&given.account, Account::parse)?,
        external_user: ExternalUser::parse(&given.external_user)?,
        credentials: message.credentials.map(secrets),
        enable: message.enable,
    })
}

fn to_delete(given: &v1::Mapping) -> Result<MappingToDelete, Error> {
    Ok(MappingToDelete {
        application: ApplicationName::parse(&given.application)?,
        account: optional(&given.account, Account::parse)?,
        external_user: optional(&given.external_user, ExternalUser::parse)?,
    })
}

fn key(given: &v1::MappingKey) -> Result<(ApplicationName, Option<MappingKey>), Error> {
    let key = match &given.side {
        None => None,
        Some(Side::Account(account)) => Some(MappingKey::Account(Account::parse(account)?)),
        Some(Side::ExternalUser(user)) => {
            Some(MappingKey::ExternalUser(ExternalUser::parse(user)?))
        }
    };
    Ok((ApplicationName::parse(&given.application)?, key))
}

fn list_wanted(message: &v1::ListMappingsRequest) -> Result<ListWanted, Error> {
    Ok(ListWanted {
        application: optional(&message.application, ApplicationName::parse)?,
        account: optional(&message.account, Account::parse)?,
        external_user: optional(&message.external_user, ExternalUser::parse)?,
        orphaned: message.orphaned,
    })
}

fn mapping(shown: Shown) -> v1::Mapping {
    let Shown { mapping, application, orphaned, for_administrator } = shown;
    v1::Mapping {
        application: application.as_str().to_owned(),
        account: mapping.account.as_str().to_owned(),
        external_user: mapping.external_user.as_str().to_owned(),
        enabled: mapping.state == MappingState::Enabled,
        disabled_by_administrator: mapping.state == MappingState::DisabledByAdministrator,
        credentials_set: mapping.credentials_at.is_some(),
        credentials_set_at: mapping.credentials_at.map(timestamp),
        id: mapping.id.to_string(),
        created_at: Some(timestamp(mapping.created_at)),
        updated_at: Some(timestamp(mapping.updated_at)),
        updated_by: if for_administrator { mapping.updated_by } else { String::new() },
        orphaned,
    }
}
