use sso_client::integration::SignOn;
use sso_core::secret::SecretText;
use time::{Duration, macros::datetime};
use uuid::Uuid;

use super::*;
use crate::bill::PaymentNumber;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);
const TICKET: &str = "ticket.canary-77f0";

async fn outbox() -> (tempfile::TempDir, Outbox) {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("host.db")).await.unwrap();
    (folder, outbox)
}

fn bill(number: &str) -> Bill {
    Bill {
        number: number.into(),
        amount_minor: 12_990,
        currency: "EUR".into(),
        payer: "Ann".into(),
        purpose: String::new(),
    }
}

fn context() -> MessageContext {
    let mut context = MessageContext::new();
    let ticket = SecretText::new(TICKET.into());
    context.set_sign_on(Some(SignOn::new(ticket, r"WEB\ann").unwrap()));
    context
}

async fn accept(outbox: &Outbox, number: &str) -> BillKey {
    outbox.accept("portal", &bill(number), &context(), NOW).await.unwrap().status.key
}

fn answer() -> Receipt {
    Receipt {
        payment_number: PaymentNumber::generate().unwrap(),
        valid_until: "2030-01-16T03:04:05Z".into(),
    }
}

fn notification(key: BillKey, number: &PaymentNumber) -> Notification {
    Notification {
        iss: "gateway.example".into(),
        aud: "agency-north".into(),
        id: Uuid::new_v4(),
        iat: 0,
        bill: key,
        payment_number: number.clone(),
        amount_minor: 12_990,
        currency: "EUR".into(),
        paid_at: text(NOW),
    }
}

async fn status(outbox: &Outbox, number: &str) -> BillStatus {
    outbox.find("portal", number).await.unwrap().unwrap().status
}

async fn bookings(outbox: &Outbox) -> i64 {
    let statement = "SELECT COUNT(*) FROM booking";
    sqlx::query_scalar(statement).fetch_one(outbox.store.readers()).await.unwrap()
}

#[tokio::test]
async fn a_bill_keeps_its_key_however_often_it_is_handed_in() {
    let (folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    assert_eq!(accept(&outbox, "1").await, key);
    assert_ne!(accept(&outbox, "2").await, key);
    let elsewhere = outbox.accept("second", &bill("1"), &context(), NOW).await.unwrap();
    assert_ne!(elsewhere.status.key, key, "numbers are those of a party");
    outbox.close().await;

    let outbox = Outbox::open(&folder.path().join("host.db")).await.unwrap();
    let known = outbox.find("portal", "1").await.unwrap().unwrap();
    assert_eq!((known.status.key, known.status.state), (key, State::Waiting));
    assert_eq!((known.bill, known.originator.as_str()), (bill("1"), r"WEB\ann"));
    assert_eq!(outbox.find("third", "1").await.unwrap(), None);
}

#[tokio::test]
async fn the_ticket_stays_until_the_gateway_has_the_bill() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    for attempt in 0..3 {
        let due = outbox.due(NOW + Duration::minutes(attempt), 10).await.unwrap();
        assert_eq!((due[0].key, due[0].attempts), (key, u32::try_from(attempt).unwrap()));
        assert_eq!(due[0].context, Ok(context()));
        assert_eq!(due[0].bill, bill("1"));
        let later = NOW + Duration::minutes(attempt + 1);
        outbox.postpone(key, later, "no answer").await.unwrap();
        assert!(outbox.due(later - Duration::SECOND, 10).await.unwrap().is_empty());
    }
    assert_eq!(outbox.problems().await.unwrap(), ["waiting, 1 bills: no answer"]);
    outbox.hurry(NOW).await.unwrap();
    assert_eq!(outbox.due(NOW, 10).await.unwrap().len(), 1);

    let answer = answer();
    assert!(outbox.uploaded(key, "agency-north", &answer).await.unwrap());
    assert!(outbox.uploaded(key, "agency-north", &answer).await.unwrap(), "again is the same");
    assert!(outbox.due(NOW + Duration::DAY, 10).await.unwrap().is_empty());
    let kept: Option<String> = sqlx::query_scalar("SELECT context FROM bill")
        .fetch_one(outbox.store.readers())
        .await
        .unwrap();
    assert_eq!(kept, None, "the ticket is wiped");
    let known = status(&outbox, "1").await;
    assert_eq!(known.payment_number.as_deref(), Some(answer.payment_number.as_str()));
    assert!(known.problem.is_empty());
}

#[tokio::test]
async fn another_number_for_an_uploaded_bill_is_not_taken() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    let first = answer();
    assert!(outbox.uploaded(key, "agency-north", &first).await.unwrap());
    assert!(!outbox.uploaded(key, "agency-north", &answer()).await.unwrap());
    let known = status(&outbox, "1").await;
    assert_eq!(known.payment_number.as_deref(), Some(first.payment_number.as_str()));
}

#[tokio::test]
async fn a_number_stands_for_one_bill() {
    let (_folder, outbox) = outbox().await;
    let (first, second) = (accept(&outbox, "1").await, accept(&outbox, "2").await);
    let answer = answer();
    assert!(outbox.uploaded(first, "agency-north", &answer).await.unwrap());
    assert!(!outbox.uploaded(second, "agency-north", &answer).await.unwrap());
    let noted = outbox.paid("gateway", &notification(second, &answer.payment_number), NOW).await;
    assert!(matches!(noted.unwrap(), Noted::Contradiction(_)));
    assert_eq!(status(&outbox, "2").await.state, State::Waiting);
    assert_eq!(bookings(&outbox).await, 0);
}

#[tokio::test]
async fn a_bill_without_sign_on_stands_still_until_it_is_handed_in_again() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    assert!(!outbox.resume(key, &context(), NOW).await.unwrap(), "it is on its way");
    for state in [State::NeedsSignOn, State::GivenUp] {
        outbox.set_aside(key, state, "why").await.unwrap();
        assert!(outbox.due(NOW + Duration::DAY, 10).await.unwrap().is_empty());
        let known = status(&outbox, "1").await;
        assert_eq!((known.state, known.problem.as_str()), (state, "why"));
        assert!(known.state.resumes());
        assert!(outbox.resume(key, &context(), NOW).await.unwrap());
        let due = outbox.due(NOW, 10).await.unwrap();
        assert_eq!((due[0].key, due[0].attempts), (key, 0));
    }
    outbox.set_aside(key, State::Rejected, "no").await.unwrap();
    assert!(!outbox.resume(key, &context(), NOW).await.unwrap());
}

#[tokio::test]
async fn a_bill_is_paid_once_by_however_many_notifications() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    let answer = answer();
    outbox.uploaded(key, "agency-north", &answer).await.unwrap();
    let told = notification(key, &answer.payment_number);
    assert_eq!(outbox.paid("gateway", &told, NOW).await.unwrap(), Noted::Now);
    for _ in 0..3 {
        assert_eq!(outbox.paid("gateway", &told, NOW).await.unwrap(), Noted::Before);
    }
    let other_id = notification(key, &answer.payment_number);
    assert_eq!(outbox.paid("gateway", &other_id, NOW).await.unwrap(), Noted::Before);
    assert_eq!(bookings(&outbox).await, 1);
    assert_eq!(status(&outbox, "1").await.state, State::Paid);
    let counts = outbox.counts().await.unwrap();
    assert!(counts.contains(&("paid", 1)) && counts.contains(&("waiting", 0)));
}

#[tokio::test]
async fn notifications_at_once_book_once() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    let told = notification(key, &answer().payment_number);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (outbox, told) = (outbox.clone(), told.clone());
            tokio::spawn(async move { outbox.paid("gateway", &told, NOW).await.unwrap() })
        })
        .collect();
    let mut now = 0;
    for task in tasks {
        now += usize::from(task.await.unwrap() == Noted::Now);
    }
    assert_eq!((now, bookings(&outbox).await), (1, 1));
}

/// The gateway took the bill, its answer was lost, and the customer was quicker than the repetition.
#[tokio::test]
async fn a_notification_may_be_quicker_than_the_answer() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    let answer = answer();
    let told = notification(key, &answer.payment_number);
    assert_eq!(outbox.paid("gateway", &told, NOW).await.unwrap(), Noted::Now);
    assert!(outbox.due(NOW + Duration::DAY, 10).await.unwrap().is_empty(), "nothing to send");
    assert!(outbox.uploaded(key, "agency-north", &answer).await.unwrap());
    let known = status(&outbox, "1").await;
    assert_eq!(known.state, State::Paid);
    outbox.postpone(key, NOW, "late").await.unwrap();
    outbox.set_aside(key, State::Rejected, "late").await.unwrap();
    assert_eq!(status(&outbox, "1").await, known, "paid stays paid");
}

#[tokio::test]
async fn what_contradicts_the_bill_changes_nothing() {
    let (_folder, outbox) = outbox().await;
    let key = accept(&outbox, "1").await;
    let answer = answer();
    outbox.uploaded(key, "agency-north", &answer).await.unwrap();
    let good = notification(key, &answer.payment_number);
    let unknown = Notification { bill: BillKey::generate(), ..good.clone() };
    assert_eq!(outbox.paid("gateway", &unknown, NOW).await.unwrap(), Noted::UnknownBill);
    for wrong in [
        Notification { amount_minor: 1, ..good.clone() },
        Notification { currency: "USD".into(), ..good.clone() },
        Notification { aud: "agency-south".into(), ..good.clone() },
        notification(key, &PaymentNumber::generate().unwrap()),
    ] {
        let noted = outbox.paid("gateway", &wrong, NOW).await.unwrap();
        assert!(matches!(noted, Noted::Contradiction(_)), "{wrong:?}: {noted:?}");
    }
    assert_eq!(bookings(&outbox).await, 0);
    assert_eq!(status(&outbox, "1").await.state, State::Uploaded);
    assert_eq!(outbox.paid("gateway", &good, NOW).await.unwrap(), Noted::Now);
}

#[tokio::test]
async fn nothing_shows_the_ticket() {
    let (_folder, outbox) = outbox().await;
    accept(&outbox, "1").await;
    let due = outbox.due(NOW, 1).await.unwrap();
    let known = outbox.find("portal", "1").await.unwrap();
    assert!(!format!("{due:?} {known:?} {outbox:?}").contains(TICKET));
}
