//! Applications of every type: their flags, who may set them, what is reset, ignored and warned about
//! (ESSO.md 3.3, 3.4; 2.3 rows 10 to 18).

use sso_proto::{
    Reason,
    v1::{self, applications_client::ApplicationsClient},
};
use sso_tests::{everywhere::on_each_database, raw, system::System};
use tonic::{Response, Status, transport::Channel};
use v1::ApplicationType as Kind;

use crate::{applications::refused, asking::application};

type Client = ApplicationsClient<Channel>;

const KINDS: [Kind; 4] = [Kind::Individual, Kind::Group, Kind::ConfigStore, Kind::HostGroup];

fn client(system: &System, who: &str) -> Client {
    ApplicationsClient::new(raw::channel(system, 1, who))
}

fn with(kind: Kind, change: impl Fn(&mut v1::Application)) -> v1::Application {
    let mut application = application("Wanted", kind);
    change(&mut application);
    application
}

async fn create(
    client: &mut Client,
    application: v1::Application,
) -> Result<v1::CreateApplicationResponse, Status> {
    let request = v1::CreateApplicationRequest { application: Some(application) };
    client.create(request).await.map(Response::into_inner)
}

async fn update(
    client: &mut Client,
    application: v1::Application,
    paths: &[&str],
) -> Result<v1::UpdateApplicationResponse, Status> {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = v1::UpdateApplicationRequest { application: Some(application), update_mask };
    client.update(request).await.map(Response::into_inner)
}

async fn delete(client: &mut Client, name: &str) -> bool {
    let request = v1::DeleteApplicationRequest { name: name.into() };
    client.delete(request).await.expect("deleted").into_inner().existed
}

fn warned(warnings: &[v1::Warning]) -> Vec<(&str, u32)> {
    warnings.iter().map(|warning| (warning.reason.as_str(), warning.event)).collect()
}

/// A part of the update mask, why it is refused, and what the request holds.
type Case = (&'static str, Reason, fn(&mut v1::Application));

#[test]
fn every_type_begins_with_its_own_flags() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = client(system, "affiliate-admin");
            for kind in KINDS {
                let created =
                    create(&mut admin, application(kind.as_str_name(), kind)).await.expect("made");
                assert!(created.warnings.is_empty(), "{kind:?}: {:?}", created.warnings);
                let made = created.application.expect("it");
                let (windows, host) = match kind {
                    Kind::Individual | Kind::Group => (true, false),
                    Kind::HostGroup => (false, true),
                    Kind::ConfigStore | Kind::Unspecified => (false, false),
                };
                assert_eq!(made.windows_initiated, Some(windows), "{kind:?}");
                assert_eq!(made.host_initiated, Some(host), "{kind:?}");
                let validates = matches!(kind, Kind::Individual | Kind::HostGroup);
                assert_eq!(made.validate_password, Some(validates), "{kind:?}");
                assert_eq!(made.allow_tickets, Some(false), "{kind:?}");
                let has_tickets = matches!(kind, Kind::Individual | Kind::Group);
                assert_eq!(made.validate_tickets, Some(has_tickets), "{kind:?}");
                assert_eq!(made.timeout_tickets, Some(has_tickets), "{kind:?}");
                // Read back, it is the same; a user of it sees no account.
                let by = || v1::GetApplicationRequest { name: kind.as_str_name().into() };
                let read = admin.get(by()).await.expect("read").into_inner().application;
                let mut read = read.expect("it");
                // The database keeps microseconds.
                (read.created_at, read.updated_at) = (made.created_at, made.updated_at);
                assert_eq!(read, made);
                let seen = client(system, "user").get(by()).await.expect("read").into_inner();
                let seen = seen.application.expect("it");
                assert!(seen.user_accounts.is_empty() && seen.windows_account.is_empty());
                assert_eq!(seen.windows_initiated, made.windows_initiated);
            }
        });
    });
}

#[test]
fn what_does_not_go_together_is_refused_and_leaves_nothing() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = client(system, "admin");
            let group = "DEV\\Application Users";
            let many = (0..65).map(|ordinal| v1::Field {
                ordinal,
                label: format!("f{ordinal}"),
                ..Default::default()
            });
            let many: Vec<_> = many.collect();
            for (application, reason) in [
                (with(Kind::ConfigStore, |a| a.allow_tickets = Some(true)), Reason::InvalidFlags),
                (with(Kind::ConfigStore, |a| a.host_initiated = Some(true)), Reason::InvalidFlags),
                (with(Kind::Group, |a| a.host_initiated = Some(true)), Reason::InvalidFlags),
                (with(Kind::HostGroup, |a| a.windows_initiated = Some(true)), Reason::InvalidFlags),
                (with(Kind::HostGroup, |a| a.host_initiated = Some(false)), Reason::InvalidFlags),
                (
                    with(Kind::Individual, |a| a.direct_password_sync = Some(true)),
                    Reason::DirectSyncAtCreate,
                ),
                (
                    with(Kind::Individual, |a| a.ticket_timeout = 525_601),
                    Reason::TicketTimeoutOutOfRange,
                ),
                (with(Kind::Individual, |a| a.fields.clone_from(&many)), Reason::InvalidFields),
                (
                    with(Kind::HostGroup, |a| a.windows_account.clear()),
                    Reason::WindowsAccountInvalid,
                ),
                (
                    with(Kind::HostGroup, |a| a.windows_account = "DEV\\a;DEV\\b".into()),
                    Reason::WindowsAccountInvalid,
                ),
                (
                    with(Kind::HostGroup, |a| a.windows_account = group.into()),
                    Reason::WindowsAccountInvalid,
                ),
                (
                    with(Kind::HostGroup, |a| a.user_accounts = vec![group.into()]),
                    Reason::WindowsAccountInvalid,
                ),
                (
                    with(Kind::Individual, |a| a.windows_account = "DEV\\user".into()),
                    Reason::WindowsAccountInvalid,
                ),
                (
                    with(Kind::HostGroup, |a| a.windows_account = "local".into()),
                    Reason::LocalAccountNotAllowed,
                ),
            ] {
                let shown = format!("{application:?}");
                assert_eq!(refused(create(&mut admin, application).await), reason, "{shown}");
            }
            let list = admin.list(v1::ListApplicationsRequest::default()).await.expect("a list");
            assert!(list.into_inner().applications.is_empty());
        });
    });
}

#[test]
fn ticket_flags_are_for_sso_administrators() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let (mut sso, mut affiliate, mut owner) = (
                client(system, "admin"),
                client(system, "affiliate-admin"),
                client(system, "app-admin"),
            );
            let cases: [Case; 6] = [
                ("allow_tickets", Reason::TicketFlagsProtected, |a| a.allow_tickets = Some(true)),
                ("validate_tickets", Reason::TicketFlagsProtected, |a| {
                    a.validate_tickets = Some(false);
                }),
                ("one_time_tickets", Reason::TicketFlagsProtected, |a| {
                    a.one_time_tickets = Some(true);
                }),
                ("require_ticket_audience", Reason::TicketFlagsProtected, |a| {
                    a.require_ticket_audience = Some(true);
                }),
                ("timeout_tickets", Reason::TicketTimeoutProtected, |a| {
                    a.timeout_tickets = Some(false);
                }),
                ("ticket_timeout", Reason::TicketTimeoutProtected, |a| a.ticket_timeout = 5),
            ];
            for kind in [Kind::Individual, Kind::Group] {
                for (path, reason, change) in cases {
                    let wanted = with(kind, change);
                    let early = create(&mut affiliate, wanted.clone()).await;
                    assert_eq!(refused(early), reason, "{path}");
                    // At its default it takes nothing special to say so.
                    let plain = application("Wanted", kind);
                    create(&mut affiliate, plain.clone()).await.expect("created");
                    for denied in [&mut affiliate, &mut owner] {
                        let denied = update(denied, wanted.clone(), &[path]).await;
                        assert_eq!(refused(denied), reason, "{path}");
                    }
                    let changed = update(&mut sso, wanted.clone(), &[path]).await.expect("changed");
                    let changed = changed.application.expect("it");
                    let mut expected = wanted.clone();
                    for part in [
                        &mut expected.allow_tickets,
                        &mut expected.one_time_tickets,
                        &mut expected.require_ticket_audience,
                    ] {
                        part.get_or_insert(false);
                    }
                    for part in [&mut expected.validate_tickets, &mut expected.timeout_tickets] {
                        part.get_or_insert(true);
                    }
                    let of = |a: &v1::Application| {
                        (
                            [a.allow_tickets, a.validate_tickets, a.timeout_tickets],
                            [a.one_time_tickets, a.require_ticket_audience],
                            a.ticket_timeout,
                        )
                    };
                    assert_eq!(of(&changed), of(&expected), "{path}");
                    assert!(delete(&mut sso, "Wanted").await);
                    // In one step as well.
                    create(&mut sso, wanted).await.expect("created");
                    assert!(delete(&mut sso, "Wanted").await);
                }
            }
            let long = with(Kind::Individual, |a| a.ticket_timeout = 525_601);
            create(&mut sso, application("Wanted", Kind::Individual)).await.expect("created");
            let long = update(&mut sso, long, &["ticket_timeout"]).await;
            assert_eq!(refused(long), Reason::TicketTimeoutOutOfRange);
        });
    });
}

#[test]
fn administrators_are_warned_of_what_is_dangerous_or_means_nothing() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = client(system, "admin");
            let unusable = ("APPLICATION_UNUSABLE", 0);
            let unvalidated = ("PASSWORD_NOT_VALIDATED", 0);
            let endless = ("TICKETS_NEVER_EXPIRE", 10585);
            let reset = ("FLAG_RESET", 11044);
            for (application, wanted) in [
                (with(Kind::Individual, |a| a.windows_initiated = Some(false)), vec![unusable]),
                (
                    with(Kind::Individual, |a| {
                        a.windows_initiated = Some(false);
                        a.host_initiated = Some(true);
                    }),
                    vec![],
                ),
                (with(Kind::HostGroup, |a| a.validate_password = Some(false)), vec![unvalidated]),
                (with(Kind::Group, |a| a.timeout_tickets = Some(false)), vec![endless]),
                (with(Kind::Group, |a| a.validate_password = Some(true)), vec![reset]),
                (
                    with(Kind::ConfigStore, |a| {
                        a.windows_initiated = Some(true);
                        a.ticket_timeout = 7;
                    }),
                    vec![reset, reset],
                ),
            ] {
                let shown = format!("{application:?}");
                let created = create(&mut admin, application).await.expect("created");
                assert_eq!(warned(&created.warnings), wanted, "{shown}");
                let made = created.application.expect("it");
                let is_store = made.r#type == i32::from(Kind::ConfigStore);
                assert!(!is_store || made.windows_initiated == Some(false));
                assert!(!is_store || made.ticket_timeout == 0);
                assert!(delete(&mut admin, "Wanted").await);
            }
        });
    });
}

#[test]
fn updates_ignore_what_is_fixed_and_keep_what_is_not_named() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = client(system, "affiliate-admin");
            let mut owner = client(system, "app-admin");
            let fixed = with(Kind::Individual, |a| a.windows_credentials = Some(true));
            create(&mut admin, fixed.clone()).await.expect("created");
            let ignored = ("FLAG_IGNORED", 10566);

            // Fixed at creation, of another type, and neither: the first two are ignored.
            let wanted = v1::Application {
                windows_credentials: Some(false),
                restricted_credentials: Some(true),
                restrict_mapping_create: Some(true),
                disable_credential_cache: Some(true),
                ..fixed.clone()
            };
            let paths =
                ["windows_credentials", "restricted_credentials", "restrict_mapping_create"];
            let changed = update(&mut owner, wanted, &paths).await.expect("changed");
            assert_eq!(warned(&changed.warnings), [ignored, ignored]);
            let changed = changed.application.expect("it");
            assert_eq!(changed.windows_credentials, Some(true));
            assert_eq!(changed.restricted_credentials, Some(false));
            assert_eq!(changed.restrict_mapping_create, Some(true));
            assert_eq!(changed.disable_credential_cache, Some(false), "it was not named");
            // Named without a value, it is as at the beginning.
            let back = update(&mut owner, fixed.clone(), &["restrict_mapping_create"]).await;
            let back = back.expect("changed").application.expect("it");
            assert_eq!(back.restrict_mapping_create, Some(false));

            // To let external users in without credentials takes an affiliate administrator.
            let waived = v1::Application { validate_password: Some(false), ..fixed.clone() };
            let denied = update(&mut owner, waived.clone(), &["validate_password"]).await;
            assert_eq!(refused(denied), Reason::PasswordWaiverProtected);
            let waived = update(&mut admin, waived, &["validate_password"]).await.expect("waived");
            assert_eq!(warned(&waived.warnings), [("PASSWORD_NOT_VALIDATED", 0)]);
            let again = v1::Application { validate_password: Some(true), ..fixed.clone() };
            let again = update(&mut owner, again, &["validate_password"]).await.expect("again");
            assert!(again.warnings.is_empty());

            // The account of a host group.
            create(&mut admin, application("Hosts", Kind::HostGroup)).await.expect("created");
            let account = |account: &str| v1::Application {
                windows_account: account.into(),
                host_initiated: Some(false),
                ..application("Hosts", Kind::HostGroup)
            };
            for bad in ["", "DEV\\Application Users", "DEV\\a;DEV\\b"] {
                let bad = update(&mut admin, account(bad), &["windows_account"]).await;
                assert_eq!(refused(bad), Reason::WindowsAccountInvalid);
            }
            // Whom external users become is for affiliate administrators to say.
            let moved = update(&mut owner, account("DEV\\new"), &["windows_account"]).await;
            assert_eq!(refused(moved), Reason::HostAccessProtected);
            let moved = update(&mut admin, account("DEV\\new"), &["windows_account"]).await;
            assert_eq!(
                moved.expect("changed").application.expect("it").windows_account,
                "DEV\\new"
            );
            let fixed = update(&mut owner, account(""), &["host_initiated"]).await.expect("kept");
            assert_eq!(warned(&fixed.warnings), [ignored]);
            assert_eq!(fixed.application.expect("it").host_initiated, Some(true));
            let foreign =
                update(&mut owner, application("Hosts", Kind::HostGroup), &["ticket_timeout"]);
            assert_eq!(warned(&foreign.await.expect("kept").warnings), [ignored]);
            let wrong = v1::Application {
                windows_account: "DEV\\user".into(),
                ..application("Wanted", Kind::Individual)
            };
            let wrong = update(&mut admin, wrong, &["windows_account"]).await;
            assert_eq!(refused(wrong), Reason::WindowsAccountInvalid);
        });
    });
}

#[test]
fn fields_grow_only_in_config_stores_and_configurations_live_only_there() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let (mut admin, mut owner) = (client(system, "admin"), client(system, "app-admin"));
            let add = |name: &str| v1::AddFieldRequest {
                application: name.into(),
                label: "More".into(),
                masked: false,
            };
            for kind in KINDS {
                let name = kind.as_str_name();
                create(&mut admin, application(name, kind)).await.expect("created");
                let added = owner.add_field(add(name)).await;
                if kind == Kind::ConfigStore {
                    added.expect("added");
                    continue;
                }
                assert_eq!(refused(added), Reason::ApplicationTypeWrong, "{name}");
                let user = raw::channel(system, 1, "user");
                let owner = raw::channel(system, 1, "app-admin");
                for (channel, path, request) in config_store_requests(name, &owner, &user) {
                    let answer = raw::call(channel, path, request).await;
                    assert_eq!(refused(answer), Reason::ApplicationTypeWrong, "{name} {path}");
                }
            }
            // Which field holds the password has to be clear, and stay so.
            let name = Kind::Individual.as_str_name();
            let sync = v1::Application {
                direct_password_sync: Some(true),
                ..application(name, Kind::Individual)
            };
            let paths = ["direct_password_sync"];
            update(&mut owner, sync.clone(), &paths).await.expect("switched on");
            assert_eq!(refused(owner.add_field(add(name)).await), Reason::FieldAfterDirectSync);
            let mut three = with(Kind::Individual, |a| a.fields.push(a.fields[1].clone()));
            three.fields[2].ordinal = 2;
            three.fields[2].label = "Other".into();
            create(&mut admin, three.clone()).await.expect("created");
            let ambiguous = v1::Application { direct_password_sync: Some(true), ..three };
            let ambiguous = update(&mut owner, ambiguous, &paths).await;
            assert_eq!(refused(ambiguous), Reason::FieldsAmbiguous);
            let deleted = delete(&mut admin, "Wanted").await;
            assert!(deleted);
            let mut marked = with(Kind::Individual, |a| a.fields.push(a.fields[1].clone()));
            marked.fields[2].ordinal = 2;
            marked.fields[2].label = "Secret".into();
            marked.fields[2].synchronized = true;
            create(&mut admin, marked.clone()).await.expect("created");
            marked.direct_password_sync = Some(true);
            update(&mut owner, marked, &paths).await.expect("one field is marked");
        });
    });
}

/// One request of each kind to the config store, by somebody who has the role for it.
fn config_store_requests<'c>(
    name: &str,
    owner: &'c Channel,
    user: &'c Channel,
) -> Vec<(&'c Channel, &'static str, Vec<u8>)> {
    use prost::Message as _;
    let get = v1::GetConfigurationRequest {
        application: name.into(),
        identifier: "One".into(),
        ..Default::default()
    };
    let reveal = v1::GetConfigurationRequest { mode: v1::ReadMode::Runtime.into(), ..get.clone() };
    let value = v1::NewValue { value: Some("v".into()) };
    let set = v1::SetConfigurationRequest {
        application: name.into(),
        identifier: "One".into(),
        values: [("Password".to_owned(), value)].into(),
        ..Default::default()
    };
    let list = v1::ListIdentifiersRequest { application: name.into(), ..Default::default() };
    let target = v1::WatchTarget { application: name.into(), identifier: "One".into() };
    let watch = v1::WatchConfigurationsRequest { targets: vec![target] };
    // The one account of a host group is its user.
    vec![
        (owner, "/sso.v1.ConfigStore/Get", get.encode_to_vec()),
        (user, "/sso.v1.ConfigStore/Get", reveal.encode_to_vec()),
        (owner, "/sso.v1.ConfigStore/Set", set.encode_to_vec()),
        (owner, "/sso.v1.ConfigStore/ListIdentifiers", list.encode_to_vec()),
        (owner, "/sso.v1.ConfigStore/Watch", watch.encode_to_vec()),
    ]
}
