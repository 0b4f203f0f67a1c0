//! What a master keeps, and its rules: prepare, back up, distribute, activate, retire, destroy, promote,
//! adopt, restore.

use sso_master::keystore::State::{
    self as GenerationState, Active, Destroyed, Distributed, Draining, Prepared, Retired,
};

use crate::system::{Broken, Facts, MASTERS, NUMBERS, SERVERS};

/// Which secret bytes: every generated key is another one, whatever number it has.
pub(crate) type Key = u8;

/// One generation in a keystore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) state: GenerationState,
    pub(crate) backed_up: bool,
}

/// The file of a master. Entries stand at their number less one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Keystore {
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) version: u8,
    pub(crate) entries: [Option<Entry>; NUMBERS],
    /// Servers and masters (see [`server_bit`], [`master_bit`]) that the rotation does not wait for.
    pub(crate) left_behind: u8,
    pub(crate) revoked: u8,
    /// The version in which a generation became distributed.
    distributed_in: u8,
}

/// A process with its keystore. Everything but the keystore is lost when it is killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Master {
    pub(crate) up: bool,
    pub(crate) keystore: Keystore,
    /// Who has reported the distributed generation.
    pub(crate) acknowledged: u8,
    /// It heard of another primary of its epoch, or of a higher epoch.
    pub(crate) stepped_down: bool,
    pub(crate) facts: Option<Facts>,
    /// Keys in keystores that it kept aside; a bit each.
    pub(crate) aside: u8,
}

/// What a server gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ring {
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) version: u8,
    pub(crate) keys: [Option<Key>; NUMBERS],
    /// Where the active generation stands in `keys`.
    pub(crate) active: usize,
}

pub(crate) fn server_bit(server: usize) -> u8 {
    1 << server
}

pub(crate) fn master_bit(master: usize) -> u8 {
    1 << (4 + master)
}

impl Keystore {
    pub(crate) fn first(primary: u8) -> Self {
        let mut entries = [None; NUMBERS];
        entries[0] = Some(Entry { key: 0, state: Active, backed_up: true });
        Self {
            epoch: 1,
            primary,
            version: 1,
            entries,
            left_behind: 0,
            revoked: 0,
            distributed_in: 0,
        }
    }

    pub(crate) fn at(&self, state: GenerationState) -> impl Iterator<Item = usize> + '_ {
        (0..NUMBERS).filter(move |&at| self.entries[at].is_some_and(|entry| entry.state == state))
    }

    /// Every key it keeps, in any state but destroyed.
    pub(crate) fn keys(&self) -> [Option<Key>; NUMBERS] {
        self.entries.map(|entry| entry.filter(|it| it.state != Destroyed).map(|it| it.key))
    }

    pub(crate) fn highest(&self) -> Option<usize> {
        self.entries.iter().rposition(Option::is_some)
    }

    /// What it hands out.
    pub(crate) fn ring(&self) -> Ring {
        let handed_out = |entry: &Entry| !matches!(entry.state, Prepared | Destroyed);
        Ring {
            epoch: self.epoch,
            primary: self.primary,
            version: self.version,
            keys: self.entries.map(|entry| entry.filter(handed_out).map(|it| it.key)),
            active: self.at(Active).next().expect("one is active"),
        }
    }

    fn set(&mut self, at: usize, state: GenerationState) {
        self.entries[at].as_mut().expect("an entry").state = state;
        self.version += 1;
    }

    /// Newer than another one: what a follower takes over.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }
}

/// The rules. Each returns whether it was allowed, and has changed nothing where it was not.
impl Master {
    pub(crate) fn running(keystore: Keystore) -> Self {
        Self { up: true, keystore, acknowledged: 0, stepped_down: false, facts: None, aside: 0 }
    }

    /// Killed: what is left is what is on the disk.
    pub(crate) fn killed(&self) -> Self {
        Self { up: false, aside: self.aside, ..Self::running(self.keystore.clone()) }
    }

    /// In its keystore.
    pub(crate) fn holds(&self, at: usize, key: Key) -> bool {
        self.keystore.keys()[at] == Some(key)
    }

    /// In its keystore or aside.
    pub(crate) fn keeps(&self, at: usize, key: Key) -> bool {
        self.holds(at, key) || self.aside & 1 << key != 0
    }

    pub(crate) fn leads(&self, own: usize) -> bool {
        self.up && !self.stepped_down && usize::from(self.keystore.primary) == own
    }

    /// Rule 1. Only a primary that the database follows knows every number that is taken.
    pub(crate) fn prepare(&mut self, key: Key, broken: Option<Broken>) -> bool {
        let keystore = &mut self.keystore;
        let followed = self.facts.as_ref().is_some_and(|facts| {
            (facts.epoch, facts.primary) == (keystore.epoch, keystore.primary)
        });
        if !followed && broken != Some(Broken::Numbers) {
            return false;
        }
        if keystore.at(Prepared).chain(keystore.at(Distributed)).next().is_some() {
            return false;
        }
        let own = keystore.highest();
        let reported = self.facts.as_ref().and_then(Facts::highest);
        let at = own.max(reported).map_or(0, |highest| highest + 1);
        let Some(place) = keystore.entries.get_mut(at) else { return false };
        *place = Some(Entry { key, state: Prepared, backed_up: false });
        keystore.version += 1;
        true
    }

    /// Rule 2: a backup of everything was opened again.
    pub(crate) fn verify_backup(&mut self) -> bool {
        let missing = |entry: &Entry| entry.state != Destroyed && !entry.backed_up;
        if !self.keystore.entries.iter().flatten().any(missing) {
            return false;
        }
        for entry in self.keystore.entries.iter_mut().flatten() {
            entry.backed_up |= entry.state != Destroyed;
        }
        self.keystore.version += 1;
        true
    }

    /// Rule 3.
    pub(crate) fn distribute(&mut self, left_behind: u8, broken: Option<Broken>) -> bool {
        let Some(at) = self.keystore.at(Prepared).next() else { return false };
        let backed_up = self.keystore.entries[at].is_some_and(|entry| entry.backed_up);
        if !backed_up && broken != Some(Broken::Backup) {
            return false;
        }
        self.keystore.set(at, Distributed);
        self.keystore.left_behind = left_behind;
        self.keystore.distributed_in = self.keystore.version;
        self.acknowledged = 0;
        true
    }

    /// Rule 4: a ring or a keystore of the current epoch that has the distributed generation.
    pub(crate) fn hear_of(&mut self, epoch: u8, version: u8, who: u8) {
        let keystore = &self.keystore;
        let distributed = keystore.at(Distributed).next().is_some();
        if distributed && epoch == keystore.epoch && version >= keystore.distributed_in {
            self.acknowledged |= who;
        }
    }

    /// Rule 4. Gives who was not waited for; one server at least has it, whoever is left behind.
    pub(crate) fn activate(
        &mut self,
        own: usize,
        (servers, masters): (usize, usize),
        broken: Option<Broken>,
    ) -> Option<u8> {
        debug_assert!(servers <= SERVERS && masters <= MASTERS);
        let at = self.keystore.at(Distributed).next()?;
        let keystore = &self.keystore;
        let mut missing = 0;
        if broken != Some(Broken::Acknowledgements) {
            let servers = (0..servers).map(server_bit).filter(|bit| keystore.revoked & bit == 0);
            missing = servers.sum();
            if missing & self.acknowledged == 0 {
                return None;
            }
        }
        for peer in (0..masters).filter(|&peer| peer != own).map(master_bit) {
            if broken != Some(Broken::Replication) {
                missing |= peer;
            }
        }
        if missing & !self.acknowledged & !keystore.left_behind != 0 {
            return None;
        }
        let before: Vec<_> = keystore.at(Active).collect();
        let left = keystore.left_behind & !self.acknowledged;
        for before in before {
            self.keystore.set(before, Draining);
        }
        self.keystore.set(at, Active);
        self.keystore.left_behind = 0;
        self.acknowledged = 0;
        Some(left)
    }

    /// Rule 6: what the servers may be told to close.
    pub(crate) fn is_closable(&self, at: usize, broken: Option<Broken>) -> bool {
        let state = self.keystore.entries[at].map(|entry| entry.state);
        matches!(state, Some(Draining | Retired))
            || state == Some(Active) && broken == Some(Broken::Closable)
    }

    /// Rule 6: servers reported that these are closed.
    pub(crate) fn retire(&mut self, closed: [bool; NUMBERS]) {
        let done: Vec<_> = self.keystore.at(Draining).filter(|&at| closed[at]).collect();
        for at in done {
            self.keystore.set(at, Retired);
        }
    }

    /// Rule 7. What came from a backup may be open in the database still.
    pub(crate) fn destroy(&mut self, at: usize, broken: Option<Broken>) -> Option<Key> {
        let entry = self.keystore.entries[at]?;
        let facts = self.facts.as_ref().filter(|facts| facts.epoch == self.keystore.epoch);
        let closed = facts.is_some_and(|facts| facts.closed()[at]);
        if entry.state != Retired
            || !entry.backed_up
            || !closed && broken != Some(Broken::OpenDestroyed)
        {
            return None;
        }
        self.keystore.set(at, Destroyed);
        Some(entry.key)
    }

    /// Whether it keeps every key that values may be sealed under.
    pub(crate) fn is_complete(&self, facts: &Facts) -> bool {
        let keys = self.keystore.keys();
        (0..NUMBERS).all(|at| facts.open(at).is_none_or(|key| keys[at] == Some(key)))
    }

    /// Rule 9, without force.
    pub(crate) fn promote(&mut self, own: usize, broken: Option<Broken>) -> bool {
        let heard = self.facts.as_ref();
        let complete = heard.is_some_and(|facts| self.is_complete(facts));
        if !complete && broken != Some(Broken::PromotionCheck) {
            return false;
        }
        let keystore = &mut self.keystore;
        keystore.epoch = keystore.epoch.max(heard.map_or(0, |facts| facts.epoch)) + 1;
        keystore.primary = u8::try_from(own).expect("few masters");
        keystore.version += 1;
        keystore.distributed_in = keystore.version;
        self.acknowledged = 0;
        self.stepped_down = false;
        true
    }

    /// Rule 9: the whole keystore of the primary. Where a key is lost by it, the own one is kept
    /// aside.
    pub(crate) fn adopt(&mut self, keystore: &Keystore, broken: Option<Broken>) {
        for (own, other) in self.keystore.entries.iter().zip(&keystore.entries) {
            let own = own.filter(|own| own.state != Destroyed).map(|own| own.key);
            let lost = own.filter(|own| other.is_none_or(|other| other.key != *own));
            if broken != Some(Broken::Aside) {
                self.aside |= lost.map_or(0, |key| 1 << key);
            }
        }
        self.keystore = keystore.clone();
        self.acknowledged = 0;
        self.stepped_down = false;
    }

    /// Rule 9: what the database says about who leads.
    pub(crate) fn hear_facts(&mut self, own: usize, facts: &Facts) {
        let keystore = &self.keystore;
        let led = usize::from(keystore.primary) == own;
        let other = facts.epoch == keystore.epoch && facts.primary != keystore.primary;
        if led && (facts.epoch > keystore.epoch || other) {
            self.stepped_down = true;
        }
    }

    /// Rule 10.
    pub(crate) fn restore(
        &mut self,
        document: &[Option<Key>; NUMBERS],
        broken: Option<Broken>,
    ) -> bool {
        let entries = &mut self.keystore.entries;
        let foreign = |at: usize| {
            let (own, theirs) = (entries[at].map(|entry| entry.key), document[at]);
            own.is_some() && theirs.is_some() && own != theirs
        };
        let over = broken == Some(Broken::Foreign);
        let missing = |at: usize| entries[at].is_none() && document[at].is_some();
        let new = |at: &usize| missing(*at) || over && foreign(*at);
        let new: Vec<_> = (0..NUMBERS).filter(new).collect();
        if !over && (0..NUMBERS).any(foreign) || new.is_empty() {
            return false;
        }
        for at in new {
            entries[at] = document[at].map(|key| Entry { key, state: Retired, backed_up: true });
        }
        self.keystore.version += 1;
        true
    }
}
