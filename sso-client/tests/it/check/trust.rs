//! What this side makes of the server's certificates.

use rustls::version::{TLS12, TLS13};
use sso_client::certificates::probe::{Outcome, StepKind, Verdict};
use sso_core::tls::{ListSource, RevocationPolicy, TlsReason, TlsVersion, TrustSettings};
use time::Duration;

use super::{
    assert_refused, check_of, outcome,
    pki::{Authority, CLIENT, SERVER, now},
    run,
    servers::Served,
    words,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_order() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("good", SERVER, |_| {});
    let address = Served::with(&issued).start().await;
    let mut check = check_of(address, &authority);
    check.trust.crl = vec![ListSource::File(authority.list_file(&["other"]))];
    let report = run(&check).await;
    assert_eq!((report.verdict, report.reason), (Verdict::Served, None), "{:#?}", report.steps);
    for step in [
        StepKind::Resolve,
        StepKind::Connect,
        StepKind::Tls13,
        StepKind::Tls12,
        StepKind::Tls11,
        StepKind::Tls10,
        StepKind::Protocol,
        StepKind::Certificate,
        StepKind::Chain,
        StepKind::Name,
        StepKind::Validity,
        StepKind::Purpose,
        StepKind::Revocation,
        StepKind::ClientCertificate,
    ] {
        assert_eq!(outcome(&report, step), Some(Outcome::Ok), "{step:?}: {:#?}", report.steps);
    }
    let kinds: Vec<_> = report.steps.iter().map(|step| step.step.as_str()).collect();
    let expected = [
        "resolve",
        "connect",
        "tls-1.3",
        "tls-1.2",
        "tls-1.1",
        "tls-1.0",
        "protocol",
        "certificate",
        "chain",
        "name",
        "validity",
        "purpose",
        "revocation",
        "client-certificate",
    ];
    assert_eq!(kinds, expected);
    assert!(words(&report, StepKind::Tls12).contains("not offered"), "{:#?}", report.steps);
    let agreement = report.agreement.unwrap();
    assert_eq!(agreement.version, "TLS 1.3");
    assert_eq!(agreement.application_protocol.as_deref(), Some("h2"));
    assert_eq!(report.chain.certificates.len(), 1);
    assert_eq!(report.lists.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_waits_for_its_client() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("good", SERVER, |_| {});
    for (alpn, tickets) in [(&[b"http/1.1".as_slice()][..], 0), (&[], 0), (&[], 2)] {
        let mut served = Served::with(&issued).versions(&[&TLS13, &TLS12]).alpn(alpn);
        served.tickets = tickets;
        let report = run(&check_of(served.start().await, &authority)).await;
        assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
        let protocol = report.agreement.as_ref().unwrap().application_protocol.as_deref();
        assert_eq!(protocol, alpn.first().map(|_| "http/1.1"));
        let tls12 = words(&report, StepKind::Tls12);
        assert!(tls12.starts_with("offered; not used"), "{tls12}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_for_this_side() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("good", SERVER, |_| {});
    let address = Served::with(&issued).old_only().start().await;
    let mut check = check_of(address, &authority);
    let report = run(&check).await;
    assert_refused(&report, StepKind::Tls13, TlsReason::ProtocolVersion);
    assert_eq!(outcome(&report, StepKind::Chain), Some(Outcome::Ok), "what is served is judged");

    check.trust.minimum_version = TlsVersion::V1_2;
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Tls13), Some(Outcome::Warning));
    assert_eq!(report.agreement.unwrap().version, "TLS 1.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_and_one_of_tomorrow() {
    let authority = Authority::root("Good CA");
    let expired = authority.issue("expired", SERVER, |params| {
        params.not_after = now() - Duration::days(1);
    });
    let report = run(&check_of(Served::with(&expired).start().await, &authority)).await;
    assert_refused(&report, StepKind::Validity, TlsReason::CertificateExpired);
    assert_eq!(report.chain.certificates.len(), 1, "it is shown all the same");
    let client = report.step(StepKind::ClientCertificate).unwrap();
    assert_eq!(client.outcome, Outcome::NotDone);

    let early = authority.issue("early", SERVER, |params| {
        params.not_before = now() + Duration::days(1);
    });
    let report = run(&check_of(Served::with(&early).start().await, &authority)).await;
    assert_refused(&report, StepKind::Validity, TlsReason::CertificateNotYetValid);

    let soon = authority.issue("soon", SERVER, |params| {
        params.not_after = now() + Duration::days(5);
    });
    let report = run(&check_of(Served::with(&soon).start().await, &authority)).await;
    assert_eq!(report.verdict, Verdict::Served);
    assert_eq!(outcome(&report, StepKind::Validity), Some(Outcome::Warning), "{:#?}", report.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("other", SERVER, |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("sso.corp.example".try_into().unwrap())];
    });
    let address = Served::with(&issued).start().await;
    let mut check = check_of(address, &authority);
    let report = run(&check).await;
    assert_refused(&report, StepKind::Name, TlsReason::WrongName);
    assert!(words(&report, StepKind::Name).contains("sso.corp.example"), "{:#?}", report.steps);

    check.name = Some("sso.corp.example".try_into().unwrap());
    let report = run(&check).await;
    assert_eq!((report.verdict, report.name.as_str()), (Verdict::Served, "sso.corp.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_faults_are_all_named() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("bad", CLIENT, |params| {
        params.subject_alt_names.clear();
        params.not_after = now() - Duration::days(1);
    });
    let report = run(&check_of(Served::with(&issued).start().await, &authority)).await;
    assert_eq!(report.verdict, Verdict::Refused);
    for (step, reason) in [
        (StepKind::Validity, TlsReason::CertificateExpired),
        (StepKind::Name, TlsReason::WrongName),
        (StepKind::Purpose, TlsReason::WrongPurpose),
    ] {
        assert_eq!(report.step(step).unwrap().reason, Some(reason), "{:#?}", report.steps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_and_an_incomplete_chain() {
    let authority = Authority::root("Good CA");
    let stranger = Authority::root("Another CA");
    let issued = stranger.issue("stranger", SERVER, |_| {});
    let report = run(&check_of(Served::with(&issued).start().await, &authority)).await;
    assert_refused(&report, StepKind::Chain, TlsReason::UntrustedIssuer);

    let intermediate = authority.intermediate("Issuing CA");
    let mut issued = intermediate.issue("server", SERVER, |_| {});
    let report = run(&check_of(Served::with(&issued).start().await, &authority)).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    assert_eq!(report.chain.certificates.len(), 2);

    issued.chain.truncate(1);
    let report = run(&check_of(Served::with(&issued).start().await, &authority)).await;
    assert_refused(&report, StepKind::Chain, TlsReason::UntrustedIssuer);
    let advice = report.step(StepKind::Chain).unwrap().advice.as_deref().unwrap();
    assert!(advice.contains("Issuing CA") && advice.contains("send its"), "{advice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_for_servers() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("client", CLIENT, |_| {});
    let report = run(&check_of(Served::with(&issued).start().await, &authority)).await;
    assert_refused(&report, StepKind::Purpose, TlsReason::WrongPurpose);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_and_its_lists() {
    let authority = Authority::root("Good CA");
    let namesake = Authority::root("Good CA");
    let stranger = Authority::root("Another CA");
    let issued = authority.issue("revoked", SERVER, |_| {});
    let address = Served::with(&issued).start().await;
    let (hour, month) = (Duration::hours(1), Duration::days(30));
    let expired = authority.list(Duration::days(2), Duration::days(1), &[]);
    for (list, reason) in [
        (authority.list(hour, month, &["revoked"]), TlsReason::CertificateRevoked),
        (stranger.list(hour, month, &[]), TlsReason::RevocationListUnavailable),
        (namesake.list(hour, month, &[]), TlsReason::RevocationListUntrusted),
        (expired.clone(), TlsReason::RevocationListExpired),
    ] {
        let mut check = check_of(address, &authority);
        check.trust.crl = vec![ListSource::File(authority.write("this.crl", &list))];
        let report = run(&check).await;
        assert_refused(&report, StepKind::Revocation, reason);
        assert_eq!(outcome(&report, StepKind::Chain), Some(Outcome::Ok), "{:#?}", report.steps);
        assert_eq!(report.lists.len(), 1, "{:#?}", report.steps);
        assert!(report.lists[0].source.contains("this.crl"), "{:#?}", report.steps);
    }

    let path = authority.write("expired.crl", &expired);
    let trust = TrustSettings {
        crl: vec![ListSource::File(path)],
        revocation: Some(RevocationPolicy::SoftFail),
        ..TrustSettings::new(authority.file())
    };
    let mut check = check_of(address, &authority);
    check.trust = trust;
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    let step = report.step(StepKind::Revocation).unwrap();
    assert_eq!(step.outcome, Outcome::Warning);
    assert_eq!(step.reason, Some(TlsReason::RevocationListExpired));

    check.trust.revocation = Some(RevocationPolicy::Off);
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Served);
    assert!(words(&report, StepKind::Revocation).contains("policy is off"), "{:#?}", report.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_fetched() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("good", SERVER, |_| {});
    let address = Served::with(&issued).start().await;
    // Nothing listens on the port of a socket that is bound and does not listen.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/ca.crl", taken.local_addr().unwrap());
    let mut check = check_of(address, &authority);
    check.trust.crl = vec![ListSource::Url(url.clone())];
    let report = run(&check).await;
    assert_refused(&report, StepKind::Revocation, TlsReason::RevocationListUnavailable);
    assert_eq!(report.lists[0].source, url);
    assert!(report.lists[0].problem.is_some(), "{:#?}", report.steps);
}
