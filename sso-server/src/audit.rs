//! The record of every change, every reveal of a secret and every denial.
//!
//! The record of a change commits with the change. The record of a reveal commits before the
//! answer leaves: requests that reveal at the same time share one transaction. A record that cannot
//! be written in time refuses its request.

use std::{sync::Arc, time::Duration};

use sso_core::clock::Clock;
use sso_proto::Reason;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::{Action, Call},
    error::Error,
    model::{AuditOutcome, AuditRecord},
    storage::{Storage, Transaction},
};

/// Requests that wait for their record at the most; beyond it requests are refused.
const WAITING: usize = 4096;
/// Records written in one transaction at the most.
const BATCH: usize = 256;
/// How long a request waits for its record.
const PATIENCE: Duration = Duration::from_secs(5);

struct Waiting {
    record: AuditRecord,
    written: oneshot::Sender<Result<(), Error>>,
}

/// Writes audit records.
#[derive(Clone, Debug)]
pub struct Audit {
    server: Arc<str>,
    clock: Clock,
    queue: mpsc::Sender<Waiting>,
}

/// What an audit record is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Name of the application; empty where there is none.
    pub application: &'a str,
    /// What of it.
    pub object: &'a str,
    /// Labels and numbers, never a value.
    pub detail: &'a str,
}

/// The task that writes the records of reveals and denials.
#[derive(Debug)]
pub struct AuditWriter {
    storage: Storage,
    queue: mpsc::Receiver<Waiting>,
}

impl Audit {
    /// An audit for the server of this name, and the task that must be run for it.
    #[must_use]
    pub fn new(server: &str, clock: Clock, storage: Storage) -> (Self, AuditWriter) {
        let (sender, queue) = mpsc::channel(WAITING);
        (Self { server: server.into(), clock, queue: sender }, AuditWriter { storage, queue })
    }

    /// Records a change inside its own transaction.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: the change must then not be committed.
    pub async fn record(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        self.record_all(transaction, call, action, &[subject]).await
    }

    /// Records many changes of one kind inside their own transaction.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub async fn record_all(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        action: Action,
        subjects: &[Subject<'_>],
    ) -> Result<(), Error> {
        let record =
            |subject: &Subject<'_>| self.describe(call, action, *subject, AuditOutcome::Done, "");
        let records: Vec<_> = subjects.iter().map(record).collect();
        let inserted = transaction.insert_audit(&records).await;
        inserted.map_err(|error| unavailable(&error.to_string()))
    }

    /// The record of a change, for a statement that writes it with the change.
    #[must_use]
    pub fn entry(&self, call: &Call, action: Action, subject: Subject<'_>) -> AuditRecord {
        self.describe(call, action, subject, AuditOutcome::Done, "")
    }

    /// Records a change that this server makes by itself, inside its own transaction: the caller is
    /// the name of the server.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: the change must then not be committed.
    pub async fn record_own(
        &self,
        transaction: &mut Transaction,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        let record = AuditRecord {
            id: Uuid::now_v7(),
            at: self.clock.now(),
            server: self.server.as_ref().to_owned(),
            request_id: Uuid::now_v7().to_string(),
            caller: self.server.as_ref().to_owned(),
            action: action.as_str().to_owned(),
            application: subject.application.to_owned(),
            object: subject.object.to_owned(),
            outcome: AuditOutcome::Done,
            reason: String::new(),
            detail: subject.detail.to_owned(),
        };
        let inserted = transaction.insert_audit(&[record]).await;
        inserted.map_err(|error| unavailable(&error.to_string()))
    }

    /// Records that a secret is about to be revealed, durably, before it is.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: the secret must not be revealed.
    pub async fn reveal(
        &self,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        self.write(self.describe(call, action, subject, AuditOutcome::Done, "")).await
    }

    /// Records that this server is about to do something, durably, before it does: what it does leaves no
    /// change in the database that the record could commit with.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: it must not be done.
    pub async fn order(
        &self,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        self.reveal(call, action, subject).await
    }

    /// Records that a request was denied ([`Reason::is_denial`]). It is refused either way, so that a
    /// record which cannot be written is only logged.
    pub async fn denied(&self, call: &Call, action: Action, subject: Subject<'_>, reason: Reason) {
        let record = self.describe(call, action, subject, AuditOutcome::Denied, reason.as_str());
        if let Err(lost) = self.write(record).await {
            tracing::error!(%call, error = %lost, "a denial could not be audited");
        }
    }

    fn describe(
        &self,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
        outcome: AuditOutcome,
        reason: &str,
    ) -> AuditRecord {
        AuditRecord {
            id: Uuid::now_v7(),
            at: self.clock.now(),
            server: self.server.as_ref().to_owned(),
            request_id: call.request_id.to_string(),
            caller: call.caller.account.as_str().to_owned(),
            action: action.as_str().to_owned(),
            application: subject.application.to_owned(),
            object: subject.object.to_owned(),
            outcome,
            reason: reason.to_owned(),
            detail: subject.detail.to_owned(),
        }
    }

    async fn write(&self, record: AuditRecord) -> Result<(), Error> {
        let (written, wait) = oneshot::channel();
        let queued = async {
            self.queue
                .send(Waiting { record, written })
                .await
                .map_err(|_| unavailable("the server is stopping"))?;
            wait.await.map_err(|_| unavailable("the server is stopping"))?
        };
        tokio::time::timeout(PATIENCE, queued)
            .await
            .unwrap_or_else(|_| Err(unavailable("the database did not take it within 5 seconds")))
    }
}

impl AuditWriter {
    /// Writes what is queued until `stop`, then what is still queued.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(&mut batch).await;
                }
                () = stop.cancelled() => {
                    self.queue.close();
                    while self.queue.recv_many(&mut batch, BATCH).await > 0 {
                        self.write(&mut batch).await;
                    }
                    return;
                }
            }
        }
    }

    async fn write(&self, batch: &mut Vec<Waiting>) {
        let (records, waiting): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.record, waiting.written)).unzip();
        let result = tokio::time::timeout(PATIENCE, self.insert(&records))
            .await
            .unwrap_or_else(|_| Err(unavailable("the database did not take it within 5 seconds")));
        if let Err(error) = &result {
            tracing::error!(%error, records = records.len(), "audit records are lost with their requests");
            metrics::counter!("sso_audit_failures_total").increment(1);
        }
        for written in waiting {
            // A caller that gave up meanwhile has been refused already.
            let _ = written.send(result.clone());
        }
    }

    async fn insert(&self, records: &[AuditRecord]) -> Result<(), Error> {
        let attempt = async {
            let mut transaction = self.storage.begin().await?;
            transaction.insert_audit(records).await?;
            transaction.commit().await
        };
        attempt.await.map_err(|error: crate::storage::StorageError| unavailable(&error.to_string()))
    }
}

fn unavailable(why: &str) -> Error {
    Error::new(
        Reason::AuditUnavailable,
        format!(
            "the audit record of this request cannot be written: {why}; nothing was changed or revealed"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Account, Caller, Proof};

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_recorded_is_refused_in_bounded_time() {
        let (queue, waiting) = mpsc::channel(WAITING);
        let audit = Audit { server: "sso-server-1".into(), clock: Clock::System, queue };
        let account = Account::parse("D\\user").unwrap();
        let groups = std::collections::BTreeMap::new();
        let caller = Caller::new(account, groups, Proof::Certificate).into();
        let call = Call { caller, request_id: Uuid::nil(), local: true };
        // Nobody writes, then nobody ever will.
        let began = tokio::time::Instant::now();
        let late =
            audit.reveal(&call, Action::ConfigurationReveal, Subject::default()).await.unwrap_err();
        assert_eq!((late.reason, began.elapsed()), (Reason::AuditUnavailable, PATIENCE));
        drop(waiting);
        let gone =
            audit.reveal(&call, Action::ConfigurationReveal, Subject::default()).await.unwrap_err();
        assert_eq!((gone.reason, began.elapsed()), (Reason::AuditUnavailable, PATIENCE));
    }
}
