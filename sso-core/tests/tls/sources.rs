//! Revocation lists from a URL: fetched, kept, fetched again, and believed only as far as they deserve.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustls::version::TLS13;
use sso_core::{
    acceptor::{AcceptLimits, mtls_incoming},
    clock::Clock,
    tls::{Application, ClientCertificate, ListSource, RevocationPolicy, TlsReloader, TlsSettings},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    bare::{Saw, ask, client},
    pki::{Pki, year},
    world::{Running, serve},
};

/// What is served at every path: head and body. `None`: the connection is closed.
type Page = Arc<Mutex<Option<(String, Vec<u8>)>>>;

/// A server of lists, whose page can be changed and taken away.
struct Distribution {
    addr: SocketAddr,
    page: Page,
}

impl Distribution {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let page = Page::default();
        let shared = Arc::clone(&page);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(answer(tcp, Arc::clone(&shared)));
            }
        });
        Self { addr, page }
    }

    fn url(&self) -> ListSource {
        format!("http://{}/ca.crl", self.addr).parse().unwrap()
    }

    fn shows(&self, body: impl AsRef<[u8]>) {
        let body = body.as_ref().to_vec();
        self.shows_all("200 OK", body);
    }

    fn shows_all(&self, status: &str, body: Vec<u8>) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        *self.page.lock().unwrap() = Some((head, body));
    }

    fn goes_away(&self) {
        *self.page.lock().unwrap() = None;
    }
}

async fn answer(mut io: impl AsyncRead + AsyncWrite + Unpin, page: Page) {
    let mut request = [0; 2048];
    let _ = io.read(&mut request).await;
    let page = page.lock().unwrap().clone();
    if let Some((head, body)) = page {
        let _ = io.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await;
        let _ = io.write_all(&body).await;
        let _ = io.shutdown().await;
    }
}

struct World {
    pki: Pki,
    server: TlsSettings,
    ann: TlsSettings,
    point: Distribution,
}

const ANN: u64 = 2;
const UNTOLD: Saw = Saw::Alert(113);
const REVOKED: Saw = Saw::Alert(44);

async fn world() -> World {
    let pki = Pki::new();
    let (mut server, ann) = (pki.issue("server"), pki.issue("ann"));
    let point = Distribution::new().await;
    server.crl = vec![point.url()];
    World { pki, server, ann, point }
}

impl World {
    async fn serve(&self) -> Running {
        serve(TlsReloader::load(&self.server).unwrap(), AcceptLimits::default()).await
    }

    async fn ask(&self, server: &Running) -> Saw {
        ask(server.addr, &client(Some(&self.ann), &[&TLS13])).await
    }
}

fn problem(server: &Running) -> String {
    let status = server.tls.status();
    status.lists.iter().filter_map(|list| list.problem.clone()).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_list_comes_goes_and_comes_back() {
    let world = world().await;
    let server = world.serve().await;
    assert_eq!(world.ask(&server).await, UNTOLD, "nothing is fetched yet");
    assert_eq!(problem(&server), "not fetched yet");

    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, UNTOLD, "the point is closed");
    assert!(problem(&server).contains("cannot be fetched"), "{}", problem(&server));
    assert!(server.tls.warnings().iter().any(|it| it.contains("cannot be fetched")));

    world.point.shows(world.pki.list(&[], |_| {}).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
    assert_eq!((problem(&server).as_str(), server.tls.current().number()), ("", 2));
    // The same again is nothing new.
    server.tls.fetch_lists().await;
    assert_eq!(server.tls.current().number(), 2);

    world.point.goes_away();
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served, "the last good list holds");
    assert!(problem(&server).contains("cannot be fetched"), "{}", problem(&server));

    world.point.shows(world.pki.list(&[ANN], |_| {}).pem().unwrap());
    server.tls.reload_all().await.unwrap();
    assert_eq!(world.ask(&server).await, REVOKED);
    assert_eq!(problem(&server), "");
}

#[tokio::test]
async fn soft_fail_lets_pass_what_is_not_known_and_never_what_is_revoked() {
    let mut world = world().await;
    world.server.revocation = Some(RevocationPolicy::SoftFail);
    let server = world.serve().await;
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
    world.point.shows(world.pki.list(&[ANN], |list| list.next_update = year(2021)).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, REVOKED, "an old list revoked it");
    world.point.goes_away();
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, REVOKED, "and that is remembered");
}

#[tokio::test]
async fn a_list_is_fetched_again_in_time() {
    let mut world = world().await;
    world.server.crl_refresh = Duration::from_secs(1);
    let server = world.serve().await;
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&server.tls).watch(shutdown.clone()));
    let until = async |wanted: Saw| {
        let began = Instant::now();
        loop {
            let saw = world.ask(&server).await;
            if saw == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{saw:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The first try fails; a later one does not.
    assert_eq!(world.ask(&server).await, UNTOLD);
    world.point.shows(world.pki.list(&[], |_| {}).der());
    until(Saw::Served).await;
    world.point.shows(world.pki.list(&[ANN], |_| {}).der());
    until(REVOKED).await;
    shutdown.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_kept() {
    let mut world = world().await;
    world.server.crl_cache = Some(world.pki.path("kept"));
    world.point.shows(world.pki.list(&[], |_| {}).der());
    world.serve().await.tls.fetch_lists().await;
    world.point.goes_away();

    let server = world.serve().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
    let status = server.tls.status();
    assert!(status.lists[0].fetched_at.is_some() && status.lists[0].problem.is_none());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);

    // Nobody else may put lists there.
    use std::os::unix::fs::PermissionsExt as _;
    let folder = world.pki.path("kept");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(world.ask(&world.serve().await).await, UNTOLD);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    // What is damaged there is no reason not to start.
    for file in std::fs::read_dir(&folder).unwrap() {
        std::fs::write(file.unwrap().path(), "garbage").unwrap();
    }
    let server = world.serve().await;
    assert_eq!(world.ask(&server).await, UNTOLD);
    world.point.shows(world.pki.list(&[], |_| {}).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
}

#[tokio::test]
async fn nobody_on_the_way_can_take_a_revocation_back() {
    for policy in [RevocationPolicy::HardFail, RevocationPolicy::SoftFail] {
        let mut world = world().await;
        world.server.revocation = Some(policy);
        let server = world.serve().await;
        let issued = |year_of_issue: i32, numbers: &[u64]| {
            world.pki.list(numbers, |list| list.this_update = year(year_of_issue))
        };
        world.point.shows(issued(2024, &[ANN]).der());
        server.tls.fetch_lists().await;
        assert_eq!(world.ask(&server).await, REVOKED);

        world.point.shows(issued(2023, &[]).der());
        server.tls.fetch_lists().await;
        assert_eq!(world.ask(&server).await, REVOKED, "an older list");
        assert!(problem(&server).contains("older than the one at hand"), "{}", problem(&server));

        world.point.shows(Pki::new().list(&[], |list| list.this_update = year(2025)).der());
        server.tls.fetch_lists().await;
        assert_eq!(world.ask(&server).await, REVOKED, "a namesake's list");
        assert!(problem(&server).contains("not signed by that authority"), "{}", problem(&server));

        for page in [&b""[..], b"<html>maintenance</html>", b"\x30\x03\x02\x01\x01"] {
            world.point.shows(page);
            server.tls.fetch_lists().await;
            assert_eq!(world.ask(&server).await, REVOKED);
            assert!(!problem(&server).is_empty());
        }

        // Lists of authorities that there are not, in the hope that the one that counts is forgotten.
        for round in 0..4 {
            let made_up = (0..9).map(|number| {
                let authority = Pki::with(|params| {
                    let name = format!("{round}-{number}");
                    params.distinguished_name.push(rcgen::DnType::OrganizationName, name);
                });
                authority.list(&[], |_| {}).pem().unwrap()
            });
            world.point.shows(made_up.collect::<String>());
            server.tls.fetch_lists().await;
            assert_eq!(world.ask(&server).await, REVOKED, "made-up lists");
        }
        world.point.shows(issued(2023, &[]).der());
        server.tls.fetch_lists().await;
        assert_eq!(world.ask(&server).await, REVOKED, "the older one once more");

        world.point.shows(issued(2025, &[]).der());
        server.tls.fetch_lists().await;
        assert_eq!(world.ask(&server).await, Saw::Served, "the authority itself may");
        assert_eq!(problem(&server), "");
    }
}

/// The same over a restart: what was made up is not what is kept.
#[tokio::test]
async fn what_is_kept_for_a_restart_is_what_counts() {
    let mut world = world().await;
    world.server.crl_cache = Some(world.pki.path("kept"));
    let issued = |year_of_issue: i32, numbers: &[u64]| {
        world.pki.list(numbers, |list| list.this_update = year(year_of_issue))
    };
    world.point.shows(issued(2024, &[ANN]).der());
    let server = world.serve().await;
    server.tls.fetch_lists().await;
    let other = Pki::with(|it| it.distinguished_name.push(rcgen::DnType::CountryName, "XX"));
    world.point.shows(other.list(&[], |_| {}).der());
    server.tls.fetch_lists().await;
    world.point.goes_away();
    let server = world.serve().await;
    assert_eq!(world.ask(&server).await, REVOKED);
    world.point.shows(issued(2023, &[]).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, REVOKED, "an older list after a restart");
    assert!(problem(&server).contains("older than the one at hand"), "{}", problem(&server));
}

/// Nobody can tell yet who signs for an intermediate authority that no peer has shown.
#[tokio::test]
async fn the_list_of_an_intermediate_is_not_rolled_back_before_a_handshake() {
    let world = world().await;
    let branch = world.pki.intermediate("Branch");
    let bob_number = world.pki.upcoming();
    let bob = branch.issue("bob");
    let issued = |year_of_issue: i32, numbers: &[u64]| {
        branch.list(numbers, |list| list.this_update = year(year_of_issue))
    };
    let settings = TlsSettings {
        crl: vec![
            world.point.url(),
            world.pki.write_list("root.crl", &world.pki.list(&[], |_| {})).into(),
        ],
        ..world.server.clone()
    };
    let tls = TlsReloader::load(&settings).unwrap();
    let server = serve(tls, AcceptLimits::default()).await;
    let ask_bob = async || ask(server.addr, &client(Some(&bob), &[&TLS13])).await;
    world.point.shows(issued(2024, &[bob_number]).der());
    server.tls.fetch_lists().await;
    world.point.shows(issued(2023, &[]).der());
    server.tls.fetch_lists().await;
    assert_eq!(ask_bob().await, REVOKED);
    // Now the signer is known, and the newest of the authority counts alone.
    world.point.shows(issued(2023, &[]).der());
    server.tls.fetch_lists().await;
    assert_eq!(ask_bob().await, REVOKED);
    world.point.shows(issued(2025, &[]).der());
    server.tls.fetch_lists().await;
    assert_eq!(ask_bob().await, Saw::Served);
}

/// A list from the future says nothing, and does not keep the present one out.
#[tokio::test]
async fn a_list_that_is_issued_later_is_not_used() {
    let world = world().await;
    let server = world.serve().await;
    world.point.shows(world.pki.list(&[], |list| list.this_update = year(2150)).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, UNTOLD);
    assert!(problem(&server).contains("issued from 2150-01-01"), "{}", problem(&server));
    world.point.shows(world.pki.list(&[], |_| {}).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
}

#[tokio::test]
async fn a_namesakes_list_at_first_does_not_keep_the_right_one_out() {
    let world = world().await;
    let server = world.serve().await;
    world.point.shows(Pki::new().list(&[], |list| list.this_update = year(2100)).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, UNTOLD);
    assert!(problem(&server).contains("is not signed by it"), "{}", problem(&server));
    world.point.shows(world.pki.list(&[], |_| {}).der());
    server.tls.fetch_lists().await;
    assert_eq!(world.ask(&server).await, Saw::Served);
    assert_eq!(problem(&server), "");
}

#[tokio::test]
async fn answers_that_are_none_are_named() {
    let world = world().await;
    let server = world.serve().await;
    let other = Distribution::new().await;
    other.shows(world.pki.list(&[], |_| {}).der());
    for (status, words) in [
        ("404 Not Found".to_owned(), "status 404"),
        (format!("302 Found\r\nlocation: http://{}/", other.addr), "status 302"),
        ("200 OK\r\ntransfer-encoding: chunked".to_owned(), "cannot be fetched"),
    ] {
        world.point.shows_all(&status, b"x".to_vec());
        server.tls.fetch_lists().await;
        assert!(problem(&server).contains(words), "{}", problem(&server));
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n".to_owned();
    *world.point.page.lock().unwrap() = Some((head, Vec::new()));
    server.tls.fetch_lists().await;
    assert!(problem(&server).contains("larger than 64 MiB"), "{}", problem(&server));
    assert_eq!(world.ask(&server).await, UNTOLD);
}

/// Over HTTPS, from a server of the same authority; from one of another nothing is taken.
#[tokio::test]
async fn lists_come_over_https_from_those_who_are_trusted() {
    let pki = Pki::new();
    let ann = pki.issue("ann");
    for (own, wanted) in [(true, Saw::Served), (false, UNTOLD)] {
        let other = Pki::new();
        let point = if own { pki.issue("point") } else { other.issue("point") };
        let point = TlsSettings { client_certificate: ClientCertificate::Optional, ..point };
        let tls = TlsReloader::load_for(&point, Application::Http, Clock::System).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/ca.crl", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let mut incoming = mtls_incoming(listener, tls, AcceptLimits::default(), stop);
        let list = pki.list(&[], |_| {});
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", list.der().len());
        let page: Page = Arc::new(Mutex::new(Some((head, list.der().to_vec()))));
        tokio::spawn(async move {
            while let Some(Ok(connection)) = incoming.next().await {
                assert!(connection.peer().certificate.is_none());
                tokio::spawn(answer(connection, Arc::clone(&page)));
            }
        });
        let settings = TlsSettings { crl: vec![url.parse().unwrap()], ..pki.issue("server") };
        let server = serve(TlsReloader::load(&settings).unwrap(), AcceptLimits::default()).await;
        server.tls.fetch_lists().await;
        let saw = ask(server.addr, &client(Some(&ann), &[&TLS13])).await;
        assert_eq!(saw, wanted, "{}", problem(&server));
    }
}
