//! Rows of mappings that were swapped, cut, turned or brought back behind the back of the servers.

use sqlx::{AnyConnection, Row as _};
use sso_proto::{Reason as R, v1};
use sso_tests::everywhere::{on_each_database, on_each_database_with};
use v1::ApplicationType as Kind;

use crate::{
    access::issue_certificate,
    asking::{
        application, ask, create_application, database, delete, key, look_up, map, new_mapping,
        pair, set, set_application_users, told, until,
    },
};

/// The rows of mappings: id, account, external user, sealed.
type Row = (String, String, String, Vec<u8>);

async fn rows(database: &mut AnyConnection) -> Vec<Row> {
    let statement = "SELECT m.id, m.account, m.external_user, m.sealed FROM mappings m JOIN applications a ON a.id = m.application_id ORDER BY a.name, m.account";
    let rows = sqlx::query(statement).fetch_all(database).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn put(database: &mut AnyConnection, id: &str, sealed: &[u8]) {
    let statement = "UPDATE mappings SET sealed = $1 WHERE id = $2";
    sqlx::query(statement).bind(sealed).bind(id).execute(database).await.expect("written");
}

/// Gives a row other sides, unique ones too where they were set. The database would refuse two rows of
/// the same side for a moment, so one of them steps aside first.
async fn give_sides(database: &mut AnyConnection, id: &str, account: &str, user: &str) {
    let statement = "UPDATE mappings SET account = $1, account_key = $2, external_user = $3, \
                     external_user_key = $4, unique_account_key = $2, unique_external_user_key = $4 WHERE id = $5";
    sqlx::query(statement)
        .bind(account)
        .bind(account.to_lowercase())
        .bind(user)
        .bind(user.to_lowercase())
        .bind(id)
        .execute(database)
        .await
        .expect("written");
}

#[test]
fn sealed_credentials_open_only_in_their_own_mapping() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            issue_certificate(system, "ann", "sso://DEV/ann");
            set_application_users(system, &["DEV\\user", "DEV\\ann"]);
            for name in ["One", "Two"] {
                create_application(system, application(name, Kind::Individual)).await;
            }
            until("ann is a user", true, async || {
                map(system, "ann", new_mapping("One", "", "ANN", Some("canary of ann"))).await.is_ok()
            })
            .await;
            map(system, "user", new_mapping("One", "", "USR", Some("canary of user"))).await.expect("mapped");
            map(system, "user", new_mapping("Two", "", "USR", Some("canary of two"))).await.expect("mapped");
            let read = async |who: &str, name: &str| look_up(system, who, name, true).await;
            let all = [("ann", "One", pair("ANN", "canary of ann")), ("user", "One", pair("USR", "canary of user")), ("user", "Two", pair("USR", "canary of two"))];
            let fine = async || {
                for (who, name, wanted) in &all {
                    assert_eq!(read(who, name).await, *wanted);
                }
            };
            fine().await;
            let mut database = database(system).await;
            let rows = rows(&mut database).await;
            assert_eq!(rows.len(), 3);
            // The sealed bytes of every mapping in every other, of this application and of another.
            for from in 0..3 {
                for to in 0..3 {
                    if from != to {
                        put(&mut database, &rows[to].0, &rows[from].3).await;
                        assert_eq!(read(all[to].0, all[to].1).await, Err(R::SealedValueDamaged), "{from} in {to}");
                        put(&mut database, &rows[to].0, &rows[to].3).await;
                    }
                }
            }
            fine().await;
            // Two mappings trade one side or both: what is sealed belongs to neither any more.
            let (ann, user) = (&rows[0], &rows[1]);
            for (of_ann, of_user) in [
                ((&user.1, &ann.2), (&ann.1, &user.2)),
                ((&ann.1, &user.2), (&user.1, &ann.2)),
                ((&user.1, &user.2), (&ann.1, &ann.2)),
            ] {
                give_sides(&mut database, &user.0, "DEV\\aside", "ASIDE").await;
                give_sides(&mut database, &ann.0, of_ann.0, of_ann.1).await;
                give_sides(&mut database, &user.0, of_user.0, of_user.1).await;
                for who in ["ann", "user"] {
                    assert_eq!(read(who, "One").await, Err(R::SealedValueDamaged), "{who} {of_ann:?}");
                }
                give_sides(&mut database, &user.0, "DEV\\aside", "ASIDE").await;
                give_sides(&mut database, &ann.0, &ann.1, &ann.2).await;
                give_sides(&mut database, &user.0, &user.1, &user.2).await;
            }
            fine().await;
            // The key by which it is found alone: the row of ann would answer to the name of user.
            for (key, own) in [("dev\\aside", &user.0), ("dev\\user", &ann.0)] {
                let statement = "UPDATE mappings SET account_key = $1, unique_account_key = $1 WHERE id = $2";
                sqlx::query(statement).bind(key).bind(own).execute(&mut database).await.expect("written");
            }
            assert_eq!(read("user", "One").await, Err(R::StoredRowDamaged));
            give_sides(&mut database, &ann.0, &ann.1, &ann.2).await;
            give_sides(&mut database, &user.0, &user.1, &user.2).await;
            fine().await;
            // Into another application, with the sides as they are.
            let statement = "UPDATE mappings SET application_id = (SELECT id FROM applications WHERE name = $1) WHERE id = $2";
            for (name, id) in [("Two", &ann.0), ("One", &ann.0)] {
                sqlx::query(statement).bind(name).bind(id).execute(&mut database).await.expect("moved");
                let expected = if name == "Two" { Err(R::SealedValueDamaged) } else { all[0].2.clone() };
                assert_eq!(read("ann", name).await, expected);
            }
            // Cut short at every length, and one bit turned at every place.
            for length in 0..user.3.len() {
                put(&mut database, &user.0, &user.3[..length]).await;
                assert_eq!(read("user", "One").await, Err(R::SealedValueDamaged), "{length} bytes");
            }
            for place in 0..user.3.len() {
                let mut turned = user.3.clone();
                turned[place] ^= 1;
                put(&mut database, &user.0, &turned).await;
                let refused = read("user", "One").await.unwrap_err();
                assert!(matches!(refused, R::SealedValueDamaged | R::GenerationMissing), "{place}: {refused:?}");
            }
            // The way out is the one that the refusal names.
            let (reason, words) = told::<v1::GetCredentialsResponse>(system, "user", "Lookup/GetCredentials", &v1::GetCredentialsRequest { application: "One".into(), refresh: true }).await.unwrap_err();
            assert!(words.contains("set the credentials again") && !words.contains("canary"), "{reason:?} {words}");
            set(system, "user", key("One", ""), "canary anew").await.expect("set");
            assert_eq!(read("user", "One").await, pair("USR", "canary anew"));
        });
    });
}

#[test]
fn what_was_deleted_and_made_again_does_not_get_its_old_credentials_back() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            let make = async || {
                map(system, "user", new_mapping("Ind", "", "USR01", None)).await.expect("mapped");
            };
            create_application(system, application("Ind", Kind::Individual)).await;
            map(system, "user", new_mapping("Ind", "", "USR01", Some("canary")))
                .await
                .expect("mapped");
            let everywhere = ["user", "user@2"];
            let old = pair("USR01", "canary");
            let mut database = database(system).await;
            let sealed = rows(&mut database).await.remove(0).3;
            for who in everywhere {
                until("remembered", old.clone(), async || look_up(system, who, "Ind", false).await)
                    .await;
            }
            delete(system, "user", key("Ind", "")).await.expect("deleted");
            make().await;
            assert_eq!(look_up(system, "user", "Ind", false).await, Err(R::CredentialsNotSet));
            until("the old one is forgotten", Err(R::CredentialsNotSet), async || {
                look_up(system, "user@2", "Ind", false).await
            })
            .await;
            let forge = "UPDATE mappings SET sealed = $1, generation = 1, credentials_at = 1";
            sqlx::query(forge).bind(&sealed[..]).execute(&mut database).await.expect("forged");
            for who in everywhere {
                assert_eq!(look_up(system, who, "Ind", true).await, Err(R::SealedValueDamaged));
            }
            // The same with the whole application.
            set(system, "user", key("Ind", ""), "canary").await.expect("set");
            let sealed = rows(&mut database).await.remove(0).3;
            for who in everywhere {
                until("remembered", old.clone(), async || look_up(system, who, "Ind", false).await)
                    .await;
            }
            let gone = v1::DeleteApplicationRequest { name: "Ind".into() };
            let deleted: v1::DeleteApplicationResponse =
                ask(system, "admin", "Applications/Delete", &gone).await.expect("deleted");
            assert!(deleted.existed);
            create_application(system, application("Ind", Kind::Individual)).await;
            assert_eq!(look_up(system, "user", "Ind", false).await, Err(R::MappingNotFound));
            until("the old application is forgotten", Err(R::MappingNotFound), async || {
                look_up(system, "user@2", "Ind", false).await
            })
            .await;
            make().await;
            sqlx::query(forge).bind(&sealed[..]).execute(&mut database).await.expect("forged");
            for who in everywhere {
                assert_eq!(look_up(system, who, "Ind", true).await, Err(R::SealedValueDamaged));
            }
        });
    });
}
