//! Two masters: who leads, who follows, and who has lost the right to the keys.

use std::time::{Duration, Instant};

use serde_json::Value;
use sso_tests::{
    everywhere::on_each_database_with,
    system::{Database, System, Timing, eventually},
};
use tokio::runtime::Runtime;

use super::{
    Filled, Load, SOON, generation, password, path, refused, secret, secret_ok, set, status,
};

/// A system with a standby that has everything.
fn with_standby(database: Database, servers: u32) -> System {
    let system = System::start_with_standbys(database, servers, 1, Timing::default());
    wait_until_followed(&system);
    system
}

fn wait_until_followed(system: &System) {
    eventually("the standby has everything", SOON, || {
        let masters = status(system)["masters"].clone();
        let masters = masters.as_array()?;
        (masters.len() == 2 && masters.iter().all(|it| it["up_to_date"] == true)).then_some(())
    });
}

/// `sso secret ARGUMENTS…` at the standby.
fn at_standby(system: &System, arguments: &[&str]) -> std::process::Output {
    let socket = format!("unix://{}", system.installation().standby_socket(1).display());
    system.sso("admin", &[&["secret"], arguments, &["--master", &socket]].concat())
}

fn standby_status(system: &System) -> Value {
    let output = at_standby(system, &["status", "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn when_the_primary_dies_nothing_is_refused_and_the_standby_is_promoted() {
    let runtime = Runtime::new().expect("a runtime");
    let mut databases = vec![Database::Sqlite];
    databases.extend(sso_tests::postgres::database().map(Database::Postgres));
    for database in databases {
        let mut system = with_standby(database, 2);
        let filled = runtime.block_on(Filled::prepare(&system));
        let load = Load::start(&system, &runtime, 2);
        load.more(30);
        system.kill_master();
        load.more(60);
        let (done, failures) = load.end(&runtime);
        assert_eq!(failures, Vec::<String>::new(), "of {done}: the standby confirms the keys");

        // It serves, and leads only when it is told to.
        let (error, _) = refused(&rotate_at_standby(&system, "early"));
        assert!(error.contains("NOT_PRIMARY"), "{error}");
        let promoted = at_standby(&system, &["promote"]);
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
        let now = standby_status(&system);
        assert_eq!((&now["epoch"], &now["role"]), (&2.into(), &"primary".into()), "{now:#}");

        // It rotates, leaving behind on purpose who is gone.
        let rotated = at_standby(
            &system,
            &[
                "rotate",
                "--backup",
                path(&system.folder().join("promoted.backup")),
                "--password-file",
                path(&password(&system)),
                "--leave-behind",
                "sso-master",
                "--wait",
                "--timeout",
                "3m",
            ],
        );
        assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
        runtime.block_on(filled.check(&system));

        // The old primary comes back, steps down by itself, and has what it missed.
        system.start_master();
        let back = eventually("the old primary follows", SOON, || {
            let back = status(&system);
            (back["role"] == "standby" && back["epoch"] == 2).then_some(back)
        });
        assert_eq!(generation(&back, 2)["state"], "active", "{back:#}");
        let (error, _) = refused(&secret(
            &system,
            &[
                "rotate",
                "--backup",
                path(&system.folder().join("no.backup")),
                "--password-file",
                path(&password(&system)),
            ],
        ));
        assert!(error.contains("NOT_PRIMARY"), "{error}");
        assert!(!system.folder().join("no.backup").exists(), "a refused rotation left a backup");
        runtime.block_on(set(&system, "One", "still here")).expect("set");
    }
}

fn rotate_at_standby(system: &System, name: &str) -> std::process::Output {
    let backup = system.folder().join(format!("{name}.backup"));
    let password = password(system);
    let arguments = ["rotate", "--backup", path(&backup), "--password-file", path(&password)];
    at_standby(system, &arguments)
}

/// What an old primary prepared while it was alone is never activated by it: the standby leads only by
/// force, because the database knows a generation that it lacks; the backup of that rotation brings it.
#[test]
fn an_old_primary_that_was_cut_off_never_activates() {
    let runtime = Runtime::new().expect("a runtime");
    let mut system = with_standby(Database::Sqlite, 1);
    let filled = runtime.block_on(Filled::prepare(&system));
    system.stop_standby(1);
    // The standby is away: a rotation waits for it, and for nobody else.
    let (backup, password) = (system.folder().join("alone.backup"), password(&system));
    let with_password = ["--password-file", path(&password)];
    let _ =
        secret_ok(&system, &[&["rotate", "--backup", path(&backup)][..], &with_password].concat());
    eventually("only the standby is waited for", SOON, || {
        let waiting = status(&system)["waiting_for"].to_string();
        (waiting.contains("sso-standby-1") && !waiting.contains("sso-server")).then_some(())
    });
    assert_eq!(generation(&status(&system), 1)["state"], "active");
    system.kill_master();
    system.start_standby(1);
    eventually("the standby hears what the database knows", SOON, || {
        let (error, _) = refused(&at_standby(&system, &["promote"]));
        error.contains("generations that this master does not have: 2 (").then_some(())
    });
    let promoted = at_standby(&system, &["promote", "--force", "--yes"]);
    assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    let restored = at_standby(&system, &[&["restore", path(&backup)][..], &with_password].concat());
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let rotated = at_standby(
        &system,
        &[
            &["rotate", "--backup", path(&system.folder().join("led.backup"))][..],
            &with_password,
            &["--leave-behind", "sso-master", "--wait", "--timeout", "3m"],
        ]
        .concat(),
    );
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_eq!(generation(&standby_status(&system), 3)["state"], "active");
    system.start_master();
    eventually("the old primary follows", SOON, || {
        let back = status(&system);
        (back["role"] == "standby" && back["epoch"] == 2).then_some(())
    });
    eventually("both tell of the same generations", SOON, || {
        (status(&system)["generations"] == standby_status(&system)["generations"]).then_some(())
    });
    runtime.block_on(filled.check(&system));
}

#[test]
fn a_revoked_server_loses_its_keys_at_once_and_gets_them_back() {
    on_each_database_with(2, |system, runtime| {
        let _filled = runtime.block_on(Filled::prepare(system));
        let began = Instant::now();
        let told = system.sso_ok("admin", &["server", "revoke", "sso-server-2"]);
        let channel = {
            let _guard = runtime.enter();
            sso_tests::raw::channel(system, 2, "user")
        };
        let refusal = eventually("its keys are gone", Duration::from_secs(10), || {
            runtime
                .block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime))
                .err()
                .filter(|error| error.contains("MasterSecretRevoked"))
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{told} {refusal}");
        assert_eq!(runtime.block_on(super::get(system, "One")).expect("the other one"), "One-3");
        eventually("the list of servers has it", SOON, || {
            let servers = system.sso_json("admin", &["server", "list"]).to_string();
            servers.contains("revoked").then_some(())
        });
        // It stays so over restarts of both.
        system.stop_master();
        system.start_master();
        system.stop_server(2);
        system.start_server_until(2, sso_client::development::Probe::Live);
        eventually("it is still revoked", SOON, || {
            runtime
                .block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime))
                .err()
                .filter(|error| error.contains("MasterSecretRevoked"))
        });
        let _ = system.sso_ok("admin", &["server", "readmit", "sso-server-2"]);
        eventually("it has its keys again", SOON, || {
            runtime.block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime)).ok()
        });
        let (error, _) = refused(&system.sso("admin", &["server", "revoke", "no-such-server"]));
        assert!(error.contains("SERVER_NOT_FOUND"), "{error}");
    });
}

/// A server that was revoked just before the primary died, of which the standby never heard.
#[test]
fn a_revocation_outlives_the_primary_that_ordered_it() {
    let runtime = Runtime::new().expect("a runtime");
    let mut system = with_standby(Database::Sqlite, 2);
    let _filled = runtime.block_on(Filled::prepare(&system));
    system.stop_standby(1);
    let output = system.sso("admin", &["server", "revoke", "sso-server-2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("sso-standby-1 has not heard of it"),
        "{said}"
    );
    eventually("the database remembers it", SOON, || {
        let servers = system.sso_json("admin", &["server", "list"]).to_string();
        servers.contains("revoked").then_some(())
    });
    system.kill_master();
    system.start_standby(1);
    eventually("the standby leads", SOON, || {
        at_standby(&system, &["promote"]).status.success().then_some(())
    });
    eventually("it learns of the revocation", SOON, || {
        let servers = standby_status(&system)["servers"].clone();
        eprintln!("{servers:#}");
        let revoked = servers.as_array()?.iter().find(|it| it["revoked"] == true)?;
        (revoked["name"] == "sso-server-2").then_some(())
    });
    let channel = {
        let _guard = runtime.enter();
        sso_tests::raw::channel(&system, 2, "user")
    };
    system.stop_server(2);
    system.start_server_until(2, sso_client::development::Probe::Live);
    eventually("it gets no keys", SOON, || {
        runtime
            .block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime))
            .err()
            .filter(|error| error.contains("MasterSecretRevoked"))
    });
    let socket = format!("unix://{}", system.installation().standby_socket(1).display());
    let readmit = ["server", "readmit", "sso-server-2", "--master", &socket];
    let _ = system.sso_ok("admin", &readmit);
    eventually("it has its keys again", SOON, || {
        runtime.block_on(super::get_at(&channel, "One", sso_proto::v1::ReadMode::Runtime)).ok()
    });
}

/// Promise 5 with a lease that ends.
#[test]
fn leases_are_told_long_before_they_end() {
    let timing = Timing { read_lease_seconds: 30, write_lease_seconds: 2, ..Timing::default() };
    let mut system = System::start_with(Database::Sqlite, 1, timing);
    system.kill_master();
    eventually("the log warns", SOON, || {
        system.log_of_server(1).contains("read lease").then_some(())
    });
    let shown = system.sso_json("admin", &["status"]);
    assert!(shown["master_secret"]["read_lease_until"].is_string(), "{shown:#}");
    let ready = sso_tests::raw::page(system.operations(1), "readyz");
    let ready = String::from_utf8(ready).expect("UTF-8");
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("read lease"), "{ready}");
}
