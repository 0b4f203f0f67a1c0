//! Every kind of peer × every state of the revocation list × every policy × both protocol versions, and
//! the alert that each has to see.

use std::{fs, path::PathBuf};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::SupportedProtocolVersion;
use sso_core::{
    acceptor::AcceptLimits,
    tls::{RevocationPolicy, TlsReloader, TlsSettings, TlsVersion},
};

use crate::{
    bare::{Saw, ask, client},
    pki::{Pki, development, year},
    world::serve,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Good,
    Revoked,
    Expired,
    NotYet,
    OtherAuthority,
    Namesake,
    WrongPurpose,
    Development,
    LongChain,
    LargeKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Good,
    /// There is one, of another authority.
    Missing,
    Expired,
    /// Of an authority with the right name.
    OtherKey,
}

const LISTS: [List; 4] = [List::Good, List::Missing, List::Expired, List::OtherKey];
const POLICIES: [RevocationPolicy; 3] =
    [RevocationPolicy::HardFail, RevocationPolicy::SoftFail, RevocationPolicy::Off];

/// What has to happen: the numbers are those of the standard.
fn expected(kind: Kind, list: List, policy: RevocationPolicy) -> Saw {
    let is_known = matches!(list, List::Good | List::Expired);
    let untold = match policy {
        RevocationPolicy::HardFail => Saw::Alert(113),
        RevocationPolicy::SoftFail | RevocationPolicy::Off => Saw::Served,
    };
    match kind {
        Kind::None => Saw::Alert(116),
        Kind::Expired | Kind::NotYet => Saw::Alert(45),
        Kind::OtherAuthority | Kind::Namesake => Saw::Alert(48),
        Kind::WrongPurpose => Saw::Alert(43),
        Kind::Development | Kind::LongChain | Kind::LargeKey => Saw::Alert(46),
        Kind::Good if list == List::Good => Saw::Served,
        Kind::Good => untold,
        Kind::Revoked if policy == RevocationPolicy::Off => Saw::Served,
        Kind::Revoked if is_known => Saw::Alert(44),
        Kind::Revoked => untold,
    }
}

struct World {
    pki: Pki,
    _others: [Pki; 2],
    server: TlsSettings,
    peers: Vec<(Kind, Option<TlsSettings>)>,
    lists: Vec<(List, PathBuf)>,
}

fn world() -> World {
    let pki = Pki::new();
    let namesake = Pki::new();
    let other = Pki::with(|params| {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Another");
    });
    let server = pki.issue("server");
    let revoked = pki.upcoming();
    let mut peers = vec![
        (Kind::None, None),
        (Kind::Revoked, Some(pki.issue("revoked"))),
        (Kind::Good, Some(pki.issue("good"))),
        (Kind::Expired, Some(pki.issue_with("expired", |it| it.not_after = year(2021)))),
        (Kind::NotYet, Some(pki.issue_with("not-yet", |it| it.not_before = year(2190)))),
        (Kind::OtherAuthority, Some(other.issue("other"))),
        (Kind::Namesake, Some(namesake.issue("namesake"))),
        (Kind::Development, Some(pki.issue_with("development", development))),
        (Kind::LargeKey, Some(pki.issue_for_large_key("large", 1038))),
    ];
    let wrong = pki.issue_with("wrong", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    peers.push((Kind::WrongPurpose, Some(wrong)));
    let long = pki.issue("long");
    let own = fs::read_to_string(&long.certificate).unwrap();
    fs::write(&long.certificate, own.repeat(100)).unwrap();
    peers.push((Kind::LongChain, Some(long)));
    let lists = vec![
        (List::Good, pki.write_list("good.crl", &pki.list(&[revoked], |_| {}))),
        (List::Missing, pki.write_list("missing.crl", &other.list(&[], |_| {}))),
        (
            List::Expired,
            pki.write_list("old.crl", &pki.list(&[revoked], |it| it.next_update = year(2021))),
        ),
        (List::OtherKey, pki.write_list("foreign.crl", &namesake.list(&[revoked], |_| {}))),
    ];
    World { pki, _others: [namesake, other], server, peers, lists }
}

async fn all_see_what_they_must(
    minimum: TlsVersion,
    version: &'static SupportedProtocolVersion,
) -> usize {
    let world = world();
    let mut seen = 0;
    for list in LISTS {
        for policy in POLICIES {
            let (_, path) = world.lists.iter().find(|(it, _)| *it == list).unwrap();
            let settings = TlsSettings {
                crl: vec![path.clone().into()],
                revocation: Some(policy),
                minimum_version: minimum,
                ca: world.pki.path("ca.crt"),
                ..world.server.clone()
            };
            let tls = TlsReloader::load(&settings).unwrap();
            let server = serve(tls, AcceptLimits::default()).await;
            for (kind, files) in &world.peers {
                let saw = ask(server.addr, &client(files.as_ref(), &[version])).await;
                let wanted = expected(*kind, list, policy);
                assert_eq!(saw, wanted, "{kind:?}, list {list:?}, {policy}, {version:?}");
                seen += 1;
            }
        }
    }
    seen
}

#[tokio::test]
async fn every_peer_sees_its_alert_in_tls_1_3() {
    let seen = all_see_what_they_must(TlsVersion::V1_3, &rustls::version::TLS13).await;
    assert_eq!(seen, 11 * 4 * 3);
}

#[tokio::test]
async fn every_peer_sees_its_alert_in_tls_1_2() {
    let seen = all_see_what_they_must(TlsVersion::V1_2, &rustls::version::TLS12).await;
    assert_eq!(seen, 11 * 4 * 3);
}
