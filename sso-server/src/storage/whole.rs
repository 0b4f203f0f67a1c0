//! Writes that are one statement: one way to the database and back, and no lock held meanwhile.

use sqlx::{
    any::{Any, AnyRow},
    query::Query,
};

use super::{
    Storage, StorageError, Writers,
    dialect::Whole,
    rows::{fold, micros},
    within,
};
use crate::model::AuditRecord;

/// A statement with its places filled.
pub(super) type Bound<'q> = Query<'q, Any, <Any as sqlx::Database>::Arguments>;

/// Inserts the audit record whose thirteen places are given, followed by where they come from.
macro_rules! insert_audit {
    ($places:literal) => {
        concat!(
            "INSERT INTO audit (at, id, server, request_id, caller, caller_key, action, application, ",
            "application_key, object, outcome, reason, detail) SELECT ",
            $places,
            " "
        )
    };
}
pub(super) use insert_audit;

/// Fills the thirteen places of an audit record.
pub(super) fn bind_audit<'q>(query: Bound<'q>, record: &'q AuditRecord) -> Bound<'q> {
    query
        .bind(micros(record.at))
        .bind(record.id.to_string())
        .bind(&*record.server)
        .bind(&*record.request_id)
        .bind(&*record.caller)
        .bind(fold(&record.caller))
        .bind(&*record.action)
        .bind(&*record.application)
        .bind(fold(&record.application))
        .bind(&*record.object)
        .bind(record.outcome.as_str())
        .bind(&*record.reason)
        .bind(&*record.detail)
}

impl Storage {
    /// Writes all of it or nothing, durably; the rows that it gave, and none where nothing was written.
    pub(super) async fn write_whole<'q>(
        &self,
        whole: &Whole,
        bind: impl Fn(&'static str) -> Bound<'q>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        match &self.writers {
            Writers::Sqlite(group, _) => {
                let (member, written) = group.run(&whole.sqlite, &bind).await?;
                // What was not written was perhaps because of a member before.
                if written.is_empty() { member.rollback().await } else { member.commit().await }?;
                Ok(written)
            }
            Writers::Postgres(writers) => {
                let mut connection = {
                    let _place = self.waiting.enter()?;
                    within(&self.runtime, writers.acquire()).await?
                };
                Ok(bind(whole.postgres).fetch_all(&mut *connection).await?)
            }
        }
    }
}
