//! What a running server shows, and whether a client of this product would be served by it.
//!
//! For servers of this product and of others alike. Nothing is sent beyond handshakes, and the client
//! certificate is shown only in the last one, to a server that a client would trust: that handshake is
//! made with the configuration that every client of the product has.

mod check;
mod faults;
mod handshake;
mod judgement;
mod network;
mod old_versions;
mod recorder;
mod report;
mod target;
mod versions;

use rustls::pki_types::ServerName;

pub use self::{
    check::{Check, Identity},
    report::{Agreement, Outcome, Report, Step, StepKind, UsedList, Verdict},
    target::{Target, TargetError},
    versions::{Look, LookError},
};

/// A name as it is written.
fn seen_name(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}
