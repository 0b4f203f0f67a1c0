//! What masters hear of this server.

use super::*;
use crate::master::{DatabaseFacts, KnownGeneration, ResealProgress};

fn facts() -> DatabaseFacts {
    let at = time::OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(1_500);
    DatabaseFacts {
        epoch: 1,
        primary: Some(FIRST),
        generations: vec![KnownGeneration {
            number: 1,
            fingerprint: "0011223344556677".into(),
            rows: 12,
            closed: true,
        }],
        revocations: [("x".to_owned(), 1)].into_iter().collect(),
        counted_at: Some(at),
        reseal: ResealProgress {
            working: true,
            rows_left: 3,
            rows_done: 4,
            rows_per_second: 5.5,
            failed: vec!["mapping x".into()],
            failed_rows: 6,
            waiting_for: "nobody".into(),
            began_at: Some(at),
            finished_at: None,
        },
        close_refusals: vec![(2, "12 rows".into())],
    }
}

#[tokio::test]
async fn a_report_says_how_server_and_database_stand() {
    let scene = Scene::of(1).await;
    scene.secret.tell(facts());
    let told = || scene.reports(0).into_iter().find(|report| report.counted_at_ms != 0);
    scene.until("told", |_| told().is_some()).await;
    let report = told().unwrap();
    assert_eq!((report.version, report.epoch, report.held_epoch), (1, 1, 1));
    assert_eq!(report.primary, FIRST.to_string());
    assert_eq!(report.counted_at_ms, 1_500);
    let [rows] = report.generations.as_slice() else { panic!("{report:?}") };
    assert_eq!((rows.generation, rows.rows, rows.closed), (1, 12, true));
    assert_eq!(rows.fingerprint, "0011223344556677");
    let reseal = report.reseal.unwrap();
    assert!(reseal.working);
    assert_eq!((reseal.rows_left, reseal.rows_done, reseal.failed_rows), (3, 4, 6));
    assert_eq!((reseal.began_at_ms, reseal.finished_at_ms), (1_500, 0));
    assert_eq!((reseal.failed, reseal.waiting_for), (vec!["mapping x".into()], "nobody".into()));
    assert_eq!((report.read_lease_left_ms, report.write_lease_left_ms), (600_000, 15_000));
    assert_eq!(report.close_refusals[0].generation, 2);
    assert_eq!(report.revocations["x"], 1);
    assert_eq!(report.held_fingerprints.len(), 1);
    assert_eq!(report.program_version, env!("CARGO_PKG_VERSION"));
    // One process, one instance.
    let instances: Vec<_> = scene.reports(0).into_iter().map(|report| report.instance).collect();
    assert!(instances.iter().all(|instance| *instance == scene.secret.instance.to_string()));
}

#[tokio::test]
async fn an_adoption_is_reported_to_every_master_also_to_an_outdated_one() {
    let scene = Scene::of(2).await;
    scene.say_at(1, Says::promote);
    for place in [0, 1] {
        let told = |_: &MasterSecret| {
            let reports = scene.reports(place);
            reports.iter().any(|report| (report.version, report.epoch) == (2, 2))
        };
        scene.until("told", told).await;
    }
}

#[tokio::test]
async fn masters_are_asked_at_once_when_that_is_wanted() {
    let scene = Scene::of(1).await;
    for _ in 0..3 {
        let before = scene.reports(0).len();
        scene.secret.ask_now();
        scene.until("asked", |_| scene.reports(0).len() > before).await;
    }
}

#[tokio::test]
async fn the_answer_to_a_report_counts_as_a_heartbeat() {
    // Watching does not work here, and polling is far away.
    let edit = |settings: &mut MasterSettings| {
        settings.poll_seconds = 3600;
        settings.read_lease_seconds = 36_000;
        settings.write_lease_seconds = 3600;
    };
    let mut scene = Scene::with(1, Beginning::default(), manual(), edit).await;
    scene.say(|says| says.watch = false);
    scene.up();
    scene.until_current().await;
    scene.say(Says::rotate);
    scene.until("rotated", |secret| secret.status().active == Some(2)).await;
    scene.say(|says| says.refuse = Some(Reason::ServerRevoked));
    scene.until("revoked", |secret| secret.status().state == MasterState::Revoked).await;
}
