//! Reading by key in batches, and writing what is one statement. A read that comes while [`AT_ONCE`] statements
//! of its kind are under way waits for the first of these to end; a write waits while one is under way, unless
//! those that wait fill a batch. What waits together is one statement. Nothing waits for a timer, and the more
//! is asked for at a time, the less a key costs, a write above all.
//!
//! Nobody joins a read that has begun: what is handed out was read after it was asked for.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use tokio::sync::oneshot;

use super::{
    Dialect, Storage, StorageError, StoredConfiguration, StoredMapping, applications,
    configurations,
    group::MOST_WAITING,
    mappings,
    next_revisions::{self, NextRevision},
    rows::Columns,
    tickets::{self, Redemption},
    whole::WriteTogether,
};
use crate::model::{Application, ApplicationId, ApplicationName, Identifier, MappingKey};

/// Statements of one kind under way at a time.
const AT_ONCE: usize = 2;
/// For one that takes longer those who come need not wait.
const LATE: Duration = Duration::from_millis(250);
/// No statement of the database takes as long, not even one that begins again on another connection: it does
/// not answer any more.
const LONGEST: Duration = Duration::from_secs(60);
/// Keys of a statement are one of these numbers, so that there are few statements to prepare.
const SIZES: [usize; 2] = [8, MOST];
/// Keys of one statement.
pub(super) const MOST: usize = 32;

/// A row of an application by the canonical text that names it there.
type RowKey = (ApplicationId, Box<str>);
pub(super) type Found<V> = Result<Option<V>, StorageError>;
/// What is under each key; one that is damaged spoils no other.
pub(super) type FoundMany<V> = Result<Vec<Found<V>>, StorageError>;
/// A statement for several keys.
type Work<K, V> = fn(Storage, Vec<K>) -> BoxFuture<'static, FoundMany<V>>;
/// The same, however it is done.
type AnyWork<K, V> = Box<dyn Fn(Storage, Vec<K>) -> BoxFuture<'static, FoundMany<V>> + Send + Sync>;

/// What is read and written in batches.
pub(super) struct Batches {
    applications: Arc<Queue<Box<str>, Arc<Application>>>,
    by_account: Arc<Queue<RowKey, StoredMapping>>,
    by_external_user: Arc<Queue<RowKey, StoredMapping>>,
    configurations: Arc<Queue<RowKey, StoredConfiguration>>,
    redemptions: Arc<Queue<Redemption, bool>>,
    revisions: Arc<Queue<NextRevision, u64>>,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self {
            applications: Queue::of_reads(|storage, keys| {
                Box::pin(read_applications(storage, keys))
            }),
            by_account: Queue::of_reads(|storage, keys| {
                Box::pin(async move {
                    let rows = read(&storage, &BY_ACCOUNT, &keys).await?;
                    in_places(keys.len(), &rows, |row| mappings::stored(row).map(Some))
                })
            }),
            by_external_user: Queue::of_reads(|storage, keys| {
                Box::pin(async move {
                    let rows = read(&storage, &BY_EXTERNAL_USER, &keys).await?;
                    in_places(keys.len(), &rows, |row| mappings::stored(row).map(Some))
                })
            }),
            configurations: Queue::of_reads(|storage, keys| {
                Box::pin(async move {
                    let rows = read(&storage, &CONFIGURATIONS, &keys).await?;
                    in_places(keys.len(), &rows, configurations::configuration)
                })
            }),
            redemptions: Queue::of_writes(|storage, keys| {
                Box::pin(tickets::redeem_together(storage, keys))
            }),
            revisions: Queue::of_writes(|storage, keys| {
                Box::pin(next_revisions::write_together(storage, keys))
            }),
        }
    }

    /// Marks a ticket, with those that others come with.
    pub(super) async fn redeem(&self, storage: &Storage, redemption: Redemption) -> Found<bool> {
        self.redemptions.ask(storage, redemption).await
    }

    /// Writes a revision, with those that others come with.
    pub(super) async fn write_on(&self, storage: &Storage, next: NextRevision) -> Found<u64> {
        self.revisions.ask(storage, next).await
    }
}

impl Storage {
    /// Refuses at once a write that would be refused after the work for it was done.
    ///
    /// # Errors
    /// `Overloaded` while as many [`Storage::write_on`] wait as may.
    pub fn require_room_to_write_on(&self) -> Result<(), StorageError> {
        if self.batches.revisions.is_full() { Err(StorageError::Overloaded) } else { Ok(()) }
    }

    /// The same for [`Storage::redeem_ticket`].
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn require_room_to_redeem(&self) -> Result<(), StorageError> {
        if self.batches.redemptions.is_full() { Err(StorageError::Overloaded) } else { Ok(()) }
    }

    /// The application of this name.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn application(&self, name: &ApplicationName) -> Found<Arc<Application>> {
        self.batches.applications.ask(self, name.key().into()).await
    }

    /// The mapping of this key with its credentials. In a group application, where several mappings
    /// may have one external user, that key gives the oldest; in a host group application an account
    /// gives the oldest.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn mapping(
        &self,
        application: ApplicationId,
        key: &MappingKey,
    ) -> Found<StoredMapping> {
        let (queue, key) = match key {
            MappingKey::Account(account) => (&self.batches.by_account, account.key()),
            MappingKey::ExternalUser(user) => (&self.batches.by_external_user, user.key()),
        };
        queue.ask(self, (application, key.into())).await
    }

    /// A configuration with its values; `None` where it never was or is deleted.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn configuration(
        &self,
        application: ApplicationId,
        identifier: &Identifier,
    ) -> Found<StoredConfiguration> {
        self.batches.configurations.ask(self, (application, identifier.key().into())).await
    }
}

/// Those who wait for their batch.
struct Queue<K, V> {
    work: AnyWork<K, V>,
    /// So many must wait before another statement begins beside one that is under way.
    crowd: usize,
    most_waiting: usize,
    waiting: Mutex<Waiting<K, V>>,
}

struct Waiting<K, V> {
    under_way: usize,
    /// Of those under way: so many take longer than others need wait for.
    late: usize,
    asked: VecDeque<(K, oneshot::Sender<Found<V>>)>,
}

impl<K, V> Queue<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Who may wait to read is for others to say.
    fn of_reads(work: Work<K, V>) -> Arc<Self> {
        Self::new(Box::new(work), 1, usize::MAX)
    }

    /// Those who come together, or each alone where that is what the database accepts.
    fn of_writes(write: WriteTogether<K, V>) -> Arc<Self>
    where
        K: Sync,
    {
        let work = move |storage: Storage, keys: Vec<K>| -> BoxFuture<'static, FoundMany<V>> {
            Box::pin(async move { storage.together_or_alone(&keys, write).await })
        };
        Self::new(Box::new(work), MOST, MOST_WAITING)
    }

    fn new(work: AnyWork<K, V>, crowd: usize, most_waiting: usize) -> Arc<Self> {
        let waiting = Mutex::new(Waiting { under_way: 0, late: 0, asked: VecDeque::new() });
        Arc::new(Self { work, crowd, most_waiting, waiting })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether as many wait as may.
    fn is_full(&self) -> bool {
        is_full(&mut self.waiting(), self.most_waiting)
    }

    /// What is there under this key, or became of it, from now on.
    async fn ask(self: &Arc<Self>, storage: &Storage, key: K) -> Found<V> {
        let (sender, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            if is_full(&mut waiting, self.most_waiting) {
                return Err(StorageError::Overloaded);
            }
            waiting.asked.push_back((key, sender));
            let begins = self.has_work_beside(&waiting, waiting.under_way);
            waiting.under_way += usize::from(begins);
            begins
        };
        if begins {
            self.begin(storage);
        }
        let gone = || StorageError::Unavailable("the server is stopping".to_owned());
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Works until nobody waits any more; in a task of its own, so that those who come in the same moment join
    /// the first batch, and beside the lanes, so that it goes on however many requests come.
    fn begin(self: &Arc<Self>, storage: &Storage) {
        let (queue, storage) = (Arc::clone(self), storage.clone());
        let runtime = storage.runtime.clone();
        runtime.spawn(
            Turn { queue, storage, has_begun: false, is_late: false, is_over: false }.take(),
        );
    }

    /// One of those under way takes long: another begins beside it for those who wait.
    fn is_late(self: &Arc<Self>, storage: &Storage) {
        let begins = {
            let mut waiting = self.waiting();
            waiting.late += 1;
            let begins = !waiting.asked.is_empty() && waiting.under_way < AT_ONCE;
            waiting.under_way += usize::from(begins);
            begins
        };
        if begins {
            self.begin(storage);
        }
    }

    /// It has ended.
    fn is_late_no_more(&self) {
        let mut waiting = self.waiting();
        waiting.late = waiting.late.saturating_sub(1);
    }

    /// One less is under way, and nobody follows it: the last tells those who wait.
    fn give_up(&self) {
        let mut waiting = self.waiting();
        waiting.under_way = waiting.under_way.saturating_sub(1);
        let last = waiting.under_way == 0;
        let told = if last { std::mem::take(&mut waiting.asked) } else { VecDeque::new() };
        drop(waiting);
        drop(told);
    }

    /// Whether another statement is to begin beside so many.
    fn has_work_beside(&self, waiting: &Waiting<K, V>, others: usize) -> bool {
        let many = waiting.asked.len() >= self.crowd || waiting.late > 0;
        others == 0 || (others < AT_ONCE && many)
    }

    /// The next batch; `None`, and one less is under way, where nobody waits, or too few for another statement
    /// beside those under way.
    fn next(&self) -> Option<Batch<K, V>> {
        let mut waiting = self.waiting();
        let others = waiting.under_way.saturating_sub(1);
        if !self.has_work_beside(&waiting, others) {
            waiting.under_way = others;
            return None;
        }
        let mut batch = Batch { keys: Vec::new(), places: HashMap::new(), asked: Vec::new() };
        while let Some((key, sender)) = waiting.asked.pop_front() {
            // Whoever gave up needs no answer.
            if sender.is_closed() {
                continue;
            }
            let place = *batch.places.entry(key.clone()).or_insert(batch.keys.len());
            if place == batch.keys.len() {
                batch.keys.push(key);
            }
            batch.asked.push((place, sender));
            if batch.keys.len() == MOST {
                break;
            }
        }
        if batch.keys.is_empty() {
            waiting.under_way = waiting.under_way.saturating_sub(1);
            return None;
        }
        Some(batch)
    }
}

/// Whether as many wait as may, those not counted who gave up.
fn is_full<K, V>(waiting: &mut Waiting<K, V>, most: usize) -> bool {
    if waiting.asked.len() >= most {
        waiting.asked.retain(|(_, sender)| !sender.is_closed());
    }
    waiting.asked.len() >= most
}

/// Those of one statement.
struct Batch<K, V> {
    keys: Vec<K>,
    places: HashMap<K, usize>,
    /// Place of the key, and who asked.
    asked: Vec<(usize, oneshot::Sender<Found<V>>)>,
}

/// One of those under way.
struct Turn<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    queue: Arc<Queue<K, V>>,
    storage: Storage,
    /// Its runtime took it.
    has_begun: bool,
    /// What it is at takes long.
    is_late: bool,
    /// Nobody waits for it any more.
    is_over: bool,
}

impl<K, V> Turn<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    async fn take(mut self) {
        self.has_begun = true;
        while let Some(batch) = self.queue.next() {
            let work = (self.queue.work)(self.storage.clone(), batch.keys);
            let found = self.in_time(work).await;
            for (place, sender) in batch.asked {
                let found = match &found {
                    Ok(found) => found.get(place).cloned().unwrap_or(Ok(None)),
                    Err(error) => Err(error.clone()),
                };
                // Whoever asked may be gone.
                let _ = sender.send(found);
            }
        }
        self.is_over = true;
    }

    /// What the work gives; an error where the database does not answer.
    async fn in_time(&mut self, work: BoxFuture<'static, FoundMany<V>>) -> FoundMany<V> {
        let mut work = std::pin::pin!(tokio::time::timeout(LONGEST, work));
        let done = match tokio::time::timeout(LATE, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.queue.is_late(&self.storage);
                self.is_late = true;
                let done = work.await;
                self.is_late = false;
                self.queue.is_late_no_more();
                done
            }
        };
        let silent = |_| StorageError::Unavailable("the database does not answer".to_owned());
        done.map_err(silent).flatten()
    }
}

impl<K, V> Drop for Turn<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Where the work panicked, those who wait get their turn all the same; where its runtime ended, they are told.
    fn drop(&mut self) {
        if self.is_late {
            self.queue.is_late_no_more();
        }
        match (self.is_over, self.has_begun && thread::panicking()) {
            (true, _) => {}
            (false, true) => self.queue.begin(&self.storage),
            (false, false) => self.queue.give_up(),
        }
    }
}

/// A statement that finds one row by application and key, and what it is for several keys, each with
/// the place of the key.
struct Keyed {
    one: &'static str,
    sqlite: LazyLock<[String; 2]>,
    postgres: LazyLock<[String; 2]>,
}

static BY_ACCOUNT: Keyed = Keyed {
    one: mappings::BY_ACCOUNT,
    sqlite: LazyLock::new(|| SIZES.map(|size| one_of_several(mappings::BY_ACCOUNT, size))),
    postgres: LazyLock::new(|| SIZES.map(|size| lateral(mappings::BY_ACCOUNT, size))),
};
static BY_EXTERNAL_USER: Keyed = Keyed {
    one: mappings::BY_EXTERNAL_USER,
    sqlite: LazyLock::new(|| SIZES.map(|size| one_of_several(mappings::BY_EXTERNAL_USER, size))),
    postgres: LazyLock::new(|| SIZES.map(|size| lateral(mappings::BY_EXTERNAL_USER, size))),
};
static CONFIGURATIONS: Keyed = Keyed {
    one: configurations::CURRENT,
    sqlite: LazyLock::new(|| SIZES.map(|size| joined(configurations::CURRENT, size))),
    postgres: LazyLock::new(|| SIZES.map(|size| lateral(configurations::CURRENT, size))),
};

impl Keyed {
    fn texts(&self, dialect: Dialect) -> &[String; 2] {
        match dialect {
            Dialect::Sqlite => &self.sqlite,
            Dialect::Postgres => &self.postgres,
        }
    }
}

/// The statements for several keys.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    let all = [&BY_ACCOUNT, &BY_EXTERNAL_USER, &CONFIGURATIONS];
    all.iter().flat_map(|keyed| keyed.texts(dialect).clone()).collect()
}

/// `(0, $1, $2), (1, $3, $4), …`
fn values(size: usize) -> String {
    let row = |place: usize| format!("({place}, ${}, ${})", 2 * place + 1, 2 * place + 2);
    (0..size).map(row).collect::<Vec<_>>().join(", ")
}

/// The statement with the columns of `k` in the places of its key.
fn of_keys(one: &str) -> String {
    one.replace("$1", "k.application_id").replace("$2", "k.side")
}

fn lateral(one: &str, size: usize) -> String {
    format!(
        "SELECT k.place, found.* FROM (VALUES {}) AS k(place, application_id, side) \
         CROSS JOIN LATERAL ({}) AS found",
        values(size),
        of_keys(one)
    )
}

/// SQLite: the order of a CROSS JOIN is the order of its loops.
fn joined(one: &str, size: usize) -> String {
    let keys = format!("WITH k(place, application_id, side) AS (VALUES {})", values(size));
    let rest = of_keys(one).replacen("SELECT ", "SELECT k.place, ", 1);
    format!("{keys} {}", rest.replacen(" FROM ", " FROM k CROSS JOIN ", 1))
}

/// SQLite: as [`joined`], where a key may have several rows and the statement takes the first.
fn one_of_several(one: &str, size: usize) -> String {
    let keyed = of_keys(one);
    let (columns, condition) = keyed.split_once(" WHERE ").unwrap_or((&keyed, ""));
    let first = format!("{columns} ON m.id = (SELECT m.id FROM mappings m WHERE {condition})");
    joined(&first, size)
}

async fn read(
    storage: &Storage,
    keyed: &'static Keyed,
    keys: &[RowKey],
) -> Result<Vec<AnyRow>, StorageError> {
    let texts = keyed.texts(storage.dialect());
    let several = SIZES.iter().zip(texts).find(|(size, _)| keys.len() <= **size);
    let (size, text) = match several {
        Some((size, text)) if keys.len() > 1 => (*size, text.as_str()),
        Some(_) | None => (1, keyed.one),
    };
    let query = || {
        (0..size).fold(sqlx::query(text), |query, place| {
            // Nothing is stored under an empty text.
            let key = keys.get(place);
            query
                .bind(key.map_or_else(String::new, |(application, _)| application.to_string()))
                .bind(key.map_or("", |(_, side)| side))
        })
    };
    storage.rows(query).await
}

/// What was found, in the places of the keys.
fn in_places<V>(keys: usize, rows: &[AnyRow], parse: impl Fn(&AnyRow) -> Found<V>) -> FoundMany<V> {
    if keys == 1 {
        return Ok(vec![rows.first().map_or(Ok(None), parse)]);
    }
    let mut found: Vec<Found<V>> = std::iter::repeat_with(|| Ok(None)).take(keys).collect();
    for row in rows {
        let place: usize = Columns::of("keys", row).number("place")?;
        if let Some(found) = found.get_mut(place) {
            *found = parse(row);
        }
    }
    Ok(found)
}

/// Applications are few: each is a statement.
async fn read_applications(storage: Storage, keys: Vec<Box<str>>) -> FoundMany<Arc<Application>> {
    let mut reading = storage.reading().await?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let rows = reading.rows(|| applications::of_name(&key)).await;
        let application = rows.and_then(|rows| Ok(applications::assemble(&rows)?.pop()));
        found.push(application.map(|application| application.map(Arc::new)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
