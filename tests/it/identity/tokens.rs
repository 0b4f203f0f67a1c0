//! Tokens that the test signs itself, at the door of the real server.

use std::{fs, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};
use sso_core::{
    clock::Clock,
    connector::{ClientTls, ConnectOptions, connect_channel},
    tls::TrustSettings,
};
use sso_proto::{Reason, Refusal};
use sso_tests::{
    raw,
    system::{Database, System, Timing},
};
use tonic::{Code, transport::Channel};

use super::{edit_settings, private_file, sso_with_token, system_with_tokens, who};

const ISSUER: &str = "https://id.example";

fn signing_key() -> EncodingKey {
    let pem = KeyPair::generate().expect("a key").serialize_pem();
    EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key")
}

fn token(key: &EncodingKey, edit: impl FnOnce(&mut Value)) -> String {
    let now = Clock::System.now().unix_timestamp();
    let mut claims = json!({
        "iss": ISSUER, "aud": "sso", "sub": "1", "preferred_username": "ann", "exp": now + 300,
    });
    edit(&mut claims);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("one".into());
    jsonwebtoken::encode(&header, &claims, key).expect("a token")
}

/// A system that knows the key, with no leeway.
fn system(key: &EncodingKey) -> (System, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).expect("a key");
    jwk.common.key_id = Some("one".into());
    let file = private_file(folder.path(), "jwks.json", &json!({ "keys": [jwk] }).to_string());
    let source = format!(
        "issuer = \"{ISSUER}\"\njwks_file = \"{}\"\naudiences = [\"sso\"]\ndomain = \"IDP\"\n\
         leeway_seconds = 0\n",
        file.display()
    );
    (system_with_tokens(&source), folder)
}

/// A channel that shows no certificate.
fn bare_channel(system: &System) -> Channel {
    let trust = TrustSettings {
        allow_development: true,
        ..TrustSettings::new(system.installation().tls_file("ca.crt"))
    };
    let tls = ClientTls::without_certificate(&trust).expect("an authority");
    let address = system.installation().server_address(1).expect("a server");
    connect_channel(&address, tls, ConnectOptions::default()).expect("a channel")
}

#[test]
fn without_certificate_and_token_every_method_is_unauthenticated() {
    let (system, _folder) = system(&signing_key());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let channel = bare_channel(&system);
        let mut paths: Vec<String> = raw::methods().into_iter().map(|(path, _)| path).collect();
        paths.push("/grpc.health.v1.Health/Check".into());
        paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".into());
        for path in paths {
            let status = raw::call(&channel, &path, Vec::new()).await.expect_err("a refusal");
            assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status:?}");
            let refusal = Refusal::from_status(&status).expect("a refusal of ours");
            assert_eq!(refusal.reason, Reason::NotAuthenticated);
        }
    });
}

#[test]
fn forged_tokens_and_two_identities_are_refused_by_the_program() {
    let key = signing_key();
    let (system, _folder) = system(&key);
    let good = token(&key, |_| {});
    assert_eq!(who(&system, &good).expect("ann")["account"], "IDP\\ann");
    let unsigned = |header: &str| {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        let claims = good.split('.').nth(1).expect("claims");
        format!("{}.{claims}.", BASE64_URL_SAFE_NO_PAD.encode(header))
    };
    let forged = [
        token(&signing_key(), |_| {}),
        token(&key, |claims| claims["exp"] = json!(1)),
        token(&key, |claims| claims["aud"] = json!("other")),
        token(&key, |claims| claims["iss"] = json!("https://other.example")),
        token(&key, |claims| claims["preferred_username"] = json!("DEV\\admin")),
        unsigned(r#"{"alg":"none"}"#),
        unsigned(r#"{"alg":"none","kid":"one"}"#),
        "x".repeat(8 * 1024),
    ];
    for token in forged {
        let error = who(&system, &token).expect_err(&token);
        assert!(error.contains("TOKEN_REFUSED"), "{error}");
    }

    // The certificate of an account and a token, both good.
    let file = private_file(system.folder(), "both.token", &good);
    let file = file.to_str().expect("UTF-8");
    let (cert, key) =
        (system.installation().tls_file("user.crt"), system.installation().tls_file("user.key"));
    let output = system.sso(
        "user",
        &[
            "--token-file",
            file,
            "--cert",
            cert.to_str().expect("UTF-8"),
            "--key",
            key.to_str().expect("UTF-8"),
            "status",
        ],
    );
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("IDENTITY_AMBIGUOUS"), "{error}");

    // Others may read the file.
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
    let output = system.sso("user", &["--token-file", file, "status"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}

#[test]
fn a_stream_ends_with_the_token_that_opened_it() {
    let key = signing_key();
    let (system, _folder) = system(&key);
    let create = ["app", "create", "Desk", "--enable", "--users", "IDP\\ann"];
    let rest = ["--admins", "DEV\\Application Administrators", "--field", "url"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &rest[..]].concat());
    let short = token(&key, |claims| {
        claims["exp"] = json!(Clock::System.now().unix_timestamp() + 4);
    });
    let began = std::time::Instant::now();
    let output = sso_with_token(&system, &short, &["config", "watch", "Desk"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("TOKEN_REFUSED"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "long after its end");
}

#[test]
fn where_certificates_are_required_tokens_are_not_taken() {
    let key = signing_key();
    let (mut system, _folder) = system(&key);
    system.stop_server(1);
    edit_settings(&system, |text| text.replace("client_certificate = \"optional\"\n", ""));
    system.start_server(1);
    let error = who(&system, &token(&key, |_| {})).expect_err("no certificate");
    assert!(error.contains("certificate"), "{error}");
    let _ = system.sso_ok("user", &["status"]);
}

#[test]
fn sources_of_the_same_domain_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut jwk = Jwk::from_encoding_key(&signing_key(), Algorithm::ES256).expect("a key");
    jwk.common.key_id = Some("one".into());
    let file = private_file(folder.path(), "jwks.json", &json!({ "keys": [jwk] }).to_string());
    let system = System::prepare(Database::Sqlite, 1, Timing::default());
    edit_settings(&system, |text| {
        format!(
            "{text}\n[[identity.token]]\nissuer = \"{ISSUER}\"\njwks_file = \"{}\"\n\
             audiences = [\"sso\"]\ndomain = \"dev\"\n",
            file.display()
        )
    });
    let settings = system.installation().server_settings(1);
    let program = system.installation().programs().server.clone();
    let output = std::process::Command::new(program)
        .args(["check", "--settings"])
        .arg(settings)
        .output()
        .expect("sso-server runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(error.contains("identity.domains") && error.contains("identity.token[0]"), "{error}");
}

/// threat-model.md, case 9, ESSO.md 14.3 row 28: whoever gets the name of somebody who left
/// inherits nothing.
#[test]
fn a_name_belongs_to_its_first_holder_until_an_administrator_has_that_one_forgotten() {
    let key = signing_key();
    let (system, _folder) = system(&key);
    let of = |subject: &str| token(&key, |claims| claims["sub"] = subject.into());
    assert_eq!(who(&system, &of("1")).expect("the first")["account"], "IDP\\ann");
    for _ in 0..2 {
        let error = who(&system, &of("2")).expect_err("somebody else");
        assert!(error.contains("PRINCIPAL_REPLACED") && error.contains("IDP\\\\ann"), "{error}");
        assert!(!error.contains(&format!("{ISSUER}|")), "it tells who had the name: {error}");
        who(&system, &of("1")).expect("the first one still");
    }
    let list = |more: &[&str]| system.sso_json("admin", &[&["principal", "list"], more].concat());
    let found = list(&["--replaced"]);
    assert_eq!(found["principals"][0]["subject"], format!("{ISSUER}|1"));
    assert_eq!(found["principals"][0]["refused_subject"], format!("{ISSUER}|2"));
    let denied = system.sso("affiliate-admin", &["principal", "forget", "IDP\\ann"]);
    assert_eq!(denied.status.code(), Some(77), "{denied:?}");
    let forgotten = system.sso_json("admin", &["principal", "forget", "idp\\ANN"]);
    assert_eq!(forgotten["existed"], true);
    who(&system, &of("2")).expect("the next one keeps it");
    let error = who(&system, &of("1")).expect_err("the first one has lost it");
    assert!(error.contains("PRINCIPAL_REPLACED"), "{error}");
    let again = system.sso_json("admin", &["principal", "forget", "IDP\\nobody"]);
    assert_eq!(again["existed"], false);
}

/// The second seed's story with an end user who has only a token: the trusted host forwards it, and the
/// server verifies it itself.
#[test]
fn a_trusted_host_gets_a_ticket_for_the_end_user_whose_token_it_forwards() {
    let key = signing_key();
    let (system, _folder) = system(&key);
    let _ = system.sso_ok("admin", &["system", "update", "--tickets-allowed", "yes"]);
    let create = ["app", "create", "Mainframe", "--type", "individual", "--enable"];
    let rest = ["--users", "IDP\\ann", "--admins", "DEV\\Integration Hosts"];
    let fields = ["--field", "Password:masked", "--allow-tickets", "yes"];
    let _ = system.sso_ok("admin", &[&create[..], &rest[..], &fields[..]].concat());
    let map = ["mapping", "create", "Mainframe", "IDP\\ann", "ANN01", "--values", "-", "--enable"];
    let mapped = system.sso_with_input("admin", &map, r#"["racf-secret"]"#);
    assert!(mapped.status.success(), "{mapped:?}");

    let issue = |who: &str, token: &str| {
        system.sso_with_input(who, &["ticket", "issue", "--user-token-file", "-"], token)
    };
    let untrusted = issue("app-admin", &token(&key, |_| {}));
    let error = String::from_utf8_lossy(&untrusted.stderr).into_owned();
    assert!(untrusted.status.code() == Some(77) && error.contains("NOT_TRUSTED_HOST"), "{error}");
    let expired = token(&key, |claims| claims["exp"] = 1.into());
    for bad in [&*expired, "a.b.c", &token(&signing_key(), |_| {})] {
        let refused = issue("host", bad);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains("USER_TOKEN_REFUSED"), "{error}");
    }
    let issued = issue("host", &token(&key, |_| {}));
    assert!(issued.status.success(), "{issued:?}");
    let ticket = String::from_utf8(issued.stdout).expect("text");
    let redeem = |sender| {
        let arguments = ["ticket", "redeem", "Mainframe", "--sender", sender, "-o", "json"];
        system.sso_with_input("host", &arguments, &ticket)
    };
    let redeemed = redeem("IDP\\ann");
    let found: Value = serde_json::from_slice(&redeemed.stdout).expect("JSON");
    let expected = json!({
        "application": "Mainframe", "external_user": "ANN01", "credentials": ["racf-secret"],
    });
    assert_eq!(found, expected);
    assert!(!redeem("DEV\\host").status.success(), "it is not the host's");

    // Somebody else under the same name by now: the ticket of the one before is dead.
    let _ = system.sso_ok("admin", &["principal", "forget", "IDP\\ann"]);
    who(&system, &token(&key, |claims| claims["sub"] = "2".into())).expect("the next one");
    let refused = redeem("IDP\\ann");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("TICKET_OUTDATED"), "{error}");
}
