//! ESSO.md 12.1: each legacy number that can be reached here, with its gRPC code, its stable reason and
//! its event number as they come over the wire. Requests that are served stand between them: they make
//! what the refusals need, and show that the same thing goes once its cause is gone. 10790 is in
//! `tickets::time`.

use prost::Message as _;
use sqlx::Row as _;
use sso_proto::v1;
use sso_tests::{
    everywhere::on_each_database,
    postgres, raw,
    system::{Database, System},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::ApplicationType as Kind;

use crate::{
    access::issue_certificate,
    asking::{application, database, until},
};

/// Who asks, method, message.
type Request = (&'static str, &'static str, Vec<u8>);

/// A request that is served, or refused with this code, reason and number.
enum Step {
    Served(Request),
    Refused(Request, Code, &'static str, &'static str),
}

use Step::{Refused, Served};

fn create(who: &'static str, application: v1::Application) -> Request {
    let message = v1::CreateApplicationRequest { application: Some(application) };
    (who, "Applications/Create", message.encode_to_vec())
}

fn update(who: &'static str, application: v1::Application, path: &str) -> Request {
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
    let message = v1::UpdateApplicationRequest { application: Some(application), update_mask };
    (who, "Applications/Update", message.encode_to_vec())
}

fn global(who: &'static str, info: v1::GlobalInfo, path: &str) -> Request {
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
    let message = v1::UpdateGlobalInfoRequest { global_info: Some(info), update_mask };
    (who, "System/UpdateGlobalInfo", message.encode_to_vec())
}

fn mapping(application: &str, account: &str, external_user: &str) -> v1::Mapping {
    v1::Mapping {
        application: application.into(),
        account: account.into(),
        external_user: external_user.into(),
        ..Default::default()
    }
}

fn map(who: &'static str, mapping: v1::Mapping, password: Option<&str>, enable: bool) -> Request {
    let credentials = password.map(|it| v1::CredentialValues { values: vec![it.into()] });
    let message = v1::CreateMappingRequest { mapping: Some(mapping), credentials, enable };
    (who, "Mappings/Create", message.encode_to_vec())
}

fn key(application: &str, account: &str) -> Option<v1::MappingKey> {
    let side = match account {
        "" => None,
        account => Some(v1::mapping_key::Side::Account(account.into())),
    };
    Some(v1::MappingKey { application: application.into(), side })
}

fn look_up(who: &'static str, application: &str) -> Request {
    let message = v1::GetCredentialsRequest { application: application.into(), refresh: true };
    (who, "Lookup/GetCredentials", message.encode_to_vec())
}

fn logon(who: &'static str, application: &str, external_user: &str, password: &str) -> Request {
    let message = v1::LogonExternalUserRequest {
        application: application.into(),
        external_user: external_user.into(),
        credentials: Some(v1::CredentialValues { values: vec![password.into()] }),
        ..Default::default()
    };
    (who, "Lookup/LogonExternalUser", message.encode_to_vec())
}

fn redeem(who: &'static str, application: &str, ticket: &str, sender: Option<&str>) -> Request {
    let message = v1::RedeemTicketRequest {
        application: application.into(),
        ticket: Some(v1::Ticket { text: ticket.into() }),
        sender: sender.map(Into::into),
        refresh: false,
    };
    (who, "Tickets/Redeem", message.encode_to_vec())
}

fn issue(who: &'static str) -> Request {
    (who, "Tickets/Issue", v1::IssueTicketRequest::default().encode_to_vec())
}

async fn send(system: &System, (who, path, message): Request) -> Result<Vec<u8>, Status> {
    let channel = raw::channel(system, 1, who);
    raw::call(&channel, &format!("/sso.v1.{path}"), message).await
}

async fn play(system: &System, steps: Vec<Step>) {
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Served(request) => {
                let shown = format!("step {number}: {} {}", request.0, request.1);
                if let Err(status) = send(system, request).await {
                    panic!("{shown}: {status:?}");
                }
            }
            Refused(request, code, reason, event) => {
                let shown = format!("step {number}: {} {} {reason}", request.0, request.1);
                let status = send(system, request).await.expect_err(&shown);
                let info = status.get_details_error_info().expect("ErrorInfo");
                assert_eq!(
                    (status.code(), &*info.reason, &*info.domain),
                    (code, reason, "sso.v1"),
                    "{shown}: {status:?}"
                );
                let found = info.metadata.get("event").map_or("", String::as_str);
                assert_eq!(found, event, "{shown}");
                assert_eq!(info.metadata.get("request_id").map(String::len), Some(36), "{shown}");
            }
        }
    }
}

/// 2.1, 3: accounts, types, flags, fields.
#[rustfmt::skip]
fn applications() -> Vec<Step> {
    let individual = || application("Ind", Kind::Individual);
    let accounts = |users: &str| v1::Application { user_accounts: vec![users.into()], ..individual() };
    let named = |name: &str, kind| application(name, kind);
    let broken = |fault: fn(&mut v1::Application)| {
        let mut application = named("Broken", Kind::Individual);
        fault(&mut application);
        create("admin", application)
    };
    let exists = v1::GetApplicationRequest { name: "Nowhere".into() }.encode_to_vec();
    let field = |label: &str| {
        let message = v1::AddFieldRequest { application: "Conf".into(), label: label.into(), masked: false };
        ("app-admin", "Applications/AddField", message.encode_to_vec())
    };
    vec![
        Served(create("affiliate-admin", individual())),
        Served(create("affiliate-admin", named("Grp", Kind::Group))),
        Served(create("affiliate-admin", named("Host", Kind::HostGroup))),
        Served(create("affiliate-admin", named("Conf", Kind::ConfigStore))),
        Refused(create("affiliate-admin", individual()), Code::AlreadyExists, "APPLICATION_EXISTS", "10752"),
        Refused(create("app-admin", named("New", Kind::Group)), Code::PermissionDenied, "NOT_AFFILIATE_ADMINISTRATOR", "11010"),
        Refused(("admin", "Applications/Get", exists.clone()), Code::NotFound, "APPLICATION_NOT_FOUND", "10756"),
        Refused(("host", "Applications/Get", exists), Code::PermissionDenied, "NOT_APPLICATION_USER", "11013"),
        Refused(field("password"), Code::AlreadyExists, "FIELD_EXISTS", "10758"),
        Refused(update("user", individual(), "description"), Code::PermissionDenied, "NOT_APPLICATION_ADMINISTRATOR", "11011"),
        Refused(update("app-admin", individual(), "administrator_accounts"), Code::PermissionDenied, "ADMINISTRATOR_ACCOUNTS_PROTECTED", "10569"),
        Refused(update("affiliate-admin", v1::Application { allow_tickets: Some(true), ..individual() }, "allow_tickets"), Code::PermissionDenied, "TICKET_FLAGS_PROTECTED", "11009"),
        Refused(update("affiliate-admin", v1::Application { ticket_timeout: 5, ..individual() }, "ticket_timeout"), Code::PermissionDenied, "TICKET_TIMEOUT_PROTECTED", "10615"),
        Refused(update("app-admin", v1::Application { validate_password: Some(false), ..individual() }, "validate_password"), Code::PermissionDenied, "PASSWORD_WAIVER_PROTECTED", "11010"),
        Refused(update("admin", v1::Application { ticket_timeout: 525_601, ..individual() }, "ticket_timeout"), Code::InvalidArgument, "TICKET_TIMEOUT_OUT_OF_RANGE", "11025"),
        Refused(update("admin", accounts("nobody/at all"), "user_accounts"), Code::InvalidArgument, "INVALID_ACCOUNT", "10776"),
        Refused(update("admin", accounts("Everyone"), "user_accounts"), Code::InvalidArgument, "BUILT_IN_ACCOUNT", "10777"),
        Refused(update("admin", accounts("localuser"), "user_accounts"), Code::InvalidArgument, "LOCAL_ACCOUNT_NOT_ALLOWED", "10781"),
        Refused(update("admin", v1::Application { windows_account: "DEV\\x".into(), ..individual() }, "windows_account"), Code::InvalidArgument, "WINDOWS_ACCOUNT_INVALID", "10846"),
        Refused(update("admin", v1::Application { windows_account: "DEV\\Application Users".into(), ..named("Host", Kind::HostGroup) }, "windows_account"), Code::InvalidArgument, "WINDOWS_ACCOUNT_INVALID", "10846"),
        Refused(broken(|it| it.restricted_credentials = Some(true)), Code::InvalidArgument, "INVALID_FLAGS", "10782"),
        Refused(broken(|it| it.direct_password_sync = Some(true)), Code::FailedPrecondition, "DIRECT_SYNC_AT_CREATE", "10849"),
        Refused(broken(|it| it.administrators_same = true), Code::FailedPrecondition, "ADMINISTRATORS_SAME", "10775"),
        Refused(broken(|it| it.fields.clear()), Code::InvalidArgument, "INVALID_FIELDS", ""),
        Served(create("admin", v1::Application {
            fields: (0..3).map(|n| v1::Field { ordinal: n, label: format!("f{n}"), ..Default::default() }).collect(),
            ..named("Three", Kind::Individual)
        })),
        Refused(update("admin", v1::Application { direct_password_sync: Some(true), ..named("Three", Kind::Individual) }, "direct_password_sync"), Code::FailedPrecondition, "FIELDS_AMBIGUOUS", "10848"),
    ]
}

/// 4: mappings, credentials, look-up.
#[rustfmt::skip]
fn mappings() -> Vec<Step> {
    let control = |who, verb: &'static str, application: &str, account: &str| {
        let key = key(application, account);
        let (path, message) = match verb {
            "enable" => ("Mappings/Enable", v1::EnableMappingRequest { key }.encode_to_vec()),
            "disable" => ("Mappings/Disable", v1::DisableMappingRequest { key }.encode_to_vec()),
            _ => ("Mappings/Get", v1::GetMappingRequest { key }.encode_to_vec()),
        };
        (who, path, message)
    };
    let set = |who, application: &str, values: &[&str]| {
        let values = values.iter().map(|&it| it.to_owned()).collect();
        let credentials = Some(v1::CredentialValues { values });
        let message = v1::SetCredentialsRequest { key: key(application, "DEV\\user"), credentials, ..Default::default() };
        (who, "Mappings/SetCredentials", message.encode_to_vec())
    };
    let restricted = || v1::Application { restrict_mapping_create: Some(true), ..application("Strict", Kind::Individual) };
    let enable = |name: &str, on| {
        let path = if on { "Applications/Enable" } else { "Applications/Disable" };
        ("admin", path, v1::EnableApplicationRequest { name: name.into() }.encode_to_vec())
    };
    vec![
        Refused(look_up("user", "Ind"), Code::NotFound, "MAPPING_NOT_FOUND", "10757"),
        Refused(map("user", mapping("Ind", "DEV\\app-admin", "X"), None, false), Code::PermissionDenied, "MAPPING_OF_ANOTHER", "10558"),
        Refused(map("user", mapping("Grp", "DEV\\Application Users", "X"), None, false), Code::PermissionDenied, "GROUP_MAPPING_PROTECTED", "10557"),
        Refused(map("app-admin", mapping("Ind", "DEV\\app-admin", "X"), None, false), Code::PermissionDenied, "ACCOUNT_NOT_IN_APPLICATION", "10853"),
        Refused(map("app-admin", mapping("Ind", "DEV\\Application Users", "X"), None, false), Code::InvalidArgument, "INDIVIDUAL_ACCOUNT_REQUIRED", "10847"),
        Refused(map("app-admin", mapping("Ind", "local", "X"), None, false), Code::InvalidArgument, "DOMAIN_ACCOUNT_REQUIRED", "10841"),
        Refused(map("app-admin", mapping("Grp", "DEV\\user", "X"), None, false), Code::InvalidArgument, "GROUP_ACCOUNT_NOT_LISTED", "10556"),
        Refused(map("app-admin", mapping("Ind", "DEV\\user", ""), None, false), Code::InvalidArgument, "EXTERNAL_USER_INVALID", ""),
        Served(create("affiliate-admin", restricted())),
        Refused(map("user", mapping("Strict", "DEV\\user", "X"), None, false), Code::PermissionDenied, "MAPPING_CREATE_RESTRICTED", "10856"),
        Served(map("user", mapping("Ind", "DEV\\user", "USR01"), None, false)),
        Refused(map("user", mapping("Ind", "DEV\\user", "USR02"), None, false), Code::AlreadyExists, "MAPPING_EXISTS", "11045"),
        Served(map("app-admin", mapping("Grp", "DEV\\Application Users", "SHARED"), Some("pw"), true)),
        Refused(map("app-admin", mapping("Grp", "DEV\\Application Users", "OTHER"), None, false), Code::AlreadyExists, "GROUP_MAPPING_EXISTS", "11026"),
        Served(map("app-admin", mapping("Host", "", "JOB1"), Some("pw"), true)),
        Refused(map("app-admin", mapping("Host", "", "job1"), None, false), Code::AlreadyExists, "EXTERNAL_USER_MAPPED", "11046"),
        Refused(look_up("user", "Ind"), Code::FailedPrecondition, "MAPPING_DISABLED", "10764"),
        Served(control("user", "enable", "Ind", "")),
        Refused(look_up("user", "Ind"), Code::FailedPrecondition, "CREDENTIALS_NOT_SET", "10765"),
        Refused(set("user", "Ind", &["a", "b"]), Code::InvalidArgument, "CREDENTIALS_INCOMPLETE", ""),
        Served(set("user", "Ind", &["pw"])),
        Served(look_up("user", "Ind")),
        Served(look_up("user", "Grp")),
        Refused(look_up("admin", "Ind"), Code::PermissionDenied, "NOT_APPLICATION_USER", "11013"),
        Served(control("app-admin", "disable", "Ind", "DEV\\user")),
        Refused(control("user", "enable", "Ind", ""), Code::FailedPrecondition, "MAPPING_DISABLED_BY_ADMINISTRATOR", "10770"),
        Refused(look_up("user", "Ind"), Code::FailedPrecondition, "MAPPING_DISABLED_BY_ADMINISTRATOR", "10770"),
        Served(control("app-admin", "enable", "Ind", "DEV\\user")),
        Served(enable("Ind", false)),
        Refused(look_up("user", "Ind"), Code::FailedPrecondition, "APPLICATION_DISABLED", "10755"),
        Served(enable("Ind", true)),
        Refused(look_up("user", "Conf"), Code::FailedPrecondition, "APPLICATION_TYPE_WRONG", ""),
    ]
}

/// 5: tickets. `ticket` is of `DEV\user`.
#[rustfmt::skip]
fn tickets(ticket: &str) -> Vec<Step> {
    let tickets = |on| v1::GlobalInfo { tickets_allowed: on, ..Default::default() };
    let individual = || application("Ind", Kind::Individual);
    let app = |path: &str, fault: fn(&mut v1::Application)| {
        let mut application = individual();
        fault(&mut application);
        Served(update("admin", application, path))
    };
    let sender = Some("DEV\\user");
    let host = "app-admin";
    let damaged = format!("{}{}", &ticket[..ticket.len() - 4], "AAAA");
    vec![
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKETS_NOT_ALLOWED_BY_APPLICATION", "10540"),
        app("allow_tickets", |it| it.allow_tickets = Some(true)),
        Refused(redeem("user", "Ind", ticket, sender), Code::PermissionDenied, "NOT_APPLICATION_ADMINISTRATOR", "11011"),
        Refused(redeem(host, "Ind", "no ticket", sender), Code::InvalidArgument, "TICKET_MALFORMED", "10593"),
        Refused(redeem(host, "Ind", &damaged, sender), Code::InvalidArgument, "TICKET_NOT_AUTHENTIC", "10592"),
        Refused(redeem(host, "Ind", ticket, None), Code::FailedPrecondition, "TICKET_VALIDATION_REQUIRED_BY_SYSTEM", "10541"),
        Served(global("admin", v1::GlobalInfo { tickets_validated: false, ..Default::default() }, "tickets_validated")),
        Refused(redeem(host, "Ind", ticket, None), Code::FailedPrecondition, "TICKET_VALIDATION_REQUIRED_BY_APPLICATION", "10542"),
        app("validate_tickets", |it| it.validate_tickets = Some(false)),
        Refused(redeem(host, "Ind", ticket, None), Code::FailedPrecondition, "TICKET_VALIDATION_REQUIRED_BY_TICKET", "10543"),
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKET_SENDER_MISMATCH", "10594"),
        Served(global("admin", v1::GlobalInfo { trusted_hosts: vec!["DEV\\app-admin".into()], ..Default::default() }, "trusted_hosts")),
        Served(redeem(host, "Ind", ticket, sender)),
        app("user_accounts", |it| it.user_accounts = vec!["DEV\\Integration Hosts".into()]),
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKET_USER_NOT_IN_APPLICATION", "10596"),
        app("user_accounts", |_| ()),
        app("require_ticket_audience", |it| it.require_ticket_audience = Some(true)),
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKET_AUDIENCE_WRONG", ""),
        app("require_ticket_audience", |it| it.require_ticket_audience = Some(false)),
        app("one_time_tickets", |it| it.one_time_tickets = Some(true)),
        Served(redeem(host, "Ind", ticket, sender)),
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKET_REDEEMED", ""),
        Served(global("admin", tickets(false), "tickets_allowed")),
        Refused(redeem(host, "Ind", ticket, sender), Code::FailedPrecondition, "TICKETS_NOT_ALLOWED_BY_SYSTEM", "10539"),
        Refused(issue("user"), Code::FailedPrecondition, "TICKETS_NOT_ALLOWED", "10545"),
        Refused(global("admin", v1::GlobalInfo { ticket_timeout: 0, ..Default::default() }, "ticket_timeout"), Code::InvalidArgument, "OUT_OF_RANGE", "10614"),
    ]
}

/// 10, and the system as a whole.
#[rustfmt::skip]
fn logons_and_the_system() -> Vec<Step> {
    let allowed = v1::GlobalInfo { host_initiated_allowed: true, ..Default::default() };
    let accounts = |account: &str| v1::GlobalInfo { sso_administrators: vec![account.into()], ..Default::default() };
    vec![
        Refused(logon("app-admin", "Host", "JOB1", "pw"), Code::FailedPrecondition, "HOST_INITIATED_OFF", "10808"),
        Served(global("admin", allowed, "host_initiated_allowed")),
        Refused(logon("app-admin", "Ind", "USR01", "pw"), Code::FailedPrecondition, "HOST_INITIATED_OFF_IN_APPLICATION", "10809"),
        Refused(logon("app-admin", "Host", "JOB1", "wrong"), Code::Unauthenticated, "CREDENTIALS_MISMATCH", "10810"),
        Refused(logon("user", "Host", "JOB1", "pw"), Code::PermissionDenied, "NOT_APPLICATION_ADMINISTRATOR", "11011"),
        Served(logon("app-admin", "Host", "JOB1", "pw")),
        Refused(("affiliate-admin", "System/GetGlobalInfo", Vec::new()), Code::PermissionDenied, "NOT_SSO_ADMINISTRATOR", "11009"),
        Refused(global("admin", accounts("DEV\\SSO Administrators"), "sso_administrators"), Code::FailedPrecondition, "SYSTEM_NOT_DISABLED", "10773"),
        Served(("admin", "System/Disable", Vec::new())),
        Refused(look_up("user", "Grp"), Code::FailedPrecondition, "SYSTEM_DISABLED", "10754"),
        Refused(issue("user"), Code::FailedPrecondition, "SYSTEM_DISABLED", "10754"),
        Refused(global("admin", accounts("DEV\\Application Users"), "sso_administrators"), Code::FailedPrecondition, "CALLER_NOT_IN_ACCOUNTS", "10834"),
        Served(("admin", "System/Enable", Vec::new())),
        Served(look_up("user", "Grp")),
    ]
}

#[test]
fn each_number_of_the_error_model_comes_with_its_code_and_reason() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let on = v1::GlobalInfo { tickets_allowed: true, ..Default::default() };
            play(system, applications()).await;
            play(system, mappings()).await;
            play(system, vec![Served(global("admin", on, "tickets_allowed"))]).await;
            let issued = send(system, issue("user")).await.expect("a ticket");
            let issued = v1::IssueTicketResponse::decode(&issued[..]).expect("an answer");
            let ticket = issued.ticket.as_ref().expect("a ticket").text.clone();
            play(system, tickets(&ticket)).await;
            play(system, logons_and_the_system()).await;
        });
    });
}

fn set_password(password: &str) -> Request {
    let credentials = Some(v1::CredentialValues { values: vec![password.into()] });
    let key = key("Ind", "DEV\\user");
    let message = v1::SetCredentialsRequest { key, credentials, ..Default::default() };
    ("app-admin", "Mappings/SetCredentials", message.encode_to_vec())
}

/// 8 and 3: values that are kept, revisions, fields; and who nobody is.
#[rustfmt::skip]
fn conflicts() -> Vec<Step> {
    let write = |field: &str, value: Option<&str>, if_revision| {
        let values = [(field.to_owned(), v1::NewValue { value: value.map(Into::into) })].into();
        let message = v1::SetConfigurationRequest {
            application: "Conf".into(), identifier: "One".into(), values, if_revision, ..Default::default()
        };
        ("app-admin", "ConfigStore/Set", message.encode_to_vec())
    };
    let add_field = |application: &str| {
        let message = v1::AddFieldRequest { application: application.into(), label: "Region".into(), masked: false };
        ("app-admin", "Applications/AddField", message.encode_to_vec())
    };
    let synchronized = || v1::Application { direct_password_sync: Some(true), ..application("Ind", Kind::Individual) };
    let tickets = v1::GlobalInfo { tickets_allowed: true, ..Default::default() };
    let forwarded = v1::IssueTicketRequest { user_token: Some(v1::UserToken { text: "x.y.z".into() }), ..Default::default() };
    vec![
        Served(create("affiliate-admin", application("Conf", Kind::ConfigStore))),
        Served(create("affiliate-admin", application("Ind", Kind::Individual))),
        Refused(write("Password", None, None), Code::InvalidArgument, "KEEP_MISSING", "10760"),
        Served(write("Password", Some("pw"), Some(0))),
        Refused(write("Password", Some("other"), Some(0)), Code::Aborted, "REVISION_STALE", "10816"),
        Served(write("Password", Some("other"), Some(1))),
        Served(add_field("Conf")),
        Refused(write("Region", None, None), Code::InvalidArgument, "KEEP_EMPTY", "10761"),
        Served(update("app-admin", synchronized(), "direct_password_sync")),
        Refused(add_field("Ind"), Code::FailedPrecondition, "FIELD_AFTER_DIRECT_SYNC", "10852"),
        Served(global("admin", tickets, "tickets_allowed")),
        Refused(("host", "Tickets/Issue", forwarded.encode_to_vec()), Code::Unauthenticated, "USER_TOKEN_REFUSED", "10584"),
        Refused(issue("stranger"), Code::Unauthenticated, "NOT_AUTHENTICATED", "10584"),
        Served(issue("host")),
        Served(map("user", mapping("Ind", "DEV\\user", "USR01"), Some("pw"), true)),
        Served(look_up("user", "Ind")),
    ]
}

/// Damages the only mapping behind the back of the server, then puts it back.
async fn damaged_credentials(system: &System) {
    let mut database = database(system).await;
    let statement = "SELECT sealed FROM mappings";
    let row = sqlx::query(statement).fetch_one(&mut database).await.expect("the mapping");
    let own: Vec<u8> = row.get(0);
    let (mut turned, mut later) = (own.clone(), own.clone());
    *turned.last_mut().expect("bytes") ^= 1;
    // Behind the version: the generation, as four bytes.
    later[1..5].copy_from_slice(&9_u32.to_be_bytes());
    let read = || look_up("user", "Ind");
    for (sealed, step) in [
        (turned, Refused(read(), Code::DataLoss, "SEALED_VALUE_DAMAGED", "10778")),
        (later, Refused(read(), Code::DataLoss, "GENERATION_MISSING", "10815")),
        (own, Served(read())),
    ] {
        let statement = sqlx::query("UPDATE mappings SET sealed = $1").bind(sealed);
        statement.execute(&mut database).await.expect("written");
        play(system, vec![step]).await;
    }
}

#[test]
fn conflicts_damage_and_a_missing_master_come_with_their_numbers_too() {
    on_each_database(|system, runtime| {
        issue_certificate(system, "stranger", "sso://OTHER/stranger");
        runtime.block_on(async {
            play(system, conflicts()).await;
            damaged_credentials(system).await;
        });
        let can_write = async |system: &System| send(system, set_password("anew")).await.is_ok();
        system.stop_master();
        runtime.block_on(async {
            until("the master is missed", false, async || can_write(system).await).await;
            let refused = set_password("too late");
            let steps = vec![
                Refused(refused, Code::Unavailable, "MASTER_UNREACHABLE", "10783"),
                Served(look_up("user", "Ind")),
            ];
            play(system, steps).await;
        });
        system.start_master();
        runtime.block_on(async {
            until("the master is back", true, async || can_write(system).await).await;
        });
    });
}

/// Left out, with a notice, where no PostgreSQL is installed: a file cannot be stopped.
#[test]
fn a_missing_database_comes_with_its_number_too() {
    let Some(postgres) = postgres::Server::start(postgres::Options::default()) else { return };
    let system = System::start(Database::Postgres(postgres.database()));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let steps = vec![
        Served(create("affiliate-admin", application("Ind", Kind::Individual))),
        Served(map("user", mapping("Ind", "DEV\\user", "USR01"), Some("pw"), true)),
        Served(look_up("user", "Ind")),
    ];
    runtime.block_on(play(&system, steps));
    postgres.kill();
    let missing = |request| Refused(request, Code::Unavailable, "DATABASE_UNAVAILABLE", "10785");
    let steps = vec![missing(look_up("user", "Ind")), missing(set_password("too late"))];
    runtime.block_on(play(&system, steps));
}
