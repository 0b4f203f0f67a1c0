//! Connections on lanes: where they go, how long they last, and what happens before bytes leave.

#[cfg(test)]
#[expect(dead_code, reason = "this test needs only a part of it")]
mod pki;

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        convert::Infallible,
        error::Error,
        future::Future,
        io, iter,
        net::SocketAddr,
        num::NonZeroUsize,
        path::Path,
        pin::Pin,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use crate::pki::Pki;
    use http::{Request, Response};
    use hyper::{body::Incoming, service::Service};
    use sso_core::{
        acceptor::AcceptLimits,
        connector::{ClientTls, ConnectOptions, connect_channel},
        lanes::{self, Lanes},
        local::LocalListener,
        serving::{ConnectionAge, Records, Serving, Visitor},
        tls::{self, TlsReloader, TlsSettings},
    };
    use tokio::{
        net::{TcpListener, UnixStream},
        sync::watch,
        task::JoinHandle,
    };
    use tokio_util::sync::CancellationToken;
    use tonic::{Code, Status, body::Body, transport::Channel};
    use tower::{Service as _, ServiceExt as _};

    const LONG: Duration = Duration::from_secs(30);

    /// Answers with the number of the connection and that of its lane; `/wait` only when it is let go on.
    #[derive(Clone)]
    struct Answering {
        connection: usize,
        lane: usize,
        go_on: watch::Receiver<bool>,
        waiting: Arc<AtomicUsize>,
        begun: Arc<AtomicUsize>,
    }

    impl Service<Request<Incoming>> for Answering {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn call(&self, request: Request<Incoming>) -> Self::Future {
            let mut it = self.clone();
            it.begun.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                assert_eq!(lanes::current(), it.lane, "it moved to another lane");
                if request.uri().path() == "/wait" {
                    it.waiting.fetch_add(1, Ordering::SeqCst);
                    it.go_on.wait_for(|go_on| *go_on).await.unwrap();
                }
                assert_eq!(lanes::current(), it.lane, "it moved to another lane");
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "0")
                    .header("x-connection", it.connection)
                    .header("x-lane", it.lane);
                Ok(response.body(Body::empty()).unwrap())
            })
        }
    }

    struct Running {
        addr: SocketAddr,
        serving: Serving,
        ended: JoinHandle<()>,
        draining: CancellationToken,
        go_on: watch::Sender<bool>,
        waiting: Arc<AtomicUsize>,
        begun: Arc<AtomicUsize>,
        connections: Arc<AtomicUsize>,
        /// Ends last.
        _lanes: Lanes,
    }

    /// A server on so many lanes; on the socket at `socket`, too.
    async fn serve(
        settings: &TlsSettings,
        count: usize,
        age: ConnectionAge,
        records: Arc<dyn Records>,
        socket: Option<&Path>,
    ) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let lanes = Lanes::start(NonZeroUsize::new(count)).unwrap();
        let draining = CancellationToken::new();
        let serving = Serving::new(&lanes, age, records, draining.clone());
        let (go_on, waits) = watch::channel(false);
        let (waiting, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begun = Arc::new(AtomicUsize::new(0));
        let visit = {
            let begun = Arc::clone(&begun);
            let (waiting, connections) = (Arc::clone(&waiting), Arc::clone(&connections));
            move |_: Visitor| Answering {
                connection: connections.fetch_add(1, Ordering::SeqCst),
                lane: lanes::current(),
                go_on: waits.clone(),
                waiting: Arc::clone(&waiting),
                begun: Arc::clone(&begun),
            }
        };
        let tls = TlsReloader::load(settings).unwrap();
        let local = socket.map(|path| LocalListener::bind(path, 0o600).unwrap());
        let it = serving.clone();
        let ended = tokio::spawn(async move {
            let limits = AcceptLimits::default();
            let over_tls = it.over_tls(listener, tls, limits, visit.clone());
            match local {
                Some(local) => {
                    tokio::join!(over_tls, it.over_socket(local, limits, visit));
                }
                None => over_tls.await,
            }
        });
        Running {
            addr,
            serving,
            ended,
            draining,
            go_on,
            waiting,
            begun,
            connections,
            _lanes: lanes,
        }
    }

    /// Has nothing on record.
    struct Freely;

    impl Records for Freely {
        fn taken(&self) -> u64 {
            0
        }

        fn hand_over(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    fn freely() -> Arc<dyn Records> {
        Arc::new(Freely)
    }

    /// Whether records can be written, and the lanes that handed over.
    #[derive(Default)]
    struct Written {
        broken: AtomicBool,
        called: Mutex<Vec<usize>>,
    }

    impl Records for Written {
        fn taken(&self) -> u64 {
            0
        }

        fn hand_over(&self, _: u64) -> io::Result<()> {
            self.called.lock().unwrap().push(lanes::current());
            if self.broken.load(Ordering::SeqCst) {
                return Err(io::Error::other("it cannot be written down"));
            }
            Ok(())
        }
    }

    fn for_ever() -> ConnectionAge {
        ConnectionAge { most: None, ..ConnectionAge::default() }
    }

    fn channel(addr: SocketAddr, settings: &TlsSettings) -> Channel {
        let url = format!("https://127.0.0.1:{}", addr.port());
        connect_channel(&url, ClientTls::load(settings).unwrap(), ConnectOptions::default())
            .unwrap()
    }

    /// The number of the connection and of the lane.
    async fn call(channel: &Channel, path: &str) -> Result<(usize, usize), Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        let mut channel = channel.clone();
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response =
            channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
        let number = |name| response.headers()[name].to_str().unwrap().parse().unwrap();
        Ok((number("x-connection"), number("x-lane")))
    }

    async fn until(mut what: impl FnMut() -> bool) {
        let waiting = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, waiting).await.expect("it does not come to that");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_lane_gets_as_many_connections_as_the_others() {
        tls::install_provider();
        let pki = Pki::new();
        let running = serve(&pki.issue("server"), 3, for_ever(), freely(), None).await;
        let client = pki.issue("client");
        let mut channels = Vec::new();
        for _ in 0..6 {
            let channel = channel(running.addr, &client);
            call(&channel, "/").await.unwrap();
            channels.push(channel);
        }
        assert_eq!(running.serving.load(), [2, 2, 2]);
        let mut lanes = HashSet::new();
        for channel in &channels {
            let (_, lane) = call(channel, "/").await.unwrap();
            // A request that waits comes back to its lane as well; the others assert it on their way.
            lanes.insert(lane);
        }
        assert_eq!(lanes, HashSet::from([0, 1, 2]));
        // Who goes leaves room.
        channels.truncate(2);
        until(|| running.serving.load().iter().sum::<usize>() == 2).await;
        let further: Vec<_> = (0..4).map(|_| channel(running.addr, &client)).collect();
        for channel in &further {
            call(channel, "/").await.unwrap();
        }
        assert_eq!(running.serving.load(), [2, 2, 2]);
    }

    fn was_not_taken(status: &Status) -> bool {
        let sources = iter::successors(status.source(), |&error| error.source());
        status.code() == Code::Cancelled
            || sources.filter_map(|error| error.downcast_ref::<h2::Error>()).any(|error| {
                error.is_go_away()
                    && error.is_remote()
                    && error.reason() == Some(h2::Reason::NO_ERROR)
            })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_old_connection_is_asked_to_go_and_no_request_is_lost() {
        tls::install_provider();
        let pki = Pki::new();
        let age = ConnectionAge { most: Some(Duration::from_millis(300)), grace: LONG };
        let running = serve(&pki.issue("server"), 2, age, freely(), None).await;
        let client = channel(running.addr, &pki.issue("client"));
        // In work on the first connection for longer than it may last.
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { call(&client, "/wait").await }
        });
        until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
        let mut seen = HashSet::new();
        let mut answered = 1;
        let several = async {
            while seen.len() < 4 {
                match call(&client, "/").await {
                    Ok((connection, _)) => {
                        seen.insert(connection);
                        answered += 1;
                    }
                    // The library of the client has it, and its connection is closing: it was not sent,
                    // or came after the last one that the server takes.
                    Err(status) => assert!(was_not_taken(&status), "{status:?}"),
                }
            }
        };
        tokio::time::timeout(LONG, several).await.expect("the client keeps its connection");
        running.go_on.send_replace(true);
        assert_eq!(waiting.await.unwrap().unwrap().0, 0, "it ends on its own connection");
        assert_eq!(
            running.begun.load(Ordering::SeqCst),
            answered,
            "one was begun and not answered"
        );
        // Those that are done with are gone.
        until(|| running.serving.load().iter().sum::<usize>() <= 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_in_work_after_the_grace_is_given_up() {
        tls::install_provider();
        let pki = Pki::new();
        let age = ConnectionAge {
            most: Some(Duration::from_millis(100)),
            grace: Duration::from_millis(100),
        };
        let running = serve(&pki.issue("server"), 1, age, freely(), None).await;
        let client = channel(running.addr, &pki.issue("client"));
        let given_up = tokio::time::timeout(LONG, call(&client, "/wait")).await.expect("a limit");
        assert!(given_up.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_drain_lets_requests_end_and_takes_no_more() {
        tls::install_provider();
        let pki = Pki::new();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sso.sock");
        let running = serve(&pki.issue("server"), 2, for_ever(), freely(), Some(&socket)).await;
        let settings = pki.issue("client");
        let client = channel(running.addr, &settings);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { call(&client, "/wait").await }
        });
        // Somebody without anything to say is no reason to go on.
        let silent = UnixStream::connect(&socket).await.unwrap();
        until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
        until(|| running.connections.load(Ordering::SeqCst) == 2).await;
        running.draining.cancel();
        until(|| std::net::TcpStream::connect(running.addr).is_err()).await;
        until(|| !socket.exists()).await;
        drop(silent);
        assert!(!running.ended.is_finished(), "a request is in work");
        running.go_on.send_replace(true);
        assert!(waiting.await.unwrap().is_ok());
        tokio::time::timeout(LONG, running.ended).await.expect("an end").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_of_an_answer_leaves_before_it_is_on_record() {
        tls::install_provider();
        let pki = Pki::new();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sso.sock");
        let written = Arc::new(Written::default());
        let records = Arc::<Written>::clone(&written);
        let running = serve(&pki.issue("server"), 2, for_ever(), records, Some(&socket)).await;
        let settings = pki.issue("client");
        let client = channel(running.addr, &settings);
        let (connection, lane) = call(&client, "/").await.unwrap();
        let called = || written.called.lock().unwrap();
        assert!(called().iter().all(|called| *called == lane), "on another thread");

        written.broken.store(true, Ordering::SeqCst);
        called().clear();
        assert!(call(&client, "/").await.is_err());
        assert!(!called().is_empty());
        // Over the socket not one byte comes, not even of the transport.
        let mut bare = UnixStream::connect(&socket).await.unwrap();
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        // The server has something to say first, and may have ended it before this is sent.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut bare, hello).await;
        let mut read = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut bare, &mut read);
        let reading = tokio::time::timeout(LONG, reading).await.expect("the connection ends");
        assert!(read.is_empty(), "{reading:?} {read:?}");

        written.broken.store(false, Ordering::SeqCst);
        let again = async {
            loop {
                if let Ok((other, _)) = call(&client, "/").await {
                    break other;
                }
            }
        };
        let other = tokio::time::timeout(LONG, again).await.expect("a new connection");
        assert_ne!(other, connection, "the connection did not break");
    }
}
