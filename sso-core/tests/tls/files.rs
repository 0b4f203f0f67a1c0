//! What the files must hold, and what a reload of them does.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, date_time_ymd};
use sso_core::tls::{Application, TlsError, TlsReloader, TlsSettings};
use tokio_util::sync::CancellationToken;

use crate::{
    pki::Pki,
    world::{at, call, channel, load_error, serve_files},
};

#[test]
fn bad_files_are_named_with_what_to_do() {
    let pki = Pki::new();
    let good = pki.issue("ann");

    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = load_error(&good);
    assert!(error.contains("ann.key") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o600)).unwrap();
    TlsReloader::load(&good).unwrap();

    let with = |edit: &dyn Fn(&mut TlsSettings)| {
        let mut settings = good.clone();
        edit(&mut settings);
        load_error(&settings)
    };
    let missing = with(&|settings| settings.certificate = pki.path("none.crt"));
    assert!(missing.contains("none.crt: cannot read the certificate"), "{missing}");
    let empty = pki.path("empty.pem");
    fs::write(&empty, "no certificate\n").unwrap();
    let error = with(&|settings| settings.ca = empty.clone());
    assert!(error.contains("empty.pem: certificate authority: holds none"), "{error}");
    let error = with(&|settings| settings.crl = vec![empty.clone().into()]);
    assert!(error.contains("empty.pem: revocation list: holds none"), "{error}");
    let leaf = with(&|settings| settings.ca = good.certificate.clone());
    assert!(leaf.contains("is not an authority's certificate"), "{leaf}");
    let mixed = with(&|settings| {
        let text = fs::read_to_string(&good.ca).unwrap();
        settings.ca = pki.path("mixed.pem");
        fs::write(&settings.ca, text + &fs::read_to_string(&good.key).unwrap()).unwrap();
    });
    assert!(mixed.contains("PEM sections of another kind"), "{mixed}");
    let damaged = with(&|settings| {
        let text = fs::read_to_string(&good.ca).unwrap();
        settings.ca = pki.path("damaged.pem");
        fs::write(&settings.ca, text.clone() + &text.replace("MII", "AII")).unwrap();
    });
    assert!(damaged.contains("damaged.pem: certificate authority"), "{damaged}");
    let other = pki.issue("other");
    let pair = with(&|settings| settings.key = other.key.clone());
    assert!(pair.contains("other.key") && pair.contains("ann.crt"), "{pair}");
    assert!(!pair.contains("PRIVATE"));
}

#[tokio::test]
async fn broken_files_leave_the_old_ones_in_use() {
    let pki = Pki::new();
    let settings = pki.issue("server");
    let server = serve_files(&settings).await;
    let ann = pki.issue("ann");
    fs::write(&settings.certificate, "nothing").unwrap();
    assert!(matches!(server.tls.reload(), Err(TlsError::Content { .. })));
    assert_eq!(server.tls.current().number(), 1);
    call(&mut channel(&server, &ann)).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_does_not_keep_new_revocations_out() {
    let pki = Pki::new();
    let ends = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 7, 1);
    let mut settings = pki.issue_with("server", ends);
    settings.crl = vec![pki.revoke(&[], 2100).into()];
    let clock = at(2020);
    let tls = TlsReloader::load_for(&settings, Application::Grpc, clock.clone()).unwrap();
    clock.advance(Duration::from_secs(60 * 86_400));
    pki.revoke(&[1], 2100);
    tls.reload().unwrap();
    assert_eq!(tls.current().number(), 2);
    assert!(TlsReloader::load_for(&settings, Application::Grpc, clock).is_err());
}

#[tokio::test]
async fn changed_files_are_noticed_and_a_hangup_reloads() {
    let pki = Pki::new();
    let settings = pki.issue("server");
    let tls = TlsReloader::load(&settings).unwrap();
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&tls).watch(shutdown.clone()));
    pki.issue("server");
    let began = Instant::now();
    while tls.current().number() == 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the change is not noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.cancel();
    watching.await.unwrap();
}

/// What kept the files from being loaded may pass, without a change of theirs.
#[tokio::test]
async fn a_fault_that_passes_is_tried_again() {
    let pki = Pki::new();
    let settings = pki.issue("server");
    let clock = at(2020);
    let tls = TlsReloader::load_for(&settings, Application::Grpc, clock.clone()).unwrap();
    // Not valid for another month, when nobody touches the files any more.
    pki.issue_with("server", |params| params.not_before = date_time_ymd(2020, 7, 1));
    tls.reload().unwrap_err();
    clock.advance(Duration::from_secs(60 * 86_400));
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&tls).watch_without_signals(shutdown.clone()));
    let began = Instant::now();
    while tls.current().number() == 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "it is not tried again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tls.status().last_failure, None);
    shutdown.cancel();
    watching.await.unwrap();
}
