//! With a real OpenID provider: its own tokens, its rotation of keys, and its absence.

use std::time::Duration;

use serde_json::json;
use sso_tests::{
    oidc::Provider,
    system::{System, eventually},
};

use super::{sso_with_token, system_with_tokens, who};

const SOON: Duration = Duration::from_secs(30);

fn source(provider: &Provider) -> String {
    let (issuer, ca) = (provider.issuer(), provider.ca());
    format!(
        "issuer = \"{issuer}\"\njwks_url = \"{issuer}/jwks\"\nca = \"{}\"\naudiences = [\"sso\"]\n\
         domain = \"IDP\"\ngroups_claim = \"groups\"\n",
        ca.display()
    )
}

fn account(system: &System, token: &str) -> Option<String> {
    who(system, token).ok().and_then(|caller| caller["account"].as_str().map(str::to_owned))
}

#[test]
fn users_and_programs_of_a_provider_are_accounts_with_groups() {
    let Some(provider) = Provider::start() else { return };
    let system = system_with_tokens(&source(&provider));
    let ann = provider.token("ann");
    let caller = who(&system, &ann).expect("ann is known");
    assert_eq!(caller["account"], "IDP\\ann");
    assert_eq!(caller["source"], "token");
    assert_eq!(caller["groups"], json!(["IDP\\Staff", "IDP\\Trading"]));
    assert_eq!(account(&system, &provider.token("service")).as_deref(), Some("IDP\\service"));

    // Roles by groups of the token, as by any others.
    let create = ["app", "create", "Desk", "--enable", "--users", "IDP\\Trading"];
    let rest = ["--admins", "DEV\\Application Administrators", "--field", "url"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &rest[..]].concat());
    let _ = system.sso_ok("app-admin", &["config", "set", "Desk", "Main", "url=x"]);
    let get = ["config", "get", "Desk", "Main", "--reveal"];
    let read = sso_with_token(&system, &ann, &get);
    assert!(read.status.success(), "{read:?}");
    let bob = sso_with_token(&system, &provider.token("bob"), &get);
    assert_eq!(bob.status.code(), Some(77), "{bob:?}");

    // A token of the same provider for another service.
    let error =
        who(&system, &provider.token_for("ann", "urn:other")).expect_err("another audience");
    assert!(error.contains("TOKEN_REFUSED") && error.contains("aud"), "{error}");
    // A certificate goes on to work beside tokens.
    let _ = system.sso_ok("user", &["status"]);

    let (_, token_in_log) = (ann.len(), ann.rsplit_once('.').expect("a token").1);
    assert!(!system.log_of_server(1).contains(token_in_log), "a token is in the log");
}

#[test]
fn new_keys_are_taken_at_once_and_old_ones_are_not_kept() {
    let Some(mut provider) = Provider::start() else { return };
    let system = system_with_tokens(&source(&provider));
    let old = provider.token("ann");
    assert!(account(&system, &old).is_some());
    provider.rotate();
    // The key is not known yet: the server looks before it refuses.
    assert!(account(&system, &provider.token("ann")).is_some());
    let error = who(&system, &old).expect_err("its key is no longer published");
    assert!(error.contains("TOKEN_REFUSED") && error.contains("kid"), "{error}");
}

#[test]
fn without_the_provider_known_keys_serve_and_a_server_starts() {
    let Some(mut provider) = Provider::start() else { return };
    let mut system = system_with_tokens(&source(&provider));
    let token = provider.token("ann");
    assert!(account(&system, &token).is_some());
    provider.kill();
    assert!(account(&system, &token).is_some(), "the keys are known");

    system.stop_server(1);
    system.start_server(1);
    let error = who(&system, &token).expect_err("no keys");
    assert!(error.contains("TOKEN_REFUSED"), "{error}");
    let _ = system.sso_ok("user", &["status"]);

    provider.restart();
    let token = provider.token("ann");
    eventually("the keys are fetched", SOON, || account(&system, &token));
}
