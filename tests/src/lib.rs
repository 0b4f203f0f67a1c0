//! What the whole-system tests and the benches share: a throw-away system of the real programs.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is not as it has to be"
)]

pub mod echo;
pub mod everywhere;
pub mod load;
pub mod oidc;
pub mod postgres;
pub mod raw;
pub mod system;
