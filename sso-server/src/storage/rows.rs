//! Between rows and nouns: reading columns without trusting them, writing times, flags and lists.

use std::borrow::Cow;

use sqlx::{Decode, Row as _, Type, ValueRef as _, any::Any, any::AnyRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StorageError, whole::Bound};
use crate::model::{Page, PageRequest, canonical};

/// One row of one table. Whatever does not parse becomes [`StorageError::Corrupt`].
pub(super) struct Columns<'r> {
    table: &'static str,
    row: &'r AnyRow,
    name: String,
}

impl<'r> Columns<'r> {
    pub(super) fn of(table: &'static str, row: &'r AnyRow) -> Self {
        Self { table, row, name: String::new() }
    }

    /// As [`Self::of`], with what names the row in errors.
    pub(super) fn named(table: &'static str, row: &'r AnyRow, name: impl Into<String>) -> Self {
        Self { table, row, name: name.into() }
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> StorageError {
        let row = if self.name.is_empty() { "unnamed".to_owned() } else { self.name.clone() };
        StorageError::Corrupt { table: self.table, row, what: what.into() }
    }

    fn read<T>(&self, column: &str) -> Result<T, StorageError>
    where
        T: Decode<'r, Any> + Type<Any>,
    {
        self.row.try_get(column).map_err(|error| {
            if matches!(error, sqlx::Error::ColumnNotFound(_)) {
                return StorageError::Statement(format!("the result has no column {column}"));
            }
            // The error of the driver can quote the value; the column is enough.
            self.corrupt(format!("column {column} is empty or of another type"))
        })
    }

    pub(super) fn text(&self, column: &str) -> Result<String, StorageError> {
        self.read(column)
    }

    pub(super) fn optional_text(&self, column: &str) -> Result<Option<String>, StorageError> {
        self.read(column)
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, StorageError> {
        self.read(column)
    }

    pub(super) fn optional_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(column)
    }

    /// Nothing stands in this column of the row.
    pub(super) fn is_null(&self, column: &str) -> bool {
        self.row.try_get_raw(column).is_ok_and(|value| value.is_null())
    }

    pub(super) fn signed(&self, column: &str) -> Result<i64, StorageError> {
        self.read(column)
    }

    /// A number that is not negative and fits the type asked for.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StorageError> {
        let number: i64 = self.read(column)?;
        T::try_from(number)
            .map_err(|_| self.corrupt(format!("column {column} holds {number}, out of range")))
    }

    pub(super) fn optional_number<T: TryFrom<i64>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StorageError> {
        let number: Option<i64> = self.read(column)?;
        let Some(number) = number else { return Ok(None) };
        T::try_from(number)
            .map(Some)
            .map_err(|_| self.corrupt(format!("column {column} holds {number}, out of range")))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, StorageError> {
        match self.signed(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(format!("column {column} holds {other}, not 0 or 1"))),
        }
    }

    pub(super) fn time(&self, column: &str) -> Result<OffsetDateTime, StorageError> {
        self.moment(column, self.signed(column)?)
    }

    pub(super) fn optional_time(
        &self,
        column: &str,
    ) -> Result<Option<OffsetDateTime>, StorageError> {
        let micros: Option<i64> = self.read(column)?;
        micros.map(|micros| self.moment(column, micros)).transpose()
    }

    fn moment(&self, column: &str, micros: i64) -> Result<OffsetDateTime, StorageError> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
            .map_err(|_| self.corrupt(format!("column {column} holds no time")))
    }

    pub(super) fn uuid(&self, column: &str) -> Result<Uuid, StorageError> {
        self.parse(column, |text| Uuid::try_parse(text).map_err(|_| "not a UUID"))
    }

    pub(super) fn optional_uuid(&self, column: &str) -> Result<Option<Uuid>, StorageError> {
        let Some(text) = self.optional_text(column)? else { return Ok(None) };
        Uuid::try_parse(&text)
            .map(Some)
            .map_err(|_| self.corrupt(format!("column {column}: not a UUID")))
    }

    /// A text list kept as JSON.
    pub(super) fn list(&self, column: &str) -> Result<Vec<String>, StorageError> {
        self.parse(column, |text| serde_json::from_str(text).map_err(|_| "not a list of texts"))
    }

    /// What `parse` makes of a text.
    pub(super) fn parse<T, E: std::fmt::Display>(
        &self,
        column: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, StorageError> {
        let text = self.text(column)?;
        parse(&text).map_err(|error| self.corrupt(format!("column {column}: {error}")))
    }
}

/// What goes into a place of a statement.
pub(super) enum Value<'q> {
    Number(i64),
    Bytes(&'q [u8]),
    Text(Cow<'q, str>),
}

impl<'q> Value<'q> {
    pub(super) fn text(text: impl Into<Cow<'q, str>>) -> Self {
        Self::Text(text.into())
    }
}

/// Fills the next place.
pub(super) fn fill<'q>(query: Bound<'q>, value: &Value<'q>) -> Bound<'q> {
    match value {
        Value::Number(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(*bytes),
        Value::Text(Cow::Borrowed(text)) => query.bind(*text),
        Value::Text(Cow::Owned(text)) => query.bind(text.clone()),
    }
}

/// Microseconds since the Unix epoch; times too far away for them do not occur.
pub(super) fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// A list as it is stored.
pub(super) fn json(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

/// A revision or another count as it is stored.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The form of free text under which case does not matter, the same on every database and the same
/// as of names.
pub(super) fn fold(text: &str) -> String {
    clean(&canonical(text))
}

/// What a client asks for, as any database takes it: PostgreSQL refuses the character 0, and no
/// stored text has it.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Cuts a page out of what was read with a limit of one entry more than it holds.
pub(super) fn cut<T>(
    mut entries: Vec<T>,
    page: &PageRequest,
    key: impl FnOnce(&T) -> String,
) -> Page<T> {
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    if entries.len() <= size {
        return Page { entries, next: None };
    }
    entries.truncate(size);
    let next = entries.last().map(key);
    Page { entries, next }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn micros_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(micros(datetime!(1970-01-01 0:00:00.000_001_9 UTC)), 1);
        assert_eq!(micros(datetime!(1969-12-31 23:59:59.999_999_9 UTC)), -1);
    }

    #[test]
    fn a_page_names_its_last_entry_only_when_more_follow() {
        let page = PageRequest { size: 2, after: None };
        let cut = |entries| {
            let page = cut(entries, &page, i32::to_string);
            (page.entries, page.next)
        };
        assert_eq!(cut(vec![1, 2]), (vec![1, 2], None));
        assert_eq!(cut(vec![1, 2, 3]), (vec![1, 2], Some("2".to_owned())));
    }
}
