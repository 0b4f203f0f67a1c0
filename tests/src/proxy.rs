//! A TCP proxy that can be told to misbehave: between masters and servers, or before a database.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How long a direction looks for bytes before it looks for orders.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They go on.
    #[default]
    Pass,
    /// They go on after this time.
    Delay(Duration),
    /// They go nowhere, and whoever sent them does not learn it: the other end is unreachable. They
    /// arrive when this is over, as those of a network that comes back do.
    BlackHole,
}

#[derive(Debug, Default)]
struct Orders {
    /// From the client, and to it.
    there: Flow,
    back: Flow,
    /// Nobody gets a connection, and nobody keeps one.
    cut: bool,
    /// Connections before the last cut are to end.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    ended: AtomicBool,
}

/// A proxy on a port of its own. Ends with the value, and every connection through it as well.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy before `target` that passes everything.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, target, &accepting));
        Self { address, shared }
    }

    /// A proxy before the PostgreSQL of this address, which has a port of 127.0.0.1; and the address of the same
    /// database behind it.
    ///
    /// # Panics
    /// When the address has none, or there is no port.
    #[must_use]
    pub fn before_database(url: &str) -> (Self, String) {
        let (before, after) = url.split_once("@127.0.0.1:").expect("an address");
        let (port, name) = after.split_once('/').expect("a name");
        let proxy = Self::before(([127, 0, 0, 1], port.parse().expect("a port")).into());
        let url = format!("{before}@{}/{name}", proxy.address);
        (proxy, url)
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Both directions pass, and connections are taken.
    pub fn heal(&self) {
        let mut orders = self.orders();
        (orders.there, orders.back, orders.cut) = (Flow::Pass, Flow::Pass, false);
    }

    /// What becomes of the bytes that clients send, and of those that they are sent.
    pub fn flow(&self, there: Flow, back: Flow) {
        let mut orders = self.orders();
        (orders.there, orders.back) = (there, back);
    }

    /// Ends every connection and takes none until [`Proxy::heal`].
    pub fn cut(&self) {
        let mut orders = self.orders();
        orders.cut = true;
        orders.cuts += 1;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.shared.orders()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// What becomes of bytes, once it is not that they go nowhere; `None` where their connection was cut.
    fn flow(&self, there: bool, cuts: u64) -> Option<Flow> {
        loop {
            let flow = {
                let orders = self.orders();
                if orders.cuts != cuts {
                    return None;
                }
                if there { orders.there } else { orders.back }
            };
            if flow != Flow::BlackHole {
                return Some(flow);
            }
            thread::sleep(LOOK);
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let (cut, cuts) = {
            let orders = shared.orders();
            (orders.cut, orders.cuts)
        };
        let Ok(client) = client else { continue };
        if cut {
            continue;
        }
        // Whoever is not there is so for the client, too: its connection ends.
        let Ok(server) = TcpStream::connect(target) else { continue };
        for (from, to, there) in [(&client, &server, true), (&server, &client, false)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                carry(&from, &to, there, cuts, &shared);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

/// Carries one direction of one connection to its end.
fn carry(mut from: &TcpStream, mut to: &TcpStream, there: bool, cuts: u64, shared: &Shared) {
    let _ = (from.set_nodelay(true), from.set_read_timeout(Some(LOOK)));
    let mut buffer = [0; 16 * 1024];
    while shared.flow(there, cuts).is_some() {
        let bytes = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if is_silence(&error) => continue,
            Err(_) => return,
        };
        // Orders that came while it was read are for these bytes, too.
        let Some(flow) = shared.flow(there, cuts) else { return };
        if let Flow::Delay(time) = flow {
            thread::sleep(time);
        }
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Sends back what comes.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut from, mut to) = (&client, &client);
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        address
    }

    fn ask(socket: &mut TcpStream, within: Duration) -> Option<u8> {
        socket.set_read_timeout(Some(within)).unwrap();
        socket.write_all(b"x").ok()?;
        let mut answer = [0];
        socket.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    #[test]
    fn a_proxy_passes_delays_swallows_and_cuts() {
        let proxy = Proxy::before(echo());
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let long = Duration::from_secs(10);
        let mut socket = connect();
        assert_eq!(ask(&mut socket, long), Some(b'x'));

        // What is being read was not told yet of anything that changes here.
        let mut until = |what: &str, is_so: &mut dyn FnMut(&mut TcpStream) -> bool| {
            let began = Instant::now();
            while !is_so(&mut socket) {
                assert!(began.elapsed() < long, "never: {what}");
            }
        };
        proxy.flow(Flow::Delay(Duration::from_millis(200)), Flow::Pass);
        until("a delay", &mut |socket| {
            let asked = Instant::now();
            assert_eq!(ask(socket, long), Some(b'x'));
            asked.elapsed() >= Duration::from_millis(200)
        });

        proxy.flow(Flow::Pass, Flow::BlackHole);
        until("silence", &mut |socket| ask(socket, Duration::from_millis(200)).is_none());
        proxy.heal();
        until("the answer that was held back", &mut |socket| {
            socket.set_read_timeout(Some(long)).unwrap();
            socket.read_exact(&mut [0]).is_ok()
        });

        proxy.cut();
        until("an end", &mut |socket| ask(socket, long).is_none());
        let began = Instant::now();
        while ask(&mut connect(), long).is_some() {
            assert!(began.elapsed() < long, "new connections go on");
        }
        proxy.heal();
        assert_eq!(ask(&mut connect(), long), Some(b'x'));
    }
}
