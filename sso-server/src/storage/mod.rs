//! The only rooms that speak SQL. Every statement is written once for SQLite and PostgreSQL; what
//! differs stands in [`Dialect`].
//!
//! Reads are methods of [`Storage`], writes are methods of [`Transaction`] and take effect when its
//! `commit` returned. What must be atomic is one statement whose row count decides; no
//! statement relies on more than reading what was committed before it.

mod applications;
mod audit;
mod audit_batches;
mod changes;
mod configurations;
mod connect;
mod dialect;
mod error;
mod generations;
mod mappings;
mod migrate;
mod principals;
mod rows;
mod sealed_rows;
mod server_settings;
mod servers;
mod system;
mod tickets;
mod transaction;
mod work_leases;

use std::fmt;

use sqlx::{AnyPool, any::Any, pool::PoolConnection};
use sso_core::clock::Clock;

pub use applications::ApplicationFilter;
pub use audit_batches::{AuditBatch, BatchFilter, BatchPosition};
pub use changes::{Change, ChangeFeed, ChangeRecord, NewChanges};
pub use configurations::{BumpedRevision, NewRevision, SealedRevision, StoredConfiguration};
pub use connect::{DatabaseSettings, DatabaseUrl};
pub use dialect::Dialect;
pub use error::StorageError;
pub use generations::{Admission, CloseOutcome, KnownGenerations, StoredGeneration};
pub use mappings::{MappingFilter, SealedCredentials, StoredMapping};
pub use sealed_rows::{
    OtherGenerations, ResealedRow, RowKey, SealedCount, SealedOwner, SealedRow, SealedRows,
    SealedTable,
};
pub use system::SystemRecord;
pub use transaction::Transaction;

/// The database of one SSO system. Clones share its connections.
#[derive(Clone)]
pub struct Storage {
    dialect: Dialect,
    readers: AnyPool,
    /// Connections of their own, so that writers that queue keep no reader waiting; one on SQLite, so
    /// that they queue here and not in the library's busy loop.
    writers: AnyPool,
    clock: Clock,
}

impl Storage {
    /// Which database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn ping(&self) -> Result<(), StorageError> {
        sqlx::query("SELECT 1").fetch_all(&mut *self.reader().await?).await?;
        Ok(())
    }

    /// Gives every connection back. Operations that begin later fail as `Unavailable`.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }

    /// Has the database parse every statement of this program against its schema; how many.
    ///
    /// # Errors
    /// `Statement` with the first one it does not accept.
    pub async fn check_statements(&self) -> Result<usize, StorageError> {
        let rooms = [
            applications::STATEMENTS,
            audit::STATEMENTS,
            audit_batches::STATEMENTS,
            changes::STATEMENTS,
            configurations::STATEMENTS,
            generations::STATEMENTS,
            mappings::STATEMENTS,
            principals::STATEMENTS,
            sealed_rows::STATEMENTS,
            server_settings::STATEMENTS,
            servers::STATEMENTS,
            system::STATEMENTS,
            tickets::STATEMENTS,
            work_leases::STATEMENTS,
        ];
        let texts = rooms.into_iter().flatten().map(|statement| self.dialect.pick(statement));
        let built = audit::built_statements()
            .into_iter()
            .chain(audit_batches::built_statements())
            .chain(mappings::built_statements(self.dialect))
            .chain(sealed_rows::built_statements(self.dialect));
        let mut connection = self.reader().await?;
        let mut count = 0;
        for text in texts.map(str::to_owned).chain(built) {
            let shown: String = text.chars().take(200).collect();
            let text = sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(text));
            sqlx::Executor::prepare(&mut *connection, text)
                .await
                .map_err(|error| StorageError::Statement(format!("{error} in: {shown}")))?;
            count += 1;
        }
        Ok(count)
    }

    async fn reader(&self) -> Result<PoolConnection<Any>, StorageError> {
        Ok(self.readers.acquire().await?)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pools know the password.
        f.debug_struct("Storage").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}
