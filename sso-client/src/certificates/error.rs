//! What can be wrong with a certificate, a key or a request, each with its own words.

use std::{io, path::PathBuf};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why a certificate could not be made, read, checked, installed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// What was asked for makes no sense; the text says what to give instead.
    #[error("{0}")]
    Request(String),
    /// A file that exists already and is not overwritten.
    #[error("{} exists; nothing was overwritten", .0.display())]
    Exists(PathBuf),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that holds no certificate or key of the expected kind.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An encrypted file without a passphrase to open it with.
    #[error("{}: is encrypted, and no passphrase was given", .0.display())]
    PassphraseMissing(PathBuf),
    /// A passphrase that does not open the file.
    #[error("{}: the passphrase is wrong, or the file is damaged", .0.display())]
    PassphraseWrong(PathBuf),
    /// A private key that belongs to another certificate.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A certificate whose time is over.
    #[error("the certificate {subject} expired on {}", shown(*ended))]
    Expired {
        /// Its subject.
        subject: String,
        /// The last second of its validity.
        ended: OffsetDateTime,
    },
    /// A certificate whose time has not come.
    #[error("the certificate {subject} is not valid before {}", shown(*starts))]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// The first second of its validity.
        starts: OffsetDateTime,
    },
    /// A certificate that may not be used for what it is wanted for.
    #[error("the certificate {subject} {what}")]
    WrongPurpose {
        /// Its subject.
        subject: String,
        /// What it is for instead.
        what: String,
    },
    /// A certificate whose issuer was not given.
    #[error("the chain is incomplete: {subject} was issued by {issuer}, which was not given")]
    ChainIncomplete {
        /// The certificate the chain ends with.
        subject: String,
        /// Whose certificate is missing.
        issuer: String,
    },
    /// A complete chain that the TLS library refuses all the same.
    #[error("the chain of {subject} does not hold: {what}")]
    ChainInvalid {
        /// The leaf.
        subject: String,
        /// What is wrong.
        what: String,
    },
    /// A request that was not signed with the key in it.
    #[error("{}: the signature of the request is not that of the key in it", .0.display())]
    RequestSignature(PathBuf),
    /// A certificate that this authority did not issue.
    #[error("the certificate {subject} was issued by {issuer}, not by this authority")]
    OtherAuthority {
        /// The subject of the certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// A serial number or thumbprint that no issued certificate has.
    #[error("no certificate with the serial number or thumbprint {wanted} in {}", looked_in.display())]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// The folder of the issued certificates.
        looked_in: PathBuf,
    },
    /// The beginning of a serial number or thumbprint that several issued certificates have.
    #[error("{wanted} is the beginning of several: {}", found.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The serial numbers of those that fit.
        found: Vec<String>,
    },
    /// The library refused to build the certificate.
    #[error("cannot make the certificate: {0}")]
    Build(#[from] rcgen::Error),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers")]
    Randomness,
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
