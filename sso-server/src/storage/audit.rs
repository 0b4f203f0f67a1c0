//! Audit records of changes, one in a row: appended, listed, never changed. Those of reveals and denials
//! are in `audit_batches`.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, any::AnyRow};
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, Value, clean, cut, fill, fold, micros},
};
use crate::model::{AuditFilter, AuditOutcome, AuditPosition, AuditRecord, Page, PageRequest};

const TABLE: &str = "audit";
/// How many records one statement writes.
const BATCH: usize = 32;
/// How many places a record fills.
pub(super) const COLUMNS: usize = 13;
/// To be followed by where the [`values`] come from.
pub(super) const INTO: &str = "\
    INSERT INTO audit (at, id, server, request_id, caller, caller_key, action, application, \
    application_key, object, outcome, reason, detail)";
const LIST: &str = "\
    SELECT id, at, server, request_id, caller, action, application, object, outcome, reason, \
    detail FROM audit WHERE 1 = 1";
const ORDER: &str = " ORDER BY at DESC, id DESC LIMIT ";

pub(super) const STATEMENTS: &[Statement] = &[];

/// The statements that are put together from parts, one of each shape.
pub(super) fn built_statements() -> Vec<String> {
    let everything = AuditFilter {
        application_key: Some(String::new()),
        caller_key: Some(String::new()),
        action: Some("noun.".to_owned()),
        since: Some(time::OffsetDateTime::UNIX_EPOCH),
        until: Some(time::OffsetDateTime::UNIX_EPOCH),
        outcome: Some(AuditOutcome::Done),
    };
    let exact = AuditFilter { action: Some("noun.verb".to_owned()), ..AuditFilter::default() };
    vec![
        insert(1),
        insert(BATCH),
        list(&everything, Some(AuditPosition { at: 0, id: Uuid::nil() }), 1).0,
        list(&exact, None, 1).0,
    ]
}

impl Storage {
    /// The audit records that are rows of their own, newest first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`. A page that begins behind no record of this list is empty.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StorageError> {
        let after = match &page.after {
            None => None,
            Some(after) => match AuditPosition::parse(after) {
                Some(position) => Some(position),
                None => return Ok(Page { entries: Vec::new(), next: None }),
            },
        };
        let (text, binds) = list(filter, after, page.size);
        let text = AssertSqlSafe(text).into_sql_str();
        let rows = self.rows(|| binds.iter().fold(sqlx::query(text.clone()), fill)).await?;
        let records = rows.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(cut(records, page, |record| AuditPosition::of(record).to_string()))
    }
}

impl Transaction {
    /// Appends records.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn insert_audit(&mut self, records: &[AuditRecord]) -> Result<(), StorageError> {
        for records in records.chunks(BATCH) {
            let mut query = sqlx::query(AssertSqlSafe(insert(records.len())).into_sql_str());
            for record in records {
                query = values(record).iter().fold(query, fill);
            }
            query.execute(self.connection()).await?;
        }
        Ok(())
    }
}

/// What goes into the places of a record.
pub(super) fn values(record: &AuditRecord) -> [Value<'_>; COLUMNS] {
    [
        Value::Number(micros(record.at)),
        Value::text(record.id.to_string()),
        Value::text(&record.server),
        Value::text(&record.request_id),
        Value::text(&record.caller),
        Value::text(fold(&record.caller)),
        Value::text(&record.action),
        Value::text(&record.application),
        Value::text(fold(&record.application)),
        Value::text(&record.object),
        Value::text(record.outcome.as_str()),
        Value::text(&record.reason),
        Value::text(&record.detail),
    ]
}

/// The statement that writes this many records.
fn insert(records: usize) -> String {
    let mut text = format!("{INTO} VALUES ");
    for number in 1..=records * COLUMNS {
        let column = (number - 1) % COLUMNS;
        let open = match (number, column) {
            (1, _) => "(",
            (_, 0) => ", (",
            _ => ", ",
        };
        let close = if column + 1 == COLUMNS { ")" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{open}${number}{close}");
    }
    text
}

/// The statement of a list, of constant parts and numbered places only, and what goes there.
fn list(
    filter: &AuditFilter,
    after: Option<AuditPosition>,
    size: u32,
) -> (String, Vec<Value<'static>>) {
    let mut text = LIST.to_owned();
    let mut binds = Vec::new();
    let mut and = |part: &'static str, bind: Value<'static>| {
        binds.push(bind);
        // Writing to a String cannot fail.
        let _ = write!(text, "{part}${}", binds.len());
    };
    if let Some(key) = &filter.application_key {
        and(" AND application_key = ", Value::text(clean(key)));
    }
    if let Some(key) = &filter.caller_key {
        and(" AND caller_key = ", Value::text(clean(key)));
    }
    match filter.action.as_deref() {
        None => {}
        // All actions of a noun: the character behind the dot in byte order ends the range.
        Some(noun) if noun.ends_with('.') => {
            and(" AND action > ", Value::text(clean(noun)));
            and(
                " AND action < ",
                Value::text(clean(&format!("{}/", noun.strip_suffix('.').unwrap_or(noun)))),
            );
        }
        Some(action) => and(" AND action = ", Value::text(clean(action))),
    }
    if let Some(since) = filter.since {
        and(" AND at >= ", Value::Number(micros(since)));
    }
    if let Some(until) = filter.until {
        and(" AND at < ", Value::Number(micros(until)));
    }
    if let Some(outcome) = filter.outcome {
        and(" AND outcome = ", Value::text(outcome.as_str().to_owned()));
    }
    if let Some(AuditPosition { at, id }) = after {
        and(" AND (at, id) < (", Value::Number(at));
        and(", ", Value::text(id.to_string()));
    }
    let close = if after.is_some() { ")" } else { "" };
    binds.push(Value::Number(i64::from(size) + 1));
    // Writing to a String cannot fail.
    let _ = write!(text, "{close}{ORDER}${}", binds.len());
    (text, binds)
}

fn parse(row: &AnyRow) -> Result<AuditRecord, StorageError> {
    let id = Columns::of(TABLE, row).uuid("id")?;
    let columns = Columns::named(TABLE, row, id.to_string());
    Ok(AuditRecord {
        id,
        at: columns.time("at")?,
        server: columns.text("server")?,
        request_id: columns.text("request_id")?,
        caller: columns.text("caller")?,
        action: columns.text("action")?,
        application: columns.text("application")?,
        object: columns.text("object")?,
        outcome: columns
            .parse("outcome", |word| AuditOutcome::parse(word).ok_or("an unknown outcome"))?,
        reason: columns.text("reason")?,
        detail: columns.text("detail")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_number_their_places_in_order() {
        assert!(insert(1).ends_with("($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"));
        assert!(insert(2).contains("$13), ($14, "));
        let (text, binds) =
            list(&AuditFilter::default(), Some(AuditPosition { at: 7, id: Uuid::nil() }), 10);
        assert!(text.ends_with("AND (at, id) < ($1, $2) ORDER BY at DESC, id DESC LIMIT $3"));
        assert_eq!(binds.len(), 3);
    }
}
