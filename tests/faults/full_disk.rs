//! Disks without a byte left: what cannot be kept is refused with a reason and in time, nothing is half
//! done, and everything goes on when there is room again (threat-model.md, case 40).

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use sqlx::{AnyConnection, Connection as _};
use sso_client::development::Probe;
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    disk::Disk,
    history::History,
    raw,
    system::{Database, System, Timing, eventually},
};
use tokio::runtime::Runtime;

use crate::{
    administrator::{Desk, said},
    load::{self, Load},
    place::{Kind, Place, SERVERS},
};

/// A refusal comes within this, whatever the disk does.
const BOUND: Duration = Duration::from_secs(20);
/// When there is room again, everybody works again within this.
const RECOVERY: Duration = Duration::from_secs(30);

fn set(place: &Place, value: &str) -> std::process::Output {
    let values = format!(r#"{{"Key":"{value}"}}"#);
    let arguments = ["config", "set", "Full", "One", "--values", "-"];
    place.system.sso_with_input("app-admin", &arguments, &values)
}

#[test]
fn a_change_that_the_full_disk_of_the_audit_cannot_keep_is_refused_in_time() {
    let place = Place::start(Kind::Sqlite).expect("SQLite is always there");
    place.system.create_application("Full", &["Key"]);
    assert!(set(&place, "before").status.success());
    let Some(disk) = place.disk("audit") else { return };
    disk.fill();
    // What was made before may be used up first.
    let refused = eventually("a refusal", BOUND, || {
        let began = Instant::now();
        let output = set(&place, &"full".repeat(2000));
        assert!(began.elapsed() < BOUND, "a refusal after {:?}", began.elapsed());
        (!output.status.success()).then(|| said(&output))
    });
    assert!(
        refused.contains("DATABASE_UNAVAILABLE") || refused.contains("AUDIT_UNAVAILABLE"),
        "{refused}"
    );
    // The journal has room that it reserved before: a reveal is recorded there, or refused.
    let began = Instant::now();
    let output = place.system.sso("user", &["config", "get", "Full", "One", "--reveal"]);
    let revealed = usize::from(output.status.success());
    assert!(revealed == 1 || said(&output).contains("UNAVAILABLE"), "{}", said(&output));
    assert!(began.elapsed() < BOUND);
    let Some(disk) = place.disk("audit") else { return };
    disk.free();
    eventually("it goes on", BOUND, || set(&place, "after").status.success().then_some(()));
    let operations = place.system.operations(1);
    eventually("it is ready", BOUND, || Probe::Ready.ask(operations).ok());
    let found = place.system.sso_ok("app-admin", &["config", "get", "Full", "One", "Key"]);
    assert_eq!(found.trim(), "after");
    eventually("it is recorded", BOUND, || (reveals(&place.system) == revealed).then_some(()));
}

/// How many reveals are in the audit.
fn reveals(system: &System) -> usize {
    let list = ["audit", "list", "--action", "configuration.reveal", "--limit", "100000"];
    let document = system.sso_json("admin", &list);
    document["records"].as_array().expect("records").len()
}

#[test]
fn reveals_on_the_full_disk_of_the_journal_are_refused_and_none_is_unrecorded() {
    let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
    let folder = system.folder().join("journal");
    let Some(disk) = Disk::mount(&folder, 4) else { return };
    let settings = system.installation().server_settings(1);
    let text = fs::read_to_string(&settings).expect("settings");
    // Small files, so that there is no room for long.
    let journal = "\n[audit]\njournal = \"journal\"\njournal_max_mb = 1\n";
    fs::write(&settings, text + journal).expect("settings");
    system.start_master();
    system.start_server(1);
    system.create_application("Full", &["Key"]);
    let long = "x".repeat(200);
    let set = ["config", "set", "Full", &long, "--values", "-"];
    assert!(system.sso_with_input("app-admin", &set, r#"{"Key":"value"}"#).status.success());
    let runtime = Runtime::new().expect("a runtime");
    let user = runtime.block_on(async { raw::channel(&system, 1, "user") });
    let reveal = || {
        let request = v1::GetConfigurationRequest {
            application: "Full".into(),
            identifier: long.clone(),
            mode: v1::ReadMode::Runtime.into(),
            fields: Vec::new(),
        };
        let request = request.encode_to_vec();
        runtime.block_on(raw::call(&user, "/sso.v1.ConfigStore/Get", request)).map(drop)
    };
    reveal().expect("revealed");
    let mut database = runtime.block_on(async {
        sqlx::any::install_default_drivers();
        AnyConnection::connect(&raw::database_url(&system)).await.expect("the database")
    });
    let mut rename = |statement: &'static str| {
        let renamed = runtime.block_on(sqlx::raw_sql(statement).execute(&mut database));
        renamed.expect("renamed");
    };
    // What the database has is taken off the disk, which gives room.
    rename("ALTER TABLE audit_batches RENAME TO audit_batches_away");
    disk.fill();
    let mut answered = 1;
    let refused = loop {
        match reveal() {
            Ok(()) => answered += 1,
            Err(refused) => break refused,
        }
    };
    let reason = Refusal::from_status(&refused).map(|refusal| refusal.reason);
    assert_eq!(reason, Some(Reason::AuditUnavailable), "{refused:?}");
    assert!(refused.message().contains(&folder.display().to_string()), "{refused:?}");
    disk.free();
    eventually("it serves again", BOUND, || reveal().ok());
    answered += 1;
    rename("ALTER TABLE audit_batches_away RENAME TO audit_batches");
    eventually("all are recorded", BOUND, || (reveals(&system) == answered).then_some(()));
}

#[test]
fn a_keystore_on_a_full_disk_is_byte_for_byte_what_it_was() {
    let place = Place::start(Kind::Sqlite).expect("SQLite is always there");
    let Some(disk) = place.disk("keystore") else { return };
    let desk = Desk::of(&place.system);
    let keystore = disk.folder().join("keystore.json");
    let before = fs::read(&keystore).expect("the keystore");
    let status = desk.status().expect("a status");
    disk.fill();
    for _ in 0..2 {
        let began = Instant::now();
        let refused = desk.rotate().expect_err("it cannot be written");
        assert!(refused.contains("KEYSTORE_NOT_WRITTEN"), "{refused}");
        assert!(began.elapsed() < BOUND * 3, "{:?}", began.elapsed());
        assert_eq!(fs::read(&keystore).expect("the keystore"), before);
        let now = desk.status().expect("a status");
        assert_eq!(now["generations"], status["generations"]);
    }
    disk.free();
    let left: Vec<_> = fs::read_dir(disk.folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| !name.contains("lock") && name != "keystore.json")
        .collect();
    assert!(left.is_empty(), "left of the attempts: {left:?}");
    desk.rotate().expect("with room it goes on");
}

/// The load goes on all the time: what is acknowledged is kept, and what cannot be kept is refused.
#[test]
fn writes_that_the_full_disk_of_postgresql_cannot_keep_are_refused_and_none_is_lost() {
    let Some(place) = Place::start(Kind::Postgres) else { return };
    let (Some(disk), Some(database)) = (place.disk("the database"), &place.database) else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    load::prepare(&place.system, &runtime, SERVERS);
    let history = Arc::new(History::default());
    let load = Load::start(&place.system, &runtime, SERVERS, &history);
    let done_by_all = |since| {
        eventually("everybody succeeds", RECOVERY, || {
            load.workers().iter().all(|it| history.has_succeeded(it, since)).then_some(())
        });
    };
    for dies in [false, true] {
        done_by_all(history.now());
        let full = history.now();
        history.fault_begins("the disk of the database is full");
        disk.fill();
        // There is room in what was made before; without any for its log the server dies.
        if dies {
            database.exhaust_log();
        }
        let reasons = [Reason::DatabaseUnavailable, Reason::AuditUnavailable];
        let refused = eventually("writes are refused", BOUND * 2, || {
            let refused = history.refused_writes(full);
            reasons.iter().any(|it| refused.contains_key(it.as_str())).then_some(refused)
        });
        disk.free();
        database.wait_until_ready();
        history.faults_end();
        let free = history.now();
        done_by_all(free);
        println!("  full for {:?}, refused: {refused:?}", free.saturating_sub(full));
    }
    load.end(&runtime);
    let deaths = database.log().matches("PANIC:").count();
    println!("  {}; {deaths} deaths of PostgreSQL", history.figures());
    assert!(deaths > 0, "{}", database.log());
    let faulty = history.faulty(RECOVERY);
    assert!(faulty.is_empty(), "{:#?}", &faulty[..faulty.len().min(20)]);
}
