//! The sections of a PEM file.

use zeroize::Zeroizing;

/// One section: what stands between a BEGIN and an END line.
pub(super) struct Section {
    /// The words behind BEGIN.
    pub(super) label: String,
    /// It has headers, which only the old encryption of OpenSSL writes.
    pub(super) has_headers: bool,
    /// What it encodes; it may be a key.
    pub(super) content: Zeroizing<Vec<u8>>,
}

/// What certificates are called; the second name is that of very old tools.
pub(super) const CERTIFICATE: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];
/// What requests are called.
pub(super) const REQUEST: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
/// What a revocation list is called.
pub(super) const REVOCATION_LIST: &str = "X509 CRL";

impl Section {
    pub(super) fn is_certificate(&self) -> bool {
        CERTIFICATE.contains(&self.label.as_str())
    }

    pub(super) fn is_request(&self) -> bool {
        REQUEST.contains(&self.label.as_str())
    }

    pub(super) fn is_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }
}

/// Whether the file is meant as PEM.
pub(super) fn is_pem(bytes: &[u8]) -> bool {
    starts(bytes) > 0
}

fn starts(bytes: &[u8]) -> usize {
    bytes.windows(11).filter(|window| window == b"-----BEGIN ").count()
}

/// Every section; what stands between them does not count.
pub(super) fn sections(bytes: &[u8]) -> Result<Vec<Section>, String> {
    let parsed = ::pem::parse_many(bytes).map_err(|error| format!("is damaged PEM: {error}"))?;
    // The library passes over a section without an end: half a chain would look like a whole one.
    if starts(bytes) != parsed.len() {
        return Err("is damaged PEM: a section has no end".to_owned());
    }
    Ok(parsed
        .into_iter()
        .map(|section| Section {
            label: section.tag().to_owned(),
            has_headers: section.headers().iter().next().is_some(),
            content: Zeroizing::new(section.into_contents()),
        })
        .collect())
}

/// A section as text.
pub(super) fn encode(label: &str, content: &[u8]) -> Zeroizing<String> {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    let section = ::pem::Pem::new(label, content);
    let text = Zeroizing::new(::pem::encode_config(&section, config));
    // The copy that the library made may be a key.
    drop(Zeroizing::new(section.into_contents()));
    text
}
