//! Tokens that are right, and every way that we know for one to be wrong.

use std::{fs, path::PathBuf, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2030-01-01 12:00 UTC);
const ISSUER: &str = "https://id.example";

/// An issuer with keys of its own, and the file that publishes them.
struct Issuer {
    folder: tempfile::TempDir,
    clock: Clock,
    key: EncodingKey,
    other: EncodingKey,
}

impl Issuer {
    fn new() -> Self {
        let key =
            || EncodingKey::from_ec_pem(KeyPair::generate().unwrap().serialize_pem().as_bytes());
        let issuer = Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(NOW),
            key: key().unwrap(),
            other: key().unwrap(),
        };
        issuer.publish(&[issuer.jwk("one", &issuer.key)]);
        issuer
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    fn jwk(&self, kid: &str, key: &EncodingKey) -> Value {
        let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn publish(&self, keys: &[Value]) {
        fs::write(self.file(), json!({ "keys": keys }).to_string()).unwrap();
    }

    fn rules() -> TokenRules {
        let domain = SourceDomain::parse("IDP").unwrap();
        TokenRules {
            issuer: ISSUER.to_owned(),
            audiences: ["sso".to_owned(), "sso-2".to_owned()].into(),
            groups: Some(GroupsClaim { claim: "groups".into(), domain: domain.clone() }),
            domain,
            account_claim: "preferred_username".to_owned(),
            leeway: Duration::from_secs(60),
            max_lifetime: None,
        }
    }

    fn identity_with(&self, edit: impl FnOnce(&mut TokenRules)) -> Identity {
        let mut rules = Self::rules();
        edit(&mut rules);
        let allowed = vec![Algorithm::ES256, Algorithm::RS256];
        let keys =
            KeySource::new(KeyPlace::File(self.file()), allowed, self.clock.clone()).unwrap();
        Identity::new(Vec::new(), domains(), Groups::load(None).unwrap())
            .with_tokens(vec![TokenSource::new(rules, keys)], self.clock.clone())
            .with_tokens_over_tls(true)
    }

    fn identity(&self) -> Identity {
        self.identity_with(|_| {})
    }

    fn token(&self, edit: impl FnOnce(&mut Value)) -> String {
        let mut claims = good();
        edit(&mut claims);
        sign(&json!({ "alg": "ES256", "kid": "one" }), &claims, &self.key)
    }
}

fn good() -> Value {
    json!({
        "iss": ISSUER, "aud": "sso", "sub": "8f1c", "preferred_username": "ann",
        "iat": NOW.unix_timestamp(), "nbf": NOW.unix_timestamp(),
        "exp": NOW.unix_timestamp() + 300, "groups": ["Staff", "no/group", "Everyone"],
    })
}

fn encoded(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// With this header as it is, signed with ES256 whatever the header says.
fn sign(header: &Value, claims: &Value, key: &EncodingKey) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}

async fn refusal(identity: &Identity, token: &str) -> String {
    let error = identity.user_of_token(token).await.expect_err(token);
    assert_eq!(error.reason, Reason::TokenRefused);
    let short = token.len() < 40;
    assert!(short || !error.message.contains(token), "the refusal repeats the token");
    error.message
}

#[tokio::test]
async fn a_right_token_is_its_account_with_its_groups() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let caller = identity.user_of_token(&issuer.token(|_| {})).await.unwrap();
    assert_eq!(caller.account.as_str(), "IDP\\ann");
    assert_eq!(
        caller.groups.clone().into_iter().collect::<Vec<_>>(),
        [("idp\\staff".into(), "IDP\\Staff".into())]
    );
    let subject = format!("{ISSUER}|8f1c");
    assert_eq!(caller.proof.subject(), Some(subject.as_str()));
    for aud in [json!(["x", "sso-2"]), json!("sso")] {
        assert!(identity.user_of_token(&issuer.token(|claims| claims["aud"] = aud)).await.is_ok());
    }
    assert!(!identity.knows_groups_of(&Account::parse("idp\\ANYBODY").unwrap()));
    assert!(identity.knows_groups_of(&Account::parse("DEV\\ann").unwrap()));
    let plain = issuer.identity_with(|rules| rules.groups = None);
    assert!(plain.user_of_token(&issuer.token(|_| {})).await.unwrap().groups.is_empty());
    assert!(plain.knows_groups_of(&Account::parse("IDP\\ann").unwrap()));
}

#[tokio::test]
async fn every_needed_claim_is_needed_and_of_its_kind() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    for claim in ["iss", "aud", "sub", "exp", "preferred_username"] {
        let missing = issuer.token(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert!(refusal(&identity, &missing).await.contains(claim), "{claim}");
        for wrong in
            [json!(null), json!(""), json!({}), json!([]), json!(true), json!(-1), json!([7])]
        {
            let token = issuer.token(|claims| claims[claim] = wrong.clone());
            let _ = refusal(&identity, &token).await;
        }
    }
    for claim in ["iat", "nbf"] {
        assert!(
            identity
                .user_of_token(
                    &issuer.token(|claims| drop(claims.as_object_mut().unwrap().remove(claim)))
                )
                .await
                .is_ok()
        );
        for wrong in [json!(null), json!("1"), json!({}), json!(1e300), json!(-1e300), json!(true)]
        {
            let token = issuer.token(|claims| claims[claim] = wrong.clone());
            assert!(refusal(&identity, &token).await.contains(claim));
        }
    }
    for (claim, wrong) in [
        ("iss", json!("https://id.example/")),
        ("iss", json!("https://other.example")),
        ("iss", json!([ISSUER])),
        ("aud", json!("other")),
        ("aud", json!(["other", 7])),
        ("aud", json!("SSO")),
        ("exp", json!("2030")),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(i64::MIN)),
        ("preferred_username", json!("DEV\\ann")),
        ("preferred_username", json!("DEV\u{ff3c}ann")),
        ("preferred_username", json!("everyone")),
        ("preferred_username", json!("ann\u{200b}")),
        ("preferred_username", json!(" ann")),
        ("preferred_username", json!("a".repeat(300))),
        // The name of one of its own groups.
        ("preferred_username", json!("staff")),
        ("groups", json!("Staff")),
        ("groups", json!(["Staff", 7])),
        ("groups", json!(vec!["g"; 513])),
    ] {
        let token = issuer.token(|claims| claims[claim] = wrong.clone());
        let _ = refusal(&identity, &token).await;
    }
}

#[tokio::test]
async fn times_are_judged_by_one_clock_with_the_leeway() {
    let issuer = Issuer::new();
    let identity =
        issuer.identity_with(|rules| rules.max_lifetime = Some(Duration::from_secs(600)));
    let now = NOW.unix_timestamp();
    for (claim, seconds, good) in [
        ("exp", -59, true),
        ("exp", -60, false),
        ("nbf", 60, true),
        ("nbf", 61, false),
        ("iat", 60, true),
        ("iat", 61, false),
        ("exp", 600, true),
        ("exp", 601, false),
    ] {
        let token = issuer.token(|claims| claims[claim] = json!(now + seconds));
        let found = identity.user_of_token(&token).await;
        assert_eq!(found.is_ok(), good, "{claim} {seconds}: {found:?}");
    }
    let undated = issuer.token(|claims| drop(claims.as_object_mut().unwrap().remove("iat")));
    assert!(refusal(&identity, &undated).await.contains("iat"));
    let fraction = issuer.token(|claims| claims["exp"] = json!(now as f64 + 0.5));
    assert!(identity.user_of_token(&fraction).await.is_ok());

    // What a token proved ends with it, also for who is served already.
    let caller = identity.user_of_token(&issuer.token(|_| {})).await.unwrap();
    issuer.clock.advance(Duration::from_secs(359));
    let again = identity.again(&caller).unwrap();
    assert_eq!((again.groups, again.proof), (caller.groups.clone(), caller.proof.clone()));
    issuer.clock.advance(Duration::from_secs(1));
    assert_eq!(identity.again(&caller).unwrap_err().reason, Reason::TokenRefused);
}

#[tokio::test]
async fn the_algorithm_is_the_one_of_the_key() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let published: Value = serde_json::from_slice(&fs::read(issuer.file()).unwrap()).unwrap();
    let public = published["keys"][0].to_string();
    for alg in ["none", "None", "", "HS256", "HS384", "ES384", "RS256", "PS256", "EdDSA", "es256"] {
        let token = sign(&json!({ "alg": alg, "kid": "one" }), &good(), &issuer.key);
        let _ = refusal(&identity, &token).await;
        let unsigned = token.rsplit_once('.').unwrap().0.to_owned();
        let _ = refusal(&identity, &unsigned).await;
        let _ = refusal(&identity, &format!("{unsigned}.")).await;
    }
    // The published key as the secret of a keyed hash.
    let point = format!("{}{}", published["keys"][0]["x"], published["keys"][0]["y"]);
    for secret in [public.as_bytes(), point.as_bytes(), b""] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("one".to_owned());
        let token =
            jsonwebtoken::encode(&header, &good(), &EncodingKey::from_secret(secret)).unwrap();
        let _ = refusal(&identity, &token).await;
    }
    let headless = sign(&json!({ "kid": "one" }), &good(), &issuer.key);
    let _ = refusal(&identity, &headless).await;
}

#[tokio::test]
async fn no_header_leads_to_another_key() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let own = issuer.jwk("mine", &issuer.other);
    let mut leading = json!({ "alg": "ES256" });
    leading["jwk"] = own.clone();
    leading["jku"] = json!(format!("file://{}", issuer.folder.path().join("x").display()));
    leading["x5u"] = json!("http://127.0.0.1:1/x5u");
    leading["x5c"] = json!(["AAAA"]);
    for kid in [json!("one"), json!("mine"), json!("../one"), json!(""), json!(7), json!(null)] {
        leading["kid"] = kid;
        let _ = refusal(&identity, &sign(&leading, &good(), &issuer.other)).await;
    }
    // A token with them that is right otherwise is right by the keys of the settings.
    for header in ["jku", "x5u"] {
        let header = json!({ "alg": "ES256", "kid": "one", header: "http://127.0.0.1:1/" });
        assert!(identity.user_of_token(&sign(&header, &good(), &issuer.key)).await.is_ok());
    }
    for extension in [json!({ "crit": ["exp"] }), json!({ "crit": [] }), json!({ "b64": false })] {
        let mut header = json!({ "alg": "ES256", "kid": "one" });
        header.as_object_mut().unwrap().extend(extension.as_object().unwrap().clone());
        assert!(refusal(&identity, &sign(&header, &good(), &issuer.key)).await.contains("crit"));
    }
    assert!(identity.user_of_token(&issuer.token(|_| {})).await.is_ok());
}

#[tokio::test]
async fn a_key_without_a_name_is_the_only_one() {
    let issuer = Issuer::new();
    let nameless = sign(&json!({ "alg": "ES256" }), &good(), &issuer.key);
    assert!(issuer.identity().user_of_token(&nameless).await.is_ok());
    issuer.publish(&[issuer.jwk("one", &issuer.key), issuer.jwk("two", &issuer.other)]);
    let identity = issuer.identity();
    assert!(refusal(&identity, &nameless).await.contains("kid"));
    let crossed = sign(&json!({ "alg": "ES256", "kid": "two" }), &good(), &issuer.key);
    assert!(refusal(&identity, &crossed).await.contains("signature"));
    let right = sign(&json!({ "alg": "ES256", "kid": "two" }), &good(), &issuer.other);
    assert!(identity.user_of_token(&right).await.is_ok());
}

#[tokio::test]
async fn no_changed_byte_goes_unnoticed() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let token = issuer.token(|_| {});
    for at in 0..token.len() {
        for change in [1_u8, 2, 0x20] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= change;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let _ = refusal(&identity, &changed).await;
        }
        let _ = refusal(&identity, &token[..at]).await;
    }
    for wrong in [
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{token}"),
        format!("{token} "),
        format!("{token}\n"),
        String::new(),
        "..".to_owned(),
    ] {
        let _ = refusal(&identity, &wrong).await;
    }
}

#[tokio::test]
async fn large_and_deep_tokens_are_refused_before_any_work() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let large = issuer.token(|claims| claims["padding"] = json!("x".repeat(16 * 1024)));
    assert!(refusal(&identity, &large).await.contains("larger than"));
    let deep = BASE64_URL_SAFE_NO_PAD.encode("[".repeat(5000));
    let _ = refusal(&identity, &format!("{deep}.{deep}.AAAA")).await;
    let claims =
        BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"iss\":\"{ISSUER}\",\"x\":{}", "[".repeat(5000)));
    let header = encoded(&json!({ "alg": "ES256", "kid": "one" }));
    let _ = refusal(&identity, &format!("{header}.{claims}.AAAA")).await;
    let twice = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","alg":"none","kid":"one"}"#);
    let rest = issuer.token(|_| {}).split_once('.').unwrap().1.to_owned();
    let _ = refusal(&identity, &format!("{twice}.{rest}")).await;
}

#[tokio::test]
async fn two_identities_are_one_too_many() {
    let issuer = Issuer::new();
    let mut identity =
        issuer.identity().with_unix(vec![UnixRule::single(Err(7), "HOST\\x").unwrap()]);
    identity.rules = vec![rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*")];
    let token = issuer.token(|_| {});
    let bearer = Some(Bearer(&token));
    let ann = certificate(&["sso://DEV/ann"], &[]);
    let ambiguous = certificate(&["sso://DEV/ann", "sso://DEV/bob"], &[]);
    let unknown = certificate(&["sso://PROD/ann"], &[]);
    for (certificate, wanted) in [
        (Some(&ann), Err(Reason::IdentityAmbiguous)),
        (Some(&ambiguous), Err(Reason::IdentityAmbiguous)),
        (Some(&unknown), Ok("IDP\\ann".to_owned())),
        (None, Ok("IDP\\ann".to_owned())),
    ] {
        let shown = Shown { certificate, bearer, ..Shown::default() };
        let found = identity.caller(&shown).await;
        let found = found.map(|c| c.account.as_str().to_owned()).map_err(|error| error.reason);
        assert_eq!(found, wanted);
    }
    let strict = identity.clone().with_tokens_over_tls(false);
    for certificate in [Some(&unknown), None] {
        let shown = Shown { certificate, bearer, ..Shown::default() };
        assert_eq!(strict.caller(&shown).await.unwrap_err().reason, Reason::TokenRefused);
    }
    let (known, stranger) = (process(7, None), process(8, None));
    let shown = |local| Shown { local: Some(local), bearer, ..Shown::default() };
    let error = strict.caller(&shown(&known)).await.unwrap_err();
    assert_eq!(error.reason, Reason::IdentityAmbiguous);
    assert_eq!(strict.caller(&shown(&stranger)).await.unwrap().account.as_str(), "IDP\\ann");
}

#[tokio::test]
async fn groups_of_the_file_hold_groups_of_tokens() {
    let issuer = Issuer::new();
    let (_folder, groups) = groups("'DEV\\All' = ['IDP\\staff']\n'IDP\\boss' = []\n");
    let mut identity = issuer.identity();
    identity.groups = groups;
    let caller = identity.user_of_token(&issuer.token(|_| {})).await.unwrap();
    assert_eq!(caller.groups.clone().into_keys().collect::<Vec<_>>(), ["dev\\all", "idp\\staff"]);
    let boss = issuer.token(|claims| claims["preferred_username"] = json!("boss"));
    assert!(refusal(&identity, &boss).await.contains("group"));
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_and_a_bad_one_is_not() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(identity.clone().watch(stop.clone()));
    let new = sign(&json!({ "alg": "ES256", "kid": "two" }), &good(), &issuer.other);
    let _ = refusal(&identity, &new).await;
    issuer.publish(&[]);
    let began = tokio::time::Instant::now();
    let keys = identity.tokens[0].keys();
    while !keys.is_failing() {
        assert!(began.elapsed() < Duration::from_secs(20), "the change is not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(identity.user_of_token(&issuer.token(|_| {})).await.is_ok(), "the old keys are kept");
    issuer.publish(&[issuer.jwk("two", &issuer.other)]);
    while identity.user_of_token(&new).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the change is not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = refusal(&identity, &issuer.token(|_| {})).await;
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_token_is_verified_once_while_nothing_changes() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let token = issuer.token(|_| {});
    let first = identity.user_of_token(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &identity.user_of_token(&token).await.unwrap()));
    // A clone has the same memory; another token of the same account is another one.
    assert!(Arc::ptr_eq(&first, &identity.clone().user_of_token(&token).await.unwrap()));
    let other = issuer.token(|claims| claims["x"] = json!(1));
    assert!(!Arc::ptr_eq(&first, &identity.user_of_token(&other).await.unwrap()));
    // One letter more or less is another token, too.
    refusal(&identity, &token[..token.len() - 1]).await;

    // The same keys read again are other ones.
    let keys = identity.tokens[0].keys();
    keys.read_again();
    let again = identity.user_of_token(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &again));
    assert!(Arc::ptr_eq(&again, &identity.user_of_token(&token).await.unwrap()));

    // A key that was taken away signs for nobody any more, from that moment on.
    issuer.publish(&[issuer.jwk("one", &issuer.other)]);
    keys.read_again();
    assert!(refusal(&identity, &token).await.contains("signature"));
    issuer.publish(&[issuer.jwk("two", &issuer.other)]);
    keys.read_again();
    refusal(&identity, &token).await;
    issuer.publish(&[issuer.jwk("one", &issuer.key)]);
    keys.read_again();
    assert!(identity.user_of_token(&token).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_over_is_not_remembered() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let token = issuer.token(|_| {});
    assert!(identity.user_of_token(&token).await.is_ok());
    issuer.clock.advance(Duration::from_secs(300 + 59));
    assert!(identity.user_of_token(&token).await.is_ok());
    issuer.clock.advance(Duration::from_secs(1));
    assert!(refusal(&identity, &token).await.contains("expired"));
}

#[tokio::test]
async fn a_remembered_token_has_the_groups_of_now() {
    let issuer = Issuer::new();
    let (folder, groups) = groups("'DEV\\All' = ['IDP\\ann']\n");
    let mut identity = issuer.identity();
    identity.groups = Arc::clone(&groups);
    let token = issuer.token(|_| {});
    let of = |caller: &Caller| caller.groups.contains_key("dev\\all");
    assert!(of(&identity.user_of_token(&token).await.unwrap()));
    let stop = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&groups).watch(stop.clone()));
    let before = identity.generation();
    let file = folder.path().join("groups.toml");
    fs::write(file, "version = 1\n[groups]\n'DEV\\All' = ['IDP\\bob']\n").unwrap();
    while identity.generation() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!of(&identity.user_of_token(&token).await.unwrap()));
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn no_more_tokens_are_remembered_than_there_is_room_for() {
    let issuer = Issuer::new();
    let identity = issuer.identity();
    let caller = identity.user_of_token(&issuer.token(|_| {})).await.unwrap();
    let remembered = Remembered::default();
    let source = &identity.tokens[0];
    let (user, keys) = source.verify(&issuer.token(|_| {}), &issuer.clock).await.unwrap();
    let verified = Verified {
        source: Arc::clone(source),
        keys,
        generation: identity.generation(),
        from: NOW,
        until: user.until,
        caller,
    };
    for number in 0..40_000 {
        let print = Fingerprint::of(&number.to_string());
        remembered.keep(print, verified.clone());
        assert!(remembered.find(&print, identity.generation(), NOW).is_some());
    }
    assert!(remembered.len() <= 16 * 1024, "{}", remembered.len());
    assert!(remembered.len() > 15 * 1024, "{}", remembered.len());
    // What is over makes room first.
    let later = verified.until;
    let verified = Verified { from: later, until: later + Duration::from_secs(9), ..verified };
    for number in 0..16 * 16 {
        remembered.keep(Fingerprint::of(&format!("later {number}")), verified.clone());
    }
    assert!(remembered.len() <= 16 * 16, "{}", remembered.len());
}
