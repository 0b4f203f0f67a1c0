//! Changing an application: what may change, who may change it, and what is ignored.

use sso_proto::Reason;
use time::OffsetDateTime;

use super::{Applications, flags};
use crate::{
    access::{Action, Call},
    announce::{self, Individual},
    audit::Subject,
    error::Error,
    model::{Account, Accounts, Application, ApplicationFlag, ApplicationName},
};

/// What is to change; `None` keeps.
#[derive(Clone, Debug, Default)]
pub struct ApplicationChange {
    /// Free text.
    pub description: Option<String>,
    /// Free text.
    pub contact: Option<String>,
    /// Its users, in order.
    pub users: Option<Accounts>,
    /// Its administrators; takes an affiliate administrator.
    pub administrators: Option<Accounts>,
    /// The one account of a host group application.
    pub windows_account: Option<Account>,
    /// Accounts without a domain are accepted.
    pub allow_local_accounts: Option<bool>,
    /// Served at run time.
    pub enabled: Option<bool>,
    /// Minutes, 0 = as the system says; takes an SSO administrator.
    pub ticket_timeout: Option<u32>,
    /// Flags to switch; `None` = to what a new application of the type begins with.
    pub flags: Vec<(ApplicationFlag, Option<bool>)>,
}

impl Applications {
    /// Changes the mutable parts, and says what was ignored and what an administrator should know.
    /// Flags that the type does not have, or that cannot change, are ignored (ESSO.md 3.3).
    ///
    /// # Errors
    /// A missing role, `ADMINISTRATOR_ACCOUNTS_PROTECTED`, `TICKET_FLAGS_PROTECTED`,
    /// `TICKET_TIMEOUT_PROTECTED`, `PASSWORD_WAIVER_PROTECTED`, `HOST_ACCESS_PROTECTED`, or what
    /// [`Application::check`] refuses.
    pub async fn update(
        &self,
        call: &Call,
        name: &ApplicationName,
        mut change: ApplicationChange,
    ) -> Result<(Application, Vec<Error>), Error> {
        let (mut transaction, before) = self.begin(call, Action::ApplicationUpdate, name).await?;
        let mut warnings = without_ignored(&before, &mut change);
        self.require_for_change(call, &before, &change)?;
        let (after, changed) = changed(&before, change, self.clock.now());
        self.check(&after)?;
        if changed.is_empty() {
            return Ok((before, warnings));
        }
        transaction.update_application(&after).await?;
        if let Some(account) = &after.windows_account
            && after.windows_account != before.windows_account
        {
            // Lists by account follow; what is sealed in the mappings is not bound to it.
            transaction.move_mappings(after.id, account).await?;
        }
        let detail = changed.join(", ");
        let subject = Subject { application: before.name.as_str(), object: "", detail: &detail };
        self.audit.record(&mut transaction, call, Action::ApplicationUpdate, subject).await?;
        self.commit(transaction, call, after.id).await?;
        announce::application(call, Some(&before), &after);
        if after.users != before.users {
            warnings.extend(self.individuals(&after.users, Individual::User, name));
        }
        if after.administrators != before.administrators {
            warnings.extend(self.individuals(
                &after.administrators,
                Individual::Administrator,
                name,
            ));
        }
        if after.flags != before.flags {
            warnings.extend(flags::warnings(&after));
        }
        Ok((after, warnings))
    }

    /// Refuses the parts that take more than the administrator of the application.
    fn require_for_change(
        &self,
        call: &Call,
        before: &Application,
        change: &ApplicationChange,
    ) -> Result<(), Error> {
        let administrators = Action::ApplicationUpdateAdministrators;
        if change.administrators.is_some()
            && let Err(denied) = self.access.require(call, administrators)
        {
            let message = format!(
                "who administers application \"{}\" is for affiliate administrators to say; ask one",
                before.name
            );
            return Err(Error::new(Reason::AdministratorAccountsProtected, message)
                .for_administrators(denied.for_administrators));
        }
        for &(flag, on) in &change.flags {
            self.require_for_flag(call, flag, on.unwrap_or(flag.default_for(before.kind)))?;
        }
        if change.ticket_timeout.is_some() {
            self.require_for_ticket_timeout(call, "ticket_timeout")?;
        }
        if change.windows_account.is_some() {
            self.require_for_hosts(call, "windows_account")?;
        }
        // In an individual application external users become any of its users.
        let more = change.users.as_ref().is_some_and(|users| *users != before.users);
        if more && before.has(ApplicationFlag::HostInitiated) {
            self.require_for_hosts(call, "user_accounts")?;
        }
        Ok(())
    }
}

/// Takes out of the change what the application does not have or cannot change, with a warning for
/// each.
fn without_ignored(before: &Application, change: &mut ApplicationChange) -> Vec<Error> {
    let kind = before.kind;
    let mut ignored = Vec::new();
    change.flags.retain(|(flag, _)| {
        let kept = flag.is_of(kind) && flag.is_mutable(kind);
        if !kept {
            ignored.push((flag.as_str(), flag.is_of(kind)));
        }
        kept
    });
    if change.ticket_timeout.is_some() && !flags::has_tickets(kind) {
        change.ticket_timeout = None;
        ignored.push(("ticket_timeout", false));
    }
    let warning = |(part, fixed): (&str, bool)| {
        let kind = kind.as_str();
        let message = if fixed {
            format!(
                "{part} of an application of type {kind} cannot change after creation; it was ignored"
            )
        } else {
            format!("{part} means nothing for an application of type {kind}; it was ignored")
        };
        Error::new(Reason::FlagIgnored, message)
    };
    ignored.into_iter().map(warning).collect()
}

/// The application after the change, and the names of the parts that differ.
fn changed(
    before: &Application,
    change: ApplicationChange,
    now: OffsetDateTime,
) -> (Application, Vec<String>) {
    let mut after = before.clone();
    let mut parts = Vec::new();
    let mut note = |part: &str, differs: bool| {
        if differs {
            parts.push(part.to_owned());
        }
    };
    after.description = change.description.unwrap_or(after.description);
    note("description", after.description != before.description);
    after.contact = change.contact.unwrap_or(after.contact);
    note("contact", after.contact != before.contact);
    // The case of an account is worth a change, too.
    after.users = change.users.unwrap_or(after.users);
    note("user_accounts", after.users.to_texts() != before.users.to_texts());
    after.administrators = change.administrators.unwrap_or(after.administrators);
    note(
        "administrator_accounts",
        after.administrators.to_texts() != before.administrators.to_texts(),
    );
    after.windows_account = change.windows_account.or(after.windows_account);
    let text =
        |application: &Application| application.windows_account.clone().map(|a| a.to_string());
    note("windows_account", text(&after) != text(before));
    after.allow_local_accounts = change.allow_local_accounts.unwrap_or(after.allow_local_accounts);
    note("allow_local_accounts", after.allow_local_accounts != before.allow_local_accounts);
    after.enabled = change.enabled.unwrap_or(after.enabled);
    note(if after.enabled { "enabled" } else { "disabled" }, after.enabled != before.enabled);
    after.ticket_timeout = change.ticket_timeout.unwrap_or(after.ticket_timeout);
    let timeout = format!("ticket_timeout={}", after.ticket_timeout);
    note(&timeout, after.ticket_timeout != before.ticket_timeout);
    for (flag, on) in change.flags {
        after.flags.set(flag, on.unwrap_or(flag.default_for(before.kind)));
    }
    for flag in ApplicationFlag::ALL.iter().filter(|flag| after.has(**flag) != before.has(**flag)) {
        note(&format!("{}={}", flag.as_str(), yes_or_no(after.has(*flag))), true);
    }
    if !parts.is_empty() {
        after.updated_at = now;
    }
    (after, parts)
}

fn yes_or_no(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}
