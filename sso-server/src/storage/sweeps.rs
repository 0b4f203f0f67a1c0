//! Sweeps: how many values are sealed under which generation, counted by going through all of them, and
//! which generations nothing is sealed under any more, noted so that it need not be counted again.
//!
//! A sweep marks the generations, waits for whoever is writing under them, counts, and calls empty what it
//! found nothing under and what still has its mark. Whoever writes a value under a generation takes the mark
//! away in the same transaction ([`Transaction::hold_generation`]).

use std::collections::BTreeMap;

use sqlx::{AnyConnection, Connection as _};
use sso_core::clock::CLOCKS_APART;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SealedTable, Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, micros, stored},
    transaction::STOPPING,
};

const COUNT_REVISIONS: &str = "\
    SELECT generation, COUNT(*) AS many FROM configuration_revisions GROUP BY generation";
const COUNT_CREDENTIALS: &str = "\
    SELECT generation, COUNT(*) AS many FROM mappings WHERE generation IS NOT NULL \
    GROUP BY generation";
const REVISIONS_UNDER: &str =
    "SELECT COUNT(*) AS many FROM configuration_revisions WHERE generation = $1";
const CREDENTIALS_UNDER: &str = "SELECT COUNT(*) AS many FROM mappings WHERE generation = $1";
/// Generations but one that are not known to be empty, closed ones too: what was restored by hand may be
/// under those.
macro_rules! in_use {
    ($before:literal, $but:literal) => {
        concat!($before, " WHERE generation <> ", $but, " AND COALESCE(sweep, '') <> 'empty'")
    };
}
const IN_USE: &str = concat!(
    in_use!("SELECT generation FROM generations", "$1"),
    " UNION SELECT generation FROM sealed_counts WHERE revisions + credentials > 0 ",
    "AND generation NOT IN (SELECT generation FROM generations)"
);
const MARK: &str = in_use!("UPDATE generations SET sweep = $1", "$2");
const EMPTY: &str = "UPDATE generations SET sweep = 'empty' WHERE sweep = $1 AND generation = $2";
const UNMARK: &str = "UPDATE generations SET sweep = NULL WHERE generation = $1";
const FORGET: &str =
    "DELETE FROM sealed_counts WHERE generation NOT IN (SELECT generation FROM generations)";
/// An older count does not come over a newer one, but for one of a clock that was wrong.
const NOTE: &str = "\
    INSERT INTO sealed_counts (generation, revisions, credentials, counted_at) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (generation) DO UPDATE SET revisions = excluded.revisions, \
    credentials = excluded.credentials, counted_at = excluded.counted_at \
    WHERE excluded.counted_at >= sealed_counts.counted_at OR sealed_counts.counted_at > $5";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(COUNT_REVISIONS),
    Statement::same(COUNT_CREDENTIALS),
    Statement::same(REVISIONS_UNDER),
    Statement::same(CREDENTIALS_UNDER),
    Statement::same(IN_USE),
    Statement::same(MARK),
    Statement::same(EMPTY),
    Statement::same(UNMARK),
    Statement::same(FORGET),
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
    fn none(generation: u32) -> Self {
        Self { generation, revisions: 0, credentials: 0 }
    }

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
        // To its end, whoever waits for it, as a transaction that is dropped half-way begins may stay open.
        let counting = self.runtime.spawn(counts(self.clone()));
        counting.await.unwrap_or_else(|_| Err(StorageError::Unavailable(STOPPING.into())))
    }

    /// Counts how many values are sealed under each generation, and notes that, and the generations other
    /// than the active one that nothing is sealed under.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`, `Corrupt`.
    pub async fn sweep(
        &self,
        active: u32,
        now: OffsetDateTime,
    ) -> Result<Vec<SealedCount>, StorageError> {
        let sweep = Uuid::now_v7().to_string();
        let mut transaction = self.begin().await?;
        // Waits for everybody who holds one of them.
        sqlx::query(MARK)
            .bind(&*sweep)
            .bind(i64::from(active))
            .execute(transaction.connection())
            .await?;
        transaction.commit().await?;
        // What anybody wrote before the mark is seen now, and what is written after takes it away.
        let counts = self.count_sealed_rows().await?;
        let known = self.known_generations().await?.generations;
        let none = |number| (number, SealedCount::none(number));
        let mut all: BTreeMap<_, _> = known.iter().map(|it| none(it.number)).collect();
        all.extend(counts.iter().map(|count| (count.generation, *count)));
        let mut transaction = self.begin().await?;
        sqlx::query(FORGET).execute(transaction.connection()).await?;
        for count in all.into_values() {
            sqlx::query(NOTE)
                .bind(i64::from(count.generation))
                .bind(stored(count.revisions))
                .bind(stored(count.credentials))
                .bind(micros(now))
                .bind(micros(now.saturating_add(CLOCKS_APART)))
                .execute(transaction.connection())
                .await?;
            let was_empty = known.iter().any(|it| it.number == count.generation && it.is_empty);
            if count.rows() == 0 {
                sqlx::query(EMPTY)
                    .bind(&*sweep)
                    .bind(i64::from(count.generation))
                    .execute(transaction.connection())
                    .await?;
            } else if was_empty {
                // Somebody wrote past the mark: a program from before there were any, or by hand.
                transaction.unmark(count.generation).await?;
            }
        }
        transaction.commit().await?;
        Ok(counts)
    }

    /// A generation is in use from now on: whoever writes under it need not say so.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`.
    pub async fn unmark(&self, generation: u32) -> Result<(), StorageError> {
        let mut transaction = self.begin().await?;
        transaction.unmark(generation).await?;
        transaction.commit().await
    }

    /// Whether anything may be sealed under generations other than this one.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn others_in_use(&self, active: u32) -> Result<OtherGenerations, StorageError> {
        let rows = self.rows(|| sqlx::query(IN_USE).bind(i64::from(active))).await?;
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

    /// Takes the mark of a sweep away from a generation.
    pub(super) async fn unmark(&mut self, generation: u32) -> Result<(), StorageError> {
        sqlx::query(UNMARK).bind(i64::from(generation)).execute(self.connection()).await?;
        Ok(())
    }
}

async fn counts(storage: Storage) -> Result<Vec<SealedCount>, StorageError> {
    let mut counts = BTreeMap::new();
    let mut connection = storage.reader().await?;
    let mut transaction = connection.begin().await?;
    if let Some(text) = storage.dialect().take_long() {
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
            let count = counts.entry(generation).or_insert_with(|| SealedCount::none(generation));
            match table {
                SealedTable::Revisions => count.revisions = columns.number("many")?,
                SealedTable::Credentials => count.credentials = columns.number("many")?,
            }
        }
    }
    transaction.commit().await?;
    Ok(counts.into_values().collect())
}

async fn count(
    connection: &mut AnyConnection,
    statement: &'static str,
    generation: u32,
) -> Result<u64, StorageError> {
    let rows = sqlx::query(statement).bind(i64::from(generation)).fetch_all(connection).await?;
    rows.first().map_or(Ok(0), |row| Columns::of("generations", row).number("many"))
}
