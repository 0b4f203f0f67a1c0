//! One-time tickets: promise 9, threat-model.md, cases 1 and 5.

use sso_proto::{Reason, v1};
use sso_tests::{everywhere::on_each_database_with, raw};

use crate::sign_on::{
    APPLICATION, Desk, PASSWORD, REDEEMED, application, ask, issue, reason, redeem, redeem_at,
    revealed, text,
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
                // The other server brings its records within a second.
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
                while desk.audited(REDEEMED).await <= round {
                    assert!(std::time::Instant::now() < deadline, "a redemption is not recorded");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                assert_eq!(desk.audited(REDEEMED).await, round + 1);
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
            assert_eq!(desk.audited(REDEEMED).await, 0);
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok(), "it is still good");
            assert_eq!(reason(redeem(&desk.host, &ticket, USER).await), Reason::TicketRedeemed);
            assert_eq!(
                (desk.count("redeemed_tickets").await, desk.audited(REDEEMED).await),
                (1, 1)
            );
        });
    });
}

/// A ticket in the wrong hands, used again, forged or for something else is a sign of an attack.
#[test]
fn refusals_that_look_like_an_attack_are_recorded_with_the_ticket() {
    on_each_database_with(1, |system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            desk.update(once(APPLICATION), &["one_time_tickets"]).await;
            let issued = issue(&desk.user, "").await.expect("a ticket");
            let (id, ticket) = (issued.id.clone(), text(issued));
            let spoofed = redeem(&desk.app_admin, &ticket, USER).await;
            assert_eq!(reason(spoofed), Reason::TicketSenderMismatch);
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok());
            let again = redeem(&desk.host, &ticket, USER).await;
            assert_eq!(reason(again), Reason::TicketRedeemed);
            let (wanted, last) = ticket.split_at(ticket.len() - 40);
            let forged = format!("{wanted}{}", "A".repeat(last.len()));
            assert_eq!(reason(redeem(&desk.host, &forged, USER).await), Reason::TicketNotAuthentic);
            let message =
                v1::ListAuditRequest { action: "ticket.redeem".into(), ..Default::default() };
            let list: v1::ListAuditResponse =
                ask(&desk.admin, "Audit/List", message).await.expect("records");
            let mut denied: Vec<_> = list
                .records
                .iter()
                .filter(|it| !it.reason.is_empty())
                .map(|it| (&*it.caller, &*it.reason, &*it.detail))
                .collect();
            denied.sort_unstable();
            let detail = format!("ticket {id} issued to DEV\\user");
            assert_eq!(
                denied,
                [
                    ("DEV\\app-admin", "TICKET_SENDER_MISMATCH", &*detail),
                    ("DEV\\host", "TICKET_NOT_AUTHENTIC", ""),
                    ("DEV\\host", "TICKET_REDEEMED", &*detail),
                ]
            );
        });
    });
}

/// Whoever asks for the ticket of somebody else is recorded as having asked for that.
#[test]
fn a_refused_forward_is_recorded_as_one() {
    on_each_database_with(1, |system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let user_token = Some(v1::UserToken { text: "not.a.token".into() });
            let message = v1::IssueTicketRequest { user_token, ..Default::default() };
            let answer: Result<v1::IssueTicketResponse, _> =
                ask(&desk.user, "Tickets/Issue", message).await;
            assert_eq!(reason(answer), Reason::NotTrustedHost);
            let message =
                v1::ListAuditRequest { action: "ticket.forward".into(), ..Default::default() };
            let list: v1::ListAuditResponse =
                ask(&desk.admin, "Audit/List", message).await.expect("records");
            let records: Vec<_> =
                list.records.iter().map(|it| (&*it.caller, &*it.reason)).collect();
            assert_eq!(records, [("DEV\\user", "NOT_TRUSTED_HOST")]);
        });
    });
}
