//! What happens to applications when a group that they name is taken out of the file of groups: they
//! are disabled until an administrator has looked (ESSO.md 3.6, events 10518 and 10519).

use std::{collections::BTreeMap, time::Duration};

use sso_proto::Event;
use tokio_util::sync::CancellationToken;

use super::Applications;
use crate::{
    access::Action,
    audit::Subject,
    changes::Change,
    error::Error,
    model::{Account, Accounts, Application, ApplicationName, PageRequest},
    storage::ApplicationFilter,
};

/// How long a group has to be missing: the file may be read while it is being written.
const SETTLE: Duration = Duration::from_secs(2);
/// Pause before a failed attempt is made again.
const RETRY: Duration = Duration::from_secs(5);
/// Applications read at a time.
const PAGE: u32 = 1000;

/// Groups that are gone: canonical key and name as it was written.
type Missing = BTreeMap<String, String>;

impl Applications {
    /// Warns once of accounts that nobody can be, then disables applications as their groups go
    /// missing, until `stop`.
    pub async fn mind_groups(self, stop: CancellationToken) {
        let mut news = self.identity.groups().missing();
        if let Err(error) = self.warn_of_nobodies().await {
            tracing::warn!(%error, "the accounts of the applications could not be looked at");
        }
        let mut handled = Missing::new();
        let mut again = false;
        loop {
            let pause = tokio::time::sleep(RETRY);
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause, if again => {}
                changed = news.changed() => if changed.is_err() { return },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            let missing = news.borrow_and_update().clone();
            handled.retain(|key, _| missing.contains_key(key));
            let fresh: Missing =
                missing.into_iter().filter(|(key, _)| !handled.contains_key(key)).collect();
            again = match self.disable_for(&fresh).await {
                Ok(()) => {
                    handled.extend(fresh);
                    false
                }
                Err(error) => {
                    tracing::error!(%error, "applications of missing groups could not be disabled");
                    true
                }
            };
        }
    }

    /// Disables every enabled application that names one of the groups.
    async fn disable_for(&self, missing: &Missing) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        self.tell_of_system(|account| missing.contains_key(account.key()));
        for key in missing.keys() {
            for name in self.storage.applications_with_account(key).await? {
                self.disable_one(&name, missing).await?;
            }
        }
        Ok(())
    }

    async fn disable_one(&self, name: &ApplicationName, missing: &Missing) -> Result<(), Error> {
        let is_missing = |account: &&Account| {
            missing.contains_key(account.key()) && !self.identity.is_group(account)
        };
        let mut transaction = self.storage.begin().await?;
        // What was found may have changed meanwhile.
        let found = transaction.lock_application(name).await?;
        let Some(mut application) = found.filter(|found| found.enabled) else { return Ok(()) };
        let users = names(application.users.iter().filter(is_missing));
        let administrators = names(application.administrators.iter().filter(is_missing));
        if users.is_empty() && administrators.is_empty() {
            return Ok(());
        }
        application.enabled = false;
        application.updated_at = self.clock.now();
        transaction.update_application(&application).await?;
        let detail = [("users", &users), ("administrators", &administrators)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(role, names)| format!("{role} that are gone: {names}"))
            .collect::<Vec<_>>()
            .join("; ");
        let subject =
            Subject { application: application.name.as_str(), object: "", detail: &detail };
        self.audit.record_own(&mut transaction, Action::ApplicationDisable, subject).await?;
        let change = Change::Application(application.id);
        self.changes.commit(transaction, None, change, self.clock.now()).await?;
        tell(&application, &users, &administrators, "disabled: groups it names are gone");
        tracing::info!(event = Event::ApplicationDisabled.number(), application = %application.name, "application disabled");
        Ok(())
    }

    /// Warns of accounts in the roles of enabled applications, and of the system, that are no group
    /// and of no domain that anybody proves to be of.
    async fn warn_of_nobodies(&self) -> Result<(), Error> {
        let is_nobody = |account: &Account| !self.identity.can_be_somebody(account);
        self.tell_of_system(is_nobody);
        for application in self.enabled().await? {
            let nobodies =
                |accounts: &Accounts| names(accounts.iter().filter(|account| is_nobody(account)));
            let windows = application.windows_account.iter().cloned().collect();
            let users = [nobodies(&application.users), nobodies(&windows)].concat();
            let administrators = nobodies(&application.administrators);
            tell(&application, &users, &administrators, "nobody can be who it names");
        }
        Ok(())
    }

    fn tell_of_system(&self, is_gone: impl Fn(&Account) -> bool) {
        let global = self.access.global();
        let gone = |accounts: &Accounts| names(accounts.iter().filter(|account| is_gone(account)));
        let accounts = gone(&global.sso_administrators);
        if !accounts.is_empty() {
            tracing::error!(event = Event::SsoAdministratorsInvalid.number(), %accounts, "SSO administrators that nobody is any more");
        }
        let accounts = gone(&global.affiliate_administrators);
        if !accounts.is_empty() {
            tracing::error!(event = Event::AffiliateAdministratorsInvalid.number(), %accounts, "affiliate administrators that nobody is any more");
        }
    }

    /// All enabled applications.
    async fn enabled(&self) -> Result<Vec<Application>, Error> {
        let filter = ApplicationFilter::default();
        let mut found = Vec::new();
        let mut page = PageRequest { size: PAGE, after: None };
        loop {
            let read = self.storage.applications(&filter, &page).await?;
            found.extend(read.entries.into_iter().filter(|application| application.enabled));
            match read.next {
                Some(after) => page.after = Some(after),
                None => return Ok(found),
            }
        }
    }
}

fn tell(application: &Application, users: &str, administrators: &str, what: &str) {
    let application = &application.name;
    if !users.is_empty() {
        tracing::warn!(event = Event::UserAccountsInvalid.number(), %application, accounts = users, "{what}");
    }
    if !administrators.is_empty() {
        tracing::warn!(event = Event::AdministratorAccountsInvalid.number(), %application, accounts = administrators, "{what}");
    }
}

fn names<'a>(accounts: impl Iterator<Item = &'a Account>) -> String {
    accounts.map(Account::as_str).collect::<Vec<_>>().join("; ")
}
