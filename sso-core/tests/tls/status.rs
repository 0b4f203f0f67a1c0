//! Status, warnings, and what the program is told of.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sso_core::{
    clock::Clock,
    tls::{
        Application, CertificateRole, RevocationPolicy, TlsNotice, TlsReloader, TlsSettings,
        TlsVersion, TrustSettings,
    },
};

use crate::pki::{Pki, year};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_status_names_what_is_in_use() {
    let pki = Pki::new();
    let branch = pki.intermediate("Branch");
    let mut settings = branch.issue("server");
    let list = pki.write_list("root.crl", &pki.list(&[], |_| {}));
    settings.crl = vec![list.clone().into(), "http://127.0.0.1:1/x.crl".parse().unwrap()];
    let tls = TlsReloader::load(&settings).unwrap();
    let status = tls.status();
    assert_eq!((status.generation, status.last_failure), (1, None));
    assert_eq!(status.minimum_version, TlsVersion::V1_3);
    assert_eq!(status.revocation, RevocationPolicy::HardFail);
    let roles: Vec<_> = status.certificates.iter().map(|it| it.role).collect();
    use CertificateRole::{Authority, Intermediate, Own};
    assert_eq!(roles, [Own, Intermediate, Authority]);
    let own = &status.certificates[0];
    assert_eq!((own.subject.as_str(), own.issuer.as_str()), ("CN=server", "CN=Branch"));
    assert_eq!((own.serial.as_str(), own.not_after), ("02", year(2200)));
    assert_eq!((own.thumbprint_sha1.len(), own.thumbprint_sha256.len()), (40, 64));
    let [file, url] = status.lists.as_slice() else { panic!("{:?}", status.lists) };
    assert_eq!(file.source, list.display().to_string());
    assert_eq!(file.issuer.as_deref(), Some("CN=Test Authority"));
    assert_eq!((file.next_update, file.problem.as_deref()), (Some(year(2200)), None));
    assert!(file.fetched_at.is_some());
    assert_eq!(url.source, "http://127.0.0.1:1/x.crl");
    assert_eq!((url.issuer.as_deref(), url.problem.as_deref()), (None, Some("not fetched yet")));
}

#[test]
fn a_caller_without_certificate_has_a_status_too() {
    let pki = Pki::new();
    let trust = TrustSettings {
        crl: vec![pki.revoke(&[], 2021).into()],
        ..TrustSettings::new(pki.path("ca.crt"))
    };
    let tls = TlsReloader::load_trust(&trust, Application::Grpc, Clock::System).unwrap();
    assert_eq!(tls.status().certificates.len(), 1);
    let warnings = tls.warnings();
    assert!(warnings[0].contains("ended on 2021-01-01"), "{warnings:?}");
    pki.revoke(&[], 2200);
    tls.reload().unwrap();
    assert!(tls.warnings().is_empty());
}

#[test]
fn with_the_policy_off_no_list_is_looked_at() {
    let pki = Pki::new();
    let settings = TlsSettings {
        crl: vec![pki.path("missing.crl").into()],
        revocation: Some(RevocationPolicy::Off),
        ..pki.issue("server")
    };
    let status = TlsReloader::load(&settings).unwrap().status();
    assert_eq!(status.revocation, RevocationPolicy::Off);
    assert!(status.lists[0].problem.as_ref().unwrap().contains("revocation is off"));
    let missing = TlsSettings { revocation: None, ..settings };
    let error = TlsReloader::load(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.crl: cannot read the revocation list"), "{error}");
}

#[test]
fn settings_that_contradict_themselves_are_refused_in_literals_too() {
    let pki = Pki::new();
    let load = |edit: &dyn Fn(&mut TlsSettings)| {
        let mut settings = pki.issue("server");
        edit(&mut settings);
        TlsReloader::load(&settings).unwrap_err().to_string()
    };
    let error = load(&|it| it.revocation = Some(RevocationPolicy::SoftFail));
    assert!(error.starts_with("tls.revocation: soft-fail needs revocation lists"), "{error}");
    let error = load(&|it| it.crl_refresh = Duration::ZERO);
    assert!(error.starts_with("tls.crl_refresh_seconds: "), "{error}");
    let error = load(&|it| it.crl = vec![pki.path("a").into(), pki.path("a").into()]);
    assert!(error.contains("is named twice"), "{error}");
}

#[test]
fn a_policy_that_lets_pass_is_warned_of() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    for (policy, words) in [
        (RevocationPolicy::HardFail, None),
        (RevocationPolicy::SoftFail, Some("where no revocation list tells")),
        (RevocationPolicy::Off, Some("are not looked at")),
    ] {
        settings.revocation = Some(policy);
        let warnings = TlsReloader::load(&settings).unwrap().warnings();
        assert_eq!(warnings.len(), usize::from(words.is_some()), "{warnings:?}");
        assert!(words.is_none_or(|words| warnings[0].contains(words)), "{warnings:?}");
    }
}

/// What ends first counts, and what was replaced leaves nothing behind.
#[test]
fn gauges_show_the_earliest_end() {
    let pki = Pki::new();
    let other = Pki::with(|params| params.not_after = year(2150));
    let mut settings = pki.issue_with("server", |params| params.not_after = year(2100));
    let list = |until: i32| pki.list(&[], |list| list.next_update = year(until)).pem().unwrap();
    let file = pki.path("two.crl");
    std::fs::write(&file, list(2090) + &list(2080)).unwrap();
    let authorities = [&settings.ca, &other.path("ca.crt")].map(|it| std::fs::read(it).unwrap());
    std::fs::write(&settings.ca, authorities.concat()).unwrap();
    settings.crl = vec![file.clone().into()];
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = || {
        let text = recorder.handle().render();
        let lines = text.lines().filter(|line| line.contains("_seconds") && !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    metrics::with_local_recorder(&recorder, || {
        let tls = TlsReloader::load(&settings).unwrap();
        let has = |name: &str, ends: i32| {
            let end = year(ends).unix_timestamp().to_string();
            let lines = shown();
            let own: Vec<_> = lines.iter().filter(|line| line.contains(name)).collect();
            assert_eq!(own.len(), 1, "{lines:?}");
            assert!(own[0].ends_with(&end), "{name}, {end}: {own:?}");
        };
        has("role=\"own\"", 2100);
        has("role=\"authority\"", 2150);
        has("two.crl", 2080);
        pki.issue_with("server", |params| {
            params.not_after = year(2120);
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "Renewed");
        });
        std::fs::write(&file, list(2095) + &list(2099)).unwrap();
        tls.reload().unwrap();
        has("role=\"own\"", 2120);
        has("two.crl", 2095);
    });
}

/// A hook is a plain function: what it hears goes here, and the subject tells whose it is.
static HEARD: Mutex<Vec<TlsNotice>> = Mutex::new(Vec::new());

fn hear(notice: &TlsNotice) {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).push(notice.clone());
}

/// What was heard since the last time.
fn heard() -> Vec<TlsNotice> {
    std::mem::take(&mut *HEARD.lock().unwrap_or_else(PoisonError::into_inner))
}

#[tokio::test]
async fn ends_are_told_once_each_time_they_come_nearer() {
    let pki = Pki::new();
    let ends = year(2030);
    let mut settings = pki.issue_with("server", |params| params.not_after = ends);
    settings.crl = vec![pki.revoke(&[], 2030).into()];
    let clock = Clock::manual(ends - 40 * DAY);
    let tls = TlsReloader::load_for(&settings, Application::Grpc, clock.clone()).unwrap();
    tls.announce(hear);
    let certificate = "the certificate CN=server".to_owned();
    let soon = |days_left| TlsNotice::CertificateEndsSoon {
        certificate: certificate.clone(),
        not_after: ends,
        days_left,
    };
    let reload = async || {
        tls.reload_all().await.unwrap();
        let mut heard = heard();
        assert!(matches!(heard.remove(0), TlsNotice::Reloaded { .. }));
        heard
    };
    assert_eq!(reload().await, []);
    assert!(tls.warnings().is_empty());
    clock.advance(15 * DAY);
    assert_eq!(reload().await, [soon(25)]);
    assert_eq!(reload().await, []);
    let warnings = tls.warnings();
    assert!(warnings[0].contains("CN=server ends in 25 days, on 2030-01-01"), "{warnings:?}");
    clock.advance(19 * DAY);
    assert_eq!(reload().await, [soon(6)]);
    clock.advance(5 * DAY + DAY / 2);
    assert_eq!(reload().await, [soon(0)]);
    let warnings = tls.warnings();
    assert!(warnings[0].contains("ends in 12 h"), "{warnings:?}");
    assert!(warnings[1].contains("a newer one is due"), "{warnings:?}");
    clock.advance(DAY);
    let list = settings.crl[0].to_string();
    assert_eq!(
        reload().await,
        [
            TlsNotice::CertificateEnded { certificate: certificate.clone(), not_after: ends },
            TlsNotice::ListExpired { source: list, next_update: ends },
        ]
    );
    assert_eq!(reload().await, []);
    assert!(tls.warnings().iter().any(|it| it.contains("CN=server expired on")));

    // A fault, and its end.
    std::fs::write(&settings.ca, "nothing").unwrap();
    let error = tls.reload_all().await.unwrap_err().to_string();
    assert_eq!(heard(), [TlsNotice::NotReloaded { error }]);
}
