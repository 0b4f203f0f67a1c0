//! Configurations: their heads, and the sealed values of their revisions.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, clean, cut, json, micros, stored},
    whole::Bound,
};
use crate::model::{
    ApplicationId, ConfigurationHead, ConfigurationId, HISTORY_LENGTH, Identifier, Page,
    PageRequest, Revision, RevisionEntry,
};

const TABLE: &str = "configurations";
const REVISIONS: &str = "configuration_revisions";

macro_rules! head {
    ($lock:literal) => {
        concat!(
            "SELECT id, identifier, identifier_key, revision, deleted_revision, updated_at, updated_by ",
            "FROM configurations WHERE application_id = $1 AND identifier_key = $2",
            $lock
        )
    };
}
macro_rules! revision {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM configuration_revisions WHERE configuration_id = $1 ",
            $rest
        )
    };
}
const HEAD: &str = head!("");
const LOCK: Statement = Statement { sqlite: head!(""), postgres: head!(" FOR NO KEY UPDATE") };
pub(super) const CURRENT: &str = "\
    SELECT c.id, c.identifier, c.identifier_key, c.revision, c.deleted_revision, c.updated_at, \
    c.updated_by, r.sealed, r.generation FROM configurations c LEFT JOIN configuration_revisions r \
    ON r.configuration_id = c.id AND r.revision = c.revision \
    WHERE c.application_id = $1 AND c.identifier_key = $2";
const LIST: &str = "\
    SELECT id, identifier, identifier_key, revision, deleted_revision, updated_at, updated_by \
    FROM configurations WHERE application_id = $1 AND identifier_key > $2 \
    AND deleted_revision <> revision ORDER BY identifier_key LIMIT $3";
const HISTORY: &str = revision!(
    "revision, changed, rolled_back_to, written_at, written_by",
    "ORDER BY revision DESC LIMIT 100"
);
const ONE: &str = revision!("sealed, generation", "AND revision = $2");
const BUMP: &str = "\
    UPDATE configurations SET revision = revision + 1, updated_at = $1, updated_by = $2 \
    WHERE application_id = $3 AND identifier_key = $4 RETURNING id, revision, deleted_revision";
const INSERT: &str = "\
    INSERT INTO configurations (id, application_id, identifier, identifier_key, revision, \
    deleted_revision, updated_at, updated_by) VALUES ($1, $2, $3, $4, 1, 0, $5, $6) \
    ON CONFLICT (application_id, identifier_key) DO NOTHING";
const INSERT_REVISION: &str = "\
    INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, changed, \
    rolled_back_to, written_at, written_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const PRUNE: &str =
    "DELETE FROM configuration_revisions WHERE configuration_id = $1 AND revision <= $2";
const DELETE: &str = "\
    UPDATE configurations SET revision = revision + 1, deleted_revision = revision + 1, \
    updated_at = $1, updated_by = $2 WHERE id = $3 AND deleted_revision <> revision \
    RETURNING revision";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(HEAD),
    LOCK,
    Statement::same(CURRENT),
    Statement::same(LIST),
    Statement::same(HISTORY),
    Statement::same(ONE),
    Statement::same(BUMP),
    Statement::same(INSERT),
    Statement::same(INSERT_REVISION),
    Statement::same(PRUNE),
    Statement::same(DELETE),
];

/// A configuration that is not deleted, with the sealed values of its newest revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConfiguration {
    /// Everything but the values.
    pub head: ConfigurationHead,
    /// The values, sealed as one bag to the row of `head.revision`.
    pub sealed: Vec<u8>,
    /// The generation of the master secret they are sealed under.
    pub generation: u32,
}

/// The sealed values of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRevision {
    /// Its number.
    pub revision: Revision,
    /// The values, sealed as one bag to the row of the revision.
    pub sealed: Vec<u8>,
    /// The generation of the master secret they are sealed under.
    pub generation: u32,
}

/// A revision to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevision {
    /// Of which configuration.
    pub configuration: ConfigurationId,
    /// The number that [`Transaction::bump_revision`] gave out, or 1.
    pub revision: Revision,
    /// The values, sealed to the row of this revision.
    pub sealed: Vec<u8>,
    /// The generation of the master secret they are sealed under.
    pub generation: u32,
    /// Labels of the fields whose value differs from the revision before.
    pub changed: Vec<String>,
    /// Of a rollback: the revision whose values these are.
    pub rolled_back_to: Option<Revision>,
    /// When.
    pub written_at: OffsetDateTime,
    /// Who, as written.
    pub written_by: String,
}

/// A configuration whose next revision number was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BumpedRevision {
    /// Of which configuration.
    pub id: ConfigurationId,
    /// The number taken; the one before it was the newest.
    pub revision: Revision,
    /// The revision before was its deletion.
    pub was_deleted: bool,
}

impl Storage {
    /// A configuration without its values, be it deleted; `None` where it never was.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn configuration_head(
        &self,
        application: ApplicationId,
        identifier: &Identifier,
    ) -> Result<Option<ConfigurationHead>, StorageError> {
        let rows = self.rows(|| of_identifier(HEAD, application, identifier)).await?;
        rows.first().map(head).transpose()
    }

    /// The configurations of an application that are not deleted, by identifier.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn identifiers(
        &self,
        application: ApplicationId,
        page: &PageRequest,
    ) -> Result<Page<ConfigurationHead>, StorageError> {
        let query = || {
            sqlx::query(LIST)
                .bind(application.to_string())
                .bind(clean(page.after.as_deref().unwrap_or_default()))
                .bind(i64::from(page.size) + 1)
        };
        let rows = self.rows(query).await?;
        let heads = rows.iter().map(head).collect::<Result<Vec<_>, _>>()?;
        Ok(cut(heads, page, |head| head.identifier.key().to_owned()))
    }

    /// The revisions kept of a configuration, newest first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn history(&self, id: ConfigurationId) -> Result<Vec<RevisionEntry>, StorageError> {
        let rows = self.rows(|| sqlx::query(HISTORY).bind(id.to_string())).await?;
        rows.iter()
            .map(|row| {
                let columns = Columns::named(REVISIONS, row, id.to_string());
                Ok(RevisionEntry {
                    revision: Revision(columns.number("revision")?),
                    written_at: columns.time("written_at")?,
                    written_by: columns.text("written_by")?,
                    changed: columns.list("changed")?,
                    rolled_back_to: columns.optional_number("rolled_back_to")?.map(Revision),
                })
            })
            .collect()
    }

    /// The sealed values of one revision; `None` where it is not kept.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn revision(
        &self,
        id: ConfigurationId,
        revision: Revision,
    ) -> Result<Option<SealedRevision>, StorageError> {
        let rows = self.rows(|| of_revision(id, revision)).await?;
        rows.first().map(|row| sealed_revision(row, id, revision)).transpose()
    }
}

impl Transaction {
    /// A configuration without its values, be it deleted, held against changes by others until the
    /// end of this transaction; `None` where it never was.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn lock_configuration(
        &mut self,
        application: ApplicationId,
        identifier: &Identifier,
    ) -> Result<Option<ConfigurationHead>, StorageError> {
        let statement = self.dialect().pick(&LOCK);
        let query = of_identifier(statement, application, identifier);
        let rows = query.fetch_all(self.connection()).await?;
        rows.first().map(head).transpose()
    }

    /// The sealed values of one revision; `None` where it is not kept.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn revision(
        &mut self,
        id: ConfigurationId,
        revision: Revision,
    ) -> Result<Option<SealedRevision>, StorageError> {
        let rows = of_revision(id, revision).fetch_all(self.connection()).await?;
        rows.first().map(|row| sealed_revision(row, id, revision)).transpose()
    }

    /// Takes the next revision number of a configuration, and its row until the end of this
    /// transaction: writers of one configuration follow one another. A deleted one is none any
    /// more afterwards. `None` where it never was.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn bump_revision(
        &mut self,
        application: ApplicationId,
        identifier: &Identifier,
        by: &str,
        at: OffsetDateTime,
    ) -> Result<Option<BumpedRevision>, StorageError> {
        let rows = sqlx::query(BUMP)
            .bind(micros(at))
            .bind(by)
            .bind(application.to_string())
            .bind(identifier.key())
            .fetch_all(self.connection())
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let columns = Columns::named(TABLE, row, identifier.key());
        let revision: u64 = columns.number("revision")?;
        let deleted: u64 = columns.number("deleted_revision")?;
        Ok(Some(BumpedRevision {
            id: ConfigurationId(columns.uuid("id")?),
            revision: Revision(revision),
            was_deleted: deleted.checked_add(1) == Some(revision),
        }))
    }

    /// Writes the head of a new configuration, at revision 1; `false` when another writer was
    /// first: take its next revision then.
    ///
    /// # Errors
    /// `Gone` when the application was deleted.
    pub async fn insert_configuration(
        &mut self,
        id: ConfigurationId,
        application: ApplicationId,
        identifier: &Identifier,
        by: &str,
        at: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query(INSERT)
            .bind(id.to_string())
            .bind(application.to_string())
            .bind(identifier.as_str())
            .bind(identifier.key())
            .bind(micros(at))
            .bind(by)
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes the values of a revision, and drops revisions that are older than the last
    /// [`HISTORY_LENGTH`].
    ///
    /// # Errors
    /// `Gone` when the configuration was deleted with its application; `GenerationClosed`.
    pub async fn insert_revision(&mut self, new: &NewRevision) -> Result<(), StorageError> {
        self.hold_generation(new.generation).await?;
        sqlx::query(INSERT_REVISION)
            .bind(new.configuration.to_string())
            .bind(stored(new.revision.0))
            .bind(&*new.sealed)
            .bind(i64::from(new.generation))
            .bind(json(&new.changed))
            .bind(new.rolled_back_to.map(|revision| stored(revision.0)))
            .bind(micros(new.written_at))
            .bind(&*new.written_by)
            .execute(self.connection())
            .await?;
        if let Some(last) = new.revision.0.checked_sub(HISTORY_LENGTH).filter(|last| *last > 0) {
            self.prune(new.configuration, Revision(last)).await?;
        }
        Ok(())
    }

    /// Deletes a configuration with its history; the revision number of the deletion, or `None`
    /// where there was nothing to delete.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn delete_configuration(
        &mut self,
        id: ConfigurationId,
        by: &str,
        at: OffsetDateTime,
    ) -> Result<Option<Revision>, StorageError> {
        let rows = sqlx::query(DELETE)
            .bind(micros(at))
            .bind(by)
            .bind(id.to_string())
            .fetch_all(self.connection())
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let revision = Revision(Columns::named(TABLE, row, id.to_string()).number("revision")?);
        self.prune(id, revision).await?;
        Ok(Some(revision))
    }

    async fn prune(&mut self, id: ConfigurationId, last: Revision) -> Result<(), StorageError> {
        sqlx::query(PRUNE)
            .bind(id.to_string())
            .bind(stored(last.0))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn of_identifier<'q>(
    statement: &'static str,
    application: ApplicationId,
    identifier: &'q Identifier,
) -> Bound<'q> {
    sqlx::query(statement).bind(application.to_string()).bind(identifier.key())
}

fn of_revision(id: ConfigurationId, revision: Revision) -> Bound<'static> {
    sqlx::query(ONE).bind(id.to_string()).bind(stored(revision.0))
}

fn sealed_revision(
    row: &AnyRow,
    id: ConfigurationId,
    revision: Revision,
) -> Result<SealedRevision, StorageError> {
    let columns = Columns::named(REVISIONS, row, format!("{id}, revision {revision}"));
    Ok(SealedRevision {
        revision,
        sealed: columns.bytes("sealed")?,
        generation: columns.number("generation")?,
    })
}

pub(super) fn configuration(row: &AnyRow) -> Result<Option<StoredConfiguration>, StorageError> {
    let head = head(row)?;
    if head.deleted {
        return Ok(None);
    }
    let columns = Columns::named(TABLE, row, head.id.to_string());
    let sealed = columns.optional_bytes("sealed")?.ok_or_else(|| {
        columns.corrupt(format!("the values of its revision {} are missing", head.revision))
    })?;
    let generation = columns.number("generation")?;
    Ok(Some(StoredConfiguration { head, sealed, generation }))
}

pub(super) fn head(row: &AnyRow) -> Result<ConfigurationHead, StorageError> {
    let id = Columns::of(TABLE, row).uuid("id")?;
    let columns = Columns::named(TABLE, row, id.to_string());
    let identifier = columns.parse("identifier", Identifier::parse)?;
    if columns.text("identifier_key")? != identifier.key() {
        return Err(columns.corrupt("column identifier_key is not the key of the identifier"));
    }
    let revision: u64 = columns.number("revision")?;
    if revision == 0 {
        return Err(columns.corrupt("column revision holds 0"));
    }
    Ok(ConfigurationHead {
        id: ConfigurationId(id),
        identifier,
        revision: Revision(revision),
        deleted: columns.number::<u64>("deleted_revision")? == revision,
        updated_at: columns.time("updated_at")?,
        updated_by: columns.text("updated_by")?,
    })
}
