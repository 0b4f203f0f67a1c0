//! Rotation under load, and everything that may stand in its way.

use std::time::Duration;

use sso_tests::{
    everywhere::on_each_database_with,
    system::{Database, System, Timing, eventually},
};
use tokio::runtime::Runtime;

use super::{
    Filled, Load, SOON, execute, generation, get, password, path, refused, rotate, rows, secret,
    secret_ok, set, status,
};

#[test]
fn reads_writes_and_redeems_go_on_without_one_error_while_the_secret_is_rotated() {
    on_each_database_with(2, |system, runtime| {
        let filled = runtime.block_on(Filled::prepare(system));
        let load = Load::start(system, runtime, 2);
        load.more(50);
        let backup = rotate(system, "second", &["--retire"]);
        load.more(50);
        // Again at once: any number of generations may be there.
        let _ = rotate(system, "third", &[]);
        load.more(50);
        let (done, failures) = load.end(runtime);
        assert_eq!(failures, Vec::<String>::new(), "of {done}");
        let status = status(system);
        assert_eq!(generation(&status, 1)["state"], "retired", "{status:#}");
        assert_eq!(generation(&status, 2)["state"], "draining", "{status:#}");
        assert_eq!(generation(&status, 3)["state"], "active", "{status:#}");
        // Every revision of the history and every credential.
        let left = runtime.block_on(rows(system));
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.iter().all(|(_, generation, rows)| *generation == 3 && *rows > 0), "{left:?}");
        runtime.block_on(filled.check(system));
        // The backup of the rotation opens every row of then, and not those of now.
        let password = password(system);
        let verify = ["verify", path(&backup), "--password-file", path(&password)];
        let _ = secret_ok(system, &verify);
        let (error, code) =
            refused(&secret(system, &[&verify[..], &["--against-database"]].concat()));
        assert!(error.contains("generation 3"), "{error}");
        assert_eq!(code, Some(1), "{error}");
        let third = system.folder().join("third.backup");
        let verify = ["verify", path(&third), "--password-file", path(&password)];
        let _ = secret_ok(system, &[&verify[..], &["--against-database"]].concat());
    });
}

#[test]
fn a_server_that_is_away_is_named_and_left_behind_only_on_purpose() {
    let mut system = System::start_with(Database::Sqlite, 2, Timing::default());
    let runtime = Runtime::new().expect("a runtime");
    let _filled = runtime.block_on(Filled::prepare(&system));
    system.stop_server(2);
    let (backup, password) = (system.folder().join("second.backup"), password(&system));
    let rotate = ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
    let _ = secret_ok(&system, &rotate);
    let only_the_second = || {
        let waiting = status(&system);
        let named = waiting["waiting_for"].to_string();
        (named.contains("sso-server-2") && !named.contains("sso-server-1")).then_some(waiting)
    };
    let waiting = eventually("the server that is there has the key", SOON, only_the_second);
    assert_eq!(generation(&waiting, 2)["state"], "distributed", "{waiting:#}");
    // Nothing is sealed under it, and everything goes on.
    runtime.block_on(set(&system, "One", "meanwhile")).expect("set");
    let left = runtime.block_on(rows(&system));
    assert!(left.iter().all(|(_, generation, _)| *generation == 1), "{left:?}");
    // The rotation that waits outlives the master.
    system.stop_master();
    system.start_master();
    let waiting = eventually("the server that is there has said so", SOON, || {
        let waiting = status(&system);
        let named = waiting["waiting_for"].to_string();
        (named.contains("sso-server-2") && !named.contains("sso-server-1")).then_some(waiting)
    });
    assert_eq!(generation(&waiting, 2)["state"], "distributed", "{waiting:#}");
    let again =
        ["rotate", "--continue", "--leave-behind", "sso-server-2", "--wait", "--timeout", "2m"];
    let _ = secret_ok(&system, &again);
    let done = status(&system);
    assert_eq!(generation(&done, 2)["state"], "active", "{done:#}");
    // Whoever was left behind takes what there is when it comes back.
    system.start_server(2);
    let channel = {
        let _guard = runtime.enter();
        sso_tests::raw::channel(&system, 2, "user")
    };
    let value = runtime
        .block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime))
        .expect("a value");
    assert_eq!(value, "meanwhile");
}

#[test]
fn a_server_that_comes_back_is_waited_for_no_longer() {
    let mut system = System::start_with(Database::Sqlite, 2, Timing::default());
    let runtime = Runtime::new().expect("a runtime");
    let _filled = runtime.block_on(Filled::prepare(&system));
    system.kill_server(2);
    let (backup, password) = (system.folder().join("second.backup"), password(&system));
    let rotate = ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
    let _ = secret_ok(&system, &rotate);
    system.start_server(2);
    eventually("the rotation goes on by itself", SOON, || {
        (generation(&status(&system), 2)["state"] == "active").then_some(())
    });
}

#[test]
fn a_generation_is_retired_when_nothing_is_left_and_destroyed_when_that_is_sure() {
    on_each_database_with(1, |system, runtime| {
        let _filled = runtime.block_on(Filled::prepare(system));
        let print = |number| generation(&status(system), number)["fingerprint"].clone();
        let destroy = |number: &str, print: &str| {
            secret(system, &["destroy", number, "--fingerprint", print, "--yes"])
        };
        let first = print(1).as_str().expect("a fingerprint").to_owned();
        let (error, _) = refused(&destroy("1", &first));
        assert!(error.contains("GENERATION_STATE_WRONG"), "{error}");
        let (error, _) = refused(&secret(system, &["retire", "1"]));
        assert!(error.contains("GENERATION_STATE_WRONG"), "{error}");
        // One row that does not open stands in the way, and is named.
        runtime.block_on(async {
            set(system, "Broken", "whole").await.expect("set");
            execute(
                system,
                "UPDATE configuration_revisions SET sealed = (SELECT r.sealed FROM \
                 configuration_revisions r JOIN configurations c ON c.id = r.configuration_id \
                 WHERE c.identifier = 'One' AND r.revision = 1) WHERE configuration_id = \
                 (SELECT id FROM configurations WHERE identifier = 'Broken')",
            )
            .await;
        });
        let (backup, password) = (system.folder().join("second.backup"), password(system));
        let rotate = ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
        let _ = secret_ok(system, &rotate);
        let stuck = eventually("only the damaged row is left", SOON, || {
            let status = status(system);
            (status["reseal"]["failed_rows"] == 1 && status["reseal"]["rows_left"] == 1)
                .then_some(status)
        });
        let failed = stuck["reseal"]["failed"].to_string();
        assert!(failed.contains("configuration"), "{stuck:#}");
        let (error, _) = refused(&secret(system, &["retire", "1"]));
        assert!(error.contains("GENERATION_IN_USE") && error.contains('1'), "{error}");
        let _ = system.sso_ok("app-admin", &["config", "delete", super::STORE, "Broken"]);
        runtime.block_on(execute(
            system,
            "DELETE FROM configuration_revisions WHERE configuration_id = \
             (SELECT id FROM configurations WHERE identifier = 'Broken')",
        ));
        eventually("the generation is retired", SOON, || {
            secret(system, &["retire", "1"]).status.success().then_some(())
        });
        assert_eq!(generation(&status(system), 1)["state"], "retired");
        let (error, _) = refused(&destroy("1", "0000000000000000"));
        assert!(error.contains("GENERATION_FINGERPRINT_WRONG"), "{error}");
        let _ = secret_ok(system, &["destroy", "1", "--fingerprint", &first, "--yes"]);
        assert_eq!(generation(&status(system), 1)["state"], "destroyed");
        let second = print(2).as_str().expect("a fingerprint").to_owned();
        let (error, _) = refused(&destroy("2", &second));
        assert!(error.contains("GENERATION_STATE_WRONG"), "{error}");
        // The keys are gone from the servers too, and everything is readable.
        eventually("the server has let go of it", SOON, || {
            let held =
                system.sso_json("admin", &["status"])["master_secret"]["generations"].clone();
            (held.as_array().expect("generations").len() == 1).then_some(())
        });
        assert_eq!(runtime.block_on(get(system, "One")).expect("a value"), "One-3");
        // A key that is gone comes back from its backup.
        let first_backup = system.folder().join("master-secret.backup");
        let of_dev = system.folder().join("backup.passphrase");
        let restore = ["restore", path(&first_backup), "--password-file", path(&of_dev)];
        let _ = secret_ok(system, &restore);
        assert_eq!(generation(&status(system), 1)["state"], "retired");
    });
}

#[test]
fn sealing_again_is_paced_resumed_and_shared_and_a_second_rotation_may_come_in_between() {
    on_each_database_with(2, |system, runtime| {
        let filled = runtime.block_on(Filled::prepare(system));
        for number in 0..60 {
            runtime
                .block_on(set(system, &format!("Many{number}"), &format!("{number}")))
                .expect("set");
        }
        let (backup, password) = (system.folder().join("second.backup"), password(system));
        let rotate_slowly =
            ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
        let slow = ["--rows-per-second", "10"];
        let _ = secret_ok(system, &[&rotate_slowly[..], &slow].concat());
        // Whoever does the work dies in the middle of it; the other takes over.
        let worker = eventually("the work has begun", SOON, || {
            let status = status(system);
            let left = status["reseal"]["rows_left"].as_u64().unwrap_or_default();
            let done = status["reseal"]["rows_done"].as_u64().unwrap_or_default();
            (left > 0 && done > 0).then(|| status["reseal_server"].to_string())
        });
        let number = if worker.contains("sso-server-1") { 1 } else { 2 };
        system.kill_server(number);
        system.start_server(number);
        // And another generation comes before the first is drained.
        let third = system.folder().join("third.backup");
        let again = ["rotate", "--backup", path(&third), "--password-file", path(&password)];
        let _ = secret_ok(system, &[&again[..], &["--wait", "--timeout", "5m"]].concat());
        let left = runtime.block_on(rows(system));
        assert!(left.iter().all(|(_, generation, _)| *generation == 3), "{left:?}");
        runtime.block_on(filled.check(system));
        for number in [0, 30, 59] {
            let value = runtime.block_on(get(system, &format!("Many{number}"))).expect("a value");
            assert_eq!(value, number.to_string());
        }
        for number in ["1", "2"] {
            let _ = secret_ok(system, &["retire", number]);
        }
    });
}

#[test]
fn the_reference_tool_generates_backs_up_restores_and_shows_the_reminder() {
    let system = System::start(Database::Sqlite);
    let tool = |arguments: &[&str], answers: &str| {
        let all = [&["compat", "ssoconfig"][..], arguments].concat();
        system.sso_with_input("admin", &all, answers)
    };
    let (old, new) = (system.folder().join("old.bak"), system.folder().join("new.bak"));
    let twice = "correct horse\ncorrect horse\nthe usual animal\n";
    let made = tool(&["-generatesecret", path(&old)], twice);
    assert!(made.status.success(), "{made:?}");
    eventually("the new generation is active", Duration::from_secs(30), || {
        (generation(&status(&system), 2)["state"] == "active").then_some(())
    });
    let made = tool(&["-backupsecret", path(&new)], twice);
    assert!(made.status.success() && new.exists(), "{made:?}");
    let shown = tool(&["-displayreminder", path(&new)], "");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("the usual animal"), "{shown:?}");
    let (error, _) = refused(&tool(&["-restoresecret", path(&new)], "correct horse\n"));
    assert!(error.contains("10") || error.contains("generation"), "{error}");
    let (error, _) = refused(&tool(&["-restoresecret", path(&new)], "wrong horse\n"));
    assert!(error.contains("10779") || error.contains("password"), "{error}");
}
