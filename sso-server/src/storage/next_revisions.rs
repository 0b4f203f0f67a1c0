//! The revision that follows the newest one of a configuration, with its audit record and its news: one
//! statement, which those who write at the same time share.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Dialect, NewRevision, Storage, StorageError, audit,
    batches::MOST,
    dialect::Whole,
    rows::{Columns, Value, fill, json, micros, stored},
    whole::Bound,
};
use crate::model::{Application, ApplicationId, AuditRecord, HISTORY_LENGTH};

/// Revisions of one statement.
const SIZES: [usize; 4] = [1, 8, 16, MOST];
static WRITE_ON: LazyLock<[Whole; 4]> = LazyLock::new(|| SIZES.map(write_on));

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Bytes,
    Text,
}

/// Places of a revision itself.
const OWN: usize = 10;
/// What is given of a revision: places of its own, and those of its record.
const PLACES: [(&str, Kind); OWN + audit::COLUMNS] = [
    ("id", Kind::Text),
    ("revision", Kind::Number),
    ("application_id", Kind::Text),
    ("application_updated_at", Kind::Number),
    ("generation", Kind::Number),
    ("sealed", Kind::Bytes),
    ("written_at", Kind::Number),
    ("written_by", Kind::Text),
    ("changed", Kind::Text),
    ("last_pruned", Kind::Number),
    ("record_at", Kind::Number),
    ("record_id", Kind::Text),
    ("record_server", Kind::Text),
    ("record_request_id", Kind::Text),
    ("record_caller", Kind::Text),
    ("record_caller_key", Kind::Text),
    ("record_action", Kind::Text),
    ("record_application", Kind::Text),
    ("record_application_key", Kind::Text),
    ("record_object", Kind::Text),
    ("record_outcome", Kind::Text),
    ("record_reason", Kind::Text),
    ("record_detail", Kind::Text),
];

/// Where the head stands at the revision that the new one builds on, the record is written; everything else
/// follows where the record is there, whose id nobody else has. At the end the numbers of the news, which
/// one statement gave out one after the other.
const SQLITE: [(&[&str], &str); 6] = [
    (
        &[
            "id",
            "revision",
            "application_id",
            "application_updated_at",
            "generation",
            "record_at",
            "record_id",
            "record_server",
            "record_request_id",
            "record_caller",
            "record_caller_key",
            "record_action",
            "record_application",
            "record_application_key",
            "record_object",
            "record_outcome",
            "record_reason",
            "record_detail",
        ],
        "{audit} SELECT {record} \
         FROM new CROSS JOIN configurations c ON c.id = new.id \
         WHERE c.revision = new.revision - 1 AND c.deleted_revision <> c.revision \
         AND EXISTS (SELECT 1 FROM generations g \
         WHERE g.generation = new.generation AND g.closed_at IS NULL AND g.sweep IS NULL) \
         AND EXISTS (SELECT 1 FROM applications a \
         WHERE a.id = new.application_id AND a.updated_at = new.application_updated_at)",
    ),
    (
        &[
            "id",
            "revision",
            "sealed",
            "generation",
            "changed",
            "written_at",
            "written_by",
            "record_at",
            "record_id",
        ],
        "INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, changed, \
         rolled_back_to, written_at, written_by) SELECT new.id, new.revision, new.sealed, \
         new.generation, new.changed, NULL, new.written_at, new.written_by FROM new {recorded}",
    ),
    (
        &["id", "revision", "written_at", "written_by", "record_at", "record_id"],
        "UPDATE configurations SET revision = new.revision, updated_at = new.written_at, \
         updated_by = new.written_by FROM new {recorded} WHERE configurations.id = new.id",
    ),
    (
        &["id", "last_pruned", "record_at", "record_id"],
        "DELETE FROM configuration_revisions WHERE (configuration_id, revision) IN \
         (SELECT r.configuration_id, r.revision FROM new {recorded} \
         CROSS JOIN configuration_revisions r \
         ON r.configuration_id = new.id AND r.revision <= new.last_pruned)",
    ),
    (
        &["id", "application_id", "written_at", "record_at", "record_id"],
        "INSERT INTO changes (kind, application_id, configuration_id, at) \
         SELECT 'configuration', new.application_id, new.id, new.written_at FROM new {recorded}",
    ),
    (
        &[],
        "SELECT group_concat(id || ' ' || configuration_id) AS told FROM changes \
         WHERE changes() > 0 AND id > last_insert_rowid() - changes() HAVING COUNT(*) > 0",
    ),
];
const RECORDED: &str = "CROSS JOIN audit ON audit.at = new.record_at AND audit.id = new.record_id";

/// The generations are held to the end of the statement, as [`super::Transaction::hold_generation`] does to
/// the end of a transaction. A generation that somebody is closing or that has the mark of a sweep, and a head
/// that another holds, are passed over, so that nothing is waited for that could end what was checked before.
const POSTGRES: &str = "\
    open AS MATERIALIZED (SELECT generation FROM generations \
    WHERE generation IN (SELECT generation FROM new) AND closed_at IS NULL AND sweep IS NULL \
    ORDER BY generation FOR SHARE SKIP LOCKED), \
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
    recorded AS ({audit} SELECT {record} \
    FROM new JOIN head USING (id)), \
    told AS (INSERT INTO changes (kind, application_id, configuration_id, at) \
    SELECT 'configuration', application_id, id, written_at FROM new JOIN head USING (id) \
    RETURNING id, configuration_id), \
    pruned AS (DELETE FROM configuration_revisions r USING new JOIN head USING (id) \
    WHERE r.configuration_id = new.id AND r.revision <= new.last_pruned) \
    SELECT string_agg(id || ' ' || configuration_id, ',') AS told FROM told HAVING COUNT(*) > 0";

fn write_on(revisions: usize) -> Whole {
    let mut sqlite = String::new();
    for (names, text) in SQLITE {
        if !names.is_empty() {
            sqlite.push_str(&format!("WITH {} ", given(revisions, names, Dialect::Sqlite)));
        }
        sqlite.push_str(&text.replace("{recorded}", RECORDED));
        sqlite.push_str("; ");
    }
    let all = PLACES.map(|(name, _)| name);
    let postgres = format!("WITH {}, {POSTGRES}", given(revisions, &all, Dialect::Postgres));
    let record: Vec<_> = all.iter().skip(OWN).copied().collect();
    let whole =
        |text: &str| text.replace("{audit}", audit::INTO).replace("{record}", &record.join(", "));
    Whole::of(revisions, &whole(&sqlite), &whole(&postgres))
}

/// These places of so many revisions, as the table `new`.
fn given(revisions: usize, names: &[&str], dialect: Dialect) -> String {
    let place = |revision: usize, place: usize, kind: Kind| {
        let number = revision * PLACES.len() + place + 1;
        match (dialect, kind) {
            // SQLite gives a column no type, and is slow with many places that have names. PostgreSQL takes
            // what is not said for a text.
            (Dialect::Sqlite, _) => "?".to_owned(),
            (Dialect::Postgres, Kind::Number) => format!("CAST(${number} AS BIGINT)"),
            (Dialect::Postgres, Kind::Bytes) => format!("CAST(${number} AS BYTEA)"),
            (Dialect::Postgres, Kind::Text) => format!("CAST(${number} AS TEXT)"),
        }
    };
    let row = |revision: usize| {
        let wanted = PLACES.iter().enumerate().filter(|(_, (name, _))| names.contains(name));
        let places = wanted.map(|(number, (_, kind))| place(revision, number, *kind));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    let wanted = PLACES.iter().filter(|(name, _)| names.contains(name)).map(|(name, _)| *name);
    let wanted = wanted.collect::<Vec<_>>().join(", ");
    let rows = (0..revisions).map(row).collect::<Vec<_>>().join(", ");
    format!("new ({wanted}) AS (VALUES {rows})")
}

/// The statements, one for each size.
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
    /// What goes into its places.
    fn values(&self) -> Vec<Value<'_>> {
        let Next { application, application_updated_at, new, record } = &*self.0;
        let own = [
            Value::text(new.configuration.to_string()),
            Value::Number(stored(new.revision.0)),
            Value::text(application.to_string()),
            Value::Number(micros(*application_updated_at)),
            Value::Number(i64::from(new.generation)),
            Value::Bytes(&new.sealed),
            Value::Number(micros(new.written_at)),
            Value::text(&new.written_by),
            Value::text(json(&new.changed)),
            Value::Number(stored(new.revision.0.saturating_sub(HISTORY_LENGTH))),
        ];
        own.into_iter().chain(audit::values(record)).collect()
    }
}

/// What goes into the places of a revision that is not there: no configuration has an empty id.
fn nothing<'q>() -> Vec<Value<'q>> {
    let nothing = |(_, kind): &(&str, Kind)| match kind {
        Kind::Number => Value::Number(0),
        Kind::Bytes => Value::Bytes(&[]),
        Kind::Text => Value::text(""),
    };
    PLACES.iter().map(nothing).collect()
}

/// Fills the places of the whole statement, in the order in which they stand there.
fn bind<'q>(query: Bound<'q>, revisions: &[&Vec<Value<'q>>], dialect: Dialect) -> Bound<'q> {
    let all = || revisions.iter().copied().flatten();
    match dialect {
        Dialect::Postgres => all().fold(query, fill),
        Dialect::Sqlite => SQLITE.iter().fold(query, |query, (names, _)| {
            let wanted = PLACES.iter().map(|(name, _)| names.contains(name)).cycle();
            all()
                .zip(wanted)
                .filter_map(|(value, wanted)| wanted.then_some(value))
                .fold(query, fill)
        }),
    }
}

/// Writes revisions, and says of each which number its news has; `None` of what was not written.
pub(super) async fn write_together(
    storage: &Storage,
    next: &[NextRevision],
) -> Result<Vec<Option<u64>>, StorageError> {
    // Of those that write the same configuration only the first follows its newest revision.
    let mut named = HashSet::new();
    let first = next.iter().map(|it| named.insert(it.0.new.configuration)).collect::<Vec<_>>();
    let firsts = next.iter().zip(&first).filter_map(|(it, first)| first.then_some(it));
    let (values, nothing): (Vec<_>, _) = (firsts.map(NextRevision::values).collect(), nothing());
    let rows = storage.write_whole(&*WRITE_ON, values.len(), |text, size| {
        let given: Vec<_> = values.iter().chain(std::iter::repeat(&nothing)).take(size).collect();
        bind(sqlx::query(text), &given, storage.dialect())
    });
    let mut numbers = HashMap::new();
    for row in rows.await? {
        numbers.extend(Columns::of("changes", &row).parse("told", told)?);
    }
    let number = |(it, first): (&NextRevision, &bool)| {
        first.then(|| numbers.get(&it.0.new.configuration.0).copied()).flatten()
    };
    Ok(next.iter().zip(&first).map(number).collect())
}

/// Numbers of news, each with the configuration that it is of.
fn told(text: &str) -> Result<Vec<(Uuid, u64)>, &'static str> {
    let one = |text: &str| {
        let (number, id) = text.split_once(' ')?;
        Some((Uuid::try_parse(id).ok()?, number.parse().ok()?))
    };
    text.split(',').map(one).collect::<Option<_>>().ok_or("no numbers of news")
}

impl Storage {
    /// Writes the revision that follows the newest one, which is not a deletion, with its audit record
    /// and its news; the oldest ones are dropped. The number of its news; `None`, and nothing is written,
    /// when it is not the newest any more, another is writing it, its application was changed since it was
    /// read, or the generation is closed or has the mark of a sweep: a transaction finds out which. Those that come together are one
    /// statement.
    ///
    /// # Errors
    /// `Overloaded`, `Unavailable`; `Statement` or `Gone` for what the database does not accept.
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
