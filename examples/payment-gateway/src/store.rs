//! The SQLite file of a program: private, in write-ahead mode, and on disk before a commit returns.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// How long one process waits for another that writes.
const BUSY: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

/// One file, with many readers and one writer.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    readers: SqlitePool,
    writer: SqlitePool,
}

/// A transaction that has the write lock from its beginning, so that what it reads stays true.
pub(crate) type Writing = sqlx::Transaction<'static, sqlx::Sqlite>;

impl Store {
    /// Opens the file, which nobody else may read, makes it where it is missing (mode 0600), and runs the statements of `schema`,
    /// which change nothing where they were run before.
    pub(crate) async fn open(path: &Path, schema: &'static str) -> Result<Self, sqlx::Error> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_lax(path)?,
            Err(error) => return Err(sqlx::Error::Io(error)),
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // The write-ahead log with anything less may lose the last commits with the power.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // What is deleted is overwritten: tickets.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let writer =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.read_only(true));
        let store = Self { readers, writer };
        let mut writing = store.write().await?;
        sqlx::raw_sql(schema).execute(&mut *writing).await?;
        writing.commit().await?;
        Ok(store)
    }

    pub(crate) async fn write(&self) -> Result<Writing, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Waits for what is under way, and closes the file.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn refuse_lax(path: &Path) -> Result<(), sqlx::Error> {
    let mode = path.metadata().map_err(sqlx::Error::Io)?.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let what = format!("mode {mode:04o} lets other users at it: run `chmod 600` on the file");
    Err(sqlx::Error::Io(io::Error::other(what)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_file_is_private_and_the_settings_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        for _ in 0..2 {
            let store =
                Store::open(&path, "CREATE TABLE IF NOT EXISTS t (x INTEGER)").await.unwrap();
            let mut writing = store.write().await.unwrap();
            let number = |name: &'static str| sqlx::query_scalar::<_, i64>(name);
            let synchronous = number("PRAGMA synchronous").fetch_one(&mut *writing).await.unwrap();
            assert_eq!(synchronous, 2);
            let wiping = number("PRAGMA secure_delete").fetch_one(&mut *writing).await.unwrap();
            assert_eq!(wiping, 1);
            let mode: String =
                sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *writing).await.unwrap();
            assert_eq!(mode, "wal");
            sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *writing).await.unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            writing.commit().await.unwrap();
            store.close().await;
        }
        let store = Store::open(&path, "").await.unwrap();
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM t").fetch_one(store.readers()).await.unwrap();
        assert_eq!(rows, 2);
    }
    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Store::open(&path, "").await.unwrap().close().await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Store::open(&path, "").await.unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
