//! One-time tickets: promise 9, SECURITY-CASES 1 and 5.

use sso_proto::{Reason, v1};
use sso_tests::{everywhere::on_each_database_with, raw};

use crate::sign_on::{
    APPLICATION, Desk, PASSWORD, REDEEMED, application, reason, redeem, redeem_at, revealed,
};

const USER: Option<&str> = Some("DEV\\user");
/// Redeems at the same time.
const AT_ONCE: usize = 64;

fn once(name: &str) -> v1::Application {
    v1::Application { one_time_tickets: Some(true), ..application(name) }
}

#[test]
fn of_many_redeems_of_a_one_time_ticket_at_once_exactly_one_succeeds() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            desk.update(once(APPLICATION), &["one_time_tickets"]).await;
            // Some connections to each server; the second one follows the settings within a moment.
            let channels: Vec<_> =
                (0..8).map(|number| raw::channel(system, number % 2 + 1, "host")).collect();
            let sample = desk.ticket().await;
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while redeem(&channels[1], &sample, USER).await.is_err() {
                assert!(std::time::Instant::now() < deadline, "the second server does not follow");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            for round in 1..=4 {
                let ticket = desk.ticket().await;
                let redeems = (0..AT_ONCE).map(|number| {
                    let (channel, ticket) =
                        (channels[number % channels.len()].clone(), ticket.clone());
                    tokio::spawn(async move { redeem(&channel, &ticket, USER).await })
                });
                let redeems: Vec<_> = redeems.collect();
                let mut done = 0;
                for answer in redeems {
                    match answer.await.expect("no panic") {
                        Ok(answer) => {
                            assert_eq!(revealed(answer).1, PASSWORD);
                            done += 1;
                        }
                        Err(refused) => {
                            assert_eq!(refused.reason, Reason::TicketRedeemed, "{refused:?}");
                            assert!(refused.message.contains("redeemed before"));
                        }
                    }
                }
                assert_eq!(done, 1, "round {round}");
                assert_eq!(desk.count("redeemed_tickets").await, round + 1);
                assert_eq!(desk.count(REDEEMED).await, round + 1);
            }
        });
    });
}

#[test]
fn a_refused_redeem_uses_nothing_up_and_records_no_reveal() {
    on_each_database_with(1, |system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            desk.update(once(APPLICATION), &["one_time_tickets"]).await;
            desk.create(once("Other")).await;
            let ticket = desk.ticket().await;
            let refused = [
                (redeem(&desk.host, &ticket, None).await, Reason::TicketValidationRequiredBySystem),
                (redeem(&desk.host, &ticket, Some("DEV\\x")).await, Reason::TicketSenderMismatch),
                (redeem(&desk.app_admin, &ticket, USER).await, Reason::TicketSenderMismatch),
                (redeem(&desk.user, &ticket, USER).await, Reason::NotApplicationAdministrator),
                (redeem_at(&desk.host, "Other", &ticket, USER).await, Reason::MappingNotFound),
            ];
            for (answer, expected) in refused {
                assert_eq!(reason(answer), expected);
            }
            // No credentials yet, then a mapping that is switched off.
            desk.map("Other", "DEV\\user", "OTHER01", None).await;
            let unset = redeem_at(&desk.host, "Other", &ticket, USER).await;
            // The mapping is younger than the ticket, and has nothing to reveal before that is told.
            assert_eq!(reason(unset), Reason::CredentialsNotSet);
            assert_eq!(desk.count("redeemed_tickets").await, 0);
            assert_eq!(desk.count(REDEEMED).await, 0);
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok(), "it is still good");
            assert_eq!(reason(redeem(&desk.host, &ticket, USER).await), Reason::TicketRedeemed);
            assert_eq!((desk.count("redeemed_tickets").await, desk.count(REDEEMED).await), (1, 1));
        });
    });
}
