//! A server that the database cannot tell any more what was revoked.

use std::time::{Duration, Instant};

use sso_proto::Reason as R;
use sso_server::changes::FRESH;
use sso_tests::{
    postgres::{Options, Server},
    proxy::Proxy,
    system::{Database, System, Timing},
};

use super::{Kind, application, create_application, look_up, map, new_mapping, pair, until};

#[test]
fn a_server_that_is_cut_off_from_the_database_serves_nothing_from_memory() {
    let options = Options { tcp: true, ..Options::default() };
    let Some(database) = Server::start(options) else { return };
    let (proxy, url) = Proxy::before_database(&database.database());
    let system = System::start_with(Database::Postgres(url), 1, Timing::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        create_application(&system, application("Ind", Kind::Individual)).await;
        map(&system, "user", new_mapping("Ind", "", "USR01", Some("pw"))).await.expect("mapped");
        let ask = async || look_up(&system, "user", "Ind", false).await;
        until("it serves", pair("USR01", "pw"), ask).await;
        proxy.cut();
        let cut = Instant::now();
        // What is asked for after the bound is asked of the database.
        tokio::time::sleep((FRESH + Duration::from_millis(500)).saturating_sub(cut.elapsed()))
            .await;
        for _ in 0..3 {
            assert_eq!(ask().await, Err(R::DatabaseUnavailable));
        }
        proxy.heal();
        until("it serves again", pair("USR01", "pw"), ask).await;
    });
}
