//! The door: every request gets an id, a caller and a row of the access table, or goes no further.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use sso_core::acceptor::Peer;
use sso_proto::{Reason, Refusal};
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    admission::Arrival,
    seats::{Seat, Seats},
    trail::Trail,
};
use crate::{
    access::{Call, method},
    house::House,
};

/// Header of a request id, both ways.
const REQUEST_ID: &str = "x-request-id";
/// Requests that one account may have in work.
const MAX_REQUESTS: usize = 256;
/// From the head of a request to the head of its answer: longer than any limit of the database, so
/// it is over only where the client does not send its message, or somebody waits for nothing.
const LONGEST: Duration = Duration::from_secs(60);

/// Puts a [`Call`] into the extensions of every request that may go on.
#[derive(Clone)]
pub struct EntryLayer {
    house: Arc<House>,
    seats: Arc<Seats>,
}

impl EntryLayer {
    /// A door to this house.
    #[must_use]
    pub fn new(house: Arc<House>) -> Self {
        Self { house, seats: Seats::new(MAX_REQUESTS) }
    }
}

impl<S> tower::Layer<S> for EntryLayer {
    type Service = Entry<S>;

    fn layer(&self, inner: S) -> Entry<S> {
        Entry { inner, house: Arc::clone(&self.house), seats: Arc::clone(&self.seats) }
    }
}

/// The service behind the door.
#[derive(Clone)]
pub struct Entry<S> {
    inner: S,
    house: Arc<House>,
    seats: Arc<Seats>,
}

impl<S, B> tower::Service<Request<B>> for Entry<S>
where
    S: tower::Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (house, seats) = (Arc::clone(&self.house), Arc::clone(&self.seats));
        // The one that was asked whether it is ready is the one to call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let started = house.clock.instant();
        let request_id = request_id(&request);
        let mut trail = Trail::begin(&request, request_id);
        let row = method(request.uri().path());
        let path = row.map_or("unlisted", |row| row.path);
        let arrival = Arrival::of(&mut request);
        Box::pin(async move {
            let admitted = arrival.admit(&house, row.is_some(), request_id).await;
            let admitted = admitted.and_then(|call| take_seat(&seats, call));
            let mut response = match admitted {
                Ok((call, _seat)) => {
                    if let Some(peer) = request.extensions().get::<Peer>() {
                        peer.note_admitted();
                    }
                    trail.came_from(&call.caller.account);
                    let span = tracing::info_span!("request", id = %request_id, caller = %call.caller.account, path);
                    request.extensions_mut().insert(call);
                    let answer = tokio::time::timeout(LONGEST, inner.call(request));
                    match answer.instrument(span).await {
                        Ok(response) => response?,
                        Err(_) => given_up(path, request_id),
                    }
                }
                Err(refusal) => turned_away(&request, refusal),
            };
            let action = row.map(|row| row.action);
            trail.end(house.access.server_settings(), action, &response);
            if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
            measure(path, code, house.clock.instant().saturating_sub(started));
            Ok(response)
        })
    }
}

fn take_seat(seats: &Arc<Seats>, call: Call) -> Result<(Call, Seat), Refusal> {
    let seat = seats.take(&call.caller.account).ok_or_else(|| {
        let why = format!("{} has {MAX_REQUESTS} requests in work", call.caller.account);
        refusal(Reason::Overloaded, why, call.request_id)
    })?;
    Ok((call, seat))
}

fn given_up(path: &str, request_id: Uuid) -> Response<Body> {
    tracing::warn!(%request_id, path, "given up");
    let why = format!("not done within {} s", LONGEST.as_secs());
    refusal(Reason::Overloaded, why, request_id).into_status().into_http()
}

fn turned_away<B>(request: &Request<B>, refusal: Refusal) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.addr);
    let (event, reason) = (refusal.reason.event(), refusal.reason.as_str());
    let request_id = &refusal.request_id;
    tracing::warn!(
        event,
        request_id,
        ?peer,
        path = request.uri().path(),
        reason,
        detail = refusal.message,
        "refused at the door"
    );
    refusal.into_status().into_http()
}

/// The call and the message of a request that came through the door.
pub(super) fn call_of<T>(request: tonic::Request<T>) -> Result<(Call, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let call = extensions.remove::<Call>().ok_or_else(|| {
        let why = "the request did not come through the door";
        Refusal::new(Reason::NotAuthenticated, why).into_status()
    })?;
    Ok((call, message))
}

pub(super) fn refusal(reason: Reason, message: impl Into<String>, request_id: Uuid) -> Refusal {
    Refusal { request_id: request_id.to_string(), ..Refusal::new(reason, message) }
}

/// The id the client sent, where it is a UUID, or a new one.
fn request_id<B>(request: &Request<B>) -> Uuid {
    request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Uuid::try_parse(text).ok())
        .unwrap_or_else(Uuid::now_v7)
}

fn measure(path: &'static str, code: Code, took: Duration) {
    let code = match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    };
    metrics::counter!("sso_requests_total", "method" => path, "code" => code).increment(1);
    metrics::histogram!("sso_request_seconds", "method" => path).record(took.as_secs_f64());
}
