//! The story of the payment gateway, played by its script under `sso dev`. The programs of the example
//! have tests of their own, beside them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sso_client::integration::{ReceiveLocation, SendPort};
use sso_tests::{left_out, system::programs};

/// Longest time of the story, in seconds: many tests share few cores.
const LONGEST: &str = "600";

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/payment-gateway")
}

/// Whether the program is installed; says so where it is not.
fn is_installed(program: &str, argument: &str) -> bool {
    let found = Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        left_out(&program.to_uppercase(), &format!("{program} is not installed"));
    }
    found
}

#[test]
fn the_story_of_the_payment_gateway_goes_to_its_end() {
    if !is_installed("curl", "--version") || !is_installed("openssl", "version") {
        return;
    }
    let mut command = Command::new("timeout");
    command
        .arg(LONGEST)
        .arg(programs().client)
        .args(["dev", "--"])
        .arg(example().join("run.sh"))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    for name in ["SSO_CONFIG", "SSO_PROFILE", "SSO_ADDR", "SSO_CA", "SSO_CERT", "SSO_KEY"] {
        command.env_remove(name);
    }
    let output = command.output().expect("sso dev runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("That was the payment gateway."), "{stdout}");
    for reason in [
        "NO_CLIENT_CERTIFICATE",
        "CERTIFICATE_REVOKED",
        "REVOCATION_LIST_UNAVAILABLE",
        "sso_tls_revocation_soft_failures_total",
        "TICKET_OUTDATED",
        "none of which failed or had to be repeated",
    ] {
        assert!(stdout.contains(reason), "{reason}: {stdout}");
    }
}

/// What the example says of itself is about what is there.
#[test]
fn the_manual_of_the_example_names_what_is_there() {
    let manual = std::fs::read_to_string(example().join("README.md")).expect("the manual");
    for file in ["run.sh", "applications.xml", "tests/it/kills.rs"] {
        assert!(manual.contains(file) && example().join(file).exists(), "{file}");
    }
    let outbox = std::fs::read_to_string(example().join("src/host/outbox.rs")).expect("the outbox");
    for state in ["waiting", "needs sign-on", "given up", "rejected", "uploaded", "paid"] {
        assert!(outbox.contains(&format!("'{state}'")), "{state} is no state");
        assert!(manual.contains(&format!("| `{state}` |")), "{state} is not in the manual");
    }
    let applications =
        std::fs::read_to_string(example().join("applications.xml")).expect("the applications");
    for field in SendPort::FIELDS.iter().chain(ReceiveLocation::FIELDS) {
        assert!(applications.contains(&format!("label=\"{field}\"")), "{field}");
    }
}
