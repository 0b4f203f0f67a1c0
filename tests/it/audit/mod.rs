//! Promise 8: what cannot be audited is refused, in bounded time, and changes and reveals nothing.

mod journal;
mod list;

use std::time::{Duration, Instant};

use prost::Message as _;
use sqlx::{AnyConnection, Connection as _};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{everywhere::on_each_database, raw};
use tonic::Status;

const APPLICATION: &str = "Audited";

fn reason(status: &Status) -> Option<Reason> {
    Refusal::from_status(status).map(|refusal| refusal.reason)
}

#[test]
fn without_an_audit_nothing_is_changed() {
    on_each_database(|system, runtime| {
        system.create_application(APPLICATION, &["Key:masked"]);
        let set = ["config", "set", APPLICATION, "One", "--values", "-"];
        assert!(system.sso_with_input("app-admin", &set, r#"{"Key":"k"}"#).status.success());
        runtime.block_on(async {
            sqlx::any::install_default_drivers();
            let url = raw::database_url(system);
            let mut database = AnyConnection::connect(&url).await.expect("the database");
            let (owner, user) =
                (raw::channel(system, 1, "app-admin"), raw::channel(system, 1, "user"));
            let reveal = v1::GetConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                mode: v1::ReadMode::Runtime.into(),
                fields: Vec::new(),
            };
            let read = v1::GetConfigurationRequest { mode: 0, ..reveal.clone() };
            let write = v1::SetConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                values: [("Key".to_owned(), v1::NewValue { value: Some("new".into()) })].into(),
                ..Default::default()
            };
            let disable = v1::DisableApplicationRequest { name: APPLICATION.into() };

            sqlx::raw_sql("ALTER TABLE audit RENAME TO audit_away")
                .execute(&mut database)
                .await
                .expect("renamed");
            let start = Instant::now();
            for (channel, path, request) in [
                (&owner, "ConfigStore/Set", write.encode_to_vec()),
                (&owner, "Applications/Disable", disable.encode_to_vec()),
            ] {
                let path = format!("/sso.v1.{path}");
                let refused = raw::call(channel, &path, request).await.expect_err("a refusal");
                assert_eq!(reason(&refused), Some(Reason::AuditUnavailable), "{path}: {refused:?}");
            }
            // A denial stays a denial, and a reveal has its record in the journal.
            let denied = raw::call(&user, "/sso.v1.ConfigStore/Set", write.encode_to_vec()).await;
            let denied = reason(&denied.expect_err("denied"));
            assert_eq!(denied, Some(Reason::NotApplicationAdministrator));
            raw::call(&user, "/sso.v1.ConfigStore/Get", reveal.encode_to_vec())
                .await
                .expect("revealed");
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());

            sqlx::raw_sql("ALTER TABLE audit_away RENAME TO audit")
                .execute(&mut database)
                .await
                .expect("renamed");
            let answer = raw::call(&owner, "/sso.v1.ConfigStore/Get", read.encode_to_vec()).await;
            let answer = answer.expect("read");
            let read = v1::GetConfigurationResponse::decode(&answer[..]).expect("an answer");
            assert_eq!(
                read.configuration.expect("a configuration").revision,
                1,
                "nothing was written"
            );
            raw::call(&owner, "/sso.v1.ConfigStore/Set", write.encode_to_vec())
                .await
                .expect("written");
        });
    });
}
