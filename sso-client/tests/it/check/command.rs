//! The command as its own process: options, what it prints, exit codes.

use std::{net::SocketAddr, path::Path, process::Stdio};

use super::{
    pki::{Authority, CLIENT, SERVER},
    servers::{Served, answering},
};
use crate::cli::{Ran, json};

async fn sso(arguments: &[&str], profiles: Option<&Path>) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sso"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    if let Some(profiles) = profiles {
        command.env("SSO_CONFIG", profiles);
    }
    let output = command.output().await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn check(address: SocketAddr, options: &[&str]) -> Ran {
    let address = address.to_string();
    sso(&[&["cert", "check", &address][..], options].concat(), None).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn served_with_a_certificate() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let client = authority.issue("alice", CLIENT, |_| {});
    let address = Served::with(&issued).requiring(&authority, "").start().await;
    let (ca, list) = (authority.file(), authority.list_file(&[]));
    let options = [
        "--ca",
        text(&ca),
        "--crl",
        text(&list),
        "--cert",
        text(&client.certificate_file),
        "--key",
        text(&client.key_file),
    ];
    let ran = check(address, &options).await;
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for says in ["resolve", "client-certificate", "accepted", "CN=server", "SHA-256", "served"] {
        assert!(ran.stdout.contains(says), "{says}: {}", ran.stdout);
    }

    let ran = check(address, &[&options[..], &["-o", "json"]].concat()).await;
    let report = json(&ran.stdout);
    assert_eq!((ran.code, &report["verdict"]), (0, &"served".into()), "{}", ran.stdout);
    assert_eq!(report["reason"], serde_json::Value::Null);
    assert_eq!(report["steps"].as_array().unwrap().len(), 14, "{report}");
    assert_eq!(report["agreement"]["application_protocol"], "h2");
    assert_eq!(report["certificates"][0]["subject"], "CN=server");
    assert_eq!(report["lists"][0]["source"], text(&list));

    let profiles = authority.write(
        "profiles.toml",
        &format!(
            "version = 1\ndefault = \"a\"\n[profile.a]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
            text(&ca),
            text(&client.certificate_file),
            text(&client.key_file)
        ),
    );
    let ran = sso(&["cert", "check", &address.to_string()], Some(&profiles)).await;
    assert_eq!(ran.code, 0, "the profile says it all: {}{}", ran.stdout, ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_and_why() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let address = Served::with(&issued).requiring(&authority, "").start().await;
    let (ca, list) = (authority.file(), authority.list_file(&["server"]));
    let ran = check(address, &["--ca", text(&ca)]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("NO_CLIENT_CERTIFICATE"), "{}", ran.stdout);

    let ran = check(address, &["--ca", text(&ca), "--crl", text(&list), "-ojson"]).await;
    let report = json(&ran.stdout);
    assert_eq!((ran.code, &report["reason"]), (1, &"CERTIFICATE_REVOKED".into()), "{report}");

    let options = ["--ca", text(&ca), "--crl", text(&list), "--revocation", "off", "-ojson"];
    let ran = check(address, &options).await;
    let report = json(&ran.stdout);
    assert_eq!(report["reason"], "NO_CLIENT_CERTIFICATE", "{report}");

    let ran = check(address, &["--ca", text(&ca), "--name", "sso.corp.example", "-ojson"]).await;
    let report = json(&ran.stdout);
    assert_eq!((ran.code, &report["reason"]), (1, &"WRONG_NAME".into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_and_nonsense() {
    let authority = Authority::root("Good CA");
    let ca = authority.file();
    let silent = answering(b"", false).await;
    let ran = check(silent, &["--ca", text(&ca), "--timeout", "500ms"]).await;
    assert_eq!(ran.code, 69, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("HANDSHAKE_TIMEOUT"), "{}", ran.stdout);

    for arguments in [
        &["localhost"][..],
        &["localhost:0"],
        &["localhost:443", "--name", "a b"],
        &["localhost:443", "--revocation", "sometimes"],
    ] {
        let ran = sso(&[&["cert", "check"], arguments, &["--ca", text(&ca)]].concat(), None).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    }
    let ran = check(silent, &[]).await;
    assert_eq!(ran.code, 64, "no authority is named: {}", ran.stderr);
    assert!(ran.stderr.contains("--ca"), "{}", ran.stderr);
    let ran = check(silent, &["--ca", "/nowhere/ca.crt"]).await;
    assert_eq!(ran.code, 64, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_looks_at_a_running_server() {
    let authority = Authority::root("Good CA");
    let intermediate = authority.intermediate("Issuing CA");
    let issued = intermediate.issue("server", SERVER, |_| {});
    let address = Served::with(&issued).start().await.to_string();
    let ran = sso(&["cert", "show", &address], None).await;
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("CN=server"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Issuing CA"), "{}", ran.stdout);

    let key = text(&issued.key_file);
    let ran = sso(&["cert", "show", &address, "--key", key, "-o", "json"], None).await;
    let shown = json(&ran.stdout);
    let certificates = shown["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2, "{shown}");
    assert!(certificates.iter().any(|it| it["private_key"] == key), "{shown}");

    let silent = answering(b"", false).await.to_string();
    let ran = sso(&["cert", "show", &silent, "--timeout", "500ms"], None).await;
    assert_eq!(ran.code, 69, "{}{}", ran.stdout, ran.stderr);
}
