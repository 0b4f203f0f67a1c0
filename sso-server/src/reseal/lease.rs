//! The lease of the work: one server at a time seals again.

use std::time::Duration;

use sso_core::clock::Clock;

use crate::storage::{StorageError, Transaction};

/// The name of the work.
const NAME: &str = "reseal";
/// A server that is gone is followed after this.
const TTL: Duration = Duration::from_secs(10);

/// The work is this server's, as far as it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    holder: String,
    fencing: u64,
}

impl Lease {
    /// Takes the lease, unless another holds it.
    pub(super) async fn take(
        transaction: &mut Transaction,
        holder: &str,
        clock: &Clock,
    ) -> Result<Option<Self>, StorageError> {
        let fencing = transaction.take_work_lease(NAME, holder, TTL, clock.now()).await?;
        Ok(fencing.map(|fencing| Self { holder: holder.to_owned(), fencing }))
    }

    /// Holds the lease for the rest of the transaction and a while longer; `false` when it is another's.
    pub(super) async fn renew(
        &self,
        transaction: &mut Transaction,
        clock: &Clock,
    ) -> Result<bool, StorageError> {
        transaction.hold_work_lease(NAME, &self.holder, self.fencing, TTL, clock.now()).await
    }

    /// Gives it up.
    pub(super) async fn end(&self, transaction: &mut Transaction) -> Result<bool, StorageError> {
        transaction.end_work_lease(NAME, &self.holder, self.fencing).await
    }
}
