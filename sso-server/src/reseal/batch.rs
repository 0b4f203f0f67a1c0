//! One batch: read, opened, sealed again, and written where nobody was faster. While it is written, the
//! next one is sealed, and the one behind that is read: database and cryptography work side by side.

use std::time::Duration;

use sso_core::clock::Clock;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    error::Error,
    storage::{ResealedRow, RowKey, SealedRow, SealedRows, SealedTable, Storage},
    vault::Resealing,
};

use super::lease::Lease;

/// Bytes of a batch behind which none is read before it is written.
const LARGE: usize = 16 * 1024 * 1024;

/// Which rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) table: SealedTable,
    /// The generation they are sealed under.
    pub(super) generation: u32,
    /// Behind this one.
    pub(super) after: Option<RowKey>,
    /// So many at the most.
    pub(super) rows: u32,
}

/// Rows that were read and sealed again, and are not written yet.
#[derive(Debug)]
pub(super) struct Prepared {
    wanted: Wanted,
    /// The generation they are sealed under now.
    active: u32,
    resealed: Vec<ResealedRow>,
    batch: Batch,
    /// The rows behind them.
    behind: Option<Reading>,
}

/// Rows that are being read.
#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    found: AbortOnDropHandle<Result<SealedRows, Error>>,
}

impl Reading {
    fn begin(wanted: Wanted, storage: &Storage) -> Self {
        let (storage, of) = (storage.clone(), wanted.clone());
        let found = tokio::spawn(async move {
            let Wanted { table, generation, ref after, rows } = of;
            Ok(storage.sealed_rows(table, Some(generation), after.as_ref(), rows).await?)
        });
        Self { wanted, found: AbortOnDropHandle::new(found) }
    }
}

/// Rows that are being prepared while those before them are written.
#[derive(Debug)]
pub(super) struct Ahead {
    wanted: Wanted,
    active: u32,
    preparing: AbortOnDropHandle<Result<Prepared, Error>>,
}

impl Ahead {
    /// Begins with these, and reads so many behind them.
    pub(super) fn begin(wanted: Wanted, rows: u32, storage: &Storage, keys: &Resealing) -> Self {
        Self::of(Reading::begin(wanted, storage), rows, storage, keys)
    }

    /// Goes on with the rows behind these, if any do and are being read, and reads so many behind them.
    pub(super) fn behind(
        prepared: &mut Prepared,
        rows: u32,
        storage: &Storage,
        keys: &Resealing,
    ) -> Option<Self> {
        prepared.behind.take().map(|reading| Self::of(reading, rows, storage, keys))
    }

    fn of(reading: Reading, rows: u32, storage: &Storage, keys: &Resealing) -> Self {
        let wanted = reading.wanted.clone();
        let preparing = prepare(reading, rows, storage.clone(), keys.clone());
        let preparing = AbortOnDropHandle::new(tokio::spawn(preparing));
        Self { wanted, active: keys.active(), preparing }
    }

    /// Whether these are the rows that are wanted, and no more of them.
    pub(super) fn serves(&self, wanted: &Wanted, active: u32) -> bool {
        let rows = wanted.rows.min(self.wanted.rows);
        self.active == active && self.wanted == (Wanted { rows, ..wanted.clone() })
    }

    /// Those rows.
    pub(super) async fn prepared(self) -> Result<Prepared, Error> {
        self.preparing.await.unwrap_or_else(|error| Err(broken(&error)))
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Rows that were looked at, those of other generations too.
    pub(super) seen: u32,
    /// Rows that were read.
    pub(super) read: u32,
    /// Rows that are sealed anew now.
    pub(super) written: u64,
    /// Rows that do not open, each with why.
    pub(super) failed: Vec<(String, String)>,
    /// The key of the last one, behind which there may be more.
    pub(super) next: Option<RowKey>,
    /// How long the transaction took.
    pub(super) took: Duration,
    /// Others waited at its end to write.
    pub(super) waited_for: bool,
    /// Another server has the work now; nothing was written.
    pub(super) lost: bool,
}

/// Seals rows again that are being read, and reads those behind them meanwhile if these are not so large that
/// several batches would fill the memory. What was changed before it is written, stays as it then is.
async fn prepare(
    reading: Reading,
    rows_behind: u32,
    storage: Storage,
    keys: Resealing,
) -> Result<Prepared, Error> {
    let Reading { wanted, found } = reading;
    let found = found.await.unwrap_or_else(|error| Err(broken(&error)))?;
    let small = found.rows.iter().map(|row| row.sealed.len()).sum::<usize>() <= LARGE;
    let behind = found.next.clone().filter(|_| small).map(|after| {
        let wanted = Wanted { after: Some(after), rows: rows_behind, ..wanted.clone() };
        Reading::begin(wanted, &storage)
    });
    let read = found.rows.len().saturating_add(found.damaged.len());
    let mut batch = Batch {
        seen: found.seen,
        read: u32::try_from(read).unwrap_or(u32::MAX),
        failed: found.damaged,
        next: found.next,
        ..Batch::default()
    };
    let active = keys.active();
    let sealed = tokio::task::spawn_blocking(move || seal(&keys, found.rows)).await;
    let (resealed, failed) = sealed.map_err(|error| broken(&error))?;
    batch.failed.extend(failed);
    Ok(Prepared { wanted, active, resealed, batch, behind })
}

/// Writes rows while the lease is held, which it renews.
pub(super) async fn write(
    storage: &Storage,
    clock: &Clock,
    lease: &Lease,
    prepared: Prepared,
) -> Result<Batch, Error> {
    let Prepared { wanted, active, resealed, mut batch, .. } = prepared;
    let mut transaction = storage.begin_long().await?;
    let began = clock.instant();
    if !lease.renew(&mut transaction, clock).await? {
        transaction.rollback().await?;
        batch.lost = true;
        return Ok(batch);
    }
    batch.written = transaction.reseal(wanted.table, active, &resealed).await?;
    batch.waited_for = transaction.is_waited_for();
    transaction.commit().await?;
    batch.took = clock.instant().saturating_sub(began);
    Ok(batch)
}

fn broken(error: &tokio::task::JoinError) -> Error {
    Error::new(sso_proto::Reason::Internal, format!("sealing again failed: {error}"))
}

fn seal(keys: &Resealing, rows: Vec<SealedRow>) -> (Vec<ResealedRow>, Vec<(String, String)>) {
    let (mut resealed, mut failed) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match keys.reseal(&row.owner, &row.sealed) {
            Ok(after) => resealed.push(ResealedRow { key: row.key, before: row.sealed, after }),
            Err(why) => failed.push((row.name(), why)),
        }
    }
    (resealed, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_ahead_serve_whoever_wants_as_many_of_the_same_or_more() {
        let wanted =
            Wanted { table: SealedTable::Credentials, generation: 1, after: None, rows: 100 };
        let preparing = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let ahead = Ahead { wanted: wanted.clone(), active: 2, preparing };
        let of = |rows| Wanted { rows, ..wanted.clone() };
        assert!(ahead.serves(&of(100), 2) && ahead.serves(&of(200), 2));
        assert!(!ahead.serves(&of(99), 2), "no more than are wanted now");
        assert!(!ahead.serves(&wanted, 3), "sealed under what is not active any more");
        for other in [
            Wanted { table: SealedTable::Revisions, ..wanted.clone() },
            Wanted { generation: 3, ..wanted.clone() },
        ] {
            assert!(!ahead.serves(&other, 2), "{other:?}");
        }
    }
}
