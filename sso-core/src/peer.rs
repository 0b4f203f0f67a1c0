//! Who a peer is by its certificate, and rules that tell certificates apart.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The extension that certificates of development carry, never critical and with any content:
/// object identifier `2.25.N`, where N is derived from a random UUID.
pub const DEVELOPMENT_OID: &[u64] = &[2, 25, 5_872_314_906_617_204_983];

/// What is read from a certificate that the TLS stack has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The common name of the subject; `None` when it has none or several.
    pub subject_common_name: Option<String>,
    /// Subject alternative names that are URIs.
    pub uris: Vec<String>,
    /// Subject alternative names that are mail addresses.
    pub emails: Vec<String>,
    /// Subject alternative names that are host names.
    pub dns_names: Vec<String>,
    /// SHA-256 of the whole certificate, 64 lower-case hexadecimal digits.
    pub thumbprint_sha256: String,
    /// SHA-1 of the whole certificate, 40 lower-case hexadecimal digits: what other systems show. It
    /// proves nothing.
    pub thumbprint_sha1: String,
    /// Lower-case hexadecimal. Says nothing about who the peer is.
    pub serial: String,
    /// The first second of its validity.
    pub not_before: OffsetDateTime,
    /// The last second of its validity.
    pub not_after: OffsetDateTime,
    /// Whether it is a certificate of development.
    pub development: bool,
}

/// Why a certificate is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate {0}")]
pub struct PeerError(&'static str);

impl PeerCertificate {
    /// Reads a certificate. Trust is the matter of the TLS stack, not of this.
    ///
    /// # Errors
    /// It is no certificate, bytes follow it, or a name in it holds a control character (a null in a
    /// name lets two programs see two different names).
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let parsed = parse_x509(certificate)?;
        let mut peer = Self {
            subject_common_name: common_name(&parsed)?,
            uris: Vec::new(),
            emails: Vec::new(),
            dns_names: Vec::new(),
            thumbprint_sha256: thumbprint_sha256(certificate),
            thumbprint_sha1: thumbprint_sha1(certificate),
            serial: hex(parsed.raw_serial()),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            development: has_development_mark(&parsed),
        };
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| PeerError("has alternative names that cannot be read"))?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            peer.add_name(name)?;
        }
        Ok(peer)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) -> Result<(), PeerError> {
        let (list, text) = match *name {
            GeneralName::URI(text) => (&mut self.uris, text),
            GeneralName::RFC822Name(text) => (&mut self.emails, text),
            GeneralName::DNSName(text) => (&mut self.dns_names, text),
            GeneralName::Invalid(..) => {
                return Err(PeerError("has an alternative name that cannot be read"));
            }
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => return Ok(()),
        };
        list.push(clean(text)?);
        Ok(())
    }
}

/// Which part of a certificate a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificatePart {
    /// `san_uri`: an alternative name that is a URI.
    SanUri,
    /// `san_email`: an alternative name that is a mail address.
    SanEmail,
    /// `san_dns`: an alternative name that is a host name; case does not matter.
    SanDns,
    /// `subject_common_name`: the common name of the subject.
    SubjectCommonName,
    /// `thumbprint`: SHA-256 of the certificate in hexadecimal; colons and case do not matter.
    Thumbprint,
}

impl CertificatePart {
    /// The key of it in settings.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::SanUri => "san_uri",
            Self::SanEmail => "san_email",
            Self::SanDns => "san_dns",
            Self::SubjectCommonName => "subject_common_name",
            Self::Thumbprint => "thumbprint",
        }
    }

    fn ignores_case(self) -> bool {
        matches!(self, Self::SanDns | Self::Thumbprint)
    }
}

/// One part of a certificate compared with a pattern, in which one `*` stands for one or more of
/// letters, digits, `.`, `_` and `-`. In settings a table with exactly one key, such as
/// `{ san_uri = "sso://DEV/*" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RuleKeys")]
pub struct CertificateRule {
    part: CertificatePart,
    before: String,
    /// What follows the `*`; `None` when the pattern has none.
    after: Option<String>,
}

/// What a rule says about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleMatch {
    /// The certificate does not fit.
    No,
    /// It fits, and this is what the `*` stands for; empty for a pattern without one.
    Yes(String),
    /// Several of its names fit with different results. A certificate that could be two peers is
    /// neither, and no other rule may be asked about it.
    Ambiguous,
}

/// Why a rule for certificates makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// No part is named, or more than one.
    #[error("name exactly one of san_uri, san_email, san_dns, subject_common_name and thumbprint")]
    Parts,
    /// The pattern is empty or a lone `*`.
    #[error("{0} is empty or matches every certificate")]
    TooWide(&'static str),
    /// The pattern has more than one `*`.
    #[error("{0} may have only one *")]
    Stars(&'static str),
    /// The thumbprint is no SHA-256.
    #[error("thumbprint has to be the 64 hexadecimal digits of the SHA-256 of the certificate")]
    Thumbprint,
}

impl CertificateRule {
    /// A rule about the only part that has a pattern.
    ///
    /// # Errors
    /// See [`RuleError`].
    pub fn new(
        parts: impl IntoIterator<Item = (CertificatePart, Option<String>)>,
    ) -> Result<Self, RuleError> {
        let mut given =
            parts.into_iter().filter_map(|(part, pattern)| pattern.map(|pattern| (part, pattern)));
        let (Some((part, pattern)), None) = (given.next(), given.next()) else {
            return Err(RuleError::Parts);
        };
        if part == CertificatePart::Thumbprint {
            return Self::of_thumbprint(&pattern);
        }
        if pattern.is_empty() || pattern == "*" {
            return Err(RuleError::TooWide(part.key()));
        }
        let (before, after) = match pattern.split_once('*') {
            Some((_, after)) if after.contains('*') => return Err(RuleError::Stars(part.key())),
            Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
            None => (pattern, None),
        };
        Ok(Self { part, before, after })
    }

    /// Whether the pattern has a `*`.
    #[must_use]
    pub fn has_star(&self) -> bool {
        self.after.is_some()
    }

    /// Whether the certificate fits.
    #[must_use]
    pub fn matches(&self, certificate: &PeerCertificate) -> RuleMatch {
        let names = match self.part {
            CertificatePart::SanUri => certificate.uris.as_slice(),
            CertificatePart::SanEmail => &certificate.emails,
            CertificatePart::SanDns => &certificate.dns_names,
            CertificatePart::SubjectCommonName => certificate.subject_common_name.as_slice(),
            CertificatePart::Thumbprint => std::slice::from_ref(&certificate.thumbprint_sha256),
        };
        let mut found: Option<&str> = None;
        for captured in names.iter().filter_map(|name| self.capture(name)) {
            match found {
                Some(earlier) if earlier != captured => return RuleMatch::Ambiguous,
                _ => found = Some(captured),
            }
        }
        found.map_or(RuleMatch::No, |captured| RuleMatch::Yes(captured.to_owned()))
    }

    fn of_thumbprint(pattern: &str) -> Result<Self, RuleError> {
        let digits = pattern.replace(':', "").to_ascii_lowercase();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RuleError::Thumbprint);
        }
        Ok(Self { part: CertificatePart::Thumbprint, before: digits, after: None })
    }

    fn capture<'n>(&self, name: &'n str) -> Option<&'n str> {
        let Some(after) = &self.after else {
            return self.same(name, &self.before).then_some("");
        };
        let end = name.len().checked_sub(after.len())?;
        let captured = name.get(self.before.len()..end)?;
        let fits = self.same(name.get(..self.before.len())?, &self.before)
            && self.same(name.get(end..)?, after)
            && !captured.is_empty()
            && captured.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        fits.then_some(captured)
    }

    fn same(&self, left: &str, right: &str) -> bool {
        if self.part.ignores_case() { left.eq_ignore_ascii_case(right) } else { left == right }
    }
}

/// The keys of a rule as they stand in settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleKeys {
    san_uri: Option<String>,
    san_email: Option<String>,
    san_dns: Option<String>,
    subject_common_name: Option<String>,
    /// `fingerprint` is what it was called first.
    #[serde(alias = "fingerprint")]
    thumbprint: Option<String>,
}

impl TryFrom<RuleKeys> for CertificateRule {
    type Error = RuleError;

    fn try_from(keys: RuleKeys) -> Result<Self, RuleError> {
        Self::new([
            (CertificatePart::SanUri, keys.san_uri),
            (CertificatePart::SanEmail, keys.san_email),
            (CertificatePart::SanDns, keys.san_dns),
            (CertificatePart::SubjectCommonName, keys.subject_common_name),
            (CertificatePart::Thumbprint, keys.thumbprint),
        ])
    }
}

/// Parses exactly one certificate.
pub(crate) fn parse_x509<'c>(
    certificate: &'c CertificateDer<'_>,
) -> Result<X509Certificate<'c>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(PeerError("is followed by other bytes")),
        Err(_) => Err(PeerError("is not one")),
    }
}

/// Whether the certificate carries [`DEVELOPMENT_OID`].
pub(crate) fn has_development_mark(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| {
        extension.oid.iter().is_some_and(|arcs| arcs.eq(DEVELOPMENT_OID.iter().copied()))
    })
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<Option<String>, PeerError> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(clean).transpose(),
        _ => Ok(None),
    }
}

fn clean(name: &str) -> Result<String, PeerError> {
    if name.chars().any(char::is_control) {
        return Err(PeerError("has a name with a control character"));
    }
    Ok(name.to_owned())
}

/// SHA-256 of the whole certificate, lower-case hexadecimal.
pub(crate) fn thumbprint_sha256(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(certificate))
}

/// SHA-1 of the whole certificate, lower-case hexadecimal.
pub(crate) fn thumbprint_sha1(certificate: &CertificateDer<'_>) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        edit(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn rule(part: CertificatePart, pattern: &str) -> Result<CertificateRule, RuleError> {
        CertificateRule::new([(part, Some(pattern.to_owned()))])
    }

    #[test]
    fn names_are_read() {
        let der = certificate(|params| {
            params.distinguished_name.remove(DnType::CommonName);
            params.distinguished_name.push(DnType::CommonName, "Ann");
            params.subject_alt_names.push(uri("sso://DEV/ann"));
            params.subject_alt_names.push(SanType::Rfc822Name("ann@x.example".try_into().unwrap()));
        });
        let peer = PeerCertificate::parse(&der).unwrap();
        assert_eq!(peer.subject_common_name.as_deref(), Some("Ann"));
        assert_eq!(peer.uris, ["sso://DEV/ann"]);
        assert_eq!(peer.emails, ["ann@x.example"]);
        assert_eq!(peer.dns_names, ["host.example"]);
        assert_eq!(peer.thumbprint_sha256.len(), 64);
        assert!(!peer.development);
        assert!(peer.not_before < peer.not_after);
    }

    #[test]
    fn the_development_mark_is_seen() {
        let der = certificate(|params| {
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(DEVELOPMENT_OID, vec![5, 0]));
        });
        assert!(PeerCertificate::parse(&der).unwrap().development);
    }

    #[test]
    fn a_null_in_a_name_is_refused() {
        let der = certificate(|params| params.subject_alt_names.push(uri("sso://DEV/ann\0.evil")));
        assert!(PeerCertificate::parse(&der).is_err());
        let der = certificate(|params| params.distinguished_name.push(DnType::CommonName, "a\0b"));
        assert!(PeerCertificate::parse(&der).is_err());
    }

    #[test]
    fn bytes_after_the_certificate_are_refused() {
        let mut bytes = certificate(|_| {}).to_vec();
        bytes.push(0);
        assert!(PeerCertificate::parse(&CertificateDer::from(bytes)).is_err());
    }

    #[test]
    fn the_star_stands_for_one_name() {
        let with = |names: &[&str]| {
            let der = certificate(|params| {
                params.subject_alt_names.extend(names.iter().map(|name| uri(name)));
            });
            PeerCertificate::parse(&der).unwrap()
        };
        let rule = rule(CertificatePart::SanUri, "sso://DEV/*").unwrap();
        let yes = |captured: &str| RuleMatch::Yes(captured.to_owned());
        assert_eq!(rule.matches(&with(&["sso://DEV/app-admin"])), yes("app-admin"));
        assert_eq!(rule.matches(&with(&["x:y", "sso://DEV/a"])), yes("a"));
        assert_eq!(rule.matches(&with(&["sso://DEV/a", "sso://DEV/a"])), yes("a"));
        assert_eq!(rule.matches(&with(&["sso://DEV/a", "sso://DEV/b"])), RuleMatch::Ambiguous);
        for names in [
            &["sso://DEV/"][..],
            &["sso://DEV/a/b"],
            &["sso://DEV/a%20b"],
            &["sso://dev/a"],
            &["xsso://DEV/a"],
            &[],
        ] {
            assert_eq!(rule.matches(&with(names)), RuleMatch::No, "{names:?}");
        }
    }

    #[test]
    fn a_pattern_without_star_is_exact() {
        let peer = PeerCertificate::parse(&certificate(|_| {})).unwrap();
        let fits = |part, pattern: &str| rule(part, pattern).unwrap().matches(&peer);
        let yes = |captured: &str| RuleMatch::Yes(captured.to_owned());
        assert_eq!(fits(CertificatePart::SanDns, "HOST.example"), yes(""));
        assert_eq!(fits(CertificatePart::SanDns, "host.example.org"), RuleMatch::No);
        assert_eq!(fits(CertificatePart::SanDns, "*.example"), yes("host"));
        let upper = peer.thumbprint_sha256.to_uppercase();
        assert_eq!(fits(CertificatePart::Thumbprint, &upper), yes(""));
        assert_eq!(fits(CertificatePart::Thumbprint, &"0".repeat(64)), RuleMatch::No);
    }

    #[test]
    fn bad_rules_are_refused() {
        let refused = |part, pattern| rule(part, pattern).unwrap_err();
        assert_eq!(refused(CertificatePart::SanUri, "a*b*"), RuleError::Stars("san_uri"));
        assert_eq!(refused(CertificatePart::SanUri, "*"), RuleError::TooWide("san_uri"));
        assert_eq!(refused(CertificatePart::SanDns, ""), RuleError::TooWide("san_dns"));
        assert_eq!(refused(CertificatePart::Thumbprint, "12:34"), RuleError::Thumbprint);
        assert_eq!(CertificateRule::new([]).unwrap_err(), RuleError::Parts);

        #[derive(Debug, Deserialize)]
        struct Holder {
            rule: CertificateRule,
        }
        let parsed = |text: &str| toml::from_str::<Holder>(text);
        let holder = parsed("rule = { san_uri = 'sso://DEV/*' }").unwrap();
        assert_eq!(holder.rule, rule(CertificatePart::SanUri, "sso://DEV/*").unwrap());
        assert!(parsed("rule = { san_uri = 'a', san_dns = 'b' }").is_err());
        assert!(parsed("rule = { san_uris = 'a' }").is_err());
        assert!(parsed("rule = {}").is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = PeerCertificate::parse(&CertificateDer::from(bytes));
        }

        #[test]
        fn damaged_certificates_never_panic(at in any::<prop::sample::Index>(), with in any::<u8>(),
            cut in any::<prop::sample::Index>())
        {
            static GOOD: std::sync::LazyLock<CertificateDer<'static>> =
                std::sync::LazyLock::new(|| certificate(|params| {
                    params.subject_alt_names.push(uri("sso://DEV/ann"));
                }));
            let mut bytes = GOOD.to_vec();
            let position = at.index(bytes.len());
            bytes[position] = with;
            let _ = PeerCertificate::parse(&CertificateDer::from(bytes.clone()));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(PeerCertificate::parse(&CertificateDer::from(bytes)).is_err());
        }

        #[test]
        fn a_capture_is_a_plain_name(name in ".{0,40}") {
            let rule = rule(CertificatePart::SanUri, "sso://DEV/*").unwrap();
            if let Some(captured) = rule.capture(&format!("sso://DEV/{name}")) {
                prop_assert_eq!(captured, name.as_str());
                prop_assert!(!captured.contains(['/', '\\', ' ', '@']));
            }
        }
    }
}
