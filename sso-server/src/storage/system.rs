//! The one row of the SSO system itself.

use sqlx::{
    any::{Any, AnyArguments, AnyRow},
    query::Query,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, json, micros},
};
use crate::model::{Accounts, GlobalInfo};

macro_rules! load {
    ($lock:literal) => {
        concat!(
            "SELECT system_id, keystore_id, sso_administrators, affiliate_administrators, ",
            "secret_server, audit_deleted_applications, audit_deleted_mappings, ",
            "audit_credential_lookups, ticket_timeout, credential_cache_timeout, enabled, ",
            "tickets_allowed, tickets_validated, host_initiated_allowed, trusted_hosts, ",
            "configuration_readers, auditors, updated_at FROM system WHERE id = 1",
            $lock
        )
    };
}
const LOAD: Statement = Statement::same(load!(""));
const LOAD_FOR_CHANGE: Statement =
    Statement { sqlite: load!(""), postgres: load!(" FOR NO KEY UPDATE") };
const INITIALISE: &str = "\
    INSERT INTO system (id, keystore_id, sso_administrators, affiliate_administrators, \
    secret_server, audit_deleted_applications, audit_deleted_mappings, audit_credential_lookups, \
    ticket_timeout, credential_cache_timeout, enabled, tickets_allowed, tickets_validated, \
    host_initiated_allowed, trusted_hosts, configuration_readers, auditors, updated_at, system_id) \
    VALUES (1, NULL, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (id) DO NOTHING";
const UPDATE: &str = "\
    UPDATE system SET sso_administrators = $1, affiliate_administrators = $2, secret_server = $3, \
    audit_deleted_applications = $4, audit_deleted_mappings = $5, audit_credential_lookups = $6, \
    ticket_timeout = $7, credential_cache_timeout = $8, enabled = $9, \
    tickets_allowed = $10, tickets_validated = $11, host_initiated_allowed = $12, \
    trusted_hosts = $13, configuration_readers = $14, auditors = $15, updated_at = $16 WHERE id = 1";
const BIND_KEYSTORE: &str = "UPDATE system SET keystore_id = $1, updated_at = CASE WHEN updated_at < $2 THEN $2 ELSE updated_at END WHERE id = 1 AND keystore_id IS NULL";

pub(super) const STATEMENTS: &[Statement] = &[
    LOAD,
    LOAD_FOR_CHANGE,
    Statement::same(INITIALISE),
    Statement::same(UPDATE),
    Statement::same(BIND_KEYSTORE),
];

/// The SSO system as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemRecord {
    /// Names this database for ever.
    pub id: Uuid,
    /// The keystore whose keys seal its values; `None` until a master first served it.
    pub keystore_id: Option<Uuid>,
    /// The settings of the system.
    pub global: GlobalInfo,
    /// When the row last changed.
    pub updated_at: OffsetDateTime,
}

impl Storage {
    /// The system; `None` while the database is new.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn system(&self) -> Result<Option<SystemRecord>, StorageError> {
        let rows = self.rows(|| sqlx::query(self.dialect().pick(&LOAD))).await?;
        rows.first().map(parse).transpose()
    }
}

impl Transaction {
    /// The system, held against changes by others until the end of this transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn lock_system(&mut self) -> Result<Option<SystemRecord>, StorageError> {
        let statement = self.dialect().pick(&LOAD_FOR_CHANGE);
        let rows = sqlx::query(statement).fetch_all(self.connection()).await?;
        rows.first().map(parse).transpose()
    }

    /// Writes the row of a new system; `false` when there is one already, and nothing is done. Of
    /// several servers that start at once exactly one gets `true`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn initialise_system(
        &mut self,
        global: &GlobalInfo,
        at: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        let done = with_settings(INITIALISE, global, at)
            .bind(Uuid::now_v7().to_string())
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes the settings of the system, the flag `enabled` included; `false` when the database is
    /// new. Read them with [`Self::lock_system`] first, or a change of another is lost.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn update_system(
        &mut self,
        global: &GlobalInfo,
        at: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        let done = with_settings(UPDATE, global, at).execute(self.connection()).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Binds the database to a keystore, once and for all; `false` when it is bound already, be it
    /// to the same one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn bind_keystore(
        &mut self,
        keystore_id: Uuid,
        at: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query(BIND_KEYSTORE)
            .bind(keystore_id.to_string())
            .bind(micros(at))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

/// A statement whose places 1 to 16 are the settings and the time.
fn with_settings<'q>(
    statement: &'static str,
    global: &'q GlobalInfo,
    at: OffsetDateTime,
) -> Query<'q, Any, AnyArguments> {
    sqlx::query(statement)
        .bind(json(&global.sso_administrators.to_texts()))
        .bind(json(&global.affiliate_administrators.to_texts()))
        .bind(&*global.secret_server)
        .bind(i64::from(global.audit_deleted_applications))
        .bind(i64::from(global.audit_deleted_mappings))
        .bind(i64::from(global.audit_credential_lookups))
        .bind(i64::from(global.ticket_timeout))
        .bind(i64::from(global.credential_cache_timeout))
        .bind(i64::from(global.enabled))
        .bind(i64::from(global.tickets_allowed))
        .bind(i64::from(global.tickets_validated))
        .bind(i64::from(global.host_initiated_allowed))
        .bind(json(&global.trusted_hosts.to_texts()))
        .bind(json(&global.configuration_readers.to_texts()))
        .bind(json(&global.auditors.to_texts()))
        .bind(micros(at))
}

fn parse(row: &AnyRow) -> Result<SystemRecord, StorageError> {
    let columns = Columns::named("system", row, "the only row");
    let accounts = |column: &str| {
        Accounts::parse(&columns.list(column)?)
            .map_err(|error| columns.corrupt(format!("column {column}: {error}")))
    };
    Ok(SystemRecord {
        id: columns.uuid("system_id")?,
        keystore_id: columns.optional_uuid("keystore_id")?,
        global: GlobalInfo {
            sso_administrators: accounts("sso_administrators")?,
            affiliate_administrators: accounts("affiliate_administrators")?,
            secret_server: columns.text("secret_server")?,
            audit_deleted_applications: columns.number("audit_deleted_applications")?,
            audit_deleted_mappings: columns.number("audit_deleted_mappings")?,
            audit_credential_lookups: columns.number("audit_credential_lookups")?,
            ticket_timeout: columns.number("ticket_timeout")?,
            credential_cache_timeout: columns.number("credential_cache_timeout")?,
            enabled: columns.flag("enabled")?,
            tickets_allowed: columns.flag("tickets_allowed")?,
            tickets_validated: columns.flag("tickets_validated")?,
            host_initiated_allowed: columns.flag("host_initiated_allowed")?,
            trusted_hosts: accounts("trusted_hosts")?,
            configuration_readers: accounts("configuration_readers")?,
            auditors: accounts("auditors")?,
        },
        updated_at: columns.time("updated_at")?,
    })
}
