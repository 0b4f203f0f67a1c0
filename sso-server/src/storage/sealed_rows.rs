//! Sealed values wherever they stand: read in the order of their keys.

use sqlx::any::AnyRow;

use super::{Storage, StorageError, dialect::Statement, rows::Columns};
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

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(ALL_REVISIONS),
    REVISIONS_OF,
    Statement::same(ALL_CREDENTIALS),
    CREDENTIALS_OF,
];

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The text of its id.
    pub(super) id: String,
    /// Of a revision: its number; else 0.
    pub(super) revision: i64,
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
        let (id, revision) = after.map_or(("", 0), |key| (&*key.id, key.revision));
        let of_revisions = table == SealedTable::Revisions;
        let statement = match (table, generation) {
            (SealedTable::Revisions, None) => ALL_REVISIONS,
            (SealedTable::Revisions, Some(_)) => self.dialect().pick(&REVISIONS_OF),
            (SealedTable::Credentials, None) => ALL_CREDENTIALS,
            (SealedTable::Credentials, Some(_)) => self.dialect().pick(&CREDENTIALS_OF),
        };
        let query = || {
            let mut query = sqlx::query(statement).bind(id);
            if of_revisions {
                query = query.bind(revision);
            }
            query = query.bind(i64::from(limit));
            match generation {
                Some(generation) => query.bind(i64::from(generation)),
                None => query,
            }
        };
        let read = self.rows(query).await?;
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

pub(super) fn key(table: SealedTable, row: &AnyRow) -> Result<RowKey, StorageError> {
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
