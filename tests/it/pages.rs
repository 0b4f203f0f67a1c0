//! Pages of the documentation that are made from the code. `SSO_WRITE_DOCS=1` writes them anew.

use std::{fmt::Write as _, fs, path::Path};

use sso_proto::Reason;

#[expect(clippy::disallowed_methods, reason = "an order to this test, not a setting of a program")]
fn is_up_to_date(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("SSO_WRITE_DOCS").is_some() {
        fs::write(&path, text).expect("the page written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/{page} is out of date: SSO_WRITE_DOCS=1 cargo test -p sso-tests --all-features pages"
    );
}

/// The settings of the manual, as somebody would copy them.
#[test]
fn the_settings_of_the_manual_load() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    for name in ["sso-master.toml", "groups.toml", "sso-server.toml"] {
        let (_, block) = page.split_once(&format!("`/etc/sso/{name}`")).expect("the file");
        let (_, block) = block.split_once("```toml\n").expect("a block");
        let (block, _) = block.split_once("```").expect("its end");
        fs::write(place(name), block).expect("written");
    }
    fs::create_dir(place("private")).expect("a folder");
    let password = place("private/database.password");
    sso_core::settings::write_private(&password, b"secret\n", false).expect("written");
    sso_master::settings::Settings::load(&place("sso-master.toml"))
        .expect("settings of the master");
    sso_server::settings::Settings::load(&place("sso-server.toml")).expect("settings of a server");
}

/// Every backticked word in the last column of the cases is a test, if it is not a reason or a path.
#[test]
fn the_tests_of_the_threat_model_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).expect("the page");
    let mut sources = String::new();
    for source in crate::house::sources("") {
        sources.push_str(&source.text);
    }
    let cases =
        page.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 3);
    let mut named = 0;
    for case in cases {
        let proof = case.rsplit(" | ").next().unwrap_or_default();
        for name in proof.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')) {
            assert!(sources.contains(&format!("fn {name}(")), "no test {name}, named in: {case}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests are named");
}

/// As the specification of gRPC writes it.
fn status_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn errors() {
    let mut text = String::from(
        "# Reasons\n\n\
         Every refusal carries a gRPC status and, as `google.rpc.ErrorInfo` of the domain `sso.v1`, one of these reasons. \
         They are stable:\nprograms may rely on them. `event` is the number that the reference product logs for the same \
         thing.\nWarnings come with an answer that is otherwise good.\n\n\
         | reason | status | event | what it says |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let event = reason.event().map(|event| event.to_string()).unwrap_or_default();
        let code = reason.code();
        let status = if code == tonic::Code::Ok {
            "(warning)".to_owned()
        } else {
            format!("`{}`", status_name(code))
        };
        let summary = reason.summary();
        let _ = writeln!(text, "| `{}` | {status} | {event} | {summary} |", reason.as_str());
    }
    is_up_to_date("errors.md", &text);
}
