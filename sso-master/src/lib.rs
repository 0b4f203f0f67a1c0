//! The master secret server: keeps the only persisted copy of the master secret, wrapped, and hands
//! it to the SSO servers named in its settings.
//!
//! ```text
//! protector ── gives back ── keystore key ── wraps ── master secret, one key per generation
//!                                │                        └─ sealed to the caller of Fetch
//!                                └─ seals the header of the keystore
//! password ─── Argon2id ─────────────── wraps ── the same keys in a backup file
//! ```

pub mod announce;
pub mod backup;
pub mod custody;
pub mod distribution;
pub mod door;
pub mod error;
pub mod file;
pub mod house;
pub mod init;
pub mod join;
pub mod keystore;
pub mod peers;
pub mod protectors;
pub mod restore;
pub mod roster;
pub mod rotation;
pub mod secret;
pub mod serve;
pub mod settings;
pub mod standby;
pub mod stanzas;
mod transfer;

/// This program and its version, as it signs files.
pub const TOOL: &str = concat!("sso-master ", env!("CARGO_PKG_VERSION"));
