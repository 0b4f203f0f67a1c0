//! Single sign-on by the `sso` command alone, as an administrator, a user and a host would do it.

use std::process::Output;

use serde_json::{Value, json};
use sso_tests::system::{Database, System};

const APP: &str = "Mainframe";

/// A mainframe application; `host` administers it, `app-admin` too.
fn mainframe(system: &System) {
    let create = ["app", "create", APP, "--type", "individual", "--field", "Password:masked"];
    let users = ["--users", r"DEV\Application Users; DEV\Integration Hosts"];
    let admins = ["--admins", r"DEV\Application Administrators; DEV\Integration Hosts", "--enable"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &users, &admins].concat());
}

fn map(system: &System, account: &str, external_user: &str, credentials: &str) -> Output {
    let create = ["mapping", "create", APP, account, external_user, "--values", "-", "--enable"];
    system.sso_with_input("app-admin", &create, credentials)
}

/// Runs a command with input, and gives what it printed as JSON.
fn answer(system: &System, profile: &str, arguments: &[&str], input: &str) -> Value {
    let arguments = [arguments, &["-o", "json"]].concat();
    let output = system.sso_with_input(profile, &arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} as {profile}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The exit code and the reason of a command that is refused.
#[track_caller]
fn refused(system: &System, profile: &str, arguments: &[&str], input: &str) -> (i32, String) {
    let arguments = [arguments, &["-o", "json"]].concat();
    let output = system.sso_with_input(profile, &arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty(), "{arguments:?} as {profile} printed a result");
    let last = stderr.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{stderr}"));
    let reason = error["error"]["reason"].as_str().unwrap_or_default().to_owned();
    (output.status.code().expect("an exit code"), reason)
}

#[test]
fn a_user_a_ticket_and_a_host() {
    let system = System::start(Database::Sqlite);
    mainframe(&system);
    assert!(map(&system, r"DEV\user", "USR01", "[\"s3cret-1\"]").status.success());

    let credentials = json!(
        { "application": APP, "external_user": "USR01", "credentials": ["s3cret-1"] }
    );
    let get = ["credentials", "get", APP];
    assert_eq!(answer(&system, "user", &get, ""), credentials);
    let table = system.sso_ok("user", &get);
    assert!(table.contains("Password") && !table.contains("s3cret-1"), "{table}");
    let denied = refused(&system, "app-admin", &get, "");
    assert_eq!(denied, (77, "NOT_APPLICATION_USER".into()));

    let issue = ["ticket", "issue"];
    assert_eq!(refused(&system, "user", &issue, ""), (1, "TICKETS_NOT_ALLOWED".into()));
    let _ = system.sso_ok("admin", &["system", "update", "--tickets-allowed", "yes"]);
    let _ = system.sso_ok("admin", &["app", "update", APP, "--allow-tickets", "yes"]);
    let ticket = system.sso_ok("user", &issue);
    assert_eq!(ticket.lines().count(), 1, "the ticket alone");
    let redeem = ["ticket", "redeem", APP, "--sender", r"DEV\user"];
    assert_eq!(answer(&system, "host", &redeem, &ticket), credentials);
    let mismatch = refused(&system, "app-admin", &redeem, &ticket);
    assert_eq!(mismatch, (1, "TICKET_SENDER_MISMATCH".into()));
    let inspected = answer(&system, "user", &["ticket", "inspect"], &ticket);
    assert_eq!(
        (&inspected["account"], &inspected["expired"]),
        (&json!(r"DEV\user"), &json!(false))
    );

    // Nothing of it stays where the programs write.
    for (path, bytes) in system.files() {
        let text = String::from_utf8_lossy(&bytes);
        let found = ["s3cret-1", ticket.trim()].iter().any(|secret| text.contains(secret));
        assert!(!found, "a secret is in {}", path.display());
    }
}

#[test]
fn a_user_manages_the_own_mapping() {
    let system = System::start(Database::Sqlite);
    mainframe(&system);
    let set = ["mapping", "set-credentials", APP];
    let values = ["--values", "-"];
    let missing = refused(&system, "user", &[&set[..], &values].concat(), "[\"a\"]");
    assert_eq!(missing, (1, "MAPPING_NOT_FOUND".into()));
    let create = [&set[..], &["--external-user", "USR01"], &values].concat();
    let made = answer(&system, "user", &create, "[\"a\"]");
    assert_eq!((&made["created"], &made["enabled"]), (&json!(true), &json!(true)));
    let short = refused(&system, "user", &[&set[..], &values].concat(), "[]");
    assert_eq!(short, (1, "CREDENTIALS_INCOMPLETE".into()));
    let another = [&set[..], &["--external-user", "USR09"], &values].concat();
    let output = system.sso_with_input("user", &another, "[\"a\"]");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(r"DEV\user is mapped to USR01, not USR09"), "{said}");
    assert!(said.contains("leave the external user out, or delete the mapping first"), "{said}");
    let other = [&set[..], &[r"DEV\host"], &values].concat();
    assert_eq!(refused(&system, "user", &other, "[\"a\"]"), (77, "MAPPING_OF_ANOTHER".into()));

    let listed = system.sso_json("user", &["mapping", "list"]);
    assert_eq!(listed["mappings"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["mappings"][0]["external_user"], "USR01");
    let disabled = system.sso_json("user", &["mapping", "disable", APP]);
    assert_eq!(disabled["disabled_by_administrator"], false);
    let get = ["credentials", "get", APP];
    assert_eq!(refused(&system, "user", &get, ""), (1, "MAPPING_DISABLED".into()));
    let _ = system.sso_ok("user", &["mapping", "enable", APP]);
    assert_eq!(answer(&system, "user", &get, "")["credentials"][0], "a");
    let explained = system.sso_json("app-admin", &["explain", r"DEV\user", APP]);
    assert_eq!(
        (&explained["allowed"], &explained["mapping"]["external_user"]),
        (&json!(true), &json!("USR01"))
    );
    let nobody = system.sso("app-admin", &["explain", r"DEV\admin", APP]);
    assert_eq!(nobody.status.code(), Some(77));
    let _ = system.sso_ok("user", &["mapping", "delete", APP]);
    assert_eq!(refused(&system, "user", &get, ""), (1, "MAPPING_NOT_FOUND".into()));
}

#[test]
fn many_mappings_by_file_and_by_rules() {
    let system = System::start(Database::Sqlite);
    mainframe(&system);
    let one = |user: &str, external: &str| {
        format!(
            "<mapping><windowsDomain>DEV</windowsDomain><windowsUserId>{user}</windowsUserId>\
             <externalApplication>{APP}</externalApplication>\
             <externalUserId>{external}</externalUserId></mapping>\n"
        )
    };
    let file = format!("<sso>\n{}{}</sso>", one("user", "USR01"), one("host", "usr01"));
    let create = ["mapping", "create", "--file", "-", "-o", "json"];
    for dry_run in [true, false] {
        let arguments =
            if dry_run { [&create[..], &["--dry-run"]].concat() } else { create.into() };
        let output = system.sso_with_input("app-admin", &arguments, &file);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&summary["created"], &summary["dry_run"]), (&json!(1), &json!(dry_run)));
        assert_eq!(summary["refused"][0]["reason"], "EXTERNAL_USER_MAPPED");
        assert_eq!(summary["refused"][0]["line"], 3);
        let there = system.sso_json("app-admin", &["mapping", "list", APP]);
        let count = there["mappings"].as_array().map(Vec::len);
        assert_eq!(count, Some(usize::from(!dry_run)));
    }

    let generate = ["mapping", "generate", APP, "--user", "upper", "--append", "1"];
    let plan = system.sso_json("app-admin", &[&generate[..], &["--dry-run"]].concat());
    assert_eq!(plan["mappings"].as_array().map(Vec::len), Some(2), "{plan}");
    let password = ["--password", "rules", "--password-user", "upper", "--password-append", "!"];
    let made = system.sso_ok("app-admin", &[&generate[..], &password].concat());
    assert_eq!(made, "1 created, 0 refused\n", "the other has a mapping");
    let credentials = answer(&system, "host", &["credentials", "get", APP], "");
    assert_eq!(
        (&credentials["external_user"], &credentials["credentials"][0]),
        (&json!("HOST1"), &json!("HOST!"))
    );

    let exported = system.sso_ok("app-admin", &["mapping", "export", APP]);
    let output =
        system.sso_with_input("app-admin", &["mapping", "delete", "--file", "-"], &exported);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 deleted, 0 refused\n");
    let _ = system.sso_ok("app-admin", &["app", "purge-cache", APP]);
    let empty = system.sso_with_input("app-admin", &["mapping", "create", "--file", "-"], "<sso/>");
    assert_eq!(String::from_utf8_lossy(&empty.stdout), "0 created, 0 refused\n");
    assert_eq!(empty.status.code(), Some(0));
    let gone = refused(&system, "host", &["credentials", "get", APP], "");
    assert_eq!(gone, (1, "MAPPING_NOT_FOUND".into()));
}

#[test]
fn an_external_user_logs_on_with_a_password() {
    let system = System::start(Database::Sqlite);
    let create = ["app", "create", "Batch", "--type", "host-group", "--field", "Password:masked"];
    let accounts = ["--windows-account", r"DEV\user", "--admins", r"DEV\Integration Hosts"];
    let _ = system.sso_ok("affiliate-admin", &[&create[..], &accounts, &["--enable"]].concat());
    let mapping = ["mapping", "create", "Batch", "", "JOB1", "--values", "-", "--enable"];
    let made = answer(&system, "host", &mapping, "[\"first\"]");
    assert_eq!(made["account"], r"DEV\user");
    let set = ["mapping", "set-credentials", "Batch", "--external-user", "JOB1", "--values", "-"];
    let set = answer(&system, "host", &set, "[\"s3cret-2\"]");
    assert_eq!(set["created"], false);
    for verb in ["enable", "disable", "delete", "set-credentials"] {
        let output = system.sso("host", &["mapping", verb, "Batch", "JOB1"]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("--external-user NAME"), "{verb}: {said}");
    }

    let logon = ["logon", "Batch", "JOB1", "--values", "-"];
    let off = refused(&system, "host", &logon, "[\"s3cret-2\"]");
    assert_eq!(off, (1, "HOST_INITIATED_OFF".into()));
    let _ = system.sso_ok("admin", &["system", "update", "--host-initiated-allowed", "yes"]);
    let answered = answer(&system, "host", &logon, "[\"s3cret-2\"]");
    assert_eq!((&answered["account"], &answered["ticket"]), (&json!(r"DEV\user"), &Value::Null));
    let wrong = refused(&system, "host", &logon, "[\"first\"]");
    assert_eq!(wrong, (77, "CREDENTIALS_MISMATCH".into()));
    let without = system.sso("host", &["logon", "Batch", "JOB1"]);
    assert_eq!(without.status.code(), Some(77));
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(said.contains("give --values - or --prompt"), "{said}");

    let _ = system.sso_ok("admin", &["system", "update", "--tickets-allowed", "yes"]);
    let answered = answer(&system, "host", &logon, "[\"s3cret-2\"]");
    let ticket = answered["ticket"].as_str().expect("a ticket");
    let inspected = answer(&system, "admin", &["ticket", "inspect"], ticket);
    assert_eq!(inspected["account"], r"DEV\user");
}

#[test]
fn what_an_administrator_sets_is_shown() {
    let system = System::start(Database::Sqlite);
    let update = ["system", "update", "--auditors", r"DEV\user", "--tickets-validated", "no"];
    let info = system.sso_json("admin", &update);
    assert_eq!(
        (&info["auditors"][0], &info["tickets_validated"]),
        (&json!(r"DEV\user"), &json!(false))
    );
    let status = system.sso_json("user", &["status"]);
    assert_eq!(status["caller"]["auditor"], true);
    assert_eq!(status["caller"]["source"], "certificate");
    let name = status["server"].as_str().expect("a name");
    let set = ["server", "set", name, "--remote-lookup", "no", "--positive-audit-level", "3"];
    let settings = system.sso_json("admin", &set);
    assert_eq!(settings["remote_lookup"], false);
    let shown = system.sso_json("admin", &["server", "show", name]);
    assert_eq!(shown, settings);
    let unknown = refused(&system, "admin", &["server", "show", "nowhere"], "");
    assert_eq!(unknown, (1, "SERVER_NOT_FOUND".into()));

    mainframe(&system);
    let update = ["app", "update", APP, "--one-time-tickets", "yes", "--ticket-timeout", "7"];
    let application = system.sso_json("admin", &update);
    assert_eq!(application["flags"]["one_time_tickets"], true);
    assert_eq!(application["ticket_timeout"], 7);
    for (kind, name) in [("config-store", "Stored"), ("host-group", "Hosted"), ("group", "Grouped")]
    {
        let users = match kind {
            "host-group" => ["--windows-account", r"DEV\user"],
            _ => ["--users", r"DEV\Application Users"],
        };
        let create = ["app", "create", name, "--type", kind, "--field", "Password:masked"];
        let _ = system.sso_ok("affiliate-admin", &[&create[..], &users].concat());
        let shown = system.sso_json("affiliate-admin", &["app", "show", name]);
        assert_eq!(shown["type"], kind, "as it is written");
    }
    let protected =
        refused(&system, "app-admin", &["app", "update", APP, "--allow-tickets", "yes"], "");
    assert_eq!(protected, (77, "TICKET_FLAGS_PROTECTED".into()));
}
