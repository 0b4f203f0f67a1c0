//! The servers that share the database.

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, micros},
};
use crate::model::ServerEntry;

const UPSERT: &str = "\
    INSERT INTO servers (name, address, version, started_at, last_seen_at, master_state) \
    VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT (name) DO UPDATE SET address = excluded.address, version = excluded.version, \
    started_at = excluded.started_at, last_seen_at = excluded.last_seen_at, \
    master_state = excluded.master_state";
const LIST: &str = "\
    SELECT name, address, version, started_at, last_seen_at, master_state FROM servers \
    ORDER BY name LIMIT 1000";

pub(super) const STATEMENTS: &[Statement] = &[Statement::same(UPSERT), Statement::same(LIST)];

impl Storage {
    /// All servers by name, gone ones included; the first 1000.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn servers(&self) -> Result<Vec<ServerEntry>, StorageError> {
        let rows = self.rows(|| sqlx::query(LIST)).await?;
        rows.iter()
            .map(|row| {
                let name = Columns::of("servers", row).text("name")?;
                let columns = Columns::named("servers", row, name.clone());
                Ok(ServerEntry {
                    name,
                    address: columns.text("address")?,
                    version: columns.text("version")?,
                    started_at: columns.time("started_at")?,
                    last_seen_at: columns.time("last_seen_at")?,
                    master_state: columns.text("master_state")?,
                })
            })
            .collect()
    }
}

impl Transaction {
    /// Writes the report of a server over its last one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn report_server(&mut self, server: &ServerEntry) -> Result<(), StorageError> {
        sqlx::query(UPSERT)
            .bind(&*server.name)
            .bind(&*server.address)
            .bind(&*server.version)
            .bind(micros(server.started_at))
            .bind(micros(server.last_seen_at))
            .bind(&*server.master_state)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
