//! Generations of the master secret as the database knows them: which key rings it takes, under which
//! generations values may be sealed, and which servers lost their right.

use sqlx::{AnyConnection, any::AnyRow};
use sso_core::revocations::Revocations;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SealedCount, Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, clean, micros, stored},
};
use crate::master::OfferedKeyRing;

const TABLE: &str = "generations";

macro_rules! one {
    ($which:literal) => {
        concat!("SELECT generation, closed_at FROM generations WHERE generation = $1", $which)
    };
}
/// One that values may be written under as it is. On SQLite the one writer holds everything.
const HOLD: Statement = Statement {
    sqlite: one!(" AND closed_at IS NULL AND sweep IS NULL"),
    postgres: one!(" AND closed_at IS NULL AND sweep IS NULL FOR SHARE"),
};
/// One that has the mark of a sweep loses it.
const USE: &str = "UPDATE generations SET sweep = NULL WHERE generation = $1 AND closed_at IS NULL";
/// Waits for every transaction that holds the generation.
const LOCK: Statement = Statement { sqlite: one!(""), postgres: one!(" FOR UPDATE") };
const LIST: &str = "\
    SELECT g.generation, g.fingerprint, g.admitted_at, g.closed_at, g.sweep, c.revisions, \
    c.credentials, c.counted_at FROM generations g \
    LEFT JOIN sealed_counts c ON c.generation = g.generation ORDER BY g.generation";
const INSERT: &str = "\
    INSERT INTO generations (generation, fingerprint, admitted_at) VALUES ($1, $2, $3) \
    ON CONFLICT (generation) DO NOTHING";
const CLOSE: &str = "UPDATE generations SET closed_at = $1, sweep = 'empty' WHERE generation = $2";
const LEADER: &str = "SELECT master_epoch, master_primary FROM system WHERE id = 1";
/// Waits for every admission that is about to change it.
const HOLD_LEADER: Statement = Statement {
    sqlite: LEADER,
    postgres: "SELECT master_epoch, master_primary FROM system WHERE id = 1 FOR SHARE",
};
const SET_LEADER: &str = "UPDATE system SET master_epoch = $1, master_primary = $2 WHERE id = 1";
const REVOCATIONS: &str = "SELECT server, number FROM revocations";
const REVOKE: &str = "\
    INSERT INTO revocations (server, number, noted_at) VALUES ($1, $2, $3) ON CONFLICT (server) \
    DO UPDATE SET number = excluded.number, noted_at = excluded.noted_at \
    WHERE excluded.number > revocations.number";

pub(super) const STATEMENTS: &[Statement] = &[
    HOLD,
    Statement::same(USE),
    LOCK,
    Statement::same(LIST),
    Statement::same(INSERT),
    Statement::same(CLOSE),
    Statement::same(LEADER),
    HOLD_LEADER,
    Statement::same(SET_LEADER),
    Statement::same(REVOCATIONS),
    Statement::same(REVOKE),
];

/// A generation as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGeneration {
    /// Its number.
    pub number: u32,
    /// Its fingerprint in hexadecimal.
    pub fingerprint: String,
    /// When a key ring with it was first taken.
    pub admitted_at: OffsetDateTime,
    /// Since when nothing is sealed under it any more; `None` = values may be.
    pub closed_at: Option<OffsetDateTime>,
    /// A sweep found nothing under it, and nobody wrote under it since.
    pub is_empty: bool,
    /// What the last count found under it, and when; `None` = nobody has counted.
    pub counted: Option<(SealedCount, OffsetDateTime)>,
}

/// Who leads the masters, and every generation they handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGenerations {
    /// The highest epoch that a master showed; 0 = none.
    pub epoch: u64,
    /// The primary of that epoch.
    pub primary: Option<Uuid>,
    /// By number.
    pub generations: Vec<StoredGeneration>,
    /// How often the right of each server to the master secret was revoked or given back.
    pub revocations: Revocations,
}

/// What the database says to a key ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be used, once this transaction is committed.
    Admitted {
        /// The database belongs to this keystore from now on.
        bound: bool,
        /// The epoch rose.
        new_leader: bool,
        /// The generations that were not known before.
        new: Vec<u32>,
    },
    /// It comes from another keystore than the database belongs to, which is named.
    Foreign(Uuid),
    /// The master is behind; in words.
    Outdated(String),
}

/// What became of closing a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// It is closed, once this transaction is committed.
    Closed,
    /// It was before.
    WasClosed,
    /// No master handed it out.
    Unknown,
    /// Another master leads than the one that wants it.
    LedByAnother,
    /// Values are sealed under it, which is noted once this transaction is committed.
    InUse {
        /// Rows of configuration_revisions.
        revisions: u64,
        /// Rows of mappings.
        credentials: u64,
    },
}

impl Storage {
    /// Who leads the masters, and every generation that they handed out.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn known_generations(&self) -> Result<KnownGenerations, StorageError> {
        let mut connection = self.reader().await?;
        let (epoch, primary) = leader(&mut connection, LEADER).await?;
        let generations = list(&mut connection).await?;
        drop(connection);
        let revocations = self.revocations().await?;
        Ok(KnownGenerations { epoch, primary, generations, revocations })
    }

    /// How often the right of each server to the master secret was revoked or given back.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn revocations(&self) -> Result<Revocations, StorageError> {
        revocations(&self.rows(|| sqlx::query(REVOCATIONS)).await?)
    }
}

impl Transaction {
    /// Asks whether a key ring may be used, and notes what it brings: the keystore must be the one of
    /// this database, the master not behind the highest epoch nor a rival in it, and no generation may
    /// be missing that values can be sealed under. Refused, nothing was written.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn admit_key_ring(
        &mut self,
        offered: &OfferedKeyRing,
        now: OffsetDateTime,
    ) -> Result<Admission, StorageError> {
        let system = self.lock_system().await?.ok_or_else(|| {
            StorageError::Statement("the database has no row of the system".to_owned())
        })?;
        if let Some(expected) = system.keystore_id.filter(|known| *known != offered.keystore) {
            return Ok(Admission::Foreign(expected));
        }
        let (epoch, primary) = leader(self.connection(), LEADER).await?;
        let known = list(self.connection()).await?;
        if let Some(behind) = behind(offered, epoch, primary, &known) {
            return Ok(Admission::Outdated(behind));
        }
        let bound = self.bind_keystore(offered.keystore, now).await?;
        let new_leader = offered.epoch > epoch || primary.is_none();
        if new_leader {
            sqlx::query(SET_LEADER)
                .bind(stored(offered.epoch))
                .bind(offered.primary.to_string())
                .execute(self.connection())
                .await?;
        }
        let mut new = Vec::new();
        for generation in &offered.generations {
            let done = sqlx::query(INSERT)
                .bind(i64::from(generation.number))
                .bind(&*generation.fingerprint)
                .bind(micros(now))
                .execute(self.connection())
                .await?;
            if done.rows_affected() > 0 {
                new.push(generation.number);
            }
        }
        Ok(Admission::Admitted { bound, new_leader, new })
    }

    /// Holds a generation open until the end of this transaction, so that a value sealed under it may be
    /// written: whoever closes it waits, and counts the value.
    ///
    /// # Errors
    /// `GenerationClosed` when it is closed, or was never handed out.
    pub async fn hold_generation(&mut self, generation: u32) -> Result<(), StorageError> {
        if self.held_generation() == Some(generation) {
            return Ok(());
        }
        let statement = self.dialect().pick(&HOLD);
        let rows =
            sqlx::query(statement).bind(i64::from(generation)).fetch_all(self.connection()).await?;
        if rows.is_empty() {
            let used =
                sqlx::query(USE).bind(i64::from(generation)).execute(self.connection()).await?;
            if used.rows_affected() == 0 {
                return Err(StorageError::GenerationClosed(generation));
            }
        }
        self.note_held_generation(generation);
        Ok(())
    }

    /// Closes a generation, after waiting for every transaction that holds it and counting what is
    /// sealed under it, whatever a sweep found before. With `InUse` no sweep calls it empty any more.
    ///
    /// # Errors
    /// `Unavailable`, also when a transaction holds it for too long; `Corrupt`.
    pub async fn close_generation(
        &mut self,
        generation: u32,
        wanted_by: (u64, Uuid),
        now: OffsetDateTime,
    ) -> Result<CloseOutcome, StorageError> {
        if leader(self.connection(), LEADER).await? != (wanted_by.0, Some(wanted_by.1)) {
            return Ok(CloseOutcome::LedByAnother);
        }
        let statement = self.dialect().pick(&LOCK);
        let rows =
            sqlx::query(statement).bind(i64::from(generation)).fetch_all(self.connection()).await?;
        let Some(row) = rows.first() else { return Ok(CloseOutcome::Unknown) };
        if Columns::of(TABLE, row).optional_time("closed_at")?.is_some() {
            return Ok(CloseOutcome::WasClosed);
        }
        // A statement of its own: it sees what those wrote who were waited for.
        let (revisions, credentials) = self.count_sealed_under(generation).await?;
        self.restart_limit();
        if revisions + credentials > 0 {
            self.unmark(generation).await?;
            return Ok(CloseOutcome::InUse { revisions, credentials });
        }
        // Last, so that nobody who is admitted waits for the count.
        let statement = self.dialect().pick(&HOLD_LEADER);
        if leader(self.connection(), statement).await? != (wanted_by.0, Some(wanted_by.1)) {
            return Ok(CloseOutcome::LedByAnother);
        }
        sqlx::query(CLOSE)
            .bind(micros(now))
            .bind(i64::from(generation))
            .execute(self.connection())
            .await?;
        Ok(CloseOutcome::Closed)
    }

    /// Takes over every later word about the right of a server to the master secret, and gives what is
    /// known then. A master that has not heard of a revocation does not undo it.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn note_revocations(
        &mut self,
        told: &Revocations,
        now: OffsetDateTime,
    ) -> Result<Revocations, StorageError> {
        for (server, number) in told.iter() {
            sqlx::query(REVOKE)
                .bind(clean(server))
                .bind(i64::from(number))
                .bind(micros(now))
                .execute(self.connection())
                .await?;
        }
        revocations(&sqlx::query(REVOCATIONS).fetch_all(self.connection()).await?)
    }
}

/// Why the master that offers this ring is behind what the database knows; `None` when it is not.
fn behind(
    offered: &OfferedKeyRing,
    epoch: u64,
    primary: Option<Uuid>,
    known: &[StoredGeneration],
) -> Option<String> {
    let master = &offered.master;
    if offered.epoch < epoch {
        return Some(format!(
            "the master {master} is of epoch {}, and the database has seen epoch {epoch}: another \
             master was promoted since; let it follow that one",
            offered.epoch
        ));
    }
    if let Some(primary) = primary.filter(|it| offered.epoch == epoch && *it != offered.primary) {
        return Some(format!(
            "the master {master} follows the primary {} of epoch {epoch}, and the database belongs to \
             the primary {primary} of this epoch; promote the right one once more",
            offered.primary
        ));
    }
    for generation in known.iter().filter(|generation| generation.closed_at.is_none()) {
        let number = generation.number;
        let held = offered.generations.iter().find(|it| it.number == number);
        match held {
            Some(held) if held.fingerprint == generation.fingerprint => {}
            Some(held) => {
                return Some(format!(
                    "the master {master} has another key for generation {number} (fingerprint {}) \
                     than the database uses (fingerprint {}); restore its keystore from the right \
                     backup",
                    held.fingerprint, generation.fingerprint
                ));
            }
            None => {
                return Some(format!(
                    "the master {master} lacks generation {number} (fingerprint {}), which the \
                     database uses; restore it from a backup",
                    generation.fingerprint
                ));
            }
        }
    }
    None
}

async fn leader(
    connection: &mut AnyConnection,
    statement: &'static str,
) -> Result<(u64, Option<Uuid>), StorageError> {
    let rows = sqlx::query(statement).fetch_all(connection).await?;
    let Some(row) = rows.first() else { return Ok((0, None)) };
    let columns = Columns::named("system", row, "the only row");
    Ok((columns.number("master_epoch")?, columns.optional_uuid("master_primary")?))
}

async fn list(connection: &mut AnyConnection) -> Result<Vec<StoredGeneration>, StorageError> {
    let rows = sqlx::query(LIST).fetch_all(connection).await?;
    rows.iter().map(parse).collect()
}

fn revocations(rows: &[AnyRow]) -> Result<Revocations, StorageError> {
    let parse = |row: &AnyRow| {
        let columns = Columns::of("revocations", row);
        Ok((columns.text("server")?, columns.number("number")?))
    };
    rows.iter().map(parse).collect()
}

fn parse(row: &AnyRow) -> Result<StoredGeneration, StorageError> {
    let number: u32 = Columns::of(TABLE, row).number("generation")?;
    let columns = Columns::named(TABLE, row, number.to_string());
    let counted = match columns.optional_time("counted_at")? {
        None => None,
        Some(at) => {
            let revisions = columns.number("revisions")?;
            let credentials = columns.number("credentials")?;
            Some((SealedCount { generation: number, revisions, credentials }, at))
        }
    };
    Ok(StoredGeneration {
        number,
        fingerprint: columns.text("fingerprint")?,
        admitted_at: columns.time("admitted_at")?,
        closed_at: columns.optional_time("closed_at")?,
        is_empty: columns.optional_text("sweep")?.is_some_and(|sweep| sweep == "empty"),
        counted,
    })
}
