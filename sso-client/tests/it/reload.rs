//! Certificates of a server and of a master: loaded again and shown.

use sso_proto::Reason;

use crate::{
    cli::{json, sso},
    fake::{Answer, Fake},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_after_a_reload_is_shown() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["server", "reload-tls"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in ["fake", "CN=fake", "own", "hard-fail", "1.3 or newer"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("warning: the certificate CN=fake ends in 5 days"));
    let ran = sso(&fake, &["server", "reload-tls", "--output", "json"]).await;
    let document = json(&ran.stdout);
    assert_eq!((&document["name"], &document["tls"]["number"]), (&"fake".into(), &2.into()));
    assert_eq!(document["tls"]["certificates"][0]["thumbprint_sha256"], "ab12");
    assert_eq!(ran.stderr, "", "the document has the warnings");

    let ran = sso(&fake, &["secret", "reload-tls", "--output", "json"]).await;
    assert_eq!(json(&ran.stdout)["name"], "m", "{}", ran.stderr);
    assert_eq!(fake.state.secret.taken(), ["reload tls"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_usable_is_refused_with_a_hint() {
    let fake = Fake::start().await;
    *fake.state.answer.lock().unwrap() = Answer::Refuse(Reason::TlsNotReloaded);
    let ran = sso(&fake, &["server", "reload-tls"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("TLS_NOT_RELOADED"), "{}", ran.stderr);
    assert!(ran.stderr.contains("sso cert show FILE"), "{}", ran.stderr);
}
