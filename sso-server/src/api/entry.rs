//! The door: every request gets an id, a caller and a row of the access table, or goes no further.
//!
//! Most requests are answered at once, and for them nothing is made that only others need: a span of the
//! log, a time limit, and a place among those that wait.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::USER_AGENT};
use hyper::body::Incoming;
use sso_core::late_span::LateSpan;
use sso_proto::{Reason, Refusal};
use tokio::time::Sleep;
use tonic::{Status, body::Body};
use tracing::Span;
use uuid::Uuid;

use super::{
    admission, change_number,
    meters::{Row, path_of},
    request_id,
    seats::{Place, Seat},
    services::Answering,
    trail::Trail,
    visit::Connection,
};
use crate::{
    access::{Call, numbered},
    error::Error,
    model::Caller,
};

/// Requests that one account may have in work.
pub(super) const MAX_REQUESTS: usize = 256;
/// From the head of a request to the head of its answer: longer than any limit of the database, so
/// it is over only where the client does not send its message, or somebody waits for nothing.
const LONGEST: Duration = Duration::from_secs(60);

/// A request under way.
pub struct Entered {
    connection: Arc<Connection>,
    row: Option<Row>,
    /// Of a request that stands in no row.
    unlisted: Option<Box<str>>,
    request_id: Uuid,
    started: Duration,
    agent: Option<HeaderValue>,
    /// How long the client waits, where it says so.
    patience: Option<Duration>,
    caller: Option<Arc<Caller>>,
    /// Where the change that the request makes is noted.
    change: Option<Arc<AtomicU64>>,
    /// The change that this server has to have seen before; 0 = none.
    at_least: u64,
    stage: Stage,
    /// None while it has not waited for anything.
    waits: Option<Box<Waits>>,
}

enum Stage {
    /// Who asks is being found out.
    Arriving(BoxFuture<'static, Result<Arc<Caller>, Refusal>>, Option<Request<Incoming>>),
    /// This server takes in a change that the request asks for.
    CatchingUp(BoxFuture<'static, Result<(), Refusal>>, Option<Request<Incoming>>),
    /// A service is at work.
    Inside(Answering),
    /// It goes no further.
    TurnedAway(Option<Response<Body>>),
}

impl Stage {
    fn turned_away(refusal: Refusal) -> Self {
        Self::TurnedAway(Some(refusal.into_status().into_http()))
    }
}

/// What a request has that was not answered at once.
struct Waits {
    _place: Place,
    /// None while it is not known who asks.
    seat: Option<Seat>,
    /// None while it is not known who asks.
    span: Option<Span>,
    over: Pin<Box<Sleep>>,
}

impl Entered {
    pub(super) fn begin(connection: &Arc<Connection>, mut request: Request<Incoming>) -> Self {
        let clock = &connection.door.house.clock;
        let path = request.uri().path();
        let row = numbered(path);
        let unlisted = row.is_none().then(|| path.into());
        let started = clock.instant();
        let request_id = request_id::request_id(request.headers(), || clock.now());
        let bearing = admission::take_bearer(request.headers_mut());
        let mut entered = Self {
            connection: Arc::clone(connection),
            row,
            unlisted,
            request_id,
            started,
            agent: request.headers().get(USER_AGENT).cloned(),
            patience: patience(request.headers()),
            caller: None,
            change: change_number::note_for(row),
            at_least: 0,
            stage: Stage::TurnedAway(None),
            waits: None,
        };
        if let Err(why) = entered.still_trusted() {
            entered.stage =
                Stage::turned_away(refusal(Reason::CertificateRefused, why, request_id));
        } else if let Err(error) = entered.read_at_least(request.headers()) {
            entered.stage = Stage::turned_away(refusal(error.reason, error.message, request_id));
        } else if let Some(caller) =
            admission::known(connection, &bearing).filter(|_| entered.row.is_some())
        {
            entered.go_in(caller, request);
        } else {
            let listed = entered.unlisted.as_deref().map_or(Ok(()), |path| Err(path.to_owned()));
            let connection = Arc::clone(connection);
            let admitted = Box::pin(async move {
                admission::admit(&connection, bearing, listed, request_id).await
            });
            entered.stage = Stage::Arriving(admitted, Some(request));
        }
        entered
    }

    /// Whether the certificates of the connection are good still.
    fn still_trusted(&self) -> Result<(), String> {
        let Some(peer) = &self.connection.peer else { return Ok(()) };
        peer.still_trusted(&self.connection.door.tls)
            .map_err(|why| format!("the client certificate is no longer valid: {why}"))
    }

    fn read_at_least(&mut self, headers: &HeaderMap) -> Result<(), Error> {
        self.at_least = change_number::at_least(headers)?;
        Ok(())
    }

    /// Finds out who asks, where that is not known yet; pending while that waits, and where there is
    /// nothing to find out.
    fn arrive(&mut self, context: &mut Context<'_>) -> Poll<Response<Body>> {
        let Stage::Arriving(admitted, request) = &mut self.stage else { return Poll::Pending };
        match (admitted.as_mut().poll(context), request.take()) {
            (Poll::Pending, waiting) => {
                *request = waiting;
                return self.wait(None).map_or(Poll::Pending, Poll::Ready);
            }
            (Poll::Ready(Err(refusal)), _) => return Poll::Ready(self.turned_away(refusal)),
            (Poll::Ready(Ok(caller)), Some(request)) => self.go_in(caller, request),
            (Poll::Ready(Ok(_)), None) => self.stage = Stage::TurnedAway(None),
        }
        Poll::Pending
    }

    /// It is known who asks. Hands the request to its service, at once where nothing is to be taken in
    /// before.
    fn go_in(&mut self, caller: Arc<Caller>, request: Request<Incoming>) {
        if let Some(peer) = &self.connection.peer {
            peer.note_admitted();
        }
        let door = &self.connection.door;
        let counted = door.quotas.as_ref().map_or(Ok(()), |it| it.count(&caller.account));
        self.caller = Some(caller);
        if let Err(refused) = counted {
            let request_id = self.request_id.to_string();
            self.stage = Stage::turned_away(Refusal { request_id, ..refused });
        } else if door.house.changes.ticks().have_seen(self.at_least) {
            self.hand_over(request);
        } else {
            let (changes, request_id) = (door.house.changes.clone(), self.request_id);
            let at_least = self.at_least;
            let seen = Box::pin(async move {
                let seen = changes.wait_for(at_least).await;
                seen.map_err(|error| refusal(error.reason, error.message, request_id))
            });
            self.stage = Stage::CatchingUp(seen, Some(request));
        }
    }

    /// Waits for what is to be taken in before; pending, too, where there is nothing to wait for.
    fn catch_up(&mut self, context: &mut Context<'_>) -> Poll<Response<Body>> {
        let Stage::CatchingUp(seen, request) = &mut self.stage else { return Poll::Pending };
        match (seen.as_mut().poll(context), request.take()) {
            (Poll::Pending, waiting) => {
                *request = waiting;
                return self.wait(None).map_or(Poll::Pending, Poll::Ready);
            }
            (Poll::Ready(Err(refused)), _) => {
                return Poll::Ready(refused.into_status().into_http());
            }
            (Poll::Ready(Ok(())), Some(request)) => self.hand_over(request),
            (Poll::Ready(Ok(())), None) => self.stage = Stage::TurnedAway(None),
        }
        Poll::Pending
    }

    fn hand_over(&mut self, mut request: Request<Incoming>) {
        let Some(caller) = &self.caller else { return };
        let call = Call {
            caller: Arc::clone(caller),
            request_id: self.request_id,
            local: self.connection.is_local,
            change: self.change.clone(),
        };
        request.extensions_mut().insert(call);
        self.stage = match self.connection.services() {
            Some(services) => Stage::Inside(services.call(request)),
            None => Stage::TurnedAway(None),
        };
    }

    /// The service has its turn, with a span around it: one that is there already, or one that is made
    /// when a line is logged.
    fn look_inside(&mut self, context: &mut Context<'_>) -> Poll<Response<Body>> {
        let answer = match &mut self.stage {
            Stage::Inside(answer) => answer,
            Stage::TurnedAway(response) => {
                return Poll::Ready(response.take().unwrap_or_else(broken));
            }
            Stage::Arriving(..) | Stage::CatchingUp(..) => return Poll::Ready(broken()),
        };
        let mut work = || {
            answer.as_mut().poll(context).map(|answer| match answer {
                Ok(response) => response,
                Err(never) => match never {},
            })
        };
        if let Some(span) = self.waits.as_ref().and_then(|waits| waits.span.as_ref()) {
            return span.in_scope(work);
        }
        let Some(caller) = self.caller.clone() else { return work() };
        let (id, path) = (self.request_id.as_u128(), path_of(self.row));
        let (answer, span) = LateSpan { make: span, id, caller, path }.around(work);
        if answer.is_pending()
            && let Some(refused) = self.wait(Some(span))
        {
            return Poll::Ready(refused);
        }
        answer
    }

    /// The request waits for something: from now on it takes a place and a seat, and has a limit. Gives
    /// back the answer where there is no place or seat left.
    fn wait(&mut self, span: Option<Result<Span, LateSpan>>) -> Option<Response<Body>> {
        let door = &self.connection.door;
        let overloaded = |why: String| {
            Some(refusal(Reason::Overloaded, why, self.request_id).into_status().into_http())
        };
        let waits = match self.waits.take() {
            Some(waits) => waits,
            None => {
                let Some(place) = door.places.take() else {
                    return overloaded(
                        "this server has as many requests in work as it takes".into(),
                    );
                };
                let over = self.patience.map_or(LONGEST, |patience| patience.min(LONGEST));
                let over = Box::pin(tokio::time::sleep(over));
                Box::new(Waits { _place: place, seat: None, span: None, over })
            }
        };
        let waits = self.waits.insert(waits);
        if let (None, Some(caller)) = (&waits.seat, &self.caller) {
            waits.seat = door.seats.take(&caller.account);
            if waits.seat.is_none() {
                return overloaded(format!("{caller} has {MAX_REQUESTS} requests in work"));
            }
        }
        if let (None, Some(made)) = (&waits.span, span) {
            waits.span = Some(made.unwrap_or_else(|late| late.span()));
        }
        None
    }

    fn turned_away(&self, refusal: Refusal) -> Response<Body> {
        let peer = self.connection.peer.as_ref().map(|peer| peer.addr);
        let (event, reason) = (refusal.reason.event(), refusal.reason.as_str());
        let request_id = &refusal.request_id;
        tracing::warn!(
            event,
            request_id,
            ?peer,
            path = self.path(),
            reason,
            detail = refusal.message,
            "refused at the door"
        );
        refusal.into_status().into_http()
    }

    fn given_up(&self) -> Response<Body> {
        let (request_id, path) = (self.request_id, self.path());
        if self.patience.is_some_and(|patience| patience < LONGEST) {
            tracing::debug!(%request_id, path, "the client does not wait any longer");
            return Status::cancelled("Timeout expired").into_http();
        }
        tracing::warn!(%request_id, path, "given up");
        let why = format!("not done within {} s", LONGEST.as_secs());
        refusal(Reason::Overloaded, why, request_id).into_status().into_http()
    }

    /// As the client named the method.
    fn path(&self) -> &str {
        self.unlisted.as_deref().unwrap_or(path_of(self.row))
    }

    /// Puts into the answer, the log and the metrics what belongs there.
    fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        let (connection, house) = (&self.connection, &self.connection.door.house);
        let trail = Trail {
            function: self.path(),
            request_id: self.request_id,
            address: connection.peer.as_ref().map(|peer| peer.addr),
            local: connection.local.as_ref(),
            agent: self.agent.as_ref(),
            caller: self.caller.as_ref().map_or("", |caller| caller.account.as_str()),
        };
        let action = self.row.map(|(_, row)| row.action);
        let code = trail.end(house.access.server_settings(), action, &response);
        request_id::answer_with(response.headers_mut(), self.request_id);
        change_number::answer_with(response.headers_mut(), self.change.as_deref());
        let took = house.clock.instant().saturating_sub(self.started);
        connection.door.meters.measure(self.row, code, took);
        response
    }
}

impl Future for Entered {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut answer = this.arrive(context);
        if answer.is_pending() {
            answer = this.catch_up(context);
        }
        if answer.is_pending() && !matches!(this.stage, Stage::Arriving(..) | Stage::CatchingUp(..))
        {
            answer = this.look_inside(context);
        }
        if let Poll::Ready(response) = answer {
            return Poll::Ready(Ok(this.finish(response)));
        }
        let over = this.waits.as_mut().map(|waits| waits.over.as_mut().poll(context));
        if over.is_some_and(|over| over.is_ready()) {
            let given_up = this.given_up();
            // What is in work ends here.
            this.stage = Stage::TurnedAway(None);
            return Poll::Ready(Ok(this.finish(given_up)));
        }
        Poll::Pending
    }
}

/// What the lines of a request carry.
fn span(id: u128, caller: &dyn fmt::Display, path: &'static str) -> Span {
    tracing::info_span!("request", id = %Uuid::from_u128(id), %caller, path)
}

/// What is not to be had.
fn broken() -> Response<Body> {
    Status::internal("the request was lost on its way").into_http()
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

/// How long the client waits for the answer, where it says so in the way of gRPC: up to eight digits and
/// a unit.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_limit_of_a_client_is_read_as_grpc_has_it() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(value));
            patience(&headers)
        };
        assert_eq!(patience(&HeaderMap::new()), None);
        for (value, wanted) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("99999999S", 99_999_999_000_000_000),
            ("20m", 20_000_000),
            ("0m", 0),
            ("7u", 7_000),
            ("8n", 8),
        ] {
            assert_eq!(read(value), Some(Duration::from_nanos(wanted)), "{value}");
        }
        for bad in ["", "m", "1", "1s", "-1m", "+1m", " 1m", "100000000S", "1.5S", "1 m"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
