//! Transactions: everything that writes goes through one.

use std::time::Duration;

use sqlx::{AnyConnection, any::Any};
use sso_core::clock::Clock;

use super::{Dialect, Storage, StorageError, Writers, group::Member};

pub(super) const STOPPING: &str = "the server is stopping";

/// A transaction open for longer is undone at its commit. The change feed waits for a missing
/// number longer than this and the limits of PostgreSQL statements together (see `changes`). On SQLite
/// one that was asked to commit waits for its group besides, which leaves no gap in the numbers.
pub(super) const LONGEST: Duration = Duration::from_secs(20);

/// A transaction that writes. Dropped without [`Transaction::commit`], it is undone.
#[must_use = "a transaction that is not committed is undone"]
pub struct Transaction {
    inner: Inner,
    clock: Clock,
    begun: Duration,
    /// The generation of the master secret that is held open.
    held_generation: Option<u32>,
}

enum Inner {
    Sqlite(Member),
    Postgres(sqlx::Transaction<'static, Any>),
}

impl Storage {
    /// Begins a transaction. On SQLite it is the only writer from here to its end, and shares its commit
    /// with others that wait behind it. While it is open, ask nothing of the storage itself: whoever
    /// holds one connection and waits for another can wait for ever when all do.
    ///
    /// # Errors
    /// `Overloaded` when too many wait already; `Unavailable` when no connection is free in time or the
    /// database does not answer.
    pub async fn begin(&self) -> Result<Transaction, StorageError> {
        self.begin_one(false).await
    }

    /// Begins a transaction that takes long: on SQLite nobody else waits for its commit.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn begin_long(&self) -> Result<Transaction, StorageError> {
        self.begin_one(true).await
    }

    async fn begin_one(&self, long: bool) -> Result<Transaction, StorageError> {
        let inner = match &self.writers {
            Writers::Sqlite(group, _) => Inner::Sqlite(group.begin(long).await?),
            Writers::Postgres(writers) => {
                let (place, writers) = (self.waiting.enter()?, writers.clone());
                let (text, losses) = (self.dialect().begin_write(), self.losses.clone());
                // A begin that is dropped half-way leaves the connection inside of a transaction that the
                // driver does not know of, and what the next one commits by a statement of its own would
                // be undone with it. So it goes on to its end, whoever waits for it, and is undone then.
                let begin = self.runtime.spawn(async move {
                    let _place = place;
                    match writers.begin_with(text).await {
                        // Nothing was done yet: another connection serves as well.
                        Err(error) if losses.note_if(&error) => writers.begin_with(text).await,
                        begun => begun,
                    }
                });
                let begun = begin.await;
                Inner::Postgres(begun.map_err(|_| StorageError::Unavailable(STOPPING.into()))??)
            }
        };
        let clock = self.clock.clone();
        let begun = clock.instant();
        Ok(Transaction { inner, clock, begun, held_generation: None })
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
        match self.inner {
            Inner::Sqlite(member) => member.commit().await,
            Inner::Postgres(inner) => Ok(inner.commit().await?),
        }
    }

    /// Undoes everything, and waits until that is done and what this transaction read is durable.
    ///
    /// # Errors
    /// `Unavailable` when the connection was lost; the database then undoes it by itself.
    pub async fn rollback(self) -> Result<(), StorageError> {
        match self.inner {
            Inner::Sqlite(member) => member.rollback().await,
            Inner::Postgres(inner) => Ok(inner.rollback().await?),
        }
    }

    /// Whether somebody waits for its end to write; on PostgreSQL nobody does.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        match &self.inner {
            Inner::Sqlite(member) => member.is_waited_for(),
            Inner::Postgres(_) => false,
        }
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        match &mut self.inner {
            Inner::Sqlite(member) => member.connection(),
            Inner::Postgres(inner) => inner,
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.inner {
            Inner::Sqlite(_) => Dialect::Sqlite,
            Inner::Postgres(_) => Dialect::Postgres,
        }
    }

    /// It took no number of a change so far: the limit is for what it does from here on.
    pub(super) fn restart_limit(&mut self) {
        self.begun = self.clock.instant();
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
        f.debug_struct("Transaction").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}
