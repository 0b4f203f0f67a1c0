//! One batch: read, opened, sealed again, and written where nobody was faster.

use std::time::Duration;

use sso_core::clock::Clock;

use crate::{
    error::Error,
    storage::{ResealedRow, RowKey, SealedRow, SealedTable, Storage},
    vault::Resealing,
};

use super::lease::Lease;

/// Which rows.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) table: SealedTable,
    /// The generation they are sealed under.
    pub(super) generation: u32,
    /// Behind this one.
    pub(super) after: Option<RowKey>,
    /// So many at the most.
    pub(super) rows: u32,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
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
    /// Another server has the work now; nothing was written.
    pub(super) lost: bool,
}

/// Does one batch while the lease is held, which it renews.
pub(super) async fn run(
    storage: &Storage,
    clock: &Clock,
    lease: &Lease,
    keys: &Resealing,
    wanted: Wanted,
) -> Result<Batch, Error> {
    let Wanted { table, generation, after, rows } = wanted;
    let found = storage.sealed_rows(table, Some(generation), after.as_ref(), rows).await?;
    let read = found.rows.len().saturating_add(found.damaged.len());
    let mut batch = Batch {
        read: u32::try_from(read).unwrap_or(u32::MAX),
        failed: found.damaged,
        next: found.next,
        ..Batch::default()
    };
    let (active, sealing) = (keys.active(), keys.clone());
    let sealed = tokio::task::spawn_blocking(move || seal(&sealing, found.rows)).await;
    let (resealed, failed) = sealed.map_err(|error| {
        Error::new(sso_proto::Reason::Internal, format!("sealing again failed: {error}"))
    })?;
    batch.failed.extend(failed);
    let mut transaction = storage.begin().await?;
    let began = clock.instant();
    if !lease.renew(&mut transaction, clock).await? {
        transaction.rollback().await?;
        batch.lost = true;
        return Ok(batch);
    }
    batch.written = transaction.reseal(table, active, &resealed).await?;
    transaction.commit().await?;
    batch.took = clock.instant().saturating_sub(began);
    Ok(batch)
}

fn seal(keys: &Resealing, rows: Vec<SealedRow>) -> (Vec<ResealedRow>, Vec<(String, String)>) {
    let (mut resealed, mut failed) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match keys.reseal(&row.owner, &row.sealed) {
            Ok(after) => resealed.push(ResealedRow { key: row.key, before: row.sealed, after }),
            Err(why) => failed.push((row.name, why)),
        }
    }
    (resealed, failed)
}
