//! The rules of host-initiated logons: from an external user to the account it is mapped to
//! (ESSO.md 10).

use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use sso_core::secret::SecretText;
use sso_proto::Reason;
use subtle::{Choice, ConstantTimeEq as _};

use crate::{
    access::{Access, Action, Call},
    assertion::{Assertion, Assertions, Logon},
    audit::{Audit, Subject},
    cache::FoundMapping,
    error::Error,
    gates::Entry,
    identity::Identity,
    lookup::{Lookup, require_enabled},
    model::{
        Account, Application, ApplicationFlag, ApplicationName, ApplicationType, Bag, Caller,
        ExternalUser, MappingId, MappingKey, MappingView, ServingMapping,
    },
    storage::Storage,
    tickets::{Issued, Tickets},
    vault::{BagPlace, Vault},
};

/// The rules of host-initiated logons.
#[derive(Clone, Debug)]
pub struct HostInitiated {
    /// Decides.
    pub access: Arc<Access>,
    /// Records.
    pub audit: Audit,
    /// Opens.
    pub vault: Vault,
    /// Keeps.
    pub storage: Storage,
    /// Finds mappings.
    pub lookup: Lookup,
    /// Knows the groups.
    pub identity: Arc<Identity>,
    /// Makes tickets.
    pub tickets: Tickets,
    /// Signs assertions.
    pub assertions: Assertions,
}

/// Who logs on, where, with what.
#[derive(Debug)]
pub struct LogonRequest {
    /// The application.
    pub application: ApplicationName,
    /// Who it is in the other system.
    pub external_user: ExternalUser,
    /// What the external user proved that with, field 1 first.
    pub credentials: Vec<SecretText>,
    /// Read the database, whatever is cached.
    pub refresh: bool,
    /// Whom the assertion is for; empty = the first of those in the settings.
    pub audience: String,
}

/// Who an external user is.
#[derive(Debug)]
pub struct LoggedOn {
    /// The account.
    pub account: Account,
    /// For the account; `None` where the system allows no tickets.
    pub ticket: Option<Issued>,
    /// About the account; `None` where this server signs none.
    pub assertion: Option<Assertion>,
}

impl HostInitiated {
    /// The account that an external user is mapped to, with a ticket for it and an assertion. Nothing
    /// leaves before the record is durable.
    ///
    /// # Errors
    /// `REMOTE_LOOKUP_NOT_ALLOWED`, `HOST_INITIATED_OFF`, a missing role,
    /// `HOST_INITIATED_OFF_IN_APPLICATION`, `APPLICATION_DISABLED`, `ASSERTION_AUDIENCE_UNKNOWN`,
    /// `CREDENTIALS_MISMATCH`, `MAPPING_NOT_FOUND` (only where credentials are not compared),
    /// `MAPPING_DISABLED` and its kin, `ACCOUNT_NOT_IN_APPLICATION`, what the vault refuses,
    /// `AUDIT_UNAVAILABLE`.
    pub async fn logon(&self, call: &Call, request: &LogonRequest) -> Result<LoggedOn, Error> {
        let application = self.enter(call, request).await?;
        let audience = self.assertions.audience(&request.audience)?;
        let mapping = self.proved_mapping(call, &application, request).await?;
        require_enabled(&application, &mapping)?;
        let holder = self.holder(&application, &mapping)?;
        let allowed = self.access.global().tickets_allowed;
        let host = &call.caller.account;
        let ticket = match allowed {
            true => Some(self.tickets.make_of_logon(&holder, host).await?),
            false => None,
        };
        let logon = Logon {
            account: &mapping.account,
            application: &application.name,
            external_user: &mapping.external_user,
        };
        let assertion = match audience {
            Some(audience) => self.assertions.sign(logon, audience)?,
            None => None,
        };
        let compared = application.has(ApplicationFlag::ValidatePassword);
        let mut detail = format!("as {}", mapping.account);
        if let Some(issued) = &ticket {
            detail.push_str(&format!(", ticket {}", issued.ticket.id));
        }
        if let Some(assertion) = &assertion {
            detail.push_str(&format!(", assertion {}", assertion.id));
        }
        if !compared {
            detail.push_str(", credentials not compared");
        }
        let subject = subject(&application, &mapping.external_user, &detail);
        self.audit.reveal(call, Action::CredentialsLogon, subject).await?;
        if !compared {
            let (application, user) = (application.name.as_str(), &mapping.external_user);
            tracing::warn!(%call, application, external_user = %user, account = %mapping.account, "an external user was logged on without its credentials, as the application does not compare them");
        }
        Ok(LoggedOn { account: mapping.account, ticket, assertion })
    }

    /// The application, where external users may log on. That the system allows it comes first, then
    /// the role, so that nobody else is told how an application is set.
    async fn enter(&self, call: &Call, request: &LogonRequest) -> Result<Arc<Application>, Error> {
        let name = &request.application;
        let found = self.lookup.cache.application(name, request.refresh).await?;
        Entry { call, action: Action::CredentialsLogon, name }.pass(&self.access, found)
    }

    /// The mapping of the external user, who proved to be it where the application asks for that. There,
    /// an unknown user and wrong credentials take the same way to the same answer.
    async fn proved_mapping(
        &self,
        call: &Call,
        application: &Application,
        request: &LogonRequest,
    ) -> Result<ServingMapping, Error> {
        let key = MappingKey::ExternalUser(request.external_user.clone());
        if !application.has(ApplicationFlag::ValidatePassword) {
            let found = self.lookup.mapping(application, &key, request.refresh).await?;
            return Ok(found.mapping);
        }
        // Only what exists is remembered: what is compared is always read, or the time would tell.
        let stored = match self.lookup.mapping(application, &key, true).await {
            Ok(stored) => Some(stored),
            Err(error) if error.reason == Reason::MappingNotFound => None,
            Err(error) => return Err(error),
        };
        let expected = self.expected(application, stored.as_ref(), request)?;
        let proved = are_equal(&request.credentials, expected.as_deref());
        match stored {
            Some(stored) if proved => Ok(stored.mapping),
            Some(_) | None => Err(self.mismatch(call, application, &request.external_user).await),
        }
    }

    /// What the external user has to give; `None` where nothing is enough.
    fn expected(
        &self,
        application: &Application,
        stored: Option<&FoundMapping>,
        request: &LogonRequest,
    ) -> Result<Option<Vec<SecretText>>, Error> {
        if let Some(stored) = stored.filter(|stored| stored.sealed.is_some()) {
            return match self.lookup.open(application, stored) {
                // Without a field for them there is nothing to compare and nothing is proved.
                Ok(credentials) if credentials.values.is_empty() => Ok(None),
                Ok(credentials) => Ok(Some(credentials.values)),
                Err(error) if error.reason == Reason::CredentialsNotSet => Ok(None),
                Err(error) => Err(error),
            };
        }
        let mut like = Bag::default();
        for (field, value) in application.fields.iter().skip(1).zip(&request.credentials) {
            like.put(field.ordinal, field.label.as_str(), value.clone())?;
        }
        let nobody = Account::parse("D\\nobody")?;
        let account = (application.kind != ApplicationType::HostGroup).then_some(&nobody);
        let user = &request.external_user;
        let place = BagPlace::credentials(application.id, MappingId::generate(), account, user);
        self.vault.open_nothing(&place, &like)?;
        Ok(None)
    }

    /// Records that somebody did not prove to be the external user.
    async fn mismatch(
        &self,
        call: &Call,
        application: &Application,
        external_user: &ExternalUser,
    ) -> Error {
        let reason = Reason::CredentialsMismatch;
        let subject = subject(application, external_user, "");
        self.audit.denied(call, Action::CredentialsLogon, subject, reason).await;
        let name = application.name.as_str();
        let message = format!(
            "the credentials are not those of external user \"{external_user}\" in application \"{name}\", or it has none"
        );
        Error::new(reason, message)
    }

    /// The account of the mapping with its groups, while it is among the users of the application.
    pub(crate) fn holder<'a>(
        &self,
        application: &Application,
        mapping: impl Into<MappingView<'a>>,
    ) -> Result<Caller, Error> {
        let mapping = mapping.into();
        let holder = self.identity.as_known(mapping.account);
        holder.filter(|holder| application.has_user(holder)).ok_or_else(|| {
            let known = self.identity.knows_groups_of(mapping.account);
            let mut message = format!(
                "external user \"{}\" is mapped to {}, who is not among the users of application \"{}\"",
                mapping.external_user, mapping.account, application.name
            );
            if !known {
                message.push_str(", as far as is known without its token; name the account itself");
            }
            Error::new(Reason::AccountNotInApplication, message)
        })
    }
}

fn subject<'a>(
    application: &'a Application,
    external_user: &'a ExternalUser,
    detail: &'a str,
) -> Subject<'a> {
    Subject { application: application.name.as_str(), object: external_user.as_str(), detail }
}

/// Whether the credentials are those expected, all of them and no more. The time it takes depends on
/// what is given, and not on what is expected or whether anything is: without, what is given is
/// compared with itself. Digests are compared, so that the length of a value does not show either.
fn are_equal(given: &[SecretText], expected: Option<&[SecretText]>) -> bool {
    let known = Choice::from(u8::from(expected.is_some()));
    let expected = expected.unwrap_or(given);
    let mut equal = known & (given.len() as u64).ct_eq(&(expected.len() as u64));
    let nothing = SecretText::new(String::new());
    for (place, value) in given.iter().enumerate() {
        let other = expected.get(place).unwrap_or(&nothing);
        equal &= digest_of(value).as_ref().ct_eq(digest_of(other).as_ref());
    }
    equal.into()
}

fn digest_of(value: &SecretText) -> Digest {
    // Expose: only the digest goes on.
    digest(&SHA256, value.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<SecretText> {
        texts.iter().map(|text| SecretText::new((*text).to_owned())).collect()
    }

    #[test]
    fn credentials_are_equal_when_all_are_and_none_is_missing_or_too_much() {
        let stored = texts(&["one", "two"]);
        assert!(are_equal(&texts(&["one", "two"]), Some(&stored)));
        for given in [
            &["one", "twO"][..],
            &["onE", "two"],
            &["two", "one"],
            &["one"],
            &["one", "two", ""],
            &["one", "two", "three"],
            &["onetwo", ""],
            &["", ""],
            &[],
        ] {
            assert!(!are_equal(&texts(given), Some(&stored)), "{given:?}");
        }
    }

    #[test]
    fn nothing_is_equal_to_nothing_known() {
        for given in [&["one", "two"][..], &[""], &[]] {
            assert!(!are_equal(&texts(given), None), "{given:?}");
        }
    }
}
