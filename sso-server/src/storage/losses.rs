//! Connections that the database dropped while nobody used them: it was started again, or another took its
//! place. Each says so to the first who uses it, which is no reason to refuse a read: the database may have
//! been back for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    any::{Any, AnyRow},
    pool::PoolConnection,
};
use sso_core::clock::Clock;

use super::{Storage, StorageError, error::is_connection_lost, whole::Bound};

/// A connection that rested for longer is tried before it is used.
const TRUSTED: Duration = Duration::from_secs(1);

/// When a connection was last found lost. Clones share it.
#[derive(Clone)]
pub(super) struct Losses {
    clock: Clock,
    /// Microseconds by the clock of leases; 0 for never.
    last: Arc<AtomicU64>,
}

impl Losses {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::default() }
    }

    /// Connections that rest are not trusted any more, until they were tried.
    pub(super) fn note(&self) {
        self.last.fetch_max(micros(self.clock.instant()), Ordering::Relaxed);
    }

    /// The same where that is why a statement failed; whether it is.
    pub(super) fn note_if(&self, error: &sqlx::Error) -> bool {
        let lost = is_connection_lost(error);
        if lost {
            self.note();
        }
        lost
    }

    /// Whether a connection that rested is to be tried before it is used.
    pub(super) fn doubt(&self, rested_for: Duration) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let since = self.clock.instant().saturating_sub(rested_for);
        rested_for > TRUSTED || (last > 0 && micros(since) <= last)
    }
}

fn micros(instant: Duration) -> u64 {
    u64::try_from(instant.as_micros()).unwrap_or(u64::MAX)
}

/// Reads on one connection, and on another where the one at hand turns out to be lost.
pub(super) struct Reading<'s> {
    storage: &'s Storage,
    connection: Option<PoolConnection<Any>>,
}

impl Storage {
    /// For several statements that only read.
    pub(super) async fn reading(&self) -> Result<Reading<'_>, StorageError> {
        Ok(Reading { storage: self, connection: Some(self.reader().await?) })
    }

    /// The rows of one statement that only reads.
    pub(super) async fn rows<'q>(
        &self,
        query: impl Fn() -> Bound<'q>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        self.reading().await?.rows(query).await
    }
}

impl Reading<'_> {
    /// The rows of one statement.
    pub(super) async fn rows<'q>(
        &mut self,
        query: impl Fn() -> Bound<'q>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        if let Some(connection) = &mut self.connection {
            match query().fetch_all(&mut **connection).await {
                Err(error) if self.storage.losses.note_if(&error) => {}
                done => return Ok(done?),
            }
        }
        // Who holds one must not wait for another.
        drop(self.connection.take());
        let connection = self.connection.insert(self.storage.reader().await?);
        let done = query().fetch_all(&mut **connection).await;
        if let Err(error) = &done {
            self.storage.losses.note_if(error);
        }
        Ok(done?)
    }

    /// The instant by the clock of the storage.
    pub(super) fn now(&self) -> Duration {
        self.storage.clock.instant()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_rested_when_another_was_lost_is_tried_and_what_rested_later_is_not() {
        let clock = Clock::manual(datetime!(2026-03-01 12:00 UTC));
        let losses = Losses::new(clock.clone());
        let milliseconds = Duration::from_millis;
        clock.advance(milliseconds(5000));
        assert!(!losses.doubt(milliseconds(900)));
        assert!(losses.doubt(milliseconds(1100)), "it rested for long");
        losses.note();
        clock.advance(milliseconds(100));
        assert!(losses.doubt(milliseconds(100)));
        assert!(losses.doubt(milliseconds(500)));
        assert!(!losses.doubt(milliseconds(99)), "it was used since");
    }
}
