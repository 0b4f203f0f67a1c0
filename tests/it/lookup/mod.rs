//! Look-ups end to end: which mapping serves, the cache on several servers, rows that were tampered
//! with, and what goes on while the master is away.

mod cut_off;
mod sealed;

use std::time::Duration;

use sqlx::AnyConnection;
use sso_proto::{Reason as R, v1};
use sso_tests::{
    everywhere::{on_each_database, on_each_database_with},
    system::{System, Timing, eventually},
};
use v1::ApplicationType as Kind;

use crate::{
    access::issue_certificate,
    asking::{
        add_group, application, ask, create_application, database, delete, disable, enable,
        external, key, look_up, map, new_mapping, pair, set, set_application_users, told, until,
        update,
    },
};

async fn global(system: &System, info: v1::GlobalInfo, path: &str) {
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
    let message = v1::UpdateGlobalInfoRequest { global_info: Some(info), update_mask };
    let updated: Result<v1::UpdateGlobalInfoResponse, _> =
        told(system, "admin", "System/UpdateGlobalInfo", &message).await;
    updated.expect("updated");
}

async fn switch(system: &System, name: &str, on: bool) {
    let method = if on { "Applications/Enable" } else { "Applications/Disable" };
    let message = v1::EnableApplicationRequest { name: name.into() };
    let done: Result<v1::EnableApplicationResponse, _> =
        told(system, "admin", method, &message).await;
    done.expect("switched");
}

#[test]
fn a_caller_gets_what_is_mapped_to_it_while_everything_serves() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let individual = || application("Ind", Kind::Individual);
            create_application(system, individual()).await;
            for kind in [Kind::HostGroup, Kind::ConfigStore] {
                create_application(system, application(kind.as_str_name(), kind)).await;
                let wrong = look_up(system, "user", kind.as_str_name(), false).await;
                assert_eq!(wrong, Err(R::ApplicationTypeWrong));
            }
            let of_user = || look_up(system, "user", "Ind", false);
            assert_eq!(of_user().await, Err(R::MappingNotFound));
            map(system, "user", new_mapping("Ind", "", "USR01", None)).await.expect("mapped");
            assert_eq!(of_user().await, Err(R::CredentialsNotSet));
            set(system, "user", key("Ind", ""), "canary-pw").await.expect("set");
            assert_eq!(of_user().await, pair("USR01", "canary-pw"));
            assert_eq!(look_up(system, "user", "iND", true).await, pair("USR01", "canary-pw"));
            // No administrator role helps, nor is it told what there is.
            for who in ["admin", "affiliate-admin", "app-admin", "host"] {
                assert_eq!(look_up(system, who, "Ind", false).await, Err(R::NotApplicationUser));
                let nowhere = look_up(system, who, "Nowhere", false).await;
                let sees_all = who.starts_with("a") && who != "app-admin";
                let hidden = if sees_all { R::ApplicationNotFound } else { R::NotApplicationUser };
                assert_eq!(nowhere, Err(hidden), "{who}");
            }
            disable(system, "user", key("Ind", "")).await.expect("disabled");
            assert_eq!(of_user().await, Err(R::MappingDisabled));
            enable(system, "user", key("Ind", "")).await.expect("enabled");
            switch(system, "Ind", false).await;
            assert_eq!(of_user().await, Err(R::ApplicationDisabled));
            switch(system, "Ind", true).await;
            let off = v1::Application { windows_initiated: Some(false), ..individual() };
            update(system, off, "windows_initiated").await;
            assert_eq!(of_user().await, Err(R::WindowsInitiatedOff));
            let on = v1::Application { windows_initiated: Some(true), ..individual() };
            update(system, on, "windows_initiated").await;
            assert_eq!(of_user().await, pair("USR01", "canary-pw"));
            // With field 0 alone there is nothing to set and nothing missing.
            let bare = v1::Application {
                fields: vec![v1::Field { label: "User".into(), ..Default::default() }],
                ..application("Bare", Kind::Individual)
            };
            create_application(system, bare).await;
            map(system, "user", new_mapping("Bare", "", "USR01", None)).await.expect("mapped");
            assert_eq!(
                look_up(system, "user", "Bare", false).await,
                Ok(("USR01".into(), Vec::new()))
            );
            // Every reveal stands in the audit, with no secret.
            let message = v1::ListAuditRequest { application: "Ind".into(), ..Default::default() };
            let audit: v1::ListAuditResponse =
                ask(system, "app-admin", "Audit/List", &message).await.expect("records");
            let reveals: Vec<_> = audit
                .records
                .iter()
                .filter(|it| {
                    it.action == "credentials.reveal" && it.outcome() == v1::AuditOutcome::Done
                })
                .collect();
            assert_eq!(reveals.len(), 3);
            assert!(reveals.iter().all(|it| it.caller == "DEV\\user" && it.object == "USR01"));
            assert!(!format!("{audit:?}").contains("canary"));
        });
    });
}

#[test]
fn the_first_account_of_a_group_application_that_one_belongs_to_decides() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            for name in ["ann", "bob"] {
                issue_certificate(system, name, &format!("sso://DEV/{name}"));
            }
            add_group(system, "DEV\\Night", &["DEV\\ann", "DEV\\bob"]);
            set_application_users(system, &["DEV\\user", "DEV\\ann"]);
            let grp = |users: &[&str]| v1::Application {
                user_accounts: users.iter().map(|&it| it.to_owned()).collect(),
                ..application("Grp", Kind::Group)
            };
            create_application(system, grp(&["DEV\\Night", "DEV\\Application Users", "DEV\\user"]))
                .await;
            for (account, user) in [("DEV\\Application Users", "DAY"), ("DEV\\user", "OWN")] {
                map(system, "app-admin", new_mapping("Grp", account, user, Some("pw")))
                    .await
                    .expect("mapped");
            }
            until("the groups are known", pair("DAY", "pw"), async || {
                look_up(system, "user", "Grp", false).await
            })
            .await;
            // Ann's first is Night, which has no mapping: there is no falling through to the next.
            until("ann is in Night", Err(R::MappingNotFound), async || {
                look_up(system, "ann", "Grp", false).await
            })
            .await;
            map(system, "app-admin", new_mapping("Grp", "DEV\\Night", "NGT", Some("dark")))
                .await
                .expect("mapped");
            assert_eq!(look_up(system, "ann", "Grp", false).await, pair("NGT", "dark"));
            assert_eq!(look_up(system, "bob", "Grp", false).await, pair("NGT", "dark"));
            // Another order, another answer.
            update(
                system,
                grp(&["DEV\\user", "DEV\\Application Users", "DEV\\Night"]),
                "user_accounts",
            )
            .await;
            assert_eq!(look_up(system, "user", "Grp", false).await, pair("OWN", "pw"));
            assert_eq!(look_up(system, "ann", "Grp", false).await, pair("DAY", "pw"));
            assert_eq!(look_up(system, "bob", "Grp", false).await, pair("NGT", "dark"));
        });
    });
}

#[test]
fn who_leaves_the_users_loses_the_credentials_within_seconds() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            create_application(system, application("Ind", Kind::Individual)).await;
            map(system, "user", new_mapping("Ind", "", "USR01", Some("pw"))).await.expect("mapped");
            for who in ["user", "user@2"] {
                until("it serves", pair("USR01", "pw"), async || {
                    look_up(system, who, "Ind", false).await
                })
                .await;
            }
            set_application_users(system, &["DEV\\nobody"]);
            for who in ["user", "user@2"] {
                until("it is refused", Err(R::NotApplicationUser), async || {
                    look_up(system, who, "Ind", false).await
                })
                .await;
            }
            // And on the other way, by the list of the application.
            set_application_users(system, &["DEV\\user"]);
            for who in ["user", "user@2"] {
                until("it serves again", pair("USR01", "pw"), async || {
                    look_up(system, who, "Ind", false).await
                })
                .await;
            }
            let others = v1::Application {
                user_accounts: vec!["DEV\\Integration Hosts".into()],
                ..application("Ind", Kind::Individual)
            };
            update(system, others, "user_accounts").await;
            let refused = Err(R::NotApplicationUser);
            assert_eq!(look_up(system, "user", "Ind", false).await, refused);
            until("the other server knows", refused, async || {
                look_up(system, "user@2", "Ind", false).await
            })
            .await;
        });
    });
}

/// Switches every mapping in the database, behind the back of the servers.
async fn tamper(database: &mut AnyConnection, state: &str) {
    let done = sqlx::query("UPDATE mappings SET state = $1").bind(state).execute(database).await;
    assert!(done.expect("done").rows_affected() > 0);
}

/// Switches the tickets of the system, and waits until both servers have heard of it. News come in the
/// order of changes, so whoever has heard of a second switch has taken in all that was before the first.
async fn heard_everywhere(system: &System, on: bool) {
    let info = v1::GlobalInfo { tickets_allowed: on, ..Default::default() };
    global(system, info, "tickets_allowed").await;
    for who in ["user", "user@2"] {
        until("the server has heard", on, async || {
            let asked = v1::GetServerStatusRequest {};
            let status: Result<v1::GetServerStatusResponse, _> =
                ask(system, who, "System/GetServerStatus", &asked).await;
            status.expect("a status").tickets_allowed
        })
        .await;
    }
}

#[test]
fn the_cache_serves_until_it_is_purged_on_every_server_or_bypassed() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            let ind = || application("Ind", Kind::Individual);
            create_application(system, ind()).await;
            create_application(system, application("Other", Kind::Individual)).await;
            for name in ["Ind", "Other"] {
                map(system, "user", new_mapping(name, "", "USR01", Some("pw")))
                    .await
                    .expect("mapped");
            }
            let mut database = database(system).await;
            let (good, off) = (pair("USR01", "pw"), Err(R::MappingDisabled));
            let everywhere = ["user", "user@2"];
            // What is told late is taken in late: both servers must have heard of all that is above.
            for on in [true, false] {
                heard_everywhere(system, on).await;
            }
            for who in everywhere {
                for name in ["Ind", "Other"] {
                    assert_eq!(look_up(system, who, name, true).await, good);
                }
            }
            tamper(&mut database, "disabled").await;
            // Remembered here and there; asked for afresh, the database speaks.
            for who in everywhere {
                assert_eq!(look_up(system, who, "Ind", false).await, good);
                assert_eq!(look_up(system, who, "Ind", true).await, off);
                // What was read afresh is remembered from now on.
                assert_eq!(look_up(system, who, "Ind", false).await, off);
                assert_eq!(look_up(system, who, "Other", false).await, good);
            }
            // Purged at one server, forgotten by both, and by no other application.
            tamper(&mut database, "enabled").await;
            let purge = v1::PurgeCacheRequest { name: "Ind".into() };
            let purged: Result<v1::PurgeCacheResponse, _> =
                ask(system, "app-admin@2", "Applications/PurgeCache", &purge).await;
            purged.expect("purged");
            for who in everywhere {
                until("the purge arrived", good.clone(), async || {
                    look_up(system, who, "Ind", false).await
                })
                .await;
            }
            tamper(&mut database, "disabled").await;
            for who in everywhere {
                assert_eq!(look_up(system, who, "Other", false).await, good);
            }
            // An application without the cache.
            let without = v1::Application { disable_credential_cache: Some(true), ..ind() };
            update(system, without, "disable_credential_cache").await;
            for who in everywhere {
                until("no cache there", off.clone(), async || {
                    look_up(system, who, "Ind", false).await
                })
                .await;
            }
            // A system without it; when it has one again, nothing old is in it.
            assert_eq!(look_up(system, "user", "Other", false).await, good);
            global(
                system,
                v1::GlobalInfo { credential_cache_timeout: 0, ..Default::default() },
                "credential_cache_timeout",
            )
            .await;
            for who in everywhere {
                until("no cache", off.clone(), async || look_up(system, who, "Other", false).await)
                    .await;
            }
            tamper(&mut database, "enabled").await;
            assert_eq!(look_up(system, "user", "Other", false).await, good);
            let metrics = sso_tests::raw::page(system.operations(1), "metrics");
            let metrics = String::from_utf8_lossy(&metrics);
            for name in ["sso_cache_hits_total", "sso_cache_misses_total", "sso_cache_entries"] {
                for of in ["applications", "mappings", "rows"] {
                    let of = format!("{name}{{of=\"{of}\"}}");
                    let told = metrics.lines().find(|line| line.starts_with(&of));
                    assert!(told.is_none_or(|line| !line.ends_with(" 0")), "{of}");
                }
                assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}");
            }
        });
    });
}

#[test]
fn what_changes_at_one_server_is_seen_there_at_once_and_at_the_other_in_a_moment() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            create_application(system, application("Ind", Kind::Individual)).await;
            map(system, "user", new_mapping("Ind", "", "USR01", Some("pw0")))
                .await
                .expect("mapped");
            let seen = async |wanted: Result<(String, Vec<String>), R>| {
                assert_eq!(look_up(system, "user", "Ind", false).await, wanted);
                let start = std::time::Instant::now();
                until("the other server knows", wanted, async || {
                    look_up(system, "user@2", "Ind", false).await
                })
                .await;
                assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            };
            for round in 1..6 {
                let value = format!("pw{round}");
                set(system, "user", key("Ind", ""), &value).await.expect("set");
                seen(pair("USR01", &value)).await;
                disable(system, "app-admin", key("Ind", "DEV\\user")).await.expect("disabled");
                seen(Err(R::MappingDisabledByAdministrator)).await;
                enable(system, "app-admin", external("Ind", "USR01")).await.expect("enabled");
                seen(pair("USR01", &value)).await;
            }
            delete(system, "user", key("Ind", "")).await.expect("deleted");
            seen(Err(R::MappingNotFound)).await;
        });
    });
}

#[test]
fn while_the_master_is_away_look_ups_and_deletions_go_on_and_nothing_new_is_sealed() {
    let timing = Timing { write_lease_seconds: 2, heartbeat_interval_ms: 500, ..Timing::default() };
    let mut system = System::start_with(sso_tests::system::Database::Sqlite, 1, timing);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        create_application(&system, application("Ind", Kind::Individual)).await;
        create_application(&system, application("Host", Kind::HostGroup)).await;
        map(&system, "user", new_mapping("Ind", "", "USR01", Some("pw"))).await.expect("mapped");
    });
    system.stop_master();
    eventually("the write lease ends", Duration::from_secs(20), || {
        let refused = runtime.block_on(set(&system, "user", key("Ind", ""), "new")).err();
        (refused == Some(R::MasterUnreachable)).then_some(())
    });
    runtime.block_on(async {
        for refresh in [false, true] {
            let found = look_up(&system, "user", "Ind", refresh).await.expect("served");
            assert_eq!(found.0, "USR01");
        }
        let with = map(&system, "app-admin", new_mapping("Host", "", "JOB1", Some("pw"))).await;
        assert_eq!(with.unwrap_err(), R::MasterUnreachable);
        // Nothing to seal, so nothing to refuse; in a batch each for itself.
        map(&system, "app-admin", new_mapping("Host", "", "JOB1", None)).await.expect("mapped");
        let batch = v1::BatchCreateMappingsRequest {
            mappings: vec![
                new_mapping("Host", "", "JOB2", Some("pw")),
                new_mapping("Host", "", "JOB3", None),
            ],
            dry_run: false,
        };
        let answer: v1::BatchCreateMappingsResponse =
            ask(&system, "app-admin", "Mappings/BatchCreate", &batch).await.expect("a batch");
        let refused: Vec<_> =
            answer.refused.iter().map(|it| (it.index, it.reason.as_str())).collect();
        assert_eq!((refused, answer.created), (vec![(0, "MASTER_UNREACHABLE")], 1));
        disable(&system, "user", key("Ind", "")).await.expect("disabled");
        enable(&system, "user", key("Ind", "")).await.expect("enabled");
        assert_eq!(delete(&system, "user", key("Ind", "")).await, Ok(true));
        assert_eq!(look_up(&system, "user", "Ind", false).await, Err(R::MappingNotFound));
    });
    system.start_master();
    eventually("writes go on", Duration::from_secs(40), || {
        runtime.block_on(map(&system, "user", new_mapping("Ind", "", "USR01", Some("pw")))).ok()
    });
}

#[test]
fn the_mappings_of_one_application_are_nobodys_in_another() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            issue_certificate(system, "tenant", "sso://DEV/tenant");
            create_application(system, application("Ours", Kind::Individual)).await;
            let theirs = v1::Application {
                user_accounts: vec!["DEV\\tenant".into()],
                administrator_accounts: vec!["DEV\\tenant".into()],
                ..application("Theirs", Kind::Individual)
            };
            create_application(system, theirs).await;
            map(system, "user", new_mapping("Ours", "", "USR01", Some("pw")))
                .await
                .expect("mapped");
            // An administrator of another application: its own knows no such mapping, ours knows no such
            // administrator.
            for (application, reason) in
                [("Theirs", R::MappingNotFound), ("Ours", R::NotApplicationUser)]
            {
                for key in [key(application, "DEV\\user"), external(application, "USR01")] {
                    assert_eq!(enable(system, "tenant", key.clone()).await, Err(reason));
                    assert_eq!(disable(system, "tenant", key.clone()).await, Err(reason));
                    assert_eq!(set(system, "tenant", key.clone(), "x").await.unwrap_err(), reason);
                    let message = v1::GetMappingRequest { key: key.clone() };
                    let read: Result<v1::GetMappingResponse, _> =
                        ask(system, "tenant", "Mappings/Get", &message).await;
                    assert_eq!(read.unwrap_err(), reason);
                    let deleted = delete(system, "tenant", key).await;
                    assert_eq!(
                        deleted,
                        if reason == R::MappingNotFound { Ok(false) } else { Err(reason) }
                    );
                }
                let message = v1::ListMappingsRequest {
                    application: application.into(),
                    ..Default::default()
                };
                let listed: Result<v1::ListMappingsResponse, _> =
                    ask(system, "tenant", "Mappings/List", &message).await;
                if reason == R::MappingNotFound {
                    assert!(listed.expect("a list").mappings.is_empty());
                } else {
                    assert_eq!(listed.unwrap_err(), reason);
                }
            }
            assert_eq!(look_up(system, "tenant", "Ours", false).await, Err(R::NotApplicationUser));
            assert_eq!(look_up(system, "user", "Theirs", false).await, Err(R::NotApplicationUser));
            assert_eq!(look_up(system, "user", "Ours", false).await, pair("USR01", "pw"));
            // A token of a page of one list is none of another's.
            let message = v1::ListMappingsRequest {
                application: "Theirs".into(),
                page_token: "00".into(),
                ..Default::default()
            };
            let listed: Result<v1::ListMappingsResponse, _> =
                ask(system, "tenant", "Mappings/List", &message).await;
            assert_eq!(listed.unwrap_err(), R::InvalidPageToken);
        });
    });
}
