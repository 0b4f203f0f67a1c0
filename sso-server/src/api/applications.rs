//! `sso.v1.Applications`.

use sso_proto::{
    Reason,
    v1::{self, applications_server::Applications},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{application, cut, field, field_updates, flag_of, flags, kind, missing},
    entry::call_of,
};
use crate::{
    access::Action,
    applications::{ApplicationChange, ListFilter},
    error::Error,
    model::{
        Account, Accounts, Application, ApplicationFlag, ApplicationFlags, ApplicationId,
        ApplicationName, Fields, Label, PageRequest,
    },
};

/// The list that page tokens are of.
const LIST: &str = "applications";
/// Characters of a filter.
const LONGEST_FILTER: usize = 255;

#[tonic::async_trait]
impl Applications for Handlers {
    async fn create(
        &self,
        request: Request<v1::CreateApplicationRequest>,
    ) -> Result<Response<v1::CreateApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.application.unwrap_or_default();
        self.respond(&call, Action::ApplicationCreate, &given.name, async {
            let (new, reset) = new(&given, self.house.clock.now())?;
            let (created, warnings) = self.house.applications.create(&call, new).await?;
            Ok(v1::CreateApplicationResponse {
                application: Some(application(&created, true)),
                warnings: warnings.into_iter().chain(reset).map(warning).collect(),
            })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<v1::GetApplicationRequest>,
    ) -> Result<Response<v1::GetApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationRead, &message.name, async {
            let name = ApplicationName::parse(&message.name)?;
            let (read, for_administrator) = self.house.applications.read(&call, &name).await?;
            let application = Some(application(&read, for_administrator));
            Ok(v1::GetApplicationResponse { application })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<v1::ListApplicationsRequest>,
    ) -> Result<Response<v1::ListApplicationsResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationList, "", async {
            let page = PageRequest::parse(LIST, message.page_size, &message.page_token)?;
            let page = self.house.applications.list(&call, filter(message)?, page).await?;
            let entry = |(it, full): &(Application, bool)| application(it, *full);
            Ok(v1::ListApplicationsResponse {
                next_page_token: page.next_token(LIST),
                applications: page.entries.iter().map(entry).collect(),
            })
        })
        .await
    }

    async fn update(
        &self,
        request: Request<v1::UpdateApplicationRequest>,
    ) -> Result<Response<v1::UpdateApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        let given = message.application.unwrap_or_default();
        let paths = message.update_mask.unwrap_or_default().paths;
        self.respond(&call, Action::ApplicationUpdate, &given.name, async {
            let name = ApplicationName::parse(&given.name)?;
            let change = change(&given, &paths)?;
            let (updated, warnings) = self.house.applications.update(&call, &name, change).await?;
            Ok(v1::UpdateApplicationResponse {
                application: Some(application(&updated, true)),
                warnings: warnings.into_iter().map(warning).collect(),
            })
        })
        .await
    }

    async fn enable(
        &self,
        request: Request<v1::EnableApplicationRequest>,
    ) -> Result<Response<v1::EnableApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationEnable, &message.name, async {
            let name = ApplicationName::parse(&message.name)?;
            let enabled = self.house.applications.set_enabled(&call, &name, true).await?;
            Ok(v1::EnableApplicationResponse { application: Some(application(&enabled, true)) })
        })
        .await
    }

    async fn disable(
        &self,
        request: Request<v1::DisableApplicationRequest>,
    ) -> Result<Response<v1::DisableApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationDisable, &message.name, async {
            let name = ApplicationName::parse(&message.name)?;
            let disabled = self.house.applications.set_enabled(&call, &name, false).await?;
            Ok(v1::DisableApplicationResponse { application: Some(application(&disabled, true)) })
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteApplicationRequest>,
    ) -> Result<Response<v1::DeleteApplicationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationDelete, &message.name, async {
            let name = ApplicationName::parse(&message.name)?;
            let existed = self.house.applications.delete(&call, &name).await?;
            Ok(v1::DeleteApplicationResponse { existed })
        })
        .await
    }

    async fn add_field(
        &self,
        request: Request<v1::AddFieldRequest>,
    ) -> Result<Response<v1::AddFieldResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationAddField, &message.application, async {
            let name = ApplicationName::parse(&message.application)?;
            let label = Label::parse(&message.label)?;
            let applications = &self.house.applications;
            let (changed, added) =
                applications.add_field(&call, &name, label, message.masked).await?;
            Ok(v1::AddFieldResponse {
                application: Some(application(&changed, true)),
                field: Some(field(&added)),
            })
        })
        .await
    }

    async fn purge_cache(
        &self,
        request: Request<v1::PurgeCacheRequest>,
    ) -> Result<Response<v1::PurgeCacheResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ApplicationPurgeCache, &message.name, async {
            let name = ApplicationName::parse(&message.name)?;
            self.house.applications.purge_cache(&call, &name).await?;
            Ok(v1::PurgeCacheResponse {})
        })
        .await
    }
}

pub(super) fn warning(warning: Error) -> v1::Warning {
    v1::Warning {
        reason: warning.reason.as_str().to_owned(),
        event: warning.reason.event().unwrap_or_default(),
        message: warning.message,
    }
}

fn filter(message: v1::ListApplicationsRequest) -> Result<ListFilter, Error> {
    for (part, text) in [("name_contains", &message.name_contains), ("contact", &message.contact)] {
        // No name and no contact is longer, and the database compares each of them with this.
        if text.chars().count() > LONGEST_FILTER {
            let why = format!("{part} is longer than {LONGEST_FILTER} characters");
            return Err(Error::new(Reason::OutOfRange, why));
        }
    }
    let kind = match message.r#type {
        0 => None,
        given => Some(kind(given)?),
    };
    Ok(ListFilter { name_contains: message.name_contains, kind, contact: message.contact })
}

/// The application that is asked for, and what of it was reset because it means nothing.
fn new(
    given: &v1::Application,
    now: time::OffsetDateTime,
) -> Result<(Application, Vec<Error>), Error> {
    let kind = kind(given.r#type).map_err(|error| {
        let message = format!("application \"{}\": {}", cut(&given.name), error.message);
        Error::new(error.reason, message)
    })?;
    let (fields, mask_ignored) = Fields::parse(kind, field_updates(&given.fields))?;
    let (flags, irrelevant) = ApplicationFlags::create(kind, &flags(given))?;
    let has_tickets = ApplicationFlag::AllowTickets.is_of(kind);
    let mut irrelevant: Vec<&str> = irrelevant.into_iter().map(ApplicationFlag::as_str).collect();
    if !has_tickets && given.ticket_timeout != 0 {
        irrelevant.push("ticket_timeout");
    }
    let mut reset = Vec::new();
    if mask_ignored {
        let message = "field 0 is never masked; its mask was ignored";
        reset.push(Error::new(Reason::MaskIgnored, message));
    }
    reset.extend(irrelevant.into_iter().map(|part| {
        let message = format!(
            "{part} means nothing for an application of type {}; it was reset",
            kind.as_str()
        );
        Error::new(Reason::FlagReset, message)
    }));
    let new = Application {
        id: ApplicationId::generate(),
        name: ApplicationName::parse(&given.name)?,
        kind,
        description: given.description.clone(),
        contact: given.contact.clone(),
        users: Accounts::parse(&given.user_accounts)?,
        administrators: Accounts::parse(&given.administrator_accounts)?,
        administrators_same: given.administrators_same,
        allow_local_accounts: given.allow_local_accounts,
        windows_account: match given.windows_account.as_str() {
            "" => None,
            account => Some(windows_account(account)?),
        },
        flags,
        ticket_timeout: if has_tickets { given.ticket_timeout } else { 0 },
        enabled: given.enabled,
        fields,
        created_at: now,
        updated_at: now,
    };
    Ok((new, reset))
}

/// Exactly one account, where other parts of a message may list several.
fn windows_account(text: &str) -> Result<Account, Error> {
    if text.is_empty() || text.contains(';') {
        let message = "windows_account is one account, DOMAIN\\name, of a single user";
        return Err(Error::new(Reason::WindowsAccountInvalid, message));
    }
    Account::parse(text)
}

fn change(given: &v1::Application, paths: &[String]) -> Result<ApplicationChange, Error> {
    if paths.is_empty() {
        return Err(missing("update_mask"));
    }
    let mut change = ApplicationChange::default();
    for path in paths {
        match path.as_str() {
            "description" => change.description = Some(given.description.clone()),
            "contact" => change.contact = Some(given.contact.clone()),
            "user_accounts" => change.users = Some(Accounts::parse(&given.user_accounts)?),
            "administrator_accounts" => {
                change.administrators = Some(Accounts::parse(&given.administrator_accounts)?);
            }
            "enabled" => change.enabled = Some(given.enabled),
            "allow_local_accounts" => {
                change.allow_local_accounts = Some(given.allow_local_accounts);
            }
            "windows_account" => {
                change.windows_account = Some(windows_account(&given.windows_account)?);
            }
            "ticket_timeout" => change.ticket_timeout = Some(given.ticket_timeout),
            "name"
            | "type"
            | "fields"
            | "administrators_same"
            | "id"
            | "created_at"
            | "updated_at" => {
                let message = format!(
                    "`{path}` of application \"{}\" cannot change after creation; add fields with AddField",
                    given.name
                );
                return Err(Error::new(Reason::Immutable, message));
            }
            other => {
                let flag = ApplicationFlag::parse(other).ok_or_else(|| {
                    let message = format!(
                        "the update mask names `{}`, which an application does not have",
                        cut(other)
                    );
                    Error::new(Reason::InvalidRequest, message)
                })?;
                change.flags.push((flag, flag_of(given, flag)));
            }
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_no_longer_than_what_they_find() {
        let asked = |name_contains: String, contact: String| {
            filter(v1::ListApplicationsRequest { name_contains, contact, ..Default::default() })
        };
        assert!(asked("\u{e9}".repeat(255), "\u{e9}".repeat(255)).is_ok());
        for (name_contains, contact) in [(256, 0), (0, 256), (4_000_000, 0)] {
            let error = asked("x".repeat(name_contains), "x".repeat(contact)).unwrap_err();
            assert_eq!(error.reason, Reason::OutOfRange);
        }
    }
}
