//! Sweeps: how many values are sealed under which generation, counted by going through all of them, and
//! which generations nothing is sealed under any more, noted so that it need not be counted again.
//!
//! A sweep marks the generations, waits for whoever is writing under them, counts, and calls empty what it
//! found nothing under and what still has its mark. Whoever writes a value under a generation takes the mark
//! away in the same transaction ([`Transaction::hold_generation`]).

use std::collections::BTreeMap;

use sqlx::{AnyConnection, Connection as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SealedTable, Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, micros, stored},
};

const COUNT_REVISIONS: &str = "\
    SELECT generation, COUNT(*) AS many FROM configuration_revisions GROUP BY generation";
const COUNT_CREDENTIALS: &str = "\
    SELECT generation, COUNT(*) AS many FROM mappings WHERE generation IS NOT NULL \
    GROUP BY generation";
const REVISIONS_UNDER: &str =
    "SELECT COUNT(*) AS many FROM configuration_revisions WHERE generation = $1";
const CREDENTIALS_UNDER: &str = "SELECT COUNT(*) AS many FROM mappings WHERE generation = $1";
/// What is not known to be empty.
const UNSWEPT: &str = "\
    SELECT generation FROM generations \
    WHERE generation <> $1 AND closed_at IS NULL AND COALESCE(sweep, '') <> 'empty'";
const BEGIN: &str = "\
    UPDATE generations SET sweep = $1 \
    WHERE generation <> $2 AND closed_at IS NULL AND COALESCE(sweep, '') <> 'empty'";
const EMPTY: &str = "UPDATE generations SET sweep = 'empty' WHERE sweep = $1 AND generation = $2";
const IN_USE: &str = "UPDATE generations SET sweep = NULL WHERE generation = $1";
const NOTE: &str = "\
    INSERT INTO sealed_counts (generation, revisions, credentials, counted_at) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (generation) DO UPDATE SET revisions = excluded.revisions, \
    credentials = excluded.credentials, counted_at = excluded.counted_at \
    WHERE excluded.counted_at >= sealed_counts.counted_at";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(COUNT_REVISIONS),
    Statement::same(COUNT_CREDENTIALS),
    Statement::same(REVISIONS_UNDER),
    Statement::same(CREDENTIALS_UNDER),
    Statement::same(UNSWEPT),
    Statement::same(BEGIN),
    Statement::same(EMPTY),
    Statement::same(IN_USE),
    Statement::same(NOTE),
];

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

/// Whether values may be sealed under generations other than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherGenerations {
    /// With a lower number.
    pub lower: bool,
    /// With a higher number.
    pub higher: bool,
}

impl Storage {
    /// How many values are sealed under each generation, by number. Goes through all of them.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn count_sealed_rows(&self) -> Result<Vec<SealedCount>, StorageError> {
        let mut counts = BTreeMap::new();
        let mut connection = self.reader().await?;
        let mut transaction = connection.begin().await?;
        if let Some(text) = self.dialect().take_long() {
            sqlx::raw_sql(text).execute(&mut *transaction).await?;
        }
        for table in SealedTable::ALL {
            let statement = match table {
                SealedTable::Revisions => COUNT_REVISIONS,
                SealedTable::Credentials => COUNT_CREDENTIALS,
            };
            for row in sqlx::query(statement).fetch_all(&mut *transaction).await? {
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
        transaction.commit().await?;
        Ok(counts.into_values().collect())
    }

    /// Counts how many values are sealed under each generation, and notes that and the generations other
    /// than the active one that nothing is sealed under.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`, `Corrupt`.
    pub async fn sweep(
        &self,
        active: Option<u32>,
        now: OffsetDateTime,
    ) -> Result<(), StorageError> {
        let sweep = Uuid::now_v7().to_string();
        let mut transaction = self.begin().await?;
        // Waits for everybody who holds one of them.
        sqlx::query(BEGIN)
            .bind(&*sweep)
            // No generation has the number 0.
            .bind(active.map_or(0, i64::from))
            .execute(transaction.connection())
            .await?;
        transaction.commit().await?;
        // What anybody wrote before the mark is seen now, and what is written after takes it away.
        let counts = self.count_sealed_rows().await?;
        let known = self.known_generations().await?;
        let mut transaction = self.begin().await?;
        for generation in known.generations.iter().map(|known| known.number) {
            let none = SealedCount { generation, revisions: 0, credentials: 0 };
            let count = counts.iter().find(|count| count.generation == generation);
            let count = count.unwrap_or(&none);
            sqlx::query(NOTE)
                .bind(i64::from(generation))
                .bind(stored(count.revisions))
                .bind(stored(count.credentials))
                .bind(micros(now))
                .execute(transaction.connection())
                .await?;
            if count.rows() == 0 {
                sqlx::query(EMPTY)
                    .bind(&*sweep)
                    .bind(i64::from(generation))
                    .execute(transaction.connection())
                    .await?;
            }
        }
        transaction.commit().await
    }

    /// Whether anything may be sealed under generations other than this one.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn unswept(&self, active: u32) -> Result<OtherGenerations, StorageError> {
        let mut connection = self.reader().await?;
        let rows = sqlx::query(UNSWEPT).bind(i64::from(active)).fetch_all(&mut *connection).await?;
        let mut others = OtherGenerations::default();
        for row in &rows {
            let generation: u32 = Columns::of("generations", row).number("generation")?;
            others.lower |= generation < active;
            others.higher |= generation > active;
        }
        Ok(others)
    }
}

impl Transaction {
    /// How many revisions and how many credentials are sealed under this generation. Goes through all.
    pub(super) async fn count_sealed_under(
        &mut self,
        generation: u32,
    ) -> Result<(u64, u64), StorageError> {
        if let Some(text) = self.dialect().take_long() {
            sqlx::raw_sql(text).execute(self.connection()).await?;
        }
        let revisions = count(self.connection(), REVISIONS_UNDER, generation).await?;
        Ok((revisions, count(self.connection(), CREDENTIALS_UNDER, generation).await?))
    }

    /// Takes the mark of sweeps away.
    pub(super) async fn note_in_use(&mut self, generation: u32) -> Result<(), StorageError> {
        sqlx::query(IN_USE).bind(i64::from(generation)).execute(self.connection()).await?;
        Ok(())
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
