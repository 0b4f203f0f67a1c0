//! Promise 2: a sealed value opens only in its own place. Rows of a real database are swapped,
//! truncated and flipped behind the server's back.

use prost::Message as _;
use sqlx::{AnyConnection, Connection as _, Row as _};
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{everywhere::on_each_database, raw, system::System};
use tokio::runtime::Runtime;

const VALUES: &str = r#"{"Key":"canary-of-the-row"}"#;

fn prepare(system: &System) {
    // What is changed behind its back, a server does not hear of: it is to look each time.
    let _ = system.sso_ok("admin", &["system", "update", "--credential-cache-timeout", "0"]);
    for application in ["First", "Second"] {
        system.create_application(application, &["Key:masked"]);
        for identifier in ["One", "Two"] {
            for _ in 0..2 {
                let set = ["config", "set", application, identifier, "--values", "-"];
                let output = system.sso_with_input("app-admin", &set, VALUES);
                assert!(output.status.success(), "{output:?}");
            }
        }
    }
}

async fn read(system: &System, application: &str, identifier: &str) -> Result<String, Reason> {
    let channel = raw::channel(system, 1, "user");
    let request = v1::GetConfigurationRequest {
        application: application.into(),
        identifier: identifier.into(),
        mode: v1::ReadMode::Runtime.into(),
        fields: Vec::new(),
    };
    let answer = raw::call(&channel, "/sso.v1.ConfigStore/Get", request.encode_to_vec()).await;
    match answer {
        Ok(bytes) => {
            let answer = v1::GetConfigurationResponse::decode(&bytes[..]).expect("an answer");
            Ok(answer.configuration.expect("a configuration").values["Key"].clone())
        }
        Err(status) => {
            let refusal = Refusal::from_status(&status).unwrap_or_else(|| panic!("{status:?}"));
            assert!(!refusal.message.contains("canary"), "{}", refusal.message);
            Err(refusal.reason)
        }
    }
}

type Place = (String, i64);

async fn rows(database: &mut AnyConnection) -> Vec<(Place, Vec<u8>)> {
    let statement =
        "SELECT configuration_id, revision, sealed FROM configuration_revisions ORDER BY 1, 2";
    let rows = sqlx::query(statement).fetch_all(database).await.expect("rows");
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

async fn put(database: &mut AnyConnection, (id, revision): &Place, sealed: &[u8]) {
    sqlx::query("UPDATE configuration_revisions SET sealed = $1 WHERE configuration_id = $2 AND revision = $3")
        .bind(sealed)
        .bind(id)
        .bind(*revision)
        .execute(database)
        .await
        .expect("written");
}

async fn open(system: &System) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = raw::database_url(system);
    let mut connection = AnyConnection::connect(&url).await.expect("the database");
    if url.starts_with("sqlite") {
        sqlx::raw_sql("PRAGMA busy_timeout = 5000")
            .execute(&mut connection)
            .await
            .expect("a pragma");
    }
    connection
}

#[test]
fn a_sealed_value_opens_only_where_it_belongs() {
    on_each_database(|system, runtime: &Runtime| {
        prepare(system);
        runtime.block_on(async {
            let mut database = open(system).await;
            assert_eq!(read(system, "First", "One").await.as_deref(), Ok("canary-of-the-row"));
            let rows = rows(&mut database).await;
            assert_eq!(rows.len(), 8);
            let all = [("First", "One"), ("First", "Two"), ("Second", "One"), ("Second", "Two")];
            // Every row in the place of every other: identifiers, revisions, applications.
            for (from, _) in rows.iter().enumerate() {
                for (to, (place, own)) in rows.iter().enumerate() {
                    if from == to {
                        continue;
                    }
                    put(&mut database, place, &rows[from].1).await;
                    let mut damaged = 0;
                    for (application, identifier) in all {
                        match read(system, application, identifier).await {
                            Ok(value) => assert_eq!(value, "canary-of-the-row"),
                            Err(reason) => {
                                assert_eq!(reason, Reason::SealedValueDamaged);
                                damaged += 1;
                            }
                        }
                    }
                    // Only the newest of the two revisions is read.
                    assert_eq!(damaged, usize::from(place.1 == 2), "{from} in the place of {to}");
                    put(&mut database, place, own).await;
                }
            }
            let (place, own) =
                rows.iter().find(|((_, revision), _)| *revision == 2).expect("a row");
            let victim = async |sealed: &[u8], database: &mut AnyConnection| {
                put(database, place, sealed).await;
                let mut refused = Vec::new();
                for (application, identifier) in all {
                    refused.extend(read(system, application, identifier).await.err());
                }
                refused
            };
            for length in 0..own.len() {
                let refused = victim(&own[..length], &mut database).await;
                assert_eq!(refused, [Reason::SealedValueDamaged], "cut to {length} bytes");
            }
            for index in 0..own.len() {
                let mut flipped = own.clone();
                flipped[index] ^= 1 << (index % 8);
                let refused = victim(&flipped, &mut database).await;
                assert!(
                    matches!(refused[..], [Reason::SealedValueDamaged | Reason::GenerationMissing]),
                    "byte {index}: {refused:?}"
                );
            }
            // Going back to an earlier revision is the way out.
            let mut back = 0;
            for (application, identifier) in all {
                if read(system, application, identifier).await.is_err() {
                    let rollback =
                        ["config", "rollback", application, identifier, "--revision", "1"];
                    let _ = system.sso_ok("app-admin", &rollback);
                    back += 1;
                }
                assert_eq!(
                    read(system, application, identifier).await.as_deref(),
                    Ok("canary-of-the-row")
                );
            }
            assert_eq!(back, 1);
        });
    });
}
