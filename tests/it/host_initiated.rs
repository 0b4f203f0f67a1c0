//! Logons of external users from end to end, and the assertions about them (ESSO.md 10).

use std::{collections::BTreeSet, fs, io::Write as _, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    everywhere::on_each_database,
    postgres, raw,
    system::{Database, System},
};
use tonic::transport::Channel;

use crate::sign_on::{
    APPLICATION, Audited, Desk, PASSWORD, application, ask, reason, redeem_at, revealed,
};

const HOSTS: &str = "Hosts";
const LOGONS: Audited = Audited::done("credentials.logon");
const DENIED: Audited =
    Audited { outcome: v1::AuditOutcome::Denied, reason: "CREDENTIALS_MISMATCH", ..LOGONS };

async fn logon(
    channel: &Channel,
    application: &str,
    external_user: &str,
    values: &[&str],
) -> Result<v1::LogonExternalUserResponse, Refusal> {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    let message = v1::LogonExternalUserRequest {
        application: application.into(),
        external_user: external_user.into(),
        credentials: Some(v1::CredentialValues { values }),
        ..Default::default()
    };
    ask(channel, "Lookup/LogonExternalUser", message).await
}

/// As [`application`], and external users may log on.
fn individual() -> v1::Application {
    v1::Application { host_initiated: Some(true), ..application(APPLICATION) }
}

/// A host group application whose account is `DEV\user`.
fn host_group() -> v1::Application {
    v1::Application {
        r#type: v1::ApplicationType::HostGroup.into(),
        user_accounts: Vec::new(),
        windows_account: "DEV\\user".into(),
        allow_tickets: None,
        ..application(HOSTS)
    }
}

async fn open(system: &System) -> Desk<'_> {
    let desk = Desk::open(system).await;
    desk.update(individual(), &["host_initiated"]).await;
    desk.create(host_group()).await;
    desk.map(HOSTS, "", "JOB1", Some(PASSWORD)).await;
    desk
}

#[test]
fn an_external_user_becomes_the_account_it_is_mapped_to_with_a_ticket() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            // Where the ticket is redeemed: for the account, as if it had asked itself.
            desk.create(application("Other")).await;
            desk.map("Other", "DEV\\user", "OTHER01", Some("secret-2")).await;
            trust_another(&desk).await;
            for (name, user) in [(APPLICATION, "usr01"), (HOSTS, "job1")] {
                let mut answer =
                    logon(&desk.host, name, user, &[PASSWORD]).await.expect("logged on");
                assert_eq!(answer.account, "DEV\\user");
                assert!(answer.assertion.is_none());
                assert!(answer.ticket_expires_at.is_some());
                let ticket = std::mem::take(&mut answer.ticket.as_mut().expect("a ticket").text);
                let sender = Some("DEV\\user");
                // Not the host that logged the user on: it would be everybody who is mapped.
                let own = redeem_at(&desk.host, "Other", &ticket, sender).await;
                assert_eq!(reason(own), Reason::TicketOfOwnLogon);
                let redeemed = redeem_at(&desk.app_admin, "Other", &ticket, sender).await;
                assert_eq!(revealed(redeemed.unwrap()).0, "OTHER01");
            }
            assert_eq!((desk.audited(LOGONS).await, desk.audited(DENIED).await), (2, 0));
            // Without tickets in the system there is none, and the logon goes on.
            desk.set_global(v1::GlobalInfo::default(), &["tickets_allowed"]).await;
            let answer = logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on");
            assert!(answer.ticket.is_none() && answer.ticket_expires_at.is_none());
        });
    });
}

async fn trust_another(desk: &Desk<'_>) {
    let hosts = vec!["DEV\\host".into(), "DEV\\app-admin".into()];
    let hosts = v1::GlobalInfo { trusted_hosts: hosts, ..Default::default() };
    desk.set_global(hosts, &["trusted_hosts"]).await;
}

#[test]
fn a_ticket_of_a_logon_ends_with_the_holder_of_the_name() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            trust_another(&desk).await;
            let mut database = crate::asking::database(system).await;
            let insert = "INSERT INTO principals (account_key, account, subject, first_seen_at) \
                          VALUES ('dev\\user', 'DEV\\user', 'idp|1', 0)";
            sqlx::raw_sql(insert).execute(&mut database).await.expect("a principal");
            let mut answer =
                logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on");
            let ticket = std::mem::take(&mut answer.ticket.as_mut().expect("a ticket").text);
            let redeem =
                async || redeem_at(&desk.app_admin, APPLICATION, &ticket, Some("DEV\\user")).await;
            assert_eq!(revealed(redeem().await.expect("redeemed")).0, "USR01");
            let update = "UPDATE principals SET subject = 'idp|2'";
            sqlx::raw_sql(update).execute(&mut database).await.expect("somebody else");
            // Whom a name belongs to is remembered until something of the system changes, as it does with
            // every `sso principal forget`.
            let other = v1::GlobalInfo { ticket_timeout: 3, ..Default::default() };
            desk.set_global(other, &["ticket_timeout"]).await;
            assert_eq!(reason(redeem().await), Reason::TicketOutdated);
        });
    });
}

/// ESSO.md 14.4, row 46: whoever administers an application that external users log on to can be any
/// of its accounts.
#[test]
fn who_external_users_become_is_for_affiliate_administrators_to_say() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let update = async |application: v1::Application, path: &str| {
                let message = v1::UpdateApplicationRequest {
                    application: Some(application),
                    update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
                };
                let answer: Result<v1::UpdateApplicationResponse, _> =
                    ask(&desk.app_admin, "Applications/Update", message).await;
                answer.map(drop).map_err(|refusal| refusal.reason)
            };
            let protected = Err(Reason::HostAccessProtected);
            let wider = v1::Application {
                user_accounts: vec!["DEV\\Application Users".into(), "DEV\\admin".into()],
                ..individual()
            };
            assert_eq!(update(wider.clone(), "user_accounts").await, protected);
            // As they are, and switched off, anybody who administers it may say so.
            assert_eq!(update(individual(), "user_accounts").await, Ok(()));
            let one_way = v1::Application { host_initiated: Some(false), ..individual() };
            assert_eq!(update(one_way, "host_initiated").await, Ok(()));
            assert_eq!(update(wider, "user_accounts").await, Ok(()));
            assert_eq!(update(individual(), "host_initiated").await, protected);
            let admin = v1::Application { windows_account: "DEV\\admin".into(), ..host_group() };
            assert_eq!(update(admin, "windows_account").await, protected);
            let answer = logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on");
            assert_eq!(answer.account, "DEV\\user");
        });
    });
}

#[test]
fn the_mappings_of_a_host_group_follow_its_account_with_their_credentials() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on, and cached");
            let account = "DEV\\new".to_owned();
            let moved = v1::Application { windows_account: account.clone(), ..host_group() };
            desk.update(moved, &["windows_account"]).await;
            let answer = logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on");
            assert_eq!(answer.account, account);
            for (account, found) in [("DEV\\new", 1), ("DEV\\user", 0), ("", 1)] {
                let message = v1::ListMappingsRequest {
                    application: HOSTS.into(),
                    account: account.into(),
                    ..Default::default()
                };
                let list: v1::ListMappingsResponse =
                    ask(&desk.admin, "Mappings/List", message).await.expect("a list");
                assert_eq!(list.mappings.len(), found, "{account}");
                let fine = |it: &v1::Mapping| !it.orphaned && it.account == "DEV\\new";
                assert!(list.mappings.iter().all(fine));
            }
            // A row that still names another account is of the account of its application all the same.
            let mut database = crate::asking::database(system).await;
            let statement = "UPDATE mappings SET account = 'DEV\\admin', account_key = 'dev\\admin' \
                             WHERE external_user = 'JOB1'";
            sqlx::raw_sql(statement).execute(&mut database).await.expect("written");
            let answer = logon(&desk.host, HOSTS, "JOB1", &[PASSWORD]).await.expect("logged on");
            assert_eq!(answer.account, account);
        });
    });
}

#[test]
fn credentials_that_are_too_large_are_refused_before_anything_is_looked_up() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let (most, more) = ("x".repeat(65_536), "x".repeat(65_537));
            let mut words = BTreeSet::new();
            for (application, user) in [(HOSTS, "JOB1"), (HOSTS, "NOBODY"), ("Nowhere", "JOB1")] {
                let refused = logon(&desk.host, application, user, &["", &more]).await;
                let refused = refused.expect_err("a refusal");
                assert_eq!(refused.reason, Reason::ValueTooLarge);
                words.insert(refused.message);
            }
            assert_eq!(words.len(), 1, "{words:?}");
            for user in ["JOB1", "NOBODY"] {
                let refused = logon(&desk.host, HOSTS, user, &[&most]).await;
                assert_eq!(reason(refused), Reason::CredentialsMismatch);
            }
        });
    });
}

/// threat-model.md, case 18.
#[test]
fn who_proves_nothing_is_not_told_whether_the_external_user_is_known() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            desk.map(HOSTS, "", "UNSET", None).await;
            desk.map(HOSTS, "", "OFF", Some(PASSWORD)).await;
            disable(&desk, "OFF").await;
            let mut words = BTreeSet::new();
            let mut wrong = 0;
            for user in ["JOB1", "UNSET", "OFF", "NOBODY"] {
                for values in [&["wrong"][..], &[], &[""], &[PASSWORD, ""], &[PASSWORD, PASSWORD]] {
                    let refused =
                        logon(&desk.host, HOSTS, user, values).await.expect_err("a refusal");
                    assert_eq!(refused.reason, Reason::CredentialsMismatch, "{user} {values:?}");
                    words.insert(refused.message.replace(user, "USER"));
                    wrong += 1;
                }
            }
            for user in ["UNSET", "NOBODY"] {
                let refused = logon(&desk.host, HOSTS, user, &[PASSWORD]).await;
                assert_eq!(reason(refused), Reason::CredentialsMismatch);
                wrong += 1;
            }
            assert_eq!(words.len(), 1, "{words:?}");
            assert_eq!(desk.audited(DENIED).await, wrong);
            // Whoever proves it is told what is wrong.
            let off = logon(&desk.host, HOSTS, "OFF", &[PASSWORD]).await;
            assert!(
                [Reason::MappingDisabled, Reason::MappingDisabledByAdministrator]
                    .contains(&reason(off))
            );
            assert_eq!(desk.audited(LOGONS).await, 0);
            assert!(system.log_of_server(1).contains("10810"));
        });
    });
}

async fn disable(desk: &Desk<'_>, external_user: &str) {
    let side = Some(v1::mapping_key::Side::ExternalUser(external_user.into()));
    let key = Some(v1::MappingKey { application: HOSTS.into(), side });
    let _: v1::DisableMappingResponse =
        ask(&desk.admin, "Mappings/Disable", v1::DisableMappingRequest { key })
            .await
            .expect("disabled");
}

/// An application that validates and has nothing to validate believes nobody.
#[test]
fn where_there_is_nothing_to_compare_nothing_is_proved() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let mut bare = host_group();
            bare.name = "Bare".into();
            bare.fields.truncate(1);
            desk.create(bare).await;
            desk.map("Bare", "", "JOB1", None).await;
            for values in [&[][..], &[""]] {
                let refused = logon(&desk.host, "Bare", "JOB1", values).await;
                assert_eq!(reason(refused), Reason::CredentialsMismatch);
            }
        });
    });
}

/// threat-model.md, case 37.
#[test]
fn without_validation_the_word_of_the_host_is_taken_with_a_warning_each_time() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let believing = v1::Application { validate_password: Some(false), ..host_group() };
            desk.update(believing, &["validate_password"]).await;
            let warned =
                || system.log_of_server(1).matches("logged on without its credentials").count();
            assert_eq!(warned(), 0);
            for times in 1..=2 {
                let answer = logon(&desk.host, HOSTS, "JOB1", &[]).await.expect("logged on");
                assert_eq!(answer.account, "DEV\\user");
                assert_eq!(warned(), times);
            }
            let noted = Audited { detail: "credentials not compared", ..LOGONS };
            assert_eq!(desk.audited(noted).await, 2);
            let refused = logon(&desk.host, HOSTS, "NOBODY", &[]).await;
            assert_eq!(reason(refused), Reason::MappingNotFound);
            disable(&desk, "JOB1").await;
            let refused = reason(logon(&desk.host, HOSTS, "JOB1", &[]).await);
            assert!(
                [Reason::MappingDisabled, Reason::MappingDisabledByAdministrator]
                    .contains(&refused)
            );
        });
    });
}

/// ESSO.md 10.2: what is off, whose role is missing, who is not a user any more.
#[test]
fn conditions_are_checked_in_their_order() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let good = [PASSWORD];
            let off = v1::GlobalInfo::default();
            desk.set_global(off, &["host_initiated_allowed"]).await;
            for channel in [&desk.host, &desk.user] {
                let refused = logon(channel, "Nowhere", "x", &[]).await;
                assert_eq!(reason(refused), Reason::HostInitiatedOff);
            }
            let on = v1::GlobalInfo { host_initiated_allowed: true, ..Default::default() };
            desk.set_global(on, &["host_initiated_allowed"]).await;
            // Without the role nothing is told of the application, nor whether there is one.
            for name in [APPLICATION, "Nowhere"] {
                let refused = logon(&desk.user, name, "USR01", &good).await;
                assert_eq!(reason(refused), Reason::NotApplicationAdministrator);
            }
            let one_way = v1::Application { host_initiated: Some(false), ..individual() };
            desk.update(one_way, &["host_initiated"]).await;
            switch(&desk, false).await;
            let refused = logon(&desk.host, APPLICATION, "USR01", &good).await;
            assert_eq!(reason(refused), Reason::HostInitiatedOffInApplication);
            desk.update(individual(), &["host_initiated"]).await;
            let refused = logon(&desk.host, APPLICATION, "USR01", &["wrong"]).await;
            assert_eq!(reason(refused), Reason::ApplicationDisabled);
            switch(&desk, true).await;
            assert!(logon(&desk.host, APPLICATION, "USR01", &good).await.is_ok());
            // The account is not among the users any more.
            let others = vec!["DEV\\Integration Hosts".to_owned()];
            let without = v1::Application { user_accounts: others, ..individual() };
            desk.update(without, &["user_accounts"]).await;
            let refused = logon(&desk.host, APPLICATION, "USR01", &good).await;
            assert_eq!(reason(refused), Reason::AccountNotInApplication);
            let refused = logon(&desk.host, APPLICATION, "", &good).await;
            assert_eq!(reason(refused), Reason::ExternalUserInvalid);
            let refused = logon(&desk.host, APPLICATION, "USR01", &["x"; 64]).await;
            assert_eq!(reason(refused), Reason::InvalidRequest);
            assert_eq!(desk.audited(LOGONS).await, 1);
        });
    });
}

async fn switch(desk: &Desk<'_>, on: bool) {
    let name = APPLICATION.to_owned();
    match on {
        true => {
            let message = v1::EnableApplicationRequest { name };
            let _: v1::EnableApplicationResponse =
                ask(&desk.admin, "Applications/Enable", message).await.expect("on");
        }
        false => {
            let message = v1::DisableApplicationRequest { name };
            let _: v1::DisableApplicationResponse =
                ask(&desk.admin, "Applications/Disable", message).await.expect("off");
        }
    }
}

/// A system whose servers sign assertions, on every database.
fn on_each_database_with_assertions(test: impl Fn(&mut System, &tokio::runtime::Runtime)) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut databases = vec![Database::Sqlite];
    databases.extend(postgres::database().map(Database::Postgres));
    for database in databases {
        let mut system = System::prepare(database, 2, Default::default());
        // The second server only publishes the keys.
        let path = system.installation().server_settings(1);
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("the settings");
        let section = "\n[assertion]\nissuer = \"https://sso.example\"\n\
                       audiences = [\"billing\", \"stock\"]\nlifetime_seconds = 30\n";
        file.write_all(section.as_bytes()).expect("written");
        system.start_master();
        system.start_server(1);
        system.start_server(2);
        test(&mut system, &runtime);
    }
}

/// What the operations listener of a server has at `/jwks.json`.
fn published(system: &System, number: usize) -> String {
    let answer = raw::page(system.operations(number), "jwks.json");
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/json"), "{head}");
    body.to_owned()
}

/// What another service takes the token for that knows the key set, the issuer and its own name.
fn verified(token: &str, key_set: &str, audience: &str) -> Option<serde_json::Value> {
    let keys: JwkSet = serde_json::from_str(key_set).expect("a key set");
    let key = keys.find(&decode_header(token).ok()?.kid?)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&["https://sso.example"]);
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    decode(token, &DecodingKey::from_jwk(key).ok()?, &validation).ok().map(|token| token.claims)
}

#[test]
fn an_assertion_is_verified_by_whoever_has_the_published_keys() {
    on_each_database_with_assertions(|system, runtime| {
        runtime.block_on(async {
            let desk = open(system).await;
            let request = |audience: &str| v1::LogonExternalUserRequest {
                application: HOSTS.into(),
                external_user: "job1".into(),
                credentials: Some(v1::CredentialValues { values: vec![PASSWORD.into()] }),
                assertion_audience: audience.into(),
                ..Default::default()
            };
            // Of a server that signs none: the keys are those of the whole system.
            let key_set = published(system, 2);
            let told: v1::GetAssertionKeysResponse =
                ask(&desk.user, "Lookup/GetAssertionKeys", v1::GetAssertionKeysRequest {})
                    .await
                    .expect("keys");
            assert_eq!(told.jwks, key_set);
            assert_eq!(published(system, 1), key_set);
            for (asked, audience) in [("", "billing"), ("billing", "billing"), ("stock", "stock")] {
                let mut answer: v1::LogonExternalUserResponse =
                    ask(&desk.host, "Lookup/LogonExternalUser", request(asked))
                        .await
                        .expect("logged on");
                let token =
                    std::mem::take(&mut answer.assertion.as_mut().expect("an assertion").text);
                let claims = verified(&token, &key_set, audience).expect("a good assertion");
                assert_eq!(claims["sub"], "DEV\\user");
                assert_eq!(
                    (&claims["application"], &claims["external_user"]),
                    (&HOSTS.into(), &"JOB1".into())
                );
                let time = |claim: &str| claims[claim].as_i64().expect("a time");
                assert_eq!(time("exp") - time("nbf"), 30);
                assert!(verified(&token, &key_set, "somebody-else").is_none());
                let id = claims["jti"].as_str().expect("an id");
                let records = v1::ListAuditRequest {
                    action: "credentials.logon".into(),
                    ..Default::default()
                };
                let records: v1::ListAuditResponse =
                    ask(&desk.admin, "Audit/List", records).await.expect("records");
                assert!(records.records[0].detail.contains(id), "{:?}", records.records[0]);
                assert!(!system.log_of_server(1).contains(&token));
            }
            let before = desk.audited(LOGONS).await;
            let refused = ask::<v1::LogonExternalUserResponse>(
                &desk.host,
                "Lookup/LogonExternalUser",
                request("x"),
            );
            assert_eq!(reason(refused.await), Reason::AssertionAudienceUnknown);
            let second = raw::channel(system, 2, "host");
            let refused = async {
                loop {
                    let asked = ask::<v1::LogonExternalUserResponse>(
                        &second,
                        "Lookup/LogonExternalUser",
                        request("billing"),
                    );
                    let refused = reason(asked.await);
                    // What was switched on at the first server is known here in a moment.
                    if refused != Reason::HostInitiatedOff {
                        break refused;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let refused =
                tokio::time::timeout(Duration::from_secs(10), refused).await.expect("an answer");
            assert_eq!(refused, Reason::AssertionAudienceUnknown);
            assert_eq!(desk.audited(LOGONS).await, before);
        });
        // The same keys after a restart; another system has others.
        let key_set = published(system, 1);
        system.stop_server(1);
        system.start_server(1);
        assert_eq!(published(system, 1), key_set);
        let other = System::start(Database::Sqlite);
        assert_ne!(published(&other, 1), key_set);
    });
}

#[test]
fn settings_of_assertions_that_cannot_work_stop_the_server_with_the_key_named() {
    let system = System::prepare(Database::Sqlite, 1, Default::default());
    let path = system.installation().server_settings(1);
    let good = fs::read_to_string(&path).expect("settings");
    for (section, named) in [
        ("issuer = \"x\"\naudiences = []", "assertion.audiences"),
        ("issuer = \"\"\naudiences = [\"a\"]", "assertion.issuer"),
        (
            "issuer = \"x\"\naudiences = [\"a\"]\nlifetime_seconds = 601",
            "assertion.lifetime_seconds",
        ),
        ("issuer = \"x\"\naudiences = [\"a\"]\nkey = \"x\"", "key"),
    ] {
        fs::write(&path, format!("{good}\n[assertion]\n{section}\n")).expect("written");
        let error = sso_server::settings::Settings::load(&path).expect_err("refused").to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
}
