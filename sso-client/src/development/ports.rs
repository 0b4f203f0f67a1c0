//! Free loopback ports.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use rand::TryRng as _;

/// Below the range from which Linux takes the local ports of outgoing connections, so that none of
/// those sits on a port between its choice and the start of the program it is for.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const TRIES: usize = 200;

/// A loopback port on which nothing listens, and which no other process of this kind takes as long as
/// this value lives: the program that it is for binds some time after the choice, and may be stopped
/// and started again.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// A name in the abstract namespace, which belongs to the same network namespace as the port and
    /// ends with the process.
    _claim: UnixDatagram,
}

impl ReservedPort {
    /// A port that is free now.
    ///
    /// # Errors
    /// When the operating system gives no random bytes, or every port that is tried is in use.
    pub fn choose() -> io::Result<Self> {
        for _ in 0..TRIES {
            let mut random = [0; 2];
            rand::rngs::SysRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
            let number = FIRST + u16::from_le_bytes(random) % COUNT;
            let claim = match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!(
                "sso-development-port-{number}"
            ))?) {
                Ok(claim) => claim,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error),
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _claim: claim });
            }
        }
        Err(io::Error::other("every port that was tried is in use"))
    }

    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_port_is_free_and_reserved_for_one() {
        let ports: Vec<_> = (0..50).map(|_| ReservedPort::choose().unwrap()).collect();
        let numbers: BTreeSet<_> = ports.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), 50);
        for number in numbers {
            assert!((FIRST..FIRST + COUNT).contains(&number));
            let name = format!("sso-development-port-{number}");
            let again = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap());
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
