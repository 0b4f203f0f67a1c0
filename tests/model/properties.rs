//! What must always hold, and what must happen somewhere, lest the rest hold for nothing.

use stateright::Property;

use crate::system::{Life, State};

pub(crate) const READABLE: &str = "a live server with a lease opens every row";
pub(crate) const BACKED_UP: &str = "nothing is sealed under a generation without a backup";
pub(crate) const ONE_PRIMARY: &str = "the database admits one primary an epoch, and none of before";
pub(crate) const KEPT: &str = "no row has lost its key";
pub(crate) const ACKNOWLEDGED: &str = "every acknowledged write is there";
pub(crate) const REPLICATED: &str = "no row is lost with a master";
pub(crate) const ADMITTED: &str = "servers can take the keys of the primary";
pub(crate) const WRITABLE: &str = "the primary has a generation to write under";
pub(crate) const RESTORABLE: &str = "what a promoted master lacks can be restored";
pub(crate) const COMPLETE: &str = "who is promoted on what is true has every key in use";

pub(crate) const ALWAYS: [&str; 10] = [
    READABLE,
    BACKED_UP,
    ONE_PRIMARY,
    KEPT,
    ACKNOWLEDGED,
    REPLICATED,
    ADMITTED,
    WRITABLE,
    RESTORABLE,
    COMPLETE,
];

pub(crate) fn all() -> Vec<Property<Life>> {
    let always = |name, holds| Property::always(name, holds);
    vec![
        always(READABLE, |_, state: &State| state.every_row_opens_at_every_server()),
        always(BACKED_UP, |_, state: &State| state.nothing_is_sealed_without_a_backup()),
        always(ONE_PRIMARY, |_, state: &State| state.no_two_primaries_are_admitted()),
        always(KEPT, |_, state: &State| state.no_row_has_lost_its_key()),
        always(ACKNOWLEDGED, |_, state: &State| state.every_acknowledged_write_is_there()),
        always(REPLICATED, |_, state: &State| state.every_row_survives_the_loss_of_a_master()),
        always(ADMITTED, |_, state: &State| state.servers_can_take_the_keys_of_the_primary()),
        always(WRITABLE, |_, state: &State| state.the_primary_has_a_generation_to_write_under()),
        always(RESTORABLE, |_, state: &State| state.what_a_promoted_master_lacks_can_be_restored()),
        always(COMPLETE, |_, state: &State| state.nobody_is_promoted_without_a_key_in_use()),
        Property::sometimes("rotated", |_, state: &State| state.has_rotated()),
        Property::sometimes("rotated twice", |_, state: &State| state.has_rotated_twice()),
        Property::sometimes("destroyed", |_, state: &State| state.has_destroyed()),
        Property::sometimes("promoted", |_, state: &State| state.has_promoted()),
        Property::sometimes("rotated after a promotion", |_, state: &State| {
            state.has_rotated_after_a_promotion()
        }),
        Property::sometimes("stepped down", |_, state: &State| state.has_stepped_down()),
        Property::sometimes("late write refused", |_, state: &State| {
            state.has_refused_a_late_write()
        }),
        Property::sometimes("sealed again", |_, state: &State| state.has_sealed_again()),
    ]
}
