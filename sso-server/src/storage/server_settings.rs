//! What administrators set for single servers.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, clean, micros},
};
use crate::model::ServerSettings;

macro_rules! load {
    ($lock:literal) => {
        concat!(
            "SELECT positive_audit_level, negative_audit_level, remote_lookup ",
            "FROM server_settings WHERE server = $1",
            $lock
        )
    };
}
const LOAD: &str = load!("");
const LOCK: Statement = Statement { sqlite: load!(""), postgres: load!(" FOR NO KEY UPDATE") };
const UPSERT: &str = "\
    INSERT INTO server_settings (server, positive_audit_level, negative_audit_level, \
    remote_lookup, updated_at) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (server) DO UPDATE SET positive_audit_level = excluded.positive_audit_level, \
    negative_audit_level = excluded.negative_audit_level, \
    remote_lookup = excluded.remote_lookup, updated_at = excluded.updated_at";

pub(super) const STATEMENTS: &[Statement] = &[Statement::same(LOAD), LOCK, Statement::same(UPSERT)];

impl Storage {
    /// The settings of the server of this name; the defaults where nothing was set.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn server_settings(&self, server: &str) -> Result<ServerSettings, StorageError> {
        let rows = self.rows(|| sqlx::query(LOAD).bind(clean(server))).await?;
        parse(server, rows.first())
    }
}

impl Transaction {
    /// The settings of the server of this name, held against changes by others where there are any.
    /// Where nothing was set yet there is no row to hold: writers hold the system first
    /// ([`Self::lock_system`]).
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn lock_server_settings(
        &mut self,
        server: &str,
    ) -> Result<ServerSettings, StorageError> {
        let statement = self.dialect().pick(&LOCK);
        let query = sqlx::query(statement).bind(clean(server));
        let rows = query.fetch_all(self.connection()).await?;
        parse(server, rows.first())
    }

    /// Writes the settings of one server.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn write_server_settings(
        &mut self,
        server: &str,
        settings: &ServerSettings,
        at: OffsetDateTime,
    ) -> Result<(), StorageError> {
        sqlx::query(UPSERT)
            .bind(server)
            .bind(i64::from(settings.positive_audit_level))
            .bind(i64::from(settings.negative_audit_level))
            .bind(i64::from(settings.remote_lookup))
            .bind(micros(at))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn parse(server: &str, row: Option<&AnyRow>) -> Result<ServerSettings, StorageError> {
    let Some(row) = row else { return Ok(ServerSettings::default()) };
    let columns = Columns::named("server_settings", row, server);
    let settings = ServerSettings {
        positive_audit_level: columns.number("positive_audit_level")?,
        negative_audit_level: columns.number("negative_audit_level")?,
        remote_lookup: columns.flag("remote_lookup")?,
    };
    settings.check().map_err(|error| columns.corrupt(error.to_string()))?;
    Ok(settings)
}
