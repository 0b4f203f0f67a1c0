//! Group commit on SQLite: the one connection that writes is handed from one transaction to the next
//! with the outer transaction open, and one `COMMIT`, hence one flush to the disk, serves them all.
//!
//! Each member works inside a savepoint. One that is undone, or dropped at any point, takes back its
//! savepoint and nothing else. One that commits leaves its work to the group and waits: whoever finds
//! nobody waiting behind it ends the group, so that a writer alone commits at once and no timer is
//! needed. Nobody is told yes before the `COMMIT` returned, and all of a group are told the same. What
//! a member read may be the work of a member before it, so one that is undone waits for the group too.
//!
//! SQLite ends a transaction by itself when the disk is full or fails. The savepoints are gone then,
//! the next statement of the group finds that out, and every member is told that nothing was stored.
//!
//! Numbers of the change feed are given out and committed in one order here, so that a group that takes
//! its time leaves no gap in them (see `changes`).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use scopeguard::ScopeGuard;
use sqlx::{
    AnyConnection, AnyPool,
    any::{Any, AnyRow},
    pool::PoolConnection,
};
use sso_core::clock::Clock;
use tokio::{runtime::Handle, sync::oneshot};

use super::{StorageError, connect::ACQUIRE_TIMEOUT, whole::Bound};

/// Transactions of one group at the most: with more, one flush to the disk is a small part already.
const MEMBERS: usize = 64;
/// A group older than this takes nobody more: the first of it must not wait for many.
const LONGEST: Duration = Duration::from_millis(10);
/// Writers that wait at the most. A group takes some milliseconds, so that the last of them waits for a
/// fraction of a second; more would only wait to be given up.
pub(super) const MOST_WAITING: usize = 512;

const BEGIN: &str = "BEGIN IMMEDIATE; SAVEPOINT joint; SAVEPOINT member";
const NEXT: &str = "RELEASE member; SAVEPOINT member";
const UNDO: &str = "ROLLBACK TO member";
/// Where a member was dropped between the two statements of [`NEXT`].
const MEND: &str = "RELEASE joint; SAVEPOINT joint; SAVEPOINT member";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";

/// A text that begins a member's work and does it, in one step: as the first of a group, and as another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) first: &'static str,
    pub(super) next: &'static str,
}

impl Script {
    /// Built once for the life of the process.
    pub(super) fn of(text: &str) -> Self {
        Self { first: format!("{BEGIN}; {text}").leak(), next: format!("{NEXT}; {text}").leak() }
    }
}

type Told = oneshot::Sender<Result<(), StorageError>>;
type Held<T> = ScopeGuard<T, fn(T)>;

/// Gives out the right to write, one at a time and in order. Clones give out the same.
#[derive(Clone)]
pub(super) struct Group {
    shared: Arc<Shared>,
}

struct Shared {
    pool: AnyPool,
    runtime: Handle,
    clock: Clock,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Nobody has the turn.
    free: bool,
    waiting: VecDeque<oneshot::Sender<Held<Turn>>>,
}

/// The right to write. Dropped, it goes to the next.
enum Turn {
    /// No transaction is open.
    New(Arc<Shared>, Option<PoolConnection<Any>>),
    /// Those before have finished, and wait.
    Open(Open),
}

/// An open transaction with those who wait for its end.
struct Open {
    shared: Arc<Shared>,
    connection: PoolConnection<Any>,
    begun: Duration,
    /// A member is at work, so that its savepoint is to be undone.
    working: bool,
    /// Nobody else comes in.
    closed: bool,
    members: Vec<Told>,
}

/// A member at work. Dropped, what it did is undone.
pub(super) struct Member {
    open: Held<Open>,
    /// Nothing was executed yet: the next statement must open the group.
    first: bool,
    alone: bool,
}

impl Group {
    /// Must be called inside of the runtime that outlives every request.
    pub(super) fn new(pool: AnyPool, runtime: Handle, clock: Clock) -> Self {
        let queue = Mutex::new(Queue { free: true, waiting: VecDeque::new() });
        Self { shared: Arc::new(Shared { pool, runtime, clock, queue }) }
    }

    /// Waits for the turn and opens a savepoint. One that is `alone` joins no group and lets nobody in:
    /// it works for long, and others need not wait for its end to hear of theirs.
    pub(super) async fn begin(&self, alone: bool) -> Result<Member, StorageError> {
        loop {
            let mut member = self.take(alone).await?;
            let text = if member.first { BEGIN } else { NEXT };
            match sqlx::query(text).execute(member.connection()).await {
                Ok(_) => return Ok(member),
                // The group before ended by itself; its members hear of it.
                Err(error) if !member.first && is_ended(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins and works in one step; the rows that came back. Again when the group before turns out to
    /// have ended by itself.
    pub(super) async fn run<'q>(
        &self,
        script: &Script,
        bind: &impl Fn(&'static str) -> Bound<'q>,
    ) -> Result<(Member, Vec<AnyRow>), StorageError> {
        loop {
            let mut member = self.take(false).await?;
            let query = bind(if member.first { script.first } else { script.next });
            match query.fetch_all(member.connection()).await {
                Ok(rows) => return Ok((member, rows)),
                Err(error) if !member.first && is_ended(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn take(&self, alone: bool) -> Result<Member, StorageError> {
        let mut held = self.turn(None).await?;
        if alone && let Turn::Open(open) = &mut *held {
            open.closed = true;
            held = self.turn(Some(held)).await?;
        }
        if matches!(*held, Turn::New(_, None)) {
            let pool = &self.shared.pool;
            let connection = super::within(&self.shared.runtime, pool.acquire()).await?;
            if let Turn::New(_, spare) = &mut *held {
                *spare = Some(connection);
            }
        }
        match ScopeGuard::into_inner(held) {
            Turn::Open(mut open) => {
                open.working = true;
                Ok(Member { open: hold(open, Open::leave), first: false, alone })
            }
            Turn::New(shared, Some(connection)) => {
                let begun = shared.clock.instant();
                let (closed, members) = (alone, Vec::new());
                let open = Open { shared, connection, begun, working: true, closed, members };
                Ok(Member { open: hold(open, Open::leave), first: true, alone })
            }
            turn @ Turn::New(_, None) => {
                turn.leave();
                Err(StorageError::Unavailable("no connection was opened".to_owned()))
            }
        }
    }

    /// The turn; `instead` of one that is given back, before all others.
    async fn turn(&self, instead: Option<Held<Turn>>) -> Result<Held<Turn>, StorageError> {
        let waiting = {
            let mut queue = self.shared.queue();
            if queue.free {
                queue.free = false;
                return Ok(hold(Turn::New(Arc::clone(&self.shared), None), Turn::leave));
            }
            if queue.waiting.len() >= MOST_WAITING {
                queue.waiting.retain(|waiting| !waiting.is_closed());
                if queue.waiting.len() >= MOST_WAITING {
                    return Err(StorageError::Overloaded);
                }
            }
            let (sender, receiver) = oneshot::channel();
            match &instead {
                Some(_) => queue.waiting.push_front(sender),
                None => queue.waiting.push_back(sender),
            }
            receiver
        };
        drop(instead);
        let late = || StorageError::Unavailable("no turn to write came in time".to_owned());
        let turn = tokio::time::timeout(ACQUIRE_TIMEOUT, waiting).await.map_err(|_| late())?;
        turn.map_err(|_| late())
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        self.queue().waiting.iter().any(|waiting| !waiting.is_closed())
    }
}

impl Turn {
    /// Gives the turn to the next; an open group that has no next is ended.
    fn leave(self) {
        match self {
            Self::New(shared, connection) => {
                let runtime = shared.runtime.clone();
                // Whoever gives a connection back to its pool needs one.
                let _entered = runtime.enter();
                drop(give(&shared, Self::New(Arc::clone(&shared), connection)));
            }
            Self::Open(open) => open.leave(),
        }
    }
}

/// Gives the turn to the first who still waits for it. Without one a new turn waits to be taken, and its
/// connection comes back for the pool; one with an open group comes back as it is.
fn give(shared: &Shared, mut turn: Turn) -> Option<Turn> {
    let mut queue = shared.queue();
    while let Some(next) = queue.waiting.pop_front() {
        match next.send(hold(turn, Turn::leave)) {
            Ok(()) => return None,
            Err(back) => turn = ScopeGuard::into_inner(back),
        }
    }
    queue.free = matches!(turn, Turn::New(..));
    Some(turn)
}

impl Open {
    /// Undoes what the member at work did, lets the next one in, or ends the group.
    fn leave(self) {
        let shared = Arc::clone(&self.shared);
        if !self.working && !self.is_full() {
            match give(&shared, Turn::Open(self)) {
                Some(Turn::Open(open)) => shared.runtime.spawn(end(hold(open, Self::lose))),
                Some(Turn::New(..)) | None => return,
            };
        } else {
            shared.runtime.spawn(end(hold(self, Self::lose)));
        }
    }

    fn is_full(&self) -> bool {
        let age = self.shared.clock.instant().saturating_sub(self.begun);
        self.closed || self.members.len() >= MEMBERS || age > LONGEST
    }

    /// The runtime ended with the group open. SQLite undoes it, and whoever waits is told that its
    /// outcome is not known.
    fn lose(mut self) {
        let _entered = self.shared.runtime.enter();
        self.connection.close_on_drop();
        Turn::New(Arc::clone(&self.shared), None).leave();
    }

    /// Tells those who waited, and gives the turn on.
    fn finish(self) {
        for member in self.members {
            // One that gave up has nobody to tell.
            let _ = member.send(Ok(()));
        }
        Turn::New(self.shared, Some(self.connection)).leave();
    }

    /// Nothing that was not committed before stays.
    async fn fail(self, error: StorageError) {
        let Self { shared, connection, members, .. } = self;
        let place = hold(Turn::New(shared, None), Turn::leave);
        // Without its connection the transaction is undone. What SQLite ended by itself leaves one behind
        // that is in no known state.
        let _ = connection.close().await;
        for member in members {
            let _ = member.send(Err(error.clone()));
        }
        drop(place);
    }
}

/// Undoes what a member at work did, then lets the next one in or ends the group. In a task of its own:
/// nobody who waits may take it back.
async fn end(mut open: Held<Open>) {
    if open.working && !open.members.is_empty() {
        let mut undone = open.run(UNDO).await;
        if undone.is_err() {
            undone = open.run(MEND).await;
        }
        match undone {
            Ok(()) => open.working = false,
            Err(error) => return ScopeGuard::into_inner(open).fail(error.into()).await,
        }
        if !open.is_full() && open.shared.is_wanted() {
            return ScopeGuard::into_inner(open).leave();
        }
    }
    let text = if open.members.is_empty() { ROLLBACK } else { COMMIT };
    match open.run(text).await {
        Ok(()) => ScopeGuard::into_inner(open).finish(),
        Err(error) => ScopeGuard::into_inner(open).fail(error.into()).await,
    }
}

impl Open {
    async fn run(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(text).execute(&mut *self.connection).await.map(drop)
    }
}

impl Member {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.open.connection
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.open.shared.is_wanted()
    }

    /// Makes it durable, with the group.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        let lone = self.open.members.is_empty();
        if lone && (self.alone || !self.is_waited_for()) {
            self.open.run(COMMIT).await?;
            ScopeGuard::into_inner(self.open).finish();
            return Ok(());
        }
        self.wait().await
    }

    /// Undoes it, and waits for the group whose work it may have seen.
    pub(super) async fn rollback(mut self) -> Result<(), StorageError> {
        if self.open.members.is_empty() {
            self.open.run(ROLLBACK).await?;
            ScopeGuard::into_inner(self.open).finish();
            return Ok(());
        }
        self.open.run(UNDO).await?;
        self.wait().await
    }

    async fn wait(mut self) -> Result<(), StorageError> {
        let (told, outcome) = oneshot::channel();
        self.open.members.push(told);
        self.open.working = false;
        drop(self.open);
        let unknown = || StorageError::Unavailable("the server stopped meanwhile".to_owned());
        outcome.await.unwrap_or_else(|_| Err(unknown()))
    }
}

fn hold<T>(value: T, left: fn(T)) -> Held<T> {
    scopeguard::guard(value, left)
}

/// The transaction around the savepoints is gone.
fn is_ended(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().starts_with("no such savepoint"))
}

#[cfg(test)]
mod tests;
