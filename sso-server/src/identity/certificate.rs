//! Who a client certificate stands for.

use std::collections::BTreeSet;

use sso_core::peer::{CertificateRule, PeerCertificate, RuleMatch};
use sso_proto::Reason;

use crate::{error::Error, model::Account};

/// Turns a certificate into an account `DOMAIN\name`, where the name may have one `*` for what the `*`
/// of the certificate's pattern stands for. The domain has none: a certificate cannot choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRule {
    certificate: CertificateRule,
    before: String,
    /// What follows the `*`; `None` when there is none.
    after: Option<String>,
}

impl AccountRule {
    /// A rule for accounts of one of `domains` (canonical), the ones that certificates may assert.
    ///
    /// # Errors
    /// `INVALID_ACCOUNT` and its kin: the account is not of the form, is of another domain, or has a
    /// `*` that stands for nothing.
    pub fn new(
        certificate: CertificateRule,
        account: &str,
        domains: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::new(Reason::InvalidAccount, format!("account \"{account}\" {why}")))
        };
        let (before, after) = match account.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (account, None),
        };
        if after.is_some_and(|after| after.contains('*'))
            || !before.contains('\\') && after.is_some()
        {
            return refuse("may have only one *, and none in the domain");
        }
        if after.is_some() && !certificate.has_star() {
            return refuse("has a *, and the pattern for the certificate has none to stand for it");
        }
        // What takes the place of the star are letters, digits, dots, hyphens and underscores.
        let example = Account::parse(&account.replace('*', "x"))?;
        if !example.domain().is_some_and(|domain| domains.contains(domain)) {
            return refuse("is of a domain that identity.domains does not list");
        }
        let (before, after) = (before.to_owned(), after.map(str::to_owned));
        Ok(Self { certificate, before, after })
    }

    /// The account; `Some(None)` when the rule decides that the certificate stands for nobody.
    pub(super) fn account(&self, certificate: &PeerCertificate) -> Option<Option<Account>> {
        let captured = match self.certificate.matches(certificate) {
            RuleMatch::No => return None,
            RuleMatch::Ambiguous => return Some(None),
            RuleMatch::Yes(captured) => captured,
        };
        let account = match &self.after {
            Some(after) => Account::parse(&format!("{}{captured}{after}", self.before)),
            None => Account::parse(&self.before),
        };
        Some(account.ok())
    }
}
