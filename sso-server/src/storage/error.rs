//! What can go wrong between the rules and the database.

use sso_proto::Reason;

use crate::error::Error;

/// Why the database did not do what was asked. No variant holds a value that a caller stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The database cannot be reached, is busy beyond the time limit, or refuses to write. Whether
    /// a commit that ended like this took effect is not known.
    #[error("the database cannot be reached or written: {0}")]
    Unavailable(String),
    /// A row holds what this program cannot have written.
    #[error("a row of table {table} is damaged ({row}): {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What names the row.
        row: String,
        /// What is wrong with it.
        what: String,
    },
    /// An application of this name exists.
    #[error("an application \"{0}\" exists already; names are compared regardless of case")]
    NameTaken(String),
    /// The application has a field of this label.
    #[error("the application has a field of this label")]
    LabelTaken,
    /// The application that the row belongs to was deleted meanwhile.
    #[error("the application that this belongs to was deleted meanwhile")]
    Gone,
    /// Nothing may be sealed under this generation of the master secret any more, or yet.
    #[error(
        "generation {0} of the master secret is not open in the database, so nothing was stored; this \
         server asks its master for newer keys, try again in a moment"
    )]
    GenerationClosed(u32),
    /// The transaction took longer than a transaction may; nothing was stored.
    #[error("the transaction was open for more than {0} s and was undone")]
    TooSlow(u64),
    /// So many wait for the database already that this would only wait to be given up.
    #[error(
        "too many writes are waiting for the database; nothing was stored, try again in a moment"
    )]
    Overloaded,
    /// The schema was made by a newer version of this program.
    #[error(
        "the database has schema version {found}; this program knows versions up to {known}. \
         Run the newer program"
    )]
    NewerSchema {
        /// The version of the database.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// The schema is older than this program needs, and migrating is switched off.
    #[error(
        "the database has schema version {found}; this program needs version {known}. \
         Set database.migrate = true, or let another server migrate it"
    )]
    OlderSchema {
        /// The version of the database; 0 when it is empty.
        found: u32,
        /// The version this program needs.
        known: u32,
    },
    /// A migration that was applied is not the one of this number that this program holds.
    #[error("migration {0} of the database is not the one this program knows under this number")]
    EditedMigration(u32),
    /// A migration broke off half-way, or its statements fail.
    #[error("migrating the schema failed: {0}")]
    Migration(String),
    /// The settings do not name a database that can be used.
    #[error("database settings: {0}")]
    Settings(String),
    /// A statement the database does not accept: a fault of this program.
    #[error("a statement failed: {0}")]
    Statement(String),
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let reason = match &error {
            StorageError::Unavailable(_) | StorageError::TooSlow(_) => Reason::DatabaseUnavailable,
            StorageError::Overloaded => Reason::Overloaded,
            StorageError::Corrupt { .. } => Reason::StoredRowDamaged,
            StorageError::NameTaken(_) => Reason::ApplicationExists,
            StorageError::LabelTaken => Reason::FieldExists,
            StorageError::Gone => Reason::ApplicationNotFound,
            StorageError::GenerationClosed(_) => Reason::GenerationClosed,
            StorageError::NewerSchema { .. }
            | StorageError::OlderSchema { .. }
            | StorageError::EditedMigration(_)
            | StorageError::Migration(_)
            | StorageError::Settings(_)
            | StorageError::Statement(_) => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum of sqlx is non-exhaustive; what is not named is an outage"
        )]
        match error {
            sqlx::Error::Database(error) => from_database(error.as_ref()),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::AnyDriverError(_)
            | sqlx::Error::TypeNotFound { .. } => {
                Self::Corrupt { table: "?", row: "unknown".to_owned(), what: error.to_string() }
            }
            sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound
            | sqlx::Error::Encode(_) => Self::Statement(error.to_string()),
            sqlx::Error::Configuration(_) => Self::Settings(error.to_string()),
            sqlx::Error::PoolTimedOut => {
                Self::Unavailable("no connection became free in time".to_owned())
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

fn from_database(error: &dyn sqlx::error::DatabaseError) -> StorageError {
    let message = error.message().to_owned();
    if error.is_foreign_key_violation() {
        return StorageError::Gone;
    }
    if error.is_unique_violation() || error.is_check_violation() {
        return StorageError::Statement(message);
    }
    let code = error.code().unwrap_or_default().into_owned();
    // SQLSTATE class 42: a statement the server does not understand. SQLite's plain 1 is the same.
    if code.starts_with("42") || code == "1" {
        return StorageError::Statement(message);
    }
    // The database says of itself that its files are damaged, or are none of its own.
    if matches!(&*code, "11" | "26" | "XX001" | "XX002") {
        let row = "unknown".to_owned();
        return StorageError::Corrupt { table: "(unknown)", row, what: message };
    }
    StorageError::Unavailable(if code.is_empty() { message } else { format!("{message} ({code})") })
}

/// Whether connecting again can help: the server is not there yet, is starting, or is full.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(error) => error.code().is_some_and(|code| {
            matches!(&*code, "57P03" | "53300" | "5") || code.starts_with("08")
        }),
        None => matches!(error, sqlx::Error::Io(_)),
    }
}

/// Whether a statement failed because it was not given a lock in time, as PostgreSQL says.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// Whether a statement failed because the database, or the way to it, dropped the connection.
pub(super) fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        // "Operator intervention" where it ends connections, and those of "connection exception" that do.
        Some(error) => error.code().is_some_and(|code| {
            matches!(&*code, "57P01" | "57P02" | "57P05" | "08000" | "08003" | "08006")
        }),
        None => matches!(error, sqlx::Error::Io(_)),
    }
}

/// Whether a statement failed because a row of the same unique key exists.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}
