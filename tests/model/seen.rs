//! What happened, and what it must never have come to.

use sso_master::keystore::State as GenerationState;

use crate::{
    masters::{Key, Keystore, Master, Ring, master_bit, server_bit},
    system::{EPOCHS, NUMBERS, State},
};

/// What happened, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// Keys in a backup that was opened again; a bit each.
    pub(crate) backups: u8,
    pub(crate) document: [Option<Key>; NUMBERS],
    pub(crate) destroyed: u8,
    /// Of each row, the value that was acknowledged last.
    pub(crate) acknowledged: Vec<u8>,
    /// By key: who was not waited for when it was activated.
    pub(crate) excused: [u8; 4],
    /// Servers that were revoked.
    pub(crate) revoked: u8,
    pub(crate) primaries: [Option<u8>; EPOCHS],
    pub(crate) two_primaries: bool,
    pub(crate) unbacked: bool,
    pub(crate) refused_late: bool,
    pub(crate) resealed: bool,
    pub(crate) stepped_down: bool,
    /// Keys were put back into a master that leads.
    pub(crate) restored: bool,
    /// Promoted without a key in use, although what it had heard was still true.
    pub(crate) promoted_incomplete: bool,
}

impl Seen {
    pub(crate) fn admitted(&mut self, ring: &Ring) {
        let primary = &mut self.primaries[usize::from(ring.epoch)];
        self.two_primaries |= primary.is_some_and(|primary| primary != ring.primary);
        *primary = Some(ring.primary);
        // A primary of before must not come back.
        let later = usize::from(ring.epoch) + 1;
        self.two_primaries |= self.primaries[later.min(EPOCHS - 1)..].iter().any(Option::is_some);
    }

    pub(crate) fn sealed(&mut self, key: Key) {
        self.unbacked |= self.backups & 1 << key == 0;
    }
}

impl State {
    fn is_excused(&self, key: Key, who: u8) -> bool {
        (self.seen.excused[usize::from(key)] | self.seen.revoked) & who != 0
    }

    pub(crate) fn every_row_opens_at_every_server(&self) -> bool {
        self.servers.iter().enumerate().all(|(server, it)| {
            it.held.as_ref().is_none_or(|(ring, _)| {
                self.database.rows.iter().all(|row| {
                    ring.keys[row.generation] == Some(row.key)
                        || self.is_excused(row.key, server_bit(server))
                })
            })
        })
    }

    pub(crate) fn every_row_survives_the_loss_of_a_master(&self) -> bool {
        self.masters.iter().enumerate().all(|(master, it)| {
            self.database.rows.iter().all(|row| {
                it.keeps(row.generation, row.key)
                    || self.seen.excused[usize::from(row.key)] & master_bit(master) != 0
            })
        })
    }

    pub(crate) fn nothing_is_sealed_without_a_backup(&self) -> bool {
        !self.seen.unbacked
    }

    pub(crate) fn nobody_is_promoted_without_a_key_in_use(&self) -> bool {
        !self.seen.promoted_incomplete
    }

    pub(crate) fn no_two_primaries_are_admitted(&self) -> bool {
        !self.seen.two_primaries
    }

    /// The primary that the database follows has its key, and some master keeps it at least.
    pub(crate) fn no_row_has_lost_its_key(&self) -> bool {
        self.database.rows.iter().all(|row| {
            self.masters.iter().any(|it| it.keeps(row.generation, row.key))
                && self.known_primary().is_none_or(|it| it.holds(row.generation, row.key))
        })
    }

    pub(crate) fn every_acknowledged_write_is_there(&self) -> bool {
        let values = self.database.rows.iter().map(|row| row.value);
        values.eq(self.seen.acknowledged.iter().copied())
    }

    /// The master that the database knows as the primary, where it runs.
    fn known_primary(&self) -> Option<&Master> {
        let primary = usize::from(self.database.primary);
        let master = self.masters.get(primary).filter(|it| it.leads(primary))?;
        (master.keystore.epoch == self.database.epoch).then_some(master)
    }

    pub(crate) fn servers_can_take_the_keys_of_the_primary(&self) -> bool {
        self.known_primary().is_none_or(|it| self.database.admits(&it.keystore.ring()))
    }

    /// A master that was promoted can be given what it lacks of the database, from a backup.
    pub(crate) fn what_a_promoted_master_lacks_can_be_restored(&self) -> bool {
        self.masters.iter().enumerate().filter(|(own, it)| it.leads(*own)).all(|(_, it)| {
            it.keystore.epoch <= self.database.epoch
                || (0..NUMBERS).all(|at| {
                    let known = self.database.generations[at].filter(|known| !known.closed);
                    let own = it.keystore.entries[at];
                    known.is_none_or(|known| own.is_none_or(|own| own.key == known.key))
                })
        })
    }

    /// Else nothing could be written any more. A master that was left behind and is given the
    /// active key from a backup has it as a retired one: it has to rotate first.
    pub(crate) fn the_primary_has_a_generation_to_write_under(&self) -> bool {
        let open = |keystore: &Keystore, state| {
            keystore
                .at(state)
                .any(|at| self.database.generations[at].is_none_or(|known| !known.closed))
        };
        self.known_primary().is_none_or(|it| {
            open(&it.keystore, GenerationState::Active)
                || open(&it.keystore, GenerationState::Distributed)
                || self.seen.restored
        })
    }

    pub(crate) fn has_rotated(&self) -> bool {
        let retired =
            self.masters.iter().any(|it| it.keystore.at(GenerationState::Retired).next().is_some());
        retired && self.database.rows.iter().all(|row| row.key > 0)
    }

    pub(crate) fn has_rotated_twice(&self) -> bool {
        self.database.rows.iter().all(|row| row.key > 1)
    }

    pub(crate) fn has_destroyed(&self) -> bool {
        self.seen.destroyed != 0
    }

    pub(crate) fn has_promoted(&self) -> bool {
        self.database.epoch > 1
    }

    pub(crate) fn has_rotated_after_a_promotion(&self) -> bool {
        self.has_promoted() && self.database.rows.iter().all(|row| row.key > 0)
    }

    pub(crate) fn has_stepped_down(&self) -> bool {
        self.seen.stepped_down
    }

    pub(crate) fn has_refused_a_late_write(&self) -> bool {
        self.seen.refused_late
    }

    pub(crate) fn has_sealed_again(&self) -> bool {
        self.seen.resealed
    }
}
