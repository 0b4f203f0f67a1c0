//! The seam: everything in which the two databases differ.

use std::fmt;

use super::group::Script;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One file, one machine.
    Sqlite,
    /// PostgreSQL, or what speaks its protocol.
    Postgres,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Dialect {
    /// The name shown to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }

    /// The text of a statement in this dialect.
    pub(super) fn pick(self, statement: &Statement) -> &'static str {
        match self {
            Self::Sqlite => statement.sqlite,
            Self::Postgres => statement.postgres,
        }
    }

    /// Opens a transaction that is going to write. SQLite takes its write lock at once: taking it
    /// later fails when another writer came in between. PostgreSQL must show each statement what was
    /// committed before it, whatever its default: who closes a generation counts what those wrote who
    /// were waited for.
    pub(super) fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// What a fresh connection is told. On SQLite a commit is durable (FULL) and deleted values are
    /// overwritten, savepoints (of which a group has many) are kept in memory and not in a file, and the
    /// log grows to 16 MB before its pages are written a second time; on PostgreSQL no statement (but for [`Self::take_long`]) and no
    /// idle transaction outlives its limit, on which the change feed relies (see `changes`), and a statement by
    /// itself sees what was committed before it, as in [`Self::begin_write`].
    pub(super) fn on_connect(self, writes: bool) -> &'static str {
        match (self, writes) {
            (Self::Sqlite, true) => {
                "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA trusted_schema = OFF; PRAGMA secure_delete = ON; \
                 PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384; \
                 PRAGMA wal_autocheckpoint = 4000"
            }
            (Self::Sqlite, false) => {
                "PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF; PRAGMA query_only = ON"
            }
            (Self::Postgres, _) => {
                "SET statement_timeout = '15s'; SET idle_in_transaction_session_timeout = '20s'; \
                 SET lock_timeout = '10s'; SET client_min_messages = 'warning'; \
                 SET default_transaction_isolation = 'read committed'"
            }
        }
    }

    /// What a transaction is told whose statements go through all rows of a table. It takes no number of a
    /// change, which others would wait for.
    pub(super) fn take_long(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET LOCAL statement_timeout = '10min'"),
        }
    }

    /// Whether the table of applied migrations exists: counts 1 or 0.
    pub(super) fn migrations_table_exists(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'"
            }
            Self::Postgres => {
                "SELECT COUNT(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('_sqlx_migrations')"
            }
        }
    }
}

/// A statement that is not the same text on both databases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl Statement {
    /// The same text for both.
    pub(super) const fn same(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// What one statement does that is a transaction by itself, for so many who come together. On SQLite it may
/// be several, and joins the group of those who write (see `group`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    /// For how many.
    pub(super) size: usize,
    pub(super) sqlite: Script,
    pub(super) postgres: &'static str,
}

impl Whole {
    /// Both texts, built once for the life of the process.
    pub(super) fn of(size: usize, sqlite: &str, postgres: &str) -> Self {
        Self { size, sqlite: Script::of(sqlite), postgres: postgres.to_owned().leak() }
    }

    /// The texts for one dialect.
    pub(super) fn texts(&self, dialect: Dialect) -> Vec<&'static str> {
        match dialect {
            Dialect::Sqlite => vec![self.sqlite.first, self.sqlite.next],
            Dialect::Postgres => vec![self.postgres],
        }
    }
}
