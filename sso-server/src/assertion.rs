//! Signed assertions: JSON Web Tokens (RFC 7519) that tell other services which account an external
//! user was logged on as, and the keys to verify them with.
//!
//! The signing keys are derived from the master secret, one for each generation, so that every server
//! of a system signs with the same one and none is stored. The active generation signs; those before
//! it stay in the key set while they are held.

use std::sync::Arc;

use aws_lc_rs::{
    agreement,
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sso_core::{clock::Clock, derive::derive, memory::LockedKey, secret::SecretText};
use sso_proto::Reason;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    error::Error,
    master::MasterSecret,
    model::{Account, ApplicationName, ExternalUser},
};

/// What the keys are derived for.
const PURPOSE: &str = "assertion";
/// Bytes of a coordinate of P-256.
const COORDINATE: usize = 32;

/// The table `[assertion]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionSettings {
    /// Who the assertions say that they are from, often an address.
    pub issuer: String,
    /// Who they may be for; the first where a caller names none.
    pub audiences: Vec<String>,
    /// How long they last, in seconds, 5 to 600.
    #[serde(default = "default_lifetime")]
    pub lifetime_seconds: u32,
}

fn default_lifetime() -> u32 {
    60
}

impl AssertionSettings {
    /// Checks the texts and the range.
    ///
    /// # Errors
    /// The key and, in words, what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let sound = |text: &str| {
            !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)
        };
        let rule = "must be 1 to 255 characters without control characters";
        if !sound(&self.issuer) {
            return Err(("issuer", rule.to_owned()));
        }
        if self.audiences.is_empty() {
            return Err(("audiences", "must name at least one service".to_owned()));
        }
        if !self.audiences.iter().all(|audience| sound(audience)) {
            return Err(("audiences", format!("each {rule}")));
        }
        if !(5..=600).contains(&self.lifetime_seconds) {
            let why = format!("{} is outside its range, 5 to 600", self.lifetime_seconds);
            return Err(("lifetime_seconds", why));
        }
        Ok(())
    }
}

/// Whom an assertion is about.
#[derive(Clone, Copy, Debug)]
pub struct Logon<'a> {
    /// The account.
    pub account: &'a Account,
    /// The application that it was logged on by way of.
    pub application: &'a ApplicationName,
    /// Who it is in the other system.
    pub external_user: &'a ExternalUser,
}

/// An assertion.
#[derive(Debug)]
pub struct Assertion {
    /// Whoever holds it is taken for the account.
    pub text: SecretText,
    /// Its claim `jti`.
    pub id: Uuid,
}

/// Signs assertions and publishes their keys.
#[derive(Clone, Debug)]
pub struct Assertions {
    master: Arc<MasterSecret>,
    settings: Option<AssertionSettings>,
    clock: Clock,
}

/// What an assertion says.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
    application: &'a str,
    external_user: &'a str,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

/// A public key as RFC 7517 writes it. The first four members are those of the thumbprint, in its
/// order (RFC 7638).
#[derive(Serialize)]
struct PublicKey<'a> {
    crv: &'static str,
    kty: &'static str,
    x: &'a str,
    y: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
}

impl Assertions {
    /// Signs with keys derived from these; nothing where there are no settings for it.
    #[must_use]
    pub fn new(
        master: Arc<MasterSecret>,
        settings: Option<AssertionSettings>,
        clock: Clock,
    ) -> Self {
        Self { master, settings, clock }
    }

    /// Which audience is meant: the one named, or the first where none is. `None` where this server
    /// signs no assertions.
    ///
    /// # Errors
    /// `ASSERTION_AUDIENCE_UNKNOWN` for one that the settings do not list.
    pub fn audience(&self, named: &str) -> Result<Option<&str>, Error> {
        let audiences = self.settings.as_ref().map(|settings| settings.audiences.as_slice());
        let audiences = audiences.unwrap_or_default();
        if named.is_empty() {
            return Ok(audiences.first().map(String::as_str));
        }
        let known = audiences.iter().find(|audience| audience.as_str() == named);
        known.map(|audience| Some(audience.as_str())).ok_or_else(|| {
            let shown: String = named.chars().filter(|c| !c.is_control()).take(255).collect();
            let message = format!(
                "assertions of this server are not for \"{shown}\"; its setting assertion.audiences lists whom they may be for"
            );
            Error::new(Reason::AssertionAudienceUnknown, message)
        })
    }

    /// An assertion for this audience; `None` where this server signs none.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin.
    pub fn sign(&self, logon: Logon<'_>, audience: &str) -> Result<Option<Assertion>, Error> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let keys = self.master.keys_for_read()?;
        let master = keys.key(keys.active()).ok_or_else(|| internal("there is no active key"))?;
        let key = SigningKey::derived(master)?;
        let now = self.clock.now();
        let id = Uuid::now_v7();
        let claims = claims(settings, logon, audience, now, id);
        Ok(Some(Assertion { text: key.sign(&claims)?, id }))
    }

    /// The public keys of every generation held, as a JSON Web Key Set (RFC 7517), the active one first.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin.
    pub fn key_set(&self) -> Result<String, Error> {
        let keys = self.master.keys_for_read()?;
        let held = keys.generations().map(|(generation, _)| generation);
        let others = held.filter(|generation| *generation != keys.active());
        let mut public = Vec::new();
        for generation in std::iter::once(keys.active()).chain(others) {
            let master = keys.key(generation).ok_or_else(|| internal("a key is gone"))?;
            public.push(SigningKey::derived(master)?.public()?);
        }
        Ok(format!("{{\"keys\":[{}]}}", public.join(",")))
    }
}

fn claims<'a>(
    settings: &'a AssertionSettings,
    logon: Logon<'a>,
    audience: &'a str,
    now: OffsetDateTime,
    id: Uuid,
) -> Claims<'a> {
    let end = now + Duration::seconds(settings.lifetime_seconds.into());
    Claims {
        iss: &settings.issuer,
        sub: logon.account.as_str(),
        aud: audience,
        iat: now.unix_timestamp(),
        nbf: now.unix_timestamp(),
        exp: end.unix_timestamp(),
        jti: id,
        application: logon.application.as_str(),
        external_user: logon.external_user.as_str(),
    }
}

/// The key of one generation. It lives for one operation.
struct SigningKey {
    pair: EcdsaKeyPair,
    x: String,
    y: String,
    kid: String,
}

impl SigningKey {
    fn derived(master: &LockedKey) -> Result<Self, Error> {
        // All but one in 2³² values are a key; the others are passed over.
        (0..=u8::MAX)
            .find_map(|counter| {
                let scalar = derive(master, PURPOSE, &[&[counter]]);
                // Expose: it is the private key.
                Self::of(scalar.expose())
            })
            .ok_or_else(|| internal("no key can be derived"))
    }

    /// The key with this private scalar; `None` when it is 0 or not below the order of the curve.
    fn of(scalar: &[u8; 32]) -> Option<Self> {
        let private =
            agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar).ok()?;
        let public = private.compute_public_key().ok()?;
        // Uncompressed: 4 ‖ x ‖ y.
        let (&[4], point) = public.as_ref().split_first_chunk::<1>()? else { return None };
        let (x, y) = point.split_at_checked(COORDINATE)?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, public.as_ref());
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let bare =
            PublicKey { crv: "P-256", kty: "EC", x: &x, y: &y, kid: None, usage: None, alg: None };
        let kid = digest(&SHA256, serde_json::to_string(&bare).ok()?.as_bytes());
        Some(Self { pair: pair.ok()?, kid: URL_SAFE_NO_PAD.encode(kid), x, y })
    }

    fn public(&self) -> Result<String, Error> {
        let key = PublicKey {
            crv: "P-256",
            kty: "EC",
            x: &self.x,
            y: &self.y,
            kid: Some(&self.kid),
            usage: Some("sig"),
            alg: Some("ES256"),
        };
        serde_json::to_string(&key).map_err(|error| internal(&error.to_string()))
    }

    /// The claims as a signed token in compact form (RFC 7515).
    fn sign(&self, claims: &Claims<'_>) -> Result<SecretText, Error> {
        let header = Header { alg: "ES256", kid: &self.kid, typ: "JWT" };
        let mut text = String::with_capacity(1024);
        URL_SAFE_NO_PAD.encode_string(json(&header)?, &mut text);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(json(claims)?, &mut text);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.map_err(|_| internal("signing failed"))?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        Ok(SecretText::new(text))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| internal(&error.to_string()))
}

fn internal(why: &str) -> Error {
    Error::new(Reason::Internal, format!("no assertion can be signed: {why}"))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{
        Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::JwkSet,
    };
    use sso_core::key_ring::{Generation, KeyRing};

    use super::*;

    fn settings() -> AssertionSettings {
        AssertionSettings {
            issuer: "https://sso.example".into(),
            audiences: vec!["billing".into(), "stock".into()],
            lifetime_seconds: 60,
        }
    }

    /// Generations 1 to `active`, whose keys are their numbers.
    fn assertions(active: u32, settings: Option<AssertionSettings>) -> Assertions {
        let key = |number: u32| LockedKey::from_bytes(&[number as u8; 32]).unwrap();
        let generation = |number| Generation::new(number).unwrap();
        let keys = (1..=active).map(|number| (generation(number), key(number)));
        let keys = KeyRing::new(keys, generation(active)).unwrap();
        let clock = Clock::System;
        Assertions::new(MasterSecret::holding(keys, clock.clone()), settings, clock)
    }

    fn signed(assertions: &Assertions) -> String {
        let account = Account::parse("DEV\\Ann").unwrap();
        let application = ApplicationName::parse("Mainframe").unwrap();
        let external_user = ExternalUser::parse("ANN01").unwrap();
        let logon =
            Logon { account: &account, application: &application, external_user: &external_user };
        let assertion = assertions.sign(logon, "billing").unwrap().unwrap();
        assertion.text.expose().to_owned()
    }

    /// Verified by somebody who has the key set only.
    fn verified(
        token: &str,
        key_set: &str,
        audience: &str,
    ) -> Result<serde_json::Value, jsonwebtoken::errors::Error> {
        let keys: JwkSet = serde_json::from_str(key_set).unwrap();
        let kid = decode_header(token)?.kid.unwrap();
        let key = keys.find(&kid).ok_or(ErrorKind::InvalidKeyFormat)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[audience]);
        validation.set_issuer(&["https://sso.example"]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Ok(decode(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
    }

    #[test]
    fn an_assertion_is_verified_with_the_key_set_alone() {
        let assertions = assertions(2, Some(settings()));
        let key_set = assertions.key_set().unwrap();
        let token = signed(&assertions);
        let claims = verified(&token, &key_set, "billing").unwrap();
        assert_eq!(claims["sub"], "DEV\\Ann");
        assert_eq!(claims["application"], "Mainframe");
        assert_eq!(claims["external_user"], "ANN01");
        let seconds = |claim: &str| claims[claim].as_i64().unwrap();
        assert_eq!(seconds("exp") - seconds("iat"), 60);
        assert_eq!(seconds("nbf"), seconds("iat"));
        assert!(verified(&token, &key_set, "stock").is_err());
        // Any part changed.
        for (at, _) in token.match_indices(|c: char| c.is_ascii_alphanumeric()).step_by(7) {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            // Behind the last byte of a signature there are bits that stand for nothing.
            assert!(
                at + 1 == token.len() || verified(&other, &key_set, "billing").is_err(),
                "{at}"
            );
        }
    }

    #[test]
    fn the_keys_of_every_generation_are_published_and_stay_the_same() {
        let (one, two) = (assertions(1, Some(settings())), assertions(2, None));
        let old = signed(&one);
        assert!(verified(&old, &two.key_set().unwrap(), "billing").is_ok());
        let new = signed(&assertions(2, Some(settings())));
        assert!(verified(&new, &one.key_set().unwrap(), "billing").is_err());
        let keys: serde_json::Value = serde_json::from_str(&two.key_set().unwrap()).unwrap();
        let keys = keys["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(decode_header(&new).unwrap().kid.as_deref(), keys[0]["kid"].as_str());
        assert_eq!(keys[0]["use"], "sig");
        assert!(keys.iter().all(|key| key.get("d").is_none()));
    }

    #[test]
    fn scalars_that_are_no_keys_are_passed_over() {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
            0x25, 0x51,
        ];
        assert!(SigningKey::of(&[0; 32]).is_none());
        assert!(SigningKey::of(&ORDER).is_none());
        assert!(SigningKey::of(&[0xff; 32]).is_none());
        let (mut below, mut one) = (ORDER, [0; 32]);
        below[31] -= 1;
        one[31] = 1;
        assert!(SigningKey::of(&below).is_some());
        // The public key of 1 is the base point of the curve.
        let base = SigningKey::of(&one).unwrap();
        assert_eq!(base.x, "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY");
        assert_eq!(base.y, "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU");
    }

    #[test]
    fn audiences_are_those_of_the_settings() {
        let assertions = assertions(1, Some(settings()));
        assert_eq!(assertions.audience("").unwrap(), Some("billing"));
        assert_eq!(assertions.audience("stock").unwrap(), Some("stock"));
        let refused = assertions.audience("Stock").unwrap_err();
        assert_eq!(refused.reason, Reason::AssertionAudienceUnknown);
        let without = Assertions { settings: None, ..assertions };
        assert_eq!(without.audience("").unwrap(), None);
        assert!(without.audience("stock").is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        assert_eq!(settings().check(), Ok(()));
        let refused = |settings: AssertionSettings| settings.check().unwrap_err().0;
        assert_eq!(refused(AssertionSettings { issuer: String::new(), ..settings() }), "issuer");
        assert_eq!(refused(AssertionSettings { audiences: Vec::new(), ..settings() }), "audiences");
        let audiences = vec!["a".to_owned(), String::new()];
        assert_eq!(refused(AssertionSettings { audiences, ..settings() }), "audiences");
        for lifetime_seconds in [0, 4, 601] {
            let settings = AssertionSettings { lifetime_seconds, ..settings() };
            assert_eq!(refused(settings), "lifetime_seconds");
        }
    }
}
