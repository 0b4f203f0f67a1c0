use sso_core::secret::SecretText;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

async fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("gateway.db")).await.unwrap();
    let kept = Kept::of(&SecretText::new("secret-1".into())).unwrap();
    for name in ["north", "south"] {
        let merchant = Merchant {
            name: name.into(),
            client: format!("{name}.example"),
            scheme: Scheme::Basic,
            notify_url: format!("https://{name}.example/paid"),
        };
        ledger.put_merchant(&merchant, &kept).await.unwrap();
    }
    (folder, ledger)
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

fn valid() -> OffsetDateTime {
    NOW + Duration::days(14)
}

async fn upload(ledger: &Ledger, merchant: &str, key: BillKey, number: &str) -> Uploaded {
    ledger.upload(merchant, key, &bill(number), valid()).await.unwrap()
}

fn number(uploaded: Uploaded) -> PaymentNumber {
    match uploaded {
        Uploaded::New(receipt) | Uploaded::Known(receipt) => receipt.payment_number,
        Uploaded::KeyReused => panic!("the key was used for another bill"),
    }
}

async fn pay(ledger: &Ledger, number: &PaymentNumber, now: OffsetDateTime) -> Paid {
    ledger.pay(number, now, |told, id| Ok(format!("{} {id}", told.key))).await.unwrap()
}

#[tokio::test]
async fn the_same_key_brings_the_same_number() {
    let (_folder, ledger) = ledger().await;
    let (key, other) = (BillKey::generate(), BillKey::generate());
    let Uploaded::New(first) = upload(&ledger, "north", key, "1").await else { panic!("not new") };
    assert_eq!(first.valid_until, text(valid()));
    assert_eq!(upload(&ledger, "north", key, "1").await, Uploaded::Known(first.clone()));
    let late = ledger.upload("north", key, &bill("1"), valid() + Duration::DAY).await.unwrap();
    assert_eq!(late, Uploaded::Known(first.clone()), "the first one stands");
    assert_eq!(upload(&ledger, "north", key, "2").await, Uploaded::KeyReused);
    assert_ne!(number(upload(&ledger, "north", other, "2").await), first.payment_number);
    let elsewhere = number(upload(&ledger, "south", key, "1").await);
    assert_ne!(elsewhere, first.payment_number, "keys are those of a merchant");
}

#[tokio::test]
async fn uploads_at_once_get_one_number() {
    let (_folder, ledger) = ledger().await;
    let key = BillKey::generate();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move { number(upload(&ledger, "north", key, "1").await) })
        })
        .collect();
    let mut numbers = std::collections::BTreeSet::new();
    for task in tasks {
        numbers.insert(task.await.unwrap());
    }
    assert_eq!(numbers.len(), 1);
}

#[tokio::test]
async fn a_bill_is_paid_once_and_told_until_it_is_acknowledged() {
    let (_folder, ledger) = ledger().await;
    let key = BillKey::generate();
    let number = number(upload(&ledger, "north", key, "1").await);
    let Paid::Now(told) = pay(&ledger, &number, NOW).await else { panic!("not paid") };
    assert_eq!((told.key, told.merchant.as_str()), (key, "north"));
    assert_eq!(pay(&ledger, &number, NOW).await, Paid::Before);

    let due = ledger.due(NOW, 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].notify_url, "https://north.example/paid");
    assert!(due[0].content.starts_with(&key.to_string()));
    let pause = std::time::Duration::from_secs(5);
    ledger.postpone(&due[0], NOW, pause, "no answer").await.unwrap();
    assert_eq!(ledger.problems().await.unwrap(), ["no answer"]);
    assert!(ledger.due(NOW + Duration::seconds(4), 10).await.unwrap().is_empty());
    let again = ledger.due(NOW + Duration::seconds(5), 10).await.unwrap();
    assert_eq!((again[0].attempts, &again[0].content), (1, &due[0].content));

    ledger.acknowledged(due[0].id, NOW).await.unwrap();
    assert!(ledger.due(valid(), 10).await.unwrap().is_empty());
    assert_eq!(ledger.problems().await.unwrap(), Vec::<String>::new());
    let counts = ledger.counts().await.unwrap();
    assert_eq!((counts.bills, counts.paid, counts.unacknowledged), (1, 1, 0));

    assert!(ledger.repeat(&number, NOW).await.unwrap());
    assert_eq!(ledger.due(NOW, 10).await.unwrap()[0].id, due[0].id);
}

#[tokio::test]
async fn numbers_that_are_unknown_or_too_old_are_not_paid() {
    let (_folder, ledger) = ledger().await;
    let unknown = PaymentNumber::generate().unwrap();
    assert_eq!(pay(&ledger, &unknown, NOW).await, Paid::UnknownNumber);
    assert!(!ledger.repeat(&unknown, NOW).await.unwrap());
    let number = number(upload(&ledger, "north", BillKey::generate(), "1").await);
    let late = valid() + Duration::SECOND;
    assert_eq!(pay(&ledger, &number, late).await, Paid::Expired(valid()));
    assert!(matches!(pay(&ledger, &number, valid()).await, Paid::Now(_)));
}

#[tokio::test]
async fn a_notification_that_cannot_be_signed_pays_nothing() {
    let (_folder, ledger) = ledger().await;
    let number = number(upload(&ledger, "north", BillKey::generate(), "1").await);
    let failed = ledger.pay(&number, NOW, |_, _| Err(damaged("no key"))).await;
    assert!(failed.is_err());
    assert_eq!(ledger.counts().await.unwrap().paid, 0);
    assert!(ledger.due(valid(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn merchants_are_found_by_the_system_that_speaks_for_them() {
    let (_folder, ledger) = ledger().await;
    let found = ledger.merchants(&["north.example".into(), "x".into()]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0.name, "north");
    assert!(ledger.merchants(&[]).await.unwrap().is_empty());
}
