//! One system, and what bills meet with on their way.

use reqwest::StatusCode;
use serde_json::Value;

use crate::stage::{APPLICATION, MERCHANT, PASSWORD, Program, Stage, account, log_says};

/// Waits until the bill is in this state; what the host then says of it.
async fn arrived(stage: &Stage, number: &str, state: &str) -> Value {
    let portal = stage.portal();
    stage
        .until(&format!("{number} is {state}"), async || {
            let standing = portal.look(number).await?;
            (standing["state"] == state).then_some(standing)
        })
        .await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Waits until something stands in the way of the bill that has these words.
async fn held_up(stage: &Stage, number: &str, words: &str) {
    let portal = stage.portal();
    stage
        .until(&format!("{number} waits for {words}"), async || {
            let standing = portal.look(number).await?;
            text(&standing["problem"]).contains(words).then_some(())
        })
        .await;
}

async fn accepted(stage: &Stage, number: &str) {
    let (status, answer) = stage.portal().hand_in(number).await.expect("an answer");
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_bill_to_its_payment() {
    let stage = Stage::start().await;
    let (portal, bank) = (stage.portal(), stage.bank());
    accepted(&stage, "POL-1").await;
    let uploaded = arrived(&stage, "POL-1", "uploaded").await;
    let number = text(&uploaded["payment_number"]).to_owned();
    let (status, again) = portal.hand_in("POL-1").await.expect("an answer");
    assert_eq!((status, &again), (StatusCode::OK, &uploaded), "handed in again, nothing happens");

    let (status, answer) = bank.pay(&number).await.expect("an answer");
    assert_eq!((status, text(&answer["paid"])), (StatusCode::CREATED, "now"));
    arrived(&stage, "POL-1", "paid").await;
    let (status, answer) = bank.pay(&number).await.expect("an answer");
    assert_eq!((status, text(&answer["paid"])), (StatusCode::OK, "before"));
    for _ in 0..3 {
        let before = stage.log(Program::Host).matches("a notification came again").count();
        bank.repeat(&number).await.expect("an answer");
        stage
            .until("the notification came again", async || {
                let seen = stage.log(Program::Host).matches("a notification came again").count();
                (seen > before).then_some(())
            })
            .await;
    }
    assert_eq!(stage.log(Program::Host).matches("a bill is paid").count(), 1);

    // What was written down says nothing that it should not.
    for program in [Program::Gateway, Program::Host] {
        let log = stage.log(program);
        assert!(!log.contains(PASSWORD) && !log.contains(&portal.token), "{program:?}");
    }
    let host = std::fs::read(stage.file("host.db")).expect("the outbox");
    assert!(!String::from_utf8_lossy(&host).contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_why() {
    let stage = Stage::start().await;
    let portal = stage.portal();
    let error = |answer: &(StatusCode, Value)| (answer.0, text(&answer.1["error"]).to_owned());
    let is = |status: StatusCode, word: &str| (status, word.to_owned());

    let none = portal.hand_in_with("POL-1", &[]).await;
    assert_eq!(error(&none), is(StatusCode::UNAUTHORIZED, "SIGN_ON_MISSING"));
    let half = portal.hand_in_with("POL-1", &[("SSOTicket", "abc")]).await;
    assert_eq!(error(&half), is(StatusCode::UNAUTHORIZED, "SIGN_ON_MISSING"));
    let forged = portal.hand_in_with("POL-1", &[("authorization", "Bearer a.b.c")]).await;
    assert_eq!(error(&forged), is(StatusCode::UNAUTHORIZED, "USER_TOKEN_REFUSED"));
    let foreign = format!("Bearer {}", stage.token("carl"));
    let foreign = portal.hand_in_with("POL-1", &[("authorization", &foreign)]).await;
    assert_eq!(error(&foreign), is(StatusCode::FORBIDDEN, "NOT_APPLICATION_USER"));
    assert_eq!(portal.look("POL-1").await, None, "nothing was accepted");

    let notified = stage.notify("portal", "x").await;
    assert_eq!(error(&notified), is(StatusCode::FORBIDDEN, "PARTY_NOT_ALLOWED"));
    let notified = stage.notify("nobody", "x").await;
    assert_eq!(error(&notified), is(StatusCode::FORBIDDEN, "PARTY_UNKNOWN"));
    let notified = stage.notify("gateway", "x.y.z").await;
    assert_eq!(error(&notified), is(StatusCode::FORBIDDEN, "NOTIFICATION_REFUSED"));
}

/// The second way to say for whom a bill is: a ticket that the user had issued.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_the_user_will_do() {
    let stage = Stage::start().await;
    let portal = stage.portal();
    let ticket = stage.ticket("ann");
    let ticket = ticket.as_str();

    let ann = account("ann");
    let right = [("SSOTicket", ticket), ("OriginatorSID", ann.as_str())];
    let (status, answer) = portal.hand_in_with("POL-1", &right).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    arrived(&stage, "POL-1", "uploaded").await;

    // A ticket of somebody else is found out when it is redeemed.
    let bob = account("bob");
    let wrong = [("SSOTicket", ticket), ("OriginatorSID", bob.as_str())];
    let (status, answer) = portal.hand_in_with("POL-2", &wrong).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    held_up(&stage, "POL-2", "TICKET_SENDER_MISMATCH").await;

    // Nor does it set a bill going that stands still.
    stage.unmap("ann");
    let (status, answer) = portal.hand_in_with("POL-3", &right).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    held_up(&stage, "POL-3", "MAPPING_NOT_FOUND").await;
    stage.map("ann", PASSWORD);
    arrived(&stage, "POL-3", "needs sign-on").await;
    let foreign = stage.ticket("bob");
    let stolen = [("SSOTicket", foreign.as_str()), ("OriginatorSID", ann.as_str())];
    let (status, answer) = portal.hand_in_with("POL-3", &stolen).await;
    assert_eq!((status, text(&answer["error"])), (StatusCode::FORBIDDEN, "SIGN_ON_INVALID"));
    let own = stage.ticket("ann");
    let own = [("SSOTicket", own.as_str()), ("OriginatorSID", ann.as_str())];
    let (status, answer) = portal.hand_in_with("POL-3", &own).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    arrived(&stage, "POL-3", "uploaded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bill_waits_for_what_is_repaired() {
    let mut stage = Stage::start().await;

    // The gateway is away.
    stage.kill(Program::Gateway);
    accepted(&stage, "POL-1").await;
    stage
        .until("an attempt was made", async || {
            let standing = stage.portal().look("POL-1").await?;
            standing["attempts"].as_u64().filter(|attempts| *attempts > 0)
        })
        .await;
    stage.begin(Program::Gateway);
    arrived(&stage, "POL-1", "uploaded").await;

    // The password is another one at the gateway.
    stage.set_merchant("basic", "new-password");
    accepted(&stage, "POL-2").await;
    held_up(&stage, "POL-2", "401").await;
    stage.set_merchant("basic", PASSWORD);
    arrived(&stage, "POL-2", "uploaded").await;

    // So is the scheme: the agreement is followed.
    stage.set_merchant("bearer", PASSWORD);
    accepted(&stage, "POL-3").await;
    held_up(&stage, "POL-3", "401").await;
    stage.change_agreement("Authentication", "bearer");
    arrived(&stage, "POL-3", "uploaded").await;

    // The address is wrong: the send port is followed, and what makes no sense is kept out.
    let address = stage.gateway_address();
    stage.change_upload("Address", "https://127.0.0.1:1");
    log_says(&stage, Program::Host, "the send port has changed");
    accepted(&stage, "POL-4").await;
    held_up(&stage, "POL-4", "127.0.0.1:1").await;
    stage.change_upload("Address", "http://plain.example");
    stage
        .until("the warning", async || {
            let page = stage.page(Program::Host, "readyz").await?;
            page["warnings"].to_string().contains("Address").then_some(())
        })
        .await;
    stage.change_upload("Address", &address);
    arrived(&stage, "POL-4", "uploaded").await;

    // The user has no mapping.
    stage.unmap("ann");
    accepted(&stage, "POL-5").await;
    held_up(&stage, "POL-5", "MAPPING_NOT_FOUND").await;
    stage.stop(Program::Host);
    stage.begin(Program::Host);
    stage.ready(Program::Host).await;

    // A new mapping is nothing that the ticket was issued for: the user signs on again.
    stage.map("ann", PASSWORD);
    let standing = arrived(&stage, "POL-5", "needs sign-on").await;
    assert!(text(&standing["problem"]).contains("TICKET_OUTDATED"), "{standing}");
    let bob = format!("Bearer {}", stage.token("bob"));
    let other = stage.portal().hand_in_with("POL-5", &[("authorization", &bob)]).await;
    assert_eq!(text(&other.1["error"]), "ORIGINATOR_DIFFERS");
    accepted(&stage, "POL-5").await;
    arrived(&stage, "POL-5", "uploaded").await;
    stage.stop(Program::Gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_may_be_away_for_a_while() {
    let mut stage = Stage::start().await;
    stage.system.kill_server(1);
    let (status, answer) = stage.portal().hand_in("POL-1").await.expect("an answer");
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "no ticket, no bill: {answer}");
    // A host that starts meanwhile waits, and says for what.
    stage.stop(Program::Host);
    stage.begin(Program::Host);
    stage
        .until("the reason", async || {
            let page = stage.page(Program::Host, "readyz").await?;
            page["reasons"].to_string().contains("cannot be read").then_some(())
        })
        .await;
    stage.system.start_server(1);
    stage.ready(Program::Host).await;
    stage
        .until("it is accepted", async || {
            let (status, _) = stage.portal().hand_in("POL-1").await.ok()?;
            status.is_success().then_some(())
        })
        .await;
    arrived(&stage, "POL-1", "uploaded").await;

    let records = stage.system.sso_ok("admin", &["audit", "list", "--application", APPLICATION]);
    assert!(records.contains("ticket.redeem") && !records.contains(PASSWORD), "{records}");
    assert!(stage.log(Program::Gateway).contains(MERCHANT));
}
