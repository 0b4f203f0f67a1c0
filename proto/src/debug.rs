//! `Debug` of the messages that carry secrets: labels and sizes, never a value.

use std::fmt;

use crate::v1::{
    Assertion, BackupLocks, BackupOpener, BackupResponse, Configuration, CredentialValues,
    GenerationKey, NewValue, PrepareResponse, SetConfigurationRequest, Ticket, UserToken,
};

impl fmt::Debug for NewValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.value {
            Some(_) => "NewValue(redacted)",
            None => "NewValue(keep)",
        })
    }
}

impl fmt::Debug for CredentialValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialValues({} redacted)", self.values.len())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(redacted)")
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserToken(redacted)")
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion(redacted)")
    }
}

impl fmt::Debug for GenerationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationKey")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BackupOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupOpener(redacted)")
    }
}

impl fmt::Debug for BackupLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupLocks")
            .field("officers", &self.officers.len())
            .field("shares", &self.shares)
            .field("shares_needed", &self.shares_needed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PrepareResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareResponse")
            .field("generation", &self.generation)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BackupResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupResponse").field("shares", &self.shares.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut labels: Vec<_> = self.values.keys().collect();
        labels.sort();
        f.debug_struct("Configuration")
            .field("application", &self.application)
            .field("identifier", &self.identifier)
            .field("revision", &self.revision)
            .field("labels", &labels)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SetConfigurationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut labels: Vec<_> = self.values.keys().collect();
        labels.sort();
        f.debug_struct("SetConfigurationRequest")
            .field("application", &self.application)
            .field("identifier", &self.identifier)
            .field("labels", &labels)
            .field("if_revision", &self.if_revision)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::v1::{CreateMappingRequest, IssueTicketRequest, LogonExternalUserResponse};

    const CANARY: &str = "canary-5d1e";

    #[test]
    fn no_message_shows_a_value() {
        let value = NewValue { value: Some(CANARY.into()) };
        let request = SetConfigurationRequest {
            application: "App".into(),
            values: HashMap::from([("Label".to_owned(), value.clone())]),
            ..Default::default()
        };
        let configuration = Configuration {
            values: HashMap::from([("Label".to_owned(), CANARY.to_owned())]),
            ..Default::default()
        };
        let key = GenerationKey { generation: 3, key: CANARY.as_bytes().to_vec() };
        let credentials = CredentialValues { values: vec![CANARY.to_owned()] };
        let ticket = Some(Ticket { text: CANARY.to_owned() });
        let user_token = Some(UserToken { text: CANARY.to_owned() });
        let assertion = Some(Assertion { text: CANARY.to_owned() });
        let issue = IssueTicketRequest { application: String::new(), user_token };
        let logon = LogonExternalUserResponse { ticket, assertion, ..Default::default() };
        let create = CreateMappingRequest { credentials: Some(credentials), ..Default::default() };
        for text in [
            format!("{value:?}"),
            format!("{request:#?}"),
            format!("{configuration:#?}"),
            format!("{key:?}"),
            format!("{issue:?}"),
            format!("{logon:?}"),
            format!("{create:?}"),
        ] {
            assert!(!text.contains(CANARY), "{text}");
            assert!(!text.contains("99, 97, 110"), "{text}");
        }
        assert!(format!("{request:?}").contains("Label"));
    }
}
