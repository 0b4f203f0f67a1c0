//! The rules of the system as a whole: its settings, its switch, its servers (ESSO.md 7.1, 1.7).

use std::sync::Arc;

use sso_core::clock::Clock;
use sso_proto::Reason;
use time::{Duration, OffsetDateTime};

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    changes::{Change, Changes},
    error::Error,
    master::{MasterSecret, MasterStatus},
    model::{Accounts, GlobalInfo, ServerEntry},
    storage::{Storage, Transaction},
};

/// A server that has not reported for longer is shown as offline.
const ONLINE: Duration = Duration::seconds(30);
/// Changes kept for servers that were away for a moment; the rest is pruned.
const CHANGES_KEPT: u32 = 100_000;

/// What is to change; `None` keeps.
#[derive(Clone, Debug, Default)]
pub struct GlobalInfoChange {
    /// Only while the system is disabled; the caller must be in it.
    pub sso_administrators: Option<Accounts>,
    /// Only while the system is disabled.
    pub affiliate_administrators: Option<Accounts>,
    /// Records.
    pub audit_deleted_applications: Option<u32>,
    /// Records.
    pub audit_deleted_mappings: Option<u32>,
    /// Records.
    pub audit_credential_lookups: Option<u32>,
    /// Minutes.
    pub ticket_timeout: Option<u32>,
    /// Minutes.
    pub credential_cache_timeout: Option<u32>,
}

/// The state of this server.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// Its name.
    pub server: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: OffsetDateTime,
    /// The time by its clock.
    pub now: OffsetDateTime,
    /// The word for its database.
    pub database: &'static str,
    /// The number of the last migration.
    pub schema_version: u32,
    /// The system is enabled.
    pub enabled: bool,
    /// Its keys and leases.
    pub master: MasterStatus,
    /// The caller is an SSO administrator.
    pub sso_administrator: bool,
    /// The caller is an affiliate administrator.
    pub affiliate_administrator: bool,
}

/// What does not change while a server runs.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// When it started.
    pub started_at: OffsetDateTime,
    /// The number of the last migration.
    pub schema_version: u32,
}

/// The rules of the system.
#[derive(Clone, Debug)]
pub struct System {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Keeps.
    pub storage: Storage,
    /// Tells other servers.
    pub changes: Changes,
    /// Holds the keys.
    pub master: Arc<MasterSecret>,
    /// Tells the time.
    pub clock: Clock,
    /// This server.
    pub facts: Arc<ServerFacts>,
}

impl System {
    /// The settings of the system, as the database has them now.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`.
    pub async fn global_info(&self, call: &Call) -> Result<GlobalInfo, Error> {
        self.access.require(call, Action::SystemRead)?;
        let system = self.storage.system().await?.ok_or_else(missing)?;
        Ok(system.global)
    }

    /// Changes settings. The two account lists change only while the system is disabled, and an
    /// SSO administrator cannot lock themselves out (ESSO.md 2.1).
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`, `SYSTEM_NOT_DISABLED`, `CALLER_NOT_IN_ACCOUNTS`, `OUT_OF_RANGE`.
    pub async fn update(&self, call: &Call, change: GlobalInfoChange) -> Result<GlobalInfo, Error> {
        self.access.require(call, Action::SystemUpdate)?;
        let mut transaction = self.storage.begin().await?;
        let before = transaction.lock_system().await?.ok_or_else(missing)?.global;
        require_still(call, &before)?;
        let accounts_change =
            change.sso_administrators.is_some() || change.affiliate_administrators.is_some();
        if accounts_change && before.enabled {
            return Err(Error::new(
                Reason::SystemNotDisabled,
                "administrator accounts change only while the system is disabled; run `sso system disable` first",
            ));
        }
        if let Some(accounts) = &change.sso_administrators
            && !call.caller.is_in(accounts)
        {
            return Err(Error::new(
                Reason::CallerNotInAccounts,
                format!(
                    "{} would not be an SSO administrator any more; name a group you are in",
                    call.caller.account
                ),
            ));
        }
        let (after, parts) = changed(&before, change);
        after.check()?;
        if parts.is_empty() {
            return Ok(before);
        }
        transaction.update_system(&after, self.clock.now()).await?;
        let detail = parts.join(", ");
        self.commit(transaction, call, Action::SystemUpdate, &detail, after.clone()).await?;
        Ok(after)
    }

    /// Switches the system on or off; without effect where it is so already (ESSO.md 4.9).
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`.
    pub async fn set_enabled(&self, call: &Call, enabled: bool) -> Result<(), Error> {
        let action = if enabled { Action::SystemEnable } else { Action::SystemDisable };
        self.access.require(call, action)?;
        let mut transaction = self.storage.begin().await?;
        let mut global = transaction.lock_system().await?.ok_or_else(missing)?.global;
        require_still(call, &global)?;
        if global.enabled == enabled {
            return Ok(());
        }
        global.enabled = enabled;
        transaction.update_system(&global, self.clock.now()).await?;
        self.commit(transaction, call, action, "", global).await
    }

    /// The state of this server. Asks nothing of the database, so that it answers when that is away.
    ///
    /// # Errors
    /// None at present; every authenticated caller may ask.
    pub fn status(&self, call: &Call) -> Result<ServerStatus, Error> {
        self.access.require(call, Action::ServerStatus)?;
        Ok(ServerStatus {
            server: self.facts.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.facts.started_at,
            now: self.clock.now(),
            database: self.storage.dialect().as_str(),
            schema_version: self.facts.schema_version,
            enabled: self.access.global().enabled,
            master: self.master.status(),
            sso_administrator: self.access.is_sso_administrator(&call.caller),
            affiliate_administrator: self.access.is_affiliate_administrator(&call.caller),
        })
    }

    /// The servers of the system, each with whether it is online.
    ///
    /// # Errors
    /// As the storage.
    pub async fn servers(&self, call: &Call) -> Result<Vec<(ServerEntry, bool)>, Error> {
        self.access.require(call, Action::ServerList)?;
        let servers = self.storage.servers().await?;
        let now = self.clock.now();
        let online = |server: ServerEntry| {
            let online = now - server.last_seen_at <= ONLINE;
            (server, online)
        };
        Ok(servers.into_iter().map(online).collect())
    }

    /// Writes the row of this server, so that [`Self::servers`] of every server shows it, and prunes
    /// the news that everybody has read.
    ///
    /// # Errors
    /// As the storage.
    pub async fn report(&self) -> Result<(), Error> {
        let entry = ServerEntry {
            name: self.facts.name.clone(),
            address: self.facts.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.facts.started_at,
            last_seen_at: self.clock.now(),
            master_state: self.master.status().state.as_str().to_owned(),
        };
        let mut transaction = self.storage.begin().await?;
        transaction.report_server(&entry).await?;
        transaction.prune_changes(CHANGES_KEPT).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn commit(
        &self,
        mut transaction: Transaction,
        call: &Call,
        action: Action,
        detail: &str,
        global: GlobalInfo,
    ) -> Result<(), Error> {
        let subject = Subject { detail, ..Subject::default() };
        self.audit.record(&mut transaction, call, action, subject).await?;
        transaction.insert_change(Change::System, self.clock.now()).await?;
        transaction.commit().await?;
        self.access.adopt(global);
        self.changes.wake();
        Ok(())
    }
}

/// What this server remembers of the administrators may be older than what the database says.
fn require_still(call: &Call, global: &GlobalInfo) -> Result<(), Error> {
    if call.caller.is_in(&global.sso_administrators) {
        return Ok(());
    }
    let message = format!("{} is not an SSO administrator any more", call.caller.account);
    Err(Error::new(Reason::NotSsoAdministrator, message))
}

fn missing() -> Error {
    Error::new(
        Reason::Internal,
        "the database has lost the row of the system; restore it from a backup",
    )
}

fn changed(before: &GlobalInfo, change: GlobalInfoChange) -> (GlobalInfo, Vec<&'static str>) {
    let mut after = before.clone();
    let mut parts = Vec::new();
    let accounts = [
        ("sso_administrators", change.sso_administrators, &mut after.sso_administrators),
        (
            "affiliate_administrators",
            change.affiliate_administrators,
            &mut after.affiliate_administrators,
        ),
    ];
    for (part, given, place) in accounts {
        // The case of an account is worth a change, too.
        if let Some(given) = given.filter(|given| given.to_texts() != place.to_texts()) {
            *place = given;
            parts.push(part);
        }
    }
    let numbers = [
        (
            "audit_deleted_applications",
            change.audit_deleted_applications,
            &mut after.audit_deleted_applications,
        ),
        (
            "audit_deleted_mappings",
            change.audit_deleted_mappings,
            &mut after.audit_deleted_mappings,
        ),
        (
            "audit_credential_lookups",
            change.audit_credential_lookups,
            &mut after.audit_credential_lookups,
        ),
        ("ticket_timeout", change.ticket_timeout, &mut after.ticket_timeout),
        (
            "credential_cache_timeout",
            change.credential_cache_timeout,
            &mut after.credential_cache_timeout,
        ),
    ];
    for (part, given, place) in numbers {
        if let Some(number) = given.filter(|number| number != place) {
            *place = number;
            parts.push(part);
        }
    }
    (after, parts)
}
