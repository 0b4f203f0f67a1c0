//! The revision that follows the newest one of a configuration, with its audit record and its news: one
//! statement, which those who write at the same time share.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use time::OffsetDateTime;

use super::{
    Dialect, NewRevision, Storage, StorageError, audit,
    dialect::Whole,
    rows::{Columns, json, micros, stored},
    whole::Bound,
};
use crate::model::{Application, ApplicationId, AuditRecord, HISTORY_LENGTH};

/// Revisions of one statement.
const SIZES: [usize; 4] = [1, 8, 16, 32];
/// Places of a revision: ten of its own, and those of its record.
const PLACES: usize = 10 + audit::COLUMNS;
static WRITE_ON: LazyLock<[Whole; 4]> = LazyLock::new(|| SIZES.map(write_on));

/// The head moves on from the revision that the new one builds on, and everything else follows only if
/// it did.
const SQLITE: &str = "\
    UPDATE configurations SET revision = $2, updated_at = $7, updated_by = $8 \
    WHERE id = $1 AND revision = $2 - 1 AND deleted_revision <> revision \
    AND EXISTS (SELECT 1 FROM generations WHERE generation = $5 AND closed_at IS NULL) \
    AND EXISTS (SELECT 1 FROM applications WHERE id = $3 AND updated_at = $4); \
    INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, changed, \
    rolled_back_to, written_at, written_by) \
    SELECT $1, $2, $6, $5, $9, NULL, $7, $8 WHERE changes() > 0; \
    {audit} SELECT $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23 \
    WHERE changes() > 0; \
    INSERT INTO changes (kind, application_id, configuration_id, at) \
    SELECT 'configuration', $3, $1, $7 WHERE changes() > 0 RETURNING id, configuration_id; \
    DELETE FROM configuration_revisions \
    WHERE configuration_id = $1 AND revision <= $10 AND changes() > 0; ";

/// The generations are held to the end of the statement, as [`super::Transaction::hold_generation`] does to
/// the end of a transaction; and a head that another holds is passed over, so that nothing is waited for
/// that could end what was checked before.
const POSTGRES: &str = "\
    WITH new (id, revision, application_id, application_updated_at, generation, sealed, written_at, \
    written_by, changed, last_pruned, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13) \
    AS MATERIALIZED (VALUES {rows}), \
    open AS MATERIALIZED (SELECT generation FROM generations \
    WHERE generation IN (SELECT generation FROM new) AND closed_at IS NULL \
    ORDER BY generation FOR SHARE), \
    mine AS MATERIALIZED (SELECT c.id FROM new JOIN configurations c \
    ON c.id = new.id AND c.revision = new.revision - 1 AND c.deleted_revision <> c.revision \
    WHERE EXISTS (SELECT 1 FROM open WHERE open.generation = new.generation) \
    AND EXISTS (SELECT 1 FROM applications a \
    WHERE a.id = new.application_id AND a.updated_at = new.application_updated_at) \
    FOR NO KEY UPDATE OF c SKIP LOCKED), \
    head AS (UPDATE configurations c SET revision = new.revision, updated_at = new.written_at, \
    updated_by = new.written_by FROM new JOIN mine ON mine.id = new.id WHERE c.id = new.id \
    RETURNING c.id), \
    written AS (INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, \
    changed, rolled_back_to, written_at, written_by) \
    SELECT id, revision, sealed, generation, changed, NULL, written_at, written_by \
    FROM new JOIN head USING (id)), \
    recorded AS ({audit} SELECT a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13 \
    FROM new JOIN head USING (id)), \
    told AS (INSERT INTO changes (kind, application_id, configuration_id, at) \
    SELECT 'configuration', application_id, id, written_at FROM new JOIN head USING (id) \
    RETURNING id, configuration_id), \
    pruned AS (DELETE FROM configuration_revisions r USING new JOIN head USING (id) \
    WHERE r.configuration_id = new.id AND r.revision <= new.last_pruned) \
    SELECT id, configuration_id FROM told";

/// What a place of a revision holds.
enum Kind {
    Number,
    Bytes,
    Text,
}

fn kind(place: usize) -> Kind {
    match place {
        2 | 4 | 5 | 7 | 10 | 11 => Kind::Number,
        6 => Kind::Bytes,
        _ => Kind::Text,
    }
}

fn write_on(revisions: usize) -> Whole {
    let (mut sqlite, mut rows) = (String::new(), String::new());
    for first in (0..revisions).map(|number| number * PLACES) {
        // From the highest: `$1` is the beginning of `$10`.
        let shifted = (1..=PLACES).rev().fold(SQLITE.to_owned(), |text, place| {
            text.replace(&format!("${place}"), &format!("@{}", first + place))
        });
        sqlite.push_str(&shifted.replace('@', "$"));
        rows.push_str(if first == 0 { "(" } else { ", (" });
        for place in 1..=PLACES {
            let kind = match kind(place) {
                Kind::Number => "BIGINT",
                Kind::Bytes => "BYTEA",
                Kind::Text => "TEXT",
            };
            let comma = if place == 1 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(rows, "{comma}CAST(${} AS {kind})", first + place);
        }
        rows.push(')');
    }
    let whole = |text: &str| text.replace("{audit}", audit::INTO);
    Whole::of(revisions, &whole(&sqlite), whole(&POSTGRES.replace("{rows}", &rows)))
}

/// The statements for several revisions.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    WRITE_ON.iter().flat_map(|whole| whole.texts(dialect)).map(str::to_owned).collect()
}

/// A revision to be written with others. Two are never the same.
#[derive(Clone)]
pub(super) struct NextRevision(Arc<Next>);

struct Next {
    application: ApplicationId,
    application_updated_at: OffsetDateTime,
    new: NewRevision,
    record: AuditRecord,
}

impl PartialEq for NextRevision {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NextRevision {}

impl Hash for NextRevision {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl NextRevision {
    fn bind<'q>(&'q self, query: Bound<'q>) -> Bound<'q> {
        let Next { application, application_updated_at, new, record } = &*self.0;
        let query = query
            .bind(new.configuration.to_string())
            .bind(stored(new.revision.0))
            .bind(application.to_string())
            .bind(micros(*application_updated_at))
            .bind(i64::from(new.generation))
            .bind(&*new.sealed)
            .bind(micros(new.written_at))
            .bind(&*new.written_by)
            .bind(json(&new.changed))
            .bind(stored(new.revision.0.saturating_sub(HISTORY_LENGTH)));
        audit::bind(query, record)
    }
}

/// Fills the places of a revision that is not there: no configuration has an empty id.
fn bind_nothing(query: Bound<'_>) -> Bound<'_> {
    (1..=PLACES).fold(query, |query, place| match kind(place) {
        Kind::Number => query.bind(0_i64),
        Kind::Bytes => query.bind(&[][..]),
        Kind::Text => query.bind(""),
    })
}

/// Writes revisions, and says of each which number its news has; `None` of what was not written.
pub(super) async fn write_together(
    storage: &Storage,
    next: &[NextRevision],
) -> Result<Vec<Option<u64>>, StorageError> {
    // Of those that write the same configuration only the first follows its newest revision.
    let mut named = HashSet::new();
    let first = next.iter().map(|it| named.insert(it.0.new.configuration)).collect::<Vec<_>>();
    let firsts = || next.iter().zip(&first).filter_map(|(it, first)| first.then_some(it));
    let rows = storage.write_whole(&*WRITE_ON, firsts().count(), |text, size| {
        let query = firsts().fold(sqlx::query(text), |query, it| it.bind(query));
        (firsts().count()..size).fold(query, |query, _| bind_nothing(query))
    });
    let mut numbers = HashMap::new();
    for row in rows.await? {
        let columns = Columns::of("changes", &row);
        numbers.insert(columns.uuid("configuration_id")?, columns.number("id")?);
    }
    let number = |(it, first): (&NextRevision, &bool)| {
        first.then(|| numbers.get(&it.0.new.configuration.0).copied()).flatten()
    };
    Ok(next.iter().zip(&first).map(number).collect())
}

impl Storage {
    /// Writes the revision that follows the newest one, which is not a deletion, with its audit record
    /// and its news; the oldest ones are dropped. The number of its news; `None`, and nothing is written,
    /// when it is not the newest any more, another is writing it, its application was changed since it was
    /// read, or the generation is closed: a transaction finds out which. Those that come together are one
    /// statement.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`.
    pub async fn write_on(
        &self,
        application: &Application,
        new: NewRevision,
        record: AuditRecord,
    ) -> Result<Option<u64>, StorageError> {
        let (application, application_updated_at) = (application.id, application.updated_at);
        let next = Next { application, application_updated_at, new, record };
        self.batches.write_on(self, NextRevision(Arc::new(next))).await
    }
}
