//! Certificates and revocation lists of running programs: loaded again by an administrator, by a signal
//! and by themselves, refused when they are not good enough, and shown.

use std::{fs, path::PathBuf, time::Duration};

use prost::Message as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::Value;
use sso_client::{
    certificates::{Authority, RevocationReason, Revoked, describe},
    development::Probe,
};
use sso_core::settings::write_private;
use sso_proto::{Reason, Refusal, v1};
use sso_tests::{
    list_server::{Answer, ListServer},
    raw,
    system::{Database, System, Timing, eventually},
};
use time::{Duration as Span, OffsetDateTime};
use tonic::Code;

const SOON: Duration = Duration::from_secs(60);
const RELOAD: [&str; 2] = ["server", "reload-tls"];

fn now() -> OffsetDateTime {
    sso_core::clock::Clock::System.now()
}

fn tls(system: &System) -> PathBuf {
    system.installation().tls_file("")
}

/// A certificate of the server that ends in this time, in the place of its own.
fn certificate_ends_in(system: &System, left: Span) {
    let read =
        |name: &str| fs::read_to_string(system.installation().tls_file(name)).expect("a file");
    let key = KeyPair::from_pem(&read("ca.key")).expect("the key of the authority");
    let authority = Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("the authority");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sso-server-1");
    params.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::URI("sso-server://sso-server-1".try_into().expect("a URI")),
    ];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (now() - Span::MINUTE, now() + left);
    let own = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&own, &authority).expect("a certificate");
    let file = |name: &str| system.installation().tls_file(name);
    write_private(&file("sso-server-1.key"), own.serialize_pem().as_bytes(), true)
        .expect("written");
    write_private(&file("sso-server-1.crt"), certificate.pem().as_bytes(), true).expect("written");
}

/// Puts the certificate of this name on the list of the authority.
fn revoke(system: &System, name: &str, number: u64) {
    let authority = Authority::load(&tls(system)).expect("the authority");
    let certificate = describe(&system.installation().tls_file(&format!("{name}.crt")));
    let certificate = certificate.expect("a certificate");
    let revoked = Revoked {
        serial: certificate.serial,
        time: now(),
        reason: RevocationReason::KeyCompromise,
        name: certificate.subject,
    };
    let list = authority.revocation_list(number, &[revoked], Span::days(30), now());
    list.expect("a list").write(&system.installation().tls_file("ca.crl")).expect("written");
}

fn status(system: &System) -> Value {
    system.sso_json("admin", &["status"])["tls"].clone()
}

fn page(system: &System, path: &str) -> String {
    String::from_utf8(raw::page(system.operations(1), path)).expect("UTF-8")
}

/// The value of a metric, whose name may end in labels.
fn metric(system: &System, name: &str) -> Option<f64> {
    let page = page(system, "metrics");
    page.lines().find_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        key.starts_with(name).then(|| value.parse().ok()).flatten()
    })
}

fn own(tls: &Value) -> &Value {
    let certificates = tls["certificates"].as_array().expect("certificates");
    certificates.iter().find(|it| it["role"] == "own").expect("the own one")
}

fn warnings(tls: &Value) -> String {
    tls["warnings"].to_string()
}

#[test]
fn an_administrator_has_files_loaded_again_and_sees_what_is_in_use() {
    let system = System::start(Database::Sqlite);
    let before = status(&system);
    assert_eq!(before["revocation"], "hard-fail");
    assert_eq!(before["minimum_version"], "1.3");
    assert_eq!(before["client_certificate_required"], true);
    assert_eq!(before["failure"], Value::Null);
    assert_eq!(before["warnings"], Value::Array(Vec::new()), "{before}");

    let reloaded = system.sso_json("admin", &RELOAD);
    assert_eq!(reloaded["name"], "sso-server-1");
    let after = &reloaded["tls"];
    assert!(after["loaded_at"].as_str() > before["loaded_at"].as_str(), "{after}");
    let certificate =
        describe(&system.installation().tls_file("sso-server-1.crt")).expect("its own");
    assert_eq!(own(after)["thumbprint_sha256"], certificate.thumbprint_sha256.as_str());
    assert_eq!(own(after)["subject"], "CN=sso-server-1");
    let list = &after["lists"][0];
    assert!(list["source"].as_str().is_some_and(|it| it.ends_with("tls/ca.crl")), "{list}");
    assert_eq!(list["problem"], Value::Null);
    assert!(list["next_update"].is_string());
    let table = system.sso_ok("admin", &RELOAD);
    for part in ["CN=sso-server-1", "ca.crl", "hard-fail"] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let reloaded = system.sso_json("admin", &["secret", "reload-tls"]);
    assert_eq!(reloaded["name"], "sso-master");
    assert_eq!(own(&reloaded["tls"])["subject"], "CN=sso-master");
    let of_master = system.sso_json("admin", &["secret", "status"])["tls"].clone();
    assert_eq!(own(&of_master), own(&reloaded["tls"]));
    assert_eq!(of_master["revocation"], "hard-fail");

    // Everybody else may neither do it nor see files.
    let denied = system.sso("user", &RELOAD);
    assert_eq!(denied.status.code(), Some(77), "{denied:?}");
    let seen = system.sso_json("user", &["status"])["tls"].clone();
    assert_eq!(own(&seen), own(after));
    assert_eq!((&seen["lists"], &seen["failure"]), (&Value::Array(Vec::new()), &Value::Null));
    let audit = system.sso_json("admin", &["audit", "list"]).to_string();
    assert!(audit.contains("server.reload-tls"), "{audit}");
    assert!(metric(&system, "sso_tls_last_reload_seconds").is_some());
    assert!(metric(&system, "sso_tls_certificate_expiry_seconds{role=\"own\"").is_some());
    assert!(metric(&system, "sso_tls_revocation_list_next_update_seconds").is_some());
    assert!(system.log_of_server(1).contains("event=11103"), "{}", system.log_of_server(1));
    assert!(system.log_of_master().contains("event=11103"), "{}", system.log_of_master());
}

#[test]
fn what_is_not_good_enough_is_refused_and_the_old_stays_in_use() {
    let system = System::start(Database::Sqlite);
    let before = own(&status(&system)).clone();
    let certificate = system.installation().tls_file("sso-server-1.crt");
    let good = fs::read(&certificate).expect("a certificate");
    let other = fs::read(system.installation().tls_file("sso-master.crt")).expect("another one");
    for (bad, why) in [(&b"no certificate"[..], "sso-server-1.crt"), (&other, "sso-server-1.key")] {
        fs::write(&certificate, bad).expect("written");
        let refused = system.sso("admin", &RELOAD);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("TLS_NOT_RELOADED") && text.contains(why), "{text}");
        let after = status(&system);
        assert_eq!(own(&after), &before);
        assert!(after["failure"].as_str().is_some_and(|it| it.contains(why)), "{after}");
        assert!(warnings(&after).contains(why), "{after}");
        assert!(page(&system, "readyz").contains(why));
        assert!(page(&system, "readyz").contains("\"ready\":true"));
    }
    let list = system.installation().tls_file("ca.crl");
    let good_list = fs::read(&list).expect("a list");
    fs::write(&certificate, good).expect("written");
    fs::write(&list, "no list").expect("written");
    // The profile has the same list, so that a caller without one asks.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let refused = runtime.block_on(async {
        let channel = raw::channel(&system, 1, "admin");
        raw::call(&channel, "/sso.v1.System/ReloadTls", Vec::new()).await
    });
    let refused = Refusal::from_status(&refused.expect_err("refused")).expect("a refusal");
    assert_eq!(refused.reason.as_str(), Reason::TlsNotReloaded.as_str());
    assert!(refused.message.contains("ca.crl"), "{refused:?}");
    assert!(metric(&system, "sso_tls_reload_failures_total").is_some_and(|it| it >= 3.0));
    assert!(system.log_of_server(1).contains("event=11104"));

    fs::write(&list, good_list).expect("written");
    let _ = system.sso_ok("admin", &RELOAD);
    let after = status(&system);
    assert_eq!((&after["failure"], &after["warnings"]), (&Value::Null, &Value::Array(Vec::new())));
}

#[test]
fn a_signal_and_the_change_of_a_file_do_the_same() {
    let mut system = System::start(Database::Sqlite);
    let before = own(&status(&system))["thumbprint_sha256"].clone();
    certificate_ends_in(&system, Span::days(60));
    let pid = i32::try_from(system.server(1).id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::HUP)
        .expect("the signal");
    let after = eventually("the new certificate", SOON, || {
        let now = own(&status(&system))["thumbprint_sha256"].clone();
        (now != before).then_some(now)
    });
    certificate_ends_in(&system, Span::days(60));
    let _ = eventually("the newest certificate", SOON, || {
        let now = own(&status(&system))["thumbprint_sha256"].clone();
        (now != after).then_some(now)
    });
}

#[test]
fn certificates_that_end_soon_are_told_of_everywhere() {
    let system = System::start(Database::Sqlite);
    for (left, threshold) in [(Span::days(20), 30), (Span::days(5), 7), (Span::hours(12), 1)] {
        certificate_ends_in(&system, left);
        let reloaded = system.sso_json("admin", &RELOAD)["tls"].clone();
        for told in [warnings(&reloaded), page(&system, "readyz")] {
            assert!(told.contains("sso-server-1"), "{threshold}: {told}");
        }
        let ends = metric(&system, "sso_tls_certificate_expiry_seconds{role=\"own\"");
        let expected = (now() + left).unix_timestamp() as f64;
        assert!(ends.is_some_and(|it| (it - expected).abs() < 600.0), "{ends:?} {expected}");
    }
    let log = system.log_of_server(1);
    assert_eq!(log.matches("event=11105").count(), 3, "{log}");
    // Warned of, and served all the same.
    let shown = system.sso("admin", &["status"]);
    let warned = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && warned.contains("sso-server-1"), "{warned}");
}

/// Promise 7 for certificates: who is revoked ends at once, also in the middle of a stream.
#[test]
fn the_open_connection_of_a_revoked_client_ends() {
    let system = System::start(Database::Sqlite);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let path = "/sso.v1.System/GetServerStatus";
        let message = || v1::GetServerStatusRequest {}.encode_to_vec();
        let (user, host) = (raw::channel(&system, 1, "user"), raw::channel(&system, 1, "host"));
        raw::call(&user, path, message()).await.expect("served");
        raw::call(&host, path, message()).await.expect("served");
        revoke(&system, "user", 2);
        let _ = system.sso_ok("admin", &RELOAD);
        let refused = raw::call(&user, path, message()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        assert!(refused.message().contains("CERTIFICATE_REVOKED"), "{refused:?}");
        raw::call(&host, path, message()).await.expect("served as before");
    });
    let refused = system.sso("user", &["status"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("revoked"), "{refused:?}");
    eventually("the reason in the log", SOON, || {
        system.log_of_server(1).contains("CERTIFICATE_REVOKED").then_some(())
    });
}

/// A list from an address: fetched before anybody is let in, shown, missed, and kept over a restart.
#[test]
fn lists_are_fetched_before_the_first_connection_and_kept() {
    let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
    let lists = ListServer::start();
    let file = system.installation().tls_file("ca.crl");
    lists.answer("/ca.crl", Answer::Content(fs::read(&file).expect("a list")));
    let settings = system.installation().server_settings(1);
    let text = fs::read_to_string(&settings).expect("settings");
    let with_url = format!("crl = \"{}\"\ncrl_cache = \"lists\"\n", lists.url("/ca.crl"));
    let changed = text.replace("crl = \"tls/ca.crl\"\n", &with_url);
    assert_ne!(changed, text);
    fs::write(&settings, changed).expect("written");
    system.start_master();
    system.start_server(1);
    let shown = status(&system);
    assert_eq!(shown["lists"][0]["source"], lists.url("/ca.crl").as_str());
    assert_eq!(shown["lists"][0]["problem"], Value::Null, "{shown}");
    assert!(shown["lists"][0]["fetched_at"].is_string());

    // The distribution point goes away; the cache carries the server over a restart.
    lists.go_away();
    system.stop_server(1);
    system.start_server_until(1, Probe::Ready);
    let shown = status(&system);
    let problem = &shown["lists"][0]["problem"];
    assert!(problem.is_string() && warnings(&shown).contains("/ca.crl"), "{shown}");
    assert!(page(&system, "readyz").contains("/ca.crl"));
    eventually("the event", SOON, || system.log_of_server(1).contains("event=11107").then_some(()));

    lists.come_back();
    let reloaded = system.sso_json("admin", &RELOAD)["tls"].clone();
    assert_eq!(reloaded["lists"][0]["problem"], Value::Null, "{reloaded}");
}
