//! Writes that are one statement, also for several who come together: one way to the database and back, and
//! no lock held meanwhile.

use futures_util::future::BoxFuture;
use sqlx::{
    any::{Any, AnyRow},
    query::Query,
};

use super::{Storage, StorageError, Writers, batches::FoundMany, dialect::Whole, within};

/// A statement with its places filled.
pub(super) type Bound<'q> = Query<'q, Any, <Any as sqlx::Database>::Arguments>;

/// Writes in one statement what came together, and says what became of each.
pub(super) type WriteTogether<K, V> =
    for<'a> fn(&'a Storage, &'a [K]) -> BoxFuture<'a, Result<Vec<Option<V>>, StorageError>>;

impl Storage {
    /// Writes what came together in one statement; or each alone, where one of them is why the database
    /// accepts none of it.
    pub(super) async fn together_or_alone<K: Sync, V: Send>(
        &self,
        keys: &[K],
        write: WriteTogether<K, V>,
    ) -> FoundMany<V> {
        match write(self, keys).await {
            Err(StorageError::Gone | StorageError::Statement(_)) if keys.len() > 1 => {
                let mut written = Vec::with_capacity(keys.len());
                for key in keys {
                    let alone = write(self, std::slice::from_ref(key)).await;
                    written.push(alone.map(|alone| alone.into_iter().next().flatten()));
                }
                Ok(written)
            }
            together => together.map(|written| written.into_iter().map(Ok).collect()),
        }
    }

    /// Writes all of it or nothing, durably, with the first of these texts that has room for so many; the
    /// rows that it gave, and none where nothing was written. `bind` fills as many places as the text has.
    pub(super) async fn write_whole<'q>(
        &self,
        texts: &[Whole],
        count: usize,
        bind: impl Fn(&'static str, usize) -> Bound<'q>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let Some(whole) = texts.iter().find(|whole| count <= whole.size) else {
            return Err(StorageError::Overloaded);
        };
        let bind = |text| bind(text, whole.size);
        match &self.writers {
            Writers::Sqlite(group, _) => {
                let (member, written) = group.run(&whole.sqlite, &bind).await?;
                // What was not written was perhaps because of a member before.
                if written.is_empty() { member.rollback().await } else { member.commit().await }?;
                Ok(written)
            }
            Writers::Postgres(writers) => {
                let mut connection = {
                    let _place = self.waiting.enter()?;
                    within(&self.runtime, writers.acquire()).await?
                };
                let written = bind(whole.postgres).fetch_all(&mut *connection).await;
                // Whether it was written is not known.
                if let Err(error) = &written {
                    self.losses.note_if(error);
                }
                Ok(written?)
            }
        }
    }
}
