//! The master secret server: keeps the only persisted copy of the master secret, wrapped, and hands
//! it to the SSO servers named in its settings.
//!
//! ```text
//! protector ── gives back ── keystore key ── wraps ── master secret, one key per generation
//!                                │                        └─ sealed to the caller of Fetch
//!                                └─ seals the header of the keystore
//! password ─── Argon2id ─────────────── wraps ── the same keys in a backup file
//! ```

pub mod backup;
pub mod distribution;
mod encoding;
pub mod error;
pub mod file;
pub mod init;
pub mod keystore;
pub mod prompt;
pub mod protector;
pub mod serve;
pub mod settings;

/// This program and its version, as it signs files.
pub const TOOL: &str = concat!("sso-master ", env!("CARGO_PKG_VERSION"));
