//! Tickets from end to end: who gets one, who redeems it for what, and every way that fails.

mod time;
mod use_once;

use prost::Message as _;
use sso_proto::{Reason, v1};
use sso_tests::{
    everywhere::{on_each_database, on_each_database_with},
    raw,
    system::{Database, System, eventually},
};
use std::time::Duration;

use crate::sign_on::{
    APPLICATION, Audited, Desk, PASSWORD, REDEEMED, application, ask, issue, reason, redeem,
    redeem_at, revealed, text,
};

const USER: Option<&str> = Some("DEV\\user");

#[test]
fn a_trusted_host_redeems_the_ticket_of_a_user_for_its_credentials() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let issued = issue(&desk.user, "").await.expect("a ticket");
            assert_eq!(issued.account, "DEV\\user");
            let (issued_at, expires_at) = (issued.issued_at.unwrap(), issued.expires_at.unwrap());
            assert_eq!(expires_at.seconds - issued_at.seconds, 120);
            let id = issued.id.clone();
            let ticket = text(issued);
            assert!(ticket.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            // As often as one likes, where tickets are not redeemed once.
            for sender in [USER, Some("dev\\USER")] {
                let answer = redeem(&desk.host, &ticket, sender).await.expect("credentials");
                assert_eq!((&*answer.account, &*answer.ticket_id), ("DEV\\user", &*id));
                assert_eq!(revealed(answer), ("USR01".to_owned(), PASSWORD.to_owned()));
            }
            let (issue, redeem) =
                (audit(&desk, "ticket.issue").await, audit(&desk, "ticket.redeem").await);
            assert_eq!((issue.len(), redeem.len()), (1, 2));
            assert_eq!((&*issue[0].caller, &*issue[0].object), ("DEV\\user", "DEV\\user"));
            assert_eq!((&*redeem[0].caller, &*redeem[0].object), ("DEV\\host", "USR01"));
            assert_eq!(redeem[0].application, APPLICATION);
            for record in issue.iter().chain(&redeem) {
                assert!(record.detail.contains(&id), "{record:?}");
                assert!(!record.detail.contains("sso1."), "{record:?}");
            }
        });
    });
}

async fn audit(desk: &Desk<'_>, action: &str) -> Vec<v1::AuditRecord> {
    let message = v1::ListAuditRequest { action: action.into(), ..Default::default() };
    let list: v1::ListAuditResponse =
        ask(&desk.admin, "Audit/List", message).await.expect("records");
    list.records
}

/// ESSO.md 5.1: required where the system or the application or the ticket says so.
#[test]
fn validation_is_required_by_the_system_or_the_application_or_the_ticket() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            for case in 0..8_u8 {
                let (by_system, by_application, by_ticket) =
                    (case & 1 != 0, case & 2 != 0, case & 4 != 0);
                let validated =
                    |tickets_validated| v1::GlobalInfo { tickets_validated, ..Default::default() };
                // What the system asks for when the ticket is issued is what the ticket asks for.
                desk.set_global(validated(by_ticket), &["tickets_validated"]).await;
                let ticket = desk.ticket().await;
                desk.set_global(validated(by_system), &["tickets_validated"]).await;
                let mut wanted = application(APPLICATION);
                wanted.validate_tickets = Some(by_application);
                desk.update(wanted, &["validate_tickets"]).await;

                let without = redeem(&desk.host, &ticket, None).await;
                match (by_system, by_application, by_ticket) {
                    (true, _, _) => assert_eq!(
                        reason(without),
                        Reason::TicketValidationRequiredBySystem,
                        "{case}"
                    ),
                    (_, true, _) => assert_eq!(
                        reason(without),
                        Reason::TicketValidationRequiredByApplication,
                        "{case}"
                    ),
                    (_, _, true) => assert_eq!(
                        reason(without),
                        Reason::TicketValidationRequiredByTicket,
                        "{case}"
                    ),
                    (false, false, false) => assert_eq!(revealed(without.unwrap()).0, "USR01"),
                }
                // The form that validates serves always, and validates always.
                assert!(redeem(&desk.host, &ticket, USER).await.is_ok(), "{case}");
                let other = redeem(&desk.host, &ticket, Some("DEV\\app-admin")).await;
                assert_eq!(reason(other), Reason::TicketSenderMismatch, "{case}");
            }
        });
    });
}

/// ESSO.md 5.1: allowed where the system and the application say so.
#[test]
fn tickets_are_allowed_by_the_system_and_the_application() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let ticket = desk.ticket().await;
            for (by_system, by_application) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                let info = v1::GlobalInfo { tickets_allowed: by_system, ..Default::default() };
                desk.set_global(info, &["tickets_allowed"]).await;
                let mut wanted = application(APPLICATION);
                wanted.allow_tickets = Some(by_application);
                desk.update(wanted, &["allow_tickets"]).await;
                let issued = issue(&desk.user, "").await;
                let redeemed = redeem(&desk.host, &ticket, USER).await;
                match by_system {
                    true => assert!(issued.is_ok()),
                    false => assert_eq!(reason(issued), Reason::TicketsNotAllowed),
                }
                match (by_system, by_application) {
                    (true, true) => assert!(redeemed.is_ok()),
                    (true, false) => {
                        assert_eq!(reason(redeemed), Reason::TicketsNotAllowedByApplication);
                    }
                    (false, _) => assert_eq!(reason(redeemed), Reason::TicketsNotAllowedBySystem),
                }
            }
        });
    });
}

/// threat-model.md, case 38, ESSO.md 5.5.
#[test]
fn only_a_trusted_host_names_a_sender() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let ticket = desk.ticket().await;
            // Administers the application like the host, and is not trusted.
            let refused = redeem(&desk.app_admin, &ticket, USER).await.expect_err("a refusal");
            assert_eq!(refused.reason, Reason::TicketSenderMismatch);
            for part in ["DEV\\user", "DEV\\app-admin", "no trusted host", "--trusted-hosts"] {
                assert!(refused.message.contains(part), "{part}: {}", refused.message);
            }
            // Its own ticket is from itself, whomever it names.
            let own = text(issue(&desk.app_admin, "").await.expect("a ticket"));
            let own = redeem(&desk.app_admin, &own, USER).await;
            assert_eq!(reason(own), Reason::TicketUserNotInApplication);
            // A trusted host that names the wrong one is believed, and told of both.
            let refused =
                redeem(&desk.host, &ticket, Some("DEV\\other")).await.expect_err("a refusal");
            assert!(
                refused.message.contains("DEV\\user") && refused.message.contains("DEV\\other")
            );
            assert!(!refused.message.contains("no trusted host"), "{}", refused.message);
            // Trust ends as soon as it is withdrawn.
            desk.set_global(v1::GlobalInfo::default(), &["trusted_hosts"]).await;
            let refused = redeem(&desk.host, &ticket, USER).await;
            assert_eq!(reason(refused), Reason::TicketSenderMismatch);
            assert_eq!(desk.audited(REDEEMED).await, 0);
            let log = system.log_of_server(1);
            assert!(log.contains("10594") && !log.contains(&ticket), "{log}");
        });
    });
}

#[test]
fn an_audience_is_the_only_application_that_takes_the_ticket() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            desk.create(application("Other")).await;
            desk.map("Other", "DEV\\user", "OTHER01", Some(PASSWORD)).await;
            let ticket =
                text(issue(&desk.user, &APPLICATION.to_uppercase()).await.expect("a ticket"));
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok());
            let other = redeem_at(&desk.host, "Other", &ticket, USER).await;
            assert_eq!(reason(other), Reason::TicketAudienceWrong);
            let any = desk.ticket().await;
            assert!(redeem_at(&desk.host, "Other", &any, USER).await.is_ok());
            let mut strict = application("Other");
            strict.require_ticket_audience = Some(true);
            desk.update(strict, &["require_ticket_audience"]).await;
            let any = redeem_at(&desk.host, "Other", &any, USER).await;
            assert_eq!(reason(any), Reason::TicketAudienceWrong);
            // Who is no user of it is not told whether it exists.
            let told = |answer: Result<v1::IssueTicketResponse, sso_proto::Refusal>, name: &str| {
                let refused = answer.expect_err("a refusal");
                assert_eq!(refused.reason, Reason::NotApplicationUser);
                refused.message.replace(name, "NAME")
            };
            let there = told(issue(&desk.host, "Other").await, "Other");
            let nowhere = told(issue(&desk.host, "Nowhere").await, "Nowhere");
            assert_eq!(there, nowhere);
        });
    });
}

#[test]
fn what_is_looked_into_is_told_to_its_owner_and_affiliate_administrators() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let issued = issue(&desk.user, APPLICATION).await.expect("a ticket");
            let id = issued.id.clone();
            let ticket = text(issued);
            let look = |text: &str| v1::InspectTicketRequest {
                ticket: Some(v1::Ticket { text: text.into() }),
            };
            let affiliate = raw::channel(system, 1, "affiliate-admin");
            for channel in [&desk.user, &affiliate] {
                let seen: v1::InspectTicketResponse =
                    ask(channel, "Tickets/Inspect", look(&ticket)).await.expect("seen");
                assert_eq!((&*seen.id, &*seen.account), (&*id, "DEV\\user"));
                assert_eq!((&*seen.server, &*seen.application), ("sso-server-1", APPLICATION));
                assert!(seen.validation_required && !seen.expired);
                assert_eq!(seen.generation, 1);
            }
            for channel in [&desk.host, &desk.app_admin] {
                let seen =
                    ask::<v1::InspectTicketResponse>(channel, "Tickets/Inspect", look(&ticket));
                let refused = seen.await.expect_err("a refusal");
                assert_eq!(refused.reason, Reason::TicketOfAnother);
                assert!(!refused.message.contains("DEV\\user"), "{}", refused.message);
            }
            let seen = ask::<v1::InspectTicketResponse>(&desk.user, "Tickets/Inspect", look("x"));
            assert_eq!(reason(seen.await), Reason::TicketMalformed);
            let seen = ask::<v1::InspectTicketResponse>(
                &desk.user,
                "Tickets/Inspect",
                v1::InspectTicketRequest::default(),
            );
            assert_eq!(reason(seen.await), Reason::InvalidRequest);
            desk.delete(APPLICATION).await;
            let seen: v1::InspectTicketResponse =
                ask(&desk.user, "Tickets/Inspect", look(&ticket)).await.expect("seen");
            assert_eq!(seen.application, "(deleted)");
            assert_eq!(desk.audited(REDEEMED).await, 0);
        });
    });
}

/// threat-model.md, case 9.
#[test]
fn a_ticket_does_not_outlive_the_application_or_the_mapping_it_was_issued_for() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let (any, own) =
                (desk.ticket().await, text(issue(&desk.user, APPLICATION).await.unwrap()));
            let remove = v1::DeleteMappingRequest {
                key: Some(v1::MappingKey {
                    application: APPLICATION.into(),
                    side: Some(v1::mapping_key::Side::Account("DEV\\user".into())),
                }),
            };
            let _: v1::DeleteMappingResponse =
                ask(&desk.admin, "Mappings/Delete", remove).await.expect("deleted");
            assert_eq!(reason(redeem(&desk.host, &any, USER).await), Reason::MappingNotFound);
            desk.map(APPLICATION, "DEV\\user", "USR01", Some(PASSWORD)).await;
            for ticket in [&any, &own] {
                assert_eq!(reason(redeem(&desk.host, ticket, USER).await), Reason::TicketOutdated);
            }
            let fresh = desk.ticket().await;
            assert!(redeem(&desk.host, &fresh, USER).await.is_ok());
            desk.delete(APPLICATION).await;
            let gone = redeem(&desk.host, &fresh, USER).await;
            assert_eq!(reason(gone), Reason::NotApplicationAdministrator);
            desk.create(application(APPLICATION)).await;
            desk.map(APPLICATION, "DEV\\user", "USR01", Some(PASSWORD)).await;
            for ticket in [&any, &own, &fresh] {
                assert_eq!(reason(redeem(&desk.host, ticket, USER).await), Reason::TicketOutdated);
            }
            assert_eq!(desk.audited(REDEEMED).await, 1);
        });
    });
}

#[test]
fn another_server_redeems_and_another_system_does_not() {
    on_each_database_with(2, |system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let ticket = desk.ticket().await;
            let second = raw::channel(system, 2, "host");
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            loop {
                // The second server follows the settings within a moment.
                match redeem(&second, &ticket, USER).await {
                    Ok(answer) => break assert_eq!(revealed(answer).1, PASSWORD),
                    Err(refused) => assert!(std::time::Instant::now() < deadline, "{refused:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let other = System::start(Database::Sqlite);
            let elsewhere = Desk::open(&other).await;
            let refused = redeem(&elsewhere.host, &ticket, USER).await.expect_err("a refusal");
            assert_eq!(refused.reason, Reason::TicketNotAuthentic);
            assert!(refused.message.contains("sealed under generation 1 (fingerprint "));
            assert_eq!(elsewhere.audited(REDEEMED).await, 0);
        });
    });
}

#[test]
fn tickets_are_issued_and_redeemed_while_the_master_is_away() {
    on_each_database(|system, runtime| {
        runtime.block_on(async { Desk::open(system).await });
        system.kill_master();
        let writes_refused = || {
            let status = system.sso_json("admin", &["status"]);
            (status["master_secret"]["state"] == "read_only").then_some(())
        };
        eventually("the server notices", Duration::from_secs(30), writes_refused);
        runtime.block_on(async {
            let desk = Desk::bare(system);
            let ticket = desk.ticket().await;
            let answer = redeem(&desk.host, &ticket, USER).await.expect("credentials");
            assert_eq!(revealed(answer).1, PASSWORD);
        });
    });
}

#[test]
fn only_a_trusted_host_forwards_the_token_of_an_end_user() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let forward = |application: &str| v1::IssueTicketRequest {
                application: application.into(),
                user_token: Some(v1::UserToken { text: "canary.of.token".into() }),
            };
            for (channel, expected) in [
                (&desk.host, Reason::UserTokenRefused),
                (&desk.user, Reason::NotTrustedHost),
                (&desk.admin, Reason::NotTrustedHost),
            ] {
                let refused = ask::<v1::IssueTicketResponse>(channel, "Tickets/Issue", forward(""));
                let refused = refused.await.expect_err("a refusal");
                assert_eq!(refused.reason, expected);
                assert!(!refused.message.contains("canary"), "{}", refused.message);
            }
            assert_eq!(desk.audited(Audited::done("ticket.issue")).await, 0);
        });
    });
}

/// threat-model.md, cases 3, 17, 22, 27 over the wire; every bit is flipped in the tests of the
/// vault.
#[test]
fn only_the_one_text_of_a_ticket_is_taken() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let ticket = desk.ticket().await;
            let body = ticket.strip_prefix("sso1.").expect("the prefix");
            let standard = body.replace('-', "+").replace('_', "/");
            let mut other = vec![
                format!("{ticket}="),
                format!("{ticket}=="),
                format!("{ticket} "),
                format!(" {ticket}"),
                format!("{ticket}\n"),
                format!("SSO1.{body}"),
                body.to_owned(),
                format!("sso1.{}\n{}", &body[..40], &body[40..]),
                format!("{ticket}{ticket}"),
                format!("sso1.{}", "A".repeat(1 << 20)),
                String::new(),
            ];
            if standard != body {
                other.push(format!("sso1.{standard}"));
            }
            for other in &other {
                let refused = redeem(&desk.host, other, USER).await.expect_err("a refusal");
                assert_eq!(refused.reason, Reason::TicketMalformed, "{other:.80}");
                assert!(!refused.message.contains(&body[..20]), "{}", refused.message);
            }
            for at in (0..body.len()).step_by(5) {
                let cut = format!("sso1.{}", &body[..at]);
                let refused = reason(redeem(&desk.host, &cut, USER).await);
                let reasons = [Reason::TicketMalformed, Reason::TicketNotAuthentic];
                assert!(reasons.contains(&refused), "cut at {at}: {refused:?}");
            }
            assert_eq!(desk.audited(REDEEMED).await, 0);
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok());
            let missing =
                v1::RedeemTicketRequest { application: APPLICATION.into(), ..Default::default() };
            assert!(!missing.encode_to_vec().is_empty());
            let missing = ask::<v1::RedeemTicketResponse>(&desk.host, "Tickets/Redeem", missing);
            assert_eq!(reason(missing.await), Reason::InvalidRequest);
            for sender in ["", "*", "a\\b\\c"] {
                let refused = redeem(&desk.host, &ticket, Some(sender)).await;
                assert_eq!(reason(refused), Reason::InvalidAccount, "{sender}");
            }
        });
    });
}

/// The switch of a server asks whether the caller is on its machine, and those of the tests are.
#[test]
fn callers_on_the_same_machine_are_served_whatever_the_switch_says() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let desk = Desk::open(system).await;
            let message = v1::UpdateServerSettingsRequest {
                settings: Some(v1::ServerSettings::default()),
                update_mask: Some(prost_types::FieldMask { paths: vec!["remote_lookup".into()] }),
                ..Default::default()
            };
            let _: v1::UpdateServerSettingsResponse =
                ask(&desk.admin, "System/UpdateServerSettings", message).await.expect("changed");
            let ticket = desk.ticket().await;
            assert!(redeem(&desk.host, &ticket, USER).await.is_ok());
        });
    });
}
