//! Transactions: everything that writes goes through one.

use std::time::Duration;

use sqlx::{AnyConnection, any::Any};
use sso_core::clock::Clock;

use super::{Dialect, Storage, StorageError};

/// A transaction open for longer is undone at its commit. The change feed waits for a missing
/// number longer than this and the limits of PostgreSQL statements together (see `changes`).
pub(super) const LONGEST: Duration = Duration::from_secs(20);

/// A transaction that writes. Dropped without [`Transaction::commit`], it is undone.
#[must_use = "a transaction that is not committed is undone"]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    dialect: Dialect,
    clock: Clock,
    begun: Duration,
    /// The generation of the master secret that is held open.
    held_generation: Option<u32>,
}

impl Storage {
    /// Begins a transaction. On SQLite it is the only writer from here to its end. While it is open,
    /// ask nothing of the storage itself: whoever holds one connection and waits for another can wait
    /// for ever when all do.
    ///
    /// # Errors
    /// `Unavailable` when no connection is free in time or the database does not answer.
    pub async fn begin(&self) -> Result<Transaction, StorageError> {
        let inner = match self.writers.begin_with(self.dialect.begin_write()).await {
            // SQLite ends a transaction by itself when the disk is full. The driver counts it as open
            // for ever, so the connection is of no use any more.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writers.acquire().await?.close().await?;
                self.writers.begin_with(self.dialect.begin_write()).await?
            }
            begun => begun?,
        };
        let (clock, dialect) = (self.clock.clone(), self.dialect);
        let begun = clock.instant();
        Ok(Transaction { inner, dialect, clock, begun, held_generation: None })
    }
}

impl Transaction {
    /// Makes everything durable and visible. Only when this returned `Ok` is anything stored.
    ///
    /// # Errors
    /// `TooSlow` when the transaction was open for too long, and nothing was stored; `Unavailable`
    /// when the answer got lost, and it is not known whether it was stored.
    pub async fn commit(self) -> Result<(), StorageError> {
        if self.clock.instant().saturating_sub(self.begun) > LONGEST {
            self.rollback().await?;
            return Err(StorageError::TooSlow(LONGEST.as_secs()));
        }
        Ok(self.inner.commit().await?)
    }

    /// Undoes everything, and waits until that is done.
    ///
    /// # Errors
    /// `Unavailable` when the connection was lost; the database then undoes it by itself.
    pub async fn rollback(self) -> Result<(), StorageError> {
        Ok(self.inner.rollback().await?)
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn held_generation(&self) -> Option<u32> {
        self.held_generation
    }

    pub(super) fn note_held_generation(&mut self, generation: u32) {
        self.held_generation = Some(generation);
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}
