//! The command, as its own process.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use sso_proto::Reason;

use crate::fake::{Answer, Fake};

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `sso` with the profile of the fake, and the text on its standard input.
pub(crate) async fn sso_with(fake: &Fake, input: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sso"));
    command
        .args(arguments)
        .env_clear()
        .env("SSO_CONFIG", fake.folder.path().join("profiles.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || -> std::io::Result<Output> {
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().unwrap();
        // The command may end without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) async fn sso(fake: &Fake, arguments: &[&str]) -> Ran {
    sso_with(fake, "", arguments).await
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_values() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["config", "get", "App", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = serde_json::json!({
        "application": "App", "identifier": "ConfigProperties", "revision": 4,
        "values": {"Url": "https://x/ä\n"}, "masked": ["ApiKey"],
    });
    assert_eq!(json(&ran.stdout), expected);

    let ran = sso(&fake, &["config", "get", "App", "Id", "Url"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "https://x/ä\n\n"), "the bare value");

    let ran = sso(&fake, &["config", "get", "App", "Id"]).await;
    assert!(ran.stdout.contains("https://x/ä\\n"), "escaped in a table: {}", ran.stdout);
    assert!(ran.stderr.contains("revision 4"), "{}", ran.stderr);

    let ran = sso(&fake, &["config", "get", "App", "Id", "ApiKey"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("--reveal"), "{}", ran.stderr);
    let ran = sso(&fake, &["config", "get", "App", "Id", "ApiKey", "--reveal"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "secret-0815\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_value_on_the_command_line_is_refused() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["config", "set", "App", "Id", "Url=x", "apikey=canary"]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--prompt 'apikey'"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--values -"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
    assert!(fake.state.written.lock().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_from_standard_input_and_pairs() {
    let fake = Fake::start().await;
    let input = r#"{"ApiKey": "s3cret", "RetryLimit": 5, "Note": null}"#;
    let arguments =
        ["config", "set", "App", "Id", "Url=a=b", "--values", "-", "--if-revision", "3", "-ojson"];
    let ran = sso_with(&fake, input, &arguments).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["written"].as_array().unwrap().len(), 4);
    let written = fake.state.written.lock().unwrap().take().unwrap();
    let value = |label: &str| written.values[label].value.clone();
    assert_eq!(value("ApiKey").as_deref(), Some("s3cret"));
    assert_eq!(value("RetryLimit").as_deref(), Some("5"));
    assert_eq!(value("Note"), None);
    assert_eq!(value("Url").as_deref(), Some("a=b"));
    assert_eq!(written.if_revision, Some(3));

    let ran =
        sso_with(&fake, "[\"canary\"]", &["config", "set", "App", "Id", "--values", "-"]).await;
    assert_eq!(ran.code, 2);
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_settings() {
    let fake = Fake::start().await;
    let file =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/extra/config-store-settings-import.xml");
    let arguments =
        ["config", "import", "App", "--file", file, "--mode", "replace", "--dry-run", "-o", "json"];
    let ran = sso(&fake, &arguments).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["dry_run"], true);
    let written = fake.state.written.lock().unwrap().take().unwrap();
    assert_eq!((written.mode, written.dry_run, written.values.len()), (2, true, 4));
    assert_eq!(written.identifier, "ConfigProperties");

    let bad = "<settings>\n<property name='A'>canary<b/></property></settings>";
    let ran = sso_with(&fake, bad, &["config", "import", "App", "--file", "-"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("standard input: line 2, column 26"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_reason_event_and_hint() {
    let fake = Fake::start().await;
    fake.answer(Answer::Refuse(Reason::MasterUnreachable));
    let ran = sso(&fake, &["config", "set", "App", "Id", "--values", "-"]).await;
    assert_eq!(ran.code, 2, "no JSON at all");
    let ran = sso_with(&fake, "{}", &["config", "set", "App", "Id", "--values", "-"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (69, ""));
    for part in ["refused by the test", "MASTER_UNREACHABLE (event 10783)", "hint:"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    fake.answer(Answer::Refuse(Reason::NotSsoAdministrator));
    let ran = sso(&fake, &["status", "--output", "json"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (77, ""));
    let error = &json(&ran.stderr)["error"];
    assert_eq!(error["kind"], "denied");
    assert_eq!(error["reason"], "NOT_SSO_ADMINISTRATOR");
    assert_eq!((&error["event"], &error["exit_code"]), (&11009.into(), &77.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_command_lines_and_settings() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["nonsense", "--output", "json"]).await;
    assert_eq!((ran.code, json(&ran.stderr)["error"]["kind"].as_str()), (2, Some("usage")));
    let ran = sso(&fake, &["status", "--profile", "nobody"]).await;
    assert_eq!(ran.code, 64, "{}", ran.stderr);
    let ran = sso(&fake, &["status", "--addr", "https://127.0.0.1"]).await;
    assert_eq!(ran.code, 64, "{}", ran.stderr);
    let ran = sso(&fake, &["status", "--addr", "https://127.0.0.1:1", "--timeout", "2s"]).await;
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    let ran = sso(&fake, &["--help"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("Examples:"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_applications_goes_on_after_a_failure() {
    let fake = Fake::start().await;
    let file = "<sso><application name='Bad One'/><application name='Good'>\
                <flags configStoreApp='yes'/></application></sso>";
    let ran = sso_with(&fake, file, &["app", "create", "--file", "-", "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let results = json(&ran.stdout);
    assert_eq!(results["applications"][0]["result"], "failed");
    assert_eq!(results["applications"][1]["result"], "created");
    for line in ran.stderr.lines() {
        json(line);
    }
    assert!(ran.stderr.contains("APPLICATION_EXISTS"), "{}", ran.stderr);
    assert!(ran.stderr.contains("has a space"), "{}", ran.stderr);

    let ran = sso_with(&fake, "<sso>\n <app/></sso>", &["app", "create", "--file", "-"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("line 2, column 2"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_be_read_back() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["app", "export"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let applications = sso_client::xml::parse_applications(ran.stdout.as_bytes()).unwrap();
    assert_eq!(applications.len(), 250);
    let file = fake.folder.path().join("out.xml");
    let ran = sso(&fake, &["app", "export", "One", "Two", "--file", file.to_str().unwrap()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    let applications = sso_client::xml::parse_applications(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(applications[1].name, "Two");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_prints_a_line_for_each_change() {
    let fake = Fake::start().await;
    let change = |revision, deleted| sso_client::v1::ConfigurationChange {
        application: "App".into(),
        identifier: "Id".into(),
        revision,
        deleted,
    };
    *fake.state.watches.lock().unwrap() = vec![vec![change(1, false)], vec![change(2, true)]];
    let ran = sso(&fake, &["config", "watch", "App", "--count", "2", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().map(json).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["revision"], 2);
    assert_eq!(lines[1]["deleted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_sso"));
    command.args(["completion", "bash"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    // Deleting away from a terminal asks nobody.
    let ran = sso(&fake, &["app", "delete", "App"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "there was nothing to delete\n"));
}
