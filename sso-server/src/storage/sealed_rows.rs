//! Sealed values wherever they stand: counted by generation, read in the order of their keys, and
//! replaced by the same values sealed anew.

use std::fmt::Write as _;

use sqlx::{AnyConnection, AssertSqlSafe, SqlSafeStr as _, any::AnyRow};

use super::{Dialect, Storage, StorageError, Transaction, dialect::Statement, rows::Columns};
use crate::model::{
    Account, ApplicationId, ApplicationType, ConfigurationId, ExternalUser, Identifier, MappingId,
    Revision,
};

const COUNT_REVISIONS: &str = "\
    SELECT generation, COUNT(*) AS many FROM configuration_revisions GROUP BY generation";
const COUNT_CREDENTIALS: &str = "\
    SELECT generation, COUNT(*) AS many FROM mappings WHERE generation IS NOT NULL \
    GROUP BY generation";
const REVISIONS_UNDER: &str =
    "SELECT COUNT(*) AS many FROM configuration_revisions WHERE generation = $1";
const CREDENTIALS_UNDER: &str = "SELECT COUNT(*) AS many FROM mappings WHERE generation = $1";
/// One row where anything is sealed under a generation below $1, one where above.
const OTHERS: &str = "\
    SELECT 1 AS below WHERE EXISTS (SELECT 1 FROM configuration_revisions WHERE generation < $1) \
    OR EXISTS (SELECT 1 FROM mappings WHERE generation < $1) \
    UNION ALL \
    SELECT 0 AS below WHERE EXISTS (SELECT 1 FROM configuration_revisions WHERE generation > $1) \
    OR EXISTS (SELECT 1 FROM mappings WHERE generation > $1)";

macro_rules! revisions {
    ($which:literal, $limit:literal) => {
        concat!(
            "SELECT r.configuration_id, r.revision, r.generation, r.sealed, c.identifier, ",
            "c.application_id, a.name FROM (SELECT configuration_id, revision, generation, sealed ",
            "FROM configuration_revisions WHERE ",
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
    ($which:literal, $limit:literal) => {
        concat!(
            "SELECT m.id, m.application_id, m.account, m.external_user, m.generation, m.sealed, ",
            "a.name, a.type FROM (SELECT id, application_id, account, external_user, generation, ",
            "sealed FROM mappings WHERE ",
            $which,
            " ORDER BY id LIMIT ",
            $limit,
            ") m JOIN applications a ON a.id = m.application_id ORDER BY m.id"
        )
    };
}
const ALL_REVISIONS: &str = revisions!("(configuration_id, revision) > ($1, $2)", "$3");
const REVISIONS_OF: &str =
    revisions!("generation = $4 AND (configuration_id, revision) > ($1, $2)", "$3");
const ALL_CREDENTIALS: &str = credentials!("id > $1 AND sealed IS NOT NULL", "$2");
const CREDENTIALS_OF: &str = credentials!("generation = $3 AND id > $1", "$2");

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(COUNT_REVISIONS),
    Statement::same(COUNT_CREDENTIALS),
    Statement::same(REVISIONS_UNDER),
    Statement::same(CREDENTIALS_UNDER),
    Statement::same(OTHERS),
    Statement::same(ALL_REVISIONS),
    Statement::same(REVISIONS_OF),
    Statement::same(ALL_CREDENTIALS),
    Statement::same(CREDENTIALS_OF),
];

/// The statements that are put together from parts.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    SealedTable::ALL.iter().map(|table| replace(dialect, *table, 2)).collect()
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

/// How many values are sealed under one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedCount {
    /// The generation.
    pub generation: u32,
    /// Revisions of configurations.
    pub revisions: u64,
    /// Credentials of mappings.
    pub credentials: u64,
}

impl SealedCount {
    /// Both together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.revisions.saturating_add(self.credentials)
    }
}

/// Whether values are sealed under generations other than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherGenerations {
    /// With a lower number.
    pub lower: bool,
    /// With a higher number.
    pub higher: bool,
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

/// A sealed value with what it is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Its key.
    pub key: RowKey,
    /// What it belongs to.
    pub owner: SealedOwner,
    /// For a person.
    pub name: String,
    /// The generation that the row says it is sealed under.
    pub generation: u32,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// Rows in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedRows {
    /// Those that can be read.
    pub rows: Vec<SealedRow>,
    /// Names of those that cannot, each with why.
    pub damaged: Vec<(String, String)>,
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
    /// How many values are sealed under each generation, by number.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn count_sealed_rows(&self) -> Result<Vec<SealedCount>, StorageError> {
        let mut counts = std::collections::BTreeMap::new();
        let mut connection = self.reader().await?;
        for table in SealedTable::ALL {
            let statement = match table {
                SealedTable::Revisions => COUNT_REVISIONS,
                SealedTable::Credentials => COUNT_CREDENTIALS,
            };
            for row in sqlx::query(statement).fetch_all(&mut *connection).await? {
                let columns = Columns::of(table.as_str(), &row);
                let generation = columns.number("generation")?;
                let none = SealedCount { generation, revisions: 0, credentials: 0 };
                let count = counts.entry(generation).or_insert(none);
                match table {
                    SealedTable::Revisions => count.revisions = columns.number("many")?,
                    SealedTable::Credentials => count.credentials = columns.number("many")?,
                }
            }
        }
        Ok(counts.into_values().collect())
    }

    /// Whether anything is sealed under generations other than this one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn sealed_under_others(
        &self,
        generation: u32,
    ) -> Result<OtherGenerations, StorageError> {
        let rows = sqlx::query(OTHERS)
            .bind(i64::from(generation))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let mut found = OtherGenerations::default();
        for row in &rows {
            match Columns::of("generations", row).flag("below")? {
                true => found.lower = true,
                false => found.higher = true,
            }
        }
        Ok(found)
    }

    /// Sealed values behind a key, of one generation or of all; damaged rows are named, and hide none
    /// behind them.
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
            (SealedTable::Revisions, Some(_)) => REVISIONS_OF,
            (SealedTable::Credentials, None) => ALL_CREDENTIALS,
            (SealedTable::Credentials, Some(_)) => CREDENTIALS_OF,
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
                Ok(row) => found.rows.push(row),
                Err(StorageError::Corrupt { row, what, .. }) => found.damaged.push((row, what)),
                Err(error) => return Err(error),
            }
            found.next = Some(key);
        }
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
        let text = replace(self.dialect(), table, rows.len());
        let mut query = sqlx::query(AssertSqlSafe(text).into_sql_str()).bind(i64::from(generation));
        for row in rows {
            query = query.bind(&*row.key.id);
            if table == SealedTable::Revisions {
                query = query.bind(row.key.revision);
            }
            query = query.bind(&*row.before).bind(&*row.after);
        }
        Ok(query.execute(self.connection()).await?.rows_affected())
    }

    /// How many revisions and how many credentials are sealed under this generation.
    pub(super) async fn count_sealed_under(
        &mut self,
        generation: u32,
    ) -> Result<(u64, u64), StorageError> {
        let revisions = count(self.connection(), REVISIONS_UNDER, generation).await?;
        Ok((revisions, count(self.connection(), CREDENTIALS_UNDER, generation).await?))
    }
}

async fn count(
    connection: &mut AnyConnection,
    statement: &'static str,
    generation: u32,
) -> Result<u64, StorageError> {
    let rows = sqlx::query(statement).bind(i64::from(generation)).fetch_all(connection).await?;
    rows.first().map_or(Ok(0), |row| Columns::of("generations", row).number("many"))
}

/// One statement that replaces so many values: of constant parts and numbered places only. PostgreSQL
/// passes over rows that others hold, for whom it would else wait in an order of its own.
fn replace(dialect: Dialect, table: SealedTable, rows: usize) -> String {
    let (name, keys, types): (_, &[&str], &[&str]) = match table {
        SealedTable::Revisions => (
            "configuration_revisions",
            &["configuration_id", "revision"],
            &["TEXT", "BIGINT", "BYTEA", "BYTEA"],
        ),
        SealedTable::Credentials => ("mappings", &["id"], &["TEXT", "BYTEA", "BYTEA"]),
    };
    let (old, new) = (keys.len() + 1, keys.len() + 2);
    let same = |left: &str, right: &dyn Fn(usize, &str) -> String| {
        let pairs: Vec<_> =
            (1..).zip(keys).map(|(at, key)| format!("{left}.{key} = {}", right(at, key))).collect();
        pairs.join(" AND ")
    };
    let values = values(dialect, types, rows);
    let by_column = |at: usize, _: &str| format!("v.column{at}");
    match dialect {
        Dialect::Sqlite => format!(
            "UPDATE {name} SET sealed = v.column{new}, generation = $1 FROM (VALUES {values}) AS v \
             WHERE {} AND {name}.sealed = v.column{old}",
            same(name, &by_column)
        ),
        Dialect::Postgres => format!(
            "UPDATE {name} SET sealed = s.fresh, generation = $1 FROM (SELECT k.{}, \
             v.column{old} AS stale, v.column{new} AS fresh FROM (VALUES {values}) AS v \
             JOIN {name} k ON {} WHERE k.sealed = v.column{old} \
             FOR NO KEY UPDATE OF k SKIP LOCKED) AS s WHERE {} AND {name}.sealed = s.stale",
            keys.join(", k."),
            same("k", &by_column),
            same(name, &|_, key| format!("s.{key}"))
        ),
    }
}

/// The rows of a VALUES list, its places numbered from 2 on. PostgreSQL wants the types of the first.
fn values(dialect: Dialect, types: &[&str], rows: usize) -> String {
    let mut text = String::with_capacity(rows * 24);
    let mut place = 1;
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for (at, kind) in types.iter().enumerate() {
            place += 1;
            let comma = if at == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = match (dialect, row) {
                (Dialect::Postgres, 0) => write!(text, "{comma}CAST(${place} AS {kind})"),
                (Dialect::Postgres | Dialect::Sqlite, _) => write!(text, "{comma}${place}"),
            };
        }
        text.push(')');
    }
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

fn sealed_row(table: SealedTable, row: &AnyRow, key: &RowKey) -> Result<SealedRow, StorageError> {
    let shown = |name: &str, part: &str| match table {
        SealedTable::Revisions => format!("configuration {name}/{part} revision {}", key.revision),
        SealedTable::Credentials => format!("mapping {name}/{part}"),
    };
    let by_id = Columns::named(table.as_str(), row, shown("?", &key.id));
    let part = match table {
        SealedTable::Revisions => by_id.text("identifier")?,
        SealedTable::Credentials => by_id.text("account")?,
    };
    let name = shown(&by_id.text("name")?, &part);
    let columns = Columns::named(table.as_str(), row, name.clone());
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
        name,
        generation: columns.number("generation")?,
        sealed: columns.bytes("sealed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_number_their_places_in_order() {
        let text = replace(Dialect::Sqlite, SealedTable::Credentials, 2);
        assert!(text.contains("VALUES ($2, $3, $4), ($5, $6, $7)"), "{text}");
        let text = replace(Dialect::Postgres, SealedTable::Revisions, 2);
        let first = "CAST($2 AS TEXT), CAST($3 AS BIGINT), CAST($4 AS BYTEA), CAST($5 AS BYTEA)";
        assert!(text.contains(&format!("VALUES ({first}), ($6, $7, $8, $9)")), "{text}");
        assert!(text.contains("SKIP LOCKED"), "{text}");
    }
}
