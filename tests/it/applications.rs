//! Applications over real mutual TLS: what is accepted, refused, warned about, listed and audited.

use sso_proto::{
    Reason, Refusal,
    v1::{
        self, applications_client::ApplicationsClient, audit_client::AuditClient,
        system_client::SystemClient,
    },
};
use sso_tests::{everywhere::on_each_database, raw};
use tonic::Status;

fn new(name: &str) -> v1::Application {
    v1::Application {
        name: name.into(),
        r#type: v1::ApplicationType::ConfigStore.into(),
        description: "of a test".into(),
        contact: "ops@example.org".into(),
        user_accounts: vec!["DEV\\Application Users".into()],
        administrator_accounts: vec!["DEV\\Application Administrators".into()],
        fields: vec![field(0, "reserved", false), field(1, "Key", true)],
        ..Default::default()
    }
}

fn field(ordinal: u32, label: &str, masked: bool) -> v1::Field {
    v1::Field { ordinal, label: label.into(), masked, ..Default::default() }
}

fn create(application: v1::Application) -> v1::CreateApplicationRequest {
    v1::CreateApplicationRequest { application: Some(application) }
}

/// Why it was refused; an answer fails the test.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Reason {
    let status = answer.expect_err("a refusal");
    let refusal = Refusal::from_status(&status).unwrap_or_else(|| panic!("{status:?}"));
    assert!(!refusal.message.is_empty() && !refusal.request_id.is_empty());
    refusal.reason
}

#[test]
fn what_makes_no_application_is_refused_and_leaves_nothing() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut client = ApplicationsClient::new(raw::channel(system, 1, "admin"));
            let many = (0..257).map(|n| field(n, &format!("f{n}"), false)).collect();
            let with = |change: &dyn Fn(&mut v1::Application)| {
                let mut application = new("Bad");
                change(&mut application);
                application
            };
            let cases: Vec<(v1::Application, Reason)> = vec![
                (new(""), Reason::InvalidName),
                (new(" Bad"), Reason::InvalidName),
                (new("B\u{200b}ad"), Reason::InvalidName),
                (new("Bad/../x"), Reason::InvalidName),
                (new(&"n".repeat(256)), Reason::InvalidName),
                (with(&|a| a.r#type = 0), Reason::InvalidRequest),
                (with(&|a| a.r#type = 99), Reason::ApplicationTypeUnsupported),
                (with(&|a| a.fields.clear()), Reason::InvalidFields),
                (with(&|a| a.fields = vec![field(1, "x", false)]), Reason::InvalidFields),
                (with(&|a| a.fields.push(field(2, "KEY", false))), Reason::InvalidFields),
                (with(&|a| a.fields.push(field(2, "a=b", false))), Reason::InvalidName),
                (with(&|a| a.fields = Vec::clone(&many)), Reason::InvalidFields),
                (with(&|a| a.user_accounts = vec!["Everyone".into()]), Reason::BuiltInAccount),
                (with(&|a| a.user_accounts = vec!["D\\a\\b".into()]), Reason::InvalidAccount),
                (with(&|a| a.user_accounts = vec!["local".into()]), Reason::LocalAccountNotAllowed),
                (with(&|a| a.administrators_same = true), Reason::AdministratorsSame),
                (with(&|a| a.description = "x".repeat(5000)), Reason::InvalidRequest),
            ];
            for (application, reason) in cases {
                let shown = format!("{application:?}");
                assert_eq!(refused(client.create(create(application)).await), reason, "{shown}");
            }
            assert_eq!(
                refused(client.create(v1::CreateApplicationRequest::default()).await),
                Reason::InvalidRequest
            );
            let list = client.list(v1::ListApplicationsRequest::default()).await.expect("a list");
            assert!(list.into_inner().applications.is_empty());
        });
    });
}

#[test]
fn the_life_of_an_application() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = ApplicationsClient::new(raw::channel(system, 1, "affiliate-admin"));
            let mut owner = ApplicationsClient::new(raw::channel(system, 1, "app-admin"));
            let mut user = ApplicationsClient::new(raw::channel(system, 1, "user"));
            let mut masked = new("Orders");
            masked.fields[0].masked = true;
            masked.user_accounts.push("DEV\\alice".into());
            let created = admin.create(create(masked)).await.expect("created").into_inner();
            let warned: Vec<_> =
                created.warnings.iter().map(|w| (w.reason.as_str(), w.event)).collect();
            assert_eq!(warned, [("INDIVIDUAL_USER", 11054), ("MASK_IGNORED", 11044)]);
            let created = created.application.expect("an application");
            assert!(!created.enabled && !created.fields[0].masked && created.fields[1].masked);

            // One name space, whatever the case.
            assert_eq!(
                refused(admin.create(create(new("ORDERS"))).await),
                Reason::ApplicationExists
            );
            let by = |name: &str| v1::GetApplicationRequest { name: name.into() };
            let read =
                owner.get(by("oRDERS")).await.expect("read").into_inner().application.expect("it");
            assert_eq!((read.name.as_str(), read.id.clone()), ("Orders", created.id.clone()));
            // A user sees it, without accounts.
            let seen =
                user.get(by("Orders")).await.expect("read").into_inner().application.expect("it");
            assert!(
                seen.sensitive_info_removed
                    && seen.user_accounts.is_empty()
                    && seen.administrator_accounts.is_empty()
            );
            let list = user
                .list(v1::ListApplicationsRequest::default())
                .await
                .expect("a list")
                .into_inner();
            assert_eq!(list.applications.len(), 1);
            let mut stranger = ApplicationsClient::new(raw::channel(system, 1, "host"));
            let list = stranger
                .list(v1::ListApplicationsRequest::default())
                .await
                .expect("a list")
                .into_inner();
            assert!(list.applications.is_empty());

            let update = |path: &str, application: v1::Application| v1::UpdateApplicationRequest {
                application: Some(application),
                update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
            };
            for path in ["name", "type", "fields", "administrators_same", "id"] {
                assert_eq!(
                    refused(owner.update(update(path, new("Orders"))).await),
                    Reason::Immutable,
                    "{path}"
                );
            }
            assert_eq!(
                refused(owner.update(update("colour", new("Orders"))).await),
                Reason::InvalidRequest
            );
            let protected = owner.update(update("administrator_accounts", new("Orders"))).await;
            assert_eq!(refused(protected), Reason::AdministratorAccountsProtected);
            let mut wanted = new("Orders");
            wanted.contact = "new@example.org".into();
            wanted.description = "ignored: not in the mask".into();
            let updated =
                owner.update(update("contact", wanted)).await.expect("updated").into_inner();
            let updated = updated.application.expect("it");
            assert_eq!(
                (updated.contact.as_str(), updated.description.as_str()),
                ("new@example.org", "of a test")
            );

            let add = |label: &str| v1::AddFieldRequest {
                application: "Orders".into(),
                label: label.into(),
                masked: true,
            };
            assert_eq!(refused(owner.add_field(add("KEY")).await), Reason::FieldExists);
            let added = owner.add_field(add("Next")).await.expect("added").into_inner();
            assert_eq!(added.field.expect("a field").ordinal, 2);
            for number in 3..256 {
                owner.add_field(add(&format!("f{number}"))).await.expect("added");
            }
            assert_eq!(refused(owner.add_field(add("one too many")).await), Reason::InvalidFields);

            let delete = v1::DeleteApplicationRequest { name: "orders".into() };
            assert!(admin.delete(delete.clone()).await.expect("deleted").into_inner().existed);
            assert!(!admin.delete(delete).await.expect("nothing").into_inner().existed);
            assert_eq!(refused(admin.get(by("Orders")).await), Reason::ApplicationNotFound);
            assert_eq!(refused(owner.get(by("Orders")).await), Reason::NotApplicationUser);
            let again = admin.create(create(new("Orders"))).await.expect("created").into_inner();
            assert_ne!(again.application.expect("it").id, created.id);
        });
    });
}

#[test]
fn lists_have_pages_and_filters() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
            for name in ["Beta", "alpha", "Gamma_1", "Gamma%2", "delta"] {
                admin.create(create(new(name))).await.expect("created");
            }
            let mut request = v1::ListApplicationsRequest { page_size: 2, ..Default::default() };
            let mut names = Vec::new();
            loop {
                let page = admin.list(request.clone()).await.expect("a page").into_inner();
                names.extend(page.applications.into_iter().map(|application| application.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(names, ["alpha", "Beta", "delta", "Gamma%2", "Gamma_1"]);
            let mut named = async |part: &str, contact: &str| {
                let request = v1::ListApplicationsRequest {
                    name_contains: part.into(),
                    contact: contact.into(),
                    ..Default::default()
                };
                admin.list(request).await.expect("a list").into_inner().applications.len()
            };
            assert_eq!(named("GAMMA", "").await, 2);
            assert_eq!(named("a%2", "").await, 1);
            assert_eq!(named("a_1", "").await, 1);
            assert_eq!(named("", "OPS@example.org").await, 5);
            assert_eq!(named("", "nobody").await, 0);
        });
    });
}

#[test]
fn the_settings_of_the_system_keep_their_ranges_and_their_administrators() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = SystemClient::new(raw::channel(system, 1, "admin"));
            let info = admin
                .get_global_info(v1::GetGlobalInfoRequest {})
                .await
                .expect("read")
                .into_inner();
            let info = info.global_info.expect("settings");
            assert_eq!(
                (
                    info.ticket_timeout,
                    info.credential_cache_timeout,
                    info.audit_deleted_applications
                ),
                (2, 60, 1000)
            );
            assert!(info.enabled && info.secret_server.starts_with("https://"));
            let update = |paths: &[&str], info: v1::GlobalInfo| v1::UpdateGlobalInfoRequest {
                global_info: Some(info),
                update_mask: Some(prost_types::FieldMask {
                    paths: paths.iter().map(|p| (*p).to_owned()).collect(),
                }),
            };
            let with = |change: &dyn Fn(&mut v1::GlobalInfo)| {
                let mut changed = info.clone();
                change(&mut changed);
                changed
            };
            let zero = update(&["ticket_timeout"], with(&|i| i.ticket_timeout = 0));
            assert_eq!(refused(admin.update_global_info(zero).await), Reason::OutOfRange);
            let long = update(&["ticket_timeout"], with(&|i| i.ticket_timeout = 525_601));
            assert_eq!(refused(admin.update_global_info(long).await), Reason::OutOfRange);
            let accounts = || with(&|i| i.sso_administrators = vec!["DEV\\Nobody".into()]);
            let early = update(&["sso_administrators"], accounts());
            assert_eq!(refused(admin.update_global_info(early).await), Reason::SystemNotDisabled);
            admin.disable(v1::DisableSystemRequest {}).await.expect("disabled");
            let locked_out = update(&["sso_administrators"], accounts());
            assert_eq!(
                refused(admin.update_global_info(locked_out).await),
                Reason::CallerNotInAccounts
            );
            let fine = with(&|i| i.sso_administrators.push("DEV\\Second Line".into()));
            let fine = update(&["sso_administrators", "ticket_timeout"], fine);
            admin.update_global_info(fine).await.expect("changed");
            for path in ["enabled", "secret_server"] {
                let fixed = update(&[path], info.clone());
                assert_eq!(refused(admin.update_global_info(fixed).await), Reason::Immutable);
            }
            admin.enable(v1::EnableSystemRequest {}).await.expect("enabled");

            let mut audit = AuditClient::new(raw::channel(system, 1, "admin"));
            let wanted = v1::ListAuditRequest { action: "system.".into(), ..Default::default() };
            let records = audit.list(wanted).await.expect("records").into_inner().records;
            let actions: Vec<_> = records.iter().map(|record| record.action.as_str()).collect();
            assert_eq!(actions, ["system.enable", "system.update", "system.disable"]);
        });
    });
}

#[test]
fn every_change_reveal_and_denial_is_audited() {
    on_each_database(|system, runtime| {
        let xml = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/order-routing.xml");
        let _ = system.sso_ok("affiliate-admin", &["app", "create", "--file", xml]);
        let application = "OrderRouting.Settings";
        let values = r#"{"RoutingServiceUrl":"u","RetryLimit":"1","PartnerApiKey":"k","ArchiveConnectionString":"c"}"#;
        let set = ["config", "set", application, "One", "--values", "-"];
        assert!(system.sso_with_input("app-admin", &set, values).status.success());
        let _ = system.sso_ok("user", &["config", "get", application, "One", "--reveal"]);
        let denied = system.sso("host", &["config", "get", application, "One", "--reveal"]);
        assert_eq!(denied.status.code(), Some(77));
        let _ = system.sso_ok("app-admin", &["config", "delete", application, "One", "--yes"]);
        let _ = system.sso_ok("affiliate-admin", &["app", "delete", application, "--yes"]);
        runtime.block_on(async {
            let mut audit = AuditClient::new(raw::channel(system, 1, "admin"));
            let mut request = v1::ListAuditRequest {
                application: application.into(),
                page_size: 2,
                ..Default::default()
            };
            let mut records = Vec::new();
            loop {
                let page = audit.list(request.clone()).await.expect("a page").into_inner();
                records.extend(page.records);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let seen: Vec<_> = records
                .iter()
                .rev()
                .map(|record| (record.caller.as_str(), record.action.as_str(), record.outcome()))
                .collect();
            let (done, denied) = (v1::AuditOutcome::Done, v1::AuditOutcome::Denied);
            assert_eq!(
                seen,
                [
                    ("DEV\\affiliate-admin", "application.create", done),
                    ("DEV\\app-admin", "configuration.set", done),
                    ("DEV\\user", "configuration.reveal", done),
                    ("DEV\\host", "configuration.reveal", denied),
                    ("DEV\\app-admin", "configuration.delete", done),
                    ("DEV\\affiliate-admin", "application.delete", done),
                ]
            );
            assert!(
                records
                    .iter()
                    .all(|record| !record.request_id.is_empty() && record.server == "sso-server-1")
            );
            // The administrator of an application sees its records and no others.
            let mut owner = AuditClient::new(raw::channel(system, 1, "app-admin"));
            assert_eq!(
                refused(owner.list(v1::ListAuditRequest::default()).await),
                Reason::NotSsoAdministrator
            );
        });
    });
}
