//! What a server makes of the client certificate, with TLS 1.3, where it says so late, and with 1.2.

use std::{sync::atomic::Ordering, time::Duration};

use rustls::{
    CertificateError, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use sso_client::certificates::probe::{Outcome, StepKind, Verdict};
use sso_core::tls::{TlsReason, TlsVersion};
use time::Duration as Span;

use super::{
    assert_refused, check_of, identity,
    pki::{Authority, CLIENT, Issued, SERVER},
    run,
    servers::{Refusing, Served},
    words,
};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
const YEARS: Duration = Duration::from_secs(500 * 24 * 3600);

/// Checks as `client` a server that takes certificates of `authority`, once with each version.
async fn refusals(
    authority: &Authority,
    client: Option<&Issued>,
    edit: impl Fn(Served<'_>) -> Served<'_>,
    reason: TlsReason,
) {
    let issued = authority.issue("server", SERVER, |params| {
        params.not_after += Span::days(600);
    });
    for version in BOTH {
        for alpn in [&[b"h2".as_slice()][..], &[b"http/1.1"]] {
            let served = Served::with(&issued).versions(&[version]).alpn(alpn);
            let address = edit(served).start().await;
            let mut check = check_of(address, authority);
            check.trust.minimum_version = TlsVersion::V1_2;
            check.identity = client.and_then(identity);
            let report = run(&check).await;
            assert_refused(&report, StepKind::ClientCertificate, reason);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_is_accepted() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let client = authority.issue("alice", CLIENT, |_| {});
    let list = authority.list(Span::hours(1), Span::days(30), &["bob"]);
    for version in BOTH {
        let served = Served::with(&issued).versions(&[version]).requiring(&authority, &list);
        let mut check = check_of(served.start().await, &authority);
        check.trust.minimum_version = TlsVersion::V1_2;
        check.identity = identity(&client);
        let report = run(&check).await;
        assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
        let said = words(&report, StepKind::ClientCertificate);
        assert!(said.contains("accepted") && said.contains("alice.crt"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_asks_for_is_not_shown() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let client = authority.issue("alice", CLIENT, |_| {});
    let mut check = check_of(Served::with(&issued).start().await, &authority);
    check.identity = identity(&client);
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    let said = words(&report, StepKind::ClientCertificate);
    assert!(said.contains("not asked for"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn none_where_one_is_required() {
    let authority = Authority::root("Good CA");
    refusals(
        &authority,
        None,
        |served| served.requiring(&authority, ""),
        TlsReason::NoClientCertificate,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_another_authority() {
    let authority = Authority::root("Good CA");
    let stranger = Authority::root("Another CA");
    let client = stranger.issue("alice", CLIENT, |_| {});
    refusals(
        &authority,
        Some(&client),
        |served| served.requiring(&authority, ""),
        TlsReason::UntrustedIssuer,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked() {
    let authority = Authority::root("Good CA");
    let client = authority.issue("alice", CLIENT, |_| {});
    let list = authority.list(Span::hours(1), Span::days(30), &["alice"]);
    refusals(
        &authority,
        Some(&client),
        |served| served.requiring(&authority, &list),
        TlsReason::CertificateRevoked,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_by_the_clock_of_the_server() {
    let authority = Authority::root("Good CA");
    let client = authority.issue("alice", CLIENT, |_| {});
    refusals(
        &authority,
        Some(&client),
        |served| {
            let mut served = served.requiring(&authority, "");
            served.ahead = YEARS;
            served
        },
        TlsReason::CertificateExpired,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_made_for_clients() {
    let authority = Authority::root("Good CA");
    let client = authority.issue("alice", SERVER, |_| {});
    refusals(
        &authority,
        Some(&client),
        |served| served.requiring(&authority, ""),
        TlsReason::WrongPurpose,
    )
    .await;
}

/// As servers of this product say that they cannot tell whether a certificate is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn of_unknown_revocation() {
    let authority = Authority::root("Good CA");
    let client = authority.issue("alice", CLIENT, |_| {});
    let verifier = Refusing::for_reason(CertificateError::InvalidOcspResponse);
    refusals(
        &authority,
        Some(&client),
        |served| served.refusing(&verifier),
        TlsReason::RevocationListUnavailable,
    )
    .await;
    assert!(verifier.shown.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_to_a_server_that_is_not_trusted() {
    let authority = Authority::root("Good CA");
    let stranger = Authority::root("Another CA");
    let issued = stranger.issue("server", SERVER, |_| {});
    let client = authority.issue("alice", CLIENT, |_| {});
    let verifier = Refusing::for_reason(CertificateError::Revoked);
    for version in BOTH {
        let served = Served::with(&issued).versions(&[version]).refusing(&verifier);
        let mut check = check_of(served.start().await, &authority);
        check.trust.minimum_version = TlsVersion::V1_2;
        check.identity = identity(&client);
        let report = run(&check).await;
        assert_refused(&report, StepKind::Chain, TlsReason::UntrustedIssuer);
        let step = report.step(StepKind::ClientCertificate).unwrap();
        assert_eq!(step.outcome, Outcome::NotDone, "{step:?}");
        assert!(step.words.starts_with("asked for"), "{step:?}");
    }
    assert_eq!(verifier.shown.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_this_side_cannot_use() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let (alice, bob) =
        (authority.issue("alice", CLIENT, |_| {}), authority.issue("bob", CLIENT, |_| {}));
    let address = Served::with(&issued).requiring(&authority, "").start().await;
    let mut check = check_of(address, &authority);
    check.identity = identity(&alice);
    check.identity.as_mut().unwrap().key = bob.key_file;
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Refused, "{:#?}", report.steps);
    let step = report.step(StepKind::ClientCertificate).unwrap();
    assert_eq!(step.outcome, Outcome::Failed);
    assert!(step.words.contains("not usable"), "{step:?}");
    assert_eq!(report.step(StepKind::Chain).unwrap().outcome, Outcome::Ok, "{:#?}", report.steps);
}
