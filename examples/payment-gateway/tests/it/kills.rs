//! Both programs are killed (`kill -9`) at random moments under load. Afterwards every accepted bill has
//! one payment number and is paid once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::TryRng as _;
use reqwest::StatusCode;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    peers::{Bank, Portal},
    stage::{Program, Stage},
};

/// How often something is killed at least, and how many bills there are at least.
const KILLS: usize = 20;
const BILLS: usize = 60;
/// How many portals hand in bills at once.
const PORTALS: usize = 3;
const AGAIN: Duration = Duration::from_millis(20);

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("random bytes");
    u64::from_le_bytes(bytes) % below
}

/// What the portals were told.
#[derive(Clone, Default)]
struct Told {
    accepted: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
}

impl Told {
    fn add(&self, number: String) {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    fn all(&self) -> BTreeSet<String> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Hands in bills, each until it is accepted, as a portal does that never gives up.
async fn hand_in(portal: Portal, who: usize, told: Told) {
    for count in 0.. {
        if told.is_over() {
            return;
        }
        let number = format!("B-{who}-{count}");
        loop {
            match portal.hand_in(&number).await {
                Ok((status, _)) if status.is_success() => break,
                Ok((status, answer)) => {
                    assert!(status.is_server_error(), "{number}: {status} {answer}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        told.add(number);
        tokio::time::sleep(Duration::from_millis(random(30))).await;
    }
}

/// Pays whatever has a payment number, some of it twice, and has some notifications repeated, until
/// everything that was accepted is paid.
async fn pay(portal: Portal, bank: Bank, told: Told) {
    let mut paid = BTreeSet::new();
    loop {
        let over = told.is_over();
        let open: Vec<_> = told.all().into_iter().filter(|number| !paid.contains(number)).collect();
        if over && open.is_empty() {
            return;
        }
        for number in open {
            let Some(standing) = portal.look(&number).await else { continue };
            if standing["state"] == "paid" {
                paid.insert(number);
                continue;
            }
            assert!(
                standing["state"] == "waiting" || standing["state"] == "uploaded",
                "{standing}"
            );
            let Some(payment_number) = standing["payment_number"].as_str() else { continue };
            for _ in 0..=random(2) {
                if let Ok((status, answer)) = bank.pay(payment_number).await {
                    let fine =
                        [StatusCode::CREATED, StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
                    assert!(fine.contains(&status), "{payment_number}: {status} {answer}");
                }
            }
            if random(3) == 0 {
                // Whether it is there to be repeated does not matter.
                let _ = bank.repeat(payment_number).await;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bill_is_lost_or_doubled_whenever_either_is_killed() {
    let mut stage = Stage::start().await;
    let told = Told::default();
    let posters: Vec<_> =
        (0..PORTALS).map(|who| tokio::spawn(hand_in(stage.portal(), who, told.clone()))).collect();
    let payer = tokio::spawn(pay(stage.portal(), stage.bank(), told.clone()));

    let mut kills = 0;
    while kills < KILLS || told.all().len() < BILLS {
        // Some kills come in the middle of the start before.
        tokio::time::sleep(Duration::from_millis(random(600))).await;
        let victims: &[Program] = match random(5) {
            0 | 1 => &[Program::Host],
            2 | 3 => &[Program::Gateway],
            _ => &[Program::Gateway, Program::Host],
        };
        for victim in victims {
            stage.kill(*victim);
        }
        tokio::time::sleep(Duration::from_millis(random(200))).await;
        for victim in victims {
            stage.begin(*victim);
        }
        kills += 1;
        if kills % 3 == 0 {
            // Now and then everything is up, so that bills get to their end between kills too.
            stage.ready(Program::Gateway).await;
            stage.ready(Program::Host).await;
        }
    }

    told.over.store(true, Ordering::Relaxed);
    for poster in posters {
        poster.await.expect("every bill is accepted in the end");
    }
    stage.until("everything is paid", async || payer.is_finished().then_some(())).await;
    payer.await.expect("every bill is paid in the end");
    stage
        .until("everything is acknowledged", async || {
            let counts = stage.page(Program::Gateway, "counts.json").await?;
            (counts["unacknowledged"] == 0).then_some(())
        })
        .await;
    stage.stop(Program::Host);
    stage.stop(Program::Gateway);

    let accepted = told.all();
    println!("{} bills, {kills} kills", accepted.len());
    audit(&stage, &accepted).await;
}

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options).await.expect("the database")
}

/// Key to text of every row.
async fn pairs(database: &mut SqliteConnection, statement: &'static str) -> Vec<(String, String)> {
    let rows = sqlx::query(statement).fetch_all(database).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn audit(stage: &Stage, accepted: &BTreeSet<String>) {
    let mut host = open(&stage.file("host.db")).await;
    let mut gateway = open(&stage.file("gateway.db")).await;

    let bills = pairs(&mut host, "SELECT number, bill_key FROM bill").await;
    let numbers: BTreeSet<_> = bills.iter().map(|(number, _)| number.clone()).collect();
    assert_eq!(&numbers, accepted, "the host has what it accepted, and nothing else");
    assert_eq!(bills.len(), accepted.len(), "no bill is there twice");
    let keys: BTreeSet<_> = bills.into_iter().map(|(_, key)| key).collect();

    let ours =
        pairs(&mut host, "SELECT bill_key, payment_number FROM bill WHERE state = 'paid'").await;
    let theirs =
        pairs(&mut gateway, "SELECT bill_key, payment_number FROM bill WHERE paid_at IS NOT NULL")
            .await;
    assert_eq!(ours.len(), accepted.len(), "every bill is paid at the host");
    assert_eq!(theirs.len(), accepted.len(), "every bill is paid at the gateway");
    let as_map = |rows: Vec<_>| rows.into_iter().collect::<BTreeMap<String, String>>();
    let (ours, theirs) = (as_map(ours), as_map(theirs));
    assert_eq!(ours, theirs, "both have the same payment number for every bill");
    assert_eq!(ours.keys().cloned().collect::<BTreeSet<_>>(), keys);
    assert_eq!(ours.values().collect::<BTreeSet<_>>().len(), keys.len(), "each has its own");

    let uploads: i64 = count(&mut gateway, "SELECT COUNT(*) FROM bill").await;
    assert_eq!(usize::try_from(uploads).expect("a count"), keys.len(), "no upload is doubled");
    let bookings = pairs(&mut host, "SELECT bill_key, notification FROM booking").await;
    let told = pairs(&mut gateway, "SELECT bill_key, id FROM notification").await;
    assert_eq!(bookings.len(), keys.len(), "every bill is booked once");
    assert_eq!(as_map(bookings), as_map(told), "each by the one notification about it");
    let tickets: i64 =
        count(&mut host, "SELECT COUNT(*) FROM bill WHERE context IS NOT NULL").await;
    assert_eq!(tickets, 0, "no ticket is left behind");
}

async fn count(database: &mut SqliteConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(database).await.expect("a count")
}
