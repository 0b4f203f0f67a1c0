//! A distribution point of revocation lists: an HTTP server that the test makes go away, come back and
//! misbehave.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How long a silent answer takes: longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a request for one path is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with these bytes.
    Content(Vec<u8>),
    /// This status without a body.
    Status(u16),
    /// 302 to this address.
    Redirect(String),
    /// 200 with a body that never ends.
    Endless,
    /// Nothing, on a connection that stays open.
    Silence,
    /// Bytes that are no HTTP.
    Garbage,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    requests: Vec<String>,
    /// Counts the listeners: one that is not the last has to go.
    listener: u64,
    there: bool,
}

/// The server. Ends with the value.
#[derive(Debug)]
pub struct ListServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Default for ListServer {
    fn default() -> Self {
        Self::start()
    }
}

impl ListServer {
    /// A server that has nothing yet: it answers 404.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let server = Self { address, state: Arc::default() };
        server.listen(listener);
        server
    }

    /// The address of a path, which starts with `/`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What requests for this path are answered with from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.state().answers.insert(path.to_owned(), answer);
    }

    /// The paths that were asked for, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Nothing listens at the address any more.
    ///
    /// # Panics
    /// When something does all the same.
    pub fn go_away(&self) {
        {
            let mut state = self.state();
            state.there = false;
            state.listener += 1;
        }
        // The first connection wakes the thread, which then closes its listener.
        let began = std::time::Instant::now();
        while TcpStream::connect(self.address).is_ok() {
            assert!(began.elapsed() < PATIENCE, "{} still listens", self.address);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Listens again where it did, if it went away.
    ///
    /// # Panics
    /// When somebody else took the port.
    pub fn come_back(&self) {
        if !self.state().there {
            self.listen(TcpListener::bind(self.address).expect("its old port"));
        }
    }

    fn listen(&self, listener: TcpListener) {
        let number = {
            let mut state = self.state();
            state.there = true;
            state.listener += 1;
            state.listener
        };
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if lock(&state).listener != number {
                    return;
                }
                let Ok(client) = client else { continue };
                let state = Arc::clone(&state);
                // An error is the client's, who went away.
                thread::spawn(move || serve(client, &state).is_ok());
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for ListServer {
    fn drop(&mut self) {
        self.state().listener += 1;
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, one answer, connection closed.
fn serve(mut client: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let Some(path) = first.split(' ').nth(1).map(str::to_owned) else { return Ok(()) };
    let answer = {
        let mut state = lock(state);
        state.requests.push(path.clone());
        state.answers.get(&path).cloned().unwrap_or(Answer::Status(404))
    };
    let head =
        |status: &str, more: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n");
    match answer {
        Answer::Content(bytes) => {
            let length = format!("Content-Length: {}\r\n", bytes.len());
            client.write_all(head("200 OK", &length).as_bytes())?;
            client.write_all(&bytes)
        }
        Answer::Status(status) => {
            let head = head(&format!("{status} -"), "Content-Length: 0\r\n");
            client.write_all(head.as_bytes())
        }
        Answer::Redirect(to) => {
            let more = format!("Location: {to}\r\nContent-Length: 0\r\n");
            client.write_all(head("302 Found", &more).as_bytes())
        }
        Answer::Endless => {
            client.write_all(head("200 OK", "").as_bytes())?;
            loop {
                client.write_all(&[0x30; 64 * 1024])?;
            }
        }
        Answer::Silence => {
            thread::sleep(SILENCE);
            Ok(())
        }
        Answer::Garbage => client.write_all(&[0xff; 64]),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn ask(server: &ListServer, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(server.address).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    #[test]
    fn it_answers_as_told_goes_away_and_comes_back() {
        let server = ListServer::start();
        assert!(ask(&server, "/a").unwrap().starts_with("HTTP/1.1 404 "));
        server.answer("/a", Answer::Content(b"list".to_vec()));
        assert!(ask(&server, "/a").unwrap().ends_with("\r\n\r\nlist"));
        for _ in 0..3 {
            server.go_away();
            assert_eq!(ask(&server, "/a"), None);
            server.come_back();
            assert!(ask(&server, "/a").unwrap().ends_with("\r\n\r\nlist"));
        }
        server.answer("/a", Answer::Redirect(server.url("/b")));
        assert!(ask(&server, "/a").unwrap().contains("/b\r\n"));
        assert_eq!(server.requests(), ["/a"; 6]);
    }
}
