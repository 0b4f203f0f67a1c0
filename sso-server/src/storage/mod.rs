//! The only rooms that speak SQL. Every statement is written once for SQLite and PostgreSQL; what
//! differs stands in [`Dialect`].
//!
//! Reads are methods of [`Storage`], writes are methods of [`Transaction`] and take effect when its
//! `commit` returned. What must be atomic is one statement whose row count decides; no
//! statement relies on more than reading what was committed before it.

mod applications;
mod audit;
mod audit_batches;
mod batches;
mod changes;
mod configurations;
mod connect;
mod dialect;
mod error;
mod generations;
mod group;
mod losses;
mod mappings;
mod migrate;
mod next_revisions;
mod notices;
#[cfg(test)]
mod plans;
mod principals;
mod resealed_rows;
mod rows;
mod sealed_rows;
mod server_settings;
mod servers;
mod sweeps;
mod system;
mod tickets;
mod transaction;
mod whole;
mod work_leases;

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{AnyPool, any::Any, pool::PoolConnection};
use sso_core::clock::Clock;
use tokio::runtime::Handle;

use self::{
    group::{Group, MOST_WAITING},
    losses::Losses,
};

pub use applications::ApplicationFilter;
pub use audit_batches::{AuditBatch, BatchFilter, BatchPosition};
pub use changes::{Change, ChangeFeed, ChangeRecord, NewChanges};
pub use configurations::{BumpedRevision, NewRevision, SealedRevision, StoredConfiguration};
pub use connect::{DatabaseSettings, DatabaseUrl};
pub use dialect::Dialect;
pub use error::StorageError;
pub use generations::{Admission, CloseOutcome, KnownGenerations, StoredGeneration};
pub use mappings::{MappingFilter, SealedCredentials, StoredMapping};
pub use resealed_rows::ResealedRow;
pub use sealed_rows::{RowKey, SealedOwner, SealedRow, SealedRows, SealedTable};
pub use sweeps::{OtherGenerations, SealedCount};
pub use system::SystemRecord;
pub use transaction::Transaction;

/// The database of one SSO system. Clones share its connections.
#[derive(Clone)]
pub struct Storage {
    readers: AnyPool,
    writers: Writers,
    /// Writers of PostgreSQL that wait for a connection.
    waiting: Waiting,
    /// Connections belong to the runtime that opened the database, whoever asks for them: others come
    /// and go.
    runtime: Handle,
    clock: Clock,
    losses: Losses,
    /// Where servers tell each other that something changed.
    notices: Option<notices::Notices>,
    batches: Arc<batches::Batches>,
}

/// Connections of their own, so that writers that queue keep no reader waiting.
#[derive(Clone)]
enum Writers {
    /// One, so that they queue here and not in the library's busy loop.
    Sqlite(Group, AnyPool),
    Postgres(AnyPool),
}

impl Writers {
    fn pool(&self) -> &AnyPool {
        match self {
            Self::Sqlite(_, pool) | Self::Postgres(pool) => pool,
        }
    }
}

/// Counts who waits.
#[derive(Clone, Default)]
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// Counted until it is dropped.
    fn enter(&self) -> Result<impl Sized + Send + use<>, StorageError> {
        let count = Arc::clone(&self.0);
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = scopeguard::guard(count, |count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if before >= MOST_WAITING { Err(StorageError::Overloaded) } else { Ok(place) }
    }
}

/// Runs a future so that whatever it opens or spawns belongs to this runtime.
async fn within<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

impl Storage {
    /// Which database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.writers {
            Writers::Sqlite(..) => Dialect::Sqlite,
            Writers::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn ping(&self) -> Result<(), StorageError> {
        self.rows(|| sqlx::query("SELECT 1")).await.map(drop)
    }

    /// Gives every connection back. Operations that begin later fail as `Unavailable`.
    pub async fn close(&self) {
        if let Some(notices) = &self.notices {
            notices.close().await;
        }
        self.readers.close().await;
        self.writers.pool().close().await;
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
            sweeps::STATEMENTS,
            system::STATEMENTS,
            tickets::STATEMENTS,
            work_leases::STATEMENTS,
        ];
        let texts = rooms.into_iter().flatten().map(|statement| self.dialect().pick(statement));
        let built = audit::built_statements()
            .into_iter()
            .chain(audit_batches::built_statements())
            .chain(batches::built_statements(self.dialect()))
            .chain(mappings::built_statements(self.dialect()))
            .chain(next_revisions::built_statements(self.dialect()))
            .chain(resealed_rows::built_statements(self.dialect()))
            .chain(tickets::built_statements(self.dialect()));
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
        Ok(within(&self.runtime, self.readers.acquire()).await?)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pools know the password.
        f.debug_struct("Storage").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}
