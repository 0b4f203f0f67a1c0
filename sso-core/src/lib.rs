//! What the programs of the Enterprise SSO secret store share.
//!
//! Half of it is cryptography: secret types that wipe themselves, keys in locked memory, sealing of
//! values to their place in the database, wrapping of keys for files and for the wire. The other half
//! is what every program needs to run: settings, TLS, the identity of a peer, telemetry, shutdown.
//!
//! The key hierarchy:
//!
//! ```text
//! passphrase ─ Argon2id ─┐
//! OS keyring ────────────┴─ wrapping key ─ wraps ─ master secret, one of 32 bytes per generation
//!                                                     └─ HKDF(purpose, application, salt)
//!                                                           └─ seals one value in one place
//! ```
//!
//! A key that wraps never seals data, and a key that seals data never wraps.

pub mod acceptor;
mod application_keys;
pub mod clock;
pub mod connector;
pub mod derive;
pub mod exit;
pub mod huge_pages;
pub mod key_ring;
pub mod lanes;
pub mod late_span;
pub mod local;
pub mod memory;
pub mod officer;
pub mod operations;
pub mod passphrase;
pub mod peer;
mod places;
pub mod process;
mod quiet;
mod recheck;
pub mod revocations;
pub mod seal;
pub mod secret;
pub mod serving;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod transit;
mod verifier;
pub mod wrapping;
