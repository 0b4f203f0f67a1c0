//! What is in use, for people and monitoring.

use time::OffsetDateTime;

use super::settings::{ClientCertificate, RevocationPolicy, TlsVersion};

/// What TLS has in use, and how the last reload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsStatus {
    /// Counts reloads that changed something, from 1.
    pub generation: u64,
    /// When the files were last loaded with success.
    pub loaded_at: OffsetDateTime,
    /// The last reload that failed, if none succeeded since: when, and why.
    pub last_failure: Option<(OffsetDateTime, String)>,
    /// The oldest protocol version spoken.
    pub minimum_version: TlsVersion,
    /// The policy in force.
    pub revocation: RevocationPolicy,
    /// Whether those who connect have to show a certificate.
    pub client_certificate: ClientCertificate,
    /// The program's own certificate and its intermediates (none for a caller without), then the
    /// authorities it trusts.
    pub certificates: Vec<CertificateStatus>,
    /// Every revocation list at hand, and every source that has none to offer.
    pub lists: Vec<ListStatus>,
}

/// What a certificate is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRole {
    /// The program's own.
    Own,
    /// Sent along with it, so that peers find the way to their authority.
    Intermediate,
    /// Peers' certificates must come from it.
    Authority,
}

impl CertificateRole {
    /// In one word: `own`, `intermediate`, `authority`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Intermediate => "intermediate",
            Self::Authority => "authority",
        }
    }
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// What it is here for.
    pub role: CertificateRole,
    /// Its subject in one line.
    pub subject: String,
    /// The subject of the authority that issued it.
    pub issuer: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// SHA-1 of the whole certificate, 40 lower-case hexadecimal digits.
    pub thumbprint_sha1: String,
    /// SHA-256 of the whole certificate, 64 lower-case hexadecimal digits.
    pub thumbprint_sha256: String,
    /// The first second of its validity.
    pub not_before: OffsetDateTime,
    /// The last second of its validity.
    pub not_after: OffsetDateTime,
}

/// A revocation list at hand, or a source that has none to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListStatus {
    /// The file or URL.
    pub source: String,
    /// The authority that it is of, in one line; `None`: there is no list.
    pub issuer: Option<String>,
    /// When it was issued.
    pub this_update: Option<OffsetDateTime>,
    /// Until when it holds.
    pub next_update: Option<OffsetDateTime>,
    /// When it was last fetched with success, or the file was read.
    pub fetched_at: Option<OffsetDateTime>,
    /// What is wrong, in words; `None`: nothing.
    pub problem: Option<String>,
}
