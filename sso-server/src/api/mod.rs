//! The only rooms that speak protobuf. A handler takes the caller from the request, turns the
//! message into nouns, calls the noun and turns the result into a message.

mod access;
mod admission;
mod applications;
mod audit;
mod config_store;
mod convert;
mod entry;
mod lookup;
mod mappings;
mod principals;
mod seats;
mod status;
mod system;
mod tickets;
mod tls;
mod trail;

use std::sync::Arc;

use sso_proto::v1::{
    access_server::AccessServer, applications_server::ApplicationsServer,
    audit_server::AuditServer, config_store_server::ConfigStoreServer, lookup_server::LookupServer,
    mappings_server::MappingsServer, principals_server::PrincipalsServer,
    system_server::SystemServer, tickets_server::TicketsServer,
};
use tonic::service::Routes;

pub use entry::EntryLayer;

use self::seats::Seats;
use crate::house::House;

/// The largest message a client may send: one configuration of 256 fields of 64 KiB does not fit on
/// purpose; what is written at once is bounded.
const MAX_MESSAGE: usize = 4 << 20;
/// Watches that one account may have open.
const MAX_WATCHES: usize = 256;

/// The services of this server, without health and reflection.
#[must_use]
pub fn services(house: &Arc<House>) -> Routes {
    let watches = Seats::new(MAX_WATCHES);
    let house = || Handlers { house: Arc::clone(house), watches: Arc::clone(&watches) };
    let mut routes = Routes::builder();
    routes
        .add_service(AccessServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ApplicationsServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ConfigStoreServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(LookupServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(MappingsServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(PrincipalsServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(TicketsServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(SystemServer::new(house()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(AuditServer::new(house()).max_decoding_message_size(MAX_MESSAGE));
    routes.routes()
}

/// Answers the methods of every service by way of the nouns.
#[derive(Clone)]
struct Handlers {
    house: Arc<House>,
    watches: Arc<Seats>,
}
