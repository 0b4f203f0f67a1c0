//! Every method, every role, every type of application, against the reference evaluator.

use prost::Message as _;
use sso_proto::{Refusal, v1};
use sso_tests::{everywhere::on_each_database, raw, system::System};
use tonic::{Code, Status};
use v1::ApplicationType as Kind;

use super::evaluator::{EVERYBODY, Operation as O, Whose, allows};

const KINDS: [Kind; 4] = [Kind::Individual, Kind::Group, Kind::HostGroup, Kind::ConfigStore];
/// A mapping of everybody but the caller.
const OTHER: &str = "DEV\\other";

fn name_of(kind: Kind) -> String {
    format!("Matrix {}", kind.as_str_name().trim_start_matches("APPLICATION_TYPE_"))
}

/// One row: path, request, what it asks.
type Row = (&'static str, Vec<u8>, O);

/// The requests about an application of this type, as the caller of this account sends them. The ticket
/// is one of `DEV\user`.
#[rustfmt::skip]
fn rows(kind: Kind, caller: &str, ticket: &str) -> Vec<Row> {
    let name = || name_of(kind);
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let update = |path: &str| {
        let application = v1::Application {
            name: name(), description: "described".into(), allow_tickets: Some(true), host_initiated: Some(true),
            windows_account: if kind == Kind::HostGroup { "DEV\\user".into() } else { String::new() },
            administrator_accounts: vec!["DEV\\Application Administrators".into()],
            user_accounts: if kind == Kind::HostGroup { vec![] } else { vec!["DEV\\Application Users".into(), "DEV\\other".into()] },
            ..Default::default()
        };
        v1::UpdateApplicationRequest { application: Some(application), update_mask: mask(path) }.encode_to_vec()
    };
    let new = v1::Application {
        name: name(), r#type: kind.into(),
        windows_account: if kind == Kind::HostGroup { "DEV\\user".into() } else { String::new() },
        fields: vec![v1::Field { label: "id".into(), ..Default::default() }], ..Default::default()
    };
    let key = |whose| {
        use v1::mapping_key::Side;
        let account = match (kind, whose) {
            (Kind::HostGroup, _) => return Some(v1::MappingKey { application: name(), side: Some(Side::ExternalUser("JOB1".into())) }),
            (Kind::Group, Whose::Own) => "DEV\\Application Users",
            (_, Whose::Own) => caller,
            (_, Whose::Other) => OTHER,
        };
        Some(v1::MappingKey { application: name(), side: Some(Side::Account(account.into())) })
    };
    let mapping = |whose| {
        let (account, external_user) = match (kind, whose) {
            (Kind::HostGroup, _) => ("DEV\\user".to_owned(), "JOB1".to_owned()),
            (Kind::Group, Whose::Own) => ("DEV\\Application Users".to_owned(), "SHARED".to_owned()),
            (_, Whose::Own) => (caller.to_owned(), format!("X-{caller}")),
            (_, Whose::Other) => (OTHER.to_owned(), "OTH01".to_owned()),
        };
        Some(v1::Mapping { application: name(), account, external_user, ..Default::default() })
    };
    let create = |whose| v1::CreateMappingRequest { mapping: mapping(whose), ..Default::default() };
    let credentials = || Some(v1::CredentialValues { values: vec!["secret".into()] });
    let config_key = || v1::ConfigurationKey { application: name(), identifier: "One".into() };
    let value = [("Password".to_owned(), v1::NewValue { value: Some("x".into()) })].into();
    let of_the_ticket = if caller == "DEV\\user" { Whose::Own } else { Whose::Other };
    let mut rows = vec![
        ("Applications/Create", v1::CreateApplicationRequest { application: Some(new) }.encode_to_vec(), O::ApplicationCreate),
        ("Applications/Get", v1::GetApplicationRequest { name: name() }.encode_to_vec(), O::ApplicationRead),
        ("Applications/List", v1::ListApplicationsRequest::default().encode_to_vec(), O::ApplicationList),
        ("Applications/Update", update("description"), O::ApplicationUpdate),
        ("Applications/Update", update("user_accounts"), O::ApplicationUsers),
        ("Applications/Update", update("administrator_accounts"), O::ApplicationAdministrators),
        ("Applications/Enable", v1::EnableApplicationRequest { name: name() }.encode_to_vec(), O::ApplicationUpdate),
        ("Applications/Disable", v1::DisableApplicationRequest { name: name() }.encode_to_vec(), O::ApplicationUpdate),
        ("Applications/Delete", v1::DeleteApplicationRequest { name: "Nowhere".into() }.encode_to_vec(), O::ApplicationDelete),
        ("Applications/AddField", v1::AddFieldRequest { application: name(), label: "Password".into(), masked: false }.encode_to_vec(), O::ApplicationAddField),
        ("Applications/PurgeCache", v1::PurgeCacheRequest { name: name() }.encode_to_vec(), O::ApplicationPurge),
        ("Mappings/List", v1::ListMappingsRequest { account: OTHER.into(), ..Default::default() }.encode_to_vec(), O::MappingsOfAnyone),
        ("Mappings/List", v1::ListMappingsRequest::default().encode_to_vec(), O::ApplicationList),
        ("Mappings/List", v1::ListMappingsRequest { application: name(), ..Default::default() }.encode_to_vec(), O::MappingsOf(Whose::Own)),
        ("Mappings/List", v1::ListMappingsRequest { application: name(), account: OTHER.into(), ..Default::default() }.encode_to_vec(), O::MappingsOf(Whose::Other)),
        ("Mappings/ListMembers", v1::ListMembersRequest { application: name(), ..Default::default() }.encode_to_vec(), O::MappingMembers),
        ("Lookup/GetCredentials", v1::GetCredentialsRequest { application: name(), refresh: false }.encode_to_vec(), O::CredentialsReveal),
        ("Lookup/LogonExternalUser", v1::LogonExternalUserRequest { application: name(), external_user: "JOB1".into(), ..Default::default() }.encode_to_vec(), O::CredentialsLogon),
        ("Lookup/GetAssertionKeys", v1::GetAssertionKeysRequest {}.encode_to_vec(), O::AssertionKeys),
        ("Tickets/Issue", v1::IssueTicketRequest::default().encode_to_vec(), O::TicketIssue),
        ("Tickets/Issue", v1::IssueTicketRequest { user_token: Some(v1::UserToken { text: "x.y.z".into() }), ..Default::default() }.encode_to_vec(), O::TicketForward),
        ("Tickets/Redeem", v1::RedeemTicketRequest { application: name(), ticket: Some(v1::Ticket { text: "sso1.x".into() }), ..Default::default() }.encode_to_vec(), O::TicketRedeem),
        ("Tickets/Inspect", v1::InspectTicketRequest { ticket: Some(v1::Ticket { text: ticket.into() }) }.encode_to_vec(), O::TicketInspect(of_the_ticket)),
        ("Access/Explain", v1::ExplainRequest { account: OTHER.into(), application: name(), ..Default::default() }.encode_to_vec(), O::Explain),
        ("ConfigStore/Set", v1::SetConfigurationRequest { application: name(), identifier: "One".into(), values: value, ..Default::default() }.encode_to_vec(), O::ConfigurationWrite),
        ("ConfigStore/Get", v1::GetConfigurationRequest { application: name(), identifier: "One".into(), ..Default::default() }.encode_to_vec(), O::ConfigurationRead),
        ("ConfigStore/Get", v1::GetConfigurationRequest { application: name(), identifier: "One".into(), mode: v1::ReadMode::Runtime.into(), ..Default::default() }.encode_to_vec(), O::ConfigurationReveal),
        ("ConfigStore/Delete", v1::DeleteConfigurationRequest { application: name(), identifier: "Never".into(), if_revision: None }.encode_to_vec(), O::ConfigurationWrite),
        ("ConfigStore/ListIdentifiers", v1::ListIdentifiersRequest { application: name(), ..Default::default() }.encode_to_vec(), O::ConfigurationRead),
        ("ConfigStore/History", v1::HistoryRequest { application: name(), identifier: "One".into() }.encode_to_vec(), O::ConfigurationWrite),
        ("ConfigStore/Rollback", v1::RollbackConfigurationRequest { application: name(), identifier: "One".into(), revision: 1, if_revision: None }.encode_to_vec(), O::ConfigurationWrite),
        ("ConfigStore/Watch", v1::WatchConfigurationsRequest { targets: vec![v1::WatchTarget { application: name(), identifier: "One".into() }] }.encode_to_vec(), O::ConfigurationWatch),
        ("ConfigStore/BatchGet", v1::BatchGetConfigurationsRequest { keys: vec![config_key()], mode: 0 }.encode_to_vec(), O::ConfigurationRead),
        ("ConfigStore/BatchGet", v1::BatchGetConfigurationsRequest { keys: vec![config_key()], mode: 1 }.encode_to_vec(), O::ConfigurationReveal),
        ("Audit/List", v1::ListAuditRequest { application: name(), ..Default::default() }.encode_to_vec(), O::AuditOfApplication),
    ];
    if matches!(kind, Kind::Individual | Kind::Group) {
        rows.push(("Applications/Update", update("allow_tickets"), O::ApplicationTickets));
    }
    if matches!(kind, Kind::Individual | Kind::HostGroup) {
        let path = if kind == Kind::Individual { "host_initiated" } else { "windows_account" };
        rows.push(("Applications/Update", update(path), O::ApplicationHosts));
    }
    for whose in [Whose::Own, Whose::Other] {
        // There is no other: all mappings of a host group are of its one account.
        if kind == Kind::HostGroup && whose == Whose::Other {
            continue;
        }
        rows.extend([
            ("Mappings/Create", create(whose).encode_to_vec(), O::MappingControl(whose)),
            ("Mappings/BatchCreate", v1::BatchCreateMappingsRequest { mappings: vec![create(whose)], dry_run: false }.encode_to_vec(), O::MappingControl(whose)),
            ("Mappings/SetCredentials", v1::SetCredentialsRequest { key: key(whose), credentials: credentials(), ..Default::default() }.encode_to_vec(), O::MappingSetCredentials(whose)),
            ("Mappings/Get", v1::GetMappingRequest { key: key(whose) }.encode_to_vec(), O::MappingsOf(whose)),
            ("Mappings/Enable", v1::EnableMappingRequest { key: key(whose) }.encode_to_vec(), O::MappingControl(whose)),
            ("Mappings/Disable", v1::DisableMappingRequest { key: key(whose) }.encode_to_vec(), O::MappingControl(whose)),
            ("Mappings/BatchDelete", v1::BatchDeleteMappingsRequest { mappings: mapping(whose).into_iter().collect(), dry_run: true }.encode_to_vec(), O::MappingControl(whose)),
            ("Mappings/Delete", v1::DeleteMappingRequest { key: key(whose) }.encode_to_vec(), O::MappingControl(whose)),
        ]);
    }
    rows
}

/// The requests about the system as a whole.
#[rustfmt::skip]
fn system_rows() -> Vec<Row> {
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let info = v1::GlobalInfo { ticket_timeout: 3, ..Default::default() };
    let settings = v1::ServerSettings { positive_audit_level: 0, negative_audit_level: 1, remote_lookup: true };
    vec![
        ("System/GetGlobalInfo", v1::GetGlobalInfoRequest {}.encode_to_vec(), O::SystemRead),
        ("System/UpdateGlobalInfo", v1::UpdateGlobalInfoRequest { global_info: Some(info), update_mask: mask("ticket_timeout") }.encode_to_vec(), O::SystemUpdate),
        ("System/Enable", v1::EnableSystemRequest {}.encode_to_vec(), O::SystemEnable),
        ("System/Disable", v1::DisableSystemRequest {}.encode_to_vec(), O::SystemEnable),
        ("System/GetServerStatus", v1::GetServerStatusRequest {}.encode_to_vec(), O::ServerState),
        ("System/ListServers", v1::ListServersRequest {}.encode_to_vec(), O::ServerState),
        ("System/GetServerSettings", v1::GetServerSettingsRequest::default().encode_to_vec(), O::ServerSettings),
        ("System/UpdateServerSettings", v1::UpdateServerSettingsRequest { settings: Some(settings), update_mask: mask("negative_audit_level"), ..Default::default() }.encode_to_vec(), O::ServerSettings),
        ("Principals/List", v1::ListPrincipalsRequest::default().encode_to_vec(), O::Principals),
        ("Principals/Forget", v1::ForgetPrincipalRequest { account: "DEV\\nobody".into() }.encode_to_vec(), O::Principals),
        ("System/ReloadTls", v1::ReloadTlsRequest {}.encode_to_vec(), O::ServerReload),
        ("System/BeginSealedRowsCheck", v1::BeginSealedRowsCheckRequest {}.encode_to_vec(), O::SealedRows),
        ("System/CheckSealedRows", v1::CheckSealedRowsRequest::default().encode_to_vec(), O::SealedRows),
        ("Audit/List", v1::ListAuditRequest::default().encode_to_vec(), O::AuditOfAll),
    ]
}

/// The reason a call was refused for want of a role; `None` where it went on to the noun. A batch
/// carries its refusals inside.
fn denial(path: &str, answer: &Result<Vec<u8>, Status>) -> Option<String> {
    let denied = |name: &str| {
        let reason = sso_proto::Reason::parse(name).expect("a reason of ours");
        // That the account is no user is about the mapping, not about the role of who asks.
        let of_the_role = reason != sso_proto::Reason::AccountNotInApplication;
        (of_the_role && reason.code() == Code::PermissionDenied).then(|| name.to_owned())
    };
    let first =
        |refused: Vec<v1::MappingOutcome>| refused.first().and_then(|it| denied(&it.reason));
    match (path, answer) {
        (_, Err(status)) => {
            let refusal =
                Refusal::from_status(status).unwrap_or_else(|| panic!("{path}: {status:?}"));
            assert!(!refusal.request_id.is_empty());
            denied(refusal.reason.as_str())
        }
        ("ConfigStore/BatchGet", Ok(bytes)) => {
            let batch = v1::BatchGetConfigurationsResponse::decode(&bytes[..]).expect("a batch");
            batch.results.into_iter().find_map(|result| match result.result {
                Some(v1::batch_get_configurations_result::Result::Refusal(refusal)) => {
                    denied(&refusal.reason)
                }
                _ => None,
            })
        }
        ("Mappings/BatchCreate", Ok(bytes)) => {
            first(v1::BatchCreateMappingsResponse::decode(&bytes[..]).expect("a batch").refused)
        }
        ("Mappings/BatchDelete", Ok(bytes)) => {
            first(v1::BatchDeleteMappingsResponse::decode(&bytes[..]).expect("a batch").refused)
        }
        _ => None,
    }
}

/// One application of each type, with its users by a group and, where the type lets it, by name.
async fn prepare(system: &System) {
    for (name, uri) in [("reader", "sso://DEV/reader"), ("auditor", "sso://DEV/auditor")] {
        super::issue_certificate(system, name, uri);
    }
    let client = system.client("admin");
    let readers = v1::GlobalInfo {
        configuration_readers: vec!["DEV\\reader".into()],
        auditors: vec!["DEV\\auditor".into()],
        tickets_allowed: true,
        host_initiated_allowed: true,
        // The ticket that is inspected lasts as long as the matrix takes.
        ticket_timeout: 60,
        ..Default::default()
    };
    let paths = [
        "configuration_readers",
        "auditors",
        "tickets_allowed",
        "host_initiated_allowed",
        "ticket_timeout",
    ];
    client.system().update(readers, &paths).await.expect("the system is set up");
    for kind in KINDS {
        let field =
            |ordinal, label: &str| v1::Field { ordinal, label: label.into(), ..Default::default() };
        let is_host_group = kind == Kind::HostGroup;
        let application = v1::Application {
            name: name_of(kind),
            r#type: kind.into(),
            user_accounts: match is_host_group {
                true => Vec::new(),
                false => vec!["DEV\\Application Users".into(), OTHER.into()],
            },
            windows_account: if is_host_group { "DEV\\user".into() } else { String::new() },
            administrator_accounts: vec!["DEV\\Application Administrators".into()],
            fields: vec![field(0, "id"), field(1, "Password")],
            enabled: true,
            ..Default::default()
        };
        client.applications().create(application).await.expect("an application");
    }
}

/// A ticket that `DEV\user` was issued.
async fn ticket_of_user(system: &System) -> String {
    let channel = raw::channel(system, 1, "user");
    let request = v1::IssueTicketRequest::default().encode_to_vec();
    let issued = raw::call(&channel, "/sso.v1.Tickets/Issue", request).await.expect("a ticket");
    let issued = v1::IssueTicketResponse::decode(&issued[..]).expect("an answer");
    issued.ticket.as_ref().expect("a ticket").text.clone()
}

#[test]
fn every_cell_of_role_method_and_type_is_as_the_evaluator_says() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let ticket = ticket_of_user(system).await;
            let admin = raw::channel(system, 1, "admin");
            let mut seen = Vec::new();
            let mut cells = 0;
            for who in EVERYBODY {
                let channel = raw::channel(system, 1, who.name);
                let account = format!("DEV\\{}", who.name);
                let of_kinds = KINDS.iter().flat_map(|&kind| {
                    rows(kind, &account, &ticket).into_iter().map(move |row| (kind, row))
                });
                let of_system = system_rows().into_iter().map(|row| (Kind::Unspecified, row));
                for (kind, (path, request, operation)) in of_kinds.chain(of_system) {
                    let full = format!("/sso.v1.{path}");
                    let answer = raw::call(&channel, &full, request).await;
                    let denial = denial(path, &answer);
                    assert_eq!(
                        denial.is_none(),
                        allows(who, operation, kind),
                        "{} {path} {kind:?} {operation:?}: {denial:?} {:?}",
                        who.name,
                        answer.err()
                    );
                    cells += 1;
                    seen.push(full);
                    // Neither switch may stay off for the cells behind it.
                    if path == "System/Disable" {
                        raw::call(&admin, "/sso.v1.System/Enable", Vec::new()).await.expect("on");
                    }
                    if path == "Applications/Disable" {
                        let name = v1::EnableApplicationRequest { name: name_of(kind) };
                        let enable = "/sso.v1.Applications/Enable";
                        raw::call(&admin, enable, name.encode_to_vec()).await.expect("enabled");
                    }
                }
            }
            for (path, _) in raw::methods() {
                assert!(seen.contains(&path), "the matrix has no row for {path}");
            }
            println!("{cells} cells");
            assert!(cells > 1000);
        });
    });
}

/// ESSO.md 2.3, the second table: what an ordinary user may do, by type; here to the very answer.
#[test]
fn ordinary_users_may_do_what_the_type_of_the_application_lets_them() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let (user, administrator) = (system.client("user"), system.client("app-admin"));
            let code = |result: Result<(), sso_client::ClientError>| match result {
                Ok(()) => "OK".to_owned(),
                Err(error) => error.refusal().expect("a refusal").reason.clone(),
            };
            let password = [sso_client::SecretText::new("pw".to_owned())];
            let mut found = Vec::new();
            for kind in KINDS {
                let name = name_of(kind);
                let (mapping, key) = super::user_mapping(&name, kind);
                let created = user.mappings().create(&mapping).await;
                if created.is_err() && kind != Kind::ConfigStore {
                    administrator.mappings().create(&mapping).await.expect("a mapping");
                }
                let set = user.mappings().set_credentials(&key, &password, None).await;
                if set.is_err() && kind != Kind::ConfigStore {
                    let set = administrator.mappings().set_credentials(&key, &password, None).await;
                    set.expect("credentials");
                }
                let read = user.lookup().credentials(&name, false).await;
                let logon = sso_client::LogonRequest {
                    application: name,
                    external_user: "EXT".to_owned(),
                    credentials: Some(password.to_vec()),
                    ..Default::default()
                };
                let logon = administrator.lookup().logon_external_user(&logon).await;
                found.push((
                    kind,
                    code(created.map(drop)),
                    code(set.map(drop)),
                    code(read.map(drop)),
                    code(logon.map(drop)),
                ));
            }
            let row = |kind, created: &str, set: &str, read: &str, logon: &str| {
                (kind, created.to_owned(), set.to_owned(), read.to_owned(), logon.to_owned())
            };
            let (no, wrong) = ("GROUP_MAPPING_PROTECTED", "APPLICATION_TYPE_WRONG");
            let host = "HOST_INITIATED_OFF_IN_APPLICATION";
            assert_eq!(
                found,
                [
                    row(Kind::Individual, "OK", "OK", "OK", host),
                    row(Kind::Group, no, no, "OK", host),
                    row(Kind::HostGroup, no, no, wrong, "OK"),
                    row(Kind::ConfigStore, wrong, wrong, wrong, host),
                ]
            );
        });
    });
}

/// threat-model.md, case 4: what cannot be read never becomes a yes. Each fault is one row that the
/// rules need, damaged behind the server's back.
#[test]
fn a_row_that_cannot_be_read_never_lets_anybody_in() {
    let faults = [
        "UPDATE application_accounts SET account = 'no/account' WHERE role = 'user'",
        "UPDATE application_accounts SET role = 'nobody' WHERE role = 'user'",
        "UPDATE applications SET flags = '[\"no_such_flag\"]'",
        "UPDATE applications SET type = 'none'",
        "UPDATE fields SET label = ''",
        "UPDATE mappings SET state = 'none'",
        "UPDATE mappings SET account_key = 'dev\\host' WHERE account_key = 'dev\\user'",
        "DELETE FROM fields WHERE ordinal = 0",
    ];
    for fault in faults {
        let system = System::start(sso_tests::system::Database::Sqlite);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            prepare(&system).await;
            let client = system.client("user");
            let name = name_of(Kind::Individual);
            let (mut mapping, _) = super::user_mapping(&name, Kind::Individual);
            mapping.credentials = Some(vec![sso_client::SecretText::new("pw".to_owned())]);
            client.mappings().create(&mapping).await.expect("a mapping");
            client.lookup().credentials(&name, true).await.expect("served before the fault");
            damage(&system, fault).await;
            for who in ["user", "host", "reader"] {
                let channel = raw::channel(&system, 1, who);
                let request =
                    v1::GetCredentialsRequest { application: name.clone(), refresh: true };
                let path = "/sso.v1.Lookup/GetCredentials";
                let answer = raw::call(&channel, path, request.encode_to_vec()).await;
                answer.expect_err("nobody gets credentials by a fault");
            }
        });
    }
}

async fn damage(system: &System, statement: &'static str) {
    use sqlx::Connection as _;
    sqlx::any::install_default_drivers();
    let url = raw::database_url(system);
    let mut database = sqlx::AnyConnection::connect(&url).await.expect("the database");
    let done = sqlx::raw_sql(statement).execute(&mut database).await.expect("damaged");
    assert!(done.rows_affected() > 0, "{statement} damages nothing");
}
