//! Sealed values replaced by the same values sealed anew: any number of rows in one statement, each where
//! nobody was faster.

use std::{collections::HashSet, fmt::Write as _};

use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{
    Dialect, RowKey, SealedTable, StorageError, Transaction, error::is_lock_timeout,
    sealed_rows::key,
};

/// Replaces any number of values in PostgreSQL: keys and places come as lists in one text each, marks of the
/// values before and values as one run of bytes, so that the statement is prepared once.
macro_rules! replace_lists {
    ($table:literal, $lists:literal, $names:literal, $same:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " k SET sealed = substring(CAST($3 AS BYTEA) FROM v.place + v.prefix FOR v.size), ",
            "generation = $1 FROM unnest(string_to_array($2, ','), ",
            "CAST(string_to_array($4, ',') AS INTEGER[]), ",
            "CAST(string_to_array($5, ',') AS INTEGER[]), ",
            "CAST(string_to_array($6, ',') AS INTEGER[])",
            $lists,
            ") AS v (id, place, prefix, size",
            $names,
            ") WHERE ",
            $same,
            " AND substring(k.sealed FROM 1 FOR 64) = substring(CAST($3 AS BYTEA) FROM v.place FOR v.prefix)"
        )
    };
}
const REPLACE_REVISIONS: &str = replace_lists!(
    "configuration_revisions",
    ", CAST(string_to_array($7, ',') AS BIGINT[])",
    ", revision",
    "k.configuration_id = v.id AND k.revision = v.revision"
);
const REPLACE_CREDENTIALS: &str = replace_lists!("mappings", "", "", "k.id = v.id");
/// Holds those of the rows that nobody else holds.
const HOLD_REVISIONS: &str = "SELECT k.configuration_id, k.revision \
    FROM unnest(string_to_array($1, ','), CAST(string_to_array($2, ',') AS BIGINT[])) \
    AS v (id, revision) JOIN configuration_revisions k \
    ON k.configuration_id = v.id AND k.revision = v.revision FOR NO KEY UPDATE OF k SKIP LOCKED";
const HOLD_CREDENTIALS: &str = "SELECT k.id FROM unnest(string_to_array($1, ',')) AS v (id) \
    JOIN mappings k ON k.id = v.id FOR NO KEY UPDATE OF k SKIP LOCKED";
/// No disk is waited for: a row that a crash takes back is sealed again once more. What is noted or closed
/// because nothing is left is waited for, and all that was committed before lasts with it. A row that another
/// holds is waited for a moment only, as that one may wait for rows that this transaction holds: PostgreSQL
/// looks for such a circle after a second. The limit is set behind the savepoint, and gone with what is undone.
const BEFORE_REPLACING: &str = "SET LOCAL synchronous_commit = off; SAVEPOINT replacing; \
    SET LOCAL lock_timeout = '20ms'";
const GO_BACK: &str = "ROLLBACK TO SAVEPOINT replacing";
/// So much of a sealed value tells it from every other one: the random bits that it is sealed with are
/// in its first 40 bytes.
const PREFIX: usize = 64;
/// Bytes of values in one statement of PostgreSQL, about; one message to it holds less than 1 GiB.
const STATEMENT: usize = 32 * 1024 * 1024;

/// The statements that are put together from parts.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::Sqlite => SealedTable::ALL.map(|table| sqlite_statement(table, 2)).into(),
        Dialect::Postgres => {
            let texts = [REPLACE_REVISIONS, REPLACE_CREDENTIALS, HOLD_REVISIONS, HOLD_CREDENTIALS];
            texts.map(str::to_owned).into()
        }
    }
}

/// A value that was sealed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResealedRow {
    /// Of this row.
    pub key: RowKey,
    /// The bytes that were there: a row with others was changed meanwhile and stays.
    pub before: Vec<u8>,
    /// The bytes to be there.
    pub after: Vec<u8>,
}

impl ResealedRow {
    /// What tells the value before from every other one.
    fn mark(&self) -> &[u8] {
        self.before.get(..PREFIX).unwrap_or(&self.before)
    }
}

impl Transaction {
    /// Replaces values of one table by the same sealed under this generation; how many. Rows that were
    /// changed meanwhile, or that another transaction is changing, stay as they are. The last thing of its
    /// transaction: on PostgreSQL what follows waits no more than a moment for a row, and its commit for no disk.
    ///
    /// # Errors
    /// `GenerationClosed`; `Unavailable`.
    pub async fn reseal(
        &mut self,
        table: SealedTable,
        generation: u32,
        rows: &[ResealedRow],
    ) -> Result<u64, StorageError> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.hold_generation(generation).await?;
        match self.dialect() {
            Dialect::Sqlite => Ok(self.replace_in_sqlite(table, generation, rows).await?),
            Dialect::Postgres => {
                sqlx::raw_sql(BEFORE_REPLACING).execute(self.connection()).await?;
                let rows: Vec<_> = rows.iter().collect();
                match self.replace_in_postgres(table, generation, &rows).await {
                    Err(error) if is_lock_timeout(&error) => {}
                    replaced => return Ok(replaced?),
                }
                sqlx::raw_sql(GO_BACK).execute(self.connection()).await?;
                let held = self.hold_free_rows(table, &rows).await?;
                Ok(self.replace_in_postgres(table, generation, &held).await?)
            }
        }
    }

    async fn replace_in_sqlite(
        &mut self,
        table: SealedTable,
        generation: u32,
        rows: &[ResealedRow],
    ) -> sqlx::Result<u64> {
        let text = AssertSqlSafe(sqlite_statement(table, rows.len())).into_sql_str();
        let mut query = sqlx::query(text).bind(i64::from(generation));
        for row in rows {
            query = query.bind(&*row.key.id);
            if table == SealedTable::Revisions {
                query = query.bind(row.key.revision);
            }
            query = query.bind(row.mark()).bind(&*row.after);
        }
        Ok(query.execute(self.connection()).await?.rows_affected())
    }

    /// In as few statements as they fit in. Waits for rows that others hold.
    async fn replace_in_postgres(
        &mut self,
        table: SealedTable,
        generation: u32,
        rows: &[&ResealedRow],
    ) -> sqlx::Result<u64> {
        let mut replaced = 0;
        for rows in portions(rows) {
            let lists = Lists::of(rows);
            let mut query = sqlx::query(postgres_statement(table))
                .bind(i64::from(generation))
                .bind(lists.ids)
                .bind(lists.bytes)
                .bind(lists.places)
                .bind(lists.prefixes)
                .bind(lists.sizes);
            if table == SealedTable::Revisions {
                query = query.bind(lists.revisions);
            }
            replaced += query.execute(self.connection()).await?.rows_affected();
        }
        Ok(replaced)
    }

    /// Those of the rows that nobody else holds, which this transaction does from here on.
    async fn hold_free_rows<'a>(
        &mut self,
        table: SealedTable,
        rows: &[&'a ResealedRow],
    ) -> Result<Vec<&'a ResealedRow>, StorageError> {
        let (mut ids, mut revisions) = (String::new(), String::new());
        for row in rows {
            add(&mut ids, &row.key.id);
            add(&mut revisions, row.key.revision);
        }
        let query = match table {
            SealedTable::Revisions => sqlx::query(HOLD_REVISIONS).bind(ids).bind(revisions),
            SealedTable::Credentials => sqlx::query(HOLD_CREDENTIALS).bind(ids),
        };
        let held = query.fetch_all(self.connection()).await?;
        let held: HashSet<_> =
            held.iter().map(|row| key(table, row)).collect::<Result<_, StorageError>>()?;
        Ok(rows.iter().copied().filter(|row| held.contains(&row.key)).collect())
    }
}

/// The rows in portions that one statement takes.
fn portions<'a, 'b>(rows: &'a [&'b ResealedRow]) -> impl Iterator<Item = &'a [&'b ResealedRow]> {
    let mut bytes = 0;
    rows.chunk_by(move |row, _| {
        bytes += row.after.len();
        let goes_on = bytes < STATEMENT;
        if !goes_on {
            bytes = 0;
        }
        goes_on
    })
}

/// Rows as [`postgres_statement`] takes them.
#[derive(Default)]
struct Lists {
    ids: String,
    revisions: String,
    /// Of each row the beginning of the value before and the value.
    bytes: Vec<u8>,
    /// Where those begin, from 1, and how long they are.
    places: String,
    prefixes: String,
    sizes: String,
}

impl Lists {
    fn of(rows: &[&ResealedRow]) -> Self {
        let bytes = rows.iter().map(|row| PREFIX + row.after.len()).sum();
        let mut lists = Self { bytes: Vec::with_capacity(bytes), ..Self::default() };
        for row in rows {
            let mark = row.mark();
            add(&mut lists.ids, &row.key.id);
            add(&mut lists.revisions, row.key.revision);
            add(&mut lists.places, lists.bytes.len() + 1);
            add(&mut lists.prefixes, mark.len());
            add(&mut lists.sizes, row.after.len());
            lists.bytes.extend_from_slice(mark);
            lists.bytes.extend_from_slice(&row.after);
        }
        lists
    }
}

/// Adds to a list with commas.
fn add(list: &mut String, what: impl std::fmt::Display) {
    let comma = if list.is_empty() { "" } else { "," };
    // Writing to a String cannot fail.
    let _ = write!(list, "{comma}{what}");
}

fn postgres_statement(table: SealedTable) -> &'static str {
    match table {
        SealedTable::Revisions => REPLACE_REVISIONS,
        SealedTable::Credentials => REPLACE_CREDENTIALS,
    }
}

/// One statement that replaces so many values in SQLite: of constant parts and places only. These have no
/// numbers: the driver asks SQLite for the name of each that has one, and SQLite looks through all of them.
fn sqlite_statement(table: SealedTable, rows: usize) -> String {
    let (name, columns, same) = match table {
        SealedTable::Revisions => (
            "configuration_revisions",
            4,
            "configuration_revisions.configuration_id = v.column1 \
             AND configuration_revisions.revision = v.column2",
        ),
        SealedTable::Credentials => ("mappings", 3, "mappings.id = v.column1"),
    };
    let (mark, new) = (columns - 1, columns);
    let mut text = String::with_capacity(rows * columns * 3 + 200);
    // Writing to a String cannot fail.
    let _ = write!(text, "UPDATE {name} SET sealed = v.column{new}, generation = ? FROM (VALUES ");
    for place in 0..rows * columns {
        let open = match (place, place % columns) {
            (0, _) => "(",
            (_, 0) => "), (",
            _ => ", ",
        };
        text.push_str(open);
        text.push('?');
    }
    let _ = write!(
        text,
        ")) AS v WHERE {same} AND substr({name}.sealed, 1, {PREFIX}) = v.column{mark}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_a_place_for_each_value() {
        let text = sqlite_statement(SealedTable::Credentials, 2);
        assert!(text.contains("(VALUES (?, ?, ?), (?, ?, ?)) AS v"), "{text}");
        assert!(
            text.ends_with(
                "mappings.id = v.column1 AND substr(mappings.sealed, 1, 64) = v.column2"
            ),
            "{text}"
        );
        let text = sqlite_statement(SealedTable::Revisions, 1);
        assert!(text.contains("(VALUES (?, ?, ?, ?)) AS v"), "{text}");
        assert!(text.contains("SET sealed = v.column4, generation = ?"), "{text}");
        assert!(
            text.ends_with("substr(configuration_revisions.sealed, 1, 64) = v.column3"),
            "{text}"
        );
    }

    #[test]
    fn large_values_are_written_in_portions() {
        let row = |bytes| ResealedRow {
            key: RowKey { id: String::new(), revision: 0 },
            before: Vec::new(),
            after: vec![0; bytes],
        };
        let rows: Vec<_> = [STATEMENT / 2, STATEMENT / 2, STATEMENT * 2, 1, 1].map(row).into();
        let rows: Vec<_> = rows.iter().collect();
        let sizes: Vec<_> = portions(&rows).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 2]);
    }
}
