//! Faults of every kind while people work and administrators rotate: real programs, a load of writers,
//! readers and redeemers on two servers, and somebody who breaks things. At the end everything must
//! have come back by itself, and the history of all calls must be one that can be true.
//!
//! What is broken and when follows from a seed, which is printed. `SSO_FAULT_SEED` takes one again,
//! `SSO_FAULT_RUNS` says how many seeds are tried one after the other on each database, and
//! `SSO_FAULT_SECONDS` how long each of them is broken.

#[cfg(test)]
mod administrator;
#[cfg(test)]
mod amid;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod leaders;
#[cfg(test)]
mod load;
#[cfg(test)]
mod nemesis;
#[cfg(test)]
mod place;
#[cfg(test)]
mod runs;
