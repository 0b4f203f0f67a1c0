//! Words between servers that something changed, so that none waits for its next look at the changes.
//! PostgreSQL only, and no more than a wake-up: what changed stands in the sequence of changes, and
//! whoever hears nothing looks there all the same.
//!
//! They are sent after the commit, on a connection of their own. Within the transaction of the change
//! PostgreSQL would make all of these commits follow one another, each with its write to the disk, for
//! the sake of the order of its queue.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, PgPool,
    any::AnyConnectOptions,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::{Storage, StorageError};

/// The channel is that of one database.
const CHANNEL: &str = "sso_changes";
const NOTIFY: &str = "SELECT pg_notify('sso_changes', $1)";
/// Nothing is lost with a word that is lost.
const ON_CONNECT: &str = "SET synchronous_commit = off; SET statement_timeout = '15s'; SET client_min_messages = 'warning'";

/// Two connections: one listens, one speaks.
#[derive(Clone)]
pub(super) struct Notices {
    pool: PgPool,
    /// Tells its own words from those of others.
    speaker: Uuid,
}

impl Notices {
    pub(super) fn new(options: &AnyConnectOptions) -> Result<Self, StorageError> {
        let options =
            PgConnectOptions::from_url(&options.database_url)?.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(Duration::from_secs(5))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(ON_CONNECT).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, speaker: Uuid::new_v4() })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Storage {
    /// Tells the other servers that something was changed. Nothing but a wake-up: it may be lost.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn notify(&self) -> Result<(), StorageError> {
        if let Some(Notices { pool, speaker }) = &self.notices {
            sqlx::query(NOTIFY).bind(speaker.to_string()).execute(pool).await?;
        }
        Ok(())
    }

    /// Calls `heard` whenever another server told that something was changed, and whenever it may have gone
    /// unheard. Returns only with an error; never, where servers do not tell each other.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be listened.
    pub async fn listen(&self, heard: impl Fn()) -> Result<(), StorageError> {
        let Some(Notices { pool, speaker }) = &self.notices else {
            return std::future::pending().await;
        };
        let own = speaker.to_string();
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        heard();
        loop {
            let word = listener.try_recv().await;
            // The connection was lost, be it that another was made. The others are hardly better off.
            if !matches!(word, Ok(Some(_))) {
                self.losses.note();
            }
            let word = word?;
            if word.is_none_or(|word| word.payload() != own) {
                heard();
            }
        }
    }
}
