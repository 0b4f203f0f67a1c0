//! Who a bearer token stands for: a JSON Web Token, verified in every part before anything in it
//! counts.
//!
//! Two things are read before the signature is verified: the issuer, to know whose keys to take, and
//! the id of the key. Neither leads anywhere but to what the settings named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sso_core::clock::Clock;
use sso_proto::Reason;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::jwks::{KeySet, KeySource, VerifyingKey};
use crate::{error::Error, model::Account};

/// Bytes of the largest token that is looked at.
const TOKEN_MAX: usize = 16 * 1024;
/// Characters of the name that an issuer has for an account.
const SUBJECT_MAX: usize = 255;
/// Groups that one token may name.
const GROUPS_MAX: usize = 512;

/// A domain that a source asserts accounts of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDomain {
    text: String,
    key: String,
}

impl SourceDomain {
    /// What stands before the backslash of an account.
    ///
    /// # Errors
    /// `INVALID_ACCOUNT` and its kin: no account can have this domain.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let account = Account::parse(&format!("{text}\\x"))?;
        let key = account.domain().unwrap_or_default().to_owned();
        Ok(Self { text: text.to_owned(), key })
    }

    /// The canonical form.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The account of this name in the domain.
    ///
    /// # Errors
    /// `INVALID_ACCOUNT` and its kin: no account can have this name.
    pub fn account(&self, name: &str) -> Result<Account, Error> {
        let account = Account::parse(&format!("{}\\{name}", self.text))?;
        // A name that brings a domain of its own is refused above; this holds even if one slips by.
        if account.domain() != Some(self.key.as_str()) {
            return Err(Error::new(Reason::InvalidAccount, "the name is of another domain"));
        }
        Ok(account)
    }
}

/// Groups that come with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsClaim {
    /// The claim: an array of names.
    pub claim: String,
    /// The domain that the names are of.
    pub domain: SourceDomain,
}

/// What tokens of one issuer must be, and whom they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud` must be or hold one of these.
    pub audiences: BTreeSet<String>,
    /// The domain of the accounts.
    pub domain: SourceDomain,
    /// The claim with the name of the account.
    pub account_claim: String,
    /// The claim with the groups; `None`: only the file of groups has them.
    pub groups: Option<GroupsClaim>,
    /// How far the clocks may be apart.
    pub leeway: Duration,
    /// From `iat` to `exp`; `None`: as long as the issuer likes.
    pub max_lifetime: Option<Duration>,
}

/// One issuer: its rules and its keys.
#[derive(Debug)]
pub struct TokenSource {
    rules: TokenRules,
    keys: Arc<KeySource>,
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct TokenUser {
    pub(super) account: Account,
    pub(super) groups: BTreeMap<String, String>,
    pub(super) until: OffsetDateTime,
    /// What the issuer calls the account for ever.
    pub(super) subject: String,
}

/// The parts of the header that count. Where it says that keys are to be found elsewhere (`jku`,
/// `x5u`, `jwk`, `x5c`) is not even read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

/// The refusal of a token.
pub(super) fn refused(why: impl std::fmt::Display) -> Error {
    Error::new(Reason::TokenRefused, format!("the bearer token is refused: {why}"))
}

/// The issuer that the token names, which is to be verified still.
///
/// # Errors
/// `TOKEN_REFUSED`: it is no JSON Web Token, or too large.
pub(super) fn issuer_of(token: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let [_, claims] = parts(token)?;
    let named: Named = decode(claims).ok_or_else(|| refused("its claims have no issuer (iss)"))?;
    Ok(named.iss)
}

/// Header and claims, encoded as they are.
fn parts(token: &str) -> Result<[&str; 2], Error> {
    if token.len() > TOKEN_MAX {
        return Err(refused(format_args!("it is larger than {TOKEN_MAX} bytes")));
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(signature), None)
            if ![header, claims, signature].contains(&"") =>
        {
            Ok([header, claims])
        }
        _ => Err(refused("it is no signed JSON Web Token")),
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

impl TokenSource {
    /// Tokens by these rules, signed with these keys.
    #[must_use]
    pub fn new(rules: TokenRules, keys: Arc<KeySource>) -> Arc<Self> {
        Arc::new(Self { rules, keys })
    }

    /// The issuer, as tokens name it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.rules.issuer
    }

    /// The keys, to be watched.
    #[must_use]
    pub fn keys(&self) -> Arc<KeySource> {
        Arc::clone(&self.keys)
    }

    /// The canonical domains that its tokens assert accounts or groups of.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let groups = self.rules.groups.iter().map(|groups| groups.domain.key());
        std::iter::once(self.rules.domain.key()).chain(groups)
    }

    /// Whether the groups of this account come with its tokens.
    #[must_use]
    pub fn brings_groups_of(&self, account: &Account) -> bool {
        self.rules.groups.is_some() && account.domain() == Some(self.rules.domain.key())
    }

    /// Whether these are still the keys in force.
    pub(super) fn has(&self, keys: &Arc<KeySet>) -> bool {
        Arc::ptr_eq(&self.keys.current(), keys)
    }

    /// What the token says, if all of it is right, and the keys it was verified with.
    pub(super) async fn verify(
        &self,
        token: &str,
        clock: &Clock,
    ) -> Result<(TokenUser, Arc<KeySet>), Error> {
        let [header, _] = parts(token)?;
        let header: Header = decode(header).ok_or_else(|| refused("its header is malformed"))?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(refused("its header asks for an extension (crit)"));
        }
        let mut keys = self.keys.current();
        if keys.find(header.kid.as_deref()).is_none() {
            keys = self.keys.look_again(&keys).await;
        }
        let key = keys.find(header.kid.as_deref()).ok_or_else(|| {
            refused("none of the keys known of its issuer is the one it names (kid)")
        })?;
        let claims = self.verified(token, &header, key)?;
        let user = self.user(&claims, clock)?;
        Ok((user, keys))
    }

    /// The claims, of the issuer and for this audience; times and the account are not looked at yet.
    fn verified(
        &self,
        token: &str,
        header: &Header,
        key: &VerifyingKey,
    ) -> Result<Map<String, Value>, Error> {
        if !is_named(key.algorithm, &header.alg) {
            return Err(refused("its algorithm (alg) is not the one of the key"));
        }
        let mut validation = Validation::new(key.algorithm);
        // The time is told by one clock, below.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.rules.issuer]);
        let audiences: Vec<_> = self.rules.audiences.iter().collect();
        validation.set_audience(&audiences);
        let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation)
            .map_err(|error| refused(words(&error)))?;
        // The library also takes a list that has the issuer in it.
        if token.claims.get("iss").and_then(Value::as_str) != Some(&self.rules.issuer) {
            return Err(refused("its issuer (iss) is another one"));
        }
        Ok(token.claims)
    }

    fn user(&self, claims: &Map<String, Value>, clock: &Clock) -> Result<TokenUser, Error> {
        let until = self.until(claims, clock.now())?;
        let claim = &self.rules.account_claim;
        let name = claims
            .get(claim)
            .and_then(Value::as_str)
            .ok_or_else(|| refused(format_args!("it has no text in the claim {claim}")))?;
        let account = self
            .rules
            .domain
            .account(name)
            .map_err(|error| refused(format_args!("its claim {claim}: {error}")))?;
        let subject = claims.get("sub").and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject = subject
            .filter(|text| text.chars().count() <= SUBJECT_MAX && !text.contains(char::is_control))
            .ok_or_else(|| refused("it does not say in a usable way who it is about (sub)"))?;
        let subject = format!("{}|{subject}", self.rules.issuer);
        Ok(TokenUser { account, groups: self.groups(claims)?, until, subject })
    }

    /// When the token is over, if it is good now.
    fn until(
        &self,
        claims: &Map<String, Value>,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, Error> {
        let leeway = self.rules.leeway;
        let expires = time_in(claims, "exp")?.ok_or_else(|| refused("it never expires (exp)"))?;
        let until = expires + leeway;
        if until <= now {
            return Err(late("expired", expires, now));
        }
        if let Some(from) = time_in(claims, "nbf")?
            && from > now + leeway
        {
            return Err(late("is not good before", from, now));
        }
        let issued = time_in(claims, "iat")?;
        if let Some(issued) = issued
            && issued > now + leeway
        {
            return Err(late("was issued", issued, now));
        }
        if let Some(most) = self.rules.max_lifetime {
            let issued =
                issued.ok_or_else(|| refused("it does not say when it was issued (iat)"))?;
            if expires - issued > most {
                let most = most.as_secs();
                return Err(refused(format_args!("it is good for longer than {most} s (exp)")));
            }
        }
        Ok(until)
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<BTreeMap<String, String>, Error> {
        let Some(GroupsClaim { claim, domain }) = &self.rules.groups else {
            return Ok(BTreeMap::new());
        };
        let names = match claims.get(claim) {
            None | Some(Value::Null) => return Ok(BTreeMap::new()),
            Some(Value::Array(names)) if names.len() <= GROUPS_MAX => names,
            Some(Value::Array(_)) => {
                return Err(refused(format_args!("it names more than {GROUPS_MAX} groups")));
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                return Err(refused(format_args!("its claim {claim} is no list")));
            }
        };
        let mut groups = BTreeMap::new();
        for name in names {
            let name = name
                .as_str()
                .ok_or_else(|| refused(format_args!("its claim {claim} is no list of texts")))?;
            // No role can name a group that has no form of an account, so it gives no rights.
            if let Ok(group) = domain.account(name) {
                groups.insert(group.key().to_owned(), group.as_str().to_owned());
            }
        }
        Ok(groups)
    }
}

fn is_named(algorithm: Algorithm, name: &str) -> bool {
    name.parse::<Algorithm>().is_ok_and(|named| named == algorithm)
}

/// A time of day in seconds since 1970, fractions cut off.
fn time_in(claims: &Map<String, Value>, claim: &str) -> Result<Option<OffsetDateTime>, Error> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let malformed = || refused(format_args!("its claim {claim} is no time"));
    #[expect(clippy::cast_possible_truncation, reason = "far beyond what a time may be")]
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
    let time = OffsetDateTime::from_unix_timestamp(seconds.ok_or_else(malformed)?);
    // Room for the leeway on both sides.
    let time = time.ok().filter(|time| (1970..9999).contains(&time.year()));
    time.ok_or_else(malformed).map(Some)
}

fn late(what: &str, time: OffsetDateTime, now: OffsetDateTime) -> Error {
    let shown = |time: OffsetDateTime| {
        time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
    };
    refused(format_args!("it {what} {}; this server has {}", shown(time), shown(now)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds kinds; its text serves")]
fn words(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is not right".to_owned(),
        ErrorKind::InvalidIssuer => "its issuer (iss) is another one".to_owned(),
        ErrorKind::InvalidAudience => "it is not meant for this service (aud)".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no usable claim {claim}"),
        // The texts of the JSON library may quote the token.
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => {
            "it is no signed JSON Web Token".to_owned()
        }
        other => format!("{other:?}").chars().filter(char::is_ascii).take(80).collect(),
    }
}
