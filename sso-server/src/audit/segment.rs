//! A file of the journal: a head that says whose it is, then records, then zeros where room is reserved.
//! Whoever holds its lock writes it, or brings what a process that is gone left in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, fallocate, flock},
    io::Errno,
};
use uuid::Uuid;

use super::record::{self, Next};

const MAGIC: &[u8; 8] = b"SSOAUD1\n";
/// Files of a journal; those of another ending are still being made.
const ENDING: &str = "journal";
const UNFINISHED: &str = "new";
/// No file of a journal is read beyond this.
const LARGEST: u64 = 1 << 30;

/// A file of the journal, locked.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: Uuid,
    /// Whose records are in it.
    pub(super) server: Arc<str>,
    path: PathBuf,
    file: File,
    /// So many bytes are reserved, or may be written.
    pub(super) capacity: u64,
    reserved: bool,
    /// Where the records end that the operating system has.
    written: AtomicU64,
    /// Where those end that are on the disk.
    synced: AtomicU64,
    /// Where those end that are in the database.
    shipped: AtomicU64,
    /// Nothing more will be written.
    closed: AtomicBool,
    /// Writing it to the disk failed once: nobody knows what of it is there.
    suspect: AtomicBool,
}

impl Segment {
    /// A new file for the records of this server, with room for so many bytes.
    pub(super) fn create(
        folder: &Path,
        system: Uuid,
        server: &Arc<str>,
        capacity: u64,
    ) -> io::Result<Self> {
        loop {
            let id = Uuid::new_v4();
            let unfinished = folder.join(format!("{id}.{UNFINISHED}"));
            let path = folder.join(format!("{id}.{ENDING}"));
            let made = Self::make(id, &unfinished, (system, server), capacity);
            let finished = made.and_then(|segment| {
                let Some(segment) = segment else { return Ok(None) };
                match fs::rename(&unfinished, &path) {
                    Ok(()) => Ok(Some(Self { path, ..segment })),
                    // Somebody took it for a file of a process that is gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            });
            match finished {
                Ok(Some(segment)) => return Ok(segment),
                Ok(None) => {}
                Err(error) => {
                    let _ = fs::remove_file(&unfinished);
                    return Err(error);
                }
            }
        }
    }

    fn make(
        id: Uuid,
        path: &Path,
        (system, server): (Uuid, &Arc<str>),
        capacity: u64,
    ) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if !lock(&file)? {
            return Ok(None);
        }
        let head = head(system, id, server);
        let start = length(&head);
        let capacity = capacity.max(start);
        let reserved = reserve(&file, capacity)?;
        file.write_all_at(&head, 0)?;
        Ok(Some(Self {
            id,
            server: Arc::clone(server),
            path: path.to_owned(),
            file,
            capacity,
            reserved,
            written: AtomicU64::new(start),
            synced: AtomicU64::new(0),
            shipped: AtomicU64::new(start),
            closed: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        }))
    }

    /// Takes over a file of this system whose process is gone; it begins as if nothing of it were
    /// shipped. `None` where it is in use, is of another system, or is gone meanwhile.
    fn adopt(path: &Path, system: Uuid) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if !lock(&file)? || !is_at(&file, path) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(LARGEST).read_to_end(&mut bytes)?;
        let Some((of, id, server, start)) = parse_head(&bytes) else {
            let path = path.display();
            tracing::warn!(%path, "this file in the folder of the audit journal is none of a journal");
            return Ok(None);
        };
        if of != system {
            return Ok(None);
        }
        let mut end = start;
        loop {
            match record::next(bytes.get(end..).unwrap_or_default()) {
                Next::Record(_, size) => end += size,
                Next::End => break,
                Next::Cut | Next::Damaged(_) => {
                    let path = path.display();
                    tracing::warn!(%path, offset = end, "the last record of this audit journal is cut; its answer never left");
                    break;
                }
            }
        }
        let written = u64::try_from(end).unwrap_or(u64::MAX);
        let capacity = file.metadata()?.len();
        Ok(Some(Self {
            id,
            server: server.into(),
            path: path.to_owned(),
            file,
            capacity,
            reserved: true,
            written: AtomicU64::new(written),
            // It was not this process that wrote it.
            synced: AtomicU64::new(0),
            shipped: AtomicU64::new(u64::try_from(start).unwrap_or(u64::MAX)),
            closed: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
        }))
    }

    /// Writes behind what is written, in one piece. After an error nothing of it counts, and the next
    /// write overwrites it.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written();
        match self.file.write_all_at(bytes, end) {
            Ok(()) => {
                self.written.store(end + length(bytes), Ordering::Release);
                Ok(())
            }
            Err(error) => {
                if !self.reserved {
                    let _ = self.file.set_len(end);
                }
                Err(error)
            }
        }
    }

    /// The bytes from `start` on, so many at the most.
    pub(super) fn read(&self, start: u64, most: usize) -> io::Result<Vec<u8>> {
        let there = self.written().saturating_sub(start);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(most).min(most)];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Has the disk take what it lacks; what the database has it need not have.
    pub(super) fn sync(&self) -> io::Result<()> {
        let written = self.written();
        if self.shipped() >= written {
            return Ok(());
        }
        if self.suspect.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier attempt to write it to the disk failed"));
        }
        if self.synced.load(Ordering::Acquire) >= written {
            return Ok(());
        }
        let synced = self.file.sync_data();
        if synced.is_ok() {
            self.synced.fetch_max(written, Ordering::AcqRel);
        } else {
            // The system may have thrown the bytes away: a second attempt proves nothing.
            self.suspect.store(true, Ordering::Release);
        }
        synced
    }

    /// Whether a record of so many bytes may be written behind what waits already.
    pub(super) fn has_room(&self, waiting: usize) -> bool {
        let end = self.written().saturating_add(u64::try_from(waiting).unwrap_or(u64::MAX));
        end <= self.capacity && !self.suspect.load(Ordering::Acquire)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(super) fn shipped(&self) -> u64 {
        self.shipped.load(Ordering::Acquire)
    }

    pub(super) fn note_shipped(&self, end: u64) {
        self.shipped.fetch_max(end, Ordering::AcqRel);
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether nothing will come and the database has everything.
    pub(super) fn is_finished(&self) -> bool {
        // In this order: what was written before it was closed counts.
        self.closed.load(Ordering::Acquire) && self.shipped() >= self.written()
    }

    /// Takes it away, with its lock.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a file of the audit journal is not removed");
        }
    }

    /// Whether the disk or the database has everything.
    #[cfg(test)]
    pub(super) fn is_safe(&self) -> bool {
        self.synced.load(Ordering::Acquire).max(self.shipped()) >= self.written()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The files of this system in the folder that nobody holds. Takes away what was never finished.
pub(super) fn orphans(folder: &Path, system: Uuid) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending {
            Some(ENDING) => match Segment::adopt(&path, system) {
                Ok(segment) => found.extend(segment),
                // Another server was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a file of the audit journal cannot be read");
                }
            },
            Some(UNFINISHED) => {
                if let Ok(file) = File::open(&path)
                    && lock(&file).unwrap_or(false)
                {
                    let _ = fs::remove_file(&path);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Whether the lock was free.
fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file is still the one at the path: another server may have brought and removed it.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// Reserves room on the disk, where the file system can.
fn reserve(file: &File, capacity: u64) -> io::Result<bool> {
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, capacity)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn head(system: Uuid, id: Uuid, server: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(system.as_bytes());
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(server.as_bytes());
    [MAGIC.as_slice(), &record::head_of(&body), &body].concat()
}

/// System, id and server of a file, and where its records begin.
fn parse_head(bytes: &[u8]) -> Option<(Uuid, Uuid, &str, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (body, size) = record::body_of(rest).ok()??;
    let (system, body) = body.split_first_chunk()?;
    let (id, server) = body.split_first_chunk()?;
    let server = std::str::from_utf8(server).ok()?;
    Some((Uuid::from_bytes(*system), Uuid::from_bytes(*id), server, MAGIC.len() + size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::AuditOutcome;

    const SYSTEM: Uuid = Uuid::from_u128(1);

    fn record() -> Vec<u8> {
        let mut bytes = Vec::new();
        let record = record::Record {
            id: Uuid::nil(),
            at: 0,
            request_id: Uuid::nil(),
            outcome: AuditOutcome::Done,
            caller: "D\\user",
            action: "noun.verb",
            application: "",
            object: "",
            reason: "",
            detail: "x",
        };
        record.encode(&mut bytes);
        bytes
    }

    fn ends(folder: &Path) -> Vec<u64> {
        orphans(folder, SYSTEM).unwrap().iter().map(Segment::written).collect()
    }

    #[test]
    fn a_file_is_found_when_its_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let server: Arc<str> = "one".into();
        let segment = Segment::create(folder.path(), SYSTEM, &server, 4096).unwrap();
        let mode = fs::metadata(segment.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let start = segment.written();
        let bytes = record();
        segment.append(&bytes).unwrap();
        segment.append(&bytes).unwrap();
        let end = segment.written();
        assert_eq!(end, start + 2 * length(&bytes));
        assert_eq!(segment.read(start, 7).unwrap(), &bytes[..7]);
        assert_eq!(ends(folder.path()), [0; 0], "it is in use");
        drop(segment);
        assert!(orphans(folder.path(), Uuid::from_u128(2)).unwrap().is_empty(), "another system");
        let found = orphans(folder.path(), SYSTEM).unwrap();
        assert_eq!(
            (&*found[0].server, found[0].written(), found[0].shipped()),
            ("one", end, start)
        );
        assert!(!found[0].is_finished());
        found[0].note_shipped(end);
        assert!(found[0].is_finished());
        found[0].remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_cut_or_changed_record_ends_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), SYSTEM, &"one".into(), 4096).unwrap();
        let bytes = record();
        segment.append(&bytes).unwrap();
        let end = segment.written();
        segment.append(&bytes[..bytes.len() - 1]).unwrap();
        let path = segment.path().to_owned();
        drop(segment);
        assert_eq!(ends(folder.path()), [end]);
        // Whatever ends there: a file is never longer than its whole records.
        let whole = fs::read(&path).unwrap();
        for length in 0..usize::try_from(end).unwrap() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(ends(folder.path()).iter().all(|it| *it < end), "{length}");
        }
        fs::write(folder.path().join(format!("x.{UNFINISHED}")), "").unwrap();
        assert!(ends(folder.path()).len() < 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
