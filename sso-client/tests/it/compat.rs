//! The tools of the reference product, against a service that does what a test tells it.

use sso_client::v1::mapping_key::Side;
use sso_proto::Reason;

use crate::{
    cli::{sso, sso_with},
    fake::{Answer, Fake},
};

fn tool<'a>(line: &[&'a str]) -> Vec<&'a str> {
    [&["compat"], line].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_goes_in_batches_and_a_refusal_names_its_line() {
    let fake = Fake::start().await;
    let mut file = String::from("<sso>\n");
    for number in 0..2500 {
        let prefix = if number == 1200 { "BAD" } else { "U" };
        file.push_str(&format!(
            "<mapping><windowsDomain>D</windowsDomain><windowsUserId>u{number}</windowsUserId>\
             <externalApplication>App</externalApplication>\
             <externalUserId>{prefix}{number}</externalUserId></mapping>\n"
        ));
    }
    file.push_str("</sso>\n");
    let ran = sso_with(&fake, &file, &tool(&["ssomanage", "-createmappings", "-"])).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains("2499 mappings created, 1 failed."), "{}", ran.stdout);
    assert!(!ran.stdout.contains("completed successfully"), "{}", ran.stdout);
    assert!(ran.stderr.contains(r"line 1202: D\u1200 : App : BAD1200: "), "{}", ran.stderr);
    let batches = fake.state.asked.batches.lock().unwrap().clone();
    assert_eq!(batches, [(500, false); 5]);
    assert!(fake.state.asked.created.lock().unwrap().iter().all(|one| !one.enable));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_says_how_many_were_not_done() {
    let fake = Fake::start().await;
    fake.answer(Answer::Refuse(Reason::DatabaseUnavailable));
    let file = "<sso><mapping><windowsDomain>D</windowsDomain><windowsUserId>u</windowsUserId>\
        <externalApplication>App</externalApplication><externalUserId>U</externalUserId>\
        </mapping></sso>";
    for (switch, done) in [("-createmappings", "created"), ("-deletemappings", "deleted")] {
        let ran = sso_with(&fake, file, &tool(&["ssomanage", switch, "-"])).await;
        assert_eq!(ran.code, 69, "{}", ran.stderr);
        let counts = format!("0 mappings {done}, 0 failed, 1 not done.");
        assert!(ran.stdout.contains(&counts), "{}", ran.stdout);
        assert!(ran.stderr.contains("DATABASE_UNAVAILABLE"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_lines_and_go_nowhere_else() {
    let fake = Fake::start().await;
    let line = tool(&["ssomanage", "-setcredentials", r"DEV\user", "App"]);
    let ran = sso_with(&fake, "https://x\ncanary-11\n", &line).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.ends_with("\nThe operation completed successfully.\n"), "{}", ran.stdout);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("canary"));
    let set = fake.state.asked.credentials.lock().unwrap().take().unwrap();
    assert_eq!(set.credentials.as_ref().unwrap().values, ["https://x", "canary-11"]);
    assert_eq!(set.external_user, "", "the mapping is there");
    let side = set.key.as_ref().unwrap().side.clone();
    assert_eq!(side, Some(Side::Account(r"DEV\user".into())));

    let ran = sso_with(&fake, "canary-12\n", &line).await;
    assert_eq!(ran.code, 2, "a line is missing");
    assert!(ran.stderr.contains("ApiKey") && !ran.stderr.contains("canary"), "{}", ran.stderr);
    assert!(fake.state.asked.credentials.lock().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_those_of_sso() {
    let fake = Fake::start().await;
    for (reason, code) in [
        (Reason::NotSsoAdministrator, 77),
        (Reason::ApplicationNotFound, 1),
        (Reason::DatabaseUnavailable, 69),
    ] {
        fake.answer(Answer::Refuse(reason));
        let ran = sso(&fake, &tool(&["ssomanage", "-enablesso"])).await;
        assert_eq!(ran.code, code, "{}", ran.stderr);
        let number = reason.event().map(|event| format!("0x{:08X}, ", 0xC000_0000 | event));
        let expected = format!("Error code: {}{}", number.unwrap_or_default(), reason.as_str());
        assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    }
    fake.answer(Answer::Never);
    let ran = sso(&fake, &["--timeout", "200ms", "compat", "ssomanage", "-enablesso"]).await;
    assert_eq!(ran.code, 69, "{}", ran.stderr);
    let ran = sso(&fake, &tool(&["ssomanage", "-listapps", "-help"])).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.starts_with("Usage: ssomanage -listapps [all]\n"), "{}", ran.stdout);
}
