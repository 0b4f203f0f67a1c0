//! Running masters over real mutual TLS and a real socket: who gets the key ring, how a rotation goes
//! on, how masters follow one another, and who administers them.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test may fail the test"
)]

mod administration;
mod distribution;
mod forged;
mod masters;
mod rotation;
mod support;
