//! Reading mappings: one, lists, and the members of an application.

use std::{collections::HashMap, sync::Arc};

use sso_proto::Reason;

use super::{Mappings, Shown, rules};
use crate::{
    access::{Action, Call},
    error::Error,
    lookup,
    model::{
        Account, Accounts, Application, ApplicationName, ApplicationType, ExternalUser, Mapping,
        MappingKey, Page, PageRequest,
    },
    storage::MappingFilter,
};

/// Mappings looked at in one go where only orphaned ones are wanted.
const LOOKED_AT: u32 = 500;

/// Which mappings a list is to hold.
#[derive(Clone, Debug, Default)]
pub struct ListWanted {
    /// Only of this application.
    pub application: Option<ApplicationName>,
    /// Only of this account.
    pub account: Option<Account>,
    /// Only of this external user; needs an application.
    pub external_user: Option<ExternalUser>,
    /// Only those whose account is not among the users.
    pub orphaned: bool,
}

/// One page of a list.
pub type Listed = Page<Shown>;

/// What the caller may list of what is wanted.
struct Scope {
    filter: MappingFilter,
    /// The one application the list is of.
    application: Option<Arc<Application>>,
}

impl Mappings {
    /// One mapping, without its credentials.
    ///
    /// # Errors
    /// A missing role, `MAPPING_OF_ANOTHER`, `MAPPING_NOT_FOUND`, `INVALID_REQUEST`.
    pub async fn read(
        &self,
        call: &Call,
        name: &ApplicationName,
        key: Option<MappingKey>,
    ) -> Result<Shown, Error> {
        let application = self.enter(call, Action::MappingRead, name).await?;
        let administers = self.access.is_administrator(&call.caller, &application);
        if !administers && let Some(MappingKey::Account(account)) = &key {
            require_effective(call, &application, account)?;
        }
        rules::require_mappings(&application)?;
        let key = rules::key(call, &application, key)?;
        let found = self.storage.mapping(application.id, &key).await?.map(|it| it.mapping);
        if !administers {
            match (&found, &key) {
                (Some(mapping), _) => require_effective(call, &application, &mapping.account)?,
                // All external users of a host group application are of its one account.
                (None, MappingKey::ExternalUser(_))
                    if application.kind != ApplicationType::HostGroup =>
                {
                    return Err(rules::of_another(call, &application));
                }
                (None, _) => {}
            }
        }
        let mapping = found.ok_or_else(|| lookup::not_found(&application, &key))?;
        lookup::require_own_key(&mapping, &key)?;
        Ok(self.shown(call, &application, mapping))
    }

    /// Lists mappings by application and account. Users list what is mapped to them; without an
    /// application, that of other accounts is for affiliate administrators.
    ///
    /// # Errors
    /// A missing role, `MAPPING_OF_ANOTHER`, `APPLICATION_TYPE_WRONG`, `INVALID_REQUEST` for an external
    /// user without an application.
    pub async fn list(
        &self,
        call: &Call,
        wanted: &ListWanted,
        page: PageRequest,
    ) -> Result<Listed, Error> {
        let scope = self.scope(call, wanted).await?;
        let mut applications = HashMap::new();
        if let Some(application) = scope.application.clone() {
            applications.insert(application.name.key().to_owned(), application);
        }
        if !wanted.orphaned {
            let page = self.storage.mappings(&scope.filter, &page).await?;
            let entries = self.show_all(call, &mut applications, page.entries).await?;
            return Ok(Page { entries, next: page.next });
        }
        self.orphans(call, &scope.filter, &mut applications, page).await
    }

    /// The action that a list comes to, for the record of a denial.
    #[must_use]
    pub fn action_of_list(call: &Call, wanted: &ListWanted) -> Action {
        match (&wanted.application, &wanted.account) {
            (Some(_), _) => Action::MappingList,
            (None, Some(account)) if *account != call.caller.account => Action::MappingListAll,
            (None, _) => Action::MappingListOwn,
        }
    }

    async fn scope(&self, call: &Call, wanted: &ListWanted) -> Result<Scope, Error> {
        let action = Self::action_of_list(call, wanted);
        let mut filter = MappingFilter {
            application: None,
            account_key: wanted.account.as_ref().map(|account| account.key().to_owned()),
            external_user_key: wanted.external_user.as_ref().map(|user| user.key().to_owned()),
        };
        let Some(name) = &wanted.application else {
            self.access.require(call, action)?;
            if wanted.external_user.is_some() {
                let message = "a list by external user needs an application";
                return Err(Error::new(Reason::InvalidRequest, message));
            }
            filter.account_key.get_or_insert_with(|| call.caller.account.key().to_owned());
            return Ok(Scope { filter, application: None });
        };
        let application = self.enter(call, action, name).await?;
        if !self.access.is_administrator(&call.caller, &application) {
            if let Some(account) = &wanted.account {
                require_effective(call, &application, account)?;
            }
            let own = effective(call, &application)
                .ok_or_else(|| lookup::not_a_user(&application, call.caller.account.as_str()))?;
            filter.account_key = Some(own.key().to_owned());
        }
        rules::require_mappings(&application)?;
        filter.application = Some(application.id);
        Ok(Scope { filter, application: Some(application) })
    }

    /// A page of orphaned mappings only: looks at mappings until it is full or there are no more.
    async fn orphans(
        &self,
        call: &Call,
        filter: &MappingFilter,
        applications: &mut HashMap<String, Arc<Application>>,
        page: PageRequest,
    ) -> Result<Listed, Error> {
        let wanted = usize::try_from(page.size).unwrap_or(usize::MAX);
        let mut entries: Vec<Shown> = Vec::new();
        let mut after = page.after;
        loop {
            let looked = PageRequest { size: LOOKED_AT, after: after.clone() };
            let mut part = self.storage.mappings(filter, &looked).await?;
            let mut shown = self.show_all(call, applications, part.entries).await?;
            let missing = wanted.saturating_sub(entries.len()).saturating_sub(1);
            let mut orphaned = shown.iter().enumerate().filter(|(_, it)| it.orphaned);
            let last = orphaned.nth(missing).map(|(place, _)| place + 1);
            if let Some(last) = last.filter(|last| *last < shown.len()) {
                // The page ends in the middle of what was looked at: where the next one begins is told
                // by a shorter look.
                let size = u32::try_from(last).unwrap_or(LOOKED_AT);
                let shorter = PageRequest { size, after };
                part = self.storage.mappings(filter, &shorter).await?;
                shown = self.show_all(call, applications, part.entries).await?;
            }
            entries.extend(shown.into_iter().filter(|it| it.orphaned));
            after = part.next;
            if after.is_none() || entries.len() >= wanted {
                return Ok(Page { entries, next: after });
            }
        }
    }

    /// Mappings as they are handed out; each application is read once.
    async fn show_all(
        &self,
        call: &Call,
        applications: &mut HashMap<String, Arc<Application>>,
        mappings: Vec<(Mapping, ApplicationName)>,
    ) -> Result<Vec<Shown>, Error> {
        let mut shown = Vec::with_capacity(mappings.len());
        for (mapping, name) in mappings {
            if !applications.contains_key(name.key())
                && let Some(application) = self.storage.application(&name).await?
            {
                applications.insert(name.key().to_owned(), application);
            }
            // One that was deleted meanwhile has no mappings any more.
            if let Some(application) = applications.get(name.key()) {
                shown.push(self.shown(call, application, mapping));
            }
        }
        Ok(shown)
    }

    /// The individual accounts among the users of an application, by canonical name, as far as the
    /// groups are known here.
    ///
    /// # Errors
    /// A missing role.
    pub async fn members(
        &self,
        call: &Call,
        name: &ApplicationName,
        page: &PageRequest,
    ) -> Result<Page<String>, Error> {
        let application = self.enter(call, Action::MappingListMembers, name).await?;
        let users: Accounts =
            application.users.iter().chain(&application.windows_account).cloned().collect();
        let members = self.identity.groups().members_of(&users);
        let after = page.after.as_deref().unwrap_or_default();
        let wanted = usize::try_from(page.size).unwrap_or(usize::MAX);
        let mut behind =
            members.into_iter().filter(|(key, _)| page.after.is_none() || key.as_str() > after);
        let entries: Vec<_> = behind.by_ref().take(wanted).collect();
        let more = behind.next().is_some();
        let next = entries.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(Page { entries: entries.into_iter().map(|(_, name)| name).collect(), next })
    }
}

/// The account whose mapping is the caller's: in a group application that of the first account the
/// caller belongs to.
fn effective<'a>(call: &'a Call, application: &'a Application) -> Option<&'a Account> {
    match application.kind {
        ApplicationType::Group => {
            call.caller.first_in(&application.users).map(|(_, account)| account)
        }
        ApplicationType::Individual | ApplicationType::HostGroup | ApplicationType::ConfigStore => {
            Some(&call.caller.account)
        }
    }
}

/// Refuses a user what is mapped to another account.
fn require_effective(
    call: &Call,
    application: &Application,
    account: &Account,
) -> Result<(), Error> {
    if effective(call, application) == Some(account) {
        return Ok(());
    }
    Err(rules::of_another(call, application))
}
