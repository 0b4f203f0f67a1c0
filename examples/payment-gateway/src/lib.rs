//! An integration between two systems, as an example: an integration host that runs on the
//! Enterprise SSO secret store, and the payment gateway that it uploads bills to.
//!
//! The two share nothing but what goes over the wire: [`bill`], [`upload`] and [`notification`].
//! [`gateway`] is the outside system, [`host`] the integration host. The README beside the crate has the story and
//! the table of what happens when either is killed.

pub mod bill;
pub mod gateway;
pub mod host;
pub mod notification;
mod store;
pub mod upload;
mod web;

/// How a program of this example ends early: what to tell, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stopped {
    /// The exit code that goes with it.
    pub exit: sso_core::exit::Exit,
    /// What was wrong, and what to do.
    pub message: String,
}

impl Stopped {
    fn settings(error: impl std::fmt::Display) -> Self {
        Self { exit: sso_core::exit::Exit::Settings, message: error.to_string() }
    }

    fn refused(error: impl std::fmt::Display) -> Self {
        Self { exit: sso_core::exit::Exit::Refused, message: error.to_string() }
    }

    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self { exit: sso_core::exit::Exit::Unavailable, message: error.to_string() }
    }
}
