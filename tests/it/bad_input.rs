//! What a person gets for bad input at the command line: one clear error, a stable reason, the right
//! exit code, and nothing changed.

use std::{
    fs,
    process::{Command, Output},
};

use sso_tests::system::{Database, System, programs};

fn prepare(system: &System) {
    system.create_application("App", &["Open", "Closed:masked"]);
    let set = ["config", "set", "App", "One", "--values", "-"];
    let output = system.sso_with_input("app-admin", &set, r#"{"Open":"o","Closed":"c"}"#);
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn each_bad_input_has_its_reason_and_exit_code_and_changes_nothing() {
    let mut system = System::start(Database::Sqlite);
    prepare(&system);
    let before = system.sso_json("app-admin", &["config", "history", "App", "One"]);
    let large = format!(r#"{{"Open":"{}"}}"#, "x".repeat(65_537));
    // Profile, arguments, standard input, exit code, words of the error.
    type Case<'c> = (&'c str, &'c [&'c str], &'c str, i32, &'c [&'c str]);
    let cases: &[Case<'_>] = &[
        (
            "app-admin",
            &["config", "set", "App", "One", "Nothing=x"],
            "",
            1,
            &["UNKNOWN_FIELD", "Nothing"],
        ),
        (
            "app-admin",
            &["config", "set", "App", "One", "--values", "-"],
            &large,
            1,
            &["VALUE_TOO_LARGE", "65537"],
        ),
        (
            "app-admin",
            &["config", "set", "App", "One", "Open=x", "--if-revision", "7"],
            "",
            1,
            &["REVISION_STALE", "10816", "revision 1"],
        ),
        (
            "app-admin",
            &["config", "set", "App", "Two", "Open=x"],
            "",
            1,
            &["VALUES_INCOMPLETE", "Closed"],
        ),
        ("app-admin", &["config", "set", "App", "One", "Closed=x"], "", 2, &["Closed", "--values"]),
        (
            "app-admin",
            &["config", "set", "App", "One", "--values", "-"],
            "{\"Open\":{}}",
            2,
            &["Open"],
        ),
        (
            "app-admin",
            &["config", "set", "App", "One", "--values", "-"],
            "{\"Open\":",
            2,
            &["line 1"],
        ),
        (
            "app-admin",
            &["config", "get", "App", "Two"],
            "",
            1,
            &["CONFIGURATION_NOT_FOUND", "10757"],
        ),
        (
            "app-admin",
            &["config", "rollback", "App", "One", "--revision", "9"],
            "",
            1,
            &["REVISION_NOT_FOUND"],
        ),
        (
            "user",
            &["config", "set", "App", "One", "Open=x"],
            "",
            77,
            &["NOT_APPLICATION_ADMINISTRATOR", "11011", "DEV\\user"],
        ),
        (
            "admin",
            &["config", "get", "App", "One", "--reveal"],
            "",
            77,
            &["NOT_APPLICATION_USER", "11013"],
        ),
        ("user", &["system", "info"], "", 77, &["NOT_SSO_ADMINISTRATOR", "11009"]),
        ("admin", &["app", "show", "Nowhere"], "", 1, &["APPLICATION_NOT_FOUND", "10756"]),
        (
            "admin",
            &["app", "create", "App", "--field", "x"],
            "",
            1,
            &["APPLICATION_EXISTS", "10752"],
        ),
        ("admin", &["app", "colour"], "", 2, &["colour"]),
        ("nobody", &["status"], "", 64, &["nobody"]),
    ];
    for (who, arguments, input, code, words) in cases {
        println!("sso --profile {who} {arguments:?}");
        let output = system.sso_with_input(who, arguments, input);
        assert_refused(&output, *code, words);
    }
    let _ = system.sso_ok("app-admin", &["app", "disable", "App"]);
    let output = system.sso("user", &["config", "get", "App", "One", "--reveal"]);
    assert_refused(&output, 1, &["APPLICATION_DISABLED", "10755"]);

    system.kill_master();
    let output = sso_tests::system::eventually(
        "writes are refused",
        std::time::Duration::from_secs(20),
        || {
            let output = system.sso("app-admin", &["config", "set", "App", "One", "Open=x"]);
            (!output.status.success()).then_some(output)
        },
    );
    assert_refused(&output, 69, &["MASTER_UNREACHABLE", "10783"]);
    let after = system.sso_json("app-admin", &["config", "history", "App", "One"]);
    let count = |history: &serde_json::Value| history["revisions"].as_array().map(Vec::len);
    // One write may have been served between the kill and its discovery.
    assert!(count(&after) <= count(&before).map(|count| count + 1), "{after}");
    system.stop_server(1);
    let output = system.sso("user", &["status"]);
    assert_refused(&output, 69, &[]);
}

#[test]
fn malformed_xml_is_named_by_line_and_column() {
    let system = System::start(Database::Sqlite);
    let good =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/order-routing.xml"))
            .expect("an example");
    let path = system.folder().join("bad.xml");
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE sso [<!ENTITY a \"b\">]><sso>&a;</sso>";
    let cases = [
        (good.replace("</application>", ""), "line"),
        (
            good.replace("<description>", "<describtion>")
                .replace("</description>", "</describtion>"),
            "describtion",
        ),
        (good.replace("configStoreApp=\"yes\"", "configStoreApp=\"maybe\""), "yes, no, on or off"),
        (bomb.to_owned(), "DOCTYPE"),
        (String::new(), ""),
    ];
    for (content, word) in cases {
        assert_ne!(content, good);
        fs::write(&path, &content).expect("written");
        let path = path.to_str().expect("UTF-8");
        let output = system.sso("affiliate-admin", &["app", "create", "--file", path]);
        assert_refused(&output, 2, &[word, "line"]);
    }
    let list = system.sso_json("admin", &["app", "list"]);
    assert_eq!(list["applications"].as_array().map(Vec::len), Some(0), "{list}");
}

#[test]
fn programs_refuse_bad_settings_before_they_open_a_port() {
    let system = System::prepare(Database::Sqlite, 1, Default::default());
    let installation = system.installation();
    let settings = [
        (&programs().master, installation.master_settings()),
        (&programs().server, installation.server_settings(1)),
    ];
    for (program, path) in settings {
        let good = fs::read_to_string(&path).expect("settings");
        let run = |text: &str| {
            fs::write(&path, text).expect("written");
            let output = Command::new(program).arg("run").arg("--settings").arg(&path).output();
            output.expect("the program starts")
        };
        let lines: Vec<_> =
            good.lines().filter(|line| !line.contains("stop_with_parent")).collect();
        let good = lines.join("\n");
        assert_refused(&run(&good.replace("listen =", "lissten =")), 64, &["lissten"]);
        assert_refused(&run(&good.replace("version = 1", "version = 2")), 64, &["version"]);
        assert_refused(&run(&good.replace("allow_development = true", "")), 64, &["development"]);
        assert_refused(&run(&good.replace("tls/ca.crt", "tls/none.crt")), 64, &["none.crt"]);
        assert_refused(&run("version = "), 64, &["line 1"]);
        let key = installation.tls_file(if program == &programs().master {
            "sso-master.key"
        } else {
            "sso-server-1.key"
        });
        let lax = |mode| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("changed");
        };
        lax(0o640);
        assert_refused(&run(&good), 64, &["640"]);
        lax(0o600);
    }
}

#[test]
fn a_master_that_cannot_unlock_says_which_way() {
    let system = System::prepare(Database::Sqlite, 1, Default::default());
    let installation = system.installation();
    let run = || {
        let settings = installation.master_settings();
        let output =
            Command::new(&programs().master).arg("run").arg("--settings").arg(settings).output();
        output.expect("the program starts")
    };
    let keystore = system.folder().join("keystore.json");
    let passphrase = system.folder().join("master.passphrase");
    let (good_keystore, good_passphrase) =
        (fs::read(&keystore).expect("read"), fs::read(&passphrase).expect("read"));

    fs::write(&passphrase, "another passphrase\n").expect("written");
    assert_refused(&run(), 77, &["wrong passphrase", "10521"]);
    fs::write(&passphrase, &good_passphrase).expect("written");

    let mut damaged = good_keystore.clone();
    let middle = damaged.iter().position(|byte| *byte == b'"').expect("a quote");
    damaged.truncate(middle + 40);
    fs::write(&keystore, &damaged).expect("written");
    let truncated = run();
    assert!(!truncated.status.success());
    assert!(String::from_utf8_lossy(&truncated.stderr).contains("keystore.json"), "{truncated:?}");
    fs::remove_file(&keystore).expect("removed");
    let missing = run();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("sso-master init"), "{missing:?}");

    // And init overwrites neither.
    fs::write(&keystore, &good_keystore).expect("written");
    let init = Command::new(&programs().master)
        .args(["init", "--settings"])
        .arg(installation.master_settings())
        .arg("--backup")
        .arg(system.folder().join("second.backup"))
        .arg("--backup-password-file")
        .arg(system.folder().join("backup.passphrase"))
        .output()
        .expect("the program starts");
    assert!(!init.status.success());
    assert_eq!(fs::read(&keystore).expect("read"), good_keystore);
    assert!(!system.folder().join("second.backup").exists());
}
