//! The list of all records: rows of changes and batches of reveals and denials, newest first as one.

use uuid::Uuid;

use super::{
    record::{self, Next, Record},
    shipper::SPAN,
};
use crate::{
    model::{AuditFilter, AuditPosition, AuditRecord, Page, PageRequest, canonical},
    storage::{AuditBatch, BatchFilter, Storage, StorageError},
};

/// Batches read at once: at first, and at the most.
const FIRST: u32 = 8;
const MOST: u32 = 256;
/// Bytes that batches read at once should not have more of.
const BYTES: usize = 4 << 20;

/// The newest records so far, so many at the most.
struct Newest {
    most: usize,
    records: Vec<AuditRecord>,
    /// The place of the last one that has room; `None` while there is room for more.
    oldest: Option<AuditPosition>,
}

/// A page of all records.
pub(super) async fn list(
    storage: &Storage,
    filter: &AuditFilter,
    page: &PageRequest,
) -> Result<Page<AuditRecord>, StorageError> {
    let before = match &page.after {
        None => AuditPosition { at: i64::MAX, id: Uuid::max() },
        Some(after) => match AuditPosition::parse(after) {
            Some(position) => position,
            None => return Ok(Page { entries: Vec::new(), next: None }),
        },
    };
    let rows = storage.audit(filter, page).await?;
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let mut more = rows.next.is_some();
    let mut newest = Newest { most: size.saturating_add(1), records: rows.entries, oldest: None };
    read_batches(storage, &Wanted::new(filter, before), &mut newest).await?;
    newest.settle();
    let mut entries = newest.records;
    more |= entries.len() > size;
    entries.truncate(size);
    let last = entries.last().filter(|_| more);
    let next = last.map(|record| AuditPosition::of(record).to_string());
    Ok(Page { entries, next })
}

/// Reads batches, those that end last first, as long as they can hold something newer than what is
/// known.
async fn read_batches(
    storage: &Storage,
    wanted: &Wanted<'_>,
    newest: &mut Newest,
) -> Result<(), StorageError> {
    let filter = wanted.batches();
    let (mut after, mut most) = (None, FIRST);
    loop {
        let batches = storage.audit_batches(&filter, after, most).await?;
        for batch in &batches {
            if newest.oldest.is_some_and(|oldest| batch.last_at < oldest.at) {
                return Ok(());
            }
            read(batch, wanted, newest)?;
            // Others use this thread, too.
            tokio::task::yield_now().await;
        }
        let Some(last) = batches.last() else { return Ok(()) };
        if batches.len() < usize::try_from(most).unwrap_or(usize::MAX) {
            return Ok(());
        }
        after = Some(last.position());
        let bytes: usize = batches.iter().map(|batch| batch.records.len()).sum();
        let of_one = (bytes / batches.len()).max(1);
        most = u32::try_from(BYTES / of_one).unwrap_or(MOST).clamp(FIRST, MOST);
    }
}

/// Adds what is wanted of a batch.
fn read(batch: &AuditBatch, wanted: &Wanted<'_>, newest: &mut Newest) -> Result<(), StorageError> {
    let (mut rest, mut entries) = (&*batch.records, 0);
    loop {
        match record::next(rest) {
            Next::Record(record, size) => {
                entries += 1;
                rest = rest.get(size..).unwrap_or_default();
                let position = AuditPosition { at: record.at, id: record.id };
                let counts = newest.oldest.is_none_or(|oldest| position > oldest);
                if counts && position < wanted.before && wanted.matches(&record) {
                    newest.records.push(record.to_owned(&batch.server));
                }
            }
            Next::End if rest.is_empty() && entries == batch.entries => break,
            Next::End | Next::Cut => return Err(batch.damaged("records are missing")),
            Next::Damaged(what) => return Err(batch.damaged(what)),
        }
    }
    newest.settle();
    Ok(())
}

impl Newest {
    /// Sorts, and forgets what has no room.
    fn settle(&mut self) {
        self.records.sort_by_cached_key(|record| std::cmp::Reverse(AuditPosition::of(record)));
        self.records.truncate(self.most);
        let full = self.records.len() == self.most;
        self.oldest = self.records.last().filter(|_| full).map(AuditPosition::of);
    }
}

/// What is searched for, in the terms of a record.
struct Wanted<'a> {
    filter: &'a AuditFilter,
    before: AuditPosition,
    since: i64,
    until: i64,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a AuditFilter, before: AuditPosition) -> Self {
        let micros = |time: time::OffsetDateTime| {
            i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
        };
        let since = filter.since.map_or(i64::MIN, micros);
        let until = filter.until.map_or(i64::MAX, micros);
        Self { filter, before, since, until }
    }

    fn batches(&self) -> BatchFilter {
        let until = self.before.at.min(self.until);
        BatchFilter {
            last_at_most: until.saturating_add(SPAN),
            until,
            since: self.since,
            application_key: self.filter.application_key.clone(),
            caller_key: self.filter.caller_key.clone(),
        }
    }

    /// As the statement of the rows decides.
    fn matches(&self, record: &Record<'_>) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| *wanted == canonical(name))
        };
        let action = match self.filter.action.as_deref() {
            None => true,
            Some(noun) if noun.ends_with('.') => {
                record.action.starts_with(noun) && record.action != noun
            }
            Some(action) => record.action == action,
        };
        action
            && record.at >= self.since
            && record.at < self.until
            && self.filter.outcome.is_none_or(|outcome| outcome == record.outcome)
            && is(&self.filter.application_key, record.application)
            && is(&self.filter.caller_key, record.caller)
    }
}
