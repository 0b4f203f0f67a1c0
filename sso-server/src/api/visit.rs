//! A connection: what is known of who is at its other end, and the door that its requests go through.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response};
use hyper::body::Incoming;
use sso_core::{acceptor::Peer, local::LocalPeer, serving::Visitor, tls::TlsReloader};
use tonic::{body::Body, service::Routes};

use super::{
    Handlers, MAX_WATCHES,
    entry::{Entered, MAX_REQUESTS},
    meters::Meters,
    quotas::{QuotaSettings, Quotas},
    seats::{Places, Seats},
    services::Services,
};
use crate::{house::House, model::Caller};

/// What all connections share.
pub struct Door {
    pub(super) house: Arc<House>,
    pub(super) tls: Arc<TlsReloader>,
    /// Of each account.
    pub(super) seats: Arc<Seats>,
    /// Of all of them.
    pub(super) places: Arc<Places>,
    pub(super) meters: Meters,
    pub(super) quotas: Option<Quotas>,
    /// One for each lane, so that lanes do not share counts of references.
    services: Vec<Services>,
}

impl Door {
    /// A door to this house, for connections on so many lanes; `others` answers what is none of the
    /// product's own services. `max_requests`: requests that may wait for something at once;
    /// `quota`: how often one account may ask.
    #[must_use]
    pub fn new(
        house: &Arc<House>,
        tls: Arc<TlsReloader>,
        others: &Routes,
        lanes: usize,
        max_requests: usize,
        quota: QuotaSettings,
    ) -> Arc<Self> {
        let watches = Seats::new(MAX_WATCHES);
        let handlers = || Handlers { house: Arc::clone(house), watches: Arc::clone(&watches) };
        Arc::new(Self {
            house: Arc::clone(house),
            tls,
            seats: Seats::new(MAX_REQUESTS),
            places: Places::new(max_requests),
            meters: Meters::new(),
            quotas: Quotas::new(quota),
            services: (0..lanes.max(1))
                .map(|_| Services::new(handlers(), others.clone()))
                .collect(),
        })
    }

    /// What answers the requests of a connection of this lane.
    #[must_use]
    pub fn visit(self: &Arc<Self>, visitor: Visitor, lane: usize) -> Visit {
        let (peer, local) = match visitor {
            Visitor::Remote(peer) => (Some(peer), None),
            Visitor::Local(local) => (None, Some(local)),
        };
        let loopback = peer.as_ref().is_some_and(|peer| peer.addr.ip().is_loopback());
        Visit(Arc::new(Connection {
            door: Arc::clone(self),
            lane: lane % self.services.len(),
            is_local: loopback || local.is_some(),
            peer,
            local,
            known: Mutex::default(),
        }))
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub struct Visit(Arc<Connection>);

/// What is known of a connection.
pub(super) struct Connection {
    pub(super) door: Arc<Door>,
    lane: usize,
    pub(super) peer: Option<Peer>,
    pub(super) local: Option<LocalPeer>,
    /// The caller is on the machine of this server.
    pub(super) is_local: bool,
    /// Who the connection by itself stands for, and the generation of what that was worked out from.
    known: Mutex<Option<(u64, Arc<Caller>)>>,
}

impl Connection {
    /// Who the connection stands for, where that was worked out and still holds.
    pub(super) fn known(&self) -> Option<Arc<Caller>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, caller) = known.as_ref()?;
        (*generation == self.door.house.identity.generation()).then(|| Arc::clone(caller))
    }

    /// Notes who it stands for; `generation` was read before that was worked out.
    pub(super) fn know(&self, generation: u64, caller: &Arc<Caller>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((generation, Arc::clone(caller)));
    }

    pub(super) fn services(&self) -> Option<&Services> {
        self.door.services.get(self.lane)
    }
}

impl hyper::service::Service<Request<Incoming>> for Visit {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Entered;

    fn call(&self, request: Request<Incoming>) -> Entered {
        Entered::begin(&self.0, request)
    }
}
