//! The only rooms that speak protobuf. A handler takes the caller from the request, turns the
//! message into nouns, calls the noun and turns the result into a message.

mod access;
mod admission;
mod applications;
mod audit;
mod change_number;
mod config_store;
mod convert;
mod entry;
mod lookup;
mod mappings;
mod meters;
mod principals;
mod quotas;
mod request_id;
mod seats;
mod services;
mod status;
mod system;
mod tickets;
mod tls;
mod trail;
mod visit;

use std::sync::Arc;

pub use quotas::QuotaSettings;
pub use visit::{Door, Visit};

use self::seats::Seats;
use crate::house::House;

/// Watches that one account may have open.
const MAX_WATCHES: usize = 256;

/// Answers the methods of every service by way of the nouns.
struct Handlers {
    house: Arc<House>,
    watches: Arc<Seats>,
}
