//! Names of subjects: read from text, and taken over from requests.

use std::str::FromStr;

use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::{asn1_rs::Tag, x509::X509Name};

use super::RequestedName;

/// The longest value of a part: RFC 5280 allows 64 characters of most kinds.
const LONGEST: usize = 64;

/// A subject such as `CN=gateway.example,O=Example,C=DE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    name: DistinguishedName,
    parts: Vec<RequestedName>,
}

impl Subject {
    fn empty() -> Self {
        Self { name: DistinguishedName::new(), parts: Vec::new() }
    }

    pub(super) fn into_name(self) -> DistinguishedName {
        self.name
    }

    /// Its parts, in their order.
    #[must_use]
    pub fn parts(&self) -> &[RequestedName] {
        &self.parts
    }

    /// The library keeps one value of each kind, and would forget the first one.
    fn add(&mut self, kind: DnType, text: &str, value: DnValue) -> Result<(), String> {
        if self.name.get(&kind).is_some() {
            return Err("has two parts of the same kind".to_owned());
        }
        self.parts.push(RequestedName::of_subject(&kind, text));
        self.name.push(kind, value);
        Ok(())
    }

    /// Takes a name over as it is, byte for byte where it is text.
    ///
    /// # Errors
    /// What about it cannot be taken over.
    pub(super) fn from_x509(name: &X509Name<'_>) -> Result<Self, String> {
        let mut subject = Self::empty();
        for part in name.iter() {
            let mut attributes = part.iter();
            let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
                return Err("has a part with several values".to_owned());
            };
            let oid: Vec<u64> =
                attribute.attr_type().iter().ok_or("has a part of a strange kind")?.collect();
            let kind = DnType::from_oid(&oid);
            let text = attribute.as_str().map_err(|_| "has a part that is no plain text")?;
            if text.chars().any(char::is_control) {
                return Err("has a control character in it".to_owned());
            }
            if text.chars().count() > LONGEST {
                return Err(format!("has a part of more than {LONGEST} characters"));
            }
            let unusable = |_| "has a part that is no plain text".to_owned();
            let tag = attribute.attr_value().tag();
            let value = if tag == Tag::Utf8String {
                DnValue::Utf8String(text.to_owned())
            } else if tag == Tag::PrintableString {
                DnValue::PrintableString(text.try_into().map_err(unusable)?)
            } else if tag == Tag::Ia5String {
                DnValue::Ia5String(text.try_into().map_err(unusable)?)
            } else {
                return Err("has a part in an old way of writing text".to_owned());
            };
            subject.add(kind, text, value)?;
        }
        Ok(subject)
    }

    /// Whether it has no part at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl FromStr for Subject {
    type Err = String;

    /// Parts with a comma between them; a comma or backslash of a value has a backslash in front.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut subject = Self::empty();
        for part in split(text)? {
            let Some((kind, value)) = part.split_once('=') else {
                return Err(format!("'{part}' has no '='; write it like CN=gateway.example,C=DE"));
            };
            let (kind, value) = (kind.trim(), value.trim());
            if value.is_empty() || value.chars().count() > LONGEST {
                return Err(format!("the value of {kind} has 1 to {LONGEST} characters"));
            }
            if value.chars().any(char::is_control) {
                return Err(format!("the value of {kind} has a control character in it"));
            }
            let (kind, coded) = match kind.to_ascii_uppercase().as_str() {
                "CN" => (DnType::CommonName, DnValue::Utf8String(value.to_owned())),
                "O" => (DnType::OrganizationName, DnValue::Utf8String(value.to_owned())),
                "OU" => (DnType::OrganizationalUnitName, DnValue::Utf8String(value.to_owned())),
                "L" => (DnType::LocalityName, DnValue::Utf8String(value.to_owned())),
                "ST" => (DnType::StateOrProvinceName, DnValue::Utf8String(value.to_owned())),
                "C" => (DnType::CountryName, country(value)?),
                _ => return Err(format!("'{kind}' is none of CN, O, OU, L, ST, C")),
            };
            subject.add(kind, value, coded)?;
        }
        Ok(subject)
    }
}

fn country(code: &str) -> Result<DnValue, String> {
    let wrong = || "C is a country of two letters, such as DE".to_owned();
    if code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(wrong());
    }
    code.to_ascii_uppercase().as_str().try_into().map(DnValue::PrintableString).map_err(|_| wrong())
}

/// The parts between commas, without the backslashes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let taken = match character {
            ',' => {
                parts.push(String::new());
                continue;
            }
            '\\' => characters.next().ok_or("ends with a backslash")?,
            other => other,
        };
        if let Some(part) = parts.last_mut() {
            part.push(taken);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_from_text() {
        let subject: Subject = r"CN=gw.example, O=Example\, Inc.,c=de".parse().unwrap();
        let parts: Vec<_> = subject.parts().iter().map(ToString::to_string).collect();
        assert_eq!(parts, ["CN \"gw.example\"", "O \"Example, Inc.\"", "C \"de\""]);
        assert_eq!(subject.name.iter().count(), 3);
        assert_eq!(subject.name.get(&DnType::OrganizationName).unwrap(), &"Example, Inc.".into());
        for bad in ["", "CN", "CN=", "X=1", "CN=a,CN=b", "C=DEU", "CN=a\\", "CN=a\u{7}", "=x"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
        assert!(format!("CN={}", "x".repeat(65)).parse::<Subject>().is_err());
    }
}
