//! Who a caller is: by a client certificate, a bearer token, or the user of a local process; and
//! which groups that account is in.
//!
//! Every source asserts accounts of its own domains alone, and no domain is asserted by two sources,
//! so that the same account never stands for somebody known by another proof.

mod certificate;
mod jwks;
mod remembered;
mod settings;
mod token;
mod unix;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sso_core::{clock::Clock, local::LocalPeer, peer::PeerCertificate};
use sso_proto::Reason;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    groups::Groups,
    model::{Account, Caller, Proof},
};

use self::remembered::{Fingerprint, Remembered, Verified};
pub use self::{
    certificate::AccountRule,
    jwks::{KeyPlace, KeySource},
    settings::IdentitySection,
    token::{GroupsClaim, SourceDomain, TokenRules, TokenSource},
    unix::UnixRule,
};

/// What a request shows to prove who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// The verified certificate of the connection.
    pub certificate: Option<&'a PeerCertificate>,
    /// The process at the other end of a Unix socket.
    pub local: Option<&'a LocalPeer>,
    /// A bearer token, not verified yet.
    pub bearer: Option<Bearer<'a>>,
}

/// The text of a bearer token, which no log shows.
#[derive(Clone, Copy)]
pub struct Bearer<'a>(pub &'a str);

impl std::fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// Knows every caller. Clones share the groups and the keys of the token sources.
#[derive(Clone, Debug)]
pub struct Identity {
    rules: Vec<AccountRule>,
    domains: BTreeSet<String>,
    tokens: Vec<Arc<TokenSource>>,
    /// Whether tokens are taken over TLS, or only by other ways.
    tokens_over_tls: bool,
    unix: Vec<UnixRule>,
    groups: Arc<Groups>,
    clock: Clock,
    /// Callers by the tokens they came with.
    remembered: Arc<Remembered>,
}

impl Identity {
    /// Callers by these rules, the first that fits decides; `domains` (canonical) are all that the
    /// rules may assert.
    #[must_use]
    pub fn new(rules: Vec<AccountRule>, domains: BTreeSet<String>, groups: Arc<Groups>) -> Self {
        Self {
            rules,
            domains,
            tokens: Vec::new(),
            tokens_over_tls: false,
            unix: Vec::new(),
            groups,
            clock: Clock::System,
            remembered: Arc::default(),
        }
    }

    /// And by bearer tokens of these sources, which all have different issuers and domains; `clock`
    /// says when a token is over.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Vec<Arc<TokenSource>>, clock: Clock) -> Self {
        self.tokens = tokens;
        self.clock = clock;
        self
    }

    /// Takes tokens over TLS too, from callers whose certificate, if they show one, stands for nobody.
    /// Where every connection needs a certificate that is left out: a token that got into the wrong
    /// hands must not serve those who have any certificate.
    #[must_use]
    pub fn with_tokens_over_tls(mut self, taken: bool) -> Self {
        self.tokens_over_tls = taken;
        self
    }

    /// And by the users of local processes, the first rule that fits decides.
    #[must_use]
    pub fn with_unix(mut self, rules: Vec<UnixRule>) -> Self {
        self.unix = rules;
        self
    }

    /// Whether there is a source of tokens.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether there is a rule for local processes.
    #[must_use]
    pub fn has_unix(&self) -> bool {
        !self.unix.is_empty()
    }

    /// Who asks.
    ///
    /// # Errors
    /// `NOT_AUTHENTICATED` when what is shown stands for nobody, `TOKEN_REFUSED`, and
    /// `IDENTITY_AMBIGUOUS` when a token comes with a certificate or from a local user that a rule
    /// knows: which of the two would be meant is nothing to guess.
    pub async fn caller(&self, shown: &Shown<'_>) -> Result<Arc<Caller>, Error> {
        let known = match (shown.certificate, shown.local) {
            (_, Some(local)) => self.of_local(local),
            (Some(certificate), None) => self.of_certificate(certificate),
            (None, None) => None,
        };
        match (shown.bearer, known) {
            (Some(_), Some(_)) => Err(Error::new(
                Reason::IdentityAmbiguous,
                "the request has a bearer token, and its connection proves an identity already: \
                 leave one of them out",
            )),
            (Some(_), None) if shown.local.is_none() && !self.tokens_over_tls => Err(Error::new(
                Reason::TokenRefused,
                "this server takes bearer tokens only where tls.client_certificate is \"optional\", \
                 and on its Unix socket",
            )),
            (Some(bearer), None) => self.user_of_token(bearer.0).await,
            (None, Some(Some(caller))) => Ok(Arc::new(caller)),
            (None, Some(None) | None) => Err(nobody(shown)),
        }
    }

    /// Who the certificate stands for: `None` when no rule fits, `Some(None)` when the first one fits
    /// in several ways, or when what it makes of the certificate is no account.
    fn of_certificate(&self, certificate: &PeerCertificate) -> Option<Option<Caller>> {
        let decided = self.rules.iter().find_map(|rule| rule.account(certificate))?;
        // The rules were checked; this holds even if one slips through.
        let of_ours = |account: &Account| {
            account.domain().is_some_and(|domain| self.domains.contains(domain))
        };
        Some(
            decided
                .filter(of_ours)
                .and_then(|account| self.with_groups(account, Proof::Certificate)),
        )
    }

    fn of_local(&self, peer: &LocalPeer) -> Option<Option<Caller>> {
        let decided = self.unix.iter().find_map(|rule| rule.account(peer))?;
        let proof = Proof::UnixPeer { pid: peer.pid, subject: format!("unix|{}", peer.uid) };
        Some(decided.and_then(|account| self.with_groups(account, proof)))
    }

    /// What a caller is worked out from besides what it shows: as long as this number, read before, is
    /// the same, a connection without a token is of the same caller in the same groups.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // The rules are those of the settings, and stay.
        self.groups.generation()
    }

    /// Who a bearer token stands for: signature, issuer, audience, times and claims are verified; what
    /// was verified is remembered as long as the keys of the issuer and the groups stay as they are.
    /// May wait some seconds for the keys of the issuer where the token names one that is not known.
    ///
    /// # Errors
    /// `TOKEN_REFUSED`.
    pub async fn user_of_token(&self, token: &str) -> Result<Arc<Caller>, Error> {
        let generation = self.generation();
        let print = Fingerprint::of(token);
        if let Some(caller) = self.remembered.find(&print, generation, self.clock.now()) {
            return Ok(caller);
        }
        let issuer = token::issuer_of(token)?;
        let source = self.tokens.iter().find(|source| source.issuer() == issuer);
        let source = source
            .ok_or_else(|| token::refused("no [[identity.token]] of this server has its issuer"))?;
        let (user, keys) = source.verify(token, &self.clock).await?;
        let until = user.until;
        let proof = Proof::Token { groups: user.groups, until, subject: user.subject };
        let caller = self
            .with_groups(user.account, proof)
            .ok_or_else(|| token::refused("its account has the name of a group"))?;
        let caller = Arc::new(caller);
        let verified = Verified {
            source: Arc::clone(source),
            keys,
            generation,
            from: self.clock.now(),
            until,
            caller: Arc::clone(&caller),
        };
        self.remembered.keep(print, verified);
        Ok(caller)
    }

    /// The same caller with the groups that it is in now, those of its token included.
    ///
    /// # Errors
    /// `TOKEN_REFUSED` when the token that the caller came with is over; `NOT_AUTHENTICATED` when a
    /// group has the name of the account by now.
    pub fn again(&self, caller: &Caller) -> Result<Caller, Error> {
        if let Proof::Token { until, .. } = &caller.proof
            && *until <= self.clock.now()
        {
            return Err(token::refused("it has expired meanwhile: come again with a new one"));
        }
        self.with_groups(caller.account.clone(), caller.proof.clone()).ok_or_else(|| {
            let why = format!("{} is the name of a group now", caller.account);
            Error::new(Reason::NotAuthenticated, why)
        })
    }

    /// The account with the groups that the file has for it, for checks about somebody who is not
    /// there; `None` when it is the name of a group.
    #[must_use]
    pub fn as_known(&self, account: &Account) -> Option<Caller> {
        self.with_groups(account.clone(), Proof::Certificate)
    }

    /// Whether the file of groups is all there is to know about the groups of the account: not when
    /// they come with its tokens.
    #[must_use]
    pub fn knows_groups_of(&self, account: &Account) -> bool {
        !self.tokens.iter().any(|source| source.brings_groups_of(account))
    }

    /// Whether the file of groups has a group of this name.
    #[must_use]
    pub fn is_group(&self, account: &Account) -> bool {
        self.groups.has(account)
    }

    /// Whether somebody may come as this account or as a member of it: it is a group of the file, or of
    /// a domain that a source of identities asserts.
    #[must_use]
    pub fn can_be_somebody(&self, account: &Account) -> bool {
        let asserted = |domain: &str| {
            self.domains.contains(domain)
                || self.unix.iter().any(|rule| rule.domain() == domain)
                || self.tokens.iter().any(|source| source.domains().any(|of| of == domain))
        };
        self.is_group(account) || account.domain().is_some_and(asserted)
    }

    /// The groups, to be watched.
    #[must_use]
    pub fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Keeps the groups and the keys of token sources fresh until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let keys = self.tokens.iter().map(|source| source.keys().watch(stop.clone()));
        let keys = futures_util::future::join_all(keys);
        tokio::join!(Arc::clone(&self.groups).watch(stop.clone()), keys);
    }

    fn with_groups(&self, account: Account, proof: Proof) -> Option<Caller> {
        // Somebody in the name of a group would hold the roles of all its members.
        if self.groups.has(&account) {
            return None;
        }
        let mut groups = self.groups.of(&account);
        if let Proof::Token { groups: of_token, .. } = &proof {
            if of_token.contains_key(account.key()) {
                return None;
            }
            groups.extend(self.around(of_token));
        }
        Some(Caller::new(account, groups, proof))
    }

    /// The groups of a token and those of the file that they are in.
    fn around(&self, of_token: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut groups = of_token.clone();
        for key in of_token.keys() {
            groups.extend(self.groups.of_group(key));
        }
        groups
    }
}

/// Why nobody is known by what was shown.
fn nobody(shown: &Shown<'_>) -> Error {
    let why = match (shown.local, shown.certificate) {
        (Some(local), _) => format!(
            "no rule under [[identity.unix]] turns the user {} (uid {}) into an account",
            local.user.as_deref().unwrap_or("without a name"),
            local.uid
        ),
        (None, Some(_)) => "no rule under [[identity.certificate]] turns this client certificate \
                            into an account; `sso cert show` shows what it carries"
            .to_owned(),
        (None, None) => {
            "the connection has no client certificate and the request no bearer token".to_owned()
        }
    };
    Error::new(Reason::NotAuthenticated, why)
}
