//! Mappings end to end: who controls them, what they must be like, orphans, members.

mod batch;

use sso_proto::{Reason as R, v1};
use sso_tests::{everywhere::on_each_database, system::System};
use v1::ApplicationType as Kind;

use crate::asking::{
    add_group, application, ask, create_application, database, delete, disable, enable, external,
    key, look_up, map, new_mapping, pair, set, set_application_users, told, until, update,
};

async fn prepare(system: &System) {
    for (name, kind) in [
        ("Ind", Kind::Individual),
        ("Grp", Kind::Group),
        ("Host", Kind::HostGroup),
        ("Conf", Kind::ConfigStore),
    ] {
        create_application(system, application(name, kind)).await;
    }
}

/// A number out of the database.
async fn count(system: &System, statement: &'static str) -> i64 {
    use sqlx::Row as _;
    let mut database = database(system).await;
    sqlx::query(statement).fetch_one(&mut database).await.expect("a count").get(0)
}

async fn list(
    system: &System,
    who: &str,
    request: v1::ListMappingsRequest,
) -> Result<Vec<String>, R> {
    let answer: v1::ListMappingsResponse = ask(system, who, "Mappings/List", &request).await?;
    let line = |it: &v1::Mapping| format!("{} {} {}", it.application, it.account, it.external_user);
    Ok(answer.mappings.iter().map(line).collect())
}

fn of(application: &str) -> v1::ListMappingsRequest {
    v1::ListMappingsRequest { application: application.into(), ..Default::default() }
}

async fn get(system: &System, who: &str, key: Option<v1::MappingKey>) -> Result<v1::Mapping, R> {
    let message = v1::GetMappingRequest { key };
    let answer: v1::GetMappingResponse = ask(system, who, "Mappings/Get", &message).await?;
    Ok(answer.mapping.expect("a mapping"))
}

#[test]
fn a_mapping_is_made_as_the_type_of_the_application_wants_it() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            set_application_users(system, &["DEV\\user", "DEV\\ann", "DEV\\bob"]);
            let refused = async |who: &str, application: &str, account: &str, user: &str| {
                map(system, who, new_mapping(application, account, user, None)).await.err()
            };
            until("ann is a user", None, async || {
                refused("app-admin", "Ind", "dev\\ANN", "ann01").await
            })
            .await;
            for (who, application, account, user, reason) in [
                // Both sides are unique, in any case.
                ("app-admin", "Ind", "DEV\\ann", "OTHER", R::MappingExists),
                ("app-admin", "Ind", "DEV\\bob", "ANN01", R::ExternalUserMapped),
                ("app-admin", "Ind", "DEV\\stranger", "X", R::AccountNotInApplication),
                ("app-admin", "Ind", "DEV\\Application Users", "X", R::IndividualAccountRequired),
                ("app-admin", "Ind", "local", "X", R::DomainAccountRequired),
                ("app-admin", "Ind", "DEV\\bob", " ", R::ExternalUserInvalid),
                ("app-admin", "Ind", "DEV\\bob", "a\0b", R::ExternalUserInvalid),
                ("app-admin", "Ind", "DEV\\b*b", "X", R::InvalidAccount),
                ("app-admin", "Grp", "DEV\\ann", "X", R::GroupAccountNotListed),
                ("app-admin", "Grp", "", "X", R::InvalidRequest),
                ("app-admin", "Host", "DEV\\ann", "X", R::WindowsAccountInvalid),
                ("app-admin", "Conf", "DEV\\ann", "X", R::ApplicationTypeWrong),
                ("admin", "Nowhere", "DEV\\ann", "X", R::ApplicationNotFound),
                ("app-admin", "Nowhere", "DEV\\ann", "X", R::NotApplicationUser),
                // Users: only their own, only in individual applications.
                ("user", "Ind", "DEV\\bob", "X", R::MappingOfAnother),
                ("user", "Grp", "DEV\\Application Users", "X", R::GroupMappingProtected),
                ("user", "Host", "", "X", R::GroupMappingProtected),
                ("host", "Ind", "DEV\\host", "X", R::NotApplicationUser),
            ] {
                assert_eq!(
                    refused(who, application, account, user).await,
                    Some(reason),
                    "{who} {application} {account} {user}"
                );
            }
            // Group: many accounts may have one external user; host group: one account, many users.
            let both = v1::Application {
                user_accounts: vec!["DEV\\Application Users".into(), "DEV\\bob".into()],
                ..application("Grp", Kind::Group)
            };
            update(system, both, "user_accounts").await;
            assert_eq!(refused("app-admin", "Grp", "DEV\\bob", "SHARED").await, None);
            assert_eq!(refused("app-admin", "Grp", "dev\\application users", "shared").await, None);
            let again = refused("app-admin", "Grp", "DEV\\BOB", "X").await;
            assert_eq!(again, Some(R::GroupMappingExists));
            assert_eq!(refused("app-admin", "Host", "", "JOB1").await, None);
            assert_eq!(refused("app-admin", "Host", "DEV\\USER", "JOB2").await, None);
            assert_eq!(refused("app-admin", "Host", "", "job1").await, Some(R::ExternalUserMapped));
            // A user's own, also without saying whose; not where that is restricted.
            assert_eq!(refused("user", "Ind", "", "USR01").await, None);
            let own = list(system, "user", v1::ListMappingsRequest::default()).await;
            assert_eq!(
                own,
                Ok(vec![
                    "Host DEV\\user JOB1".into(),
                    "Host DEV\\user JOB2".into(),
                    "Ind DEV\\user USR01".into()
                ])
            );
            let strict = v1::Application {
                restrict_mapping_create: Some(true),
                ..application("Strict", Kind::Individual)
            };
            create_application(system, strict).await;
            let restricted = refused("user", "Strict", "DEV\\user", "X").await;
            assert_eq!(restricted, Some(R::MappingCreateRestricted));
            let message = v1::SetCredentialsRequest {
                key: key("Strict", ""),
                credentials: Some(v1::CredentialValues { values: vec!["pw".into()] }),
                external_user: "X".into(),
            };
            let around: Result<v1::SetCredentialsResponse, _> =
                ask(system, "user", "Mappings/SetCredentials", &message).await;
            assert_eq!(around.unwrap_err(), R::MappingCreateRestricted);
            assert_eq!(refused("app-admin", "Strict", "DEV\\user", "X").await, None);
        });
    });
}

#[test]
fn what_an_administrator_switched_off_stays_off_for_its_user() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let new = new_mapping("Ind", "", "USR01", Some("pw"));
            let made = map(system, "user", v1::CreateMappingRequest { enable: false, ..new }).await;
            let made = made.expect("made").mapping.expect("a mapping");
            assert!(!made.enabled && !made.disabled_by_administrator && made.credentials_set);
            assert_eq!(made.updated_by, "", "who changed it is for administrators");
            let own = || key("Ind", "");
            let of_user = || key("Ind", "DEV\\user");
            assert!(enable(system, "user", own()).await.expect("enabled").enabled);
            let off = disable(system, "user", own()).await.expect("disabled");
            assert!(!off.enabled && !off.disabled_by_administrator);
            assert!(enable(system, "user", external("Ind", "usr01")).await.expect("on").enabled);
            let off = disable(system, "app-admin", of_user()).await.expect("disabled");
            assert!(off.disabled_by_administrator && off.updated_by == "DEV\\app-admin");
            // Not by enabling, nor by disabling first, nor by making it anew.
            let by_administrator = R::MappingDisabledByAdministrator;
            assert_eq!(enable(system, "user", own()).await, Err(by_administrator));
            let still = disable(system, "user", own()).await.expect("without effect");
            assert!(still.disabled_by_administrator);
            assert_eq!(enable(system, "user", own()).await, Err(by_administrator));
            assert_eq!(delete(system, "user", own()).await, Err(by_administrator));
            set(system, "user", own(), "new").await.expect("credentials may be set");
            assert_eq!(look_up(system, "user", "Ind", false).await, Err(by_administrator));
            assert!(enable(system, "app-admin", of_user()).await.expect("on").enabled);
            assert_eq!(look_up(system, "user", "Ind", false).await, pair("USR01", "new"));
            // The administrator's own mapping is only disabled.
            set_application_users(system, &["DEV\\user", "DEV\\app-admin"]);
            until("the administrator is a user", true, async || {
                map(system, "app-admin", new_mapping("Ind", "", "ADM01", None)).await.is_ok()
            })
            .await;
            let off = disable(system, "app-admin", own()).await.expect("disabled");
            assert!(!off.enabled && !off.disabled_by_administrator);
            // Mappings of others, by whatever key, existing or not, look the same to a user.
            for foreign in [
                key("Ind", "DEV\\app-admin"),
                key("Ind", "DEV\\nobody"),
                external("Ind", "ADM01"),
                external("Ind", "NEVER"),
            ] {
                assert_eq!(
                    get(system, "user", foreign.clone()).await.unwrap_err(),
                    R::MappingOfAnother
                );
                assert_eq!(enable(system, "user", foreign.clone()).await, Err(R::MappingOfAnother));
                assert_eq!(
                    set(system, "user", foreign.clone(), "x").await.unwrap_err(),
                    R::MappingOfAnother
                );
                assert_eq!(delete(system, "user", foreign).await, Err(R::MappingOfAnother));
            }
            assert_eq!(delete(system, "user", own()).await, Ok(true));
            assert_eq!(delete(system, "user", own()).await, Ok(false));
            assert_eq!(enable(system, "app-admin", of_user()).await, Err(R::MappingNotFound));
            // Each type has its key.
            assert_eq!(
                get(system, "app-admin", key("Host", "DEV\\user")).await.unwrap_err(),
                R::InvalidRequest
            );
            assert_eq!(
                get(system, "app-admin", external("Grp", "X")).await.unwrap_err(),
                R::InvalidRequest
            );
            assert_eq!(
                get(system, "app-admin", key("Conf", "DEV\\x")).await.unwrap_err(),
                R::ApplicationTypeWrong
            );
        });
    });
}

#[test]
fn credentials_are_complete_or_nothing_is_stored() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let three = v1::Application {
                fields: (0..3)
                    .map(|n| v1::Field { ordinal: n, label: format!("f{n}"), ..Default::default() })
                    .collect(),
                ..application("Three", Kind::Individual)
            };
            create_application(system, three).await;
            let put = async |values: &[&str], external_user: &str| {
                let values = values.iter().map(|&it| it.to_owned()).collect();
                let message = v1::SetCredentialsRequest {
                    key: key("Three", ""),
                    credentials: Some(v1::CredentialValues { values }),
                    external_user: external_user.into(),
                };
                let answer: Result<v1::SetCredentialsResponse, _> =
                    told(system, "user", "Mappings/SetCredentials", &message).await;
                answer
            };
            let long = "x".repeat(65_537);
            for (values, reason) in [
                (&["canary"][..], R::CredentialsIncomplete),
                (&["canary", "b", "c"], R::CredentialsIncomplete),
                (&[], R::CredentialsIncomplete),
                (&["canary", "a\0b"], R::InvalidRequest),
                (&["canary", &long], R::ValueTooLarge),
                (&["canary", "b"], R::MappingNotFound),
            ] {
                let external_user = if reason == R::MappingNotFound { "" } else { "USR" };
                let (found, words) = put(values, external_user).await.unwrap_err();
                assert_eq!(found, reason, "{}", values.len());
                assert!(!words.contains("canary") && !words.contains("xxx"), "{words}");
                assert_eq!(
                    get(system, "user", key("Three", "")).await.unwrap_err(),
                    R::MappingNotFound
                );
            }
            // One step makes, fills and enables; the next only fills, and only that external user's.
            let made = put(&["one", "two"], "USR").await.expect("set");
            assert!(made.created && made.mapping.expect("a mapping").enabled);
            let refused = put(&["1", "2"], "ANOTHER").await.unwrap_err().0;
            assert_eq!(refused, R::MappingExists);
            let found = look_up(system, "user", "Three", false).await;
            assert_eq!(found, Ok(("USR".into(), vec!["one".into(), "two".into()])));
            let again = put(&["", "65536"], "usr").await.expect("set");
            assert!(!again.created);
            let found = look_up(system, "user", "Three", false).await;
            assert_eq!(found, Ok(("USR".into(), vec![String::new(), "65536".into()])));
            // In a host group application the external user is the key.
            let job = |key, external_user: &str| v1::SetCredentialsRequest {
                key,
                credentials: Some(v1::CredentialValues { values: vec!["pw".into()] }),
                external_user: external_user.into(),
            };
            let message = job(external("Host", "JOB1"), "JOB2");
            let refused: Result<v1::SetCredentialsResponse, _> =
                ask(system, "app-admin", "Mappings/SetCredentials", &message).await;
            assert_eq!(refused.unwrap_err(), R::InvalidRequest);
            let message = job(external("Host", "JOB1"), "job1");
            let made: v1::SetCredentialsResponse =
                ask(system, "app-admin", "Mappings/SetCredentials", &message).await.expect("set");
            assert_eq!(made.mapping.expect("a mapping").account, "DEV\\user");
        });
    });
}

#[test]
fn of_many_who_map_one_account_at_once_one_succeeds() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let all = (0..16).map(|n| {
                map(system, "app-admin", new_mapping("Ind", "DEV\\user", &format!("x{n}"), None))
            });
            let mut ended = Vec::new();
            let mut all: Vec<_> = all.map(Box::pin).collect();
            std::future::poll_fn(|context| {
                all.retain_mut(|one| match one.as_mut().poll(context) {
                    std::task::Poll::Ready(result) => {
                        ended.push(result.map(drop));
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            assert_eq!(ended.iter().filter(|it| it.is_ok()).count(), 1, "{ended:?}");
            let others = ended.iter().filter_map(|it| it.err());
            assert!(
                others.clone().count() == 15 && others.clone().all(|it| it == R::MappingExists),
                "{ended:?}"
            );
            assert_eq!(count(system, "SELECT COUNT(*) FROM mappings").await, 1);
        });
    });
}

#[test]
fn lists_keep_to_what_the_caller_may_see_and_orphans_are_found() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let members: Vec<_> = (0..30).map(|n| format!("DEV\\u{n:02}")).collect();
            let mut names: Vec<_> = members.iter().map(String::as_str).collect();
            names.extend(["DEV\\user", "DEV\\Nested"]);
            add_group(system, "DEV\\Nested", &["DEV\\Inner", "DEV\\zoe"]);
            add_group(system, "DEV\\Inner", &["DEV\\Nested", "DEV\\yan"]);
            set_application_users(system, &names);
            until("the members are users", true, async || {
                map(system, "app-admin", new_mapping("Ind", "DEV\\yan", "x-yan", None))
                    .await
                    .is_ok()
            })
            .await;
            // Members: nested groups are opened, circles end, pages join.
            let mut found = Vec::new();
            let mut token = String::new();
            loop {
                let message = v1::ListMembersRequest {
                    application: "Ind".into(),
                    page_size: 7,
                    page_token: token,
                };
                let page: v1::ListMembersResponse =
                    ask(system, "app-admin", "Mappings/ListMembers", &message)
                        .await
                        .expect("members");
                assert!(page.accounts.len() <= 7);
                found.extend(page.accounts);
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            let mut expected = members.clone();
            expected.extend(["DEV\\user".into(), "DEV\\yan".into(), "DEV\\zoe".into()]);
            assert_eq!(found, expected);
            let mut host =
                v1::ListMembersRequest { application: "Host".into(), ..Default::default() };
            let one: v1::ListMembersResponse =
                ask(system, "app-admin", "Mappings/ListMembers", &host).await.expect("members");
            assert_eq!(one.accounts, ["DEV\\user"]);
            host.application = "Ind".into();
            let refused: Result<v1::ListMembersResponse, _> =
                ask(system, "user", "Mappings/ListMembers", &host).await;
            assert_eq!(refused.unwrap_err(), R::NotApplicationAdministrator);

            let all = members.iter().map(|it| new_mapping("Ind", it, &format!("x-{it}"), None));
            let request = batch::request(
                all.chain([new_mapping("Ind", "DEV\\user", "USR", None)]).collect(),
                false,
            );
            let made: v1::BatchCreateMappingsResponse =
                ask(system, "app-admin", "Mappings/BatchCreate", &request).await.expect("a batch");
            assert_eq!(made.created, 31);
            let orphaned = |size, token: &str| v1::ListMappingsRequest {
                orphaned: true,
                page_size: size,
                page_token: token.into(),
                ..of("Ind")
            };
            assert_eq!(list(system, "app-admin", orphaned(0, "")).await, Ok(Vec::new()));
            // Every third leaves.
            let stay: Vec<_> = members
                .iter()
                .enumerate()
                .filter(|(n, _)| n % 3 != 0)
                .map(|(_, it)| it.as_str())
                .chain(["DEV\\user"])
                .collect();
            let gone: Vec<_> = members
                .iter()
                .enumerate()
                .filter(|(n, _)| n % 3 == 0)
                .map(|(_, it)| format!("Ind {it} x-{it}"))
                .chain(["Ind DEV\\yan x-yan".into()])
                .collect();
            set_application_users(system, &stay);
            until("they are orphans", Ok(gone.clone()), async || {
                list(system, "app-admin", orphaned(0, "")).await
            })
            .await;
            for size in [1, 2, 3, 11, 12] {
                let (mut found, mut token) = (Vec::new(), String::new());
                loop {
                    let page: v1::ListMappingsResponse =
                        ask(system, "app-admin", "Mappings/List", &orphaned(size, &token))
                            .await
                            .expect("a page");
                    assert!(
                        page.mappings.len() <= size as usize
                            && page.mappings.iter().all(|it| it.orphaned)
                    );
                    found.extend(page.mappings.iter().map(|it| it.account.clone()));
                    token = page.next_page_token;
                    if token.is_empty() {
                        break;
                    }
                }
                assert_eq!(found.len(), gone.len(), "pages of {size}: {found:?}");
            }
            // Whoever left is refused at once, and what is left of it may be deleted.
            let refused =
                map(system, "app-admin", new_mapping("Ind", "DEV\\u00", "again", None)).await;
            assert_eq!(refused.unwrap_err(), R::AccountNotInApplication);
            assert_eq!(delete(system, "app-admin", key("Ind", "DEV\\u00")).await, Ok(true));

            // Users: their own and nothing else.
            assert_eq!(list(system, "user", of("Ind")).await, Ok(vec!["Ind DEV\\user USR".into()]));
            let other = |account: &str, application: &str| v1::ListMappingsRequest {
                account: account.into(),
                ..of(application)
            };
            assert_eq!(
                list(system, "user", other("DEV\\u01", "Ind")).await,
                Err(R::MappingOfAnother)
            );
            assert_eq!(
                list(system, "user", other("DEV\\u01", "")).await,
                Err(R::NotAffiliateAdministrator)
            );
            assert_eq!(
                list(system, "app-admin", other("DEV\\u01", "")).await,
                Err(R::NotAffiliateAdministrator)
            );
            assert_eq!(
                list(system, "affiliate-admin", other("DEV\\u01", "")).await,
                Ok(vec!["Ind DEV\\u01 x-DEV\\u01".into()])
            );
            let by_user = |application: &str| v1::ListMappingsRequest {
                external_user: "x-dev\\U01".into(),
                ..of(application)
            };
            assert_eq!(list(system, "user", by_user("Ind")).await, Ok(Vec::new()));
            assert_eq!(
                list(system, "app-admin", by_user("Ind")).await,
                Ok(vec!["Ind DEV\\u01 x-DEV\\u01".into()])
            );
            assert_eq!(list(system, "affiliate-admin", by_user("")).await, Err(R::InvalidRequest));
            assert_eq!(list(system, "host", of("Ind")).await, Err(R::NotApplicationUser));
            assert_eq!(list(system, "user", of("Conf")).await, Err(R::ApplicationTypeWrong));
            map(system, "app-admin", new_mapping("Grp", "DEV\\Application Users", "SHARED", None))
                .await
                .expect("mapped");
            assert_eq!(
                list(system, "user", of("Grp")).await,
                Ok(vec!["Grp DEV\\Application Users SHARED".into()])
            );
            assert!(get(system, "user", key("Grp", "")).await.is_ok());
            assert_eq!(
                get(system, "user", key("Grp", "DEV\\u01")).await.unwrap_err(),
                R::MappingOfAnother
            );
        });
    });
}
