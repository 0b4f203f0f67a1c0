//! Who a client certificate stands for, and which groups that account is in.

use std::{collections::BTreeSet, sync::Arc};

use sso_core::peer::{CertificateRule, PeerCertificate, RuleMatch};
use sso_proto::Reason;

use crate::{
    error::Error,
    groups::Groups,
    model::{Account, Caller},
};

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
    fn account(&self, certificate: &PeerCertificate) -> Option<Option<Account>> {
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

/// Knows every caller. Clones share the groups.
#[derive(Clone, Debug)]
pub struct Identity {
    rules: Vec<AccountRule>,
    domains: BTreeSet<String>,
    groups: Arc<Groups>,
}

impl Identity {
    /// Callers by these rules, the first that fits decides; `domains` (canonical) are all that the
    /// rules may assert.
    #[must_use]
    pub fn new(rules: Vec<AccountRule>, domains: BTreeSet<String>, groups: Arc<Groups>) -> Self {
        Self { rules, domains, groups }
    }

    /// Who the certificate stands for; `None` when no rule fits, when the first one fits in several
    /// ways, or when what it makes of the certificate is no account.
    #[must_use]
    pub fn caller(&self, certificate: &PeerCertificate) -> Option<Caller> {
        let account = self.rules.iter().find_map(|rule| rule.account(certificate))??;
        // The rules were checked; this holds even if one slips through.
        if !account.domain().is_some_and(|domain| self.domains.contains(domain)) {
            return None;
        }
        self.with_groups(account)
    }

    /// The same account with the groups that it is in now; `None` when a group has its name by now.
    #[must_use]
    pub fn again(&self, caller: &Caller) -> Option<Caller> {
        self.with_groups(caller.account.clone())
    }

    fn with_groups(&self, account: Account) -> Option<Caller> {
        // A certificate in the name of a group would hold the roles of all its members.
        if self.groups.has(&account) {
            return None;
        }
        let groups = self.groups.of(&account);
        Some(Caller { account, groups })
    }

    /// Whether the file of groups has a group of this name.
    #[must_use]
    pub fn is_group(&self, account: &Account) -> bool {
        self.groups.has(account)
    }

    /// The groups, to be watched.
    #[must_use]
    pub fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }
}

#[cfg(test)]
mod tests {
    use sso_core::peer::CertificatePart;
    use time::OffsetDateTime;

    use super::*;

    fn domains() -> BTreeSet<String> {
        ["dev", "contoso"].map(str::to_owned).into()
    }

    fn certificate_rule(part: CertificatePart, pattern: &str) -> CertificateRule {
        CertificateRule::new([(part, Some(pattern.to_owned()))]).unwrap()
    }

    fn rule(part: CertificatePart, pattern: &str, account: &str) -> AccountRule {
        AccountRule::new(certificate_rule(part, pattern), account, &domains()).unwrap()
    }

    fn certificate(uris: &[&str], emails: &[&str]) -> PeerCertificate {
        PeerCertificate {
            subject_common_name: Some("DEV\\admin".into()),
            uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
            emails: emails.iter().map(|&email| email.to_owned()).collect(),
            dns_names: Vec::new(),
            fingerprint_sha256: "0".repeat(64),
            serial: "01".into(),
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: OffsetDateTime::UNIX_EPOCH,
            development: false,
        }
    }

    fn identity(rules: Vec<AccountRule>) -> Identity {
        Identity::new(rules, domains(), Groups::load(None).unwrap())
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let identity = identity(vec![
            rule(CertificatePart::SanUri, "sso://DEV/robot", "DEV\\service"),
            rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*"),
            rule(CertificatePart::SanEmail, "*@contoso.example", "CONTOSO\\mail-*"),
        ]);
        let account = |uris: &[&str], emails: &[&str]| {
            let caller = identity.caller(&certificate(uris, emails))?;
            Some(caller.account.as_str().to_owned())
        };
        assert_eq!(account(&["sso://DEV/robot"], &[]).as_deref(), Some("DEV\\service"));
        assert_eq!(account(&["sso://DEV/ann"], &[]).as_deref(), Some("DEV\\ann"));
        assert_eq!(account(&[], &["bo@contoso.example"]).as_deref(), Some("CONTOSO\\mail-bo"));
        assert_eq!(account(&["sso://PROD/ann"], &[]), None);
        assert_eq!(account(&[], &[]), None);
    }

    #[test]
    fn an_ambiguous_certificate_is_nobody_to_later_rules_too() {
        let identity = identity(vec![
            rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*"),
            rule(CertificatePart::SanEmail, "*@contoso.example", "CONTOSO\\mail-*"),
        ]);
        let email = ["bo@contoso.example"];
        let two = certificate(&["sso://DEV/ann", "sso://DEV/bob"], &email);
        assert!(identity.caller(&two).is_none());
        assert!(identity.caller(&certificate(&[], &email)).is_some());
    }

    #[test]
    fn the_name_of_a_group_is_nobody_also_later() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("groups.toml");
        std::fs::write(
            &file,
            "version = 1\n[groups]\n'DEV\\ann' = []\n'DEV\\all' = ['DEV\\bob']\n",
        )
        .unwrap();
        let identity = Identity::new(Vec::new(), domains(), Groups::load(Some(&file)).unwrap());
        let again = |account: &str| {
            let account = Account::parse(account).unwrap();
            identity.again(&Caller { account, groups: std::collections::BTreeMap::new() })
        };
        assert!(again("DEV\\ann").is_none());
        assert_eq!(again("DEV\\bob").unwrap().groups.len(), 1);
    }

    #[test]
    fn names_that_are_no_accounts_are_nobody() {
        let identity = identity(vec![rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*")]);
        for uri in ["sso://DEV/everyone", "sso://DEV/a\\b", "sso://DEV/a/b", "sso://DEV/"] {
            assert!(identity.caller(&certificate(&[uri], &[])).is_none(), "{uri}");
        }
    }

    #[test]
    fn patterns_keep_to_their_domains() {
        let made = |pattern: &str, account: &str| {
            AccountRule::new(
                certificate_rule(CertificatePart::SanUri, pattern),
                account,
                &domains(),
            )
        };
        assert!(made("a/*", "dev\\*").is_ok());
        assert!(made("a", "DEV\\fixed").is_ok());
        for bad in ["PROD\\*", "*\\x", "*", "x", "DEV\\", "DEV\\*-*", "D*V\\x", "DEV\\a\\b", ""] {
            assert!(made("a/*", bad).is_err(), "{bad}");
        }
        assert!(made("a", "DEV\\*").is_err());
    }
}
