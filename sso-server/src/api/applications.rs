//! `sso.v1.Applications`.

use sso_proto::{
    Reason,
    v1::{self, applications_server::Applications},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{application, cut, field, field_updates, kind, missing},
    entry::call_of,
};
use crate::{
    access::Action,
    applications::{ApplicationChange, ListFilter, NewApplication},
    error::Error,
    model::{Accounts, Application, ApplicationName, Fields, Label, PageRequest},
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
            let (created, warnings) = self.house.applications.create(&call, new(&given)?).await?;
            Ok(v1::CreateApplicationResponse {
                application: Some(application(&created, true)),
                warnings: warnings.into_iter().map(warning).collect(),
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
}

fn warning(warning: Error) -> v1::Warning {
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

fn new(given: &v1::Application) -> Result<NewApplication, Error> {
    let kind = kind(given.r#type).map_err(|error| {
        let message = format!("application \"{}\": {}", cut(&given.name), error.message);
        Error::new(error.reason, message)
    })?;
    let (fields, mask_ignored) = Fields::parse(field_updates(&given.fields))?;
    Ok(NewApplication {
        name: ApplicationName::parse(&given.name)?,
        kind,
        description: given.description.clone(),
        contact: given.contact.clone(),
        users: Accounts::parse(&given.user_accounts)?,
        administrators: Accounts::parse(&given.administrator_accounts)?,
        administrators_same: given.administrators_same,
        allow_local_accounts: given.allow_local_accounts,
        enabled: given.enabled,
        fields,
        mask_ignored,
    })
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
                let message = format!(
                    "the update mask names `{}`, which an application does not have",
                    cut(other)
                );
                return Err(Error::new(Reason::InvalidRequest, message));
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
