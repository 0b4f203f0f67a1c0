//! Connections that the database ends while nobody uses them cost nobody an answer.

use futures_util::future::{join_all, try_join_all};

use super::*;

/// Leaves as many connections at rest for reading and for writing as there may be: half of 16 each.
async fn rest(storage: &Storage) {
    try_join_all((0..8).map(|_| storage.ping())).await.expect("reads");
    let begun = join_all((0..8).map(|_| storage.begin())).await;
    for transaction in begun {
        transaction.expect("begun").rollback().await.expect("undone");
    }
}

#[tokio::test]
async fn what_postgresql_ended_at_rest_refuses_no_read_and_no_transaction() {
    let Some(server) = postgres::Server::start(postgres::Options::default()) else { return };
    let url = server.database();
    let storage = open(&url, &Clock::System).await;
    storage.migrate().await.unwrap();
    let app = application("a");
    insert(&storage, &app).await.unwrap();
    for crash in [false, true, false] {
        rest(&storage).await;
        if crash {
            server.crash();
        } else {
            let mut stranger = sqlx::AnyConnection::connect(&url).await.unwrap();
            let end = "SELECT pg_terminate_backend(pid, 10000)::text FROM pg_stat_activity \
                WHERE pid <> pg_backend_pid() AND datname = current_database()";
            let ended = sqlx::raw_sql(end).fetch_all(&mut stranger).await.unwrap();
            assert!(ended.len() >= 8, "{} connections rested", ended.len());
            stranger.close().await.unwrap();
        }
        let found = storage.application(&app.name).await.expect("a look-up");
        assert_eq!(found.expect("the application").id, app.id);
        for _ in 0..8 {
            storage.ping().await.expect("a read");
        }
        for transaction in join_all((0..8).map(|_| storage.begin())).await {
            transaction.expect("a transaction").rollback().await.expect("undone");
        }
    }
    storage.close().await;
}
