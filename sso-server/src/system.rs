//! The rules of the system as a whole: its settings, its switch, its servers (ESSO.md 7.1, 1.7).

use std::sync::Arc;

use sso_core::{
    clock::Clock,
    tls::{TlsReloader, TlsStatus},
};
use sso_proto::Reason;
use time::{Duration, OffsetDateTime};

use crate::{
    access::{Access, Action, Call},
    announce,
    audit::{Audit, Subject},
    changes::{Change, Changes},
    error::Error,
    identity::Identity,
    master::{MasterSecret, MasterStatus},
    model::{Account, Accounts, GlobalInfo, ServerEntry, ServerSettings},
    storage::{Storage, SystemRecord, Transaction},
    tickets,
};

/// A server that has not reported for longer is shown as offline.
const ONLINE: Duration = Duration::seconds(30);
/// Changes kept for servers that were away for a moment; the rest is pruned.
const CHANGES_KEPT: u32 = 100_000;
/// How often a report forgets some redeemed tickets at the most.
const PRUNINGS: u32 = 10;

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
    /// Tickets may be issued and redeemed.
    pub tickets_allowed: Option<bool>,
    /// Tickets are validated everywhere.
    pub tickets_validated: Option<bool>,
    /// External users may log on.
    pub host_initiated_allowed: Option<bool>,
    /// Believed about senders.
    pub trusted_hosts: Option<Accounts>,
    /// Read every configuration.
    pub configuration_readers: Option<Accounts>,
    /// Read every audit record.
    pub auditors: Option<Accounts>,
}

/// What is to change of the settings of one server; `None` keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerSettingsChange {
    /// 0 to 3.
    pub positive_audit_level: Option<u8>,
    /// 0 to 3.
    pub negative_audit_level: Option<u8>,
    /// Serve look-ups to other machines.
    pub remote_lookup: Option<bool>,
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
    /// The caller reads every configuration.
    pub configuration_reader: bool,
    /// The caller reads every audit record.
    pub auditor: bool,
    /// The caller is believed about senders.
    pub trusted_host: bool,
    /// What an administrator set for this server.
    pub settings: ServerSettings,
    /// Tickets may be issued and redeemed.
    pub tickets_allowed: bool,
    /// External users may log on.
    pub host_initiated_allowed: bool,
    /// Certificates and revocation lists.
    pub tls: TlsStatus,
    /// What to look at in them.
    pub tls_warnings: Vec<String>,
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
    /// Knows the groups.
    pub identity: Arc<Identity>,
    /// Tells the time.
    pub clock: Clock,
    /// Certificates, and whom to trust.
    pub tls: Arc<TlsReloader>,
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
    /// `NOT_SSO_ADMINISTRATOR`, `SYSTEM_NOT_DISABLED`, `CALLER_NOT_IN_ACCOUNTS`,
    /// `INDIVIDUAL_FOR_INDIVIDUAL`, `OUT_OF_RANGE`.
    pub async fn update(&self, call: &Call, change: GlobalInfoChange) -> Result<GlobalInfo, Error> {
        self.access.require(call, Action::SystemUpdate)?;
        let mut transaction = self.storage.begin().await?;
        let system = transaction.lock_system().await?.ok_or_else(missing)?;
        let (before, at) = (&system.global, self.next(&system));
        require_still(call, before)?;
        let accounts_change =
            change.sso_administrators.is_some() || change.affiliate_administrators.is_some();
        if accounts_change && before.enabled {
            return Err(Error::new(
                Reason::SystemNotDisabled,
                "administrator accounts change only while the system is disabled; run `sso system disable` first",
            ));
        }
        if let Some(accounts) = &change.sso_administrators {
            self.require_succession(call, &before.sso_administrators, accounts)?;
        }
        let (after, parts) = changed(before, change);
        after.check()?;
        if parts.is_empty() {
            return Ok(after);
        }
        transaction.update_system(&after, at).await?;
        let detail = parts.join(", ");
        let about = (Action::SystemUpdate, detail.as_str());
        self.commit(transaction, call, about, (after.clone(), at)).await?;
        if accounts_change {
            announce::individuals(&after, |account| self.identity.is_group(account));
        }
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
        let system = transaction.lock_system().await?.ok_or_else(missing)?;
        let at = self.next(&system);
        let mut global = system.global;
        require_still(call, &global)?;
        if global.enabled == enabled {
            return Ok(());
        }
        global.enabled = enabled;
        transaction.update_system(&global, at).await?;
        self.commit(transaction, call, (action, ""), (global, at)).await
    }

    /// Refuses SSO administrators without the caller, and an individual account in the place of
    /// another: a name that moves from person to person takes its role along (ESSO.md 2.1).
    fn require_succession(
        &self,
        call: &Call,
        before: &Accounts,
        after: &Accounts,
    ) -> Result<(), Error> {
        let caller = &call.caller;
        if !caller.is_in(after) {
            let message = format!(
                "{} would not be an SSO administrator any more; name a group you are in",
                caller.account
            );
            return Err(Error::new(Reason::CallerNotInAccounts, message));
        }
        let is_new = |account: &Account| before.iter().all(|other| other != account);
        if !after.iter().any(is_new) {
            return Ok(());
        }
        let stays = |account: &Account| {
            let own = *account == caller.account && caller.is_in(after);
            own || self.identity.as_known(account).is_some_and(|known| known.is_in(after))
        };
        let replaced = before.iter().find(|it| !self.identity.is_group(it) && !stays(it));
        replaced.map_or(Ok(()), |account| {
            let message = format!(
                "{account} is an individual SSO administrator: only a group that it is in takes its place"
            );
            Err(Error::new(Reason::IndividualForIndividual, message))
        })
    }

    /// The settings of the server of this name, and its name; an empty one is this server's.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`, `SERVER_NOT_FOUND`.
    pub async fn server_settings(
        &self,
        call: &Call,
        server: &str,
    ) -> Result<(String, ServerSettings), Error> {
        self.access.require(call, Action::ServerSettingsRead)?;
        let server = self.known_server(server).await?;
        let settings = self.storage.server_settings(&server).await?;
        Ok((server, settings))
    }

    /// Changes the settings of one server, which follows within one poll.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`, `SERVER_NOT_FOUND`, `OUT_OF_RANGE`.
    pub async fn update_server_settings(
        &self,
        call: &Call,
        server: &str,
        change: ServerSettingsChange,
    ) -> Result<(String, ServerSettings), Error> {
        self.access.require(call, Action::ServerSettingsUpdate)?;
        let server = self.known_server(server).await?;
        let mut transaction = self.storage.begin().await?;
        let system = transaction.lock_system().await?.ok_or_else(missing)?;
        require_still(call, &system.global)?;
        let before = transaction.lock_server_settings(&server).await?;
        let after = ServerSettings {
            positive_audit_level: change
                .positive_audit_level
                .unwrap_or(before.positive_audit_level),
            negative_audit_level: change
                .negative_audit_level
                .unwrap_or(before.negative_audit_level),
            remote_lookup: change.remote_lookup.unwrap_or(before.remote_lookup),
        };
        after.check()?;
        if after == before {
            return Ok((server, before));
        }
        let now = self.clock.now();
        transaction.write_server_settings(&server, &after, now).await?;
        let detail = format!(
            "audit levels {} {}, remote look-up {}",
            after.positive_audit_level,
            after.negative_audit_level,
            if after.remote_lookup { "yes" } else { "no" }
        );
        let subject = Subject { object: &server, detail: &detail, ..Subject::default() };
        let action = Action::ServerSettingsUpdate;
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.changes.commit(transaction, Some(call), Change::System, now).await?;
        Ok((server, after))
    }

    /// The name of a server that has reported itself; an empty one is this server's.
    async fn known_server(&self, server: &str) -> Result<String, Error> {
        if server.is_empty() || server == self.facts.name {
            return Ok(self.facts.name.clone());
        }
        let servers = self.storage.servers().await?;
        let known = servers.into_iter().find(|entry| entry.name == server);
        known.map(|entry| entry.name).ok_or_else(|| {
            let shown: String = server.chars().filter(|c| !c.is_control()).take(64).collect();
            let message = format!("there is no server \"{shown}\"; `sso server list` shows them");
            Error::new(Reason::ServerNotFound, message)
        })
    }

    /// The state of this server. Asks nothing of the database, so that it answers when that is away.
    ///
    /// # Errors
    /// None at present; every authenticated caller may ask.
    pub fn status(&self, call: &Call) -> Result<ServerStatus, Error> {
        self.access.require(call, Action::ServerStatus)?;
        let global = self.access.global();
        let sso_administrator = self.access.is_sso_administrator(&call.caller);
        let (tls, tls_warnings) = match sso_administrator {
            true => (self.tls.status(), self.tls.warnings()),
            false => (for_everybody(self.tls.status()), Vec::new()),
        };
        Ok(ServerStatus {
            server: self.facts.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.facts.started_at,
            now: self.clock.now(),
            database: self.storage.dialect().as_str(),
            schema_version: self.facts.schema_version,
            enabled: global.enabled,
            master: self.master.status(),
            sso_administrator,
            affiliate_administrator: self.access.is_affiliate_administrator(&call.caller),
            configuration_reader: self.access.is_configuration_reader(&call.caller),
            auditor: self.access.is_auditor(&call.caller),
            trusted_host: self.access.is_trusted_host(&call.caller),
            settings: self.access.server_settings(),
            tickets_allowed: global.tickets_allowed,
            host_initiated_allowed: global.host_initiated_allowed,
            tls,
            tls_warnings,
        })
    }

    /// Loads certificates, authorities and revocation lists of this server again, those of URLs too;
    /// gives its name, what is in use then, and what to look at there. Recorded before it is done.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`, `AUDIT_UNAVAILABLE`; `TLS_NOT_RELOADED` where something is not usable:
    /// what was in use stays in use.
    pub async fn reload_tls(&self, call: &Call) -> Result<(&str, TlsStatus, Vec<String>), Error> {
        self.access.require(call, Action::ServerReloadTls)?;
        let subject = Subject { object: &self.facts.name, detail: "ordered", ..Subject::default() };
        self.audit.order(call, Action::ServerReloadTls, subject).await?;
        let reloaded = self.tls.reload_all().await;
        let status =
            reloaded.map_err(|error| Error::new(Reason::TlsNotReloaded, error.to_string()))?;
        Ok((&self.facts.name, status, self.tls.warnings()))
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
    /// the news that everybody has read and redeemed tickets that have ended.
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
        let forgotten = self.clock.now() - tickets::REMEMBERED;
        for _ in 0..PRUNINGS {
            if transaction.prune_redeemed_tickets(forgotten).await? == 0 {
                break;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The time of a change, later than that of the one before whatever the clocks of two servers say:
    /// servers tell newer settings from older ones by it.
    fn next(&self, before: &SystemRecord) -> OffsetDateTime {
        self.clock.now().max(before.updated_at.saturating_add(Duration::MICROSECOND))
    }

    async fn commit(
        &self,
        mut transaction: Transaction,
        call: &Call,
        (action, detail): (Action, &str),
        (global, at): (GlobalInfo, OffsetDateTime),
    ) -> Result<(), Error> {
        let subject = Subject { detail, ..Subject::default() };
        self.audit.record(&mut transaction, call, action, subject).await?;
        self.changes.commit(transaction, Some(call), Change::System, self.clock.now()).await?;
        announce::system(call, &self.access.global(), &global);
        self.access.adopt(global, at);
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

/// What anybody learns of it who connects; nothing of files and addresses inside.
fn for_everybody(status: TlsStatus) -> TlsStatus {
    TlsStatus { last_failure: None, lists: Vec::new(), ..status }
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
        ("trusted_hosts", change.trusted_hosts, &mut after.trusted_hosts),
        ("configuration_readers", change.configuration_readers, &mut after.configuration_readers),
        ("auditors", change.auditors, &mut after.auditors),
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
    let switches = [
        ("tickets_allowed", change.tickets_allowed, &mut after.tickets_allowed),
        ("tickets_validated", change.tickets_validated, &mut after.tickets_validated),
        (
            "host_initiated_allowed",
            change.host_initiated_allowed,
            &mut after.host_initiated_allowed,
        ),
    ];
    for (part, given, place) in switches {
        if let Some(on) = given.filter(|on| on != place) {
            *place = on;
            parts.push(part);
        }
    }
    (after, parts)
}
