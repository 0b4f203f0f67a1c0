//! The journal of whole servers: what was revealed is in the audit, whatever ends or is away.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use prost::Message as _;
use sqlx::{AnyConnection, Connection as _};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    everywhere::{on_each_database, on_each_database_with},
    raw,
    system::{System, eventually},
};
use tokio::runtime::Runtime;
use tonic::{Status, transport::Channel};

const APPLICATION: &str = "Journal";
const SOON: Duration = Duration::from_secs(30);

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Key:masked"]);
    let set = ["config", "set", APPLICATION, "One", "--values", "-"];
    assert!(system.sso_with_input("app-admin", &set, r#"{"Key":"k"}"#).status.success());
}

async fn reveal(channel: &Channel, identifier: &str) -> Result<(), Status> {
    let request = v1::GetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        mode: v1::ReadMode::Runtime.into(),
        fields: Vec::new(),
    };
    raw::call(channel, "/sso.v1.ConfigStore/Get", request.encode_to_vec()).await.map(drop)
}

/// The ids of the requests that revealed something, by the list of this server.
async fn revealed(system: &System, server: usize) -> Vec<String> {
    let channel = raw::channel(system, server, "admin");
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListAuditRequest {
            application: APPLICATION.into(),
            action: "configuration.reveal".into(),
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let answer = raw::call(&channel, "/sso.v1.Audit/List", request.encode_to_vec()).await;
        let answer = v1::ListAuditResponse::decode(&*answer.expect("a list")).expect("a list");
        found.extend(answer.records.into_iter().map(|record| record.request_id));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// Waits until the audit has so many reveals; each is there once.
fn has(system: &System, runtime: &Runtime, server: usize, count: usize) {
    let found = eventually("every reveal is in the audit", SOON, || {
        let found = runtime.block_on(revealed(system, server));
        (found.len() >= count).then_some(found)
    });
    assert_eq!(found.len(), count);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), count, "each once");
}

fn folder(system: &System) -> PathBuf {
    system.folder().join("audit")
}

#[test]
fn what_was_answered_is_in_the_audit_after_a_kill() {
    on_each_database(|system, runtime| {
        prepare(system);
        let mut expected = 0;
        for _ in 0..3 {
            let user = runtime.block_on(async { raw::channel(system, 1, "user") });
            for _ in 0..7 {
                runtime.block_on(reveal(&user, "One")).expect("revealed");
                expected += 1;
            }
            // The last answer has just arrived.
            system.kill_server(1);
            system.start_server(1);
            has(system, runtime, 1, expected);
        }
        system.stop_server(1);
        let left = fs::read_dir(folder(system)).expect("the journal").count();
        assert_eq!(left, 0, "the database has everything");
    });
}

#[test]
fn while_the_database_takes_no_records_reveals_go_on_and_are_in_the_audit_later() {
    on_each_database(|system, runtime| {
        prepare(system);
        let user = runtime.block_on(async { raw::channel(system, 1, "user") });
        let mut database = runtime.block_on(async {
            sqlx::any::install_default_drivers();
            AnyConnection::connect(&raw::database_url(system)).await.expect("the database")
        });
        let mut rename = |statement: &'static str| {
            let renamed = runtime.block_on(sqlx::raw_sql(statement).execute(&mut database));
            renamed.expect("renamed");
        };
        rename("ALTER TABLE audit_batches RENAME TO audit_batches_away");
        for _ in 0..20 {
            runtime.block_on(reveal(&user, "One")).expect("revealed");
        }
        eventually("it is said", SOON, || {
            system.log_of_server(1).contains("audit records wait in the journal").then_some(())
        });
        // Whatever happens meanwhile.
        system.kill_server(1);
        system.start_server(1);
        let user = runtime.block_on(async { raw::channel(system, 1, "user") });
        runtime.block_on(reveal(&user, "One")).expect("revealed");
        rename("ALTER TABLE audit_batches_away RENAME TO audit_batches");
        has(system, runtime, 1, 21);
    });
}

#[test]
fn two_servers_with_one_folder_bring_what_they_and_the_dead_one_had() {
    on_each_database_with(2, |system, runtime| {
        prepare(system);
        let users = runtime.block_on(async { [1, 2].map(|it| raw::channel(system, it, "user")) });
        for _ in 0..5 {
            for user in &users {
                runtime.block_on(reveal(user, "One")).expect("revealed");
            }
        }
        assert!(folder(system).is_dir(), "they share it");
        runtime.block_on(reveal(&users[0], "One")).expect("revealed");
        system.kill_server(1);
        // The other one finds it.
        has(system, runtime, 2, 11);
        system.start_server(1);
        has(system, runtime, 1, 11);
    });
}

#[test]
fn each_of_many_answers_has_one_record() {
    on_each_database(|system, runtime| {
        prepare(system);
        let answered = runtime.block_on(async {
            let callers = (0..64).map(|_| {
                let channel = raw::channel(system, 1, "user");
                tokio::spawn(async move {
                    let mut answered = 0;
                    for _ in 0..10 {
                        answered += usize::from(reveal(&channel, "One").await.is_ok());
                    }
                    answered
                })
            });
            let mut answered = 0;
            for caller in callers.collect::<Vec<_>>() {
                answered += caller.await.expect("a caller");
            }
            answered
        });
        assert!(answered > 0);
        // Whoever lists on the same server finds its own at once.
        let found = runtime.block_on(revealed(system, 1));
        assert_eq!(found.len(), answered);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), answered);
    });
}

#[test]
fn a_full_journal_reveals_nothing_until_there_is_room() {
    on_each_database(|system, runtime| {
        prepare(system);
        let long = "x".repeat(200);
        let set = ["config", "set", APPLICATION, &long, "--values", "-"];
        assert!(system.sso_with_input("app-admin", &set, r#"{"Key":"k"}"#).status.success());
        system.stop_server(1);
        let file = system.installation().server_settings(1);
        let text = fs::read_to_string(&file).expect("settings");
        fs::write(&file, format!("{text}\n[audit]\njournal_max_mb = 1\n")).expect("settings");
        system.start_server(1);
        let mut database = runtime.block_on(async {
            sqlx::any::install_default_drivers();
            AnyConnection::connect(&raw::database_url(system)).await.expect("the database")
        });
        let mut rename = |statement: &'static str| {
            let renamed = runtime.block_on(sqlx::raw_sql(statement).execute(&mut database));
            renamed.expect("renamed");
        };
        rename("ALTER TABLE audit_batches RENAME TO audit_batches_away");
        // Many callers, each until it is refused; a piece of the journal takes thousands.
        let answered = runtime.block_on(async {
            let callers = (0..16).map(|_| {
                let (channel, long) = (raw::channel(system, 1, "user"), long.clone());
                tokio::spawn(async move {
                    let mut answered = 0;
                    loop {
                        match reveal(&channel, &long).await {
                            Ok(()) => answered += 1,
                            Err(refused) => return (answered, refused),
                        }
                    }
                })
            });
            let mut answered = 0;
            for caller in callers.collect::<Vec<_>>() {
                let (more, refused) = caller.await.expect("a caller");
                answered += more;
                let reason = Refusal::from_status(&refused).map(|refusal| refusal.reason);
                assert_eq!(reason, Some(Reason::AuditUnavailable), "{refused:?}");
                let named = folder(system).display().to_string();
                assert!(refused.message().contains(&named), "{refused:?}");
            }
            answered
        });
        rename("ALTER TABLE audit_batches_away RENAME TO audit_batches");
        let user = runtime.block_on(async { raw::channel(system, 1, "user") });
        eventually("it serves again", SOON, || runtime.block_on(reveal(&user, "One")).ok());
        has(system, runtime, 1, answered + 1);
    });
}
