//! `sso mapping` as its own process.

use sso_client::v1::mapping_key::Side;
use sso_proto::Reason;

use crate::{
    cli::{json, sso, sso_with},
    fake::{Answer, Fake},
};

const FILE: &str = "<sso>\n\
    <mapping><windowsDomain>D</windowsDomain><windowsUserId>a</windowsUserId>\
    <externalApplication>Mainframe</externalApplication><externalUserId>A1</externalUserId></mapping>\n\
    <mapping><windowsDomain>D</windowsDomain><windowsUserId>b</windowsUserId>\
    <externalApplication>Mainframe</externalApplication><externalUserId>BAD1</externalUserId></mapping>\n\
    <mapping><windowsDomain>D</windowsDomain><windowsUserId>c</windowsUserId>\
    <externalApplication>Mainframe</externalApplication><externalUserId>C1</externalUserId></mapping>\n\
    </sso>";

#[tokio::test(flavor = "multi_thread")]
async fn one_with_credentials_from_standard_input() {
    let fake = Fake::start().await;
    let create = ["mapping", "create", "Mainframe", r"DEV\user", "HOST01"];
    let with = ["--values", "-", "--enable", "-o", "json"];
    let ran = sso_with(&fake, r#"["s3cret", "7"]"#, &[&create[..], &with].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["credentials_set"], true);
    let created = fake.state.asked.created.lock().unwrap().remove(0);
    assert_eq!(created.credentials.as_ref().unwrap().values, ["s3cret", "7"]);
    assert!(created.enable);
    let mapping = created.mapping.clone().unwrap();
    assert_eq!((mapping.account.as_str(), mapping.external_user.as_str()), (r"DEV\user", "HOST01"));

    let ran = sso(&fake, &create).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("disabled"), "{}", ran.stdout);
    let created = fake.state.asked.created.lock().unwrap().remove(0);
    assert!(created.credentials.is_none() && !created.enable);

    let object = r#"{"Password": "canary"}"#;
    let ran = sso_with(&fake, object, &[&create[..], &["--values", "-"]].concat()).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("JSON array") && !ran.stderr.contains("canary"), "{}", ran.stderr);
    let ran =
        sso_with(&fake, r#"["canary", 7]"#, &[&create[..], &["--values", "-"]].concat()).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("value 2 is a number; write it in quotes"), "{}", ran.stderr);
    assert!(fake.state.asked.created.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_after_a_refusal_and_names_its_line() {
    let fake = Fake::start().await;
    let create = ["mapping", "create", "--file", "-"];
    let ran = sso_with(&fake, FILE, &[&create[..], &["--enable", "-o", "json"]].concat()).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let summary = json(&ran.stdout);
    assert_eq!((&summary["created"], &summary["not_done"]), (&2.into(), &0.into()));
    assert_eq!(summary["refused"].as_array().unwrap().len(), 1);
    let refused = &summary["refused"][0];
    assert_eq!((&refused["line"], &refused["external_user"]), (&3.into(), &"BAD1".into()));
    assert_eq!(refused["reason"], Reason::ExternalUserMapped.as_str());
    assert_eq!(refused["event"], 11046);
    assert!(fake.state.asked.created.lock().unwrap().iter().all(|one| one.enable));

    let ran = sso_with(&fake, FILE, &create).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("BAD1") && ran.stdout.contains("EXTERNAL_USER_MAPPED"));
    assert!(ran.stdout.ends_with("2 created, 1 refused\n"), "{}", ran.stdout);

    let ran = sso_with(&fake, FILE, &[&create[..], &["--dry-run"]].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.ends_with("2 would be created, 1 refused\n"), "{}", ran.stdout);
    let batches = fake.state.asked.batches.lock().unwrap().clone();
    assert_eq!(batches, [(3, false), (3, false), (3, true)]);

    let ran = sso_with(&fake, FILE, &["mapping", "delete", "--file", "-"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.ends_with("2 deleted, 1 refused\n"), "{}", ran.stdout);
    assert_eq!(fake.state.asked.deleted.lock().unwrap()[0].account, r"D\a");

    let bad = FILE.replace("externalUserId", "externalUser");
    let ran = sso_with(&fake, &bad, &create).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("standard input: line 2, column"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_sent_in_parts() {
    let fake = Fake::start().await;
    let mappings: String = (0..1201)
        .map(|number| {
            format!(
                "<mapping><windowsDomain>D</windowsDomain><windowsUserId>u{number}</windowsUserId>\
                 <externalApplication>Mainframe</externalApplication>\
                 <externalUserId>{}{number}</externalUserId></mapping>\n",
                if number == 1200 { "BAD" } else { "X" }
            )
        })
        .collect();
    let file = fake.folder.path().join("mappings.xml");
    std::fs::write(&file, format!("<sso>\n{mappings}</sso>")).unwrap();
    let file = file.to_str().unwrap();
    let ran = sso(&fake, &["mapping", "create", "--file", file, "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let summary = json(&ran.stdout);
    assert_eq!(summary["created"], 1200);
    assert_eq!(summary["refused"][0]["line"], 1202, "of the last part");
    let sizes: Vec<_> = fake.state.asked.batches.lock().unwrap().iter().map(|one| one.0).collect();
    assert_eq!(sizes, [500, 500, 201]);

    fake.answer(Answer::Refuse(Reason::SystemDisabled));
    let ran = sso(&fake, &["mapping", "create", "--file", file, "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["not_done"], 1201);
    assert_eq!(json(&ran.stderr)["error"]["reason"], "SYSTEM_DISABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_and_one_of_them() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["mapping", "list", "Mainframe", "--orphaned", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["mappings"].as_array().unwrap().len(), 250, "all pages");
    let asked = fake.state.asked.listed.lock().unwrap().take().unwrap();
    assert_eq!((asked.application.as_str(), asked.orphaned), ("Mainframe", true));
    let ran = sso(&fake, &["mapping", "list"]).await;
    assert!(ran.stdout.contains("EXTERNAL USER") && ran.stdout.contains("X249"), "{}", ran.stdout);

    let key = || fake.state.asked.key.lock().unwrap().take().unwrap();
    for (arguments, side, state) in [
        (&["enable", "Mainframe"][..], None, "enabled"),
        (&["disable", "Mainframe", r"D\a"], Some(Side::Account(r"D\a".into())), "administrator"),
        (
            &["show", "Hosts", "--external-user", "J1"],
            Some(Side::ExternalUser("J1".into())),
            "enabled",
        ),
        (&["delete", "Mainframe", r"D\a"], Some(Side::Account(r"D\a".into())), "deleted"),
    ] {
        let ran = sso(&fake, &[&["mapping"], arguments].concat()).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.contains(state), "{arguments:?}: {}", ran.stdout);
        assert_eq!(key().side, side, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_be_read_back() {
    let fake = Fake::start().await;
    let ran = sso(&fake, &["mapping", "export", "Mainframe"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mappings = sso_client::xml::parse_mappings(ran.stdout.as_bytes()).unwrap();
    assert_eq!(mappings.len(), 250);
    assert_eq!(mappings[249].account, r"DEV\user249");
    assert_eq!(mappings[249].external_user, "X249");
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_credentials() {
    let fake = Fake::start().await;
    let set = ["mapping", "set-credentials"];
    let sent = || fake.state.asked.credentials.lock().unwrap().take().unwrap();
    for (arguments, side, create) in [
        (&["Mainframe"][..], None, ""),
        (&["Mainframe", r"D\a"], Some(Side::Account(r"D\a".into())), ""),
        (&["Mainframe", "--external-user", "NEW"], None, "NEW"),
        (
            &["Mainframe", r"D\a", "--external-user", "NEW"],
            Some(Side::Account(r"D\a".into())),
            "NEW",
        ),
        (&["Hosts", "--external-user", "JOB1"], Some(Side::ExternalUser("JOB1".into())), ""),
    ] {
        let arguments = [&set[..], arguments, &["--values", "-"]].concat();
        let ran = sso_with(&fake, r#"["p", "g"]"#, &arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        let request = sent();
        assert_eq!(request.credentials.as_ref().unwrap().values, ["p", "g"]);
        assert_eq!(request.key.as_ref().unwrap().side, side, "{arguments:?}");
        assert_eq!(request.external_user, create, "{arguments:?}");
        let created = ran.stdout.contains("created a mapping");
        assert_eq!(created, !create.is_empty(), "{}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generating_by_rules() {
    let fake = Fake::start().await;
    let generate = ["mapping", "generate", "Mainframe"];
    let with = |more: &[&'static str]| [&generate[..], more].concat();
    // Two users named Bo, in different domains.
    let ran = sso(&fake, &with(&[])).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains(r"clash: DEV\Bo gets the same name"), "{}", ran.stdout);
    assert!(fake.state.asked.created.lock().unwrap().is_empty(), "nothing is written");

    let rules = ["--domain", "lower", "--separator", ".", "--user", "upper", "--remove", "."];
    let file = fake.folder.path().join("generated.xml");
    let dry = ["--dry-run", "--write", file.to_str().unwrap(), "-o", "json"];
    let ran = sso(&fake, &[&generate[..], &rules, &dry].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan = json(&ran.stdout);
    assert_eq!(plan["mappings"][0]["external_user"], "dev.ANNASMITH");
    assert_eq!(plan["mappings"][3]["result"], "kept");
    assert_eq!(plan["mappings"][3]["mapped_to"], "X7");
    assert!(fake.state.asked.created.lock().unwrap().is_empty(), "nothing is written");
    let written = sso_client::xml::parse_mappings(&std::fs::read(file).unwrap()).unwrap();
    let names: Vec<_> = written.iter().map(|one| one.external_user.as_str()).collect();
    assert_eq!(names, ["dev.ANNASMITH", "dev.BO", "test.BO"], "without those that exist");

    let ran = sso(&fake, &[&generate[..], &rules].concat()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "3 created, 0 refused\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 account has a mapping"), "{}", ran.stderr);
    let created = std::mem::take(&mut *fake.state.asked.created.lock().unwrap());
    assert!(created.iter().all(|one| one.enable && one.credentials.is_none()));

    // Two fields beside field 0, so no password can be made.
    let password = ["--password", "external-user"];
    let ran = sso(&fake, &[&generate[..], &rules, &password].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("2 fields"), "{}", ran.stderr);
    let ran = sso(&fake, &["mapping", "generate", "Hosts"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("does not map single users"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_passwords() {
    let fake = Fake::start().await;
    let generate = ["mapping", "generate", "Terminal", "--domain", "as-is", "--no-enable"];
    let passwords = || -> Vec<String> {
        let created = std::mem::take(&mut *fake.state.asked.created.lock().unwrap());
        assert!(created.iter().all(|one| !one.enable));
        created.iter().map(|one| one.credentials.as_ref().unwrap().values.join("|")).collect()
    };
    let ran = sso(&fake, &[&generate[..], &["--password", "external-user"]].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(passwords(), ["DEVAnna.Smith", "DEVBo", "TESTBo"]);
    let rules = ["--password", "rules", "--password-user", "lower", "--password-append", "!"];
    let ran = sso(&fake, &[&generate[..], &rules].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(passwords(), ["anna.smith!", "bo!", "bo!"]);
    let prompt = [&generate[..], &["--password", "prompt"]].concat();
    let ran = sso_with(&fake, " first one\n", &prompt).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(passwords(), [" first one"; 3]);
    let ran = sso_with(&fake, "", &prompt).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}
