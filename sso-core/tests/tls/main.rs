//! Mutual TLS between the acceptor and the connector, over real sockets and with real files.

#[cfg(test)]
mod bare;
#[cfg(test)]
mod files;
#[cfg(test)]
mod live;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod own;
#[cfg(test)]
mod peers;
#[cfg(test)]
#[path = "../pki/mod.rs"]
mod pki;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod status;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod world;
