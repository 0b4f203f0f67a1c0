//! The sequence of changes, by which servers keep what they remember from going stale.
//!
//! Numbers are given out before their transactions commit, so a lower number can become visible
//! after a higher one: whoever asks for "everything above the highest I saw" misses it. The feed
//! therefore remembers the numbers it has not seen below the highest one and asks for them again
//! until they appear, or until no transaction that could still write them can be alive. That bound
//! is [`PATIENCE`]: a transaction that takes a number refuses to commit [`transaction::LONGEST`] (20 s) after
//! its begin, and PostgreSQL ends one that is idle for 20 s and a statement that runs for 15 s. What may take
//! longer, a count of all rows, is in no such transaction.

use std::time::Duration;

use sqlx::any::AnyRow;
use time::OffsetDateTime;

#[cfg(doc)]
use super::transaction;
use super::{
    Storage, StorageError, Transaction,
    configurations::head,
    dialect::Statement,
    losses::Reading,
    rows::{Columns, micros, stored},
};
use crate::model::{ApplicationId, ConfigurationHead, ConfigurationId, MappingId};

const TABLE: &str = "changes";
/// How long a missing number is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many changes one statement brings.
const BATCH: i64 = 500;
/// How far below the highest number a new feed looks for missing ones.
const LOOK_BACK: i64 = 100_000;
/// How many ranges of missing numbers one statement asks for.
const RANGES: usize = 8;

macro_rules! changes {
    ($columns:literal, $joined:literal, $rest:literal) => {
        concat!(
            "SELECT n.id AS number, n.kind, n.application_id AS changed_application, ",
            "n.configuration_id AS changed_configuration, n.mapping_id AS changed_mapping, n.at",
            $columns,
            " FROM changes n",
            $joined,
            " WHERE ",
            $rest,
            " ORDER BY n.id LIMIT "
        )
    };
}
macro_rules! with_heads {
    ($rest:literal) => {
        changes!(
            ", c.id, c.identifier, c.identifier_key, c.revision, c.deleted_revision, c.updated_at, c.updated_by",
            " LEFT JOIN configurations c ON c.id = n.configuration_id",
            $rest
        )
    };
}
const NEWER: &str = concat!(with_heads!("n.id >= $1"), "$2");
const NEWER_WITHOUT_HEADS: &str = concat!(changes!("", "", "n.id >= $1"), "$2");
const MISSING: &str = concat!(
    with_heads!(
        "n.id BETWEEN $1 AND $2 OR n.id BETWEEN $3 AND $4 OR n.id BETWEEN $5 AND $6 \
         OR n.id BETWEEN $7 AND $8 OR n.id BETWEEN $9 AND $10 OR n.id BETWEEN $11 AND $12 \
         OR n.id BETWEEN $13 AND $14 OR n.id BETWEEN $15 AND $16"
    ),
    "$17"
);
const HIGHEST: &str = "SELECT COALESCE(MAX(id), 0) AS highest FROM changes";
const GAPS: &str = "\
    SELECT before, id FROM (SELECT id, LAG(id) OVER (ORDER BY id) AS before FROM changes \
    WHERE id > $1 AND id <= $2) AS pairs WHERE before IS NULL OR id - before > 1";
const INSERT: &str = "\
    INSERT INTO changes (kind, application_id, configuration_id, mapping_id, at) \
    VALUES ($1, $2, $3, $4, $5) RETURNING id";
const PRUNE: &str = "DELETE FROM changes WHERE id <= (SELECT MAX(id) - $1 FROM changes)";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(NEWER),
    Statement::same(NEWER_WITHOUT_HEADS),
    Statement::same(MISSING),
    Statement::same(HIGHEST),
    Statement::same(GAPS),
    Statement::same(INSERT),
    Statement::same(PRUNE),
];

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The settings of the system.
    System,
    /// An application, its accounts or fields; or it was created or deleted; or what is remembered of it
    /// and its rows is to be forgotten.
    Application(ApplicationId),
    /// A configuration of an application was written or deleted.
    Configuration(ApplicationId, ConfigurationId),
    /// Mappings of an application, or their credentials.
    Mappings(ApplicationId),
    /// One mapping of an application, or its credentials; or it was created or deleted.
    Mapping(ApplicationId, MappingId),
}

/// One change that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Its number; later changes have higher ones, but may become visible earlier.
    pub number: u64,
    /// What changed.
    pub change: Change,
    /// When, by the clock of the server that did it.
    pub at: OffsetDateTime,
    /// Of a configuration: its state now, unless it is gone or damaged, or nobody asked for it.
    pub head: Option<ConfigurationHead>,
}

/// What a poll brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewChanges {
    /// The changes not handed out before, each exactly once; not quite in the order of numbers.
    pub records: Vec<ChangeRecord>,
    /// Changes may have been lost to this feed (it slept for too long, or the database is another
    /// one than before): everything remembered must be forgotten.
    pub everything: bool,
}

/// Reads the sequence of changes without losing any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFeed {
    /// The highest number seen.
    highest: i64,
    /// Numbers below it that were not seen.
    gaps: Vec<Gap>,
    /// When the last complete look began, by the clock of leases.
    complete: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    first: i64,
    last: i64,
    noticed: Duration,
}

impl Storage {
    /// A feed of the changes from now on. What is read from the database after this call and
    /// remembered is kept fresh by the feed.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn change_feed(&self) -> Result<ChangeFeed, StorageError> {
        let began = self.clock.instant();
        let mut reading = self.reading().await?;
        let highest = highest(&mut reading).await?;
        let floor = highest.saturating_sub(LOOK_BACK).max(0);
        let rows = reading.rows(|| sqlx::query(GAPS).bind(floor).bind(highest)).await?;
        // Not before the look: it may have taken long, and what was under way in it has just begun.
        let noticed = self.clock.instant();
        let mut gaps = Vec::new();
        for row in &rows {
            let columns = Columns::of(TABLE, row);
            let first = columns.optional_number::<i64>("before")?.unwrap_or(floor) + 1;
            let last = columns.signed("id")? - 1;
            if first <= last {
                gaps.push(Gap { first, last, noticed });
            }
        }
        Ok(ChangeFeed { highest, gaps, complete: began })
    }
}

impl ChangeFeed {
    /// Every change up to this number was handed out, or was there when the feed began.
    #[must_use]
    pub fn position(&self) -> u64 {
        let floor = self.gaps.iter().map(|gap| gap.first - 1).min().unwrap_or(self.highest);
        u64::try_from(floor).unwrap_or_default()
    }

    /// The highest number that was handed out, or was there when the feed began.
    #[must_use]
    pub fn highest(&self) -> u64 {
        u64::try_from(self.highest).unwrap_or_default()
    }

    /// Whatever was committed before this moment, by the clock of leases, was handed out by the last
    /// poll, or was there when the feed began.
    #[must_use]
    pub fn complete_until(&self) -> Duration {
        self.complete
    }

    /// Hands out nothing up to this number any more: all of it is known.
    pub fn pass(&mut self, number: u64) {
        let number = stored(number);
        self.highest = self.highest.max(number);
        for gap in &mut self.gaps {
            gap.first = gap.first.max(number.saturating_add(1));
        }
        self.gaps.retain(|gap| gap.first <= gap.last);
    }

    /// The changes that became visible since the last poll, those of configurations with their `heads` where
    /// these are wanted. A poll that fails or is dropped half-way hands out nothing and loses nothing.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn poll(
        &mut self,
        storage: &Storage,
        heads: bool,
    ) -> Result<NewChanges, StorageError> {
        // Taken before the look: a gap expires only after a look that began late enough.
        let now = storage.clock.instant();
        let mut next = self.clone();
        let mut new = NewChanges::default();
        let mut reading = storage.reading().await?;
        next.late(&mut reading, &mut new).await?;
        next.gaps.retain(|gap| now.saturating_sub(gap.noticed) < PATIENCE);
        let lost = !next.newer(&mut reading, &mut new, heads).await?;
        drop(reading);
        if lost {
            next = storage.change_feed().await?;
            new = NewChanges { records: Vec::new(), everything: true };
        }
        next.complete = now;
        *self = next;
        Ok(new)
    }

    /// Fills gaps with what became visible in them.
    async fn late(
        &mut self,
        reading: &mut Reading<'_>,
        new: &mut NewChanges,
    ) -> Result<(), StorageError> {
        for gaps in self.gaps.clone().chunks(RANGES) {
            let range = |place| gaps.get(place).map_or((0, -1), |gap: &Gap| (gap.first, gap.last));
            let query = || {
                let bound = (0..RANGES).fold(sqlx::query(MISSING), |query, place| {
                    let (first, last) = range(place);
                    query.bind(first).bind(last)
                });
                bound.bind(BATCH)
            };
            for row in reading.rows(query).await? {
                self.fill(number(&row)?);
                new.take(&row, true);
            }
        }
        Ok(())
    }

    /// Reads on from the highest number; `false` when that number is no longer there, so that
    /// others behind it may be gone as well.
    async fn newer(
        &mut self,
        reading: &mut Reading<'_>,
        new: &mut NewChanges,
        heads: bool,
    ) -> Result<bool, StorageError> {
        loop {
            let text = if heads { NEWER } else { NEWER_WITHOUT_HEADS };
            let from = self.highest;
            let rows = reading.rows(|| sqlx::query(text).bind(from).bind(BATCH)).await?;
            // Not before the look, as above.
            let noticed = reading.now();
            let mut rows = rows.iter();
            if self.highest > 0 {
                let anchor = rows.next().map(|row| Columns::of(TABLE, row).signed("number"));
                if anchor.transpose()? != Some(self.highest) {
                    return Ok(false);
                }
            }
            let before = self.highest;
            for row in rows {
                self.advance(number(row)?, noticed);
                new.take(row, heads);
            }
            if self.highest == before {
                return Ok(true);
            }
        }
    }

    fn advance(&mut self, number: i64, noticed: Duration) {
        if number > self.highest + 1 {
            self.gaps.push(Gap { first: self.highest + 1, last: number - 1, noticed });
        }
        self.highest = number;
    }

    fn fill(&mut self, number: i64) {
        let parts = |gap: &Gap| {
            if number < gap.first || number > gap.last {
                return [Some(*gap), None];
            }
            let below = Gap { last: number - 1, ..*gap };
            let above = Gap { first: number + 1, ..*gap };
            [below, above].map(|gap| (gap.first <= gap.last).then_some(gap))
        };
        self.gaps = self.gaps.iter().flat_map(parts).flatten().collect();
    }
}

impl Transaction {
    /// Tells other servers of a change, when this transaction commits; its number. Best done last:
    /// until then the number is missing for everybody else.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn insert_change(
        &mut self,
        change: Change,
        at: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        let (kind, application, configuration, mapping) = match change {
            Change::System => ("system", None, None, None),
            Change::Application(id) => ("application", Some(id), None, None),
            Change::Configuration(id, of) => ("configuration", Some(id), Some(of), None),
            Change::Mappings(id) => ("mappings", Some(id), None, None),
            Change::Mapping(id, of) => ("mapping", Some(id), None, Some(of)),
        };
        let rows = sqlx::query(INSERT)
            .bind(kind)
            .bind(application.map(|id| id.to_string()))
            .bind(configuration.map(|id| id.to_string()))
            .bind(mapping.map(|id| id.to_string()))
            .bind(micros(at))
            .fetch_all(self.connection())
            .await?;
        let row = rows.first().ok_or_else(|| {
            StorageError::Statement("inserting a change returned no number".to_owned())
        })?;
        Columns::of(TABLE, row).number("id")
    }

    /// Drops all but about the newest `keep` changes; how many were dropped. A feed that slept
    /// through more notices and reports that everything may have changed.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn prune_changes(&mut self, keep: u32) -> Result<u64, StorageError> {
        let done = sqlx::query(PRUNE).bind(i64::from(keep)).execute(self.connection()).await?;
        Ok(done.rows_affected())
    }
}

async fn highest(reading: &mut Reading<'_>) -> Result<i64, StorageError> {
    let rows = reading.rows(|| sqlx::query(HIGHEST)).await?;
    rows.first().map_or(Ok(0), |row| Columns::of(TABLE, row).signed("highest"))
}

fn number(row: &AnyRow) -> Result<i64, StorageError> {
    Columns::of(TABLE, row).signed("number")
}

impl NewChanges {
    /// Takes what a row tells. One that tells nothing to this version, be it of a newer server or
    /// damaged, must not hide those behind it: everything may have changed then.
    fn take(&mut self, row: &AnyRow, with_head: bool) {
        match record(row, with_head) {
            Ok(record) => self.records.push(record),
            Err(error) => {
                tracing::warn!(%error, "a change is not understood; everything is looked at again");
                self.everything = true;
            }
        }
    }
}

fn record(row: &AnyRow, with_head: bool) -> Result<ChangeRecord, StorageError> {
    let number: u64 = Columns::of(TABLE, row).number("number")?;
    let columns = Columns::named(TABLE, row, number.to_string());
    let kind = columns.text("kind")?;
    let application = columns.optional_uuid("changed_application")?.map(ApplicationId);
    let configuration = columns.optional_uuid("changed_configuration")?.map(ConfigurationId);
    let mapping = columns.optional_uuid("changed_mapping")?.map(MappingId);
    let change = match (&*kind, application, configuration, mapping) {
        ("system", None, None, None) => Change::System,
        ("application", Some(id), None, None) => Change::Application(id),
        ("configuration", Some(id), Some(of), None) => Change::Configuration(id, of),
        ("mappings", Some(id), None, None) => Change::Mappings(id),
        ("mapping", Some(id), None, Some(of)) => Change::Mapping(id, of),
        (kind, ..) => return Err(columns.corrupt(format!("no change of the kind {kind}"))),
    };
    // A damaged configuration must not stop the news of all others; its readers find the damage.
    let head = if with_head && configuration.is_some() { head(row).ok() } else { None };
    Ok(ChangeRecord { number, change, at: columns.time("at")?, head })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(highest: i64, gaps: &[(i64, i64)]) -> ChangeFeed {
        let gap = |&(first, last)| Gap { first, last, noticed: Duration::ZERO };
        ChangeFeed { highest, gaps: gaps.iter().map(gap).collect(), complete: Duration::ZERO }
    }

    #[test]
    fn numbers_that_were_jumped_over_are_missing_until_filled() {
        let mut feed = feed(0, &[]);
        for number in [1, 2, 6, 7, 9] {
            feed.advance(number, Duration::ZERO);
        }
        assert_eq!(feed, self::feed(9, &[(3, 5), (8, 8)]));
        assert_eq!(feed.position(), 2);
        feed.fill(4);
        assert_eq!(feed, self::feed(9, &[(3, 3), (5, 5), (8, 8)]));
        feed.fill(3);
        feed.fill(8);
        assert_eq!(feed.position(), 4);
        feed.fill(5);
        assert_eq!(feed, self::feed(9, &[]));
        assert_eq!(feed.position(), 9);
    }
}
