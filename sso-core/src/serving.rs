//! Serves HTTP/2 on the lanes: each connection stays on one of them, from its handshake to its end.
//!
//! What a connection brings is done in turns: the requests that came are answered one after the other, then
//! others have their turn, and all answers are sent together in the next one. A request that
//! cannot be answered at once becomes a task of its lane.

mod records;
mod turns;

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    runtime::Handle,
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::records::Records;
use self::{
    records::{Due, Recorded},
    turns::{Turns, in_turn},
};
use crate::{
    acceptor::{AcceptLimits, Arrival, Peer, TlsDoor},
    lanes::Lanes,
    local::{LocalDoor, LocalListener, LocalPeer},
    quiet::Quiet,
    tls::TlsReloader,
};

/// Requests that one connection may have in work; the client keeps further ones back.
const STREAMS: u32 = 256;
/// How often a silent client is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer that wait for a client to read them.
const SEND_BUFFER: usize = 64 * 1024;
/// Steps of handshakes that a lane takes before the requests have their turn again: each may take half a
/// millisecond.
const HANDSHAKE_STEPS: usize = 2;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Visitor {
    /// Somebody who came over TLS.
    Remote(Peer),
    /// A process on this machine.
    Local(LocalPeer),
}

/// How long connections last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAge {
    /// A connection that is older, by a tenth more or less, is asked to go: its client makes another
    /// one, which may lead to another server. `None`: they last as long as the client likes.
    pub most: Option<Duration>,
    /// What is in work on it then may go on for this long.
    pub grace: Duration,
}

impl Default for ConnectionAge {
    fn default() -> Self {
        // Longer than any request may take.
        Self { most: Some(Duration::from_secs(1800)), grace: Duration::from_secs(75) }
    }
}

/// One lane and what it has to do.
struct Lane {
    handle: Handle,
    connections: AtomicUsize,
    /// Of handshakes, so that they leave time for requests.
    steps: Arc<Semaphore>,
}

/// A connection of a lane.
struct Seat(Arc<Lane>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What connections are served with; clones share the lanes.
#[derive(Clone)]
pub struct Serving {
    lanes: Arc<[Arc<Lane>]>,
    age: ConnectionAge,
    records: Arc<dyn Records>,
    draining: CancellationToken,
    connections: TaskTracker,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Serving {
    /// Serves on these lanes until `draining`; no answer leaves before what it rests on is among the
    /// `records`.
    #[must_use]
    pub fn new(
        lanes: &Lanes,
        age: ConnectionAge,
        records: Arc<dyn Records>,
        draining: CancellationToken,
    ) -> Self {
        let lane = |handle: &Handle| {
            Arc::new(Lane {
                handle: handle.clone(),
                connections: AtomicUsize::new(0),
                steps: Arc::new(Semaphore::new(HANDSHAKE_STEPS)),
            })
        };
        let lanes = lanes.handles().iter().map(lane).collect();
        Self { lanes, age, records, draining, connections: TaskTracker::new() }
    }

    /// How many connections each lane has, handshakes included.
    #[must_use]
    pub fn load(&self) -> Vec<usize> {
        self.lanes.iter().map(|lane| lane.connections.load(Ordering::Relaxed)).collect()
    }

    /// Serves who comes over TLS. Ends when the server drains and the last connection, of those on the
    /// socket too, is done. `visit` is called on the lane of each connection.
    pub async fn over_tls<S>(
        &self,
        listener: TcpListener,
        tls: Arc<TlsReloader>,
        limits: AcceptLimits,
        visit: impl Fn(Visitor) -> S + Clone + Send + Sync + 'static,
    ) where
        S: Answers,
    {
        let door = TlsDoor::new(tls, limits);
        while let Some(arrival) = door.arrival(&listener, &self.draining).await {
            let Arrival { tcp, addr, place } = arrival;
            let Some((lane, seat)) = self.seat() else { break };
            let Ok(tcp) = tcp.into_std() else { continue };
            let (door, visit, serving) = (Arc::clone(&door), visit.clone(), self.clone());
            let steps = Arc::clone(&lane.steps);
            let entering = async move {
                let Some(tcp) = registered(TcpStream::from_std(tcp)) else { return };
                let entering = door.let_in(tcp, addr, place);
                if let Some(connection) = in_turn(&steps, entering).await {
                    let service = visit(Visitor::Remote(connection.peer().clone()));
                    serving.serve(connection, service, seat);
                }
            };
            self.connections.spawn_on(entering, &lane.handle);
        }
        drop(listener);
        self.drained().await;
    }

    /// Serves who comes over the socket, as [`Serving::over_tls`] does.
    pub async fn over_socket<S>(
        &self,
        listener: LocalListener,
        limits: AcceptLimits,
        visit: impl Fn(Visitor) -> S + Clone + Send + Sync + 'static,
    ) where
        S: Answers,
    {
        let door = LocalDoor::new(limits);
        while let Some((io, slot)) = door.arrival(&listener, &self.draining).await {
            let Some((lane, seat)) = self.seat() else { break };
            let Ok(io) = io.into_std() else { continue };
            let (door, visit, serving) = (Arc::clone(&door), visit.clone(), self.clone());
            let entering = async move {
                let _slot = slot;
                let Some(io) = registered(UnixStream::from_std(io)) else { return };
                if let Some(connection) = door.let_in(io).await {
                    let service = visit(Visitor::Local(connection.peer().clone()));
                    serving.serve(connection, service, seat);
                }
            };
            self.connections.spawn_on(entering, &lane.handle);
        }
        drop(listener);
        self.drained().await;
    }

    async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// A place on the lane with the fewest connections.
    fn seat(&self) -> Option<(&Lane, Seat)> {
        let count = |lane: &&Arc<Lane>| lane.connections.load(Ordering::Relaxed);
        let lane = self.lanes.iter().min_by_key(count)?;
        lane.connections.fetch_add(1, Ordering::Relaxed);
        Some((lane, Seat(Arc::clone(lane))))
    }

    /// Serves the connection as a task of the lane that this is called on.
    fn serve<S>(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        service: S,
        seat: Seat,
    ) where
        S: Answers,
    {
        let (age, draining) = (self.age, self.draining.clone());
        let due = Due::new(Arc::clone(&self.records));
        self.connections.spawn(async move {
            let _seat = seat;
            connection(Recorded { io, due }, service, age, draining).await;
        });
    }
}

/// What answers the requests of one connection.
pub trait Answers:
    Service<
        Request<Incoming>,
        Response = Response<Self::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + 'static
{
    /// The body of an answer.
    type Body: http_body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>>
        + Send
        + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Body = B;
}

fn registered<S>(socket: io::Result<S>) -> Option<S> {
    socket
        .inspect_err(
            |error| tracing::warn!(%error, "a connection cannot be taken over by its lane"),
        )
        .ok()
}

/// Serves one connection until it ends.
async fn connection<S>(
    io: Recorded<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    service: S,
    age: ConnectionAge,
    draining: CancellationToken,
) where
    S: Answers,
{
    let turns = Turns::new(io.due.clone());
    let http = http2::Builder::new(turns.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        // gRPC has no use for it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut http = pin!(http);
    let mut ending = Ending::new(age, draining);
    let ended = poll_fn(|context: &mut Context<'_>| {
        match ending.poll(context) {
            Told::Nothing => {}
            Told::Finish => http.as_mut().graceful_shutdown(),
            Told::Break => return Poll::Ready(Ok(())),
        }
        turns.take(context, |context| http.as_mut().poll(context))
    })
    .await;
    // What is in work refers to what it is kept in.
    turns.clear();
    if let Err(error) = ended {
        let cause = error.source().map(ToString::to_string);
        tracing::debug!(%error, cause, "a connection broke");
    }
}

/// When a connection has to go.
struct Ending {
    told: Option<Quiet>,
    /// Over when what is in work is to be given up, too; begun when the client was asked to go.
    grace: Option<Quiet>,
    after: Duration,
}

enum Told {
    Nothing,
    /// Nothing new; what is in work goes on.
    Finish,
    Break,
}

impl Ending {
    fn new(age: ConnectionAge, draining: CancellationToken) -> Self {
        let most = age.most.map(jittered);
        let told = Quiet::new(async move {
            let age = async {
                match most {
                    Some(most) => tokio::time::sleep(most).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = draining.cancelled_owned() => {}
                () = age => {}
            }
        });
        Self { told: Some(told), grace: None, after: age.grace }
    }

    fn poll(&mut self, context: &Context<'_>) -> Told {
        if let Some(told) = &mut self.told {
            if told.poll(context).is_pending() {
                return Told::Nothing;
            }
            self.told = None;
            self.grace = Some(Quiet::new(tokio::time::sleep(self.after)));
            return Told::Finish;
        }
        match self.grace.as_mut().map(|grace| grace.poll(context)) {
            Some(Poll::Ready(())) => Told::Break,
            Some(Poll::Pending) | None => Told::Nothing,
        }
    }
}

/// A tenth more or less, so that connections made together do not all go together.
fn jittered(age: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    // Seeded by the system anew for every state.
    let random = u32::try_from(RandomState::new().hash_one(age) >> 32).unwrap_or_default();
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}
