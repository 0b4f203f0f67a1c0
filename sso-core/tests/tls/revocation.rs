//! What revocation lists say, and which of them are believed.

use std::path::PathBuf;

use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope};
use rustls::version::TLS13;
use sso_core::{
    acceptor::AcceptLimits,
    tls::{ListSource, RevocationPolicy, TlsReloader, TlsSettings},
};

use crate::{
    bare::{Saw, ask, client},
    pki::{Pki, year},
    world::{refusal, serve, serve_files},
};

const REVOKED: Saw = Saw::Alert(44);
const UNTOLD: Saw = Saw::Alert(113);

/// What a server with these lists does to the client.
async fn verdict(
    server: &TlsSettings,
    lists: &[&PathBuf],
    policy: RevocationPolicy,
    peer: &TlsSettings,
) -> Saw {
    let crl = lists.iter().map(|path| ListSource::File((*path).clone())).collect();
    let settings = TlsSettings { crl, revocation: Some(policy), ..server.clone() };
    let running = serve(TlsReloader::load(&settings).unwrap(), AcceptLimits::default()).await;
    ask(running.addr, &client(Some(peer), &[&TLS13])).await
}

#[tokio::test]
async fn every_authority_of_the_chain_needs_a_list() {
    use RevocationPolicy::{HardFail, SoftFail};
    let pki = Pki::new();
    let server = pki.issue("server");
    let number_of_branch = pki.upcoming();
    let branch = pki.intermediate("Branch");
    let number_of_ann = pki.upcoming();
    let ann = branch.issue("ann");
    let list = |name: &str, list: &rcgen::CertificateRevocationList| pki.write_list(name, list);
    let root = list("root.crl", &pki.list(&[], |_| {}));
    let good = list("branch.crl", &branch.list(&[], |_| {}));
    let bad = list("bad.crl", &branch.list(&[number_of_ann], |_| {}));
    let old = list("old.crl", &branch.list(&[], |list| list.next_update = year(2021)));
    let against_branch = list("against.crl", &pki.list(&[number_of_branch], |_| {}));
    let long_ago =
        list("long-ago.crl", &pki.list(&[number_of_branch], |list| list.next_update = year(2021)));
    for (lists, hard, soft) in [
        (&[&root, &good][..], Saw::Served, Saw::Served),
        (&[&root], UNTOLD, Saw::Served),
        (&[&good], UNTOLD, Saw::Served),
        (&[&root, &old], UNTOLD, Saw::Served),
        (&[&root, &bad], REVOKED, REVOKED),
        // Known to be revoked is more than not to be known.
        (&[&bad], REVOKED, REVOKED),
        (&[&against_branch, &good], REVOKED, REVOKED),
        (&[&against_branch], REVOKED, REVOKED),
        (&[&long_ago, &good], REVOKED, REVOKED),
        // One list names it, another does not: one that names it is enough.
        (&[&root, &good, &bad], REVOKED, REVOKED),
        (&[&root, &long_ago, &good], REVOKED, REVOKED),
        // One is out of date, another is not.
        (&[&root, &old, &good], Saw::Served, Saw::Served),
    ] {
        assert_eq!(verdict(&server, lists, HardFail, &ann).await, hard, "{lists:?}");
        assert_eq!(verdict(&server, lists, SoftFail, &ann).await, soft, "{lists:?}");
        assert_eq!(verdict(&server, lists, RevocationPolicy::Off, &ann).await, Saw::Served);
    }
}

#[tokio::test]
async fn a_namesakes_list_does_not_stand_in_the_way_of_the_right_one() {
    let (pki, namesake) = (Pki::new(), Pki::new());
    let (server, ann) = (pki.issue("server"), pki.issue("ann"));
    let right = pki.write_list("right.crl", &pki.list(&[], |_| {}));
    let wrong = pki.write_list("wrong.crl", &namesake.list(&[2], |_| {}));
    let policy = RevocationPolicy::HardFail;
    assert_eq!(verdict(&server, &[&wrong, &right], policy, &ann).await, Saw::Served);
    assert_eq!(verdict(&server, &[&wrong], policy, &ann).await, UNTOLD);
    // What a stranger says about somebody counts under no policy.
    assert_eq!(verdict(&server, &[&wrong], RevocationPolicy::SoftFail, &ann).await, Saw::Served);
}

#[tokio::test]
async fn lists_in_der_and_several_in_one_file_are_read() {
    let pki = Pki::new();
    let (server, ann) = (pki.issue("server"), pki.issue("ann"));
    let policy = RevocationPolicy::HardFail;
    let der = pki.path("ca.der");
    std::fs::write(&der, pki.list(&[2], |_| {}).der()).unwrap();
    assert_eq!(verdict(&server, &[&der], policy, &ann).await, REVOKED);
    let both = pki.path("both.pem");
    let other = Pki::with(|it| it.distinguished_name.push(rcgen::DnType::OrganizationName, "X"));
    let text = other.list(&[], |_| {}).pem().unwrap() + &pki.list(&[2], |_| {}).pem().unwrap();
    std::fs::write(&both, text).unwrap();
    assert_eq!(verdict(&server, &[&both], policy, &ann).await, REVOKED);
}

#[tokio::test]
async fn a_partial_list_says_nothing_about_the_rest() {
    let pki = Pki::new();
    let (server, ann) = (pki.issue("server"), pki.issue("ann"));
    let part = |name: &str, numbers: &[u64], scope| {
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://a.example/1".into()] },
            scope,
        };
        let list = pki.list(numbers, |list| list.issuing_distribution_point = Some(point));
        pki.write_list(name, &list)
    };
    let (users, authorities, all) = (
        part("users.crl", &[], Some(CrlScope::UserCertsOnly)),
        part("authorities.crl", &[2], Some(CrlScope::CaCertsOnly)),
        part("all.crl", &[2], None),
    );
    let policy = RevocationPolicy::HardFail;
    assert_eq!(verdict(&server, &[&users], policy, &ann).await, Saw::Served);
    assert_eq!(verdict(&server, &[&authorities], policy, &ann).await, REVOKED, "named is named");
    assert_eq!(verdict(&server, &[&all], policy, &ann).await, REVOKED);
    let others = part("others.crl", &[], Some(CrlScope::CaCertsOnly));
    assert_eq!(verdict(&server, &[&others], policy, &ann).await, UNTOLD);

    let from = |name: &str, url: &str| {
        pki.issue_with(name, |params| {
            let uris = vec![url.to_owned()];
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        })
    };
    let (here, elsewhere) =
        (from("here", "http://a.example/1"), from("elsewhere", "http://a.example/2"));
    assert_eq!(verdict(&server, &[&users], policy, &here).await, Saw::Served);
    assert_eq!(verdict(&server, &[&users], policy, &elsewhere).await, UNTOLD);
}

#[tokio::test]
async fn a_caller_names_what_is_wrong_with_the_list() {
    let (pki, namesake) = (Pki::new(), Pki::new());
    let other = Pki::with(|it| it.distinguished_name.push(rcgen::DnType::OrganizationName, "X"));
    let server = serve_files(&pki.issue("server")).await;
    let ann = pki.issue("ann");
    for (list, reason, words) in [
        (pki.list(&[1], |_| {}), "CERTIFICATE_REVOKED: ", "it is revoked"),
        (other.list(&[], |_| {}), "REVOCATION_LIST_UNAVAILABLE: ", "there are those of"),
        (
            pki.list(&[], |list| list.next_update = year(2021)),
            "REVOCATION_LIST_EXPIRED: ",
            "ended on 2021-01-01",
        ),
        (namesake.list(&[], |_| {}), "REVOCATION_LIST_UNTRUSTED: ", "is not signed by it"),
    ] {
        let path = pki.write_list("of-ann.crl", &list);
        let settings = TlsSettings { crl: vec![path.into()], ..ann.clone() };
        let said = refusal(&server, &settings).await;
        assert!(said.starts_with(reason) && said.contains(words), "{said}");
        let settings = TlsSettings { revocation: Some(RevocationPolicy::Off), ..settings };
        let channel = &mut crate::world::channel(&server, &settings);
        assert_eq!(crate::world::call(channel).await.unwrap(), "sso://DEV/ann");
    }
}

#[tokio::test]
async fn lists_that_cannot_be_used_are_named_at_the_start() {
    let pki = Pki::new();
    let server = pki.issue("server");
    let load = |content: &[u8]| {
        let path = pki.path("some.crl");
        std::fs::write(&path, content).unwrap();
        let settings = TlsSettings { crl: vec![path.into()], ..server.clone() };
        TlsReloader::load(&settings).unwrap_err().to_string()
    };
    let good = pki.list(&[2], |_| {});
    for (content, words) in [
        (&b""[..], "holds none"),
        (b"nothing", "holds none"),
        (&[0x30, 0x80, 0, 0], "cannot be used"),
        (&good.der()[..good.der().len() - 1], "cannot be used"),
        (&[good.der(), &b"x"[..]].concat(), "cannot be used"),
        (std::fs::read(&server.ca).unwrap().as_slice(), "holds none"),
    ] {
        let error = load(content);
        assert!(error.contains("some.crl: revocation list: ") && error.contains(words), "{error}");
    }
    let mixed = good.pem().unwrap() + &std::fs::read_to_string(&server.ca).unwrap();
    assert!(load(mixed.as_bytes()).contains("of another kind"));
}
