//! Promise 1: a marker in every secret field of every message, then everything that the processes
//! leave behind is searched for it.

use std::{collections::HashSet, fs, process::Output};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use sso_tests::{everywhere::on_each_database, system::System};

const MARKER: &str = "canary-7f3a91c2";

/// The secret, and how it would look in hexadecimal, in base64 at each offset, and as JSON numbers.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
    forms.extend([numbers.join(", "), numbers.join(",")]);
    for offset in 0..3 {
        let bytes = [&[0; 3][..offset], secret.as_bytes()].concat();
        // Of the digits only those whose six bits are all of the secret.
        let digits = (offset * 8).div_ceil(6)..bytes.len() * 8 / 6;
        forms.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|alphabet| {
            let text = alphabet.encode(&bytes);
            text[digits.clone()].to_owned()
        }));
    }
    forms
}

fn holds(content: &[u8], secret: &str) -> bool {
    let within = |form: &String| content.windows(form.len()).any(|it| it == form.as_bytes());
    forms(secret).iter().any(within)
}

fn assert_clean(what: &str, content: &[u8]) {
    assert!(!holds(content, MARKER), "{what} holds the marker");
}

#[test]
fn the_search_finds_what_it_looks_for() {
    for offset in 0..3 {
        let around = format!("{}{MARKER}behind", "before".split_at(offset).0);
        for text in [STANDARD.encode(&around), format!("{:?}", around.as_bytes()), around] {
            assert!(holds(text.as_bytes(), MARKER), "{text}");
        }
    }
    assert!(!holds(b"canary-7f3a91c", MARKER));
}

fn write(system: &System, identifier: &str, values: &str) -> Output {
    let set = ["config", "set", "Canary", identifier, "--values", "-"];
    system.sso_with_input("app-admin", &set, values)
}

#[test]
fn no_secret_is_left_in_anything_the_processes_leave_behind() {
    on_each_database(|system, _| {
        system.create_application("Canary", &["Open", "Closed:masked"]);
        let both = format!(r#"{{"Open":"{MARKER}","Closed":"{MARKER}-2"}}"#);
        assert!(write(system, "One", &both).status.success());
        assert!(write(system, "One", &both).status.success());
        let _ =
            system.sso_ok("app-admin", &["config", "rollback", "Canary", "One", "--revision", "1"]);

        // The secret reaches who may have it, so that the search below can fail.
        let revealed = system.sso_ok("user", &["config", "get", "Canary", "One", "--reveal"]);
        assert!(revealed.contains(MARKER));
        let kept = system.sso_ok("app-admin", &["config", "get", "Canary", "One", "Open"]);
        assert_eq!(kept.trim(), MARKER);

        // Requests with the secret that are refused for every kind of reason.
        let long = "x".repeat(70_000);
        for (who, identifier, values) in [
            ("host", "One", both.clone()),
            ("app-admin", "Two", format!(r#"{{"Closed":"{MARKER}"}}"#)),
            ("app-admin", "Two", format!(r#"{{"Nothing":"{MARKER}"}}"#)),
            ("app-admin", "Two", format!(r#"{{"Open":"{MARKER}","Closed":"{MARKER}{long}"}}"#)),
            ("app-admin", "Two", format!(r#"{{"Open":["{MARKER}"]}}"#)),
            ("app-admin", "Two", format!(r#"{{"Open":"{MARKER}""#)),
            ("app-admin", "bad\tname", both.clone()),
        ] {
            let set = ["config", "set", "Canary", identifier, "--values", "-"];
            let output = system.sso_with_input(who, &set, &values);
            assert!(!output.status.success(), "{who} {identifier}");
            assert_clean("standard output of a refusal", &output.stdout);
            assert_clean("standard error of a refusal", &output.stderr);
        }
        let stale = ["config", "set", "Canary", "One", "--values", "-", "--if-revision", "1"];
        let output = system.sso_with_input("app-admin", &stale, &both);
        assert_clean("standard error of a refusal", &output.stderr);

        let audit = system.sso_ok("admin", &["audit", "list", "--output", "json"]);
        assert!(audit.contains("configuration.reveal"));
        search(system, &HashSet::from([MARKER.to_owned()]));
    });
}

/// Credentials, tickets, tokens and assertions: what an answer gives is a secret as well.
#[test]
fn no_credential_ticket_or_token_is_left_in_anything_the_processes_leave_behind() {
    on_each_database(|system, runtime| {
        let mut secrets = HashSet::from([MARKER.to_owned()]);
        runtime.block_on(async {
            use sso_client::{LogonRequest, MappingKey, NewMapping, SecretText, v1};
            let secret = || vec![SecretText::new(format!("{MARKER}-password"))];
            let (admin, user) = (system.client("admin"), system.client("user"));
            let (administrator, host) = (system.client("app-admin"), system.client("host"));
            let on = v1::GlobalInfo {
                tickets_allowed: true,
                host_initiated_allowed: true,
                ..Default::default()
            };
            let paths = ["tickets_allowed", "host_initiated_allowed"];
            admin.system().update(on, &paths).await.expect("switched on");
            let field = |ordinal, label: &str| v1::Field {
                ordinal,
                label: label.into(),
                masked: ordinal > 0,
                ..Default::default()
            };
            let application = v1::Application {
                name: "Canary".into(),
                r#type: v1::ApplicationType::Individual.into(),
                user_accounts: vec!["DEV\\Application Users".into()],
                administrator_accounts: vec![
                    "DEV\\Application Administrators".into(),
                    "DEV\\Integration Hosts".into(),
                ],
                fields: vec![field(0, "User"), field(1, "Password")],
                enabled: true,
                allow_tickets: Some(true),
                host_initiated: Some(true),
                ..Default::default()
            };
            admin.applications().create(application).await.expect("an application");
            let mut mapping = NewMapping {
                application: "Canary".into(),
                account: "DEV\\user".into(),
                external_user: "USR01".into(),
                credentials: Some(secret()),
                enable: true,
            };
            administrator.mappings().create(&mapping).await.expect("a mapping");
            administrator.mappings().create(&mapping).await.expect_err("it exists");
            mapping.account = "DEV\\nobody".into();
            let batch = [mapping];
            administrator.mappings().create_batch(&batch, false).await.expect("outcomes");
            let own = MappingKey::own("Canary");
            user.mappings().set_credentials(&own, &secret(), None).await.expect("set");
            let two = [secret(), secret()].concat();
            user.mappings().set_credentials(&own, &two, None).await.expect_err("one too many");
            host.mappings()
                .set_credentials(&MappingKey::own("Nowhere"), &two, None)
                .await
                .expect_err("nowhere");
            let found = user.lookup().credentials("Canary", true).await.expect("credentials");
            assert!(found.values[0].expose().contains(MARKER), "the search below can fail");

            // A ticket is as good as the credentials it is redeemed for.
            let issued = user.tickets().issue(None, None).await.expect("a ticket").ticket;
            secrets.insert(issued.expose().to_owned());
            let tickets = host.tickets();
            tickets.redeem("Canary", &issued, Some("DEV\\user"), false).await.expect("redeemed");
            tickets.redeem("Canary", &issued, Some("DEV\\host"), false).await.expect_err("sender");
            tickets.redeem("Nowhere", &issued, None, false).await.expect_err("nowhere");
            user.tickets().inspect(&issued).await.expect("its own");
            administrator.tickets().inspect(&issued).await.expect_err("of another");
            let token = SecretText::new(format!("eyJhbGciOiJFUzI1NiJ9.{MARKER}.{MARKER}"));
            host.tickets().issue(None, Some(&token)).await.expect_err("no token");
            user.tickets().issue(None, Some(&token)).await.expect_err("no trusted host");
            let broken = SecretText::new(format!("sso1.{MARKER}"));
            tickets.redeem("Canary", &broken, None, false).await.expect_err("no ticket");

            let mut logon = LogonRequest {
                application: "Canary".into(),
                external_user: "USR01".into(),
                credentials: Some(secret()),
                ..Default::default()
            };
            let lookup = administrator.lookup();
            let done = lookup.logon_external_user(&logon).await.expect("logged on");
            let given = [done.ticket, done.assertion];
            secrets.extend(given.into_iter().flatten().map(|it| it.expose().to_owned()));
            logon.credentials = Some(vec![SecretText::new(format!("{MARKER}-wrong"))]);
            lookup.logon_external_user(&logon).await.expect_err("wrong credentials");
        });
        let audit = system.sso_ok("admin", &["audit", "list", "--output", "json"]);
        for action in ["credentials.reveal", "ticket.issue", "ticket.redeem", "credentials.logon"] {
            assert!(audit.contains(action), "{action}");
        }
        search(system, &secrets);
    });
}

/// Searches everything that a system leaves behind, running and stopped, for each of the secrets.
fn search(system: &mut System, secrets: &HashSet<String>) {
    let assert_clean = |what: &str, content: &[u8]| {
        assert!(!secrets.iter().any(|secret| holds(content, secret)), "{what} holds a secret");
    };
    for (name, pid) in [("server", system.server(1).id()), ("master", system.master().id())] {
        for file in ["cmdline", "environ"] {
            let content = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert_clean(&format!("{file} of the {name}"), &content);
        }
    }
    let operations = system.operations(1);
    for path in ["metrics", "readyz"] {
        let content = sso_tests::raw::page(operations, path);
        assert!(!content.is_empty());
        assert_clean(path, &content);
    }
    let audit = system.sso_ok("admin", &["audit", "list", "--output", "json"]);
    assert_clean("the audit", audit.as_bytes());
    for table in [
        "system",
        "applications",
        "application_accounts",
        "fields",
        "configurations",
        "configuration_revisions",
        "mappings",
        "redeemed_tickets",
        "principals",
        "server_settings",
        "audit",
        "changes",
        "servers",
    ] {
        assert_clean(&format!("table {table}"), &dump(system, table));
    }
    system.stop_server(1);
    system.stop_master();
    let files = system.files();
    assert!(files.iter().any(|(path, _)| path.ends_with("sso-server-1.log")));
    for (path, content) in &files {
        assert_clean(&path.display().to_string(), content);
    }
    // What unlocks the master secret and its backup stands in one file each.
    for own in ["master.passphrase", "backup.passphrase"] {
        let passphrase = fs::read_to_string(system.folder().join(own)).expect("a passphrase");
        for (path, content) in files.iter().filter(|(path, _)| !path.ends_with(own)) {
            assert!(!holds(content, passphrase.trim()), "{} holds {own}", path.display());
        }
    }
}

/// Every column of every row, as text and as bytes.
fn dump(system: &System, table: &str) -> Vec<u8> {
    use sqlx::{Connection as _, Row as _};
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        sqlx::any::install_default_drivers();
        let url = sso_tests::raw::database_url(system);
        let mut database = sqlx::AnyConnection::connect(&url).await.expect("the database");
        let statement = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"));
        let rows = sqlx::query(statement).fetch_all(&mut database).await.expect("rows");
        let mut content = Vec::new();
        for row in rows {
            for column in 0..row.len() {
                if let Ok(text) = row.try_get::<String, _>(column) {
                    content.extend(text.into_bytes());
                } else if let Ok(bytes) = row.try_get::<Vec<u8>, _>(column) {
                    content.extend(bytes);
                }
                content.push(b'\n');
            }
        }
        content
    })
}
