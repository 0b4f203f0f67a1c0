//! `openssl s_server` as the server of somebody else, in old versions too.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use sso_client::certificates::probe::{Look, Outcome, StepKind, Verdict};
use sso_core::tls::{TlsReason, TlsVersion};
use time::Duration;

use super::{
    TIMEOUT, assert_refused, check_of, identity, outcome,
    pki::{Authority, CLIENT, Issued, SERVER},
    run, words,
};

/// Ends with the test.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`, with a notice, where there is no openssl and the tests may do without.
fn s_server(issued: &Issued, arguments: &[&str]) -> Option<Running> {
    use std::io::BufRead as _;
    let started = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
        .arg(&issued.certificate_file)
        .arg("-cert_chain")
        .arg(&issued.certificate_file)
        .arg("-key")
        .arg(&issued.key_file)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            crate::certificates::openssl::missing(&error);
            return None;
        }
    };
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("s_server tells where it listens").unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.parse().unwrap();
        }
    };
    // It goes on writing, and must not be stopped by a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Some(Running { child, address })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_every_age() {
    let authority = Authority::root("Good CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let legacy = ["-cipher", "DEFAULT@SECLEVEL=0"];

    let Some(server) = s_server(&issued, &[]) else { return };
    let report = run(&check_of(server.address, &authority)).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    assert!(words(&report, StepKind::Tls12).starts_with("offered"), "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Tls11), Some(Outcome::Ok), "{:#?}", report.steps);

    let server = s_server(&issued, &["-tls1_2"]).unwrap();
    let mut check = check_of(server.address, &authority);
    let report = run(&check).await;
    assert_refused(&report, StepKind::Tls13, TlsReason::ProtocolVersion);
    check.trust.minimum_version = TlsVersion::V1_2;
    let report = run(&check).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);

    let server = s_server(&issued, &[&legacy[..], &["-tls1"]].concat()).unwrap();
    let report = run(&check_of(server.address, &authority)).await;
    assert_eq!(report.verdict, Verdict::Refused, "{:#?}", report.steps);
    assert_eq!(report.reason, Some(TlsReason::ProtocolVersion), "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Tls10), Some(Outcome::Warning), "{:#?}", report.steps);
    assert_eq!(outcome(&report, StepKind::Tls11), Some(Outcome::Ok), "{:#?}", report.steps);

    let server = s_server(&issued, &legacy).unwrap();
    let report = run(&check_of(server.address, &authority)).await;
    assert_eq!(report.verdict, Verdict::Served, "{:#?}", report.steps);
    for step in [StepKind::Tls11, StepKind::Tls10] {
        assert!(words(&report, step).contains("ACCEPTED"), "{:#?}", report.steps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates() {
    let authority = Authority::root("Good CA");
    let stranger = Authority::root("Another CA");
    let issued = authority.issue("server", SERVER, |_| {});
    let alice = authority.issue("alice", CLIENT, |_| {});
    let bob = authority.issue("bob", CLIENT, |_| {});
    let carol = stranger.issue("carol", CLIENT, |_| {});
    let dave = authority.issue("dave", SERVER, |_| {});
    let list = authority.list(Duration::hours(1), Duration::days(30), &["bob"]);
    let list = authority.write("clients.crl", &list);
    let ca = authority.file();
    for version in ["-tls1_3", "-tls1_2"] {
        let arguments = [
            "-Verify",
            "3",
            "-verify_return_error",
            "-CAfile",
            text(&ca),
            "-CRL",
            text(&list),
            "-crl_check",
            "-purpose",
            "sslclient",
            version,
        ];
        let Some(server) = s_server(&issued, &arguments) else { return };
        for (client, reason) in [
            (Some(&alice), None),
            (None, Some(TlsReason::NoClientCertificate)),
            (Some(&bob), Some(TlsReason::CertificateRevoked)),
            (Some(&carol), Some(TlsReason::UntrustedIssuer)),
            (Some(&dave), Some(TlsReason::WrongPurpose)),
        ] {
            let mut check = check_of(server.address, &authority);
            check.trust.minimum_version = TlsVersion::V1_2;
            check.identity = client.and_then(identity);
            let report = run(&check).await;
            match reason {
                None => {
                    assert_eq!(report.verdict, Verdict::Served, "{version}: {:#?}", report.steps);
                }
                Some(reason) => assert_refused(&report, StepKind::ClientCertificate, reason),
            }
        }
        let target = server.address.to_string().parse().unwrap();
        let look = Look::at(&target, None, TIMEOUT).await.unwrap();
        assert!(look.asks_for_certificate, "{look:#?}");
        assert_eq!(look.certificates.first(), issued.chain.first());
    }
}
