//! Stories that old scripts tell.

use sso_client::SecretText;

use super::{
    Desk,
    documents::{ADAPTER, APPLICATIONS, MAPPINGS, UPDATE, mappings},
    ended,
};

const SECRET: &str = "canary-7f31";

/// Applications, mappings and credentials from files and standard input; a user gets what was set.
#[test]
fn an_administrator_sets_up_and_a_user_signs_on() {
    let desk = Desk::open();
    let apps = desk.file("apps.xml", APPLICATIONS);
    let created = desk.ok("admin", &["ssomanage", "-createapps", &apps]);
    assert!(created.contains("Application 'Batch' created.\n"), "{created}");
    assert!(created.contains("4 applications created, 0 failed."), "{created}");
    let listed = desk.ok("app-admin", &["ssomanage", "/LISTAPPS"]);
    assert!(listed.contains("(E) Payroll : Payroll on the mainframe : payroll-ops"), "{listed}");
    assert!(!listed.contains("Routing.Settings"), "{listed}");
    let listed = desk.ok("app-admin", &["ssomanage", "-listapps", "ALL"]);
    assert!(listed.contains("(E) Routing.Settings\n"), "{listed}");

    let file = desk.file("mappings.xml", &mappings(&MAPPINGS));
    let text = desk.ok("app-admin", &["ssomanage", "-createmappings", &file]);
    assert!(text.contains("4 mappings created, 0 failed."), "{text}");
    let text = desk.ok("app-admin", &["ssomanage", "-listmappings", "Batch"]);
    assert!(text.contains(r"(D) DEV\user : Batch : JOB001 : no credentials"), "{text}");
    let text = desk.ok("affiliate-admin", &["ssomanage", "-listmappings", r"DEV\user"]);
    assert_eq!(text.lines().filter(|line| line.starts_with('(')).count(), 3, "{text}");
    let text = desk.ok("app-admin", &["ssomanage", "-listmappings", r"dev\USER", "payroll"]);
    assert!(text.contains(": USR01") && !text.contains("JOB001"), "{text}");

    let line = ["ssomanage", "-setcredentials", r"DEV\user", "Payroll"];
    let set = desk.run("app-admin", &line, &format!("{SECRET}\r\n"));
    assert_eq!((set.code, set.body()), (0, "Credentials set.\n\n"), "{set}");
    assert!(!format!("{set}").contains(SECRET));
    let _ = desk.ok("app-admin", &["ssomanage", "-enablemapping", r"DEV\user", "Payroll"]);
    assert_eq!(looked_up(&desk, "user", "Payroll"), ("USR01".to_owned(), vec![SECRET.to_owned()]));

    // Host group: the external account is the key, and a missing mapping is created and enabled.
    let line = ["ssomanage", "-setcredentials", "JOB003", "Batch"];
    let text = desk.ok_with("app-admin", &line, "jobpass\n");
    assert!(text.contains("Mapping to 'JOB003' created and enabled."), "{text}");
    let _ = desk.ok("app-admin", &["ssomanage", "-disablemapping", "JOB003", "Batch"]);
    let text = desk.ok("app-admin", &["ssomanage", "-listmappings", "JOB003", "Batch"]);
    assert!(text.contains(r"(D) DEV\user : Batch : JOB003"), "{text}");
    let _ = desk.ok("app-admin", &["ssomanage", "-deletemapping", "JOB003", "Batch"]);

    // A second time, what is there is reported by its line, and the rest of the file goes on.
    let rows = [MAPPINGS[0], (r"DEV\host", "Payroll", "HST01"), MAPPINGS[1]];
    let file = desk.file("again.xml", &mappings(&rows));
    let ran = desk.run("app-admin", &["ssomanage", "-createmappings", &file], "");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stdout.contains("1 mappings created, 2 failed."), "{ran}");
    assert!(ran.stderr.contains(r"line 2: DEV\user : Payroll : USR01: "), "{ran}");
    assert!(ran.stderr.contains("(0xC0002B25, MAPPING_EXISTS)"), "{ran}");
    assert!(ran.stderr.contains("line 14: "), "{ran}");
    let _ = desk.ok("app-admin", &["ssomanage", "-deletemappings", &file]);
    let text = desk.ok("app-admin", &["ssomanage", "-listmappings", "Payroll"]);
    assert_eq!(text, "\n", "none is left");
}

fn looked_up(desk: &Desk, who: &str, application: &str) -> (String, Vec<String>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(async {
        let client = desk.system.client(who);
        client.lookup().credentials(application, false).await.expect("credentials")
    });
    // Expose: compared with what the test wrote.
    let values = found.values.iter().map(|value: &SecretText| value.expose().to_owned());
    (found.external_user.clone(), values.collect())
}

#[test]
fn a_user_has_only_the_own_identity() {
    let desk = Desk::open();
    let apps = desk.file("apps.xml", APPLICATIONS);
    let _ = desk.ok("admin", &["ssomanage", "-createapps", &apps]);
    for (who, seen) in [("user", true), ("app-admin", false)] {
        let text = desk.ok(who, &["ssoclient", "-listapps"]);
        assert_eq!(text.contains("(E) Payroll"), seen, "{who}: {text}");
        assert!(!text.contains("Routing.Settings"), "{text}");
    }
    let text = desk.ok("user", &["ssoclient", "-displayapp", "Payroll"]);
    assert!(text.contains("(only administrators see this)"), "{text}");

    // The mapping is missing, so the external user is asked for first.
    let line = ["ssoclient", "-setcredentials", "Payroll"];
    let text = desk.ok_with("user", &line, &format!("USR77\n{SECRET}\n"));
    assert!(text.contains("Mapping to 'USR77' created and enabled.\nCredentials set."), "{text}");
    let _ = desk.ok_with("user", &line, "second\n");
    assert_eq!(looked_up(&desk, "user", "Payroll"), ("USR77".into(), vec!["second".into()]));
    let short = desk.run("user", &line, "");
    assert_eq!(short.code, 2, "{short}");
    assert!(short.stderr.contains("0 lines were given; the mapping exists, so 1 is"), "{short}");
    assert!(short.stderr.contains("RACF password"), "{short}");
    // A script that runs twice: the external user must not become the password.
    let long = desk.run("user", &line, "another\nthird\n");
    assert_eq!(long.code, 2, "{long}");
    assert!(long.stderr.contains("2 lines were given; the mapping exists, so 1 is"), "{long}");
    assert_eq!(looked_up(&desk, "user", "Payroll"), ("USR77".into(), vec!["second".into()]));
    let _ = desk.ok_with("user", &line, "USR77\nthird\n");
    assert_eq!(looked_up(&desk, "user", "Payroll"), ("USR77".into(), vec!["third".into()]));

    let text = desk.ok("user", &["ssoclient", "-listmappings"]);
    assert!(text.starts_with(r"(E) DEV\user : Payroll : USR77"), "{text}");
    let _ = desk.ok("user", &["ssoclient", "-disablemapping", "Payroll"]);
    let _ = desk.ok("user", &["ssoclient", "-enablemapping", "Payroll"]);
    // What an administrator disables, the user cannot enable.
    let _ = desk.ok("app-admin", &["ssomanage", "-disablemapping", r"DEV\user", "Payroll"]);
    let ran = desk.refused("user", &["ssoclient", "-enablemapping", "Payroll"], 1);
    assert!(ran.stderr.contains("Error code: 0xC0002A12, MAPPING_DISABLED_BY_"), "{ran}");
    // Nor delete it, to make it anew.
    let _ = desk.refused("user", &["ssoclient", "-deletemapping", "Payroll"], 1);
    let _ = desk.ok("app-admin", &["ssomanage", "-enablemapping", r"DEV\user", "Payroll"]);
    let _ = desk.ok("user", &["ssoclient", "-deletemapping", "Payroll"]);
    assert_eq!(desk.ok("user", &["ssoclient", "-listmappings"]), "\n");

    // Another identity has no place on the line, and the switches of administrators refuse a user.
    let _ = desk.refused("user", &["ssoclient", "-deletemapping", r"DEV\host", "Payroll"], 2);
    let ran = desk.refused("user", &["ssomanage", "-deleteapp", "Payroll"], 77);
    assert!(ran.stderr.contains("NOT_AFFILIATE_ADMINISTRATOR"), "{ran}");
    // Whether an application exists is not for everybody to know.
    let _ = desk.refused("user", &["ssoclient", "-displayapp", "Nowhere"], 77);
    let ran = desk.refused("admin", &["ssoclient", "-displayapp", "Nowhere"], 1);
    assert!(ran.stderr.contains("0xC0002A04, APPLICATION_NOT_FOUND, request "), "{ran}");
}

#[test]
fn what_a_file_cannot_ask_for_is_said_and_the_rest_is_done() {
    let desk = Desk::open();
    let file = desk.file("adapter.xml", ADAPTER);
    let ran = desk.run("admin", &["ssomanage", "-createapps", &file], "");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("password synchronisation is not part of this version"), "{ran}");
    assert!(ran.stdout.contains("Application 'Other' created."), "{ran}");

    let file = desk.file("apps.xml", APPLICATIONS);
    let _ = desk.ok("admin", &["ssomanage", "-createapps", &file]);
    let file = desk.file("update.xml", UPDATE);
    let ran = desk.run("admin", &["ssomanage", "-updateapps", &file], "");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("flag 'groupApp' cannot change"), "{ran}");
    assert!(ran.stderr.contains("WARNING: ") && ran.stderr.contains("0xC0002946"), "{ran}");
    let text = desk.ok("app-admin", &["ssomanage", "-displayapp", "payroll"]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Application name : Payroll",
        "Description : Payroll, in production",
        "Ticket timeout : 30 minutes",
        r"Application users account : DEV\Application Users;DEV\host",
        "disableCredCache : yes",
        "allowTickets : yes",
        "Field 1 : RACF password, masked",
    ] {
        assert!(words.contains(part), "{part}: {text}");
    }
    let file = desk.file("broken.xml", "<sso>\n  <application/></sso>");
    let ran = desk.refused("admin", &["ssomanage", "-createapps", &file], 2);
    assert!(ran.stderr.contains("line 2, column 3: "), "{ran}");
    let ran = desk.refused("admin", &["ssomanage", "-createapps", "/nowhere/x.xml"], 1);
    assert!(ran.stderr.contains("/nowhere/x.xml"), "{ran}");
}

/// What is exported creates the same applications again.
#[test]
fn an_export_takes_the_way_round() {
    let desk = Desk::open();
    let apps = desk.file("apps.xml", APPLICATIONS);
    let _ = desk.ok("admin", &["ssomanage", "-createapps", &apps]);
    let names = ["Payroll", "Warehouse", "Batch", "Routing.Settings"];
    let export = || {
        let arguments: Vec<_> = ["app", "export"].into_iter().chain(names).collect();
        desk.system.sso_ok("admin", &arguments)
    };
    let first = export();
    for name in names {
        let text = desk.ok("affiliate-admin", &["ssomanage", "-deleteapp", name]);
        assert!(text.contains("deleted."), "{text}");
    }
    let file = desk.file("exported.xml", &first);
    let _ = desk.ok("admin", &["ssomanage", "-createapps", &file]);
    assert_eq!(export(), first);
}

/// The documents of the repository's own reader tests, as they are: every type, older spellings, the
/// shapes of the manual.
#[test]
fn documents_load_as_they_are() {
    let desk = Desk::open();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../sso-client/tests/data");
    let path = |name: &str| format!("{data}/{name}.xml");
    for (name, count) in [
        ("1-individual-app", 1),
        ("2-group-app", 1),
        ("3-host-initiated-apps", 2),
        ("4-config-store-app", 1),
        ("manual/create-individual", 1),
        ("manual/create-older", 1),
        ("manual/host-group-by-user-account", 1),
        ("manual/individual-host-only", 1),
        ("manual/name-with-a-space", 1),
        ("manual/older-spellings", 1),
    ] {
        let text = desk.ok("admin", &["ssomanage", "-createapps", &path(name)]);
        assert!(text.contains(&format!("{count} application")), "{name}: {text}");
    }
    for name in ["extra/update-app", "manual/update"] {
        let _ = desk.ok("admin", &["ssomanage", "-updateapps", &path(name)]);
    }
    let text = desk.ok("admin", &["ssomanage", "-displayapp", "TideTables"]);
    assert!(text.contains(r"NORTHWIND\svc-tides") && text.contains("host-group"), "{text}");
    let _ = desk.ok("admin", &["ssomanage", "-updatedb", &path("6-global-info")]);
    // It changes who administers, which is for a system that is disabled.
    let misspelt = path("manual/global-info-misspelt");
    let ran = desk.refused("admin", &["ssomanage", "-updatedb", &misspelt], 1);
    assert!(ran.stderr.contains("SYSTEM_NOT_DISABLED"), "{ran}");
    let adapter = path("extra/password-sync-adapter");
    let ran = desk.refused("admin", &["ssomanage", "-createapps", &adapter], 1);
    assert!(ran.stderr.contains("password synchronisation"), "{ran}");
    // Mappings of a group are accepted as they are; what becomes of users is up to who knows them.
    let ran = desk.run("admin", &["ssomanage", "-createmappings", &path("5-mappings")], "");
    assert!(ran.stdout.contains("mappings created"), "{ran}");
    let listed = desk.ok("admin", &["ssomanage", "-listmappings", "WarehouseErp"]);
    assert!(listed.contains(r"CONTOSO\WarehouseLeads : WarehouseErp : WHLEAD"), "{listed}");
    let listed = desk.ok("admin", &["ssomanage", "-listmappings", "BatchJobsToFileShare"]);
    assert!(listed.contains("JOBA001") && listed.contains("JOBA002"), "{listed}");
}

/// Elements that are there are applied; the master secret server is not among what a file moves.
#[test]
fn a_file_that_names_the_master_secret_server_is_applied_without_it() {
    let desk = Desk::open();
    let file = |name: &str, elements: &str| {
        desk.file(name, &format!("<sso><globalInfo>{elements}</globalInfo></sso>"))
    };
    let timeouts = "<secretServer>keyhost</secretServer><auditDeletedApps>500</auditDeletedApps>\
        <ticketTimeout>7</ticketTimeout><credCacheTimeout>20</credCacheTimeout>";
    let timeouts = file("timeouts.xml", timeouts);
    let before = desk.system.sso_json("admin", &["system", "info"]);
    let ran = desk.run("admin", &["ssomanage", "-updatedb", &timeouts], "");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.body().contains("ticketTimeout") && !ran.body().contains("secret"), "{ran}");
    assert!(ran.stderr.starts_with("WARNING: <secretServer> is left out"), "{ran}");
    assert!(ran.stderr.contains("[master] url") && ran.stderr.contains("'keyhost'"), "{ran}");
    let after = desk.system.sso_json("admin", &["system", "info"]);
    assert_eq!(
        (&after["ticket_timeout"], &after["credential_cache_timeout"]),
        (&7.into(), &20.into())
    );
    assert_eq!(after["secret_server"], before["secret_server"]);

    // Those who administer too, while the system is disabled.
    let accounts = r"<ssoAdminAccount>DEV\SSO Administrators</ssoAdminAccount>
        <secretServer>keyhost</secretServer>";
    let accounts = file("accounts.xml", accounts);
    let _ = desk.ok("admin", &["ssomanage", "-disablesso"]);
    let output = desk.system.sso("admin", &["system", "update", "--file", &accounts]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("<secretServer> is left out"), "{said}");
    let _ = desk.ok("admin", &["ssomanage", "-enablesso"]);

    let alone = file("alone.xml", "<secretServer>keyhost</secretServer>");
    let ran = desk.refused("admin", &["ssomanage", "-updatedb", &alone], 1);
    assert!(
        ran.stderr.contains("master secret server") && ran.stderr.contains("[master] url"),
        "{ran}"
    );
    let output = desk.system.sso("admin", &["system", "update", "--file", &alone]);
    assert_eq!(output.status.code(), Some(1));
}

/// The user's server goes before the machine's, a profile before both.
#[test]
fn servers_are_remembered() {
    let desk = Desk::open();
    let addr = desk.system.profile("user").addr;
    // The same profiles, without addresses.
    let profiles = desk.system.installation().profiles();
    let text = std::fs::read_to_string(&profiles).expect("profiles");
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("addr")).collect();
    let without = profiles.with_file_name("without-addresses.toml");
    std::fs::write(&without, text.join("\n")).expect("profiles");
    let plain = |tool: &str, arguments: &[&str]| {
        let mut command = desk.command("user", tool);
        command.args(arguments).env("SSO_CONFIG", &without);
        ended(format!("{tool} {arguments:?}"), command, "")
    };
    let ran = plain("ssomanage", &["-listapps"]);
    assert_eq!(ran.code, 64, "nobody says where the server is: {ran}");
    let ran = plain("ssomanage", &["-serverall", "https://all.example:7400"]);
    assert_eq!(ran.code, 0, "{ran}");
    let ran = plain("ssomanage", &["-server", "elsewhere"]);
    assert!(ran.stdout.contains("Your SSO server is https://elsewhere:7400"), "{ran}");
    let ran = plain("ssoclient", &["-showserver"]);
    assert!(ran.stdout.starts_with("Using SSO server: https://elsewhere:7400\n"), "{ran}");
    assert!(ran.stdout.contains("SSO server of all users : https://all.example:7400"), "{ran}");
    let ran = plain("ssoclient", &["-server", &addr]);
    assert_eq!(ran.code, 0, "{ran}");
    let written = std::fs::read_to_string(desk.remembered("user").join("sso/server"));
    assert_eq!(written.expect("the file").trim(), addr);
    assert_eq!(plain("ssoclient", &["-listapps"]).body(), "\n");
    // `sso` goes there too.
    let mut status = desk.system.command("user");
    status
        .args(["status", "-o", "json"])
        .env("SSO_CONFIG", &without)
        .env("XDG_CONFIG_HOME", desk.remembered("user"));
    let ran = ended("sso status".to_owned(), status, "");
    assert!(ran.code == 0 && ran.stdout.contains(&addr), "{ran}");

    let ran = desk.run("user", &["ssoclient", "-server", "elsewhere"], "");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("goes before it"), "{ran}");
    let ran = desk.refused("user", &["ssoclient", "-server", "http://plain.example:1"], 2);
    assert!(ran.stderr.contains("Usage: ssoclient -server SERVER"), "{ran}");
}
