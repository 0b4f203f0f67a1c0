//! One time through all rows of the generations that are not the active one.

use std::{collections::VecDeque, time::Duration};

use sso_proto::Event;

use super::batch::{Batch, Wanted};
use crate::{
    master::ResealProgress,
    storage::{RowKey, SealedCount, SealedTable},
};

/// Names of rows that do not open, shown and logged at the most in one pass.
const NAMED: usize = 20;
const LOGGED: u64 = 100;

/// A pass, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// The generation that rows are sealed under again.
    pub(super) active: u32,
    /// Rows that did not open in it.
    pub(super) failed: u64,
    /// How long to rest if nothing but those is left.
    pub(super) rest: Duration,
    todo: VecDeque<(u32, SealedTable)>,
    after: Option<RowKey>,
}

impl Pass {
    /// One that is at its end.
    pub(super) fn empty(active: u32, rest: Duration) -> Self {
        Self { active, failed: 0, rest, todo: VecDeque::new(), after: None }
    }

    /// Through the rows that were counted, one generation after another.
    pub(super) fn over(active: u32, rest: Duration, counts: &[SealedCount]) -> Self {
        let tables = |count: &SealedCount| {
            let generation = count.generation;
            let has = [
                (SealedTable::Revisions, count.revisions),
                (SealedTable::Credentials, count.credentials),
            ];
            has.into_iter().filter(|(_, rows)| *rows > 0).map(move |(table, _)| (generation, table))
        };
        let todo = counts.iter().flat_map(tables).collect();
        Self { todo, ..Self::empty(active, rest) }
    }

    /// The next rows; `None` at the end.
    pub(super) fn next(&self, rows: u32) -> Option<Wanted> {
        let &(generation, table) = self.todo.front()?;
        Some(Wanted { table, generation, after: self.after.clone(), rows })
    }

    /// Takes in what became of those, and moves on.
    pub(super) fn take(&mut self, batch: Batch, progress: &mut ResealProgress) {
        for (name, why) in batch.failed {
            if self.failed < LOGGED {
                tracing::warn!(
                    event = Event::RowNotResealed.number(),
                    row = name,
                    why,
                    "a row does not open and was not sealed again"
                );
            }
            self.failed += 1;
            progress.failed_rows += 1;
            if progress.failed.len() < NAMED {
                progress.failed.push(name);
            }
        }
        self.after = batch.next;
        if self.after.is_none() {
            self.todo.pop_front();
        }
    }
}
