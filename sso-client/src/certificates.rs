//! Certificates: an authority of its own, what it issues and revokes, and what others issued.
//!
//! Shared by `sso cert` (by hand, for real hosts) and `sso dev` (throw-away, marked as such). Keys that
//! are made here are ECDSA P-256 unless asked otherwise, serial numbers are 126 random bits, and every
//! certificate starts a few minutes in the past so that hosts whose clocks differ a little accept it.
//! Certificates and keys of other authorities may be RSA too.

mod authority;
mod bundle;
mod chain;
mod description;
mod error;
mod files;
mod install;
mod ledger;
mod pem;
mod pkcs12;
mod private_key;
pub mod probe;
mod request;
mod requested_name;
mod revocation_list;
mod signing_request;
mod subject;
mod template;
mod tree;

pub use authority::{
    AUTHORITY_CERTIFICATE, AUTHORITY_CHAIN, AUTHORITY_KEY, AUTHORITY_ROOT, Authority, Issued,
};
pub use bundle::Bundle;
pub use chain::Chain;
pub use description::{Description, describe};
pub use error::CertificateError;
pub use install::{Identity, Installed, Parts};
pub use ledger::{Ledger, Revocation};
pub use private_key::{KeyType, PrivateKey};
pub use request::{Request, Role};
pub use requested_name::RequestedName;
pub use revocation_list::{EarlierList, RevocationList, RevocationReason, Revoked};
pub use signing_request::{SigningRequest, Terms, Wanted};
pub use subject::Subject;
pub use template::Usage;
pub use tree::{Position, Signature, Tree, TreeEntry};

use files::content_error;

/// Writes certificates in PEM to a file that anybody may read, all at once or not at all.
///
/// # Errors
/// [`CertificateError::Exists`] unless `replace`, and what the operating system refuses.
pub fn write_certificate(
    path: &std::path::Path,
    pem: &str,
    replace: bool,
) -> Result<(), CertificateError> {
    files::write_public(path, pem.as_bytes(), replace)
}
