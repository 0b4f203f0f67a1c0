//! Parties: who stands behind a certificate.

use std::collections::{BTreeMap, BTreeSet};

use sso_core::peer::PeerCertificate;

use super::{
    PortError, Thumbprint,
    fields::{Fields, several},
};
use crate::Configuration;

/// The word in front of the thumbprints of a party that is switched off.
const DISABLED: &str = "disabled";

/// Business partners by the thumbprints of their certificates: BizTalk's party resolution.
///
/// Read from one configuration of a config store application, in which every field is a party: the
/// label is its name, the value its thumbprints, separated by `,` `;` or new lines. Two of them stand
/// there while a certificate is being renewed. The word `disabled` in front switches a party off; an
/// empty value is a party without certificates.
///
/// ```text
/// gateway  = 3f07…e1, 99ab…03
/// oldbank  = disabled, 5c11…7d
/// ```
///
/// A thumbprint only says which certificate it is: resolve certificates that the TLS handshake has
/// verified, and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    parties: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    enabled: bool,
    thumbprints: BTreeSet<Thumbprint>,
}

/// Who stands behind a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// As it stands in the config store.
    pub name: String,
    /// The thumbprint that it was found by.
    pub thumbprint: Thumbprint,
}

/// Why nobody stands behind a certificate. Trying again does not help before somebody has changed the
/// parties in the config store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartyError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate, so it is no party")]
    NoCertificate,
    /// No party has a certificate of this thumbprint.
    #[error(
        "no party has the certificate with the thumbprint {thumbprint} ({subject}): add it to one in \
         the config store"
    )]
    Unknown {
        /// SHA-256.
        thumbprint: Thumbprint,
        /// The common name of the certificate, or what there is instead.
        subject: String,
    },
    /// Several parties have it.
    #[error(
        "the certificate with the thumbprint {thumbprint} belongs to several parties ({}): leave it \
         with one",
        parties.join(", ")
    )]
    Ambiguous {
        /// The thumbprint that was found twice.
        thumbprint: Thumbprint,
        /// Whose it is.
        parties: Vec<String>,
    },
    /// The party is switched off.
    #[error("the party {party} is disabled (thumbprint {thumbprint})")]
    Disabled {
        /// Its name.
        party: String,
        /// The thumbprint that it was found by.
        thumbprint: Thumbprint,
    },
}

impl PartyError {
    /// The word for logs and scripts.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoCertificate => "PARTY_WITHOUT_CERTIFICATE",
            Self::Unknown { .. } => "PARTY_UNKNOWN",
            Self::Ambiguous { .. } => "PARTY_AMBIGUOUS",
            Self::Disabled { .. } => "PARTY_DISABLED",
        }
    }
}

impl Parties {
    /// Reads the parties from their configuration; `name` is what the host calls the list.
    ///
    /// # Errors
    /// [`PortError`], which names every party with something that is no thumbprint.
    pub fn read(name: &str, values: &Configuration) -> Result<Self, PortError> {
        let mut fields = Fields::new(values);
        let mut parties = BTreeMap::new();
        for label in values.masked.iter().chain(values.values.keys()) {
            let text = fields.text(label).unwrap_or_default();
            let mut parts = several(text).peekable();
            let enabled = parts.next_if(|first| first.eq_ignore_ascii_case(DISABLED)).is_none();
            let mut thumbprints = BTreeSet::new();
            for (number, part) in parts.enumerate() {
                match part.parse() {
                    Ok(thumbprint) => {
                        thumbprints.insert(thumbprint);
                    }
                    Err(error) => {
                        let place = number + 1;
                        fields
                            .problem(label, format!("has no thumbprint in place {place}: {error}"));
                    }
                }
            }
            parties.insert(label.clone(), Entry { enabled, thumbprints });
        }
        fields.finish("list of parties", name, Some(Self { parties }))
    }

    /// Whose certificate it is. A party with its SHA-256 goes before those with its SHA-1.
    ///
    /// # Errors
    /// See [`PartyError`].
    pub fn resolve(&self, certificate: &PeerCertificate) -> Result<Party, PartyError> {
        for sha256 in [true, false] {
            let found: Vec<_> = self
                .parties
                .iter()
                .filter_map(|(name, entry)| {
                    let fits =
                        |it: &&Thumbprint| it.is_sha256() == sha256 && it.matches(certificate);
                    Some((name, entry, entry.thumbprints.iter().find(fits)?))
                })
                .collect();
            match found.as_slice() {
                [] => {}
                [(party, entry, thumbprint)] => {
                    let (party, thumbprint) = ((*party).clone(), (*thumbprint).clone());
                    return match entry.enabled {
                        true => Ok(Party { name: party, thumbprint }),
                        false => Err(PartyError::Disabled { party, thumbprint }),
                    };
                }
                [(_, _, thumbprint), ..] => {
                    return Err(PartyError::Ambiguous {
                        thumbprint: (*thumbprint).clone(),
                        parties: found.iter().map(|(name, ..)| (*name).clone()).collect(),
                    });
                }
            }
        }
        let subject = certificate.subject_common_name.as_deref();
        Err(PartyError::Unknown {
            thumbprint: Thumbprint::of(certificate),
            subject: subject.unwrap_or("without a common name").to_owned(),
        })
    }

    /// The names of all parties, also of those that are switched off.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parties.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::integration::testing::configuration;

    fn certificate(sha256: char, sha1: char) -> PeerCertificate {
        PeerCertificate {
            subject_common_name: Some("gateway.example".into()),
            uris: Vec::new(),
            emails: Vec::new(),
            dns_names: Vec::new(),
            thumbprint_sha256: sha256.to_string().repeat(64),
            thumbprint_sha1: sha1.to_string().repeat(40),
            serial: "01".into(),
            not_before: datetime!(2030-01-01 0:00 UTC),
            not_after: datetime!(2031-01-01 0:00 UTC),
            development: false,
        }
    }

    fn parties(values: &[(&str, &str)]) -> Parties {
        Parties::read("Parties", &configuration(values)).unwrap()
    }

    #[test]
    fn a_party_is_found_by_either_thumbprint() {
        let (a, b, c) = ("a".repeat(64), "B".repeat(64), "cc:".repeat(20));
        let both = format!("{a};\n{b},");
        let parties = parties(&[("gateway", &both), ("bank", &c), ("none", "")]);
        assert_eq!(parties.resolve(&certificate('a', '1')).unwrap().name, "gateway");
        assert_eq!(parties.resolve(&certificate('b', '1')).unwrap().name, "gateway");
        let bank = parties.resolve(&certificate('1', 'c')).unwrap();
        assert_eq!((bank.name.as_str(), bank.thumbprint.is_sha256()), ("bank", false));
        assert_eq!(
            parties.resolve(&certificate('a', 'c')).unwrap().name,
            "gateway",
            "SHA-256 first"
        );
        assert_eq!(parties.names().collect::<Vec<_>>(), ["bank", "gateway", "none"]);
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let (a, c) = ("a".repeat(64), "c".repeat(40));
        let disabled = format!("Disabled, {c}");
        let parties = parties(&[("one", &a), ("two", &a), ("old", &disabled), ("off", "disabled")]);
        let error = parties.resolve(&certificate('d', 'd')).unwrap_err();
        assert_eq!(error.as_str(), "PARTY_UNKNOWN");
        assert!(error.to_string().contains(&"d".repeat(64)), "{error}");
        assert!(error.to_string().contains("gateway.example"), "{error}");
        let error = parties.resolve(&certificate('a', '1')).unwrap_err();
        assert_eq!(error.as_str(), "PARTY_AMBIGUOUS");
        assert!(error.to_string().contains("one, two"), "{error}");
        let error = parties.resolve(&certificate('1', 'c')).unwrap_err();
        assert_eq!(error.as_str(), "PARTY_DISABLED");
        assert!(error.to_string().contains("party old is disabled"), "{error}");
    }

    #[test]
    fn every_bad_party_is_named() {
        let values =
            [("good", "a".repeat(64)), ("bad", "a".repeat(63)), ("worse", "canary".into())];
        let values: Vec<_> = values.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let error = Parties::read("Parties", &configuration(&values)).unwrap_err();
        let named: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(named, ["bad", "worse"]);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
