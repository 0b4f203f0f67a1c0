//! The services of this server, and which of them a request is for.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use sso_proto::v1::{
    access_server::AccessServer, applications_server::ApplicationsServer,
    audit_server::AuditServer, config_store_server::ConfigStoreServer, lookup_server::LookupServer,
    mappings_server::MappingsServer, principals_server::PrincipalsServer,
    system_server::SystemServer, tickets_server::TicketsServer,
};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service as _},
    service::Routes,
};

use super::Handlers;

/// The largest message a client may send: one configuration of 256 fields of 64 KiB does not fit on
/// purpose; what is written at once is bounded.
const MAX_MESSAGE: usize = 4 << 20;

/// How an answer comes: an error is not to be had, refusals are answers.
pub(super) type Answering = BoxFuture<Response<Body>, std::convert::Infallible>;

/// All services. Those of the product are found by their name at once; health and reflection, and whatever
/// there is not, by way of a router.
#[derive(Clone)]
pub(super) struct Services {
    access: AccessServer<Handlers>,
    applications: ApplicationsServer<Handlers>,
    audit: AuditServer<Handlers>,
    config_store: ConfigStoreServer<Handlers>,
    lookup: LookupServer<Handlers>,
    mappings: MappingsServer<Handlers>,
    principals: PrincipalsServer<Handlers>,
    system: SystemServer<Handlers>,
    tickets: TicketsServer<Handlers>,
    others: Routes,
}

impl Services {
    pub(super) fn new(handlers: Handlers, others: Routes) -> Self {
        // One for all of them.
        let handlers = Arc::new(handlers);
        let it = || Arc::clone(&handlers);
        Self {
            access: AccessServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            applications: ApplicationsServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            audit: AuditServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            config_store: ConfigStoreServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            lookup: LookupServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            mappings: MappingsServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            principals: PrincipalsServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            system: SystemServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            tickets: TicketsServer::from_arc(it()).max_decoding_message_size(MAX_MESSAGE),
            others: others.prepare(),
        }
    }

    /// Hands the request to its service.
    pub(super) fn call(&self, request: Request<Incoming>) -> Answering {
        let mut path = request.uri().path().split('/').skip(1);
        // A service is ready whenever it is asked; a clone refers to the same handlers.
        match path.next().and_then(|service| service.strip_prefix("sso.v1.")) {
            Some("Lookup") => self.lookup.clone().call(request),
            Some("ConfigStore") => self.config_store.clone().call(request),
            Some("Tickets") => self.tickets.clone().call(request),
            Some("Mappings") => self.mappings.clone().call(request),
            Some("Access") => self.access.clone().call(request),
            Some("Applications") => self.applications.clone().call(request),
            Some("Audit") => self.audit.clone().call(request),
            Some("Principals") => self.principals.clone().call(request),
            Some("System") => self.system.clone().call(request),
            Some(_) | None => {
                let routed = self.others.clone().call(request);
                Box::pin(routed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::access::METHODS;

    /// A service that is not named above is served by nobody.
    #[test]
    fn every_service_of_the_table_has_its_arm() {
        let code = include_str!("services.rs");
        let services: BTreeSet<_> = METHODS
            .iter()
            .filter_map(|row| row.path.strip_prefix("/sso.v1.")?.split('/').next())
            .collect();
        assert_eq!(services.len(), 9);
        for service in services {
            assert!(code.contains(&format!("Some(\"{service}\") => ")), "{service}");
        }
    }
}
