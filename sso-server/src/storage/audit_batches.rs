//! Batches of audit records: appended, read, never changed. What is in them is the matter of the audit.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, any::AnyRow};
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, clean, stored},
};

const TABLE: &str = "audit_batches";
const INSERT: &str = "\
    INSERT INTO audit_batches (segment, first_offset, last_offset, server, first_at, last_at, \
    entries, application_keys, caller_keys, records) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const SHIPPED: &str =
    "SELECT MAX(last_offset) AS last_offset FROM audit_batches WHERE segment = $1";
const LIST: &str = "\
    SELECT segment, first_offset, last_offset, server, first_at, last_at, entries, records \
    FROM audit_batches WHERE last_at <= $1 AND first_at <= $2 AND last_at >= $3";
const ORDER: &str = " ORDER BY last_at DESC, segment DESC, first_offset DESC LIMIT ";

pub(super) const STATEMENTS: &[Statement] = &[Statement::same(INSERT), Statement::same(SHIPPED)];

/// The statements that are put together from parts, one of each shape.
pub(super) fn built_statements() -> Vec<String> {
    let key = || Some(String::new());
    let everything =
        BatchFilter { application_key: key(), caller_key: key(), ..BatchFilter::all() };
    let after = BatchPosition { last_at: 0, segment: Uuid::nil(), first_offset: 0 };
    vec![list(&everything, Some(after), 1).0, list(&BatchFilter::all(), None, 1).0]
}

/// Records of one server, a piece of one file of its journal. Times are microseconds since the Unix
/// epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditBatch {
    /// The file.
    pub segment: Uuid,
    /// Where the records begin in the file.
    pub first_offset: u64,
    /// Where they end.
    pub last_offset: u64,
    /// Who wrote them.
    pub server: String,
    /// The time of the earliest record.
    pub first_at: i64,
    /// The time of the latest.
    pub last_at: i64,
    /// How many there are.
    pub entries: u64,
    /// Canonical keys of all applications that are named, unless there are many. Not read back.
    pub application_keys: Option<Vec<String>>,
    /// Canonical keys of all callers, unless there are many. Not read back.
    pub caller_keys: Option<Vec<String>>,
    /// The records, encoded.
    pub records: Vec<u8>,
}

/// Which batches may hold what is searched for. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFilter {
    /// Only batches that end at this time or before.
    pub last_at_most: i64,
    /// Only batches with a record of this time or before.
    pub until: i64,
    /// Only batches with a record of this time or later.
    pub since: i64,
    /// Canonical key of an application.
    pub application_key: Option<String>,
    /// Canonical key of an account.
    pub caller_key: Option<String>,
}

/// The place of a batch in their list, which begins with the one that ends last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPosition {
    /// As in the batch.
    pub last_at: i64,
    /// As in the batch.
    pub segment: Uuid,
    /// As in the batch.
    pub first_offset: u64,
}

impl BatchFilter {
    /// Every batch.
    #[must_use]
    pub fn all() -> Self {
        let (last_at_most, until, since) = (i64::MAX, i64::MAX, i64::MIN);
        Self { last_at_most, until, since, application_key: None, caller_key: None }
    }
}

impl AuditBatch {
    /// Its place.
    #[must_use]
    pub fn position(&self) -> BatchPosition {
        let Self { last_at, segment, first_offset, .. } = *self;
        BatchPosition { last_at, segment, first_offset }
    }

    /// The error of a batch that does not hold what it was written with.
    #[must_use]
    pub fn damaged(&self, what: &str) -> StorageError {
        let row = format!("{}, {}", self.segment, self.first_offset);
        StorageError::Corrupt { table: TABLE, row, what: what.to_owned() }
    }
}

impl Storage {
    /// Up to which byte a file of a journal is in the database; `None` where nothing of it is.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn audit_shipped(&self, segment: Uuid) -> Result<Option<u64>, StorageError> {
        let rows = self.rows(|| sqlx::query(SHIPPED).bind(segment.to_string())).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Columns::named(TABLE, row, segment.to_string()).optional_number("last_offset")
    }

    /// Batches in the order of their places, so many at the most, behind the given one.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn audit_batches(
        &self,
        filter: &BatchFilter,
        after: Option<BatchPosition>,
        most: u32,
    ) -> Result<Vec<AuditBatch>, StorageError> {
        let (text, binds) = list(filter, after, most);
        let text = AssertSqlSafe(text).into_sql_str();
        let query = || {
            binds.iter().fold(sqlx::query(text.clone()), |query, bind| match bind {
                Bind::Text(text) => query.bind(text.clone()),
                Bind::Number(number) => query.bind(*number),
            })
        };
        let rows = self.rows(query).await?;
        rows.iter().map(parse).collect()
    }
}

impl Transaction {
    /// Appends a batch.
    ///
    /// # Errors
    /// `Unavailable`; `Statement` where a batch of this place is there already.
    pub async fn insert_audit_batch(&mut self, batch: &AuditBatch) -> Result<(), StorageError> {
        let keys = |keys: &Option<Vec<String>>| keys.as_deref().map(joined);
        sqlx::query(INSERT)
            .bind(batch.segment.to_string())
            .bind(stored(batch.first_offset))
            .bind(stored(batch.last_offset))
            .bind(clean(&batch.server))
            .bind(batch.first_at)
            .bind(batch.last_at)
            .bind(stored(batch.entries))
            .bind(keys(&batch.application_keys))
            .bind(keys(&batch.caller_keys))
            .bind(&*batch.records)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

/// Stands before and behind each key.
const BETWEEN: char = '\u{1f}';

fn joined(keys: &[String]) -> String {
    let mut text = String::from(BETWEEN);
    for key in keys {
        text.push_str(&clean(key));
        text.push(BETWEEN);
    }
    text
}

/// The pattern of texts of [`joined`] that hold this key. It may find more.
fn pattern(key: &str) -> String {
    let mut pattern = format!("%{BETWEEN}");
    for c in clean(key).chars() {
        if "!%_".contains(c) {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push(BETWEEN);
    pattern.push('%');
    pattern
}

enum Bind {
    Text(String),
    Number(i64),
}

/// The statement of a list, of constant parts and numbered places only, and what goes there.
fn list(filter: &BatchFilter, after: Option<BatchPosition>, most: u32) -> (String, Vec<Bind>) {
    let mut text = LIST.to_owned();
    let mut binds =
        [filter.last_at_most, filter.until, filter.since].map(Bind::Number).into_iter().collect();
    let and = |text: &mut String, binds: &mut Vec<Bind>, part: &'static str, bind: Bind| {
        binds.push(bind);
        // Writing to a String cannot fail.
        let _ = write!(text, "{part}${}", binds.len());
    };
    let keys = [
        (" AND (application_keys IS NULL OR application_keys LIKE ", &filter.application_key),
        (" AND (caller_keys IS NULL OR caller_keys LIKE ", &filter.caller_key),
    ];
    for (part, key) in keys {
        if let Some(key) = key {
            and(&mut text, &mut binds, part, Bind::Text(pattern(key)));
            text.push_str(" ESCAPE '!')");
        }
    }
    if let Some(BatchPosition { last_at, segment, first_offset }) = after {
        let part = " AND (last_at, segment, first_offset) < (";
        and(&mut text, &mut binds, part, Bind::Number(last_at));
        and(&mut text, &mut binds, ", ", Bind::Text(segment.to_string()));
        and(&mut text, &mut binds, ", ", Bind::Number(stored(first_offset)));
        text.push(')');
    }
    and(&mut text, &mut binds, ORDER, Bind::Number(i64::from(most)));
    (text, binds)
}

fn parse(row: &AnyRow) -> Result<AuditBatch, StorageError> {
    let segment = Columns::of(TABLE, row).uuid("segment")?;
    let columns = Columns::named(TABLE, row, segment.to_string());
    Ok(AuditBatch {
        segment,
        first_offset: columns.number("first_offset")?,
        last_offset: columns.number("last_offset")?,
        server: columns.text("server")?,
        first_at: columns.signed("first_at")?,
        last_at: columns.signed("last_at")?,
        entries: columns.number("entries")?,
        application_keys: None,
        caller_keys: None,
        records: columns.bytes("records")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_number_their_places_in_order() {
        let after = BatchPosition { last_at: 1, segment: Uuid::nil(), first_offset: 2 };
        let key = Some("a%".to_owned());
        let filter = BatchFilter { caller_key: key, ..BatchFilter::all() };
        let (text, binds) = list(&filter, Some(after), 3);
        assert!(text.contains("caller_keys LIKE $4 ESCAPE '!') AND (last_at, segment, first_offset) < ($5, $6, $7)"), "{text}");
        assert!(text.ends_with("LIMIT $8") && binds.len() == 8, "{text}");
        assert_eq!(pattern("a%_!b"), "%\u{1f}a!%!_!!b\u{1f}%");
    }
}
