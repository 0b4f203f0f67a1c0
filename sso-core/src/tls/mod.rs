//! Mutual TLS of every program: which files and lists, what they must be, and their replacement without
//! a restart.
//!
//! TLS 1.3, and 1.2 where the settings allow it; one crypto provider; no resumption (a resumed session
//! would skip the verifier). Everything is checked before it takes the place of what was in use.
//!
//! ```text
//! settings ─ files ──┐
//!            sources ┴─ generation: configurations and verifiers ─ reloader swaps it
//!            (URLs)         └─ chain, validity, purpose, then revocation
//! ```

mod fetch;
mod files;
mod generation;
mod lists;
mod notice;
mod own;
mod reason;
mod reloader;
mod report;
mod revocation;
mod settings;
mod sources;
mod status;
mod trust;

use std::{io, path::PathBuf};

pub use self::{
    files::is_bearable,
    generation::TlsGeneration,
    notice::TlsNotice,
    reason::TlsReason,
    reloader::TlsReloader,
    settings::{
        Application, ClientCertificate, ListSource, ListSourceError, RevocationPolicy, TlsSettings,
        TlsVersion, TrustSettings, one_or_more,
    },
    status::{CertificateRole, CertificateStatus, ListStatus, TlsStatus},
    trust::web_client_without_trust,
};
pub(crate) use self::{notice::Notices, own::shown, revocation::Revocation};
use crate::settings::SettingsError;

/// Why TLS cannot be set up. Every text names the file and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot read the {what}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// Others may read the private key, or another file that proves who calls.
    #[error(transparent)]
    Lax(SettingsError),
    /// A file does not hold what it should.
    #[error("{}: {what}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A certificate of development where none may be.
    #[error(
        "{}: the {what} was made for development: issue a real one, or set allow_development = true \
         on a machine that holds no real secrets",
        path.display()
    )]
    Development {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        what: &'static str,
    },
    /// A certificate is what it should be, and no good for what it is used for.
    #[error("{}: {what}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        what: &'static str,
        /// The reason that peers would have to refuse it.
        reason: TlsReason,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Certificate and key were not loaded again, and what changed beside them was.
    #[error(
        "{0}; certificate and key loaded before stay in use, and the authorities and revocation lists \
         that changed with them are in use"
    )]
    Identity(Box<TlsError>),
    /// The settings contradict themselves.
    #[error("tls.{key}: {problem}")]
    Setting {
        /// The key below `tls`.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The address of a server is not usable.
    #[error("{url}: {problem}")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The cryptography refuses the protocol settings.
    #[error("TLS cannot be configured: {0}")]
    Protocol(rustls::Error),
}

/// Makes the one crypto provider the default of the process. Call it first in `main`: libraries ask
/// for the default.
pub fn install_provider() {
    // An error only says that there is a default already, and no other provider is linked.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
