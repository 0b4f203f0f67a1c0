//! How SQLite goes about a statement, for tests.

use std::path::Path;

use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr as _};
use sso_core::clock::Clock;

use super::{DatabaseSettings, DatabaseUrl, Storage};

/// A database with nothing but the schema.
pub(super) async fn storage(folder: &Path) -> Storage {
    let url = format!("sqlite:{}", folder.join("sso.db").display());
    let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
    let storage = Storage::open(&settings, Clock::System).await.unwrap();
    storage.migrate().await.unwrap();
    storage
}

/// What SQLite says that it would do.
pub(super) async fn plan(storage: &Storage, text: &str) -> String {
    rows(storage, &format!("EXPLAIN QUERY PLAN {text}"), "detail").await
}

/// The words of a column, a line each.
async fn rows(storage: &Storage, text: &str, column: &str) -> String {
    let text = AssertSqlSafe(text.to_owned()).into_sql_str();
    let mut reader = storage.reader().await.unwrap();
    let rows = sqlx::raw_sql(text).fetch_all(&mut *reader).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(column) + "\n").collect()
}

/// What `.cargo/config.toml` says of how it is built.
#[tokio::test]
async fn sqlite_is_built_as_it_is_meant_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let storage = storage(folder.path()).await;
    let options = rows(&storage, "PRAGMA compile_options", "compile_options").await;
    assert!(options.contains("DEFAULT_MEMSTATUS=0\n"), "{options}");
    assert!(!options.contains("ENABLE_MEMORY_MANAGEMENT"), "{options}");
    storage.close().await;
}
