//! The schema: made and brought up to date by numbered migrations that are never edited.

use sqlx::{
    AnyConnection, Connection as _, SqlSafeStr as _,
    migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator},
};

use super::{Dialect, Storage, StorageError};

const TABLE: &str = "_sqlx_migrations";

struct Step {
    version: u32,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! step {
    ($version:literal, $name:literal, $file:literal) => {
        Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../../migrations/postgres/", $file)),
        }
    };
}

/// Every migration there is, oldest first.
const STEPS: &[Step] = &[
    step!(1, "initial", "0001_initial.sql"),
    step!(2, "single sign-on", "0002_single_sign_on.sql"),
    step!(3, "generations", "0003_generations.sql"),
    step!(4, "change of mapping", "0004_change_of_mapping.sql"),
    step!(5, "audit batches", "0005_audit_batches.sql"),
    step!(6, "revisions by generation", "0006_revisions_by_generation.sql"),
    step!(7, "sweeps", "0007_sweeps.sql"),
];

impl Storage {
    /// The newest schema version this program knows.
    #[must_use]
    pub fn known_schema() -> u32 {
        STEPS.last().map_or(0, |step| step.version)
    }

    /// Brings the schema up to date; the version it then has. Several servers may do this at once:
    /// one does, the others wait for it.
    ///
    /// # Errors
    /// `NewerSchema`, `EditedMigration`, `Migration`; `Unavailable` when another holds the lock for
    /// too long.
    pub async fn migrate(&self) -> Result<u32, StorageError> {
        match self.dialect() {
            Dialect::Sqlite => {
                // The write lock keeps other migrators out; the migrations become one transaction.
                let mut transaction =
                    self.writers.pool().begin_with(self.dialect().begin_write()).await?;
                apply(&mut transaction, self.dialect()).await?;
                transaction.commit().await?;
            }
            Dialect::Postgres => {
                // A connection of its own: closing it gives up the lock, however this ends.
                let mut connection = self.writers.pool().acquire().await?.detach();
                let outcome = apply_locked(&mut connection, self.dialect()).await;
                let closed = connection.close().await;
                outcome?;
                closed?;
            }
        }
        self.verify_schema().await
    }

    /// Checks that the schema is the one this program needs; its version.
    ///
    /// # Errors
    /// `NewerSchema`, `OlderSchema`, `EditedMigration`.
    pub async fn verify_schema(&self) -> Result<u32, StorageError> {
        let found = self.schema_version().await?;
        let known = Self::known_schema();
        if found < known {
            return Err(StorageError::OlderSchema { found, known });
        }
        Ok(found)
    }

    /// The version of the schema in the database; 0 for an empty one.
    ///
    /// # Errors
    /// `NewerSchema`, `EditedMigration`.
    pub async fn schema_version(&self) -> Result<u32, StorageError> {
        applied(&mut *self.reader().await?, self.dialect()).await
    }
}

async fn apply_locked(
    connection: &mut AnyConnection,
    dialect: Dialect,
) -> Result<(), StorageError> {
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = '60s'")
        .execute(&mut *connection)
        .await?;
    connection.lock().await.map_err(from_migrate)?;
    apply(connection, dialect).await
}

async fn apply(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), StorageError> {
    applied(connection, dialect).await?;
    let steps = STEPS
        .iter()
        .map(|step| {
            Migration::new(
                i64::from(step.version),
                step.name.into(),
                MigrationType::Simple,
                text(step, dialect).into_sql_str(),
                false,
            )
        })
        .collect();
    let mut migrator = Migrator::with_migrations(steps);
    migrator.set_locking(false);
    migrator.run_direct(None, connection, false).await.map_err(from_migrate)
}

/// The newest migration that was applied, after comparing all of them with the ones known here.
async fn applied(connection: &mut AnyConnection, dialect: Dialect) -> Result<u32, StorageError> {
    let exists: Vec<i64> =
        sqlx::query_scalar(dialect.migrations_table_exists()).fetch_all(&mut *connection).await?;
    if exists.first() != Some(&1) {
        return Ok(0);
    }
    let known = Storage::known_schema();
    let mut newest = 0;
    let mut edited = None;
    for applied in connection.list_applied_migrations(TABLE).await.map_err(from_migrate)? {
        let version = u32::try_from(applied.version).map_err(|_| StorageError::Corrupt {
            table: TABLE,
            row: applied.version.to_string(),
            what: "no version number".to_owned(),
        })?;
        newest = newest.max(version);
        let step = STEPS.iter().find(|step| step.version == version);
        let same = step.is_some_and(|step| {
            sqlx::migrate::Migration::new(
                applied.version,
                step.name.into(),
                MigrationType::Simple,
                text(step, dialect).into_sql_str(),
                false,
            )
            .checksum
                == applied.checksum
        });
        if !same && version <= known {
            edited = edited.or(Some(version));
        }
    }
    match edited {
        // Said first: with a newer program the older migrations are the same.
        _ if newest > known => Err(StorageError::NewerSchema { found: newest, known }),
        Some(version) => Err(StorageError::EditedMigration(version)),
        None => Ok(newest),
    }
}

fn text(step: &Step, dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => step.sqlite,
        Dialect::Postgres => step.postgres,
    }
}

fn from_migrate(error: MigrateError) -> StorageError {
    if let MigrateError::Execute(error) = error {
        return StorageError::from(error);
    }
    StorageError::Migration(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        for (expected, step) in (1_u32..).zip(STEPS) {
            assert_eq!(step.version, expected);
            assert!(!step.sqlite.is_empty() && !step.postgres.is_empty());
        }
    }
}
