//! Sealed values wherever they stand: read in the order of their keys, and replaced by the same values sealed
//! anew.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, any::AnyRow};

use super::{
    Dialect, Storage, StorageError, Transaction,
    dialect::{NEED_NOT_LAST, Statement},
    rows::Columns,
};
use crate::model::{
    Account, ApplicationId, ApplicationType, ConfigurationId, ExternalUser, Identifier, MappingId,
    Revision,
};

macro_rules! revisions {
    ($sealed:literal, $which:literal, $limit:literal) => {
        concat!(
            "SELECT r.configuration_id, r.revision, r.generation, r.sealed, c.identifier, ",
            "c.application_id, a.name FROM (SELECT configuration_id, revision, generation, ",
            $sealed,
            " FROM configuration_revisions WHERE ",
            $which,
            " ORDER BY configuration_id, revision LIMIT ",
            $limit,
            ") r JOIN configurations c ON c.id = r.configuration_id ",
            "JOIN applications a ON a.id = c.application_id ",
            "ORDER BY r.configuration_id, r.revision"
        )
    };
}
macro_rules! credentials {
    ($sealed:literal, $which:literal, $limit:literal) => {
        concat!(
            "SELECT m.id, m.application_id, m.account, m.external_user, m.generation, m.sealed, ",
            "a.name, a.type FROM (SELECT id, application_id, account, external_user, generation, ",
            $sealed,
            " FROM mappings WHERE ",
            $which,
            " ORDER BY id LIMIT ",
            $limit,
            ") m JOIN applications a ON a.id = m.application_id ORDER BY m.id"
        )
    };
}
const ALL_REVISIONS: &str = revisions!("sealed", "(configuration_id, revision) > ($1, $2)", "$3");
/// In the order of the key. The index of generations that SQLite has is in another order, and is left alone
/// where the generation is an expression. PostgreSQL has none, and goes through the rows of all generations:
/// those of others come without a value, so that no statement looks at more rows than it gives.
const REVISIONS_OF: Statement = Statement {
    sqlite: revisions!(
        "sealed",
        "+generation = $4 AND (configuration_id, revision) > ($1, $2)",
        "$3"
    ),
    postgres: revisions!(
        "CASE WHEN generation = $4 THEN sealed END AS sealed",
        "(configuration_id, revision) > ($1, $2)",
        "$3"
    ),
};
const ALL_CREDENTIALS: &str = credentials!("sealed", "id > $1 AND sealed IS NOT NULL", "$2");
const CREDENTIALS_OF: Statement = Statement {
    sqlite: credentials!("sealed", "generation = $3 AND id > $1", "$2"),
    postgres: credentials!("CASE WHEN generation = $3 THEN sealed END AS sealed", "id > $1", "$2"),
};

/// Replaces any number of values in PostgreSQL: keys and places come as lists in one text each, marks of the
/// values before and values as one run of bytes, so that the statement is prepared once. Rows that others hold
/// are passed over: it would else wait for them in an order of its own.
macro_rules! replace_lists {
    ($table:literal, $keys:literal, $lists:literal, $names:literal, $found:literal, $same:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET sealed = s.fresh, generation = $1 FROM (SELECT ",
            $keys,
            ", substring(CAST($3 AS BYTEA) FROM v.place + v.prefix FOR v.size) AS fresh ",
            "FROM unnest(string_to_array($2, ','), CAST(string_to_array($4, ',') AS INTEGER[]), ",
            "CAST(string_to_array($5, ',') AS INTEGER[]), CAST(string_to_array($6, ',') AS INTEGER[])",
            $lists,
            ") AS v (id, place, prefix, size",
            $names,
            ") JOIN ",
            $table,
            " k ON ",
            $found,
            " WHERE substring(k.sealed FROM 1 FOR 64) = substring(CAST($3 AS BYTEA) FROM v.place FOR v.prefix) ",
            "FOR NO KEY UPDATE OF k SKIP LOCKED) AS s WHERE ",
            $same
        )
    };
}
const REPLACE_REVISIONS: &str = replace_lists!(
    "configuration_revisions",
    "k.configuration_id, k.revision",
    ", CAST(string_to_array($7, ',') AS BIGINT[])",
    ", revision",
    "k.configuration_id = v.id AND k.revision = v.revision",
    "configuration_revisions.configuration_id = s.configuration_id \
     AND configuration_revisions.revision = s.revision"
);
const REPLACE_CREDENTIALS: &str =
    replace_lists!("mappings", "k.id", "", "", "k.id = v.id", "mappings.id = s.id");
/// So much of a sealed value tells it from every other one: the random bits that it is sealed with are
/// in its first 40 bytes.
const PREFIX: usize = 64;
/// Bytes of values in one statement of PostgreSQL, about; one message to it holds less than 1 GiB.
const STATEMENT: usize = 32 * 1024 * 1024;

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(ALL_REVISIONS),
    REVISIONS_OF,
    Statement::same(ALL_CREDENTIALS),
    CREDENTIALS_OF,
];

/// The statements that are put together from parts.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    let text = |table: &SealedTable| match dialect {
        Dialect::Sqlite => replace(*table, 2),
        Dialect::Postgres => replace_lists(*table).to_owned(),
    };
    SealedTable::ALL.iter().map(text).collect()
}

/// A table with sealed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedTable {
    /// Revisions of configurations, those of history too.
    Revisions,
    /// Credentials of mappings.
    Credentials,
}

impl SealedTable {
    /// Every one there is.
    pub const ALL: [Self; 2] = [Self::Revisions, Self::Credentials];

    /// Its name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revisions => "configuration_revisions",
            Self::Credentials => "mappings",
        }
    }
}

/// The key of a row, by which rows are gone through in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey {
    /// The text of its id.
    id: String,
    /// Of a revision: its number; else 0.
    revision: i64,
}

/// What a sealed value belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedOwner {
    /// A revision of a configuration.
    Revision {
        /// Of this application.
        application: ApplicationId,
        /// The configuration.
        configuration: ConfigurationId,
        /// Its identifier.
        identifier: Identifier,
        /// The number.
        revision: Revision,
    },
    /// A mapping.
    Mapping {
        /// Of this application.
        application: ApplicationId,
        /// The type of that.
        kind: ApplicationType,
        /// The mapping.
        mapping: MappingId,
        /// Whose it is.
        account: Account,
        /// Who that is elsewhere.
        external_user: ExternalUser,
    },
}

impl SealedOwner {
    /// Where it stands.
    #[must_use]
    pub fn table(&self) -> SealedTable {
        match self {
            Self::Revision { .. } => SealedTable::Revisions,
            Self::Mapping { .. } => SealedTable::Credentials,
        }
    }
}

/// A sealed value with what it is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Its key.
    pub key: RowKey,
    /// What it belongs to.
    pub owner: SealedOwner,
    /// The name of its application.
    pub application: String,
    /// The generation that the row says it is sealed under.
    pub generation: u32,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

impl SealedRow {
    /// For a person.
    #[must_use]
    pub fn name(&self) -> String {
        let part = match &self.owner {
            SealedOwner::Revision { identifier, .. } => identifier.as_str(),
            SealedOwner::Mapping { account, .. } => account.as_str(),
        };
        name(self.owner.table(), &self.key, &self.application, part)
    }
}

/// Rows in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedRows {
    /// Those that can be read.
    pub rows: Vec<SealedRow>,
    /// Names of those that cannot, each with why.
    pub damaged: Vec<(String, String)>,
    /// How many were looked at, of other generations too.
    pub seen: u32,
    /// The key of the last one, behind which there may be more; `None` when there are none.
    pub next: Option<RowKey>,
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

impl Storage {
    /// Sealed values behind a key, of one generation or of all, out of so many rows at the most; damaged rows
    /// are named, and hide none behind them.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn sealed_rows(
        &self,
        table: SealedTable,
        generation: Option<u32>,
        after: Option<&RowKey>,
        limit: u32,
    ) -> Result<SealedRows, StorageError> {
        let mut connection = self.reader().await?;
        let (id, revision) = after.map_or(("", 0), |key| (&*key.id, key.revision));
        let of_revisions = table == SealedTable::Revisions;
        let statement = match (table, generation) {
            (SealedTable::Revisions, None) => ALL_REVISIONS,
            (SealedTable::Revisions, Some(_)) => self.dialect().pick(&REVISIONS_OF),
            (SealedTable::Credentials, None) => ALL_CREDENTIALS,
            (SealedTable::Credentials, Some(_)) => self.dialect().pick(&CREDENTIALS_OF),
        };
        let mut query = sqlx::query(statement).bind(id);
        if of_revisions {
            query = query.bind(revision);
        }
        query = query.bind(i64::from(limit));
        if let Some(generation) = generation {
            query = query.bind(i64::from(generation));
        }
        let read = query.fetch_all(&mut *connection).await?;
        drop(connection);
        let mut found = SealedRows::default();
        for row in &read {
            let key = key(table, row)?;
            match sealed_row(table, row, &key) {
                Ok(Some(row)) => found.rows.push(row),
                Ok(None) => {}
                Err(StorageError::Corrupt { row, what, .. }) => found.damaged.push((row, what)),
                Err(error) => return Err(error),
            }
            found.next = Some(key);
        }
        found.seen = u32::try_from(read.len()).unwrap_or(u32::MAX);
        if read.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            found.next = None;
        }
        Ok(found)
    }
}

impl Transaction {
    /// Replaces values of one table by the same sealed under this generation; how many. Rows that were
    /// changed meanwhile, or that another transaction is changing, stay as they are.
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
        if self.dialect() == Dialect::Sqlite {
            let text = AssertSqlSafe(replace(table, rows.len())).into_sql_str();
            let mut query = sqlx::query(text).bind(i64::from(generation));
            for row in rows {
                query = query.bind(&*row.key.id);
                if table == SealedTable::Revisions {
                    query = query.bind(row.key.revision);
                }
                query = query.bind(&*row.before).bind(&*row.after);
            }
            return Ok(query.execute(self.connection()).await?.rows_affected());
        }
        sqlx::raw_sql(NEED_NOT_LAST).execute(self.connection()).await?;
        let mut replaced = 0;
        for rows in portions(rows) {
            let lists = Lists::of(rows);
            let mut query = sqlx::query(replace_lists(table))
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
}

/// The rows in portions that one statement takes.
fn portions(rows: &[ResealedRow]) -> impl Iterator<Item = &[ResealedRow]> {
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

/// Rows as [`replace_lists`] takes them.
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
    fn of(rows: &[ResealedRow]) -> Self {
        let bytes = rows.iter().map(|row| PREFIX + row.after.len()).sum();
        let mut lists = Self { bytes: Vec::with_capacity(bytes), ..Self::default() };
        for row in rows {
            let prefix = row.before.get(..PREFIX).unwrap_or(&row.before);
            add(&mut lists.ids, &row.key.id);
            add(&mut lists.revisions, row.key.revision);
            add(&mut lists.places, lists.bytes.len() + 1);
            add(&mut lists.prefixes, prefix.len());
            add(&mut lists.sizes, row.after.len());
            lists.bytes.extend_from_slice(prefix);
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

fn replace_lists(table: SealedTable) -> &'static str {
    match table {
        SealedTable::Revisions => REPLACE_REVISIONS,
        SealedTable::Credentials => REPLACE_CREDENTIALS,
    }
}

/// One statement that replaces so many values in SQLite: of constant parts and numbered places only.
fn replace(table: SealedTable, rows: usize) -> String {
    let (name, columns, same) = match table {
        SealedTable::Revisions => (
            "configuration_revisions",
            4,
            "configuration_revisions.configuration_id = v.column1 \
             AND configuration_revisions.revision = v.column2",
        ),
        SealedTable::Credentials => ("mappings", 3, "mappings.id = v.column1"),
    };
    let (old, new) = (columns - 1, columns);
    let mut text = String::with_capacity(rows * 24 + 200);
    // Writing to a String cannot fail.
    let _ = write!(text, "UPDATE {name} SET sealed = v.column{new}, generation = $1 FROM (VALUES ");
    for place in 0..rows * columns {
        let open = match (place, place % columns) {
            (0, _) => "(",
            (_, 0) => "), (",
            _ => ", ",
        };
        let _ = write!(text, "{open}${}", place + 2);
    }
    let _ = write!(text, ")) AS v WHERE {same} AND {name}.sealed = v.column{old}");
    text
}

fn key(table: SealedTable, row: &AnyRow) -> Result<RowKey, StorageError> {
    let columns = Columns::of(table.as_str(), row);
    Ok(match table {
        SealedTable::Revisions => {
            let revision = columns.signed("revision")?;
            RowKey { id: columns.text("configuration_id")?, revision }
        }
        SealedTable::Credentials => RowKey { id: columns.text("id")?, revision: 0 },
    })
}

/// A row; `None` where its value was not asked for.
fn sealed_row(
    table: SealedTable,
    row: &AnyRow,
    key: &RowKey,
) -> Result<Option<SealedRow>, StorageError> {
    let columns = Columns::of(table.as_str(), row);
    if columns.is_null("sealed") {
        return Ok(None);
    }
    read(table, &columns, key).map(Some).map_err(|error| {
        let StorageError::Corrupt { table: of, what, .. } = error else { return error };
        let part = match table {
            SealedTable::Revisions => columns.text("identifier"),
            SealedTable::Credentials => columns.text("account"),
        };
        let row = match (columns.text("name"), part) {
            (Ok(application), Ok(part)) => name(table, key, &application, &part),
            _ => name(table, key, "?", &key.id),
        };
        StorageError::Corrupt { table: of, row, what }
    })
}

fn read(
    table: SealedTable,
    columns: &Columns<'_>,
    key: &RowKey,
) -> Result<SealedRow, StorageError> {
    let application = ApplicationId(columns.uuid("application_id")?);
    let owner = match table {
        SealedTable::Revisions => SealedOwner::Revision {
            application,
            configuration: ConfigurationId(columns.uuid("configuration_id")?),
            identifier: columns.parse("identifier", Identifier::parse)?,
            revision: Revision(columns.number("revision")?),
        },
        SealedTable::Credentials => SealedOwner::Mapping {
            application,
            kind: columns
                .parse("type", |word| ApplicationType::parse(word).ok_or("an unknown type"))?,
            mapping: MappingId(columns.uuid("id")?),
            account: columns.parse("account", Account::parse)?,
            external_user: columns.parse("external_user", ExternalUser::parse)?,
        },
    };
    Ok(SealedRow {
        key: key.clone(),
        owner,
        application: columns.text("name")?,
        generation: columns.number("generation")?,
        sealed: columns.bytes("sealed")?,
    })
}

/// A row for a person: the name of its application, and which one of that.
fn name(table: SealedTable, key: &RowKey, application: &str, part: &str) -> String {
    match table {
        SealedTable::Revisions => {
            format!("configuration {application}/{part} revision {}", key.revision)
        }
        SealedTable::Credentials => format!("mapping {application}/{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plans, *};

    #[test]
    fn statements_number_their_places_in_order() {
        let text = replace(SealedTable::Credentials, 2);
        assert!(text.contains("(VALUES ($2, $3, $4), ($5, $6, $7)) AS v"), "{text}");
        assert!(
            text.ends_with("mappings.id = v.column1 AND mappings.sealed = v.column2"),
            "{text}"
        );
        let text = replace(SealedTable::Revisions, 1);
        assert!(text.contains("(VALUES ($2, $3, $4, $5)) AS v"), "{text}");
        assert!(text.contains("SET sealed = v.column4"), "{text}");
        assert!(text.ends_with("configuration_revisions.sealed = v.column3"), "{text}");
    }

    #[test]
    fn large_values_are_written_in_portions() {
        let row = |bytes| ResealedRow {
            key: RowKey { id: String::new(), revision: 0 },
            before: Vec::new(),
            after: vec![0; bytes],
        };
        let rows: Vec<_> = [STATEMENT / 2, STATEMENT / 2, STATEMENT * 2, 1, 1].map(row).into();
        let sizes: Vec<_> = portions(&rows).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 2]);
    }

    #[tokio::test]
    async fn rows_of_a_generation_are_found_in_the_order_of_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let storage = plans::storage(folder.path()).await;
        for (statement, key) in [
            (REVISIONS_OF.sqlite, "(configuration_id,revision)>(?,?)"),
            (CREDENTIALS_OF.sqlite, "(generation=? AND id>?)"),
        ] {
            let plan = plans::plan(&storage, statement).await;
            assert!(plan.contains(key), "{plan}");
        }
        storage.close().await;
    }
}
