//! The library and the command against a service that does what a test tells it, over real mutual
//! TLS and through a gate that can break connections.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod check;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod client;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod integration;
#[cfg(test)]
mod mapping;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod secret;
#[cfg(test)]
mod sign_on;
