//! Who may call what: every method of the descriptors, every role, every type of application,
//! against a table written from ESSO.md 2.3 and not from the code.

mod evaluator;
mod matrix;

use sso_client::{MappingKey, NewMapping};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{raw, system::System};
use tonic::Code;

const APPLICATION: &str = "Matrix";

/// A client certificate of this name with this address in it.
pub(crate) fn issue_certificate(system: &System, name: &str, uri: &str) {
    let folder = system.installation().tls_file("ca.crt");
    let tls = folder.parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    let _ = system.sso_ok(
        "admin",
        &[
            "cert", "issue", "--ca", &tls, "--out", &tls, "--name", name, "--role", "client",
            "--uri", uri, "--days", "30",
        ],
    );
}

/// The enabled mapping that `DEV\user` would use in an application of this type, and its key.
fn user_mapping(name: &str, kind: v1::ApplicationType) -> (NewMapping, MappingKey) {
    let is_group = kind == v1::ApplicationType::Group;
    let account = if is_group { "DEV\\Application Users" } else { "DEV\\user" };
    let mapping = NewMapping {
        application: name.to_owned(),
        account: account.to_owned(),
        external_user: "EXT".to_owned(),
        credentials: None,
        enable: true,
    };
    let is_host_group = kind == v1::ApplicationType::HostGroup;
    let by_account = || MappingKey::account(name, account);
    let key = if is_host_group { MappingKey::external_user(name, "EXT") } else { by_account() };
    (mapping, key)
}

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Open", "Closed:masked"]);
    let set = ["config", "set", APPLICATION, "One", "--values", "-"];
    let output = system.sso_with_input("app-admin", &set, r#"{"Open":"o","Closed":"c"}"#);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn every_method_has_a_row_in_the_access_table_and_every_row_a_method() {
    let methods = raw::methods();
    assert!(methods.len() >= 45);
    for (path, _) in &methods {
        assert!(sso_server::access::method(path).is_some(), "{path} stands in no row");
    }
    for row in sso_server::access::METHODS {
        let ours = row.path.starts_with("/sso.v1.");
        assert!(
            !ours || methods.iter().any(|(path, _)| path == row.path),
            "{} is no method",
            row.path
        );
    }
}

#[test]
fn without_an_account_every_method_is_unauthenticated() {
    let system = System::start(sso_tests::system::Database::Sqlite);
    for (name, uri) in [
        ("stranger", "sso://OTHER/admin"),
        ("sneaky", "sso://DEV/SSO%20Administrators"),
        ("server", "sso-server://sso-server-1"),
    ] {
        issue_certificate(&system, name, uri);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for name in ["stranger", "sneaky", "server"] {
            let channel = raw::channel(&system, 1, name);
            let mut paths: Vec<String> = raw::methods().into_iter().map(|(path, _)| path).collect();
            paths.push("/grpc.health.v1.Health/Check".into());
            paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".into());
            for path in paths {
                let status = raw::call(&channel, &path, Vec::new()).await.expect_err("a refusal");
                assert_eq!(status.code(), Code::Unauthenticated, "{name} {path}: {status:?}");
                let refusal = Refusal::from_status(&status).expect("a refusal of ours");
                assert_eq!(refusal.reason, Reason::NotAuthenticated);
            }
        }
        // With an account, what stands in no row is refused all the same.
        let channel = raw::channel(&system, 1, "admin");
        for path in [
            "/sso.v1.Applications/Nothing",
            "/sso.v1.MasterSecret/Fetch",
            "/grpc.channelz.v1.Channelz/GetServers",
        ] {
            let status = raw::call(&channel, path, Vec::new()).await.expect_err("a refusal");
            let refusal = Refusal::from_status(&status).expect("a refusal of ours");
            assert_eq!(refusal.reason, Reason::MethodNotListed, "{path}");
        }
    });
}

#[test]
fn a_group_that_loses_a_member_loses_it_on_every_server_within_seconds() {
    let system = System::start_with(sso_tests::system::Database::Sqlite, 2, Default::default());
    prepare(&system);
    let read = ["config", "get", APPLICATION, "One", "--reveal"];
    for profile in ["user", "user-2"] {
        assert!(system.sso(profile, &read).status.success());
    }
    let path = system.folder().join("groups.toml");
    let text = std::fs::read_to_string(&path).expect("the groups file");
    std::fs::write(
        &path,
        text.replace("'DEV\\user'", "'DEV\\nobody'")
            .replace("\"DEV\\\\user\"", "\"DEV\\\\nobody\""),
    )
    .expect("written");
    for profile in ["user", "user-2"] {
        sso_tests::system::eventually(
            "the user is denied",
            std::time::Duration::from_secs(5),
            || (system.sso(profile, &read).status.code() == Some(77)).then_some(()),
        );
    }
}
