//! Tickets of other times, sealed with the keys of the system's own master. The bounds to the second
//! are tested with the rules.

use sso_proto::{Reason, v1};
use sso_server::model::{Account, Ticket};
use sso_tests::everywhere::on_each_database;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::sign_on::{
    APPLICATION, Desk, REDEEMED, application, ask, forged, master_keys, reason, redeem, revealed,
};

const USER: Option<&str> = Some("DEV\\user");

#[expect(clippy::disallowed_methods, reason = "the servers under test go by the real clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn issued(before: Duration, lasting: Duration) -> Ticket {
    let issued_at = now() - before;
    Ticket {
        id: Uuid::now_v7(),
        account: Account::parse("DEV\\user").expect("an account"),
        subject: None,
        by_logon: None,
        token_groups: None,
        server: "sso-server-9".into(),
        issued_at,
        expires_at: issued_at + lasting,
        audience: None,
        validation_required: false,
    }
}

/// Makes application and mapping as old as the system allows, so that no ticket is older.
async fn age(desk: &Desk<'_>) {
    sqlx::any::install_default_drivers();
    let url = sso_tests::raw::database_url(desk.system);
    let mut database =
        <sqlx::AnyConnection as sqlx::Connection>::connect(&url).await.expect("the database");
    for statement in [
        "UPDATE applications SET created_at = 0, updated_at = 0",
        "UPDATE mappings SET created_at = 0",
    ] {
        sqlx::query(statement).execute(&mut database).await.expect("aged");
    }
    // The server does not hear of what was done behind its back.
    let purge = v1::PurgeCacheRequest { name: APPLICATION.into() };
    let purged: Result<v1::PurgeCacheResponse, _> =
        ask(&desk.app_admin, "Applications/PurgeCache", purge).await;
    purged.expect("purged");
}

#[test]
fn tickets_end_by_the_timeout_of_the_application_or_else_of_the_system() {
    on_each_database(|system, runtime| {
        let keys = master_keys(system);
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            age(&desk).await;
            let (minutes, seconds) = (Duration::minutes, Duration::seconds);
            let fresh = forged(&keys, &issued(minutes(1), minutes(2)));
            let old = forged(&keys, &issued(minutes(3), minutes(2)));
            let ahead = forged(&keys, &issued(-minutes(1), minutes(2)));
            let a_little_ahead = forged(&keys, &issued(-seconds(3), minutes(2)));
            for good in [&fresh, &a_little_ahead] {
                assert_eq!(revealed(redeem(&desk.host, good, USER).await.unwrap()).0, "USR01");
            }
            let refused = redeem(&desk.host, &ahead, USER).await.expect_err("a refusal");
            assert_eq!(refused.reason, Reason::TicketNotYetValid);
            assert!(refused.message.contains("sso-server-9"), "{}", refused.message);
            assert_eq!(reason(redeem(&desk.host, &old, USER).await), Reason::TicketExpired);
            let look = v1::InspectTicketRequest { ticket: Some(v1::Ticket { text: old.clone() }) };
            let seen: v1::InspectTicketResponse =
                ask(&desk.user, "Tickets/Inspect", look).await.expect("seen");
            assert!(seen.expired);

            let mut longer = application(APPLICATION);
            longer.ticket_timeout = 10;
            desk.update(longer, &["ticket_timeout"]).await;
            assert!(redeem(&desk.host, &old, USER).await.is_ok());
            let older = forged(&keys, &issued(minutes(11), minutes(100)));
            assert_eq!(reason(redeem(&desk.host, &older, USER).await), Reason::TicketExpired);

            // Never: with a warning each time, and not longer than a year.
            assert!(!system.log_of_server(1).contains("10585"));
            let mut never = application(APPLICATION);
            never.timeout_tickets = Some(false);
            desk.update(never, &["timeout_tickets"]).await;
            assert!(redeem(&desk.host, &older, USER).await.is_ok());
            assert!(system.log_of_server(1).contains("10585"), "{}", system.log_of_server(1));
            let ancient = forged(&keys, &issued(Duration::days(366), Duration::days(4000)));
            assert_eq!(reason(redeem(&desk.host, &ancient, USER).await), Reason::TicketExpired);
            assert_eq!(desk.audited(REDEEMED).await, 4);
        });
    });
}

#[test]
fn no_change_of_the_application_makes_a_one_time_ticket_good_again() {
    on_each_database(|system, runtime| {
        let keys = master_keys(system);
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let mut once = application(APPLICATION);
            once.one_time_tickets = Some(true);
            desk.update(once, &["one_time_tickets"]).await;
            age(&desk).await;
            let day = Duration::days(2);
            let old = forged(&keys, &issued(day, Duration::minutes(2)));
            assert_eq!(reason(redeem(&desk.host, &old, USER).await), Reason::TicketExpired);
            // Its mark would have been forgotten by now; so a timeout that is set later does not count.
            let mut longer = application(APPLICATION);
            (longer.ticket_timeout, longer.timeout_tickets) = (525_600, Some(false));
            desk.update(longer, &["ticket_timeout", "timeout_tickets"]).await;
            assert_eq!(reason(redeem(&desk.host, &old, USER).await), Reason::TicketExpired);
            // For tickets issued since it does.
            age(&desk).await;
            assert!(redeem(&desk.host, &old, USER).await.is_ok());
            assert_eq!(reason(redeem(&desk.host, &old, USER).await), Reason::TicketRedeemed);
        });
    });
}
