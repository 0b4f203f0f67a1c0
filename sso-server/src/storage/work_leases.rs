//! Work that one server at a time does: taken for a while, renewed with every step of it. Whoever takes
//! it over raises the fencing number, so that what a holder does who is not one any more is undone.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, micros, stored},
};

const TABLE: &str = "work_leases";
/// A lease that ends later than this was taken by a clock that was wrong, and counts as ended.
const LONGEST: Duration = Duration::from_secs(60);

const TAKE: &str = "\
    INSERT INTO work_leases (name, holder, fencing, expires_at) VALUES ($1, $2, 1, $3) \
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, \
    fencing = work_leases.fencing + 1, expires_at = excluded.expires_at \
    WHERE work_leases.expires_at <= $4 OR work_leases.expires_at > $5 RETURNING fencing";
const HOLD: &str = "\
    UPDATE work_leases SET expires_at = $1 WHERE name = $2 AND holder = $3 AND fencing = $4";

pub(super) const STATEMENTS: &[Statement] = &[Statement::same(TAKE), Statement::same(HOLD)];

impl Transaction {
    /// Takes the lease of this work, unless another holds it; the fencing number to hold it by.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn take_work_lease(
        &mut self,
        name: &str,
        holder: &str,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Option<u64>, StorageError> {
        let rows = sqlx::query(TAKE)
            .bind(name)
            .bind(holder)
            .bind(micros(now + ttl))
            .bind(micros(now))
            .bind(micros(now + LONGEST))
            .fetch_all(self.connection())
            .await?;
        rows.first().map(|row| Columns::named(TABLE, row, name).number("fencing")).transpose()
    }

    /// Holds the lease from now for another while, and against others until the end of this transaction;
    /// `false` when another has taken it: undo this transaction then.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn hold_work_lease(
        &mut self,
        name: &str,
        holder: &str,
        fencing: u64,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        self.set_end(name, holder, fencing, micros(now + ttl)).await
    }

    /// Gives the lease up, so that others need not wait for its end; `false` when another has it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn end_work_lease(
        &mut self,
        name: &str,
        holder: &str,
        fencing: u64,
    ) -> Result<bool, StorageError> {
        self.set_end(name, holder, fencing, 0).await
    }

    async fn set_end(
        &mut self,
        name: &str,
        holder: &str,
        fencing: u64,
        end: i64,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query(HOLD)
            .bind(end)
            .bind(name)
            .bind(holder)
            .bind(stored(fencing))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
