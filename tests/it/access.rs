//! Who may call what: every method of the descriptors, every role, against a table written from
//! ESSO.md 2.3 and not from the code.

use prost::Message as _;
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{raw, system::System};
use tonic::Code;

use sso_tests::everywhere::on_each_database;

/// The columns: SSO administrator, affiliate administrator, application administrator, application
/// user, somebody without a role.
const WHO: [&str; 5] = ["admin", "affiliate-admin", "app-admin", "user", "host"];

const APPLICATION: &str = "Matrix";

/// One row: method, request, and per column whether it is allowed.
type Row = (&'static str, Vec<u8>, [bool; 5]);

const SA: [bool; 5] = [true, false, false, false, false];
const AA: [bool; 5] = [true, true, false, false, false];
const PA: [bool; 5] = [true, true, true, false, false];
const MEMBER: [bool; 5] = [true, true, true, true, false];
const PU: [bool; 5] = [false, false, false, true, false];
const ALL: [bool; 5] = [true; 5];

fn application() -> String {
    APPLICATION.to_owned()
}

/// ESSO.md 2.3: rows 4–6, 10, 14, 15, 19–21, 35–37, and what this product adds beside them.
#[rustfmt::skip]
fn matrix() -> Vec<Row> {
    let name = application;
    let key = || v1::ConfigurationKey { application: name(), identifier: "One".into() };
    let wanted = || v1::Application { name: name(), description: "described".into(), administrator_accounts: vec!["DEV\\Application Administrators".into()], ..Default::default() };
    let new = v1::Application {
        name: name(), r#type: v1::ApplicationType::ConfigStore.into(),
        fields: vec![v1::Field { ordinal: 0, label: "reserved".into(), masked: false }], ..Default::default()
    };
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let value = |value: &str| [("Open".to_owned(), v1::NewValue { value: Some(value.into()) })].into();
    vec![
        ("Applications/Create", v1::CreateApplicationRequest { application: Some(new) }.encode_to_vec(), AA),
        ("Applications/Get", v1::GetApplicationRequest { name: name() }.encode_to_vec(), MEMBER),
        ("Applications/List", v1::ListApplicationsRequest::default().encode_to_vec(), ALL),
        ("Applications/Update", v1::UpdateApplicationRequest { application: Some(wanted()), update_mask: mask("description") }.encode_to_vec(), PA),
        ("Applications/Update", v1::UpdateApplicationRequest { application: Some(wanted()), update_mask: mask("administrator_accounts") }.encode_to_vec(), AA),
        ("Applications/Enable", v1::EnableApplicationRequest { name: name() }.encode_to_vec(), PA),
        ("Applications/Disable", v1::DisableApplicationRequest { name: name() }.encode_to_vec(), PA),
        ("Applications/Delete", v1::DeleteApplicationRequest { name: "Nowhere".into() }.encode_to_vec(), AA),
        ("Applications/AddField", v1::AddFieldRequest { application: name(), label: "Open".into(), masked: false }.encode_to_vec(), PA),
        ("ConfigStore/Set", v1::SetConfigurationRequest { application: name(), identifier: "One".into(), values: value("x"), ..Default::default() }.encode_to_vec(), PA),
        ("ConfigStore/Get", v1::GetConfigurationRequest { application: name(), identifier: "One".into(), ..Default::default() }.encode_to_vec(), PA),
        ("ConfigStore/Get", v1::GetConfigurationRequest { application: name(), identifier: "One".into(), mode: v1::ReadMode::Runtime.into(), ..Default::default() }.encode_to_vec(), PU),
        ("ConfigStore/Delete", v1::DeleteConfigurationRequest { application: name(), identifier: "Never".into(), if_revision: None }.encode_to_vec(), PA),
        ("ConfigStore/ListIdentifiers", v1::ListIdentifiersRequest { application: name(), ..Default::default() }.encode_to_vec(), PA),
        ("ConfigStore/History", v1::HistoryRequest { application: name(), identifier: "One".into() }.encode_to_vec(), PA),
        ("ConfigStore/Rollback", v1::RollbackConfigurationRequest { application: name(), identifier: "One".into(), revision: 1, if_revision: None }.encode_to_vec(), PA),
        ("ConfigStore/Watch", v1::WatchConfigurationsRequest { targets: vec![v1::WatchTarget { application: name(), identifier: "One".into() }] }.encode_to_vec(), MEMBER),
        ("ConfigStore/BatchGet", v1::BatchGetConfigurationsRequest { keys: vec![key()], mode: 0 }.encode_to_vec(), PA),
        ("ConfigStore/BatchGet", v1::BatchGetConfigurationsRequest { keys: vec![key()], mode: 1 }.encode_to_vec(), PU),
        ("System/GetGlobalInfo", v1::GetGlobalInfoRequest {}.encode_to_vec(), SA),
        ("System/UpdateGlobalInfo", v1::UpdateGlobalInfoRequest { global_info: Some(v1::GlobalInfo { ticket_timeout: 3, ..Default::default() }), update_mask: mask("ticket_timeout") }.encode_to_vec(), SA),
        ("System/Enable", v1::EnableSystemRequest {}.encode_to_vec(), SA),
        ("System/Disable", v1::DisableSystemRequest {}.encode_to_vec(), SA),
        ("System/GetServerStatus", v1::GetServerStatusRequest {}.encode_to_vec(), ALL),
        ("System/ListServers", v1::ListServersRequest {}.encode_to_vec(), ALL),
        ("Audit/List", v1::ListAuditRequest::default().encode_to_vec(), SA),
        ("Audit/List", v1::ListAuditRequest { application: name(), ..Default::default() }.encode_to_vec(), PA),
    ]
}

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Open", "Closed:masked"]);
    let set = ["config", "set", APPLICATION, "One", "--values", "-"];
    let output = system.sso_with_input("app-admin", &set, r#"{"Open":"o","Closed":"c"}"#);
    assert!(output.status.success(), "{output:?}");
}

/// The reason a call was refused for want of a role; `None` where it went on to the noun. A batch
/// carries its refusals inside.
fn denial(path: &str, answer: &Result<Vec<u8>, tonic::Status>) -> Option<String> {
    match answer {
        Err(status) if status.code() == Code::PermissionDenied => {
            let refusal = Refusal::from_status(status).expect("a refusal of ours");
            assert!(!refusal.request_id.is_empty());
            Some(refusal.reason.as_str().to_owned())
        }
        Ok(bytes) if path == "ConfigStore/BatchGet" => {
            let batch = v1::BatchGetConfigurationsResponse::decode(&bytes[..]).expect("a batch");
            batch.results.into_iter().find_map(|result| match result.result {
                Some(v1::batch_get_configurations_result::Result::Refusal(refusal))
                    if refusal.code == i32::from(Code::PermissionDenied) =>
                {
                    Some(refusal.reason)
                }
                _ => None,
            })
        }
        _ => None,
    }
}

#[test]
fn the_matrix_holds_for_every_method_and_role() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut seen = Vec::new();
            for (path, request, allowed) in matrix() {
                seen.push(format!("/sso.v1.{path}"));
                for (who, allowed) in WHO.iter().zip(allowed) {
                    let channel = raw::channel(system, 1, who);
                    let full = format!("/sso.v1.{path}");
                    let answer = raw::call(&channel, &full, request.clone()).await;
                    let denial = denial(path, &answer);
                    assert_eq!(
                        denial.is_none(),
                        allowed,
                        "{who} {path}: {denial:?} {:?}",
                        answer.err()
                    );
                    // Neither switch may stay off for the rows behind it.
                    let admin = raw::channel(system, 1, "admin");
                    for path in ["System/Enable", "Applications/Enable"] {
                        let name = v1::EnableApplicationRequest { name: application() };
                        let request =
                            if path == "System/Enable" { Vec::new() } else { name.encode_to_vec() };
                        raw::call(&admin, &format!("/sso.v1.{path}"), request)
                            .await
                            .expect("enabled");
                    }
                }
            }
            for (path, _) in raw::methods() {
                assert!(seen.contains(&path), "the matrix has no row for {path}");
            }
        });
    });
}

#[test]
fn every_method_has_a_row_in_the_access_table_and_every_row_a_method() {
    let methods = raw::methods();
    assert!(methods.len() >= 23);
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
    let folder = system.installation().tls_file("ca.crt");
    let tls = folder.parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    for (name, uri) in [
        ("stranger", "sso://OTHER/admin"),
        ("sneaky", "sso://DEV/SSO%20Administrators"),
        ("server", "sso-server://sso-server-1"),
    ] {
        let _ = system.sso_ok(
            "admin",
            &[
                "cert", "issue", "--ca", &tls, "--out", &tls, "--name", name, "--role", "client",
                "--uri", uri, "--days", "30",
            ],
        );
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
