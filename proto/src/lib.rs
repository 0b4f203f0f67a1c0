//! The wire contract of the Enterprise SSO secret store: the messages and services of `sso.v1`,
//! their descriptor set, the refusals that every service answers with, and the events that are logged.

mod debug;
mod decode;
mod event;
mod reason;
mod refusal;

/// Messages and services of package `sso.v1`.
#[expect(missing_docs, reason = "documented in the .proto files")]
#[expect(clippy::allow_attributes, reason = "generated code silences lints in its own way")]
pub mod v1 {
    tonic::include_proto!("sso.v1");
}

pub use decode::decode_keys;
pub use event::{Event, Severity};
pub use reason::Reason;
pub use refusal::{Refusal, retry_after};

/// Header of an answer: the number of the last change that the request made, in decimal.
pub const CHANGE_HEADER: &str = "x-sso-change";

/// Header of a request: what it reads is to be no older than the change of this number, in decimal, on
/// whichever server that was made.
pub const AT_LEAST_CHANGE_HEADER: &str = "x-sso-at-least-change";

/// The encoded `FileDescriptorSet` of every file of this crate, for reflection and for tests that
/// walk over all methods.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/sso_descriptor.bin"));
