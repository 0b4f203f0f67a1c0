//! Many mappings in one request.

use sso_proto::{Reason as R, v1};
use sso_tests::{everywhere::on_each_database, system::System};
use v1::ApplicationType as Kind;

use super::{count, prepare};
use crate::{
    access::issue_certificate,
    asking::{
        application, ask, create_application, delete, key, look_up, map, new_mapping, pair,
        set_application_users, until,
    },
};

pub(super) fn request(
    mappings: Vec<v1::CreateMappingRequest>,
    dry_run: bool,
) -> v1::BatchCreateMappingsRequest {
    v1::BatchCreateMappingsRequest { mappings, dry_run }
}

fn outcomes(refused: &[v1::MappingOutcome]) -> Vec<(u32, &str)> {
    refused.iter().map(|it| (it.index, it.reason.as_str())).collect()
}

#[test]
fn of_a_batch_each_has_an_outcome_of_its_own() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let members: Vec<_> = (0..450).map(|n| format!("DEV\\u{n}")).collect();
            let members: Vec<_> = members.iter().map(String::as_str).collect();
            set_application_users(system, &members);
            until("the members are users", true, async || {
                map(system, "app-admin", new_mapping("Ind", "DEV\\u0", "probe", None)).await.is_ok()
            })
            .await;
            delete(system, "app-admin", key("Ind", "DEV\\u0")).await.expect("deleted");
            let before = count(system, "SELECT COUNT(*) FROM audit WHERE action = 'mapping.create' AND outcome = 'done'").await;
            // More than one transaction of the first application, with another between.
            let mut wanted: Vec<_> = members.iter().enumerate().map(|(n, account)| {
                let mut new = new_mapping("Ind", account, &format!("x{n}"), Some("pw"));
                new.enable = n % 2 == 0;
                new
            }).collect();
            wanted[3] = new_mapping("Host", "", "JOB1", None);
            wanted[5] = new_mapping("Ind", "DEV\\u7", "x5", None);
            wanted[250] = new_mapping("Ind", "DEV\\u250", "X249", None);
            wanted[260] = new_mapping("Ind", "DEV\\u260", "x260", None);
            wanted[260].credentials = Some(v1::CredentialValues { values: vec!["a".into(), "b".into()] });
            wanted[270] = new_mapping("Nowhere", "DEV\\u270", "x270", None);
            wanted[280] = new_mapping("bad/name", "DEV\\u280", "x280", None);
            wanted[290] = v1::CreateMappingRequest::default();
            wanted[449] = new_mapping("Ind", "DEV\\stranger", "x449", None);
            let expected = [
                (7, "MAPPING_EXISTS"),
                (250, "EXTERNAL_USER_MAPPED"),
                (260, "CREDENTIALS_INCOMPLETE"),
                (270, "APPLICATION_NOT_FOUND"),
                (280, "INVALID_NAME"),
                (290, "INVALID_REQUEST"),
                (449, "ACCOUNT_NOT_IN_APPLICATION"),
            ];
            for dry_run in [true, false] {
                let request = request(wanted.clone(), dry_run);
                let answer: v1::BatchCreateMappingsResponse =
                    ask(system, "admin", "Mappings/BatchCreate", &request).await.expect("a batch");
                assert_eq!(outcomes(&answer.refused), expected);
                assert_eq!(answer.refused[1].event, 11046);
                assert_eq!(answer.created, 443);
                let stored = count(system, "SELECT COUNT(*) FROM mappings").await;
                assert_eq!(stored, if dry_run { 0 } else { 443 });
            }
            let after = count(system, "SELECT COUNT(*) FROM audit WHERE action = 'mapping.create' AND outcome = 'done'").await;
            assert_eq!(after - before, 443, "one record for each");
            // Sealed in its place, like any other.
            issue_certificate(system, "u8", "sso://DEV/u8");
            assert_eq!(look_up(system, "u8", "Ind", false).await, pair("x8", "pw"));
            for odd in [Vec::new(), vec![wanted[0].clone(); 1001]] {
                let refused: Result<v1::BatchCreateMappingsResponse, _> =
                    ask(system, "admin", "Mappings/BatchCreate", &request(odd, false)).await;
                assert_eq!(refused.unwrap_err(), R::InvalidRequest);
            }
            // Both sides must fit; what is missing is said.
            let gone = |application: &str, account: &str, external_user: &str| v1::Mapping {
                application: application.into(),
                account: account.into(),
                external_user: external_user.into(),
                ..Default::default()
            };
            let mappings = vec![
                gone("Ind", "DEV\\u1", "x2"),
                gone("Ind", "DEV\\u1", "x1"),
                gone("Ind", "DEV\\u1", ""),
                gone("Ind", "", "X2"),
                gone("Host", "DEV\\user", "job1"),
                gone("Host", "DEV\\user", ""),
                gone("Ind", "", ""),
            ];
            for dry_run in [true, false] {
                let request = v1::BatchDeleteMappingsRequest { mappings: mappings.clone(), dry_run };
                let answer: v1::BatchDeleteMappingsResponse =
                    ask(system, "app-admin", "Mappings/BatchDelete", &request).await.expect("a batch");
                let (missing, invalid) = ("MAPPING_NOT_FOUND", "INVALID_REQUEST");
                assert_eq!(outcomes(&answer.refused), [(0, missing), (2, missing), (5, invalid), (6, invalid)]);
                assert_eq!(answer.deleted, 3);
            }
            assert_eq!(count(system, "SELECT COUNT(*) FROM mappings").await, 440);
            assert_eq!(count(system, "SELECT COUNT(*) FROM audit WHERE action = 'mapping.delete' AND outcome = 'done' AND object <> 'DEV\\u0'").await, 3);
        });
    });
}

#[test]
fn in_a_batch_users_get_no_further_than_alone_and_denials_are_recorded() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            prepare(system).await;
            let wanted = vec![
                new_mapping("Ind", "DEV\\app-admin", "A", None),
                new_mapping("Ind", "DEV\\user", "U", None),
                new_mapping("Grp", "DEV\\Application Users", "G", None),
                new_mapping("Ind", "DEV\\nobody", "N", None),
                new_mapping("Nowhere", "DEV\\user", "U", None),
            ];
            let answer: v1::BatchCreateMappingsResponse =
                ask(system, "user", "Mappings/BatchCreate", &request(wanted, false))
                    .await
                    .expect("a batch");
            let of_another = "MAPPING_OF_ANOTHER";
            assert_eq!(
                outcomes(&answer.refused),
                [
                    (0, of_another),
                    (2, "GROUP_MAPPING_PROTECTED"),
                    (3, of_another),
                    (4, "NOT_APPLICATION_USER")
                ]
            );
            assert_eq!(answer.created, 1);
            let request = v1::ListAuditRequest {
                outcome: v1::AuditOutcome::Denied.into(),
                action: "mapping.create".into(),
                ..Default::default()
            };
            let denied: v1::ListAuditResponse =
                ask(system, "admin", "Audit/List", &request).await.expect("a list");
            assert_eq!(denied.records.len(), 3, "once for each application and reason");
        });
    });
}

#[test]
fn a_batch_is_of_no_more_than_a_hundred_applications() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let of = |count: usize| {
                let each = |n| new_mapping(&format!("A{n}"), "DEV\\user", "U", None);
                request((0..count).map(each).collect(), true)
            };
            let answer: Result<v1::BatchCreateMappingsResponse, _> =
                ask(system, "admin", "Mappings/BatchCreate", &of(101)).await;
            assert_eq!(answer.unwrap_err(), R::InvalidRequest);
            let answer: v1::BatchCreateMappingsResponse =
                ask(system, "admin", "Mappings/BatchCreate", &of(100)).await.expect("a batch");
            assert_eq!(answer.refused.len(), 100);
        });
    });
}

/// Whoever has no role takes neither the writer nor a connection that waits for another one.
#[test]
fn strangers_who_rehearse_batches_keep_nobody_waiting() {
    let Some(database) = sso_tests::postgres::database() else { return };
    let database = sso_tests::system::Database::Postgres(database);
    let mut system = System::prepare(database, 1, sso_tests::system::Timing::default());
    let path = system.installation().server_settings(1);
    let text = std::fs::read_to_string(&path).expect("settings");
    let few = text.replacen("[database]\n", "[database]\nmax_connections = 2\n", 1);
    assert_ne!(few, text);
    std::fs::write(&path, few).expect("settings");
    system.start_master();
    system.start_server(1);
    let system = std::sync::Arc::new(system);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        prepare(&system).await;
        let mut new = new_mapping("Ind", "DEV\\user", "U", Some("pw"));
        new.enable = true;
        map(&system, "app-admin", new).await.expect("a mapping");
        issue_certificate(&system, "stranger", "sso://DEV/stranger");
        let mut rehearsals = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let system = std::sync::Arc::clone(&system);
            rehearsals.spawn(async move {
                let wanted = (0..90).map(|n| new_mapping(&format!("A{n}"), "DEV\\user", "U", None));
                let request = request(wanted.collect(), true);
                let answer: v1::BatchCreateMappingsResponse =
                    ask(&system, "stranger", "Mappings/BatchCreate", &request)
                        .await
                        .expect("a batch");
                assert_eq!(answer.refused.len(), 90);
                assert!(answer.refused.iter().all(|it| it.reason == "NOT_APPLICATION_USER"));
            });
        }
        for _ in 0..20 {
            let start = std::time::Instant::now();
            assert_eq!(look_up(&system, "user", "Ind", true).await, pair("U", "pw"));
            let took = start.elapsed();
            assert!(took.as_secs() < 5, "{took:?}");
        }
        let _ = rehearsals.join_all().await;
    });
}

/// 100 000 take well under two minutes; this many show it without taking long.
const MANY: usize = 10_000;

#[test]
fn many_mappings_are_imported_quickly() {
    let system = System::start(sso_tests::system::Database::Sqlite);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        create_application(&system, application("Host", Kind::HostGroup)).await;
        let start = std::time::Instant::now();
        for first in (0..MANY).step_by(1000) {
            let part = (first..first + 1000)
                .map(|n| new_mapping("Host", "", &format!("x{n}"), Some("pw")));
            let answer: v1::BatchCreateMappingsResponse =
                ask(&system, "admin", "Mappings/BatchCreate", &request(part.collect(), false))
                    .await
                    .expect("a batch");
            assert_eq!(answer.created, 1000, "{:?}", answer.refused.first());
        }
        let took = start.elapsed();
        println!("{MANY} mappings in {took:?}");
        assert!(took.as_secs_f64() < 120.0 * MANY as f64 / 100_000.0 * 2.0, "{took:?}");
    });
}
