//! The config store over real mutual TLS: writes, reads in both modes, history, watch.

use std::{collections::HashMap, time::Duration};

use sso_proto::{
    Reason, Refusal,
    v1::{self, config_store_client::ConfigStoreClient},
};
use sso_tests::{
    everywhere::{on_each_database, on_each_database_with},
    raw,
    system::System,
};
use tonic::{Status, transport::Channel};

const APPLICATION: &str = "Orders";

fn prepare(system: &System) {
    system.create_application(APPLICATION, &["Url", "ApiKey:masked"]);
}

fn client(system: &System, number: usize, who: &str) -> ConfigStoreClient<Channel> {
    ConfigStoreClient::new(raw::channel(system, number, who))
}

fn values(pairs: &[(&str, Option<&str>)]) -> HashMap<String, v1::NewValue> {
    pairs
        .iter()
        .map(|(label, value)| {
            ((*label).to_owned(), v1::NewValue { value: value.map(str::to_owned) })
        })
        .collect()
}

fn set(identifier: &str, pairs: &[(&str, Option<&str>)]) -> v1::SetConfigurationRequest {
    v1::SetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        values: values(pairs),
        ..Default::default()
    }
}

fn get(identifier: &str, mode: v1::ReadMode) -> v1::GetConfigurationRequest {
    v1::GetConfigurationRequest {
        application: APPLICATION.into(),
        identifier: identifier.into(),
        mode: mode.into(),
        fields: Vec::new(),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Reason {
    let status = answer.expect_err("a refusal");
    Refusal::from_status(&status).unwrap_or_else(|| panic!("{status:?}")).reason
}

const FULL: [(&str, Option<&str>); 2] = [("Url", Some("https://a")), ("ApiKey", Some("k1"))];

#[test]
fn the_first_write_is_complete_and_later_ones_may_be_partial() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            let mut user = client(system, 1, "user");
            let none = admin.get(get("One", v1::ReadMode::Admin)).await;
            assert_eq!(refused(none), Reason::ConfigurationNotFound);
            let partial = admin.set(set("One", &[("Url", Some("https://a"))])).await;
            assert_eq!(refused(partial), Reason::ValuesIncomplete);
            let keep = admin.set(set("One", &[("Url", None), ("ApiKey", Some("k"))])).await;
            assert_eq!(refused(keep), Reason::KeepMissing);
            assert_eq!(refused(admin.set(set("One", &[])).await), Reason::ValuesEmpty);
            let unknown = admin.set(set("One", &[("Nothing", Some("x"))])).await;
            assert_eq!(refused(unknown), Reason::UnknownField);
            let twice = admin.set(set("One", &[("Url", Some("x")), ("URL", Some("y"))])).await;
            assert_eq!(refused(twice), Reason::InvalidRequest);
            // Nothing of that left a trace.
            let none = admin.get(get("One", v1::ReadMode::Admin)).await;
            assert_eq!(refused(none), Reason::ConfigurationNotFound);

            let written = admin.set(set("One", &FULL)).await.expect("written").into_inner();
            assert_eq!((written.revision, written.created), (1, true));
            let written = admin.set(set("oNE", &[("APIKEY", Some("k2")), ("Url", None)])).await;
            let written = written.expect("written").into_inner();
            assert_eq!((written.revision, written.created), (2, false));
            assert_eq!(written.written, ["ApiKey"]);
            assert_eq!(written.kept, ["Url"]);

            let read = admin.get(get("ONE", v1::ReadMode::Admin)).await.expect("read").into_inner();
            let read = read.configuration.expect("a configuration");
            assert_eq!((read.application.as_str(), read.identifier.as_str()), (APPLICATION, "One"));
            assert_eq!(read.values, HashMap::from([("Url".to_owned(), "https://a".to_owned())]));
            assert_eq!(read.masked, ["ApiKey"]);
            assert_eq!(read.updated_by, "DEV\\app-admin");
            let read =
                user.get(get("one", v1::ReadMode::Runtime)).await.expect("read").into_inner();
            let read = read.configuration.expect("a configuration");
            assert_eq!(read.values["ApiKey"], "k2");
            assert_eq!((read.masked.len(), read.updated_by.as_str()), (0, ""));
        });
    });
}

#[test]
fn revisions_guard_writes_and_history_goes_back_ten() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            let mut user = client(system, 1, "user");
            let guarded = |revision, pairs: &[(&str, Option<&str>)]| v1::SetConfigurationRequest {
                if_revision: Some(revision),
                ..set("One", pairs)
            };
            assert_eq!(refused(admin.set(guarded(1, &FULL)).await), Reason::RevisionStale);
            admin.set(guarded(0, &FULL)).await.expect("created");
            assert_eq!(refused(admin.set(guarded(0, &FULL)).await), Reason::RevisionStale);
            for revision in 1..12_u64 {
                let value = format!("k{}", revision + 1);
                let written = admin.set(guarded(revision, &[("ApiKey", Some(&value))])).await;
                assert_eq!(written.expect("written").into_inner().revision, revision + 1);
            }
            let wanted =
                v1::HistoryRequest { application: APPLICATION.into(), identifier: "One".into() };
            let history =
                admin.history(wanted.clone()).await.expect("history").into_inner().revisions;
            let numbers: Vec<_> = history.iter().map(|entry| entry.revision).collect();
            assert_eq!(numbers, (3..=12).rev().collect::<Vec<_>>());
            assert_eq!(history[0].changed, ["ApiKey"]);

            let back = |revision, if_revision| v1::RollbackConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                revision,
                if_revision,
            };
            assert_eq!(refused(admin.rollback(back(2, None)).await), Reason::RevisionNotFound);
            assert_eq!(refused(admin.rollback(back(99, None)).await), Reason::RevisionNotFound);
            assert_eq!(refused(admin.rollback(back(5, Some(11))).await), Reason::RevisionStale);
            let done = admin.rollback(back(5, Some(12))).await.expect("back").into_inner();
            assert_eq!(done.revision, 13);
            let read =
                user.get(get("One", v1::ReadMode::Runtime)).await.expect("read").into_inner();
            assert_eq!(read.configuration.expect("a configuration").values["ApiKey"], "k5");
            let history =
                admin.history(wanted.clone()).await.expect("history").into_inner().revisions;
            assert_eq!(history[0].rolled_back_to, Some(5));

            // A deletion is a revision, and what comes after it goes on counting.
            let delete = |if_revision| v1::DeleteConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                if_revision,
            };
            assert_eq!(refused(admin.delete(delete(Some(1))).await), Reason::RevisionStale);
            let deleted = admin.delete(delete(Some(13))).await.expect("deleted").into_inner();
            assert_eq!((deleted.existed, deleted.revision), (true, 14));
            let again = admin.delete(delete(None)).await.expect("nothing").into_inner();
            assert_eq!((again.existed, again.revision), (false, 0));
            assert_eq!(refused(admin.history(wanted).await), Reason::ConfigurationNotFound);
            assert_eq!(
                refused(admin.rollback(back(13, None)).await),
                Reason::ConfigurationNotFound
            );
            assert_eq!(refused(admin.set(guarded(13, &FULL)).await), Reason::RevisionStale);
            let partial = admin.set(set("One", &[("Url", Some("x"))])).await;
            assert_eq!(refused(partial), Reason::ValuesIncomplete);
            let anew = admin.set(guarded(0, &FULL)).await.expect("created anew").into_inner();
            assert_eq!((anew.revision, anew.created), (15, true));
        });
    });
}

#[test]
fn modes_of_set_and_added_fields() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            let mut user = client(system, 1, "user");
            admin.set(set("One", &FULL)).await.expect("written");
            let _ = system.sso_ok("app-admin", &["app", "add-field", APPLICATION, "Region"]);
            // The field is there, the stored values are as they were.
            let read =
                user.get(get("One", v1::ReadMode::Runtime)).await.expect("read").into_inner();
            assert_eq!(read.configuration.expect("a configuration").values.len(), 2);
            assert_eq!(
                refused(admin.set(set("One", &[("Region", None)])).await),
                Reason::KeepEmpty
            );
            // A new identifier needs it, though.
            assert_eq!(refused(admin.set(set("Two", &FULL)).await), Reason::ValuesIncomplete);

            let with = |mode: v1::SetMode, dry_run, pairs: &[(&str, Option<&str>)]| {
                v1::SetConfigurationRequest { mode: mode.into(), dry_run, ..set("One", pairs) }
            };
            let all = [("Url", Some("other")), ("Region", Some("north"))];
            let dry =
                admin.set(with(v1::SetMode::Add, true, &all)).await.expect("dry").into_inner();
            assert_eq!((dry.revision, dry.written), (2, vec!["Region".to_owned()]));
            let done =
                admin.set(with(v1::SetMode::Add, false, &all)).await.expect("added").into_inner();
            assert_eq!((done.revision, done.written), (2, vec!["Region".to_owned()]));
            let none =
                admin.set(with(v1::SetMode::Add, false, &all)).await.expect("nothing").into_inner();
            assert_eq!((none.revision, none.written.len()), (2, 0));
            let replace = [("Url", Some("new")), ("ApiKey", None)];
            let done = admin
                .set(with(v1::SetMode::Replace, false, &replace))
                .await
                .expect("replaced")
                .into_inner();
            assert_eq!((done.revision, done.cleared), (3, vec!["Region".to_owned()]));
            let read =
                user.get(get("One", v1::ReadMode::Runtime)).await.expect("read").into_inner();
            let values = read.configuration.expect("a configuration").values;
            assert_eq!(
                values,
                HashMap::from([("Url".into(), "new".into()), ("ApiKey".into(), "k1".into())])
            );
        });
    });
}

#[test]
fn sixty_four_writers_of_one_identifier_each_get_a_revision_of_their_own() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            admin.set(set("One", &FULL)).await.expect("written");
            let writers: Vec<_> = (0..64)
                .map(|number| {
                    let mut admin = admin.clone();
                    tokio::spawn(async move {
                        let value = number.to_string();
                        admin.set(set("One", &[("Url", Some(&value))])).await
                    })
                })
                .collect();
            let mut revisions = Vec::new();
            for writer in writers {
                let written = writer.await.expect("a task").expect("no writer is turned away");
                revisions.push(written.into_inner().revision);
            }
            revisions.sort_unstable();
            assert_eq!(revisions, (2..=65).collect::<Vec<_>>());
            // Of 64 that saw the same revision, one wins.
            let guarded: Vec<_> = (0..64)
                .map(|number| {
                    let mut admin = admin.clone();
                    tokio::spawn(async move {
                        let value = number.to_string();
                        let mut request = set("One", &[("Url", Some(&value))]);
                        request.if_revision = Some(65);
                        admin.set(request).await
                    })
                })
                .collect();
            let mut won = 0;
            for writer in guarded {
                match writer.await.expect("a task") {
                    Ok(_) => won += 1,
                    Err(status) => assert_eq!(refused::<()>(Err(status)), Reason::RevisionStale),
                }
            }
            assert_eq!(won, 1);
        });
    });
}

#[test]
fn a_batch_gives_each_key_its_own_result() {
    on_each_database(|system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            let mut user = client(system, 1, "user");
            admin.set(set("One", &FULL)).await.expect("written");
            let key = |application: &str, identifier: &str| v1::ConfigurationKey {
                application: application.into(),
                identifier: identifier.into(),
            };
            let keys = vec![key(APPLICATION, "One"), key(APPLICATION, "Two"), key("Nowhere", "x")];
            let batch =
                v1::BatchGetConfigurationsRequest { keys, mode: v1::ReadMode::Runtime.into() };
            let results = user.batch_get(batch).await.expect("a batch").into_inner().results;
            let reasons: Vec<_> = results
                .into_iter()
                .map(|result| match result.result.expect("a result") {
                    v1::batch_get_configurations_result::Result::Configuration(got) => {
                        got.values["ApiKey"].clone()
                    }
                    v1::batch_get_configurations_result::Result::Refusal(refusal) => refusal.reason,
                })
                .collect();
            assert_eq!(reasons, ["k1", "CONFIGURATION_NOT_FOUND", "NOT_APPLICATION_USER"]);
            let keys = vec![key(APPLICATION, "One"); 101];
            let batch = v1::BatchGetConfigurationsRequest { keys, mode: 0 };
            assert_eq!(refused(admin.batch_get(batch).await), Reason::InvalidRequest);

            let list = v1::ListIdentifiersRequest {
                application: APPLICATION.into(),
                page_size: 2,
                ..Default::default()
            };
            for identifier in ["b", "c", "d"] {
                admin.set(set(identifier, &FULL)).await.expect("written");
            }
            let mut seen = Vec::new();
            let mut request = list.clone();
            loop {
                let page =
                    admin.list_identifiers(request.clone()).await.expect("a page").into_inner();
                seen.extend(page.identifiers.into_iter().map(|entry| entry.identifier));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(seen, ["b", "c", "d", "One"]);
            request.page_token = "00".into();
            assert_eq!(refused(admin.list_identifiers(request).await), Reason::InvalidPageToken);
        });
    });
}

#[test]
fn a_watch_pushes_changes_of_every_server_within_a_second() {
    on_each_database_with(2, |system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut writer = client(system, 2, "app-admin");
            let mut watcher = client(system, 1, "user");
            writer.set(set("One", &FULL)).await.expect("written");
            let target = |identifier: &str| v1::WatchTarget {
                application: APPLICATION.into(),
                identifier: identifier.into(),
            };
            let request = v1::WatchConfigurationsRequest { targets: vec![target("")] };
            let mut changes = watcher.watch(request).await.expect("a watch").into_inner();
            let mut next = async || {
                let within = tokio::time::timeout(Duration::from_secs(20), changes.message());
                let change = within.await.expect("a change").expect("no error")?;
                Some((change.identifier, change.revision, change.deleted))
            };
            assert_eq!(next().await, Some(("One".into(), 1, false)));
            let mut slowest = Duration::ZERO;
            for revision in 2..=6 {
                let before = std::time::Instant::now();
                writer.set(set("One", &[("Url", Some("x"))])).await.expect("written");
                assert_eq!(next().await, Some(("One".into(), revision, false)));
                slowest = slowest.max(before.elapsed());
            }
            println!("slowest push from the other server: {slowest:?}");
            writer.set(set("Two", &FULL)).await.expect("written");
            assert_eq!(next().await, Some(("Two".into(), 1, false)));
            let delete = v1::DeleteConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "Two".into(),
                if_revision: None,
            };
            writer.delete(delete).await.expect("deleted");
            assert_eq!(next().await, Some(("Two".into(), 2, true)));
            // Who is no user any more is told nothing more.
            let _ = system.sso_ok(
                "affiliate-admin",
                &["app", "update", APPLICATION, "--users", "DEV\\Integration Hosts"],
            );
            let ended = loop {
                match tokio::time::timeout(Duration::from_secs(20), changes.message())
                    .await
                    .expect("an end")
                {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the watch ended without a word"),
                    Err(status) => break status,
                }
            };
            assert_eq!(refused::<()>(Err(ended)), Reason::NotApplicationUser);
        });
    });
}

#[test]
fn disabled_applications_and_systems_refuse_at_run_time_and_keep_the_data() {
    on_each_database_with(2, |system, runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut admin = client(system, 1, "app-admin");
            let mut user = client(system, 1, "user");
            admin.set(set("One", &FULL)).await.expect("written");
            let read = get("One", v1::ReadMode::Runtime);
            let _ = system.sso_ok("app-admin", &["app", "disable", APPLICATION]);
            assert_eq!(refused(user.get(read.clone()).await), Reason::ApplicationDisabled);
            admin.get(get("One", v1::ReadMode::Admin)).await.expect("administrators prepare it");
            let _ = system.sso_ok("app-admin", &["app", "enable", APPLICATION]);
            user.get(read.clone()).await.expect("served again");

            let _ = system.sso_ok("admin", &["system", "disable"]);
            assert_eq!(refused(user.get(read.clone()).await), Reason::SystemDisabled);
            assert_eq!(refused(admin.set(set("One", &FULL)).await), Reason::SystemDisabled);
            // The other server hears of it within its poll.
            let mut other = client(system, 2, "user");
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            while other.get(read.clone()).await.is_ok() {
                assert!(tokio::time::Instant::now() < deadline, "server 2 goes on");
            }
            let _ = system.sso_ok("admin", &["system", "enable"]);
            user.get(read).await.expect("served again");

            // Deleted and created again under the same name: nothing of the old one is there.
            let _ = system.sso_ok("affiliate-admin", &["app", "delete", APPLICATION, "--yes"]);
            assert_eq!(
                refused(user.get(get("One", v1::ReadMode::Runtime)).await),
                Reason::NotApplicationUser
            );
            prepare(system);
            let none = user.get(get("One", v1::ReadMode::Runtime)).await;
            assert_eq!(refused(none), Reason::ConfigurationNotFound);
        });
    });
}
