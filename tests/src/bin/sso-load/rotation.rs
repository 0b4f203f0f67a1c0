//! Rotation of many mappings beside the most that the database gives: bare batches of `UPDATE` of a copy of
//! the same rows, with the same indexes and the same storage, without keys, checks and pace.

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use sso_tests::{
    load::{
        accounting::Snapshot,
        report::{Figure, Report},
        round::{DATABASE, Middle, SERVER},
        stand::{Kind, OWN, Stand},
    },
    raw,
};

use crate::{
    options::RotationOptions,
    run::{each_stand, rotate, show},
};

pub(crate) fn rotation(options: &RotationOptions) -> Result<(), String> {
    let mut report = Report::of_this_machine();
    each_stand(&options.stand, &[OWN], |stand| {
        let what = format!("{} {} rows", stand.wanted.database.name(), stand.wanted.mappings);
        let mut note = |name: &str, value: f64, unit: &str| {
            let value = Middle::of([value]);
            let figure = Figure { name: format!("{name}, {what}"), value, unit: unit.to_owned() };
            eprintln!("{:<58} {:.2} {unit}", figure.name, figure.value.median);
            report.figures.push(figure);
        };
        let bare = bare(options, stand).map_err(|error| error.to_string())?;
        note("bare batch UPDATE", bare, "rows/s");

        let server = stand.system.server(1).id();
        let groups = stand.groups(server);
        let rows = stand.block_on(rows(stand)).map_err(|error| error.to_string())?;
        let (before, start) = (Snapshot::take(&groups), Instant::now());
        // Backup, hand-out and activation are in it: a second or two.
        rotate(&stand.system, 1);
        let took = start.elapsed();
        let spent = before.until(&Snapshot::take(&groups), took);
        let left = stand.block_on(left_behind(stand)).map_err(|error| error.to_string())?;
        if left > 0 {
            return Err(format!("{left} rows are still sealed under the old generation"));
        }
        let sealing = stand.block_on(sealing(stand)).map_err(|error| error.to_string())?;
        let rate = rows as f64 / sealing.as_secs_f64();
        note("rotation with backup and hand-out", took.as_secs_f64(), "s");
        note("sealing again", rate, "rows/s");
        note("sealing again ÷ bare UPDATE", rate / bare, "");
        let cpu = |group: &str| {
            let spent = spent.groups.get(group).copied().unwrap_or_default();
            spent.as_secs_f64() * 1e6 / rows.max(1) as f64
        };
        note("server CPU for a row", cpu(SERVER), "µs");
        if stand.wanted.database == Kind::Postgresql {
            note("database CPU for a row", cpu(DATABASE), "µs");
        }
        Ok(())
    })?;
    show(&report, &options.report)
}

async fn database(stand: &Stand) -> sqlx::Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    let mut database = AnyConnection::connect(&raw::database_url(&stand.system)).await?;
    if stand.wanted.database == Kind::Sqlite {
        // Memory and log as the server has them.
        let told = "PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; \
            PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000";
        run(&mut database, told).await?;
    }
    Ok(database)
}

async fn run(database: &mut AnyConnection, text: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(database).await.map(drop)
}

async fn number(stand: &Stand, text: &str) -> sqlx::Result<i64> {
    let mut database = database(stand).await?;
    sqlx::query(AssertSqlSafe(text.to_owned())).fetch_one(&mut database).await?.try_get(0)
}

async fn rows(stand: &Stand) -> sqlx::Result<i64> {
    number(stand, "SELECT COUNT(*) FROM mappings WHERE sealed IS NOT NULL").await
}

async fn left_behind(stand: &Stand) -> sqlx::Result<i64> {
    number(stand, "SELECT COUNT(*) FROM mappings WHERE generation <> 2").await
}

/// From the record that sealing again begins to the one that it is done: with the count at its end, and without
/// the one before it.
async fn sealing(stand: &Stand) -> sqlx::Result<Duration> {
    let text =
        "SELECT MAX(at) - MIN(at) FROM audit WHERE action = 'secret.reseal' HAVING COUNT(*) = 2";
    let micros = number(stand, text).await?;
    Ok(Duration::from_micros(micros.try_into().unwrap_or_default()))
}

/// The same rows, indexes and storage in a table of their own.
async fn copy(stand: &Stand) -> sqlx::Result<()> {
    let mut database = database(stand).await?;
    match stand.wanted.database {
        Kind::Sqlite => {
            let schema = "SELECT sql FROM sqlite_master WHERE tbl_name = 'mappings' \
                 AND sql IS NOT NULL ORDER BY type DESC";
            for made in sqlx::query(schema).fetch_all(&mut database).await? {
                let text: String = made.try_get(0)?;
                run(&mut database, &text.replace("mappings", "bare")).await?;
            }
            run(&mut database, "INSERT INTO bare SELECT * FROM mappings").await?;
            // A log that is as long as the table would be searched for every page.
            run(&mut database, "PRAGMA wal_checkpoint(TRUNCATE)").await
        }
        Kind::Postgresql => {
            run(&mut database, "CREATE TABLE bare (LIKE mappings INCLUDING ALL)").await?;
            let options = "SELECT COALESCE(array_to_string(reloptions, ', '), '') FROM pg_class \
                 WHERE oid = 'mappings'::regclass";
            let options: String =
                sqlx::query(options).fetch_one(&mut database).await?.try_get(0)?;
            if !options.is_empty() {
                run(&mut database, &format!("ALTER TABLE bare SET ({options})")).await?;
            }
            run(&mut database, "INSERT INTO bare SELECT * FROM mappings").await?;
            run(&mut database, "ANALYZE bare").await?;
            run(&mut database, "CHECKPOINT").await
        }
    }
}

/// Rows per second of the bare updates.
fn bare(options: &RotationOptions, stand: &Stand) -> sqlx::Result<f64> {
    let workers = match stand.wanted.database {
        Kind::Sqlite => 1,
        Kind::Postgresql => options.workers.max(1),
    };
    stand.block_on(async {
        copy(stand).await?;
        let mut ranges = Vec::new();
        let mut reader = database(stand).await?;
        let count: i64 =
            sqlx::query("SELECT COUNT(*) FROM bare").fetch_one(&mut reader).await?.try_get(0)?;
        for worker in 0..workers {
            let at = count * i64::try_from(worker).unwrap_or_default()
                / i64::try_from(workers).unwrap_or(1);
            let first: String = sqlx::query("SELECT id FROM bare ORDER BY id LIMIT 1 OFFSET $1")
                .bind(at)
                .fetch_one(&mut reader)
                .await?
                .try_get(0)?;
            ranges.push(first);
        }
        let ends: Vec<_> = ranges.iter().skip(1).cloned().chain(["~".to_owned()]).collect();
        let start = Instant::now();
        let updates = ranges
            .iter()
            .zip(&ends)
            .map(|(first, end)| update(options.batch.max(1), stand, first, end));
        let done: usize = futures_util::future::try_join_all(updates).await?.into_iter().sum();
        Ok(done as f64 / start.elapsed().as_secs_f64())
    })
}

/// Updates the rows from `first` until before `end` in batches, each of which is read before, and says how
/// many there were.
async fn update(batch: usize, stand: &Stand, first: &str, end: &str) -> sqlx::Result<usize> {
    let mut database = database(stand).await?;
    let (mut from, mut done) = (first.to_owned(), 0);
    loop {
        let rows = sqlx::query(
            "SELECT id, sealed FROM bare WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3",
        )
        .bind(&from)
        .bind(end)
        .bind(i64::try_from(batch).unwrap_or(i64::MAX))
        .fetch_all(&mut database)
        .await?;
        let Some(last) = rows.last() else { return Ok(done) };
        from = format!("{} ", last.try_get::<String, _>(0)?);
        done += rows.len();
        let text = statement(stand.wanted.database, rows.len());
        let mut update = sqlx::query(AssertSqlSafe(text));
        for row in &rows {
            update = update.bind(row.try_get::<String, _>(0)?);
            update = update.bind(row.try_get::<Vec<u8>, _>(1)?);
        }
        update.execute(&mut database).await?;
    }
}

/// So many rows in one statement, in the form that each database finds them by their keys with: with the other
/// one SQLite goes through the whole table each time. Its places have no numbers, as those of the server.
fn statement(database: Kind, rows: usize) -> String {
    let values = |value: &dyn Fn(usize) -> String| {
        (0..rows).map(|at| value(2 * at + 1)).collect::<Vec<_>>().join(", ")
    };
    match database {
        Kind::Sqlite => format!(
            "UPDATE bare SET sealed = v.column2, generation = 2 \
             FROM (VALUES {}) AS v WHERE bare.id = v.column1",
            values(&|_| "(?, ?)".to_owned())
        ),
        Kind::Postgresql => format!(
            "WITH v (id, sealed) AS (VALUES {}) \
             UPDATE bare SET sealed = v.sealed, generation = 2 FROM v WHERE bare.id = v.id",
            values(&|at| format!("(CAST(${at} AS TEXT), CAST(${} AS BYTEA))", at + 1))
        ),
    }
}
