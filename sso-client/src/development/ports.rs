//! Free loopback ports.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use rand::TryRng as _;

/// Below the range from which Linux takes the local ports of outgoing connections, so that none of
/// those sits on a port between its choice and the start of the program it is for.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const TRIES: usize = 200;

/// Never handed out twice by one process, as the programs bind some time after the choice.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback port on which nothing listens.
pub(super) fn free_port() -> io::Result<u16> {
    for _ in 0..TRIES {
        let mut random = [0; 2];
        rand::rngs::SysRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
        let port = FIRST + u16::from_le_bytes(random) % COUNT;
        let unused = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if unused && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("every port that was tried is in use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_given_once() {
        let ports: BTreeSet<_> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            assert!((FIRST..FIRST + COUNT).contains(&port));
        }
    }
}
