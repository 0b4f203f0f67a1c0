//! The record of every change, every reveal of a secret and every denial.
//!
//! The record of a change commits with the change. The record of a reveal or a denial goes to the
//! journal of this server: it is with the operating system before the answer leaves, and in the database
//! soon after. A record that cannot be taken refuses its request.

mod journal;
mod list;
mod record;
mod segment;
mod settings;
mod shipper;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use sso_core::{clock::Clock, serving::Records};
use sso_proto::Reason;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use settings::{AuditMode, AuditSection, AuditSettings};

use self::{
    journal::{Entry, Journal},
    shipper::Shipper,
};
use crate::{
    access::{Action, Call},
    error::Error,
    model::{AuditFilter, AuditOutcome, AuditRecord, Page, PageRequest},
    storage::{Storage, StorageError, Transaction},
};

/// How long a request waits for its record.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose records are written: the system, and the server of this name.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The id of the system; journals of other systems in the same folder are left alone.
    pub system: Uuid,
    /// The name of the server.
    pub server: &'a str,
}

/// Writes audit records, and lists them.
#[derive(Clone, Debug)]
pub struct Audit {
    server: Arc<str>,
    clock: Clock,
    storage: Storage,
    journal: Arc<Journal>,
    shipper: Arc<Shipper>,
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

/// The task that brings the records of reveals and denials into the database.
#[derive(Debug)]
pub struct AuditWriter {
    shipper: Arc<Shipper>,
}

impl Audit {
    /// An audit, with its journal in the folder of the settings, and the task that must be run for it.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: the folder cannot be used; the message names it.
    pub fn open(
        writer: Writer<'_>,
        settings: &AuditSettings,
        clock: Clock,
        storage: Storage,
    ) -> Result<(Self, AuditWriter), Error> {
        let server: Arc<str> = writer.server.into();
        let journal = Journal::open(settings, writer.system, Arc::clone(&server), clock.clone())
            .map_err(|why| Error::new(Reason::AuditUnavailable, why))?;
        let shipper = Shipper::new(Arc::clone(&journal), storage.clone(), clock.clone());
        let shipper = Arc::new(shipper);
        let task = AuditWriter { shipper: Arc::clone(&shipper) };
        Ok((Self { server, clock, storage, journal, shipper }, task))
    }

    /// What answers rest on: none leaves before the operating system has its record.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        Arc::<Journal>::clone(&self.journal)
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
        let records: Vec<_> =
            subjects.iter().map(|subject| self.describe(call, action, *subject)).collect();
        let inserted = transaction.insert_audit(&records).await;
        inserted.map_err(|error| unavailable(&error.to_string()))
    }

    /// The record of a change, for a statement that writes it with the change.
    #[must_use]
    pub fn entry(&self, call: &Call, action: Action, subject: Subject<'_>) -> AuditRecord {
        self.describe(call, action, subject)
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
        let request_id = Uuid::now_v7().to_string();
        let record = self.row(request_id, &self.server, action, subject);
        let inserted = transaction.insert_audit(&[record]).await;
        inserted.map_err(|error| unavailable(&error.to_string()))
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
        let record = self.describe(call, action, subject);
        let written = async {
            let mut transaction = self.storage.begin().await?;
            transaction.insert_audit(&[record]).await?;
            transaction.commit().await
        };
        let late = |_| unavailable("the database did not take it within 5 seconds");
        let written = tokio::time::timeout(PATIENCE, written).await.map_err(late);
        let written = written.and_then(|written: Result<(), StorageError>| {
            written.map_err(|error| unavailable(&error.to_string()))
        });
        written.inspect_err(lost)
    }

    /// Records that a secret is about to be revealed, before it is. With `audit.mode = "journal"` this
    /// never waits.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: the secret must not be revealed.
    pub async fn reveal(
        &self,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        self.write(call, action, subject, (AuditOutcome::Done, "")).await
    }

    /// Refuses at once where the journal is known to take nothing, so that nothing is used up for a reveal.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`.
    pub fn require_reveals(&self) -> Result<(), Error> {
        self.journal.takes().map_err(|why| unavailable(&why)).inspect_err(lost)
    }

    /// Records that a request was denied ([`Reason::is_denial`]). It is refused either way, so that a
    /// record which cannot be written is only logged.
    pub async fn denied(&self, call: &Call, action: Action, subject: Subject<'_>, reason: Reason) {
        let ended = (AuditOutcome::Denied, reason.as_str());
        if let Err(lost) = self.write(call, action, subject, ended).await {
            tracing::error!(%call, error = %lost, "a denial could not be audited");
        }
    }

    /// The records of all servers, newest first. Everything that this server recorded before is among
    /// them, while the database takes it; what others recorded is within a second.
    ///
    /// # Errors
    /// As the storage.
    pub async fn list(
        &self,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, Error> {
        self.settle().await;
        Ok(list::list(&self.storage, filter, page).await?)
    }

    /// Brings into the database what this server recorded before. Who lists may do so although the
    /// database takes nothing.
    pub async fn settle(&self) {
        let settled = tokio::time::timeout(PATIENCE, self.shipper.ship()).await;
        let settled = settled.unwrap_or(Err(shipper::ShipError::Late));
        if let Err(error) = settled {
            tracing::warn!(%error, "the newest audit records of this server are not in the list");
        }
    }

    fn describe(&self, call: &Call, action: Action, subject: Subject<'_>) -> AuditRecord {
        self.row(call.request_id.to_string(), call.caller.account.as_str(), action, subject)
    }

    fn row(
        &self,
        request_id: String,
        caller: &str,
        action: Action,
        subject: Subject<'_>,
    ) -> AuditRecord {
        AuditRecord {
            id: Uuid::now_v7(),
            at: self.clock.now(),
            server: self.server.as_ref().to_owned(),
            request_id,
            caller: caller.to_owned(),
            action: action.as_str().to_owned(),
            application: subject.application.to_owned(),
            object: subject.object.to_owned(),
            outcome: AuditOutcome::Done,
            reason: String::new(),
            detail: subject.detail.to_owned(),
        }
    }

    async fn write(
        &self,
        call: &Call,
        action: Action,
        subject: Subject<'_>,
        (outcome, reason): (AuditOutcome, &str),
    ) -> Result<(), Error> {
        let taken = self.journal.append(Entry {
            request_id: call.request_id,
            outcome,
            caller: call.caller.account.as_str(),
            action: action.as_str(),
            application: subject.application,
            object: subject.object,
            reason,
            detail: subject.detail,
        });
        let written = match (taken, self.journal.mode()) {
            (Ok(()), AuditMode::Durable) => {
                let late = |_| Err("the disk did not take it within 5 seconds".to_owned());
                // Apart, so that it takes no room in the other mode.
                let durable = tokio::time::timeout(PATIENCE, self.journal.durable());
                Box::pin(durable).await.unwrap_or_else(late)
            }
            (taken, _) => taken,
        };
        written.map_err(|why| unavailable(&why)).inspect_err(lost)
    }
}

impl AuditWriter {
    /// Brings what is recorded until `stop`, then what is left. What the database does not take then
    /// stays in the journal for the next start.
    pub async fn run(self, stop: CancellationToken) {
        self.shipper.run(stop).await;
    }
}

fn lost(_: &Error) {
    metrics::counter!("sso_audit_failures_total").increment(1);
}

fn unavailable(why: &str) -> Error {
    Error::new(
        Reason::AuditUnavailable,
        format!(
            "the audit record of this request cannot be written: {why}; nothing was changed or revealed"
        ),
    )
}
