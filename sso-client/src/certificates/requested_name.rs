//! The names that a request asks for, one by one, for those who decide about it.

use std::fmt;

use rcgen::DnType;
use sso_core::peer::CertificatePart;
use x509_parser::extensions::GeneralName;

use super::description::name_text;

/// A part of a subject or an alternative name. It is shown with its kind in front and in quotes, without
/// control characters, so that no name can pass for two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedName {
    /// `CN`, `O` and so on of a subject, numbers for kinds without letters; `DNS`, `IP`, `URI`, `email`.
    pub kind: String,
    /// The name itself, as it was asked for.
    pub value: String,
}

impl RequestedName {
    pub(super) fn of_subject(kind: &DnType, value: &str) -> Self {
        let kind = match kind {
            DnType::CommonName => "CN".to_owned(),
            DnType::CountryName => "C".to_owned(),
            DnType::LocalityName => "L".to_owned(),
            DnType::StateOrProvinceName => "ST".to_owned(),
            DnType::OrganizationName => "O".to_owned(),
            DnType::OrganizationalUnitName => "OU".to_owned(),
            DnType::CustomDnType(oid) => {
                oid.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
            }
            _ => "?".to_owned(),
        };
        Self { kind, value: value.to_owned() }
    }

    pub(super) fn alternative(name: &GeneralName<'_>) -> Self {
        let text = name_text(name);
        let (kind, value) = text.split_once(':').unwrap_or(("", &text));
        Self { kind: kind.to_owned(), value: value.to_owned() }
    }

    /// The key of those rules in the settings of SSO servers and masters that look at names of this
    /// kind; `None` where no rule does.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        let part = match self.kind.as_str() {
            "CN" => CertificatePart::SubjectCommonName,
            "URI" => CertificatePart::SanUri,
            "email" => CertificatePart::SanEmail,
            "DNS" => CertificatePart::SanDns,
            _ => return None,
        };
        Some(part.key())
    }
}

impl fmt::Display for RequestedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.kind, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_the_rule_that_looks_at_it() {
        for (name, shown, rule) in [
            (
                RequestedName::of_subject(&DnType::CommonName, "a"),
                "CN \"a\"",
                Some("subject_common_name"),
            ),
            (RequestedName::of_subject(&DnType::OrganizationName, "a"), "O \"a\"", None),
            (RequestedName::of_subject(&DnType::CustomDnType(vec![1, 2]), "a"), "1.2 \"a\"", None),
            (
                RequestedName::alternative(&GeneralName::DNSName("a.example")),
                "DNS \"a.example\"",
                Some("san_dns"),
            ),
            (
                RequestedName::alternative(&GeneralName::RFC822Name("a@b")),
                "email \"a@b\"",
                Some("san_email"),
            ),
            (
                RequestedName::alternative(&GeneralName::URI("spiffe://a/b")),
                "URI \"spiffe://a/b\"",
                Some("san_uri"),
            ),
            (
                RequestedName::alternative(&GeneralName::IPAddress(&[10, 0, 0, 7])),
                "IP \"10.0.0.7\"",
                None,
            ),
        ] {
            assert_eq!((name.to_string().as_str(), name.rule()), (shown, rule));
        }
    }

    #[test]
    fn no_name_passes_for_two() {
        let name = RequestedName::of_subject(&DnType::CommonName, "x\", O \"Corp\u{202e}\n");
        assert_eq!(name.to_string(), "CN \"x\\\", O \\\"Corp\\u{202e}\\n\"");
    }
}
