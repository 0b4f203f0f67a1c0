//! A group that is taken out of the file of groups: applications that name it are disabled, by the
//! server itself, until an administrator has looked (ESSO.md 3.6, events 10516 to 10519).

use std::time::Duration;

use sso_proto::v1::{
    self, applications_client::ApplicationsClient, audit_client::AuditClient,
    config_store_client::ConfigStoreClient,
};
use sso_tests::{
    everywhere::on_each_database,
    raw,
    system::{System, eventually},
};
use tokio::runtime::Runtime;
use v1::ApplicationType as Kind;

use crate::asking::application;

const WITHIN: Duration = Duration::from_secs(20);
const USERS: &str = "DEV\\Application Users";
const ADMINISTRATORS: &str = "DEV\\Application Administrators";

fn create(system: &System, runtime: &Runtime, application: v1::Application) {
    runtime.block_on(async {
        let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
        let application = Some(application);
        admin.create(v1::CreateApplicationRequest { application }).await.expect("created");
    });
}

fn is_enabled(system: &System, runtime: &Runtime, name: &str) -> bool {
    runtime.block_on(async {
        let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
        let read = admin.get(v1::GetApplicationRequest { name: name.into() }).await.expect("read");
        read.into_inner().application.expect("it").enabled
    })
}

/// Puts the file of groups there as it was, without these.
fn leave_out(system: &System, original: &str, groups: &[&str]) {
    let kept = |line: &&str| !groups.iter().any(|group| line.starts_with(&format!("'{group}'")));
    let text: Vec<_> = original.lines().filter(kept).collect();
    assert_eq!(text.len() + groups.len(), original.lines().count());
    std::fs::write(system.folder().join("groups.toml"), text.join("\n") + "\n").expect("written");
}

/// The line of this event that names this.
fn wait_for_line(system: &System, event: u32, part: &str) -> String {
    let mark = format!("event={event} ");
    eventually(&format!("{event} about {part}"), WITHIN, || {
        let log = system.log_of_server(1);
        log.lines().find(|line| line.contains(&mark) && line.contains(part)).map(str::to_owned)
    })
}

#[test]
fn applications_of_a_group_that_is_gone_are_disabled() {
    on_each_database(|system, runtime| {
        let others = || vec!["DEV\\Integration Hosts".to_owned()];
        create(system, runtime, application("Both", Kind::ConfigStore));
        create(
            system,
            runtime,
            v1::Application {
                user_accounts: others(),
                ..application("Administered", Kind::Individual)
            },
        );
        create(
            system,
            runtime,
            v1::Application {
                user_accounts: others(),
                administrator_accounts: others(),
                ..application("Untouched", Kind::Group)
            },
        );
        create(
            system,
            runtime,
            v1::Application { enabled: false, ..application("Off", Kind::Group) },
        );
        let path = system.folder().join("groups.toml");
        let original = std::fs::read_to_string(&path).expect("the groups");

        leave_out(system, &original, &[USERS]);
        eventually("the application is disabled", WITHIN, || {
            (!is_enabled(system, runtime, "Both")).then_some(())
        });
        assert!(is_enabled(system, runtime, "Administered"));
        assert!(is_enabled(system, runtime, "Untouched"));
        let line = wait_for_line(system, 10518, "Both");
        assert!(line.contains("Application Users") && line.contains(" WARN "), "{line}");
        runtime.block_on(async {
            // Its users are refused, by way of a role that nobody holds any more or of the switch.
            let mut user = ConfigStoreClient::new(raw::channel(system, 1, "user"));
            let get = v1::GetConfigurationRequest {
                application: "Both".into(),
                identifier: "One".into(),
                mode: v1::ReadMode::Runtime.into(),
                ..Default::default()
            };
            user.get(get).await.expect_err("refused");
            let mut audit = AuditClient::new(raw::channel(system, 1, "admin"));
            let wanted = |application: &str| v1::ListAuditRequest {
                action: "application.disable".into(),
                application: application.into(),
                ..Default::default()
            };
            let records = audit.list(wanted("Both")).await.expect("records").into_inner().records;
            assert_eq!(records.len(), 1, "{records:?}");
            let record = &records[0];
            assert_eq!(record.caller, "sso-server-1");
            assert_eq!(record.outcome(), v1::AuditOutcome::Done);
            assert!(record.detail.contains(USERS), "{}", record.detail);
            assert!(!record.request_id.is_empty());
            let off = audit.list(wanted("Off")).await.expect("records").into_inner().records;
            assert!(off.is_empty(), "it was off already");
        });

        // An administrator who enabled it again is not overruled while the group stays away …
        runtime.block_on(async {
            let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
            let enable = v1::EnableApplicationRequest { name: "Both".into() };
            admin.enable(enable).await.expect("enabled");
        });
        leave_out(system, &original, &[USERS, "DEV\\SSO Affiliate Administrators"]);
        let line = wait_for_line(system, 10516, "SSO Affiliate Administrators");
        assert!(line.contains(" ERROR "), "{line}");
        assert!(is_enabled(system, runtime, "Both"));

        // … but a group that came back and went again is a new matter.
        std::fs::write(&path, &original).expect("written");
        eventually("the group is back", WITHIN, || {
            system.sso("user", &["app", "show", "Both"]).status.success().then_some(())
        });
        leave_out(system, &original, &[ADMINISTRATORS]);
        for name in ["Both", "Administered"] {
            eventually("the application is disabled", WITHIN, || {
                (!is_enabled(system, runtime, name)).then_some(())
            });
            wait_for_line(system, 10519, name);
        }
        assert!(is_enabled(system, runtime, "Untouched"));
    });
}

#[test]
fn at_the_start_accounts_that_nobody_can_be_are_only_warned_about() {
    on_each_database(|system, runtime| {
        let gone = v1::Application {
            user_accounts: vec!["GONE\\Sales".into()],
            administrator_accounts: vec!["GONE\\Operators".into()],
            ..application("Old", Kind::Individual)
        };
        create(system, runtime, gone);
        create(system, runtime, application("New", Kind::Individual));
        system.stop_server(1);
        system.start_server(1);
        let line = wait_for_line(system, 10518, "Old");
        assert!(line.contains("GONE") && line.contains("Sales"), "{line}");
        let line = wait_for_line(system, 10519, "Old");
        assert!(line.contains("Operators"), "{line}");
        let log = system.log_of_server(1);
        let marks = ["event=10518 ", "event=10519 ", "event=10516 ", "event=10517 "];
        let lines = log.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
        assert_eq!(lines.count(), 2, "only the two");
        assert!(is_enabled(system, runtime, "Old"));
    });
}
