//! A client that shares no code with this project: Python with grpcio and server reflection.

use std::{path::Path, process::Command};

use sso_tests::system::{Database, System};

/// The interpreter with grpcio; `None`, with a word about it, where there is none and none is required.
#[expect(clippy::disallowed_methods, reason = "tests/run says where the interpreter is")]
fn python() -> Option<String> {
    let python = std::env::var("SSO_TEST_PYTHON").ok();
    if python.is_none() {
        let required = std::env::var_os("SSO_REQUIRE_PYTHON").is_some();
        assert!(!required, "SSO_TEST_PYTHON is not set: start the tests by tests/run");
        eprintln!("skipped: SSO_TEST_PYTHON is not set; tests/run makes the environment");
    }
    python
}

fn read(system: &System, python: &str, profile: &str, mode: &str) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_config.py");
    let installation = system.installation();
    Command::new(python)
        .arg(script)
        .args(["OrderRouting.Settings", "ConfigProperties", mode])
        .env("SSO_ADDR", installation.server_address(1).expect("server 1"))
        .env("SSO_CA", installation.tls_file("ca.crt"))
        .env("SSO_CERT", installation.tls_file(&format!("{profile}.crt")))
        .env("SSO_KEY", installation.tls_file(&format!("{profile}.key")))
        .output()
        .expect("Python starts")
}

#[test]
fn a_client_made_from_reflection_reads_a_configuration() {
    let Some(python) = python() else { return };
    let system = System::start(Database::Sqlite);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/order-routing.xml");
    let create = ["app", "create", "--file", example.to_str().expect("UTF-8")];
    let _ = system.sso_ok("affiliate-admin", &create);
    let values = r#"{"RoutingServiceUrl":"https://routing.example","RetryLimit":"3",
        "PartnerApiKey":"grün & \"quoted\"","ArchiveConnectionString":"Server=archive"}"#;
    let set = ["config", "set", "OrderRouting.Settings", "ConfigProperties", "--values", "-"];
    let output = system.sso_with_input("app-admin", &set, values);
    assert!(output.status.success(), "{output:?}");

    let output = read(&system, &python, "user", "runtime");
    assert!(output.status.success(), "{output:?}");
    let read_back: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read_back["revision"], "1");
    assert_eq!(read_back["values"]["PartnerApiKey"], "grün & \"quoted\"");
    assert_eq!(read_back["values"]["RetryLimit"], "3");

    let output = read(&system, &python, "app-admin", "admin");
    let read_back: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read_back["values"].get("PartnerApiKey"), None);

    let output = read(&system, &python, "host", "runtime");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with(b"PERMISSION_DENIED: "), "{output:?}");
}
