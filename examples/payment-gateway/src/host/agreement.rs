//! What the house and the gateway have agreed on, besides addresses and certificates: a configuration
//! of the config store of the host's own.

use std::{collections::BTreeSet, fmt::Display};

use sso_client::{
    Configuration,
    integration::{FieldProblem, PortError},
};

use crate::{notification::Verifier, upload::Scheme};

const GATEWAY_PARTY: &str = "GatewayParty";
const GATEWAY_NAME: &str = "GatewayName";
const GATEWAY_KEY: &str = "GatewayKey";
const AUTHENTICATION: &str = "Authentication";
const PORTAL_PARTIES: &str = "PortalParties";

/// Who may do what, and how it is proved.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The party whose notifications are taken.
    pub(super) gateway: String,
    /// What its notifications are verified with.
    pub(super) verifier: Verifier,
    /// How the credentials of a user are shown to the gateway.
    pub(super) scheme: Scheme,
    /// The parties that hand in bills.
    pub(super) portals: BTreeSet<String>,
}

impl Agreement {
    /// The keys of the configuration, all of them needed: `GatewayParty` and `PortalParties` (names
    /// of parties, separated by commas), `GatewayName` (`iss` of notifications), `GatewayKey` (the
    /// public key, 43 characters), `Authentication` (`basic` or `bearer`).
    pub const FIELDS: &'static [&'static str] =
        &[GATEWAY_PARTY, GATEWAY_NAME, GATEWAY_KEY, AUTHENTICATION, PORTAL_PARTIES];

    /// Reads it from its configuration.
    ///
    /// # Errors
    /// Names every key that is missing or makes no sense.
    pub fn read(name: &str, values: &Configuration) -> Result<Self, PortError> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, problem: &dyn Display| {
            problems.push(FieldProblem { key: key.to_owned(), problem: problem.to_string() });
        };
        let mut text = |key: &str| {
            // Expose: none of these values is a secret.
            let text = values.value(key).map(|it| it.expose().trim()).unwrap_or_default();
            if text.is_empty() {
                problem(key, &"is missing");
            }
            text
        };
        let (gateway, issuer, key) = (text(GATEWAY_PARTY), text(GATEWAY_NAME), text(GATEWAY_KEY));
        let (scheme, portals) = (text(AUTHENTICATION), text(PORTAL_PARTIES));
        let verifier = match Verifier::new(issuer, key) {
            Ok(verifier) => Some(verifier),
            Err(_) if key.is_empty() => None,
            Err(error) => {
                problem(GATEWAY_KEY, &format_args!("is not usable: {error}"));
                None
            }
        };
        let parsed = Scheme::parse(scheme);
        if parsed.is_none() && !scheme.is_empty() {
            problem(AUTHENTICATION, &"has to be basic or bearer");
        }
        match (verifier, parsed) {
            (Some(verifier), Some(scheme)) if problems.is_empty() => Ok(Self {
                gateway: gateway.to_owned(),
                verifier,
                scheme,
                portals: portals
                    .split(',')
                    .map(|portal| portal.trim().to_owned())
                    .filter(|portal| !portal.is_empty())
                    .collect(),
            }),
            _ => Err(PortError {
                port: format!("the agreement '{name}'"),
                configuration: format!(
                    "configuration {}/{}, revision {}",
                    values.application, values.identifier, values.revision
                ),
                problems,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sso_core::secret::SecretText;

    use super::*;

    fn configuration(values: &[(&str, &str)]) -> Configuration {
        let secret = |text: &str| SecretText::new(text.to_owned());
        Configuration {
            application: "App".into(),
            identifier: "Id".into(),
            revision: 3,
            values: values
                .iter()
                .map(|(k, v)| ((*k).to_owned(), secret(v)))
                .collect::<BTreeMap<_, _>>(),
            masked: Vec::new(),
            updated_at: None,
            updated_by: String::new(),
        }
    }

    #[test]
    fn every_bad_key_is_named() {
        let key = "A".repeat(43);
        let good = [
            (GATEWAY_PARTY, "gateway"),
            (GATEWAY_NAME, "gateway.example"),
            (GATEWAY_KEY, key.as_str()),
            (AUTHENTICATION, "bearer"),
            (PORTAL_PARTIES, "portal, second ,"),
        ];
        let read = Agreement::read("x", &configuration(&good)).unwrap();
        assert_eq!(read.portals.iter().collect::<Vec<_>>(), ["portal", "second"]);
        assert_eq!(read.scheme, Scheme::Bearer);

        let error = Agreement::read("x", &configuration(&[])).unwrap_err();
        let named: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(named, Agreement::FIELDS);
        let bad = [(GATEWAY_KEY, "short"), (AUTHENTICATION, "digest")];
        let values: Vec<_> = good.iter().copied().chain(bad).collect();
        let error = Agreement::read("x", &configuration(&values)).unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
    }
}
