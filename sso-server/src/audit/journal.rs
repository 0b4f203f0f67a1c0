//! The journal: records wait in a buffer of their lane until an answer is about to leave, then one write
//! hands all of them to the operating system.
//!
//! Room on the disk is reserved ahead, so that a record which was taken can be written. One thread, the
//! keeper, reserves it, writes what nobody else writes, and has the disk take it within a second.

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sso_core::{clock::Clock, lanes, serving::Records};
use tokio::sync::watch;
use uuid::{Builder, Uuid};

use super::{
    record::{self, Record},
    segment::{self, Segment},
    settings::{AuditMode, AuditSettings},
};
use crate::model::AuditOutcome;

/// How often the keeper looks around.
const ROUND: Duration = Duration::from_millis(200);
/// After so many rounds the disk is asked to take what it lacks.
const ROUNDS_TO_SYNC: u32 = 4;
/// Sizes of files: small ones first, so that a quiet server takes little of a disk; each is twice as
/// large as the one before.
const FIRST_SIZE: u64 = 256 * 1024;
const LEAST_SIZE: u64 = 64 * 1024;
const LARGEST_SIZE: u64 = 8 << 20;
/// A buffer that grew beyond this is given back.
const LARGE_BUFFER: usize = 1 << 20;
/// Lanes beyond share buffers.
const MOST_LANES: usize = 256;

static JOURNALS: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    /// The journal that this thread writes before its answers leave; 0 = none. Records of a thread that
    /// writes none are written at once: their answers may leave by another thread.
    static WRITES: Cell<usize> = const { Cell::new(0) };
}

/// What a record says; id and time are the matter of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) request_id: Uuid,
    pub(super) outcome: AuditOutcome,
    pub(super) caller: &'a str,
    pub(super) action: &'a str,
    pub(super) application: &'a str,
    pub(super) object: &'a str,
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
}

/// The journal of one server.
#[derive(Debug)]
pub(super) struct Journal {
    number: usize,
    folder: PathBuf,
    system: Uuid,
    server: Arc<str>,
    clock: Clock,
    mode: AuditMode,
    most: u64,
    largest: u64,
    next_size: AtomicU64,
    lanes: Box<[Lane]>,
    /// All files that the database lacks something of, those in use included.
    segments: Mutex<Vec<Arc<Segment>>>,
    spare: Mutex<Option<Segment>>,
    /// It was said that room is missing.
    warned: AtomicBool,
    troubled: AtomicBool,
    /// Why no record is taken.
    trouble: Mutex<String>,
    /// Counts what was written, for those who wait until the disk has it.
    writes: AtomicU64,
    synced: watch::Sender<u64>,
    wish: Arc<Wish>,
}

/// On cache lines of its own: lanes do not slow one another down.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    state: Mutex<LaneState>,
    /// Records that were taken, and those of them that the operating system has.
    taken: AtomicU64,
    written: AtomicU64,
}

#[derive(Debug)]
struct LaneState {
    buffer: Vec<u8>,
    segment: Option<Arc<Segment>>,
    /// Where the ids of this lane go on.
    next: u64,
    /// The last write failed.
    failed: bool,
}

/// What the keeper is asked for.
#[derive(Debug, Default)]
struct Wish {
    state: Mutex<WishState>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct WishState {
    sync: bool,
    look: bool,
    end: bool,
}

impl Journal {
    /// Opens the journal in the folder of the settings, makes its first file and starts the keeper.
    ///
    /// # Errors
    /// In words, with the folder.
    pub(super) fn open(
        settings: &AuditSettings,
        system: Uuid,
        server: Arc<str>,
        clock: Clock,
    ) -> Result<Arc<Self>, String> {
        let refused = |error: io::Error| settings.refused(&error.to_string());
        settings.prepare().map_err(refused)?;
        let count = thread::available_parallelism().map_or(1, usize::from).clamp(2, MOST_LANES);
        let lanes: Box<[Lane]> = (0..count).map(|_| Lane::new()).collect();
        let shares = u64::try_from(count).unwrap_or(1) * 2 + 2;
        let largest = (settings.journal_max / shares).clamp(LEAST_SIZE, LARGEST_SIZE);
        let journal = Arc::new(Self {
            number: JOURNALS.fetch_add(1, Ordering::Relaxed),
            folder: settings.journal.clone(),
            system,
            server,
            clock,
            mode: settings.mode,
            most: settings.journal_max,
            largest,
            next_size: AtomicU64::new(FIRST_SIZE.min(largest)),
            lanes,
            segments: Mutex::default(),
            spare: Mutex::default(),
            warned: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
            trouble: Mutex::default(),
            writes: AtomicU64::new(0),
            synced: watch::Sender::new(0),
            wish: Arc::default(),
        });
        let spare = journal.create(0).map_err(refused)?;
        *lock(&journal.spare) = Some(spare);
        let (keeper, wish) = (Arc::downgrade(&journal), Arc::clone(&journal.wish));
        let thread = thread::Builder::new().name("audit-journal".to_owned());
        thread.spawn(move || keep(&keeper, &wish)).map_err(refused)?;
        Ok(journal)
    }

    /// Takes a record. It is with the operating system when this returned, unless the caller's thread
    /// writes before its answers leave ([`Self::hand_over`]).
    ///
    /// # Errors
    /// Why it is not taken: nothing of it is left then.
    pub(super) fn append(&self, entry: Entry<'_>) -> Result<(), String> {
        self.takes()?;
        let lane = self.lane();
        let mut state = lock(&lane.state);
        if state.failed {
            state.write().map_err(|error| self.not_written(&error))?;
        }
        let start = state.encode(&self.clock, entry);
        let here = state.segment.as_ref().is_some_and(|it| it.has_room(state.buffer.len()));
        if !here {
            self.go_on(&mut state, start)?;
        }
        if self.mode == AuditMode::Journal && WRITES.get() == self.number {
            lane.taken.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
        state.write().map_err(|error| {
            state.buffer.truncate(start);
            self.not_written(&error)
        })?;
        let taken = lane.taken.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        lane.written.store(taken, Ordering::Release);
        Ok(())
    }

    /// Whether records are taken at the moment.
    ///
    /// # Errors
    /// Why they are not.
    pub(super) fn takes(&self) -> Result<(), String> {
        match self.troubled.load(Ordering::Acquire) {
            true => Err(lock(&self.trouble).clone()),
            false => Ok(()),
        }
    }

    /// Goes on in the next file with what stands in the buffer from `start` on.
    fn go_on(&self, state: &mut LaneState, start: usize) -> Result<(), String> {
        let mut last = state.buffer.split_off(start);
        state.write().map_err(|error| self.not_written(&error))?;
        let next = self.next_segment(last.len())?;
        if let Some(full) = state.segment.replace(next) {
            full.close();
        }
        state.buffer.append(&mut last);
        Ok(())
    }

    /// Writes what waits in any buffer.
    pub(super) fn flush(&self) {
        for lane in &self.lanes {
            if let Err(error) = lane.flush() {
                tracing::error!(%error, folder = %self.folder.display(), "the audit journal cannot be written");
            }
        }
    }

    /// Returns when the disk has every record that was taken before.
    pub(super) async fn durable(&self) -> Result<(), String> {
        let ticket = self.writes.fetch_add(1, Ordering::AcqRel) + 1;
        let mut synced = self.synced.subscribe();
        self.wish.tell(|wish| wish.sync = true);
        let waited = synced.wait_for(|done| *done >= ticket).await;
        waited.map(drop).map_err(|_| "the server is stopping".to_owned())
    }

    /// When records are safe enough.
    pub(super) fn mode(&self) -> AuditMode {
        self.mode
    }

    /// The files that the database may lack something of.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).clone()
    }

    /// Takes over the files that processes of this system left; how many there were.
    pub(super) fn adopt(&self) -> io::Result<Vec<Uuid>> {
        let found = segment::orphans(&self.folder, self.system)?;
        let ids = found.iter().map(|segment| segment.id).collect();
        lock(&self.segments).extend(found.into_iter().map(Arc::new));
        Ok(ids)
    }

    /// Takes the files away that the database has everything of.
    pub(super) fn remove_finished(&self) {
        let mut finished = Vec::new();
        lock(&self.segments).retain(|segment| {
            let keep = !segment.is_finished();
            if !keep {
                finished.push(Arc::clone(segment));
            }
            keep
        });
        for segment in finished {
            segment.remove();
        }
        if self.troubled.load(Ordering::Acquire) {
            self.wish.tell(|wish| wish.look = true);
        }
    }

    /// Ends the keeper and all files. What is taken afterwards goes to new ones.
    pub(super) fn close(&self) {
        self.wish.tell(|wish| wish.end = true);
        for lane in &self.lanes {
            let mut state = lock(&lane.state);
            // What cannot be written now stays, and is tried again with what comes.
            if state.write().is_ok()
                && let Some(segment) = state.segment.take()
            {
                segment.close();
            }
        }
        if let Some(spare) = lock(&self.spare).take() {
            spare.remove();
        }
    }

    /// Where the files are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn lane(&self) -> &Lane {
        &self.lanes[lanes::current() % self.lanes.len()]
    }

    fn create(&self, need: usize) -> io::Result<Segment> {
        let need = u64::try_from(need).unwrap_or(u64::MAX).saturating_add(4096);
        let size = self.next_size.load(Ordering::Relaxed);
        let made = Segment::create(&self.folder, self.system, &self.server, size.max(need))?;
        self.next_size.store((size * 2).min(self.largest), Ordering::Relaxed);
        Ok(made)
    }

    fn next_segment(&self, need: usize) -> Result<Arc<Segment>, String> {
        let next = self.within_limit().and_then(|()| {
            let spare = lock(&self.spare).take();
            match spare.filter(|spare| spare.has_room(need)) {
                Some(spare) => Ok(spare),
                None => self.create(need).map_err(|error| self.no_room(&error)),
            }
        });
        let next = next.inspect_err(|why| self.note_trouble(why))?;
        let next = Arc::new(next);
        lock(&self.segments).push(Arc::clone(&next));
        self.wish.tell(|wish| wish.look = true);
        Ok(next)
    }

    fn within_limit(&self) -> Result<(), String> {
        let taken: u64 = lock(&self.segments).iter().map(|segment| segment.capacity).sum();
        if taken + self.next_size.load(Ordering::Relaxed) <= self.most {
            return Ok(());
        }
        Err(format!(
            "the journal in {} is full: it has {} MiB that the database has not taken yet \
             (audit.journal_max_mb)",
            self.folder.display(),
            taken >> 20
        ))
    }

    fn note_trouble(&self, why: &str) {
        if !self.troubled.load(Ordering::Acquire) {
            tracing::error!(%why, "the audit takes no records; requests that need one are refused");
        }
        why.clone_into(&mut lock(&self.trouble));
        self.troubled.store(true, Ordering::Release);
    }

    fn no_room(&self, error: &io::Error) -> String {
        format!(
            "no room can be reserved in the folder of the journal, {}: {error}",
            self.folder.display()
        )
    }

    fn not_written(&self, error: &io::Error) -> String {
        format!("the journal in {} cannot be written: {error}", self.folder.display())
    }

    /// Has a spare file at hand; when that works again, so does the audit.
    fn look(&self) {
        let wanted = lock(&self.spare).is_none();
        if !wanted && !self.troubled.load(Ordering::Acquire) {
            return;
        }
        let made = self.within_limit().and_then(|()| {
            if wanted {
                let spare = self.create(0).map_err(|error| self.no_room(&error))?;
                *lock(&self.spare) = Some(spare);
            }
            Ok(())
        });
        match made {
            Ok(()) => {
                self.warned.store(false, Ordering::Release);
                if self.troubled.swap(false, Ordering::AcqRel) {
                    tracing::info!("the audit takes records again");
                }
            }
            // What is reserved already may still be used up.
            Err(why) if !self.warned.swap(true, Ordering::AcqRel) => {
                tracing::warn!(%why, "the audit journal finds no more room");
            }
            Err(_) => {}
        }
    }

    /// Has the disk take what it lacks, and tells who waits for it.
    fn sync(&self) {
        let target = self.writes.load(Ordering::Acquire);
        let mut failed = false;
        for segment in self.segments() {
            if let Err(error) = segment.sync() {
                failed = true;
                let path = segment.path().display();
                tracing::error!(%path, %error, "the disk does not take the audit journal");
            }
        }
        if !failed {
            self.synced.send_replace(target);
        }
    }
}

impl Records for Journal {
    fn taken(&self) -> u64 {
        self.lane().taken.load(Ordering::Acquire)
    }

    fn hand_over(&self, taken: u64) -> io::Result<()> {
        WRITES.set(self.number);
        let lane = self.lane();
        if lane.has_written(taken) {
            return Ok(());
        }
        lane.flush().inspect_err(|error| {
            metrics::counter!("sso_audit_failures_total").increment(1);
            tracing::error!(%error, "answers are not sent, as their audit records cannot be written");
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.wish.tell(|wish| wish.end = true);
        self.flush();
        if let Some(spare) = lock(&self.spare).take() {
            spare.remove();
        }
    }
}

impl Lane {
    fn new() -> Self {
        let (next, _) = Uuid::new_v4().as_u64_pair();
        let state =
            LaneState { buffer: Vec::with_capacity(64 * 1024), segment: None, next, failed: false };
        Self { state: Mutex::new(state), taken: AtomicU64::new(0), written: AtomicU64::new(0) }
    }

    fn flush(&self) -> io::Result<()> {
        if self.has_written(self.taken.load(Ordering::Acquire)) {
            return Ok(());
        }
        let mut state = lock(&self.state);
        state.write()?;
        // Nobody takes one meanwhile.
        self.written.store(self.taken.load(Ordering::Acquire), Ordering::Release);
        Ok(())
    }

    fn has_written(&self, taken: u64) -> bool {
        self.written.load(Ordering::Acquire) >= taken
    }
}

impl LaneState {
    /// Puts a record into the buffer; where it begins there.
    fn encode(&mut self, clock: &Clock, entry: Entry<'_>) -> usize {
        let nanos = clock.now().unix_timestamp_nanos();
        let at = i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX);
        self.next = self.next.wrapping_add(1);
        let start = self.buffer.len();
        let Entry { request_id, outcome, caller, action, application, object, reason, detail } =
            entry;
        let id = id(at, self.next);
        Record { id, at, request_id, outcome, caller, action, application, object, reason, detail }
            .encode(&mut self.buffer);
        start
    }

    fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.failed = false;
            return Ok(());
        }
        let segment = self.segment.as_ref();
        let written = segment.map_or_else(
            || Err(io::Error::other("there is no file")),
            |segment| segment.append(&self.buffer),
        );
        match written {
            Ok(()) => {
                self.buffer.clear();
                self.buffer.shrink_to(LARGE_BUFFER);
                self.failed = false;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }
}

impl Wish {
    fn tell(&self, what: impl FnOnce(&mut WishState)) {
        what(&mut lock(&self.state));
        self.told.notify_one();
    }

    /// Waits for a wish, one round at the most.
    fn wait(&self) -> WishState {
        let idle = |wish: &mut WishState| !(wish.sync || wish.look || wish.end);
        let waited = self.told.wait_timeout_while(lock(&self.state), ROUND, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let end = state.end;
        std::mem::replace(&mut *state, WishState { end, ..WishState::default() })
    }
}

/// The thread of a journal, until that is gone.
fn keep(journal: &Weak<Journal>, wish: &Wish) {
    let mut rounds = 0;
    loop {
        let wished = wish.wait();
        let Some(journal) = journal.upgrade() else { return };
        if wished.end {
            journal.sync();
            return;
        }
        if wished.sync {
            journal.sync();
        }
        if wished.look || !wished.sync {
            journal.look();
        }
        if wished.sync || wished.look {
            continue;
        }
        journal.flush();
        rounds += 1;
        if rounds >= ROUNDS_TO_SYNC {
            rounds = 0;
            journal.sync();
        }
    }
}

/// A UUID of version 7: milliseconds, the rest of the microseconds, then a number that begins at random
/// for each lane and goes up with each record. Asks the system for nothing.
fn id(at: i64, number: u64) -> Uuid {
    let millis = u64::try_from(at.div_euclid(1000)).unwrap_or_default();
    let rest = u16::try_from(at.rem_euclid(1000)).unwrap_or_default();
    let [a, b] = (rest << 2).to_be_bytes();
    let [c, d, e, f, g, h, i, j] = number.to_be_bytes();
    Builder::from_unix_timestamp_millis(millis, &[a, b, c, d, e, f, g, h, i, j]).into_uuid()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest record fits the smallest file that is made for it.
const _: () = assert!(record::LONGEST < 1 << 20);

#[cfg(test)]
impl Journal {
    /// Ends the keeper, and waits until it is gone.
    pub(super) fn end_keeper(self: &Arc<Self>) {
        self.wish.tell(|wish| wish.end = true);
        while Arc::weak_count(self) > 0 {
            thread::yield_now();
        }
    }

    /// Takes the file of this lane away.
    pub(super) fn take_file(&self) -> Option<Arc<Segment>> {
        lock(&self.lane().state).segment.take()
    }

    pub(super) fn put_file(&self, file: Option<Arc<Segment>>) {
        lock(&self.lane().state).segment = file;
    }
}
