//! A whole throw-away system on this machine: the real master secret server and SSO servers with
//! settings, certificates and accounts of their own. `sso dev` and the whole-system tests start it.
//!
//! ```text
//! DIR/tls/            authority with its revocation list, one certificate per program and per profile, all marked as development
//! DIR/*.toml          settings of the programs, groups.toml, profiles.toml
//! DIR/keystore.json   the master secret, wrapped by the passphrase in DIR/master.passphrase
//! DIR/*.sock          where the master secret is administered
//! DIR/sso.db          the database, unless another one is named
//! DIR/tokens/         where asked for: the key of an issuer of user tokens, and its key set
//! DIR/logs/           what the programs say
//! ```
//!
//! Ports are chosen anew each time; identities, keys and data stay.

mod error;
mod installation;
mod material;
mod ports;
mod process;
mod programs;
mod readiness;
mod revocation;
mod settings;
mod tokens;

pub use error::DevelopmentError;
pub use installation::{Installation, Options, Timing};
pub use material::{ACCOUNTS, DOMAIN};
pub use ports::ReservedPort;
pub use process::Process;
pub use programs::Programs;
pub use readiness::Probe;
pub use tokens::{TOKEN_AUDIENCE, TOKEN_DOMAIN, TOKEN_ISSUER};
