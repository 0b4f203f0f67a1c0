//! Credentials, tickets, logons, explanations and the switches for them, as their own processes.

use sso_client::SecretText;
use sso_proto::Reason;

use crate::{
    cli::{json, sso, sso_with},
    fake::{Answer, Fake, sign_on::TICKET},
};

#[tokio::test(flavor = "multi_thread")]
async fn credentials_as_json_and_as_a_table() {
    let fake = Fake::start().await;
    let ran =
        sso(&fake, &["credentials", "get", "Mainframe", "--refresh", "--output", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = serde_json::json!({
        "application": "Mainframe", "external_user": "X1",
        "credentials": ["secret-0815", "pin\u{1b}ä"],
    });
    assert_eq!(json(&ran.stdout), expected);
    assert!(fake.state.asked.looked_up.lock().unwrap().take().unwrap().refresh);

    let ran = sso(&fake, &["credentials", "get", "Mainframe"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("Password") && ran.stdout.contains("--reveal"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("secret-0815"), "{}", ran.stdout);
    assert!(ran.stdout.contains("pin\\u{1b}ä"), "not masked, escaped: {}", ran.stdout);
    assert!(!fake.state.asked.looked_up.lock().unwrap().take().unwrap().refresh);
    let ran = sso(&fake, &["credentials", "get", "Mainframe", "--reveal"]).await;
    assert!(ran.stdout.contains("secret-0815"), "{}", ran.stdout);

    fake.answer(Answer::Refuse(Reason::NotApplicationUser));
    let ran = sso(&fake, &["credentials", "get", "Mainframe"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (77, ""));
    fake.answer(Answer::Refuse(Reason::MappingNotFound));
    let ran = sso(&fake, &["credentials", "get", "Mainframe"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("sso mapping create"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_goes_from_output_to_input() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["ticket", "issue", "--audience", "Mainframe"]).await;
    assert_eq!((ran.code, ran.stdout), (0, format!("{TICKET}\n")), "{}", ran.stderr);
    assert!(!ran.stderr.contains(TICKET), "{}", ran.stderr);
    let issued = fake.state.asked.issued.lock().unwrap().take().unwrap();
    assert_eq!(issued.application, "Mainframe");
    assert!(issued.user_token.is_none());

    let redeem = ["ticket", "redeem", "Mainframe", "--sender", r"DEV\test", "-o", "json"];
    let ran = sso_with(&fake, &format!("{TICKET}\n"), &redeem).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let keys: Vec<_> = json(&ran.stdout).as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["application", "credentials", "external_user"]);
    let redeemed = fake.state.asked.redeemed.lock().unwrap().take().unwrap();
    assert_eq!(redeemed.sender.as_deref(), Some(r"DEV\test"));

    let file = fake.folder.path().join("ticket");
    std::fs::write(&file, TICKET).unwrap();
    let file = file.to_str().unwrap();
    let ran = sso(&fake, &["ticket", "redeem", "Mainframe", "--ticket", file, "--refresh"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("secret-0815"), "{}", ran.stdout);
    let redeemed = fake.state.asked.redeemed.lock().unwrap().take().unwrap();
    assert_eq!((redeemed.sender.as_ref(), redeemed.refresh), (None, true));

    let ran = sso_with(&fake, "canary", &["ticket", "redeem", "Mainframe"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("TICKET_MALFORMED (event 10593)"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
    let ran = sso_with(&fake, " \n", &["ticket", "redeem", "Mainframe"]).await;
    assert_eq!(ran.code, 2, "no ticket at all");

    let ran = sso_with(&fake, TICKET, &["ticket", "inspect"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("(expired)") && ran.stdout.contains("any application"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_from_a_file() {
    let fake = Fake::start().await;
    let arguments = ["ticket", "issue", "--user-token-file", "-", "-o", "json"];
    let ran = sso_with(&fake, "eyJ.token.x\n", &arguments).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["ticket"], TICKET);
    assert_eq!(json(&ran.stdout)["account"], r"DEV\test");
    let issued = fake.state.asked.issued.lock().unwrap().take().unwrap();
    assert_eq!(issued.user_token.as_ref().unwrap().text, "eyJ.token.x");
}

#[tokio::test(flavor = "multi_thread")]
async fn issuing_is_repeated_and_redeeming_is_not() {
    let fake = Fake::start().await;
    fake.cut(1);
    fake.client().tickets().issue(None, None).await.unwrap();
    assert_eq!((fake.calls(), fake.connections()), (1, 2));

    let fake = Fake::start().await;
    fake.cut(1);
    let (client, ticket) = (fake.client(), SecretText::new(TICKET.into()));
    client.tickets().redeem("Mainframe", &ticket, None, false).await.unwrap_err();
    assert_eq!((fake.calls(), fake.connections()), (0, 1));
    let redeemed = client.tickets().redeem("Mainframe", &ticket, None, false).await.unwrap();
    let shown = format!("{redeemed:?}");
    assert!(shown.contains(r"DEV\\test") && !shown.contains("secret-0815"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_user_logs_on() {
    let fake = Fake::start().await;
    let logon = ["logon", "Hosts", "JOB1", "--values", "-", "--audience", "https://ledger.example"];
    let ran = sso_with(&fake, r#"["p", "g"]"#, &[&logon[..], &["-o", "json"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let answer = json(&ran.stdout);
    assert_eq!((&answer["account"], &answer["ticket"]), (&r"DEV\service".into(), &TICKET.into()));
    assert_eq!(answer["assertion"], "head.body.signature");
    let asked = fake.state.asked.logon.lock().unwrap().take().unwrap();
    assert_eq!(asked.credentials.as_ref().unwrap().values, ["p", "g"]);
    assert_eq!(asked.assertion_audience, "https://ledger.example");

    let ran = sso(&fake, &["logon", "Hosts", "JOB1"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains(TICKET), "{}", ran.stdout);
    assert!(fake.state.asked.logon.lock().unwrap().take().unwrap().credentials.is_none());
    fake.answer(Answer::Refuse(Reason::CredentialsMismatch));
    let ran = sso(&fake, &["logon", "Hosts", "JOB1"]).await;
    assert_eq!(ran.code, 77, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn explaining_says_it_with_the_exit_code_too() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["explain", r"DEV\user", "Mainframe"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.ends_with("\nallowed\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains(r"DEV\user as X1"), "{}", ran.stdout);
    let asked = fake.state.asked.explained.lock().unwrap().take().unwrap();
    assert_eq!(asked.action, "");

    let explain = ["explain", r"DEV\nobody", "Mainframe", "credentials.logon"];
    let ran = sso(&fake, &[&explain[..], &["--external-user", "J1"]].concat()).await;
    assert_eq!(ran.code, 77);
    assert!(ran.stdout.contains("FAILED") && ran.stdout.contains("NOT_APPLICATION_USER"));
    let asked = fake.state.asked.explained.lock().unwrap().take().unwrap();
    assert_eq!((asked.action.as_str(), asked.external_user.as_str()), ("credentials.logon", "J1"));
    let ran = sso(&fake, &[&explain[..], &["-o", "json"]].concat()).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (77, ""));
    let answer = json(&ran.stdout);
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["steps"][1]["reason"], "NOT_APPLICATION_USER");
    assert_eq!(answer["accounts_expected"][0], r"DEV\Application Users");
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_of_applications_systems_and_servers() {
    let fake = Fake::start().await;
    let ran =
        sso(&fake, &["app", "update", "Mainframe", "--allow-tickets", "on", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["flags"]["allow_tickets"], true);
    let updated = fake.state.updated.lock().unwrap().take().unwrap();
    assert_eq!(updated.update_mask.unwrap().paths, ["allow_tickets"]);

    let create = ["app", "create", "M", "--type", "individual", "--host-initiated", "yes"];
    let ran = sso(&fake, &create).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("flags on"), "{}", ran.stdout);
    let created = fake.state.application.lock().unwrap().take().unwrap();
    assert_eq!((created.host_initiated, created.allow_tickets), (Some(true), None));
    assert_eq!(sso(&fake, &["app", "purge-cache", "M"]).await.code, 0);

    let update = ["system", "update", "--tickets-allowed", "yes", "--trusted-hosts", r"D\a;D\b"];
    let ran = sso(&fake, &[&update[..], &["-o", "json"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["trusted_hosts"], serde_json::json!([r"D\a", r"D\b"]));
    let info = fake.state.info.lock().unwrap().take().unwrap();
    assert_eq!(info.update_mask.unwrap().paths, ["tickets_allowed", "trusted_hosts"]);
    assert_eq!(sso(&fake, &["system", "update"]).await.code, 2, "nothing to change");

    let set = ["server", "set", "fake", "--remote-lookup", "no", "--positive-audit-level", "2"];
    let ran = sso(&fake, &set).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let request = fake.state.server.lock().unwrap().take().unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["positive_audit_level", "remote_lookup"]);
    let ran = sso(&fake, &["server", "show", "-o", "json"]).await;
    assert_eq!(json(&ran.stdout)["remote_lookup"], true);
    let too_high = ["server", "set", "fake", "--negative-audit-level", "4"];
    assert_eq!(sso(&fake, &too_high).await.code, 2);
    let ran = sso(&fake, &["server", "assertion-keys"]).await;
    assert_eq!(json(&ran.stdout)["keys"], serde_json::json!([]));
}
