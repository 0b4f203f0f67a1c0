//! What servers hold, the database they share, and the rules of both: admission, leases, writes, sealing
//! again, closing.

use crate::{
    masters::{Key, Ring},
    system::{Broken, NUMBERS},
};

/// What a server may still do without a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lease {
    /// Read and write lease.
    Write,
    /// Read lease only.
    Read,
}

/// A transaction with a value that was sealed, and not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writing {
    pub(crate) row: usize,
    pub(crate) generation: usize,
    pub(crate) key: Key,
    pub(crate) value: u8,
}

/// The work of sealing again, as a server believes to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) fencing: u8,
    /// A batch: what the row was, and what it is to be sealed under.
    pub(crate) batch: Option<(usize, Row, usize, Key)>,
}

/// A process; killed, it is nothing but `Server::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// Fetched and not admitted yet: a message on its way.
    pub(crate) offer: Option<Ring>,
    /// Keys, while there is a read lease.
    pub(crate) held: Option<(Ring, Lease)>,
    pub(crate) writing: Option<Writing>,
    pub(crate) work: Option<Work>,
}

/// A sealed value. Values are numbered, so that none is written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) value: u8,
    pub(crate) generation: usize,
    pub(crate) key: Key,
}

/// A generation as the database knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    pub(crate) key: Key,
    pub(crate) closed: bool,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) generations: [Option<Known>; NUMBERS],
    pub(crate) rows: Vec<Row>,
    /// Of the work lease.
    pub(crate) fencing: u8,
}

impl Database {
    /// Rule 8, in one transaction.
    pub(crate) fn admit_key_ring(&mut self, ring: &Ring) -> bool {
        if !self.admits(ring) {
            return false;
        }
        self.epoch = ring.epoch;
        self.primary = ring.primary;
        for (known, key) in self.generations.iter_mut().zip(ring.keys) {
            if let (None, Some(key)) = (&known, key) {
                *known = Some(Known { key, closed: false });
            }
        }
        true
    }

    pub(crate) fn admits(&self, ring: &Ring) -> bool {
        let outdated =
            ring.epoch < self.epoch || ring.epoch == self.epoch && ring.primary != self.primary;
        let held = |at: usize| match self.generations[at] {
            Some(known) if !known.closed => ring.keys[at] == Some(known.key),
            Some(_) | None => true,
        };
        !outdated && (0..NUMBERS).all(held)
    }

    /// Rule 5, in every transaction that writes a sealed value.
    pub(crate) fn hold_generation(&self, generation: usize, key: Key) -> bool {
        self.generations[generation].is_some_and(|known| !known.closed && known.key == key)
    }

    /// Rule 6, in one transaction: nobody holds the row of the generation meanwhile. The code also
    /// asks the database whether the master that wants it leads; the properties hold without that.
    pub(crate) fn close_generation(&mut self, at: usize, broken: Option<Broken>) -> bool {
        let left = self.rows.iter().any(|row| row.generation == at);
        let Some(known) = self.generations[at].as_mut() else { return false };
        if known.closed || left && broken != Some(Broken::Count) {
            return false;
        }
        known.closed = true;
        true
    }

    /// Rule 5: a write of a caller.
    pub(crate) fn write(&mut self, writing: Writing, broken: Option<Broken>) -> bool {
        let Writing { row, generation, key, value } = writing;
        if !self.hold_generation(generation, key) && broken != Some(Broken::HoldGeneration) {
            return false;
        }
        self.rows[row] = Row { value, generation, key };
        true
    }

    /// Rule 5: a batch of sealing again.
    pub(crate) fn reseal(&mut self, work: Work, broken: Option<Broken>) -> bool {
        let Some((row, read, generation, key)) = work.batch else { return false };
        let hold_work_lease = work.fencing == self.fencing || broken == Some(Broken::Fencing);
        let unchanged = self.rows[row] == read || broken == Some(Broken::CompareAndSwap);
        let hold = self.hold_generation(generation, key) || broken == Some(Broken::HoldGeneration);
        if !(hold_work_lease && unchanged && hold) {
            return false;
        }
        self.rows[row] = Row { value: read.value, generation, key };
        true
    }
}
