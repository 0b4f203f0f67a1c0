//! What a server logs of requests at each audit level (ESSO.md 7.4), and what a denial tells to whom
//! (2.2).

use std::time::Duration;

use sso_proto::{
    Reason, Refusal,
    v1::{
        self, applications_client::ApplicationsClient, audit_client::AuditClient,
        config_store_client::ConfigStoreClient, system_client::SystemClient,
    },
};
use sso_tests::{
    everywhere::on_each_database_with,
    raw,
    system::{Database, System, eventually},
};
use tokio::runtime::Runtime;
use tonic::{Response, Status};

const APPLICATION: &str = "Levels";
const DONE: u32 = 10535;
const REFUSED: u32 = 10536;

/// The lines of this event about this request, in the log of server 1.
fn lines(system: &System, event: u32, request_id: &str) -> Vec<String> {
    let log = system.log_of_server(1);
    let mark = format!("event={event} ");
    log.lines()
        .filter(|line| line.contains(&mark) && line.contains(request_id))
        .map(str::to_owned)
        .collect()
}

fn id_of<T>(answer: &Result<Response<T>, Status>) -> String {
    let metadata = match answer {
        Ok(response) => response.metadata(),
        Err(status) => status.metadata(),
    };
    metadata.get("x-request-id").expect("an id").to_str().expect("a text").to_owned()
}

fn set_levels(system: &System, runtime: &Runtime, server: &str, levels: (u32, u32)) {
    let settings = v1::ServerSettings {
        positive_audit_level: levels.0,
        negative_audit_level: levels.1,
        remote_lookup: true,
    };
    let paths = ["positive_audit_level", "negative_audit_level"].map(str::to_owned).into();
    let request = v1::UpdateServerSettingsRequest {
        server: server.into(),
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    runtime.block_on(async {
        let mut admin = SystemClient::new(raw::channel(system, 1, "admin"));
        admin.update_server_settings(request).await.expect("set");
    });
}

/// The levels that a server, counted from 1, goes by now.
fn levels_of(system: &System, runtime: &Runtime, number: usize) -> (u32, u32) {
    runtime.block_on(async {
        let mut user = SystemClient::new(raw::channel(system, number, "user"));
        let status = user.get_server_status(v1::GetServerStatusRequest {}).await.expect("status");
        let settings = status.into_inner().settings.expect("settings");
        (settings.positive_audit_level, settings.negative_audit_level)
    })
}

fn follow(system: &System, runtime: &Runtime, levels: (u32, u32)) {
    set_levels(system, runtime, "", levels);
    eventually("the server follows", Duration::from_secs(10), || {
        (levels_of(system, runtime, 1) == levels).then_some(())
    });
}

#[test]
fn every_server_follows_its_own_settings() {
    on_each_database_with(2, |system, runtime| {
        assert_eq!(levels_of(system, runtime, 2), (0, 1), "what nobody set");
        // The settings of the other server are set here.
        set_levels(system, runtime, "sso-server-2", (3, 2));
        eventually("the other server follows", Duration::from_secs(10), || {
            (levels_of(system, runtime, 2) == (3, 2)).then_some(())
        });
        assert_eq!(levels_of(system, runtime, 1), (0, 1));
        // And they are there when it starts again.
        system.stop_server(2);
        system.start_server(2);
        assert_eq!(levels_of(system, runtime, 2), (3, 2));
    });
}

/// One request of each kind; whether each left its line.
struct Seen {
    change: bool,
    reveal: bool,
    read: bool,
    denial: bool,
    refusal: bool,
}

async fn ask(system: &System) -> Seen {
    let mut owner = ApplicationsClient::new(raw::channel(system, 1, "app-admin"));
    let mut user = ApplicationsClient::new(raw::channel(system, 1, "user"));
    let mut store = ConfigStoreClient::new(raw::channel(system, 1, "user"));
    let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
    let by = |name: &str| v1::GetApplicationRequest { name: name.into() };
    let purge = owner.purge_cache(v1::PurgeCacheRequest { name: APPLICATION.into() }).await;
    let reveal = store
        .get(v1::GetConfigurationRequest {
            application: APPLICATION.into(),
            identifier: "One".into(),
            mode: v1::ReadMode::Runtime.into(),
            ..Default::default()
        })
        .await;
    assert!(purge.is_ok() && reveal.is_ok());
    let read = owner.get(by(APPLICATION)).await;
    let denial = user.disable(v1::DisableApplicationRequest { name: APPLICATION.into() }).await;
    let refusal = admin.get(by("Nowhere")).await;
    let left = |event, id: String| !lines(system, event, &id).is_empty();
    assert!(!left(DONE, id_of(&denial)) && !left(REFUSED, id_of(&read)));
    Seen {
        change: left(DONE, id_of(&purge)),
        reveal: left(DONE, id_of(&reveal)),
        read: left(DONE, id_of(&read)),
        denial: left(REFUSED, id_of(&denial)),
        refusal: left(REFUSED, id_of(&refusal)),
    }
}

#[test]
fn each_level_leaves_more_lines_than_the_one_below() {
    let system = System::start(Database::Sqlite);
    let runtime = Runtime::new().expect("a runtime");
    system.create_application(APPLICATION, &["Key:masked"]);
    let set = ["config", "set", APPLICATION, "One", "--values", "-"];
    assert!(system.sso_with_input("app-admin", &set, r#"{"Key":"k"}"#).status.success());
    for (levels, wanted) in [
        ((0, 1), [false, false, false, true, false]),
        ((1, 2), [true, false, false, true, true]),
        ((2, 0), [true, true, false, false, false]),
        ((3, 3), [true, true, true, true, true]),
        ((0, 0), [false; 5]),
    ] {
        follow(&system, &runtime, levels);
        let Seen { change, reveal, read, denial, refusal } = runtime.block_on(ask(&system));
        assert_eq!([change, reveal, read, denial, refusal], wanted, "{levels:?}");
    }
}

#[test]
fn a_line_says_who_asked_what_and_why_not() {
    let system = System::start(Database::Sqlite);
    let runtime = Runtime::new().expect("a runtime");
    system.create_application(APPLICATION, &["Key:masked"]);
    let tls = system.installation().tls_file("ca.crt");
    let tls = tls.parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    let uri = "sso://OTHER/admin";
    let _ = system.sso_ok(
        "admin",
        &[
            "cert", "issue", "--ca", &tls, "--out", &tls, "--name", "stranger", "--role", "client",
            "--uri", uri, "--days", "30",
        ],
    );
    runtime.block_on(async {
        let disable = || v1::DisableApplicationRequest { name: APPLICATION.into() };
        let mut user = ApplicationsClient::new(raw::channel(&system, 1, "user"));
        let denied = user.disable(disable()).await;
        let line = lines(&system, REFUSED, &id_of(&denied)).pop().expect("a line");
        for part in [
            r#"function="/sso.v1.Applications/Disable""#,
            r#"client="127.0.0.1:"#,
            r#"caller="DEV\\user""#,
            r#"action="application.disable""#,
            r#"application="Levels""#,
            r#"reason="NOT_APPLICATION_ADMINISTRATOR""#,
            "code=PermissionDenied",
            "agent=\"",
            " WARN ",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        // Nobody is known at the door yet.
        let mut stranger = ApplicationsClient::new(raw::channel(&system, 1, "stranger"));
        let refused = stranger.disable(disable()).await;
        let line = lines(&system, REFUSED, &id_of(&refused)).pop().expect("a line");
        for part in [r#"reason="NOT_AUTHENTICATED""#, r#"caller="""#, r#"client="127.0.0.1:"#] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    });
}

#[test]
fn who_would_have_been_accepted_is_for_administrators_to_know() {
    let system = System::start(Database::Sqlite);
    let runtime = Runtime::new().expect("a runtime");
    system.create_application(APPLICATION, &["Key:masked"]);
    let administrators = "DEV\\Application Administrators";
    runtime.block_on(async {
        let disable = v1::DisableApplicationRequest { name: APPLICATION.into() };
        let mut user = ApplicationsClient::new(raw::channel(&system, 1, "user"));
        let plain = user.disable(disable).await;
        let mut affiliate = SystemClient::new(raw::channel(&system, 1, "affiliate-admin"));
        let told = affiliate.get_global_info(v1::GetGlobalInfoRequest {}).await;

        let id = id_of(&plain);
        let refusal = Refusal::from_status(&plain.expect_err("denied")).expect("a refusal");
        assert_eq!(refusal.reason, Reason::NotApplicationAdministrator);
        assert!(!refusal.message.contains("DEV\\SSO"), "{}", refusal.message);
        assert!(!refusal.message.contains(administrators), "{}", refusal.message);
        let line = lines(&system, 11042, &id).pop().expect("a line");
        assert!(line.contains("Application Administrators"), "{line}");

        let told_id = id_of(&told);
        let refusal = Refusal::from_status(&told.expect_err("denied")).expect("a refusal");
        assert_eq!(refusal.reason, Reason::NotSsoAdministrator);
        assert!(refusal.message.contains("DEV\\SSO Administrators"), "{}", refusal.message);

        let mut audit = AuditClient::new(raw::channel(&system, 1, "admin"));
        let records = audit.list(v1::ListAuditRequest::default()).await.expect("records");
        let records = records.into_inner().records;
        let detail = |id: &str| {
            let record = records.iter().find(|record| record.request_id == id).expect("a record");
            assert_eq!(record.outcome(), v1::AuditOutcome::Denied);
            record.detail.clone()
        };
        assert!(detail(&id).contains(administrators), "{}", detail(&id));
        assert!(detail(&told_id).contains("DEV\\SSO Administrators"));
    });
}
